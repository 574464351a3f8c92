//! Reading objects' metadata and listings, and the receipts of operations.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::ChecksumMode;

use super::errors::S3Error;
use super::location::Location;
use super::{CallContext, SideEffect};
use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::operation::{Fields, Outcome};

/// The metadata that holds the id of the operation that put an object.
pub(super) const OPERATION_METADATA: &str = "wal-cli-operation";

/// An object in a listing.
pub(super) struct ListedObject {
    pub(super) key: String,
    pub(super) size: u64,
}

impl ListedObject {
    /// Returns whether the object only marks a folder. Some services store content under such keys.
    pub(super) fn is_folder_marker(&self) -> bool {
        self.key.ends_with('/') && self.size == 0
    }
}

impl CallContext<'_> {
    /// Returns the metadata of an object, if it exists.
    pub(super) fn head(&self, location: &Location) -> Result<Option<HeadObjectOutput>> {
        let bucket = self.bucket(location)?;
        let mode = self.backend.options.checksums.then_some(ChecksumMode::Enabled);
        let send = || {
            self.call(async |client| {
                let head = client.head_object().bucket(bucket).key(&location.key);
                head.set_checksum_mode(mode.clone()).send().await
            })
        };
        let head = match send() {
            // The response has no error code. If another request succeeds, this one may as well.
            Err(S3Error::Rejected(rejection)) if !rejection.is_not_found() => {
                self.backend.repeat_with_error_code(rejection, bucket).map_err(|error| {
                    self.backend.attempt_error("HeadObject", error, SideEffect::None)
                })?;
                send()
            }
            head => head,
        };
        match head {
            Err(S3Error::Rejected(rejection)) if rejection.is_not_found() => {
                // A missing bucket gives the same response, but does not show that the object is
                // missing.
                match self.backend.probe_bucket(bucket) {
                    Err(error) if error.is_no_such_bucket() => {
                        Err(self.backend.attempt_error("HeadBucket", error, SideEffect::None))
                    }
                    _ => Ok(None),
                }
            }
            head => {
                let head = self.after_read("HeadObject", head)?;
                self.require_etag("HeadObject", head, |head| head.e_tag(), SideEffect::None)
                    .map(Some)
            }
        }
    }

    /// Returns the metadata of an object; fails if it does not exist.
    pub(super) fn existing(&self, location: &Location) -> Result<HeadObjectOutput> {
        self.head(location)?.ok_or_else(|| not_found(location))
    }

    /// Returns the metadata of the object with this key, unless the key is that of a folder.
    pub(super) fn head_unless_folder(
        &self,
        location: &Location,
    ) -> Result<Option<HeadObjectOutput>> {
        if location.is_folder_name() { Ok(None) } else { self.head(location) }
    }

    /// Returns all objects in a folder.
    pub(super) fn objects_in(&self, location: &Location) -> Result<Vec<ListedObject>> {
        let mut found = Vec::new();
        self.each_page(location, None, &mut |page| {
            found.extend(page.contents().iter().filter_map(|object| {
                let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                Some(ListedObject { key: object.key()?.to_owned(), size })
            }));
            Ok(())
        })?;
        Ok(found)
    }

    /// Returns whether a folder contains an object.
    pub(super) fn is_folder(&self, location: &Location) -> Result<bool> {
        Ok(self.count_first_page(location)? > 0)
    }

    /// Returns whether an object or a folder exists.
    pub(super) fn exists(&self, location: &Location) -> Result<bool> {
        Ok(self.head_unless_folder(location)?.is_some() || self.is_folder(location)?)
    }

    /// Returns the number of objects in a folder, at most as many as one page lists.
    pub(super) fn count_first_page(&self, location: &Location) -> Result<u64> {
        let (bucket, prefix) = (self.bucket(location)?, location.prefix());
        let listed = self.call(async |client| {
            client.list_objects_v2().bucket(bucket).prefix(&prefix).send().await
        });
        Ok(self.after_read("ListObjectsV2", listed)?.contents().len() as u64)
    }

    /// Passes each page of a listing to `sink`.
    pub(super) fn each_page(
        &self,
        location: &Location,
        delimiter: Option<&str>,
        sink: &mut dyn FnMut(&ListObjectsV2Output) -> Result<()>,
    ) -> Result<()> {
        let (bucket, prefix) = (self.bucket(location)?, location.prefix());
        let mut token = None;
        loop {
            stop_if_asked(self.attempt)?;
            let listed = self.call(async |client| {
                let list = client.list_objects_v2().bucket(bucket).prefix(&prefix);
                list.set_delimiter(delimiter.map(str::to_owned))
                    .set_continuation_token(token.take())
                    .send()
                    .await
            });
            let page = self.after_read("ListObjectsV2", listed)?;
            sink(&page)?;
            token = page
                .next_continuation_token()
                .map(str::to_owned)
                .filter(|_| page.is_truncated() == Some(true));
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Returns the outcome of an operation that put an object with this metadata.
    pub(super) fn outcome_of(
        &self,
        location: &Location,
        head: &HeadObjectOutput,
    ) -> Result<Outcome> {
        let receipt = receipt(
            self.bucket(location)?,
            location,
            [
                ("etag", head.e_tag()),
                ("version_id", head.version_id()),
                ("checksum_crc32", head.checksum_crc32()),
                ("checksum_crc32c", head.checksum_crc32_c()),
                ("checksum_crc64nvme", head.checksum_crc64_nvme()),
                ("checksum_sha256", head.checksum_sha256()),
            ],
        );
        Ok(Outcome { size: size_of(head), receipt, ..self.outcome_at(location)? })
    }

    /// Returns an outcome with nothing but the destination.
    pub(super) fn outcome_at(&self, location: &Location) -> Result<Outcome> {
        let destination = Some(format!("s3://{}/{}", self.bucket(location)?, location.key));
        Ok(Outcome { destination, ..Outcome::default() })
    }

    /// Returns the outcome of an operation on many objects.
    pub(super) fn outcome_of_many(
        &self,
        location: &Location,
        objects: u64,
        bytes: u64,
    ) -> Result<Outcome> {
        let mut receipt = receipt(self.bucket(location)?, location, []);
        receipt.insert("objects".into(), objects.to_string());
        Ok(Outcome { size: Some(bytes), receipt, ..self.outcome_at(location)? })
    }
}

/// Returns a receipt with the location of an object and the fields that the service reported.
pub(super) fn receipt<'a>(
    bucket: &str,
    location: &Location,
    reported: impl IntoIterator<Item = (&'static str, Option<&'a str>)>,
) -> Fields {
    let mut receipt =
        Fields::from([("bucket".into(), bucket.to_owned()), ("key".into(), location.key.clone())]);
    receipt.extend(
        reported.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
    );
    receipt
}

/// Returns the size of an object in bytes.
pub(super) fn size_of(head: &HeadObjectOutput) -> Option<u64> {
    head.content_length().and_then(|size| u64::try_from(size).ok())
}

pub(super) fn not_found(location: &Location) -> AttemptError {
    AttemptError::permanent(
        "not_found",
        format!("`{}` does not exist; `list` shows the existing keys", location.key),
    )
}
