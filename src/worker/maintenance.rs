//! The other work of a drain loop: checkpoints, cleanups, pushes of archives, sweeps of backends,
//! and disk space for outcomes.

use std::time::Duration;

use super::executor::catch_panic;
use super::{Environment, Worker};
use crate::backend::{Addressing, Backends, Refusal};
use crate::config::Settings;
use crate::operation::{BackendName, Number, Operation, OperationId, failure};
use crate::wal::{BadPush, CatchUp, Push, Retention, View, WalError, WalResult};

/// The interval at which the log is maintained: a checkpoint is cheaper for many transitions at
/// once.
const INTERVAL: Duration = Duration::from_millis(200);

/// The interval at which a loop that lacks disk space runs a checkpoint to gain some.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// The interval at which backends are searched for orphans that other processes have left.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(60);

/// The disk space for the outcomes of new claims.
#[derive(Debug, Default)]
pub(super) struct DiskSpace {
    /// Free bytes, if they are too few for anything to be claimed.
    pub(super) lacking: Option<u64>,
    checkpointed_at: Option<Duration>,
}

/// The state of the work besides draining.
#[derive(Debug)]
pub(super) struct Maintenance {
    pub(super) space: DiskSpace,
    /// When the log was last maintained, on the monotonic clock.
    maintained_at: Duration,
    /// True if a cleanup has logged pushes of archives.
    has_pushed: bool,
    /// True if an operation has ended without success, and may have left an orphan at its backend.
    pub(super) orphans_due: bool,
    orphans_at: Duration,
}

impl Maintenance {
    pub(super) fn new(now: Duration) -> Maintenance {
        Maintenance {
            space: DiskSpace::default(),
            maintained_at: now,
            has_pushed: false,
            orphans_due: true,
            orphans_at: Duration::ZERO,
        }
    }
}

impl Worker<'_, '_, '_> {
    /// Maintains the log, and has backends abort orphans, if that is due.
    pub(super) fn maintain_if_due(&mut self, now: Duration) -> WalResult<()> {
        if now.saturating_sub(self.maintenance.maintained_at) <= INTERVAL {
            return Ok(());
        }
        self.maintenance.maintained_at = now;
        self.maintain()?;
        if self.maintenance.orphans_due
            || now.saturating_sub(self.maintenance.orphans_at) >= ORPHANS_INTERVAL
        {
            self.abort_orphans();
        }
        Ok(())
    }

    /// Runs a checkpoint and a cleanup if they are due. Fails only for damage; after other errors
    /// the next call tries again.
    pub(super) fn maintain(&mut self) -> WalResult<()> {
        let result = self.env.wal.maintain().and_then(|_| self.cleanup_if_due());
        only_damage(result, "could not maintain the log; trying again later")
    }

    fn cleanup_if_due(&mut self) -> WalResult<()> {
        let Some(manifest) = self.log.view.manifest() else { return Ok(()) };
        let interval =
            i64::try_from(self.env.settings.cleanup_interval.as_millis()).unwrap_or(i64::MAX);
        let last =
            manifest.last_cleanup.or_else(|| manifest.files.iter().map(|file| file.times.0).min());
        let since = last.map(|last| self.env.clock.now().millis_since(last));
        // A last cleanup in the future means that the clock was set back. It is trusted from now
        // on.
        if since.is_some_and(|since| {
            since >= interval || (since < 0 && manifest.last_cleanup.is_some())
        }) {
            self.push_archives()?;
            let settings = self.env.settings;
            let retention = Retention {
                max_age_days: u64::from(settings.max_age_days),
                failed: false,
                keep_unpushed: settings.archive_push.is_some(),
            };
            if self.env.wal.cleanup_if_free(retention)?.is_some() {
                self.log.is_stale |= self.log.view.catch_up()? == CatchUp::Reloaded;
                self.sweep_backends();
            }
        }
        Ok(())
    }

    /// Logs the pushes of archives, if a destination is configured. Only damage prevents the
    /// cleanup.
    fn push_archives(&mut self) -> WalResult<()> {
        let Some(push) = self.configured_push() else { return Ok(()) };
        let result = self.env.wal.push_if_free(&push).map(|report| {
            self.maintenance.has_pushed |= report.is_some_and(|report| report.logged() > 0);
        });
        only_damage(result, "could not push archives; the next cleanup tries again")
    }

    fn configured_push(&self) -> Option<Push> {
        let Environment { settings, disk, backends, .. } = &self.env;
        if settings.archive_push.is_none() || !settings.enabled {
            return None;
        }
        let push = push_to(settings, backends, &disk.identity().host, &PushOptions::default());
        push.map_err(|error| tracing::warn!(%error, "cannot push archives")).ok()
    }

    /// Runs a due cleanup and returns whether it has logged pushes, for which a loop that was about
    /// to end continues.
    pub(super) fn has_more_to_push(&mut self) -> WalResult<bool> {
        if self.env.settings.archive_push.is_none() || self.options.only.is_some() {
            return Ok(false);
        }
        self.maintenance.has_pushed = false;
        self.maintain()?;
        Ok(self.maintenance.has_pushed)
    }

    /// Has the backends remove local files of operations that will not be queried any more. No
    /// attempt begins during the sweep, because only this drain loop starts attempts.
    pub(super) fn sweep_backends(&self) {
        let is_needed = |number: Number| {
            self.is_in_progress(number)
                || match self.log.view.operation(number) {
                    Ok(operation) => operation.as_ref().is_some_and(may_be_queried),
                    // An operation that cannot be read may be one of them.
                    Err(error) => {
                        tracing::debug!(
                            %error,
                            number = number.get(),
                            "files of the operation stay for now"
                        );
                        true
                    }
                }
        };
        for (name, backend) in self.env.backends.instances() {
            if let Err(error) = catch_panic(name, || backend.sweep(&is_needed)) {
                tracing::warn!(
                    backend = %name,
                    ?error,
                    "could not sweep; the next sweep tries again"
                );
            }
        }
    }

    /// Has the backends abort the orphans of operations that have ended or were deleted.
    pub(super) fn abort_orphans(&mut self) {
        self.maintenance.orphans_due = false;
        let now = self.env.clock.elapsed();
        self.maintenance.orphans_at = now;
        let names: Vec<_> = self.env.backends.names().map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(backend) = self.env.backends.get(&name) else { continue };
            // A call to an unreachable backend would only time out.
            if self.lanes.get(&name).is_some_and(|lane| lane.is_pausing(now)) {
                self.maintenance.orphans_due |= !backend.orphans().is_empty();
                continue;
            }
            let mut orphans = backend.orphans();
            orphans.retain(|(number, id)| {
                !self.is_in_progress(*number) && is_over(&self.log.view, *number, *id)
            });
            if !orphans.is_empty() {
                self.executor.abort_orphans(name, backend.clone(), orphans);
            }
        }
    }

    /// Returns whether operations may be claimed: their outcomes must fit on the disk. A checkpoint
    /// may make room.
    pub(super) fn may_claim(&mut self) -> WalResult<bool> {
        let (wal, space) = (self.env.wal, &mut self.maintenance.space);
        space.lacking = wal.lacks_room_for_outcomes()?;
        if space.lacking.is_none() {
            return Ok(true);
        }
        let now = self.env.clock.elapsed();
        if space.checkpointed_at.is_none_or(|at| now.saturating_sub(at) >= CHECKPOINT_INTERVAL) {
            space.checkpointed_at = Some(now);
            match wal.checkpoint_if_free() {
                Ok(_) => space.lacking = wal.lacks_room_for_outcomes()?,
                error => only_damage(error.map(drop), "could not make room by a checkpoint")?,
            }
        }
        Ok(space.lacking.is_none())
    }

    /// Returns whether the loop ends because nothing may be claimed; one that follows the log waits
    /// for disk space instead.
    pub(super) fn ends_for_lack_of_space(&self) -> bool {
        self.maintenance.space.lacking.is_some()
            && (!self.options.follow || self.options.only.is_some())
    }
}

/// Returns errors that mean damage; logs others as warnings.
fn only_damage(result: WalResult<()>, context: &'static str) -> WalResult<()> {
    match result {
        Err(
            error @ (WalError::Damaged(_)
            | WalError::NewerFormat { .. }
            | WalError::NewerFrame { .. }),
        ) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "{context}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The destination of archives. Fields that are not set fall back to the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushOptions {
    /// The destination, such as `s3://bucket/prefix`.
    pub destination: Option<String>,
    /// The backend that uploads them.
    pub backend: Option<BackendName>,
    /// The name of this machine below the destination.
    pub host: Option<String>,
}

impl PushOptions {
    /// Sets the destination, `s3://bucket/prefix` for example.
    #[must_use]
    pub fn with_destination(mut self, destination: Option<String>) -> PushOptions {
        self.destination = destination;
        self
    }

    /// Sets the backend that uploads the archives.
    #[must_use]
    pub fn with_backend(mut self, backend: Option<BackendName>) -> PushOptions {
        self.backend = backend;
        self
    }

    /// Sets the name of this machine below the destination.
    #[must_use]
    pub fn with_host(mut self, host: Option<String>) -> PushOptions {
        self.host = host;
        self
    }
}

/// The reason why archives cannot be pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoPush {
    /// No destination is set, or it is invalid.
    #[error(transparent)]
    Bad(#[from] BadPush),
    /// The backend does not accept the uploads.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Returns the push that these options and the configuration describe; `own` is the name of this
/// machine.
///
/// Fails if there is no destination, or the backend would not accept it.
pub fn push_to(
    settings: &Settings,
    backends: &Backends,
    own: &str,
    options: &PushOptions,
) -> Result<Push, NoPush> {
    let destination = options.destination.as_ref().or(settings.archive_push.as_ref());
    let destination = destination.ok_or(BadPush::NoDestination)?;
    let backend = options.backend.clone().unwrap_or_else(|| settings.archive_backend());
    let host = options.host.as_deref().or(settings.archive_host.as_deref()).unwrap_or(own);
    let addressing = backends.get(&backend).map(|backend| backend.addressing());
    let bad = |why| BadPush::Destination { destination: destination.clone(), why };
    if addressing == Some(Addressing::PathsAndCids) && !destination.starts_with('/') {
        return Err(bad("names on this backend start with `/`").into());
    }
    let push = Push::new(destination, host, backend, settings.max_retries)?;
    backends.check(push.backend(), &Push::operation_type(), &push.sample_parameters())?;
    Ok(push)
}

/// Returns whether an operation has ended or was deleted. One that cannot be read may still be
/// live.
pub fn is_over(view: &View, number: Number, id: OperationId) -> bool {
    match view.revision_and_status(number, id) {
        Ok(Some((_, status))) => status.is_terminal(),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Returns whether a backend may still be queried about attempts at the operation.
fn may_be_queried(operation: &Operation) -> bool {
    let is_in_doubt = |failure: &crate::operation::Failure| failure.error_type == failure::IN_DOUBT;
    !operation.status().is_terminal() || operation.state.failure().is_some_and(is_in_doubt)
}
