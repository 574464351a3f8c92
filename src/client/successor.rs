//! Successors: new operations that continue redirected and reopened ones.

use crate::operation::{BackendName, Event, Logged, Operation, OperationId, State};
use crate::wal::{Change, Known, journal};

/// Bytes that operations with successors may take in one frame: a pair must not be separated.
pub(super) const PAIRS_BYTES_MAX: usize = 512 << 10;

/// Operations with successors in one frame.
const PAIRS_MAX: usize = 250;

/// Returns a new operation with the same work, for `backend`.
pub(super) fn clone_as_new(operation: &Operation, backend: BackendName) -> Logged {
    let operation_type = operation.operation_type.clone();
    let mut logged =
        Logged::new(operation_type, backend, operation.parameters.clone(), operation.max_retries);
    logged.priority = operation.priority;
    logged.depends_on.clone_from(&operation.depends_on);
    logged.source.clone_from(&operation.source);
    logged.redirected_from = Some(operation.id);
    logged.hold = operation.hold;
    if let State::Pending { .. } = operation.state {
        logged.not_before = operation.not_before;
    }
    logged
}

/// Returns the changes that log a successor and record it on its predecessor.
pub(super) fn pair_changes(
    operation: &Operation,
    id: OperationId,
    successor: Logged,
    event: Event,
) -> [Change; 2] {
    [Change::NewAs(id, successor), Change::Next(Known::from(operation), event)]
}

/// Returns an upper bound for the bytes that an operation and its successor take in the journal.
pub(super) fn pair_bytes(operation: &Operation) -> usize {
    let logged = Event::Logged(Box::new(clone_as_new(operation, operation.backend.clone())));
    2048 + journal::record_len(&operation.operation_type, &operation.backend, &logged)
}

/// Splits operations into batches whose pairs fit into one frame each.
pub(super) fn pair_batches(operations: &[Operation]) -> Vec<&[Operation]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, operation) in operations.iter().enumerate() {
        let size = pair_bytes(operation);
        if at > start && (bytes + size > PAIRS_BYTES_MAX || at - start == PAIRS_MAX) {
            batches.push(&operations[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < operations.len() {
        batches.push(&operations[start..]);
    }
    batches
}
