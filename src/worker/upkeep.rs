//! What a drain loop does beside draining: folding, cleaning up, and seeing to it that outcomes have room.

use std::time::Duration;

use super::executor::guarded;
use super::{Tools, Worker};
use crate::backend::{Addressing, Backends, Refusal};
use crate::config::Settings;
use crate::operation::{BackendName, Number, Operation, OperationId, failure};
use crate::wal::{BadPush, CatchUp, Push, Retention, View, WalError, WalResult};

/// How often a loop without room for outcomes folds the journal to get some.
const FOLD_AGAIN: Duration = Duration::from_secs(10);

/// How often a loop looks what is left at backends of operations that others have ended.
pub(super) const LEFTOVERS_AGAIN: Duration = Duration::from_secs(60);

/// Whether outcomes of new claims have room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Free bytes, if they are too few for anything to be claimed.
    pub(super) lacking: Option<u64>,
    folded_at: Option<Duration>,
}

impl Worker<'_, '_, '_> {
    /// Folds and cleans up if that is due. What stands in its way now may not next time; damage stays.
    pub(super) fn maintain(&mut self) -> WalResult<()> {
        match self.tools.wal.maintain().and_then(|_| self.cleanup_if_due()) {
            Err(error @ (WalError::Damaged(_) | WalError::NewerFormat { .. })) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "could not fold the journal; trying again later");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn cleanup_if_due(&mut self) -> WalResult<()> {
        let Some(manifest) = self.view.manifest() else { return Ok(()) };
        let interval =
            i64::try_from(self.tools.settings.cleanup_interval.as_millis()).unwrap_or(i64::MAX);
        let last =
            manifest.last_cleanup.or_else(|| manifest.files.iter().map(|file| file.times.0).min());
        let since = last.map(|last| self.tools.clock.now().millis_since(last));
        // A clock that stands before the last cleanup was set back: from now on, that is what it says.
        if since.is_some_and(|since| {
            since >= interval || (since < 0 && manifest.last_cleanup.is_some())
        }) {
            self.push_archives()?;
            let settings = self.tools.settings;
            let retention = Retention {
                max_age_days: u64::from(settings.max_age_days),
                failed: false,
                keep_unpushed: settings.archive_push.is_some(),
            };
            if self.tools.wal.cleanup_if_free(retention)?.is_some() {
                self.stale |= self.view.catch_up()? == CatchUp::Reloaded;
                self.sweep_backends();
            }
        }
        Ok(())
    }

    /// Logs the pushes of archives, if the settings say where to. Only damage stands in the way of a cleanup.
    fn push_archives(&mut self) -> WalResult<()> {
        let Some(push) = self.push() else { return Ok(()) };
        match self.tools.wal.push_if_free(&push) {
            Ok(report) => self.pushed |= report.is_some_and(|report| report.logged() > 0),
            Err(error @ (WalError::Damaged(_) | WalError::NewerFormat { .. })) => {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(%error, "could not push archives; the next cleanup tries again")
            }
        }
        Ok(())
    }

    fn push(&self) -> Option<Push> {
        let Tools { settings, disk, backends, .. } = &self.tools;
        if settings.archive_push.is_none() || !settings.enabled {
            return None;
        }
        let push = push_to(settings, backends, &disk.identity().host, &PushOptions::default());
        push.map_err(|error| tracing::warn!(%error, "no archive is pushed")).ok()
    }

    /// Whether a cleanup that is due logs pushes, so that a loop which was about to end goes on.
    pub(super) fn has_more_to_push(&mut self) -> WalResult<bool> {
        if self.tools.settings.archive_push.is_none() || self.options.only.is_some() {
            return Ok(false);
        }
        self.pushed = false;
        self.maintain()?;
        Ok(self.pushed)
    }

    /// Has the backends remove local files of operations that nobody will ask about any more. Only
    /// drain loops start attempts, and this is the only one: none begins during the sweep.
    pub(super) fn sweep_backends(&self) {
        let is_needed = |number: Number| {
            self.is_taken(number)
                || match self.view.operation(number) {
                    Ok(operation) => operation.as_ref().is_some_and(may_be_asked_about),
                    // An operation that cannot be read may be one of them.
                    Err(error) => {
                        tracing::debug!(%error, number = number.get(), "files of the operation stay for now");
                        true
                    }
                }
        };
        for (name, backend) in self.tools.backends.instances() {
            if let Err(error) = guarded(name, || backend.sweep(&is_needed)) {
                tracing::warn!(backend = %name, ?error, "could not sweep; the next sweep tries again");
            }
        }
    }

    /// Has the backends give up what is left at them of operations that are over or gone.
    pub(super) fn give_up_leftovers(&mut self) {
        self.leftovers_due = false;
        let now = self.tools.clock.elapsed();
        self.leftovers_at = now;
        let names: Vec<_> = self.tools.backends.names().map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(backend) = self.tools.backends.get(&name) else { continue };
            // One that is away would only be waited for.
            if self.lanes.get(&name).is_some_and(|lane| lane.is_closed(now)) {
                self.leftovers_due |= !backend.orphans().is_empty();
                continue;
            }
            let mut over = backend.orphans();
            over.retain(|(number, id)| {
                !self.is_taken(*number) && is_over(&self.view, *number, *id)
            });
            if !over.is_empty() {
                self.executor.give_up(name, backend.clone(), over);
            }
        }
    }

    /// Whether something may be claimed: its outcome must have room. Folding the journal may make some.
    pub(super) fn may_claim(&mut self) -> WalResult<bool> {
        let wal = self.tools.wal;
        self.room.lacking = wal.lacks_room_for_outcomes()?;
        if self.room.lacking.is_none() {
            return Ok(true);
        }
        let now = self.tools.clock.elapsed();
        if self.room.folded_at.is_none_or(|at| now.saturating_sub(at) >= FOLD_AGAIN) {
            self.room.folded_at = Some(now);
            match wal.checkpoint_if_free() {
                Ok(_) => self.room.lacking = wal.lacks_room_for_outcomes()?,
                Err(error @ (WalError::Damaged(_) | WalError::NewerFormat { .. })) => {
                    return Err(error);
                }
                Err(error) => tracing::warn!(%error, "could not make room by folding the journal"),
            }
        }
        Ok(self.room.lacking.is_none())
    }

    /// Whether the loop ends because nothing may be claimed: one that runs for good waits until there is room.
    pub(super) fn ends_for_room(&self) -> bool {
        self.room.lacking.is_some() && (!self.options.follow || self.options.only.is_some())
    }
}

/// Where archives are to go. What is not said here, the settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Where to, `s3://bucket/prefix` for example.
    pub destination: Option<String>,
    /// Who carries them there.
    pub backend: Option<BackendName>,
    /// What this machine is called there.
    pub host: Option<String>,
}

/// Why no archive can be pushed.
#[derive(Debug, thiserror::Error)]
pub enum NoPush {
    /// It says nowhere to, or to no place for archives.
    #[error(transparent)]
    Bad(#[from] BadPush),
    /// The backend does not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What a push with these options means, if its backend takes it; `own`: what this machine calls itself.
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

/// Whether nobody will carry an operation on. What cannot be read may be.
pub fn is_over(view: &View, number: Number, id: OperationId) -> bool {
    match view.revision_and_status(number, id) {
        Ok(Some((_, status))) => status.is_terminal(),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Returns whether a backend may still be asked about attempts at the operation.
fn may_be_asked_about(operation: &Operation) -> bool {
    let is_in_doubt = |failure: &crate::operation::Failure| failure.error_type == failure::IN_DOUBT;
    !operation.status().is_terminal() || operation.state.failure().is_some_and(is_in_doubt)
}
