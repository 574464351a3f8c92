//! Fetching objects and folders.

use std::path::{Path, PathBuf};

use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_checksums::body::validate::Error as ChecksumMismatch;

use super::checksum::{Comparison, ContentDigest, ReportedChecksum};
use super::errors::{S3Error, has_cause, innermost_cause};
use super::location::Location;
use super::objects::{ListedObject, not_found, receipt};
use super::{CallContext, S3Session, SideEffect};
use crate::backend::AttemptError;
use crate::backend::atomic::{AtomicWriter, Staged, destination_exists};
use crate::backend::errors::{Result, writing};
use crate::backend::files::{check_depth, stop_if_asked};
use crate::disk::FileKind;
use crate::operation::Outcome;

impl S3Session<'_> {
    /// Writes an object to a file. If no object has the key, `folders` allows to write everything
    /// in the folder of that name.
    pub(super) fn get(
        &self,
        source: &Location,
        destination: &Path,
        folders: bool,
    ) -> Result<Outcome> {
        if !source.is_folder_name()
            && let Some(outcome) = self.get_object(source, destination)?
        {
            return Ok(outcome);
        }
        let objects = self.context.objects_in(source)?;
        match (objects.is_empty(), folders) {
            (true, _) => Err(not_found(source)),
            (false, true) => self.get_folder(source, &objects, destination),
            (false, false) => {
                let message =
                    format!("`{}` is a folder; use `get` to fetch everything in it", source.key);
                Err(AttemptError::permanent("is_directory", message))
            }
        }
    }

    /// Writes an object to a file; returns `None` if it does not exist.
    fn get_object(&self, source: &Location, destination: &Path) -> Result<Option<Outcome>> {
        let context = &self.context;
        let (disk, bucket) = (&*context.backend.disk, context.bucket(source)?);
        let got = context
            .call(async |client| client.get_object().bucket(bucket).key(&source.key).send().await);
        let mut got = match got {
            Err(S3Error::Rejected(rejection)) if rejection.is_not_found() => return Ok(None),
            got => {
                let got = context.after_read("GetObject", got)?;
                context.require_etag("GetObject", got, |got| got.e_tag(), SideEffect::None)?
            }
        };
        if disk.metadata(destination).is_ok_and(|metadata| metadata.kind == FileKind::Directory) {
            return Err(destination_exists(destination, "it is a directory"));
        }
        let expected = got.content_length().and_then(|size| u64::try_from(size).ok());
        let writer = AtomicWriter::beside(disk, self.request, destination)?;
        let mut file = Staged::create(disk, writer.staging.clone()).map_err(writing)?;
        // The kind of checksum that the response can be compared with.
        let has_crc32 = got.checksum_crc32().is_some_and(|crc32| !crc32.contains('-'));
        let mut digest = ContentDigest::for_service(has_crc32);
        let mut body = std::mem::take(&mut got.body);
        context.receive_body(&mut body, &mut |data| {
            digest.update(data);
            file.write(data).map_err(writing)
        })?;
        let size = file.len();
        if let Some(expected) = expected.filter(|expected| *expected != size) {
            let message = format!(
                "{} sent {size} of {expected} bytes; it will be fetched again",
                context.backend.service
            );
            return Err(AttemptError::transient("connection_lost", message));
        }
        let reported = ReportedChecksum {
            crc32: got.checksum_crc32(),
            etag: got.e_tag(),
            encryption: got.server_side_encryption(),
        };
        if digest.compare(reported) == Comparison::Mismatch {
            return Err(context.checksum_mismatch());
        }
        file.publish(destination).map_err(writing)?;
        let reported = [
            ("etag", got.e_tag()),
            ("version_id", got.version_id()),
            ("checksum_crc32", got.checksum_crc32()),
        ];
        let receipt = receipt(bucket, source, reported);
        let destination = Some(destination.display().to_string());
        Ok(Some(Outcome { size: Some(size), destination, receipt, ..Outcome::default() }))
    }

    /// Writes all objects of a folder. The files appear one by one, each of them complete.
    fn get_folder(
        &self,
        source: &Location,
        objects: &[ListedObject],
        destination: &Path,
    ) -> Result<Outcome> {
        let context = &self.context;
        let disk = &*context.backend.disk;
        if disk.metadata(destination).is_ok_and(|metadata| metadata.kind != FileKind::Directory) {
            return Err(destination_exists(destination, "it is not a directory"));
        }
        let prefix = source.prefix();
        let paths = objects.iter().map(|object| path_below(destination, &prefix, &object.key));
        let paths = paths.collect::<Result<Vec<PathBuf>>>()?;
        context.attempt.expect_bytes(objects.iter().map(|object| object.size).sum());
        disk.create_dir_all_synced(destination).map_err(writing)?;
        let (mut count, mut bytes) = (0, 0);
        for (object, path) in objects.iter().zip(&paths) {
            stop_if_asked(context.attempt)?;
            let (key, is_marker) = (&object.key, object.is_folder_marker());
            if key.ends_with('/') && !is_marker {
                let message = format!(
                    "`{key}` has content, and would be a file and a directory on this machine; \
                     give it another key first"
                );
                return Err(AttemptError::permanent("unsupported_name", message));
            }
            let directory = if is_marker { Some(&**path) } else { path.parent() };
            if let Some(directory) = directory {
                disk.create_dir_all_synced(directory).map_err(writing)?;
            }
            if is_marker {
                continue;
            }
            let Some(outcome) = self.get_object(&source.with_key(key), path)? else {
                let message =
                    format!("`{key}` was removed while its folder was fetched; it will be retried");
                return Err(AttemptError::transient("not_found", message));
            };
            count += 1;
            bytes += outcome.size.unwrap_or(0);
        }
        let outcome = context.outcome_of_many(source, count, bytes)?;
        Ok(Outcome { destination: Some(destination.display().to_string()), ..outcome })
    }
}

impl CallContext<'_> {
    /// Passes the body of a response to `sink`, piece by piece.
    pub(super) fn receive_body(
        &self,
        body: &mut ByteStream,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (runtime, _) = self.after_read("GetObject", self.backend.client.get())?;
        loop {
            let next = runtime.wait(self.attempt, self.deadline, None, body.next());
            match self.after_read("GetObject", next.map_err(S3Error::from))? {
                None => return Ok(()),
                Some(Ok(data)) => {
                    sink(&data)?;
                    self.attempt.add_bytes(data.len() as u64);
                }
                Some(Err(error)) if has_cause::<ChecksumMismatch>(&error) => {
                    return Err(self.checksum_mismatch());
                }
                Some(Err(error)) => {
                    let error = S3Error::ConnectionLost(innermost_cause(&error));
                    return self.after_read("GetObject", Err(error));
                }
            }
        }
    }

    fn checksum_mismatch(&self) -> AttemptError {
        let message = format!(
            "the content from {} does not match its checksum; it will be fetched again",
            self.backend.service
        );
        AttemptError::transient("damaged_content", message)
    }
}

/// Returns where an object of a folder goes; fails if its key could lead outside `destination`.
fn path_below(destination: &Path, prefix: &str, key: &str) -> Result<PathBuf> {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let is_bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if !rest.is_empty() && rest.split('/').any(is_bad) {
        let message = format!("`{key}` is not a valid path on this machine; fetch it by itself");
        return Err(AttemptError::permanent("unsupported_name", message));
    }
    check_depth(destination, rest.split('/').count())?;
    Ok(if rest.is_empty() { destination.to_owned() } else { destination.join(rest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_escape_the_destination() {
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
