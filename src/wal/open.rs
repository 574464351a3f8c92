//! Opening a log for writing. The type [`Wal`] is the interface of the log; it passes each call on
//! to the part that implements it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::change::{Admitted, Change, Written};
use super::error::{WalError, WalResult};
use super::files::FileStore;
use super::files::batch::Batch;
use super::files::checkpoint::CheckpointDue;
use super::files::create::Foundation;
use super::files::destination::Push;
use super::files::edit::CheckpointReport;
use super::files::push::PushReport;
use super::files::retention::{CleanupPlan, Retention};
use super::journal::append::nothing_logged;
use super::journal::lock::{HeldLock, LockFile};
use super::journal::note::DrainLoop;
use super::layout::{Layout, LockName};
use super::options::Options;
use super::original;
use super::read::SharedJournal;
use super::read::view::View;
use super::reserve::Reserve;
use super::spool::{Spool, Stage, Staged};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::operation::{Logged, Operation, OperationId, Time};

/// A log that can be written to. Threads may share it.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    layout: Layout,
    options: Arc<Options>,
    pub(super) journal: Arc<SharedJournal>,
    reserve: Arc<Reserve>,
    spool: Arc<Spool>,
    pub(super) files: FileStore,
    has_created: Arc<AtomicBool>,
}

impl Wal {
    /// Opens a log for writing. If there is none, the first write creates it.
    ///
    /// Adopts files of the original system in the directory. Fails with [`WalError::NotOurs`] if
    /// the directory contains other files and no log, or is on a network file system and the
    /// options do not allow that.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        layout: Layout,
        mut options: Options,
    ) -> WalResult<Wal> {
        // The command must fit into the notes, which are JSON of a fixed length.
        options.command.retain(|c| !c.is_control() && c != '"' && c != '\\');
        options.command = options.command.chars().take(60).collect();
        if !disk.exists(&layout.lock(LockName::Append))? {
            // This is checked before anything is created: the directory may belong to another
            // program.
            let view = View::open(disk.clone(), layout.clone())?;
            refuse_foreign(&*disk, &layout)?;
            if view.has_originals() {
                original::check_quiet(&original::survey(&*disk, &layout)?, &layout, clock.now())?;
            }
            disk.create_dir_all_synced(layout.base()).map_err(WalError::NotLogged)?;
        }
        if !options.allow_network_fs && disk.is_network(layout.base())? {
            return Err(WalError::NotOurs {
                path: layout.base().to_owned(),
                what:
                    "it is on a network file system, where locks and flushes cannot be relied upon"
                        .into(),
            });
        }
        let lock = LockFile::open(&*disk, &layout, LockName::Append).map_err(nothing_logged)?;
        let view = View::open(disk.clone(), layout.clone())?;
        let options = Arc::new(options);
        let reserve = Arc::new(Reserve::new(disk.clone(), layout.clone(), options.clone()));
        let has_created = Arc::new(AtomicBool::new(false));
        let foundation = Foundation {
            disk: disk.clone(),
            clock: clock.clone(),
            layout: layout.clone(),
            reserve: reserve.clone(),
            has_created: has_created.clone(),
        };
        let journal = Arc::new(SharedJournal::new(
            disk.clone(),
            clock.clone(),
            layout.clone(),
            options.clone(),
            Arc::new(foundation),
            lock,
            view,
        ));
        let spool = Arc::new(Spool::new(
            disk.clone(),
            clock.clone(),
            layout.clone(),
            options.clone(),
            journal.clone(),
            reserve.clone(),
        ));
        let files = FileStore::new(
            disk.clone(),
            clock.clone(),
            layout.clone(),
            options.clone(),
            journal.clone(),
            reserve.clone(),
            spool.clone(),
        );
        files.adopt()?;
        Ok(Wal { disk, clock, layout, options, journal, reserve, spool, files, has_created })
    }

    /// Returns true if there was no log, and this process has created one.
    pub fn has_created(&self) -> bool {
        self.has_created.load(Ordering::Relaxed)
    }

    /// Returns the name of this process in histories: `user@host command[pid]`.
    pub fn actor(&self) -> &str {
        self.journal.actor()
    }

    /// Returns the paths of the files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the options with which the log was opened.
    #[cfg(any(test, feature = "test-util"))]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Takes the lock that makes this process the only one that executes operations of the log.
    /// `work` describes its drain loop, unless it executes only operations of its own.
    pub fn lock_process(&self, timeout: Duration, work: Option<DrainLoop>) -> WalResult<HeldLock> {
        self.reserve.finishing(|| {
            let mut lock = LockFile::open(&*self.disk, &self.layout, LockName::Process)?;
            lock.lock(&*self.disk, &*self.clock, timeout)?;
            lock.hold(&*self.disk, &self.options.command, work.clone(), self.clock.now())
        })
    }

    /// Calls `look` with the current state of the log. Calls it again if another process removes
    /// files meanwhile.
    #[cfg(any(test, feature = "test-util"))]
    pub fn read<T>(&self, look: impl FnMut(&mut View) -> WalResult<T>) -> WalResult<T> {
        self.journal.read(look)
    }

    /// Decides on the current state of the log, and logs the changes, while no other process
    /// writes. Durable on return.
    ///
    /// `decide` is called again if a recovery of the journal dropped the changes before they were
    /// durable.
    pub fn transact<T>(
        &self,
        decide: impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        self.journal.transact(decide)
    }

    /// Like [`Wal::transact`], for claims, outcomes and other changes that finish operations: if
    /// the disk is full, the reserve is released for them. Not for new operations.
    pub fn transact_finishing<T>(
        &self,
        mut decide: impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        self.reserve.finishing(|| self.transact(&mut decide))
    }

    /// Makes everything durable that readers can see now, so that this process can act on
    /// transitions of another one.
    pub fn confirm(&self) -> WalResult<()> {
        self.journal.confirm()
    }

    /// Returns a new id for the `nth` of the operations logged at `now`.
    pub fn new_id(&self, now: Time, nth: usize) -> OperationId {
        self.journal.new_id(now, nth)
    }

    /// Returns the number of free bytes if they might not suffice for the outcome of a claim; none
    /// if they suffice.
    pub fn lacks_room_for_outcomes(&self) -> WalResult<Option<u64>> {
        self.reserve.lacks_room_for_outcomes()
    }

    /// Returns the error for a disk with too few free bytes.
    pub fn no_room_for_outcomes(&self, free: u64) -> WalError {
        self.reserve.no_room_for_outcomes(free)
    }

    /// Begins a batch of new operations. Writes nothing and takes no lock unless the batch outgrows
    /// a frame.
    pub fn batch(&self) -> Batch<'_> {
        self.files.batch()
    }

    /// Logs new operations, all or none. Durable on return.
    ///
    /// An operation whose idempotency key is already logged is not logged again: the existing one
    /// is returned.
    pub fn append_new(&self, operations: Vec<Logged>) -> WalResult<Vec<Admitted>> {
        self.files.append_new(operations)
    }

    /// Creates a stage for content.
    pub fn stage_content(&self) -> WalResult<Stage<'_>> {
        self.spool.stage_content()
    }

    /// Logs operations, some of them with staged content, which is durable before their frame is
    /// written. Durable on return.
    #[cfg(any(test, feature = "test-util"))]
    pub fn append_staged(
        &self,
        operations: Vec<(Logged, Option<Staged>)>,
    ) -> WalResult<Vec<Admitted>> {
        self.spool.append_staged(operations)
    }

    /// Like [`Wal::transact`], for changes that log operations with staged content.
    ///
    /// The content of operations that `decide` does not log is removed.
    pub fn transact_staged<T>(
        &self,
        content: Vec<(OperationId, Staged)>,
        decide: impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        self.spool.transact_staged(content, decide)
    }

    /// Removes the content of an operation that is durably completed, redirected or deleted.
    pub fn release_spool(&self, operation: &Operation) {
        self.spool.release_spool(operation);
    }

    /// Returns false if the spooled copy of an operation differs from the hash that was noted, or
    /// cannot be read, and true if it has no copy, or none with a hash. Reads the whole copy.
    /// `checked` holds the answers by inode, since operations share content.
    pub fn has_intact_copy(
        &self,
        operation: &Operation,
        checked: &mut BTreeMap<u64, bool>,
    ) -> WalResult<bool> {
        self.spool.has_intact_copy(operation, checked)
    }

    /// Links the content of an existing operation for a new one. Does nothing if it has none.
    ///
    /// Only for the function that [`Wal::transact`] calls: under `lock`, no sweep runs between link
    /// and frame.
    pub fn share_spool(&self, from: &Operation, to: OperationId) -> WalResult<()> {
        self.spool.share_spool(from, to)
    }

    /// Runs a checkpoint if one is due, and no other process writes files. For use after writes.
    pub fn maintain(&self) -> WalResult<Option<CheckpointReport>> {
        self.files.maintain()
    }

    /// Folds the whole journal, unless another process writes files.
    pub fn checkpoint_if_free(&self) -> WalResult<Option<CheckpointReport>> {
        self.files.checkpoint_if_free()
    }

    /// Folds the whole journal into Parquet files.
    pub fn checkpoint(&self) -> WalResult<CheckpointReport> {
        self.files.checkpoint()
    }

    /// Returns the reason why a checkpoint is due, if it is.
    pub fn checkpoint_due(&self) -> CheckpointDue {
        self.files.checkpoint_due()
    }

    /// Prunes operations that retention no longer keeps, judged by the current time. With
    /// `dry_run`, only returns what would be pruned.
    pub fn cleanup(&self, retention: Retention, dry_run: bool) -> WalResult<CleanupPlan> {
        self.files.cleanup(retention, dry_run)
    }

    /// Prunes operations that were old enough at the last cleanup, unless another process writes
    /// files.
    ///
    /// A clock that jumps ahead therefore prunes nothing unless it is still ahead at the next
    /// cleanup.
    pub fn cleanup_if_free(&self, retention: Retention) -> WalResult<Option<CleanupPlan>> {
        self.files.cleanup_if_free(retention)
    }

    /// Logs an operation for each archive of a past day that is not pushed yet. Durable on return.
    pub fn push(&self, push: &Push) -> WalResult<PushReport> {
        self.files.push(push)
    }

    /// Like [`Wal::push`], but does nothing if another process writes files.
    pub fn push_if_free(&self, push: &Push) -> WalResult<Option<PushReport>> {
        self.files.push_if_free(push)
    }
}

/// Refuses to create a log in a non-empty directory that is not already one.
fn refuse_foreign(disk: &dyn Disk, layout: &Layout) -> WalResult<()> {
    let entries = match disk.list(layout.base()) {
        Ok(entries) => entries,
        // It does not exist or cannot be read: creating the log reports which.
        Err(_) => return Ok(()),
    };
    let names: Vec<String> =
        entries.iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    match names.first() {
        Some(first) if !names.iter().any(|name| Layout::is_part(name)) => Err(WalError::NotOurs {
            path: layout.base().to_owned(),
            what: format!("it contains `{first}`, and no file of a log"),
        }),
        _ => Ok(()),
    }
}
