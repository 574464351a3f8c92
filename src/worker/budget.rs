use std::time::Duration;

use super::ProcessOptions;

/// The operations that a loop may still start, limited by number and by time.
#[derive(Debug)]
pub(super) struct Budget {
    /// When the loop started, on the monotonic clock.
    started: Duration,
    limit: Option<u64>,
    /// Operations claimed so far.
    pub(super) claimed: u64,
    /// The time after the start during which operations may begin.
    start_within: Option<Duration>,
    /// The time after the start at which running operations are asked to stop.
    deadline: Option<Duration>,
}

impl Budget {
    pub(super) fn new(options: &ProcessOptions, started: Duration) -> Budget {
        let start_within = [options.max_time, options.deadline].into_iter().flatten().min();
        let (limit, deadline) = (options.limit, options.deadline);
        Budget { started, limit, claimed: 0, start_within, deadline }
    }

    /// Returns how many more operations may be claimed, if their number is limited.
    pub(super) fn left(&self) -> Option<usize> {
        let left = self.limit?.saturating_sub(self.claimed);
        Some(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Returns whether it is too late to start anything.
    pub(super) fn is_out_of_time(&self, now: Duration) -> bool {
        self.start_within.is_some_and(|most| now.saturating_sub(self.started) >= most)
    }

    /// Returns whether running operations have to stop.
    pub(super) fn is_past_deadline(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|most| now.saturating_sub(self.started) >= most)
    }

    /// Returns whether nothing more may be claimed.
    pub(super) fn is_spent(&self, now: Duration) -> bool {
        self.left() == Some(0) || self.is_out_of_time(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_budget_is_spent_by_claims_or_by_time() {
        let with = |limit, max_time: Option<u32>, deadline: Option<u32>| ProcessOptions {
            limit,
            max_time: max_time.map(|seconds| SECOND * seconds),
            deadline: deadline.map(|seconds| SECOND * seconds),
            ..ProcessOptions::default()
        };
        // Limit, --max-time and deadline, claims, seconds since the start: spent, past the
        // deadline.
        for (limit, max_time, deadline, claimed, seconds, expected) in [
            (None, None, None, 1000, 1000, (false, false)),
            (Some(2), None, None, 1, 1000, (false, false)),
            (Some(2), None, None, 2, 0, (true, false)),
            (None, Some(5), None, 0, 4, (false, false)),
            (None, Some(5), None, 0, 5, (true, false)),
            (None, None, Some(5), 0, 4, (false, false)),
            (None, None, Some(5), 0, 5, (true, true)),
            (None, Some(3), Some(5), 0, 3, (true, false)),
            (None, Some(9), Some(5), 0, 5, (true, true)),
        ] {
            let started = SECOND * 100;
            let mut budget = Budget::new(&with(limit, max_time, deadline), started);
            budget.claimed = claimed;
            let now = started + SECOND * seconds;
            let found = (budget.is_spent(now), budget.is_past_deadline(now));
            let context = (limit, max_time, deadline, claimed, seconds);
            assert_eq!(found, expected, "{context:?}");
        }
    }
}
