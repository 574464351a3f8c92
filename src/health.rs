//! Health of backends: checks, their history, and the status that follows from it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Backends};
use crate::clock::Clock;
use crate::disk::{Disk, DiskResult, replace_unsynced};
use crate::operation::{BackendName, Failure, FailureClass, Time};
use crate::wal::Layout;

/// The health of a backend, from its last checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// The last three checks succeeded.
    Online,
    /// Some of the last three checks succeeded.
    Degraded,
    /// The last three checks failed.
    Offline,
    /// The backend has never been checked.
    Unknown,
    /// The backend is not configured, or not built into this program, and is not checked.
    NotConfigured,
}

impl HealthStatus {
    /// All statuses.
    pub const ALL: [HealthStatus; 5] = [
        HealthStatus::Online,
        HealthStatus::Degraded,
        HealthStatus::Offline,
        HealthStatus::Unknown,
        HealthStatus::NotConfigured,
    ];

    /// Returns the word for this status.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Online => "online",
            HealthStatus::Degraded => "degraded",
            HealthStatus::Offline => "offline",
            HealthStatus::Unknown => "unknown",
            HealthStatus::NotConfigured => "not configured",
        }
    }

    /// Returns the status after these checks, oldest first. The last three decide; of fewer than
    /// three, the last one.
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
            _ if last.iter().all(|is_ok| *is_ok) => HealthStatus::Online,
            _ if last.iter().any(|is_ok| *is_ok) => HealthStatus::Degraded,
            _ => HealthStatus::Offline,
        }
    }
}

/// A change of status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatusChange {
    /// When the status changed.
    pub at: Time,
    /// The status before.
    pub from: HealthStatus,
    /// The status after.
    pub to: HealthStatus,
}

/// The recorded health of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendHealth {
    /// Its name.
    pub backend: BackendName,
    /// Its status after the last check.
    pub status: HealthStatus,
    /// When it was last checked, by a probe or by an operation that needed it.
    pub last_check: Option<Time>,
    /// Results of its last checks, oldest first.
    pub check_history: Vec<bool>,
    /// The last changes of its status, oldest first.
    pub changes: Vec<StatusChange>,
    /// Why the last check failed, if it did; if the backend is configured in part, the missing
    /// setting.
    pub failure: Option<Failure>,
}

impl BackendHealth {
    /// Returns when the backend last recovered from being offline.
    pub fn recovered_at(&self) -> Option<Time> {
        let back = |change: &&StatusChange| {
            change.from == HealthStatus::Offline && change.to != HealthStatus::Offline
        };
        self.changes.iter().rev().find(back).map(|change| change.at)
    }

    fn not_configured(backend: &BackendName, failure: Option<Failure>) -> BackendHealth {
        let (check_history, changes) = Default::default();
        let (backend, status) = (backend.clone(), HealthStatus::NotConfigured);
        BackendHealth { backend, status, last_check: None, check_history, changes, failure }
    }
}

/// The content of `health.json`, which runs share. It may be lost without harm.
#[derive(Debug, Default, Serialize, Deserialize)]
struct HealthFile {
    backends: BTreeMap<BackendName, BackendRecord>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct BackendRecord {
    last_check: Time,
    history: Vec<bool>,
    #[serde(default)]
    changes: Vec<StatusChange>,
    #[serde(default)]
    failure: Option<Failure>,
}

impl BackendRecord {
    fn record(&mut self, at: Time, checked: &ProbeResult, history_size: usize) {
        let from = HealthStatus::of(&self.history);
        self.last_check = at;
        self.history.push(checked.is_ok());
        keep_last(&mut self.history, history_size);
        self.failure = checked.as_ref().err().cloned();
        let to = HealthStatus::of(&self.history);
        if from != to {
            self.changes.push(StatusChange { at, from, to });
            keep_last(&mut self.changes, CHANGES_MAX);
        }
    }

    fn into_health(self, backend: BackendName) -> BackendHealth {
        BackendHealth {
            backend,
            status: HealthStatus::of(&self.history),
            last_check: Some(self.last_check),
            check_history: self.history,
            changes: self.changes,
            failure: self.failure,
        }
    }
}

/// The number of changes of status that are kept for each backend.
const CHANGES_MAX: usize = 20;

fn keep_last<T>(all: &mut Vec<T>, most: usize) {
    let surplus = all.len().saturating_sub(most);
    all.drain(..surplus);
}

/// The result of a check: reachable, or the failure to reach the backend.
pub type ProbeResult = Result<(), Failure>;

/// The place of the recorded checks.
#[derive(Debug, Clone, Copy)]
pub struct HealthStore<'a> {
    /// The disk of the log.
    pub disk: &'a dyn Disk,
    /// The files of the log.
    pub layout: &'a Layout,
    /// The number of checks that are kept for each backend.
    pub history_size: usize,
}

fn load(store: HealthStore<'_>) -> HealthFile {
    let bytes = store.disk.read(&store.layout.health()).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Writes the file if the log exists. Nothing is synced, since losing it costs nothing.
fn save(HealthStore { disk, layout, .. }: HealthStore<'_>, file: &HealthFile) -> DiskResult<()> {
    let Ok(bytes) = serde_json::to_vec(file) else { return Ok(()) };
    if !disk.exists(&layout.tmp())? {
        return Ok(());
    }
    let staged = layout.staged(&format!("health.{}.json", disk.identity().pid));
    replace_unsynced(disk, &staged, &layout.health(), &bytes)
}

/// Records the results of checks, and returns the resulting health.
///
/// If two processes do so at the same time, the result of one may be lost.
pub fn record(
    store: HealthStore<'_>,
    at: Time,
    checks: &[(BackendName, ProbeResult)],
) -> Vec<BackendHealth> {
    let mut file = load(store);
    for (backend, checked) in checks {
        file.backends.entry(backend.clone()).or_default().record(at, checked, store.history_size);
    }
    // On a read-only disk the health is still reported; its history does not grow.
    let _ = save(store, &file);
    let records =
        checks.iter().filter_map(|(backend, _)| Some((backend, file.backends.remove(backend)?)));
    records.map(|(backend, record)| record.into_health(backend.clone())).collect()
}

/// Probes a backend. A panic counts as a failure.
pub fn check(backend: &dyn Backend) -> ProbeResult {
    catch_unwind(AssertUnwindSafe(|| backend.health())).unwrap_or_else(|_| {
        Err(Failure {
            class: FailureClass::Outage,
            error_type: "backend_panicked".into(),
            message: "the probe panicked: this is a bug in the backend, see stderr".into(),
        })
    })
}

/// Probes one backend or all of them, concurrently, and returns their health.
pub fn probe(
    store: HealthStore<'_>,
    backends: &Backends,
    clock: &dyn Clock,
    only: Option<&BackendName>,
) -> Vec<BackendHealth> {
    let asked: Vec<&BackendName> = backends
        .names()
        .map(|(name, _)| name)
        .filter(|name| only.is_none_or(|only| only == *name))
        .collect();
    let checks: Vec<(BackendName, ProbeResult)> = std::thread::scope(|scope| {
        let ready = asked.iter().filter_map(|name| Some((*name, backends.get(name)?)));
        let probes: Vec<_> =
            ready.map(|(name, backend)| (name, scope.spawn(|| check(&**backend)))).collect();
        probes
            .into_iter()
            .filter_map(|(name, probe)| Some((name.clone(), probe.join().ok()?)))
            .collect()
    });
    let mut known: BTreeMap<BackendName, BackendHealth> = record(store, clock.now(), &checks)
        .into_iter()
        .map(|health| (health.backend.clone(), health))
        .collect();
    let missing = |name: &BackendName| {
        backends.missing_key(name).map(|key| Failure {
            class: FailureClass::Permanent,
            error_type: "misconfigured".into(),
            message: format!("the setting `backends.{name}.{key}` is missing"),
        })
    };
    let of = |name: &BackendName| {
        known.remove(name).unwrap_or_else(|| BackendHealth::not_configured(name, missing(name)))
    };
    asked.into_iter().map(of).collect()
}

/// Returns the recorded health of all backends, without probing them.
pub fn known(store: HealthStore<'_>) -> Vec<BackendHealth> {
    load(store).backends.into_iter().map(|(backend, record)| record.into_health(backend)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;

    fn unreachable() -> ProbeResult {
        Err(Failure {
            class: FailureClass::Outage,
            error_type: "refused".into(),
            message: "connection refused".into(),
        })
    }

    #[test]
    fn changes_of_status_are_kept_and_date_the_recovery() {
        let machine = Machine::new();
        let (disk, layout) = (machine.process(), Layout::new("/wal"));
        disk.create_dir(layout.base()).unwrap();
        disk.create_dir(&layout.tmp()).unwrap();
        let store = HealthStore { disk: &disk, layout: &layout, history_size: 5 };
        let name = BackendName::new("a").unwrap();
        let mut at = 0;
        let mut check = |checked: ProbeResult| {
            at += 1000;
            record(store, Time::from_millis(at), &[(name.clone(), checked)]).remove(0)
        };
        assert_eq!(check(Ok(())).status, HealthStatus::Online);
        assert_eq!(check(unreachable()).status, HealthStatus::Offline, "the last of two decides");
        assert_eq!(check(unreachable()).status, HealthStatus::Degraded);
        let offline = check(unreachable());
        assert_eq!((offline.status, offline.failure), (HealthStatus::Offline, unreachable().err()));
        let back = check(Ok(()));
        assert_eq!(
            (back.status, back.recovered_at()),
            (HealthStatus::Degraded, Some(Time::from_millis(5000)))
        );
        for _ in 0..10 {
            check(Ok(()));
        }
        let known = known(store).remove(0);
        assert_eq!((known.status, known.check_history.len()), (HealthStatus::Online, 5));
        assert_eq!(known.changes.last().unwrap().at, Time::from_millis(7000));
        assert_eq!(known.failure, None);
    }

    #[test]
    fn the_last_three_checks_decide() {
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
