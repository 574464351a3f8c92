//! Pushing archives: which of them are ready to leave, where each goes, and the operations that
//! carry them there.
//!
//! The order of writes, all of it under `checkpoint.lock`: what is completed into archives; marks
//! into the manifest; operations into the journal. A mark keeps its file as it is until its
//! operation is completed, so that the operation finds the bytes it was logged for. What is marked
//! and has no operation is logged again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::absolute;

use super::archive_days::unsettled_archives;
use super::destination::{Push, key_of, parameters};
use super::edit::{CheckpointReport, ManifestEdit};
use super::push_state::{Archive, PushState};
use super::store::FileStore;
use crate::operation::{Logged, Number, Operation, OperationId, Source, Status, Time};
use crate::wal::change::{Change, Written};
use crate::wal::error::{WalError, WalResult};
use crate::wal::manifest::{FileEntry, Pushed};
use crate::wal::read::view::View;

/// Operations that are logged in one turn.
const AT_ONCE: usize = 500;

/// An archive that is to be pushed, or on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushedArchive {
    /// Its path, relative to the log.
    pub name: String,
    /// Any instant of its day.
    pub day: Time,
    /// Operations in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Where it goes; with a `/` at the end, the folder: it is written rewritten_as first, joined
    /// with others of its day perhaps.
    pub to: String,
    /// The operation that pushes it, and its status; none in a dry run.
    pub operation: Option<PushOperation>,
    /// Whether that was logged before.
    pub existing: bool,
    /// In a dry run, archives with the same number become one first.
    pub together: Option<usize>,
}

/// The operation that pushes an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushOperation {
    /// Number of the operation.
    pub number: Number,
    /// Id of the operation.
    pub id: OperationId,
    /// Status of the operation.
    pub status: Status,
}

impl From<&Operation> for PushOperation {
    fn from(operation: &Operation) -> PushOperation {
        PushOperation { number: operation.number, id: operation.id, status: operation.status() }
    }
}

/// What a push logged, or would log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushReport {
    /// Archives that are pushed now, and those whose push was logged before and is not completed.
    pub archives: Vec<PushedArchive>,
    /// Archives that are where they belong.
    pub pushed: u64,
    /// Archives of days that are not over.
    pub open: u64,
}

impl PushReport {
    /// How many operations were logged, or would be.
    pub fn logged(&self) -> u64 {
        let (mut logged, mut groups) = (0, BTreeSet::new());
        for archive in self.archives.iter().filter(|archive| !archive.existing) {
            logged += u64::from(archive.together.is_none_or(|group| groups.insert(group)));
        }
        logged
    }
}

impl View {
    /// What a push would log, by what the files say at this moment; `archive_rows`: the most that
    /// one archive holds.
    pub fn plan_push(&self, push: &Push, now: Time, archive_rows: u64) -> WalResult<PushReport> {
        let groups = unsettled_archives(
            self.files(),
            &BTreeSet::new(),
            &self.deleted_numbers(),
            now.day(),
            archive_rows,
        );
        let group_of =
            |name: &str| groups.iter().position(|group| group.names().any(|named| named == name));
        let mut report = PushReport::default();
        for archive in self.archives(now, Some(push))? {
            let rewritten_as =
                group_of(&archive.file.name).map(|group| (group, push.folder(archive.day)));
            report.take(&archive, rewritten_as);
        }
        Ok(report)
    }
}

impl PushReport {
    /// `rewritten_as`: the archives with which it is written rewritten_as first, by a number, and
    /// the folder that it goes to.
    fn take(&mut self, archive: &Archive, rewritten_as: Option<(usize, String)>) {
        match &archive.state {
            PushState::Open => self.open += 1,
            PushState::Pushed => self.pushed += 1,
            PushState::Skipped => {}
            PushState::Ready | PushState::Pushing(_) | PushState::Failed(_) => {
                let operation = archive.state.operation();
                let (together, folder) = rewritten_as.unzip();
                self.archives.push(PushedArchive {
                    name: archive.file.name.clone(),
                    day: archive.day,
                    rows: archive.file.live(),
                    bytes: archive.file.bytes,
                    to: folder.or_else(|| archive.to.clone()).unwrap_or_default(),
                    operation: operation.map(PushOperation::from),
                    existing: operation.is_some(),
                    together,
                });
            }
        }
    }
}

impl FileStore {
    /// Logs an operation for each archive of a day that is over and that is not pushed yet: durable
    /// when this returns.
    pub fn push(&self, push: &Push) -> WalResult<PushReport> {
        let _held = self.reserve.finishing(|| self.lock_checkpoint())?;
        self.push_held(push)
    }

    /// The same, unless another process works on the files.
    pub fn push_if_free(&self, push: &Push) -> WalResult<Option<PushReport>> {
        let Some(_held) = self.reserve.finishing(|| self.try_lock_checkpoint())? else {
            return Ok(None);
        };
        self.push_held(push).map(Some)
    }

    fn push_held(&self, push: &Push) -> WalResult<PushReport> {
        let now = self.clock.now();
        self.reserve.finishing(|| {
            let mut report: CheckpointReport = self.fold_all(true)?;
            self.settle_archives(now.day(), &mut report)
        })?;
        self.reserve.keep();
        let archives = self.journal.read(|view| view.archives(now, Some(push)))?;
        let mut report = PushReport::default();
        archives.iter().for_each(|archive| report.take(archive, None));
        if report.logged() > 0 {
            // Before anything is marked that could not be logged then.
            self.reserve.check_room(0)?;
        }
        self.record_destinations(&archives)?;
        self.log_pushes(push, &archives, &mut report)?;
        Ok(report)
    }

    /// Writes into the manifest where each archive goes, or that it is there.
    fn record_destinations(&self, archives: &[Archive]) -> WalResult<()> {
        let mut changed = BTreeMap::new();
        for archive in archives {
            let done = archive.state == PushState::Pushed;
            let pushed = archive.to.clone().map(|to| Pushed { to, done });
            if pushed != archive.file.pushed {
                changed.insert(
                    archive.file.name.clone(),
                    FileEntry { pushed, ..archive.file.clone() },
                );
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        // A commit uses its edit up, whether or not it comes about.
        self.reserve.finishing(|| {
            self.commit(
                &mut ManifestEdit { changed: changed.clone(), ..ManifestEdit::default() },
                None,
            )
        })
    }

    /// Logs what nothing carries away yet.
    fn log_pushes(
        &self,
        push: &Push,
        archives: &[Archive],
        report: &mut PushReport,
    ) -> WalResult<()> {
        let mut operations = Vec::new();
        for archive in archives.iter().filter(|archive| archive.state == PushState::Ready) {
            operations.push((archive.file.name.clone(), self.operation_for(push, archive)?));
        }
        for chunk in operations.chunks(AT_ONCE) {
            let (written, existing) = self.journal.transact(|view| {
                let (mut changes, mut existing) = (Vec::new(), Vec::new());
                for (_, logged) in chunk {
                    // No file gains a row as long as we hold `checkpoint.lock`: the journal alone
                    // may know the key by now.
                    let number =
                        logged.idempotency_key.as_ref().and_then(|key| view.logged_with_key(key));
                    let there = number.map(|number| view.operation(number)).transpose()?.flatten();
                    if there.is_none() {
                        changes.push(Change::New(logged.clone()));
                    }
                    existing.push(there.as_ref().map(PushOperation::from));
                }
                Ok((changes, existing))
            })?;
            if existing.iter().any(Option::is_some) {
                // What another process logged is acknowledged again here, so it has to be durable.
                self.journal.confirm()?;
            }
            let mut written = written.into_iter();
            for ((name, _), existing) in chunk.iter().zip(existing) {
                let Some(archive) =
                    report.archives.iter_mut().find(|archive| archive.name == *name)
                else {
                    continue;
                };
                archive.existing = existing.is_some();
                let logged = || {
                    written.next().map(|Written { number, id, .. }| PushOperation {
                        number,
                        id,
                        status: Status::Pending,
                    })
                };
                archive.operation = existing.or_else(logged);
            }
        }
        Ok(())
    }

    fn operation_for(&self, push: &Push, archive: &Archive) -> WalResult<Logged> {
        let path = self.layout.file(&archive.file.name);
        let refuse = |what: &str| WalError::NotOurs { path: path.clone(), what: what.to_owned() };
        let absolute = absolute(&path).map_err(|_| refuse("its path cannot be made absolute"))?;
        let text =
            absolute.to_str().ok_or_else(|| refuse("its path is not UTF-8, as parameters are"))?;
        let metadata = self.disk.metadata(&path)?;
        let to = archive.to.clone().unwrap_or_default();
        let key = key_of(&to);
        let parameters = parameters(text.to_owned(), to);
        let mut logged =
            Logged::new(Push::operation_type(), push.backend.clone(), parameters, push.max_retries);
        logged.idempotency_key = Some(key);
        // The archive itself is kept, so nothing of it is copied.
        logged.source = Some(Source {
            size: metadata.len,
            mtime_ns: metadata.mtime_ns,
            inode: metadata.inode,
            sha256: Some(archive.file.sha256.clone()),
            spool: None,
        });
        Ok(logged)
    }
}
