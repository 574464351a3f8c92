//! What the service knows of objects, and what an operation's receipt says of them.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::ChecksumMode;

use super::Session;
use super::errors::Trouble;
use super::place::Place;
use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::operation::{Fields, Outcome};

/// The metadata by which an object names the operation that put it.
pub(super) const OPERATION: &str = "wal-cli-operation";

/// An object in a listing.
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) size: u64,
}

impl Listed {
    /// Whether it only says that there is a folder. Some services keep content under such keys, too.
    pub(super) fn is_mark(&self) -> bool {
        self.key.ends_with('/') && self.size == 0
    }
}

impl Session<'_> {
    /// What the service knows of an object; none: there is none.
    pub(super) fn head(&self, place: &Place) -> Result<Option<HeadObjectOutput>> {
        let bucket = self.bucket(place)?;
        let mode = self.backend.options.checksums.then_some(ChecksumMode::Enabled);
        let ask = || {
            self.call(async |client| {
                let head = client.head_object().bucket(bucket).key(&place.key);
                head.set_checksum_mode(mode.clone()).send().await
            })
        };
        let head = match ask() {
            // Without a word; if nothing else is refused, this may not be, either.
            Err(Trouble::Refused(refused)) if !refused.is_not_found() => {
                let worded = self.backend.worded(refused, bucket);
                worded.map_err(|trouble| self.backend.fail("HeadObject", trouble, false))?;
                ask()
            }
            head => head,
        };
        match head {
            Err(Trouble::Refused(refused)) if refused.is_not_found() => {
                // The same is said where there is no bucket, which tells nothing of the object.
                match self.backend.probe_bucket(bucket) {
                    Err(trouble) if trouble.is_no_bucket() => {
                        Err(self.backend.fail("HeadBucket", trouble, false))
                    }
                    _ => Ok(None),
                }
            }
            head => {
                let there = self.read("HeadObject", head)?;
                self.has_etag("HeadObject", there, |there| there.e_tag(), false).map(Some)
            }
        }
    }

    /// The same of one that has to be there.
    pub(super) fn existing(&self, place: &Place) -> Result<HeadObjectOutput> {
        self.head(place)?.ok_or_else(|| not_found(place))
    }

    /// The objects in a folder.
    pub(super) fn objects_in(&self, place: &Place) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        self.each_page(place, None, &mut |page| {
            found.extend(page.contents().iter().filter_map(|object| {
                let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                Some(Listed { key: object.key()?.to_owned(), size })
            }));
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether anything is in a folder.
    pub(super) fn is_folder(&self, place: &Place) -> Result<bool> {
        Ok(self.some_in(place)? > 0)
    }

    /// How many objects are in a folder, or, of a large one, as many as one page tells of.
    pub(super) fn some_in(&self, place: &Place) -> Result<u64> {
        let (bucket, prefix) = (self.bucket(place)?, place.prefix());
        let listed = self.call(async |client| {
            client.list_objects_v2().bucket(bucket).prefix(&prefix).send().await
        });
        Ok(self.read("ListObjectsV2", listed)?.contents().len() as u64)
    }

    /// Hands each page of a listing on.
    pub(super) fn each_page(
        &self,
        place: &Place,
        delimiter: Option<&str>,
        each: &mut dyn FnMut(&ListObjectsV2Output) -> Result<()>,
    ) -> Result<()> {
        let (bucket, prefix) = (self.bucket(place)?, place.prefix());
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
            let page = self.read("ListObjectsV2", listed)?;
            each(&page)?;
            token = page
                .next_continuation_token()
                .map(str::to_owned)
                .filter(|_| page.is_truncated() == Some(true));
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// The result of an operation that brought an object about, by what the service knows of it.
    pub(super) fn outcome_of(&self, place: &Place, there: &HeadObjectOutput) -> Result<Outcome> {
        let receipt = receipt(
            self.bucket(place)?,
            place,
            [
                ("etag", there.e_tag()),
                ("version_id", there.version_id()),
                ("checksum_crc32", there.checksum_crc32()),
                ("checksum_crc32c", there.checksum_crc32_c()),
                ("checksum_crc64nvme", there.checksum_crc64_nvme()),
                ("checksum_sha256", there.checksum_sha256()),
            ],
        );
        Ok(Outcome { size: size_of(there), receipt, ..self.outcome_at(place)? })
    }

    /// The result of an operation of which there is nothing to tell but where.
    pub(super) fn outcome_at(&self, place: &Place) -> Result<Outcome> {
        let destination = Some(format!("s3://{}/{}", self.bucket(place)?, place.key));
        Ok(Outcome { destination, ..Outcome::default() })
    }

    /// The result of one that brought about many objects.
    pub(super) fn outcome_of_many(
        &self,
        place: &Place,
        objects: u64,
        bytes: u64,
    ) -> Result<Outcome> {
        let mut receipt = receipt(self.bucket(place)?, place, []);
        receipt.insert("objects".into(), objects.to_string());
        Ok(Outcome { size: Some(bytes), receipt, ..self.outcome_at(place)? })
    }
}

/// Where an object is, and what the service gave for it.
pub(super) fn receipt<'a>(
    bucket: &str,
    place: &Place,
    given: impl IntoIterator<Item = (&'static str, Option<&'a str>)>,
) -> Fields {
    let mut receipt =
        Fields::from([("bucket".into(), bucket.to_owned()), ("key".into(), place.key.clone())]);
    receipt.extend(
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
    );
    receipt
}

/// The bytes of an object.
pub(super) fn size_of(there: &HeadObjectOutput) -> Option<u64> {
    there.content_length().and_then(|size| u64::try_from(size).ok())
}

pub(super) fn not_found(place: &Place) -> AttemptError {
    AttemptError::permanent(
        "not_found",
        format!("there is no `{}`; `list` shows what there is", place.key),
    )
}
