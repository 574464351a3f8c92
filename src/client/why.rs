//! Why an operation has not completed, and what would change that.

use std::time::Duration;

use super::query::is_running;
use super::{Client, ClientError, Reference};
use crate::operation::{
    FailureClass, Operation, OperationId, State, Status, Time, Wait, failure, retry,
};
use crate::wal::{DependencyState, DrainLoop, HolderNote};
use crate::worker;

/// An explanation of the state of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// The operation.
    pub operation: Operation,
    /// The reason.
    pub reason: Reason,
    /// The reason in one sentence, with what would change it.
    pub sentence: String,
    /// When the next attempt is due, where that is known.
    pub next_attempt_at: Option<Time>,
}

/// The reason why an operation is in its state, as a code for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It has completed.
    Completed,
    /// It failed.
    Failed,
    /// A user cancelled or abandoned it.
    Cancelled,
    /// It continues as another operation.
    Redirected,
    /// An operation that it depends on has failed.
    DependencyFailed,
    /// Its outcome is unknown.
    InDoubt,
    /// A drain loop executes it.
    Running,
    /// A drain loop executes it, and was asked to stop.
    Stopping,
    /// Its drain loop died.
    LoopDied,
    /// A user holds it.
    Held,
    /// Operations that it depends on have not completed.
    WaitsForOthers,
    /// It was logged with a delay.
    Delayed,
    /// An attempt failed, and the next one is not due.
    Backoff,
    /// Its backend is not configured, or not built into this program.
    NoBackend,
    /// Its backend is unreachable.
    BackendUnreachable,
    /// It is due, and no drain loop takes it.
    NoDrainLoop,
    /// It is due, and a drain loop will take it.
    Queued,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 17] = [
        Reason::Completed,
        Reason::Failed,
        Reason::Cancelled,
        Reason::Redirected,
        Reason::DependencyFailed,
        Reason::InDoubt,
        Reason::Running,
        Reason::Stopping,
        Reason::LoopDied,
        Reason::Held,
        Reason::WaitsForOthers,
        Reason::Delayed,
        Reason::Backoff,
        Reason::NoBackend,
        Reason::BackendUnreachable,
        Reason::NoDrainLoop,
        Reason::Queued,
    ];

    /// Returns the code in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Completed => "completed",
            Reason::Failed => "failed",
            Reason::Cancelled => "cancelled",
            Reason::Redirected => "redirected",
            Reason::DependencyFailed => "dependency_failed",
            Reason::InDoubt => "in_doubt",
            Reason::Running => "running",
            Reason::Stopping => "stopping",
            Reason::LoopDied => "loop_died",
            Reason::Held => "held",
            Reason::WaitsForOthers => "waits_for_others",
            Reason::Delayed => "delayed",
            Reason::Backoff => "backoff",
            Reason::NoBackend => "no_backend",
            Reason::BackendUnreachable => "backend_away",
            Reason::NoDrainLoop => "no_drain_loop",
            Reason::Queued => "queued",
        }
    }
}

/// A reason, its sentence, and the time of the next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Explanation {
    reason: Reason,
    sentence: String,
    next_attempt_at: Option<Time>,
}

impl Explanation {
    fn new(reason: Reason, sentence: impl Into<String>) -> Explanation {
        Explanation { reason, sentence: sentence.into(), next_attempt_at: None }
    }

    fn at(self, time: Time) -> Explanation {
        Explanation { next_attempt_at: Some(time), ..self }
    }
}

/// The facts, besides its own state, that decide on a waiting operation.
#[derive(Debug, Clone)]
struct Surroundings {
    now: Time,
    /// The reason why its backend cannot be used at all.
    unusable: Option<String>,
    /// The last failure to reach its backend, if it has not been reached since.
    outage: Option<String>,
    /// The process that holds `process.lock`.
    holder: Option<HolderNote>,
}

impl Client {
    /// Returns why an operation has not completed, what would change that, and when the next
    /// attempt is due.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoSuchOperation`] if there is none.
    pub fn why(&self, reference: &Reference) -> Result<Why, ClientError> {
        let operation = self.operation(reference)?;
        let explanation = match operation.status() {
            Status::Completed => explain_completed(self, &operation)?,
            Status::Failed => explain_ended(self, &operation)?,
            Status::Processing => explain_processing(self, &operation)?,
            Status::Pending | Status::Retrying => explain_open(self, &operation)?,
        };
        let Explanation { reason, sentence, next_attempt_at } = explanation;
        Ok(Why { operation, reason, sentence, next_attempt_at })
    }
}

fn explain_completed(client: &Client, operation: &Operation) -> Result<Explanation, ClientError> {
    let sentence = match operation.redirected_to {
        Some(id) => format!(
            "it completed, but its result was lost later, so it was reopened as {}",
            named_with_status(client, id)?
        ),
        None => "it has completed".to_owned(),
    };
    Ok(Explanation::new(Reason::Completed, sentence))
}

fn named_with_status(client: &Client, id: OperationId) -> Result<String, ClientError> {
    let to = client.with_view(|view| view.operation_by_id(id))?;
    Ok(to.map_or_else(|| id.to_string(), |to| format!("operation {} ({})", to.number, to.status())))
}

fn explain_ended(client: &Client, operation: &Operation) -> Result<Explanation, ClientError> {
    match operation.redirected_to {
        Some(id) => Ok(Explanation::new(
            Reason::Redirected,
            format!("it was redirected, and continues as {}", named_with_status(client, id)?),
        )),
        None => Ok(explain_failure(operation)),
    }
}

fn explain_processing(client: &Client, operation: &Operation) -> Result<Explanation, ClientError> {
    let Some(claim) = operation.claim() else {
        return Ok(Explanation::new(Reason::Running, "it is running"));
    };
    let backend = &operation.backend;
    if !is_running(client, operation)? {
        let n = operation.number;
        if let Some(what) = detached_work(client, operation) {
            let sentence = format!(
                "{what}; its drain loop has died, and once that work has ended, `wal-cli \
                     process` queries the outcome; run `wal-cli cancel {n}` to abandon it"
            );
            return Ok(Explanation::new(Reason::Running, sentence));
        }
        let condition = match client.backends.get(backend) {
            Some(_) => String::new(),
            None => format!(" once `{backend}` is configured"),
        };
        let sentence = format!(
            "the process that executed it has ended without recording an outcome; the next \
                 `wal-cli process` queries its backend{condition}"
        );
        return Ok(Explanation::new(Reason::LoopDied, sentence));
    }
    if worker::is_cancelled(operation) {
        let sentence = format!("process {} was asked to stop executing it", claim.pid);
        return Ok(Explanation::new(Reason::Stopping, sentence));
    }
    let known = client.known_health().into_iter().find(|health| health.backend == *backend);
    let missed = known.filter(|health| health.last_check > Some(claim.started));
    let outage = missed.and_then(|health| health.failure).map_or_else(String::new, |failure| {
        let message = failure.message.trim_end_matches('.');
        format!("; its backend `{backend}` was unreachable at the last check: {message}")
    });
    let sentence =
        format!("process {} has been executing it since {}{outage}", claim.pid, claim.started);
    Ok(Explanation::new(Reason::Running, sentence))
}

/// Returns the work that a dead drain loop has left running for this operation, if any.
fn detached_work(client: &Client, operation: &Operation) -> Option<String> {
    let request = worker::request_of(operation, &client.layout);
    client.backends.get(&operation.backend)?.detached_work(&request)
}

fn explain_open(client: &Client, operation: &Operation) -> Result<Explanation, ClientError> {
    if !operation.hold && !operation.depends_on.is_empty() {
        return explain_dependent(client, operation);
    }
    let surroundings = Surroundings {
        now: client.clock.now(),
        unusable: unusable_backend(client, operation),
        outage: outage(client, operation),
        holder: client.running_loop()?,
    };
    Ok(explain_waiting(operation, &surroundings))
}

/// Returns the reason why the backend of an operation cannot be used, if it cannot.
fn unusable_backend(client: &Client, operation: &Operation) -> Option<String> {
    let backend = &operation.backend;
    if client.backends.get(backend).is_some() {
        return None;
    }
    Some(match client.backends.missing_key(backend) {
        Some(key) => format!("lacks the setting `backends.{backend}.{key}`"),
        None if client.backends.names().any(|(name, _)| name == backend) => {
            "is not supported by this program".to_owned()
        }
        None => "is not configured".to_owned(),
    })
}

/// Returns the failure to reach the backend of an operation, if the last check or the
/// operation itself failed to.
fn outage(client: &Client, operation: &Operation) -> Option<String> {
    let known =
        client.known_health().into_iter().find(|health| health.backend == operation.backend);
    let (checked_at, missed) =
        known.map_or((None, None), |health| (health.last_check, health.failure));
    let own = operation.state.failure().filter(|failure| failure.class == FailureClass::Outage);
    let since =
        operation.history.iter().rev().find(|entry| entry.error.is_some()).map(|entry| entry.at);
    let own = own.filter(|_| since > checked_at);
    missed.as_ref().or(own).map(|failure| failure.message.clone())
}

fn explain_dependent(client: &Client, operation: &Operation) -> Result<Explanation, ClientError> {
    let mut open = Vec::new();
    for id in &operation.depends_on {
        let state = client.with_view(|view| view.dependency_state(*id))?;
        match state {
            DependencyState::Done => {}
            DependencyState::Open(at) => {
                let Some(other) = client.with_view(|view| view.operation_by_id(at))? else {
                    continue;
                };
                open.push(format!("operation {} ({})", other.number, other.status()));
            }
            DependencyState::Failed(other) => {
                let number = other.number;
                let sentence = format!(
                    "it depends on operation {number}, which has failed; run `wal-cli retry \
                         {number}`, or the next drain loop fails this operation too"
                );
                return Ok(Explanation::new(Reason::DependencyFailed, sentence));
            }
            DependencyState::Unknown => {
                let sentence = format!(
                    "it depends on operation {id}, which no longer exists; the next drain loop \
                         fails it, and `wal-cli retry {}` then ignores that dependency",
                    operation.number
                );
                return Ok(Explanation::new(Reason::DependencyFailed, sentence));
            }
        }
    }
    Ok(match open.is_empty() {
        true => Explanation::new(
            Reason::NoDrainLoop,
            "all its dependencies have completed; run `wal-cli process`",
        ),
        false => Explanation::new(
            Reason::WaitsForOthers,
            format!("it waits for {} to complete", open.join(", ")),
        ),
    })
}

/// Explains a failed operation that was not redirected.
fn explain_failure(operation: &Operation) -> Explanation {
    let n = operation.number;
    let State::Failed { failure, .. } = &operation.state else {
        return Explanation::new(Reason::Failed, "it failed");
    };
    let message = failure.message.trim_end_matches('.');
    let (reason, advice) = match failure.error_type.as_str() {
        failure::CANCELLED | failure::PERMANENT => {
            (Reason::Cancelled, format!("run `wal-cli retry {n}` to queue it again"))
        }
        failure::DEPENDENCY => return Explanation::new(Reason::DependencyFailed, message),
        failure::IN_DOUBT => {
            (Reason::InDoubt, format!("if it has not taken effect, run `wal-cli retry {n}`"))
        }
        _ if failure.class == FailureClass::Permanent => {
            (Reason::Failed, format!("run `wal-cli retry {n}` once the cause is fixed"))
        }
        _ => {
            let attempts = operation.retry_count.saturating_add(1);
            let advice = format!(
                "all {attempts} attempts have failed; run `wal-cli retry {n}` to start over"
            );
            (Reason::Failed, advice)
        }
    };
    Explanation::new(reason, format!("{message}; {advice}"))
}

/// Explains a pending or retrying operation that depends on no other.
fn explain_waiting(operation: &Operation, surroundings: &Surroundings) -> Explanation {
    if let Some(explanation) = explain_not_due(operation, surroundings) {
        return explanation;
    }
    let backend = &operation.backend;
    let drain_loop = surroundings.holder.as_ref().and_then(|holder| {
        let work = holder.work.as_ref()?;
        Some((holder.pid, work))
    });
    let taken_by =
        drain_loop.filter(|(_, work)| work.backend.as_ref().is_none_or(|only| only == backend));
    if let Some(message) = &surroundings.outage {
        let message = message.trim_end_matches('.');
        let next = match taken_by {
            Some((pid, _)) => format!("process {pid} retries it when the backend answers"),
            None => "nothing is draining the log; run `wal-cli process`".to_owned(),
        };
        let sentence = format!("its backend `{backend}` is unreachable: {message}; {next}");
        return Explanation::new(Reason::BackendUnreachable, sentence);
    }
    match (taken_by, drain_loop) {
        (Some((pid, work)), _) => {
            let order = if operation.interruptions >= retry::ALONE_AFTER {
                ", after all others and alone, since drain loops have died while executing it"
            } else if retry::outage_rank(operation).is_some() {
                ", after all others, since its attempts keep finding the backend unreachable"
            } else {
                ""
            };
            let limits = limits_of(work).map_or_else(String::new, |limits| {
                format!(" in this run, which {limits}, or the next")
            });
            let sentence = format!("it is due, and process {pid} will execute it{order}{limits}");
            Explanation::new(Reason::Queued, sentence).at(surroundings.now)
        }
        (None, Some((pid, DrainLoop { backend: Some(only), .. }))) => Explanation::new(
            Reason::NoDrainLoop,
            format!(
                "it is due, but process {pid} drains backend `{only}` only; once that has ended, \
                 run `wal-cli process`"
            ),
        ),
        _ => Explanation::new(
            Reason::NoDrainLoop,
            "it is due, but nothing is draining the log; run `wal-cli process`",
        ),
    }
}

/// Explains a waiting operation that no drain loop may execute now; returns `None` if it is due.
fn explain_not_due(operation: &Operation, surroundings: &Surroundings) -> Option<Explanation> {
    let (n, backend, now) = (operation.number, &operation.backend, surroundings.now);
    if operation.hold {
        let sentence = format!("it is held; run `wal-cli release {n}`");
        return Some(Explanation::new(Reason::Held, sentence));
    }
    if let Some(why) = &surroundings.unusable {
        let sentence = format!(
            "its backend `{backend}` {why}; run `wal-cli retry {n} --backend NAME` to use another"
        );
        return Some(Explanation::new(Reason::NoBackend, sentence));
    }
    if let Some(until) = operation.not_before
        && !(Wait { since: operation.logged_at, until }).is_over(now)
    {
        let sentence = format!("it was logged with a delay, and is due at {until}");
        return Some(Explanation::new(Reason::Delayed, sentence).at(until));
    }
    if let State::Retrying { failure, wait } = &operation.state
        && !wait.is_over(now)
    {
        let message = failure.message.trim_end_matches('.');
        let sentence = format!(
            "attempt {} of {} failed: {message}; the next one is due at {}, or at once after \
             `wal-cli retry {n} --now`",
            operation.retry_count,
            operation.max_retries.saturating_add(1),
            wait.until
        );
        return Some(Explanation::new(Reason::Backoff, sentence).at(wait.until));
    }
    None
}

/// Returns the condition on which a limited drain loop ends before the log is drained.
fn limits_of(work: &DrainLoop) -> Option<String> {
    let limit = work.limit.map(|limit| match limit {
        1 => "1 operation".to_owned(),
        limit => format!("{limit} operations"),
    });
    let time = work.max_time_ms.map(|ms| format!("{:?}", Duration::from_millis(ms)));
    let limits: Vec<String> = limit.into_iter().chain(time).collect();
    (!limits.is_empty()).then(|| format!("ends after {}", limits.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{
        BackendName, Event, Failure, Fields, Logged, Number, OperationType, Revision, Transition,
        apply,
    };

    const NOW: Time = Time::from_millis(100_000);

    /// Returns a pending operation of backend `local`.
    fn waiting() -> Operation {
        let (kind, backend) =
            (OperationType::new("add").unwrap(), BackendName::new("local").unwrap());
        let logged = Logged::new(kind.clone(), backend.clone(), Fields::new(), 5);
        let transition = Transition {
            revision: Revision::FIRST,
            number: Number::new(3),
            id: OperationId::from_bytes([1; 16]),
            at: Time::from_millis(0),
            from: None,
            operation_type: kind,
            backend,
            actor: "test".into(),
            event: Event::Logged(Box::new(logged)),
        };
        apply(None, &transition).unwrap().unwrap()
    }

    fn failed(error_type: &str, class: FailureClass, retry_count: u32) -> Operation {
        let failure = Failure { class, error_type: error_type.into(), message: "it broke.".into() };
        let mut operation = waiting();
        operation.retry_count = retry_count;
        operation.state = State::Failed { at: NOW, failure };
        operation
    }

    #[test]
    fn every_kind_of_failure_has_its_advice() {
        use FailureClass::{Permanent, Transient};
        for (operation, reason, sentence) in [
            (
                failed(failure::CANCELLED, Permanent, 0),
                Reason::Cancelled,
                "it broke; run `wal-cli retry 3` to queue it again",
            ),
            (
                failed(failure::PERMANENT, Permanent, 0),
                Reason::Cancelled,
                "it broke; run `wal-cli retry 3` to queue it again",
            ),
            (failed(failure::DEPENDENCY, Permanent, 0), Reason::DependencyFailed, "it broke"),
            (
                failed(failure::IN_DOUBT, Permanent, 0),
                Reason::InDoubt,
                "it broke; if it has not taken effect, run `wal-cli retry 3`",
            ),
            (
                failed("not_found", Permanent, 0),
                Reason::Failed,
                "it broke; run `wal-cli retry 3` once the cause is fixed",
            ),
            (
                failed("busy", Transient, 5),
                Reason::Failed,
                "it broke; all 6 attempts have failed; run `wal-cli retry 3` to start over",
            ),
        ] {
            assert_eq!(explain_failure(&operation), Explanation::new(reason, sentence));
        }
    }

    fn holder(work: Option<DrainLoop>) -> Option<HolderNote> {
        Some(HolderNote {
            boot: "boot".into(),
            pid: 7,
            started: 1,
            command: "anything".into(),
            since: NOW,
            host: "host".into(),
            work,
        })
    }

    fn drain(backend: Option<&str>, limit: Option<u64>, ms: Option<u64>) -> Option<HolderNote> {
        let backend = backend.map(|name| BackendName::new(name).unwrap());
        holder(Some(DrainLoop { follow: false, backend, limit, max_time_ms: ms }))
    }

    /// One row per possible holder of the lock, with the explanation of an operation that is due.
    #[test]
    fn the_running_loop_decides_what_a_due_operation_waits_for() {
        let idle = "it is due, but nothing is draining the log; run `wal-cli process`";
        for (holder, reason, sentence) in [
            (None, Reason::NoDrainLoop, idle),
            (holder(None), Reason::NoDrainLoop, idle),
            (drain(None, None, None), Reason::Queued, "it is due, and process 7 will execute it"),
            (
                drain(Some("local"), None, None),
                Reason::Queued,
                "it is due, and process 7 will execute it",
            ),
            (
                drain(Some("s3"), None, None),
                Reason::NoDrainLoop,
                "it is due, but process 7 drains backend `s3` only; once that has ended, run \
                 `wal-cli process`",
            ),
            (
                drain(None, Some(1), None),
                Reason::Queued,
                "it is due, and process 7 will execute it in this run, which ends after 1 \
                 operation, or the next",
            ),
            (
                drain(None, Some(5), Some(90_000)),
                Reason::Queued,
                "it is due, and process 7 will execute it in this run, which ends after 5 \
                 operations or 90s, or the next",
            ),
        ] {
            let surroundings = Surroundings { now: NOW, unusable: None, outage: None, holder };
            let next_attempt_at = (reason == Reason::Queued).then_some(NOW);
            let sentence = sentence.to_owned();
            let expected = Explanation { reason, sentence, next_attempt_at };
            assert_eq!(explain_waiting(&waiting(), &surroundings), expected, "{surroundings:?}");
        }
    }

    /// The first obstacle in this order is the reason.
    #[test]
    fn obstacles_are_reported_in_order() {
        let mut operation = waiting();
        let failure = Failure {
            class: FailureClass::Transient,
            error_type: "busy".into(),
            message: "busy".into(),
        };
        let wait = Wait { since: NOW, until: NOW.plus_millis(1000) };
        operation.state = State::Retrying { failure, wait };
        operation.not_before = Some(NOW.plus_millis(500));
        operation.hold = true;
        let mut surroundings = Surroundings {
            now: NOW,
            unusable: Some("is not configured".into()),
            outage: Some("connection refused.".into()),
            holder: drain(None, None, None),
        };
        let mut reasons = Vec::new();
        for remove in 0..6 {
            match remove {
                0 => {}
                1 => operation.hold = false,
                2 => surroundings.unusable = None,
                3 => operation.not_before = None,
                4 => operation.state = State::Pending { last_failure: None },
                _ => surroundings.outage = None,
            }
            reasons.push(explain_waiting(&operation, &surroundings).reason);
        }
        let expected = [
            Reason::Held,
            Reason::NoBackend,
            Reason::Delayed,
            Reason::Backoff,
            Reason::BackendUnreachable,
            Reason::Queued,
        ];
        assert_eq!(reasons, expected);
    }
}
