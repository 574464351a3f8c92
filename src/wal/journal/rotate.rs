//! Rotation: the journal continues in a new generation because the last one is full.

use super::format::{self, FrameKind, Header};
use super::interfaces::JournalView;
use super::lock::LockFile;
use super::note::{self, AppendNote, SyncNote};
use super::payload::sealed_payload;
use super::reader::Position;
use super::writer::{JournalWriter, Writer};
use crate::disk::DiskError;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::LockName;

impl<V: JournalView> JournalWriter<V> {
    /// Closes the generation, and continues in a new one. Holds `lock`; takes `sync.lock`.
    ///
    /// Recovers the journal instead if the last flush failed. Fails if that dropped frames that the
    /// caller has decided on.
    pub(in crate::wal) fn rotate(
        &self,
        writer: &mut Writer<V>,
        note: AppendNote,
    ) -> WalResult<AppendNote> {
        let mut sync = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
        sync.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let last_flush_ok = note::read::<SyncNote>(sync.file())?.is_some_and(|flushed| {
            flushed.boot == note.boot
                && flushed.generation == note.generation
                && flushed.syncing.is_none()
        });
        // After a failed flush, another one may report success without writing the same pages. Only
        // a recovery makes their content durable.
        let rotated = if last_flush_ok {
            self.rotate_locked(writer, &sync, note.clone())
        } else {
            self.recover_locked(writer, &sync)
        };
        sync.unlock()?;
        let rotated = rotated?;
        if (rotated.revision, rotated.number) != (note.revision, note.number) {
            let changed = std::io::Error::other(
                "a flush failed, and frames of other processes were lost; try again",
            );
            let path = self.layout.generation(note.generation);
            return Err(WalError::NotLogged(DiskError::new("flush", &path, changed)));
        }
        Ok(rotated)
    }

    /// Flushes the generation, creates the next one, and seals this one. Holds `lock` and
    /// `sync.lock`.
    fn rotate_locked(
        &self,
        writer: &mut Writer<V>,
        sync: &LockFile,
        mut note: AppendNote,
    ) -> WalResult<AppendNote> {
        note.at_work = true;
        note::write(writer.lock.file(), &note)?;
        let old = note.generation;
        let file = self.open_generation(writer, old)?.file.clone();
        self.note_syncing(sync, old, note.end)?;
        file.sync_data().map_err(WalError::NotLogged)?;
        let header = Header {
            generation: self.next_generation()?,
            previous: old,
            previous_end: note.end,
            revision: note.revision,
            number: note.number,
            checksum: note.checksum,
            created: self.clock.now(),
        };
        tracing::debug!(generation = header.generation, "beginning a new generation");
        self.create_generation(&header, &[])?;
        self.disk.sync_dir(&self.layout.journal())?;
        let sealed = sealed_payload(header.generation);
        let (bytes, _) =
            format::encode_frame(old, FrameKind::Sealed, note.end, note.revision.next(), &sealed);
        // The seal need not be flushed: it only makes readers look for the successor, whose header
        // records the same end and is durable.
        file.write_at(&bytes, note.end)?;
        self.begin(writer, sync, Position::start_of(&header))
    }

    /// Notes that a flush up to `target` is under way. The note stays if this process dies.
    fn note_syncing(&self, sync: &LockFile, generation: u64, target: u64) -> WalResult<()> {
        if let Some(mut note) =
            note::read::<SyncNote>(sync.file())?.filter(|note| note.generation == generation)
        {
            note.syncing = Some(target);
            note.pid = self.disk.identity().pid;
            note.command.clone_from(&self.options.command);
            note::write(sync.file(), &note)?;
        }
        Ok(())
    }
}
