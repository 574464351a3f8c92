//! What is written to the log, and what the writer gets back.

use crate::operation::{
    BackendName, Event, Logged, Number, Operation, OperationId, OperationType, Revision, Status,
};

/// An operation as the caller knows it: a change is refused if it has changed since.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its number.
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
    /// A new operation whose id is known already, because something refers to it.
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
    /// Whether the operation is gone since.
    pub deleted: bool,
}

/// What came of an operation that was to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// It was logged.
    Logged(Written),
    /// One with its idempotency key was there already; this is that one.
    Existing(Box<Operation>),
}

impl Admitted {
    /// Its id.
    pub fn id(&self) -> OperationId {
        match self {
            Admitted::Logged(written) => written.id,
            Admitted::Existing(operation) => operation.id,
        }
    }

    /// Its number.
    pub fn number(&self) -> Number {
        match self {
            Admitted::Logged(written) => written.number,
            Admitted::Existing(operation) => operation.number,
        }
    }
}
