//! Creating a generation, and the notes that say where it begins.

use super::format::{HEADER_LEN, Header};
use super::interfaces::JournalView;
use super::lock::LockFile;
use super::note::{self, AppendNote, SyncNote};
use super::reader::{self, Position};
use super::writer::{JournalWriter, Writer};
use crate::disk::{Access, Disk};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;

impl<V: JournalView> JournalWriter<V> {
    pub(super) fn unused_generation(&self) -> WalResult<u64> {
        let last = reader::generations(&*self.disk, &self.layout)?.last().copied().unwrap_or(0);
        last.checked_add(1).ok_or_else(|| {
            WalError::damaged(
                self.layout.generation(last),
                None,
                "no generation can follow this file's number",
            )
        })
    }

    pub(super) fn create_generation(&self, header: &Header, frames: &[u8]) -> WalResult<()> {
        create_generation(&*self.disk, &self.layout, header, frames)
    }

    /// Writes both notes for a generation that is durable up to `position`.
    pub(super) fn begin(
        &self,
        writer: &mut Writer<V>,
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
        note::write(writer.lock.file(), &note)?;
        writer.open = None;
        Ok(note)
    }
}

/// Creates a generation with these frames. All of it is durable but its name.
///
/// The header is written last, so a file with a valid header holds all its frames.
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
            // Without a header it does not count as a generation. A full disk needs its room.
            let _ = disk.remove_file(&path);
            return Err(WalError::NotLogged(error));
        }
    }
    file.write_at(&header.encode(), 0).map_err(WalError::NotLogged)?;
    file.sync_all().map_err(WalError::NotLogged)
}
