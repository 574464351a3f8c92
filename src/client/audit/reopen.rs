//! Logs completed operations again whose effect is missing or altered.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::conflicts::ReopenConflicts;
use super::effects_of;
use super::finding::{AuditFinding, FollowUp, completed_in, live_successor};
use crate::backend::{Effect, EffectKind, Reach};
use crate::client::spool::{SpoolOutcome, spool_content};
use crate::client::submit::describe;
use crate::client::successor::{
    PAIRS_BYTES_MAX, clone_as_new, pair_batches, pair_bytes, pair_changes,
};
use crate::client::{Client, ClientError, Reference, Stop};
use crate::config::SpoolMode;
use crate::disk::{Access, Disk, DiskResult, FileKind};
use crate::operation::{
    BackendName, Event, Logged, Number, Operation, OperationId, Revision, Source, State,
};
use crate::wal::{Change, Stage, Staged, View, WalError, WalResult, hash_of};

/// Dependencies of a reopened operation, at most.
const DEPENDENCIES_MAX: usize = 100;

/// Findings that are read at a time.
const BATCH: usize = 500;

/// The targets of new operations: an operation that copies from one of them waits for it.
type NewTargets = BTreeMap<(BackendName, String), OperationId>;

/// A new operation, with the copy of its content.
struct Prepared {
    logged: Logged,
    staged: Option<Staged>,
}

/// An operation that can be reopened, unless a conflict is found under the lock.
struct Candidate<'a> {
    operation: &'a Operation,
    /// The id of the new operation.
    id: OperationId,
    logged: Logged,
    targets: Targets,
}

/// The decisions on one batch of candidates.
#[derive(Default)]
struct Decided {
    follow_ups: Vec<(Number, FollowUp)>,
    new_targets: NewTargets,
}

/// Logs the operations of these findings again, or records the reason why one cannot be.
///
/// Each new operation is in one frame with the link from its predecessor. All are durable when this
/// returns. Operations completed after `audited_until` may have replaced or removed the effects.
pub(super) fn reopen(
    client: &Client,
    findings: Vec<&mut AuditFinding>,
    audited_until: Revision,
    stop: &Stop,
) -> Result<(), ClientError> {
    let ids: HashSet<OperationId> = findings.iter().map(|finding| finding.id).collect();
    // In the order of completion: what an operation overwrites or copies is restored first.
    let mut order: Vec<(Revision, Number)> =
        findings.iter().map(|finding| (finding.completed_in, finding.number)).collect();
    order.sort_unstable();
    let numbers: Vec<Number> = order.into_iter().map(|(_, number)| number).collect();
    let mut findings: BTreeMap<Number, &mut AuditFinding> =
        findings.into_iter().map(|finding| (finding.number, finding)).collect();
    let mut set = |number, follow_up| {
        if let Some(finding) = findings.get_mut(&number) {
            finding.follow_up = Some(follow_up);
        }
    };
    let mut targets = NewTargets::new();
    for chunk in numbers.chunks(BATCH) {
        let mut operations = Vec::with_capacity(chunk.len());
        for number in chunk {
            match client.operation(&Reference::Number(*number)) {
                Ok(operation) => operations.push(operation),
                Err(ClientError::NoSuchOperation(_)) => {
                    set(*number, FollowUp::Refused("it was deleted meanwhile".into()));
                }
                Err(error) => return Err(error),
            }
        }
        let copies =
            operations.iter().filter(|operation| !Targets::of(client, operation).read.is_empty());
        let done = operations.iter().map(completed_in).min().unwrap_or(audited_until);
        let copied = copies.map(completed_in).min();
        let mut conflicts = ReopenConflicts::new(done, copied, audited_until, ids.clone());
        conflicts.extend_ours(targets.values().copied());
        client.with_view(|view| conflicts.update(client, view))?;
        for batch in pair_batches(&operations) {
            if stop.is_requested() {
                return Ok(());
            }
            for (number, follow_up) in reopen_batch(client, batch, &mut targets, &mut conflicts)? {
                set(number, follow_up);
            }
        }
    }
    Ok(())
}

fn reopen_batch(
    client: &Client,
    batch: &[Operation],
    targets: &mut NewTargets,
    conflicts: &mut ReopenConflicts,
) -> Result<Vec<(Number, FollowUp)>, ClientError> {
    let wal = client.wal()?;
    // Dropped after the operations are logged.
    let mut stage: Option<Stage<'_>> = None;
    let (mut candidates, mut content, mut follow_ups) = (Vec::new(), Vec::new(), Vec::new());
    let now = client.clock.now();
    for (nth, operation) in batch.iter().enumerate() {
        match prepare(client, &mut stage, operation)? {
            Err(why) => follow_ups.push((operation.number, FollowUp::Refused(why))),
            Ok(Prepared { logged, staged }) => {
                let id = wal.new_id(now, nth);
                content.extend(staged.map(|staged| (id, staged)));
                let targets = Targets::of(client, operation);
                candidates.push(Candidate { operation, id, logged, targets });
            }
        }
    }
    if candidates.is_empty() {
        return Ok(follow_ups);
    }
    let (written, decided) = wal.transact_staged(content, |view| {
        conflicts.update(client, view)?;
        decide(view, &candidates, targets, conflicts)
    })?;
    conflicts.extend_ours(decided.new_targets.values().copied());
    targets.extend(decided.new_targets);
    let numbers: BTreeMap<OperationId, Number> =
        written.iter().map(|written| (written.id, written.number)).collect();
    follow_ups.extend(decided.follow_ups.into_iter().map(|(of, follow_up)| match follow_up {
        FollowUp::Reopened { id, .. } => {
            let number = numbers.get(&id).copied().unwrap_or(Number::ZERO);
            (of, FollowUp::Reopened { number, id })
        }
        other => (of, other),
    }));
    Ok(follow_ups)
}

/// Decides on each candidate by the current state of the log. The numbers of new operations are
/// not known yet.
fn decide(
    view: &View,
    candidates: &[Candidate<'_>],
    targets: &NewTargets,
    conflicts: &ReopenConflicts,
) -> WalResult<(Vec<Change>, Decided)> {
    let mut changes = Vec::with_capacity(2 * candidates.len());
    let mut decided = Decided::default();
    for Candidate { operation: asked, id, logged, targets: own } in candidates {
        let mut follow_up = |follow_up| decided.follow_ups.push((asked.number, follow_up));
        let Some(now) = view.operation(asked.number)?.filter(|now| now.id == asked.id) else {
            follow_up(FollowUp::Refused("it was deleted meanwhile".into()));
            continue;
        };
        if let Some(next) = live_successor(view, now.redirected_to)? {
            // Another process reopened it first.
            follow_up(next);
            continue;
        }
        let dependencies = own.dependencies(&now.backend, [targets, &decided.new_targets]);
        let conflict = conflicts.conflict(&now, &own.written, &own.read).or_else(|| {
            (dependencies.len() > DEPENDENCIES_MAX).then(|| {
                format!("it copies more than {DEPENDENCIES_MAX} targets that are reopened, too")
            })
        });
        if let Some(why) = conflict {
            follow_up(FollowUp::Refused(why));
            continue;
        }
        let mut logged = logged.clone();
        logged.depends_on.extend(dependencies);
        let written = own.written.iter();
        let written = written.map(|effect| ((now.backend.clone(), effect.target.clone()), *id));
        decided.new_targets.extend(written);
        changes.extend(pair_changes(&now, *id, logged, Event::Reopened { to: *id }));
        follow_up(FollowUp::Reopened { number: Number::ZERO, id: *id });
    }
    Ok((changes, decided))
}

/// Prepares the new operation, or returns the reason why there cannot be one. The source has to
/// exist and to be unchanged since it was sent.
fn prepare<'c>(
    client: &'c Client,
    stage: &mut Option<Stage<'c>>,
    operation: &Operation,
) -> Result<Result<Prepared, String>, ClientError> {
    let mut logged = clone_as_new(operation, operation.backend.clone());
    // It has completed: dependencies and holds no longer apply.
    (logged.source, logged.hold) = (None, false);
    logged.depends_on.clear();
    if pair_bytes(operation) > PAIRS_BYTES_MAX {
        return Ok(Err("its parameters are too large".into()));
    }
    if let Err(refusal) =
        client.backends.check(&logged.backend, &logged.operation_type, &logged.parameters)
    {
        return Ok(Err(refusal.to_string()));
    }
    let path = match operation.operation_type.as_str() {
        "move" => {
            let source = operation.parameters.get("source").map(String::as_str).unwrap_or_default();
            return Ok(Err(format!("the move itself removed its source `{source}`")));
        }
        "add" | "upload" => operation.parameters.get("path"),
        _ => None,
    };
    let Some(path) = path else { return Ok(Ok(Prepared { logged, staged: None })) };
    let source = match unchanged_source(client, operation, path) {
        Ok(source) => source,
        Err(why) => return Ok(Err(why)),
    };
    logged.source.clone_from(&source);
    let outcome = match spool_content(client, stage, &mut logged, client.settings.spool) {
        Err(ClientError::Wal(error @ WalError::NoRoom { .. })) => {
            return Ok(Err(error.to_string()));
        }
        outcome => outcome?,
    };
    Ok(match outcome {
        SpoolOutcome::Bad(bad) => Err(format!("`{path}`: {}", bad.message)),
        SpoolOutcome::Referred(_) => Ok(Prepared { logged, staged: None }),
        SpoolOutcome::Copied(staged) => {
            let identity = |source: &Source| (source.size, source.mtime_ns, source.inode);
            match source.as_ref().map(identity) == logged.source.as_ref().map(identity) {
                true => Ok(Prepared { logged, staged: Some(staged) }),
                // The file changed between the check and the copy.
                false => Err(format!("`{path}` is being written to")),
            }
        }
    })
}

/// Returns the state of a path that is unchanged since it was sent, or the reason why it is not.
/// Contents of directories are not compared.
fn unchanged_source(
    client: &Client,
    operation: &Operation,
    path: &str,
) -> Result<Option<Source>, String> {
    // Directories are never copied into the log, regardless of the settings.
    let now = match describe(client, Path::new(path), SpoolMode::Auto) {
        Ok(described) => described.source,
        Err(bad) if bad.error_type == "not_found" => {
            return Err(format!("source file `{path}` no longer exists"));
        }
        Err(bad) => return Err(format!("`{path}`: {}", bad.message)),
    };
    let changed = || Err(format!("source file `{path}` has changed since it was sent"));
    let sent_size = match &operation.state {
        State::Completed { outcome, .. } => outcome.size,
        _ => None,
    };
    match (&operation.source, &now) {
        (Some(_), None) => changed(),
        (None, None) => Ok(now),
        // Logged without reading the file: only its size is known.
        (None, Some(file)) if sent_size.is_none_or(|sent| sent == file.size) => Ok(now),
        (None, Some(_)) => changed(),
        (Some(logged), Some(file)) if logged.size != file.size => changed(),
        (Some(logged), Some(file))
            if (logged.mtime_ns, logged.inode) == (file.mtime_ns, file.inode)
                && logged.ctime_ns.is_none_or(|ctime_ns| Some(ctime_ns) == file.ctime_ns) =>
        {
            Ok(now)
        }
        (Some(Source { sha256: None, .. }), Some(_)) => changed(),
        (Some(Source { sha256: Some(sha256), .. }), Some(file)) => {
            match hash_unchanged(&*client.disk, Path::new(path), file) {
                Ok(Some(hash)) if hash == *sha256 => Ok(now),
                Ok(_) => changed(),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

/// Returns the hash of a file; `None` if it is no longer as described.
fn hash_unchanged(disk: &dyn Disk, path: &Path, described: &Source) -> DiskResult<Option<String>> {
    let file = disk.open(path, Access::Read)?;
    let is_as_described = || -> DiskResult<bool> {
        let now = file.metadata()?;
        let Source { size, mtime_ns, inode, .. } = *described;
        Ok(now.kind == FileKind::File
            && (now.len, now.mtime_ns, now.inode) == (size, mtime_ns, inode))
    };
    if !is_as_described()? {
        return Ok(None);
    }
    let hash = hash_of(&*file)?;
    Ok(is_as_described()?.then_some(hash))
}

/// The targets that an operation reads, and those that it writes.
#[derive(Debug, Default)]
struct Targets {
    read: Vec<Effect>,
    written: Vec<Effect>,
}

impl Targets {
    fn of(client: &Client, operation: &Operation) -> Targets {
        let State::Completed { outcome, .. } = &operation.state else { return Targets::default() };
        let mut targets = Targets::default();
        for effect in effects_of(client, operation, outcome) {
            match effect.kind {
                EffectKind::Write => targets.written.push(effect),
                // Another operation that touches a source of this one conflicts with it, as if
                // this one wrote that source.
                EffectKind::Read => {
                    targets.read.push(Effect { kind: EffectKind::Write, ..effect });
                }
                EffectKind::Remove => {}
            }
        }
        targets
    }

    /// Returns the new operations whose targets overlap with those of this one.
    fn dependencies(&self, backend: &BackendName, targets: [&NewTargets; 2]) -> Vec<OperationId> {
        let mut found = Vec::new();
        for Effect { target, reach, .. } in self.read.iter().chain(&self.written) {
            let above = target.match_indices('/').map(|(at, _)| &target[..at]);
            for around in above.chain([&target[..]]) {
                let key = (backend.clone(), around.to_owned());
                found.extend(targets.iter().find_map(|targets| targets.get(&key)));
            }
            if matches!(reach, Reach::Tree | Reach::Prefix) {
                // `0` follows `/` in the order of bytes.
                let below = (backend.clone(), format!("{target}/"))
                    ..(backend.clone(), format!("{target}0"));
                let below = targets
                    .iter()
                    .flat_map(|targets| targets.range(below.clone()).map(|(_, id)| id));
                // One more than the bound is enough for a refusal.
                found.extend(below.take(DEPENDENCIES_MAX + 1));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
