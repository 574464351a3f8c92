//! The notes in the lock files: how writers tell each other where the journal stands.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::disk::{DiskFile, DiskResult, Identity};
use crate::operation::{Number, Revision, Time};

/// Bytes of a note.
pub const NOTE_LEN: usize = 512;

/// Where the checksum begins: 8 hex digits and a newline end the note.
const TEXT_LEN: usize = NOTE_LEN - 9;

/// The note in `lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendNote {
    /// Boot during which it was written.
    pub boot: String,
    /// Whether its writer was in the middle of something.
    pub at_work: bool,
    /// The generation that is appended to.
    pub generation: u64,
    /// Where its frames end.
    pub end: u64,
    /// Where its last frame starts; 0 without a frame.
    pub last: u64,
    /// Checksum of the last frame of the log.
    pub checksum: u32,
    /// Number that the next logged operation gets.
    pub number: Number,
    /// Revision of the last transition.
    pub revision: Revision,
    /// Who wrote it.
    pub pid: u32,
    /// What that was doing.
    pub command: String,
    /// When it began.
    pub since: Time,
}

/// The note in `sync.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncNote {
    /// Boot during which it was written.
    pub boot: String,
    /// The generation it speaks of.
    pub generation: u64,
    /// Up to where that is durable.
    pub synced: u64,
    /// Target of a flush that began and has not succeeded.
    pub syncing: Option<u64>,
    /// Who wrote it.
    pub pid: u32,
    /// What that was doing; older versions did not say.
    #[serde(default)]
    pub command: String,
}

/// The note in `process.lock` and `checkpoint.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderNote {
    /// Boot during which it was written.
    pub boot: String,
    /// Who holds the lock.
    pub pid: u32,
    /// When that process started, as the kernel counts.
    pub started: u64,
    /// What it is doing.
    pub command: String,
    /// Since when.
    pub since: Time,
    /// On which host.
    pub host: String,
}

impl HolderNote {
    /// A note that says we hold the lock.
    pub fn new(identity: &Identity, command: &str, now: Time) -> HolderNote {
        HolderNote {
            boot: identity.boot_id.clone(),
            pid: identity.pid,
            started: identity.started,
            command: command.chars().take(100).collect(),
            since: now,
            host: identity.host.chars().take(100).collect(),
        }
    }
}

/// Reads a note; none if there is none, or it is torn.
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

/// The note in a file, and none, too, where the medium does not give it: for those who can do without.
pub fn read_if_readable<N: DeserializeOwned>(file: &dyn DiskFile) -> DiskResult<Option<N>> {
    match read(file) {
        Err(error) if error.is_medium_error() => Ok(None),
        read => read,
    }
}

/// Writes a note with one call. It is not synced: it has to survive a kill, not a power cut.
pub fn write<N: Serialize>(file: &dyn DiskFile, note: &N) -> DiskResult<()> {
    // Notes are plain structs of bounded size; if one ever did not fit, the torn note would only cost a recovery.
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
