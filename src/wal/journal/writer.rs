//! The state that the threads of a process share to write the journal.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::interfaces::{JournalView, LogFiles};
use super::lock::LockFile;
use super::note::AppendNote;
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskFile};
use crate::operation::{Logged, OperationId, Time};
use crate::wal::change::Written;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::options::Options;

/// The number of times that reading starts over when files vanish.
const RELOADS_MAX: usize = 20;

/// The writer of the journal, which the threads of a process share.
#[derive(Debug)]
pub(in crate::wal) struct JournalWriter<V> {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) layout: Layout,
    pub(super) options: Arc<Options>,
    pub(super) files: Arc<dyn LogFiles>,
    pub(super) actor: String,
    writer: Mutex<Writer<V>>,
    /// Single operations whose threads wait for `writer`: the next one to get it writes them all.
    pub(super) queued: Mutex<Vec<Arc<GroupedAppend>>>,
    pub(in crate::wal) sync: Mutex<SyncState>,
    /// Signals that a thread of this process has finished an attempt to flush.
    pub(super) flushed: Condvar,
}

/// The state that `lock` protects against other processes, and a mutex against other threads.
#[derive(Debug)]
pub(in crate::wal) struct Writer<V> {
    pub(in crate::wal) view: V,
    pub(in crate::wal) lock: LockFile,
    /// `sync.lock`, for reading its note.
    pub(super) sync: Option<LockFile>,
    /// The generation and the synced offset in the last note of `sync.lock`.
    pub(super) peer_synced: (u64, u64),
    pub(in crate::wal) open: Option<OpenGeneration>,
}

/// The generation to append to.
#[derive(Debug)]
pub(in crate::wal) struct OpenGeneration {
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) file: Arc<dyn DiskFile>,
    /// The length of the file in bytes, preallocated zeros included.
    pub(in crate::wal) len: u64,
}

/// The offset up to which the journal is known to be durable.
#[derive(Debug)]
pub(in crate::wal) struct SyncState {
    /// None while a thread of this process flushes, and before the first flush.
    pub(in crate::wal) flusher: Option<Flusher>,
    /// The generation that was flushed last; 0 before the first flush.
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) synced: u64,
}

/// The open files that a flush needs.
#[derive(Debug)]
pub(in crate::wal) struct Flusher {
    /// `sync.lock`.
    pub(super) lock: LockFile,
    /// `lock`, for reading its note.
    pub(super) append: Box<dyn DiskFile>,
}

/// An operation whose thread is waiting until it, or another thread, has logged it.
#[derive(Debug)]
pub(super) struct GroupedAppend {
    pub(super) operation: Logged,
    /// The outcome, once another thread has processed it.
    pub(super) outcome: Mutex<Option<GroupedOutcome>>,
}

/// The outcome of writing a grouped append.
#[derive(Debug)]
pub(super) enum GroupedOutcome {
    /// It was written, and is not durable yet.
    Written(Written, Appended),
    /// Nothing was written: its thread tries on its own.
    NotWritten,
    /// It may have been written; the reason why that is unknown, and its id.
    Unconfirmed(String, Vec<OperationId>),
}

/// Locks a mutex. A thread that panicked does not stop the others.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of an append that need not be durable yet.
#[derive(Debug, Clone)]
pub(in crate::wal) struct Appended {
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) end: u64,
    /// The generation's file, if it is open. Flushing it through the handle that was open during
    /// the write reports every failure.
    pub(in crate::wal) file: Option<Arc<dyn DiskFile>>,
}

impl<V> Writer<V> {
    /// Returns the end of the journal, for waiting until it is durable.
    pub(in crate::wal) fn appended(&self, note: &AppendNote) -> Appended {
        let file = self.open.as_ref().map(|open| open.file.clone());
        Appended { generation: note.generation, end: note.end, file }
    }
}

impl<V: JournalView> JournalWriter<V> {
    /// Returns a writer. `lock` is the file of that name, and `view` has read the log.
    pub(in crate::wal) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        layout: Layout,
        options: Arc<Options>,
        files: Arc<dyn LogFiles>,
        lock: LockFile,
        view: V,
    ) -> JournalWriter<V> {
        let identity = disk.identity();
        let actor =
            format!("{}@{} {}[{}]", identity.user, identity.host, options.command, identity.pid);
        JournalWriter {
            disk,
            clock,
            layout,
            options,
            files,
            actor,
            queued: Mutex::default(),
            writer: Mutex::new(Writer { view, lock, sync: None, peer_synced: (0, 0), open: None }),
            sync: Mutex::new(SyncState { flusher: None, generation: 0, synced: 0 }),
            flushed: Condvar::new(),
        }
    }

    /// Returns this process as histories name it: `user@host command[pid]`.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Calls `look` with the current state of the log. Calls it again if another process removes
    /// files meanwhile.
    pub fn read<T>(&self, mut look: impl FnMut(&mut V) -> WalResult<T>) -> WalResult<T> {
        let mut writer = self.lock_writer();
        writer.view.catch_up()?;
        let mut attempts = 0;
        loop {
            match look(&mut writer.view) {
                Err(error) if error.is_vanished() && attempts < RELOADS_MAX => {
                    attempts += 1;
                    writer.view.reload()?;
                }
                other => return other,
            }
        }
    }

    /// Waits until no other thread writes.
    pub(in crate::wal) fn lock_writer(&self) -> MutexGuard<'_, Writer<V>> {
        lock(&self.writer)
    }

    /// Returns a new id for the `nth` of the operations logged at `now`.
    pub fn new_id(&self, now: Time, nth: usize) -> OperationId {
        let random = u128::from(self.clock.random()) << 64 | u128::from(self.clock.random());
        OperationId::new(now, nth, random)
    }

    /// Returns the open file of a generation, opening it if another one was open.
    pub(super) fn open_generation<'a>(
        &self,
        writer: &'a mut Writer<V>,
        generation: u64,
    ) -> WalResult<&'a mut OpenGeneration> {
        if writer.open.as_ref().is_none_or(|open| open.generation != generation) {
            let file: Arc<dyn DiskFile> =
                Arc::from(self.disk.open(&self.layout.generation(generation), Access::Write)?);
            let len = file.metadata()?.len;
            writer.open = Some(OpenGeneration { generation, file, len });
        }
        writer
            .open
            .as_mut()
            .ok_or_else(|| WalError::damaged(self.layout.journal(), None, "no generation is open"))
    }
}
