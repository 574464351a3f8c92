//! The tree of names: `files/`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::audit::MERGED;
use super::origin::{Origin, Reading};
use super::{Attempt, AttemptError, AttemptStatus, LocalBackend, Outcome};
use crate::backend::atomic::AtomicWriter;
use crate::backend::errors::{Result, ours, writing};
use crate::backend::files::{Expected, parent_of};
use crate::backend::parameters::{Name, refuse_into_itself};
use crate::disk::FileKind;

impl LocalBackend {
    /// Where a name is on the disk. Links on the way there are not followed: they may lead out.
    pub(super) fn locate(&self, name: &Name) -> Result<PathBuf> {
        let mut path = self.files_dir();
        for (index, part) in name.parts().iter().enumerate() {
            path.push(part);
            if index + 1 == name.parts().len() {
                break;
            }
            match self.disk.symlink_metadata(&path) {
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

    /// What a name in the tree stands for.
    pub(super) fn named(&self, name: &Name) -> Result<(PathBuf, FileKind)> {
        let path = self.locate(name)?;
        if name.is_root() {
            self.ensure_dir(&path).map_err(ours)?;
        }
        match self.disk.symlink_metadata(&path) {
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

    /// Makes what a name is to be put in.
    fn make_parent(&self, name: &Name, path: &Path) -> Result<()> {
        self.ensure_dir(parent_of(path)).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                exists(name, "a part of it is a file")
            }
            _ => writing(error),
        })
    }

    /// Writes a file or a tree under a name.
    pub(super) fn write_name(
        &self,
        attempt: &Attempt,
        origin: Origin<'_>,
        name: &Name,
    ) -> Result<Outcome> {
        let path = self.locate(name)?;
        self.make_parent(name, &path)?;
        let writer = AtomicWriter { disk: &*self.disk, staging: self.tmp_path().map_err(ours)? };
        let there = self.disk.symlink_metadata(&path).ok();
        let is_merged = there.is_some_and(|there| there.kind == FileKind::Directory);
        let node = writer.put(&Reading { backend: self, attempt, origin }, &path)?;
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
        self.make_parent(name, &path)?;
        match self.ensure_dir(&path) {
            Ok(()) => Ok(Outcome { destination: Some(name.display()), ..Outcome::default() }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(exists(name, "it is a file"))
            }
            Err(error) => Err(writing(error)),
        }
    }

    pub(super) fn copy(
        &self,
        attempt: &Attempt,
        source: &Name,
        destination: &Name,
    ) -> Result<Outcome> {
        let (path, kind) = self.named(source)?;
        refuse_into_itself(source, destination)?;
        let origin =
            Origin::Disk { path, kind, expected: Expected::Anything, options: self.options };
        self.write_name(attempt, origin, destination)
    }

    pub(super) fn move_name(&self, source: &Name, destination: &Name) -> Result<Outcome> {
        let (from, kind) = self.named(source)?;
        refuse_into_itself(source, destination)?;
        let to = self.locate(destination)?;
        self.make_parent(destination, &to)?;
        match self.disk.symlink_metadata(&to) {
            Ok(metadata) if metadata.kind == FileKind::Directory => {
                return Err(exists(destination, "it is a directory"));
            }
            Ok(_) if kind == FileKind::Directory => {
                return Err(exists(destination, "it is a file"));
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(ours(error)),
        }
        self.disk.rename(&from, &to).map_err(writing)?;
        self.sync_parents(&[&to, &from])?;
        Ok(moved(destination))
    }

    pub(super) fn query_move(&self, source: &Name, destination: &Name) -> Result<AttemptStatus> {
        let (from, to) = (self.locate(source)?, self.locate(destination)?);
        let there = |path: &Path| match self.disk.symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(ours(error)),
        };
        match (there(&from)?, there(&to)?) {
            (true, _) => Ok(AttemptStatus::NotDone),
            (false, true) => {
                // Whoever moved it may have been killed before it was durable.
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

    pub(super) fn remove_name(
        &self,
        attempt: &Attempt,
        name: &Name,
        recursive: bool,
    ) -> Result<Outcome> {
        let (path, kind) = self.named(name)?;
        if kind != FileKind::Directory {
            self.disk.remove_file(&path).map_err(ours)?;
            self.sync_parents(&[&path])?;
            return Ok(Outcome::default());
        }
        if !recursive {
            let message =
                format!("`{}` is a directory; pass `recursive=true` to remove it", name.display());
            return Err(AttemptError::permanent("is_directory", message));
        }
        super::stop_if_asked(attempt)?;
        // All of it goes at once; what is in it is cleared away afterwards, here or by a later
        // sweep.
        let rubbish = self.tmp_path().map_err(ours)?;
        self.disk.rename(&path, &rubbish).map_err(ours)?;
        self.sync_parents(&[&path])?;
        drop(self.disk.remove_tree(&rubbish));
        Ok(Outcome::default())
    }

    pub(super) fn query_remove_name(&self, name: &Name) -> Result<AttemptStatus> {
        let path = self.locate(name)?;
        match self.disk.symlink_metadata(&path) {
            Ok(_) => Ok(AttemptStatus::NotDone),
            Err(error) if error.is_not_found() => {
                self.sync_parents(&[&path])?;
                Ok(AttemptStatus::Done(Outcome::default()))
            }
            Err(error) => Err(ours(error)),
        }
    }

    /// Makes changes of names durable; a directory that is gone has nothing left to make durable.
    fn sync_parents(&self, paths: &[&Path]) -> Result<()> {
        for path in paths {
            match self.disk.sync_dir(parent_of(path)) {
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

fn exists(name: &Name, why: &str) -> AttemptError {
    let message = format!(
        "`{}` cannot be written in the tree of files: {why}; choose another name",
        name.display()
    );
    AttemptError::permanent("destination_exists", message)
}
