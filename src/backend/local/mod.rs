//! Backend `local`: content under its CID, and a tree of names, in a directory.
//!
//! ```text
//! <root>/                     mode 0700
//!   content/<xy>/<cid>        the content of a file; xy: the 2 characters before the last one
//!   content/<xy>/<cid>.dir    a directory: a JSON line per entry, each with its own CID
//!   content/<xy>/<cid>.layout the blocks of a file, if its CID does not imply them
//!   files/                    a tree of names
//!   pins/<cid>                an empty file: protects this CID, and all content below it
//!   tmp/                      files being written; those of dead processes are removed
//!   lock                      held briefly to remove, pin or refer to content
//! ```
//!
//! An operation is reported as done once it survives a power cut: content is written in `tmp/`,
//! synced and renamed, and its directory is synced. Content that already existed is synced as well,
//! because the process that wrote it may have died before it did so.
//!
//! [`StoreDirectory`] knows the files above, [`ContentStore`] what `content/` and `pins/` hold, and
//! [`NameTree`] what `files/` holds. [`LocalBackend`] composes the operations from them.

mod add;
mod audit;
mod directory;
mod entry;
mod errors;
mod listing;
mod names;
mod origin;
mod remove;
mod store;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Once};

use super::configured::{Configured, Context};
use super::errors::Result;
use super::files::stop_if_asked;
use super::parameters::StandardOperation;
use super::unixfs::Options;
use super::{
    Addressing, Attempt, AttemptError, AttemptStatus, AuditResult, Backend, OperationTypes, Request,
};
use crate::clock::Clock;
use crate::config::LocalSettings;
use crate::disk::Disk;
use crate::operation::{Failure, FailureClass, Outcome};
use directory::StoreDirectory;
use names::NameTree;
use origin::Origin;
use store::ContentStore;

/// Builds the backend from its settings.
pub(super) fn configure(local: &LocalSettings, context: &Context<'_>) -> Configured {
    let root = local.path.clone();
    let root = root.unwrap_or_else(|| context.settings.base_path.join("local"));
    let (disk, clock) = (context.disk.clone(), context.clock.clone());
    Configured::complete(LocalBackend::new(disk, clock, root, Options::from(&local.unixfs)))
}

/// A backend that carries operations out in a directory of this machine.
#[derive(Debug)]
pub struct LocalBackend {
    directory: Arc<StoreDirectory>,
    store: ContentStore,
    names: NameTree,
    /// The options that decide the CIDs of new content.
    options: Options,
    /// Runs the sweep of the first operation in this process.
    swept: Once,
}

impl LocalBackend {
    /// Returns a backend that keeps everything below `root`, which is created when it is first
    /// needed. The options decide the CIDs of new content.
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        root: PathBuf,
        options: Options,
    ) -> LocalBackend {
        let directory = Arc::new(StoreDirectory::new(disk, clock, root));
        LocalBackend {
            store: ContentStore::new(directory.clone()),
            names: NameTree::new(directory.clone()),
            directory,
            options,
            swept: Once::new(),
        }
    }

    fn disk(&self) -> &dyn Disk {
        &*self.directory.disk
    }

    fn probe(&self) -> crate::disk::DiskResult<()> {
        self.directory.probe()?;
        self.sweep_or_leave();
        Ok(())
    }

    /// Sweeps `tmp/`. What cannot be removed costs space but no correctness, so errors are ignored.
    fn sweep_or_leave(&self) {
        drop(self.directory.sweep());
    }
}

impl Backend for LocalBackend {
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Standard
    }

    fn addressing(&self) -> Addressing {
        Addressing::PathsAndCids
    }

    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome> {
        self.swept.call_once(|| self.sweep_or_leave());
        let operation = StandardOperation::of(request, self.options)?;
        stop_if_asked(attempt)?;
        match operation {
            StandardOperation::Add { path, recursive, options } => {
                self.add(request, attempt, &path, recursive, options)
            }
            StandardOperation::Upload { path, destination, recursive, options } => {
                let origin =
                    Origin::of_user(self.disk(), attempt, &path, recursive, request, options)?;
                self.write_name(attempt, origin, &destination)
            }
            StandardOperation::Get { source, destination } => {
                self.get(request, attempt, &source, &destination, true)
            }
            StandardOperation::Cat { source, destination } => {
                self.get(request, attempt, &source, &destination, false)
            }
            StandardOperation::Pin { cid } => self.store.pin(attempt, &cid),
            StandardOperation::Unpin { cid } => self.store.unpin(attempt, &cid),
            StandardOperation::RemoveContent { cid, recursive } => {
                self.store.remove(attempt, &cid, recursive)
            }
            StandardOperation::RemoveName { name, recursive } => {
                self.names.remove(attempt, &name, recursive)
            }
            StandardOperation::List { what, destination } => {
                self.list(request, attempt, &what, destination.as_deref())
            }
            StandardOperation::MakeDirectory { name } => self.names.make_directory(&name),
            StandardOperation::Copy { source, destination } => {
                self.copy(attempt, &source, &destination)
            }
            StandardOperation::Move { source, destination } => {
                self.names.rename(&source, &destination)
            }
        }
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus> {
        match StandardOperation::of(request, self.options)? {
            StandardOperation::RemoveContent { cid, .. } => self.store.query_remove(&cid),
            StandardOperation::RemoveName { name, .. } => self.names.query_remove(&name),
            StandardOperation::Move { source, destination } => {
                self.names.query_rename(&source, &destination)
            }
            // All other operations are idempotent.
            _ => Ok(AttemptStatus::NotDone),
        }
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult> {
        self.audit_operation(request, outcome, attempt)
    }

    fn health(&self) -> std::result::Result<(), Failure> {
        let Err(error) = self.probe() else { return Ok(()) };
        let root = self.directory.root.display();
        let (error_type, hint) = match error.kind() {
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
        let message = format!("the local store is not usable: {error}; {hint}");
        Err(Failure { class: FailureClass::Outage, error_type: error_type.into(), message })
    }
}
