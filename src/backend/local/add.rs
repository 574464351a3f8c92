//! Adding files and trees to the store.

use std::path::Path;

use super::entry::{Entry, EntryKind};
use super::listing;
use super::origin::Origin;
use super::{Attempt, AttemptError, LocalBackend, Outcome, Request};
use crate::backend::errors::{Result, ours};
use crate::backend::files::{
    Expected, check_depth, directory_node, entries_on_disk, link_target, read_user_file,
    stop_if_asked, unsupported_file,
};
use crate::backend::unixfs::{self, Child, Node, Options};
use crate::disk::FileKind;

impl LocalBackend {
    pub(super) fn add(
        &self,
        request: &Request,
        attempt: &Attempt,
        path: &Path,
        recursive: bool,
        options: Options,
    ) -> Result<Outcome> {
        let origin = Origin::of_user(self.disk(), attempt, path, recursive, request, options)?;
        let node = match &origin {
            Origin::Disk { path, kind: FileKind::File, expected, .. } => {
                self.add_file(attempt, path, *expected, options)?
            }
            Origin::Disk { kind: FileKind::Directory, .. } => {
                self.add_directory(attempt, path, options, 0)?
            }
            _ => return Err(unsupported_file(path)),
        };
        Ok(Outcome { cid: Some(node.cid.to_string()), size: Some(node.size), ..Outcome::default() })
    }

    fn add_file(
        &self,
        attempt: &Attempt,
        path: &Path,
        expected: Expected<'_>,
        options: Options,
    ) -> Result<Node> {
        let mut staged = None;
        let node = read_user_file(self.disk(), attempt, path, expected, options, &mut |data| {
            let staged = match &mut staged {
                Some(staged) => staged,
                // Only now, because a missing source should not cost a write.
                none => none.insert(self.store.stage_empty().map_err(ours)?),
            };
            staged.write(data).map_err(ours)
        })?;
        let staged = staged.map_or_else(|| self.store.stage_empty(), Ok).map_err(ours)?;
        self.store.publish_file(staged, &node.cid, &options).map_err(ours)?;
        Ok(node)
    }

    fn add_directory(
        &self,
        attempt: &Attempt,
        path: &Path,
        options: Options,
        depth: usize,
    ) -> Result<Node> {
        check_depth(path, depth)?;
        let mut entries = Vec::new();
        for (name, kind) in entries_on_disk(self.disk(), path)? {
            stop_if_asked(attempt)?;
            let path = path.join(&name);
            let (kind, node) = match kind {
                FileKind::File => {
                    (EntryKind::File, self.add_file(attempt, &path, Expected::Anything, options)?)
                }
                FileKind::Directory => {
                    (EntryKind::Directory, self.add_directory(attempt, &path, options, depth + 1)?)
                }
                FileKind::Symlink => {
                    let target = link_target(self.disk(), &path)?;
                    let node = unixfs::symlink(target.as_bytes(), options.cid_version);
                    (EntryKind::Symlink { target }, node)
                }
                FileKind::Other => return Err(unsupported_file(&path)),
            };
            entries.push(Entry {
                name,
                kind,
                cid: node.cid,
                size: node.size,
                dag_size: node.dag_size,
            });
        }
        let children: Vec<Child> = entries
            .iter()
            .map(|entry| Child { name: entry.name.clone(), node: entry.node() })
            .collect();
        let directory = directory_node(&children, options)?;
        // Under the lock, no process removes entries between this check and the publication of the
        // listing, which protects them.
        let _lock = self.directory.lock(attempt)?;
        for entry in entries.iter().filter(|entry| !matches!(entry.kind, EntryKind::Symlink { .. }))
        {
            if self.store.find(&entry.cid).map_err(ours)?.is_none() {
                let message =
                    format!("`{}` was removed before its directory was stored", entry.name);
                return Err(AttemptError::transient("removed_meanwhile", message));
            }
        }
        let text = listing::encode(directory.sharded, &entries);
        self.store.publish_listing(&text, &directory.node.cid).map_err(ours)?;
        Ok(directory.node)
    }
}
