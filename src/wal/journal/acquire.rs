//! Taking `lock`: a writer checks the recorded end of the journal, and recovers the journal if that
//! end cannot be trusted.

use super::interfaces::JournalView;
use super::lock::LockFile;
use super::note::{self, AppendNote, SyncNote};
use super::reader::Position;
use super::writer::{JournalWriter, SyncState, Writer, lock};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::LockName;

impl<V: JournalView> JournalWriter<V> {
    /// Takes `lock`, and returns the note with the end of the journal.
    ///
    /// Recovers the journal if its last writer died or its last flush failed. The lock is not held
    /// after an error.
    pub(in crate::wal) fn take_lock(&self, writer: &mut Writer<V>) -> WalResult<AppendNote> {
        writer.lock.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let ready =
            self.reset_if_lock_replaced(writer).and_then(|()| self.recover_if_needed(writer));
        if ready.is_err() {
            writer.lock.unlock()?;
        }
        ready
    }

    /// Discards the state if the lock file was replaced: a user has removed the log's directory,
    /// and another process has created the log again.
    fn reset_if_lock_replaced(&self, writer: &mut Writer<V>) -> WalResult<()> {
        if writer.lock.take_replaced() {
            (writer.open, writer.sync) = (None, None);
            *lock(&self.sync) = SyncState { flusher: None, generation: 0, synced: 0 };
            writer.view.reload()?;
        }
        Ok(())
    }

    /// Returns true if the view ends at the end of the journal that the note in `lock` records.
    pub(super) fn matches_lock_note(&self, writer: &Writer<V>) -> WalResult<bool> {
        match note::read::<AppendNote>(writer.lock.file())? {
            Some(note) => writer.view.is_at(note.generation, note.end, note.checksum),
            None => Ok(false),
        }
    }

    /// Brings the view up to date, and recovers the journal unless its end is trusted. Holds
    /// `lock`.
    fn recover_if_needed(&self, writer: &mut Writer<V>) -> WalResult<AppendNote> {
        if !self.matches_lock_note(writer)? {
            writer.view.catch_up()?;
        }
        if let Some(damage) = writer.view.journal_damage() {
            return Err(WalError::Damaged(damage.clone()));
        }
        let note: Option<AppendNote> = note::read(writer.lock.file())?;
        if let (Some(note), Some(position)) = (note, writer.view.position())
            && self.is_trusted(&note, &position)
            && self.last_flush_ok(writer, note.generation)?
        {
            return Ok(note);
        }
        self.recover(writer)
    }

    /// Returns true if the note was written during this boot, by a writer that finished, and agrees
    /// with the journal.
    fn is_trusted(&self, note: &AppendNote, position: &Position) -> bool {
        // Without a boot id, a note written before a power failure cannot be recognized.
        note.boot == self.disk.identity().boot_id
            && !note.boot.is_empty()
            && !note.at_work
            && (note.generation, note.end, note.checksum)
                == (position.generation, position.end, position.checksum)
            && (note.number, note.revision) == (position.number, position.revision)
    }

    /// Returns true if the last flush succeeded or is under way; false if it failed, or its process
    /// died.
    fn last_flush_ok(&self, writer: &mut Writer<V>, generation: u64) -> WalResult<bool> {
        let boot = &self.disk.identity().boot_id;
        let peer_synced = &mut writer.peer_synced;
        let mut is_flushed = |lock: &LockFile| -> WalResult<bool> {
            let note: Option<SyncNote> = note::read(lock.file())?;
            let note = note.filter(|note| note.boot == *boot && note.generation == generation);
            // The next frame records this offset. After a reboot, it proves that the bytes before
            // it were durable, since the note no longer counts.
            *peer_synced =
                note.as_ref().map_or(*peer_synced, |note| (note.generation, note.synced));
            Ok(note.is_some_and(|note| note.syncing.is_none()))
        };
        let lock = match &mut writer.sync {
            Some(lock) => lock,
            empty => empty.insert(LockFile::open(&*self.disk, &self.layout, LockName::Sync)?),
        };
        if is_flushed(lock)? {
            return Ok(true);
        }
        if !lock.try_lock(&*self.disk)? {
            // The holder is flushing. If the flush fails, the holder's note will show that.
            return Ok(true);
        }
        let result = is_flushed(lock);
        lock.unlock()?;
        result
    }
}
