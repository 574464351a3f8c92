//! Where archives are pushed to.

use crate::operation::{BackendName, Fields, OperationType, Time};
use crate::wal::manifest::FileEntry;

/// What the idempotency keys of pushes begin with.
pub(super) const KEY_START: &str = "archive push ";

/// Bytes of such a key, at most.
const KEY_MAX: usize = 512;

/// Where archives go, and on which backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    pub(super) prefix: String,
    pub(super) host: String,
    pub(super) backend: BackendName,
    pub(super) max_retries: u32,
}

/// Why archives cannot be pushed there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPush {
    /// No destination is given.
    #[error("no destination is configured for archives")]
    NoDestination,
    /// The destination is invalid.
    #[error("archives cannot go to `{}`: {why}", destination.escape_debug())]
    Destination {
        /// As it was given.
        destination: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It would not be what queries see, or not one folder.
    #[error("`{}` cannot be the name of a host in the history: it takes letters, digits, `.`, `_` and `-`", host.escape_debug())]
    Host {
        /// As it was given.
        host: String,
    },
}

impl Push {
    /// Archives of this host, by this backend, to `destination/host=…/date=…/`.
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

    /// The name of this machine in the history.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Who carries them there.
    pub fn backend(&self) -> &BackendName {
        &self.backend
    }

    /// What is to be done with each.
    pub fn operation_type() -> OperationType {
        let Ok(upload) = OperationType::new("upload") else {
            unreachable!("it is a type of operation")
        };
        upload
    }

    /// The parameters of a push, for asking the backend whether it takes such.
    pub fn sample_parameters(&self) -> Fields {
        parameters("/".into(), self.sample())
    }

    fn sample(&self) -> String {
        self.place(Time::from_millis(0), &"x".repeat(40), &"0".repeat(8))
    }

    /// The folder of a day.
    pub(super) fn folder(&self, day: Time) -> String {
        let text = day.to_string();
        let date = text.split('T').next().unwrap_or_default();
        format!("{}/host={}/date={date}/", self.prefix, self.host)
    }

    fn place(&self, day: Time, stem: &str, hash: &str) -> String {
        format!("{}{stem}_{hash}.parquet", self.folder(day))
    }

    /// Where a file goes. Its hash keeps two logs of one host apart, and gives the same bytes the
    /// same name.
    pub(super) fn destination_of(&self, file: &FileEntry, day: Time) -> String {
        let name = file.name.rsplit('/').next().unwrap_or(&file.name);
        let stem = name.split_once(".parquet").map_or(name, |(stem, _)| stem);
        self.place(day, stem, file.sha256.get(..8).unwrap_or(&file.sha256))
    }
}

pub(super) fn key_of(destination: &str) -> String {
    format!("{KEY_START}{destination}")
}

pub(super) fn parameters(path: String, destination: String) -> Fields {
    [("path".to_owned(), path), ("destination".to_owned(), destination)].into_iter().collect()
}
