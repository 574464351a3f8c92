//! Copying and moving objects and folders within the service.

use std::collections::BTreeSet;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::checksum::is_same_etag;
use super::errors::S3Error;
use super::location::{Location, refuse_into_itself};
use super::multipart::{CopySource, PartSource, put_in_parts};
use super::objects::{not_found, receipt, size_of};
use super::remove::ConditionalDelete;
use super::{CallContext, S3Session, SideEffect};
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::backend::{AttemptError, AttemptStatus};
use crate::operation::Outcome;

/// The characters to escape in the source of a copy.
const KEY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// An object of a folder, as it was when it was copied.
struct CopiedObject {
    key: String,
    etag: Option<String>,
}

/// The result of copying a folder.
struct CopiedFolder {
    outcome: Outcome,
    objects: Vec<CopiedObject>,
}

impl S3Session<'_> {
    pub(super) fn copy(&self, source: &Location, destination: &Location) -> Result<Outcome> {
        refuse_into_itself(source, destination)?;
        match self.context.head_unless_folder(source)? {
            Some(head) => self.copy_object(source, &head, &destination.for_object(source)),
            None => Ok(self.copy_folder(source, destination)?.outcome),
        }
    }

    /// Moves an object or a folder.
    pub(super) fn move_all(&self, source: &Location, destination: &Location) -> Result<Outcome> {
        let context = &self.context;
        refuse_into_itself(source, destination)?;
        if let Some(head) = context.head_unless_folder(source)? {
            let outcome = self.copy_object(source, &head, &destination.for_object(source))?;
            context.delete_copied(source, head.e_tag())?;
            return match context.head(source)? {
                Some(_) => Err(context.still_exists()),
                None => Ok(outcome),
            };
        }
        let CopiedFolder { outcome, objects } = self.copy_folder(source, destination)?;
        for CopiedObject { key, etag } in objects {
            context.delete_copied(&source.with_key(&key), etag.as_deref())?;
        }
        if context.is_folder(source)? { Err(context.still_exists()) } else { Ok(outcome) }
    }

    fn copy_folder(&self, source: &Location, destination: &Location) -> Result<CopiedFolder> {
        let context = &self.context;
        let objects = context.objects_in(source)?;
        if objects.is_empty() {
            return Err(not_found(source));
        }
        let bytes = objects.iter().map(|object| object.size).sum();
        let (from, to) = (source.prefix(), destination.prefix());
        let target = |key: &str| format!("{to}{}", key.strip_prefix(&from).unwrap_or(key));
        let keys: BTreeSet<&str> = objects.iter().map(|object| &object.key[..]).collect();
        if source.bucket == destination.bucket
            && let Some(object) =
                objects.iter().find(|object| keys.contains(&target(&object.key)[..]))
        {
            let (key, onto) = (&object.key, target(&object.key));
            let message = format!(
                "`{key}` would replace `{onto}`, which is in the same folder; choose another key"
            );
            return Err(AttemptError::permanent("bad_path", message));
        }
        let mut copied = Vec::with_capacity(objects.len());
        for object in &objects {
            let from = source.with_key(&object.key);
            let to = destination.with_key(&target(&object.key));
            let head = context.existing(&from)?;
            match object.is_folder_marker() {
                // Not every service copies them.
                true => drop(self.put_folder_marker(&to)?),
                false => drop(self.copy_object(&from, &head, &to)?),
            }
            let etag = head.e_tag().map(str::to_owned);
            copied.push(CopiedObject { key: object.key.clone(), etag });
        }
        let outcome = context.outcome_of_many(destination, copied.len() as u64, bytes)?;
        Ok(CopiedFolder { outcome, objects: copied })
    }

    /// Copies an object within the service, and checks that the copy is complete.
    fn copy_object(
        &self,
        source: &Location,
        head: &HeadObjectOutput,
        destination: &Location,
    ) -> Result<Outcome> {
        let context = &self.context;
        stop_if_asked(context.attempt)?;
        let (bucket, source_bucket) = (context.bucket(destination)?, context.bucket(source)?);
        let origin = format!("{source_bucket}/{}", utf8_percent_encode(&source.key, KEY));
        let size = size_of(head).unwrap_or(0);
        if size > context.backend.options.copy_max {
            let copied = CopySource { origin, size, head };
            let options = copied.options();
            return put_in_parts(*self, &PartSource::Object(&copied), destination, &options);
        }
        let copied = context.call(async |client| {
            let copy =
                client.copy_object().bucket(bucket).key(&destination.key).copy_source(&origin);
            copy.set_copy_source_if_match(head.e_tag().map(str::to_owned)).send().await
        });
        let copied = match copied {
            // The source was replaced after its metadata was read.
            Err(S3Error::Rejected(rejection)) if rejection.is_precondition_failed() => {
                return context.after_read("CopyObject", Err(rejection.into_conflict()));
            }
            copied => context.after_change("CopyObject", copied)?,
        };
        let etag = copied.copy_object_result().and_then(|result| result.e_tag()).map(str::to_owned);
        match context.head(destination) {
            Ok(Some(copy)) if etag.is_none() || is_same_etag(copy.e_tag(), etag.as_deref()) => {
                match size_of(&copy) == Some(size) {
                    true => context.outcome_of(destination, &copy),
                    false => Err(self.remove_damaged(destination, copy.e_tag())),
                }
            }
            // The copy was confirmed. That it has been removed or replaced since, or cannot be
            // checked now, does not change that.
            _ if etag.is_some() => {
                let reported = [("etag", etag.as_deref()), ("version_id", copied.version_id())];
                let receipt = receipt(bucket, destination, reported);
                Ok(Outcome { size: Some(size), receipt, ..context.outcome_at(destination)? })
            }
            _ => {
                let (error, effect) = (S3Error::no_etag(), SideEffect::Possible);
                Err(context.backend.attempt_error("CopyObject", error, effect))
            }
        }
    }

    pub(super) fn query_move(
        &self,
        source: &Location,
        destination: &Location,
    ) -> Result<AttemptStatus> {
        let context = &self.context;
        if context.head_unless_folder(source)?.is_some() {
            return Ok(AttemptStatus::NotDone);
        }
        let is_folder = context.is_folder(source)?;
        if !source.is_folder_name() {
            let object = destination.for_object(source);
            match context.head(&object)? {
                Some(head) if !is_folder => {
                    return Ok(AttemptStatus::Done(context.outcome_of(&object, &head)?));
                }
                Some(_) => {
                    return Ok(AttemptStatus::Unknown(format!(
                        "the object `{}` no longer exists and `{}` does, but a folder `{}` exists \
                         as well",
                        source.key,
                        object.key,
                        source.prefix()
                    )));
                }
                None => {}
            }
        }
        if is_folder {
            return Ok(AttemptStatus::NotDone);
        }
        // A query lists one page only, so of a large folder the count is a lower bound.
        match context.count_first_page(destination)? {
            0 => Ok(AttemptStatus::Unknown(format!(
                "neither `{}` nor `{}` exists",
                source.key, destination.key
            ))),
            count => {
                let outcome = context.outcome_of_many(destination, count, 0)?;
                Ok(AttemptStatus::Done(Outcome { size: None, ..outcome }))
            }
        }
    }
}

impl CallContext<'_> {
    /// Removes an object that was copied, unless another program has replaced it since.
    fn delete_copied(&self, location: &Location, etag: Option<&str>) -> Result<()> {
        // Checked first, because some services accept the condition of a removal and ignore it.
        let deleted = match self.head(location)? {
            Some(now) if is_same_etag(now.e_tag(), etag) => {
                self.delete_if_unchanged(location, etag)?
            }
            Some(_) => ConditionalDelete::Changed,
            None => ConditionalDelete::Deleted,
        };
        match deleted {
            ConditionalDelete::Deleted => Ok(()),
            ConditionalDelete::Changed => {
                let message = format!(
                    "`{}` was replaced while it was moved; it will be retried",
                    location.key
                );
                Err(AttemptError::transient("conflict", message))
            }
        }
    }
}
