//! Decides, by its status, what an action does to one operation. Pure.

use crate::backend::Refusal;
use crate::client::successor::{PAIRS_BYTES_MAX, pair_bytes};
use crate::operation::{
    BackendName, Event, Failure, FailureClass, Number, Operation, Source, Status, failure,
};
use crate::worker;

/// Reason recorded with transitions that a user requested.
const BY_HAND: &str = "asked for by hand";

/// The effect of an action on one operation.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// This transition is applied.
    Apply(Event),
    /// The operation is already in the requested state.
    Unchanged,
    /// The action does not apply, for this reason.
    Refused(String),
}

pub(super) fn refused(why: &str) -> Decision {
    Decision::Refused(why.to_owned())
}

pub(super) fn cancel(operation: &Operation) -> Decision {
    match operation.status() {
        Status::Pending | Status::Retrying => {
            let last = operation.state.failure().map(|failure| failure.message.as_str());
            Decision::Apply(Event::Failed { failure: worker::cancelled(last) })
        }
        Status::Processing if worker::is_cancelled(operation) => Decision::Unchanged,
        Status::Processing => {
            Decision::Apply(Event::CancelRequested { reason: "cancelled by hand".into() })
        }
        Status::Completed => refused("it is already completed"),
        Status::Failed => {
            refused("it has already failed; `cancel --permanent` marks it as permanently failed")
        }
    }
}

/// Cancels permanently: no automatic step retries the operation.
pub(super) fn abandon(operation: &Operation) -> Decision {
    let last = operation.state.failure();
    match operation.status() {
        Status::Pending | Status::Retrying => {
            Decision::Apply(Event::Abandoned { failure: abandoned_failure(last) })
        }
        Status::Failed if operation.redirected_to.is_none() => match last {
            Some(failure) if failure.error_type == failure::PERMANENT => Decision::Unchanged,
            last => Decision::Apply(Event::Abandoned { failure: abandoned_failure(last) }),
        },
        Status::Processing => {
            refused("it is running; cancel it without --permanent, and mark it when it has ended")
        }
        Status::Completed | Status::Failed => cancel(operation),
    }
}

pub(super) fn hold(operation: &Operation) -> Decision {
    match operation.status() {
        Status::Completed | Status::Failed => refused("it has ended, so there is nothing to hold"),
        _ if operation.hold => Decision::Unchanged,
        _ => Decision::Apply(Event::Held { reason: BY_HAND.into() }),
    }
}

pub(super) fn release(operation: &Operation) -> Decision {
    if operation.hold && operation.status() != Status::Completed {
        Decision::Apply(Event::HoldReleased { reason: BY_HAND.into() })
    } else {
        Decision::Unchanged
    }
}

/// `dependent` is an operation that waits for this one and is not deleted with it.
pub(super) fn delete(operation: &Operation, dependent: Option<Number>) -> Decision {
    match (operation.status(), dependent) {
        (Status::Processing, _) => refused("it is running; cancel it first"),
        (_, Some(number)) => Decision::Refused(format!(
            "operation {number} waits for it; cancel or delete that one first"
        )),
        (_, None) => Decision::Apply(Event::Deleted { reason: BY_HAND.into() }),
    }
}

pub(super) fn prioritize(operation: &Operation, priority: i32) -> Decision {
    match operation.status() {
        Status::Completed | Status::Failed => {
            refused("it has ended, so its priority has no effect")
        }
        _ if operation.priority == priority => Decision::Unchanged,
        _ => Decision::Apply(Event::Prioritized { priority }),
    }
}

/// With `now`, only the backoff of a retrying operation ends; its counters stay.
pub(super) fn retry(operation: &Operation, now: bool) -> Decision {
    match operation.status() {
        Status::Retrying if now => {
            Decision::Apply(Event::BackoffEnded { reason: "its backoff was ended by hand".into() })
        }
        Status::Failed | Status::Retrying => Decision::Apply(Event::Retried {
            reason: BY_HAND.into(),
            forget: Vec::new(),
            source: None,
        }),
        status => {
            let allowed = "only failed and retrying operations can be retried";
            Decision::Refused(format!("it is {status}; {allowed}"))
        }
    }
}

/// The copy in the log is what was logged, so it is given up only if it is damaged or missing.
/// `present` returns the state of the source file.
pub(super) fn accept_source(
    operation: &Operation,
    present: impl FnOnce() -> Result<Source, String>,
) -> Decision {
    let Status::Failed = operation.status() else {
        return Decision::Refused(format!(
            "it is {}; only failed operations take over the present state of their source",
            operation.status()
        ));
    };
    let has_copy = operation.source.as_ref().is_some_and(Source::is_spooled);
    let error_type = operation.state.failure().map(|failure| &failure.error_type[..]);
    if has_copy && !matches!(error_type, Some("spool_damaged" | "not_found")) {
        return refused("it has a copy in the log; retry it without --accept-source");
    }
    match present() {
        Ok(source) => Decision::Apply(Event::Retried {
            reason: "the present state of its source was accepted by hand".into(),
            forget: Vec::new(),
            source: Some(Box::new(source)),
        }),
        Err(why) => Decision::Refused(why),
    }
}

/// `refusal` is the error of the other backend if it does not take the operation.
pub(super) fn redirect(
    operation: &Operation,
    backend: &BackendName,
    refusal: Option<Refusal>,
) -> Decision {
    match operation.status() {
        Status::Processing => refused("it is running; cancel it first"),
        Status::Completed => refused("it is already completed"),
        _ if operation.backend == *backend => Decision::Refused(format!(
            "it is already an operation of `{backend}`; retry it without --backend"
        )),
        _ if pair_bytes(operation) > PAIRS_BYTES_MAX => refused("its parameters are too large"),
        _ => match refusal {
            Some(refusal) => Decision::Refused(refusal.to_string()),
            None => Decision::Apply(Event::Redirected {
                to: operation.id,
                failure: redirected_failure(backend),
            }),
        },
    }
}

fn abandoned_failure(last: Option<&Failure>) -> Failure {
    let last = last.and_then(|failure| match failure.error_type.as_str() {
        failure::CANCELLED => failure.message.split_once(worker::LAST_ERROR).map(|(_, last)| last),
        _ => Some(failure.message.as_str()),
    });
    let last = last.map_or_else(String::new, |last| format!("{}{last}", worker::LAST_ERROR));
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::PERMANENT.into(),
        message: format!("marked by hand as permanently failed{last}"),
    }
}

fn redirected_failure(backend: &BackendName) -> Failure {
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::REDIRECTED.into(),
        message: format!("redirected by hand: it continues as an operation of `{backend}`"),
    }
}

#[cfg(test)]
mod tests;
