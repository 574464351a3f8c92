//! Removing objects and folders.

use super::checksum::is_same_etag;
use super::errors::S3Error;
use super::location::Location;
use super::objects::not_found;
use super::{CallContext, S3Session, SideEffect};
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::backend::{AttemptError, AttemptStatus};
use crate::operation::{Fields, Outcome};

/// The result of deleting an object only if it is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConditionalDelete {
    /// The object no longer exists.
    Deleted,
    /// The key has another object now, which was kept.
    Changed,
}

impl S3Session<'_> {
    /// Removes an object; with `recursive` also everything below its key.
    pub(super) fn remove(&self, location: &Location, recursive: bool) -> Result<Outcome> {
        let context = &self.context;
        let is_object = context.head_unless_folder(location)?.is_some();
        if !recursive {
            if is_object {
                context.delete(location, &location.key)?;
                return match context.head(location)? {
                    Some(_) => Err(context.still_exists()),
                    None => Ok(Outcome::default()),
                };
            }
            if !context.is_folder(location)? {
                return Err(not_found(location));
            }
            let message =
                format!("`{}` is a folder; remove it with `recursive=true`", location.key);
            return Err(AttemptError::permanent("is_directory", message));
        }
        let objects = context.objects_in(location)?;
        if objects.is_empty() && !is_object {
            return Err(not_found(location));
        }
        objects.iter().try_for_each(|object| context.delete(location, &object.key))?;
        if is_object {
            context.delete(location, &location.key)?;
        }
        if context.exists(location)? {
            return Err(context.still_exists());
        }
        let count = objects.len() + usize::from(is_object);
        let receipt = Fields::from([("objects".into(), count.to_string())]);
        Ok(Outcome { receipt, ..Outcome::default() })
    }

    pub(super) fn query_remove(&self, location: &Location) -> Result<AttemptStatus> {
        Ok(match self.context.exists(location)? {
            true => AttemptStatus::NotDone,
            false => AttemptStatus::Done(Outcome::default()),
        })
    }
}

impl CallContext<'_> {
    /// Returns the error for an object that exists although its removal was confirmed.
    pub(super) fn still_exists(&self) -> AttemptError {
        let error = S3Error::unexpected("the object still exists");
        self.backend.attempt_error("DeleteObject", error, SideEffect::Possible)
    }

    fn delete(&self, location: &Location, key: &str) -> Result<()> {
        self.delete_version(location, key, None)
    }

    /// Deletes a version of an object, or without one the current object, of which a service with
    /// versions keeps the content.
    pub(super) fn delete_version(
        &self,
        location: &Location,
        key: &str,
        version: Option<&str>,
    ) -> Result<()> {
        stop_if_asked(self.attempt)?;
        let bucket = self.bucket(location)?;
        let deleted = self.call(async |client| {
            client
                .delete_object()
                .bucket(bucket)
                .key(key)
                .set_version_id(version.map(str::to_owned))
                .send()
                .await
        });
        self.after_change("DeleteObject", deleted).map(drop)
    }

    /// Deletes an object that had this etag a moment ago, if it still has.
    pub(super) fn delete_if_unchanged(
        &self,
        location: &Location,
        etag: Option<&str>,
    ) -> Result<ConditionalDelete> {
        stop_if_asked(self.attempt)?;
        let bucket = self.bucket(location)?;
        let deleted = self.call(async |client| {
            client
                .delete_object()
                .bucket(bucket)
                .key(&location.key)
                .set_if_match(etag.map(str::to_owned))
                .send()
                .await
        });
        match deleted {
            Err(S3Error::Rejected(rejection)) if rejection.is_not_found() => {
                Ok(ConditionalDelete::Deleted)
            }
            // Services report this as well if the object no longer exists, for example because the
            // same request arrived twice.
            Err(S3Error::Rejected(rejection)) if rejection.is_precondition_failed() => {
                match self.head(location)? {
                    None => Ok(ConditionalDelete::Deleted),
                    Some(now) if !is_same_etag(now.e_tag(), etag) => Ok(ConditionalDelete::Changed),
                    Some(_) => {
                        self.delete(location, &location.key).map(|()| ConditionalDelete::Deleted)
                    }
                }
            }
            // The service does not support conditions for removals.
            Err(S3Error::Rejected(rejection)) if rejection.may_be_unsupported() => {
                self.delete(location, &location.key).map(|()| ConditionalDelete::Deleted)
            }
            deleted => {
                self.after_change("DeleteObject", deleted).map(|_| ConditionalDelete::Deleted)
            }
        }
    }
}
