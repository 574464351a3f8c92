//! Looking again at what a node was given: pins, and what names stand for.

use super::{Session, same};
use crate::backend::effect::AuditResult;
use crate::backend::errors::Result;
use crate::backend::parameters::{Name, Task};
use crate::backend::unixfs::Cid;
use crate::operation::Outcome;

impl Session<'_> {
    pub(super) fn look_again(&self, task: &Task, outcome: &Outcome) -> Result<AuditResult> {
        let cid = outcome.cid.as_deref().and_then(|cid| Cid::try_from(cid).ok());
        match task {
            Task::Add { .. } => {
                let Some(cid) = cid else { return Ok(AuditResult::NotApplicable) };
                let parameter = |name| self.request.parameters.get(name).map(String::as_str);
                let kept = match parameter("pin") {
                    Some("false") => self.audit_block(&cid)?,
                    _ => self.audit_pin(&cid)?,
                };
                match (kept, parameter("to_files").filter(|name| !name.is_empty())) {
                    // In a directory it has a name that Kubo chose.
                    (AuditResult::Intact, Some(name)) if !name.ends_with('/') => {
                        self.audit_named(name, Some(&cid))
                    }
                    (kept, _) => Ok(kept),
                }
            }
            Task::Pin { cid } => self.audit_pin(cid),
            Task::Upload { destination, .. }
            | Task::Copy { destination, .. }
            | Task::Move { destination, .. } => {
                self.audit_named(&destination.display(), cid.as_ref())
            }
            Task::MakeDirectory { name } => self.audit_directory(name),
            _ => Ok(AuditResult::NotApplicable),
        }
    }

    fn audit_pin(&self, cid: &Cid) -> Result<AuditResult> {
        let gone = || AuditResult::Missing(format!("{cid} is not pinned on the node any more"));
        Ok(self.pin_of(cid)?.map_or_else(gone, |_| AuditResult::Intact))
    }

    /// Of what was not to be pinned, whether the node has it at all.
    fn audit_block(&self, cid: &Cid) -> Result<AuditResult> {
        let gone = || AuditResult::Missing(format!("the node has no {cid} any more"));
        Ok(if self.has_block(cid)? { AuditResult::Intact } else { gone() })
    }

    fn audit_named(&self, name: &str, cid: Option<&Cid>) -> Result<AuditResult> {
        Ok(match (self.stat(name)?, cid) {
            (None, _) => gone(name),
            (Some(there), Some(cid)) if !same(&there.cid, cid) => {
                AuditResult::Altered(format!("`{name}` is {} now, not {cid}", there.cid))
            }
            (Some(_), _) => AuditResult::Intact,
        })
    }

    fn audit_directory(&self, name: &Name) -> Result<AuditResult> {
        let name = name.display();
        Ok(match self.stat(&name)? {
            None => gone(&name),
            Some(there) if there.is_directory => AuditResult::Intact,
            Some(_) => AuditResult::Altered(format!("`{name}` is no directory any more")),
        })
    }
}

fn gone(name: &str) -> AuditResult {
    AuditResult::Missing(format!("there is no `{name}` on the node any more"))
}
