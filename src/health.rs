//! Health of backends: probes, their history, and what it amounts to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backend::Backends;
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskResult};
use crate::operation::{BackendName, Failure, Time};
use crate::wal::Layout;

/// What the last probes amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// The last probes all succeeded.
    Online,
    /// Some did.
    Degraded,
    /// None did.
    Offline,
    /// It has never been probed.
    Unknown,
    /// It is not built into this program or not configured: not probed.
    NotConfigured,
}

impl HealthStatus {
    /// All five.
    pub const ALL: [HealthStatus; 5] = [
        HealthStatus::Online,
        HealthStatus::Degraded,
        HealthStatus::Offline,
        HealthStatus::Unknown,
        HealthStatus::NotConfigured,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Online => "online",
            HealthStatus::Degraded => "degraded",
            HealthStatus::Offline => "offline",
            HealthStatus::Unknown => "unknown",
            HealthStatus::NotConfigured => "not configured",
        }
    }

    /// Of the last three probes: all good, none, or some; with fewer, the last one decides.
    pub fn of(history: &[bool]) -> HealthStatus {
        let last = &history[history.len().saturating_sub(3)..];
        match last {
            [] => HealthStatus::Unknown,
            [only] | [_, only] => {
                if *only {
                    HealthStatus::Online
                } else {
                    HealthStatus::Offline
                }
            }
            _ if last.iter().all(|good| *good) => HealthStatus::Online,
            _ if last.iter().any(|good| *good) => HealthStatus::Degraded,
            _ => HealthStatus::Offline,
        }
    }
}

/// What is known of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendHealth {
    /// Its name.
    pub backend: BackendName,
    /// What the last probes amount to.
    pub status: HealthStatus,
    /// When it was last probed.
    pub last_check: Option<Time>,
    /// Results of its probes, oldest first.
    pub check_history: Vec<bool>,
    /// Why the last probe failed, if it did.
    pub failure: Option<Failure>,
}

/// `health.json`: a convenience shared by runs, not a promise.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Book {
    backends: BTreeMap<BackendName, Page>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    last_check: Time,
    history: Vec<bool>,
}

/// Where the history of probes is kept.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    /// The log's disk.
    pub disk: &'a dyn Disk,
    /// The log's files.
    pub layout: &'a Layout,
    /// How many probes are remembered for each backend.
    pub history_size: usize,
}

fn load(records: Records<'_>) -> Book {
    let bytes = records.disk.read(&records.layout.health()).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Keeps the book, if there is a log to keep it in. Losing it costs nothing, so nothing is synced.
fn save(Records { disk, layout, .. }: Records<'_>, book: &Book) -> DiskResult<()> {
    let Ok(bytes) = serde_json::to_vec(book) else { return Ok(()) };
    if !disk.exists(&layout.tmp())? {
        return Ok(());
    }
    let staged = layout.staged(&format!("health.{}.json", disk.identity().pid));
    disk.open(&staged, Access::CreateNew)?.write_at(&bytes, 0)?;
    disk.rename(&staged, &layout.health())
}

/// Probes backends and tells what that, with their history, amounts to.
pub fn probe(
    records: Records<'_>,
    backends: &Backends,
    clock: &dyn Clock,
    only: Option<&BackendName>,
) -> Vec<BackendHealth> {
    let mut book = load(records);
    let mut all = Vec::new();
    for (name, ready) in backends.names().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let Some(backend) = backends.get(name).filter(|_| ready) else {
            all.push(BackendHealth {
                backend: name.clone(),
                status: HealthStatus::NotConfigured,
                last_check: None,
                check_history: Vec::new(),
                failure: None,
            });
            continue;
        };
        let result = backend.health();
        let page = book.backends.entry(name.clone()).or_default();
        page.last_check = clock.now();
        page.history.push(result.is_ok());
        let surplus = page.history.len().saturating_sub(records.history_size);
        page.history.drain(..surplus);
        all.push(BackendHealth {
            backend: name.clone(),
            status: HealthStatus::of(&page.history),
            last_check: Some(page.last_check),
            check_history: page.history.clone(),
            failure: result.err(),
        });
    }
    // A read-only log is still told about; its history just does not grow.
    let _ = save(records, &book);
    all
}

/// What is known without probing.
pub fn known(records: Records<'_>) -> Vec<BackendHealth> {
    let book = load(records);
    book.backends
        .into_iter()
        .map(|(backend, page)| BackendHealth {
            backend,
            status: HealthStatus::of(&page.history),
            last_check: Some(page.last_check),
            check_history: page.history,
            failure: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_three_probes_decide() {
        for (history, status) in [
            (&[][..], HealthStatus::Unknown),
            (&[false], HealthStatus::Offline),
            (&[false, true], HealthStatus::Online),
            (&[true, true, true], HealthStatus::Online),
            (&[false, true, true, true], HealthStatus::Online),
            (&[true, false, true], HealthStatus::Degraded),
            (&[true, false, false, false], HealthStatus::Offline),
        ] {
            assert_eq!(HealthStatus::of(history), status, "{history:?}");
        }
    }
}
