//! Logs completed operations again whose effect is missing or altered.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::audit::{AuditFinding, FollowUp, ReopenConflicts, completed_in, live_successor};
use super::change::{REDIRECTED_BYTES, batches_of_pairs, clone_as_new, redirect_changes, size_of};
use super::spool::SpoolOutcome;
use super::{Client, ClientError, Reference, Stop};
use crate::backend::{Effect, EffectKind, Reach};
use crate::config::SpoolMode;
use crate::disk::{Access, DiskResult, FileKind};
use crate::operation::{
    BackendName, Event, Logged, Number, Operation, OperationId, Revision, Source, State,
};
use crate::wal::{Stage, Staged, WalError, hash_of};

/// The new operation, or why there cannot be one.
type Prepared = Result<(Logged, Option<Staged>), String>;

/// The targets of new operations: an operation that copies from one of them waits for it.
type NewTargets = BTreeMap<(BackendName, String), OperationId>;

impl Client {
    /// Logs each of these operations again as it was, or records why it cannot be.
    ///
    /// Each new operation is in one frame with the link from the one that it was made from. All is durable when this
    /// returns. `audited_until`: operations that completed later may have replaced or removed these effects.
    pub(super) fn reopen(
        &self,
        findings: Vec<&mut AuditFinding>,
        audited_until: Revision,
        stop: &Stop,
    ) -> Result<(), ClientError> {
        let ids: HashSet<OperationId> = findings.iter().map(|finding| finding.id).collect();
        // In the order of completion: what an operation overwrites or copies is put there first.
        let mut order: Vec<(Revision, Number)> =
            findings.iter().map(|finding| (finding.completed_in, finding.number)).collect();
        order.sort_unstable();
        let numbers: Vec<Number> = order.into_iter().map(|(_, number)| number).collect();
        let mut findings: BTreeMap<Number, &mut AuditFinding> =
            findings.into_iter().map(|finding| (finding.number, finding)).collect();
        let mut targets = NewTargets::new();
        for some in numbers.chunks(BATCH) {
            let mut operations = Vec::with_capacity(some.len());
            for number in some {
                match self.operation(&Reference::Number(*number)) {
                    Ok(operation) => operations.push(operation),
                    Err(ClientError::NoSuchOperation(_)) => {
                        refuse(&mut findings, *number, "it was deleted meanwhile".into());
                    }
                    Err(error) => return Err(error),
                }
            }
            let copies =
                operations.iter().filter(|operation| !self.targets_of(operation).read.is_empty());
            let done = operations.iter().map(completed_in).min().unwrap_or(audited_until);
            let mut conflicts = ReopenConflicts::new(
                done,
                copies.map(completed_in).min(),
                audited_until,
                ids.clone(),
            );
            conflicts.extend_ours(targets.values().copied());
            self.with_view(|view| conflicts.update(self, view))?;
            for batch in batches_of_pairs(&operations) {
                if stop.is_requested() {
                    return Ok(());
                }
                for (number, follow_up) in self.reopen_batch(batch, &mut targets, &mut conflicts)? {
                    if let Some(finding) = findings.get_mut(&number) {
                        finding.follow_up = Some(follow_up);
                    }
                }
            }
        }
        Ok(())
    }

    fn reopen_batch(
        &self,
        batch: &[Operation],
        targets: &mut NewTargets,
        conflicts: &mut ReopenConflicts,
    ) -> Result<Vec<(Number, FollowUp)>, ClientError> {
        let wal = self.wal()?;
        // Dropped after all is logged.
        let mut stage: Option<Stage<'_>> = None;
        let (mut wanted, mut content, mut follow_ups) = (Vec::new(), Vec::new(), Vec::new());
        let now = self.clock.now();
        for (nth, operation) in batch.iter().enumerate() {
            match self.prepare(&mut stage, operation)? {
                Err(why) => follow_ups.push((operation.number, FollowUp::Refused(why))),
                Ok((logged, staged)) => {
                    let id = wal.new_id(now, nth);
                    content.extend(staged.map(|staged| (id, staged)));
                    wanted.push((operation, id, logged, self.targets_of(operation)));
                }
            }
        }
        if wanted.is_empty() {
            return Ok(follow_ups);
        }
        let (written, (decided, new_targets)) = wal.transact_staged(content, |view| {
            let (mut changes, mut decided) = (Vec::with_capacity(2 * wanted.len()), Vec::new());
            let mut new_targets = NewTargets::new();
            conflicts.update(self, view)?;
            for (asked, id, logged, places) in &wanted {
                let mut decide = |follow_up| decided.push((asked.number, follow_up));
                let Some(now) = view.operation(asked.number)?.filter(|now| now.id == asked.id)
                else {
                    decide(FollowUp::Refused("it was deleted meanwhile".into()));
                    continue;
                };
                if let Some(next) = live_successor(view, now.redirected_to)? {
                    // Another process was faster.
                    decide(next);
                    continue;
                }
                let needed = places.dependencies(&now.backend, [&*targets, &new_targets]);
                let too_many =
                    || format!("it copies more than {NEEDED_MAX} targets that are reopened, too");
                let conflict = conflicts.conflict(&now, &places.put, &places.read);
                if let Some(why) = conflict.or_else(|| (needed.len() > NEEDED_MAX).then(too_many)) {
                    decide(FollowUp::Refused(why));
                    continue;
                }
                let mut logged = logged.clone();
                logged.depends_on.extend(needed);
                let put = places
                    .put
                    .iter()
                    .map(|effect| ((now.backend.clone(), effect.target.clone()), *id));
                new_targets.extend(put);
                changes.extend(redirect_changes(&now, *id, logged, Event::Reopened { to: *id }));
                decide(FollowUp::Reopened { number: Number::ZERO, id: *id });
            }
            Ok((changes, (decided, new_targets)))
        })?;
        conflicts.extend_ours(new_targets.values().copied());
        targets.extend(new_targets);
        let numbers: BTreeMap<OperationId, Number> =
            written.iter().map(|written| (written.id, written.number)).collect();
        follow_ups.extend(decided.into_iter().map(|(number, follow_up)| match follow_up {
            FollowUp::Reopened { id, .. } => (
                number,
                FollowUp::Reopened {
                    number: numbers.get(&id).copied().unwrap_or(Number::ZERO),
                    id,
                },
            ),
            other => (number, other),
        }));
        Ok(follow_ups)
    }

    /// Returns the targets that an operation reads, and those that it writes.
    fn targets_of(&self, operation: &Operation) -> Targets {
        let State::Completed { outcome, .. } = &operation.state else { return Targets::default() };
        let (mut read, mut put) = (Vec::new(), Vec::new());
        for effect in self.effects_of(operation, outcome) {
            match effect.kind {
                EffectKind::Write => put.push(effect),
                // An operation that touches what this one reads is a conflict, as if it were written.
                EffectKind::Read => read.push(Effect { kind: EffectKind::Write, ..effect }),
                EffectKind::Remove => {}
            }
        }
        Targets { read, put }
    }

    /// Prepares the new operation. Its source has to exist and to be what was sent.
    fn prepare<'a>(
        &'a self,
        stage: &mut Option<Stage<'a>>,
        operation: &Operation,
    ) -> Result<Prepared, ClientError> {
        let mut logged = clone_as_new(operation, operation.backend.clone());
        // It has completed: dependencies and holds no longer apply.
        (logged.source, logged.hold) = (None, false);
        logged.depends_on.clear();
        if size_of(operation) > REDIRECTED_BYTES {
            return Ok(Err("its parameters are too large".into()));
        }
        if let Err(refusal) =
            self.backends.check(&logged.backend, &logged.operation_type, &logged.parameters)
        {
            return Ok(Err(refusal.to_string()));
        }
        let path = match operation.operation_type.as_str() {
            "move" => {
                let source =
                    operation.parameters.get("source").map(String::as_str).unwrap_or_default();
                return Ok(Err(format!("the move itself removed its source `{source}`")));
            }
            "add" | "upload" => operation.parameters.get("path"),
            _ => None,
        };
        let Some(path) = path else { return Ok(Ok((logged, None))) };
        let source = match self.same_source(operation, path)? {
            Ok(source) => source,
            Err(why) => return Ok(Err(why)),
        };
        logged.source.clone_from(&source);
        let taken = match self.spool_content(stage, &mut logged, self.settings.spool) {
            Err(ClientError::Wal(error @ WalError::NoRoom { .. })) => {
                return Ok(Err(error.to_string()));
            }
            taken => taken?,
        };
        let changed = || format!("`{path}` is being written to");
        Ok(match taken {
            SpoolOutcome::Bad(bad) => Err(format!("`{path}`: {}", bad.message)),
            SpoolOutcome::Referred(_) => Ok((logged, None)),
            SpoolOutcome::Copied(staged) => {
                let is_same = |source: &Source| (source.size, source.mtime_ns, source.inode);
                match source.as_ref().map(is_same) == logged.source.as_ref().map(is_same) {
                    true => Ok((logged, Some(staged))),
                    // The file changed between the check and the copy.
                    false => Err(changed()),
                }
            }
        })
    }

    /// Returns what a path is now if it is what was sent, or why it is not. Contents of directories are not compared.
    fn same_source(
        &self,
        operation: &Operation,
        path: &str,
    ) -> Result<Result<Option<Source>, String>, ClientError> {
        // Directories are never copied into the log, whatever the settings.
        let now = match self.describe(Path::new(path), SpoolMode::Auto) {
            Ok(described) => described.source,
            Err(bad) if bad.error_type == "not_found" => {
                return Ok(Err(format!("source file `{path}` no longer exists")));
            }
            Err(bad) => return Ok(Err(format!("`{path}`: {}", bad.message))),
        };
        let other = || Ok(Err(format!("source file `{path}` has changed since it was sent")));
        let sent = match &operation.state {
            State::Completed { outcome, .. } => outcome.size,
            _ => None,
        };
        match (&operation.source, &now) {
            (Some(_), None) => other(),
            (None, None) => Ok(Ok(now)),
            // Logged without reading the file: only its size is known.
            (None, Some(file)) => {
                if sent.is_none_or(|sent| sent == file.size) {
                    Ok(Ok(now))
                } else {
                    other()
                }
            }
            (Some(logged), Some(file)) => {
                let is_same_file = (logged.mtime_ns, logged.inode) == (file.mtime_ns, file.inode);
                match (&logged.sha256, logged.size == file.size) {
                    (_, false) => other(),
                    (_, true) if is_same_file => Ok(Ok(now)),
                    (None, true) => other(),
                    (Some(sha256), true) => match self.hash_unchanged(Path::new(path), file) {
                        Ok(Some(hash)) if hash == *sha256 => Ok(Ok(now)),
                        Ok(_) => other(),
                        Err(error) => Ok(Err(error.to_string())),
                    },
                }
            }
        }
    }

    /// Returns the hash of a file; `None` if it no longer is as described.
    fn hash_unchanged(&self, path: &Path, described: &Source) -> DiskResult<Option<String>> {
        let file = self.disk.open(path, Access::Read)?;
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
}

/// The targets that an operation reads, and those that it writes.
#[derive(Debug, Default)]
struct Targets {
    read: Vec<Effect>,
    put: Vec<Effect>,
}

impl Targets {
    /// Returns the new operations whose targets overlap with those of this one.
    fn dependencies(&self, backend: &BackendName, targets: [&NewTargets; 2]) -> Vec<OperationId> {
        let mut needed = Vec::new();
        for Effect { target: place, reach, .. } in self.read.iter().chain(&self.put) {
            let above = place.match_indices('/').map(|(at, _)| &place[..at]);
            for around in above.chain([&place[..]]) {
                let at = (backend.clone(), around.to_owned());
                needed.extend(targets.iter().find_map(|targets| targets.get(&at)));
            }
            if matches!(reach, Reach::Tree | Reach::Prefix) {
                // `0` comes right after `/`.
                let within =
                    (backend.clone(), format!("{place}/"))..(backend.clone(), format!("{place}0"));
                let within = targets
                    .iter()
                    .flat_map(|targets| targets.range(within.clone()).map(|(_, id)| id));
                // One more than the bound, which is refused.
                needed.extend(within.take(NEEDED_MAX + 1));
            }
        }
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

/// Dependencies of a reopened operation, at most.
const NEEDED_MAX: usize = 100;

/// Findings that are read at a time.
const BATCH: usize = 500;

fn refuse(findings: &mut BTreeMap<Number, &mut AuditFinding>, number: Number, why: String) {
    if let Some(finding) = findings.get_mut(&number) {
        finding.follow_up = Some(FollowUp::Refused(why));
    }
}
