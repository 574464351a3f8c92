//! Creating a generation, and the notes that record where it begins.

use super::format::{HEADER_LEN, Header};
use super::interfaces::JournalView;
use super::lock::LockFile;
use super::note::{self, AppendNote, SyncNote};
use super::reader::{self, Position};
use super::writer::{JournalWriter, Writer};
use crate::disk::{Access, Disk, Identity};
use crate::operation::Time;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;

impl<V: JournalView> JournalWriter<V> {
    /// Returns the number of the next generation: above all files in `journal/`, valid or not.
    pub(super) fn next_generation(&self) -> WalResult<u64> {
        let last = reader::generations(&*self.disk, &self.layout)?.last().copied().unwrap_or(0);
        last.checked_add(1).ok_or_else(|| {
            WalError::damaged(
                self.layout.generation(last),
                None,
                "no generation can follow this file's number",
            )
        })
    }

    /// Creates a generation with these frames. Everything but its name is durable on return.
    pub(super) fn create_generation(&self, header: &Header, frames: &[u8]) -> WalResult<()> {
        create_generation(&*self.disk, &self.layout, header, frames)
    }

    /// Continues in a generation that is durable up to `position`, its end. Holds `lock` and
    /// `sync.lock`.
    pub(super) fn begin(
        &self,
        writer: &mut Writer<V>,
        sync: &LockFile,
        position: Position,
    ) -> WalResult<AppendNote> {
        let (identity, command) = (self.disk.identity(), &self.options.command);
        let now = self.clock.now();
        let note = write_notes(identity, command, now, position, &writer.lock, sync)?;
        writer.open = None;
        Ok(note)
    }
}

/// Writes the notes in `lock` and `sync.lock` for a journal that is durable up to `position`.
/// Returns that of `lock`.
pub(in crate::wal) fn write_notes(
    identity: &Identity,
    command: &str,
    now: Time,
    position: Position,
    append: &LockFile,
    sync: &LockFile,
) -> WalResult<AppendNote> {
    let synced = SyncNote {
        boot: identity.boot_id.clone(),
        generation: position.generation,
        synced: position.end,
        syncing: None,
        pid: identity.pid,
        command: command.to_owned(),
    };
    note::write(sync.file(), &synced)?;
    let note = AppendNote {
        boot: identity.boot_id.clone(),
        at_work: false,
        generation: position.generation,
        end: position.end,
        last: position.last,
        checksum: position.checksum,
        number: position.number,
        revision: position.revision,
        pid: identity.pid,
        command: command.to_owned(),
        since: now,
    };
    note::write(append.file(), &note)?;
    Ok(note)
}

/// Creates a generation with these frames. Everything but its name is durable on return.
///
/// The header is written last, so a file with a valid header contains all its frames.
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
            // Without a header, the file is not a generation. Removing it frees space on a full
            // disk.
            let _ = disk.remove_file(&path);
            return Err(WalError::NotLogged(error));
        }
    }
    file.write_at(&header.encode(), 0).map_err(WalError::NotLogged)?;
    file.sync_all().map_err(WalError::NotLogged)
}
