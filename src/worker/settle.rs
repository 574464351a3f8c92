use crate::backend::{Answer, AttemptError, Request};
use crate::clock::Clock;
use crate::operation::retry::{GIVEN_UP_AFTER, RetryPolicy};
use crate::operation::{Event, Failure, FailureClass, Operation, Outcome, State, failure};
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
    /// The event to be recorded; none: it is in doubt, and its backend cannot be asked now.
    pub event: Option<Event>,
    /// If the backend turned out to be away: what was said of that.
    pub outage: Option<Failure>,
}

/// What the result of an attempt leads to, which we may have stopped ourselves; `ask` is called only if no answer came.
pub fn settle(
    policy: &RetryPolicy,
    operation: &Operation,
    request: &Request,
    result: Result<Outcome, AttemptError>,
    was_stopped: bool,
    clock: &dyn Clock,
    ask: impl FnOnce(&Request) -> Result<Answer, AttemptError>,
) -> Settlement {
    let settled = |event| Settlement { event: Some(event), outage: None };
    match result {
        Ok(outcome) => settled(Event::Completed { outcome }),
        Err(AttemptError::Stopped) => settled(handed_back()),
        Err(AttemptError::Failed { failure, retry_after_ms }) => Settlement {
            outage: outage_of(&failure),
            event: Some(policy.after_failure(operation, failure, retry_after_ms, clock.now(), clock.chance())),
        },
        Err(AttemptError::Unanswered(failure)) => match ask(request) {
            Ok(Answer::Done(outcome)) => settled(Event::Completed { outcome }),
            Ok(Answer::NotDone) if was_stopped => settled(handed_back()),
            Ok(Answer::NotDone) => Settlement {
                outage: outage_of(&failure),
                event: Some(policy.after_failure(operation, failure, None, clock.now(), clock.chance())),
            },
            Ok(Answer::Unknown(why)) => settled(Event::Failed { failure: in_doubt(&why) }),
            Ok(Answer::StillRunning) => Settlement { event: None, outage: None },
            // It can be asked later, and nothing is repeated before.
            Err(AttemptError::Failed { failure, .. }) if failure.class == FailureClass::Outage => {
                Settlement { event: None, outage: Some(failure) }
            }
            Err(error) => settled(Event::Failed { failure: in_doubt(&message_of(&error)) }),
        },
    }
}

fn handed_back() -> Event {
    let reason = "handed back: the drain loop was asked to stop, or its time was up".into();
    Event::Returned { reason, interrupted: false, failure: None }
}

fn outage_of(failure: &Failure) -> Option<Failure> {
    (failure.class == FailureClass::Outage).then(|| failure.clone())
}

/// What becomes of an operation whose drain loop died while it was being carried out.
///
/// None: the backend cannot be asked now, so it stays as it is until it can.
pub fn after_crash(operation: &Operation, answer: Option<Result<Answer, AttemptError>>) -> Option<Event> {
    match answer {
        Some(Ok(Answer::Done(outcome))) => Some(Event::Completed { outcome }),
        Some(Ok(Answer::NotDone)) if operation.interruptions + 1 >= GIVEN_UP_AFTER => {
            let message = format!(
                "{} drain loops died while it was being carried out, the last ones with nothing else running; \
                 find out why before retrying it",
                operation.interruptions + 1
            );
            Some(Event::Failed {
                failure: Failure { class: FailureClass::Permanent, error_type: failure::CRASHES_DRAIN.into(), message },
            })
        }
        Some(Ok(Answer::NotDone)) => Some(Event::Returned {
            reason: "its drain loop died; the backend says that it was not done, or may be repeated".into(),
            interrupted: true,
            failure: None,
        }),
        Some(Ok(Answer::Unknown(why))) => Some(Event::Failed { failure: in_doubt(&why) }),
        Some(Ok(Answer::StillRunning) | Err(_)) | None => None,
    }
}

/// The event that is recorded in place of another: who asked for an end gets no further attempt.
pub fn honour_cancel(operation: &Operation, event: Event) -> Event {
    match event {
        Event::Retrying { failure, .. } if is_cancelled(operation) => {
            Event::Failed { failure: cancelled(Some(&failure.message)) }
        }
        Event::Returned { failure, .. } if is_cancelled(operation) => {
            Event::Failed { failure: cancelled(failure.as_ref().map(|failure| failure.message.as_str())) }
        }
        other => other,
    }
}

/// Whether somebody asked for an end of what is being carried out.
pub fn is_cancelled(operation: &Operation) -> bool {
    matches!(operation.state, State::Processing { cancel_requested: true, .. })
}

/// What stands before the last error of an operation that was cancelled or given up.
pub const LAST_ERROR: &str = "; its last error was: ";

/// The failure of an operation that was cancelled.
pub fn cancelled(last_error: Option<&str>) -> Failure {
    let last = last_error.map_or_else(String::new, |error| format!("{LAST_ERROR}{error}"));
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::CANCELLED.into(),
        message: format!("cancelled by hand{last}"),
    }
}

fn in_doubt(why: &str) -> Failure {
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::IN_DOUBT.into(),
        message: format!("it may have been done, and repeating it may do harm: {why}; look, then retry or cancel it"),
    }
}

fn message_of(error: &AttemptError) -> String {
    match error {
        AttemptError::Failed { failure, .. } | AttemptError::Unanswered(failure) => failure.message.clone(),
        AttemptError::Stopped => "the question was interrupted".into(),
    }
}
