//! The directory of the store: its parts, its lock, and files that are being written.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::backend::Attempt;
use crate::backend::errors::{Result, ours};
use crate::backend::files::{parent_of, stop_if_asked};
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskError, DiskFile, DiskResult};

/// The age, in nanoseconds, from which on a file of a dead process in `tmp/` is removed.
const STALE_AFTER_NS: i64 = 3_600_000_000_000;

/// The pause between two attempts to take the store's lock, which is held for moments.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The content of the file that a probe writes.
const PROBE: &[u8] = b"wal-cli health probe\n";

/// The directory of a store. Its parts are created when they are first needed.
#[derive(Debug)]
pub(super) struct StoreDirectory {
    pub(super) disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    pub(super) root: PathBuf,
    /// Directories known to survive a power cut.
    durable: Mutex<HashSet<PathBuf>>,
    /// The number of names in `tmp/` that this process has used.
    staged: AtomicU64,
}

impl StoreDirectory {
    pub(super) fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, root: PathBuf) -> StoreDirectory {
        let (durable, staged) = (Mutex::default(), AtomicU64::new(0));
        StoreDirectory { disk, clock, root, durable, staged }
    }

    pub(super) fn content(&self) -> PathBuf {
        self.root.join("content")
    }

    pub(super) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    pub(super) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Returns whether any part of the store exists.
    pub(super) fn exists(&self) -> DiskResult<bool> {
        let mut parts = [self.content(), self.files(), self.pins()].into_iter();
        parts.try_fold(false, |exists, part| Ok(exists || self.disk.exists(&part)?))
    }

    /// Creates a directory at or below the root, with its parents. Once per process, makes all of
    /// them durable.
    pub(super) fn ensure(&self, path: &Path) -> DiskResult<()> {
        let is_durable = |path: &Path| {
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
        };
        // A user may have removed it since.
        if is_durable(path) && self.disk.exists(path)? {
            return Ok(());
        }
        self.disk.create_dir_all_synced(path)?;
        // A process may have created this directory, or one above it, and died before it synced
        // them.
        for directory in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if is_durable(directory) {
                break;
            }
            match self.disk.sync_dir(parent_of(directory)) {
                // A directory that this user may not even read was not created by this program.
                Err(error)
                    if error.kind() == ErrorKind::PermissionDenied
                        && !directory.starts_with(&self.root) =>
                {
                    break;
                }
                synced => synced?,
            }
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.extend(
            path.ancestors().take_while(|path| path.starts_with(&self.root)).map(PathBuf::from),
        );
        Ok(())
    }

    /// Returns an unused path in `tmp/`, whose name identifies this process.
    pub(super) fn staging_path(&self) -> DiskResult<PathBuf> {
        let tmp = self.tmp();
        self.ensure(&tmp)?;
        let identity = self.disk.identity();
        let nth = self.staged.fetch_add(1, Ordering::Relaxed);
        Ok(tmp.join(format!(
            "{}-{}-{nth}-{:08x}",
            identity.pid,
            identity.started,
            self.clock.random() as u32
        )))
    }

    /// Takes the store's lock, which is released when the file is closed.
    pub(super) fn lock(&self, attempt: &Attempt) -> Result<Box<dyn DiskFile>> {
        self.ensure(&self.root).map_err(ours)?;
        let file = self.disk.open(&self.root.join("lock"), Access::OpenOrCreate).map_err(ours)?;
        while !file.try_lock().map_err(ours)? {
            stop_if_asked(attempt)?;
            self.clock.sleep(LOCK_PAUSE);
        }
        Ok(file)
    }

    /// Removes what dead processes left in `tmp/`.
    pub(super) fn sweep(&self) -> DiskResult<()> {
        let now_ns = self.clock.now().as_millis().saturating_mul(1_000_000);
        for entry in self.disk.list(&self.tmp())? {
            let mut owner =
                entry.name.to_str().unwrap_or_default().split('-').map(str::parse::<u64>);
            let (Some(Ok(pid)), Some(Ok(started))) = (owner.next(), owner.next()) else { continue };
            let path = self.tmp().join(&entry.name);
            let Ok(metadata) = self.disk.symlink_metadata(&path) else { continue };
            let is_alive = u32::try_from(pid).is_ok_and(|pid| self.disk.is_alive(pid, started));
            if !is_alive && now_ns.saturating_sub(metadata.mtime_ns) > STALE_AFTER_NS {
                self.disk.remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// Checks that all parts exist, or can be created, and that a file can be written and read.
    pub(super) fn probe(&self) -> DiskResult<()> {
        for directory in [self.content(), self.files(), self.pins()] {
            self.ensure(&directory)?;
        }
        let path = self.staging_path()?;
        let written = self.disk.write_new_synced(&path, PROBE).and_then(|()| self.disk.read(&path));
        let removed = self.disk.remove_file(&path);
        if written? != PROBE {
            let damaged = std::io::Error::new(
                ErrorKind::InvalidData,
                "the bytes read differ from those written",
            );
            return Err(DiskError::new("read back", &path, damaged));
        }
        removed
    }
}
