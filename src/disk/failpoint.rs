//! Named points at which the process aborts or stops on request, for tests that kill the real
//! program.
//!
//! Only in builds with debug assertions, and only if one of these environment variables is set:
//!
//! - `WAL_CLI_FAILPOINT=NAME#N` aborts when the point is passed for the N-th time (without `#N`:
//!   the first); `stop:NAME#N` raises SIGSTOP instead, so that the process keeps its locks.
//! - `WAL_CLI_FAILPOINT_LIST=FILE` appends every point that is passed, with its count.
//!
//! A name consists of `before` or `after` (on success), the action, and the role of the path:
//! `before:sync:generation`, `after:rename:manifest`, `before:sync-dir:partitions`,
//! `after:lock:process-lock`.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Access, Disk, DiskFile, DiskResult, Entry, Identity, Metadata};

/// The point at which the process ends, and the file that lists all points passed.
#[derive(Debug)]
pub struct Failpoints {
    armed: Option<Armed>,
    list: Option<File>,
    passed: Mutex<HashMap<String, u64>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Armed {
    stops: bool,
    name: String,
    count: u64,
}

impl Armed {
    fn parse(text: &str) -> Option<Armed> {
        let (stops, text) = text.strip_prefix("stop:").map_or((false, text), |rest| (true, rest));
        let (name, count) = match text.split_once('#') {
            Some((name, count)) => (name, count.parse().ok()?),
            None => (text, 1),
        };
        (!name.is_empty()).then(|| Armed { stops, name: name.to_owned(), count })
    }
}

impl Failpoints {
    /// Reads the environment variables; `None` if neither is set.
    pub fn from_environment() -> Option<Failpoints> {
        let armed = std::env::var("WAL_CLI_FAILPOINT").ok().and_then(|text| Armed::parse(&text));
        let list = std::env::var_os("WAL_CLI_FAILPOINT_LIST")
            .and_then(|path| OpenOptions::new().append(true).create(true).open(path).ok());
        (armed.is_some() || list.is_some()).then(|| Failpoints {
            armed,
            list,
            passed: Mutex::default(),
        })
    }

    /// Passes a point: lists it, and ends the process if it is the requested one.
    pub fn pass(&self, name: &str) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(name.to_owned()).or_default();
        *count += 1;
        let count = *count;
        if let Some(mut list) = self.list.as_ref() {
            // A gap in the list only makes a test skip a point.
            let _ = list.write_all(format!("{name}#{count}\n").as_bytes());
        }
        let Some(armed) =
            self.armed.as_ref().filter(|armed| armed.name == name && armed.count == count)
        else {
            return;
        };
        if armed.stops {
            // Other threads must not find the mutex locked while the process is stopped.
            drop(passed);
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::STOP,
            );
        } else {
            std::process::abort();
        }
    }
}

/// Returns the role of a path, as a word for the names of points.
type Role = Box<dyn Fn(&Path) -> String + Send + Sync>;

/// A disk that passes a point before and after each change, and around locks.
pub struct FailpointDisk {
    disk: Arc<dyn Disk>,
    points: Arc<Failpoints>,
    role: Role,
}

impl fmt::Debug for FailpointDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailpointDisk")
            .field("disk", &self.disk)
            .field("points", &self.points)
            .finish_non_exhaustive()
    }
}

impl FailpointDisk {
    /// Wraps `disk`; `role` returns the role of a path.
    pub fn new(
        disk: Arc<dyn Disk>,
        points: Arc<Failpoints>,
        role: impl Fn(&Path) -> String + Send + Sync + 'static,
    ) -> FailpointDisk {
        FailpointDisk { disk, points, role: Box::new(role) }
    }

    fn around<T>(
        &self,
        action: &str,
        path: &Path,
        call: impl FnOnce() -> DiskResult<T>,
    ) -> DiskResult<T> {
        around(&self.points, action, &(self.role)(path), call)
    }
}

fn around<T>(
    points: &Failpoints,
    action: &str,
    role: &str,
    call: impl FnOnce() -> DiskResult<T>,
) -> DiskResult<T> {
    points.pass(&format!("before:{action}:{role}"));
    let result = call()?;
    points.pass(&format!("after:{action}:{role}"));
    Ok(result)
}

impl Disk for FailpointDisk {
    fn open(&self, path: &Path, access: Access) -> DiskResult<Box<dyn DiskFile>> {
        let creates = match access {
            Access::Read | Access::Write => false,
            Access::CreateNew => true,
            Access::OpenOrCreate => !self.disk.exists(path)?,
        };
        let open = || self.disk.open(path, access);
        let file = if creates { self.around("create", path, open) } else { open() }?;
        Ok(Box::new(FailpointFile { file, points: self.points.clone(), role: (self.role)(path) }))
    }

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        self.around("create-dir", path, || self.disk.create_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.around("rename", to, || self.disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.around("remove", path, || self.disk.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        self.around("remove-dir", path, || self.disk.remove_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        self.around("sync-dir", path, || self.disk.sync_dir(path))
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<Entry>> {
        self.disk.list(path)
    }

    fn metadata(&self, path: &Path) -> DiskResult<Metadata> {
        self.disk.metadata(path)
    }

    fn symlink_metadata(&self, path: &Path) -> DiskResult<Metadata> {
        self.disk.symlink_metadata(path)
    }

    fn read_link(&self, path: &Path) -> DiskResult<PathBuf> {
        self.disk.read_link(path)
    }

    fn symlink(&self, target: &Path, path: &Path) -> DiskResult<()> {
        self.around("symlink", path, || self.disk.symlink(target, path))
    }

    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.around("link", to, || self.disk.link(from, to))
    }

    fn links(&self, path: &Path) -> DiskResult<u64> {
        self.disk.links(path)
    }

    fn clone_file(&self, from: &Path, to: &Path) -> DiskResult<bool> {
        self.around("clone", to, || self.disk.clone_file(from, to))
    }

    fn free_bytes(&self, path: &Path) -> DiskResult<u64> {
        self.disk.free_bytes(path)
    }

    fn is_network(&self, path: &Path) -> DiskResult<bool> {
        self.disk.is_network(path)
    }

    fn identity(&self) -> &Identity {
        self.disk.identity()
    }

    fn is_alive(&self, pid: u32, started: u64) -> bool {
        self.disk.is_alive(pid, started)
    }
}

#[derive(Debug)]
struct FailpointFile {
    file: Box<dyn DiskFile>,
    points: Arc<Failpoints>,
    role: String,
}

impl FailpointFile {
    fn around<T>(&self, action: &str, call: impl FnOnce() -> DiskResult<T>) -> DiskResult<T> {
        around(&self.points, action, &self.role, call)
    }
}

impl DiskFile for FailpointFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        self.around("write", || self.file.write_at(data, offset))
    }

    fn sync_data(&self) -> DiskResult<()> {
        self.around("sync", || self.file.sync_data())
    }

    fn sync_all(&self) -> DiskResult<()> {
        self.around("sync", || self.file.sync_all())
    }

    fn metadata(&self) -> DiskResult<Metadata> {
        self.file.metadata()
    }

    fn try_lock(&self) -> DiskResult<bool> {
        let locked = self.file.try_lock()?;
        if locked {
            self.points.pass(&format!("after:lock:{}", self.role));
        }
        Ok(locked)
    }

    fn unlock(&self) -> DiskResult<()> {
        self.points.pass(&format!("before:unlock:{}", self.role));
        self.file.unlock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_named_with_their_count() {
        let armed = |stops, name: &str, count| Some(Armed { stops, name: name.to_owned(), count });
        assert_eq!(
            Armed::parse("before:sync:generation"),
            armed(false, "before:sync:generation", 1)
        );
        assert_eq!(Armed::parse("stop:after:lock:lock#3"), armed(true, "after:lock:lock", 3));
        assert_eq!(Armed::parse("after:effect#x"), None);
        assert_eq!(Armed::parse(""), None);
    }
}
