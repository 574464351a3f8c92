//! Large objects, sent or copied in parts, several at once, and carried on with where an earlier attempt broke off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};

use super::checks::{Digest, Said, crc32_of_parts, crc32_of_whole, same_etag};
use super::errors::{Refused, Trouble};
use super::notes::Note;
use super::objects::{OPERATION, receipt, size_of};
use super::place::Place;
use super::task::PutOptions;
use super::{Line, Session};
use crate::backend::AttemptError;
use crate::backend::errors::{Result, ours};
use crate::backend::files::Opened;
use crate::operation::{FailureClass, Outcome};

/// Parts of one upload, at most: no service takes more.
const PARTS_MAX: u64 = 10_000;

/// Bytes of a part that is copied: these do not pass through us.
const COPIED_PART: u64 = 512 << 20;

/// Pauses before a part is sent again within an attempt; then the attempt is over, and the next one resumes.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// How far the clock of a service may be off ours: none that knows us lets it be more.
const SKEW_MAX_MS: i64 = 15 * 60_000;

/// Where the parts come from.
pub(super) enum Origin<'a> {
    /// A file of the user's.
    File(&'a Opened),
    /// An object of the service.
    Object(&'a Original<'a>),
}

/// An object that is copied.
pub(super) struct Original<'a> {
    /// Bucket and key, as services want them.
    pub(super) origin: String,
    pub(super) size: u64,
    pub(super) head: &'a HeadObjectOutput,
}

impl Original<'_> {
    /// What goes with the copy, which a copy in parts does not bring along by itself.
    pub(super) fn options(&self) -> PutOptions {
        let metadata = self.head.metadata().into_iter().flatten();
        let metadata = metadata.filter(|(name, _)| *name != OPERATION);
        PutOptions {
            content_type: self.head.content_type().map(str::to_owned),
            storage_class: self.head.storage_class().map(|class| class.as_str().to_owned()),
            if_none_match: None,
            metadata: metadata.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }
}

impl Origin<'_> {
    fn size(&self) -> u64 {
        match self {
            Origin::File(opened) => opened.len(),
            Origin::Object(original) => original.size,
        }
    }

    /// What changes when it does.
    fn version(&self) -> String {
        match self {
            Origin::File(opened) => opened.mtime_ns().to_string(),
            Origin::Object(original) => original.head.e_tag().unwrap_or_default().to_owned(),
        }
    }
}

/// A part that the service has.
#[derive(Debug, Clone)]
struct Part {
    etag: Option<String>,
    crc32: Option<String>,
}

impl Session<'_> {
    /// Brings an object about in parts.
    pub(super) fn put_in_parts(
        &self,
        origin: &Origin<'_>,
        destination: &Place,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let (disk, notes) = (&*self.backend.disk, &self.backend.notes);
        let size = origin.size();
        let part_size = match origin {
            Origin::File(_) => self.backend.options.part_size,
            Origin::Object(_) => COPIED_PART.min(self.backend.options.copy_max),
        };
        let wanted = Note {
            backend: self.backend.options.name.clone(),
            operation: self.request.id,
            number: self.request.number,
            bucket: self.bucket(destination)?.to_owned(),
            key: destination.key.clone(),
            upload: None,
            since: self.backend.clock.now().as_millis(),
            // Of parts that a service copies by itself, many have no checksum, or that of something else.
            checksums: self.backend.options.checksums && matches!(origin, Origin::File(_)),
            whole: false,
            part_size: part_size.max(size.div_ceil(PARTS_MAX)),
            size,
            version: origin.version(),
        };
        let (note, there) =
            match notes.read(disk, wanted.number, &wanted.bucket, &wanted.key).map_err(ours)? {
                Some(note) if note.is_of(&wanted) => match self.parts_of(&note)? {
                    Some(parts) => (note, parts),
                    None => (self.begin(wanted, options)?, BTreeMap::new()),
                },
                Some(other) => {
                    self.abort(&other)?;
                    (self.begin(wanted, options)?, BTreeMap::new())
                }
                None => (self.begin(wanted, options)?, BTreeMap::new()),
            };
        let mut parts = BTreeMap::new();
        for (number, part) in there {
            if let Some(part) = self.right_part(origin, &note, number, part)? {
                self.attempt.skip_bytes(note.range(number).end - note.range(number).start);
                parts.insert(number, part);
            }
        }
        self.send_parts(origin, &note, &mut parts)?;
        if let Origin::File(opened) = origin {
            opened.check_read(size)?;
        }
        let outcome = self.complete(&note, &parts, destination, options)?;
        notes.remove(disk, &note).map_err(ours)?;
        Ok(outcome)
    }

    /// Begins an upload, and notes that.
    fn begin(&self, note: Note, options: &PutOptions) -> Result<Note> {
        let (disk, notes) = (&*self.backend.disk, &self.backend.notes);
        notes.write(disk, &note).map_err(ours)?;
        let created = self.call(async |client| {
            let create = client.create_multipart_upload().bucket(&note.bucket).key(&note.key);
            create
                .set_metadata(Some(self.metadata(options)))
                .set_checksum_algorithm(note.checksums.then_some(ChecksumAlgorithm::Crc32))
                .set_checksum_type(note.checksums.then_some(ChecksumType::FullObject))
                .set_content_type(options.content_type.clone())
                .set_storage_class(options.storage_class.as_deref().map(Into::into))
                .send()
                .await
        });
        let created = self.read("CreateMultipartUpload", created)?;
        // Older services know checksums of parts only.
        let whole = note.checksums && created.checksum_type == Some(ChecksumType::FullObject);
        let upload = created.upload_id.ok_or_else(|| {
            let message = format!(
                "{} began an upload without a name; it is tried again",
                self.backend.service
            );
            AttemptError::transient("bad_answer", message)
        })?;
        let note = Note { upload: Some(upload), whole, ..note };
        notes.write(disk, &note).map_err(ours)?;
        Ok(note)
    }

    /// The parts that the service has of an upload; none: it does not know that one any more.
    fn parts_of(&self, note: &Note) -> Result<Option<BTreeMap<usize, Part>>> {
        let Some(upload) = &note.upload else {
            self.abort(note)?;
            return Ok(None);
        };
        let (mut parts, mut marker) = (BTreeMap::new(), None);
        loop {
            let listed = self.call(async |client| {
                let list =
                    client.list_parts().bucket(&note.bucket).key(&note.key).upload_id(upload);
                list.set_part_number_marker(marker.take()).send().await
            });
            let listed = match listed {
                Err(Trouble::Refused(refused)) if refused.code == "NoSuchUpload" => {
                    return Ok(None);
                }
                other => self.read("ListParts", other)?,
            };
            for part in listed.parts() {
                let number =
                    part.part_number().and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
                let (range, size) =
                    (note.range(number), part.size().and_then(|size| u64::try_from(size).ok()));
                // One that was cut short is sent again.
                if (1..=note.parts()).contains(&number) && size == Some(range.end - range.start) {
                    let (etag, crc32) =
                        (part.e_tag().map(str::to_owned), part.checksum_crc32().map(str::to_owned));
                    parts.insert(number, Part { etag, crc32 });
                }
            }
            marker = listed
                .next_part_number_marker()
                .map(str::to_owned)
                .filter(|_| listed.is_truncated() == Some(true));
            if marker.is_none() {
                return Ok(Some(parts));
            }
        }
    }

    /// A part that an earlier attempt sent, with the checksum that the service wants to be told of it in the end; none:
    /// it is not what is there now, or cannot be compared, and sending it again does no harm.
    fn right_part(
        &self,
        origin: &Origin<'_>,
        note: &Note,
        number: usize,
        part: Part,
    ) -> Result<Option<Part>> {
        let Origin::File(opened) = origin else { return Ok(Some(Part { crc32: None, ..part })) };
        let (mut crc32, mut md5) = (Digest::new(true), Digest::new(false));
        self.read_over(opened, note.range(number), |piece| {
            crc32.update(piece);
            md5.update(piece);
        })?;
        let said =
            Said { crc32: part.crc32.as_deref(), etag: part.etag.as_deref(), encryption: None };
        let ours = crc32.clone().crc32().filter(|_| note.checksums);
        let is_right = crc32.agrees(said).or_else(|| md5.agrees(said)) == Some(true);
        Ok(is_right.then_some(Part { crc32: ours, ..part }))
    }

    /// Sends the parts that are missing, several at once.
    fn send_parts(
        &self,
        origin: &Origin<'_>,
        note: &Note,
        parts: &mut BTreeMap<usize, Part>,
    ) -> Result<()> {
        let missing: Vec<usize> =
            (1..=note.parts()).filter(|part| !parts.contains_key(part)).collect();
        let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results: Mutex<(BTreeMap<usize, Part>, Option<AttemptError>)> = Mutex::default();
        let work = || {
            while let Some(number) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let result = self.send_part(origin, note, *number);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(done) => drop(results.0.insert(*number, done)),
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
        parts.extend(more);
        error.map_or(Ok(()), Err)
    }

    /// A part is no object yet: sending it again does no harm, and nobody has to be asked.
    fn send_part(&self, origin: &Origin<'_>, note: &Note, number: usize) -> Result<Part> {
        let mut pauses = PAUSES.iter();
        loop {
            let sent = match origin {
                Origin::File(opened) => self.upload_part(opened, note, number)?,
                Origin::Object(original) => self.copy_part(original, note, number),
            };
            let failure = match sent {
                Ok(part) => return Ok(part),
                Err(trouble) => self.backend.fail("UploadPart", trouble, false),
            };
            let may_pass = matches!(&failure, AttemptError::Failed { failure, retry_after_ms: None }
                if failure.class == FailureClass::Transient && failure.error_type != "upload_lost");
            match pauses.next().filter(|_| may_pass) {
                Some(pause) => self.pause(*pause)?,
                None => return Err(failure),
            }
        }
    }

    fn pause(&self, pause: Duration) -> Result<()> {
        let (threads, _) = self.read("UploadPart", self.backend.caller.engine())?;
        let paused =
            threads.wait(self.attempt, self.spell, None, async { tokio::time::sleep(pause).await });
        self.read("UploadPart", paused.map_err(Trouble::from))
    }

    fn upload_part(
        &self,
        opened: &Opened,
        note: &Note,
        number: usize,
    ) -> Result<std::result::Result<Part, Trouble>> {
        let range = note.range(number);
        let (_, client) = self.read("UploadPart", self.backend.caller.engine())?;
        let sent = self.streamed(opened, range.clone(), |body, announced| {
            let upload = client
                .upload_part()
                .bucket(&note.bucket)
                .key(&note.key)
                .set_upload_id(note.upload.clone());
            let upload = upload.part_number(i32::try_from(number).unwrap_or(i32::MAX));
            let upload = upload
                .content_length(i64::try_from(range.end - range.start).unwrap_or(i64::MAX))
                .body(body);
            upload
                .set_checksum_crc32(announced.crc32)
                .customize()
                .interceptor(announced.signed)
                .send()
        })?;
        let part = match sent.answer {
            Ok(part) if part.e_tag().is_none() => {
                return Ok(Err(Trouble::Refused(Refused::nonsense(
                    "there is no etag in its answer",
                ))));
            }
            Ok(part) => part,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let said = Said {
            crc32: part.checksum_crc32(),
            etag: part.e_tag(),
            encryption: part.server_side_encryption(),
        };
        if self.agrees(opened, range, sent.digest, said)? == Some(false) {
            let message = format!(
                "what {} has of part {number} of `{}` is not what was sent; it is sent again",
                self.backend.service, note.key
            );
            return Err(AttemptError::transient("damaged_content", message));
        }
        Ok(Ok(Part { etag: part.e_tag, crc32: part.checksum_crc32 }))
    }

    fn copy_part(
        &self,
        original: &Original<'_>,
        note: &Note,
        number: usize,
    ) -> std::result::Result<Part, Trouble> {
        let range = note.range(number);
        let copied = self.call(async |client| {
            let copy = client
                .upload_part_copy()
                .bucket(&note.bucket)
                .key(&note.key)
                .copy_source(&original.origin);
            copy.set_upload_id(note.upload.clone())
                .part_number(i32::try_from(number).unwrap_or(i32::MAX))
                .copy_source_range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))
                .set_copy_source_if_match(original.head.e_tag().map(str::to_owned))
                .send()
                .await
        });
        let copied = match copied {
            Err(Trouble::Refused(refused)) if refused.is_occupied() => {
                Err(Trouble::Refused(Refused { code: "OperationAborted".into(), ..refused }))
            }
            copied => copied,
        }?;
        self.attempt.skip_bytes(range.end - range.start);
        Ok(Part { etag: copied.copy_part_result.and_then(|part| part.e_tag), crc32: None })
    }

    fn complete(
        &self,
        note: &Note,
        parts: &BTreeMap<usize, Part>,
        destination: &Place,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let named = parts.iter().map(|(number, part)| {
            CompletedPart::builder()
                .part_number(i32::try_from(*number).unwrap_or(i32::MAX))
                .set_e_tag(part.etag.clone())
                .set_checksum_crc32(part.crc32.clone())
                .build()
        });
        let named = CompletedMultipartUpload::builder().set_parts(Some(named.collect())).build();
        let whole = match note.whole {
            true => crc32_of_whole(parts.iter().map(|(number, part)| {
                let range = note.range(*number);
                (part.crc32.as_deref(), range.end - range.start)
            })),
            false => None,
        };
        let completed = self.call(async |client| {
            let complete = client.complete_multipart_upload().bucket(&note.bucket).key(&note.key);
            let complete = complete.set_upload_id(note.upload.clone()).multipart_upload(named);
            complete
                .set_checksum_type(whole.as_ref().map(|_| ChecksumType::FullObject))
                .set_checksum_crc32(whole.clone())
                .set_if_none_match(options.if_none_match.clone())
                .send()
                .await
        });
        let completed = match completed {
            Err(Trouble::Refused(refused)) if refused.is_occupied() => {
                let outcome = self.occupied(
                    destination,
                    Trouble::Refused(refused),
                    "CompleteMultipartUpload",
                )?;
                // An earlier attempt's upload became the object: this one is one too many.
                self.abort(note)?;
                return Ok(outcome);
            }
            completed => {
                let completed = self.acted("CompleteMultipartUpload", completed)?;
                self.has_etag(
                    "CompleteMultipartUpload",
                    completed,
                    |completed| completed.e_tag(),
                    true,
                )?
            }
        };
        let theirs =
            completed.checksum_crc32().filter(|checksum| checksum.contains('-') == whole.is_none());
        let ours =
            whole.or_else(|| crc32_of_parts(parts.values().map(|part| part.crc32.as_deref())));
        if ours.as_deref().zip(theirs).is_some_and(|(ours, theirs)| ours != theirs) {
            return Err(self.damaged(destination, completed.e_tag()));
        }
        let mut outcome = match self.head(destination) {
            Ok(Some(there)) if same_etag(there.e_tag(), completed.e_tag()) => {
                match size_of(&there) == Some(note.size) {
                    true => self.outcome_of(destination, &there)?,
                    false => return Err(self.damaged(destination, completed.e_tag())),
                }
            }
            // It was there; that it is gone, is another one or cannot be looked at now changes nothing of that.
            _ => {
                let given = [
                    ("etag", completed.e_tag()),
                    ("version_id", completed.version_id()),
                    ("checksum_crc32", completed.checksum_crc32()),
                ];
                let receipt = receipt(&note.bucket, destination, given);
                Outcome { size: Some(note.size), receipt, ..self.outcome_at(destination)? }
            }
        };
        outcome.receipt.insert("parts".into(), parts.len().to_string());
        Ok(outcome)
    }
}

impl Line<'_> {
    /// Gives an upload up, with what has been sent of it.
    pub(super) fn abort(&self, note: &Note) -> Result<()> {
        let (disk, notes) = (&*self.backend.disk, &self.backend.notes);
        let uploads = match &note.upload {
            Some(upload) => vec![upload.clone()],
            // It died between the two notes.
            None => self.uploads_like(note)?,
        };
        for upload in uploads {
            let aborted = self.call(async |client| {
                client
                    .abort_multipart_upload()
                    .bucket(&note.bucket)
                    .key(&note.key)
                    .upload_id(&upload)
                    .send()
                    .await
            });
            match aborted {
                Err(Trouble::Refused(refused)) if refused.is_gone() => {}
                other => drop(self.read("AbortMultipartUpload", other)?),
            }
        }
        notes.remove(disk, note).map_err(ours)
    }

    /// Uploads that may be the one that was about to be begun: of its key, begun since, and no other operation's of ours.
    fn uploads_like(&self, note: &Note) -> Result<Vec<String>> {
        let others = self.backend.notes.all(&*self.backend.disk).map_err(ours)?;
        let (mut found, mut markers) = (Vec::new(), (None, None));
        loop {
            let listed = self.call(async |client| {
                let list = client.list_multipart_uploads().bucket(&note.bucket).prefix(&note.key);
                let list =
                    list.set_key_marker(markers.0.take()).set_upload_id_marker(markers.1.take());
                list.send().await
            });
            let listed = match listed {
                Err(Trouble::Refused(refused)) if refused.is_gone() => return Ok(found),
                other => self.read("ListMultipartUploads", other)?,
            };
            for upload in listed.uploads() {
                let (Some(id), Some(key)) = (upload.upload_id(), upload.key()) else { continue };
                let is_since = upload
                    .initiated()
                    .and_then(|time| time.to_millis().ok())
                    .is_none_or(|at| at >= note.since.saturating_sub(SKEW_MAX_MS));
                if key == note.key
                    && is_since
                    && !others.iter().any(|other| other.upload.as_deref() == Some(id))
                {
                    found.push(id.to_owned());
                }
            }
            if listed.is_truncated() != Some(true) || listed.next_key_marker().is_none() {
                return Ok(found);
            }
            markers = (
                listed.next_key_marker().map(str::to_owned),
                listed.next_upload_id_marker().map(str::to_owned),
            );
        }
    }
}
