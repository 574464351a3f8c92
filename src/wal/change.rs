//! Changes to be written to the log, and written ones.

use crate::operation::{
    BackendName, Event, Logged, Number, Operation, OperationId, OperationType, Revision, Status,
};

/// The state of an operation that a change was decided on. The change fails if the operation has
/// changed since.
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
    /// A new operation with an id that was assigned earlier, because spooled content or another
    /// operation refers to it.
    NewAs(OperationId, Logged),
    /// The next event of an operation.
    Next(Known, Event),
}

/// A transition that was written.
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
