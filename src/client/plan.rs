use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::{Client, ClientError, Reference};
use crate::operation::{BackendName, Number, Operation, OperationId, State, Status, retry};
use crate::wal::{Damage, Order, WalError};

/// What a drain loop would do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The first operations that would be carried out, in the order of their lanes.
    pub operations: Vec<Operation>,
    /// How many would be carried out, per backend.
    pub due: BTreeMap<BackendName, u64>,
    /// How many are set aside.
    pub held: u64,
    /// How many wait for other operations.
    pub waiting_for_others: u64,
    /// How many were logged with a delay that is not over.
    pub delayed: u64,
    /// How many wait for their next attempt.
    pub backing_off: u64,
    /// How many belong to a backend that is not configured, or not built into this program.
    pub no_backend: BTreeMap<BackendName, u64>,
    /// How many a dead drain loop left claimed: their backends would be asked about them first.
    pub to_be_asked: u64,
    /// What could not be read.
    pub damage: Option<Damage>,
}

/// What decides the order within a lane.
type Place = (BackendName, bool, std::cmp::Reverse<i32>, Number);

impl Client {
    /// What a drain loop would carry out now, naming at most `limit` operations; takes no lock.
    pub fn plan(
        &self,
        backend: Option<&BackendName>,
        only: Option<&BTreeSet<Number>>,
        limit: usize,
    ) -> Result<Plan, ClientError> {
        let now = self.clock.now();
        let active = self.processing_active()?.is_some();
        let open =
            |status: Status| status.is_waiting() || (status == Status::Processing && !active);
        let (mut plan, places) = self.look(|view| {
            let mut plan = Plan::default();
            let mut places: Vec<Place> = Vec::new();
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
                    if wanted && self.sort_in(&mut plan, &operation, now) {
                        let alone = operation.interruptions >= retry::ALONE_AFTER;
                        let priority = std::cmp::Reverse(operation.priority);
                        places.push((operation.backend, alone, priority, operation.number));
                    }
                    ControlFlow::Continue(())
                },
            );
            plan.damage = match visited {
                Err(WalError::Damaged(damage)) => Some(damage),
                other => other.map(|()| view.damage().cloned())?,
            };
            Ok((plan, places))
        })?;
        let mut places = places;
        places.sort_unstable();
        for (_, _, _, number) in places.into_iter().take(limit) {
            plan.operations.push(self.operation(&Reference::Number(number))?);
        }
        Ok(plan)
    }

    /// Counts an operation where it belongs; true: it is due.
    fn sort_in(&self, plan: &mut Plan, operation: &Operation, now: crate::operation::Time) -> bool {
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

    /// These operations and all that they wait for, directly or not.
    pub fn with_dependencies(
        &self,
        numbers: impl IntoIterator<Item = Number>,
    ) -> Result<BTreeSet<Number>, ClientError> {
        let mut all: BTreeSet<Number> = BTreeSet::new();
        let mut left: Vec<Number> = numbers.into_iter().collect();
        // New ones, in their hundred thousands, have neither waited nor gone on as others.
        if left.len() > 1000 && self.look(|view| view.dependencies())?.is_empty() {
            return Ok(left.into_iter().collect());
        }
        while let Some(number) = left.pop() {
            if !all.insert(number) {
                continue;
            }
            let operation = self.operation(&Reference::Number(number))?;
            // What is completed waits for nothing, also if it was made good by another one since.
            let next = operation.redirected_to.filter(|_| operation.status() != Status::Completed);
            let others: Vec<OperationId> =
                operation.depends_on.iter().copied().chain(next).collect();
            for id in others {
                if let Some(other) = self.look(|view| view.operation_by_id(id))? {
                    left.push(other.number);
                }
            }
        }
        Ok(all)
    }
}
