//! Looking again at what was stored: content is read and hashed, names are found and what they
//! stand for is hashed.

use super::entry::EntryKind;
use super::errors::no_content;
use super::origin::{Origin, Reading};
use super::{Attempt, AttemptError, LocalBackend, Outcome, Request, stop_if_asked};
use crate::backend::atomic::{Shape, Tree};
use crate::backend::effect::AuditResult;
use crate::backend::errors::{Result, ours};
use crate::backend::files::{Expected, check_depth};
use crate::backend::parameters::{Name, StandardOperation};
use crate::backend::unixfs::{Child, Cid, CidVersion, Node, Options, Version};
use crate::disk::FileKind;
use crate::operation::FailureClass;

/// The entry of a receipt by which a directory that was put into one that was there already is told
/// from others: there,
/// the whole has no CID that anybody has noted.
pub(super) const MERGED: &str = "merged";

impl LocalBackend {
    pub(super) fn look_again(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult> {
        // A directory of the original may have been adopted without its operations' parameters.
        let Ok(operation) = StandardOperation::of(request, self.options) else {
            return Ok(AuditResult::NotApplicable);
        };
        // A disk that is not mounted must not look like one from which everything was removed.
        let mut parts = [self.content_dir(), self.files_dir(), self.pins_dir()].into_iter();
        if !parts
            .try_fold(false, |there, part| Ok(there || self.disk.exists(&part)?))
            .map_err(ours)?
        {
            let message = format!(
                "no store at `{}`: mount its disk, or correct `path` of this backend; if the store \
                 is lost, create the directory `content` in it",
                self.root.display()
            );
            return Err(AttemptError::failed(FailureClass::Outage, "not_found", message));
        }
        match operation {
            StandardOperation::Add { .. } => match outcome.cid.as_deref().map(Cid::try_from) {
                Some(Ok(cid)) => self.audit_content(attempt, &cid),
                _ => Ok(AuditResult::NotApplicable),
            },
            StandardOperation::Pin { cid } => Ok(match self.has_pin(&cid).map_err(ours)? {
                true => AuditResult::Intact,
                false => AuditResult::Missing(format!("{cid} is no longer pinned")),
            }),
            StandardOperation::Upload { destination, options, .. } => self.audit_name(
                attempt,
                &destination,
                outcome,
                &[options, as_noted(outcome, request)],
            ),
            StandardOperation::Copy { destination, .. } => self.audit_name(
                attempt,
                &destination,
                outcome,
                &[self.options, as_noted(outcome, request)],
            ),
            StandardOperation::Move { destination, .. } => {
                self.audit_name(attempt, &destination, outcome, &[])
            }
            StandardOperation::MakeDirectory { name } => Ok(match self.kind_of(&name)? {
                Some(FileKind::Directory) => AuditResult::Intact,
                Some(_) => {
                    AuditResult::Altered(format!("`{}` is no longer a directory", name.display()))
                }
                None => gone(&name),
            }),
            _ => Ok(AuditResult::NotApplicable),
        }
    }

    /// Whether content is there, and still has its CID; of a directory, all that is in it.
    fn audit_content(&self, attempt: &Attempt, cid: &Cid) -> Result<AuditResult> {
        let checked = match self.entry_at(cid, &[]) {
            Ok(entry) => self.check_content(attempt, &entry.kind, cid, 0),
            Err(error) => Err(error),
        };
        Ok(match checked {
            Ok(()) => AuditResult::Intact,
            Err(AttemptError::Failed { failure, .. })
                if failure.error_type == "damaged_content" =>
            {
                AuditResult::Altered(format!(
                    "the content stored as {cid} is damaged: it no longer has that CID"
                ))
            }
            Err(AttemptError::Failed { failure, .. }) if failure.error_type == "not_found" => {
                match self.find(cid).map_err(ours)? {
                    None => AuditResult::Missing(format!("{cid} is no longer in the store")),
                    Some(_) => AuditResult::Altered(format!(
                        "a part of the directory {cid} is no longer in the store"
                    )),
                }
            }
            Err(error) => return Err(error),
        })
    }

    fn check_content(
        &self,
        attempt: &Attempt,
        kind: &EntryKind,
        cid: &Cid,
        depth: usize,
    ) -> Result<()> {
        stop_if_asked(attempt)?;
        match kind {
            EntryKind::File => self.read_content(attempt, cid, &mut |_| Ok(())),
            EntryKind::Symlink { .. } => Ok(()),
            EntryKind::Directory => {
                check_depth(&self.root, depth)?;
                for entry in self.read_listing(cid)?.entries {
                    let is_stored = !matches!(entry.kind, EntryKind::Symlink { .. });
                    if is_stored && self.find(&entry.cid).map_err(ours)?.is_none() {
                        return Err(no_content(&entry.cid));
                    }
                    self.check_content(attempt, &entry.kind, &entry.cid, depth + 1)?;
                }
                Ok(())
            }
        }
    }

    /// What a name stands for; none: there is no such name.
    fn kind_of(&self, name: &Name) -> Result<Option<FileKind>> {
        match self.named(name) {
            Ok((_, kind)) => Ok(Some(kind)),
            Err(AttemptError::Failed { failure, .. })
                if ["not_found", "bad_path"].contains(&&*failure.error_type) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a name is there, and what it stands for has the CID that was noted, by one of these
    /// ways to make it.
    fn audit_name(
        &self,
        attempt: &Attempt,
        name: &Name,
        outcome: &Outcome,
        ways: &[Options],
    ) -> Result<AuditResult> {
        let Some(kind) = self.kind_of(name)? else { return Ok(gone(name)) };
        let Some(Ok(cid)) = outcome.cid.as_deref().map(Cid::try_from) else {
            return Ok(AuditResult::Intact);
        };
        if outcome.receipt.contains_key(MERGED) {
            let what = || format!("`{}` is no longer a directory", name.display());
            return Ok(if kind == FileKind::Directory {
                AuditResult::Intact
            } else {
                AuditResult::Altered(what())
            });
        }
        let path = self.locate(name)?;
        let mut found = None;
        for options in ways {
            let origin = Origin::Disk {
                path: path.clone(),
                kind,
                expected: Expected::Anything,
                options: *options,
            };
            let node = measure(&Reading { backend: self, attempt, origin }, &path, 0)?;
            if node.cid == cid {
                return Ok(AuditResult::Intact);
            }
            found.get_or_insert(node.cid);
        }
        Ok(match found {
            Some(now) => {
                AuditResult::Altered(format!("`{}` is now {now}, not {cid}", name.display()))
            }
            None => AuditResult::Intact,
        })
    }
}

/// What something is, read and not written.
fn measure(tree: &impl Tree, path: &std::path::Path, depth: usize) -> Result<Node> {
    match tree.shape()? {
        Shape::File => tree.read(&mut |_| Ok(())),
        Shape::Link(target) => Ok(tree.link_node(&target)),
        Shape::Directory(children) => {
            check_depth(path, depth)?;
            let mut nodes = Vec::with_capacity(children.len());
            for (name, child) in children {
                let node = measure(&child, &path.join(&name), depth + 1)?;
                nodes.push(Child { name, node });
            }
            tree.node_of(&nodes)
        }
    }
}

/// How a CID is made by default that looks like the noted one: the settings may have changed since.
fn as_noted(outcome: &Outcome, request: &Request) -> Options {
    let is_v0 = |cid: &str| Cid::try_from(cid).is_ok_and(|cid| cid.version() == Version::V0);
    let usual = match outcome.cid.as_deref().is_some_and(is_v0) {
        true => Options::default(),
        false => Options { cid_version: CidVersion::V1, raw_leaves: true, ..Options::default() },
    };
    usual.overridden(&request.parameters).unwrap_or(usual)
}

fn gone(name: &Name) -> AuditResult {
    AuditResult::Missing(format!("`{}` no longer exists", name.display()))
}
