//! Logging operations that fit one frame: each is checked against its key and its dependencies
//! first.

use super::change::{Admitted, Change};
use super::error::{WalError, WalResult};
use super::read::SharedJournal;
use super::read::precheck::Precheck;
use crate::operation::{Logged, Operation};

/// Logs new operations that fit one frame; durable when this returns.
///
/// An operation whose idempotency key is there already is not logged again: that one is returned.
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

/// Logs operations that have keys or wait for others: all of them in one turn under `lock`.
pub(in crate::wal) fn append_admitted(
    journal: &SharedJournal,
    operations: Vec<Change>,
) -> WalResult<Vec<Admitted>> {
    let (written, admitted) = journal.transact(|view| {
        let mut changes = Vec::with_capacity(operations.len());
        let mut places = Vec::with_capacity(operations.len());
        for change in &operations {
            let Some(logged) = logged_in(change) else { continue };
            // One batch may use a key twice.
            let twin = logged.idempotency_key.as_ref().and_then(|key| {
                let has_key = |other: &Logged| other.idempotency_key.as_ref() == Some(key);
                changes.iter().position(|change| logged_in(change).is_some_and(has_key))
            });
            if let (Some(twin), Some(key)) = (twin, &logged.idempotency_key) {
                if !logged_in(&changes[twin]).is_some_and(|other| same_work(other, logged)) {
                    return Err(WalError::KeyTwice { key: key.clone() });
                }
                places.push(Place::Written(twin));
                continue;
            }
            match view.check_preconditions(logged.clone())? {
                Precheck::New(logged) => {
                    places.push(Place::Written(changes.len()));
                    changes.push(match change {
                        Change::NewAs(id, _) => Change::NewAs(*id, *logged),
                        _ => Change::New(*logged),
                    });
                }
                Precheck::Existing(operation) => places.push(Place::Existing(operation)),
            }
        }
        Ok((changes, places))
    })?;
    if admitted.iter().any(|place| matches!(place, Place::Existing(_))) {
        // What another process logged is promised again by us, so it has to be durable.
        journal.confirm()?;
    }
    Ok(admitted
        .into_iter()
        .filter_map(|place| match place {
            Place::Written(at) => written.get(at).cloned().map(Admitted::Logged),
            Place::Existing(operation) => Some(Admitted::Existing(operation)),
        })
        .collect())
}

enum Place {
    Written(usize),
    Existing(Box<Operation>),
}

/// The operation that a change logs, if it logs one.
fn logged_in(change: &Change) -> Option<&Logged> {
    match change {
        Change::New(logged) | Change::NewAs(_, logged) => Some(logged),
        Change::Next(..) => None,
    }
}

fn same_work(one: &Logged, other: &Logged) -> bool {
    one.operation_type == other.operation_type
        && one.backend == other.backend
        && one.parameters == other.parameters
}
