//! Notes on uploads in parts: the files `uploads/<number>-<place>.json` in the log's folder.
//!
//! An upload is noted before it is begun, and its id before the first part is sent. So an attempt that breaks off, or
//! dies, is resumed by the next one; and what nobody resumes can be found and aborted.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Access, Disk, DiskResult};
use crate::operation::{BackendName, Number, OperationId};

/// Where notes on uploads are.
#[derive(Debug, Clone)]
pub struct Notes {
    folder: PathBuf,
}

/// An upload that has been, or was about to be, begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The backend that it is at.
    pub(super) backend: BackendName,
    /// The operation that it is for.
    pub(super) operation: OperationId,
    pub(super) number: Number,
    pub(super) bucket: String,
    pub(super) key: String,
    /// What the service calls it; none: it was about to be begun.
    pub(super) upload: Option<String>,
    /// When it was about to be begun, in milliseconds since 1970.
    pub(super) since: i64,
    /// Whether its parts have checksums.
    pub(super) checksums: bool,
    /// Whether the object will have a checksum of the whole, not only one of those of its parts.
    #[serde(default)]
    pub(super) whole: bool,
    /// Bytes of each part but the last.
    pub(super) part_size: u64,
    /// What is sent: bytes, and what changes with it.
    pub(super) size: u64,
    pub(super) version: String,
}

impl Note {
    /// Whether parts of this upload are parts of that one.
    pub(super) fn is_of(&self, wanted: &Note) -> bool {
        let Note { upload, since, whole, part_size, .. } = self.clone();
        *self == Note { upload, since, whole, part_size, ..wanted.clone() }
    }

    /// The bytes of a part, the first of which is part 1.
    pub(super) fn range(&self, part: usize) -> std::ops::Range<u64> {
        let begin = (part as u64).saturating_sub(1).saturating_mul(self.part_size);
        begin.min(self.size)..begin.saturating_add(self.part_size).min(self.size)
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> usize {
        usize::try_from(self.size.div_ceil(self.part_size.max(1))).unwrap_or(usize::MAX)
    }
}

impl Notes {
    /// Notes in the log in this directory.
    pub fn of(base: &Path) -> Notes {
        Notes { folder: base.join("uploads") }
    }

    /// An operation may put many objects.
    fn path(&self, number: Number, bucket: &str, key: &str) -> PathBuf {
        let place = crc32fast::hash(format!("{bucket}/{key}").as_bytes());
        self.folder.join(format!("{number}-{place:08x}.json"))
    }

    /// What is noted of an object. What cannot be read is none: it was not durable, so nothing had been begun.
    pub(super) fn read(
        &self,
        disk: &dyn Disk,
        number: Number,
        bucket: &str,
        key: &str,
    ) -> DiskResult<Option<Note>> {
        match disk.read(&self.path(number, bucket, key)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a note durable, in place of an earlier one.
    pub(super) fn write(&self, disk: &dyn Disk, note: &Note) -> DiskResult<()> {
        disk.create_dir_if_missing(&self.folder)?;
        if let Some(log) = self.folder.parent() {
            disk.sync_dir(log)?;
        }
        let path = self.path(note.number, &note.bucket, &note.key);
        let staged = path.with_extension("tmp");
        disk.remove_if_present(&staged)?;
        let file = disk.open(&staged, Access::CreateNew)?;
        // Strings and numbers: this cannot fail.
        file.write_at(&serde_json::to_vec(note).unwrap_or_default(), 0)?;
        file.sync_all()?;
        disk.rename(&staged, &path)?;
        disk.sync_dir(&self.folder)
    }

    /// Forgets an upload, unless another one is noted in its place by now.
    pub(super) fn remove(&self, disk: &dyn Disk, note: &Note) -> DiskResult<()> {
        if self.read(disk, note.number, &note.bucket, &note.key)?.is_some_and(|now| now != *note) {
            return Ok(());
        }
        disk.remove_if_present(&self.path(note.number, &note.bucket, &note.key))
    }

    /// The notes of uploads at a backend.
    pub(super) fn of_backend(
        &self,
        disk: &dyn Disk,
        backend: &BackendName,
    ) -> DiskResult<Vec<Note>> {
        let mut notes = self.all(disk)?;
        notes.retain(|note| note.backend == *backend);
        Ok(notes)
    }

    /// All notes. Files that are none are passed over.
    pub(super) fn all(&self, disk: &dyn Disk) -> DiskResult<Vec<Note>> {
        let entries = match disk.list(&self.folder) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut notes = Vec::new();
        for entry in entries {
            let path = self.folder.join(&entry.name);
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match disk.read(&path) {
                Ok(bytes) => notes.extend(serde_json::from_slice(&bytes).ok()),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;
    use crate::operation::Time;

    #[test]
    fn notes_are_found_again_and_say_what_is_resumed() {
        let (disk, base) = (Machine::new().process(), Path::new("/log"));
        disk.create_dir(base).unwrap();
        let (notes, name) = (Notes::of(base), BackendName::new("s3").unwrap());
        let note = Note {
            backend: name.clone(),
            operation: OperationId::new(Time::from_millis(1), 0, 7),
            number: Number::new(7),
            bucket: "b".into(),
            key: "k".into(),
            upload: None,
            since: 1,
            checksums: true,
            whole: true,
            part_size: 10,
            size: 25,
            version: "1".into(),
        };
        assert_eq!(notes.of_backend(&disk, &name).unwrap(), []);
        notes.write(&disk, &note).unwrap();
        let begun = Note { upload: Some("u".into()), ..note.clone() };
        notes.write(&disk, &begun).unwrap();
        let other = Note { key: "other".into(), ..note.clone() };
        notes.write(&disk, &other).unwrap();
        assert_eq!(notes.read(&disk, Number::new(7), "b", "k").unwrap(), Some(begun.clone()));
        assert_eq!(notes.of_backend(&disk, &name).unwrap().len(), 2);
        assert_eq!(notes.of_backend(&disk, &BackendName::new("s4").unwrap()).unwrap(), []);
        assert!(begun.is_of(&Note { since: 9, whole: false, part_size: 5, ..note.clone() }));
        for changed in [
            Note { version: "2".into(), ..note.clone() },
            Note { size: 26, ..note.clone() },
            other.clone(),
        ] {
            assert!(!begun.is_of(&changed), "{changed:?}");
        }
        assert_eq!((note.parts(), note.range(1), note.range(3)), (3, 0..10, 20..25));
        // Another one is noted in its place.
        notes.remove(&disk, &note).unwrap();
        assert_eq!(notes.of_backend(&disk, &name).unwrap().len(), 2);
        notes.remove(&disk, &begun).unwrap();
        notes.remove(&disk, &begun).unwrap();
        assert_eq!(notes.of_backend(&disk, &name).unwrap(), [other]);
    }
}
