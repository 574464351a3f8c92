use super::{Client, ClientError};
use crate::backend::{AttemptError, Backend};
use crate::operation::{BackendName, Number, OperationId};
use crate::worker::is_over;

/// What attempts of ended operations had left at backends, such as unfinished multipart uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrphanedUploads {
    /// Operations of which nothing is left at the backend (in a rehearsal: of which nothing would be).
    pub removed: Vec<Number>,
    /// Operations of which something remains for now.
    pub kept: Vec<KeptOrphan>,
}

/// An operation whose leftovers could not be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptOrphan {
    /// The operation.
    pub number: Number,
    /// Its backend.
    pub backend: BackendName,
    /// Why the backend did not remove it.
    pub reason: String,
}

impl Client {
    /// Removes from the backends what attempts of ended operations have left there.
    pub fn remove_orphaned_uploads(&self) -> Result<OrphanedUploads, ClientError> {
        self.orphans(|backend, number, id| backend.abort_orphan(number, id).map_err(reason_of))
    }

    /// Returns what [`Client::remove_orphaned_uploads`] would try to remove.
    pub fn orphaned_uploads(&self) -> Result<OrphanedUploads, ClientError> {
        self.orphans(|_, _, _| Ok(()))
    }

    fn orphans(
        &self,
        remove: impl Fn(&dyn Backend, Number, OperationId) -> Result<(), String>,
    ) -> Result<OrphanedUploads, ClientError> {
        let mut found = OrphanedUploads::default();
        for (name, _) in self.backends.names() {
            let Some(backend) = self.backends.get(name) else { continue };
            let mut left = backend.orphans();
            if left.is_empty() {
                continue;
            }
            // Several objects of one operation count as one.
            left.sort_unstable();
            left.dedup();
            let over: Vec<(Number, OperationId)> = self.with_view(|view| {
                Ok(left
                    .iter()
                    .copied()
                    .filter(|(number, id)| is_over(view, *number, *id))
                    .collect())
            })?;
            let mut last_error: Option<String> = None;
            for (number, id) in over {
                // A backend that failed once is not called again for each of the others.
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
}

fn reason_of(error: AttemptError) -> String {
    match error {
        AttemptError::Failed { failure, .. } | AttemptError::UnknownOutcome(failure) => {
            failure.message
        }
        AttemptError::Stopped => "interrupted".into(),
    }
}
