//! Folders made, objects copied, moved and removed.

use std::collections::BTreeSet;

use aws_sdk_s3::operation::copy_object::CopyObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Session;
use super::checks::same_etag;
use super::errors::{Refused, Trouble};
use super::multipart::{Origin, Original};
use super::objects::{OPERATION, not_found, receipt, size_of};
use super::place::{Place, refuse_into_itself};
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::backend::{AttemptError, AttemptStatus};
use crate::operation::{Fields, Outcome};

/// What may stand as it is in the source of a copy.
const KEY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// An object of a folder, as it was when it was copied.
struct Copied {
    key: String,
    etag: Option<String>,
}

impl Session<'_> {
    pub(super) fn make_folder(&self, place: &Place) -> Result<Outcome> {
        let bare = Place { key: place.key.trim_end_matches('/').to_owned(), ..place.clone() };
        let mark = Place { key: place.prefix(), ..place.clone() };
        let occupied = |key: &str| {
            AttemptError::permanent(
                "destination_exists",
                format!("`{key}` is an object; choose another key"),
            )
        };
        if self.head(&bare)?.is_some() {
            return Err(occupied(&bare.key));
        }
        // Somebody may keep something under a key like that of a folder.
        if self.head(&mark)?.is_some_and(|there| size_of(&there).is_some_and(|size| size > 0)) {
            return Err(occupied(&mark.key));
        }
        self.put_mark(&mark)?;
        self.outcome_at(place)
    }

    fn put_mark(&self, mark: &Place) -> Result<PutObjectOutput> {
        let bucket = self.bucket(mark)?;
        let put = self.call(async |client| {
            let put = client.put_object().bucket(bucket).key(&mark.key).content_length(0);
            put.metadata(OPERATION, self.request.id.to_string()).send().await
        });
        self.has_etag("PutObject", self.acted("PutObject", put)?, |put| put.e_tag(), true)
    }

    /// Removes an object; with `recursive`, and of what is written as a folder, also all that is below.
    pub(super) fn remove(&self, place: &Place, recursive: bool) -> Result<Outcome> {
        let is_object = !place.is_folder_name() && self.head(place)?.is_some();
        if !recursive {
            if is_object {
                self.delete(place, &place.key)?;
                return if self.head(place)?.is_some() {
                    Err(self.still_there())
                } else {
                    Ok(Outcome::default())
                };
            }
            if !self.is_folder(place)? {
                return Err(not_found(place));
            }
            let message = format!("`{}` is a folder; remove it with `recursive=true`", place.key);
            return Err(AttemptError::permanent("is_directory", message));
        }
        let objects = self.objects_in(place)?;
        if objects.is_empty() && !is_object {
            return Err(not_found(place));
        }
        objects.iter().try_for_each(|object| self.delete(place, &object.key))?;
        if is_object {
            self.delete(place, &place.key)?;
        }
        if self.is_there(place)? {
            return Err(self.still_there());
        }
        let count = objects.len() + usize::from(is_object);
        Ok(Outcome {
            receipt: Fields::from([("objects".into(), count.to_string())]),
            ..Outcome::default()
        })
    }

    fn still_there(&self) -> AttemptError {
        let trouble = Trouble::Refused(Refused::nonsense("it is still there"));
        self.backend.fail("DeleteObject", trouble, true)
    }

    fn delete(&self, place: &Place, key: &str) -> Result<()> {
        self.delete_version(place, key, None)
    }

    /// Deletes this version; none: what is there, of which a service that keeps versions keeps this one.
    pub(super) fn delete_version(
        &self,
        place: &Place,
        key: &str,
        version: Option<&str>,
    ) -> Result<()> {
        stop_if_asked(self.attempt)?;
        let bucket = self.bucket(place)?;
        let deleted = self.call(async |client| {
            client
                .delete_object()
                .bucket(bucket)
                .key(key)
                .set_version_id(version.map(str::to_owned))
                .send()
                .await
        });
        self.acted("DeleteObject", deleted).map(drop)
    }

    pub(super) fn ask_removed(&self, place: &Place) -> Result<AttemptStatus> {
        Ok(if self.is_there(place)? {
            AttemptStatus::NotDone
        } else {
            AttemptStatus::Done(Outcome::default())
        })
    }

    pub(super) fn copy(&self, source: &Place, destination: &Place) -> Result<Outcome> {
        refuse_into_itself(source, destination)?;
        match self.object_at(source)? {
            Some(there) => self.copy_object(source, &there, &destination.for_object(source)),
            None => self.copy_folder(source, destination).map(|(outcome, _)| outcome),
        }
    }

    pub(super) fn move_object(&self, source: &Place, destination: &Place) -> Result<Outcome> {
        refuse_into_itself(source, destination)?;
        if let Some(there) = self.object_at(source)? {
            let outcome = self.copy_object(source, &there, &destination.for_object(source))?;
            self.delete_copied(source, there.e_tag())?;
            return if self.head(source)?.is_some() {
                Err(self.still_there())
            } else {
                Ok(outcome)
            };
        }
        let (outcome, copied) = self.copy_folder(source, destination)?;
        for Copied { key, etag } in copied {
            let origin = Place { bucket: source.bucket.clone(), key };
            self.delete_copied(&origin, etag.as_deref())?;
        }
        if self.is_folder(source)? { Err(self.still_there()) } else { Ok(outcome) }
    }

    /// Removes what was copied: what somebody has put there since was not.
    fn delete_copied(&self, origin: &Place, etag: Option<&str>) -> Result<()> {
        // Some services take the condition below without a word, and do not mind it.
        let removed = match self.head(origin)? {
            Some(now) if same_etag(now.e_tag(), etag) => self.delete_same(origin, etag)?,
            Some(_) => false,
            None => true,
        };
        if removed {
            return Ok(());
        }
        let message =
            format!("`{}` was replaced while it was moved; it is tried again", origin.key);
        Err(AttemptError::transient("conflict", message))
    }

    /// Deletes an object which had this etag a moment ago, if it still has. False: it has another one.
    pub(super) fn delete_same(&self, place: &Place, etag: Option<&str>) -> Result<bool> {
        stop_if_asked(self.attempt)?;
        let bucket = self.bucket(place)?;
        let deleted = self.call(async |client| {
            client
                .delete_object()
                .bucket(bucket)
                .key(&place.key)
                .set_if_match(etag.map(str::to_owned))
                .send()
                .await
        });
        match deleted {
            Err(Trouble::Refused(refused)) if refused.is_not_found() => Ok(true),
            // That is also what services say of one that is gone, as it is when the same call comes by twice.
            Err(Trouble::Refused(refused)) if refused.is_occupied() => match self.head(place)? {
                None => Ok(true),
                Some(now) if !same_etag(now.e_tag(), etag) => Ok(false),
                Some(_) => self.delete(place, &place.key).map(|()| true),
            },
            // It takes no conditions here.
            Err(Trouble::Refused(refused)) if refused.is_misunderstood() => {
                self.delete(place, &place.key).map(|()| true)
            }
            deleted => self.acted("DeleteObject", deleted).map(|_| true),
        }
    }

    /// The object of that key, if it can be one.
    fn object_at(&self, place: &Place) -> Result<Option<HeadObjectOutput>> {
        if place.is_folder_name() { Ok(None) } else { self.head(place) }
    }

    /// Copies all that is in a folder; with the keys and etags of what was copied.
    fn copy_folder(&self, source: &Place, destination: &Place) -> Result<(Outcome, Vec<Copied>)> {
        let objects = self.objects_in(source)?;
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
                "`{key}` would go to `{onto}`, which is in the same folder; choose another key"
            );
            return Err(AttemptError::permanent("bad_path", message));
        }
        let mut copied = Vec::with_capacity(objects.len());
        for object in &objects {
            let key = &object.key;
            let origin = Place { bucket: source.bucket.clone(), key: key.clone() };
            let place = Place { bucket: destination.bucket.clone(), key: target(key) };
            let there = self.existing(&origin)?;
            match object.is_mark() {
                // Not every service copies them.
                true => drop(self.put_mark(&place)?),
                false => drop(self.copy_object(&origin, &there, &place)?),
            }
            copied.push(Copied { key: key.clone(), etag: there.e_tag().map(str::to_owned) });
        }
        Ok((self.outcome_of_many(destination, copied.len() as u64, bytes)?, copied))
    }

    /// Copies an object on the service, and looks whether all of it is there.
    fn copy_object(
        &self,
        source: &Place,
        there: &HeadObjectOutput,
        destination: &Place,
    ) -> Result<Outcome> {
        stop_if_asked(self.attempt)?;
        let (bucket, origin) = (self.bucket(destination)?, self.bucket(source)?);
        let origin = format!("{origin}/{}", utf8_percent_encode(&source.key, KEY));
        let size = size_of(there).unwrap_or(0);
        if size > self.backend.options.copy_max {
            let original = Original { origin, size, head: there };
            return self.put_in_parts(&Origin::Object(&original), destination, &original.options());
        }
        let copied = self.call(async |client| {
            let copy =
                client.copy_object().bucket(bucket).key(&destination.key).copy_source(&origin);
            copy.set_copy_source_if_match(there.e_tag().map(str::to_owned)).send().await
        });
        let copied = match copied {
            // It was replaced since we looked at it.
            Err(Trouble::Refused(refused)) if refused.is_occupied() => {
                let trouble =
                    Trouble::Refused(Refused { code: "OperationAborted".into(), ..refused });
                return Err(self.backend.fail("CopyObject", trouble, false));
            }
            copied => self.acted("CopyObject", copied)?,
        };
        let given =
            |copied: &CopyObjectOutput| copied.copy_object_result()?.e_tag().map(str::to_owned);
        let etag = given(&copied);
        match self.head(destination) {
            Ok(Some(copy)) if etag.is_none() || same_etag(copy.e_tag(), etag.as_deref()) => {
                match size_of(&copy) == Some(size) {
                    true => self.outcome_of(destination, &copy),
                    false => Err(self.damaged(destination, copy.e_tag())),
                }
            }
            // It was there; that it is gone, is another one or cannot be looked at now changes nothing of that.
            _ if etag.is_some() => {
                let given = [("etag", etag.as_deref()), ("version_id", copied.version_id())];
                let receipt = receipt(bucket, destination, given);
                Ok(Outcome { size: Some(size), receipt, ..self.outcome_at(destination)? })
            }
            _ => {
                let trouble = Trouble::Refused(Refused::nonsense("there is no etag in its answer"));
                Err(self.backend.fail("CopyObject", trouble, true))
            }
        }
    }

    pub(super) fn ask_moved(&self, source: &Place, destination: &Place) -> Result<AttemptStatus> {
        if self.object_at(source)?.is_some() {
            return Ok(AttemptStatus::NotDone);
        }
        let is_folder = self.is_folder(source)?;
        let object =
            if source.is_folder_name() { None } else { Some(destination.for_object(source)) };
        let there = object
            .map(|object| Ok::<_, AttemptError>((self.head(&object)?, object)))
            .transpose()?;
        match there {
            Some((Some(there), object)) if !is_folder => {
                Ok(AttemptStatus::Done(self.outcome_of(&object, &there)?))
            }
            Some((Some(_), object)) => Ok(AttemptStatus::Unknown(format!(
                "the object `{}` is not there any more and `{}` is, but so is a folder `{}`",
                source.key,
                object.key,
                source.prefix()
            ))),
            _ if is_folder => Ok(AttemptStatus::NotDone),
            // Of a large folder nobody waits for the whole listing: so many at least.
            _ => match self.some_in(destination)? {
                0 => Ok(AttemptStatus::Unknown(format!(
                    "neither `{}` nor `{}` is there",
                    source.key, destination.key
                ))),
                count => {
                    let outcome = self.outcome_of_many(destination, count, 0)?;
                    Ok(AttemptStatus::Done(Outcome { size: None, ..outcome }))
                }
            },
        }
    }

    /// Whether there is an object or a folder.
    fn is_there(&self, place: &Place) -> Result<bool> {
        Ok(self.object_at(place)?.is_some() || self.is_folder(place)?)
    }
}
