//! Changes to the log, and what a writer gets back.

use crate::operation::{
    BackendName, Event, Logged, Number, Operation, OperationId, OperationType, Revision, Status,
};

/// The state of an operation that a change is based on. The change fails if the operation has moved
/// on.
#[derive(Debug, Clone)]
pub struct Known {
    /// The number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// Its revision.
    pub revision: Revision,
    /// Its status.
    pub status: Status,
    /// Its type.
    pub operation_type: OperationType,
    /// Its backend.
    pub backend: BackendName,
}

impl From<&Operation> for Known {
    fn from(operation: &Operation) -> Known {
        Known {
            number: operation.number,
            id: operation.id,
            revision: operation.revision,
            status: operation.status(),
            operation_type: operation.operation_type.clone(),
            backend: operation.backend.clone(),
        }
    }
}

/// A change to be written.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new operation.
    New(Logged),
    /// A new operation with a given id, because something refers to that already.
    NewAs(OperationId, Logged),
    /// The next event of an operation.
    Next(Known, Event),
}

/// A change that was written and is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The operation's number.
    pub number: Number,
    /// The operation's id.
    pub id: OperationId,
    /// The transition's revision.
    pub revision: Revision,
    /// True if the transition deleted the operation.
    pub deleted: bool,
}

/// The operation that a request to log one resulted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// It was logged.
    Logged(Written),
    /// An operation with the same idempotency key was logged before.
    Existing(Box<Operation>),
}

impl Admitted {
    /// Returns the id of the operation.
    pub fn id(&self) -> OperationId {
        match self {
            Admitted::Logged(written) => written.id,
            Admitted::Existing(operation) => operation.id,
        }
    }

    /// Returns the number of the operation.
    pub fn number(&self) -> Number {
        match self {
            Admitted::Logged(written) => written.number,
            Admitted::Existing(operation) => operation.number,
        }
    }
}
