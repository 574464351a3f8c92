//! The destinations of archives that are pushed.

use crate::operation::{BackendName, Fields, OperationType, Time};
use crate::wal::manifest::FileEntry;

/// The beginning of the idempotency keys of pushes.
pub(super) const KEY_START: &str = "archive push ";

/// The largest length of the idempotency key of a push, in bytes.
const KEY_MAX: usize = 512;

/// The destination of archives, and the backend that pushes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    pub(super) prefix: String,
    pub(super) host: String,
    pub(super) backend: BackendName,
    pub(super) max_retries: u32,
}

/// The reason why archives cannot be pushed to a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPush {
    /// No destination is given.
    #[error("no destination is configured for archives")]
    NoDestination,
    /// The destination is invalid.
    #[error("archives cannot go to `{}`: {why}", destination.escape_debug())]
    Destination {
        /// The destination as it was given.
        destination: String,
        /// The reason why it is invalid.
        why: &'static str,
    },
    /// The host name is invalid: it must be a single directory, and readable by queries.
    #[error(
        "`{}` cannot be the name of a host in the history: it takes letters, digits, `.`, `_` \
         and `-`",
        host.escape_debug()
    )]
    Host {
        /// The host name as it was given.
        host: String,
    },
}

impl Push {
    /// Returns pushes of the archives of this host, by this backend, to
    /// `destination/host=…/date=…/`.
    pub fn new(
        destination: &str,
        host: &str,
        backend: BackendName,
        max_retries: u32,
    ) -> Result<Push, BadPush> {
        let bad = |why| BadPush::Destination { destination: destination.to_owned(), why };
        let prefix = destination.trim_end_matches('/');
        if destination.is_empty() || destination.contains(char::is_control) {
            return Err(bad("it takes text on one line"));
        }
        if prefix.ends_with(':') {
            return Err(bad("it names no bucket; write s3://BUCKET/PREFIX"));
        }
        if host.is_empty()
            || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return Err(BadPush::Host { host: host.to_owned() });
        }
        let push = Push { prefix: prefix.to_owned(), host: host.to_owned(), backend, max_retries };
        match key_of(&push.sample()).len() > KEY_MAX {
            true => Err(bad("it is too long")),
            false => Ok(push),
        }
    }

    /// Returns the name of this machine in the history.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the backend that pushes the archives.
    pub fn backend(&self) -> &BackendName {
        &self.backend
    }

    /// Returns the type of the operations that push archives.
    pub fn operation_type() -> OperationType {
        let Ok(upload) = OperationType::new("upload") else {
            unreachable!("it is a type of operation")
        };
        upload
    }

    /// Returns sample parameters of a push, for checking whether the backend accepts them.
    pub fn sample_parameters(&self) -> Fields {
        parameters("/".into(), self.sample())
    }

    fn sample(&self) -> String {
        self.path_of(Time::from_millis(0), &"x".repeat(40), &"0".repeat(8))
    }

    /// Returns the directory of a day.
    pub(super) fn folder(&self, day: Time) -> String {
        let text = day.to_string();
        let date = text.split('T').next().unwrap_or_default();
        format!("{}/host={}/date={date}/", self.prefix, self.host)
    }

    fn path_of(&self, day: Time, stem: &str, hash: &str) -> String {
        format!("{}{stem}_{hash}.parquet", self.folder(day))
    }

    /// Returns the destination of a file. Its name contains a hash of the content, so that files of
    /// two logs of one host differ, and the same content always gets the same name.
    pub(super) fn destination_of(&self, file: &FileEntry, day: Time) -> String {
        let name = file.name.rsplit('/').next().unwrap_or(&file.name);
        let stem = name.split_once(".parquet").map_or(name, |(stem, _)| stem);
        self.path_of(day, stem, file.sha256.get(..8).unwrap_or(&file.sha256))
    }
}

/// Returns the idempotency key of the push to a destination.
pub(super) fn key_of(destination: &str) -> String {
    format!("{KEY_START}{destination}")
}

/// Returns the parameters of the operation that pushes a file.
pub(super) fn parameters(path: String, destination: String) -> Fields {
    [("path".to_owned(), path), ("destination".to_owned(), destination)].into_iter().collect()
}
