//! Failures of the store itself.

use std::path::Path;

use crate::backend::AttemptError;
use crate::backend::unixfs::Cid;

/// Returns the failure for content that does not have its CID.
pub(super) fn damaged(path: &Path, cid: &Cid) -> AttemptError {
    AttemptError::permanent(
        "damaged_content",
        format!(
            "`{}` is damaged: its content does not have the CID {cid}; remove it (`rm`) and add \
             it again",
            path.display()
        ),
    )
}

/// Returns the failure for content that the store does not have.
pub(super) fn no_content(cid: &Cid) -> AttemptError {
    AttemptError::permanent(
        "not_found",
        format!("{cid} is not in the local store, which fetches nothing; add the content first"),
    )
}
