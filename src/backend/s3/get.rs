//! Objects and folders that are fetched, and listings.

use std::path::{Path, PathBuf};

use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_checksums::body::validate::Error as ChecksumMismatch;

use super::Session;
use super::checks::{Digest, Said};
use super::errors::{Trouble, has_cause, last_cause};
use super::objects::{Listed, not_found, receipt};
use super::place::Place;
use crate::backend::AttemptError;
use crate::backend::errors::{Result, writing};
use crate::backend::files::{check_depth, stop_if_asked};
use crate::backend::listed::{Emit, ListedLine, write_listing};
use crate::backend::place::{Place as Beside, Staged, occupied};
use crate::disk::FileKind;
use crate::operation::Outcome;

impl Session<'_> {
    /// Writes an object to a file or, where none has that key and `folders`, all that is in the folder of that name.
    pub(super) fn get(&self, source: &Place, destination: &Path, folders: bool) -> Result<Outcome> {
        if !source.is_folder_name()
            && let Some(outcome) = self.get_object(source, destination)?
        {
            return Ok(outcome);
        }
        let objects = self.objects_in(source)?;
        match (objects.is_empty(), folders) {
            (true, _) => Err(not_found(source)),
            (false, true) => self.get_folder(source, &objects, destination),
            (false, false) => {
                let message =
                    format!("`{}` is a folder; `get` writes all that is in it", source.key);
                Err(AttemptError::permanent("is_directory", message))
            }
        }
    }

    /// None: there is no such object.
    fn get_object(&self, source: &Place, destination: &Path) -> Result<Option<Outcome>> {
        let (disk, bucket) = (&*self.backend.disk, self.bucket(source)?);
        let got = self
            .call(async |client| client.get_object().bucket(bucket).key(&source.key).send().await);
        let mut got = match got {
            Err(Trouble::Refused(refused)) if refused.is_not_found() => return Ok(None),
            other => self.has_etag(
                "GetObject",
                self.read("GetObject", other)?,
                |got| got.e_tag(),
                false,
            )?,
        };
        if disk.metadata(destination).is_ok_and(|there| there.kind == FileKind::Directory) {
            return Err(occupied(destination, "it is a directory"));
        }
        let expected = got.content_length().and_then(|size| u64::try_from(size).ok());
        let beside = Beside::beside(disk, self.request, destination)?;
        let mut file = Staged::create(disk, beside.staging.clone()).map_err(writing)?;
        // What is said of it can be compared with one of them.
        let mut digest =
            Digest::new(got.checksum_crc32().is_some_and(|crc32| !crc32.contains('-')));
        let mut body = std::mem::take(&mut got.body);
        self.receive(&mut body, &mut |data| {
            digest.update(data);
            file.write(data).map_err(writing)
        })?;
        let size = file.len();
        if expected.is_some_and(|expected| expected != size) {
            let sent =
                format!("{} sent {size} bytes of {}", self.backend.service, expected.unwrap_or(0));
            return Err(AttemptError::transient(
                "connection_lost",
                format!("{sent}; it is tried again"),
            ));
        }
        let said = Said {
            crc32: got.checksum_crc32(),
            etag: got.e_tag(),
            encryption: got.server_side_encryption(),
        };
        if digest.agrees(said) == Some(false) {
            return Err(self.spoilt());
        }
        file.publish(destination).map_err(writing)?;
        let given = [
            ("etag", got.e_tag()),
            ("version_id", got.version_id()),
            ("checksum_crc32", got.checksum_crc32()),
        ];
        let receipt = receipt(bucket, source, given);
        let destination = Some(destination.display().to_string());
        Ok(Some(Outcome { size: Some(size), destination, receipt, ..Outcome::default() }))
    }

    /// Hands on what comes, piece by piece.
    fn receive(
        &self,
        body: &mut ByteStream,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (threads, _) = self.read("GetObject", self.backend.caller.engine())?;
        loop {
            let next =
                threads.wait(self.attempt, self.spell, None, body.next()).map_err(Trouble::from);
            match self.read("GetObject", next)? {
                None => return Ok(()),
                Some(Ok(data)) => {
                    sink(&data)?;
                    self.attempt.add_bytes(data.len() as u64);
                }
                Some(Err(error)) if has_cause::<ChecksumMismatch>(&error) => {
                    let message = format!(
                        "what {} sent does not match its checksum; it is tried again",
                        self.backend.service
                    );
                    return Err(AttemptError::transient("damaged_content", message));
                }
                Some(Err(error)) => {
                    let trouble = Trouble::NoAnswer(last_cause(&error));
                    return Err(self.backend.fail("GetObject", trouble, false));
                }
            }
        }
    }

    fn spoilt(&self) -> AttemptError {
        let message = format!(
            "what {} sent does not match its checksum; it is tried again",
            self.backend.service
        );
        AttemptError::transient("damaged_content", message)
    }

    /// The files appear one by one, each whole.
    fn get_folder(
        &self,
        source: &Place,
        objects: &[Listed],
        destination: &Path,
    ) -> Result<Outcome> {
        let disk = &*self.backend.disk;
        if disk.metadata(destination).is_ok_and(|there| there.kind != FileKind::Directory) {
            return Err(occupied(destination, "it is no directory"));
        }
        let prefix = source.prefix();
        let paths = objects.iter().map(|object| path_below(destination, &prefix, &object.key));
        let paths = paths.collect::<Result<Vec<PathBuf>>>()?;
        self.attempt.expect_bytes(objects.iter().map(|object| object.size).sum());
        disk.create_dir_all_synced(destination).map_err(writing)?;
        let (mut count, mut bytes) = (0, 0);
        for (object, path) in objects.iter().zip(&paths) {
            stop_if_asked(self.attempt)?;
            if object.key.ends_with('/') && !object.is_mark() {
                let message = format!(
                    "`{}` has content, and would be a file and a directory on this machine: give it another key first",
                    object.key
                );
                return Err(AttemptError::permanent("unsupported_name", message));
            }
            let directory = if object.is_mark() { Some(&**path) } else { path.parent() };
            if let Some(directory) = directory {
                disk.create_dir_all_synced(directory).map_err(writing)?;
            }
            if object.is_mark() {
                continue;
            }
            let place = Place { bucket: source.bucket.clone(), key: object.key.clone() };
            let Some(outcome) = self.get_object(&place, path)? else {
                let message = format!(
                    "`{}` was removed while its folder was fetched; it is tried again",
                    object.key
                );
                return Err(AttemptError::transient("not_found", message));
            };
            count += 1;
            bytes += outcome.size.unwrap_or(0);
        }
        let outcome = self.outcome_of_many(source, count, bytes)?;
        Ok(Outcome { destination: Some(destination.display().to_string()), ..outcome })
    }

    pub(super) fn list(&self, place: &Place, destination: Option<&Path>) -> Result<Outcome> {
        write_listing(
            &*self.backend.disk,
            self.request,
            self.attempt,
            destination,
            &mut |emit: Emit<'_>| {
                let prefix = place.prefix();
                let mut found = prefix.is_empty();
                let name_of = |key: &str| {
                    key.strip_prefix(&prefix).map(|name| name.trim_end_matches('/').to_owned())
                };
                self.each_page(place, Some("/"), &mut |page| {
                    found |= !page.contents().is_empty() || !page.common_prefixes().is_empty();
                    for folder in page.common_prefixes() {
                        let name = folder.prefix().and_then(name_of);
                        emit(&ListedLine {
                            name,
                            kind: "directory",
                            cid: None,
                            size: None,
                            target: None,
                            pinned: None,
                        })?;
                    }
                    for object in page.contents() {
                        // The folder's own mark.
                        let Some(name) =
                            object.key().and_then(name_of).filter(|name| !name.is_empty())
                        else {
                            continue;
                        };
                        let size = object.size().and_then(|size| u64::try_from(size).ok());
                        emit(&ListedLine {
                            name: Some(name),
                            kind: "file",
                            cid: None,
                            size,
                            target: None,
                            pinned: None,
                        })?;
                    }
                    Ok(())
                })?;
                if found { Ok(()) } else { Err(not_found(place)) }
            },
        )
    }
}

/// Where an object of a folder goes; a key that could lead elsewhere on this machine is refused.
fn path_below(destination: &Path, prefix: &str, key: &str) -> Result<PathBuf> {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let is_bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if !rest.is_empty() && rest.split('/').any(is_bad) {
        let message =
            format!("`{key}` cannot be a path on this machine; fetch that object by itself");
        return Err(AttemptError::permanent("unsupported_name", message));
    }
    check_depth(destination, rest.split('/').count())?;
    Ok(if rest.is_empty() { destination.to_owned() } else { destination.join(rest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_nowhere_else() {
        let path = |key: &str| path_below(Path::new("/to"), "a/", key);
        for (key, expected) in
            [("a/b", "/to/b"), ("a/b/c", "/to/b/c"), ("a/", "/to"), ("a/b/", "/to/b")]
        {
            assert_eq!(path(key).unwrap(), Path::new(expected), "{key}");
        }
        for key in ["a/../b", "a//b", "a/./b", "a/b//", "a/x\0y"] {
            assert!(path(key).is_err(), "{key}");
        }
        assert!(path(&format!("a/{}", "d/".repeat(300))).is_err());
    }
}
