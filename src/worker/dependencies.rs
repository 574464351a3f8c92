//! Operations that depend on others: released when those complete, failed when those fail.

use std::collections::{BTreeMap, BTreeSet};

use super::{Observer, Worker};
use crate::operation::{Event, Failure, FailureClass, Number, Operation, OperationId, failure};
use crate::wal::{DependencyState, View, WalResult};

/// The dependencies between operations, as far as the loop knows them.
#[derive(Debug, Default)]
pub struct Dependents {
    waiting: BTreeMap<OperationId, BTreeSet<Number>>,
    /// Operations that were redirected to the key: when it ends, their dependents are checked.
    redirected: BTreeMap<OperationId, BTreeSet<OperationId>>,
    /// Operations that may have ended since they were checked.
    changed: BTreeSet<OperationId>,
    /// True if an operation waits for one that this loop may not execute: the caller of a loop that
    /// follows named operations has to decide again.
    waits_for_outside: bool,
}

impl Dependents {
    /// Adds an operation that may depend on others.
    pub fn add(&mut self, operation: &Operation) {
        for id in &operation.depends_on {
            self.waiting.entry(*id).or_default().insert(operation.number);
            self.changed.insert(*id);
        }
    }

    /// Records that an operation has ended, which others may depend on.
    pub fn ended(&mut self, id: OperationId) {
        if self.waiting.contains_key(&id) {
            self.changed.insert(id);
        }
        self.changed.extend(self.redirected.remove(&id).unwrap_or_default());
    }

    /// Returns whether an operation depends on one that this loop may not execute.
    pub(super) fn take_waits_for_outside(&mut self) -> bool {
        std::mem::take(&mut self.waits_for_outside)
    }

    /// Forgets all dependencies, before the log is read again.
    pub(super) fn clear(&mut self) {
        let waits_for_outside = self.waits_for_outside;
        *self = Dependents { waits_for_outside, ..Dependents::default() };
    }
}

/// The dependencies of one operation that have ended.
#[derive(Debug, Default)]
struct Verdict {
    done: Vec<OperationId>,
    failed: Option<String>,
}

impl Worker<'_, '_, '_> {
    /// Records it if this loop may not execute `id`, on which an operation depends.
    fn note_outside_dependency(&mut self, id: OperationId) -> WalResult<()> {
        let read = self.log.view.operation_by_id(id);
        if let Some(Some(end)) = self.log.skip_damaged(read)?
            && self.options.only.as_ref().is_some_and(|only| !only.contains(end.number))
        {
            self.dependents.waits_for_outside = true;
        }
        Ok(())
    }

    /// Reads the waiting operations of files that contain dependencies.
    pub(super) fn load_dependents(&mut self) -> WalResult<()> {
        for at in 0..self.files.len() {
            if self.files[at].dependents == 0 {
                continue;
            }
            let read = self.log.view.untouched_rows(&self.files[at]);
            for row in self.log.skip_damaged(read)?.unwrap_or_default() {
                let wanted =
                    self.options.only.as_ref().is_none_or(|only| only.contains(row.number));
                if wanted && row.status().is_waiting() && self.wants(&row.backend) {
                    self.dependents.add(&row);
                }
            }
        }
        Ok(())
    }

    /// Releases or fails the dependents of operations that have ended. Returns whether anything was
    /// recorded.
    pub(super) fn settle_dependents(&mut self, observer: &mut dyn Observer) -> WalResult<bool> {
        if self.dependents.changed.is_empty() {
            return Ok(false);
        }
        let mut verdicts: BTreeMap<Number, Verdict> = BTreeMap::new();
        for id in std::mem::take(&mut self.dependents.changed) {
            let Some(waiting) = self.dependents.waiting.get(&id).cloned() else { continue };
            let read = self.log.view.dependency_state(id);
            let Some(state) = self.log.skip_damaged(read)? else { continue };
            let failed = match state {
                DependencyState::Open(end) => {
                    if end != id {
                        self.note_outside_dependency(end)?;
                        self.dependents.redirected.entry(end).or_default().insert(id);
                    }
                    continue;
                }
                DependencyState::Done => None,
                DependencyState::Failed(operation) => Some(format!(
                    "it depends on operation {}, which has failed; retry that operation, and this \
                     one is retried with it",
                    operation.number
                )),
                DependencyState::Unknown => Some(format!(
                    "it depends on operation {id}, which no longer exists; a retry ignores that \
                     dependency"
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
                self.log.operation(number)?.filter(|operation| operation.status().is_waiting());
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

/// Returns false if the event is a failure because of dependencies, and none of them is failed any
/// more: a user may have retried them in the meantime.
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
