use std::io::{self, ErrorKind};

/// A way in which disk operations of a simulated process fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every change of the disk fails with this error.
    Changes(ErrorKind),
    /// The medium fails: reading, writing, flushing, looking up names (`EIO`).
    Medium,
    /// The disk is full (`ENOSPC`).
    Full,
    /// The user's quota is used up (`EDQUOT`).
    Quota,
    /// The file system has become read-only (`EROFS`).
    ReadOnly,
    /// There are no descriptors left: nothing can be opened or listed (`EMFILE`).
    Descriptors,
    /// A write stops halfway (`ENOSPC`).
    ShortWrite,
    /// A flush fails, and with it all that was not flushed yet may be lost (`EIO`).
    Flush,
}

impl Fault {
    /// All faults, with one kind for the first.
    pub const ALL: [Fault; 8] = [
        Fault::Changes(ErrorKind::Other),
        Fault::Medium,
        Fault::Full,
        Fault::Quota,
        Fault::ReadOnly,
        Fault::Descriptors,
        Fault::ShortWrite,
        Fault::Flush,
    ];

    /// Returns true if it applies to an operation.
    pub(super) fn hits(self, action: &str, changes: bool) -> bool {
        match self {
            Fault::Changes(_) | Fault::Quota | Fault::Full => changes,
            // On a file system that has become read-only, flushing clean pages succeeds.
            Fault::ReadOnly => changes && !action.starts_with("sync"),
            Fault::Medium => !matches!(action, "lock" | "unlock"),
            Fault::Descriptors => matches!(action, "open" | "list" | "sync directory"),
            Fault::ShortWrite => action == "write",
            Fault::Flush => action.starts_with("sync"),
        }
    }

    /// Returns the error of the operating system.
    pub(super) fn error(self) -> io::Error {
        match self {
            Fault::Changes(kind) => kind.into(),
            Fault::Medium | Fault::Flush => io::Error::from_raw_os_error(5),
            Fault::Full | Fault::ShortWrite => io::Error::from_raw_os_error(28),
            Fault::Quota => io::Error::from_raw_os_error(122),
            Fault::ReadOnly => io::Error::from_raw_os_error(30),
            Fault::Descriptors => io::Error::from_raw_os_error(24),
        }
    }
}

impl From<ErrorKind> for Fault {
    fn from(kind: ErrorKind) -> Fault {
        Fault::Changes(kind)
    }
}
