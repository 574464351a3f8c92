use std::path::PathBuf;
use std::time::Duration;

use crate::disk::DiskError;
use crate::operation::{IllegalTransition, Number, OperationId};

/// A stretch of a file that was durable once and cannot be read any more.
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

/// What can go wrong with the log. Each kind says what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Another process holds a lock: try again later.
    #[error("could not take `{}` within {:.1}s; {}", path.display(), waited.as_secs_f64(), holder)]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long we tried.
        waited: Duration,
        /// Who holds it, in words.
        holder: String,
    },
    /// The log is damaged: restore or repair it.
    #[error("the log is damaged: {0}")]
    Damaged(Damage),
    /// A newer program wrote this: use that one.
    #[error("`{}` has format version {found}; this program knows {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The directory holds something that is no log of ours.
    #[error("`{}` is no log of this program: {what}", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The original system has just been at work here: stop it, and wait until nothing has changed for a while.
    #[error("`{}` was changed {ago_s} s ago: the original system (ipfs_kit_py) seems to be running here", path.display())]
    OriginalAtWork {
        /// The file that changed last.
        path: PathBuf,
        /// How long ago.
        ago_s: u64,
    },
    /// The disk failed before anything was logged.
    #[error("nothing was logged: {0}")]
    NotLogged(#[source] DiskError),
    /// Too little room is left to log more.
    #[error("nothing was logged: `{}` has {free} bytes free, and {wanted} are kept for finishing what is logged", path.display())]
    NoSpace {
        /// The log's directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// `min_free_bytes`.
        wanted: u64,
    },
    /// The outcome of an operation may find no room: nothing more is begun until there is some.
    #[error("nothing more was begun: `{}` has {free} bytes free and no reserve left, and outcomes need {wanted}", path.display())]
    NoRoomForOutcomes {
        /// The log's directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Bytes that outcomes need.
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
        /// What was to be copied.
        content: PathBuf,
        /// Its size.
        bytes: u64,
        /// Free bytes.
        free: u64,
        /// `min_free_bytes`.
        kept: u64,
    },
    /// The records are written but nobody can say that they are durable.
    #[error("written, but not confirmed to be on the disk: {why}")]
    Unconfirmed {
        /// What stood in the way.
        why: String,
        /// The operations concerned.
        ids: Vec<OperationId>,
    },
    /// The idempotency key stands for something else.
    #[error(
        "nothing was logged: the key `{key}` belongs to operation {number}, which has other parameters, or other content"
    )]
    KeyTaken {
        /// The key.
        key: String,
        /// Whose it is.
        number: Number,
    },
    /// One batch gives one idempotency key to two different operations.
    #[error("nothing was logged: the key `{key}` is given twice, with different parameters")]
    KeyTwice {
        /// The key.
        key: String,
    },
    /// It is to wait for an operation that is not there.
    #[error("nothing was logged: there is no operation {id} to wait for")]
    UnknownDependency {
        /// Its id.
        id: OperationId,
    },
    /// Others wait for it, so it has to stay.
    #[error("operation {number} stays: operation {dependent} waits for it")]
    HasDependents {
        /// Which operation.
        number: Number,
        /// One that waits.
        dependent: Number,
    },
    /// One operation is larger than a frame: it cannot be logged.
    #[error("the operation needs {bytes} bytes in the log; at most {max} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The operation changed after the caller looked at it: look again.
    #[error("operation {number} was changed by somebody else at the same time")]
    Conflict {
        /// Which operation.
        number: Number,
    },
    /// The change is not allowed.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The disk failed otherwise.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What the log's functions return.
pub type WalResult<T> = Result<T, WalError>;

impl WalError {
    /// Damage in a file.
    pub fn damaged(
        path: impl Into<PathBuf>,
        offset: Option<u64>,
        what: impl Into<String>,
    ) -> WalError {
        WalError::Damaged(Damage { path: path.into(), offset, what: what.into() })
    }

    /// Whether it failed because a disk or a quota is full, and nothing was logged.
    pub fn is_full(&self) -> bool {
        matches!(self, WalError::NotLogged(error) | WalError::Disk(error) if error.is_full())
    }

    /// Whether a file was gone that had been there when the reader began: it should start over.
    pub fn is_vanished(&self) -> bool {
        matches!(self, WalError::Disk(error) if error.is_not_found())
    }
}
