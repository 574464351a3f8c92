//! Atomic writes outside the log: a file, a link or a new directory appears complete or not at all.

use std::path::{Path, PathBuf};

use super::errors::{Result, writing};
use super::files::{check_depth, parent_of};
use super::unixfs::{Child, Node};
use super::{AttemptError, Request};
use crate::disk::{Access, Disk, DiskFile, DiskResult, FileKind};

/// A file, directory or link to be written.
pub(super) trait Tree: Sized {
    /// Returns its kind, with what it contains or points to.
    fn shape(&self) -> Result<Shape<Self>>;
    /// Writes the content of a file to `sink`. Fails if the content is not what it should be.
    fn read(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Node>;
    /// Returns the node of a directory with these entries.
    fn node_of(&self, children: &[Child]) -> Result<Node>;
    /// Returns the node of a link to this target.
    fn link_node(&self, target: &str) -> Node;
}

/// The kind of a [`Tree`].
pub(super) enum Shape<T> {
    File,
    Directory(Vec<(String, T)>),
    Link(String),
}

/// Writes files and trees, which it prepares at a staging path on the same file system.
#[derive(Debug)]
pub(super) struct AtomicWriter<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) staging: PathBuf,
}

impl<'a> AtomicWriter<'a> {
    /// Returns a writer that stages beside the destination, under a name with the operation's id,
    /// and removes what an earlier attempt left under that name.
    pub(super) fn beside(
        disk: &'a dyn Disk,
        request: &Request,
        destination: &Path,
    ) -> Result<AtomicWriter<'a>> {
        let staging = parent_of(destination).join(format!(".wal-cli-{}.tmp", request.id));
        let writer = AtomicWriter { disk, staging };
        match disk.symlink_metadata(&writer.staging) {
            Ok(_) => disk.remove_tree(&writer.staging).map_err(writing)?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(writing(error)),
        }
        Ok(writer)
    }

    /// Writes a file, a link or a tree. A directory that exists keeps its other entries.
    pub(super) fn put(&self, origin: &impl Tree, destination: &Path) -> Result<Node> {
        let put = self.put_at(origin, destination, 0);
        if put.is_err() && self.disk.symlink_metadata(&self.staging).is_ok() {
            drop(self.disk.remove_tree(&self.staging));
        }
        put
    }

    fn put_at(&self, origin: &impl Tree, destination: &Path, depth: usize) -> Result<Node> {
        let disk = self.disk;
        let existing = match disk.symlink_metadata(destination) {
            Ok(metadata) => Some(metadata.kind),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(writing(error)),
        };
        let shape = origin.shape()?;
        match (shape, existing) {
            (Shape::Directory(children), Some(FileKind::Directory)) => {
                check_depth(destination, depth)?;
                let mut nodes = Vec::with_capacity(children.len());
                for (name, child) in children {
                    let node = self.put_at(&child, &destination.join(&name), depth + 1)?;
                    nodes.push(Child { name, node });
                }
                // An earlier attempt may have created it, and died before it was durable.
                disk.sync_dir(parent_of(destination)).map_err(writing)?;
                origin.node_of(&nodes)
            }
            (Shape::Directory(_), Some(_)) => {
                Err(destination_exists(destination, "it is not a directory"))
            }
            (_, Some(FileKind::Directory)) => {
                Err(destination_exists(destination, "it is a directory"))
            }
            (shape, _) => {
                let node = self.create(origin, shape, &self.staging, depth)?;
                disk.rename(&self.staging, destination).map_err(writing)?;
                disk.sync_dir(parent_of(destination)).map_err(writing)?;
                Ok(node)
            }
        }
    }

    /// Creates the tree at a path that does not exist yet, with durable content; its name is not
    /// durable.
    fn create<T: Tree>(
        &self,
        origin: &T,
        shape: Shape<T>,
        path: &Path,
        depth: usize,
    ) -> Result<Node> {
        let disk = self.disk;
        match shape {
            Shape::File => {
                let mut file = Staged::create(disk, path.to_owned()).map_err(writing)?;
                let node = origin.read(&mut |data| file.write(data).map_err(writing))?;
                file.finish().map_err(writing)?;
                Ok(node)
            }
            Shape::Link(target) => {
                disk.symlink(Path::new(&target), path).map_err(writing)?;
                Ok(origin.link_node(&target))
            }
            Shape::Directory(children) => {
                check_depth(path, depth)?;
                disk.create_dir(path).map_err(writing)?;
                let mut nodes = Vec::with_capacity(children.len());
                for (name, child) in children {
                    let shape = child.shape()?;
                    let node = self.create(&child, shape, &path.join(&name), depth + 1)?;
                    nodes.push(Child { name, node });
                }
                disk.sync_dir(path).map_err(writing)?;
                origin.node_of(&nodes)
            }
        }
    }
}

pub(super) fn destination_exists(destination: &Path, reason: &str) -> AttemptError {
    let message = format!(
        "`{}` cannot be written: {reason}; choose another destination",
        destination.display()
    );
    AttemptError::permanent("destination_exists", message)
}

/// A file that is being written. It is removed if it is dropped unfinished.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    len: u64,
    keep: bool,
}

impl<'a> Staged<'a> {
    pub(super) fn create(disk: &'a dyn Disk, path: PathBuf) -> DiskResult<Staged<'a>> {
        let file = disk.open(&path, Access::CreateNew)?;
        Ok(Staged { disk, path, file, len: 0, keep: false })
    }

    pub(super) fn write(&mut self, data: &[u8]) -> DiskResult<()> {
        self.file.write_at(data, self.len)?;
        self.len += data.len() as u64;
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Makes the content durable and leaves the file at its path.
    pub(super) fn finish(mut self) -> DiskResult<()> {
        self.file.sync_all()?;
        self.keep = true;
        Ok(())
    }

    /// Makes the content durable, and moves the file to its final path, durably as well.
    pub(super) fn publish(mut self, to: &Path) -> DiskResult<()> {
        self.file.sync_all()?;
        self.disk.rename(&self.path, to)?;
        self.keep = true;
        self.disk.sync_dir(parent_of(to))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.keep {
            // If this fails, a later sweep removes the file.
            drop(self.disk.remove_file(&self.path));
        }
    }
}
