use serde::{Deserialize, Serialize};

use super::{BackendName, Claim, Failure, Fields, OperationId, OperationType, Outcome, Source, Status, Time};

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
    /// An operation with nothing but type, backend and parameters.
    pub fn new(operation_type: OperationType, backend: BackendName, parameters: Fields, max_retries: u32) -> Logged {
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
    },
}

impl Event {
    /// The status an operation has after this event.
    pub fn to(&self) -> Status {
        match self {
            Event::Logged(_) | Event::Returned { .. } | Event::Released { .. } | Event::Retried { .. } => {
                Status::Pending
            }
            Event::Claimed { .. } => Status::Processing,
            Event::Completed { .. } => Status::Completed,
            Event::Failed { .. } => Status::Failed,
            Event::Retrying { .. } => Status::Retrying,
        }
    }

    /// Whether an operation of status `from` (none: not yet logged) may go through this event.
    pub fn is_legal_from(&self, from: Option<Status>) -> bool {
        let Some(from) = from else { return matches!(self, Event::Logged(_)) };
        match self {
            Event::Logged(_) => false,
            Event::Claimed { .. } => from.is_waiting(),
            Event::Completed { .. } | Event::Retrying { .. } | Event::Returned { .. } => from == Status::Processing,
            // Also by cancelling, and by a dependency that failed.
            Event::Failed { .. } => !from.is_terminal(),
            Event::Released { .. } => from == Status::Retrying,
            Event::Retried { .. } => matches!(from, Status::Failed | Status::Retrying),
        }
    }

    /// Why it happened, in a few words, for the history.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Event::Returned { reason, .. } | Event::Released { reason } | Event::Retried { reason } => Some(reason),
            _ => None,
        }
    }

    /// The failure that it reports, if any.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Event::Failed { failure } | Event::Retrying { failure, .. } => Some(failure),
            Event::Returned { failure, .. } => failure.as_ref(),
            _ => None,
        }
    }
}
