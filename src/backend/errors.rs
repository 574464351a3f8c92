//! Failures to read and write on this machine. The file that failed decides the class, and thereby
//! whether the operation is retried: a user's file fails for good, a disk of ours may recover.

use std::io::ErrorKind;
use std::path::Path;

use super::AttemptError;
use crate::disk::DiskError;

pub(super) type Result<T> = std::result::Result<T, AttemptError>;

/// Returns the failure for an error on a disk that the operation did not choose.
pub(super) fn ours(error: DiskError) -> AttemptError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            AttemptError::transient("disk_full", format!("{error}; free some space on that disk"))
        }
        _ => AttemptError::transient("io", error.to_string()),
    }
}

/// Returns the failure to read a file that the operation names.
pub(super) fn reading(error: DiskError) -> AttemptError {
    let path = error.path.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => AttemptError::permanent(
            "not_found",
            format!("`{path}` does not exist; restore it, then run `retry --accept-source`"),
        ),
        ErrorKind::PermissionDenied => AttemptError::permanent(
            "permission_denied",
            format!("no permission to read `{path}`; grant it, then run `retry --accept-source`"),
        ),
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
            AttemptError::permanent("bad_path", format!("{error}"))
        }
        _ => AttemptError::transient("io", error.to_string()),
    }
}

/// Returns the failure to read a spooled copy.
pub(super) fn reading_copy(error: DiskError) -> AttemptError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => AttemptError::permanent(
            "not_found",
            format!(
                "the spooled copy `{}` no longer exists; add the file again",
                error.path.display()
            ),
        ),
        _ => AttemptError::transient("io", error.to_string()),
    }
}

/// Returns the failure for a spooled copy that is not the file that was copied.
pub(super) fn damaged_copy(path: &Path, reason: &str) -> AttemptError {
    let path = path.display();
    AttemptError::permanent(
        "spool_damaged",
        format!("the spooled copy `{path}` is damaged: {reason}; add the file again"),
    )
}

/// Returns the failure to write the operation's destination.
pub(super) fn writing(error: DiskError) -> AttemptError {
    let path = error.path.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => AttemptError::permanent(
            "not_found",
            format!("{error}; create the directory of the destination, then retry the operation"),
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => AttemptError::permanent(
            "permission_denied",
            format!("no permission to write `{path}`; grant it, then run `retry --accept-source`"),
        ),
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
            AttemptError::permanent("bad_path", format!("{error}; choose another destination"))
        }
        _ => ours(error),
    }
}

/// Returns the failure for a file name or link target that is not UTF-8.
pub(super) fn unsupported_name(path: &Path) -> AttemptError {
    AttemptError::permanent(
        "unsupported_name",
        format!(
            "`{}` has a name or target that is not UTF-8; rename it, then retry the operation",
            path.display()
        ),
    )
}
