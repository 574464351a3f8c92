//! Logging operations that fit one frame. Idempotency keys and dependencies are checked first.

use super::change::{Admitted, Change};
use super::error::{WalError, WalResult};
use super::read::SharedJournal;
use super::read::precheck::Precheck;
use crate::operation::{Logged, Operation};

/// Logs new operations that fit one frame. Durable on return.
///
/// An operation whose idempotency key is already logged is not logged again: the existing one is
/// returned.
pub(in crate::wal) fn append_one_frame(
    journal: &SharedJournal,
    operations: Vec<Logged>,
) -> WalResult<Vec<Admitted>> {
    if operations.iter().any(Logged::has_conditions) {
        return append_admitted(journal, operations.into_iter().map(Change::New).collect());
    }
    let written = match <[Logged; 1]>::try_from(operations) {
        Ok([operation]) => journal.append_grouped(operation),
        Err(operations) => {
            let changes = || operations.iter().cloned().map(Change::New).collect();
            journal.transact(|_| Ok((changes(), ()))).map(|(written, ())| written)
        }
    };
    Ok(written?.into_iter().map(Admitted::Logged).collect())
}

/// Logs operations with keys or dependencies. All of them are checked and written under one lock.
pub(in crate::wal) fn append_admitted(
    journal: &SharedJournal,
    operations: Vec<Change>,
) -> WalResult<Vec<Admitted>> {
    let (written, admitted) = journal.transact(|view| {
        let mut changes = Vec::with_capacity(operations.len());
        let mut results = Vec::with_capacity(operations.len());
        for change in &operations {
            let Some(logged) = logged_in(change) else { continue };
            // Two of these operations may have the same key.
            let duplicate = logged.idempotency_key.as_ref().and_then(|key| {
                let has_key = |other: &Logged| other.idempotency_key.as_ref() == Some(key);
                changes.iter().position(|change| logged_in(change).is_some_and(has_key))
            });
            if let (Some(original), Some(key)) = (duplicate, &logged.idempotency_key) {
                if !logged_in(&changes[original]).is_some_and(|other| same_work(other, logged)) {
                    return Err(WalError::KeyTwice { key: key.clone() });
                }
                results.push(Admission::Written(original));
                continue;
            }
            match view.check_preconditions(logged.clone())? {
                Precheck::New(logged) => {
                    results.push(Admission::Written(changes.len()));
                    changes.push(match change {
                        Change::NewAs(id, _) => Change::NewAs(*id, *logged),
                        _ => Change::New(*logged),
                    });
                }
                Precheck::Existing(operation) => results.push(Admission::Existing(operation)),
            }
        }
        Ok((changes, results))
    })?;
    if admitted.iter().any(|result| matches!(result, Admission::Existing(_))) {
        // This process acknowledges an operation that another one logged, so it must be durable.
        journal.confirm()?;
    }
    Ok(admitted
        .into_iter()
        .filter_map(|result| match result {
            Admission::Written(at) => written.get(at).cloned().map(Admitted::Logged),
            Admission::Existing(operation) => Some(Admitted::Existing(operation)),
        })
        .collect())
}

/// The result for one of the operations.
enum Admission {
    /// It is logged by the change with this index.
    Written(usize),
    Existing(Box<Operation>),
}

/// Returns the operation that a change logs; none if it changes an existing one.
fn logged_in(change: &Change) -> Option<&Logged> {
    match change {
        Change::New(logged) | Change::NewAs(_, logged) => Some(logged),
        Change::Next(..) => None,
    }
}

/// Returns true if two operations do the same.
fn same_work(one: &Logged, other: &Logged) -> bool {
    one.operation_type == other.operation_type
        && one.backend == other.backend
        && one.parameters == other.parameters
}
