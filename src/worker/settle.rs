//! The events that are recorded for the results of attempts and queries.

use crate::backend::{AttemptError, AttemptStatus, Request};
use crate::clock::Clock;
use crate::operation::retry::{ABANDON_AFTER, RetryPolicy};
use crate::operation::{Event, Failure, FailureClass, Operation, Outcome, State, Time, failure};
use crate::wal::Layout;

/// Returns the request that describes an operation of this log to its backend.
pub fn request_of(operation: &Operation, layout: &Layout) -> Request {
    let spooled = operation.source.as_ref().and_then(|source| source.spool.as_deref());
    Request {
        id: operation.id,
        number: operation.number,
        operation_type: operation.operation_type.clone(),
        backend: operation.backend.clone(),
        parameters: operation.parameters.clone(),
        source: operation.source.clone(),
        content: spooled.map(|name| layout.spooled_for(name, operation.id)),
    }
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The end of the attempt.
    pub end: End,
    /// The failure to reach the backend, if it was unreachable.
    pub outage: Option<Failure>,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The outcome is known: this event is recorded.
    Known(Event),
    /// The outcome is unknown, and the backend cannot be queried now: the operation stays claimed.
    Unknown(UnknownOutcome),
}

/// An attempt whose answer was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownOutcome {
    /// The error in place of the answer.
    pub failure: Failure,
    /// True if the loop itself had cancelled the attempt.
    pub was_stopped: bool,
}

/// The facts that decide about retries.
#[derive(Debug, Clone, Copy)]
pub struct RetryContext<'a> {
    /// The spacing of retries.
    pub policy: &'a RetryPolicy,
    /// Time and randomness.
    pub clock: &'a dyn Clock,
    /// When another operation last succeeded at the backend, before the attempt.
    pub last_success: Option<Time>,
}

impl RetryContext<'_> {
    fn settle_failure(
        &self,
        operation: &Operation,
        failure: Failure,
        retry_after_ms: Option<u64>,
    ) -> Settlement {
        let mut outage = (failure.class == FailureClass::Outage).then(|| failure.clone());
        let (now, jitter) = (self.clock.now(), self.clock.chance());
        let event = self.policy.after_failure(
            operation,
            failure,
            retry_after_ms,
            self.last_success,
            now,
            jitter,
        );
        // A failure that is the operation's own fault says nothing about its backend.
        outage.take_if(|_| !matches!(event, Event::Requeued { .. }));
        Settlement { end: End::Known(event), outage }
    }
}

/// Returns the settlement of an attempt; `was_stopped` if the loop had cancelled it. `query` asks
/// the backend about the outcome, and is called only if the attempt returned none.
pub fn settle(
    context: &RetryContext<'_>,
    operation: &Operation,
    result: Result<Outcome, AttemptError>,
    was_stopped: bool,
    query: impl FnOnce() -> Result<AttemptStatus, AttemptError>,
) -> Settlement {
    match result {
        Ok(outcome) => known(Event::Completed { outcome }),
        Err(AttemptError::Stopped) => known(handed_back()),
        Err(AttemptError::Failed { failure, retry_after_ms }) => {
            context.settle_failure(operation, failure, retry_after_ms)
        }
        Err(AttemptError::UnknownOutcome(failure)) => {
            settle_unknown(context, operation, UnknownOutcome { failure, was_stopped }, query())
        }
    }
}

/// Returns the settlement of an attempt whose answer was lost, given what its backend says about
/// it.
pub(super) fn settle_unknown(
    context: &RetryContext<'_>,
    operation: &Operation,
    unknown: UnknownOutcome,
    status: Result<AttemptStatus, AttemptError>,
) -> Settlement {
    match status {
        Ok(AttemptStatus::Done(outcome)) => known(Event::Completed { outcome }),
        Ok(AttemptStatus::NotDone) if unknown.was_stopped => known(handed_back()),
        Ok(AttemptStatus::NotDone) => context.settle_failure(operation, unknown.failure, None),
        Ok(AttemptStatus::Unknown(why)) => known(Event::Failed {
            failure: in_doubt(&format!("{}; {why}", unknown.failure.message)),
        }),
        unresolved => match abandon(operation, &unresolved) {
            Some(event) => known(event),
            // The backend can be queried later, and nothing is repeated before.
            None => Settlement { end: End::Unknown(unknown), outage: outage_of(&unresolved) },
        },
    }
}

/// Returns the failure of an operation whose backend cannot resolve its outcome, or `None` if the
/// backend is to be queried again later.
fn abandon(operation: &Operation, status: &Result<AttemptStatus, AttemptError>) -> Option<Event> {
    let (why, may_change) = match status {
        Ok(AttemptStatus::StillRunning(what)) => (what.as_str(), true),
        Err(AttemptError::Failed { failure, .. }) => {
            (failure.message.as_str(), failure.class != FailureClass::Permanent)
        }
        Err(AttemptError::Stopped) => ("the query was interrupted", true),
        // The backend returns no status at all: a bug in it, which another query does not cure.
        Err(AttemptError::UnknownOutcome(failure)) => (failure.message.as_str(), false),
        Ok(AttemptStatus::Done(_) | AttemptStatus::NotDone | AttemptStatus::Unknown(_)) => {
            return None;
        }
    };
    // A cancelled operation does not wait for an answer.
    (is_cancelled(operation) || !may_change).then(|| Event::Failed { failure: in_doubt(why) })
}

/// Returns the failure to reach the backend, if a query met one.
pub(super) fn outage_of(status: &Result<AttemptStatus, AttemptError>) -> Option<Failure> {
    match status {
        Err(AttemptError::Failed { failure, .. }) if failure.class == FailureClass::Outage => {
            Some(failure.clone())
        }
        _ => None,
    }
}

fn known(event: Event) -> Settlement {
    Settlement { end: End::Known(event), outage: None }
}

fn handed_back() -> Event {
    let reason = "handed back: the drain loop was asked to stop, or its time was up".into();
    Event::Requeued { reason, interrupted: false, failure: None }
}

/// Returns the event for an operation whose drain loop died during the attempt, given what its
/// backend says about it, or `None` if the backend cannot be queried now: the operation stays
/// claimed until it can.
pub(super) fn after_crash(
    operation: &Operation,
    status: Result<AttemptStatus, AttemptError>,
) -> Option<Event> {
    match status {
        Ok(AttemptStatus::Done(outcome)) => Some(Event::Completed { outcome }),
        Ok(AttemptStatus::NotDone) if operation.interruptions + 1 >= ABANDON_AFTER => {
            let message = format!(
                "{} drain loops died while executing this operation, the last ones while nothing \
                 else was running; find the cause before retrying it",
                operation.interruptions + 1
            );
            Some(Event::Failed {
                failure: Failure {
                    class: FailureClass::Permanent,
                    error_type: failure::CRASHES_DRAIN.into(),
                    message,
                },
            })
        }
        Ok(AttemptStatus::NotDone) => Some(Event::Requeued {
            reason: "its drain loop died; the backend reports that the operation has not taken \
                     effect, or can be repeated safely"
                .into(),
            interrupted: true,
            failure: None,
        }),
        Ok(AttemptStatus::Unknown(why)) => Some(Event::Failed { failure: in_doubt(&why) }),
        unresolved => abandon(operation, &unresolved),
    }
}

/// Returns the event that is recorded in place of `event`: a cancelled operation gets no further
/// attempt.
pub(super) fn honour_cancel(operation: &Operation, event: Event) -> Event {
    match event {
        Event::Retrying { failure, .. } if is_cancelled(operation) => {
            Event::Failed { failure: cancelled(Some(&failure.message)) }
        }
        Event::Requeued { failure, .. } if is_cancelled(operation) => Event::Failed {
            failure: cancelled(failure.as_ref().map(|failure| failure.message.as_str())),
        },
        other => other,
    }
}

/// Returns whether a running operation has been cancelled.
pub fn is_cancelled(operation: &Operation) -> bool {
    matches!(operation.state, State::Processing { cancel_requested: true, .. })
}

/// Precedes the last error in the message of an operation that was cancelled or abandoned.
pub const LAST_ERROR: &str = "; its last error was: ";

/// The beginning of the message of a cancelled operation.
const CANCELLED: &str = "cancelled by hand";

/// Returns the failure of a cancelled operation.
pub fn cancelled(last_error: Option<&str>) -> Failure {
    // An operation that was cancelled twice says so once.
    let last_error = last_error.filter(|error| !error.starts_with(CANCELLED));
    let last = last_error.map_or_else(String::new, |error| format!("{LAST_ERROR}{error}"));
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::CANCELLED.into(),
        message: format!("{CANCELLED}{last}"),
    }
}

pub(super) fn in_doubt(why: &str) -> Failure {
    let why = why.trim_end_matches('.');
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::IN_DOUBT.into(),
        message: format!(
            "outcome unknown: {why}; the operation may already have taken effect: check first, and \
             retry only if it has not"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::operation::{
        BackendName, Claim, Fields, Logged, Number, OperationId, OperationType, Revision,
        Transition, apply,
    };

    const NOW: Time = Time::from_millis(100_000);

    /// Returns a claimed operation with this number of interruptions.
    fn claimed(interruptions: u32, is_cancelled: bool) -> Operation {
        let (kind, backend) = (OperationType::new("add").unwrap(), BackendName::new("a").unwrap());
        let logged = Logged::new(kind.clone(), backend.clone(), Fields::new(), 2);
        let transition = |revision, from, event| Transition {
            revision,
            number: Number::new(1),
            id: OperationId::from_bytes([1; 16]),
            at: NOW,
            from,
            operation_type: kind.clone(),
            backend: backend.clone(),
            actor: "test".into(),
            event,
        };
        let claim = Claim { pid: 1, host: "host".into(), started: NOW };
        let first = transition(Revision::FIRST, None, Event::Logged(Box::new(logged)));
        let pending = apply(None, &first).unwrap();
        let claim = transition(
            Revision::new(2),
            Some(crate::operation::Status::Pending),
            Event::Claimed { claim },
        );
        let mut operation = apply(pending, &claim).unwrap().unwrap();
        operation.interruptions = interruptions;
        if let State::Processing { cancel_requested, .. } = &mut operation.state {
            *cancel_requested = is_cancelled;
        }
        operation
    }

    fn failure(class: FailureClass) -> Failure {
        Failure { class, error_type: "test".into(), message: "it broke".into() }
    }

    fn failed(class: FailureClass) -> AttemptError {
        AttemptError::Failed { failure: failure(class), retry_after_ms: None }
    }

    fn lost() -> AttemptError {
        AttemptError::UnknownOutcome(failure(FailureClass::Transient))
    }

    /// Names an event in one word, with the type of its failure.
    fn word(event: &Event) -> String {
        match event {
            Event::Completed { .. } => "completed".into(),
            Event::Failed { failure } => format!("failed: {}", failure.error_type),
            Event::Retrying { .. } => "retrying".into(),
            Event::Requeued { interrupted: true, .. } => "interrupted".into(),
            Event::Requeued { failure: Some(_), .. } => "postponed".into(),
            Event::Requeued { .. } => "handed back".into(),
            other => format!("{other:?}"),
        }
    }

    fn words(settlement: &Settlement) -> String {
        let end = match &settlement.end {
            End::Known(event) => word(event),
            End::Unknown(_) => "unknown".into(),
        };
        format!("{end}{}", if settlement.outage.is_some() { ", outage" } else { "" })
    }

    /// The name of an answer, and the answer.
    type Case = (&'static str, fn() -> Result<AttemptStatus, AttemptError>);

    /// Every answer of a backend that is queried.
    fn statuses() -> [Case; 9] {
        [
            ("done", || Ok(AttemptStatus::Done(Outcome::default()))),
            ("not done", || Ok(AttemptStatus::NotDone)),
            ("unknown", || Ok(AttemptStatus::Unknown("no trace".into()))),
            ("still running", || Ok(AttemptStatus::StillRunning("it runs".into()))),
            ("permanent", || Err(failed(FailureClass::Permanent))),
            ("transient", || Err(failed(FailureClass::Transient))),
            ("outage", || Err(failed(FailureClass::Outage))),
            ("stopped", || Err(AttemptError::Stopped)),
            ("lost", || Err(lost())),
        ]
    }

    #[test]
    fn every_result_of_an_attempt_has_its_event() {
        let clock = ManualClock::new(NOW, 1);
        let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(3600));
        let context = RetryContext { policy: &policy, clock: &clock, last_success: None };
        let operation = claimed(0, false);
        for (result, expected) in [
            (Ok(Outcome::default()), "completed"),
            (Err(AttemptError::Stopped), "handed back"),
            (Err(failed(FailureClass::Permanent)), "failed: test"),
            (Err(failed(FailureClass::Transient)), "retrying"),
            (Err(failed(FailureClass::Outage)), "postponed, outage"),
        ] {
            let context_of_failure = format!("{result:?}");
            let settlement = settle(&context, &operation, result, false, || {
                panic!("the backend is queried only if no answer came")
            });
            assert_eq!(words(&settlement), expected, "{context_of_failure}");
        }
    }

    /// One row per answer of the backend: after an attempt, after an attempt that was stopped, and
    /// after one of a cancelled operation.
    #[test]
    fn every_status_settles_an_unknown_outcome() {
        let clock = ManualClock::new(NOW, 1);
        let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(3600));
        let context = RetryContext { policy: &policy, clock: &clock, last_success: None };
        let in_doubt = "failed: in_doubt";
        let expected = [
            ("completed", "completed", "completed"),
            ("retrying", "handed back", "retrying"),
            (in_doubt, in_doubt, in_doubt),
            ("unknown", "unknown", in_doubt),
            (in_doubt, in_doubt, in_doubt),
            ("unknown", "unknown", in_doubt),
            ("unknown, outage", "unknown, outage", in_doubt),
            ("unknown", "unknown", in_doubt),
            (in_doubt, in_doubt, in_doubt),
        ];
        for ((name, status), (plain, stopped, cancelled)) in statuses().into_iter().zip(expected) {
            for (was_stopped, is_cancelled, expected) in
                [(false, false, plain), (true, false, stopped), (false, true, cancelled)]
            {
                let operation = claimed(0, is_cancelled);
                let settlement = settle(&context, &operation, Err(lost()), was_stopped, status);
                let case = format!("{name}, stopped {was_stopped}, cancelled {is_cancelled}");
                assert_eq!(words(&settlement), expected, "{case}");
            }
        }
    }

    /// One row per answer of the backend: after a first crash, after the crash that abandons the
    /// operation, and after one of a cancelled operation.
    #[test]
    fn every_status_settles_what_a_dead_loop_left() {
        let in_doubt = "failed: in_doubt";
        let crashes = format!("failed: {}", failure::CRASHES_DRAIN);
        let expected = [
            ("completed", "completed", "completed"),
            ("interrupted", crashes.as_str(), "interrupted"),
            (in_doubt, in_doubt, in_doubt),
            ("queried later", "queried later", in_doubt),
            (in_doubt, in_doubt, in_doubt),
            ("queried later", "queried later", in_doubt),
            ("queried later", "queried later", in_doubt),
            ("queried later", "queried later", in_doubt),
            (in_doubt, in_doubt, in_doubt),
        ];
        for ((name, status), (first, last, cancelled)) in statuses().into_iter().zip(expected) {
            for (interruptions, is_cancelled, expected) in
                [(0, false, first), (ABANDON_AFTER - 1, false, last), (0, true, cancelled)]
            {
                let event = after_crash(&claimed(interruptions, is_cancelled), status());
                let found = event.as_ref().map_or("queried later".into(), word);
                let case =
                    format!("{name}, {interruptions} interruptions, cancelled {is_cancelled}");
                assert_eq!(found, expected, "{case}");
            }
        }
    }

    #[test]
    fn a_cancelled_operation_gets_no_further_attempt() {
        let retrying = Event::Retrying { failure: failure(FailureClass::Transient), until: NOW };
        let cancelled = "failed: cancelled";
        for (event, expected) in [
            (Event::Completed { outcome: Outcome::default() }, "completed"),
            (Event::Failed { failure: failure(FailureClass::Permanent) }, "failed: test"),
            (retrying, cancelled),
            (handed_back(), cancelled),
        ] {
            let before = word(&event);
            assert_eq!(word(&honour_cancel(&claimed(0, false), event.clone())), before);
            assert_eq!(word(&honour_cancel(&claimed(0, true), event)), expected);
        }
    }

    #[test]
    fn a_cancelled_operation_keeps_its_last_error_once() {
        let message = |last: Option<&str>| super::cancelled(last).message;
        assert_eq!(message(None), "cancelled by hand");
        let with_error = "cancelled by hand; its last error was: it broke";
        assert_eq!(message(Some("it broke")), with_error);
        assert_eq!(message(Some(with_error)), "cancelled by hand");
    }
}
