//! Where an object is: its bucket and its key.

use std::path::Path;

use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::parameters::ParameterError;

/// The longest key in bytes.
const KEY_MAX: usize = 1024;

/// The location of an object or a folder; with an empty key, of a whole bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// `None`: the configured bucket.
    pub(super) bucket: Option<String>,
    /// The key without a leading `/`.
    pub(super) key: String,
}

impl Location {
    /// Parses `s3://bucket/key`, or `/key` and `key` for the configured bucket.
    pub(super) fn parse(text: &str) -> std::result::Result<Location, ParameterError> {
        let bad = |message| Err(ParameterError { error_type: "bad_path", message });
        let location = match text.strip_prefix("s3://") {
            Some(rest) => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return bad(format!("`{text}` names no bucket; write `s3://BUCKET/KEY`"));
                }
                Location { bucket: Some(bucket.to_owned()), key: key.to_owned() }
            }
            None => Location { bucket: None, key: text.trim_start_matches('/').to_owned() },
        };
        if location.key.len() > KEY_MAX {
            let start: String = location.key.chars().take(60).collect();
            return bad(format!("the key `{start}…` is longer than {KEY_MAX} bytes"));
        }
        // Some services resolve such components as a file system does, others refuse them.
        if location.key.split('/').any(|part| matches!(part, "." | "..")) {
            return bad(format!(
                "`{text}` is not a valid key for every service: it has a component `.` or `..`"
            ));
        }
        Ok(location)
    }

    /// Refuses `https://…` and `s3:/…`, which are not meant as keys. Applied only when an operation
    /// is logged: operations in the log keep their meaning.
    pub(super) fn check(text: &str) -> std::result::Result<(), String> {
        let first = text.split_once('/').map_or("", |(first, _)| first);
        match first.ends_with(':') && !text.starts_with("s3://") {
            true => Err(format!(
                "`{text}` is not a location in a bucket; write `s3://BUCKET/KEY`, or the key alone"
            )),
            false => Ok(()),
        }
    }

    /// Parses the location of an object or a folder; fails for a whole bucket.
    pub(super) fn of_object(text: &str) -> std::result::Result<Location, ParameterError> {
        let location = Location::parse(text)?;
        // A key with an empty last component would be read as the folder above it.
        if location.prefix().is_empty() || location.key.ends_with("//") {
            let message =
                format!("`{text}` names no object; write `s3://BUCKET/KEY`, or the key alone");
            return Err(ParameterError { error_type: "bad_path", message });
        }
        Ok(location)
    }

    /// Returns the location with this bucket if it names none.
    pub(super) fn in_bucket(self, bucket: Option<&str>) -> Location {
        Location { bucket: self.bucket.or_else(|| bucket.map(str::to_owned)), ..self }
    }

    /// Returns whether this can only be a folder.
    pub(super) fn is_folder_name(&self) -> bool {
        self.key.ends_with('/')
    }

    /// Returns where a copy of `source` goes: into a folder it goes under its own name.
    pub(super) fn for_object(&self, source: &Location) -> Location {
        let name = source.key.rsplit('/').next().unwrap_or_default();
        if self.is_folder_name() { self.join(name) } else { self.clone() }
    }

    /// Parses where a file goes: into a folder, which ends with a slash, or a bucket it goes under
    /// its own name.
    pub(super) fn for_file(
        text: &str,
        file: &Path,
    ) -> std::result::Result<Location, ParameterError> {
        let location = Location::parse(text)?;
        match (location.key.is_empty() || location.key.ends_with('/'), file.file_name()) {
            (true, Some(name)) => {
                let location = location.join(&name.to_string_lossy());
                Location::of_object(&location.key)?;
                Ok(location)
            }
            _ => Location::of_object(text),
        }
    }

    /// Returns the location of an entry of this folder.
    pub(super) fn join(&self, name: &str) -> Location {
        Location { bucket: self.bucket.clone(), key: format!("{}{name}", self.prefix()) }
    }

    /// Returns the object with this key in the same bucket.
    pub(super) fn with_key(&self, key: &str) -> Location {
        Location { bucket: self.bucket.clone(), key: key.to_owned() }
    }

    /// Returns the prefix of the keys of everything in this folder.
    pub(super) fn prefix(&self) -> String {
        match self.key.trim_end_matches('/') {
            "" => String::new(),
            folder => format!("{folder}/"),
        }
    }

    /// Returns whether this is in `other`, or is the same, if both are in one bucket.
    pub(super) fn is_below(&self, other: &Location) -> bool {
        self.bucket == other.bucket
            && (self.key == other.key || self.key.starts_with(&other.prefix()))
    }
}

/// Refuses to copy or move something into itself.
pub(super) fn refuse_into_itself(source: &Location, destination: &Location) -> Result<()> {
    if destination.is_below(source) {
        let (from, to) = (&source.key, &destination.key);
        let message = match from == to {
            true => format!("source and destination are the same: `{from}`"),
            false => format!("`{to}` is inside `{from}`; choose another key"),
        };
        return Err(AttemptError::permanent("bad_path", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(location: std::result::Result<Location, ParameterError>) -> Option<String> {
        location.ok().map(|location| location.key)
    }

    #[test]
    fn locations_are_parsed_in_every_form() {
        for (text, bucket, key) in [
            ("s3://b/a/b.txt", Some("b"), "a/b.txt"),
            ("s3://b", Some("b"), ""),
            ("s3://b//a", Some("b"), "/a"),
            ("/a/b", None, "a/b"),
            ("a b", None, "a b"),
            ("a/b:c", None, "a/b:c"),
            ("", None, ""),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!((location.bucket.as_deref(), &location.key[..]), (bucket, key), "{text}");
        }
        for elsewhere in ["http://x/a", "s3:/b/a", "S3://b/a"] {
            assert!(Location::check(elsewhere).is_err(), "{elsewhere}");
        }
        for fine in ["s3://b/a", "s3://b/c:/d", "a/b:c", "a:b", "a", "/a:/b"] {
            assert_eq!(Location::check(fine), Ok(()), "{fine}");
        }
        for bad in ["s3://", "s3:///a", "a/../b", "s3://b/.", &"x".repeat(1025)] {
            assert_eq!(Location::parse(bad).unwrap_err().error_type, "bad_path", "{bad}");
        }
        for bucket in ["s3://b/", "s3://b//", "s3://b///", "/", "//", "s3://b/a//"] {
            assert!(Location::of_object(bucket).is_err(), "{bucket}");
        }
        let folder = Location::parse("s3://b/a/").unwrap();
        assert_eq!((folder.join("x").key, folder.prefix()), ("a/x".into(), "a/".into()));
        assert!(
            folder.join("x").is_below(&folder)
                && !Location::parse("s3://b/ab").unwrap().is_below(&folder)
        );
    }

    #[test]
    fn equal_locations_are_recognised_in_every_form() {
        let location = |text| Location::parse(text).unwrap().in_bucket(Some("b"));
        assert!(refuse_into_itself(&location("a.iso"), &location("s3://b/a.iso")).is_err());
        assert!(refuse_into_itself(&location("s3://b/photos"), &location("photos/2026")).is_err());
        assert!(refuse_into_itself(&location("a.iso"), &location("s3://c/a.iso")).is_ok());
        assert_eq!(location("to/").for_object(&location("from/x.txt")).key, "to/x.txt");
        assert_eq!(location("to").for_object(&location("from/x.txt")).key, "to");
    }

    #[test]
    fn a_file_goes_into_a_folder_under_its_own_name() {
        let file = Path::new("/home/x.txt");
        for (text, key) in
            [("s3://b/a", "a"), ("s3://b/a/", "a/x.txt"), ("s3://b/", "x.txt"), ("s3://b", "x.txt")]
        {
            assert_eq!(key_of(Location::for_file(text, file)).as_deref(), Some(key), "{text}");
        }
        assert_eq!(key_of(Location::for_file("/", Path::new("/"))), None);
    }
}
