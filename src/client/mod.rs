//! The library's face: what the commands do, as functions.

mod archive;
mod audit;
mod batch;
mod change;
mod durability;
mod error;
mod failures;
mod leftovers;
mod plan;
mod query;
mod reopen;
mod spool;
mod submit;
mod wait;
mod why;

use std::sync::{Arc, Mutex, OnceLock};

pub use audit::{AuditFinding, AuditOptions, AuditReport, Followed, Unasked};
pub use batch::{
    BadInputs, Batch, DELAY_MAX, NumberOrText, OperationLine, Receipts, SecondsOrText,
};
pub use change::{Action, Changed, Skipped};
pub use durability::{Check, Durability, Processes, Tried};
pub use error::{BadInput, ClientError};
pub use failures::CauseGroup;
pub use leftovers::Leftovers;
pub use plan::Plan;
pub use query::{Filter, Page, Reference, Stats, StatusCounts};
pub use submit::{AddOptions, Receipt};
pub use why::{Reason, Why};

use crate::backend::{Backend, Backends};
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::disk::{Disk, OsDisk};
use crate::health::Records;
pub use crate::health::{BackendHealth, HealthStatus, StatusChange};
use crate::operation::BackendName;
pub use crate::wal::{
    Archive, BadPush, CheckpointReport, CleanupPlan, Damage, Finding, FindingKind, HolderNote,
    Loss, Push, PushReport, PushedArchive, Repaired, Standing, Verified,
};
use crate::wal::{HeldLock, Layout, Options, Retention, View, Wal, WalError};
use crate::worker::Tools;
pub use crate::worker::progress::Progress;
pub use crate::worker::{Observer, ProcessOptions, ProcessReport, PushOptions, Silent, Stop};

/// A log and its backends.
///
/// Opening touches nothing: a log is made by the first write, and reading one that is not there shows it empty.
/// Threads may share a client.
#[derive(Debug)]
pub struct Client {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) layout: Layout,
    pub(crate) backends: Backends,
    command: String,
    wal: OnceLock<Wal>,
    opening: Mutex<()>,
    view: Mutex<Option<View>>,
}

impl Client {
    /// A client on this machine's disk; `command` names the program in histories and lock notes.
    pub fn open(settings: Settings, command: &str) -> Client {
        Client::with(Arc::new(OsDisk::new()), Arc::new(SystemClock::new()), settings, command)
    }

    /// The same on any disk and with any clock.
    pub fn with(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        command: &str,
    ) -> Client {
        let backends = Backends::new(&settings, &disk, &clock);
        Client {
            layout: Layout::new(&settings.base_path),
            disk,
            clock,
            settings,
            backends,
            command: command.to_owned(),
            wal: OnceLock::new(),
            opening: Mutex::new(()),
            view: Mutex::new(None),
        }
    }

    /// Adds a backend of the caller's own; it takes operations of any type.
    pub fn register(&mut self, name: BackendName, backend: Arc<dyn Backend>) {
        self.backends.register(name, backend);
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The backends.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The log, opened for writing; made if there is none.
    pub fn wal(&self) -> Result<&Wal, ClientError> {
        if let Some(wal) = self.wal.get() {
            return Ok(wal);
        }
        let _opening = self.opening.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(wal) = self.wal.get() {
            return Ok(wal);
        }
        let wal =
            Wal::open(self.disk.clone(), self.clock.clone(), self.layout.clone(), self.options())?;
        Ok(self.wal.get_or_init(|| wal))
    }

    fn options(&self) -> Options {
        Options {
            partition_size: self.settings.partition_size,
            archive_completed: self.settings.archive_completed,
            lock_timeout: self.settings.lock_timeout,
            min_free_bytes: self.settings.min_free_bytes,
            command: self.command.clone(),
            ..Options::default()
        }
    }

    /// Whether there is a log.
    pub fn exists(&self) -> Result<bool, ClientError> {
        self.look(|view| Ok(view.exists()))
    }

    /// Carries out what is due: see [`crate::worker`].
    pub fn process(
        &self,
        options: &ProcessOptions,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<ProcessReport, ClientError> {
        let wal = self.wal()?;
        let lock = self.lock_loop(wal, options)?;
        let tools = Tools {
            disk: &self.disk,
            clock: &self.clock,
            settings: &self.settings,
            backends: &self.backends,
            wal,
        };
        Ok(crate::worker::run(tools, options, stop, observer, lock)?)
    }

    /// The lock of the drain loop. Another loop keeps it for long, so we give up soon; whoever holds it for
    /// moments, such as an `add` that waits, is worth the usual patience.
    fn lock_loop(&self, wal: &Wal, options: &ProcessOptions) -> Result<HeldLock, ClientError> {
        let start = self.clock.elapsed();
        loop {
            let busy = match wal.lock_process(options.lock_timeout) {
                Err(busy @ WalError::Busy { .. }) => busy,
                other => return Ok(other?),
            };
            let patient = options.only.is_none()
                && self.clock.elapsed().saturating_sub(start) < self.settings.lock_timeout
                && self
                    .processing_active()?
                    .is_none_or(|holder| !holder.command.starts_with("process"));
            if !patient {
                return Err(busy.into());
            }
        }
    }

    /// Runs a checkpoint if one is due and no drain loop is there to run it.
    pub fn maintain(&self) -> Result<Option<CheckpointReport>, ClientError> {
        let wal = self.wal()?;
        if !wal.checkpoint_due().0 || self.processing_active()?.is_some() {
            return Ok(None);
        }
        Ok(wal.maintain()?)
    }

    /// Folds the journal into Parquet files.
    pub fn checkpoint(&self) -> Result<CheckpointReport, ClientError> {
        Ok(self.wal()?.checkpoint()?)
    }

    /// Checks every byte and every cross-reference of the log, changing nothing; `progress` is told how many bytes of how
    /// many files have been checked, from several threads.
    pub fn verify(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, ClientError> {
        Ok(crate::wal::verify(&self.disk, &self.layout, progress)?)
    }

    /// Saves every record that can be read of a damaged log, and says what is lost; a sound log is left as it is.
    pub fn repair(&self) -> Result<Repaired, ClientError> {
        Ok(crate::wal::repair(&self.disk, &*self.clock, &self.layout, &self.options())?)
    }

    /// Decodes all Parquet files of the log and does nothing with them: what checking them is measured against.
    pub fn decode_files(&self) -> Result<u64, ClientError> {
        Ok(crate::wal::decode_files(&self.disk, &self.layout)?)
    }

    /// Probes backends (none named: all that this program can carry operations out on) and tells their health.
    pub fn backend_health(
        &self,
        only: Option<&BackendName>,
    ) -> Result<Vec<BackendHealth>, ClientError> {
        if let Some(name) = only
            && !self.backends.names().any(|(known, _)| known == name)
        {
            return Err(self.backends.unknown(name).into());
        }
        Ok(crate::health::probe(self.records(), &self.backends, &*self.clock, only))
    }

    /// What is known of the backends that are configured, without asking them.
    pub fn known_health(&self) -> Vec<BackendHealth> {
        let mut known = crate::health::known(self.records());
        known.retain(|health| self.backends.names().any(|(name, _)| *name == health.backend));
        known
    }

    pub(crate) fn records(&self) -> Records<'_> {
        Records {
            disk: &*self.disk,
            layout: &self.layout,
            history_size: self.settings.health_history_size,
        }
    }
}
