mod file;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::names::NameChange;
use super::{Fault, Inode, Process, Shared};
use crate::disk::{
    Access, Disk, DiskError, DiskFile, DiskResult, Entry, FileKind, Identity, Metadata,
};
use file::MemoryFile;

fn metadata_of(id: u64, inode: &Inode) -> Metadata {
    Metadata {
        kind: inode.kind,
        len: inode.live.len() as u64,
        mtime_ns: inode.mtime,
        ctime_ns: inode.mtime,
        inode: id,
        device: 1,
    }
}

/// The disk of a [`Machine`], seen from one of its processes.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) identity: Arc<Identity>,
}

impl MemoryDisk {
    /// Kills this process after `n` more disk operations: with 0, at the next one.
    pub fn kill_after(&self, n: u64) {
        self.with_process(|process| process.operations_left = Some(n));
    }

    /// Lets a disk operation fail after `n` others: the first one that the fault applies to, or, if
    /// `for_good`, that one and all later ones.
    pub fn fail_after(&self, n: u64, fault: impl Into<Fault>, for_good: bool) {
        let fault = fault.into();
        self.with_process(|process| {
            process.fails_in = Some((n, fault));
            process.fails_for_good = for_good;
        });
    }

    /// Returns the fault that the next operation it applies to will meet.
    fn fault(&self) -> Option<Fault> {
        self.lock()
            .processes
            .get(&self.identity.pid)
            .and_then(|process| process.fails_in)
            .map(|(_, fault)| fault)
    }

    /// Returns the number of operations of this process that were made to fail.
    pub fn failures(&self) -> u64 {
        self.lock().processes.get(&self.identity.pid).map_or(0, |process| process.failures)
    }

    /// Returns the number of disk operations before this process is killed, if it is to be.
    pub fn operations_left(&self) -> Option<u64> {
        self.lock().processes.get(&self.identity.pid).and_then(|process| process.operations_left)
    }

    /// Cancels the fault set by [`MemoryDisk::fail_after`].
    pub fn stop_failing(&self) {
        self.with_process(|process| process.fails_in = None);
    }

    /// Kills this process now.
    pub fn kill(&self) {
        let mut shared = self.lock();
        if let Some(process) = shared.processes.get_mut(&self.identity.pid) {
            process.alive = false;
        }
        shared.release_locks_of(self.identity.pid);
    }

    fn with_process(&self, change: impl FnOnce(&mut Process)) {
        if let Some(process) = self.lock().processes.get_mut(&self.identity.pid) {
            change(process);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a disk operation of this process, and performs it unless the process is dead or the
    /// operation must fail.
    pub(super) fn run<T>(
        &self,
        action: &'static str,
        path: &Path,
        changes: bool,
        call: impl FnOnce(&mut Shared) -> io::Result<T>,
    ) -> DiskResult<T> {
        let mut shared = self.lock();
        shared
            .count(self.identity.pid, action, changes)
            .map_err(|error| DiskError::new(action, path, error))?;
        call(&mut shared).map_err(|error| DiskError::new(action, path, error))
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, access: Access) -> DiskResult<Box<dyn DiskFile>> {
        let changes = matches!(access, Access::CreateNew | Access::OpenOrCreate);
        let inode =
            self.run("open", path, changes, |shared| match (shared.find(path), access) {
                (Ok(_), Access::CreateNew) => Err(ErrorKind::AlreadyExists.into()),
                (Ok(id), _) if shared.inode(id)?.kind == FileKind::Directory => {
                    Err(ErrorKind::IsADirectory.into())
                }
                (Ok(id), _) => Ok(id),
                (Err(_), Access::CreateNew | Access::OpenOrCreate) => {
                    shared.check_parent(path)?;
                    let id = shared.new_inode(FileKind::File);
                    shared.change_name(NameChange::Set(path.to_owned(), id));
                    Ok(id)
                }
                (Err(error), _) => Err(error),
            })?;
        let (handle, failures) = {
            let mut shared = self.lock();
            shared.next_handle += 1;
            let failures = shared.inodes.get(&inode).map_or(0, |inode| inode.failures);
            (u64::from(self.identity.pid) << 32 | shared.next_handle, failures.into())
        };
        Ok(Box::new(MemoryFile {
            disk: self.clone(),
            inode,
            handle,
            failures,
            path: path.to_owned(),
        }))
    }

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        self.run("create directory", path, true, |shared| {
            if shared.names.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            shared.check_parent(path)?;
            let id = shared.new_inode(FileKind::Directory);
            shared.change_name(NameChange::Set(path.to_owned(), id));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.run("rename", from, true, |shared| {
            let id = shared.names.get(from).copied().ok_or(ErrorKind::NotFound)?;
            shared.check_parent(to)?;
            let directory = shared.inode(id)?.kind == FileKind::Directory;
            shared.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), id, directory));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.run("remove", path, true, |shared| {
            let id = shared.names.get(path).copied().ok_or(ErrorKind::NotFound)?;
            if shared.inode(id)?.kind == FileKind::Directory {
                return Err(ErrorKind::IsADirectory.into());
            }
            shared.change_name(NameChange::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        self.run("remove directory", path, true, |shared| {
            let id = shared.names.get(path).copied().ok_or(ErrorKind::NotFound)?;
            if shared.inode(id)?.kind != FileKind::Directory {
                return Err(ErrorKind::NotADirectory.into());
            }
            if shared.names.keys().any(|name| name.parent() == Some(path)) {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            shared.change_name(NameChange::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        self.run("sync directory", path, true, |shared| {
            shared.find(path)?;
            let changes = std::mem::take(&mut shared.pending_names);
            for change in changes {
                if change.touches(path) {
                    change.apply(&mut shared.durable_names);
                    if let NameChange::Rename(from, _, moved, _) = &change {
                        // The name under which it was created must not reappear.
                        let is_old = |change: &NameChange| match change {
                            NameChange::Set(path, inode) => path == from && inode == moved,
                            _ => false,
                        };
                        shared.pending_names.retain(|change| !is_old(change));
                    }
                } else {
                    shared.pending_names.push(change);
                }
            }
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<Entry>> {
        self.run("list", path, false, |shared| {
            shared.find(path)?;
            let mut entries = Vec::new();
            for (name, id) in &shared.names {
                if name.parent() == Some(path) {
                    let kind = shared.inode(*id)?.kind;
                    entries.push(Entry {
                        name: name.file_name().map(OsString::from).unwrap_or_default(),
                        kind,
                    });
                }
            }
            Ok(entries)
        })
    }

    fn metadata(&self, path: &Path) -> DiskResult<Metadata> {
        self.run("inspect", path, false, |shared| {
            let id = shared.find(path)?;
            Ok(metadata_of(id, shared.inode(id)?))
        })
    }

    fn symlink_metadata(&self, path: &Path) -> DiskResult<Metadata> {
        self.run("inspect", path, false, |shared| {
            let id = shared.names.get(path).copied().ok_or(ErrorKind::NotFound)?;
            Ok(metadata_of(id, shared.inode(id)?))
        })
    }

    fn read_link(&self, path: &Path) -> DiskResult<PathBuf> {
        self.run("read link", path, false, |shared| {
            let id = shared.names.get(path).copied().ok_or(ErrorKind::NotFound)?;
            Ok(shared.inode(id)?.target.clone())
        })
    }

    fn symlink(&self, target: &Path, path: &Path) -> DiskResult<()> {
        self.run("make link", path, true, |shared| {
            if shared.names.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            shared.check_parent(path)?;
            let id = shared.new_inode(FileKind::Symlink);
            shared.inode_mut(id)?.target = target.to_owned();
            shared.change_name(NameChange::Set(path.to_owned(), id));
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.run("link", to, true, |shared| {
            let id = shared.names.get(from).copied().ok_or(ErrorKind::NotFound)?;
            if shared.inode(id)?.kind == FileKind::Directory || !shared.links {
                return Err(ErrorKind::PermissionDenied.into());
            }
            if shared.names.contains_key(to) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            shared.check_parent(to)?;
            shared.change_name(NameChange::Set(to.to_owned(), id));
            Ok(())
        })
    }

    fn links(&self, path: &Path) -> DiskResult<u64> {
        self.run("inspect", path, false, |shared| {
            let id = shared.find(path)?;
            Ok(shared.names.values().filter(|named| **named == id).count() as u64)
        })
    }

    fn clone_file(&self, from: &Path, to: &Path) -> DiskResult<bool> {
        self.run("clone", from, true, |shared| {
            let (from, to) = (shared.find(from)?, shared.find(to)?);
            if shared.clones {
                let (live, bad) =
                    shared.inode(from).map(|from| (from.live.clone(), from.bad.clone()))?;
                let to = shared.inode_mut(to)?;
                (to.live, to.bad) = (live, bad);
            }
            Ok(shared.clones)
        })
    }

    fn free_bytes(&self, path: &Path) -> DiskResult<u64> {
        self.run("ask for the free space of", path, false, |shared| Ok(shared.free_bytes))
    }

    fn is_network(&self, path: &Path) -> DiskResult<bool> {
        self.run("inspect the file system of", path, false, |_| Ok(false))
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn is_alive(&self, pid: u32, started: u64) -> bool {
        started == u64::from(pid)
            && self.lock().processes.get(&pid).is_some_and(|process| process.alive)
    }
}
