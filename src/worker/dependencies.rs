//! Operations that wait for others: freed when those are completed, failed when those have failed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Observer, Worker};
use crate::operation::{Event, Failure, FailureClass, Number, Operation, OperationId, failure};
use crate::wal::{DependencyState, View, WalResult};

/// Who waits for which operation, as far as the loop knows.
#[derive(Debug, Default)]
pub struct Dependents {
    waiting: BTreeMap<OperationId, BTreeSet<Number>>,
    /// Operations that went on as others: when the key ends, the values have to be looked at.
    went_on: BTreeMap<OperationId, BTreeSet<OperationId>>,
    /// What may have ended since it was looked at.
    look: BTreeSet<OperationId>,
}

impl Dependents {
    /// An operation that may wait for others.
    pub fn add(&mut self, operation: &Operation) {
        for id in &operation.depends_on {
            self.waiting.entry(*id).or_default().insert(operation.number);
            self.look.insert(*id);
        }
    }

    /// An operation has ended; somebody may have waited for it.
    pub fn ended(&mut self, id: OperationId) {
        if self.waiting.contains_key(&id) {
            self.look.insert(id);
        }
        self.look.extend(self.went_on.remove(&id).unwrap_or_default());
    }
}

/// What the loop found of the operations that one waits for.
#[derive(Debug, Default)]
struct Verdict {
    done: Vec<OperationId>,
    failed: Option<String>,
}

impl Worker<'_, '_, '_> {
    /// Notes that something waits for an operation which this loop is not to carry out.
    fn look_outside(&mut self, id: OperationId) -> WalResult<()> {
        let read = self.view.operation_by_id(id);
        if let Some(Some(end)) = self.tolerate(read)?
            && self.options.only.as_ref().is_some_and(|only| !only.contains(end.number))
        {
            self.waits_outside = true;
        }
        Ok(())
    }

    /// Reads the waiting operations of files that hold some that wait for others.
    pub(super) fn load_dependents(&mut self) -> WalResult<()> {
        for at in 0..self.files.len() {
            if self.files[at].dependents == 0 {
                continue;
            }
            let read = self.view.untouched_rows(&self.files[at]);
            for row in self.tolerate(read)?.unwrap_or_default() {
                let wanted =
                    self.options.only.as_ref().is_none_or(|only| only.contains(row.number));
                if wanted && row.status().is_waiting() && self.wants(&row.backend) {
                    self.dependents.add(&row);
                }
            }
        }
        Ok(())
    }

    /// Records what the ends of operations mean for those that waited for them; true: something was recorded.
    pub(super) fn settle_dependents(&mut self, observer: &mut dyn Observer) -> WalResult<bool> {
        if self.dependents.look.is_empty() {
            return Ok(false);
        }
        let mut verdicts: BTreeMap<Number, Verdict> = BTreeMap::new();
        for id in std::mem::take(&mut self.dependents.look) {
            let Some(waiting) = self.dependents.waiting.get(&id).cloned() else { continue };
            let read = self.view.dependency_state(id);
            let Some(fate) = self.tolerate(read)? else { continue };
            let failed = match fate {
                DependencyState::Open(end) => {
                    if end != id {
                        self.look_outside(end)?;
                        self.dependents.went_on.entry(end).or_default().insert(id);
                    }
                    continue;
                }
                DependencyState::Done => None,
                DependencyState::Failed(operation) => Some(format!(
                    "operation {}, which it waited for, has failed; retry that one, and this one comes back with it",
                    operation.number
                )),
                DependencyState::Unknown => Some(format!(
                    "operation {id}, which it waited for, is gone; retry it, and it goes on without"
                )),
            };
            self.dependents.waiting.remove(&id);
            for number in waiting {
                let verdict = verdicts.entry(number).or_default();
                match &failed {
                    None => verdict.done.push(id),
                    Some(why) => verdict.failed = Some(why.clone()),
                }
            }
        }
        let mut events = Vec::with_capacity(verdicts.len());
        for (number, Verdict { mut done, failed }) in verdicts {
            let operation =
                self.operation(number)?.filter(|operation| operation.status().is_waiting());
            let Some(operation) = operation else { continue };
            done.retain(|id| operation.depends_on.contains(id));
            let event = match failed {
                Some(message) => {
                    let error_type = failure::DEPENDENCY.to_owned();
                    Event::Failed {
                        failure: Failure { class: FailureClass::Permanent, error_type, message },
                    }
                }
                None if done.is_empty() => continue,
                None => Event::DependenciesDone { ids: done },
            };
            events.push((operation, event));
        }
        let recorded_any = !events.is_empty();
        self.record_ends(events, observer)?;
        Ok(recorded_any)
    }
}

/// Whether an operation still fails because of what it waits for, if that is the event: somebody may have
/// retried that meanwhile.
pub(super) fn still_fails(view: &View, operation: &Operation, event: &Event) -> WalResult<bool> {
    if !matches!(event, Event::Failed { failure } if failure.error_type == failure::DEPENDENCY) {
        return Ok(true);
    }
    for id in &operation.depends_on {
        if let DependencyState::Failed(_) | DependencyState::Unknown = view.dependency_state(*id)? {
            return Ok(true);
        }
    }
    Ok(false)
}
