use serde::{Deserialize, Serialize};

use super::{
    BackendName, Claim, Failure, Fields, OperationId, OperationType, Outcome, Source, Status, Time,
};

/// What somebody hands us to be done; everything else about an operation is given by the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// What is to be done.
    #[serde(skip, default = "placeholder_type")]
    pub operation_type: OperationType,
    /// Where.
    #[serde(skip, default = "placeholder_backend")]
    pub backend: BackendName,
    /// With what.
    pub parameters: Fields,
    /// Retries allowed.
    pub max_retries: u32,
    /// Higher goes first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Operations that must be completed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<OperationId>,
    /// The caller's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Not to be tried before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// The file it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The operation this one was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirected_from: Option<OperationId>,
    /// Whether it is set aside from the start, as what it was made from was.
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
    /// Whether it can only be logged after a look at what is there: it has a key, or waits for others.
    pub fn has_conditions(&self) -> bool {
        self.idempotency_key.is_some() || !self.depends_on.is_empty()
    }

    /// An operation with nothing but type, backend and parameters.
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

/// What happened to an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It was logged.
    Logged(Box<Logged>),
    /// A drain loop took it.
    Claimed {
        /// Who.
        claim: Claim,
    },
    /// It is done.
    Completed {
        /// With what result.
        outcome: Outcome,
    },
    /// It ended without success.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// An attempt failed; another one is due later.
    Retrying {
        /// Why.
        failure: Failure,
        /// When the next attempt is due.
        until: Time,
    },
    /// The claim was given back without spending an attempt.
    Returned {
        /// Why: an outage, a hand-back, a crash after which the backend said it was not done.
        reason: String,
        /// Whether the attempt ended without an answer.
        interrupted: bool,
        /// What the backend, or its absence, said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// Its wait was cut short: its backend is back, or somebody asked.
    Released {
        /// Why.
        reason: String,
    },
    /// Somebody asked for it to be tried again; counters start over.
    Retried {
        /// Why.
        reason: String,
        /// Operations that it waited for and that are gone: it goes on without.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forget: Vec<OperationId>,
    },
    /// The operator set it aside: it is not carried out until that is undone.
    Held {
        /// Why.
        reason: String,
    },
    /// It is no longer set aside.
    Unheld {
        /// Why.
        reason: String,
    },
    /// Its place in the order changed.
    Prioritized {
        /// Higher goes first.
        priority: i32,
    },
    /// It is being carried out, and somebody asked for an end of that.
    CancelRequested {
        /// Why.
        reason: String,
    },
    /// Operations that it waited for are completed.
    DependenciesDone {
        /// Which.
        ids: Vec<OperationId>,
    },
    /// It went on as another operation; what waited is failed by that.
    Redirected {
        /// The other operation.
        to: OperationId,
        /// What it says of itself if it had not failed already.
        failure: Failure,
    },
    /// What it had brought about is not there any more: it stays completed, and goes on as another operation.
    Reopened {
        /// The other operation.
        to: OperationId,
    },
    /// The operator says that it will never succeed.
    GivenUp {
        /// What stands for it from now on.
        failure: Failure,
    },
    /// It is gone, with its history.
    Deleted {
        /// Why.
        reason: String,
    },
}

impl Event {
    /// The status an operation of status `from` has after this event; none: it is gone.
    pub fn to(&self, from: Option<Status>) -> Option<Status> {
        Some(match self {
            Event::Logged(_)
            | Event::Returned { .. }
            | Event::Released { .. }
            | Event::Retried { .. } => Status::Pending,
            Event::Claimed { .. } => Status::Processing,
            Event::Completed { .. } => Status::Completed,
            Event::Failed { .. } | Event::Redirected { .. } | Event::GivenUp { .. } => {
                Status::Failed
            }
            Event::Retrying { .. } => Status::Retrying,
            Event::Held { .. }
            | Event::Unheld { .. }
            | Event::Prioritized { .. }
            | Event::CancelRequested { .. }
            | Event::DependenciesDone { .. }
            | Event::Reopened { .. } => return from,
            Event::Deleted { .. } => return None,
        })
    }

    /// Whether an operation of status `from` (none: not yet logged) may go through this event.
    pub fn is_legal_from(&self, from: Option<Status>) -> bool {
        let Some(from) = from else { return matches!(self, Event::Logged(_)) };
        match self {
            Event::Logged(_) => false,
            Event::Claimed { .. } | Event::DependenciesDone { .. } => from.is_waiting(),
            Event::Completed { .. }
            | Event::Retrying { .. }
            | Event::Returned { .. }
            | Event::CancelRequested { .. } => from == Status::Processing,
            // Also by cancelling, and by a dependency that failed.
            Event::Failed { .. } | Event::Held { .. } | Event::Prioritized { .. } => {
                !from.is_terminal()
            }
            Event::Unheld { .. } => from != Status::Completed,
            Event::Released { .. } => from == Status::Retrying,
            Event::Retried { .. } => matches!(from, Status::Failed | Status::Retrying),
            Event::Redirected { .. } | Event::GivenUp { .. } => {
                from.is_waiting() || from == Status::Failed
            }
            Event::Reopened { .. } => from == Status::Completed,
            Event::Deleted { .. } => from != Status::Processing,
        }
    }

    /// What it does to an operation, for messages: `it cannot be …`.
    pub fn past_participle(&self) -> &'static str {
        match self {
            Event::Logged(_) => "logged",
            Event::Claimed { .. } => "claimed",
            Event::Completed { .. } => "completed",
            Event::Failed { .. } => "failed",
            Event::Retrying { .. } => "scheduled for another attempt",
            Event::Returned { .. } => "given back",
            Event::Released { .. } => "released from its wait",
            Event::Retried { .. } => "retried",
            Event::Held { .. } => "held",
            Event::Unheld { .. } => "released",
            Event::Prioritized { .. } => "moved in the order",
            Event::CancelRequested { .. } => "cancelled",
            Event::DependenciesDone { .. } => "freed of what it waits for",
            Event::Redirected { .. } => "redirected",
            Event::Reopened { .. } => "reopened",
            Event::GivenUp { .. } => "given up",
            Event::Deleted { .. } => "deleted",
        }
    }

    /// Why it happened, in a few words, for the history.
    pub fn reason(&self) -> Option<String> {
        Some(match self {
            Event::Returned { reason, .. }
            | Event::Released { reason }
            | Event::Retried { reason, .. } => reason.clone(),
            Event::Held { reason } => format!("held: {reason}"),
            Event::Unheld { reason } => format!("no longer held: {reason}"),
            Event::CancelRequested { reason } => format!("asked to stop: {reason}"),
            Event::Deleted { reason } => reason.clone(),
            Event::Prioritized { priority } => format!("priority is now {priority}"),
            Event::DependenciesDone { ids } => match ids.as_slice() {
                [one] => format!("what it waited for is completed: {one}"),
                several => format!("{} operations that it waited for are completed", several.len()),
            },
            Event::Redirected { to, .. } => format!("went on as {to}"),
            Event::Reopened { to } => format!("not there any more as it was; went on as {to}"),
            Event::GivenUp { .. } => "marked as permanently failed".to_owned(),
            _ => return None,
        })
    }

    /// The failure that it reports, if any.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Event::Failed { failure }
            | Event::Retrying { failure, .. }
            | Event::GivenUp { failure } => Some(failure),
            Event::Returned { failure, .. } => failure.as_ref(),
            _ => None,
        }
    }
}
