//! Folders made, objects copied, moved and removed.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Session;
use super::errors::{Refused, Trouble};
use super::multipart::{Origin, Original};
use super::objects::{Listed, OPERATION, not_found, size_of};
use super::place::{Place, refuse_into_itself};
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::backend::{Answer, AttemptError};
use crate::operation::{Fields, Outcome};

/// What may stand as it is in the source of a copy.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl Session<'_> {
    pub(super) fn make_folder(&self, place: &Place) -> Result<Outcome> {
        let bare = Place { key: place.key.trim_end_matches('/').to_owned(), ..place.clone() };
        if self.head(&bare)?.is_some() {
            let message = format!("`{}` is an object; choose another key", bare.key);
            return Err(AttemptError::permanent("destination_exists", message));
        }
        let (bucket, mark) = (self.bucket(place)?, place.prefix());
        let put = self.call(async |client| {
            let put = client.put_object().bucket(bucket).key(&mark).content_length(0);
            put.metadata(OPERATION, self.request.id.to_string()).send().await
        });
        self.has_etag("PutObject", self.acted("PutObject", put)?, |put| put.e_tag(), true)?;
        self.outcome_at(place)
    }

    pub(super) fn remove(&self, place: &Place, recursive: bool) -> Result<Outcome> {
        if self.head(place)?.is_some() {
            self.delete(place, &place.key)?;
            return match self.head(place)? {
                None => Ok(Outcome::default()),
                Some(_) => Err(self.still_there()),
            };
        }
        let objects = self.objects_in(place)?;
        match (objects.is_empty(), recursive) {
            (true, _) => Err(not_found(place)),
            (false, false) => {
                let message = format!("`{}` is a folder; remove it with `recursive=true`", place.key);
                Err(AttemptError::permanent("is_directory", message))
            }
            (false, true) => {
                objects.iter().try_for_each(|object| self.delete(place, &object.key))?;
                if self.is_folder(place)? {
                    return Err(self.still_there());
                }
                let receipt = Fields::from([("objects".into(), objects.len().to_string())]);
                Ok(Outcome { receipt, ..Outcome::default() })
            }
        }
    }

    fn still_there(&self) -> AttemptError {
        let trouble = Trouble::Refused(Refused::nonsense("it is still there"));
        self.backend.fail("DeleteObject", trouble, true)
    }

    fn delete(&self, place: &Place, key: &str) -> Result<()> {
        stop_if_asked(self.attempt)?;
        let bucket = self.bucket(place)?;
        let deleted = self.call(async |client| client.delete_object().bucket(bucket).key(key).send().await);
        self.acted("DeleteObject", deleted).map(drop)
    }

    pub(super) fn ask_removed(&self, place: &Place) -> Result<Answer> {
        let is_there = self.is_there(place)?;
        Ok(if is_there { Answer::NotDone } else { Answer::Done(Outcome::default()) })
    }

    pub(super) fn copy(&self, source: &Place, destination: &Place) -> Result<Outcome> {
        refuse_into_itself(source, destination)?;
        Ok(self.copy_all(source, destination)?.0)
    }

    pub(super) fn move_object(&self, source: &Place, destination: &Place) -> Result<Outcome> {
        refuse_into_itself(source, destination)?;
        let (outcome, keys) = self.copy_all(source, destination)?;
        keys.iter().try_for_each(|key| self.delete(source, key))?;
        if self.is_there(source)? {
            return Err(self.still_there());
        }
        Ok(outcome)
    }

    /// Copies an object, or all that is in a folder; with the keys of what was copied.
    fn copy_all(&self, source: &Place, destination: &Place) -> Result<(Outcome, Vec<String>)> {
        if let Some(there) = self.head(source)? {
            return Ok((self.copy_object(source, &there, destination)?, vec![source.key.clone()]));
        }
        let objects = self.objects_in(source)?;
        if objects.is_empty() {
            return Err(not_found(source));
        }
        let bytes = objects.iter().map(|object| object.size).sum();
        let (from, to) = (source.prefix(), destination.prefix());
        let mut keys = Vec::with_capacity(objects.len());
        for Listed { key, .. } in objects {
            let origin = Place { bucket: source.bucket.clone(), key: key.clone() };
            let rest = key.strip_prefix(&from).unwrap_or(&key);
            let place = Place { bucket: destination.bucket.clone(), key: format!("{to}{rest}") };
            let there = self.existing(&origin)?;
            self.copy_object(&origin, &there, &place)?;
            keys.push(key);
        }
        Ok((self.outcome_of_many(destination, keys.len() as u64, bytes)?, keys))
    }

    /// Copies an object on the service, and looks whether all of it is there.
    fn copy_object(&self, source: &Place, there: &HeadObjectOutput, destination: &Place) -> Result<Outcome> {
        stop_if_asked(self.attempt)?;
        let (bucket, origin) = (self.bucket(destination)?, self.bucket(source)?);
        let origin = format!("{origin}/{}", utf8_percent_encode(&source.key, KEY));
        let size = size_of(there).unwrap_or(0);
        if size > self.backend.options.copy_max {
            let original = Original { origin, size, head: there };
            return self.put_in_parts(&Origin::Object(&original), destination, &original.options());
        }
        let copied = self.call(async |client| {
            let copy = client.copy_object().bucket(bucket).key(&destination.key).copy_source(&origin);
            copy.set_copy_source_if_match(there.e_tag().map(str::to_owned)).send().await
        });
        self.acted("CopyObject", copied)?;
        let copy = self.existing(destination)?;
        if size_of(&copy) != Some(size) {
            return Err(self.damaged(destination));
        }
        self.outcome_of(destination, &copy)
    }

    pub(super) fn ask_moved(&self, source: &Place, destination: &Place) -> Result<Answer> {
        if self.is_there(source)? {
            return Ok(Answer::NotDone);
        }
        if let Some(there) = self.head(destination)? {
            return Ok(Answer::Done(self.outcome_of(destination, &there)?));
        }
        let objects = self.objects_in(destination)?;
        if objects.is_empty() {
            let why = format!("neither `{}` nor `{}` is there", source.key, destination.key);
            return Ok(Answer::Unknown(why));
        }
        let bytes = objects.iter().map(|object| object.size).sum();
        Ok(Answer::Done(self.outcome_of_many(destination, objects.len() as u64, bytes)?))
    }

    /// Whether there is an object or a folder.
    fn is_there(&self, place: &Place) -> Result<bool> {
        Ok(self.head(place)?.is_some() || self.is_folder(place)?)
    }
}
