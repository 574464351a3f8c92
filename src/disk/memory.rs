//! A simulated machine for tests: a disk in memory with kills, power cuts and faults.

mod disk;
mod fault;
mod names;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use disk::MemoryDisk;
pub use fault::Fault;
use names::NameChange;

use super::{FileKind, Identity};

/// The unit of writes in bytes: a sector is written wholly or not at all.
const SECTOR: usize = 512;

/// A simulated machine: one disk, shared by several simulated processes.
///
/// It keeps written and synced state apart, for contents, sizes and names, so that a power cut can
/// lose any part of the unsynced state. For tests of this crate and of programs that use it.
#[derive(Debug, Clone)]
pub struct Machine {
    shared: Arc<Mutex<Shared>>,
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
    /// The number of disk operations of all processes so far.
    operations: u64,
    free_bytes: u64,
    mtime: i64,
    /// True if the file system has hard links.
    links: bool,
    /// True if the file system has clones.
    clones: bool,
}

#[derive(Debug, Clone)]
struct Inode {
    kind: FileKind,
    live: Vec<u8>,
    synced: Vec<u8>,
    target: PathBuf,
    /// The content when a sync failed. As on Linux, its pages count as clean from then on: a later
    /// sync writes only sectors that have changed since.
    given_up: Option<Vec<u8>>,
    /// The number of failed syncs; each handle that was open at the time reports each of them once.
    failures: u64,
    mtime: i64,
    locked_by: Option<u64>,
    /// The ranges that cannot be read until they are overwritten.
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

#[derive(Debug, Default, Clone)]
struct Process {
    alive: bool,
    /// The number of disk operations before it is killed.
    operations_left: Option<u64>,
    /// The number of disk operations before one fails, and the fault.
    fails_in: Option<(u64, Fault)>,
    /// True if all later operations that the fault applies to fail as well.
    fails_for_good: bool,
    /// The number of operations that were made to fail.
    failures: u64,
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

    /// Cuts the power: every process dies, and any part of the unsynced data may be lost.
    ///
    /// `chance` decides on each sector, length and name; true keeps the unsynced state. The machine
    /// then boots again.
    pub fn power_cut(&self, mut chance: impl FnMut() -> bool) {
        self.power_cut_by(|_| chance());
    }

    /// Like [`Machine::power_cut`], but `keeps` receives the kind of data that it decides on.
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
    pub fn spoil(&self, path: &Path, range: Range<usize>) {
        let mut shared = self.lock();
        if let Some(inode) =
            shared.names.get(path).copied().and_then(|id| shared.inodes.get_mut(&id))
        {
            inode.bad.push(range);
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
                process.failures += 1;
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

    /// Returns the inode of a path, following links.
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

    /// Fails unless the parent of a path is a directory.
    fn check_parent(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        match self.inode(self.find(parent)?)?.kind {
            FileKind::Directory => Ok(()),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }
}

#[cfg(test)]
mod tests;
