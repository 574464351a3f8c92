//! The state of a log as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::Client;
use super::error::ClientError;
use crate::operation::{BackendName, Number, Status, Time};
use crate::wal::{Damage, HolderNote, Order, WalError};

/// Numbers of operations by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusCounts {
    /// Logged, not yet claimed.
    pub pending: u64,
    /// Claimed by a drain loop.
    pub processing: u64,
    /// Completed, archived ones included.
    pub completed: u64,
    /// Failed, cancelled ones included.
    pub failed: u64,
    /// Waiting for the next attempt.
    pub retrying: u64,
}

impl StatusCounts {
    /// Returns the number of operations of one status.
    pub fn of(&self, status: Status) -> u64 {
        match status {
            Status::Pending => self.pending,
            Status::Processing => self.processing,
            Status::Completed => self.completed,
            Status::Failed => self.failed,
            Status::Retrying => self.retrying,
        }
    }

    fn add(&mut self, status: Status, n: u64) {
        *match status {
            Status::Pending => &mut self.pending,
            Status::Processing => &mut self.processing,
            Status::Completed => &mut self.completed,
            Status::Failed => &mut self.failed,
            Status::Retrying => &mut self.retrying,
        } += n;
    }

    /// Returns the number of all operations.
    pub fn total(&self) -> u64 {
        Status::ALL.into_iter().map(|status| self.of(status)).sum()
    }
}

/// The pending operation that was logged first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldestPending {
    /// Number of the operation.
    pub number: Number,
    /// The time at which it was logged.
    pub logged_at: Time,
}

/// Numbers of Parquet files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileCounts {
    /// Partitions: files of live operations.
    pub partitions: u64,
    /// Archives: files of completed operations of one day.
    pub archives: u64,
}

/// The state of a log and its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStatus {
    /// Operations by status.
    pub counts: StatusCounts,
    /// Completed operations that are archived.
    pub archived: u64,
    /// Operations by backend and status.
    pub backends: BTreeMap<BackendName, StatusCounts>,
    /// The pending operation that was logged first.
    pub oldest_pending: Option<OldestPending>,
    /// The process that drains the log, if there is one.
    pub processing: Option<HolderNote>,
    /// Bytes of the journal that have not been folded into Parquet files.
    pub journal_bytes: u64,
    /// Parquet files.
    pub files: FileCounts,
    /// Free bytes of the disk that holds the log; `None` if the system does not report them.
    pub free_bytes: Option<u64>,
    /// Last known health of the backends.
    pub health: Vec<crate::health::BackendHealth>,
    /// Backends in use: see [`Client::used_backends`].
    pub used: BTreeSet<BackendName>,
    /// The first damage that keeps the log from being read in full.
    pub damage: Option<Damage>,
    /// Rows of adopted `ipfs_kit_py` files that could not be read; those files were set aside.
    pub unread: Vec<Damage>,
}

impl Client {
    /// Returns the state of the log: counts, the oldest pending operation, the drain loop, free
    /// space and damage.
    pub fn status(&self) -> Result<LogStatus, ClientError> {
        let processing = self.running_loop()?;
        let free_bytes = self.disk.free_bytes(self.layout.base()).ok();
        self.with_view(|view| {
            let mut counts = StatusCounts::default();
            let mut backends: BTreeMap<BackendName, StatusCounts> = BTreeMap::new();
            for ((status, backend, _), n) in view.counts() {
                counts.add(status, n);
                backends.entry(backend).or_default().add(status, n);
            }
            let mut oldest_pending = None;
            // Damage in one file must not hide the counts, which are read from no file.
            let visited = view.visit(
                Order::OldestFirst,
                |file| counts.pending > 0 && file.count_of(Status::Pending) > 0,
                |summary| summary.status == Status::Pending,
                |operation| {
                    if operation.status() == Status::Pending {
                        oldest_pending = Some(OldestPending {
                            number: operation.number,
                            logged_at: operation.logged_at,
                        });
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                },
            );
            let damage = match (view.damage(), visited) {
                (Some(damage), _) => Some(damage.clone()),
                (None, Err(WalError::Damaged(damage))) => Some(damage),
                (None, Err(error)) => return Err(error),
                (None, Ok(())) => None,
            };
            let (partitions, archives) = view.file_counts();
            Ok(LogStatus {
                used: used(self, &backends),
                counts,
                archived: view.archived(),
                backends,
                oldest_pending,
                processing: processing.clone(),
                journal_bytes: view.journal_load().0,
                files: FileCounts { partitions, archives },
                free_bytes,
                health: self.known_health(),
                damage,
                unread: view.unread()?,
            })
        })
    }

    /// Returns the backends in use: the default one, those with settings of their own, and those of
    /// logged operations.
    ///
    /// The other predeclared backends exist only because each type has one.
    pub fn used_backends(&self) -> Result<BTreeSet<BackendName>, ClientError> {
        self.with_view(|view| {
            let logged = view.counts().into_iter().map(|((_, backend, _), n)| (backend, n));
            Ok(used(self, &logged.collect()))
        })
    }
}

fn used<N>(client: &Client, logged: &BTreeMap<BackendName, N>) -> BTreeSet<BackendName> {
    let is_used = |name: &BackendName| {
        *name == client.settings.default_backend
            || logged.contains_key(name)
            || client
                .settings
                .backends
                .get(name)
                .is_none_or(|settings| !settings.is_untouched(name))
    };
    client.backends.names().map(|(name, _)| name).filter(|name| is_used(name)).cloned().collect()
}
