//! Objects: put, fetched, listed, copied, removed.

use std::ops::Range;
use std::path::Path;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::task::JoinHandle;

use super::Session;
use super::client::wait;
use super::errors::Trouble;
use super::place::{Place, refuse_into_itself};
use super::send;
use crate::backend::errors::{Result, writing};
use crate::backend::files::{
    Expected, Opened, check_depth, entries_on_disk, find_user_file, stop_if_asked, unsupported_file,
};
use crate::backend::listed::{Emit, ListedLine, write_listing};
use crate::backend::place::{Place as Beside, Staged};
use crate::backend::{Answer, AttemptError};
use crate::disk::FileKind;
use crate::operation::{Fields, Outcome};

/// The metadata by which an object names the operation that put it.
pub(super) const OPERATION: &str = "wal-cli-operation";

/// What is read at a time.
const PIECE: usize = 256 << 10;

/// What may stand as it is in the source of a copy.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl Session<'_> {
    pub(super) fn put(&self, path: &Path, destination: &Place, recursive: bool) -> Result<Outcome> {
        let disk = &*self.backend.disk;
        let file = find_user_file(disk, self.attempt, path, recursive, self.request)?;
        match file.kind {
            FileKind::File => self.put_file(&file.path, file.expected, destination),
            FileKind::Directory => {
                let mut total = Total::default();
                self.put_directory(&file.path, destination, 0, &mut total)?;
                let receipt = Fields::from([("objects".into(), total.objects.to_string())]);
                Ok(Outcome { size: Some(total.bytes), receipt, ..self.outcome_at(destination)? })
            }
            _ => Err(unsupported_file(path)),
        }
    }

    fn put_directory(&self, path: &Path, destination: &Place, depth: usize, total: &mut Total) -> Result<()> {
        check_depth(path, depth)?;
        let disk = &*self.backend.disk;
        for (name, kind) in entries_on_disk(disk, path)? {
            stop_if_asked(self.attempt)?;
            let (path, place) = (path.join(&name), destination.join(&name));
            match kind {
                FileKind::Directory => self.put_directory(&path, &place, depth + 1, total)?,
                FileKind::File => {
                    let outcome = self.put_file(&path, Expected::Anything, &place)?;
                    total.objects += 1;
                    total.bytes += outcome.size.unwrap_or(0);
                }
                _ => return Err(unsupported_file(&path)),
            }
        }
        Ok(())
    }

    fn put_file(&self, path: &Path, expected: Expected<'_>, destination: &Place) -> Result<Outcome> {
        let opened = Opened::new(&*self.backend.disk, path, expected)?;
        // Of a directory's files none is so large that it has to be resumed: they share one number.
        let is_one = !matches!(expected, Expected::Anything) || self.request.parameters.get("recursive").is_none();
        if opened.len() > self.backend.options.part_size && is_one {
            return self.put_in_parts(&opened, destination);
        }
        let bucket = self.bucket(destination)?.to_owned();
        let (_, client) = self.read("PutObject", self.backend.caller.engine())?;
        let put = self.streamed("PutObject", &opened, 0..opened.len(), |body| {
            let put = client.put_object().bucket(&bucket).key(&destination.key);
            let put = put.content_length(i64::try_from(opened.len()).unwrap_or(i64::MAX));
            put.metadata(OPERATION, self.request.id.to_string()).body(body).send()
        })?;
        opened.check_read(opened.len())?;
        let receipt = receipt_of(&bucket, destination, &put);
        Ok(Outcome { size: Some(opened.len()), receipt, ..self.outcome_at(destination)? })
    }

    /// Sends a part of a file as the body of a call.
    pub(super) fn streamed<T, E, F>(
        &self,
        name: &str,
        opened: &Opened,
        range: Range<u64>,
        start: impl FnOnce(ByteStream) -> F,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, SdkError<E>>> + Send + 'static,
        T: Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (runtime, _) = self.read(name, self.backend.caller.engine())?;
        let (pieces, body) = send::body(range.end - range.start);
        let mut call = Call(runtime.spawn(start(body)));
        if let Err(Fed::Failed(error)) = self.feed(name, opened, range, pieces) {
            return Err(error);
        }
        let answer = wait(runtime, self.attempt, self.spell, &mut call.0).and_then(|joined| match joined {
            Ok(answer) => answer.map_err(Trouble::from),
            Err(error) => Err(Trouble::NoAnswer(error.to_string())),
        });
        self.acted(name, answer)
    }

    /// Reads a part of a file and hands its pieces on.
    fn feed(
        &self,
        name: &str,
        opened: &Opened,
        range: Range<u64>,
        pieces: send::Pieces,
    ) -> std::result::Result<(), Fed> {
        let (runtime, _) = self.backend.caller.engine().map_err(|_| Fed::Unwanted)?;
        let mut buffer = vec![0; PIECE];
        let mut offset = range.start;
        while offset < range.end {
            stop_if_asked(self.attempt).map_err(Fed::Failed)?;
            let wanted = PIECE.min(usize::try_from(range.end - offset).unwrap_or(PIECE));
            let read = opened.read_at(&mut buffer[..wanted], offset).map_err(Fed::Failed)?;
            if read == 0 {
                // It has become shorter: the call cannot succeed, and what is said of it is that.
                return Err(Fed::Failed(opened.check_read(offset).err().unwrap_or(AttemptError::Stopped)));
            }
            let sent = wait(runtime, self.attempt, self.spell, pieces.send(Bytes::copy_from_slice(&buffer[..read])));
            match sent {
                Ok(Ok(())) => {}
                // The call has ended: what it says is what counts.
                Ok(Err(_)) => return Err(Fed::Unwanted),
                Err(trouble) => return Err(Fed::Failed(self.backend.fail(name, trouble, false))),
            }
            self.attempt.add_bytes(read as u64);
            offset += read as u64;
        }
        Ok(())
    }

    pub(super) fn ask_put(&self, destination: &Place) -> Result<Answer> {
        let Some(there) = self.head(destination)? else { return Ok(Answer::NotDone) };
        let id = self.request.id.to_string();
        if there.metadata().and_then(|metadata| metadata.get(OPERATION)) != Some(&id) {
            return Ok(Answer::NotDone);
        }
        let mut receipt = place_of(self.bucket(destination)?, destination);
        receipt.extend(there.e_tag().map(|etag| ("etag".to_owned(), etag.to_owned())));
        receipt.extend(there.version_id().map(|version| ("version_id".to_owned(), version.to_owned())));
        let size = there.content_length().and_then(|size| u64::try_from(size).ok());
        Ok(Answer::Done(Outcome { size, receipt, ..self.outcome_at(destination)? }))
    }

    /// What the service knows of an object; none: there is none.
    fn head(&self, place: &Place) -> Result<Option<HeadObjectOutput>> {
        let bucket = self.bucket(place)?;
        let head = self.call(async |client| client.head_object().bucket(bucket).key(&place.key).send().await);
        match head {
            Err(Trouble::Refused(refused)) if refused.is_not_found() => Ok(None),
            other => self.read("HeadObject", other).map(Some),
        }
    }

    pub(super) fn get(&self, source: &Place, destination: &Path) -> Result<Outcome> {
        let bucket = self.bucket(source)?;
        let got = self.call(async |client| client.get_object().bucket(bucket).key(&source.key).send().await);
        let mut got = self.read("GetObject", got)?;
        let size = got.content_length().and_then(|size| u64::try_from(size).ok());
        size.into_iter().for_each(|size| self.attempt.expect_bytes(size));
        let disk = &*self.backend.disk;
        let beside = Beside::beside(disk, self.request, destination)?;
        let mut file = Staged::create(disk, beside.staging.clone()).map_err(writing)?;
        let (runtime, _) = self.read("GetObject", self.backend.caller.engine())?;
        loop {
            let next = self.read("GetObject", wait(runtime, self.attempt, self.spell, got.body.next()))?;
            match next {
                None => break,
                Some(Ok(data)) => {
                    file.write(&data).map_err(writing)?;
                    self.attempt.add_bytes(data.len() as u64);
                }
                Some(Err(error)) => {
                    return Err(self.backend.fail("GetObject", Trouble::NoAnswer(error.to_string()), false));
                }
            }
        }
        if size.is_some_and(|size| size != file.len()) {
            let message = format!(
                "{} sent {} bytes of {}; it is tried again",
                self.backend.service,
                file.len(),
                size.unwrap_or(0)
            );
            return Err(AttemptError::transient("connection_lost", message));
        }
        let size = file.len();
        file.publish(destination).map_err(writing)?;
        let mut receipt = place_of(bucket, source);
        receipt.extend(got.e_tag.map(|etag| ("etag".to_owned(), etag)));
        let destination = Some(destination.display().to_string());
        Ok(Outcome { size: Some(size), destination, receipt, ..Outcome::default() })
    }

    /// The keys of all that is in a folder.
    fn keys_in(&self, place: &Place) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        self.each_page(place, None, &mut |page| {
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
            Ok(())
        })?;
        Ok(keys)
    }

    fn each_page(
        &self,
        place: &Place,
        delimiter: Option<&str>,
        each: &mut dyn FnMut(&aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output) -> Result<()>,
    ) -> Result<()> {
        let (bucket, prefix) = (self.bucket(place)?, place.prefix());
        let mut token = None;
        loop {
            stop_if_asked(self.attempt)?;
            let listed = self.call(async |client| {
                let list = client.list_objects_v2().bucket(bucket).prefix(&prefix);
                list.set_delimiter(delimiter.map(str::to_owned)).set_continuation_token(token.take()).send().await
            });
            let page = self.read("ListObjectsV2", listed)?;
            each(&page)?;
            token = page.next_continuation_token().map(str::to_owned).filter(|_| page.is_truncated() == Some(true));
            if token.is_none() {
                return Ok(());
            }
        }
    }

    pub(super) fn list(&self, place: &Place, destination: Option<&Path>) -> Result<Outcome> {
        write_listing(&*self.backend.disk, self.request, self.attempt, destination, &mut |emit: Emit<'_>| {
            let prefix = place.prefix();
            let mut found = prefix.is_empty();
            let name_of = |key: &str| key.strip_prefix(&prefix).map(|name| name.trim_end_matches('/').to_owned());
            self.each_page(place, Some("/"), &mut |page| {
                found |= !page.contents().is_empty() || !page.common_prefixes().is_empty();
                for folder in page.common_prefixes() {
                    let name = folder.prefix().and_then(name_of);
                    emit(&ListedLine { name, kind: "directory", cid: None, size: None, target: None, pinned: None })?;
                }
                for object in page.contents() {
                    // The folder's own mark.
                    let Some(name) = object.key().and_then(name_of).filter(|name| !name.is_empty()) else { continue };
                    let size = object.size().and_then(|size| u64::try_from(size).ok());
                    emit(&ListedLine { name: Some(name), kind: "file", cid: None, size, target: None, pinned: None })?;
                }
                Ok(())
            })?;
            if found { Ok(()) } else { Err(not_found(place)) }
        })
    }

    pub(super) fn make_folder(&self, place: &Place) -> Result<Outcome> {
        if self.head(place)?.is_some() {
            let message = format!("`{}` is an object; choose another key", place.key);
            return Err(AttemptError::permanent("destination_exists", message));
        }
        let (bucket, mark) = (self.bucket(place)?, place.prefix());
        let put = self.call(async |client| {
            let put = client.put_object().bucket(bucket).key(&mark).content_length(0);
            put.metadata(OPERATION, self.request.id.to_string()).send().await
        });
        self.acted("PutObject", put)?;
        self.outcome_at(place)
    }

    pub(super) fn remove(&self, place: &Place, recursive: bool) -> Result<Outcome> {
        if self.head(place)?.is_some() {
            self.delete(place, &place.key)?;
            return Ok(Outcome::default());
        }
        let keys = self.keys_in(place)?;
        match (keys.is_empty(), recursive) {
            (true, _) => Err(not_found(place)),
            (false, false) => {
                let message = format!("`{}` is a folder; remove it with `recursive=true`", place.key);
                Err(AttemptError::permanent("is_directory", message))
            }
            (false, true) => {
                keys.iter().try_for_each(|key| self.delete(place, key))?;
                Ok(Outcome {
                    receipt: Fields::from([("objects".into(), keys.len().to_string())]),
                    ..Outcome::default()
                })
            }
        }
    }

    fn delete(&self, place: &Place, key: &str) -> Result<()> {
        stop_if_asked(self.attempt)?;
        let bucket = self.bucket(place)?;
        let deleted = self.call(async |client| client.delete_object().bucket(bucket).key(key).send().await);
        self.acted("DeleteObject", deleted).map(drop)
    }

    pub(super) fn ask_removed(&self, place: &Place) -> Result<Answer> {
        let there = self.head(place)?.is_some() || !self.keys_in(place)?.is_empty();
        Ok(if there { Answer::NotDone } else { Answer::Done(Outcome::default()) })
    }

    pub(super) fn copy(&self, source: &Place, destination: &Place) -> Result<Outcome> {
        refuse_into_itself(source, destination)?;
        self.copy_all(source, destination)?;
        self.outcome_at(destination)
    }

    /// Copies an object, or all that is in a folder; the keys of what was copied.
    fn copy_all(&self, source: &Place, destination: &Place) -> Result<Vec<String>> {
        if self.head(source)?.is_some() {
            self.copy_object(source, &source.key, destination, &destination.key)?;
            return Ok(vec![source.key.clone()]);
        }
        let keys = self.keys_in(source)?;
        if keys.is_empty() {
            return Err(not_found(source));
        }
        let (from, to) = (source.prefix(), destination.prefix());
        for key in &keys {
            let rest = key.strip_prefix(&from).unwrap_or(key);
            self.copy_object(source, key, destination, &format!("{to}{rest}"))?;
        }
        Ok(keys)
    }

    fn copy_object(&self, source: &Place, from: &str, destination: &Place, to: &str) -> Result<()> {
        stop_if_asked(self.attempt)?;
        let (bucket, origin) = (self.bucket(destination)?, self.bucket(source)?);
        let origin = format!("{origin}/{}", utf8_percent_encode(from, KEY));
        let copied =
            self.call(async |client| client.copy_object().bucket(bucket).key(to).copy_source(&origin).send().await);
        self.acted("CopyObject", copied).map(drop)
    }

    pub(super) fn move_object(&self, source: &Place, destination: &Place) -> Result<Outcome> {
        refuse_into_itself(source, destination)?;
        let keys = self.copy_all(source, destination)?;
        keys.iter().try_for_each(|key| self.delete(source, key))?;
        self.outcome_at(destination)
    }

    pub(super) fn ask_moved(&self, source: &Place, destination: &Place) -> Result<Answer> {
        let is_there =
            |place: &Place| -> Result<bool> { Ok(self.head(place)?.is_some() || !self.keys_in(place)?.is_empty()) };
        Ok(match (is_there(source)?, is_there(destination)?) {
            (true, _) => Answer::NotDone,
            (false, true) => Answer::Done(self.outcome_at(destination)?),
            (false, false) => Answer::Unknown(format!("neither `{}` nor `{}` is there", source.key, destination.key)),
        })
    }

    pub(super) fn outcome_at(&self, place: &Place) -> Result<Outcome> {
        let destination = Some(format!("s3://{}/{}", self.bucket(place)?, place.key));
        Ok(Outcome { destination, ..Outcome::default() })
    }
}

/// A call under way; dropping it breaks it off.
struct Call<T>(JoinHandle<T>);

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why what was read was not sent.
enum Fed {
    /// The call has ended before all of it was sent.
    Unwanted,
    /// Reading failed, or the attempt is over.
    Failed(AttemptError),
}

#[derive(Default)]
struct Total {
    objects: u64,
    bytes: u64,
}

fn place_of(bucket: &str, place: &Place) -> Fields {
    Fields::from([("bucket".into(), bucket.to_owned()), ("key".into(), place.key.clone())])
}

/// What the service gave for an object that was put.
fn receipt_of(bucket: &str, place: &Place, put: &PutObjectOutput) -> Fields {
    let mut receipt = place_of(bucket, place);
    let mut add = |name: &str, value: Option<&str>| {
        receipt.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    };
    add("etag", put.e_tag());
    add("version_id", put.version_id());
    add("checksum_crc32", put.checksum_crc32());
    add("checksum_sha256", put.checksum_sha256());
    receipt
}

fn not_found(place: &Place) -> AttemptError {
    AttemptError::permanent("not_found", format!("there is no `{}`; `list` shows what there is", place.key))
}
