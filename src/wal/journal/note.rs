//! The notes in the lock files. They spare a writer from reading the journal to find its end.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::disk::{DiskFile, DiskResult, Identity};
use crate::operation::{BackendName, Number, Revision, Time};

/// The length of a note in bytes.
pub const NOTE_LEN: usize = 512;

/// The offset of the checksum: a note ends with 8 hex digits and a newline.
const TEXT_LEN: usize = NOTE_LEN - 9;

/// The note in `lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendNote {
    /// The boot during which it was written.
    pub boot: String,
    /// True while its writer changes the journal. If a later writer finds it set, the former one
    /// died, and the journal is recovered.
    pub at_work: bool,
    /// The generation to append to.
    pub generation: u64,
    /// The offset at which its frames end.
    pub end: u64,
    /// The offset of its last frame; 0 if it has none.
    pub last: u64,
    /// The checksum of the last frame of the journal.
    pub checksum: u32,
    /// The number of the next operation that is logged.
    pub number: Number,
    /// The revision of the last transition.
    pub revision: Revision,
    /// The process that wrote it.
    pub pid: u32,
    /// The command of that process.
    pub command: String,
    /// When it began to write.
    pub since: Time,
}

/// The note in `sync.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncNote {
    /// The boot during which it was written.
    pub boot: String,
    /// The generation that was flushed.
    pub generation: u64,
    /// The offset up to which it is durable.
    pub synced: u64,
    /// The offset up to which a flush was begun that has not succeeded.
    pub syncing: Option<u64>,
    /// The process that wrote it.
    pub pid: u32,
    /// The command of that process; absent in notes of older versions.
    #[serde(default)]
    pub command: String,
}

/// The note in `process.lock` and `checkpoint.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HolderNote {
    /// The boot during which it was written.
    pub boot: String,
    /// The process that holds the lock.
    pub pid: u32,
    /// When that process started, in the kernel's clock ticks.
    pub started: u64,
    /// The command of that process.
    pub command: String,
    /// When it took the lock.
    pub since: Time,
    /// The host it runs on.
    pub host: String,
    /// The drain loop that the process runs. Absent if it holds the lock for a moment only, and in
    /// notes of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<DrainLoop>,
}

/// The operations that a drain loop executes, and the limits at which it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DrainLoop {
    /// True if the loop waits for new operations when none is due.
    pub follow: bool,
    /// The only backend whose operations it executes; none for all backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
    /// The largest number of operations that it executes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The milliseconds after its start during which it begins operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_time_ms: Option<u64>,
}

impl HolderNote {
    /// Returns the note of the process with this identity.
    pub(crate) fn new(
        identity: &Identity,
        command: &str,
        work: Option<DrainLoop>,
        now: Time,
    ) -> HolderNote {
        HolderNote {
            boot: identity.boot_id.clone(),
            pid: identity.pid,
            started: identity.started,
            command: command.chars().take(100).collect(),
            since: now,
            host: identity.host.chars().take(100).collect(),
            work,
        }
    }
}

/// Reads a note. Returns none if the file has no valid one: it may be torn.
pub fn read<N: DeserializeOwned>(file: &dyn DiskFile) -> DiskResult<Option<N>> {
    let mut bytes = [0; NOTE_LEN];
    if file.read_at(&mut bytes, 0)? < NOTE_LEN {
        return Ok(None);
    }
    let (text, checksum) = bytes.split_at(TEXT_LEN);
    if checksum != format!("{:08x}\n", crc32c::crc32c(text)).as_bytes() {
        return Ok(None);
    }
    Ok(serde_json::from_slice(text).ok())
}

/// Reads a note. Also returns none if the disk fails, for
/// callers that do not depend on the note.
pub fn read_if_readable<N: DeserializeOwned>(file: &dyn DiskFile) -> DiskResult<Option<N>> {
    match read(file) {
        Err(error) if error.is_medium_error() => Ok(None),
        read => read,
    }
}

/// Writes a note with one system call. The note is not synced: it has to survive a killed process,
/// but not a power failure.
pub fn write<N: Serialize>(file: &dyn DiskFile, note: &N) -> DiskResult<()> {
    // The fields of a note are bounded. A note that did not fit would be read as torn, and cost a
    // recovery.
    let mut bytes = serde_json::to_vec(note).unwrap_or_default();
    bytes.resize(TEXT_LEN, b' ');
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(format!("{checksum:08x}\n").as_bytes());
    file.write_at(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Access, Disk, Machine};

    #[test]
    fn a_holder_note_fits_and_is_read_without_a_drain_loop() {
        let disk = Machine::new().process();
        let file = disk.open(Path::new("/n"), Access::CreateNew).unwrap();
        let work = DrainLoop {
            follow: true,
            backend: Some(BackendName::new(&"b".repeat(64)).unwrap()),
            limit: Some(u64::MAX),
            max_time_ms: Some(u64::MAX),
        };
        let identity = Identity { pid: u32::MAX, started: u64::MAX, ..disk.identity().clone() };
        let now = Time::from_millis(1_795_000_000_000);
        let mut note = HolderNote::new(&identity, &"c".repeat(60), Some(work), now);
        note.boot = "b".repeat(36);
        note.host = "h".repeat(64);
        write(&*file, &note).unwrap();
        assert_eq!(read::<HolderNote>(&*file).unwrap(), Some(note.clone()));
        // Older versions wrote no drain loop.
        note.work = None;
        write(&*file, &note).unwrap();
        assert_eq!(read::<HolderNote>(&*file).unwrap(), Some(note));
    }

    #[test]
    fn a_torn_or_missing_note_is_none() {
        let disk = Machine::new().process();
        let file = disk.open(Path::new("/n"), Access::CreateNew).unwrap();
        assert_eq!(read::<SyncNote>(&*file).unwrap(), None);
        let note = SyncNote {
            boot: "b".into(),
            generation: 7,
            synced: 80,
            syncing: None,
            pid: 1,
            command: "add".into(),
        };
        write(&*file, &note).unwrap();
        assert_eq!(read::<SyncNote>(&*file).unwrap(), Some(note));
        for offset in [0, 10, 400, 505] {
            let mut byte = [0];
            file.read_at(&mut byte, offset).unwrap();
            file.write_at(&[byte[0] ^ 1], offset).unwrap();
            assert_eq!(read::<SyncNote>(&*file).unwrap(), None, "{offset}");
            file.write_at(&byte, offset).unwrap();
        }
    }
}
