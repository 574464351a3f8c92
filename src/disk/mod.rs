//! Access to files, file locks and the process table.
//!
//! Everything that stores data goes through [`Disk`]. Tests replace it by a simulated machine
//! (`Machine`, feature `test-util`) with power cuts, failing syncs and several processes.

#[cfg(feature = "test-util")]
mod failpoint;
#[cfg(any(test, feature = "test-util"))]
mod memory;
mod os;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "test-util")]
pub use failpoint::{FailpointDisk, Failpoints};
#[cfg(any(test, feature = "test-util"))]
pub use memory::{Fault, Machine, MemoryDisk, Unsynced};
pub use os::OsDisk;

/// An I/O error with the action and the path that it concerns.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} `{}`: {source}", path.display())]
pub struct DiskError {
    /// The action that failed: `open`, `write`, `sync`, …
    pub action: &'static str,
    /// The path that it concerns.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: io::Error,
}

impl DiskError {
    /// Adds action and path to an error of the operating system.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> DiskError {
        DiskError { action, path: path.to_owned(), source }
    }

    /// Returns the kind that the operating system reported.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Returns true if the disk or the user's quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Returns true if the process or the machine has reached its limit of open files.
    pub fn is_out_of_descriptors(&self) -> bool {
        use rustix::io::Errno;
        let number = self.source.raw_os_error();
        number == Some(Errno::MFILE.raw_os_error()) || number == Some(Errno::NFILE.raw_os_error())
    }

    /// Returns true if the storage medium may be at fault.
    ///
    /// Missing files, missing permissions, and a lack of descriptors or memory say nothing about
    /// it.
    pub fn is_medium_error(&self) -> bool {
        use io::ErrorKind::{Interrupted, NotFound, OutOfMemory, PermissionDenied};
        !self.is_out_of_descriptors()
            && !matches!(self.kind(), NotFound | PermissionDenied | OutOfMemory | Interrupted)
    }

    /// Returns true if the file system has no hard links, or none left for this file.
    pub fn is_link_unsupported(&self) -> bool {
        matches!(
            self.kind(),
            io::ErrorKind::PermissionDenied
                | io::ErrorKind::Unsupported
                | io::ErrorKind::TooManyLinks
        )
    }

    /// Returns true if the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }
}

/// The result of disk operations.
pub type DiskResult<T> = Result<T, DiskError>;

/// Replaces the content of a small, dispensable file. Readers see the old or the new content; a
/// power cut may lose both.
pub fn replace_unsynced(
    disk: &dyn Disk,
    staged: &Path,
    path: &Path,
    bytes: &[u8],
) -> DiskResult<()> {
    // An earlier process with the same id may have left a staged file.
    let _ = disk.remove_file(staged);
    disk.open(staged, Access::CreateNew)?.write_at(bytes, 0)?;
    disk.rename(staged, path)
}

/// The mode in which a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read an existing file.
    Read,
    /// Read and write an existing file.
    Write,
    /// Create a new file; fails if it exists.
    CreateNew,
    /// Read and write, creating the file if it does not exist.
    OpenOrCreate,
}

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; only where links are not followed.
    Symlink,
    /// A pipe, a device, a socket.
    Other,
}

/// The metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// File, directory, link or other.
    pub kind: FileKind,
    /// Size in bytes.
    pub len: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of content or metadata in nanoseconds since 1970. A new link to the
    /// file changes it; no program can set it.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Device number of the file system.
    pub device: u64,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name; not necessarily UTF-8.
    pub name: std::ffi::OsString,
    /// The kind of the file; links are not followed.
    pub kind: FileKind,
}

/// The identity of the current process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// Start time in the unit of the kernel's process table; with the pid, unique within a boot.
    pub started: u64,
    /// Id of the current boot of the machine.
    pub boot_id: String,
    /// Host name.
    pub host: String,
    /// User name or, without one, user id.
    pub user: String,
}

/// A file system and the processes that share it.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file; new files have mode 0600.
    fn open(&self, path: &Path, access: Access) -> DiskResult<Box<dyn DiskFile>>;
    /// Creates a directory with mode 0700. Fails if it exists or its parent does not.
    fn create_dir(&self, path: &Path) -> DiskResult<()>;
    /// Renames a file or directory within the file system; a file with the new name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()>;
    /// Removes a file or a symbolic link.
    fn remove_file(&self, path: &Path) -> DiskResult<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> DiskResult<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, path: &Path) -> DiskResult<()>;
    /// Returns the entries of a directory in no particular order.
    fn list(&self, path: &Path) -> DiskResult<Vec<Entry>>;
    /// Returns the metadata of a path, following links.
    fn metadata(&self, path: &Path) -> DiskResult<Metadata>;
    /// Returns the metadata of a path without following links.
    fn symlink_metadata(&self, path: &Path) -> DiskResult<Metadata>;
    /// Returns the target of a symbolic link.
    fn read_link(&self, path: &Path) -> DiskResult<PathBuf>;
    /// Creates a symbolic link at `path` that points to `target`.
    fn symlink(&self, target: &Path, path: &Path) -> DiskResult<()>;
    /// Creates `to` as a hard link to the file `from`. Fails if `to` exists;
    /// [`DiskError::is_link_unsupported`] is true if the file system cannot make the link.
    fn link(&self, _from: &Path, to: &Path) -> DiskResult<()> {
        Err(DiskError::new("link", to, io::ErrorKind::Unsupported.into()))
    }
    /// Returns the number of hard links of a file.
    fn links(&self, _path: &Path) -> DiskResult<u64> {
        Ok(1)
    }
    /// Makes the empty file `to` share the current content of `from`. Returns false if the file
    /// system cannot.
    fn clone_file(&self, _from: &Path, _to: &Path) -> DiskResult<bool> {
        Ok(false)
    }
    /// Returns the free bytes of the file system that contains `path`.
    fn free_bytes(&self, path: &Path) -> DiskResult<u64>;
    /// Returns true if `path` is on a network file system, where locks and flushes are not
    /// reliable.
    fn is_network(&self, path: &Path) -> DiskResult<bool>;
    /// Returns the identity of this process.
    fn identity(&self) -> &Identity;
    /// Returns true if the process with this id and start time is alive.
    fn is_alive(&self, pid: u32, started: u64) -> bool;
}

/// An open file; dropping it releases its lock.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at an offset. Returns fewer bytes than requested only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<usize>;
    /// Writes all bytes at an offset.
    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()>;
    /// Makes the content durable, with the metadata that reading it back needs.
    fn sync_data(&self) -> DiskResult<()>;
    /// Makes content and metadata durable.
    fn sync_all(&self) -> DiskResult<()>;
    /// Returns the metadata of the file.
    fn metadata(&self) -> DiskResult<Metadata>;
    /// Takes the exclusive lock. Returns false, without waiting, if another handle holds it.
    fn try_lock(&self) -> DiskResult<bool>;
    /// Releases the lock.
    fn unlock(&self) -> DiskResult<()>;
}

impl dyn Disk + '_ {
    /// Returns the content of a file.
    pub fn read(&self, path: &Path) -> DiskResult<Vec<u8>> {
        let file = self.open(path, Access::Read)?;
        file.read_to_end_from(0)
    }

    /// Returns true if `path` exists, following links.
    pub fn exists(&self, path: &Path) -> DiskResult<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates a directory unless it exists. The name is durable once the parent is synced.
    pub fn create_dir_if_missing(&self, path: &Path) -> DiskResult<()> {
        match self.create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Creates a directory and its missing parents; all their names are durable on return.
    pub fn create_dir_all_synced(&self, path: &Path) -> DiskResult<()> {
        match self.create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return if self.metadata(path)?.kind == FileKind::Directory {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            Err(error) if error.is_not_found() => {
                let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
                else {
                    return Err(error);
                };
                self.create_dir_all_synced(parent)?;
                match self.create_dir(path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            Err(error) => return Err(error),
        }
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    /// Makes the entries of `path`, and of its ancestors up to the mount point, durable.
    pub fn sync_ancestors(&self, path: &Path) -> DiskResult<()> {
        let device = self.metadata(path)?.device;
        for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
            match self.metadata(ancestor) {
                Ok(meta) if meta.device == device => {}
                _ => break,
            }
            match self.sync_dir(ancestor) {
                // This program cannot have created a directory that it must not open.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                other => other?,
            }
        }
        Ok(())
    }

    /// Creates a file with durable content. Its name is durable once the directory is synced.
    pub fn write_new_synced(&self, path: &Path, data: &[u8]) -> DiskResult<()> {
        let file = self.open(path, Access::CreateNew)?;
        file.write_at(data, 0)?;
        file.sync_all()
    }

    /// Removes a file or a symbolic link; succeeds if it does not exist.
    pub fn remove_if_present(&self, path: &Path) -> DiskResult<()> {
        match self.remove_file(path) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a file, a symbolic link, or a directory with all that it contains; links are not
    /// followed. Fails if `path` does not exist.
    pub fn remove_tree(&self, path: &Path) -> DiskResult<()> {
        if self.symlink_metadata(path)?.kind != FileKind::Directory {
            return self.remove_file(path);
        }
        for entry in self.list(path)? {
            let inner = path.join(&entry.name);
            match entry.kind {
                FileKind::Directory => self.remove_tree(&inner)?,
                _ => self.remove_file(&inner)?,
            }
        }
        self.remove_dir(path)
    }

    /// Renames a finished file into place and makes the new name durable.
    pub fn publish(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.rename(from, to)?;
        self.sync_dir(to.parent().unwrap_or(Path::new(".")))
    }
}

impl dyn DiskFile + '_ {
    /// Returns all bytes from `offset` to the end.
    pub fn read_to_end_from(&self, offset: u64) -> DiskResult<Vec<u8>> {
        let len = self.metadata()?.len.saturating_sub(offset);
        let mut data = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let read = self.read_at(&mut data, offset)?;
        data.truncate(read);
        Ok(data)
    }
}
