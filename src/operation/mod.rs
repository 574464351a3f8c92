//! Operations: pure values, their legal transitions, and the arithmetic of retries.
//!
//! Nothing here touches a file, a clock or a network: every function that needs the time takes it.

pub mod cause;
mod counter;
mod event;
pub mod failure;
mod names;
pub mod retry;
mod time;
mod transition;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use counter::{Number, Revision};
pub use event::{Event, Logged};
pub use names::{BackendName, InvalidName, OperationId, OperationType};
pub use time::Time;
pub use transition::{IllegalTransition, Transition, apply};

/// Text parameters and receipts, ordered by name.
pub type Fields = BTreeMap<String, String>;

/// Where an operation stands: these five and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Logged, waiting to be carried out.
    Pending,
    /// Claimed: its backend may have been called.
    Processing,
    /// Done, its result verified.
    Completed,
    /// Ended without success; stays until somebody asks for something else.
    Failed,
    /// An attempt failed; the next one is scheduled.
    Retrying,
}

impl Status {
    /// All five, in the order they are shown.
    pub const ALL: [Status; 5] =
        [Status::Pending, Status::Processing, Status::Completed, Status::Failed, Status::Retrying];

    /// The word for it in columns, JSON and commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Processing => "processing",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Retrying => "retrying",
        }
    }

    /// The status a word stands for, if any.
    pub fn parse(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether nothing more happens by itself.
    pub fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Failed)
    }

    /// Whether an operation of this status may have that one after its next transition.
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

    /// Whether a drain loop may take it (when due).
    pub fn is_waiting(self) -> bool {
        matches!(self, Status::Pending | Status::Retrying)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a failure means for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Trying again cannot help: bad input, refused, unsupported.
    Permanent,
    /// The backend answers but this attempt did not work: tried again with backoff.
    Transient,
    /// The backend is away: nothing is spent, the lane closes until it is back.
    Outage,
}

impl FailureClass {
    /// All three.
    pub const ALL: [FailureClass; 3] =
        [FailureClass::Permanent, FailureClass::Transient, FailureClass::Outage];

    /// The word for it in columns and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureClass::Permanent => "permanent",
            FailureClass::Transient => "transient",
            FailureClass::Outage => "outage",
        }
    }

    /// The class a word stands for, if any.
    pub fn parse(word: &str) -> Option<FailureClass> {
        FailureClass::ALL.into_iter().find(|class| class.as_str() == word)
    }
}

/// Why an attempt, or the operation as a whole, did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it means for the next attempt.
    pub class: FailureClass,
    /// A stable word for scripts: `not_found`, `source_changed`, `in_doubt`, …
    pub error_type: String,
    /// One or more sentences: what happened, to what, what to do.
    pub message: String,
}

/// What came out of a completed operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The content's CID, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// Bytes of content, where that means something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Where the result was written, for operations that write one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Proof or detail from the backend: an ETag, a version id, a listing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub receipt: Fields,
}

/// Who is carrying an operation out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Process id of the drain loop.
    pub pid: u32,
    /// Host name of the drain loop.
    pub host: String,
    /// When the claim was made.
    pub started: Time,
}

/// The file an operation refers to, as it was when the operation was logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// SHA-256 of the content in hex, where the content was read anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The name of its copy in the spool, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<String>,
}

impl Source {
    /// Whether its content was copied into the log.
    pub fn is_spooled(&self) -> bool {
        self.spool.is_some()
    }
}

/// A span of wall time to sit out, kept with its start so that a jumping clock cannot stretch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// When the wait began.
    pub since: Time,
    /// When it ends.
    pub until: Time,
}

impl Wait {
    /// Whether the wait is over: past its end, or the clock now stands before its start.
    pub fn is_over(&self, now: Time) -> bool {
        now >= self.until || now < self.since
    }
}

/// What is true of an operation in its present status, and only that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waiting; the failure of an earlier attempt, if there was one.
    Pending {
        /// Why the last attempt did not count or succeed.
        last_failure: Option<Failure>,
    },
    /// Claimed by a drain loop.
    Processing {
        /// By whom, and since when.
        claim: Claim,
        /// Why the attempt before this one did not succeed.
        last_failure: Option<Failure>,
        /// Whether somebody asked for an end of the attempt.
        cancel_requested: bool,
    },
    /// Waiting for the next attempt.
    Retrying {
        /// Why the last attempt failed.
        failure: Failure,
        /// When the next attempt is due.
        wait: Wait,
    },
    /// Done.
    Completed {
        /// When.
        at: Time,
        /// With what result.
        outcome: Outcome,
    },
    /// Ended without success.
    Failed {
        /// When.
        at: Time,
        /// Why.
        failure: Failure,
    },
}

impl State {
    /// The status this state belongs to.
    pub fn status(&self) -> Status {
        match self {
            State::Pending { .. } => Status::Pending,
            State::Processing { .. } => Status::Processing,
            State::Retrying { .. } => Status::Retrying,
            State::Completed { .. } => Status::Completed,
            State::Failed { .. } => Status::Failed,
        }
    }

    /// Why it is not done: the failure in force or, while waiting, that of the last attempt.
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
    /// When.
    pub at: Time,
    /// Status before; none when it was logged.
    pub from: Option<Status>,
    /// Status after.
    pub to: Status,
    /// Who: `user@host command[pid]`.
    pub actor: String,
    /// Why, in a few words.
    pub reason: Option<String>,
    /// The error of the attempt that ended, if one did.
    pub error: Option<String>,
}

/// One unit of work, with its state and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// UUIDv7, given when it was logged.
    pub id: OperationId,
    /// Small number, given when it was logged.
    pub number: Number,
    /// Revision of its latest transition.
    pub revision: Revision,
    /// What is to be done: `add`, `pin`, …
    pub operation_type: OperationType,
    /// Where it is to be done.
    pub backend: BackendName,
    /// With what: `path`, `cid`, `source`, `destination`, `recursive`, and options of the backend.
    pub parameters: Fields,
    /// When it was logged.
    pub logged_at: Time,
    /// When its latest transition happened.
    pub updated_at: Time,
    /// Failed attempts since it was logged or retried by hand.
    pub retry_count: u32,
    /// Retries allowed; 5 means 6 attempts.
    pub max_retries: u32,
    /// Higher goes first; 0 unless asked for.
    pub priority: i32,
    /// Operations that must be completed first.
    pub depends_on: Vec<OperationId>,
    /// The caller's key: the same key is never logged twice.
    pub idempotency_key: Option<String>,
    /// Set aside by the operator.
    pub hold: bool,
    /// Not to be tried before.
    pub not_before: Option<Time>,
    /// Attempts that ended without an answer.
    pub interruptions: u32,
    /// The file it refers to, as it was.
    pub source: Option<Source>,
    /// The operation this one was made from.
    pub redirected_from: Option<OperationId>,
    /// The operation made from this one.
    pub redirected_to: Option<OperationId>,
    /// What is true of it now.
    pub state: State,
    /// All its transitions, oldest first.
    pub history: Vec<HistoryEntry>,
}

impl Operation {
    /// Its present status.
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// Who carries it out, while somebody does.
    pub fn claim(&self) -> Option<&Claim> {
        match &self.state {
            State::Processing { claim, .. } => Some(claim),
            _ => None,
        }
    }

    /// Whether it failed because somebody decided so: it comes back only when it is asked for by name.
    pub fn is_given_up(&self) -> bool {
        let words = [failure::CANCELLED, failure::PERMANENT, failure::REDIRECTED];
        matches!(&self.state, State::Failed { failure, .. }
            if self.redirected_to.is_some() || words.contains(&failure.error_type.as_str()))
    }

    /// Whether it may have been done, and nobody knows: it is done again only if somebody names it.
    pub fn is_in_doubt(&self) -> bool {
        matches!(&self.state, State::Failed { failure, .. } if failure.error_type == failure::IN_DOUBT)
    }

    /// Whether a drain loop may claim it now.
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

    /// The earliest time at which it may be claimed; none if time alone won't make it due.
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
