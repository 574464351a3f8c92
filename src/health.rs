//! Health of backends: probes, their history, and what it amounts to.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Backends};
use crate::clock::Clock;
use crate::disk::{Disk, DiskResult, replace_unsynced};
use crate::operation::{BackendName, Failure, FailureClass, Time};
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

/// A change of status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    /// When.
    pub at: Time,
    /// What it was.
    pub from: HealthStatus,
    /// What it became.
    pub to: HealthStatus,
}

/// What is known of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendHealth {
    /// Its name.
    pub backend: BackendName,
    /// What the last checks amount to.
    pub status: HealthStatus,
    /// When it was last checked: by a probe, or by an operation that reached it or did not.
    pub last_check: Option<Time>,
    /// Results of its checks, oldest first.
    pub check_history: Vec<bool>,
    /// The last changes of its status, oldest first.
    pub changes: Vec<StatusChange>,
    /// Why the last check failed, if it did; of what is not configured, what is missing, if some of it is there.
    pub failure: Option<Failure>,
}

impl BackendHealth {
    /// When it last came back from being offline.
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

/// `health.json`: a convenience shared by runs, not a promise.
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

/// Changes of status that are remembered.
const CHANGES_MAX: usize = 20;

fn keep_last<T>(all: &mut Vec<T>, most: usize) {
    let surplus = all.len().saturating_sub(most);
    all.drain(..surplus);
}

/// What a check says.
pub type ProbeResult = Result<(), Failure>;

/// Where the history of checks is kept.
#[derive(Debug, Clone, Copy)]
pub struct HealthStore<'a> {
    /// The log's disk.
    pub disk: &'a dyn Disk,
    /// The log's files.
    pub layout: &'a Layout,
    /// How many checks are remembered for each backend.
    pub history_size: usize,
}

fn load(store: HealthStore<'_>) -> HealthFile {
    let bytes = store.disk.read(&store.layout.health()).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Keeps the file, if there is a log to keep it in. Losing it costs nothing, so nothing is synced.
fn save(HealthStore { disk, layout, .. }: HealthStore<'_>, file: &HealthFile) -> DiskResult<()> {
    let Ok(bytes) = serde_json::to_vec(file) else { return Ok(()) };
    if !disk.exists(&layout.tmp())? {
        return Ok(());
    }
    let staged = layout.staged(&format!("health.{}.json", disk.identity().pid));
    replace_unsynced(disk, &staged, &layout.health(), &bytes)
}

/// Writes down what checks said, and tells what that amounts to.
///
/// Two processes that do so at the same instant may lose a check of one of them.
pub fn record(
    store: HealthStore<'_>,
    at: Time,
    checks: &[(BackendName, ProbeResult)],
) -> Vec<BackendHealth> {
    let mut file = load(store);
    for (backend, checked) in checks {
        file.backends.entry(backend.clone()).or_default().record(at, checked, store.history_size);
    }
    // A read-only log is still told about; its history just does not grow.
    let _ = save(store, &file);
    let records =
        checks.iter().filter_map(|(backend, _)| Some((backend, file.backends.remove(backend)?)));
    records.map(|(backend, record)| record.into_health(backend.clone())).collect()
}

/// Asks a backend whether it is there. One that panics says nothing good.
pub fn check(backend: &dyn Backend) -> ProbeResult {
    catch_unwind(AssertUnwindSafe(|| backend.health())).unwrap_or_else(|_| {
        Err(Failure {
            class: FailureClass::Outage,
            error_type: "backend_panicked".into(),
            message: "it panicked when it was probed: a bug in it".into(),
        })
    })
}

/// Probes backends, all at once, and tells what that, with their history, amounts to.
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
            message: format!("it has no `{key}`; set `backends.{name}.{key}`"),
        })
    };
    let of = |name: &BackendName| {
        known.remove(name).unwrap_or_else(|| BackendHealth::not_configured(name, missing(name)))
    };
    asked.into_iter().map(of).collect()
}

/// What is known without probing.
pub fn known(store: HealthStore<'_>) -> Vec<BackendHealth> {
    load(store).backends.into_iter().map(|(backend, record)| record.into_health(backend)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;

    fn away() -> ProbeResult {
        Err(Failure {
            class: FailureClass::Outage,
            error_type: "refused".into(),
            message: "nobody listens".into(),
        })
    }

    #[test]
    fn changes_are_kept_and_tell_when_it_came_back() {
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
        assert_eq!(check(away()).status, HealthStatus::Offline, "of two the last one decides");
        assert_eq!(check(away()).status, HealthStatus::Degraded);
        let offline = check(away());
        assert_eq!((offline.status, offline.failure), (HealthStatus::Offline, away().err()));
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
