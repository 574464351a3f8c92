//! The library's interface: each command of the executable is one or two of these calls.

mod archive;
mod audit;
mod batch;
mod builder;
mod change;
#[cfg(any(feature = "cli", feature = "test-util"))]
mod durability;
mod error;
mod failures;
mod inputs;
mod orphans;
mod plan;
mod query;
mod reopen;
mod spool;
mod status;
mod submit;
mod wait;
mod why;
mod wrap;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use archive::CleanupOptions;
pub use audit::{AuditFinding, AuditOptions, AuditReport, FollowUp, Unverified};
pub use batch::{Batch, DELAY_MAX, NumberOrText, OperationLine, Receipts, SecondsOrText};
pub use builder::ClientBuilder;
pub use change::{Action, Changed, OnInvalid, Skipped};
#[cfg(any(feature = "cli", feature = "test-util"))]
pub use durability::{Check, Durability, Processes};
pub use error::ClientError;
pub use failures::{CauseGroup, Failures};
pub use inputs::{BadInput, BadInputs};
pub use orphans::{KeptOrphan, OrphanedUploads};
pub use plan::Plan;
pub use query::{Filter, Page, Reference};
pub use status::{FileCounts, LogStatus, OldestPending, StatusCounts};
pub use submit::{AddOptions, Receipt};
pub use why::{Reason, Why};

use crate::backend::Backends;
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::Disk;
use crate::health::HealthStore;
pub use crate::health::{BackendHealth, HealthStatus, StatusChange};
use crate::operation::BackendName;
pub use crate::wal::{
    Archive, BadPush, CheckpointReport, CleanupPlan, Damage, DrainLoop, Finding, FindingKind,
    HolderNote, Loss, Push, PushReport, PushState, PushedArchive, Repaired, Verified,
};
use crate::wal::{CheckpointDue, HeldLock, Layout, Options, View, Wal, WalError, WalResult};
use crate::worker::Environment;
pub use crate::worker::progress::Progress;
pub use crate::worker::{NoObserver, Observer, ProcessOptions, ProcessReport, PushOptions, Stop};

/// Views that are reopened because files vanished while they were read, before the error is reported.
const RELOADS_MAX: usize = 20;

/// A log and the backends that its operations run on.
///
/// Built by [`Client::builder`]. Building touches no file: the first write creates the log, and reading a log that
/// does not exist shows an empty one. A client can be shared between threads, and any number of processes can use one
/// log at the same time.
#[derive(Debug)]
pub struct Client {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) layout: Layout,
    pub(crate) backends: Backends,
    program: String,
    wal: OnceLock<Wal>,
    opening: Mutex<()>,
    view: Mutex<Option<View>>,
}

impl Client {
    /// Returns a builder for a client of the log in `settings.base_path`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use wal_cli::{Client, Settings};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let client = Client::builder(Settings::at(directory.path().join("wal")))
    ///     .program("photo-sync")
    ///     .build();
    /// assert!(!client.exists()?, "nothing has been logged yet");
    /// # Ok(()) }
    /// ```
    pub fn builder(settings: Settings) -> ClientBuilder {
        ClientBuilder::new(settings)
    }

    /// Returns the settings that this client was built with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the configured and registered backends.
    #[cfg(feature = "cli")]
    pub(crate) fn backends(&self) -> &Backends {
        &self.backends
    }

    /// Returns the clock.
    #[cfg(feature = "cli")]
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns the log, opened for writing; creates it if it does not exist.
    pub(crate) fn wal(&self) -> Result<&Wal, ClientError> {
        if let Some(wal) = self.wal.get() {
            return Ok(wal);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wal) = self.wal.get() {
            return Ok(wal);
        }
        let wal =
            Wal::open(self.disk.clone(), self.clock.clone(), self.layout.clone(), self.options())?;
        Ok(self.wal.get_or_init(|| wal))
    }

    /// Returns the log itself, for tests of what is below the client.
    #[cfg(feature = "test-util")]
    pub fn log(&self) -> Result<&Wal, ClientError> {
        self.wal()
    }

    fn options(&self) -> Options {
        Options {
            partition_size: self.settings.partition_size,
            archive_completed: self.settings.archive_completed,
            lock_timeout: self.settings.lock_timeout,
            min_free_bytes: self.settings.min_free_bytes,
            command: self.program.clone(),
            ..Options::default()
        }
    }

    /// Calls `read` with an up-to-date view of the log, or of an empty one if there is no log.
    ///
    /// Calls it again if files that the view names were replaced by a checkpoint meanwhile.
    pub(crate) fn with_view<T>(
        &self,
        mut read: impl FnMut(&View) -> WalResult<T>,
    ) -> Result<T, ClientError> {
        let mut slot = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let view = match slot.as_mut() {
            Some(view) => {
                view.catch_up()?;
                view
            }
            None => slot.insert(View::open(self.disk.clone(), self.layout.clone())?),
        };
        for _ in 0..RELOADS_MAX {
            match read(view) {
                Err(error) if error.is_vanished() => view.reload()?,
                other => return Ok(other?),
            }
        }
        Ok(read(view)?)
    }

    /// Returns `true` if the log exists.
    pub fn exists(&self) -> Result<bool, ClientError> {
        self.with_view(|view| Ok(view.exists()))
    }

    /// Runs a drain loop: claims operations that are due, executes them on their backends and records how each
    /// attempt ended, until nothing is due or `stop` is requested.
    ///
    /// A claim is durable before the backend is called, and an outcome before `observer` sees it.
    ///
    /// # Errors
    ///
    /// [`WalError::Busy`] if another drain loop runs on this log. Failures of operations are no errors: they are
    /// counted in the report.
    pub fn process(
        &self,
        options: &ProcessOptions,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<ProcessReport, ClientError> {
        let wal = self.wal()?;
        let lock = self.lock_loop(wal, options)?;
        let environment = Environment {
            disk: &self.disk,
            clock: &self.clock,
            settings: &self.settings,
            backends: &self.backends,
            wal,
        };
        Ok(crate::worker::run(environment, options, stop, observer, lock)?)
    }

    /// Takes the lock of the drain loop.
    ///
    /// Another loop keeps it for long, so this gives up soon; a process that holds it for moments, such as an `add`
    /// that waits, is worth the configured lock timeout.
    fn lock_loop(&self, wal: &Wal, options: &ProcessOptions) -> Result<HeldLock, ClientError> {
        let start = self.clock.elapsed();
        loop {
            let busy = match wal.lock_process(options.lock_timeout, options.drain_loop()) {
                Err(busy @ WalError::Busy { .. }) => busy,
                other => return Ok(other?),
            };
            let keeps_trying = options.only.is_none()
                && self.clock.elapsed().saturating_sub(start) < self.settings.lock_timeout
                && self.running_loop()?.is_none_or(|holder| holder.work.is_none());
            if !keeps_trying {
                return Err(busy.into());
            }
        }
    }

    /// Runs a checkpoint if one is due and no drain loop runs that would do it.
    pub fn maintain(&self) -> Result<Option<CheckpointReport>, ClientError> {
        let wal = self.wal()?;
        if wal.checkpoint_due() == CheckpointDue::No || self.running_loop()?.is_some() {
            return Ok(None);
        }
        Ok(wal.maintain()?)
    }

    /// Folds the journal into Parquet files.
    pub fn checkpoint(&self) -> Result<CheckpointReport, ClientError> {
        Ok(self.wal()?.checkpoint()?)
    }

    /// Checks every byte and every cross-reference of the log without changing it.
    ///
    /// `progress` receives the bytes checked so far and the bytes in all, from several threads. Damage is part of the
    /// result; an error means that the check itself could not run.
    pub fn verify(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, ClientError> {
        Ok(crate::wal::verify(&self.disk, &self.layout, progress)?)
    }

    /// Rebuilds a damaged log from every record that can still be read, and reports what is lost.
    ///
    /// A valid log stays as it is.
    pub fn repair(&self) -> Result<Repaired, ClientError> {
        Ok(crate::wal::repair(&self.disk, &*self.clock, &self.layout, &self.options())?)
    }

    /// Decodes all Parquet files of the log and discards the rows: the baseline of the benchmark of `verify`.
    #[cfg(feature = "cli")]
    pub(crate) fn decode_files(&self) -> Result<u64, ClientError> {
        Ok(crate::wal::decode_files(&self.disk, &self.layout)?)
    }

    /// Probes one backend, or all that this build can execute operations on, and returns their health.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if `only` names an unknown backend.
    pub fn backend_health(
        &self,
        only: Option<&BackendName>,
    ) -> Result<Vec<BackendHealth>, ClientError> {
        if let Some(name) = only
            && !self.backends.names().any(|(known, _)| known == name)
        {
            return Err(self.backends.unknown(name).into());
        }
        Ok(crate::health::probe(self.health_store(), &self.backends, &*self.clock, only))
    }

    /// Returns the last known health of the configured backends without probing them.
    pub fn known_health(&self) -> Vec<BackendHealth> {
        let mut known = crate::health::known(self.health_store());
        known.retain(|health| self.backends.names().any(|(name, _)| *name == health.backend));
        known
    }

    pub(crate) fn health_store(&self) -> HealthStore<'_> {
        HealthStore {
            disk: &*self.disk,
            layout: &self.layout,
            history_size: self.settings.health_history_size,
        }
    }
}
