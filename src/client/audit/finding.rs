//! Findings of an audit.

use crate::operation::{
    BackendName, Fields, Number, Operation, OperationId, OperationType, Revision, Status,
};
use crate::wal::{View, WalResult};

/// Successors that are followed, at most, so that a damaged log cannot cause an endless loop.
const SUCCESSORS_MAX: u32 = 100;

/// A completed operation whose effect is missing or altered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditFinding {
    /// Number of the operation.
    pub number: Number,
    /// Id of the operation.
    pub id: OperationId,
    /// Type of the operation.
    pub operation_type: OperationType,
    /// Backend of the operation.
    pub backend: BackendName,
    /// Parameters of the operation.
    pub parameters: Fields,
    /// The operation as which an earlier audit reopened it, if any.
    pub redirected_to: Option<OperationId>,
    /// The revision in which it completed; for a reopened operation, the first of the series.
    pub completed_in: Revision,
    /// The loss as the backend reported it, in a few words.
    pub what: String,
    /// The consequence of the finding; `None` if reopening was not requested.
    pub follow_up: Option<FollowUp>,
}

/// The consequence of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FollowUp {
    /// A new operation was logged.
    Reopened {
        /// Number of the new operation.
        number: Number,
        /// Id of the new operation.
        id: OperationId,
    },
    /// A new operation had been logged before, and has not failed.
    AlreadyReopened {
        /// Number of that operation.
        number: Number,
        /// Id of that operation.
        id: OperationId,
    },
    /// The operation cannot be reopened, for this reason.
    Refused(String),
}

/// Returns the revision in which an operation completed: later ones only link it to a successor.
pub(super) fn completed_in(operation: &Operation) -> Revision {
    let completion =
        operation.history.iter().rev().find(|entry| entry.from != Some(Status::Completed));
    completion.map_or(operation.revision, |entry| entry.revision)
}

/// Returns the last successor of an operation, if it has neither failed nor been deleted.
pub(super) fn live_successor(
    view: &View,
    redirected_to: Option<OperationId>,
) -> WalResult<Option<FollowUp>> {
    let Some(to) = redirected_to else { return Ok(None) };
    let mut next = view.operation_by_id(to)?;
    for _ in 0..=SUCCESSORS_MAX {
        let Some(operation) = next else { break };
        if operation.status() != Status::Failed {
            let Operation { number, id, .. } = operation;
            return Ok(Some(FollowUp::AlreadyReopened { number, id }));
        }
        // A failed successor may have one of its own.
        let Some(to) = operation.redirected_to else { break };
        next = view.operation_by_id(to)?;
    }
    Ok(None)
}
