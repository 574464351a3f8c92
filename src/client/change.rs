//! Actions on logged operations: cancel, hold, delete, retry, redirect, …

mod decision;

use std::collections::{BTreeMap, BTreeSet};

use super::{Client, ClientError, Reference};
use crate::operation::{
    BackendName, Event, Failure, Logged, Number, Operation, OperationId, State, Status, failure,
};
use crate::wal::{Change, DependencyState, Known, View, Wal, WalResult, journal};
use decision::{Decision, refused};

/// Changes in one frame, at most, so that the lock is held for a moment only.
const AT_ONCE: usize = 500;

/// Bytes of redirected operations in one frame, at most: each is a pair that must not be separated.
pub(super) const REDIRECTED_BYTES: usize = 512 << 10;

/// An action on operations that are already logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fail pending and retrying operations at once, and ask running ones to stop.
    Cancel {
        /// Mark as permanently failed, operations that have failed already included.
        permanent: bool,
    },
    /// Do not run until released.
    Hold,
    /// Run again after a hold.
    Release,
    /// Delete with the history.
    Delete,
    /// Change the priority.
    Prioritize(i32),
    /// Run again, with the counters reset.
    Retry {
        /// Only end the backoff of retrying operations; the counters stay.
        now: bool,
    },
    /// Run on another backend, as a new operation.
    Redirect(BackendName),
}

impl Action {
    /// Returns the past participle, for messages.
    pub fn past_participle(&self) -> &'static str {
        match self {
            Action::Cancel { .. } => "cancelled",
            Action::Hold => "held",
            Action::Release => "released",
            Action::Delete => "deleted",
            Action::Prioritize(_) => "moved in the order",
            Action::Retry { .. } => "retried",
            Action::Redirect(_) => "redirected",
        }
    }
}

/// An operation that an action does not apply to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// Its status.
    pub status: Status,
    /// Why not, and what to do instead.
    pub why: String,
}

/// The result of an action.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// The changed operations as they are now; deleted ones as they were.
    pub operations: Vec<Operation>,
    /// Operations that were in the wanted state already.
    pub unchanged: Vec<Operation>,
    /// Operations that the action does not apply to; empty with [`OnInvalid::Abort`].
    pub skipped: Vec<Skipped>,
    /// The operations that continue redirected ones, in the order of `operations`.
    pub redirected_to: Vec<Operation>,
}

/// What a call does with the rest of its items if one of them cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// Log or change nothing, and return an error.
    Abort,
    /// Leave the item out, and report it.
    Skip,
}

/// Operations that others wait for, each with the number of one of those.
type Dependents = BTreeMap<OperationId, Number>;

/// The outcome of one batch of changes.
#[derive(Debug, Default)]
struct Planned {
    /// Operations that are changed.
    done: Vec<Operation>,
    /// Operations that are logged in their place.
    created: Vec<OperationId>,
    /// Operations that the action no longer applies to.
    left: Vec<Skipped>,
}

impl Client {
    /// Applies an action to operations. Durable when this returns.
    ///
    /// With [`OnInvalid::Abort`], nothing is changed if the action does not apply to one of the operations. With
    /// [`OnInvalid::Skip`], those are skipped; then a retry or redirect also skips abandoned operations and those with an
    /// unknown outcome, which have to be named one by one.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotApplicable`] with the operations that the action does not apply to,
    /// [`ClientError::NoSuchOperation`] for a reference to none.
    pub fn change(
        &self,
        references: &[Reference],
        action: &Action,
        on_invalid: OnInvalid,
    ) -> Result<Changed, ClientError> {
        let mut operations: Vec<Operation> = Vec::with_capacity(references.len());
        let mut selected = BTreeSet::new();
        for reference in references {
            let operation = self.operation(reference)?;
            if selected.insert(operation.number) {
                operations.push(operation);
            }
        }
        let mut dependents = Dependents::new();
        if *action == Action::Delete {
            // Dependents have higher numbers: they are deleted before what they wait for.
            operations.sort_by_key(|operation| std::cmp::Reverse(operation.number));
            dependents = self.keep_dependencies(&operations, &mut selected)?;
        }
        let mut changed = Changed::default();
        let mut wanted = Vec::with_capacity(operations.len());
        for operation in operations {
            if on_invalid == OnInvalid::Skip
                && let Some(why) = needs_naming(action, &operation)
            {
                changed.skipped.push(skipped(&operation, why.into()));
                continue;
            }
            match self.decide(action, &operation, dependents.get(&operation.id).copied()) {
                Decision::Apply(_) => wanted.push(operation),
                Decision::Unchanged => changed.unchanged.push(operation),
                Decision::Refused(why) => changed.skipped.push(skipped(&operation, why)),
            }
        }
        if on_invalid == OnInvalid::Abort && !changed.skipped.is_empty() {
            return Err(ClientError::NotApplicable {
                action: action.past_participle(),
                skipped: changed.skipped,
            });
        }
        self.write_changes(action, &wanted, selected, &mut changed)?;
        Ok(changed)
    }

    /// Removes from `selected` what cannot be deleted, and then what that waits for.
    fn keep_dependencies(
        &self,
        operations: &[Operation],
        selected: &mut BTreeSet<Number>,
    ) -> Result<Dependents, ClientError> {
        loop {
            let dependents =
                self.with_view(|view| outside_dependents(view, operations, selected))?;
            let kept: Vec<Number> = operations
                .iter()
                .filter(|one| selected.contains(&one.number))
                .filter(|one| {
                    let dependent = dependents.get(&one.id).copied();
                    !matches!(decision::delete(one, dependent), Decision::Apply(_))
                })
                .map(|one| one.number)
                .collect();
            if kept.is_empty() {
                return Ok(dependents);
            }
            kept.iter().for_each(|number| {
                selected.remove(number);
            });
        }
    }

    /// Writes the changes, one frame per batch, and completes `changed` with what became of them.
    fn write_changes(
        &self,
        action: &Action,
        wanted: &[Operation],
        mut selected: BTreeSet<Number>,
        changed: &mut Changed,
    ) -> Result<(), ClientError> {
        let mut numbers: Vec<Number> = Vec::with_capacity(wanted.len());
        for batch in batches(action, wanted) {
            let wal = self.wal()?;
            let plan = |view: &View| self.plan_batch(wal, view, action, batch, &selected);
            let (_, planned) = match action {
                Action::Cancel { .. } | Action::Delete => {
                    wal.transact_finishing(|view| plan(view))?
                }
                _ => wal.transact(|view| plan(view))?,
            };
            let Planned { done, created, left } = planned;
            numbers.extend(done.iter().map(|operation| operation.number));
            if let Action::Delete | Action::Redirect(_) = action {
                // Deleted, or continued by an operation with a link of its own to the spooled content.
                done.iter().for_each(|operation| wal.release_spool(operation));
            }
            if matches!(action, Action::Delete) {
                changed.operations.extend(done);
            }
            left.iter().for_each(|one| {
                selected.remove(&one.number);
            });
            changed.skipped.extend(left);
            for id in created {
                changed.redirected_to.push(self.operation(&Reference::Id(id))?);
            }
        }
        if let Action::Retry { .. } | Action::Redirect(_) = action {
            numbers.extend(self.retry_dependents(&numbers)?);
        }
        if !matches!(action, Action::Delete) {
            for number in numbers {
                changed.operations.push(self.operation(&Reference::Number(number))?);
            }
        }
        Ok(())
    }

    /// Plans the changes of one batch, decided on the state that the log has now.
    fn plan_batch(
        &self,
        wal: &Wal,
        view: &View,
        action: &Action,
        batch: &[Operation],
        selected: &BTreeSet<Number>,
    ) -> WalResult<(Vec<Change>, Planned)> {
        let dependents = match action {
            Action::Delete => outside_dependents(view, batch, selected)?,
            _ => Dependents::new(),
        };
        let mut changes = Vec::with_capacity(batch.len());
        let mut planned = Planned::default();
        for (nth, asked) in batch.iter().enumerate() {
            let now = view.operation(asked.number)?.filter(|operation| operation.id == asked.id);
            let Some(operation) = now else {
                planned.left.push(skipped(asked, "it was deleted meanwhile".into()));
                continue;
            };
            match self.decide(action, &operation, dependents.get(&operation.id).copied()) {
                Decision::Apply(Event::Redirected { failure, .. }) => {
                    let Action::Redirect(backend) = action else { continue };
                    let id = OperationId::new(self.clock.now(), nth, self.random());
                    let mut logged = clone_as_new(&operation, backend.clone());
                    let resolved = resolved_dependencies(view, &operation)?;
                    logged.depends_on.retain(|id| !resolved.contains(id));
                    if let crate::wal::Precheck::New(admitted) =
                        view.check_preconditions(logged.clone())?
                    {
                        logged = *admitted;
                    }
                    wal.share_spool(&operation, id)?;
                    changes.extend(redirect_changes(
                        &operation,
                        id,
                        logged,
                        Event::Redirected { to: id, failure },
                    ));
                    planned.created.push(id);
                    planned.done.push(operation);
                }
                Decision::Apply(mut event) => {
                    if let Event::Retried { forget, .. } = &mut event {
                        *forget = resolved_dependencies(view, &operation)?;
                    }
                    changes.push(Change::Next(Known::from(&operation), event));
                    planned.done.push(operation);
                }
                Decision::Unchanged => {}
                Decision::Refused(why) => planned.left.push(skipped(&operation, why)),
            }
        }
        Ok((changes, planned))
    }

    fn random(&self) -> u128 {
        u128::from(self.clock.random()) << 64 | u128::from(self.clock.random())
    }

    /// Decides what an action means for an operation; `dependent` is one that waits for it.
    fn decide(
        &self,
        action: &Action,
        operation: &Operation,
        dependent: Option<Number>,
    ) -> Decision {
        match action {
            Action::Cancel { permanent: true } => decision::abandon(operation),
            Action::Cancel { permanent: false } => decision::cancel(operation),
            Action::Hold => decision::hold(operation),
            Action::Release => decision::release(operation),
            Action::Delete => decision::delete(operation, dependent),
            Action::Prioritize(priority) => decision::prioritize(operation, *priority),
            Action::Retry { .. } | Action::Redirect(_)
                if operation.status() == Status::Failed && self.has_live_successor(operation) =>
            {
                refused("it continues as another operation; retry that one")
            }
            Action::Retry { now } => decision::retry(operation, *now),
            Action::Redirect(backend) => {
                let (operation_type, parameters) =
                    (&operation.operation_type, &operation.parameters);
                let refusal = self.backends.check(backend, operation_type, parameters).err();
                decision::redirect(operation, backend, refusal)
            }
        }
    }

    /// Returns `true` if the operation continues as another one that has not been deleted.
    fn has_live_successor(&self, operation: &Operation) -> bool {
        operation.redirected_to.is_some_and(|id| self.operation(&Reference::Id(id)).is_ok())
    }

    /// Retries what failed only because one of these operations had failed.
    fn retry_dependents(&self, numbers: &[Number]) -> Result<Vec<Number>, ClientError> {
        let mut back: BTreeSet<OperationId> = BTreeSet::new();
        for number in numbers {
            back.insert(self.operation(&Reference::Number(*number))?.id);
        }
        let mut failed = self.with_view(|view| {
            let mut found = Vec::new();
            view.visit(
                crate::wal::Order::OldestFirst,
                |file| file.count_of(Status::Failed) > 0,
                |glimpse| glimpse.status == Status::Failed,
                |operation| {
                    let dependency = |failure: &Failure| failure.error_type == failure::DEPENDENCY;
                    if operation.status() == Status::Failed
                        && operation.state.failure().is_some_and(dependency)
                    {
                        found.push(operation);
                    }
                    std::ops::ControlFlow::Continue(())
                },
            )?;
            Ok(found)
        })?;
        let mut order = Vec::new();
        loop {
            let (free, rest): (Vec<Operation>, Vec<Operation>) = failed
                .into_iter()
                .partition(|operation| operation.depends_on.iter().any(|id| back.contains(id)));
            if free.is_empty() {
                break;
            }
            back.extend(free.iter().map(|operation| operation.id));
            order.extend(free);
            failed = rest;
        }
        let mut changed = Vec::with_capacity(order.len());
        for batch in order.chunks(AT_ONCE) {
            let (written, ()) = self.wal()?.transact(|view| {
                let mut changes = Vec::with_capacity(batch.len());
                for operation in batch {
                    let known = (operation.revision, operation.status());
                    if view.revision_and_status(operation.number, operation.id)? == Some(known) {
                        let reason = "an operation that it waits for is retried".to_owned();
                        let forget = resolved_dependencies(view, operation)?;
                        changes.push(Change::Next(
                            Known::from(operation),
                            Event::Retried { reason, forget },
                        ));
                    }
                }
                Ok((changes, ()))
            })?;
            changed.extend(written.iter().map(|written| written.number));
        }
        Ok(changed)
    }
}

/// Returns those of `operations` that one outside of `selected` waits for, each with the number of one that does.
fn outside_dependents(
    view: &View,
    operations: &[Operation],
    selected: &BTreeSet<Number>,
) -> WalResult<Dependents> {
    // To wait for a redirected operation is to wait for its successor, so one id may stand for several of these.
    let mut waited_for_as: BTreeMap<OperationId, Vec<OperationId>> = BTreeMap::new();
    for operation in operations {
        waited_for_as.entry(operation.id).or_default().push(operation.id);
        let mut before = operation.redirected_from;
        while let Some(id) = before {
            let older = view.operation_by_id(id)?;
            // Nothing waits for the successor of a completed operation, which was reopened after an audit.
            if older.as_ref().is_some_and(|older| older.status() == Status::Completed) {
                break;
            }
            waited_for_as.entry(id).or_default().push(operation.id);
            before = older.and_then(|operation| operation.redirected_from);
        }
    }
    let waiting = view.dependents_of(&waited_for_as.keys().copied().collect())?;
    let others = waiting.into_iter().filter(|(_, dependent)| !selected.contains(dependent));
    Ok(others
        .flat_map(|(id, dependent)| waited_for_as[&id].iter().map(move |id| (*id, dependent)))
        .collect())
}

/// Splits the operations into batches, each of which makes one frame.
fn batches<'a>(action: &Action, operations: &'a [Operation]) -> Vec<&'a [Operation]> {
    match action {
        Action::Redirect(_) => batches_of_pairs(operations),
        _ => operations.chunks(AT_ONCE).collect(),
    }
}

/// Splits operations that each continue as a new one: both belong in one frame.
pub(super) fn batches_of_pairs(operations: &[Operation]) -> Vec<&[Operation]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, operation) in operations.iter().enumerate() {
        let size = size_of(operation);
        if at > start && (bytes + size > REDIRECTED_BYTES || at - start == AT_ONCE / 2) {
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

/// Returns the changes that log a successor and record it on the older operation.
pub(super) fn redirect_changes(
    operation: &Operation,
    id: OperationId,
    logged: Logged,
    event: Event,
) -> [Change; 2] {
    [Change::NewAs(id, logged), Change::Next(Known::from(operation), event)]
}

/// Returns the bytes that redirecting an operation takes in the journal, at most: both records of the pair.
pub(super) fn size_of(operation: &Operation) -> usize {
    let logged = Event::Logged(Box::new(clone_as_new(operation, operation.backend.clone())));
    2048 + journal::record_len(&operation.operation_type, &operation.backend, &logged)
}

/// Returns the dependencies that are completed or no longer exist.
fn resolved_dependencies(view: &View, operation: &Operation) -> WalResult<Vec<OperationId>> {
    let mut resolved = Vec::new();
    for id in &operation.depends_on {
        if let DependencyState::Unknown | DependencyState::Done = view.dependency_state(*id)? {
            resolved.push(*id);
        }
    }
    Ok(resolved)
}

/// Returns why a retry or redirect of many operations leaves this one out.
fn needs_naming(action: &Action, operation: &Operation) -> Option<&'static str> {
    if !matches!(action, Action::Retry { .. } | Action::Redirect(_)) {
        None
    } else if operation.is_abandoned() {
        Some("it was cancelled or abandoned; name it to bring it back")
    } else if operation.is_in_doubt() {
        Some("its outcome is unknown: check whether it took effect, then name it to bring it back")
    } else {
        None
    }
}

fn skipped(operation: &Operation, why: String) -> Skipped {
    Skipped { number: operation.number, id: operation.id, status: operation.status(), why }
}

/// Returns a new operation with the same work, for `backend`.
pub(super) fn clone_as_new(operation: &Operation, backend: BackendName) -> Logged {
    let kind = operation.operation_type.clone();
    let mut logged =
        Logged::new(kind, backend, operation.parameters.clone(), operation.max_retries);
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
