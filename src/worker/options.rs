use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::backend::Attempt;
use crate::operation::{BackendName, Event, Number, Operation, Status, failure};
use crate::wal::{DrainLoop, NumberSet};

/// The time that a second drain loop waits for `process.lock`.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);

/// The operations that a drain loop executes, and the limits at which it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessOptions {
    /// Continues when nothing is due, and waits for new operations.
    pub follow: bool,
    /// Executes operations of this backend only.
    pub backend: Option<BackendName>,
    /// The most operations that run at the same time on each backend; `None`: as configured.
    pub jobs: Option<usize>,
    /// Executes at most this many operations.
    pub limit: Option<u64>,
    /// Starts no operation after this time. Running attempts finish: cutting them short on every
    /// run would never complete them.
    pub max_time: Option<Duration>,
    /// Starts no operation after this time, and asks running ones to stop, as [`Stop`] does.
    pub deadline: Option<Duration>,
    /// Executes these operations only.
    pub(crate) only: Option<NumberSet>,
    /// The time to wait for the lock of drain loops.
    pub lock_timeout: Duration,
    /// The time for which running attempts may continue after a request to stop, or after the
    /// deadline.
    pub grace: Duration,
}

impl ProcessOptions {
    /// Sets whether the loop continues when nothing is due.
    #[must_use]
    pub fn with_follow(mut self, follow: bool) -> ProcessOptions {
        self.follow = follow;
        self
    }

    /// Restricts the loop to operations of one backend.
    #[must_use]
    pub fn with_backend(mut self, backend: Option<BackendName>) -> ProcessOptions {
        self.backend = backend;
        self
    }

    /// Sets the number of operations that run at the same time on each backend.
    #[must_use]
    pub fn with_jobs(mut self, jobs: Option<usize>) -> ProcessOptions {
        self.jobs = jobs;
        self
    }

    /// Limits the number of operations that the loop executes.
    #[must_use]
    pub fn with_limit(mut self, limit: Option<u64>) -> ProcessOptions {
        self.limit = limit;
        self
    }

    /// Sets the time after which no operation starts.
    #[must_use]
    pub fn with_max_time(mut self, max_time: Option<Duration>) -> ProcessOptions {
        self.max_time = max_time;
        self
    }

    /// Sets the time after which no operation starts and running ones are asked to stop.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Duration>) -> ProcessOptions {
        self.deadline = deadline;
        self
    }

    /// Restricts the loop to these operations.
    #[must_use]
    pub fn with_only(mut self, numbers: impl IntoIterator<Item = Number>) -> ProcessOptions {
        self.only = Some(numbers.into_iter().collect());
        self
    }

    /// Sets the time to wait for the lock of drain loops.
    #[must_use]
    pub fn with_lock_timeout(mut self, timeout: Duration) -> ProcessOptions {
        self.lock_timeout = timeout;
        self
    }

    /// Sets the time for which running attempts may continue after a request to stop.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> ProcessOptions {
        self.grace = grace;
        self
    }

    /// Returns what other processes may expect of this loop. A loop that executes named operations
    /// is not a drain loop: it takes no others, and ends soon.
    pub(crate) fn drain_loop(&self) -> Option<DrainLoop> {
        let max_time = self.max_time.into_iter().chain(self.deadline).min();
        self.only.is_none().then(|| DrainLoop {
            follow: self.follow,
            backend: self.backend.clone(),
            limit: self.limit,
            max_time_ms: max_time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        })
    }
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

/// A request to stop, which a signal handler or another thread can make.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requests: Arc<AtomicU8>,
}

impl Stop {
    /// Returns a stop that has not been requested.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Requests a stop: the first time running operations get the grace period, from the second
    /// time on they are cancelled at once.
    pub fn request(&self) {
        // The count saturates, so the update cannot fail.
        let _ = self
            .requests
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n.saturating_add(1)));
    }

    /// Returns whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        self.requests.load(Ordering::SeqCst) > 0
    }

    /// Returns whether a stop was requested twice.
    pub fn is_urgent(&self) -> bool {
        self.requests.load(Ordering::SeqCst) > 1
    }
}

/// The results of a drain loop, as numbers of operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessReport {
    /// Completed operations.
    pub completed: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Attempts that failed and will be retried.
    pub retrying: u64,
    /// Operations that ended because they were cancelled.
    pub cancelled: u64,
    /// Operations returned to the queue because their backend is unreachable.
    pub postponed: u64,
    /// Operations returned to the queue because of a request to stop, or a limit of time.
    pub handed_back: u64,
    /// Operations that a dead drain loop had claimed, and that were settled.
    pub recovered: u64,
    /// Operations whose outcome is still unknown: they stay claimed.
    pub in_doubt: u64,
    /// True if a request to stop ended the loop.
    pub stopped: bool,
    /// Free bytes of the disk, if the loop ended with work left because they are too few for
    /// outcomes.
    pub out_of_room: Option<u64>,
    /// True if the loop ended with work left because its time was up.
    pub out_of_time: bool,
    /// Unreachable backends that operations wait for.
    pub unreachable: Vec<BackendName>,
}

impl ProcessReport {
    /// Counts an operation that an attempt, or a loop that recovers from a crash, has settled.
    pub(super) fn count(&mut self, operation: &Operation, event: &Event) {
        let counter = match (operation.status(), event) {
            (Status::Completed, _) => &mut self.completed,
            (Status::Failed, Event::Failed { failure })
                if failure.error_type == failure::CANCELLED =>
            {
                &mut self.cancelled
            }
            (Status::Failed, _) => &mut self.failed,
            (Status::Retrying, _) => &mut self.retrying,
            (_, Event::Requeued { failure: Some(_), .. }) => &mut self.postponed,
            _ => &mut self.handed_back,
        };
        *counter += 1;
    }
}

/// Receives the events of a drain loop.
pub trait Observer {
    /// Called when an attempt begins.
    fn started(&mut self, _operation: &Operation, _attempt: &Arc<Attempt>) {}
    /// Called when the outcome of an attempt is durable.
    fn settled(&mut self, _operation: &Operation) {}
    /// Called about ten times a second while the loop runs; `waiting` operations are pending or
    /// retrying.
    fn tick(&mut self, _report: &ProcessReport, _waiting: u64) {}
}

/// An observer that ignores all events.
#[derive(Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
