//! A disk with a hook before each operation of a simulated process that decides its result.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal_cli::disk::{Access, Disk, DiskFile, DiskResult, Entry, Identity, MemoryDisk, Metadata};

/// An operation that is about to happen.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub action: &'static str,
    pub path: &'a Path,
    /// The target of a rename or link.
    pub to: Option<&'a Path>,
}

/// The decision; only operations without a return value can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Go,
    LeaveOut,
}

pub type Watch = Arc<dyn Fn(&MemoryDisk, Call<'_>) -> Verdict + Send + Sync>;

#[derive(Clone)]
pub struct Watched {
    pub disk: MemoryDisk,
    pub watch: Watch,
}

struct WatchedFile {
    disk: Watched,
    file: Box<dyn DiskFile>,
    path: PathBuf,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Watched {
    fn asks(&self, action: &'static str, path: &Path, to: Option<&Path>) -> bool {
        (self.watch)(&self.disk, Call { action, path, to }) == Verdict::Go
    }

    fn unless_left_out(
        &self,
        (action, path, to): (&'static str, &Path, Option<&Path>),
        call: impl FnOnce() -> DiskResult<()>,
    ) -> DiskResult<()> {
        if self.asks(action, path, to) { call() } else { Ok(()) }
    }

    fn goes<T>(
        &self,
        action: &'static str,
        path: &Path,
        call: impl FnOnce() -> DiskResult<T>,
    ) -> DiskResult<T> {
        self.asks(action, path, None);
        call()
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, access: Access) -> DiskResult<Box<dyn DiskFile>> {
        let file = self.goes("open", path, || self.disk.open(path, access))?;
        Ok(Box::new(WatchedFile { disk: self.clone(), file, path: path.to_owned() }))
    }
    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        self.unless_left_out(("create directory", path, None), || self.disk.create_dir(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.unless_left_out(("rename", from, Some(to)), || self.disk.rename(from, to))
    }
    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.unless_left_out(("remove", path, None), || self.disk.remove_file(path))
    }
    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        self.unless_left_out(("remove directory", path, None), || self.disk.remove_dir(path))
    }
    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        self.unless_left_out(("sync directory", path, None), || self.disk.sync_dir(path))
    }
    fn list(&self, path: &Path) -> DiskResult<Vec<Entry>> {
        self.goes("list", path, || self.disk.list(path))
    }
    fn metadata(&self, path: &Path) -> DiskResult<Metadata> {
        self.goes("inspect", path, || self.disk.metadata(path))
    }
    fn symlink_metadata(&self, path: &Path) -> DiskResult<Metadata> {
        self.goes("inspect", path, || self.disk.symlink_metadata(path))
    }
    fn read_link(&self, path: &Path) -> DiskResult<PathBuf> {
        self.goes("read link", path, || self.disk.read_link(path))
    }
    fn symlink(&self, target: &Path, path: &Path) -> DiskResult<()> {
        self.unless_left_out(("make link", path, None), || self.disk.symlink(target, path))
    }
    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.unless_left_out(("link", from, Some(to)), || self.disk.link(from, to))
    }
    fn links(&self, path: &Path) -> DiskResult<u64> {
        self.goes("inspect", path, || self.disk.links(path))
    }
    fn clone_file(&self, from: &Path, to: &Path) -> DiskResult<bool> {
        self.goes("clone", from, || self.disk.clone_file(from, to))
    }
    fn free_bytes(&self, path: &Path) -> DiskResult<u64> {
        self.goes("ask for the free space of", path, || self.disk.free_bytes(path))
    }
    fn is_network(&self, path: &Path) -> DiskResult<bool> {
        self.goes("inspect the file system of", path, || self.disk.is_network(path))
    }
    fn identity(&self) -> &Identity {
        self.disk.identity()
    }
    fn is_alive(&self, pid: u32, started: u64) -> bool {
        self.disk.is_alive(pid, started)
    }
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<usize> {
        self.disk.goes("read", &self.path, || self.file.read_at(buffer, offset))
    }
    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        self.disk.unless_left_out(("write", &self.path, None), || self.file.write_at(data, offset))
    }
    fn sync_data(&self) -> DiskResult<()> {
        self.disk.unless_left_out(("sync", &self.path, None), || self.file.sync_data())
    }
    fn sync_all(&self) -> DiskResult<()> {
        self.disk.unless_left_out(("sync", &self.path, None), || self.file.sync_all())
    }
    fn metadata(&self) -> DiskResult<Metadata> {
        self.disk.goes("inspect", &self.path, || self.file.metadata())
    }
    fn try_lock(&self) -> DiskResult<bool> {
        self.disk.goes("lock", &self.path, || self.file.try_lock())
    }
    fn unlock(&self) -> DiskResult<()> {
        self.disk.goes("unlock", &self.path, || self.file.unlock())
    }
}
