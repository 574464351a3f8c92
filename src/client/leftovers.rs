use super::{Client, ClientError};
use crate::backend::AttemptError;
use crate::operation::{BackendName, Number, OperationId};
use crate::worker::is_over;

/// What operations that are over had left at backends: unfinished uploads, say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Operations of which nothing is left there any more; or, of a rehearsal, would be.
    pub removed: Vec<Number>,
    /// Those of which something stays for now, with the backend and what it said.
    pub kept: Vec<(Number, BackendName, String)>,
}

impl Client {
    /// Removes from the backends what attempts have left there of operations that are over, or only tells what that is.
    pub fn remove_leftovers(&self, dry_run: bool) -> Result<Leftovers, ClientError> {
        let mut found = Leftovers::default();
        for (name, _) in self.backends.names() {
            let Some(backend) = self.backends.get(name) else { continue };
            let mut left = backend.orphans();
            if left.is_empty() {
                continue;
            }
            // Several objects of one operation count as one.
            left.sort_unstable();
            left.dedup();
            let over: Vec<(Number, OperationId)> = self.look(|view| {
                Ok(left
                    .iter()
                    .copied()
                    .filter(|(number, id)| is_over(view, *number, *id))
                    .collect())
            })?;
            let mut trouble = None;
            for (number, id) in over {
                // A backend that does not answer is not waited for again and again.
                let gone = match (&trouble, dry_run) {
                    (None, false) => backend.abort_orphan(number, id).map_err(words),
                    (None, true) => Ok(()),
                    (Some(why), _) => Err(String::clone(why)),
                };
                match gone {
                    Ok(()) => found.removed.push(number),
                    Err(why) => {
                        found.kept.push((number, name.clone(), why.clone()));
                        trouble = Some(why);
                    }
                }
            }
        }
        Ok(found)
    }
}

fn words(error: AttemptError) -> String {
    match error {
        AttemptError::Failed { failure, .. } | AttemptError::UnknownOutcome(failure) => {
            failure.message
        }
        AttemptError::Stopped => "it was interrupted".into(),
    }
}
