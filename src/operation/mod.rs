//! Operations: plain values, their legal transitions, and the arithmetic of retries.
//!
//! Nothing here touches a file, a clock or the network: a function that needs the time takes it as
//! an argument. [`apply`] is the only place where an operation changes.

pub mod cause;
mod counter;
pub(crate) mod defaults;
mod event;
pub mod failure;
mod names;
pub mod retry;
mod time;
mod transition;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use counter::{Number, NumberRange, Revision};
pub use event::{Event, Logged};
pub use names::{BackendName, InvalidName, OperationId, OperationType};
pub use time::Time;
pub use transition::{IllegalTransition, Transition, apply};

/// Text parameters and receipts, ordered by name.
pub type Fields = BTreeMap<String, String>;

/// The status of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Logged and waiting for its first attempt, or requeued.
    Pending,
    /// Claimed: its backend may have been called.
    Processing,
    /// Completed, its result verified.
    Completed,
    /// Failed; it stays failed until a user retries, redirects or deletes it.
    Failed,
    /// An attempt failed; the next one is scheduled.
    Retrying,
}

impl Status {
    /// All statuses, in the order in which they are displayed.
    pub const ALL: [Status; 5] =
        [Status::Pending, Status::Processing, Status::Completed, Status::Failed, Status::Retrying];

    /// Returns the word used in columns, JSON and arguments.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Processing => "processing",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Retrying => "retrying",
        }
    }

    /// Returns the status with this word, if there is one.
    pub fn parse(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Returns true if no automatic step follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Failed)
    }

    /// Returns true if one transition can lead from this status to `next`.
    pub fn may_become(self, next: Status) -> bool {
        use Status::{Completed, Failed, Pending, Processing, Retrying};
        match self {
            Pending => matches!(next, Pending | Processing | Failed),
            Processing => true,
            Retrying => matches!(next, Retrying | Processing | Pending | Failed),
            Failed => matches!(next, Failed | Pending),
            Completed => next == Completed,
        }
    }

    /// Returns true if a drain loop may claim the operation once it is due.
    pub fn is_waiting(self) -> bool {
        matches!(self, Status::Pending | Status::Retrying)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The consequence of a failure for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Another attempt cannot help: invalid input, access denied, not supported.
    Permanent,
    /// The backend answered, but the attempt failed: it is retried with backoff.
    Transient,
    /// The backend is unreachable: no attempt is spent, and its circuit breaker opens.
    Outage,
}

impl FailureClass {
    /// All classes.
    pub const ALL: [FailureClass; 3] =
        [FailureClass::Permanent, FailureClass::Transient, FailureClass::Outage];

    /// Returns the word used in columns and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureClass::Permanent => "permanent",
            FailureClass::Transient => "transient",
            FailureClass::Outage => "outage",
        }
    }

    /// Returns the class with this word, if there is one.
    pub fn parse(word: &str) -> Option<FailureClass> {
        FailureClass::ALL.into_iter().find(|class| class.as_str() == word)
    }
}

/// The failure of an attempt or of the operation as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Decides whether and when the next attempt follows.
    pub class: FailureClass,
    /// A stable word for scripts: `not_found`, `source_changed`, `in_doubt`, …
    pub error_type: String,
    /// A description: the action that failed, its target, the cause and, if there is one, a remedy.
    pub message: String,
}

/// The result of a completed operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The CID of the content, if the backend computes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// The size of the content in bytes, if it applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The path to which the result was written, if it applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Evidence or detail from the backend: an ETag, a version id, a listing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub receipt: Fields,
}

/// The process that executes an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Process id of the drain loop.
    pub pid: u32,
    /// Host name of the drain loop.
    pub host: String,
    /// When the claim was made.
    pub started: Time,
}

/// The state of the source file at the time the operation was logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Time of the last change of content or metadata, in nanoseconds since 1970. Unlike
    /// `mtime_ns`, no program can set it. None in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctime_ns: Option<i64>,
    /// SHA-256 of the content in hex, if the content had to be read anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The name of its copy in the spool, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<String>,
}

impl Source {
    /// Returns true if the content was copied into the log.
    pub fn is_spooled(&self) -> bool {
        self.spool.is_some()
    }
}

/// A period of wall time, kept with its start so that a clock that jumps back cannot extend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The start.
    pub since: Time,
    /// The end.
    pub until: Time,
}

impl Wait {
    /// Returns true after the end, and also if `now` is before the start.
    pub fn is_over(&self, now: Time) -> bool {
        now >= self.until || now < self.since
    }
}

/// The status of an operation with the data that only this status has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waiting for an attempt.
    Pending {
        /// The failure of the previous attempt, if there was one.
        last_failure: Option<Failure>,
    },
    /// Claimed by a drain loop.
    Processing {
        /// The process, and the time of the claim.
        claim: Claim,
        /// The failure of the previous attempt, if there was one.
        last_failure: Option<Failure>,
        /// True if a user asked the attempt to stop.
        cancel_requested: bool,
    },
    /// Waiting for the next attempt.
    Retrying {
        /// The failure of the last attempt.
        failure: Failure,
        /// The backoff before the next attempt.
        wait: Wait,
    },
    /// Completed.
    Completed {
        /// The time of completion.
        at: Time,
        /// The result.
        outcome: Outcome,
    },
    /// Failed.
    Failed {
        /// The time of the failure.
        at: Time,
        /// The failure.
        failure: Failure,
    },
}

impl State {
    /// Returns the status of this state.
    pub fn status(&self) -> Status {
        match self {
            State::Pending { .. } => Status::Pending,
            State::Processing { .. } => Status::Processing,
            State::Retrying { .. } => Status::Retrying,
            State::Completed { .. } => Status::Completed,
            State::Failed { .. } => Status::Failed,
        }
    }

    /// Returns the current failure or, while pending or processing, that of the previous attempt.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            State::Pending { last_failure } | State::Processing { last_failure, .. } => {
                last_failure.as_ref()
            }
            State::Retrying { failure, .. } | State::Failed { failure, .. } => Some(failure),
            State::Completed { .. } => None,
        }
    }
}

/// One line of an operation's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Revision of the transition.
    pub revision: Revision,
    /// The time of the transition.
    pub at: Time,
    /// The status before; `None` when it was logged.
    pub from: Option<Status>,
    /// The status after.
    pub to: Status,
    /// The process that wrote it, as `user@host command[pid]`.
    pub actor: String,
    /// The reason, if the event has one.
    pub reason: Option<String>,
    /// The error of the attempt that ended, if one did.
    pub error: Option<String>,
}

/// One unit of work, with its state and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its UUIDv7, assigned when it was logged.
    pub id: OperationId,
    /// Its number, assigned when it was logged.
    pub number: Number,
    /// Revision of its latest transition.
    pub revision: Revision,
    /// The kind of work: `add`, `pin`, …
    pub operation_type: OperationType,
    /// The backend that executes it.
    pub backend: BackendName,
    /// Parameters: `path`, `cid`, `source`, `destination`, `recursive`, and options of the backend.
    pub parameters: Fields,
    /// The time at which it was logged.
    pub logged_at: Time,
    /// The time of its latest transition.
    pub updated_at: Time,
    /// Failed attempts since it was logged or retried by a user.
    pub retry_count: u32,
    /// Retries allowed; 5 means 6 attempts.
    pub max_retries: u32,
    /// Among due operations of one backend, higher goes first; 0 by default.
    pub priority: i32,
    /// Operations that must complete before this one starts.
    pub depends_on: Vec<OperationId>,
    /// The caller's key: a second operation with the same key is never logged.
    pub idempotency_key: Option<String>,
    /// True if a user has set it aside.
    pub hold: bool,
    /// The earliest time of its first attempt.
    pub not_before: Option<Time>,
    /// Attempts that ended without an answer.
    pub interruptions: u32,
    /// The file that it refers to, as it was when the operation was logged.
    pub source: Option<Source>,
    /// The operation that this one was created from.
    pub redirected_from: Option<OperationId>,
    /// The operation that was created from this one.
    pub redirected_to: Option<OperationId>,
    /// Its current state.
    pub state: State,
    /// All its transitions, oldest first.
    pub history: Vec<HistoryEntry>,
}

impl Operation {
    /// Returns its current status.
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// Returns the claim while an attempt is running.
    pub fn claim(&self) -> Option<&Claim> {
        match &self.state {
            State::Processing { claim, .. } => Some(claim),
            _ => None,
        }
    }

    /// Returns true if it failed by a user's decision: it is retried only if a user names it.
    pub fn is_abandoned(&self) -> bool {
        let words = [failure::CANCELLED, failure::PERMANENT, failure::REDIRECTED];
        matches!(&self.state, State::Failed { failure, .. }
            if self.redirected_to.is_some() || words.contains(&failure.error_type.as_str()))
    }

    /// Returns true if the outcome of its last attempt is unknown: it is retried only if a user
    /// names it.
    pub fn is_in_doubt(&self) -> bool {
        matches!(
            &self.state,
            State::Failed { failure, .. } if failure.error_type == failure::IN_DOUBT
        )
    }

    /// Returns true if a drain loop may claim it now.
    pub fn is_due(&self, now: Time) -> bool {
        if self.hold || !self.depends_on.is_empty() {
            return false;
        }
        if let Some(until) = self.not_before
            && !(Wait { since: self.logged_at, until }).is_over(now)
        {
            return false;
        }
        match &self.state {
            State::Pending { .. } => true,
            State::Retrying { wait, .. } => wait.is_over(now),
            _ => false,
        }
    }

    /// Returns the earliest time of a claim; `None` if time alone does not make it due.
    pub fn due_at(&self) -> Option<Time> {
        if self.hold || !self.depends_on.is_empty() {
            return None;
        }
        let start = self.not_before.unwrap_or(self.logged_at);
        match &self.state {
            State::Pending { .. } => Some(start),
            State::Retrying { wait, .. } => Some(wait.until.max(start)),
            _ => None,
        }
    }
}
