//! Pushing archives: logging an operation for each archive that is ready.
//!
//! Under `checkpoint.lock`, completed operations are written to archives, the destination of each
//! archive is recorded in the manifest, and only then the operations that push them are logged. An
//! archive with a recorded destination stays as it is until its push is completed, so that the
//! operation finds the content for which it was logged. If a process dies in between, the next push
//! logs the missing operations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::absolute;

use super::archive_days::archives_to_rewrite;
use super::destination::{Push, key_of, parameters};
use super::edit::{CheckpointReport, ManifestEdit};
use super::push_state::{Archive, PushState};
use super::store::FileStore;
use crate::operation::{Logged, Number, Operation, OperationId, Source, Status, Time};
use crate::wal::change::Change;
use crate::wal::error::{WalError, WalResult};
use crate::wal::manifest::{FileEntry, Pushed};
use crate::wal::read::view::View;

/// The number of operations that are logged under one lock.
const CHUNK_OPERATIONS: usize = 500;

/// An archive that is to be pushed, or that is being pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushedArchive {
    /// Its path, relative to the log.
    pub name: String,
    /// Any instant of its day.
    pub day: Time,
    /// The number of its operations.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its destination. In a dry run, the directory, with a `/` at the end, if the archive is
    /// rewritten first.
    pub to: String,
    /// The operation that pushes it, with its status; none if it is not logged yet, in a dry run.
    pub operation: Option<PushOperation>,
    /// True if that operation had been logged before.
    pub existing: bool,
    /// In a dry run, archives with the same number are merged into one first.
    pub together: Option<usize>,
}

/// An operation that pushes an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushOperation {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// Its status.
    pub status: Status,
}

impl From<&Operation> for PushOperation {
    fn from(operation: &Operation) -> PushOperation {
        PushOperation { number: operation.number, id: operation.id, status: operation.status() }
    }
}

/// The result of a push, or of a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushReport {
    /// The archives whose push was logged now, or before and is not completed.
    pub archives: Vec<PushedArchive>,
    /// The number of archives that are at their destination.
    pub pushed: u64,
    /// The number of archives whose day is not over.
    pub open: u64,
}

impl PushReport {
    /// Returns the number of operations that were logged or, in a dry run, would be.
    pub fn logged(&self) -> u64 {
        let (mut logged, mut groups) = (0, BTreeSet::new());
        for archive in self.archives.iter().filter(|archive| !archive.existing) {
            logged += u64::from(archive.together.is_none_or(|group| groups.insert(group)));
        }
        logged
    }
}

impl View {
    /// Returns what a push would log in the present state of the files. `archive_rows` is the
    /// largest number of rows of an archive.
    pub fn plan_push(&self, push: &Push, now: Time, archive_rows: u64) -> WalResult<PushReport> {
        let groups = archives_to_rewrite(
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
            let rewrite =
                group_of(&archive.file.name).map(|group| (group, push.folder(archive.day)));
            report.add(&archive, rewrite);
        }
        Ok(report)
    }
}

impl PushReport {
    /// Adds an archive. If it is rewritten first, `rewrite` has the index of its group, and the
    /// directory of its destination.
    fn add(&mut self, archive: &Archive, rewrite: Option<(usize, String)>) {
        match &archive.state {
            PushState::Open => self.open += 1,
            PushState::Pushed => self.pushed += 1,
            PushState::Skipped => {}
            PushState::Ready | PushState::Pushing(_) | PushState::Failed(_) => {
                let operation = archive.state.operation();
                let (together, folder) = rewrite.unzip();
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
    /// Logs an operation for each archive of a past day that is not pushed yet. Durable on return.
    pub fn push(&self, push: &Push) -> WalResult<PushReport> {
        let _held = self.reserve.finishing(|| self.lock_checkpoint())?;
        self.push_held(push)
    }

    /// Like [`FileStore::push`], but does nothing if another process writes files.
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
            self.rewrite_archives(now.day(), &mut report)
        })?;
        self.reserve.keep();
        let archives = self.journal.read(|view| view.archives(now, Some(push)))?;
        let mut report = PushReport::default();
        archives.iter().for_each(|archive| report.add(archive, None));
        if report.logged() > 0 {
            // Fails before a destination is recorded for an operation that cannot be logged.
            self.reserve.check_room(0)?;
        }
        self.record_destinations(&archives)?;
        self.log_pushes(push, &archives, &mut report)?;
        Ok(report)
    }

    /// Records the destination of each archive in the manifest, and completed pushes.
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
        // A failed commit leaves its edit in an undefined state, so each attempt gets a copy.
        self.reserve.finishing(|| {
            self.commit(
                &mut ManifestEdit { changed: changed.clone(), ..ManifestEdit::default() },
                None,
            )
        })
    }

    /// Logs the operations of archives without a push.
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
        for chunk in operations.chunks(CHUNK_OPERATIONS) {
            let (written, existing) = self.journal.transact(|view| {
                let (mut changes, mut existing) = (Vec::new(), Vec::new());
                for (_, logged) in chunk {
                    // While `checkpoint.lock` is held, a new row can only be in the journal.
                    let number =
                        logged.idempotency_key.as_ref().and_then(|key| view.logged_with_key(key));
                    let logged_before =
                        number.map(|number| view.operation(number)).transpose()?.flatten();
                    if logged_before.is_none() {
                        changes.push(Change::New(logged.clone()));
                    }
                    existing.push(logged_before.as_ref().map(PushOperation::from));
                }
                Ok((changes, existing))
            })?;
            if existing.iter().any(Option::is_some) {
                // This process acknowledges operations of other processes, so these must be
                // durable.
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
                    let written = written.next()?;
                    let (number, id) = (written.number, written.id);
                    Some(PushOperation { number, id, status: Status::Pending })
                };
                archive.operation = existing.or_else(logged);
            }
        }
        Ok(())
    }

    /// Returns the operation that pushes an archive.
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
        // The archive is kept until it is pushed, so it is not copied to the spool.
        logged.source = Some(Source {
            size: metadata.len,
            mtime_ns: metadata.mtime_ns,
            inode: metadata.inode,
            ctime_ns: None,
            sha256: Some(archive.file.sha256.clone()),
            spool: None,
        });
        Ok(logged)
    }
}
