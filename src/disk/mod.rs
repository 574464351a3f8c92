//! The file system, as far as this program uses it: the only way to files, locks and processes.
//!
//! Everything that keeps data goes through [`Disk`], so that tests can put a simulated disk with
//! power cuts, failing syncs and several processes in its place ([`MemoryDisk`]).

#[cfg(feature = "test-util")]
mod failpoint;
mod memory;
mod os;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "test-util")]
pub use failpoint::{FailpointDisk, Failpoints};
pub use memory::{Fault, Machine, MemoryDisk, Unsynced};
pub use os::OsDisk;

/// An I/O error that knows what was being done, and to which path.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} `{}`: {source}", path.display())]
pub struct DiskError {
    /// What was tried: `open`, `write`, `sync`, …
    pub action: &'static str,
    /// To what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl DiskError {
    /// Wraps what the system said.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> DiskError {
        DiskError { action, path: path.to_owned(), source }
    }

    /// What kind of error the system reported.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether a disk or a quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the process, or the machine, has as many files open as it may.
    pub fn is_out_of_descriptors(&self) -> bool {
        use rustix::io::Errno;
        let number = self.source.raw_os_error();
        number == Some(Errno::MFILE.raw_os_error()) || number == Some(Errno::NFILE.raw_os_error())
    }

    /// Whether the medium does not give back what it was given. That something is not there or not allowed, or that there
    /// are no descriptors or no memory left, says nothing about it.
    pub fn is_of_the_medium(&self) -> bool {
        use io::ErrorKind::{Interrupted, NotFound, OutOfMemory, PermissionDenied};
        !self.is_out_of_descriptors()
            && !matches!(self.kind(), NotFound | PermissionDenied | OutOfMemory | Interrupted)
    }

    /// Whether a link could not be made because the file system has none, or none left for that file.
    pub fn is_without_links(&self) -> bool {
        matches!(
            self.kind(),
            io::ErrorKind::PermissionDenied
                | io::ErrorKind::Unsupported
                | io::ErrorKind::TooManyLinks
        )
    }

    /// Whether the file or directory is not there.
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }
}

/// What disk operations return.
pub type DiskResult<T> = Result<T, DiskError>;

/// Replaces a small file whose loss costs nothing: who reads it sees the old one or the new one, but a power cut may
/// leave neither.
pub fn replace_unsynced(
    disk: &dyn Disk,
    staged: &Path,
    path: &Path,
    bytes: &[u8],
) -> DiskResult<()> {
    // A process with the same id may have left one.
    let _ = disk.remove_file(staged);
    disk.open(staged, Access::CreateNew)?.write_at(bytes, 0)?;
    disk.rename(staged, path)
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read what is there.
    Read,
    /// To read and write what is there.
    Write,
    /// To make a new file; it must not be there yet.
    CreateNew,
    /// To read and write, making the file if need be.
    OpenOrCreate,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (only where links are not followed).
    Symlink,
    /// A pipe, a device, a socket.
    Other,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// File, directory, link or other.
    pub kind: FileKind,
    /// Bytes.
    pub len: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Number of the file system.
    pub device: u64,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name; not necessarily UTF-8.
    pub name: std::ffi::OsString,
    /// What it names; links are not followed.
    pub kind: FileKind,
}

/// Who we are on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// When this process started, in the unit of the kernel's process table: with the pid, unique within a boot.
    pub started: u64,
    /// Id of this boot of the machine.
    pub boot_id: String,
    /// Host name.
    pub host: String,
    /// User name or, failing that, number.
    pub user: String,
}

/// A file system, and the processes that share it.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file; new files get mode 0600.
    fn open(&self, path: &Path, access: Access) -> DiskResult<Box<dyn DiskFile>>;
    /// Makes one directory with mode 0700; its parent must be there and it must not.
    fn create_dir(&self, path: &Path) -> DiskResult<()>;
    /// Renames a file or directory within the file system, replacing a file at the new name.
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()>;
    /// Removes a file or link.
    fn remove_file(&self, path: &Path) -> DiskResult<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> DiskResult<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, path: &Path) -> DiskResult<()>;
    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> DiskResult<Vec<Entry>>;
    /// What a path is, links followed.
    fn metadata(&self, path: &Path) -> DiskResult<Metadata>;
    /// What a path is, links not followed.
    fn symlink_metadata(&self, path: &Path) -> DiskResult<Metadata>;
    /// Where a link points.
    fn read_link(&self, path: &Path) -> DiskResult<PathBuf>;
    /// Makes a symbolic link at `path` that points to `target`.
    fn symlink(&self, target: &Path, path: &Path) -> DiskResult<()>;
    /// Gives the file `from` a second name, which must not be there yet; [`DiskError::is_without_links`] tells that the
    /// file system has no such names, or none left for this file.
    fn link(&self, _from: &Path, to: &Path) -> DiskResult<()> {
        Err(DiskError::new("link", to, io::ErrorKind::Unsupported.into()))
    }
    /// How many names a file has.
    fn links(&self, _path: &Path) -> DiskResult<u64> {
        Ok(1)
    }
    /// Makes an empty file share the content of another one, as it is at this instant; false: the file system cannot.
    fn clone_file(&self, _from: &Path, _to: &Path) -> DiskResult<bool> {
        Ok(false)
    }
    /// Bytes that may still be written where `path` is.
    fn free_bytes(&self, path: &Path) -> DiskResult<u64>;
    /// Whether a path is on a network file system, where locks and flushes cannot be relied upon.
    fn is_network(&self, path: &Path) -> DiskResult<bool>;
    /// Who we are.
    fn identity(&self) -> &Identity;
    /// Whether the process with this id and start time still lives.
    fn is_alive(&self, pid: u32, started: u64) -> bool;
}

/// An open file. Closing it gives up its lock.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at an offset; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<usize>;
    /// Writes all bytes at an offset.
    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()>;
    /// Makes the content durable, with as much metadata as reading it back needs.
    fn sync_data(&self) -> DiskResult<()>;
    /// Makes content and metadata durable.
    fn sync_all(&self) -> DiskResult<()>;
    /// What is known of the file.
    fn metadata(&self) -> DiskResult<Metadata>;
    /// Takes the exclusive lock if nobody holds it.
    fn try_lock(&self) -> DiskResult<bool>;
    /// Gives the lock up.
    fn unlock(&self) -> DiskResult<()>;
}

impl dyn Disk + '_ {
    /// The whole content of a file.
    pub fn read(&self, path: &Path) -> DiskResult<Vec<u8>> {
        let file = self.open(path, Access::Read)?;
        file.read_to_end_from(0)
    }

    /// Whether a path is there.
    pub fn exists(&self, path: &Path) -> DiskResult<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory unless it is there; its name is durable once its parent is synced.
    pub fn create_dir_if_missing(&self, path: &Path) -> DiskResult<()> {
        match self.create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a directory and its missing parents, each durable in its parent before this returns.
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

    /// Makes the names of a directory, and of those above it up to the mount point, durable.
    pub fn sync_ancestors(&self, path: &Path) -> DiskResult<()> {
        let device = self.metadata(path)?.device;
        for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
            match self.metadata(ancestor) {
                Ok(meta) if meta.device == device => {}
                _ => break,
            }
            match self.sync_dir(ancestor) {
                // A directory that we may not open, we cannot have made.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                other => other?,
            }
        }
        Ok(())
    }

    /// Writes a new file whole and makes its content durable; its name is durable once the directory is synced.
    pub fn write_new_synced(&self, path: &Path, data: &[u8]) -> DiskResult<()> {
        let file = self.open(path, Access::CreateNew)?;
        file.write_at(data, 0)?;
        file.sync_all()
    }

    /// Publishes a finished file: renames it into place, then makes the new name durable.
    pub fn publish(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.rename(from, to)?;
        self.sync_dir(to.parent().unwrap_or(Path::new(".")))
    }
}

impl dyn DiskFile + '_ {
    /// All bytes from an offset to the end.
    pub fn read_to_end_from(&self, offset: u64) -> DiskResult<Vec<u8>> {
        let len = self.metadata()?.len.saturating_sub(offset);
        let mut data = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let read = self.read_at(&mut data, offset)?;
        data.truncate(read);
        Ok(data)
    }
}
