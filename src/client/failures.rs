//! Failures grouped by cause.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Client, ClientError};
use crate::operation::{
    BackendName, Failure, FailureClass, Number, Operation, State, Status, Time, cause,
};
use crate::wal::{Damage, Order, WalError};

/// Failed and retrying operations of one backend with one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CauseGroup {
    /// Eight hex digits that identify the cause, the same for all backends.
    pub fingerprint: String,
    /// The message with paths, numbers and ids replaced.
    pub cause: String,
    /// The type of error.
    pub error_type: String,
    /// The class of the failure, which decides whether further attempts can help.
    pub class: FailureClass,
    /// The backend.
    pub backend: BackendName,
    /// Operations that have failed.
    pub failed: u64,
    /// Operations that wait for the next attempt.
    pub retrying: u64,
    /// The time at which the first of them failed.
    pub first: Time,
    /// The time at which the last of them failed.
    pub last: Time,
    /// The number of the operation that failed last.
    pub example: Number,
    /// The message of the last failure.
    pub message: String,
}

/// Failures grouped by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failures {
    /// The groups, largest first.
    pub groups: Vec<CauseGroup>,
    /// Damage that may hide further failures.
    pub damage: Option<Damage>,
}

impl Client {
    /// Groups failed and retrying operations by cause and backend.
    pub fn failures(&self, backend: Option<&BackendName>) -> Result<Failures, ClientError> {
        let is_counted = |status: Status| matches!(status, Status::Failed | Status::Retrying);
        self.with_view(|view| {
            let mut groups: BTreeMap<(BackendName, String), CauseGroup> = BTreeMap::new();
            let visited = view.visit(
                Order::OldestFirst,
                |file| {
                    file.counts.keys().any(|(status, name, _)| {
                        is_counted(*status) && backend.is_none_or(|backend| backend == name)
                    })
                },
                |summary| {
                    is_counted(summary.status)
                        && backend.is_none_or(|backend| *backend == summary.backend)
                },
                |operation| {
                    if let Some((failure, at)) = failure_of(&operation)
                        && backend.is_none_or(|backend| *backend == operation.backend)
                    {
                        count(&mut groups, &operation, failure, at);
                    }
                    ControlFlow::Continue(())
                },
            );
            let damage = match visited {
                Err(WalError::Damaged(damage)) => Some(damage),
                other => other.map(|()| None)?,
            };
            let mut groups: Vec<CauseGroup> = groups.into_values().collect();
            groups.sort_by_key(|group| {
                (std::cmp::Reverse(group.failed + group.retrying), group.fingerprint.clone())
            });
            Ok(Failures { groups, damage: damage.or_else(|| view.damage().cloned()) })
        })
    }
}

fn failure_of(operation: &Operation) -> Option<(&Failure, Time)> {
    match &operation.state {
        // A redirected operation continues as another one: its failure needs no attention.
        _ if operation.redirected_to.is_some() => None,
        State::Failed { at, failure } => Some((failure, *at)),
        State::Retrying { failure, wait } => Some((failure, wait.since)),
        _ => None,
    }
}

fn count(
    groups: &mut BTreeMap<(BackendName, String), CauseGroup>,
    operation: &Operation,
    failure: &Failure,
    at: Time,
) {
    let fingerprint = cause::fingerprint(failure);
    let group =
        groups.entry((operation.backend.clone(), fingerprint.clone())).or_insert_with(|| {
            CauseGroup {
                fingerprint,
                cause: cause::normalised(failure),
                error_type: failure.error_type.clone(),
                class: failure.class,
                backend: operation.backend.clone(),
                failed: 0,
                retrying: 0,
                first: at,
                last: at,
                example: operation.number,
                message: failure.message.clone(),
            }
        });
    match operation.status() {
        Status::Failed => group.failed += 1,
        _ => group.retrying += 1,
    }
    group.first = group.first.min(at);
    if at >= group.last {
        group.last = at;
        group.example = operation.number;
        group.message.clone_from(&failure.message);
    }
}
