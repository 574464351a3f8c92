//! Where an object is: its bucket and its key.

use std::path::Path;

use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::parameters::ParameterError;

/// Bytes of a key, at most.
const KEY_MAX: usize = 1024;

/// An object's place, or, without a key, that of a whole bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// None: the bucket of the settings.
    pub(super) bucket: Option<String>,
    /// Without a `/` before it.
    pub(super) key: String,
}

impl Place {
    /// Reads `s3://bucket/key`, or `/key` and `key` of the bucket of the settings.
    pub(super) fn parse(text: &str) -> std::result::Result<Place, ParameterError> {
        let bad = |message| Err(ParameterError { error_type: "bad_path", message });
        let place = match text.strip_prefix("s3://") {
            Some(rest) => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return bad(format!("`{text}` names no bucket: write s3://BUCKET/KEY"));
                }
                Place { bucket: Some(bucket.to_owned()), key: key.to_owned() }
            }
            None => Place { bucket: None, key: text.trim_start_matches('/').to_owned() },
        };
        if place.key.len() > KEY_MAX {
            return bad(format!(
                "`{}…` is longer than {KEY_MAX} bytes, as no key may be",
                cut(&place.key)
            ));
        }
        // Some services take such parts for what they are on a disk, others refuse them.
        if place.key.split('/').any(|part| matches!(part, "." | "..")) {
            return bad(format!(
                "`{text}` is no key that every service takes: `.` and `..` may not be parts of it"
            ));
        }
        Ok(place)
    }

    /// Refuses `https://…` and `s3:/…`: whoever writes that does not mean a key. Only when something is logged: what is
    /// in the log already stays what it is.
    pub(super) fn check(text: &str) -> std::result::Result<(), String> {
        let first = text.split_once('/').map_or("", |(first, _)| first);
        match first.ends_with(':') && !text.starts_with("s3://") {
            true => Err(format!(
                "`{text}` is no place in a bucket: write s3://BUCKET/KEY, or the key alone"
            )),
            false => Ok(()),
        }
    }

    /// The same of one object, or of a folder: never of a whole bucket.
    pub(super) fn of_object(text: &str) -> std::result::Result<Place, ParameterError> {
        let place = Place::parse(text)?;
        // What ends with an empty part would be read as what lies above it.
        if place.prefix().is_empty() || place.key.ends_with("//") {
            let message =
                format!("`{text}` names no object: write s3://BUCKET/KEY, or the key alone");
            return Err(ParameterError { error_type: "bad_path", message });
        }
        Ok(place)
    }

    /// The same with this bucket where none is named.
    pub(super) fn in_bucket(self, bucket: Option<&str>) -> Place {
        Place { bucket: self.bucket.or_else(|| bucket.map(str::to_owned)), ..self }
    }

    /// Whether it can only be a folder.
    pub(super) fn is_folder_name(&self) -> bool {
        self.key.ends_with('/')
    }

    /// Where an object goes that is copied there: into a folder under its own name.
    pub(super) fn for_object(&self, source: &Place) -> Place {
        let name = source.key.rsplit('/').next().unwrap_or_default();
        if self.is_folder_name() { self.join(name) } else { self.clone() }
    }

    /// Where a file goes: into a folder, which ends with a slash, or a bucket, under its own name.
    pub(super) fn for_file(text: &str, file: &Path) -> std::result::Result<Place, ParameterError> {
        let place = Place::parse(text)?;
        match (place.key.is_empty() || place.key.ends_with('/'), file.file_name()) {
            (true, Some(name)) => {
                let place = place.join(&name.to_string_lossy());
                Place::of_object(&place.key)?;
                Ok(place)
            }
            _ => Place::of_object(text),
        }
    }

    /// Where something in it is, if it is a folder.
    pub(super) fn join(&self, name: &str) -> Place {
        Place { bucket: self.bucket.clone(), key: format!("{}{name}", self.prefix()) }
    }

    /// What the keys of all that is in it begin with.
    pub(super) fn prefix(&self) -> String {
        match self.key.trim_end_matches('/') {
            "" => String::new(),
            folder => format!("{folder}/"),
        }
    }

    /// Whether it lies in the other one, or is the same, both being of one bucket.
    pub(super) fn is_below(&self, other: &Place) -> bool {
        self.bucket == other.bucket
            && (self.key == other.key || self.key.starts_with(&other.prefix()))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Refuses to put something into itself.
pub(super) fn refuse_into_itself(source: &Place, destination: &Place) -> Result<()> {
    if destination.is_below(source) {
        let message = match destination.key == source.key {
            true => {
                format!("`{}` is there already: source and destination are the same", source.key)
            }
            false => {
                format!("`{}` lies in `{}` itself; choose another key", destination.key, source.key)
            }
        };
        return Err(AttemptError::permanent("bad_path", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(place: std::result::Result<Place, ParameterError>) -> Option<String> {
        place.ok().map(|place| place.key)
    }

    #[test]
    fn places_are_read_as_people_write_them() {
        for (text, bucket, key) in [
            ("s3://b/a/b.txt", Some("b"), "a/b.txt"),
            ("s3://b", Some("b"), ""),
            ("s3://b//a", Some("b"), "/a"),
            ("/a/b", None, "a/b"),
            ("a b", None, "a b"),
            ("a/b:c", None, "a/b:c"),
            ("", None, ""),
        ] {
            let place = Place::parse(text).unwrap();
            assert_eq!((place.bucket.as_deref(), &place.key[..]), (bucket, key), "{text}");
        }
        for elsewhere in ["http://x/a", "s3:/b/a", "S3://b/a"] {
            assert!(Place::check(elsewhere).is_err(), "{elsewhere}");
        }
        for fine in ["s3://b/a", "s3://b/c:/d", "a/b:c", "a:b", "a", "/a:/b"] {
            assert_eq!(Place::check(fine), Ok(()), "{fine}");
        }
        for bad in ["s3://", "s3:///a", "a/../b", "s3://b/.", &"x".repeat(1025)] {
            assert_eq!(Place::parse(bad).unwrap_err().error_type, "bad_path", "{bad}");
        }
        for bucket in ["s3://b/", "s3://b//", "s3://b///", "/", "//", "s3://b/a//"] {
            assert!(Place::of_object(bucket).is_err(), "{bucket}");
        }
        let folder = Place::parse("s3://b/a/").unwrap();
        assert_eq!((folder.join("x").key, folder.prefix()), ("a/x".into(), "a/".into()));
        assert!(
            folder.join("x").is_below(&folder)
                && !Place::parse("s3://b/ab").unwrap().is_below(&folder)
        );
    }

    #[test]
    fn the_same_place_is_known_however_it_is_written() {
        let place = |text| Place::parse(text).unwrap().in_bucket(Some("b"));
        assert!(refuse_into_itself(&place("a.iso"), &place("s3://b/a.iso")).is_err());
        assert!(refuse_into_itself(&place("s3://b/photos"), &place("photos/2026")).is_err());
        assert!(refuse_into_itself(&place("a.iso"), &place("s3://c/a.iso")).is_ok());
        assert_eq!(place("to/").for_object(&place("from/x.txt")).key, "to/x.txt");
        assert_eq!(place("to").for_object(&place("from/x.txt")).key, "to");
    }

    #[test]
    fn a_file_goes_into_a_folder_under_its_own_name() {
        let file = Path::new("/home/x.txt");
        for (text, key) in
            [("s3://b/a", "a"), ("s3://b/a/", "a/x.txt"), ("s3://b/", "x.txt"), ("s3://b", "x.txt")]
        {
            assert_eq!(key_of(Place::for_file(text, file)).as_deref(), Some(key), "{text}");
        }
        assert_eq!(key_of(Place::for_file("/", Path::new("/"))), None);
    }
}
