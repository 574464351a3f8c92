//! Audits: stored content, and the files and directories of the tree, are read and hashed again.

use super::entry::EntryKind;
use super::errors::no_content;
use super::names::MERGED;
use super::origin::{Origin, OriginReader};
use super::{Attempt, AttemptError, LocalBackend, Outcome, Request, stop_if_asked};
use crate::backend::atomic::{Shape, Tree};
use crate::backend::effect::AuditResult;
use crate::backend::errors::{Result, ours};
use crate::backend::files::{Expected, check_depth};
use crate::backend::parameters::{Name, StandardOperation};
use crate::backend::unixfs::{Child, Cid, CidVersion, Node, Options, Version};
use crate::disk::FileKind;
use crate::operation::FailureClass;

impl LocalBackend {
    pub(super) fn audit_operation(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult> {
        // Operations adopted from the original system may lack their parameters.
        let Ok(operation) = StandardOperation::of(request, self.options) else {
            return Ok(AuditResult::NotApplicable);
        };
        // A disk that is not mounted must not look like one without any content.
        if !self.directory.exists().map_err(ours)? {
            let message = format!(
                "no store at `{}`: mount its disk, or correct `path` of this backend; if the store \
                 is lost, create the directory `content` in it",
                self.directory.root.display()
            );
            return Err(AttemptError::failed(FailureClass::Outage, "not_found", message));
        }
        match operation {
            StandardOperation::Add { .. } => match outcome.cid.as_deref().map(Cid::try_from) {
                Some(Ok(cid)) => self.audit_content(attempt, &cid),
                _ => Ok(AuditResult::NotApplicable),
            },
            StandardOperation::Pin { cid } => Ok(match self.store.has_pin(&cid).map_err(ours)? {
                true => AuditResult::Intact,
                false => AuditResult::Missing(format!("{cid} is no longer pinned")),
            }),
            StandardOperation::Upload { destination, options, .. } => self.audit_name(
                attempt,
                &destination,
                outcome,
                &[options, options_of_cid(outcome, request)],
            ),
            StandardOperation::Copy { destination, .. } => self.audit_name(
                attempt,
                &destination,
                outcome,
                &[self.options, options_of_cid(outcome, request)],
            ),
            StandardOperation::Move { destination, .. } => {
                self.audit_name(attempt, &destination, outcome, &[])
            }
            StandardOperation::MakeDirectory { name } => Ok(match self.kind_of(&name)? {
                Some(FileKind::Directory) => AuditResult::Intact,
                Some(_) => not_a_directory(&name),
                None => missing(&name),
            }),
            _ => Ok(AuditResult::NotApplicable),
        }
    }

    /// Compares content with its CID; of a directory, all content below it.
    fn audit_content(&self, attempt: &Attempt, cid: &Cid) -> Result<AuditResult> {
        let checked = match self.store.entry_at(cid, &[]) {
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
                match self.store.find(cid).map_err(ours)? {
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
            EntryKind::File => self.store.read_content(attempt, cid, &mut |_| Ok(())),
            EntryKind::Symlink { .. } => Ok(()),
            EntryKind::Directory => {
                check_depth(&self.directory.root, depth)?;
                for entry in self.store.read_listing(cid)?.entries {
                    let is_stored = !matches!(entry.kind, EntryKind::Symlink { .. });
                    if is_stored && self.store.find(&entry.cid).map_err(ours)?.is_none() {
                        return Err(no_content(&entry.cid));
                    }
                    self.check_content(attempt, &entry.kind, &entry.cid, depth + 1)?;
                }
                Ok(())
            }
        }
    }

    /// Returns the kind of a name, or `None` if it does not exist.
    fn kind_of(&self, name: &Name) -> Result<Option<FileKind>> {
        match self.names.find(name) {
            Ok((_, kind)) => Ok(Some(kind)),
            Err(AttemptError::Failed { failure, .. })
                if ["not_found", "bad_path"].contains(&&*failure.error_type) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Compares a name with the CID of the outcome. The name is intact if its content has that CID
    /// with one of the `candidates`, the options that may have been used.
    fn audit_name(
        &self,
        attempt: &Attempt,
        name: &Name,
        outcome: &Outcome,
        candidates: &[Options],
    ) -> Result<AuditResult> {
        let Some(kind) = self.kind_of(name)? else { return Ok(missing(name)) };
        let Some(Ok(cid)) = outcome.cid.as_deref().map(Cid::try_from) else {
            return Ok(AuditResult::Intact);
        };
        if outcome.receipt.contains_key(MERGED) {
            return Ok(match kind {
                FileKind::Directory => AuditResult::Intact,
                _ => not_a_directory(name),
            });
        }
        let path = self.names.locate(name)?;
        let mut found = None;
        for options in candidates {
            let origin = Origin::Disk {
                path: path.clone(),
                kind,
                expected: Expected::Anything,
                options: *options,
            };
            let reader = OriginReader { store: &self.store, attempt, origin };
            let node = node_of(&reader, &path, 0)?;
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

/// Reads a tree and returns its node.
fn node_of(tree: &impl Tree, path: &std::path::Path, depth: usize) -> Result<Node> {
    match tree.shape()? {
        Shape::File => tree.read(&mut |_| Ok(())),
        Shape::Link(target) => Ok(tree.link_node(&target)),
        Shape::Directory(children) => {
            check_depth(path, depth)?;
            let mut nodes = Vec::with_capacity(children.len());
            for (name, child) in children {
                let node = node_of(&child, &path.join(&name), depth + 1)?;
                nodes.push(Child { name, node });
            }
            tree.node_of(&nodes)
        }
    }
}

/// Returns Kubo's default options for CIDs of the outcome's version, overridden by the operation's
/// parameters. The settings may have changed since the operation ran.
fn options_of_cid(outcome: &Outcome, request: &Request) -> Options {
    let is_v0 = |cid: &str| Cid::try_from(cid).is_ok_and(|cid| cid.version() == Version::V0);
    let defaults = match outcome.cid.as_deref().is_some_and(is_v0) {
        true => Options::default(),
        false => Options { cid_version: CidVersion::V1, raw_leaves: true, ..Options::default() },
    };
    defaults.overridden(&request.parameters).unwrap_or(defaults)
}

fn not_a_directory(name: &Name) -> AuditResult {
    AuditResult::Altered(format!("`{}` is no longer a directory", name.display()))
}

fn missing(name: &Name) -> AuditResult {
    AuditResult::Missing(format!("`{}` no longer exists", name.display()))
}
