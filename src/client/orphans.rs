//! Leftovers of ended operations at backends.

use super::{Client, ClientError};
use crate::backend::{AttemptError, Backend};
use crate::operation::{BackendName, Number, OperationId};
use crate::worker::is_over;

/// Ended operations whose attempts left something at their backend, such as an unfinished multipart
/// upload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrphanedUploads {
    /// Operations whose leftovers were removed; in a rehearsal, would be removed.
    pub removed: Vec<Number>,
    /// Operations whose leftovers remain for now.
    pub kept: Vec<KeptOrphan>,
}

/// An operation whose leftovers could not be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptOrphan {
    /// Number of the operation.
    pub number: Number,
    /// Backend of the operation.
    pub backend: BackendName,
    /// The error of the backend.
    pub reason: String,
}

impl Client {
    /// Removes leftovers of ended operations from the backends.
    pub fn remove_orphaned_uploads(&self) -> Result<OrphanedUploads, ClientError> {
        orphans(self, |backend, number, id| backend.abort_orphan(number, id).map_err(reason_of))
    }

    /// Returns the leftovers that [`Client::remove_orphaned_uploads`] would try to remove.
    pub fn orphaned_uploads(&self) -> Result<OrphanedUploads, ClientError> {
        orphans(self, |_, _, _| Ok(()))
    }
}

/// Calls `remove` for each operation that has ended and left something at its backend.
fn orphans(
    client: &Client,
    remove: impl Fn(&dyn Backend, Number, OperationId) -> Result<(), String>,
) -> Result<OrphanedUploads, ClientError> {
    let mut found = OrphanedUploads::default();
    for (name, _) in client.backends.names() {
        let Some(backend) = client.backends.get(name) else { continue };
        let mut left = backend.orphans();
        if left.is_empty() {
            continue;
        }
        // Several objects of one operation count as one.
        left.sort_unstable();
        left.dedup();
        let over: Vec<(Number, OperationId)> = client.with_view(|view| {
            Ok(left.iter().copied().filter(|(number, id)| is_over(view, *number, *id)).collect())
        })?;
        let mut last_error: Option<String> = None;
        for (number, id) in over {
            // A backend that has failed is not called again for the others.
            let removed = match last_error.clone() {
                None => remove(&**backend, number, id),
                Some(reason) => Err(reason),
            };
            match removed {
                Ok(()) => found.removed.push(number),
                Err(reason) => {
                    last_error = Some(reason.clone());
                    found.kept.push(KeptOrphan { number, backend: name.clone(), reason });
                }
            }
        }
    }
    Ok(found)
}

fn reason_of(error: AttemptError) -> String {
    match error {
        AttemptError::Failed { failure, .. } | AttemptError::UnknownOutcome(failure) => {
            failure.message
        }
        AttemptError::Stopped => "interrupted".into(),
    }
}
