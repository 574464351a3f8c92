//! Putting files and directories.

use std::collections::HashMap;
use std::path::Path;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::checksum::{Comparison, ObjectDigest, ReportedChecksum, is_same_etag};
use super::errors::S3Error;
use super::location::Location;
use super::multipart::{PartSource, part_size, put_in_parts};
use super::objects::{OPERATION_METADATA, receipt, size_of};
use super::operation::PutOptions;
use super::stream::SendResult;
use super::{S3Session, SideEffect};
use crate::backend::errors::Result;
use crate::backend::files::{
    Expected, Opened, check_depth, entries_on_disk, find_user_file, stop_if_asked, unsupported_file,
};
use crate::backend::runtime::Deadline;
use crate::backend::{AttemptError, AttemptStatus};
use crate::disk::FileKind;
use crate::operation::{Failure, FailureClass, Outcome, Source};

/// The objects and bytes that a recursive `put` has stored so far.
#[derive(Default)]
struct PutTotal {
    objects: u64,
    bytes: u64,
}

/// The object that earlier attempts of an operation have put.
enum OwnObject {
    /// There is none, or the key has an object of another program.
    None,
    /// With the content that was logged.
    Intact(Outcome),
    /// With other content.
    Damaged { etag: Option<String> },
    /// It cannot be read, for this reason.
    Unreadable(String),
}

impl S3Session<'_> {
    pub(super) fn put(
        &self,
        path: &Path,
        destination: &Location,
        recursive: bool,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let context = &self.context;
        let disk = &*context.backend.disk;
        let file = find_user_file(disk, context.attempt, path, recursive, self.request)?;
        match file.kind {
            FileKind::File => self.put_file(&file.path, file.expected, destination, options),
            FileKind::Directory => {
                let mut total = PutTotal::default();
                self.put_directory(&file.path, destination, 0, options, &mut total)?;
                context.outcome_of_many(destination, total.objects, total.bytes)
            }
            _ => Err(unsupported_file(path)),
        }
    }

    fn put_directory(
        &self,
        path: &Path,
        destination: &Location,
        depth: usize,
        options: &PutOptions,
        total: &mut PutTotal,
    ) -> Result<()> {
        check_depth(path, depth)?;
        for (name, kind) in entries_on_disk(&*self.context.backend.disk, path)? {
            stop_if_asked(self.context.attempt)?;
            let (path, location) = (path.join(&name), destination.join(&name));
            match kind {
                FileKind::Directory => {
                    self.put_directory(&path, &location, depth + 1, options, total)?
                }
                FileKind::File => {
                    let outcome = self.put_file(&path, Expected::Anything, &location, options)?;
                    total.objects += 1;
                    total.bytes += outcome.size.unwrap_or(0);
                }
                _ => return Err(unsupported_file(&path)),
            }
        }
        Ok(())
    }

    fn put_file(
        &self,
        path: &Path,
        expected: Expected<'_>,
        destination: &Location,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let context = &self.context;
        let opened = Opened::new(&*context.backend.disk, path, expected)?;
        let size = opened.len();
        if size > context.backend.options.part_size {
            return put_in_parts(*self, &PartSource::File(&opened), destination, options);
        }
        let bucket = context.bucket(destination)?.to_owned();
        let (_, client) = context.after_read("PutObject", context.backend.client.get())?;
        let SendResult { response, sent } =
            context.send_range(&opened, 0..size, |body, headers| {
                let put = client.put_object().bucket(&bucket).key(&destination.key).body(body);
                let put = put.content_length(i64::try_from(size).unwrap_or(i64::MAX));
                let put = put
                    .set_metadata(Some(self.metadata(options)))
                    .set_content_type(options.content_type.clone());
                put.set_storage_class(options.storage_class.as_deref().map(Into::into))
                    .set_if_none_match(options.if_none_match.clone())
                    .set_checksum_crc32(headers.crc32)
                    .customize()
                    .interceptor(headers.signing)
                    .send()
            })?;
        opened.check_read(size)?;
        let put = match response {
            Err(S3Error::Rejected(rejection)) if rejection.is_precondition_failed() => {
                let error = S3Error::Rejected(rejection);
                return self.accept_own_object(destination, error, "PutObject");
            }
            response => {
                let put = context.after_change("PutObject", response)?;
                context.require_etag("PutObject", put, |put| put.e_tag(), SideEffect::Possible)?
            }
        };
        let reported = ReportedChecksum {
            crc32: put.checksum_crc32(),
            etag: put.e_tag(),
            encryption: put.server_side_encryption(),
        };
        match context.compare_sent(&opened, 0..size, &sent.reported, reported)? {
            Comparison::Match => {}
            Comparison::Mismatch => return Err(self.remove_damaged(destination, put.e_tag())),
            Comparison::NotComparable => self.check_size(destination, put.e_tag(), size)?,
        }
        let receipt = receipt(
            &bucket,
            destination,
            [
                ("etag", put.e_tag()),
                ("version_id", put.version_id()),
                ("checksum_crc32", put.checksum_crc32()),
                ("checksum_sha256", put.checksum_sha256()),
            ],
        );
        Ok(Outcome { size: Some(size), receipt, ..context.outcome_at(destination)? })
    }

    /// Returns the metadata of an object: the requested one, and the id of this operation.
    pub(super) fn metadata(&self, options: &PutOptions) -> HashMap<String, String> {
        let own = (OPERATION_METADATA.to_owned(), self.request.id.to_string());
        options.metadata.clone().into_iter().chain([own]).collect()
    }

    /// Handles an existing object where none was expected: it is the result of this operation if an
    /// earlier attempt put it, and otherwise `error` is.
    pub(super) fn accept_own_object(
        &self,
        destination: &Location,
        error: S3Error,
        call: &str,
    ) -> Result<Outcome> {
        match self.find_own_object(destination)? {
            OwnObject::Intact(outcome) => Ok(outcome),
            // It would block every later attempt.
            OwnObject::Damaged { etag } => Err(self.remove_damaged(destination, etag.as_deref())),
            OwnObject::Unreadable(message) => Err(AttemptError::UnknownOutcome(Failure {
                class: FailureClass::Permanent,
                error_type: "content_unknown".into(),
                message,
            })),
            OwnObject::None => {
                Err(self.context.backend.attempt_error(call, error, SideEffect::None))
            }
        }
    }

    /// Fails if the object that was just put has another size. An object that has been removed or
    /// replaced since does not show that.
    pub(super) fn check_size(
        &self,
        location: &Location,
        etag: Option<&str>,
        size: u64,
    ) -> Result<()> {
        match self.context.head(location) {
            Ok(Some(head)) if is_same_etag(head.e_tag(), etag) && size_of(&head) != Some(size) => {
                Err(self.remove_damaged(location, etag))
            }
            _ => Ok(()),
        }
    }

    /// Returns the error for an object whose content is not what was sent. Removes the object if it
    /// still has this etag and is this operation's: it would be taken for the result, or block the
    /// next attempt.
    pub(super) fn remove_damaged(&self, location: &Location, etag: Option<&str>) -> AttemptError {
        let context = &self.context;
        let (service, key) = (&context.backend.service, &location.key);
        match context.head(location) {
            Ok(Some(head))
                if etag.is_some() && is_same_etag(head.e_tag(), etag) && self.is_own(&head) =>
            {
                let deleted = match head.version_id() {
                    // Services accept either a version or a condition.
                    Some(version) => context.delete_version(location, key, Some(version)),
                    // If the key has another object now, the damaged one no longer exists.
                    None => context.delete_if_unchanged(location, etag).map(drop),
                };
                if let Err(error) = deleted {
                    tracing::warn!(?error, key, "cannot remove a damaged object");
                    if self.request.parameters.contains_key("if_none_match") {
                        let message = format!(
                            "the content of `{key}` on {service} is not what was sent, and cannot \
                             be removed; remove it, then retry the operation"
                        );
                        return AttemptError::permanent("damaged_content", message);
                    }
                }
            }
            _ => {}
        }
        let message = format!(
            "the content of `{key}` on {service} is not what was sent: it was damaged in transit \
             or by the service; it will be sent again"
        );
        AttemptError::transient("damaged_content", message)
    }

    pub(super) fn query_put(&self, destination: &Location) -> Result<AttemptStatus> {
        Ok(match self.find_own_object(destination)? {
            OwnObject::Intact(outcome) => AttemptStatus::Done(outcome),
            OwnObject::Unreadable(reason) => AttemptStatus::Unknown(reason),
            OwnObject::None | OwnObject::Damaged { .. } => AttemptStatus::NotDone,
        })
    }

    /// Returns what earlier attempts of this operation have put. If the hash of the content was
    /// noted, the object is compared with it; otherwise the size has to do.
    fn find_own_object(&self, location: &Location) -> Result<OwnObject> {
        let Some(head) = self.context.head(location)? else { return Ok(OwnObject::None) };
        let source = self.request.source.as_ref();
        let is_complete = source.is_none_or(|source| size_of(&head) == Some(source.size));
        if !self.is_own(&head) || !is_complete {
            return Ok(OwnObject::None);
        }
        let noted = source.filter(|source| source.sha256.is_some());
        let comparison = match (noted, self.compare_with_file(&head)?) {
            (None, _) => Comparison::Match,
            (Some(source), Comparison::NotComparable) => {
                match self.compare_by_reading(location, &head, source) {
                    // Such as an archived object.
                    Err(AttemptError::Failed { failure, .. })
                        if failure.class == FailureClass::Permanent =>
                    {
                        return Ok(OwnObject::Unreadable(format!(
                            "the object was put, but its content cannot be compared with what was \
                             logged: {}",
                            failure.message
                        )));
                    }
                    comparison => comparison?,
                }
            }
            (Some(_), comparison) => comparison,
        };
        Ok(match comparison {
            Comparison::Match => OwnObject::Intact(self.context.outcome_of(location, &head)?),
            Comparison::Mismatch => OwnObject::Damaged { etag: head.e_tag().map(str::to_owned) },
            // It was removed or replaced meanwhile.
            Comparison::NotComparable => OwnObject::None,
        })
    }

    /// Compares the checksums that the service reports for an object with the content that was
    /// logged, if this machine still has it unchanged.
    fn compare_with_file(&self, head: &HeadObjectOutput) -> Result<Comparison> {
        let context = &self.context;
        let disk = &*context.backend.disk;
        let Some(path) = self.request.parameters.get("path") else {
            return Ok(Comparison::NotComparable);
        };
        let file = find_user_file(disk, context.attempt, Path::new(path), false, self.request);
        let opened = file.and_then(|file| Opened::new(disk, &file.path, file.expected));
        let Ok(opened) = opened else { return Ok(Comparison::NotComparable) };
        if !opened.has_hash() {
            return Ok(Comparison::NotComparable);
        }
        let size = opened.len();
        let mut hash = opened.content_hash();
        let mut digest = ObjectDigest::new(part_size(context.backend.options.part_size, size));
        context.read_range(&opened, 0..size, |piece| {
            hash.update(piece);
            digest.update(piece);
        })?;
        if hash.check().is_err() {
            return Ok(Comparison::NotComparable);
        }
        Ok(digest.compare(ReportedChecksum {
            crc32: head.checksum_crc32(),
            etag: head.e_tag(),
            encryption: head.server_side_encryption(),
        }))
    }

    /// Fetches an object, and compares it with the noted hash; [`Comparison::NotComparable`] if it
    /// was removed or replaced meanwhile.
    fn compare_by_reading(
        &self,
        location: &Location,
        head: &HeadObjectOutput,
        source: &Source,
    ) -> Result<Comparison> {
        let backend = self.context.backend;
        // The limit of a query is for a short response. This one may be long, but must progress.
        let deadline = Deadline::new(backend.options.idle, backend.options.total);
        let context = backend.context(self.context.attempt, deadline);
        let bucket = context.bucket(location)?;
        let got = context.call(async |client| {
            let get = client.get_object().bucket(bucket).key(&location.key);
            get.set_if_match(head.e_tag().map(str::to_owned)).send().await
        });
        let mut got = match got {
            Err(S3Error::Rejected(rejection))
                if rejection.is_not_found() || rejection.is_precondition_failed() =>
            {
                return Ok(Comparison::NotComparable);
            }
            got => context.after_read("GetObject", got)?,
        };
        let (mut hasher, mut length) = (Sha256::new(), 0);
        let mut body = std::mem::take(&mut got.body);
        let received = context.receive_body(&mut body, &mut |data| {
            hasher.update(data);
            length += data.len() as u64;
            // A response without an end.
            if length > source.size { Err(AttemptError::Stopped) } else { Ok(()) }
        });
        if length > source.size {
            return Ok(Comparison::Mismatch);
        }
        received?;
        let found = HEXLOWER.encode(&hasher.finalize());
        Ok(match source.sha256.as_deref() == Some(&found) {
            true => Comparison::Match,
            false => Comparison::Mismatch,
        })
    }
}
