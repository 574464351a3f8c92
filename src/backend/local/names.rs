//! The tree of names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::StoreDirectory;
use super::{Attempt, AttemptError, AttemptStatus, Outcome};
use crate::backend::atomic::{AtomicWriter, Tree};
use crate::backend::errors::{Result, ours, writing};
use crate::backend::files::{parent_of, stop_if_asked};
use crate::backend::parameters::{Name, refuse_into_itself};
use crate::disk::{Disk, FileKind};

/// The entry of a receipt that marks a directory which was merged into an existing one. No CID of
/// the result was recorded.
pub(super) const MERGED: &str = "merged";

/// The tree of names, in `files/`.
#[derive(Debug)]
pub(super) struct NameTree {
    directory: Arc<StoreDirectory>,
}

impl NameTree {
    pub(super) fn new(directory: Arc<StoreDirectory>) -> NameTree {
        NameTree { directory }
    }

    fn disk(&self) -> &dyn Disk {
        &*self.directory.disk
    }

    /// Returns the path of a name on the disk. Fails if a link leads there: it may lead out of the
    /// tree.
    pub(super) fn locate(&self, name: &Name) -> Result<PathBuf> {
        let mut path = self.directory.files();
        for (index, part) in name.parts().iter().enumerate() {
            path.push(part);
            if index + 1 == name.parts().len() {
                break;
            }
            match self.disk().symlink_metadata(&path) {
                Ok(metadata) if metadata.kind == FileKind::Directory => {}
                Ok(_) => {
                    let message = format!(
                        "`{}` leads through `{part}`, which is not a directory",
                        name.display()
                    );
                    return Err(AttemptError::permanent("bad_path", message));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(ours(error)),
            }
        }
        Ok(path)
    }

    /// Returns the path and the kind of an existing name.
    pub(super) fn find(&self, name: &Name) -> Result<(PathBuf, FileKind)> {
        let path = self.locate(name)?;
        if name.is_root() {
            self.directory.ensure(&path).map_err(ours)?;
        }
        match self.disk().symlink_metadata(&path) {
            Ok(metadata) => Ok((path, metadata.kind)),
            Err(error) if error.is_not_found() => Err(AttemptError::permanent(
                "not_found",
                format!(
                    "`{}` does not exist in the tree of files; `list` shows what does",
                    name.display()
                ),
            )),
            Err(error) => Err(ours(error)),
        }
    }

    /// Creates the parent directory of a name.
    fn ensure_parent(&self, name: &Name, path: &Path) -> Result<()> {
        self.directory.ensure(parent_of(path)).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                destination_exists(name, "a part of it is a file")
            }
            _ => writing(error),
        })
    }

    /// Writes a file or a tree under a name.
    pub(super) fn write(&self, tree: &impl Tree, name: &Name) -> Result<Outcome> {
        let path = self.locate(name)?;
        self.ensure_parent(name, &path)?;
        let staging = self.directory.staging_path().map_err(ours)?;
        let writer = AtomicWriter { disk: self.disk(), staging };
        let existing = self.disk().symlink_metadata(&path).ok();
        let is_merged = existing.is_some_and(|existing| existing.kind == FileKind::Directory);
        let node = writer.put(tree, &path)?;
        let receipt =
            is_merged.then(|| (MERGED.to_owned(), "true".to_owned())).into_iter().collect();
        Ok(Outcome {
            cid: Some(node.cid.to_string()),
            size: Some(node.size),
            destination: Some(name.display()),
            receipt,
        })
    }

    pub(super) fn make_directory(&self, name: &Name) -> Result<Outcome> {
        let path = self.locate(name)?;
        self.ensure_parent(name, &path)?;
        match self.directory.ensure(&path) {
            Ok(()) => Ok(Outcome { destination: Some(name.display()), ..Outcome::default() }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(destination_exists(name, "it is a file"))
            }
            Err(error) => Err(writing(error)),
        }
    }

    pub(super) fn rename(&self, source: &Name, destination: &Name) -> Result<Outcome> {
        let (from, kind) = self.find(source)?;
        refuse_into_itself(source, destination)?;
        let to = self.locate(destination)?;
        self.ensure_parent(destination, &to)?;
        match self.disk().symlink_metadata(&to) {
            Ok(metadata) if metadata.kind == FileKind::Directory => {
                return Err(destination_exists(destination, "it is a directory"));
            }
            Ok(_) if kind == FileKind::Directory => {
                return Err(destination_exists(destination, "it is a file"));
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(ours(error)),
        }
        self.disk().rename(&from, &to).map_err(writing)?;
        self.sync_parents(&[&to, &from])?;
        Ok(moved(destination))
    }

    pub(super) fn query_rename(&self, source: &Name, destination: &Name) -> Result<AttemptStatus> {
        let (from, to) = (self.locate(source)?, self.locate(destination)?);
        let exists = |path: &Path| match self.disk().symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(ours(error)),
        };
        match (exists(&from)?, exists(&to)?) {
            (true, _) => Ok(AttemptStatus::NotDone),
            (false, true) => {
                // The attempt may have died before its change was durable.
                self.sync_parents(&[&to, &from])?;
                Ok(AttemptStatus::Done(moved(destination)))
            }
            (false, false) => Ok(AttemptStatus::Unknown(format!(
                "neither `{}` nor `{}` is in the tree of files",
                source.display(),
                destination.display()
            ))),
        }
    }

    pub(super) fn remove(
        &self,
        attempt: &Attempt,
        name: &Name,
        recursive: bool,
    ) -> Result<Outcome> {
        let (path, kind) = self.find(name)?;
        if kind != FileKind::Directory {
            self.disk().remove_file(&path).map_err(ours)?;
            self.sync_parents(&[&path])?;
            return Ok(Outcome::default());
        }
        if !recursive {
            let message =
                format!("`{}` is a directory; pass `recursive=true` to remove it", name.display());
            return Err(AttemptError::permanent("is_directory", message));
        }
        stop_if_asked(attempt)?;
        // The rename removes the whole tree at once. Its files are removed afterwards, here or by a
        // later sweep.
        let removed = self.directory.staging_path().map_err(ours)?;
        self.disk().rename(&path, &removed).map_err(ours)?;
        self.sync_parents(&[&path])?;
        drop(self.disk().remove_tree(&removed));
        Ok(Outcome::default())
    }

    pub(super) fn query_remove(&self, name: &Name) -> Result<AttemptStatus> {
        let path = self.locate(name)?;
        match self.disk().symlink_metadata(&path) {
            Ok(_) => Ok(AttemptStatus::NotDone),
            Err(error) if error.is_not_found() => {
                self.sync_parents(&[&path])?;
                Ok(AttemptStatus::Done(Outcome::default()))
            }
            Err(error) => Err(ours(error)),
        }
    }

    /// Makes changes of names durable. A directory that no longer exists is skipped.
    fn sync_parents(&self, paths: &[&Path]) -> Result<()> {
        for path in paths {
            match self.disk().sync_dir(parent_of(path)) {
                Err(error) if !error.is_not_found() => return Err(ours(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn moved(destination: &Name) -> Outcome {
    Outcome { destination: Some(destination.display()), ..Outcome::default() }
}

fn destination_exists(name: &Name, reason: &str) -> AttemptError {
    let message = format!(
        "`{}` cannot be written in the tree of files: {reason}; choose another name",
        name.display()
    );
    AttemptError::permanent("destination_exists", message)
}
