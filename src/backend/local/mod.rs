//! The backend that needs nothing but a disk: content under its CID, and a tree of names.
//!
//! ```text
//! <root>/                     mode 0700
//!   content/<xy>/<cid>        the content of a file; xy: the 2 characters before the last one
//!   content/<xy>/<cid>.dir    a directory: a JSON line per entry, each with its own CID
//!   content/<xy>/<cid>.layout how a file was cut into blocks, if not as its CID implies
//!   files/                    a tree of names
//!   pins/<cid>                an empty file: this CID, and what it leads to, is not to be removed
//!   tmp/                      staging; what lies here under the name of a dead process is rubbish
//!   lock                      held for moments while content is removed, pinned, or referred to
//! ```
//!
//! Nothing is reported as done before it survives a power cut: content is written in `tmp/`,
//! synced,
//! renamed, and its directory synced, and so is whatever was found to be there already, since the
//! process that put it there may have been killed before it could do so.

mod add;
mod audit;
mod entry;
mod errors;
mod listing;
mod names;
mod origin;
mod remove;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use super::configured::{Configured, Context};
use super::errors::{Result, ours};
use super::files::{parent_of, stop_if_asked};
use super::parameters::{self, StandardOperation};
use super::unixfs::Options;
use super::{
    Addressing, Attempt, AttemptError, AttemptStatus, AuditResult, Backend, OperationTypes,
    ParameterError, Request,
};
use crate::clock::Clock;
use crate::config::LocalSettings;
use crate::disk::{Access, Disk, DiskFile, DiskResult};
use crate::operation::{Failure, FailureClass, Fields, OperationType, Outcome};
use origin::Origin;

/// What lies longer than this in `tmp/` under the name of a dead process is swept.
const RUBBISH_AGE_NS: i64 = 3_600_000_000_000;

/// How long to pause before trying again to get the store's lock, which is held for moments.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Builds the backend from its settings.
pub(super) fn configure(local: &LocalSettings, context: &Context<'_>) -> Configured {
    let root = local.path.clone();
    let root = root.unwrap_or_else(|| context.settings.base_path.join("local"));
    let (disk, clock) = (context.disk.clone(), context.clock.clone());
    Configured::complete(LocalBackend::new(disk, clock, root, Options::from(&local.unixfs)))
}

/// Carries operations out in a directory of this machine.
#[derive(Debug)]
pub struct LocalBackend {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    root: PathBuf,
    options: Options,
    /// Directories known to survive a power cut.
    durable: Mutex<HashSet<PathBuf>>,
    /// Done once per process, at its first operation.
    swept: Once,
    /// Distinguishes this process's names in `tmp/`.
    staged: AtomicU64,
}

impl LocalBackend {
    /// A backend that keeps everything below `root`, which is made when it is first needed;
    /// `options` say which CIDs content gets.
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        root: PathBuf,
        options: Options,
    ) -> LocalBackend {
        LocalBackend {
            disk,
            clock,
            root,
            options,
            durable: Mutex::default(),
            swept: Once::new(),
            staged: AtomicU64::new(0),
        }
    }

    fn content_dir(&self) -> PathBuf {
        self.root.join("content")
    }

    fn files_dir(&self) -> PathBuf {
        self.root.join("files")
    }

    fn pins_dir(&self) -> PathBuf {
        self.root.join("pins")
    }

    fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Makes a directory at or below the root, with parents, and makes sure once per process that
    /// all of them are durable.
    fn ensure_dir(&self, path: &Path) -> DiskResult<()> {
        let known = |path: &Path| {
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
        };
        // It may have been removed since.
        if known(path) && self.disk.exists(path)? {
            return Ok(());
        }
        self.disk.create_dir_all_synced(path)?;
        // It, or what the root is in, may be there only because a process made it that was killed
        // before it could sync.
        for directory in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if known(directory) {
                break;
            }
            match self.disk.sync_dir(parent_of(directory)) {
                // Nobody made a directory here as us if we may not even read it.
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

    /// A fresh name in `tmp/` that says which process it belongs to.
    fn tmp_path(&self) -> DiskResult<PathBuf> {
        let tmp = self.tmp_dir();
        self.ensure_dir(&tmp)?;
        let identity = self.disk.identity();
        let nth = self.staged.fetch_add(1, Ordering::Relaxed);
        Ok(tmp.join(format!(
            "{}-{}-{nth}-{:08x}",
            identity.pid,
            identity.started,
            self.clock.random() as u32
        )))
    }

    /// Takes the store's lock; closing the file gives it up.
    fn lock(&self, attempt: &Attempt) -> Result<Box<dyn DiskFile>> {
        self.ensure_dir(&self.root).map_err(ours)?;
        let file = self.disk.open(&self.root.join("lock"), Access::OpenOrCreate).map_err(ours)?;
        while !file.try_lock().map_err(ours)? {
            stop_if_asked(attempt)?;
            self.clock.sleep(LOCK_PAUSE);
        }
        Ok(file)
    }

    /// Removes what dead processes left in `tmp/`.
    fn sweep(&self) -> DiskResult<()> {
        let now_ns = self.clock.now().as_millis().saturating_mul(1_000_000);
        for entry in self.disk.list(&self.tmp_dir())? {
            let mut owner =
                entry.name.to_str().unwrap_or_default().split('-').map(str::parse::<u64>);
            let (Some(Ok(pid)), Some(Ok(started))) = (owner.next(), owner.next()) else { continue };
            let path = self.tmp_dir().join(&entry.name);
            let Ok(metadata) = self.disk.symlink_metadata(&path) else { continue };
            let alive = u32::try_from(pid).is_ok_and(|pid| self.disk.is_alive(pid, started));
            if !alive && now_ns.saturating_sub(metadata.mtime_ns) > RUBBISH_AGE_NS {
                self.disk.remove_tree(&path)?;
            }
        }
        Ok(())
    }

    fn probe(&self) -> DiskResult<()> {
        const MARK: &[u8] = b"wal-cli health probe\n";
        for directory in [self.content_dir(), self.files_dir(), self.pins_dir()] {
            self.ensure_dir(&directory)?;
        }
        let path = self.tmp_path()?;
        let written = self.disk.write_new_synced(&path, MARK).and_then(|()| self.disk.read(&path));
        let removed = self.disk.remove_file(&path);
        if written? != MARK {
            let damaged = std::io::Error::new(
                ErrorKind::InvalidData,
                "the bytes read differ from those written",
            );
            return Err(crate::disk::DiskError::new("read back", &path, damaged));
        }
        removed?;
        // What is left over costs room, not correctness: failing here is not a fault.
        drop(self.sweep());
        Ok(())
    }
}

impl Backend for LocalBackend {
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Only(&parameters::TYPES)
    }

    fn check(
        &self,
        operation_type: &OperationType,
        parameters: &Fields,
    ) -> std::result::Result<(), ParameterError> {
        parameters::check(operation_type.as_str(), parameters)
    }

    fn addressing(&self) -> Addressing {
        Addressing::PathsAndCids
    }

    fn execute(
        &self,
        request: &Request,
        attempt: &Attempt,
    ) -> std::result::Result<Outcome, AttemptError> {
        // What is left over costs room, not correctness: failing here stops nothing.
        self.swept.call_once(|| drop(self.sweep()));
        let operation = StandardOperation::of(request, self.options)?;
        stop_if_asked(attempt)?;
        match operation {
            StandardOperation::Add { path, recursive, options } => {
                self.add(request, attempt, &path, recursive, options)
            }
            StandardOperation::Upload { path, destination, recursive, options } => {
                let origin = Origin::of_user(self, attempt, &path, recursive, request, options)?;
                self.write_name(attempt, origin, &destination)
            }
            StandardOperation::Get { source, destination } => {
                self.get(request, attempt, &source, &destination, true)
            }
            StandardOperation::Cat { source, destination } => {
                self.get(request, attempt, &source, &destination, false)
            }
            StandardOperation::Pin { cid } => self.pin(attempt, &cid),
            StandardOperation::Unpin { cid } => self.unpin(attempt, &cid),
            StandardOperation::RemoveContent { cid, recursive } => {
                self.remove_content(attempt, &cid, recursive)
            }
            StandardOperation::RemoveName { name, recursive } => {
                self.remove_name(attempt, &name, recursive)
            }
            StandardOperation::List { what, destination } => {
                self.list(request, attempt, &what, destination.as_deref())
            }
            StandardOperation::MakeDirectory { name } => self.make_directory(&name),
            StandardOperation::Copy { source, destination } => {
                self.copy(attempt, &source, &destination)
            }
            StandardOperation::Move { source, destination } => {
                self.move_name(&source, &destination)
            }
        }
    }

    fn query_attempt(&self, request: &Request) -> std::result::Result<AttemptStatus, AttemptError> {
        match StandardOperation::of(request, self.options)? {
            StandardOperation::RemoveContent { cid, .. } => self.query_remove_content(&cid),
            StandardOperation::RemoveName { name, .. } => self.query_remove_name(&name),
            StandardOperation::Move { source, destination } => {
                self.query_move(&source, &destination)
            }
            // Everything else ends in the same state however often it is done.
            _ => Ok(AttemptStatus::NotDone),
        }
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> std::result::Result<AuditResult, AttemptError> {
        self.look_again(request, outcome, attempt)
    }

    fn health(&self) -> std::result::Result<(), Failure> {
        let Err(error) = self.probe() else { return Ok(()) };
        let root = self.root.display();
        let (error_type, advice) = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                ("disk_full", format!("free some space on the disk of `{root}`"))
            }
            ErrorKind::PermissionDenied => {
                ("permission_denied", format!("make `{root}` writable for the user who runs this"))
            }
            ErrorKind::ReadOnlyFilesystem => (
                "read_only",
                format!("mount the file system of `{root}` writable, or configure another path"),
            ),
            _ => ("io", format!("check the disk that `{root}` is on, or configure another path")),
        };
        let message = format!("the local store is not usable: {error}; {advice}");
        Err(Failure { class: FailureClass::Outage, error_type: error_type.into(), message })
    }
}
