//! What is written to the log, and what the writer gets back.

use crate::operation::{BackendName, Event, Logged, Number, Operation, OperationId, OperationType, Revision, Status};

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
}
