use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::{Client, ClientError, Reference};
use crate::operation::{BackendName, Number, Operation, OperationId, State, Status, retry};
use crate::wal::{Damage, Order, WalError};

/// The operations that a drain loop would run now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The first operations that would run, by backend and in the order of their turn.
    pub operations: Vec<Operation>,
    /// Operations that are due, by backend.
    pub due: BTreeMap<BackendName, u64>,
    /// Operations that are held.
    pub held: u64,
    /// Operations that wait for others.
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

/// The order of operations: by backend, then as within its queue.
type Turn = (BackendName, bool, std::cmp::Reverse<i32>, Number);

impl Client {
    /// Returns what a drain loop would run now, with at most `limit` operations listed. Takes no lock.
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
        let (mut plan, turns) = self.with_view(|view| {
            let mut plan = Plan::default();
            let mut turns: Vec<Turn> = Vec::new();
            let visited = view.visit(
                Order::OldestFirst,
                |file| {
                    file.counts.keys().any(|(status, name, _)| {
                        open(*status) && backend.is_none_or(|backend| backend == name)
                    })
                },
                |glimpse| {
                    open(glimpse.status)
                        && backend.is_none_or(|backend| *backend == glimpse.backend)
                },
                |operation| {
                    let wanted = open(operation.status())
                        && backend.is_none_or(|backend| *backend == operation.backend)
                        && only.is_none_or(|only| only.contains(&operation.number));
                    if wanted && self.count_in_plan(&mut plan, &operation, now) {
                        let alone = operation.interruptions >= retry::ALONE_AFTER;
                        let priority = std::cmp::Reverse(operation.priority);
                        turns.push((operation.backend, alone, priority, operation.number));
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
        let mut turns = turns;
        turns.sort_unstable();
        for (_, _, _, number) in turns.into_iter().take(limit) {
            plan.operations.push(self.operation(&Reference::Number(number))?);
        }
        Ok(plan)
    }

    /// Counts an operation in the plan. Returns `true` if it is due.
    fn count_in_plan(
        &self,
        plan: &mut Plan,
        operation: &Operation,
        now: crate::operation::Time,
    ) -> bool {
        if operation.status() == Status::Processing {
            plan.to_be_asked += 1;
        } else if self.backends.get(&operation.backend).is_none() {
            *plan.no_backend.entry(operation.backend.clone()).or_default() += 1;
        } else if operation.hold {
            plan.held += 1;
        } else if !operation.depends_on.is_empty() {
            plan.waiting_for_others += 1;
        } else if operation.is_due(now) {
            *plan.due.entry(operation.backend.clone()).or_default() += 1;
            return true;
        } else if matches!(operation.state, State::Retrying { .. }) {
            plan.backing_off += 1;
        } else {
            plan.delayed += 1;
        }
        false
    }

    /// Returns these operations and all that they wait for, directly or not.
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
            // A completed operation waits for nothing, even if it was reopened since.
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
