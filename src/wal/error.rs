//! Errors of the log.

use std::path::PathBuf;
use std::time::Duration;

use crate::disk::DiskError;
use crate::operation::{IllegalTransition, Number, OperationId};

/// A part of a file that was durable and can no longer be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The offset of the first unreadable byte, if it is known.
    pub offset: Option<u64>,
    /// A description of the damage.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// An error of the log. Each kind calls for another response, which its description names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// Another process holds a lock: retry later.
    #[error("cannot lock `{}` within {:.1}s: {}", path.display(), waited.as_secs_f64(), holder)]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// The time for which this process waited.
        waited: Duration,
        /// A description of the process that holds it.
        holder: String,
    },
    /// The log is damaged: restore or repair it.
    #[error("the log is damaged: {0}")]
    Damaged(Damage),
    /// A newer program wrote a file: use that program.
    #[error(
        "`{}` has format version {found}; this program reads versions up to {known}",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format version of the file.
        found: u64,
        /// The highest version that this program can read.
        known: u64,
    },
    /// A newer program wrote a record to the journal: use that program.
    #[error(
        "the record at byte {offset} of `{}` is of kind {kind}, which this program does not know",
        path.display()
    )]
    NewerFrame {
        /// The file.
        path: PathBuf,
        /// The offset of the record.
        offset: u64,
        /// Its kind.
        kind: u8,
    },
    /// The directory is not a log of this program: choose another one.
    #[error("cannot use `{}` as a log: {what}", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// The reason.
        what: String,
    },
    /// There is no log, and the settings require one.
    #[error("there is no log in `{}`, and `must_exist` is set", path.display())]
    NoLog {
        /// The directory.
        path: PathBuf,
    },
    /// The original system changed files in this directory a moment ago: stop it, and retry a
    /// minute later.
    #[error(
        "`{}` was changed {ago_s} s ago: the original system (ipfs_kit_py) seems to be running",
        path.display()
    )]
    OriginalAtWork {
        /// The file that changed last.
        path: PathBuf,
        /// The number of seconds since the change.
        ago_s: u64,
    },
    /// The disk failed before anything was logged.
    #[error("nothing was logged: {0}")]
    NotLogged(#[source] DiskError),
    /// The disk has too little free space to log more operations: free some space.
    #[error(
        "nothing was logged: `{}` has {free} bytes free, of which {wanted} are reserved to finish \
         logged operations",
        path.display()
    )]
    NoSpace {
        /// The log's directory.
        path: PathBuf,
        /// The number of free bytes.
        free: u64,
        /// The number of bytes that must stay free.
        wanted: u64,
    },
    /// The disk has too little free space to record the outcome of another attempt: free some
    /// space.
    #[error(
        "nothing more was begun: `{}` has {free} bytes free and no reserve left, and recording \
         outcomes needs {wanted}",
        path.display()
    )]
    NoRoomForOutcomes {
        /// The log's directory.
        path: PathBuf,
        /// The number of free bytes.
        free: u64,
        /// The number of bytes that recording outcomes needs.
        wanted: u64,
    },
    /// The disk has too little free space to copy content into the log: free some space.
    #[error(
        "nothing was logged: `{}` has {free} bytes free, too few for a copy of `{}` \
         ({bytes} bytes) beside the {kept} that are reserved to finish logged operations",
        path.display(),
        content.display()
    )]
    NoRoom {
        /// The log's directory.
        path: PathBuf,
        /// The file to copy.
        content: PathBuf,
        /// The size of the file in bytes.
        bytes: u64,
        /// The number of free bytes.
        free: u64,
        /// The number of bytes that must stay free.
        kept: u64,
    },
    /// The transitions were written, but it is unknown whether they are durable: read the log to
    /// find out.
    #[error("written, but not confirmed to be durable: {why}")]
    Unconfirmed {
        /// The reason why that is unknown.
        why: String,
        /// The operations concerned.
        ids: Vec<OperationId>,
    },
    /// The idempotency key belongs to an operation with other parameters or other content.
    #[error(
        "nothing was logged: the key `{key}` belongs to operation {number}, which has other \
         parameters or other content"
    )]
    KeyTaken {
        /// The key.
        key: String,
        /// The operation that has it.
        number: Number,
    },
    /// One batch uses one idempotency key for two different operations.
    #[error("nothing was logged: the key `{key}` is given twice, with different parameters")]
    KeyTwice {
        /// The key.
        key: String,
    },
    /// A dependency does not exist.
    #[error("nothing was logged: there is no operation {id} to wait for")]
    UnknownDependency {
        /// The id of the dependency.
        id: OperationId,
    },
    /// An operation cannot be deleted because another one waits for it.
    #[error("cannot delete operation {number}: operation {dependent} waits for it")]
    HasDependents {
        /// The operation.
        number: Number,
        /// The operation that waits for it.
        dependent: Number,
    },
    /// An operation does not fit into a frame: put its data into a file.
    #[error("the operation needs {bytes} bytes in the log; at most {max} are possible")]
    TooLarge {
        /// The size of the operation in bytes.
        bytes: usize,
        /// The largest possible size in bytes.
        max: usize,
    },
    /// The operation has changed since the caller read it: read it again.
    #[error("operation {number} was changed by another process at the same time")]
    Conflict {
        /// The operation.
        number: Number,
    },
    /// The status of the operation does not allow the change.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The disk failed; the log is as it was, or can be recovered.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The result of the log's functions.
pub type WalResult<T> = Result<T, WalError>;

impl WalError {
    /// Returns the error for damage in a file.
    pub fn damaged(
        path: impl Into<PathBuf>,
        offset: Option<u64>,
        what: impl Into<String>,
    ) -> WalError {
        WalError::Damaged(Damage { path: path.into(), offset, what: what.into() })
    }

    /// Returns true if a disk or a quota is full, and nothing was logged.
    pub fn is_full(&self) -> bool {
        matches!(self, WalError::NotLogged(error) | WalError::Disk(error) if error.is_full())
    }

    /// Returns true if a file was removed while it was read: the reader should start over.
    pub fn is_vanished(&self) -> bool {
        matches!(self, WalError::Disk(error) if error.is_not_found())
    }
}
