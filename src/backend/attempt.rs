//! One execution of an operation: its control and progress, its errors, and its status if the
//! answer was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::RateLimiter;
use crate::operation::{Failure, FailureClass, Outcome};

/// The connection between a drain loop and one running attempt: a request to stop in one
/// direction, progress in the other.
///
/// A backend calls [`is_cancelled`](Attempt::is_cancelled) and
/// [`add_bytes`](Attempt::add_bytes) at least once per chunk of content. All of this is
/// best effort: only the result of the attempt counts.
#[derive(Debug, Default)]
pub struct Attempt {
    cancelled: AtomicBool,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    limiter: Option<Arc<RateLimiter>>,
}

impl Attempt {
    /// Returns an attempt that moves bytes no faster than `limiter` allows. `None` sets no limit.
    pub(crate) fn rate_limited(limiter: Option<Arc<RateLimiter>>) -> Attempt {
        Attempt { limiter, ..Attempt::default() }
    }

    /// Asks the attempt to stop as soon as it can.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Returns whether the attempt was asked to stop.
    ///
    /// A backend that stops before it changed anything returns [`AttemptError::Stopped`]; one that
    /// cannot tell returns [`AttemptError::UnknownOutcome`].
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Sets the number of bytes that the attempt has to move.
    pub fn expect_bytes(&self, total: u64) {
        self.bytes_total.store(total, Ordering::Relaxed);
    }

    /// Adds moved bytes to the progress. Blocks while the backend's `max_bytes_per_second` is
    /// exceeded, until the attempt is cancelled.
    pub fn add_bytes(&self, moved: u64) {
        self.bytes_done.fetch_add(moved, Ordering::Relaxed);
        if let Some(limiter) = &self.limiter {
            limiter.wait(moved, || self.is_cancelled());
        }
    }

    /// Adds bytes to the progress that need not be moved because the destination has them. Never
    /// blocks.
    pub fn skip_bytes(&self, present: u64) {
        self.bytes_done.fetch_add(present, Ordering::Relaxed);
    }

    /// Returns the bytes moved so far and the bytes expected. 0 expected bytes mean unknown.
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes_done.load(Ordering::Relaxed), self.bytes_total.load(Ordering::Relaxed))
    }
}

/// The reason why an attempt did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// The attempt failed, and the operation certainly did not take effect, or may be repeated
    /// without harm.
    #[error("{}", failure.message)]
    Failed {
        /// The class decides between retrying, failing for good and waiting for the backend to
        /// become reachable.
        failure: Failure,
        /// Milliseconds that the backend asked to wait before the next attempt.
        retry_after_ms: Option<u64>,
    },
    /// The attempt was cancelled before it changed anything. The operation returns to the queue.
    #[error("interrupted")]
    Stopped,
    /// The operation may or may not have taken effect. The drain loop asks
    /// [`Backend::query_attempt`](super::Backend::query_attempt) before anything is repeated.
    #[error("{}", .0.message)]
    UnknownOutcome(Failure),
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> AttemptError {
        AttemptError::Failed { failure, retry_after_ms: None }
    }
}

impl AttemptError {
    /// Returns a failure that a retry cannot cure.
    ///
    /// `error_type` is a word for programs, in snake case; `message` says what failed, on what,
    /// and why.
    pub fn permanent(error_type: &str, message: impl Into<String>) -> AttemptError {
        AttemptError::failed(FailureClass::Permanent, error_type, message)
    }

    /// Returns a failure that a retry may cure.
    pub fn transient(error_type: &str, message: impl Into<String>) -> AttemptError {
        AttemptError::failed(FailureClass::Transient, error_type, message)
    }

    /// Returns a failure of the given class. [`FailureClass::Outage`] says that the backend is
    /// unreachable: the attempt does not count as a retry, and other operations wait as well.
    pub fn failed(
        class: FailureClass,
        error_type: &str,
        message: impl Into<String>,
    ) -> AttemptError {
        let failure = Failure { class, error_type: error_type.to_owned(), message: message.into() };
        failure.into()
    }
}

/// A backend's answer to a query about an attempt whose outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptStatus {
    /// The operation took effect, with this outcome.
    Done(Outcome),
    /// The operation did not take effect, or repeating it does no harm.
    NotDone,
    /// It cannot be determined, and repeating the operation may do harm; the text says why. The
    /// operation fails as `in_doubt`.
    Unknown(String),
    /// The attempt continues without the process that began it; the text says what is running and
    /// how to end it. The question is repeated later.
    StillRunning(String),
}
