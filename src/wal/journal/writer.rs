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

/// Appends to the journal, for all threads of a process. Knows of the files only what `LogFiles`
/// offers.
#[derive(Debug)]
pub(in crate::wal) struct JournalWriter<V> {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) layout: Layout,
    pub(super) options: Arc<Options>,
    pub(super) files: Arc<dyn LogFiles>,
    pub(super) actor: String,
    writer: Mutex<Writer<V>>,
    /// Single operations whose threads wait for `writer`.
    pub(super) queued: Mutex<Vec<Arc<GroupedAppend>>>,
    pub(in crate::wal) sync: Mutex<SyncState>,
    pub(super) flushed: Condvar,
}

#[derive(Debug)]
pub(in crate::wal) struct Writer<V> {
    pub(in crate::wal) view: V,
    pub(in crate::wal) lock: LockFile,
    /// For looking at its note.
    pub(super) sync: Option<LockFile>,
    /// A generation, and how far its note said that it is synced.
    pub(super) peer_synced: (u64, u64),
    pub(in crate::wal) open: Option<OpenGeneration>,
}

#[derive(Debug)]
pub(in crate::wal) struct OpenGeneration {
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) file: Arc<dyn DiskFile>,
    pub(in crate::wal) len: u64,
}

#[derive(Debug)]
pub(in crate::wal) struct SyncState {
    /// None while a thread of this process flushes, and before the first flush.
    pub(in crate::wal) flusher: Option<Flusher>,
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) synced: u64,
}

/// What a flush needs open.
#[derive(Debug)]
pub(in crate::wal) struct Flusher {
    pub(super) lock: LockFile,
    /// `lock`, for its note.
    pub(super) append: Box<dyn DiskFile>,
}

/// One operation that a thread wants logged.
#[derive(Debug)]
pub(super) struct GroupedAppend {
    pub(super) operation: Logged,
    /// What came of it, once another thread has written it.
    pub(super) outcome: Mutex<Option<Outcome>>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Written(Written, Appended),
    NotWritten,
    Unconfirmed(String, Vec<OperationId>),
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where an append ended, before it is durable.
#[derive(Debug, Clone)]
pub(in crate::wal) struct Appended {
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) end: u64,
    /// The generation's file, if it is open: one that was open while it was written to reports
    /// every failure.
    pub(in crate::wal) file: Option<Arc<dyn DiskFile>>,
}

impl<V> Writer<V> {
    /// The end of what was written last, for waiting until it is durable.
    pub(in crate::wal) fn appended(&self, note: &AppendNote) -> Appended {
        let file = self.open.as_ref().map(|open| open.file.clone());
        Appended { generation: note.generation, end: note.end, file }
    }
}

impl<V: JournalView> JournalWriter<V> {
    /// A writer whose view has read the log as far as it goes.
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

    /// Who we are in histories: `user@host command[pid]`.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Looks at the log as it is now; starts over if files vanish meanwhile.
    pub fn read<T>(&self, mut look: impl FnMut(&mut V) -> WalResult<T>) -> WalResult<T> {
        let mut writer = self.lock_writer();
        writer.view.catch_up()?;
        let mut attempts = 0;
        loop {
            match look(&mut writer.view) {
                Err(error) if error.is_vanished() && attempts < 20 => {
                    attempts += 1;
                    writer.view.reload()?;
                }
                other => return other,
            }
        }
    }

    pub(in crate::wal) fn lock_writer(&self) -> MutexGuard<'_, Writer<V>> {
        lock(&self.writer)
    }

    /// An id for the `nth` operation of those logged at `now`.
    pub fn new_id(&self, now: Time, nth: usize) -> OperationId {
        let random = u128::from(self.clock.random()) << 64 | u128::from(self.clock.random());
        OperationId::new(now, nth, random)
    }

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
