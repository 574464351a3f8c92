//! Where content comes from, and getting it out of the store.

use std::path::{Path, PathBuf};

use super::entry::{Entry, EntryKind};
use super::{Attempt, AttemptError, LocalBackend, Outcome, Request};
use crate::backend::atomic::{AtomicWriter, Shape, Tree};
use crate::backend::errors::Result;
use crate::backend::files::{
    Expected, UserFile, directory_node, entries_on_disk, find_user_file, link_target,
    read_user_file, unsupported_file,
};
use crate::backend::parameters;
use crate::backend::unixfs::{self, Child, Node, Options};
use crate::disk::FileKind;

/// Something to be written: a file, a directory or a link.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    /// On the disk, as it is there.
    Disk { path: PathBuf, kind: FileKind, expected: Expected<'a>, options: Options },
    /// In the store.
    Content(Entry),
}

impl<'a> Origin<'a> {
    /// What a path given by the user stands for.
    pub(super) fn of_user(
        backend: &LocalBackend,
        attempt: &Attempt,
        path: &Path,
        recursive: bool,
        request: &'a Request,
        options: Options,
    ) -> Result<Origin<'a>> {
        let UserFile { path, kind, expected } =
            find_user_file(&*backend.disk, attempt, path, recursive, request)?;
        Ok(Origin::Disk { path, kind, expected, options })
    }
}

/// An origin with what it takes to read it.
pub(super) struct Reading<'a> {
    pub(super) backend: &'a LocalBackend,
    pub(super) attempt: &'a Attempt,
    pub(super) origin: Origin<'a>,
}

impl<'a> Reading<'a> {
    fn child(&self, origin: Origin<'a>) -> Reading<'a> {
        Reading { origin, ..*self }
    }
}

impl Tree for Reading<'_> {
    fn shape(&self) -> Result<Shape<Self>> {
        let disk = &*self.backend.disk;
        match &self.origin {
            Origin::Disk { path, kind, options, .. } => match kind {
                FileKind::File => Ok(Shape::File),
                FileKind::Symlink => Ok(Shape::Link(link_target(disk, path)?)),
                FileKind::Directory => {
                    let mut children = Vec::new();
                    for (name, kind) in entries_on_disk(disk, path)? {
                        let path = path.join(&name);
                        let expected = Expected::Anything;
                        children.push((
                            name,
                            self.child(Origin::Disk { path, kind, expected, options: *options }),
                        ));
                    }
                    Ok(Shape::Directory(children))
                }
                FileKind::Other => Err(unsupported_file(path)),
            },
            Origin::Content(entry) => match &entry.kind {
                EntryKind::File => Ok(Shape::File),
                EntryKind::Symlink { target } => Ok(Shape::Link(target.clone())),
                EntryKind::Directory => {
                    let entries = self.backend.read_listing(&entry.cid)?.entries;
                    let children = entries.into_iter();
                    Ok(Shape::Directory(
                        children
                            .map(|entry| (entry.name.clone(), self.child(Origin::Content(entry))))
                            .collect(),
                    ))
                }
            },
        }
    }

    /// Verified: content against its CID, a file on the disk against what it was when it was logged
    /// and when reading began.
    fn read(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Node> {
        match &self.origin {
            Origin::Disk { path, expected, options, .. } => {
                read_user_file(&*self.backend.disk, self.attempt, path, *expected, *options, sink)
            }
            Origin::Content(entry) => {
                self.backend.read_content(self.attempt, &entry.cid, sink)?;
                Ok(entry.node())
            }
        }
    }

    fn node_of(&self, children: &[Child]) -> Result<Node> {
        match &self.origin {
            Origin::Disk { options, .. } => Ok(directory_node(children, *options)?.node),
            Origin::Content(entry) => Ok(entry.node()),
        }
    }

    fn link_node(&self, target: &str) -> Node {
        match &self.origin {
            Origin::Disk { options, .. } => unixfs::symlink(target.as_bytes(), options.cid_version),
            Origin::Content(entry) => entry.node(),
        }
    }
}

impl LocalBackend {
    /// Writes content, or what has a name in the tree, to a path outside the store.
    pub(super) fn get(
        &self,
        request: &Request,
        attempt: &Attempt,
        source: &parameters::Source,
        destination: &Path,
        trees: bool,
    ) -> Result<Outcome> {
        let origin = self.origin(source)?;
        let is_file = match &origin {
            Origin::Disk { kind, .. } => *kind == FileKind::File,
            Origin::Content(entry) => {
                attempt.expect_bytes(entry.size);
                entry.kind == EntryKind::File
            }
        };
        if !trees && !is_file {
            let message = "`cat` is for files; use `get` for directories and links";
            return Err(AttemptError::permanent("is_directory", message));
        }
        let writer = AtomicWriter::beside(&*self.disk, request, destination)?;
        let node = writer.put(&Reading { backend: self, attempt, origin }, destination)?;
        Ok(Outcome {
            cid: Some(node.cid.to_string()),
            size: Some(node.size),
            destination: Some(destination.display().to_string()),
            ..Outcome::default()
        })
    }

    fn origin(&self, source: &parameters::Source) -> Result<Origin<'static>> {
        use parameters::Source;
        match source {
            Source::Name(name) => {
                let (path, kind) = self.named(name)?;
                Ok(Origin::Disk { path, kind, expected: Expected::Anything, options: self.options })
            }
            Source::Content(cid, path) => self.entry_at(cid, path).map(Origin::Content),
        }
    }
}
