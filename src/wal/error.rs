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
    /// First unreadable byte, where that is known.
    pub offset: Option<u64>,
    /// What is wrong.
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

/// An error of the log. Each kind says what the caller should do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// Another process holds a lock: try again later.
    #[error("cannot lock `{}` within {:.1}s: {}", path.display(), waited.as_secs_f64(), holder)]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long it was tried.
        waited: Duration,
        /// A description of the process that holds it.
        holder: String,
    },
    /// The log is damaged: restore or repair it.
    #[error("the log is damaged: {0}")]
    Damaged(Damage),
    /// A newer program wrote this: use that program.
    #[error("`{}` has format version {found}; this program reads versions up to {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The highest version that this program can read.
        known: u64,
    },
    /// The directory is not a log of this program: choose another one.
    #[error("cannot use `{}` as a log: {what}", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The original system changed files here a moment ago: stop it, and try again a minute later.
    #[error("`{}` was changed {ago_s} s ago: the original system (ipfs_kit_py) seems to be running", path.display())]
    OriginalAtWork {
        /// The file that changed last.
        path: PathBuf,
        /// How many seconds ago.
        ago_s: u64,
    },
    /// The disk failed before anything was logged.
    #[error("nothing was logged: {0}")]
    NotLogged(#[source] DiskError),
    /// Too little room is left to log more.
    #[error("nothing was logged: `{}` has {free} bytes free, of which {wanted} are reserved to finish logged operations", path.display())]
    NoSpace {
        /// The log's directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Bytes that have to stay free.
        wanted: u64,
    },
    /// Too little room is left to record the outcome of another operation: free some space.
    #[error("nothing more was begun: `{}` has {free} bytes free and no reserve left, and recording outcomes needs {wanted}", path.display())]
    NoRoomForOutcomes {
        /// The log's directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Bytes that recording outcomes needs.
        wanted: u64,
    },
    /// Too little room is left to copy this content into the log.
    #[error(
        "nothing was logged: `{}` has {free} bytes free, which does not hold a copy of `{}` ({bytes} bytes) beside the \
         {kept} that are kept for finishing what is logged", path.display(), content.display()
    )]
    NoRoom {
        /// The log's directory.
        path: PathBuf,
        /// The file to copy.
        content: PathBuf,
        /// Its size.
        bytes: u64,
        /// Free bytes.
        free: u64,
        /// Bytes that have to stay free.
        kept: u64,
    },
    /// The records were written, but it is unknown whether they are durable: read the log to find
    /// out.
    #[error("written, but not confirmed to be durable: {why}")]
    Unconfirmed {
        /// Why that is unknown.
        why: String,
        /// The operations concerned.
        ids: Vec<OperationId>,
    },
    /// The idempotency key belongs to another operation.
    #[error(
        "nothing was logged: the key `{key}` belongs to operation {number}, which has other parameters or other content"
    )]
    KeyTaken {
        /// The key.
        key: String,
        /// The operation that has it.
        number: Number,
    },
    /// One batch gives one idempotency key to two different operations.
    #[error("nothing was logged: the key `{key}` is given twice, with different parameters")]
    KeyTwice {
        /// The key.
        key: String,
    },
    /// A dependency does not exist.
    #[error("nothing was logged: there is no operation {id} to wait for")]
    UnknownDependency {
        /// Its id.
        id: OperationId,
    },
    /// Another operation waits for this one, so it cannot be deleted.
    #[error("cannot delete operation {number}: operation {dependent} waits for it")]
    HasDependents {
        /// The operation.
        number: Number,
        /// An operation that waits for it.
        dependent: Number,
    },
    /// An operation is too large for a frame: put its data into a file.
    #[error("the operation needs {bytes} bytes in the log; at most {max} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The operation changed after the caller read it: read it again.
    #[error("operation {number} was changed by another process at the same time")]
    Conflict {
        /// The operation.
        number: Number,
    },
    /// The change is not allowed.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The disk failed in another way.
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
