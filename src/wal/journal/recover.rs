//! Recovery: a new generation begins with what is valid of one whose end cannot be trusted.

use super::format::{self, FrameKind, HEADER_LEN, Header};
use super::interfaces::JournalView;
use super::lock::LockFile;
use super::note::{self, AppendNote};
use super::reader::{self, FrameContent, Position};
use super::writer::{JournalWriter, Writer};
use crate::operation::{Number, Revision};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::LockName;

impl<V: JournalView> JournalWriter<V> {
    /// Ends a generation whose end cannot be trusted, and begins one with its valid rest.
    ///
    /// Holds `lock`; takes `sync.lock`.
    pub(in crate::wal) fn recover(&self, writer: &mut Writer<V>) -> WalResult<AppendNote> {
        for directory in self.layout.directories() {
            // Their names are made durable with those of everything above them, before anything
            // refers to what is in them.
            self.disk.create_dir_if_missing(&directory).map_err(WalError::NotLogged)?;
        }
        let mut sync = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
        sync.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let recovered = self.recover_locked(writer, &sync);
        sync.unlock()?;
        let note = recovered?;
        writer.view.catch_up()?;
        Ok(note)
    }

    pub(super) fn recover_locked(
        &self,
        writer: &mut Writer<V>,
        sync: &LockFile,
    ) -> WalResult<AppendNote> {
        let Some(first) = self.files.first_generation()? else {
            return self.create_log(writer, sync);
        };
        self.note_at_work(writer)?;
        let journal = reader::read_journal(&*self.disk, &self.layout, first)?;
        if let Some(damage) = journal.damage {
            return Err(WalError::Damaged(damage));
        }
        let known = |at: usize, generation: &reader::ReadGeneration| -> WalResult<u64> {
            let last = at + 1 == journal.generations.len();
            let noted = if last {
                reader::synced_by_note(&*self.disk, &self.layout, generation.header.generation)?
            } else {
                0
            };
            Ok(generation.synced.max(noted))
        };
        // The last generation of which anything beyond the header is known to be durable. The
        // manifest's first one was durable before the manifest named it.
        let mut base = journal.generations.len() - 1;
        while base > 0 && known(base, &journal.generations[base])? <= HEADER_LEN {
            base -= 1;
        }
        let generation = &journal.generations[base];
        let synced = known(base, generation)?;
        let before = generation
            .frames
            .iter()
            .map(|frame| frame.after)
            .take_while(|after| after.end <= synced)
            .last()
            .unwrap_or(Position::start_of(&generation.header));
        let header = Header {
            generation: self.unused_generation()?,
            previous: generation.header.generation,
            previous_end: before.end,
            revision: before.revision,
            number: before.number,
            checksum: before.checksum,
            created: self.clock.now(),
        };
        let mut position = Position::start_of(&header);
        let mut frames = Vec::new();
        let carried = journal.generations[base..].iter().flat_map(|generation| &generation.frames);
        // Each comes with the revisions behind `before`: what is durable up to there stays where it
        // is.
        for frame in carried.filter(|frame| frame.after.revision > before.revision) {
            let reserved;
            let (kind, payload) = match &frame.content {
                FrameContent::Transitions(payload) => (FrameKind::Transitions, payload.bytes()),
                FrameContent::Reserved(reservation) => {
                    reserved = reservation.encode();
                    (FrameKind::Reserved, &reserved[..])
                }
            };
            let (bytes, checksum) = format::encode_frame(
                header.generation,
                kind,
                HEADER_LEN,
                position.revision.next(),
                payload,
            );
            position.last = position.end;
            position.end += bytes.len() as u64;
            position.checksum = checksum;
            (position.revision, position.number) = (frame.after.revision, frame.after.number);
            frames.extend_from_slice(&bytes);
        }
        tracing::debug!(
            generation = header.generation,
            after = header.previous,
            carried = frames.len(),
            "recovering the journal"
        );
        self.create_generation(&header, &frames)?;
        self.disk.sync_dir(&self.layout.journal())?;
        self.disk.sync_ancestors(self.layout.base())?;
        self.begin(writer, sync, position)
    }

    pub(in crate::wal) fn note_at_work(&self, writer: &Writer<V>) -> WalResult<()> {
        if let Some(mut note) = note::read::<AppendNote>(writer.lock.file())? {
            note.at_work = true;
            note.pid = self.disk.identity().pid;
            note.command.clone_from(&self.options.command);
            note.since = self.clock.now();
            note::write(writer.lock.file(), &note)?;
        }
        Ok(())
    }

    /// A new log: generation, then manifest, and only then a frame.
    ///
    /// What the original system left there is listed in the manifest, and has the first numbers and
    /// revisions.
    pub(in crate::wal) fn create_log(
        &self,
        writer: &mut Writer<V>,
        sync: &LockFile,
    ) -> WalResult<AppendNote> {
        let mut begun = None;
        self.files.create(&mut |operations| {
            let header = Header {
                generation: self.unused_generation()?,
                previous: 0,
                previous_end: 0,
                revision: Revision::new(operations),
                number: Number::new(operations).next(),
                checksum: 0,
                created: self.clock.now(),
            };
            self.create_generation(&header, &[])?;
            self.disk.sync_dir(&self.layout.journal())?;
            self.disk.sync_ancestors(self.layout.base())?;
            begun = Some(header);
            Ok(header)
        })?;
        let header = begun.ok_or_else(|| {
            WalError::damaged(self.layout.journal(), None, "the new log has no first generation")
        })?;
        self.begin(writer, sync, Position::start_of(&header))
    }
}
