use crate::backend::{AttemptError, AttemptStatus, Request};
use crate::clock::Clock;
use crate::operation::retry::{ABANDON_AFTER, RetryPolicy};
use crate::operation::{Event, Failure, FailureClass, Operation, Outcome, State, Time, failure};
use crate::wal::Layout;

/// What an operation is to its backend, in the log that is laid out so.
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

/// What an attempt led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// What is to be recorded.
    pub end: End,
    /// If the backend turned out to be away: what was said of that.
    pub outage: Option<Failure>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// So.
    Known(Event),
    /// Nobody knows yet: it is in doubt, and its backend cannot be asked now.
    Open(Unanswered),
}

/// An attempt without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// What came in place of the answer.
    pub failure: Failure,
    /// Whether we had stopped it ourselves.
    pub was_stopped: bool,
}

/// What retries are decided by.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// How they are spaced.
    pub policy: &'a RetryPolicy,
    /// Time and chance.
    pub clock: &'a dyn Clock,
    /// When another operation last succeeded at the backend, before the attempt.
    pub last_success: Option<Time>,
}

impl Terms<'_> {
    fn after(
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
        // What is its own fault says nothing of its backend.
        outage.take_if(|_| !matches!(event, Event::Requeued { .. }));
        Settlement { end: End::Known(event), outage }
    }
}

/// What the result of an attempt leads to, which we may have stopped ourselves; `ask` is called only if no answer came.
pub fn settle(
    terms: &Terms<'_>,
    operation: &Operation,
    result: Result<Outcome, AttemptError>,
    was_stopped: bool,
    ask: impl FnOnce() -> Result<AttemptStatus, AttemptError>,
) -> Settlement {
    match result {
        Ok(outcome) => known(Event::Completed { outcome }),
        Err(AttemptError::Stopped) => known(handed_back()),
        Err(AttemptError::Failed { failure, retry_after_ms }) => {
            terms.after(operation, failure, retry_after_ms)
        }
        Err(AttemptError::UnknownOutcome(failure)) => {
            settle_unanswered(terms, operation, Unanswered { failure, was_stopped }, ask())
        }
    }
}

/// What an attempt without an answer leads to, once its backend was asked.
pub fn settle_unanswered(
    terms: &Terms<'_>,
    operation: &Operation,
    unanswered: Unanswered,
    answer: Result<AttemptStatus, AttemptError>,
) -> Settlement {
    match answer {
        Ok(AttemptStatus::Done(outcome)) => known(Event::Completed { outcome }),
        Ok(AttemptStatus::NotDone) if unanswered.was_stopped => known(handed_back()),
        Ok(AttemptStatus::NotDone) => terms.after(operation, unanswered.failure, None),
        Ok(AttemptStatus::Unknown(why)) => known(Event::Failed {
            failure: in_doubt(&format!("{}; {why}", unanswered.failure.message)),
        }),
        unknown => match give_up(operation, &unknown) {
            Some(event) => known(event),
            // It can be asked later, and nothing is repeated before.
            None => Settlement { end: End::Open(unanswered), outage: outage_of(&unknown) },
        },
    }
}

/// What becomes of an operation of which its backend can say nothing now; none: it is asked again later.
fn give_up(operation: &Operation, answer: &Result<AttemptStatus, AttemptError>) -> Option<Event> {
    let (why, may_change) = match answer {
        Ok(AttemptStatus::StillRunning(what)) => (what.as_str(), true),
        Err(AttemptError::Failed { failure, .. }) => {
            (failure.message.as_str(), failure.class != FailureClass::Permanent)
        }
        Err(AttemptError::Stopped) => ("the question was interrupted", true),
        // It gives no answer at all: a bug in it, which asking again does not cure.
        Err(AttemptError::UnknownOutcome(failure)) => (failure.message.as_str(), false),
        Ok(AttemptStatus::Done(_) | AttemptStatus::NotDone | AttemptStatus::Unknown(_)) => {
            return None;
        }
    };
    // Who does not want it any more need not wait for that.
    (is_cancelled(operation) || !may_change).then(|| Event::Failed { failure: in_doubt(why) })
}

/// If a question found nobody: what was said of that.
pub(super) fn outage_of(answer: &Result<AttemptStatus, AttemptError>) -> Option<Failure> {
    match answer {
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

/// What becomes of an operation whose drain loop died while it was being carried out, by what its backend answers.
///
/// None: the backend cannot be asked now, so it stays as it is until it can.
pub(super) fn after_crash(
    operation: &Operation,
    answer: Result<AttemptStatus, AttemptError>,
) -> Option<Event> {
    match answer {
        Ok(AttemptStatus::Done(outcome)) => Some(Event::Completed { outcome }),
        Ok(AttemptStatus::NotDone) if operation.interruptions + 1 >= ABANDON_AFTER => {
            let message = format!(
                "{} drain loops died while it was being carried out, the last ones with nothing else running; \
                 find out why before retrying it",
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
            reason:
                "its drain loop died; the backend says that it was not done, or may be repeated"
                    .into(),
            interrupted: true,
            failure: None,
        }),
        Ok(AttemptStatus::Unknown(why)) => Some(Event::Failed { failure: in_doubt(&why) }),
        unknown => give_up(operation, &unknown),
    }
}

/// The event that is recorded in place of another: who asked for an end gets no further attempt.
pub fn honour_cancel(operation: &Operation, event: Event) -> Event {
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

/// Whether somebody asked for an end of what is being carried out.
pub fn is_cancelled(operation: &Operation) -> bool {
    matches!(operation.state, State::Processing { cancel_requested: true, .. })
}

/// What stands before the last error of an operation that was cancelled or given up.
pub const LAST_ERROR: &str = "; its last error was: ";

/// How the message of what was cancelled begins.
const BY_HAND: &str = "cancelled by hand";

/// The failure of an operation that was cancelled.
pub fn cancelled(last_error: Option<&str>) -> Failure {
    // Cancelled twice, it says so once.
    let last_error = last_error.filter(|error| !error.starts_with(BY_HAND));
    let last = last_error.map_or_else(String::new, |error| format!("{LAST_ERROR}{error}"));
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::CANCELLED.into(),
        message: format!("{BY_HAND}{last}"),
    }
}

pub(super) fn in_doubt(why: &str) -> Failure {
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::IN_DOUBT.into(),
        message: format!(
            "it may have been done, and repeating it may do harm: {why}; look whether it was, and retry it if not"
        ),
    }
}
