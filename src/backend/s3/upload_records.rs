//! Records of unfinished multipart uploads: the files `uploads/<number>-<hash>.json` in the log's
//! directory.
//!
//! An upload is recorded before it is created, and its id before the first part is sent. So the
//! next attempt resumes an upload whose attempt failed or was killed, and an upload that no attempt
//! resumes can be found and aborted.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Access, Disk, DiskResult};
use crate::operation::{BackendName, Number, OperationId};

/// The directory with the records of unfinished uploads.
#[derive(Debug, Clone)]
pub struct UploadRecords {
    directory: PathBuf,
}

/// An upload that was created, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadRecord {
    pub(super) backend: BackendName,
    pub(super) operation: OperationId,
    pub(super) number: Number,
    pub(super) bucket: String,
    pub(super) key: String,
    /// The service's id of the upload; `None` if it was about to be created.
    #[serde(rename = "upload")]
    pub(super) upload_id: Option<String>,
    /// The time just before the upload was created, in milliseconds since 1970.
    #[serde(rename = "since")]
    pub(super) created_after_ms: i64,
    /// True if the parts have checksums.
    #[serde(rename = "checksums")]
    pub(super) part_checksums: bool,
    /// True if the object gets a checksum of the whole content, not one of its parts' checksums.
    #[serde(rename = "whole", default)]
    pub(super) whole_checksum: bool,
    /// The size in bytes of each part but the last.
    pub(super) part_size: u64,
    /// The size of the content in bytes.
    pub(super) size: u64,
    /// A value that changes whenever the content does.
    #[serde(rename = "version")]
    pub(super) source_version: String,
}

impl UploadRecord {
    /// Returns whether the parts of this upload can be parts of `wanted`.
    pub(super) fn can_serve(&self, wanted: &UploadRecord) -> bool {
        let UploadRecord { upload_id, created_after_ms, whole_checksum, part_size, .. } =
            self.clone();
        *self
            == UploadRecord {
                upload_id,
                created_after_ms,
                whole_checksum,
                part_size,
                ..wanted.clone()
            }
    }

    /// Returns the bytes of a part; parts are numbered from 1.
    pub(super) fn range(&self, part: usize) -> std::ops::Range<u64> {
        let begin = (part as u64).saturating_sub(1).saturating_mul(self.part_size);
        begin.min(self.size)..begin.saturating_add(self.part_size).min(self.size)
    }

    /// Returns the length of a part in bytes.
    pub(super) fn part_length(&self, part: usize) -> u64 {
        let range = self.range(part);
        range.end - range.start
    }

    /// Returns the number of parts.
    pub(super) fn parts(&self) -> usize {
        usize::try_from(self.size.div_ceil(self.part_size.max(1))).unwrap_or(usize::MAX)
    }
}

impl UploadRecords {
    /// Returns the records of the log in this directory.
    pub fn of(base: &Path) -> UploadRecords {
        UploadRecords { directory: base.join("uploads") }
    }

    /// Returns the path of a record. One operation may put many objects, so the key is part of it.
    fn path(&self, number: Number, bucket: &str, key: &str) -> PathBuf {
        let hash = crc32fast::hash(format!("{bucket}/{key}").as_bytes());
        self.directory.join(format!("{number}-{hash:08x}.json"))
    }

    /// Returns the record of an object. An invalid record counts as none: it was not durable, so no
    /// upload had been created.
    pub(super) fn read(
        &self,
        disk: &dyn Disk,
        number: Number,
        bucket: &str,
        key: &str,
    ) -> DiskResult<Option<UploadRecord>> {
        match disk.read(&self.path(number, bucket, key)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a record durable; it replaces an earlier one of the same object.
    pub(super) fn write(&self, disk: &dyn Disk, record: &UploadRecord) -> DiskResult<()> {
        disk.create_dir_if_missing(&self.directory)?;
        if let Some(log) = self.directory.parent() {
            disk.sync_dir(log)?;
        }
        let path = self.path(record.number, &record.bucket, &record.key);
        let staged = path.with_extension("tmp");
        disk.remove_if_present(&staged)?;
        let file = disk.open(&staged, Access::CreateNew)?;
        // Cannot fail: the record consists of strings and numbers.
        file.write_at(&serde_json::to_vec(record).unwrap_or_default(), 0)?;
        file.sync_all()?;
        disk.rename(&staged, &path)?;
        disk.sync_dir(&self.directory)
    }

    /// Removes a record, unless another upload has been recorded in its place.
    pub(super) fn remove(&self, disk: &dyn Disk, record: &UploadRecord) -> DiskResult<()> {
        let current = self.read(disk, record.number, &record.bucket, &record.key)?;
        if current.is_some_and(|current| current != *record) {
            return Ok(());
        }
        disk.remove_if_present(&self.path(record.number, &record.bucket, &record.key))
    }

    /// Returns the records of uploads at one backend.
    pub(super) fn of_backend(
        &self,
        disk: &dyn Disk,
        backend: &BackendName,
    ) -> DiskResult<Vec<UploadRecord>> {
        let mut records = self.all(disk)?;
        records.retain(|record| record.backend == *backend);
        Ok(records)
    }

    /// Returns all records, without files that are not valid records.
    pub(super) fn all(&self, disk: &dyn Disk) -> DiskResult<Vec<UploadRecord>> {
        let entries = match disk.list(&self.directory) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = self.directory.join(&entry.name);
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match disk.read(&path) {
                Ok(bytes) => records.extend(serde_json::from_slice(&bytes).ok()),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;
    use crate::operation::Time;

    #[test]
    fn records_are_found_again_and_decide_what_is_resumed() {
        let (disk, base) = (Machine::new().process(), Path::new("/log"));
        disk.create_dir(base).unwrap();
        let (records, name) = (UploadRecords::of(base), BackendName::new("s3").unwrap());
        let record = UploadRecord {
            backend: name.clone(),
            operation: OperationId::new(Time::from_millis(1), 0, 7),
            number: Number::new(7),
            bucket: "b".into(),
            key: "k".into(),
            upload_id: None,
            created_after_ms: 1,
            part_checksums: true,
            whole_checksum: true,
            part_size: 10,
            size: 25,
            source_version: "1".into(),
        };
        assert_eq!(records.of_backend(&disk, &name).unwrap(), []);
        records.write(&disk, &record).unwrap();
        let begun = UploadRecord { upload_id: Some("u".into()), ..record.clone() };
        records.write(&disk, &begun).unwrap();
        let other = UploadRecord { key: "other".into(), ..record.clone() };
        records.write(&disk, &other).unwrap();
        assert_eq!(records.read(&disk, Number::new(7), "b", "k").unwrap(), Some(begun.clone()));
        assert_eq!(records.of_backend(&disk, &name).unwrap().len(), 2);
        assert_eq!(records.of_backend(&disk, &BackendName::new("s4").unwrap()).unwrap(), []);
        assert!(begun.can_serve(&UploadRecord {
            created_after_ms: 9,
            whole_checksum: false,
            part_size: 5,
            ..record.clone()
        }));
        for changed in [
            UploadRecord { source_version: "2".into(), ..record.clone() },
            UploadRecord { size: 26, ..record.clone() },
            other.clone(),
        ] {
            assert!(!begun.can_serve(&changed), "{changed:?}");
        }
        assert_eq!((record.parts(), record.range(1), record.range(3)), (3, 0..10, 20..25));
        // Another upload is recorded in its place.
        records.remove(&disk, &record).unwrap();
        assert_eq!(records.of_backend(&disk, &name).unwrap().len(), 2);
        records.remove(&disk, &begun).unwrap();
        records.remove(&disk, &begun).unwrap();
        assert_eq!(records.of_backend(&disk, &name).unwrap(), [other]);
    }

    #[test]
    fn the_names_in_a_record_are_stable() {
        let text = r#"{"backend":"s3","operation":"OP","number":7,"bucket":"b","key":"k",
            "upload":null,"since":1,"checksums":true,"part_size":10,"size":25,"version":"1"}"#;
        let id = OperationId::new(Time::from_millis(1), 0, 7).to_string();
        let record: UploadRecord = serde_json::from_str(&text.replace("OP", &id)).unwrap();
        assert!(!record.whole_checksum, "records of earlier versions lack the field");
        let written = serde_json::to_value(&record).unwrap();
        for name in ["upload", "since", "checksums", "whole", "part_size", "size", "version"] {
            assert!(written.get(name).is_some(), "{name}: {written}");
        }
    }
}
