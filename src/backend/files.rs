//! Files and directories of the user that operations read.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::errors::{Result, damaged_copy, reading, reading_copy, unsupported_name};
use super::unixfs::{self, Child, FileHasher, Node, Options};
use super::{Attempt, AttemptError, Request};
use crate::disk::{Access, Disk, DiskFile, FileKind, Metadata};
use crate::operation::Source;

/// The size of a read or write, in bytes. It bounds the delay after a request to stop.
const BUFFER_LEN: usize = 256 << 10;

/// The deepest nesting of directories: each level takes space on the stack.
const DEPTH_MAX: usize = 256;

/// The state that a file must have to be read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected<'a> {
    /// Any state.
    Anything,
    /// The file that was logged, unchanged.
    AsLogged(&'a Source),
    /// The log's copy of that file.
    CopyOf(&'a Source),
}

impl<'a> Expected<'a> {
    /// Returns the SHA-256 that was noted when the content was logged. References and directories
    /// have none.
    fn sha256(self) -> Option<&'a str> {
        match self {
            Expected::AsLogged(source) | Expected::CopyOf(source) => source.sha256.as_deref(),
            Expected::Anything => None,
        }
    }
}

/// Content that is being read, for comparison with the hash that was noted when it was logged.
pub(super) struct ContentHash<'a> {
    opened: &'a Opened<'a>,
    /// Only if there is a hash to compare with: hashing takes time.
    hasher: Option<(Sha256, &'a str)>,
}

impl ContentHash<'_> {
    /// Adds the next piece of the content.
    pub(super) fn update(&mut self, data: &[u8]) {
        self.hasher.iter_mut().for_each(|(hasher, _)| hasher.update(data));
    }

    /// Fails if the pieces are not the content that was logged.
    pub(super) fn check(self) -> Result<()> {
        let Some((hasher, noted)) = self.hasher else { return Ok(()) };
        match HEXLOWER.encode(&hasher.finalize()) == noted {
            true => Ok(()),
            false => Err(self.opened.differs()),
        }
    }
}

/// A file, directory or link that an operation reads.
#[derive(Debug)]
pub(super) struct UserFile<'a> {
    pub(super) path: PathBuf,
    pub(super) kind: FileKind,
    pub(super) expected: Expected<'a>,
}

/// Finds the file or directory at a path of the user, and follows a link there. If the log has a
/// copy of the file, returns the copy.
pub(super) fn find_user_file<'a>(
    disk: &dyn Disk,
    attempt: &Attempt,
    path: &Path,
    recursive: bool,
    request: &'a Request,
) -> Result<UserFile<'a>> {
    if let (Some(source), Some(copy)) = (&request.source, &request.content) {
        attempt.expect_bytes(source.size);
        return Ok(UserFile {
            path: copy.clone(),
            kind: FileKind::File,
            expected: Expected::CopyOf(source),
        });
    }
    let expected = request.source.as_ref().map_or(Expected::Anything, Expected::AsLogged);
    let Metadata { kind, len, .. } = disk.metadata(path).map_err(reading)?;
    if kind == FileKind::File {
        attempt.expect_bytes(len);
    }
    if kind == FileKind::Directory && !recursive {
        return Err(AttemptError::permanent(
            "is_directory",
            format!("`{}` is a directory; pass `--recursive` to add it", path.display()),
        ));
    }
    Ok(UserFile { path: path.to_owned(), kind, expected })
}

/// Fails if the file to be sent is not the one that was logged. For backends whose files are read
/// by another program.
pub(super) fn check_source(disk: &dyn Disk, attempt: &Attempt, request: &Request) -> Result<()> {
    let (path, expected) = match (&request.source, &request.content, request.parameters.get("path"))
    {
        (Some(source), Some(copy), _) => (&**copy, Expected::CopyOf(source)),
        (Some(source), None, Some(path)) => (Path::new(path), Expected::AsLogged(source)),
        _ => return Ok(()),
    };
    // Without a hash, the kind of the file does not matter: the program decides what it can read.
    if expected.sha256().is_none() {
        return match (expected, disk.metadata(path)) {
            (Expected::AsLogged(source), Ok(metadata)) if !is_same(source, &metadata) => {
                Err(source_changed(path, NOT_AS_LOGGED))
            }
            (Expected::CopyOf(source), Ok(metadata)) if metadata.len != source.size => {
                Err(damaged_copy(path, SIZE_CHANGED))
            }
            (Expected::CopyOf(_), Err(error)) => Err(reading_copy(error)),
            (_, found) => found.map(drop).map_err(reading),
        };
    };
    let opened = Opened::new(disk, path, expected)?;
    let mut hash = opened.content_hash();
    let mut buffer = vec![0; BUFFER_LEN];
    let mut offset = 0;
    loop {
        stop_if_asked(attempt)?;
        let read = opened.file.read_at(&mut buffer, offset).map_err(opened.failed)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        offset += read as u64;
    }
    opened.check_read(offset)?;
    hash.check()
}

/// Writes the content of a file to `sink`, and returns its node. Fails if the file is not what is
/// expected, or changes while it is read; `sink` then has not got the last piece, so that content
/// which is sent while it is read does not become complete.
pub(super) fn read_user_file(
    disk: &dyn Disk,
    attempt: &Attempt,
    path: &Path,
    expected: Expected<'_>,
    options: Options,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Node> {
    let opened = Opened::new(disk, path, expected)?;
    let (mut hasher, mut hash) = (FileHasher::new(options), opened.content_hash());
    let mut last = Vec::with_capacity(BUFFER_LEN);
    let read = pump(attempt, &*opened.file, opened.failed, &mut |data| {
        hasher.update(data);
        hash.update(data);
        if !last.is_empty() {
            sink(&last)?;
        }
        last.clear();
        last.extend_from_slice(data);
        Ok(())
    })?;
    opened.check_read(read)?;
    hash.check()?;
    if !last.is_empty() {
        sink(&last)?;
    }
    Ok(hasher.finish())
}

/// A file of the user that is being read.
pub(super) struct Opened<'a> {
    pub(super) file: Box<dyn DiskFile>,
    /// Its metadata when it was opened.
    before: Metadata,
    path: PathBuf,
    expected: Expected<'a>,
    failed: fn(crate::disk::DiskError) -> AttemptError,
}

impl<'a> Opened<'a> {
    /// Opens a file. Fails if it is not what is expected.
    pub(super) fn new(disk: &dyn Disk, path: &Path, expected: Expected<'a>) -> Result<Opened<'a>> {
        let failed = if matches!(expected, Expected::CopyOf(_)) { reading_copy } else { reading };
        let file = disk.open(path, Access::Read).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        if before.kind != FileKind::File {
            return Err(unsupported_file(path));
        }
        match expected {
            Expected::AsLogged(source) if !is_same(source, &before) => {
                Err(source_changed(path, NOT_AS_LOGGED))
            }
            Expected::CopyOf(source) if source.size != before.len => {
                Err(damaged_copy(path, SIZE_CHANGED))
            }
            _ => Ok(Opened { file, before, path: path.to_owned(), expected, failed }),
        }
    }

    /// Fails if the file has changed since it was opened, or if `read` is not its size.
    pub(super) fn check_read(&self, read: u64) -> Result<()> {
        let mut now = self.file.metadata().map_err(self.failed)?;
        match self.expected {
            Expected::AsLogged(Source { sha256: None, .. }) => {}
            // A new link changes it, also one to the same copy in the spool.
            _ => now.ctime_ns = self.before.ctime_ns,
        }
        if read != self.before.len || now != self.before {
            return Err(self.changed());
        }
        Ok(())
    }

    /// Returns the failure for a file that changed while it was read.
    pub(super) fn changed(&self) -> AttemptError {
        match self.expected {
            Expected::CopyOf(_) => damaged_copy(&self.path, "it changed while it was read"),
            _ => source_changed(&self.path, "it changed while it was read"),
        }
    }

    /// Returns the failure for a file whose content is not what was logged.
    fn differs(&self) -> AttemptError {
        match self.expected {
            Expected::CopyOf(_) => damaged_copy(&self.path, "its content is not what was logged"),
            _ => source_changed(&self.path, "its content is not what was logged"),
        }
    }

    /// Returns a hash to pass all of the content to.
    pub(super) fn content_hash(&self) -> ContentHash<'_> {
        let hasher = self.expected.sha256().map(|noted| (Sha256::new(), noted));
        ContentHash { opened: self, hasher }
    }
}

#[cfg(feature = "s3")]
impl Opened<'_> {
    /// Returns the size in bytes when the file was opened.
    pub(super) fn len(&self) -> u64 {
        self.before.len
    }

    /// Returns whether the hash of the content was noted when it was logged.
    pub(super) fn has_hash(&self) -> bool {
        self.expected.sha256().is_some()
    }

    /// Returns the modification time when the file was opened, in nanoseconds since 1970.
    pub(super) fn mtime_ns(&self) -> i64 {
        self.before.mtime_ns
    }

    /// Reads at an offset.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buffer, offset).map_err(self.failed)
    }
}

/// Returns the entries of a directory on the disk, sorted by name.
pub(super) fn entries_on_disk(disk: &dyn Disk, path: &Path) -> Result<Vec<(String, FileKind)>> {
    let mut entries = Vec::new();
    for entry in disk.list(path).map_err(reading)? {
        let Some(name) = entry.name.to_str() else {
            return Err(unsupported_name(&path.join(&entry.name)));
        };
        entries.push((name.to_owned(), entry.kind));
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// Returns the target of a link as text.
pub(super) fn link_target(disk: &dyn Disk, path: &Path) -> Result<String> {
    let target = disk.read_link(path).map_err(reading)?;
    target.into_os_string().into_string().map_err(|_| unsupported_name(path))
}

/// Writes a file to `sink` in chunks, and returns the number of bytes. Stops if the attempt is
/// cancelled.
pub(super) fn pump(
    attempt: &Attempt,
    file: &dyn DiskFile,
    failed: fn(crate::disk::DiskError) -> AttemptError,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let mut buffer = vec![0; BUFFER_LEN];
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

/// Returns the directory that a path is in.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

pub(super) fn directory_node(children: &[Child], options: Options) -> Result<unixfs::Directory> {
    unixfs::directory(children, options)
        .map_err(|error| AttemptError::permanent("unsupported_name", error.to_string()))
}

pub(super) fn check_depth(path: &Path, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        let message =
            format!("`{}` is nested more than {DEPTH_MAX} directories deep", path.display());
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

const NOT_AS_LOGGED: &str = "it is not the file that was logged";
const SIZE_CHANGED: &str = "its size has changed";

/// Returns whether a file is the one that was logged, as far as its metadata shows. If only its
/// ctime differs, a noted hash decides: a new link or new permissions change it as well.
fn is_same(source: &Source, file: &Metadata) -> bool {
    let has_ctime =
        source.sha256.is_some() || source.ctime_ns.is_none_or(|ctime_ns| ctime_ns == file.ctime_ns);
    let noted = (source.size, source.mtime_ns, source.inode);
    noted == (file.len, file.mtime_ns, file.inode) && has_ctime
}

fn source_changed(path: &Path, reason: &str) -> AttemptError {
    let message = format!(
        "`{}` changed: {reason}; add it again, or send it as it is now: `retry --accept-source`",
        path.display()
    );
    AttemptError::permanent("source_changed", message)
}

/// Fails with [`AttemptError::Stopped`] if the attempt was asked to stop.
pub(super) fn stop_if_asked(attempt: &Attempt) -> Result<()> {
    if attempt.is_cancelled() { Err(AttemptError::Stopped) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;

    const LENGTH: usize = 3 * BUFFER_LEN + 7;

    fn source(content: &[u8]) -> Source {
        let sha256 = Some(HEXLOWER.encode(&Sha256::digest(content)));
        Source {
            size: content.len() as u64,
            mtime_ns: 0,
            inode: 0,
            ctime_ns: None,
            sha256,
            spool: None,
        }
    }

    /// Reads a copy while `meanwhile` is called for each piece. Returns the number of bytes passed
    /// on, and the error type.
    fn read_copy(
        logged: &[u8],
        copy: &[u8],
        mut meanwhile: impl FnMut(&dyn DiskFile),
    ) -> (usize, Option<String>) {
        let disk = Machine::new().process();
        let path = Path::new("/copy");
        let file = disk.open(path, Access::CreateNew).unwrap();
        file.write_at(copy, 0).unwrap();
        let (noted, mut passed) = (source(logged), 0);
        let expected = Expected::CopyOf(&noted);
        let attempt = Attempt::default();
        let options = Options::default();
        let read = read_user_file(&disk, &attempt, path, expected, options, &mut |data| {
            passed += data.len();
            meanwhile(&*file);
            Ok(())
        });
        let error_type = read.err().map(|error| match error {
            AttemptError::Failed { failure, .. } => failure.error_type,
            other => panic!("{other:?}"),
        });
        (passed, error_type)
    }

    #[test]
    fn the_last_piece_is_passed_on_only_if_the_content_is_what_was_logged() {
        let content = vec![7; LENGTH];
        assert_eq!(read_copy(&content, &content, |_| ()), (LENGTH, None));
        assert_eq!(read_copy(b"", b"", |_| ()), (0, None));
        let damaged = Some("spool_damaged".to_owned());
        for place in [0, BUFFER_LEN, LENGTH - 1] {
            let mut copy = content.clone();
            copy[place] = 8;
            assert_eq!(read_copy(&content, &copy, |_| ()), (3 * BUFFER_LEN, damaged.clone()));
        }
        assert_eq!(read_copy(b"a", b"b", |_| ()), (0, damaged.clone()));
        assert_eq!(read_copy(b"a", b"", |_| ()), (0, damaged.clone()), "truncated");
        // Damaged behind the place that is being read, which the metadata may not show.
        let meanwhile = |file: &dyn DiskFile| file.write_at(b"8", LENGTH as u64 - 1).unwrap();
        assert_eq!(read_copy(&content, &content, meanwhile), (3 * BUFFER_LEN, damaged));
    }
}
