//! Files and directories that are put.

use std::path::Path;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;

use super::Session;
use super::checks::{Said, same_etag};
use super::errors::Trouble;
use super::multipart::Origin;
use super::objects::{OPERATION, receipt, size_of};
use super::place::Place;
use super::stream::Sent;
use super::task::PutOptions;
use crate::backend::errors::Result;
use crate::backend::files::{
    Expected, Opened, check_depth, entries_on_disk, find_user_file, stop_if_asked, unsupported_file,
};
use crate::backend::{AttemptError, AttemptStatus};
use crate::disk::FileKind;
use crate::operation::Outcome;

#[derive(Default)]
struct Total {
    objects: u64,
    bytes: u64,
}

impl Session<'_> {
    pub(super) fn put(
        &self,
        path: &Path,
        destination: &Place,
        recursive: bool,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let disk = &*self.backend.disk;
        let file = find_user_file(disk, self.attempt, path, recursive, self.request)?;
        match file.kind {
            FileKind::File => self.put_file(&file.path, file.expected, destination, options),
            FileKind::Directory => {
                let mut total = Total::default();
                self.put_directory(&file.path, destination, 0, options, &mut total)?;
                self.outcome_of_many(destination, total.objects, total.bytes)
            }
            _ => Err(unsupported_file(path)),
        }
    }

    fn put_directory(
        &self,
        path: &Path,
        destination: &Place,
        depth: usize,
        options: &PutOptions,
        total: &mut Total,
    ) -> Result<()> {
        check_depth(path, depth)?;
        for (name, kind) in entries_on_disk(&*self.backend.disk, path)? {
            stop_if_asked(self.attempt)?;
            let (path, place) = (path.join(&name), destination.join(&name));
            match kind {
                FileKind::Directory => {
                    self.put_directory(&path, &place, depth + 1, options, total)?
                }
                FileKind::File => {
                    let outcome = self.put_file(&path, Expected::Anything, &place, options)?;
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
        destination: &Place,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let opened = Opened::new(&*self.backend.disk, path, expected)?;
        if opened.len() > self.backend.options.part_size {
            return self.put_in_parts(&Origin::File(&opened), destination, options);
        }
        let bucket = self.bucket(destination)?.to_owned();
        let (_, client) = self.read("PutObject", self.backend.caller.engine())?;
        let Sent { answer, digest } =
            self.streamed(&opened, 0..opened.len(), |body, announced| {
                let put = client.put_object().bucket(&bucket).key(&destination.key).body(body);
                let put = put.content_length(i64::try_from(opened.len()).unwrap_or(i64::MAX));
                let put = put
                    .set_metadata(Some(self.metadata(options)))
                    .set_content_type(options.content_type.clone());
                put.set_storage_class(options.storage_class.as_deref().map(Into::into))
                    .set_if_none_match(options.if_none_match.clone())
                    .set_checksum_crc32(announced.crc32)
                    .customize()
                    .interceptor(announced.signed)
                    .send()
            })?;
        opened.check_read(opened.len())?;
        let put = match answer {
            Err(Trouble::Refused(refused)) if refused.is_occupied() => {
                return self.occupied(destination, Trouble::Refused(refused), "PutObject");
            }
            answer => self.has_etag(
                "PutObject",
                self.acted("PutObject", answer)?,
                |put| put.e_tag(),
                true,
            )?,
        };
        let said = Said {
            crc32: put.checksum_crc32(),
            etag: put.e_tag(),
            encryption: put.server_side_encryption(),
        };
        match self.agrees(&opened, 0..opened.len(), digest, said)? {
            Some(true) => {}
            Some(false) => return Err(self.damaged(destination, put.e_tag())),
            // A service that says nothing that could be compared.
            None => self.check_size(destination, put.e_tag(), opened.len())?,
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
        Ok(Outcome { size: Some(opened.len()), receipt, ..self.outcome_at(destination)? })
    }

    /// What an object's metadata says: what was asked for, and whose it is.
    pub(super) fn metadata(
        &self,
        options: &PutOptions,
    ) -> std::collections::HashMap<String, String> {
        let ours = (OPERATION.to_owned(), self.request.id.to_string());
        options.metadata.clone().into_iter().chain([ours]).collect()
    }

    /// Something is there already, where nothing was to be: unless that is what an earlier attempt put.
    pub(super) fn occupied(
        &self,
        destination: &Place,
        trouble: Trouble,
        call: &str,
    ) -> Result<Outcome> {
        match self.ask_put(destination)? {
            AttemptStatus::Done(outcome) => Ok(outcome),
            _ => Err(self.backend.fail(call, trouble, false)),
        }
    }

    /// Whether what was put is as long as it has to be. That it is gone already, or another one, says nothing of that.
    pub(super) fn check_size(&self, place: &Place, etag: Option<&str>, size: u64) -> Result<()> {
        match self.head(place) {
            Ok(Some(there)) if same_etag(there.e_tag(), etag) && size_of(&there) != Some(size) => {
                Err(self.damaged(place, etag))
            }
            _ => Ok(()),
        }
    }

    /// What was put there under this etag is not what was sent. As far as it is still there, and ours, it goes away
    /// again: it would be taken for done, or stand in the way of the next attempt.
    pub(super) fn damaged(&self, place: &Place, etag: Option<&str>) -> AttemptError {
        match self.head(place) {
            Ok(Some(there))
                if etag.is_some() && same_etag(there.e_tag(), etag) && self.is_ours(&there) =>
            {
                let deleted = match there.version_id() {
                    // With a condition beside it, services take no version.
                    Some(version) => self.delete_version(place, &place.key, Some(version)),
                    // Where another one is there now, ours is gone.
                    None => self.delete_same(place, etag).map(drop),
                };
                if let Err(error) = deleted {
                    tracing::warn!(
                        ?error,
                        key = place.key,
                        "what was spoilt on the way could not be removed"
                    );
                    if self.request.parameters.contains_key("if_none_match") {
                        let message = format!(
                            "what {} has under `{}` is not what was sent, and it could not be removed: remove it, then retry",
                            self.backend.service, place.key
                        );
                        return AttemptError::permanent("damaged_content", message);
                    }
                }
            }
            _ => {}
        }
        let message = format!(
            "what {} has under `{}` is not what was sent: it was spoilt on the way, or there; it is sent again",
            self.backend.service, place.key
        );
        AttemptError::transient("damaged_content", message)
    }

    pub(super) fn ask_put(&self, destination: &Place) -> Result<AttemptStatus> {
        let Some(there) = self.head(destination)? else { return Ok(AttemptStatus::NotDone) };
        let is_whole =
            self.request.source.as_ref().is_none_or(|source| size_of(&there) == Some(source.size));
        match self.is_ours(&there) && is_whole {
            true => Ok(AttemptStatus::Done(self.outcome_of(destination, &there)?)),
            false => Ok(AttemptStatus::NotDone),
        }
    }

    /// Whether this operation put it there.
    fn is_ours(&self, there: &HeadObjectOutput) -> bool {
        there.metadata().and_then(|metadata| metadata.get(OPERATION))
            == Some(&self.request.id.to_string())
    }
}
