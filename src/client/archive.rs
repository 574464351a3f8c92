//! Archives: where each stands, and pushing those of days that are over.

use super::error::ClientError;
use super::{Client, Retention};
use crate::wal::{ARCHIVE_PARTITIONS, Archive, CleanupPlan, Push, PushReport};
use crate::worker::{PushOptions, push_to};

impl Client {
    /// What a push with these options means, if its backend takes it.
    pub fn push_to(&self, options: &PushOptions) -> Result<Push, ClientError> {
        Ok(push_to(&self.settings, &self.backends, &self.disk.identity().host, options)?)
    }

    /// Logs an operation for each archive of a day that is over and that is not pushed yet, or only tells which.
    pub fn push_archives(&self, push: &Push, dry_run: bool) -> Result<PushReport, ClientError> {
        if dry_run {
            let rows = (self.settings.partition_size * ARCHIVE_PARTITIONS) as u64;
            return self.look(|view| view.plan_push(push, self.clock.now(), rows));
        }
        if !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        Ok(self.wal()?.push(push)?)
    }

    /// The push that goes before a cleanup: none if the settings name no destination, or nothing may be logged.
    pub fn push_before_cleanup(&self) -> Result<Option<PushReport>, ClientError> {
        if self.settings.archive_push.is_none() || !self.settings.enabled {
            return Ok(None);
        }
        self.push_archives(&self.push_to(&PushOptions::default())?, false).map(Some)
    }

    /// All archives of the log, and where they stand.
    pub fn archives(&self) -> Result<Vec<Archive>, ClientError> {
        self.look(|view| view.archives(self.clock.now(), None))
    }

    /// Drops completed operations older than the configured, or the given, number of days; failed ones only if
    /// that is asked for. Archives that are to be pushed stay until they are; this pushes none itself.
    pub fn cleanup(
        &self,
        max_age_days: Option<u64>,
        failed: bool,
        dry_run: bool,
    ) -> Result<CleanupPlan, ClientError> {
        let max_age_days = max_age_days.unwrap_or_else(|| u64::from(self.settings.max_age_days));
        let keep_unpushed = self.settings.archive_push.is_some();
        if dry_run
            && let Some(mut plan) =
                self.look(|view| Ok(view.plan_of_originals(max_age_days, self.clock.now())))?
        {
            if keep_unpushed {
                plan.unpushed = std::mem::take(&mut plan.operations);
            }
            return Ok(plan);
        }
        Ok(self.wal()?.cleanup(Retention { max_age_days, failed, keep_unpushed }, dry_run)?)
    }
}
