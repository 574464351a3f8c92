//! What an audit reports about one operation.

use crate::operation::{
    BackendName, Fields, Number, Operation, OperationId, OperationType, Revision, Status,
};
use crate::wal::{View, WalResult};

/// Successors that are followed, at most, so that a damaged log cannot keep this busy.
const SUCCESSORS_MAX: u32 = 100;

/// A completed operation whose effect is missing or altered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditFinding {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// Its type.
    pub operation_type: OperationType,
    /// Its backend.
    pub backend: BackendName,
    /// Its parameters.
    pub parameters: Fields,
    /// The operation that it was reopened as before, if it was.
    pub redirected_to: Option<OperationId>,
    /// The revision in which it completed; for a reopened operation, that of the first one of its line.
    pub completed_in: Revision,
    /// What the backend found, in a few words.
    pub what: String,
    /// What was done about it; `None` if reopening was not asked for.
    pub follow_up: Option<FollowUp>,
}

/// What was done about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowUp {
    /// A new operation was logged.
    Reopened {
        /// Its number.
        number: Number,
        /// Its id.
        id: OperationId,
    },
    /// One had been logged for it before and has not failed.
    AlreadyReopened {
        /// Its number.
        number: Number,
        /// Its id.
        id: OperationId,
    },
    /// It cannot be reopened, for this reason.
    Refused(String),
}

/// Returns the revision in which an operation completed: later ones only link it to a successor.
pub(in crate::client) fn completed_in(operation: &Operation) -> Revision {
    let completion =
        operation.history.iter().rev().find(|entry| entry.from != Some(Status::Completed));
    completion.map_or(operation.revision, |entry| entry.revision)
}

/// Returns the last successor of an operation, if it has neither failed nor been deleted.
pub(in crate::client) fn live_successor(
    view: &View,
    redirected_to: Option<OperationId>,
) -> WalResult<Option<FollowUp>> {
    let Some(to) = redirected_to else { return Ok(None) };
    // A successor may have one of its own.
    let (mut next, mut left) = (view.operation_by_id(to)?, SUCCESSORS_MAX);
    while let Some(operation) = next {
        match operation.redirected_to.filter(|_| operation.status() == Status::Failed && left > 0) {
            Some(to) => (next, left) = (view.operation_by_id(to)?, left - 1),
            None if operation.status() == Status::Failed => return Ok(None),
            None => {
                return Ok(Some(FollowUp::AlreadyReopened {
                    number: operation.number,
                    id: operation.id,
                }));
            }
        }
    }
    Ok(None)
}
