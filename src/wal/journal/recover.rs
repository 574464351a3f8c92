//! Recovery: if the end of the journal cannot be trusted, the last generation is ended at its last
//! byte that is known to be durable, and a new one begins with the valid frames after it.

use super::format::{self, FrameKind, HEADER_LEN, Header};
use super::interfaces::JournalView;
use super::lock::LockFile;
use super::note::{self, AppendNote};
use super::reader::{self, FrameContent, Position, ReadGeneration};
use super::writer::{JournalWriter, Writer};
use crate::operation::{Number, Revision};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::LockName;

impl<V: JournalView> JournalWriter<V> {
    /// Recovers the journal, or creates the log if there is none. Holds `lock`; takes `sync.lock`.
    ///
    /// The new generation is durable on return.
    pub(in crate::wal) fn recover(&self, writer: &mut Writer<V>) -> WalResult<AppendNote> {
        for directory in self.layout.directories() {
            // The names of the directories become durable with the new generation, before anything
            // refers to their contents.
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

    /// Like [`JournalWriter::recover`], for a caller that holds both locks.
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
        let (base, durable) = self.durable_end(&journal.generations)?;
        let header = Header {
            generation: self.next_generation()?,
            previous: durable.generation,
            previous_end: durable.end,
            revision: durable.revision,
            number: durable.number,
            checksum: durable.checksum,
            created: self.clock.now(),
        };
        let (frames, position) = carry_over(&journal.generations[base..], &header);
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

    /// Returns the position up to which the journal is known to be durable, and the index of its
    /// generation.
    fn durable_end(&self, generations: &[ReadGeneration]) -> WalResult<(usize, Position)> {
        let synced_of = |index: usize| -> WalResult<u64> {
            let generation = &generations[index];
            let is_last = index + 1 == generations.len();
            let noted = if is_last {
                reader::synced_by_note(&*self.disk, &self.layout, generation.header.generation)?
            } else {
                0
            };
            Ok(generation.synced.max(noted))
        };
        // The last generation of which more than the header is known to be durable. The first one
        // was durable before the manifest named it.
        let mut base = generations.len() - 1;
        while base > 0 && synced_of(base)? <= HEADER_LEN {
            base -= 1;
        }
        let synced = synced_of(base)?;
        let durable = generations[base]
            .frames
            .iter()
            .map(|frame| frame.after)
            .take_while(|after| after.end <= synced)
            .last()
            .unwrap_or(Position::start_of(&generations[base].header));
        Ok((base, durable))
    }

    /// Marks the journal as one to be recovered if this process dies.
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

    /// Creates a log: first the generation, then the manifest that names it, and only then a frame.
    ///
    /// The operations that `ipfs_kit_py` left in this directory get the first numbers and
    /// revisions.
    pub(in crate::wal) fn create_log(
        &self,
        writer: &mut Writer<V>,
        sync: &LockFile,
    ) -> WalResult<AppendNote> {
        let mut begun = None;
        self.files.create(&mut |operations| {
            let header = Header {
                generation: self.next_generation()?,
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

/// Returns the frames of a new generation that repeat those after its predecessor's end, and the
/// position after them.
///
/// Frames up to that end are durable, and stay where they are.
fn carry_over(generations: &[ReadGeneration], header: &Header) -> (Vec<u8>, Position) {
    let mut position = Position::start_of(header);
    let mut bytes = Vec::new();
    let frames = generations.iter().flat_map(|generation| &generation.frames);
    for frame in frames.filter(|frame| frame.after.revision > header.revision) {
        let reserved;
        let (kind, payload) = match &frame.content {
            FrameContent::Transitions(payload) => (FrameKind::Transitions, payload.bytes()),
            FrameContent::Reserved(reservation) => {
                reserved = reservation.encode();
                (FrameKind::Reserved, &reserved[..])
            }
        };
        let (encoded, checksum) = format::encode_frame(
            header.generation,
            kind,
            HEADER_LEN,
            position.revision.next(),
            payload,
        );
        position = Position {
            generation: header.generation,
            last: position.end,
            end: position.end + encoded.len() as u64,
            checksum,
            revision: frame.after.revision,
            number: frame.after.number,
        };
        bytes.extend_from_slice(&encoded);
    }
    (bytes, position)
}
