//! Folders: empty objects whose key ends with a slash.

use aws_sdk_s3::operation::put_object::PutObjectOutput;

use super::location::Location;
use super::objects::{OPERATION_METADATA, size_of};
use super::{S3Session, SideEffect};
use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::operation::Outcome;

impl S3Session<'_> {
    pub(super) fn make_folder(&self, location: &Location) -> Result<Outcome> {
        let context = &self.context;
        let object = location.with_key(location.key.trim_end_matches('/'));
        let marker = location.with_key(&location.prefix());
        let occupied = |key: &str| {
            let message = format!("`{key}` is an object; choose another key");
            AttemptError::permanent("destination_exists", message)
        };
        if context.head(&object)?.is_some() {
            return Err(occupied(&object.key));
        }
        // Another program may store content under the key of a folder.
        let present = context.head(&marker)?;
        if present.is_some_and(|head| size_of(&head).is_some_and(|size| size > 0)) {
            return Err(occupied(&marker.key));
        }
        self.put_folder_marker(&marker)?;
        context.outcome_at(location)
    }

    pub(super) fn put_folder_marker(&self, marker: &Location) -> Result<PutObjectOutput> {
        let context = &self.context;
        let bucket = context.bucket(marker)?;
        let put = context.call(async |client| {
            let put = client.put_object().bucket(bucket).key(&marker.key).content_length(0);
            put.metadata(OPERATION_METADATA, self.request.id.to_string()).send().await
        });
        let put = context.after_change("PutObject", put)?;
        context.require_etag("PutObject", put, |put| put.e_tag(), SideEffect::Possible)
    }
}
