//! Carries out actions on logged operations: cancel, hold, delete, retry, redirect, …

mod decision;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use super::Client;
use super::action::{Action, Changed, OnInvalid, Skipped};
use super::error::ClientError;
use super::reference::Reference;
use super::submit::describe;
use super::successor::{clone_as_new, pair_batches, pair_changes};
use crate::config::SpoolMode;
use crate::operation::{
    BackendName, Event, Failure, Logged, Number, Operation, OperationId, Source, Status, failure,
};
use crate::wal::{Change, DependencyState, Known, Order, Precheck, View, Wal, WalResult};
use decision::{Decision, refused};

/// Changes in one frame: each frame holds the lock, which other processes wait for.
const FRAME_CHANGES_MAX: usize = 500;

/// Operations that others depend on, each with the number of one dependent.
type Dependents = BTreeMap<OperationId, Number>;

/// The decisions on one batch of operations.
#[derive(Debug, Default)]
struct BatchPlan {
    /// Operations that are changed.
    changed: Vec<Operation>,
    /// Ids of the successors of redirected operations.
    successors: Vec<OperationId>,
    /// Operations that the action no longer applies to.
    skipped: Vec<Skipped>,
}

impl Client {
    /// Applies an action to operations. Durable when this returns.
    ///
    /// With [`OnInvalid::Abort`], nothing is changed if the action does not apply to one of the
    /// operations. With [`OnInvalid::Skip`], those are skipped; a retry or redirect then also skips
    /// abandoned operations and those with an unknown outcome, which have to be named one by one.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotApplicable`] with the operations that the action does not apply to,
    /// [`ClientError::NoSuchOperation`] if a reference names no operation.
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
            // Dependents have higher numbers: they are deleted before the operations they wait for.
            operations.sort_by_key(|operation| Reverse(operation.number));
            dependents = deselect_undeletable(self, &operations, &mut selected)?;
        }
        let mut checked = BTreeMap::new();
        let mut changed = Changed::default();
        let mut applicable = Vec::with_capacity(operations.len());
        for operation in operations {
            if on_invalid == OnInvalid::Skip
                && let Some(why) = reason_to_name(action, &operation)
            {
                changed.skipped.push(Skipped::new(&operation, why));
                continue;
            }
            match decide(self, action, &operation, dependents.get(&operation.id).copied()) {
                // The successor would get the same copy. Checked here, not under `lock`, because
                // this reads the whole copy.
                Decision::Apply(Event::Redirected { .. })
                    if !self.wal()?.has_intact_copy(&operation, &mut checked)? =>
                {
                    let why = "its spooled copy is damaged; add the file again";
                    changed.skipped.push(Skipped::new(&operation, why));
                }
                Decision::Apply(_) => applicable.push(operation),
                Decision::Unchanged => changed.unchanged.push(operation),
                Decision::Refused(why) => changed.skipped.push(Skipped::new(&operation, why)),
            }
        }
        if on_invalid == OnInvalid::Abort && !changed.skipped.is_empty() {
            return Err(ClientError::NotApplicable {
                action: action.past_participle(),
                skipped: changed.skipped,
            });
        }
        write_changes(self, action, &applicable, selected, &mut changed)?;
        Ok(changed)
    }

    /// Returns failed operations to pending with their counters reset, and ends the backoff of
    /// retrying ones.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotApplicable`] if one of them has another status; then none is changed.
    pub fn retry(&self, references: &[Reference]) -> Result<Vec<Operation>, ClientError> {
        let retry = Action::Retry { now: false };
        Ok(self.change(references, &retry, OnInvalid::Abort)?.operations)
    }
}

/// Removes operations that cannot be deleted from `selected`, and those that they depend on.
///
/// Returns the dependents of the others outside of `selected`.
fn deselect_undeletable(
    client: &Client,
    operations: &[Operation],
    selected: &mut BTreeSet<Number>,
) -> Result<Dependents, ClientError> {
    loop {
        let dependents = client.with_view(|view| outside_dependents(view, operations, selected))?;
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
        for number in kept {
            selected.remove(&number);
        }
    }
}

/// Writes the changes, one frame per batch, and adds the results to `changed`.
fn write_changes(
    client: &Client,
    action: &Action,
    applicable: &[Operation],
    mut selected: BTreeSet<Number>,
    changed: &mut Changed,
) -> Result<(), ClientError> {
    let mut numbers: Vec<Number> = Vec::with_capacity(applicable.len());
    for batch in batches(action, applicable) {
        let wal = client.wal()?;
        let plan = |view: &View| plan_batch(client, wal, view, action, batch, &selected);
        let (_, planned) = match action {
            Action::Cancel { .. } | Action::Delete => wal.transact_finishing(|view| plan(view))?,
            _ => wal.transact(|view| plan(view))?,
        };
        numbers.extend(planned.changed.iter().map(|operation| operation.number));
        if let Action::Delete | Action::AcceptSource | Action::Redirect(_) = action {
            // A successor has a link of its own to the spooled content, and an accepted source
            // takes the place of the copy.
            planned.changed.iter().for_each(|operation| wal.release_spool(operation));
        }
        if matches!(action, Action::Delete) {
            changed.operations.extend(planned.changed);
        }
        for skipped in &planned.skipped {
            selected.remove(&skipped.number);
        }
        changed.skipped.extend(planned.skipped);
        for id in planned.successors {
            changed.redirected_to.push(client.operation(&Reference::Id(id))?);
        }
    }
    if let Action::Retry { .. } | Action::AcceptSource | Action::Redirect(_) = action {
        numbers.extend(retry_dependents(client, &numbers)?);
    }
    if !matches!(action, Action::Delete) {
        for number in numbers {
            changed.operations.push(client.operation(&Reference::Number(number))?);
        }
    }
    Ok(())
}

/// Splits operations into batches that make one frame each.
fn batches<'a>(action: &Action, operations: &'a [Operation]) -> Vec<&'a [Operation]> {
    match action {
        Action::Redirect(_) => pair_batches(operations),
        _ => operations.chunks(FRAME_CHANGES_MAX).collect(),
    }
}

/// Plans the changes of one batch, decided on the current state of the log.
fn plan_batch(
    client: &Client,
    wal: &Wal,
    view: &View,
    action: &Action,
    batch: &[Operation],
    selected: &BTreeSet<Number>,
) -> WalResult<(Vec<Change>, BatchPlan)> {
    let dependents = match action {
        Action::Delete => outside_dependents(view, batch, selected)?,
        _ => Dependents::new(),
    };
    let mut changes = Vec::with_capacity(batch.len());
    let mut plan = BatchPlan::default();
    for (nth, asked) in batch.iter().enumerate() {
        let now = view.operation(asked.number)?.filter(|operation| operation.id == asked.id);
        let Some(operation) = now else {
            plan.skipped.push(Skipped::new(asked, "it was deleted meanwhile"));
            continue;
        };
        match decide(client, action, &operation, dependents.get(&operation.id).copied()) {
            Decision::Apply(Event::Redirected { failure, .. }) => {
                let Action::Redirect(backend) = action else { continue };
                let id = wal.new_id(client.clock.now(), nth);
                let successor = successor_of(view, &operation, backend)?;
                wal.share_spool(&operation, id)?;
                let event = Event::Redirected { to: id, failure };
                changes.extend(pair_changes(&operation, id, successor, event));
                plan.successors.push(id);
                plan.changed.push(operation);
            }
            Decision::Apply(mut event) => {
                if let Event::Retried { forget, .. } = &mut event {
                    *forget = resolved_dependencies(view, &operation)?;
                }
                changes.push(Change::Next(Known::from(&operation), event));
                plan.changed.push(operation);
            }
            Decision::Unchanged => {}
            Decision::Refused(why) => plan.skipped.push(Skipped::new(&operation, why)),
        }
    }
    Ok((changes, plan))
}

/// Returns the operation of another backend that continues this one.
fn successor_of(view: &View, operation: &Operation, backend: &BackendName) -> WalResult<Logged> {
    let mut successor = clone_as_new(operation, backend.clone());
    let resolved = resolved_dependencies(view, operation)?;
    successor.depends_on.retain(|id| !resolved.contains(id));
    Ok(match view.check_preconditions(successor.clone())? {
        Precheck::New(admitted) => *admitted,
        _ => successor,
    })
}

/// Returns the effect of an action on an operation; `dependent` is one that waits for it.
fn decide(
    client: &Client,
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
        Action::Retry { .. } | Action::AcceptSource | Action::Redirect(_)
            if operation.status() == Status::Failed && has_successor(client, operation) =>
        {
            refused("it continues as another operation; retry that one")
        }
        Action::Retry { now } => decision::retry(operation, *now),
        Action::AcceptSource => {
            decision::accept_source(operation, || present_source(client, operation))
        }
        Action::Redirect(backend) => {
            let (operation_type, parameters) = (&operation.operation_type, &operation.parameters);
            let refusal = client.backends.check(backend, operation_type, parameters).err();
            decision::redirect(operation, backend, refusal)
        }
    }
}

/// Returns the present state of the file that an operation refers to, with the noted hash: the
/// content must still have it.
fn present_source(client: &Client, operation: &Operation) -> Result<Source, String> {
    let path = operation.parameters.get("path").map(Path::new);
    let (Some(path), Some(logged)) = (path, &operation.source) else {
        return Err("it refers to no file".into());
    };
    let described = describe(client, path, SpoolMode::Auto).map_err(|bad| bad.message)?;
    let present = described.source.ok_or_else(|| format!("`{}` is a directory", path.display()))?;
    if logged.sha256.is_some() && present.size != logged.size {
        return Err(format!("`{}` has other content now; add it again", path.display()));
    }
    Ok(Source { sha256: logged.sha256.clone(), ..present })
}

/// Returns `true` if the operation has a successor that has not been deleted.
fn has_successor(client: &Client, operation: &Operation) -> bool {
    operation.redirected_to.is_some_and(|id| client.operation(&Reference::Id(id)).is_ok())
}

/// Retries operations that failed only because one of these had failed. Returns their numbers.
fn retry_dependents(client: &Client, numbers: &[Number]) -> Result<Vec<Number>, ClientError> {
    let mut changed = Vec::new();
    for batch in failed_dependents(client, numbers)?.chunks(FRAME_CHANGES_MAX) {
        let (written, ()) = client.wal()?.transact(|view| {
            let mut changes = Vec::with_capacity(batch.len());
            for operation in batch {
                let known = (operation.revision, operation.status());
                if view.revision_and_status(operation.number, operation.id)? == Some(known) {
                    let reason = "an operation that it waits for is retried".to_owned();
                    let forget = resolved_dependencies(view, operation)?;
                    let event = Event::Retried { reason, forget, source: None };
                    changes.push(Change::Next(Known::from(operation), event));
                }
            }
            Ok((changes, ()))
        })?;
        changed.extend(written.iter().map(|written| written.number));
    }
    Ok(changed)
}

/// Returns operations that failed because one of these had failed, dependencies first.
fn failed_dependents(client: &Client, numbers: &[Number]) -> Result<Vec<Operation>, ClientError> {
    let mut retried: BTreeSet<OperationId> = BTreeSet::new();
    for number in numbers {
        retried.insert(client.operation(&Reference::Number(*number))?.id);
    }
    let mut failed = client.with_view(|view| {
        let mut found = Vec::new();
        view.visit(
            Order::OldestFirst,
            |file| file.count_of(Status::Failed) > 0,
            |summary| summary.status == Status::Failed,
            |operation| {
                let dependency = |failure: &Failure| failure.error_type == failure::DEPENDENCY;
                if operation.status() == Status::Failed
                    && operation.state.failure().is_some_and(dependency)
                {
                    found.push(operation);
                }
                ControlFlow::Continue(())
            },
        )?;
        Ok(found)
    })?;
    let mut ordered = Vec::new();
    loop {
        let (free, rest): (Vec<Operation>, Vec<Operation>) = failed
            .into_iter()
            .partition(|operation| operation.depends_on.iter().any(|id| retried.contains(id)));
        if free.is_empty() {
            return Ok(ordered);
        }
        retried.extend(free.iter().map(|operation| operation.id));
        ordered.extend(free);
        failed = rest;
    }
}

/// Returns the operations that one outside of `selected` depends on, each with the number of one
/// such dependent.
fn outside_dependents(
    view: &View,
    operations: &[Operation],
    selected: &BTreeSet<Number>,
) -> WalResult<Dependents> {
    // A dependent of a redirected operation waits for its successor: one id can mean several.
    let mut known_as: BTreeMap<OperationId, Vec<OperationId>> = BTreeMap::new();
    for operation in operations {
        known_as.entry(operation.id).or_default().push(operation.id);
        let mut before = operation.redirected_from;
        while let Some(id) = before {
            let older = view.operation_by_id(id)?;
            // A completed operation was reopened after an audit: nothing waits for its successor.
            if older.as_ref().is_some_and(|older| older.status() == Status::Completed) {
                break;
            }
            known_as.entry(id).or_default().push(operation.id);
            before = older.and_then(|operation| operation.redirected_from);
        }
    }
    let waiting = view.dependents_of(&known_as.keys().copied().collect())?;
    let outside = waiting.into_iter().filter(|(_, dependent)| !selected.contains(dependent));
    Ok(outside
        .flat_map(|(id, dependent)| known_as[&id].iter().map(move |id| (*id, dependent)))
        .collect())
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

/// Returns the reason why a retry or redirect of many operations leaves this one out.
fn reason_to_name(action: &Action, operation: &Operation) -> Option<&'static str> {
    if !matches!(action, Action::Retry { .. } | Action::AcceptSource | Action::Redirect(_)) {
        None
    } else if operation.is_abandoned() {
        Some("it was cancelled or abandoned; name it to bring it back")
    } else if operation.is_in_doubt() {
        Some("its outcome is unknown: check whether it took effect, then name it to bring it back")
    } else {
        None
    }
}
