//! A simulated machine for tests: a disk in memory with kills, power cuts and faults.

mod fault;
mod file;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::Fault;
use file::MemoryFile;

use super::{Access, Disk, DiskError, DiskFile, DiskResult, Entry, FileKind, Identity, Metadata};

/// The unit of writes in bytes: a sector is written wholly or not at all.
const SECTOR: usize = 512;

/// A simulated machine: one disk, shared by several simulated processes.
///
/// It keeps written data apart from synced data, for contents, sizes and names, so that a power cut
/// can lose any part of what was not synced. For tests of this crate and of programs that use it.
#[derive(Debug, Clone)]
pub struct Machine {
    shared: Arc<Mutex<Shared>>,
}

/// The disk of a [`Machine`], seen from one of its processes.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    shared: Arc<Mutex<Shared>>,
    identity: Arc<Identity>,
}

#[derive(Debug, Default, Clone)]
struct Shared {
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not durable yet, oldest first.
    pending_names: Vec<NameChange>,
    processes: HashMap<u32, Process>,
    next_inode: u64,
    next_pid: u32,
    next_handle: u64,
    boot: u32,
    /// Disk operations of all processes so far.
    operations: u64,
    free_bytes: u64,
    mtime: i64,
    /// Whether its file system has hard links, and clones.
    links: bool,
    clones: bool,
}

#[derive(Debug, Clone)]
struct Inode {
    kind: FileKind,
    live: Vec<u8>,
    synced: Vec<u8>,
    target: PathBuf,
    /// The content when a sync failed: as on Linux, its pages count as clean from then on, and what
    /// a later sync finds unchanged it does not write.
    given_up: Option<Vec<u8>>,
    /// The number of failed syncs; each handle that was open at the time reports each of them once.
    failures: u64,
    mtime: i64,
    locked_by: Option<u64>,
    /// Ranges that cannot be read until they are overwritten.
    bad: Vec<Range<usize>>,
}

impl Inode {
    /// Makes wholly overwritten sectors readable again.
    fn mend(&mut self, start: usize, end: usize) {
        let (start, end) = (start.next_multiple_of(SECTOR), end / SECTOR * SECTOR);
        if start >= end {
            return;
        }
        let bad = std::mem::take(&mut self.bad);
        let around =
            |bad: Range<usize>| [bad.start..bad.end.min(start), bad.start.max(end)..bad.end];
        self.bad = bad.into_iter().flat_map(around).filter(|bad| !bad.is_empty()).collect();
    }

    fn sync(&mut self) {
        let Some(given_up) = &self.given_up else {
            self.synced.clone_from(&self.live);
            return;
        };
        self.synced.resize(self.live.len(), 0);
        for start in (0..self.live.len()).step_by(SECTOR) {
            let end = (start + SECTOR).min(self.live.len());
            if given_up.get(start..end) != Some(&self.live[start..end]) {
                self.synced[start..end].copy_from_slice(&self.live[start..end]);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
    /// From, to, and whether it is a directory, which takes along what is in it.
    Rename(PathBuf, PathBuf, u64, bool),
}

impl NameChange {
    fn touches(&self, directory: &Path) -> bool {
        match self {
            NameChange::Set(path, _) | NameChange::Remove(path) => path.parent() == Some(directory),
            NameChange::Rename(from, to, ..) => {
                from.parent() == Some(directory) || to.parent() == Some(directory)
            }
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Set(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to, inode, directory) => {
                // Something else may have the old name: changes become durable in any order.
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
                if !directory || from == to {
                    return;
                }
                let below = |path: &&PathBuf| path.starts_with(from);
                let moved: Vec<PathBuf> = names
                    .range(from.clone()..)
                    .map(|(path, _)| path)
                    .take_while(below)
                    .cloned()
                    .collect();
                for path in moved {
                    if let (Ok(suffix), Some(inode)) =
                        (path.strip_prefix(from), names.remove(&path))
                    {
                        names.insert(to.join(suffix), inode);
                    }
                }
            }
        }
    }
}

#[derive(Debug, Default, Clone)]
struct Process {
    alive: bool,
    /// Disk operations left before it is killed.
    operations_left: Option<u64>,
    /// Disk operations left before one fails, and how.
    fails_in: Option<(u64, Fault)>,
    /// Whether all such operations fail after the first one.
    fails_for_good: bool,
    /// The number of operations that were made to fail.
    has_failed: u64,
}

/// The kind of unsynced data that a power cut may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// A name that was created, removed or renamed.
    Name,
    /// The size of a file.
    Length,
    /// A sector of a file's content.
    Sector,
}

impl Machine {
    /// Returns a machine with an empty disk; `/` is a directory.
    pub fn new() -> Machine {
        let mut shared = Shared {
            next_inode: 1,
            next_pid: 100,
            free_bytes: 1 << 40,
            links: true,
            ..Shared::default()
        };
        let root = shared.new_inode(FileKind::Directory);
        shared.names.insert("/".into(), root);
        shared.durable_names.insert("/".into(), root);
        Machine { shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process on this machine.
    pub fn process(&self) -> MemoryDisk {
        let mut shared = self.lock();
        shared.next_pid += 1;
        let pid = shared.next_pid;
        shared.processes.insert(pid, Process { alive: true, ..Process::default() });
        let identity = Identity {
            pid,
            started: u64::from(pid),
            boot_id: format!("boot-{}", shared.boot),
            host: "simulated".into(),
            user: "tester".into(),
        };
        MemoryDisk { shared: self.shared.clone(), identity: Arc::new(identity) }
    }

    /// Returns the number of disk operations of all processes so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Sets the bytes that `free_bytes` reports.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.lock().free_bytes = bytes;
    }

    /// Sets whether the file system has hard links (by default it does) and clones (by default
    /// not).
    pub fn set_abilities(&self, links: bool, clones: bool) {
        let mut shared = self.lock();
        (shared.links, shared.clones) = (links, clones);
    }

    /// Returns a copy of this machine, including unsynced data. Disks of this machine do not reach
    /// the copy.
    pub fn fork(&self) -> Machine {
        Machine { shared: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Kills all processes.
    pub fn kill_all(&self) {
        let mut shared = self.lock();
        shared.processes.values_mut().for_each(|process| process.alive = false);
        shared.inodes.values_mut().for_each(|inode| inode.locked_by = None);
    }

    /// Cuts the power: every process dies, and of what was not synced any part may be lost.
    ///
    /// `chance` decides on each sector, length and name: true keeps what was written. The machine
    /// then boots again.
    pub fn power_cut(&self, mut chance: impl FnMut() -> bool) {
        self.power_cut_by(|_| chance());
    }

    /// As [`Machine::power_cut`]; `keeps` receives the kind of data that it decides on.
    pub fn power_cut_by(&self, mut keeps: impl FnMut(Unsynced) -> bool) {
        let mut shared = self.lock();
        let shared = &mut *shared;
        for process in shared.processes.values_mut() {
            process.alive = false;
        }
        let mut names = std::mem::take(&mut shared.durable_names);
        for change in shared.pending_names.drain(..) {
            if keeps(Unsynced::Name) {
                change.apply(&mut names);
            }
        }
        // A name whose directory did not survive cannot be reached.
        let reachable: Vec<PathBuf> = names.keys().cloned().collect();
        for path in reachable {
            if path.ancestors().any(|ancestor| !names.contains_key(ancestor)) {
                names.remove(&path);
            }
        }
        let mut ids: Vec<u64> = shared.inodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(inode) = shared.inodes.get_mut(&id) else { continue };
            inode.locked_by = None;
            inode.given_up = None;
            let live = std::mem::take(&mut inode.live);
            let mut kept = std::mem::take(&mut inode.synced);
            if live.len() != kept.len() && keeps(Unsynced::Length) {
                kept.resize(live.len(), 0);
            }
            for start in (0..kept.len()).step_by(SECTOR) {
                let end = (start + SECTOR).min(kept.len()).min(live.len());
                if start < end && kept[start..end] != live[start..end] && keeps(Unsynced::Sector) {
                    kept[start..end].copy_from_slice(&live[start..end]);
                }
            }
            inode.synced = kept.clone();
            inode.live = kept;
        }
        shared.durable_names = names.clone();
        shared.names = names;
        shared.boot += 1;
    }

    /// Makes a range of a file unreadable until it is overwritten.
    pub fn spoil(&self, path: &Path, place: Range<usize>) {
        let mut shared = self.lock();
        if let Some(inode) =
            shared.names.get(path).copied().and_then(|id| shared.inodes.get_mut(&id))
        {
            inode.bad.push(place);
        }
    }

    /// Changes the bytes of a file as a failing medium would, without a disk operation.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut shared = self.lock();
        if let Some(inode) =
            shared.names.get(path).copied().and_then(|id| shared.inodes.get_mut(&id))
        {
            change(&mut inode.live);
            inode.synced = inode.live.clone();
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new()
    }
}

impl Shared {
    fn new_inode(&mut self, kind: FileKind) -> u64 {
        let id = self.next_inode;
        self.next_inode += 1;
        self.mtime += 1;
        let (live, synced, target) = Default::default();
        let (given_up, failures, mtime, locked_by, bad) = (None, 0, self.mtime, None, Vec::new());
        self.inodes.insert(
            id,
            Inode { kind, live, synced, target, given_up, failures, mtime, locked_by, bad },
        );
        id
    }

    /// Counts one operation of a process. Fails if the process is dead, dies here, or must fail
    /// here.
    fn count(&mut self, pid: u32, action: &str, changes: bool) -> io::Result<()> {
        let killed = || Err(io::Error::other("the process was killed"));
        self.operations += 1;
        let Some(process) = self.processes.get_mut(&pid) else { return killed() };
        if !process.alive {
            return killed();
        }
        match &mut process.operations_left {
            Some(0) => {
                process.alive = false;
                self.release_locks_of(pid);
                return killed();
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let Some(process) = self.processes.get_mut(&pid) else { return killed() };
        match &mut process.fails_in {
            Some((0, fault)) if fault.hits(action, changes) => {
                let fault = *fault;
                if !process.fails_for_good {
                    process.fails_in = None;
                }
                process.has_failed += 1;
                Err(fault.error())
            }
            Some((left, _)) => {
                *left = left.saturating_sub(1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn release_locks_of(&mut self, pid: u32) {
        for inode in self.inodes.values_mut() {
            if inode.locked_by.is_some_and(|handle| handle >> 32 == u64::from(pid)) {
                inode.locked_by = None;
            }
        }
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let id = self.names.get(path).copied().ok_or(ErrorKind::NotFound)?;
        let inode = self.inode(id)?;
        if inode.kind == FileKind::Symlink {
            let target = path.parent().unwrap_or(Path::new("/")).join(&inode.target);
            return self.find(&target);
        }
        Ok(id)
    }

    fn inode(&self, id: u64) -> io::Result<&Inode> {
        self.inodes.get(&id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn inode_mut(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn parent_is_there(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        match self.inode(self.find(parent)?)?.kind {
            FileKind::Directory => Ok(()),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }
}

fn metadata_of(id: u64, inode: &Inode) -> Metadata {
    Metadata {
        kind: inode.kind,
        len: inode.live.len() as u64,
        mtime_ns: inode.mtime,
        inode: id,
        device: 1,
    }
}

impl MemoryDisk {
    /// Kills this process at its disk operation number `n` from now (0: the next one).
    pub fn kill_after(&self, n: u64) {
        self.with_process(|process| process.operations_left = Some(n));
    }

    /// Lets the first operation from the `n`th on that it can hit fail, once or for good.
    pub fn fail_after(&self, n: u64, fault: impl Into<Fault>, for_good: bool) {
        let fault = fault.into();
        self.with_process(|process| {
            process.fails_in = Some((n, fault));
            process.fails_for_good = for_good;
        });
    }

    /// What is to fail next.
    fn fault(&self) -> Option<Fault> {
        self.lock()
            .processes
            .get(&self.identity.pid)
            .and_then(|process| process.fails_in)
            .map(|(_, fault)| fault)
    }

    /// How many operations of this process were made to fail.
    pub fn failures(&self) -> u64 {
        self.lock().processes.get(&self.identity.pid).map_or(0, |process| process.has_failed)
    }

    /// Disk operations that are left to it, if it is to be killed.
    pub fn operations_left(&self) -> Option<u64> {
        self.lock().processes.get(&self.identity.pid).and_then(|process| process.operations_left)
    }

    /// Ends what [`MemoryDisk::fail_after`] began.
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

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<T>(
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
                    shared.parent_is_there(path)?;
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
            shared.parent_is_there(path)?;
            let id = shared.new_inode(FileKind::Directory);
            shared.change_name(NameChange::Set(path.to_owned(), id));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.run("rename", from, true, |shared| {
            let id = shared.names.get(from).copied().ok_or(ErrorKind::NotFound)?;
            shared.parent_is_there(to)?;
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
                        // The name it was made under will not come back.
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
            shared.parent_is_there(path)?;
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
            shared.parent_is_there(to)?;
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

#[cfg(test)]
mod tests;
