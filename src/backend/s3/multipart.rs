//! Large objects: sent or copied in parts, several at once, and resumed by the next attempt.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};

use super::checksum::{
    Comparison, ContentDigest, ReportedChecksum, crc32_of_parts, crc32_of_whole, is_same_etag,
};
use super::errors::S3Error;
use super::location::Location;
use super::objects::{OPERATION_METADATA, receipt, size_of};
use super::operation::PutOptions;
use super::stream::SendResult;
use super::upload_records::UploadRecord;
use super::{CallContext, S3Session, SideEffect};
use crate::backend::AttemptError;
use crate::backend::errors::{Result, ours};
use crate::backend::files::Opened;
use crate::operation::{FailureClass, Outcome};

/// The largest number of parts of an upload; no service accepts more.
const PARTS_MAX: u64 = 10_000;

/// The size of a part that the service copies; its bytes do not pass through this machine.
const COPY_PART_SIZE: u64 = 512 << 20;

/// The delays before a part is sent again within an attempt. When they are used up, the attempt
/// fails, and the next one resumes the upload.
const PART_RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// The largest difference between the clocks of this machine and a service that accepts its
/// signatures.
const CLOCK_SKEW_MAX_MS: i64 = 15 * 60_000;

/// The source of the parts.
pub(super) enum PartSource<'a> {
    File(&'a Opened<'a>),
    /// An object of the same service.
    Object(&'a CopySource<'a>),
}

/// An object that is copied.
pub(super) struct CopySource<'a> {
    /// Its bucket and key, escaped for a header.
    pub(super) origin: String,
    pub(super) size: u64,
    pub(super) head: &'a HeadObjectOutput,
}

impl CopySource<'_> {
    /// Returns the headers and metadata of the object, which a copy in parts does not take over by
    /// itself.
    pub(super) fn options(&self) -> PutOptions {
        let metadata = self.head.metadata().into_iter().flatten();
        let metadata = metadata.filter(|(name, _)| *name != OPERATION_METADATA);
        PutOptions {
            content_type: self.head.content_type().map(str::to_owned),
            storage_class: self.head.storage_class().map(|class| class.as_str().to_owned()),
            if_none_match: None,
            metadata: metadata.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }
}

impl PartSource<'_> {
    fn size(&self) -> u64 {
        match self {
            PartSource::File(opened) => opened.len(),
            PartSource::Object(source) => source.size,
        }
    }

    /// Returns a value that changes whenever the content does.
    fn version(&self) -> String {
        match self {
            PartSource::File(opened) => opened.mtime_ns().to_string(),
            PartSource::Object(source) => source.head.e_tag().unwrap_or_default().to_owned(),
        }
    }
}

/// A part that the service has.
#[derive(Debug, Clone)]
struct UploadedPart {
    etag: Option<String>,
    crc32: Option<String>,
    /// The CRC-32 of the part as it was read from the file, in base64; `None` for copies.
    read_crc32: Option<String>,
}

type UploadedParts = BTreeMap<usize, UploadedPart>;

/// Returns the size of parts: the preferred one, or a larger one if there would be too many parts.
pub(super) fn part_size(preferred: u64, size: u64) -> u64 {
    preferred.max(size.div_ceil(PARTS_MAX))
}

/// Puts an object in parts, and resumes an upload that an earlier attempt left unfinished.
pub(super) fn put_in_parts(
    session: S3Session<'_>,
    source: &PartSource<'_>,
    destination: &Location,
    options: &PutOptions,
) -> Result<Outcome> {
    PartUpload { session, source, destination, options }.run()
}

/// One multipart upload.
struct PartUpload<'a> {
    session: S3Session<'a>,
    source: &'a PartSource<'a>,
    destination: &'a Location,
    options: &'a PutOptions,
}

impl PartUpload<'_> {
    fn run(&self) -> Result<Outcome> {
        let context = &self.session.context;
        let backend = context.backend;
        let (record, uploaded) = self.resume_or_create()?;
        let mut parts = BTreeMap::new();
        for (number, part) in uploaded {
            if let Some(part) = self.check_part(&record, number, part)? {
                context.attempt.skip_bytes(record.part_length(number));
                parts.insert(number, part);
            }
        }
        self.send_missing_parts(&record, &mut parts)?;
        if let PartSource::File(opened) = self.source
            && let Err(error) = self.check_content(opened, &record, &parts)
        {
            if matches!(&error, AttemptError::Failed { failure, .. }
                if failure.class == FailureClass::Permanent)
            {
                // Its parts are not content of any operation, and the service charges for them.
                context.abort_upload(&record)?;
            }
            return Err(error);
        }
        let outcome = self.complete(&record, &parts)?;
        backend.uploads.remove(&*backend.disk, &record).map_err(ours)?;
        Ok(outcome)
    }

    /// Returns the upload of an earlier attempt with its parts, or a new one without any.
    fn resume_or_create(&self) -> Result<(UploadRecord, UploadedParts)> {
        let S3Session { context, request } = &self.session;
        let backend = context.backend;
        let size = self.source.size();
        let (preferred, is_file) = match self.source {
            PartSource::File(_) => (backend.options.part_size, true),
            PartSource::Object(_) => (COPY_PART_SIZE.min(backend.options.copy_max), false),
        };
        let wanted = UploadRecord {
            backend: backend.options.name.clone(),
            operation: request.id,
            number: request.number,
            bucket: context.bucket(self.destination)?.to_owned(),
            key: self.destination.key.clone(),
            upload_id: None,
            created_after_ms: backend.clock.now().as_millis(),
            // Many services report no checksum of parts they copied, or one of something else.
            part_checksums: backend.options.checksums && is_file,
            whole_checksum: false,
            part_size: part_size(preferred, size),
            size,
            source_version: self.source.version(),
        };
        let recorded = backend
            .uploads
            .read(&*backend.disk, wanted.number, &wanted.bucket, &wanted.key)
            .map_err(ours)?;
        if let Some(record) = recorded {
            if !record.can_serve(&wanted) {
                context.abort_upload(&record)?;
            } else if let Some(parts) = context.uploaded_parts(&record)? {
                return Ok((record, parts));
            }
        }
        Ok((self.create(wanted)?, BTreeMap::new()))
    }

    /// Creates an upload and records it.
    fn create(&self, record: UploadRecord) -> Result<UploadRecord> {
        let context = &self.session.context;
        let backend = context.backend;
        backend.uploads.write(&*backend.disk, &record).map_err(ours)?;
        let (options, has_checksums) = (self.options, record.part_checksums);
        let created = context.call(async |client| {
            let create = client.create_multipart_upload().bucket(&record.bucket).key(&record.key);
            create
                .set_metadata(Some(self.session.metadata(options)))
                .set_checksum_algorithm(has_checksums.then_some(ChecksumAlgorithm::Crc32))
                .set_checksum_type(has_checksums.then_some(ChecksumType::FullObject))
                .set_content_type(options.content_type.clone())
                .set_storage_class(options.storage_class.as_deref().map(Into::into))
                .send()
                .await
        });
        let created = context.after_read("CreateMultipartUpload", created)?;
        // Older services support only checksums of the parts' checksums.
        let whole_checksum =
            has_checksums && created.checksum_type == Some(ChecksumType::FullObject);
        let upload_id = created.upload_id.ok_or_else(|| {
            let message =
                format!("{} created an upload without an id; it will be retried", backend.service);
            AttemptError::transient("bad_answer", message)
        })?;
        let record = UploadRecord { upload_id: Some(upload_id), whole_checksum, ..record };
        backend.uploads.write(&*backend.disk, &record).map_err(ours)?;
        Ok(record)
    }

    /// Returns a part of an earlier attempt, with the checksum to complete the upload with. Returns
    /// `None` if its content differs from the file or cannot be compared: sending it again does no
    /// harm.
    fn check_part(
        &self,
        record: &UploadRecord,
        number: usize,
        part: UploadedPart,
    ) -> Result<Option<UploadedPart>> {
        let PartSource::File(opened) = self.source else {
            return Ok(Some(UploadedPart { crc32: None, ..part }));
        };
        let (mut crc32, mut md5) = (ContentDigest::crc32(), ContentDigest::md5());
        self.session.context.read_range(opened, record.range(number), |piece| {
            crc32.update(piece);
            md5.update(piece);
        })?;
        let reported = ReportedChecksum {
            crc32: part.crc32.as_deref(),
            etag: part.etag.as_deref(),
            encryption: None,
        };
        let comparison = match crc32.compare(reported) {
            Comparison::NotComparable => md5.compare(reported),
            comparison => comparison,
        };
        let read_crc32 = crc32.to_crc32();
        let own_crc32 = read_crc32.clone().filter(|_| record.part_checksums);
        let is_valid = comparison == Comparison::Match;
        Ok(is_valid.then_some(UploadedPart { crc32: own_crc32, read_crc32, ..part }))
    }

    /// Fails if the parts are not the content that was logged. If its hash was noted, this reads
    /// the whole file: parts have no noted hashes, and were read at different times.
    fn check_content(
        &self,
        opened: &Opened<'_>,
        record: &UploadRecord,
        parts: &UploadedParts,
    ) -> Result<()> {
        opened.check_read(record.size)?;
        if !opened.has_hash() {
            return Ok(());
        }
        let mut hash = opened.content_hash();
        let mut other = None;
        for (number, part) in parts {
            let mut crc32 = ContentDigest::crc32();
            self.session.context.read_range(opened, record.range(*number), |piece| {
                hash.update(piece);
                crc32.update(piece);
            })?;
            if part.read_crc32 != crc32.to_crc32() {
                other.get_or_insert(*number);
            }
        }
        opened.check_read(record.size)?;
        hash.check()?;
        match other {
            None => Ok(()),
            // The file is right now. The next attempt compares each part with it.
            Some(number) => {
                let message = format!(
                    "part {number} of `{}` is not what the file holds now; it will be sent again",
                    record.key
                );
                Err(AttemptError::transient("damaged_content", message))
            }
        }
    }

    /// Sends the missing parts, several at once. After the first error no further part is started.
    fn send_missing_parts(&self, record: &UploadRecord, parts: &mut UploadedParts) -> Result<()> {
        #[derive(Default)]
        struct Progress {
            parts: UploadedParts,
            error: Option<AttemptError>,
        }
        let missing: Vec<usize> =
            (1..=record.parts()).filter(|part| !parts.contains_key(part)).collect();
        let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let progress: Mutex<Progress> = Mutex::default();
        let work = || {
            while let Some(number) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if has_failed.load(Ordering::Relaxed) {
                    return;
                }
                let result = self.send_part(record, *number);
                let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(part) => drop(progress.parts.insert(*number, part)),
                    Err(error) => {
                        has_failed.store(true, Ordering::Relaxed);
                        progress.error.get_or_insert(error);
                    }
                }
            }
        };
        let jobs = self.session.context.backend.options.part_jobs.min(missing.len());
        std::thread::scope(|scope| {
            for _ in 1..jobs {
                scope.spawn(work);
            }
            work();
        });
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        parts.extend(progress.parts);
        progress.error.map_or(Ok(()), Err)
    }

    /// Sends one part, again if that fails: a part is not an object yet, so repeating it is safe.
    fn send_part(&self, record: &UploadRecord, number: usize) -> Result<UploadedPart> {
        let context = &self.session.context;
        let mut delays = PART_RETRY_DELAYS.iter();
        loop {
            let sent = match self.source {
                PartSource::File(opened) => context.upload_part(opened, record, number)?,
                PartSource::Object(source) => context.copy_part(source, record, number),
            };
            let error = match sent {
                Ok(part) => return Ok(part),
                Err(error) => context.backend.attempt_error("UploadPart", error, SideEffect::None),
            };
            let may_pass = matches!(
                &error,
                AttemptError::Failed { failure, retry_after_ms: None }
                    if failure.class == FailureClass::Transient
                        && failure.error_type != "upload_lost"
            );
            match delays.next().filter(|_| may_pass) {
                Some(delay) => context.sleep(*delay)?,
                None => return Err(error),
            }
        }
    }

    /// Turns the parts into an object, and checks it.
    fn complete(&self, record: &UploadRecord, parts: &UploadedParts) -> Result<Outcome> {
        let (session, destination) = (&self.session, self.destination);
        let context = &session.context;
        let whole_crc32 = match record.whole_checksum {
            true => crc32_of_whole(
                parts
                    .iter()
                    .map(|(number, part)| (part.crc32.as_deref(), record.part_length(*number))),
            ),
            false => None,
        };
        let completed = match self.send_completion(record, parts, whole_crc32.clone()) {
            Err(S3Error::Rejected(rejection)) if rejection.is_precondition_failed() => {
                let (call, error) = ("CompleteMultipartUpload", S3Error::Rejected(rejection));
                let outcome = session.accept_own_object(destination, error, call)?;
                // The object is the result of an earlier attempt, so this upload is not needed.
                context.abort_upload(record)?;
                return Ok(outcome);
            }
            completed => {
                let call = "CompleteMultipartUpload";
                let completed = context.after_change(call, completed)?;
                let effect = SideEffect::Possible;
                context.require_etag(call, completed, |completed| completed.e_tag(), effect)?
            }
        };
        let reported = completed
            .checksum_crc32()
            .filter(|checksum| checksum.contains('-') == whole_crc32.is_none());
        let own = whole_crc32
            .or_else(|| crc32_of_parts(parts.values().map(|part| part.crc32.as_deref())));
        if own.as_deref().zip(reported).is_some_and(|(own, reported)| own != reported) {
            return Err(session.remove_damaged(destination, completed.e_tag()));
        }
        let mut outcome = match context.head(destination) {
            Ok(Some(head)) if is_same_etag(head.e_tag(), completed.e_tag()) => {
                match size_of(&head) == Some(record.size) {
                    true => context.outcome_of(destination, &head)?,
                    false => return Err(session.remove_damaged(destination, completed.e_tag())),
                }
            }
            // The object was confirmed. That it has been removed or replaced since, or cannot be
            // checked now, does not change that.
            _ => {
                let reported = [
                    ("etag", completed.e_tag()),
                    ("version_id", completed.version_id()),
                    ("checksum_crc32", completed.checksum_crc32()),
                ];
                let receipt = receipt(&record.bucket, destination, reported);
                Outcome { size: Some(record.size), receipt, ..context.outcome_at(destination)? }
            }
        };
        outcome.receipt.insert("parts".into(), parts.len().to_string());
        Ok(outcome)
    }

    fn send_completion(
        &self,
        record: &UploadRecord,
        parts: &UploadedParts,
        whole_crc32: Option<String>,
    ) -> std::result::Result<CompleteMultipartUploadOutput, S3Error> {
        let parts = parts.iter().map(|(number, part)| {
            CompletedPart::builder()
                .part_number(part_number(*number))
                .set_e_tag(part.etag.clone())
                .set_checksum_crc32(part.crc32.clone())
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        self.session.context.call(async |client| {
            client
                .complete_multipart_upload()
                .bucket(&record.bucket)
                .key(&record.key)
                .set_upload_id(record.upload_id.clone())
                .multipart_upload(parts)
                .set_checksum_type(whole_crc32.as_ref().map(|_| ChecksumType::FullObject))
                .set_checksum_crc32(whole_crc32.clone())
                .set_if_none_match(self.options.if_none_match.clone())
                .send()
                .await
        })
    }
}

fn part_number(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl CallContext<'_> {
    /// Returns the complete parts that the service has of an upload; `None` if the upload no longer
    /// exists.
    fn uploaded_parts(&self, record: &UploadRecord) -> Result<Option<UploadedParts>> {
        let Some(upload_id) = &record.upload_id else {
            self.abort_upload(record)?;
            return Ok(None);
        };
        let (mut parts, mut marker) = (BTreeMap::new(), None);
        loop {
            let listed = self.call(async |client| {
                let list = client.list_parts().bucket(&record.bucket).key(&record.key);
                let list = list.upload_id(upload_id);
                list.set_part_number_marker(marker.take()).send().await
            });
            let listed = match listed {
                Err(S3Error::Rejected(rejection)) if rejection.code == "NoSuchUpload" => {
                    return Ok(None);
                }
                listed => self.after_read("ListParts", listed)?,
            };
            for part in listed.parts() {
                let number =
                    part.part_number().and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
                let size = part.size().and_then(|size| u64::try_from(size).ok());
                // A part with another size was cut short, and is sent again.
                let is_part = (1..=record.parts()).contains(&number);
                if is_part && size == Some(record.part_length(number)) {
                    let (etag, crc32) =
                        (part.e_tag().map(str::to_owned), part.checksum_crc32().map(str::to_owned));
                    parts.insert(number, UploadedPart { etag, crc32, read_crc32: None });
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

    fn sleep(&self, delay: Duration) -> Result<()> {
        let (runtime, _) = self.after_read("UploadPart", self.backend.client.get())?;
        let slept = runtime.wait(self.attempt, self.deadline, None, async {
            tokio::time::sleep(delay).await;
        });
        self.after_read("UploadPart", slept.map_err(S3Error::from))
    }

    /// Sends a part of a file. The inner error is one of the service, the outer one of the file.
    fn upload_part(
        &self,
        opened: &Opened<'_>,
        record: &UploadRecord,
        number: usize,
    ) -> Result<std::result::Result<UploadedPart, S3Error>> {
        let range = record.range(number);
        let length = record.part_length(number);
        let (_, client) = self.after_read("UploadPart", self.backend.client.get())?;
        let SendResult { response, sent } =
            self.send_range(opened, range.clone(), |body, headers| {
                client
                    .upload_part()
                    .bucket(&record.bucket)
                    .key(&record.key)
                    .set_upload_id(record.upload_id.clone())
                    .part_number(part_number(number))
                    .content_length(i64::try_from(length).unwrap_or(i64::MAX))
                    .body(body)
                    .set_checksum_crc32(headers.crc32)
                    .customize()
                    .interceptor(headers.signing)
                    .send()
            })?;
        let part = match response {
            Ok(part) if part.e_tag().is_none() => return Ok(Err(S3Error::no_etag())),
            Ok(part) => part,
            Err(error) => return Ok(Err(error)),
        };
        let reported = ReportedChecksum {
            crc32: part.checksum_crc32(),
            etag: part.e_tag(),
            encryption: part.server_side_encryption(),
        };
        let comparison = self.compare_sent(opened, range, &sent.reported, reported)?;
        if comparison == Comparison::Mismatch {
            let message = format!(
                "part {number} of `{}` on {} is not what was sent; it will be sent again",
                record.key, self.backend.service
            );
            return Err(AttemptError::transient("damaged_content", message));
        }
        let read_crc32 = sent.crc32.to_crc32();
        Ok(Ok(UploadedPart { etag: part.e_tag, crc32: part.checksum_crc32, read_crc32 }))
    }

    fn copy_part(
        &self,
        source: &CopySource<'_>,
        record: &UploadRecord,
        number: usize,
    ) -> std::result::Result<UploadedPart, S3Error> {
        let range = record.range(number);
        let copied = self.call(async |client| {
            let copy = client
                .upload_part_copy()
                .bucket(&record.bucket)
                .key(&record.key)
                .copy_source(&source.origin);
            copy.set_upload_id(record.upload_id.clone())
                .part_number(part_number(number))
                .copy_source_range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))
                .set_copy_source_if_match(source.head.e_tag().map(str::to_owned))
                .send()
                .await
        });
        let copied = match copied {
            Err(S3Error::Rejected(rejection)) if rejection.is_precondition_failed() => {
                Err(rejection.into_conflict())
            }
            copied => copied,
        }?;
        self.attempt.skip_bytes(record.part_length(number));
        let etag = copied.copy_part_result.and_then(|part| part.e_tag);
        Ok(UploadedPart { etag, crc32: None, read_crc32: None })
    }

    /// Aborts an upload, which removes its parts, and removes its record.
    pub(super) fn abort_upload(&self, record: &UploadRecord) -> Result<()> {
        let backend = self.backend;
        let uploads = match &record.upload_id {
            Some(upload_id) => vec![upload_id.clone()],
            // The process was killed before it could record the id.
            None => self.unrecorded_uploads(record)?,
        };
        for upload_id in uploads {
            let aborted = self.call(async |client| {
                client
                    .abort_multipart_upload()
                    .bucket(&record.bucket)
                    .key(&record.key)
                    .upload_id(&upload_id)
                    .send()
                    .await
            });
            match aborted {
                Err(S3Error::Rejected(rejection)) if rejection.is_upload_missing() => {}
                aborted => drop(self.after_read("AbortMultipartUpload", aborted)?),
            }
        }
        backend.uploads.remove(&*backend.disk, record).map_err(ours)
    }

    /// Returns the uploads that a record without an id may refer to: those of its key that were
    /// created since, and that no other record names.
    fn unrecorded_uploads(&self, record: &UploadRecord) -> Result<Vec<String>> {
        let others = self.backend.uploads.all(&*self.backend.disk).map_err(ours)?;
        let is_recorded =
            |id: &str| others.iter().any(|other| other.upload_id.as_deref() == Some(id));
        let created_after_ms = record.created_after_ms.saturating_sub(CLOCK_SKEW_MAX_MS);
        let (mut found, mut key_marker, mut id_marker) = (Vec::new(), None, None);
        loop {
            let listed = self.call(async |client| {
                client
                    .list_multipart_uploads()
                    .bucket(&record.bucket)
                    .prefix(&record.key)
                    .set_key_marker(key_marker.take())
                    .set_upload_id_marker(id_marker.take())
                    .send()
                    .await
            });
            let listed = match listed {
                Err(S3Error::Rejected(rejection)) if rejection.is_upload_missing() => {
                    return Ok(found);
                }
                listed => self.after_read("ListMultipartUploads", listed)?,
            };
            for upload in listed.uploads() {
                let (Some(id), Some(key)) = (upload.upload_id(), upload.key()) else { continue };
                let created = upload.initiated().and_then(|time| time.to_millis().ok());
                let is_recent = created.is_none_or(|created| created >= created_after_ms);
                if key == record.key && is_recent && !is_recorded(id) {
                    found.push(id.to_owned());
                }
            }
            if listed.is_truncated() != Some(true) || listed.next_key_marker().is_none() {
                return Ok(found);
            }
            key_marker = listed.next_key_marker().map(str::to_owned);
            id_marker = listed.next_upload_id_marker().map(str::to_owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_when_there_would_be_too_many() {
        let (mib, gib) = (1 << 20, 1 << 30);
        for (preferred, size, expected) in [
            (16 * mib, 17 * mib, 16 * mib),
            (16 * mib, PARTS_MAX * 16 * mib, 16 * mib),
            (16 * mib, PARTS_MAX * 16 * mib + 1, 16 * mib + 1),
            (5 * mib, 100 * gib, 10_737_419),
            (5 * mib, 0, 5 * mib),
        ] {
            let found = part_size(preferred, size);
            assert_eq!(found, expected, "{preferred} {size}");
            assert!(size.div_ceil(found) <= PARTS_MAX, "{preferred} {size}");
        }
    }
}
