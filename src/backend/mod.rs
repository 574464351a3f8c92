//! Backends: the places where operations are carried out.
//!
//! A backend knows its own protocol, and neither the log nor the retry policy: it carries out one
//! operation, says what came of an earlier attempt, and proves that it is there.

mod audit;
pub mod custom;
mod effect;
mod errors;
#[cfg(feature = "test-util")]
pub mod failpoint;
mod files;
#[cfg(feature = "ipfs")]
pub mod ipfs;
mod listed;
pub mod local;
pub mod mock;
mod parameters;
mod place;
mod rate_limit;
mod registry;
#[cfg(any(feature = "ipfs", feature = "s3"))]
mod runtime;
#[cfg(feature = "s3")]
mod s3;
pub mod unixfs;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use audit::{effects, is_looked_at};
pub use custom::CustomBackend;
pub use effect::{AuditResult, Effect, Reach};
#[cfg(feature = "ipfs")]
pub use ipfs::{Credentials, IpfsBackend, IpfsOptions};
pub use local::LocalBackend;
pub use mock::{MockBackend, MockOptions};
pub use parameters::TYPES;
pub use rate_limit::RateLimiter;
pub use registry::{Backends, Refusal};
#[cfg(feature = "s3")]
pub use s3::{AccessKeys, Notes as UploadNotes, S3Backend, S3Options};

use crate::operation::{
    BackendName, Failure, FailureClass, Fields, Number, OperationId, OperationType, Outcome, Source,
};

/// What a backend is asked to carry out.
#[derive(Debug, Clone)]
pub struct Request {
    /// The operation's id.
    pub id: OperationId,
    /// The operation's number.
    pub number: Number,
    /// What is to be done.
    pub operation_type: OperationType,
    /// The backend's configured name.
    pub backend: BackendName,
    /// With what: `path`, `cid`, `source`, `destination`, `recursive`, and options of the backend.
    pub parameters: Fields,
    /// The file it refers to, as it was when the operation was logged.
    pub source: Option<Source>,
    /// A copy of that file in the log, to be read in its place; `path` stays what it was, for names and types.
    pub content: Option<PathBuf>,
}

/// What the drain loop and a running attempt tell each other.
#[derive(Debug, Default)]
pub struct Attempt {
    cancelled: AtomicBool,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    pace: Option<Arc<RateLimiter>>,
}

impl Attempt {
    /// An attempt that moves no more bytes per second than this, if anything.
    pub fn rate_limited(pace: Option<Arc<RateLimiter>>) -> Attempt {
        Attempt { pace, ..Attempt::default() }
    }

    /// Asks the attempt to stop as soon as it can.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the attempt was asked to stop. Backends look at least once per chunk of content.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Tells how many bytes there are to move.
    pub fn expect_bytes(&self, total: u64) {
        self.bytes_total.store(total, Ordering::Relaxed);
    }

    /// Tells that more bytes were moved, and waits if that was faster than it may be.
    pub fn add_bytes(&self, moved: u64) {
        self.bytes_done.fetch_add(moved, Ordering::Relaxed);
        if let Some(pace) = &self.pace {
            pace.wait(moved, || self.is_cancelled());
        }
    }

    /// Tells of bytes that need not be moved: they are where they are to go already.
    pub fn skip_bytes(&self, there: u64) {
        self.bytes_done.fetch_add(there, Ordering::Relaxed);
    }

    /// Bytes moved so far, and bytes expected (0: unknown).
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes_done.load(Ordering::Relaxed), self.bytes_total.load(Ordering::Relaxed))
    }
}

/// How an attempt ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptError {
    /// The backend, or the input, said no.
    Failed {
        /// What it said.
        failure: Failure,
        /// How long it asked us to wait, in milliseconds, if it did.
        retry_after_ms: Option<u64>,
    },
    /// It stopped because it was asked to, and nothing was done.
    Stopped,
    /// No answer came: it may have been done. [`Backend::query_attempt`] decides.
    UnknownOutcome(Failure),
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> AttemptError {
        AttemptError::Failed { failure, retry_after_ms: None }
    }
}

impl AttemptError {
    /// A failure that trying again cannot cure.
    pub fn permanent(error_type: &str, message: impl Into<String>) -> AttemptError {
        AttemptError::failed(FailureClass::Permanent, error_type, message)
    }

    /// A failure that may pass.
    pub fn transient(error_type: &str, message: impl Into<String>) -> AttemptError {
        AttemptError::failed(FailureClass::Transient, error_type, message)
    }

    /// A failure of a given class.
    pub fn failed(
        class: FailureClass,
        error_type: &str,
        message: impl Into<String>,
    ) -> AttemptError {
        let failure = Failure { class, error_type: error_type.to_owned(), message: message.into() };
        failure.into()
    }
}

/// What a backend says about an attempt that never got its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptStatus {
    /// It was done, with this result.
    Done(Outcome),
    /// It was not done, or repeating it does no harm.
    NotDone,
    /// Nobody can tell, and repeating it may do harm; the text says why.
    Unknown(String),
    /// It still goes on, without the one who began it; the text says what goes on, and what to do.
    StillRunning(String),
}

/// A place where operations are carried out.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Carries the operation out and verifies its result.
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError>;

    /// Says what became of an attempt without an answer.
    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError>;

    /// Whether what a completed operation brought about is still there, and still is what it was.
    ///
    /// An error: that could not be found out.
    fn audit(
        &self,
        _request: &Request,
        _outcome: &Outcome,
        _attempt: &Attempt,
    ) -> Result<AuditResult, AttemptError> {
        Ok(AuditResult::NotApplicable)
    }

    /// What goes on of what a dead drain loop began, and what to do, as far as that can be seen at once and without a
    /// network; none: nothing.
    fn detached_work(&self, _request: &Request) -> Option<String> {
        None
    }

    /// The outcome of an attempt at this operation is durable: what was kept to tell of it may go.
    fn release_attempt(&self, _number: Number) {}

    /// Operations of which attempts may have left something at the backend that nobody sees and that costs: half an
    /// upload, say. Seen without a network.
    fn orphans(&self) -> Vec<(Number, OperationId)> {
        Vec::new()
    }

    /// Removes from the backend what attempts have left there of an operation that is over, or not there any more.
    fn abort_orphan(&self, _number: Number, _id: OperationId) -> Result<(), AttemptError> {
        Ok(())
    }

    /// Proves that the backend works; the text of a failure says what is wrong and what to do.
    fn health(&self) -> Result<(), Failure>;
}
