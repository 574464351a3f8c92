//! Writing files and trees where somebody can see them: each appears whole or not at all.

use std::path::{Path, PathBuf};

use super::errors::{Result, damaged_copy, reading, reading_copy, unsupported_name, writing};
use super::listing::{Entry, EntryKind};
use super::store::Staged;
use super::{Attempt, AttemptError, BUFFER, LocalBackend, Outcome, Request, stop_if_asked};
use crate::backend::unixfs::{self, Child, Cid, FileHasher, Node, Options};
use crate::disk::{Access, DiskFile, FileKind, Metadata};
use crate::operation::Source;

/// Trees are not followed deeper than this: each level takes room on the stack.
const MAX_DEPTH: usize = 256;

/// Something to be written: a file, a directory or a link.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    /// On the disk, as it is there.
    Disk { path: PathBuf, kind: FileKind, expected: Expected<'a>, options: Options },
    /// In the store.
    Content(Entry),
}

/// What a file on the disk has to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected<'a> {
    /// Whatever it is.
    Anything,
    /// The file that was logged, unchanged.
    AsLogged(&'a Source),
    /// The log's copy of that file.
    CopyOf(&'a Source),
}

/// What an origin is.
enum Shape<'a> {
    File,
    Directory(Vec<(String, Origin<'a>)>),
    Link(String),
}

impl<'a> Origin<'a> {
    /// What a path given by the user stands for; a link there is followed. Where the log has a copy of it, that is read.
    pub(super) fn of_user(
        backend: &LocalBackend,
        attempt: &Attempt,
        path: &Path,
        recursive: bool,
        request: &'a Request,
        options: Options,
    ) -> Result<Origin<'a>> {
        if let (Some(source), Some(copy)) = (&request.source, &request.content) {
            attempt.expect_bytes(source.size);
            let expected = Expected::CopyOf(source);
            return Ok(Origin::Disk { path: copy.clone(), kind: FileKind::File, expected, options });
        }
        let expected = request.source.as_ref().map_or(Expected::Anything, Expected::AsLogged);
        let Metadata { kind, len, .. } = backend.disk.metadata(path).map_err(reading)?;
        if kind == FileKind::File {
            attempt.expect_bytes(len);
        }
        if kind == FileKind::Directory && !recursive {
            return Err(AttemptError::permanent(
                "is_directory",
                format!("`{}` is a directory; add it with `recursive=true`", path.display()),
            ));
        }
        Ok(Origin::Disk { path: path.to_owned(), kind, expected, options })
    }

    fn shape(&self, backend: &LocalBackend) -> Result<Shape<'a>> {
        match self {
            Origin::Disk { path, kind, options, .. } => match kind {
                FileKind::File => Ok(Shape::File),
                FileKind::Symlink => Ok(Shape::Link(backend.link_target(path)?)),
                FileKind::Directory => {
                    let mut children = Vec::new();
                    for (name, kind) in backend.entries_on_disk(path)? {
                        let path = path.join(&name);
                        let expected = Expected::Anything;
                        children.push((name, Origin::Disk { path, kind, expected, options: *options }));
                    }
                    Ok(Shape::Directory(children))
                }
                FileKind::Other => Err(unsupported_file(path)),
            },
            Origin::Content(entry) => match &entry.kind {
                EntryKind::File => Ok(Shape::File),
                EntryKind::Symlink { target } => Ok(Shape::Link(target.clone())),
                EntryKind::Directory => {
                    let entries = backend.read_listing(&entry.cid)?.entries;
                    Ok(Shape::Directory(
                        entries.into_iter().map(|entry| (entry.name.clone(), Origin::Content(entry))).collect(),
                    ))
                }
            },
        }
    }

    fn node_of(&self, children: &[Child]) -> Result<Node> {
        match self {
            Origin::Disk { options, .. } => Ok(directory_node(children, *options)?.node),
            Origin::Content(entry) => Ok(entry.node()),
        }
    }

    fn options(&self) -> Options {
        match self {
            Origin::Disk { options, .. } => *options,
            Origin::Content(_) => Options::default(),
        }
    }
}

/// A place to write to, and where to prepare what is written there: on the same file system.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) backend: &'a LocalBackend,
    pub(super) attempt: &'a Attempt,
    pub(super) staging: PathBuf,
}

impl<'a> Place<'a> {
    /// A place beside a path outside the store; the operation's id makes it known again.
    pub(super) fn beside(
        backend: &'a LocalBackend,
        attempt: &'a Attempt,
        request: &Request,
        destination: &Path,
    ) -> Result<Place<'a>> {
        let staging = parent_of(destination).join(format!(".wal-cli-{}.tmp", request.id));
        let place = Place { backend, attempt, staging };
        // An earlier attempt may have been killed.
        match backend.disk.symlink_metadata(&place.staging) {
            Ok(_) => backend.remove_tree(&place.staging).map_err(writing)?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(writing(error)),
        }
        Ok(place)
    }

    /// Writes a file, a link or a tree; a directory that is already there keeps what else is in it.
    pub(super) fn put(&self, origin: &Origin<'_>, destination: &Path) -> Result<Node> {
        let put = self.put_at(origin, destination, 0);
        if put.is_err() && self.backend.disk.symlink_metadata(&self.staging).is_ok() {
            drop(self.backend.remove_tree(&self.staging));
        }
        put
    }

    fn put_at(&self, origin: &Origin<'_>, destination: &Path, depth: usize) -> Result<Node> {
        let disk = &*self.backend.disk;
        let there = match disk.symlink_metadata(destination) {
            Ok(metadata) => Some(metadata.kind),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(writing(error)),
        };
        let shape = origin.shape(self.backend)?;
        match (shape, there) {
            (Shape::Directory(children), Some(FileKind::Directory)) => {
                check_depth(destination, depth)?;
                let mut nodes = Vec::with_capacity(children.len());
                for (name, child) in children {
                    let node = self.put_at(&child, &destination.join(&name), depth + 1)?;
                    nodes.push(Child { name, node });
                }
                // It may be there because an earlier attempt was killed before it was durable.
                disk.sync_dir(parent_of(destination)).map_err(writing)?;
                origin.node_of(&nodes)
            }
            (Shape::Directory(_), Some(_)) => Err(occupied(destination, "it is no directory")),
            (_, Some(FileKind::Directory)) => Err(occupied(destination, "it is a directory")),
            (shape, _) => {
                let node = self.make(origin, shape, &self.staging, depth)?;
                disk.rename(&self.staging, destination).map_err(writing)?;
                disk.sync_dir(parent_of(destination)).map_err(writing)?;
                Ok(node)
            }
        }
    }

    /// Writes something where nothing is yet, its content durable but not its name.
    fn make(&self, origin: &Origin<'_>, shape: Shape<'_>, path: &Path, depth: usize) -> Result<Node> {
        let disk = &*self.backend.disk;
        match shape {
            Shape::File => {
                let mut file = Staged::create(disk, path.to_owned()).map_err(writing)?;
                let node = self.backend.read(self.attempt, origin, &mut |data| file.write(data).map_err(writing))?;
                file.finish().map_err(writing)?;
                Ok(node)
            }
            Shape::Link(target) => {
                disk.symlink(Path::new(&target), path).map_err(writing)?;
                Ok(unixfs::symlink(target.as_bytes(), origin.options().cid_version))
            }
            Shape::Directory(children) => {
                check_depth(path, depth)?;
                disk.create_dir(path).map_err(writing)?;
                let mut nodes = Vec::with_capacity(children.len());
                for (name, child) in children {
                    let shape = child.shape(self.backend)?;
                    let node = self.make(&child, shape, &path.join(&name), depth + 1)?;
                    nodes.push(Child { name, node });
                }
                disk.sync_dir(path).map_err(writing)?;
                origin.node_of(&nodes)
            }
        }
    }
}

impl LocalBackend {
    /// Writes content, or what has a name in the tree, to a path outside the store.
    pub(super) fn get(
        &self,
        request: &Request,
        attempt: &Attempt,
        source: &super::parameters::Source,
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
        let node = Place::beside(self, attempt, request, destination)?.put(&origin, destination)?;
        Ok(Outcome {
            cid: Some(node.cid.to_string()),
            size: Some(node.size),
            destination: Some(destination.display().to_string()),
            ..Outcome::default()
        })
    }

    fn origin(&self, source: &super::parameters::Source) -> Result<Origin<'static>> {
        use super::parameters::Source;
        match source {
            Source::Name(name) => {
                let (path, kind) = self.named(name)?;
                Ok(Origin::Disk { path, kind, expected: Expected::Anything, options: self.options })
            }
            Source::Content(cid, path) => self.entry_at(cid, path).map(Origin::Content),
        }
    }

    /// Reads a file of any origin, verified: content against its CID, a file on the disk against
    /// what it was when it was logged and when reading began.
    pub(super) fn read(
        &self,
        attempt: &Attempt,
        origin: &Origin<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Node> {
        match origin {
            Origin::Disk { path, expected, options, .. } => {
                self.read_user_file(attempt, path, *expected, *options, sink)
            }
            Origin::Content(entry) => {
                self.read_content(attempt, &entry.cid, sink)?;
                Ok(entry.node())
            }
        }
    }

    /// Reads a file on the disk, and computes its CID.
    pub(super) fn read_user_file(
        &self,
        attempt: &Attempt,
        path: &Path,
        expected: Expected<'_>,
        options: Options,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Node> {
        let failed = if matches!(expected, Expected::CopyOf(_)) { reading_copy } else { reading };
        let file = self.disk.open(path, Access::Read).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        if before.kind != FileKind::File {
            return Err(unsupported_file(path));
        }
        match expected {
            Expected::AsLogged(source) if !is_same(source, &before) => {
                return Err(source_changed(path, "it is not the file that was logged any more"));
            }
            Expected::CopyOf(source) if source.size != before.len => return Err(damaged_copy(path)),
            _ => {}
        }
        let mut hasher = FileHasher::new(options);
        let read = pump(attempt, &*file, failed, &mut |data| {
            hasher.update(data);
            sink(data)
        })?;
        let after = file.metadata().map_err(failed)?;
        if read != before.len || after != before {
            return Err(source_changed(path, "it was written to while it was read"));
        }
        Ok(hasher.finish())
    }

    /// The names in a directory on the disk, sorted.
    pub(super) fn entries_on_disk(&self, path: &Path) -> Result<Vec<(String, FileKind)>> {
        let mut entries = Vec::new();
        for entry in self.disk.list(path).map_err(reading)? {
            let Some(name) = entry.name.to_str() else { return Err(unsupported_name(&path.join(&entry.name))) };
            entries.push((name.to_owned(), entry.kind));
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    pub(super) fn link_target(&self, path: &Path) -> Result<String> {
        let target = self.disk.read_link(path).map_err(reading)?;
        target.into_os_string().into_string().map_err(|_| unsupported_name(path))
    }
}

/// Hands all of a file to `sink`, piece by piece; the number of bytes comes back.
pub(super) fn pump(
    attempt: &Attempt,
    file: &dyn DiskFile,
    failed: fn(crate::disk::DiskError) -> AttemptError,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    loop {
        stop_if_asked(attempt)?;
        let read = file.read_at(&mut buffer, offset).map_err(failed)?;
        if read == 0 {
            return Ok(offset);
        }
        sink(&buffer[..read])?;
        attempt.add_bytes(read as u64);
        offset += read as u64;
    }
}

/// The directory that a path is in.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

pub(super) fn directory_node(children: &[Child], options: Options) -> Result<unixfs::Directory> {
    unixfs::directory(children, options).map_err(|error| AttemptError::permanent("unsupported_name", error.to_string()))
}

pub(super) fn check_depth(path: &Path, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        let message = format!("`{}` is more than {MAX_DEPTH} directories deep", path.display());
        return Err(AttemptError::permanent("too_deep", message));
    }
    Ok(())
}

pub(super) fn unsupported_file(path: &Path) -> AttemptError {
    AttemptError::permanent(
        "unsupported_file",
        format!(
            "`{}` is a pipe, a socket or a device; only files, directories and links can be stored",
            path.display()
        ),
    )
}

fn is_same(source: &Source, file: &Metadata) -> bool {
    (source.size, source.mtime_ns, source.inode) == (file.len, file.mtime_ns, file.inode)
}

fn source_changed(path: &Path, how: &str) -> AttemptError {
    let message = format!("`{}` changed: {how}; log it again if the new content is wanted", path.display());
    AttemptError::permanent("source_changed", message)
}

fn occupied(destination: &Path, why: &str) -> AttemptError {
    let message = format!("`{}` cannot be written: {why}; choose another destination", destination.display());
    AttemptError::permanent("destination_exists", message)
}

/// A CID alone, as an entry without a name.
pub(super) fn bare_entry(cid: Cid, kind: EntryKind, size: u64, dag_size: u64) -> Entry {
    Entry { name: String::new(), kind, cid, size, dag_size }
}
