//! Beginning a new generation: because the old one is full, or because its end cannot be trusted.

use super::format::{self, FrameKind, HEADER_LEN, Header};
use super::lock::LockFile;
use super::note::{self, AppendNote, SyncNote};
use super::reader::{self, Content, Position};
use super::writer::{Inner, Wal};
use crate::disk::{Access, Disk, DiskError};
use crate::operation::{Number, Revision};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::{Layout, LockName};
use crate::wal::manifest::Manifest;

impl Wal {
    /// Closes the generation and opens the next one. Holds `lock`; takes `sync.lock`.
    pub(in crate::wal) fn rotate(
        &self,
        inner: &mut Inner,
        note: AppendNote,
    ) -> WalResult<AppendNote> {
        let mut sync = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
        sync.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let sound = note::read::<SyncNote>(sync.file())?.is_some_and(|flushed| {
            flushed.boot == note.boot
                && flushed.generation == note.generation
                && flushed.syncing.is_none()
        });
        // A flush that failed meanwhile must not be tried again on the same pages: that is a case for a recovery.
        let rotated = if sound {
            self.rotate_locked(inner, &sync, note.clone())
        } else {
            self.recover_locked(inner, &sync)
        };
        sync.unlock()?;
        let rotated = rotated?;
        if (rotated.revision, rotated.number) != (note.revision, note.number) {
            let changed =
                std::io::Error::other("a flush failed and frames of others were lost; try again");
            let path = self.layout.generation(note.generation);
            return Err(WalError::NotLogged(DiskError::new("flush", &path, changed)));
        }
        Ok(rotated)
    }

    fn rotate_locked(
        &self,
        inner: &mut Inner,
        sync: &LockFile,
        mut note: AppendNote,
    ) -> WalResult<AppendNote> {
        note.at_work = true;
        note::write(inner.lock.file(), &note)?;
        let old = note.generation;
        let file = self.journal(inner, old)?.file.clone();
        self.note_syncing(sync, old, note.end)?;
        file.sync_data().map_err(WalError::NotLogged)?;
        let header = Header {
            generation: self.unused_generation()?,
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
        let sealed = format::sealed_payload(header.generation);
        let (bytes, _) =
            format::encode_frame(old, FrameKind::Sealed, note.end, note.revision.next(), &sealed);
        // It only tells early that there is more: the next header says the same, and that one is durable.
        file.write_at(&bytes, note.end)?;
        self.begin(inner, sync, Position::start_of(&header))
    }

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

    fn unused_generation(&self) -> WalResult<u64> {
        let last = reader::generations(&*self.disk, &self.layout)?.last().copied().unwrap_or(0);
        last.checked_add(1).ok_or_else(|| {
            WalError::damaged(
                self.layout.generation(last),
                None,
                "no generation can follow this file's number",
            )
        })
    }

    fn create_generation(&self, header: &Header, frames: &[u8]) -> WalResult<()> {
        create_generation(&*self.disk, &self.layout, header, frames)
    }

    /// Both notes for a generation that is durable as far as `position`.
    fn begin(
        &self,
        inner: &mut Inner,
        sync: &LockFile,
        position: Position,
    ) -> WalResult<AppendNote> {
        let identity = self.disk.identity();
        let boot = identity.boot_id.clone();
        let synced = SyncNote {
            boot: boot.clone(),
            generation: position.generation,
            synced: position.end,
            syncing: None,
            pid: identity.pid,
            command: self.options.command.clone(),
        };
        note::write(sync.file(), &synced)?;
        let note = AppendNote {
            boot,
            at_work: false,
            generation: position.generation,
            end: position.end,
            last: position.last,
            checksum: position.checksum,
            number: position.number,
            revision: position.revision,
            pid: identity.pid,
            command: self.options.command.clone(),
            since: self.clock.now(),
        };
        note::write(inner.lock.file(), &note)?;
        inner.journal = None;
        Ok(note)
    }

    /// Puts the journal in order. Holds `lock`; takes `sync.lock`.
    pub(in crate::wal) fn recover(&self, inner: &mut Inner) -> WalResult<AppendNote> {
        for directory in self.layout.directories() {
            // Their names are made durable with those of everything above them, before anything refers to what is in them.
            self.disk.create_dir_if_missing(&directory).map_err(WalError::NotLogged)?;
        }
        let mut sync = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
        sync.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let recovered = self.recover_locked(inner, &sync);
        sync.unlock()?;
        let note = recovered?;
        inner.view.catch_up()?;
        Ok(note)
    }

    fn recover_locked(&self, inner: &mut Inner, sync: &LockFile) -> WalResult<AppendNote> {
        let manifest = Manifest::load(&*self.disk, &self.layout)?;
        let Some(manifest) = manifest else { return self.create_log(inner, sync) };
        self.note_at_work(inner)?;
        let chain = reader::read_chain(&*self.disk, &self.layout, manifest.first_generation)?;
        if let Some(damage) = chain.damage {
            return Err(WalError::Damaged(damage));
        }
        let known = |at: usize, link: &reader::Link| -> WalResult<u64> {
            let last = at + 1 == chain.links.len();
            let noted = if last {
                reader::synced_by_note(&*self.disk, &self.layout, link.header.generation)?
            } else {
                0
            };
            Ok(link.synced.max(noted))
        };
        // The last generation of which anything beyond the header is known to be durable. The manifest's first
        // one was durable before the manifest named it.
        let mut base = chain.links.len() - 1;
        while base > 0 && known(base, &chain.links[base])? <= HEADER_LEN {
            base -= 1;
        }
        let link = &chain.links[base];
        let synced = known(base, link)?;
        let before = link
            .frames
            .iter()
            .map(|frame| frame.after)
            .take_while(|after| after.end <= synced)
            .last()
            .unwrap_or(Position::start_of(&link.header));
        let header = Header {
            generation: self.unused_generation()?,
            previous: link.header.generation,
            previous_end: before.end,
            revision: before.revision,
            number: before.number,
            checksum: before.checksum,
            created: self.clock.now(),
        };
        let mut position = Position::start_of(&header);
        let mut frames = Vec::new();
        let carried = chain.links[base..].iter().flat_map(|link| &link.frames);
        // Each comes with the revisions behind `before`: what is durable up to there stays where it is.
        for frame in carried.filter(|frame| frame.after.revision > before.revision) {
            let reserved;
            let (kind, payload) = match &frame.content {
                Content::Transitions(payload) => (FrameKind::Transitions, payload.bytes()),
                Content::Reserved(reservation) => {
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
        self.begin(inner, sync, position)
    }

    pub(in crate::wal) fn note_at_work(&self, inner: &Inner) -> WalResult<()> {
        if let Some(mut note) = note::read::<AppendNote>(inner.lock.file())? {
            note.at_work = true;
            note.pid = self.disk.identity().pid;
            note.command.clone_from(&self.options.command);
            note.since = self.clock.now();
            note::write(inner.lock.file(), &note)?;
        }
        Ok(())
    }

    /// A new log: generation, then manifest, and only then a frame.
    ///
    /// What the original system left there is listed in the manifest, and has the first numbers and revisions.
    pub(in crate::wal) fn create_log(
        &self,
        inner: &mut Inner,
        sync: &LockFile,
    ) -> WalResult<AppendNote> {
        let (originals, found) = self.find_originals()?;
        let header = Header {
            generation: self.unused_generation()?,
            previous: 0,
            previous_end: 0,
            revision: Revision::new(found),
            number: Number::new(found).next(),
            checksum: 0,
            created: self.clock.now(),
        };
        self.create_generation(&header, &[])?;
        self.disk.sync_dir(&self.layout.journal())?;
        self.disk.sync_ancestors(self.layout.base())?;
        let mut manifest = Manifest::new(header.generation, self.clock.now());
        (manifest.revision, manifest.next_number) = (header.revision, header.number);
        // Nothing that comes along is old enough to be dropped before its owner has had a look at it.
        manifest.last_cleanup = originals.as_ref().map(|_| self.clock.now());
        manifest.originals = originals;
        manifest.commit(&*self.disk, &self.layout)?;
        self.keep_reserve();
        self.begin(inner, sync, Position::start_of(&header))
    }
}

/// A new generation with these frames, durable but for its name.
///
/// The header comes last: a file whose header is whole holds all its frames.
pub(in crate::wal) fn create_generation(
    disk: &dyn Disk,
    layout: &Layout,
    header: &Header,
    frames: &[u8],
) -> WalResult<()> {
    let path = layout.generation(header.generation);
    let file = disk.open(&path, Access::CreateNew).map_err(WalError::NotLogged)?;
    if !frames.is_empty() {
        let written = file.write_at(frames, HEADER_LEN).and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Without a header nobody takes it for a generation; on a full disk its room is needed.
            let _ = disk.remove_file(&path);
            return Err(WalError::NotLogged(error));
        }
    }
    file.write_at(&header.encode(), 0).map_err(WalError::NotLogged)?;
    file.sync_all().map_err(WalError::NotLogged)
}
