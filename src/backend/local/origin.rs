//! The origins of content, and `get`, `cat`, `upload` and `copy`.

use std::path::{Path, PathBuf};

use super::entry::{Entry, EntryKind};
use super::store::ContentStore;
use super::{Attempt, AttemptError, LocalBackend, Outcome, Request};
use crate::backend::atomic::{AtomicWriter, Shape, Tree};
use crate::backend::errors::Result;
use crate::backend::files::{
    Expected, UserFile, directory_node, entries_on_disk, find_user_file, link_target,
    read_user_file, unsupported_file,
};
use crate::backend::parameters::{self, Name, refuse_into_itself};
use crate::backend::unixfs::{self, Child, Node, Options};
use crate::disk::{Disk, FileKind};

/// The origin of a file, directory or link.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    /// On the disk.
    Disk { path: PathBuf, kind: FileKind, expected: Expected<'a>, options: Options },
    /// Content of the store.
    Content(Entry),
}

impl<'a> Origin<'a> {
    /// Finds the file or directory at a path of the user.
    pub(super) fn of_user(
        disk: &dyn Disk,
        attempt: &Attempt,
        path: &Path,
        recursive: bool,
        request: &'a Request,
        options: Options,
    ) -> Result<Origin<'a>> {
        let UserFile { path, kind, expected } =
            find_user_file(disk, attempt, path, recursive, request)?;
        Ok(Origin::Disk { path, kind, expected, options })
    }
}

/// A reader of an origin.
pub(super) struct OriginReader<'a> {
    pub(super) store: &'a ContentStore,
    pub(super) attempt: &'a Attempt,
    pub(super) origin: Origin<'a>,
}

impl<'a> OriginReader<'a> {
    fn child(&self, origin: Origin<'a>) -> OriginReader<'a> {
        OriginReader { origin, ..*self }
    }
}

impl Tree for OriginReader<'_> {
    fn shape(&self) -> Result<Shape<Self>> {
        let disk = self.store.disk();
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
                    let entries = self.store.read_listing(&entry.cid)?.entries;
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

    /// Verifies content against its CID, and a file on the disk against its state when it was
    /// logged and when it was opened.
    fn read(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Node> {
        match &self.origin {
            Origin::Disk { path, expected, options, .. } => {
                read_user_file(self.store.disk(), self.attempt, path, *expected, *options, sink)
            }
            Origin::Content(entry) => {
                self.store.read_content(self.attempt, &entry.cid, sink)?;
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
    fn reader<'a>(&'a self, attempt: &'a Attempt, origin: Origin<'a>) -> OriginReader<'a> {
        OriginReader { store: &self.store, attempt, origin }
    }

    /// Writes a file or a tree under a name.
    pub(super) fn write_name(
        &self,
        attempt: &Attempt,
        origin: Origin<'_>,
        name: &Name,
    ) -> Result<Outcome> {
        self.names.write(&self.reader(attempt, origin), name)
    }

    pub(super) fn copy(
        &self,
        attempt: &Attempt,
        source: &Name,
        destination: &Name,
    ) -> Result<Outcome> {
        let (path, kind) = self.names.find(source)?;
        refuse_into_itself(source, destination)?;
        let origin =
            Origin::Disk { path, kind, expected: Expected::Anything, options: self.options };
        self.write_name(attempt, origin, destination)
    }

    /// Writes content, or a file or directory of the tree, to a path outside the store. With
    /// `trees`, the source may be a directory or a link.
    pub(super) fn get(
        &self,
        request: &Request,
        attempt: &Attempt,
        source: &parameters::Source,
        destination: &Path,
        trees: bool,
    ) -> Result<Outcome> {
        let origin = self.origin_of(source)?;
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
        let writer = AtomicWriter::beside(self.disk(), request, destination)?;
        let node = writer.put(&self.reader(attempt, origin), destination)?;
        Ok(Outcome {
            cid: Some(node.cid.to_string()),
            size: Some(node.size),
            destination: Some(destination.display().to_string()),
            ..Outcome::default()
        })
    }

    fn origin_of(&self, source: &parameters::Source) -> Result<Origin<'static>> {
        use parameters::Source;
        match source {
            Source::Name(name) => {
                let (path, kind) = self.names.find(name)?;
                Ok(Origin::Disk { path, kind, expected: Expected::Anything, options: self.options })
            }
            Source::Content(cid, path) => self.store.entry_at(cid, path).map(Origin::Content),
        }
    }
}
