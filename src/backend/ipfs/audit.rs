//! The audit of completed operations: whether pins and names on the node are still as they were.

use super::mfs::Mfs;
use super::pins::Pins;
use super::{KuboSession, is_same_block};
use crate::backend::effect::AuditResult;
use crate::backend::errors::Result;
use crate::backend::parameters::{Name, StandardOperation};
use crate::backend::unixfs::Cid;
use crate::operation::Outcome;

/// Compares the effect of a completed operation with what the node has now.
pub(super) fn audit(
    session: KuboSession<'_>,
    operation: &StandardOperation,
    outcome: &Outcome,
) -> Result<AuditResult> {
    let cid = outcome.cid.as_deref().and_then(|cid| Cid::try_from(cid).ok());
    match operation {
        StandardOperation::Add { .. } => {
            let Some(cid) = cid else { return Ok(AuditResult::NotApplicable) };
            let kept = match session.parameter("pin") {
                Some("false") => audit_block(session, &cid)?,
                _ => audit_pin(session, &cid)?,
            };
            match (kept, session.parameter("to_files")) {
                // For a directory Kubo chose the name within it, which is not recorded.
                (AuditResult::Intact, Some(name)) if !name.ends_with('/') => {
                    audit_name(session, name, Some(&cid))
                }
                (kept, _) => Ok(kept),
            }
        }
        StandardOperation::Pin { cid } => audit_pin(session, cid),
        StandardOperation::Upload { destination, .. }
        | StandardOperation::Copy { destination, .. }
        | StandardOperation::Move { destination, .. } => {
            audit_name(session, &destination.display(), cid.as_ref())
        }
        StandardOperation::MakeDirectory { name } => audit_directory(session, name),
        _ => Ok(AuditResult::NotApplicable),
    }
}

fn audit_pin(session: KuboSession<'_>, cid: &Cid) -> Result<AuditResult> {
    Ok(match Pins(session).kind_of(cid)? {
        Some(_) => AuditResult::Intact,
        None => AuditResult::Missing(format!("{cid} is no longer pinned on the node")),
    })
}

/// Audits content that was added without a pin.
fn audit_block(session: KuboSession<'_>, cid: &Cid) -> Result<AuditResult> {
    Ok(match Pins(session).has_block(cid)? {
        true => AuditResult::Intact,
        false => AuditResult::Missing(format!("the node no longer has {cid}")),
    })
}

fn audit_name(session: KuboSession<'_>, name: &str, cid: Option<&Cid>) -> Result<AuditResult> {
    Ok(match (Mfs(session).stat(name)?, cid) {
        (None, _) => missing(name),
        (Some(stat), Some(cid)) if !is_same_block(&stat.cid, cid) => {
            AuditResult::Altered(format!("`{name}` is now {}, not {cid}", stat.cid))
        }
        (Some(_), _) => AuditResult::Intact,
    })
}

fn audit_directory(session: KuboSession<'_>, name: &Name) -> Result<AuditResult> {
    let name = name.display();
    Ok(match Mfs(session).stat(&name)? {
        None => missing(&name),
        Some(stat) if stat.is_directory => AuditResult::Intact,
        Some(_) => AuditResult::Altered(format!("`{name}` is no longer a directory")),
    })
}

fn missing(name: &str) -> AuditResult {
    AuditResult::Missing(format!("`{name}` no longer exists on the node"))
}
