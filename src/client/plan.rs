//! The operations that a drain loop would run, without running them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::{Client, ClientError, Reference};
use crate::operation::{BackendName, Number, Operation, OperationId, State, Status, Time, retry};
use crate::wal::{Damage, Order, WalError};

/// The operations that a drain loop would run now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The first operations that would run, by backend and in order.
    pub operations: Vec<Operation>,
    /// Operations that are due, by backend.
    pub due: BTreeMap<BackendName, u64>,
    /// Operations that are held.
    pub held: u64,
    /// Operations that depend on others.
    pub waiting_for_others: u64,
    /// Operations whose delay has not passed.
    pub delayed: u64,
    /// Operations that wait for their next attempt.
    pub backing_off: u64,
    /// Operations of backends that are not configured or not part of this build.
    pub no_backend: BTreeMap<BackendName, u64>,
    /// Operations that a dead drain loop left claimed: their backends are queried first.
    pub to_be_asked: u64,
    /// Damage that may hide further operations.
    pub damage: Option<Damage>,
}

/// The place of an operation in the order: by backend, then as in its queue.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    backend: BackendName,
    alone: bool,
    priority: Reverse<i32>,
    number: Number,
}

impl Plan {
    /// Counts an operation. Returns `true` if it is due.
    fn count(&mut self, operation: &Operation, has_backend: bool, now: Time) -> bool {
        let counter = if operation.status() == Status::Processing {
            &mut self.to_be_asked
        } else if !has_backend {
            self.no_backend.entry(operation.backend.clone()).or_default()
        } else if operation.hold {
            &mut self.held
        } else if !operation.depends_on.is_empty() {
            &mut self.waiting_for_others
        } else if operation.is_due(now) {
            *self.due.entry(operation.backend.clone()).or_default() += 1;
            return true;
        } else if matches!(operation.state, State::Retrying { .. }) {
            &mut self.backing_off
        } else {
            &mut self.delayed
        };
        *counter += 1;
        false
    }
}

impl Client {
    /// Returns the operations that a drain loop would run now, at most `limit` of them listed.
    ///
    /// Takes no lock.
    pub fn plan(
        &self,
        backend: Option<&BackendName>,
        only: Option<&BTreeSet<Number>>,
        limit: usize,
    ) -> Result<Plan, ClientError> {
        let now = self.clock.now();
        let active = self.running_loop()?.is_some();
        let open =
            |status: Status| status.is_waiting() || (status == Status::Processing && !active);
        let (mut plan, mut turns) = self.with_view(|view| {
            let mut plan = Plan::default();
            let mut turns: Vec<Turn> = Vec::new();
            let visited = view.visit(
                Order::OldestFirst,
                |file| {
                    file.counts.keys().any(|(status, name, _)| {
                        open(*status) && backend.is_none_or(|backend| backend == name)
                    })
                },
                |summary| {
                    open(summary.status)
                        && backend.is_none_or(|backend| *backend == summary.backend)
                },
                |operation| {
                    let wanted = open(operation.status())
                        && backend.is_none_or(|backend| *backend == operation.backend)
                        && only.is_none_or(|only| only.contains(&operation.number));
                    let has_backend = || self.backends.get(&operation.backend).is_some();
                    if wanted && plan.count(&operation, has_backend(), now) {
                        turns.push(Turn {
                            alone: operation.interruptions >= retry::ALONE_AFTER,
                            priority: Reverse(operation.priority),
                            number: operation.number,
                            backend: operation.backend,
                        });
                    }
                    ControlFlow::Continue(())
                },
            );
            plan.damage = match visited {
                Err(WalError::Damaged(damage)) => Some(damage),
                other => other.map(|()| view.damage().cloned())?,
            };
            Ok((plan, turns))
        })?;
        turns.sort_unstable();
        for turn in turns.into_iter().take(limit) {
            plan.operations.push(self.operation(&Reference::Number(turn.number))?);
        }
        Ok(plan)
    }

    /// Returns these operations and all that they depend on, directly or indirectly.
    pub fn with_dependencies(
        &self,
        numbers: impl IntoIterator<Item = Number>,
    ) -> Result<BTreeSet<Number>, ClientError> {
        let mut all: BTreeSet<Number> = BTreeSet::new();
        let mut left: Vec<Number> = numbers.into_iter().collect();
        // A large batch of new operations has no dependencies in a log without any.
        if left.len() > 1000 && self.with_view(|view| view.dependencies())?.is_empty() {
            return Ok(left.into_iter().collect());
        }
        while let Some(number) = left.pop() {
            if !all.insert(number) {
                continue;
            }
            let operation = self.operation(&Reference::Number(number))?;
            // A completed operation needs no other, even if it was reopened since.
            let next = operation.redirected_to.filter(|_| operation.status() != Status::Completed);
            let others: Vec<OperationId> =
                operation.depends_on.iter().copied().chain(next).collect();
            for id in others {
                if let Some(other) = self.with_view(|view| view.operation_by_id(id))? {
                    left.push(other.number);
                }
            }
        }
        Ok(all)
    }
}
