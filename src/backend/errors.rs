//! What went wrong, in the words of a failure: whose fault it is decides whether to try again.

use std::io::ErrorKind;
use std::path::Path;

use super::AttemptError;
use crate::disk::DiskError;

pub(super) type Result<T> = std::result::Result<T, AttemptError>;

/// An error with a disk of ours: nothing the operation could help.
pub(super) fn ours(error: DiskError) -> AttemptError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            AttemptError::transient("disk_full", format!("{error}; free some space on that disk"))
        }
        _ => AttemptError::transient("io", error.to_string()),
    }
}

/// An error with what the operation is to read.
pub(super) fn reading(error: DiskError) -> AttemptError {
    let path = error.path.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => AttemptError::permanent(
            "not_found",
            format!("`{path}` is not there (any more); put it back"),
        ),
        ErrorKind::PermissionDenied => AttemptError::permanent(
            "permission_denied",
            format!("`{path}` may not be read; grant permission, then retry the operation"),
        ),
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
            AttemptError::permanent("bad_path", format!("{error}"))
        }
        _ => AttemptError::transient("io", error.to_string()),
    }
}

/// An error with the copy that the log made of what the operation is to read.
pub(super) fn reading_copy(error: DiskError) -> AttemptError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => AttemptError::permanent(
            "not_found",
            format!(
                "`{}`, the copy that was made when it was logged, is not there any more; add the file again",
                error.path.display()
            ),
        ),
        _ => AttemptError::transient("io", error.to_string()),
    }
}

/// The copy in the log is not as long as what was copied.
pub(super) fn damaged_copy(path: &Path) -> AttemptError {
    AttemptError::permanent(
        "damaged_content",
        format!(
            "`{}` is damaged: the copy that was made when it was logged had another size; add the file again",
            path.display()
        ),
    )
}

/// An error with where the operation is to write its result.
pub(super) fn writing(error: DiskError) -> AttemptError {
    let path = error.path.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => AttemptError::permanent(
            "not_found",
            format!(
                "{error}; the directory to write in is not there: make it, then retry the operation"
            ),
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => AttemptError::permanent(
            "permission_denied",
            format!("`{path}` may not be written; grant permission, then retry the operation"),
        ),
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
            AttemptError::permanent("bad_path", format!("{error}; choose another destination"))
        }
        _ => ours(error),
    }
}

/// Bytes that cannot be a name in a listing.
pub(super) fn unsupported_name(path: &Path) -> AttemptError {
    AttemptError::permanent(
        "unsupported_name",
        format!(
            "`{}` has a name or target that is not UTF-8; rename it, then retry the operation",
            path.display()
        ),
    )
}
