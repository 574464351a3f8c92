//! Archives and retention: the state of each archive, pushes to a backend, and pruning.

use super::Client;
use super::error::ClientError;
use crate::wal::{ARCHIVE_PARTITIONS, Archive, CleanupPlan, Push, PushReport, Retention};
use crate::worker::{PushOptions, push_to};

/// The scope of a cleanup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupOptions {
    /// Age in days from which operations are pruned; `None` takes the setting `max_age_days`.
    pub max_age_days: Option<u64>,
    /// Prune failed operations, too, not only completed ones.
    pub include_failed: bool,
    /// Prune nothing, and only return the plan.
    pub dry_run: bool,
}

impl CleanupOptions {
    /// Sets the age in days from which operations are pruned.
    #[must_use]
    pub fn with_max_age_days(mut self, days: Option<u64>) -> CleanupOptions {
        self.max_age_days = days;
        self
    }

    /// Sets whether failed operations are pruned, too.
    #[must_use]
    pub fn with_failed(mut self, include: bool) -> CleanupOptions {
        self.include_failed = include;
        self
    }

    /// Sets whether the cleanup is a rehearsal.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> CleanupOptions {
        self.dry_run = dry_run;
        self
    }
}

impl Client {
    /// Resolves the options of a push with the settings.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadPush`] or [`ClientError::Refused`] if no destination is set or its backend
    /// does not take archives.
    pub fn push_to(&self, options: &PushOptions) -> Result<Push, ClientError> {
        Ok(push_to(&self.settings, &self.backends, &self.disk.identity().host, options)?)
    }

    /// Logs one upload for each archive of a past day that has not been pushed yet.
    pub fn push_archives(&self, push: &Push) -> Result<PushReport, ClientError> {
        if !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        Ok(self.wal()?.push(push)?)
    }

    /// Returns the report that [`Client::push_archives`] would return, and logs nothing.
    pub fn plan_push(&self, push: &Push) -> Result<PushReport, ClientError> {
        let rows = (self.settings.partition_size * ARCHIVE_PARTITIONS) as u64;
        self.with_view(|view| view.plan_push(push, self.clock.now(), rows))
    }

    /// Runs the push that precedes a cleanup; returns `None` if no destination is set or logging is
    /// switched off.
    pub fn push_before_cleanup(&self) -> Result<Option<PushReport>, ClientError> {
        if self.settings.archive_push.is_none() || !self.settings.enabled {
            return Ok(None);
        }
        self.push_archives(&self.push_to(&PushOptions::default())?).map(Some)
    }

    /// Returns all archives of the log, each with the state of its push.
    pub fn archives(&self) -> Result<Vec<Archive>, ClientError> {
        self.with_view(|view| view.archives(self.clock.now(), None))
    }

    /// Prunes completed operations older than the retention, and failed ones if the options include
    /// them.
    ///
    /// Archives that have to be pushed are kept until they are; this call pushes none itself. No
    /// reading of the clock is trusted alone: pruned operations were already old enough at the
    /// previous cleanup.
    pub fn cleanup(&self, options: &CleanupOptions) -> Result<CleanupPlan, ClientError> {
        let max_age_days =
            options.max_age_days.unwrap_or_else(|| u64::from(self.settings.max_age_days));
        let keep_unpushed = self.settings.archive_push.is_some();
        if options.dry_run
            && let Some(mut plan) =
                self.with_view(|view| Ok(view.plan_of_originals(max_age_days, self.clock.now())))?
        {
            if keep_unpushed {
                plan.unpushed = std::mem::take(&mut plan.operations);
            }
            return Ok(plan);
        }
        let retention = Retention { max_age_days, failed: options.include_failed, keep_unpushed };
        Ok(self.wal()?.cleanup(retention, options.dry_run)?)
    }
}
