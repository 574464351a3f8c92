//! Large files, sent in parts, several at once.
//!
//! The upload's id is noted in the log's folder before the first part is sent. So an attempt that breaks off, or dies,
//! is resumed by the next one, which sends the parts that are missing; and what nobody resumes can be found and aborted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use serde::{Deserialize, Serialize};

use super::Session;
use super::errors::Trouble;
use super::place::Place;
use crate::backend::AttemptError;
use crate::backend::errors::{Result, ours};
use crate::backend::files::Opened;
use crate::disk::{Access, Disk, DiskResult};
use crate::operation::{FailureClass, Fields, Number, OperationId, Outcome};

/// Parts of one upload, at most: no service takes more.
const PARTS_MAX: u64 = 10_000;

/// How often a part is sent before the attempt is over: the next one resumes with that part.
const TRIES: u32 = 3;

/// Where notes on uploads are, and what they say.
#[derive(Debug, Clone)]
pub struct Notes {
    folder: PathBuf,
}

/// An upload that has been begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The operation that it is for.
    pub(super) operation: OperationId,
    pub(super) bucket: String,
    pub(super) key: String,
    /// What the service calls it; none: it was about to be begun.
    pub(super) upload: Option<String>,
    /// Bytes of each part but the last.
    pub(super) part_size: u64,
    /// The file that is sent: its size and time of change.
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
}

impl Notes {
    /// Notes in the log in this directory.
    pub fn of(base: &std::path::Path) -> Notes {
        Notes { folder: base.join("uploads") }
    }

    fn path(&self, number: Number) -> PathBuf {
        self.folder.join(format!("{number}.json"))
    }

    /// What is noted of an operation. One that cannot be read is none: it was not synced, so nothing had been begun.
    pub(super) fn read(&self, disk: &dyn Disk, number: Number) -> DiskResult<Option<Note>> {
        match disk.read(&self.path(number)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a note durable, in place of an earlier one.
    pub(super) fn write(&self, disk: &dyn Disk, number: Number, note: &Note) -> DiskResult<()> {
        disk.create_dir_if_missing(&self.folder)?;
        if let Some(log) = self.folder.parent() {
            disk.sync_dir(log)?;
        }
        let (path, staged) = (self.path(number), self.folder.join(format!("{number}.tmp")));
        match disk.remove_file(&staged) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let file = disk.open(&staged, Access::CreateNew)?;
        // Strings and numbers: this cannot fail.
        file.write_at(&serde_json::to_vec(note).unwrap_or_default(), 0)?;
        file.sync_all()?;
        disk.rename(&staged, &path)?;
        disk.sync_dir(&self.folder)
    }

    /// Forgets an operation's upload.
    pub(super) fn remove(&self, disk: &dyn Disk, number: Number) -> DiskResult<()> {
        match disk.remove_file(&self.path(number)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A part that the service has.
#[derive(Debug, Clone)]
struct Sent {
    etag: Option<String>,
    crc32: Option<String>,
}

impl Session<'_> {
    /// Sends a file in parts.
    pub(super) fn put_in_parts(&self, opened: &Opened, destination: &Place) -> Result<Outcome> {
        let (disk, number) = (&*self.backend.disk, self.request.number);
        let bucket = self.bucket(destination)?.to_owned();
        let part_size = self.backend.options.part_size.max(opened.len().div_ceil(PARTS_MAX));
        let begun = self.backend.notes.read(disk, number).map_err(ours)?;
        let wanted = Note {
            operation: self.request.id,
            bucket,
            key: destination.key.clone(),
            upload: None,
            part_size,
            size: opened.len(),
            mtime_ns: opened.mtime_ns(),
        };
        let is_same =
            |note: &Note| Note { upload: None, ..note.clone() } == Note { part_size: note.part_size, ..wanted.clone() };
        let (note, mut sent) = match begun {
            Some(note) if is_same(&note) => match self.parts_of(&note)? {
                Some(sent) => (note, sent),
                None => (self.begin(wanted)?, BTreeMap::new()),
            },
            Some(other) => {
                self.abort(&other)?;
                (self.begin(wanted)?, BTreeMap::new())
            }
            None => (self.begin(wanted)?, BTreeMap::new()),
        };
        let count = usize::try_from(opened.len().div_ceil(note.part_size)).unwrap_or(usize::MAX);
        sent.retain(|part, _| *part <= count);
        for part in sent.keys() {
            self.attempt.add_bytes(range_of(&note, *part).end - range_of(&note, *part).start);
        }
        self.send_parts(opened, &note, count, &mut sent)?;
        opened.check_read(opened.len())?;
        let outcome = self.complete(&note, &sent, destination)?;
        self.backend.notes.remove(disk, number).map_err(ours)?;
        Ok(Outcome { size: Some(opened.len()), ..outcome })
    }

    /// Begins an upload, and notes that.
    fn begin(&self, note: Note) -> Result<Note> {
        let (disk, number) = (&*self.backend.disk, self.request.number);
        self.backend.notes.write(disk, number, &note).map_err(ours)?;
        let created = self.call(async |client| {
            let create = client.create_multipart_upload().bucket(&note.bucket).key(&note.key);
            let algorithm = self.backend.options.checksums.then_some(ChecksumAlgorithm::Crc32);
            let create = create.metadata(super::objects::OPERATION, self.request.id.to_string());
            create.set_checksum_algorithm(algorithm).send().await
        });
        let created = self.read("CreateMultipartUpload", created)?;
        let upload = created.upload_id.ok_or_else(|| {
            let message = format!("{} began an upload without a name; it is tried again", self.backend.service);
            AttemptError::transient("bad_answer", message)
        })?;
        let note = Note { upload: Some(upload), ..note };
        self.backend.notes.write(disk, number, &note).map_err(ours)?;
        Ok(note)
    }

    /// The parts that the service has of an upload; none: it does not know that one any more.
    fn parts_of(&self, note: &Note) -> Result<Option<BTreeMap<usize, Sent>>> {
        let Some(upload) = &note.upload else {
            self.abort(note)?;
            return Ok(None);
        };
        let (mut parts, mut marker) = (BTreeMap::new(), None);
        loop {
            let listed = self.call(async |client| {
                let list = client.list_parts().bucket(&note.bucket).key(&note.key).upload_id(upload);
                list.set_part_number_marker(marker.take()).send().await
            });
            let listed = match listed {
                Err(Trouble::Refused(refused)) if refused.code == "NoSuchUpload" => return Ok(None),
                other => self.read("ListParts", other)?,
            };
            for part in listed.parts() {
                let number = part.part_number().and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
                let range = range_of(note, number.max(1));
                // One that was cut short is sent again.
                if number > 0 && part.size().and_then(|size| u64::try_from(size).ok()) == Some(range.end - range.start)
                {
                    let sent =
                        Sent { etag: part.e_tag().map(str::to_owned), crc32: part.checksum_crc32().map(str::to_owned) };
                    parts.insert(number, sent);
                }
            }
            marker =
                listed.next_part_number_marker().map(str::to_owned).filter(|_| listed.is_truncated() == Some(true));
            if marker.is_none() {
                return Ok(Some(parts));
            }
        }
    }

    /// Sends the parts that are missing, several at once.
    fn send_parts(&self, opened: &Opened, note: &Note, count: usize, sent: &mut BTreeMap<usize, Sent>) -> Result<()> {
        let missing: Vec<usize> = (1..=count).filter(|part| !sent.contains_key(part)).collect();
        let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results: Mutex<(BTreeMap<usize, Sent>, Option<AttemptError>)> = Mutex::default();
        let work = || {
            while let Some(part) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let result = self.send_part(opened, note, *part);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(done) => drop(results.0.insert(*part, done)),
                    Err(error) => {
                        is_over.store(true, Ordering::Relaxed);
                        results.1.get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.backend.options.part_jobs.min(missing.len()) {
                scope.spawn(work);
            }
            work();
        });
        let (more, error) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        sent.extend(more);
        error.map_or(Ok(()), Err)
    }

    fn send_part(&self, opened: &Opened, note: &Note, part: usize) -> Result<Sent> {
        let range = range_of(note, part);
        let (_, client) = self.read("UploadPart", self.backend.caller.engine())?;
        let mut tries = 0;
        loop {
            tries += 1;
            let result = self.streamed("UploadPart", opened, range.clone(), |body| {
                let upload =
                    client.upload_part().bucket(&note.bucket).key(&note.key).set_upload_id(note.upload.clone());
                let upload = upload.part_number(i32::try_from(part).unwrap_or(i32::MAX));
                upload.content_length(i64::try_from(range.end - range.start).unwrap_or(i64::MAX)).body(body).send()
            });
            match result {
                Ok(done) => return Ok(Sent { etag: done.e_tag, crc32: done.checksum_crc32 }),
                // A part is no object yet: sending it again does no harm, and nobody has to be asked.
                Err(AttemptError::Unanswered(failure)) if tries >= TRIES || failure.class == FailureClass::Outage => {
                    return Err(failure.into());
                }
                Err(AttemptError::Failed { failure, .. })
                    if failure.class == FailureClass::Transient && tries < TRIES => {}
                Err(AttemptError::Unanswered(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn complete(&self, note: &Note, sent: &BTreeMap<usize, Sent>, destination: &Place) -> Result<Outcome> {
        let parts = sent.iter().map(|(part, sent)| {
            CompletedPart::builder()
                .part_number(i32::try_from(*part).unwrap_or(i32::MAX))
                .set_e_tag(sent.etag.clone())
                .set_checksum_crc32(sent.crc32.clone())
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let completed = self.call(async |client| {
            let complete = client.complete_multipart_upload().bucket(&note.bucket).key(&note.key);
            complete.set_upload_id(note.upload.clone()).multipart_upload(parts).send().await
        });
        let completed = self.acted("CompleteMultipartUpload", completed)?;
        let mut receipt = Fields::from([
            ("bucket".into(), note.bucket.clone()),
            ("key".into(), note.key.clone()),
            ("parts".into(), sent.len().to_string()),
        ]);
        let more = [
            ("etag", completed.e_tag()),
            ("version_id", completed.version_id()),
            ("checksum_crc32", completed.checksum_crc32()),
        ];
        receipt.extend(more.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?.to_owned()))));
        Ok(Outcome { receipt, ..self.outcome_at(destination)? })
    }

    /// Gives an upload up, with what has been sent of it.
    pub(super) fn abort(&self, note: &Note) -> Result<()> {
        let uploads = match &note.upload {
            Some(upload) => vec![upload.clone()],
            // It died between the two notes: whatever has been begun under this key.
            None => self.uploads_under(note)?,
        };
        for upload in uploads {
            let aborted = self.call(async |client| {
                client.abort_multipart_upload().bucket(&note.bucket).key(&note.key).upload_id(&upload).send().await
            });
            match aborted {
                Err(Trouble::Refused(refused)) if refused.code == "NoSuchUpload" => {}
                other => drop(self.read("AbortMultipartUpload", other)?),
            }
        }
        self.backend.notes.remove(&*self.backend.disk, self.request.number).map_err(ours)
    }

    fn uploads_under(&self, note: &Note) -> Result<Vec<String>> {
        let listed = self
            .call(async |client| client.list_multipart_uploads().bucket(&note.bucket).prefix(&note.key).send().await);
        let listed = self.read("ListMultipartUploads", listed)?;
        let under = listed.uploads().iter().filter(|upload| upload.key() == Some(&note.key));
        Ok(under.filter_map(|upload| upload.upload_id().map(str::to_owned)).collect())
    }
}

/// The bytes of a part, the first of which is part 1.
fn range_of(note: &Note, part: usize) -> std::ops::Range<u64> {
    let begin = (part as u64 - 1).saturating_mul(note.part_size);
    begin.min(note.size)..begin.saturating_add(note.part_size).min(note.size)
}
