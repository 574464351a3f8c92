//! The arithmetic of retries: pure, with `now` and chance as arguments.

use super::{Event, Failure, FailureClass, Operation, Status, Time};

/// Why an operation goes back whose backend was away when it was sent.
pub const AWAY: &str = "backend is away";

/// Why an operation goes back whose backend turned out to be away before it was sent.
pub const UNSENT: &str = "handed back before it was sent: its backend is away";

/// Attempts in a row that may find a backend away which answered a probe just before. From then on it is the operation
/// that is taken to be at fault: it spends attempts like others, and no longer goes first.
pub const AWAY_MAX: usize = 3;

/// Interruptions after which an operation runs alone and last.
pub const ALONE_AFTER: u32 = 3;

/// Interruptions after which an operation is given up: so that none can crash the drain for ever.
pub const GIVEN_UP_AFTER: u32 = 8;

/// How failed attempts are spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The wait after the first failure, in milliseconds.
    pub delay_ms: u64,
    /// The longest wait that a backend may ask for, in milliseconds.
    pub retry_after_max_ms: u64,
}

impl RetryPolicy {
    /// Milliseconds to wait after a failure, `retry_count` failures having come before it.
    ///
    /// `delay × min(2^retry_count, 10)`, with up to a tenth on top by `jitter` (0 to 1), and never
    /// less than the backend asked for.
    pub fn backoff_ms(&self, retry_count: u32, jitter: f64, retry_after_ms: Option<u64>) -> u64 {
        let factor = 1u64.checked_shl(retry_count).unwrap_or(u64::MAX).min(10);
        let base = self.delay_ms.saturating_mul(factor);
        let jittered = base.saturating_add((base as f64 * 0.1 * jitter.clamp(0.0, 1.0)) as u64);
        let asked = retry_after_ms.unwrap_or(0).min(self.retry_after_max_ms);
        jittered.max(asked)
    }

    /// What a failed attempt of `operation` leads to.
    ///
    /// `retry_after_ms` is what the backend asked for, `jitter` a number between 0 and 1.
    pub fn after_failure(
        &self,
        operation: &Operation,
        failure: Failure,
        retry_after_ms: Option<u64>,
        now: Time,
        jitter: f64,
    ) -> Event {
        match failure.class {
            FailureClass::Permanent => Event::Failed { failure },
            FailureClass::Outage if found_away(operation) < AWAY_MAX => {
                Event::Returned { reason: AWAY.into(), interrupted: false, failure: Some(failure) }
            }
            FailureClass::Transient | FailureClass::Outage => {
                let failure = Failure { class: FailureClass::Transient, ..failure };
                if operation.retry_count >= operation.max_retries {
                    return Event::Failed { failure };
                }
                let wait = self.backoff_ms(operation.retry_count, jitter, retry_after_ms);
                Event::Retrying { until: now.plus_millis(i64::try_from(wait).unwrap_or(i64::MAX)), failure }
            }
        }
    }
}

/// How many attempts in a row, up to now, found the backend away.
fn found_away(operation: &Operation) -> usize {
    let steps = operation.history.iter().rev().filter(|entry| entry.to != Status::Processing);
    let reasons = steps.map(|entry| entry.reason.as_deref().unwrap_or_default());
    reasons.filter(|reason| *reason != UNSENT).take_while(|reason| *reason == AWAY).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { delay_ms: 60_000, retry_after_max_ms: 3_600_000 };

    #[test]
    fn waits_double_up_to_ten_times_the_delay() {
        let waits: Vec<_> = (0..7).map(|n| POLICY.backoff_ms(n, 0.0, None) / 1000).collect();
        assert_eq!(waits, [60, 120, 240, 480, 600, 600, 600]);
        assert_eq!(POLICY.backoff_ms(200, 0.0, None), 600_000);
    }

    #[test]
    fn jitter_adds_a_tenth_at_most() {
        assert_eq!(POLICY.backoff_ms(0, 1.0, None), 66_000);
        assert_eq!(POLICY.backoff_ms(0, 7.0, None), 66_000);
        assert_eq!(POLICY.backoff_ms(0, -1.0, None), 60_000);
    }

    #[test]
    fn retry_after_is_obeyed_up_to_its_maximum() {
        assert_eq!(POLICY.backoff_ms(0, 0.0, Some(90_000)), 90_000);
        assert_eq!(POLICY.backoff_ms(0, 0.0, Some(1)), 60_000);
        assert_eq!(POLICY.backoff_ms(0, 0.0, Some(u64::MAX)), 3_600_000);
    }
}
