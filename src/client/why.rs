use super::{Client, ClientError, Reference};
use crate::operation::{
    FailureClass, Operation, OperationId, State, Status, Time, Wait, failure, retry,
};
use crate::wal::DependencyState;
use crate::worker;

/// Why an operation stands where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The operation.
    pub operation: Operation,
    /// A stable word for the reason.
    pub reason: Reason,
    /// The reason in one sentence, with what would change it.
    pub sentence: String,
    /// When it is tried next, where that is known.
    pub next_attempt_at: Option<Time>,
}

/// The reasons, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is done.
    Completed,
    /// It failed.
    Failed,
    /// Somebody cancelled it, or marked it as one that never succeeds.
    Cancelled,
    /// It goes on as another operation.
    Redirected,
    /// What it waited for has failed.
    DependencyFailed,
    /// It may have been done.
    InDoubt,
    /// It is being carried out.
    Running,
    /// It is being carried out and was asked to stop.
    Stopping,
    /// Its drain loop died.
    LoopDied,
    /// It is set aside.
    Held,
    /// It waits for others.
    WaitsForOthers,
    /// It was logged with a delay.
    Delayed,
    /// An attempt failed, and the next one is not due.
    Backoff,
    /// Its backend is not configured, or not built into this program.
    NoBackend,
    /// Its backend is away.
    BackendAway,
    /// It is due, and no drain loop runs.
    NoDrainLoop,
    /// It is due, and its turn comes.
    Queued,
}

impl Reason {
    /// All of them.
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
        Reason::BackendAway,
        Reason::NoDrainLoop,
        Reason::Queued,
    ];

    /// The word in JSON.
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
            Reason::BackendAway => "backend_away",
            Reason::NoDrainLoop => "no_drain_loop",
            Reason::Queued => "queued",
        }
    }
}

impl Client {
    /// Why an operation isn't done, what would unblock it, and when it is tried next.
    pub fn why(&self, reference: &Reference) -> Result<Why, ClientError> {
        let operation = self.operation(reference)?;
        let (reason, sentence, next_attempt_at) = match operation.status() {
            Status::Completed => (Reason::Completed, self.why_completed(&operation)?, None),
            Status::Failed => self.why_failed(&operation)?,
            Status::Processing => self.why_processing(&operation)?,
            Status::Pending | Status::Retrying => self.why_waiting(&operation)?,
        };
        Ok(Why { operation, reason, sentence, next_attempt_at })
    }

    fn why_completed(&self, operation: &Operation) -> Result<String, ClientError> {
        Ok(match operation.redirected_to {
            Some(id) => format!(
                "it was done; what it had brought about was not there any more, so it went on as {}",
                self.named_with_status(id)?
            ),
            None => "it is done".to_owned(),
        })
    }

    fn named_with_status(&self, id: OperationId) -> Result<String, ClientError> {
        let to = self.with_view(|view| view.operation_by_id(id))?;
        Ok(to.map_or_else(
            || id.to_string(),
            |to| format!("operation {} ({})", to.number, to.status()),
        ))
    }

    fn why_failed(
        &self,
        operation: &Operation,
    ) -> Result<(Reason, String, Option<Time>), ClientError> {
        let n = operation.number;
        if let Some(id) = operation.redirected_to {
            return Ok((
                Reason::Redirected,
                format!("it went on as {}", self.named_with_status(id)?),
                None,
            ));
        }
        let State::Failed { failure, .. } = &operation.state else {
            return Ok((Reason::Failed, "it failed".into(), None));
        };
        let message = failure.message.trim_end_matches('.');
        let (reason, advice) = match failure.error_type.as_str() {
            failure::CANCELLED | failure::PERMANENT => {
                (Reason::Cancelled, format!("`wal-cli retry {n}` brings it back"))
            }
            failure::DEPENDENCY => return Ok((Reason::DependencyFailed, message.to_owned(), None)),
            failure::IN_DOUBT => {
                (Reason::InDoubt, format!("if it was not done, `wal-cli retry {n}`"))
            }
            _ if failure.class == FailureClass::Permanent => {
                (Reason::Failed, format!("once the cause is gone, `wal-cli retry {n}` tries again"))
            }
            _ => {
                let attempts = operation.retry_count + 1;
                let spent =
                    format!("all {attempts} attempts are spent; `wal-cli retry {n}` starts over");
                (Reason::Failed, spent)
            }
        };
        Ok((reason, format!("{message}; {advice}"), None))
    }

    fn why_processing(
        &self,
        operation: &Operation,
    ) -> Result<(Reason, String, Option<Time>), ClientError> {
        let Some(claim) = operation.claim() else {
            return Ok((Reason::Running, "it runs".into(), None));
        };
        let alive = self.is_running(operation)?;
        let stopping = worker::is_cancelled(operation);
        if !alive && let Some(what) = self.still_running(operation) {
            let n = operation.number;
            let next = format!(
                "its drain loop is dead, and the next `wal-cli process` after its end sees what became of it; \
                 `wal-cli cancel {n}` gives it up"
            );
            return Ok((Reason::Running, format!("{what}; {next}"), None));
        }
        Ok(match (alive, stopping) {
            (true, false) => {
                let health = self
                    .known_health()
                    .into_iter()
                    .find(|health| health.backend == operation.backend);
                let missed = health.filter(|health| health.last_check > Some(claim.started));
                let away =
                    missed.and_then(|health| health.failure).map_or_else(String::new, |failure| {
                        let message = failure.message.trim_end_matches('.');
                        format!(
                            "; its backend `{}` was away when it was last checked: {message}",
                            operation.backend
                        )
                    });
                let text = format!(
                    "process {} has been carrying it out since {}{away}",
                    claim.pid, claim.started
                );
                (Reason::Running, text, None)
            }
            (true, true) => (
                Reason::Stopping,
                format!("process {} was asked to stop carrying it out", claim.pid),
                None,
            ),
            (false, _) => {
                let ended = "the process that carried it out has ended without an answer";
                let next = "the next `wal-cli process` asks its backend what became of it";
                let backend = &operation.backend;
                let away = match self.backends.get(backend) {
                    Some(_) => String::new(),
                    None => format!(", once `{backend}` is configured"),
                };
                (Reason::LoopDied, format!("{ended}; {next}{away}"), None)
            }
        })
    }

    /// What goes on of what a dead drain loop started for it, if anything does.
    fn still_running(&self, operation: &Operation) -> Option<String> {
        let request = worker::request_of(operation, &self.layout);
        self.backends.get(&operation.backend)?.detached_work(&request)
    }

    fn why_waiting(
        &self,
        operation: &Operation,
    ) -> Result<(Reason, String, Option<Time>), ClientError> {
        let (n, backend, now) = (operation.number, &operation.backend, self.clock.now());
        if operation.hold {
            return Ok((
                Reason::Held,
                format!("it is held; `wal-cli release {n}` lets it go on"),
                None,
            ));
        }
        if !operation.depends_on.is_empty() {
            return self.why_dependent(operation);
        }
        if self.backends.get(backend).is_none() {
            let what = match self.backends.names().any(|(name, _)| name == backend) {
                true => "this version cannot carry out yet",
                false => "is not configured",
            };
            let advice = format!("`wal-cli retry {n} --backend NAME` sends it elsewhere");
            return Ok((
                Reason::NoBackend,
                format!("its backend is `{backend}`, which {what}; {advice}"),
                None,
            ));
        }
        if let Some(until) = operation.not_before
            && !(Wait { since: operation.logged_at, until }).is_over(now)
        {
            return Ok((
                Reason::Delayed,
                format!("it was logged to be tried not before {until}"),
                Some(until),
            ));
        }
        if let State::Retrying { failure, wait } = &operation.state
            && !wait.is_over(now)
        {
            let (count, max) = (operation.retry_count, operation.max_retries);
            let message = failure.message.trim_end_matches('.');
            let text = format!(
                "attempt {count} of {} failed: {message}; the next one is due at {}, and `wal-cli retry {n} --now` \
                 makes it due",
                max.saturating_add(1),
                wait.until
            );
            return Ok((Reason::Backoff, text, Some(wait.until)));
        }
        // Whoever carries out operations of its own, or those of another backend, does not take this one.
        let elsewhere = |command: &str| {
            !command.starts_with("process")
                || command
                    .split_once("--backend ")
                    .is_some_and(|(_, name)| name != backend.as_str())
        };
        let running = self.running_loop()?.filter(|holder| !elsewhere(&holder.command));
        let away = self.away(operation);
        let next = match &running {
            Some(holder) => format!("process {} tries again when it answers", holder.pid),
            None => "no drain loop runs: `wal-cli process` tries again".to_owned(),
        };
        if let Some(message) = away {
            let message = message.trim_end_matches('.');
            return Ok((
                Reason::BackendAway,
                format!("its backend `{backend}` is away: {message}; {next}"),
                None,
            ));
        }
        if running.is_none() {
            return Ok((
                Reason::NoDrainLoop,
                "it is due, and no drain loop runs; `wal-cli process` carries it out".into(),
                None,
            ));
        }
        let turn = if operation.interruptions >= retry::ALONE_AFTER {
            ", alone and last, since it has ended drain loops before"
        } else if retry::outage_rank(operation).is_some() {
            ", after the others, since it keeps finding its backend away"
        } else {
            ""
        };
        let is_limited = running.is_some_and(|holder| {
            ["--max-time", "--limit", "-n "].iter().any(|o| holder.command.contains(o))
        });
        let or_later =
            if is_limited { ", now or in the next run, since this one is limited" } else { "" };
        Ok((
            Reason::Queued,
            format!("it is due, and a drain loop runs: its turn comes{turn}{or_later}"),
            Some(now),
        ))
    }

    /// What was said last of its backend, if that was that it is away: by a check, or by the operation itself.
    fn away(&self, operation: &Operation) -> Option<String> {
        let known =
            self.known_health().into_iter().find(|health| health.backend == operation.backend);
        let (checked_at, missed) =
            known.map_or((None, None), |health| (health.last_check, health.failure));
        let own = operation.state.failure().filter(|failure| failure.class == FailureClass::Outage);
        let since = operation
            .history
            .iter()
            .rev()
            .find(|entry| entry.error.is_some())
            .map(|entry| entry.at);
        let own = own.filter(|_| since > checked_at);
        missed.as_ref().or(own).map(|failure| failure.message.clone())
    }

    fn why_dependent(
        &self,
        operation: &Operation,
    ) -> Result<(Reason, String, Option<Time>), ClientError> {
        let mut open = Vec::new();
        for id in &operation.depends_on {
            let fate = self.with_view(|view| view.dependency_state(*id))?;
            match fate {
                DependencyState::Done => {}
                DependencyState::Open(at) => {
                    let Some(other) = self.with_view(|view| view.operation_by_id(at))? else {
                        continue;
                    };
                    open.push(format!("operation {} ({})", other.number, other.status()));
                }
                DependencyState::Failed(other) => {
                    let text = format!(
                        "operation {}, which it waits for, has failed; the next `wal-cli process` fails this one too, \
                         unless `wal-cli retry {}` is done before",
                        other.number, other.number
                    );
                    return Ok((Reason::DependencyFailed, text, None));
                }
                DependencyState::Unknown => {
                    let n = operation.number;
                    let text = format!(
                        "{id}, which it waits for, is gone; the next `wal-cli process` fails it, and `wal-cli retry {n}` \
                         then lets it go on without"
                    );
                    return Ok((Reason::DependencyFailed, text, None));
                }
            }
        }
        Ok(match open.as_slice() {
            [] => {
                let text = "all that it waited for is completed; the next `wal-cli process` carries it out";
                (Reason::NoDrainLoop, text.into(), None)
            }
            [one] => (
                Reason::WaitsForOthers,
                format!("it waits for {one}, and goes on when that is completed"),
                None,
            ),
            several => {
                let list = several.join(", ");
                (
                    Reason::WaitsForOthers,
                    format!("it waits for {list}, and goes on when they are completed"),
                    None,
                )
            }
        })
    }
}
