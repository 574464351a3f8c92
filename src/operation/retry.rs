//! The arithmetic of retries: pure, with `now` and chance as arguments.

use super::{Event, Failure, FailureClass, HistoryEntry, Operation, Status, Time};

/// Why an operation goes back whose backend was away when it was sent.
pub const AWAY: &str = "backend is away";

/// Why an operation goes back whose backend turned out to be away before it was sent.
pub const UNSENT: &str = "handed back before it was sent: its backend is away";

/// Attempts in a row that may find a backend away which answered a probe just before. From then on the operation goes
/// after all others of its backend; and if one of those succeeds, the fault is taken to be its own.
pub const AWAY_MAX: usize = 3;

/// What the message of an outage ends with that is taken to be the operation's own fault, and spends an attempt.
const AT_FAULT: &str =
    "; others succeeded there meanwhile, so it is taken to be this operation's own fault";

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
    /// `retry_after_ms` is what the backend asked for, `jitter` a number between 0 and 1. `last_success` is when another
    /// operation last succeeded there, before this attempt: an outage that others do not see spends attempts.
    pub fn after_failure(
        &self,
        operation: &Operation,
        failure: Failure,
        retry_after_ms: Option<u64>,
        last_success: Option<Time>,
        now: Time,
        jitter: f64,
    ) -> Event {
        let failure = match failure.class {
            FailureClass::Permanent => return Event::Failed { failure },
            FailureClass::Transient => failure,
            FailureClass::Outage if !Outages::of(operation).are_its_fault(last_success) => {
                return Event::Returned {
                    reason: AWAY.into(),
                    interrupted: false,
                    failure: Some(failure),
                };
            }
            FailureClass::Outage => {
                let message = format!("{}{AT_FAULT}", failure.message.trim_end_matches('.'));
                Failure { class: FailureClass::Transient, message, ..failure }
            }
        };
        if operation.retry_count >= operation.max_retries {
            return Event::Failed { failure };
        }
        let wait = self.backoff_ms(operation.retry_count, jitter, retry_after_ms);
        Event::Retrying { until: now.plus_millis(i64::try_from(wait).unwrap_or(i64::MAX)), failure }
    }

    /// The longest that a next attempt is waited for after `retry_count` failures, unless the backend asks for more.
    pub fn longest_backoff_ms(&self, retry_count: u32) -> u64 {
        self.backoff_ms(retry_count.saturating_sub(1), 1.0, None)
    }
}

/// How often in a row an operation has found its backend away, if that is so often that it goes after all others of that
/// backend: among those, the one that has done so least goes first.
pub fn goes_last(operation: &Operation) -> Option<usize> {
    let outages = Outages::of(operation);
    match outages.at_fault {
        true => Some(usize::MAX),
        false => Some(outages.in_a_row).filter(|in_a_row| *in_a_row >= AWAY_MAX),
    }
}

/// What the history of an operation, since it was logged or retried by hand, says of outages.
struct Outages {
    /// The last attempts that found the backend away.
    in_a_row: usize,
    /// When the last one did.
    last: Option<Time>,
    /// Whether one was taken to be its own fault.
    at_fault: bool,
}

impl Outages {
    fn of(operation: &Operation) -> Outages {
        let is_new = |entry: &HistoryEntry| {
            entry.from == Some(Status::Failed) && entry.to == Status::Pending
        };
        let steps = operation.history.iter().rev().take_while(|entry| !is_new(entry));
        // What was not sent has found nothing.
        let ends = steps.filter(|entry| {
            entry.from == Some(Status::Processing)
                && entry.to != Status::Processing
                && entry.reason.as_deref() != Some(UNSENT)
        });
        let mut ends = ends.peekable();
        let (mut in_a_row, mut last) = (0, None);
        while let Some(entry) = ends.next_if(|entry| entry.reason.as_deref() == Some(AWAY)) {
            in_a_row += 1;
            last = last.or(Some(entry.at));
        }
        let at_fault =
            ends.any(|entry| entry.error.as_deref().is_some_and(|error| error.ends_with(AT_FAULT)));
        Outages { in_a_row, last, at_fault }
    }

    fn are_its_fault(&self, last_success: Option<Time>) -> bool {
        self.at_fault || (self.in_a_row >= AWAY_MAX && last_success > self.last)
    }
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
