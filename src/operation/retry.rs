//! The arithmetic of retries: pure functions that take the time and the jitter as arguments.

use std::time::Duration;

use super::{Event, Failure, FailureClass, HistoryEntry, Operation, Status, Time};

/// The reason of an attempt that found its backend unreachable.
///
/// The history is searched for it, so its text is part of the format.
const UNREACHABLE: &str = "backend is unreachable";

/// The reason of a claim that ended before the attempt was sent: its backend became unreachable.
///
/// The history is searched for it, so its text is part of the format.
pub const NOT_SENT: &str = "returned before it was sent: backend is unreachable";

/// The texts that earlier versions wrote for [`UNREACHABLE`] and [`NOT_SENT`], which their logs
/// still hold. In two parts each: these words are not to be written any more.
const EARLIER_TEXTS: [(&str, &str); 2] = [
    (concat!("backend is ", "away"), UNREACHABLE),
    (concat!("handed back before it was sent: its backend is ", "away"), NOT_SENT),
];

/// Returns whether an entry of a history has this reason, in the text of any version.
fn has_reason(entry: &HistoryEntry, wanted: &str) -> bool {
    entry
        .reason
        .as_deref()
        .is_some_and(|reason| reason == wanted || EARLIER_TEXTS.contains(&(reason, wanted)))
}

/// Consecutive attempts that may find a backend unreachable although a probe succeeded just before.
///
/// From then on the operation goes after all others of its backend. If one of those succeeds, the
/// operation itself is taken to be the cause.
pub const OUTAGES_MAX: usize = 3;

/// The end of the message of an outage that is attributed to the operation and spends an attempt.
///
/// The history is searched for it, so its text is part of the format.
const AT_FAULT: &str =
    "; others succeeded there meanwhile, so it is taken to be this operation's own fault";

/// The longest backoff, in multiples of the delay.
const FACTOR_MAX: u64 = 10;

/// Interruptions after which an operation runs last, with nothing else running.
pub const ALONE_AFTER: u32 = 3;

/// Interruptions after which an operation fails, so that none can crash the drain loop
/// indefinitely.
pub const ABANDON_AFTER: u32 = 8;

/// The rule that spaces failed attempts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The backoff after the first failure, in milliseconds.
    pub delay_ms: u64,
    /// The longest backoff that a backend may ask for, in milliseconds.
    pub retry_after_max_ms: u64,
}

impl RetryPolicy {
    /// Returns the policy for a backoff of `delay` after the first failure; a backend may ask for
    /// `retry_after_max` at most. Both are cut to whole milliseconds.
    pub fn new(delay: Duration, retry_after_max: Duration) -> RetryPolicy {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        RetryPolicy { delay_ms: millis(delay), retry_after_max_ms: millis(retry_after_max) }
    }

    /// Returns the milliseconds to wait after a failure that `retry_count` failures preceded.
    ///
    /// That is `delay × min(2^retry_count, 10)`, plus up to a tenth by `jitter` (0 to 1), and never
    /// less than the backend asked for (up to `retry_after_max_ms`).
    pub fn backoff_ms(&self, retry_count: u32, jitter: f64, retry_after_ms: Option<u64>) -> u64 {
        let factor = 1u64.checked_shl(retry_count).unwrap_or(u64::MAX).min(FACTOR_MAX);
        let base = self.delay_ms.saturating_mul(factor);
        let jittered = base.saturating_add((base as f64 * 0.1 * jitter.clamp(0.0, 1.0)) as u64);
        let asked = retry_after_ms.unwrap_or(0).min(self.retry_after_max_ms);
        jittered.max(asked)
    }

    /// Returns the event that a failed attempt of `operation` leads to.
    ///
    /// `retry_after_ms` is the backoff that the backend asked for, `jitter` a number from 0 to 1,
    /// and `last_success` the time of the last success of another operation there before this
    /// attempt: an outage that other operations do not see spends attempts.
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
                return Event::Requeued {
                    reason: UNREACHABLE.into(),
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

    /// Returns the longest backoff after `retry_count` failures, unless the backend asks for more.
    pub fn longest_backoff_ms(&self, retry_count: u32) -> u64 {
        self.backoff_ms(retry_count.saturating_sub(1), 1.0, None)
    }

    /// Returns the longest backoff after any number of failures and any request of the backend.
    pub fn backoff_max_ms(&self) -> u64 {
        self.backoff_ms(u32::MAX, 1.0, Some(u64::MAX))
    }
}

/// Returns the rank of an operation among those that go after all others of their backend, since
/// they found it unreachable [`OUTAGES_MAX`] times in a row or more; `None` if it does not. A lower
/// rank goes first.
pub fn outage_rank(operation: &Operation) -> Option<usize> {
    let outages = Outages::of(operation);
    match outages.at_fault {
        true => Some(usize::MAX),
        false => Some(outages.in_a_row).filter(|in_a_row| *in_a_row >= OUTAGES_MAX),
    }
}

/// The outages in the history of an operation since it was logged or retried by a user.
struct Outages {
    /// The number of last attempts that found the backend unreachable.
    in_a_row: usize,
    /// The time of the last one.
    last: Option<Time>,
    /// True if one was attributed to the operation.
    at_fault: bool,
}

impl Outages {
    fn of(operation: &Operation) -> Outages {
        let is_new = |entry: &HistoryEntry| {
            entry.from == Some(Status::Failed) && entry.to == Status::Pending
        };
        let steps = operation.history.iter().rev().take_while(|entry| !is_new(entry));
        // An attempt that was not sent proves nothing about the backend.
        let ends = steps.filter(|entry| {
            entry.from == Some(Status::Processing)
                && entry.to != Status::Processing
                && !has_reason(entry, NOT_SENT)
        });
        let mut ends = ends.peekable();
        let (mut in_a_row, mut last) = (0, None);
        while let Some(entry) = ends.next_if(|entry| has_reason(entry, UNREACHABLE)) {
            in_a_row += 1;
            last = last.or(Some(entry.at));
        }
        let at_fault =
            ends.any(|entry| entry.error.as_deref().is_some_and(|error| error.ends_with(AT_FAULT)));
        Outages { in_a_row, last, at_fault }
    }

    /// Returns true if the outages are attributed to the operation rather than to the backend.
    fn are_its_fault(&self, last_success: Option<Time>) -> bool {
        self.at_fault || (self.in_a_row >= OUTAGES_MAX && last_success > self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        BackendName, Fields, Logged, Number, OperationId, OperationType, Revision, Transition,
        apply,
    };
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { delay_ms: 60_000, retry_after_max_ms: 3_600_000 };

    #[test]
    fn backoff_doubles_up_to_ten_times_the_delay() {
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

    #[test]
    fn no_backoff_exceeds_the_longest_one() {
        assert_eq!(POLICY.longest_backoff_ms(0), 66_000);
        assert_eq!(POLICY.longest_backoff_ms(3), 264_000);
        assert_eq!(POLICY.backoff_max_ms(), 3_600_000);
        let patient = RetryPolicy::new(Duration::from_secs(3600), Duration::from_millis(1));
        assert_eq!(patient.backoff_max_ms(), 39_600_000);
        for retry_count in [0, 1, 5, u32::MAX] {
            assert!(patient.backoff_ms(retry_count, 1.0, Some(9)) <= patient.backoff_max_ms());
        }
    }

    fn operation(ends: &[(Status, &str, Option<&str>)]) -> Operation {
        let name = |text| BackendName::new(text).unwrap();
        let kind = OperationType::new("add").unwrap();
        let event = Event::Logged(Box::new(Logged::new(kind.clone(), name("a"), Fields::new(), 5)));
        let logged = Transition {
            revision: Revision::FIRST,
            number: Number::FIRST,
            id: OperationId::from_bytes([1; 16]),
            at: Time::from_millis(0),
            from: None,
            operation_type: kind,
            backend: name("a"),
            actor: "test".into(),
            event,
        };
        let mut operation = apply(None, &logged).unwrap().unwrap();
        let first = operation.history[0].clone();
        for (at, (to, reason, error)) in (1..).zip(ends) {
            operation.history.push(HistoryEntry {
                at: Time::from_millis(at),
                from: Some(Status::Processing),
                to: *to,
                reason: Some((*reason).to_owned()),
                error: error.map(str::to_owned),
                ..first.clone()
            });
        }
        operation
    }

    #[test]
    fn only_consecutive_outages_demote_an_operation() {
        let (outage, unsent) =
            ((Status::Pending, UNREACHABLE, None), (Status::Pending, NOT_SENT, None));
        let earlier = EARLIER_TEXTS.map(|(earlier, _)| (Status::Pending, earlier, None));
        let failed = (Status::Retrying, "status 500", None);
        let fault = (Status::Retrying, "x", Some(AT_FAULT));
        for (ends, rank) in [
            (&[][..], None),
            (&[outage, outage], None),
            (&[outage, outage, outage], Some(3)),
            (&[outage, unsent, outage, outage], Some(3)),
            (&[outage, outage, failed, outage], None),
            (&[earlier[0], outage, earlier[1], earlier[0]], Some(3)),
            (&[fault, outage], Some(usize::MAX)),
        ] {
            assert_eq!(outage_rank(&operation(ends)), rank, "{ends:?}");
        }
    }

    #[test]
    fn the_class_and_the_history_decide_what_follows_a_failure() {
        let failure = |class| Failure { class, error_type: "x".into(), message: "y".into() };
        let outage = (Status::Pending, UNREACHABLE, None);
        let after = |ends: &[(Status, &str, Option<&str>)], class, last_success: Option<i64>| {
            let last_success = last_success.map(Time::from_millis);
            let now = Time::from_millis(9);
            match POLICY.after_failure(
                &operation(ends),
                failure(class),
                None,
                last_success,
                now,
                0.0,
            ) {
                Event::Failed { .. } => "failed",
                Event::Retrying { until, .. } if until == Time::from_millis(60_009) => "retrying",
                Event::Requeued { interrupted: false, .. } => "requeued",
                _ => "other",
            }
        };
        for (ends, class, last_success, expected) in [
            (&[][..], FailureClass::Permanent, None, "failed"),
            (&[], FailureClass::Transient, None, "retrying"),
            (&[], FailureClass::Outage, Some(5), "requeued"),
            (&[outage, outage, outage], FailureClass::Outage, None, "requeued"),
            (&[outage, outage, outage], FailureClass::Outage, Some(2), "requeued"),
            (&[outage, outage, outage], FailureClass::Outage, Some(4), "retrying"),
        ] {
            assert_eq!(after(ends, class, last_success), expected, "{ends:?} {class:?}");
        }
        let mut spent = operation(&[]);
        spent.retry_count = spent.max_retries;
        let transient = failure(FailureClass::Transient);
        let event = POLICY.after_failure(&spent, transient, None, None, Time::from_millis(9), 0.0);
        assert!(matches!(event, Event::Failed { .. }));
    }
}
