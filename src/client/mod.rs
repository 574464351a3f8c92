//! The library's interface: each command of the executable is one or two of these calls.

mod action;
mod archive;
mod audit;
mod batch;
mod builder;
mod change;
#[cfg(feature = "cli")]
mod durability;
mod error;
mod failures;
mod inputs;
mod orphans;
mod plan;
mod query;
mod reference;
mod spool;
mod status;
mod submit;
mod successor;
mod wait;
mod why;
mod wrap;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use action::{Action, Changed, OnInvalid, Skipped};
pub use archive::CleanupOptions;
pub use audit::{AuditFinding, AuditOptions, AuditReport, FollowUp, Unverified};
pub use batch::{Batch, DELAY_MAX, NumberOrText, OperationLine, Receipts, SecondsOrText};
pub use builder::ClientBuilder;
#[cfg(feature = "cli")]
pub use durability::{Check, Durability, Processes};
pub use error::ClientError;
pub use failures::{CauseGroup, Failures};
pub use inputs::{BadInput, BadInputs};
pub use orphans::{KeptOrphan, OrphanedUploads};
pub use plan::Plan;
pub use query::{Filter, Page};
pub use reference::Reference;
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
    Archive, BadPush, ByteRange, CheckpointReport, CleanupPlan, Damage, DrainLoop, Finding,
    FindingKind, HolderNote, Loss, NumberSet, PrunedArchive, Push, PushOperation, PushReport,
    PushState, PushedArchive, Repaired, Verified,
};
use crate::wal::{CheckpointDue, HeldLock, Layout, Options, View, Wal, WalError, WalResult};
use crate::worker::Environment;
pub use crate::worker::progress::Progress;
pub use crate::worker::{NoObserver, Observer, ProcessOptions, ProcessReport, PushOptions, Stop};

/// The number of times that a view is reopened because files vanished while it was read, before the
/// error is returned.
const RELOADS_MAX: usize = 20;

/// A log and the backends that its operations run on.
///
/// Built by [`Client::builder`]. Building touches no file: the first write creates the log, and a
/// log that does not exist reads as an empty one. A client can be shared between threads, and any
/// number of processes can use one log at the same time.
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
        self.check_exists()?;
        let wal =
            Wal::open(self.disk.clone(), self.clock.clone(), self.layout.clone(), self.options())?;
        Ok(self.wal.get_or_init(|| wal))
    }

    /// Fails if there is no log, and the settings require one.
    ///
    /// # Errors
    ///
    /// [`crate::DiskError`] if that cannot be determined.
    pub fn check_exists(&self) -> Result<(), ClientError> {
        if self.settings.must_exist && !self.with_view(|view| Ok(view.exists()))? {
            let path = self.layout.base().to_owned();
            return Err(WalError::NoLog { path }.into());
        }
        Ok(())
    }

    /// Returns true if there was no log, and this client has created one.
    pub fn has_created_log(&self) -> bool {
        self.wal.get().is_some_and(Wal::has_created)
    }

    /// Returns the log itself, for tests below the level of the client.
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

    /// Calls `read` with an up-to-date view of the log, which is empty if there is no log.
    ///
    /// Calls it again if a checkpoint has replaced files of the view meanwhile.
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

    /// Runs a drain loop: claims operations that are due, executes them on their backends and
    /// records the outcome of each attempt, until nothing is due or `stop` is requested.
    ///
    /// A claim is durable before the backend is called, and an outcome before `observer` receives
    /// it.
    ///
    /// # Errors
    ///
    /// [`WalError::Busy`] if another drain loop runs on this log. Failures of operations are
    /// counted in the report; they are not errors of this call.
    pub fn process(
        &self,
        options: &ProcessOptions,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<ProcessReport, ClientError> {
        let wal = self.wal()?;
        let lock = lock_loop(self, wal, options)?;
        let environment = Environment {
            disk: &self.disk,
            clock: &self.clock,
            settings: &self.settings,
            backends: &self.backends,
            wal,
        };
        Ok(crate::worker::run(environment, options, stop, observer, lock)?)
    }

    /// Runs a checkpoint if one is due, unless a running drain loop will do so.
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
    /// `progress` receives the bytes checked so far and the total, from several threads. Damage is
    /// part of the result; an error means that the check itself could not run.
    pub fn verify(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, ClientError> {
        Ok(crate::wal::verify(&self.disk, &self.layout, progress)?)
    }

    /// Rebuilds a damaged log from all records that can still be read, and reports the losses.
    ///
    /// A valid log stays unchanged.
    pub fn repair(&self) -> Result<Repaired, ClientError> {
        Ok(crate::wal::repair(&self.disk, &*self.clock, &self.layout, &self.options())?)
    }

    /// Decodes all Parquet files and discards the rows: the baseline of the benchmark of `verify`.
    #[cfg(feature = "cli")]
    pub(crate) fn decode_files(&self) -> Result<u64, ClientError> {
        Ok(crate::wal::decode_files(&self.disk, &self.layout)?)
    }

    /// Probes one backend, or all that this build supports, and returns their health.
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
        Ok(crate::health::probe(health_store(self), &self.backends, &*self.clock, only))
    }

    /// Returns the last known health of the configured backends without probing them.
    pub fn known_health(&self) -> Vec<BackendHealth> {
        let mut known = crate::health::known(health_store(self));
        known.retain(|health| self.backends.names().any(|(name, _)| *name == health.backend));
        known
    }
}

/// Takes the lock of the drain loop.
///
/// Another loop holds it for long, so this soon gives up. Another process, such as an `add` that
/// waits, holds it briefly, and is waited for up to the configured lock timeout.
fn lock_loop(
    client: &Client,
    wal: &Wal,
    options: &ProcessOptions,
) -> Result<HeldLock, ClientError> {
    let start = client.clock.elapsed();
    loop {
        let busy = match wal.lock_process(options.lock_timeout, options.drain_loop()) {
            Err(busy @ WalError::Busy { .. }) => busy,
            other => return Ok(other?),
        };
        let retries = options.only.is_none()
            && client.clock.elapsed().saturating_sub(start) < client.settings.lock_timeout
            && client.running_loop()?.is_none_or(|holder| holder.work.is_none());
        if !retries {
            return Err(busy.into());
        }
    }
}

fn health_store(client: &Client) -> HealthStore<'_> {
    HealthStore {
        disk: &*client.disk,
        layout: &client.layout,
        history_size: client.settings.health_history_size,
    }
}
