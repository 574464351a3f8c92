use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::backend::Attempt;
use crate::operation::{BackendName, Operation};
use crate::wal::manifest::NumberSet;

/// How long a second drain loop tries to get the lock of a first one.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);

/// What a drain loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Keep draining when nothing is due.
    pub follow: bool,
    /// Only this backend.
    pub backend: Option<BackendName>,
    /// Operations at once on each backend; none: as configured.
    pub jobs: Option<usize>,
    /// Carry out at most this many.
    pub limit: Option<u64>,
    /// Begin nothing new after this time. What runs is carried through: who cuts it short every time never gets it done.
    pub max_time: Option<Duration>,
    /// Be done by this time: after it, what runs is asked to stop as if a stop had been requested.
    pub deadline: Option<Duration>,
    /// Only these operations.
    pub only: Option<NumberSet>,
    /// How long to try for the lock.
    pub lock_timeout: Duration,
    /// How long running attempts may go on after a request to stop, or after the deadline.
    pub grace: Duration,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        ProcessOptions {
            follow: false,
            backend: None,
            jobs: None,
            limit: None,
            max_time: None,
            deadline: None,
            only: None,
            lock_timeout: LOCK_TIMEOUT,
            grace: Duration::from_secs(10),
        }
    }
}

/// A request to stop; may be made from a signal handler or another thread.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requests: Arc<AtomicU8>,
}

impl Stop {
    /// A stop that nobody has requested.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Requests it: the first time gently, from the second time on at once.
    pub fn request(&self) {
        // Two are as good as many.
        let _ = self
            .requests
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n.saturating_add(1)));
    }

    /// Whether it was requested.
    pub fn is_requested(&self) -> bool {
        self.requests.load(Ordering::SeqCst) > 0
    }

    /// Whether it was requested twice.
    pub fn is_urgent(&self) -> bool {
        self.requests.load(Ordering::SeqCst) > 1
    }
}

/// What a drain loop did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessReport {
    /// Completed.
    pub completed: u64,
    /// Ended without success.
    pub failed: u64,
    /// To be tried again later.
    pub retrying: u64,
    /// Ended because somebody cancelled them.
    pub cancelled: u64,
    /// Given back because the backend was away.
    pub postponed: u64,
    /// Given back because of a request to stop.
    pub handed_back: u64,
    /// Found claimed by a dead drain loop, and settled.
    pub recovered: u64,
    /// Of which nobody knows yet what became of them: left as they are.
    pub in_doubt: u64,
    /// Whether a request to stop ended it.
    pub stopped: bool,
    /// Free bytes of the disk, if it ended with work left because outcomes may find no room there.
    pub out_of_room: Option<u64>,
    /// Whether it ended with work left because its time was up.
    pub out_of_time: bool,
    /// Backends that are away, or were when it ended, and that something waits for.
    pub away: Vec<BackendName>,
}

/// Who is told what a drain loop does.
pub trait Observer {
    /// An attempt begins.
    fn started(&mut self, _operation: &Operation, _attempt: &Arc<Attempt>) {}
    /// An attempt ended, and that is durable.
    fn settled(&mut self, _operation: &Operation) {}
    /// The loop is alive; `waiting` operations are pending or retrying.
    fn tick(&mut self, _report: &ProcessReport, _waiting: u64) {}
}

/// An observer that looks away.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
