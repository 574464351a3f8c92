//! Logging once more what was completed and is not there any more.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::audit::{AuditFinding, Followed, Later, completed_in};
use super::change::{REDIRECTED_BYTES, again, batches_of_pairs, goes_on_as, size_of};
use super::spool::Taken;
use super::{Client, ClientError, Reference, Stop};
use crate::backend::{Effect, EffectKind, Reach};
use crate::config::SpoolMode;
use crate::disk::{Access, DiskResult, FileKind};
use crate::operation::{
    BackendName, Event, Logged, Number, Operation, OperationId, Revision, Source, State, Status,
};
use crate::wal::{Stage, Staged, View, WalError, WalResult, hash_of};

/// What a new operation is to be, or why there cannot be one.
type Prepared = Result<(Logged, Option<Staged>), String>;

/// Where new operations will put something, and which: what is copied from there waits for it.
type Placed = BTreeMap<(BackendName, String), OperationId>;

/// The operation that one went on as, if that has neither failed nor been deleted.
pub(super) fn goes_on(
    view: &View,
    redirected_to: Option<OperationId>,
) -> WalResult<Option<Followed>> {
    let Some(to) = redirected_to else { return Ok(None) };
    // It may have gone on elsewhere in its turn.
    let (mut next, mut left) = (view.operation_by_id(to)?, 100);
    while let Some(operation) = next {
        match operation.redirected_to.filter(|_| operation.status() == Status::Failed && left > 0) {
            Some(to) => (next, left) = (view.operation_by_id(to)?, left - 1),
            None if operation.status() == Status::Failed => return Ok(None),
            None => {
                return Ok(Some(Followed::GoesOn { number: operation.number, id: operation.id }));
            }
        }
    }
    Ok(None)
}

impl Client {
    /// Logs each of these once more, as it was; those that cannot be say why. Each stands in one frame with the note on
    /// the operation that it was made from; all is durable when this returns.
    ///
    /// `looked_until`: what was completed later may have replaced or removed what these put.
    pub(super) fn reopen(
        &self,
        findings: Vec<&mut AuditFinding>,
        looked_until: Revision,
        stop: &Stop,
    ) -> Result<(), ClientError> {
        let ids: HashSet<OperationId> = findings.iter().map(|finding| finding.id).collect();
        // In the order in which they were completed: what one finds in its place, or copies, is put there first.
        let mut order: Vec<(Revision, Number)> =
            findings.iter().map(|finding| (finding.completed_in, finding.number)).collect();
        order.sort_unstable();
        let numbers: Vec<Number> = order.into_iter().map(|(_, number)| number).collect();
        let mut findings: BTreeMap<Number, &mut AuditFinding> =
            findings.into_iter().map(|finding| (finding.number, finding)).collect();
        let mut placed = Placed::new();
        for some in numbers.chunks(PORTION) {
            let mut operations = Vec::with_capacity(some.len());
            for number in some {
                match self.operation(&Reference::Number(*number)) {
                    Ok(operation) => operations.push(operation),
                    Err(ClientError::NoSuchOperation(_)) => {
                        refuse(
                            &mut findings,
                            *number,
                            "it is gone: somebody deleted it meanwhile".into(),
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
            let copies =
                operations.iter().filter(|operation| !self.places(operation).read.is_empty());
            let done = operations.iter().map(completed_in).min().unwrap_or(looked_until);
            let mut later =
                Later::new(done, copies.map(completed_in).min(), looked_until, ids.clone());
            later.extend_ours(placed.values().copied());
            self.look(|view| later.look(self, view))?;
            for batch in batches_of_pairs(&operations) {
                if stop.is_requested() {
                    return Ok(());
                }
                for (number, followed) in self.reopen_batch(batch, &mut placed, &mut later)? {
                    if let Some(finding) = findings.get_mut(&number) {
                        finding.followed = Some(followed);
                    }
                }
            }
        }
        Ok(())
    }

    fn reopen_batch(
        &self,
        batch: &[Operation],
        placed: &mut Placed,
        later: &mut Later,
    ) -> Result<Vec<(Number, Followed)>, ClientError> {
        let wal = self.wal()?;
        // Dropped when all is logged.
        let mut stage: Option<Stage<'_>> = None;
        let (mut wanted, mut content, mut followed) = (Vec::new(), Vec::new(), Vec::new());
        let now = self.clock.now();
        for (nth, operation) in batch.iter().enumerate() {
            match self.prepare(&mut stage, operation)? {
                Err(why) => followed.push((operation.number, Followed::Refused(why))),
                Ok((logged, staged)) => {
                    let id = wal.new_id(now, nth);
                    content.extend(staged.map(|staged| (id, staged)));
                    wanted.push((operation, id, logged, self.places(operation)));
                }
            }
        }
        if wanted.is_empty() {
            return Ok(followed);
        }
        let (written, (decided, now_placed)) = wal.transact_staged(content, |view| {
            let (mut changes, mut decided) = (Vec::with_capacity(2 * wanted.len()), Vec::new());
            let mut now_placed = Placed::new();
            later.look(self, view)?;
            for (asked, id, logged, places) in &wanted {
                let mut decide = |followed| decided.push((asked.number, followed));
                let Some(now) = view.operation(asked.number)?.filter(|now| now.id == asked.id) else {
                    decide(Followed::Refused("it is gone: somebody deleted it meanwhile".into()));
                    continue;
                };
                if let Some(next) = goes_on(view, now.redirected_to)? {
                    // Somebody else was faster.
                    decide(next);
                    continue;
                }
                let needed = places.needed(&now.backend, [&*placed, &now_placed]);
                let too_many =
                    || format!("it copies more than {NEEDED_MAX} places that are logged once more themselves");
                let objection = later.objection(&now, &places.put, &places.read);
                if let Some(why) = objection.or_else(|| (needed.len() > NEEDED_MAX).then(too_many)) {
                    decide(Followed::Refused(why));
                    continue;
                }
                let mut logged = logged.clone();
                logged.depends_on.extend(needed);
                let put = places.put.iter().map(|effect| ((now.backend.clone(), effect.target.clone()), *id));
                now_placed.extend(put);
                changes.extend(goes_on_as(&now, *id, logged, Event::Reopened { to: *id }));
                decide(Followed::Reopened { number: Number::ZERO, id: *id });
            }
            Ok((changes, (decided, now_placed)))
        })?;
        later.extend_ours(now_placed.values().copied());
        placed.extend(now_placed);
        let numbers: BTreeMap<OperationId, Number> =
            written.iter().map(|written| (written.id, written.number)).collect();
        followed.extend(decided.into_iter().map(|(number, followed)| match followed {
            Followed::Reopened { id, .. } => (
                number,
                Followed::Reopened {
                    number: numbers.get(&id).copied().unwrap_or(Number::ZERO),
                    id,
                },
            ),
            other => (number, other),
        }));
        Ok(followed)
    }

    /// The places that an operation reads from, and puts something in.
    fn places(&self, operation: &Operation) -> Places {
        let State::Completed { outcome, .. } = &operation.state else { return Places::default() };
        let (mut read, mut put) = (Vec::new(), Vec::new());
        for effect in self.effects_of(operation, outcome) {
            match effect.kind {
                EffectKind::Write => put.push(effect),
                // Whatever would touch what it writes there stands in the way.
                EffectKind::Read => read.push(Effect { kind: EffectKind::Write, ..effect }),
                EffectKind::Remove => {}
            }
        }
        Places { read, put }
    }

    /// What is to be logged for an operation. What it sends has to be there, and what was sent.
    fn prepare<'a>(
        &'a self,
        stage: &mut Option<Stage<'a>>,
        operation: &Operation,
    ) -> Result<Prepared, ClientError> {
        let mut logged = again(operation, operation.backend.clone());
        // It is done: what it waited for, and whether it was set aside meanwhile, is over.
        (logged.source, logged.hold) = (None, false);
        logged.depends_on.clear();
        if size_of(operation) > REDIRECTED_BYTES {
            return Ok(Err("its parameters are too large for that".into()));
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
                return Ok(Err(format!(
                    "`{source}` was taken away by this very move, so it cannot be moved again"
                )));
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
        let taken = match self.take_content(stage, &mut logged, self.settings.spool) {
            Err(ClientError::Wal(error @ WalError::NoRoom { .. })) => {
                return Ok(Err(error.to_string()));
            }
            taken => taken?,
        };
        let changed = || format!("`{path}` is being written to");
        Ok(match taken {
            Taken::Bad(bad) => Err(format!("`{path}`: {}", bad.message)),
            Taken::Referred(_) => Ok((logged, None)),
            Taken::Copied(staged) => {
                let is_same = |source: &Source| (source.size, source.mtime_ns, source.inode);
                match source.as_ref().map(is_same) == logged.source.as_ref().map(is_same) {
                    true => Ok((logged, Some(staged))),
                    // What was copied is not what we had looked at.
                    false => Err(changed()),
                }
            }
        })
    }

    /// What a path is now, if that is what was sent; else why not. Of directories nobody has noted what was in them.
    fn same_source(
        &self,
        operation: &Operation,
        path: &str,
    ) -> Result<Result<Option<Source>, String>, ClientError> {
        // Directories are never copied, whatever the settings say of files.
        let now = match self.describe(Path::new(path), SpoolMode::Auto) {
            Ok((_, now, _)) => now,
            Err(bad) if bad.error_type == "not_found" => {
                return Ok(Err(format!("`{path}` is not there any more")));
            }
            Err(bad) => return Ok(Err(format!("`{path}`: {}", bad.message))),
        };
        let other = || Ok(Err(format!("`{path}` is not what was sent any more")));
        let sent = match &operation.state {
            State::Completed { outcome, .. } => outcome.size,
            _ => None,
        };
        match (&operation.source, &now) {
            (Some(_), None) => other(),
            (None, None) => Ok(Ok(now)),
            // Logged without a look at the file: its size is all that is known.
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

    /// The hash of a file that was described just now; none if it has changed since.
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

/// The places that an operation reads from, and puts something in.
#[derive(Debug, Default)]
struct Places {
    read: Vec<Effect>,
    put: Vec<Effect>,
}

impl Places {
    /// The new operations that put something where this one reads or puts something, or around that, or in it.
    fn needed(&self, backend: &BackendName, placed: [&Placed; 2]) -> Vec<OperationId> {
        let mut needed = Vec::new();
        for Effect { target: place, reach, .. } in self.read.iter().chain(&self.put) {
            let above = place.match_indices('/').map(|(at, _)| &place[..at]);
            for around in above.chain([&place[..]]) {
                let at = (backend.clone(), around.to_owned());
                needed.extend(placed.iter().find_map(|placed| placed.get(&at)));
            }
            if matches!(reach, Reach::Tree | Reach::Prefix) {
                // `0` comes right after `/`.
                let within =
                    (backend.clone(), format!("{place}/"))..(backend.clone(), format!("{place}0"));
                let within =
                    placed.iter().flat_map(|placed| placed.range(within.clone()).map(|(_, id)| id));
                // One more than it may be: then it is refused.
                needed.extend(within.take(NEEDED_MAX + 1));
            }
        }
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

/// New operations that one may wait for.
const NEEDED_MAX: usize = 100;

/// Findings that are looked up at a time.
const PORTION: usize = 500;

fn refuse(findings: &mut BTreeMap<Number, &mut AuditFinding>, number: Number, why: String) {
    if let Some(finding) = findings.get_mut(&number) {
        finding.followed = Some(Followed::Refused(why));
    }
}
