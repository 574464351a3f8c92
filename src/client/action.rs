//! Actions on logged operations, and their results.

use crate::operation::{BackendName, Number, Operation, OperationId, Status};

/// An action on operations that are already logged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Fail pending and retrying operations at once, and ask running ones to stop.
    Cancel {
        /// Mark as permanently failed, including operations that have already failed.
        permanent: bool,
    },
    /// Do not run until released.
    Hold,
    /// Run again after a hold.
    Release,
    /// Delete, together with the history.
    Delete,
    /// Set the priority.
    Prioritize(i32),
    /// Run again, with the counters reset.
    Retry {
        /// Only end the backoff of retrying operations; the counters stay.
        now: bool,
    },
    /// Run again, with the present state of the source file instead of the logged one. If the hash
    /// of the content was noted, the file must still have it.
    AcceptSource,
    /// Run on another backend, as a new operation.
    Redirect(BackendName),
}

impl Action {
    /// Returns the past participle, for messages.
    pub fn past_participle(&self) -> &'static str {
        match self {
            Action::Cancel { .. } => "cancelled",
            Action::Hold => "held",
            Action::Release => "released",
            Action::Delete => "deleted",
            Action::Prioritize(_) => "reprioritized",
            Action::Retry { .. } | Action::AcceptSource => "retried",
            Action::Redirect(_) => "redirected",
        }
    }
}

/// An operation that an action does not apply to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Number of the operation.
    pub number: Number,
    /// Id of the operation.
    pub id: OperationId,
    /// Status of the operation.
    pub status: Status,
    /// The reason, and the step to take instead.
    pub why: String,
}

impl Skipped {
    /// Returns the rejection of an operation.
    pub(super) fn new(operation: &Operation, why: impl Into<String>) -> Skipped {
        Skipped {
            number: operation.number,
            id: operation.id,
            status: operation.status(),
            why: why.into(),
        }
    }
}

/// The result of an action.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// The changed operations in their new state; deleted ones in their last.
    pub operations: Vec<Operation>,
    /// Operations that were already in the requested state.
    pub unchanged: Vec<Operation>,
    /// Operations that the action does not apply to; empty with [`OnInvalid::Abort`].
    pub skipped: Vec<Skipped>,
    /// Successors of redirected operations, in the order of `operations`.
    pub redirected_to: Vec<Operation>,
}

/// The treatment of the other items of a call if one of them is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// Log or change nothing, and return an error.
    Abort,
    /// Leave the invalid item out, and report it.
    Skip,
}
