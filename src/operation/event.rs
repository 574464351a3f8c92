use serde::{Deserialize, Serialize};

use super::{
    BackendName, Claim, Failure, Fields, OperationId, OperationType, Outcome, Source, Status, Time,
};

/// An operation as its caller describes it; the log adds everything else when it is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// The kind of work: `add`, `pin`, …
    #[serde(skip, default = "placeholder_type")]
    pub operation_type: OperationType,
    /// The backend that executes it.
    #[serde(skip, default = "placeholder_backend")]
    pub backend: BackendName,
    /// The parameters that its backend receives.
    pub parameters: Fields,
    /// Retries after the first attempt.
    pub max_retries: u32,
    /// Among due operations of one backend, higher goes first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Operations that must complete before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<OperationId>,
    /// The caller's key: a second operation with the same key is never logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The earliest time of its first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// The file that it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The operation that this one was created from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirected_from: Option<OperationId>,
    /// True if it is held from the start, because the operation that it was created from was held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

// The transition's fixed part carries type and backend; its decoder puts them back here.
fn placeholder_type() -> OperationType {
    OperationType::placeholder()
}

fn placeholder_backend() -> BackendName {
    BackendName::placeholder()
}

impl Logged {
    /// Returns true if the log must be searched before it is logged: it has a key or dependencies.
    pub fn has_conditions(&self) -> bool {
        self.idempotency_key.is_some() || !self.depends_on.is_empty()
    }

    /// Returns an operation with defaults for everything but these.
    pub fn new(
        operation_type: OperationType,
        backend: BackendName,
        parameters: Fields,
        max_retries: u32,
    ) -> Logged {
        Logged {
            operation_type,
            backend,
            parameters,
            max_retries,
            priority: 0,
            depends_on: Vec::new(),
            idempotency_key: None,
            not_before: None,
            source: None,
            redirected_from: None,
            hold: false,
        }
    }
}

/// The event that a transition records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The operation was logged.
    Logged(Box<Logged>),
    /// A drain loop claimed it.
    Claimed {
        /// The claiming process.
        claim: Claim,
    },
    /// It completed.
    Completed {
        /// Its result.
        outcome: Outcome,
    },
    /// It failed: no automatic step will retry it.
    Failed {
        /// The failure of the last attempt.
        failure: Failure,
    },
    /// An attempt failed and another one is scheduled.
    Retrying {
        /// The failure of the attempt.
        failure: Failure,
        /// The time of the next attempt.
        until: Time,
    },
    /// Its claim ended without spending an attempt: it is pending again.
    #[serde(rename = "returned")]
    Requeued {
        /// The reason: an outage, a hand-back, or a crash after which the backend denied the
        /// effect.
        reason: String,
        /// True if the attempt ended without an answer.
        interrupted: bool,
        /// The failure that the attempt reported, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// Its backoff was cut short: its backend is reachable again, or a user asked for it.
    #[serde(rename = "released")]
    BackoffEnded {
        /// The reason.
        reason: String,
    },
    /// A user asked for another attempt: its counters start over.
    Retried {
        /// The reason.
        reason: String,
        /// Deleted or abandoned dependencies that it no longer waits for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forget: Vec<OperationId>,
        /// The state of its source that the user accepted instead of the logged one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<Box<Source>>,
    },
    /// A user set it aside: it is not executed until it is released.
    Held {
        /// The reason.
        reason: String,
    },
    /// A user released it from its hold.
    #[serde(rename = "unheld")]
    HoldReleased {
        /// The reason.
        reason: String,
    },
    /// Its priority changed.
    Prioritized {
        /// The new priority.
        priority: i32,
    },
    /// A user asked its running attempt to stop.
    CancelRequested {
        /// The reason.
        reason: String,
    },
    /// Some of its dependencies completed.
    DependenciesDone {
        /// The dependencies that it no longer waits for.
        ids: Vec<OperationId>,
    },
    /// It was logged again for another backend. If it was waiting, it fails.
    Redirected {
        /// The operation that replaces it.
        to: OperationId,
        /// Its failure from now on, unless it had failed before.
        failure: Failure,
    },
    /// Its effect was lost: it stays completed and is logged again as a new operation.
    Reopened {
        /// The new operation.
        to: OperationId,
    },
    /// A user marked it as one that will never succeed.
    #[serde(rename = "given_up")]
    Abandoned {
        /// Its failure from now on.
        failure: Failure,
    },
    /// It was deleted with its history.
    Deleted {
        /// The reason.
        reason: String,
    },
}

impl Event {
    /// Returns the status after this event for an operation of status `from`; `None` if it is
    /// deleted.
    pub fn to(&self, from: Option<Status>) -> Option<Status> {
        Some(match self {
            Event::Logged(_)
            | Event::Requeued { .. }
            | Event::BackoffEnded { .. }
            | Event::Retried { .. } => Status::Pending,
            Event::Claimed { .. } => Status::Processing,
            Event::Completed { .. } => Status::Completed,
            Event::Failed { .. } | Event::Redirected { .. } | Event::Abandoned { .. } => {
                Status::Failed
            }
            Event::Retrying { .. } => Status::Retrying,
            Event::Held { .. }
            | Event::HoldReleased { .. }
            | Event::Prioritized { .. }
            | Event::CancelRequested { .. }
            | Event::DependenciesDone { .. }
            | Event::Reopened { .. } => return from,
            Event::Deleted { .. } => return None,
        })
    }

    /// Returns true if an operation of status `from` (`None`: not logged yet) may undergo this
    /// event.
    pub fn is_legal_from(&self, from: Option<Status>) -> bool {
        let Some(from) = from else { return matches!(self, Event::Logged(_)) };
        match self {
            Event::Logged(_) => false,
            Event::Claimed { .. } | Event::DependenciesDone { .. } => from.is_waiting(),
            Event::Completed { .. }
            | Event::Retrying { .. }
            | Event::Requeued { .. }
            | Event::CancelRequested { .. } => from == Status::Processing,
            // Cancelling, or a failed dependency, fails an operation that was not running.
            Event::Failed { .. } | Event::Held { .. } | Event::Prioritized { .. } => {
                !from.is_terminal()
            }
            Event::HoldReleased { .. } => from != Status::Completed,
            Event::BackoffEnded { .. } => from == Status::Retrying,
            Event::Retried { .. } => matches!(from, Status::Failed | Status::Retrying),
            Event::Redirected { .. } | Event::Abandoned { .. } => {
                from.is_waiting() || from == Status::Failed
            }
            Event::Reopened { .. } => from == Status::Completed,
            Event::Deleted { .. } => from != Status::Processing,
        }
    }

    /// Returns the past participle of the event, for messages such as `it cannot be retried`.
    pub fn past_participle(&self) -> &'static str {
        match self {
            Event::Logged(_) => "logged",
            Event::Claimed { .. } => "claimed",
            Event::Completed { .. } => "completed",
            Event::Failed { .. } => "failed",
            Event::Retrying { .. } => "scheduled for another attempt",
            Event::Requeued { .. } => "requeued",
            Event::BackoffEnded { .. } => "released from its backoff",
            Event::Retried { .. } => "retried",
            Event::Held { .. } => "held",
            Event::HoldReleased { .. } => "released",
            Event::Prioritized { .. } => "prioritized",
            Event::CancelRequested { .. } => "cancelled",
            Event::DependenciesDone { .. } => "released from its dependencies",
            Event::Redirected { .. } => "redirected",
            Event::Reopened { .. } => "reopened",
            Event::Abandoned { .. } => "abandoned",
            Event::Deleted { .. } => "deleted",
        }
    }

    /// Returns the reason that the history shows, if the event has one.
    pub fn reason(&self) -> Option<String> {
        Some(match self {
            Event::Requeued { reason, .. }
            | Event::BackoffEnded { reason }
            | Event::Retried { reason, .. } => reason.clone(),
            Event::Held { reason } => format!("held: {reason}"),
            Event::HoldReleased { reason } => format!("no longer held: {reason}"),
            Event::CancelRequested { reason } => format!("asked to stop: {reason}"),
            Event::Deleted { reason } => reason.clone(),
            Event::Prioritized { priority } => format!("priority set to {priority}"),
            Event::DependenciesDone { ids } => match ids.as_slice() {
                [one] => format!("dependency {one} completed"),
                several => format!("{} dependencies completed", several.len()),
            },
            Event::Redirected { to, .. } => format!("redirected: continues as {to}"),
            Event::Reopened { to } => format!("its effect was lost; reopened as {to}"),
            Event::Abandoned { .. } => "marked as permanently failed".to_owned(),
            _ => return None,
        })
    }

    /// Returns the failure that the event reports, if any.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Event::Failed { failure }
            | Event::Retrying { failure, .. }
            | Event::Abandoned { failure } => Some(failure),
            Event::Requeued { failure, .. } => failure.as_ref(),
            _ => None,
        }
    }
}
