//! What a drain loop does beside draining: folding, cleaning up, and seeing to it that outcomes have room.

use std::time::Duration;

use super::Worker;
use crate::wal::{Retention, WalError, WalResult};

/// How often a loop without room for outcomes folds the journal to get some.
const FOLD_AGAIN: Duration = Duration::from_secs(10);

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

    fn cleanup_if_due(&self) -> WalResult<()> {
        let Some(manifest) = self.view.manifest() else { return Ok(()) };
        let interval = i64::try_from(self.tools.settings.cleanup_interval.as_millis()).unwrap_or(i64::MAX);
        let last = manifest.last_cleanup.or_else(|| manifest.files.iter().map(|file| file.times.0).min());
        let since = last.map(|last| self.tools.clock.now().millis_since(last));
        // A clock that stands before the last cleanup was set back: from now on, that is what it says.
        if since.is_some_and(|since| since >= interval || (since < 0 && manifest.last_cleanup.is_some())) {
            let max_age_days = u64::from(self.tools.settings.max_age_days);
            self.tools.wal.cleanup_if_free(Retention { max_age_days, failed: false })?;
        }
        Ok(())
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
                Err(error @ (WalError::Damaged(_) | WalError::NewerFormat { .. })) => return Err(error),
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
