//! The backend for a Kubo node, by its RPC.
//!
//! Nothing that the node says is believed that can be computed here: the CID of what is sent is computed while it
//! streams by, and what is fetched comes block by block, each checked against its hash.

mod audit;
mod dag;
mod errors;
mod names;
mod pins;
mod rpc;
mod send;
mod walk;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::errors::Result;
use super::files::stop_if_asked;
use super::http::{Credentials, Http, Limits, Trouble};
use super::network::Spell;
use super::parameters::Task;
use super::unixfs::{Cid, Options};
use super::{Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Request};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::operation::{Failure, FailureClass, OperationId, Outcome};
use rpc::{Refused, Rpc, RpcError, RpcResult};

/// How a node is reached, and what is asked of it.
#[derive(Debug, Clone)]
pub struct IpfsOptions {
    /// The backend's configured name, for messages.
    pub name: String,
    /// The address of the RPC.
    pub endpoint: String,
    /// Who we are to it.
    pub credentials: Credentials,
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long nothing may move.
    pub idle: Duration,
    /// How long an attempt may take.
    pub total: Option<Duration>,
    /// How long a probe may take.
    pub probe: Duration,
    /// Which CIDs content gets.
    pub unixfs: Options,
}

/// How long a question about an earlier attempt may take.
const QUESTION_MAX: Duration = Duration::from_secs(10);

/// For how long nobody asks a node that left a question unanswered: many questions may come in a row.
const SILENCE: Duration = Duration::from_secs(5);

/// Carries operations out on a Kubo node.
pub struct IpfsBackend {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    http: Http,
    /// How messages call it.
    node: String,
    options: IpfsOptions,
    /// What was sent as a whole without an answer: the CID that it has, if it arrived.
    sent: Mutex<HashMap<OperationId, Outcome>>,
    /// Until when it counts as away for questions, on the monotonic clock.
    silent_until: Mutex<Duration>,
}

impl fmt::Debug for IpfsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpfsBackend").field("node", &self.node).finish_non_exhaustive()
    }
}

impl IpfsBackend {
    /// A backend for one node; nothing is started, and nobody called, before it is first needed.
    pub fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: IpfsOptions) -> IpfsBackend {
        let limits = Limits { connect: options.connect, idle: options.idle, total: options.total };
        let http = Http::new(options.endpoint.clone(), options.credentials.clone(), limits);
        let node = format!("Kubo at {}", crate::config::mask("endpoint", &options.endpoint));
        IpfsBackend {
            disk,
            clock,
            http,
            node,
            options,
            sent: Mutex::default(),
            silent_until: Mutex::default(),
        }
    }

    fn session<'a>(
        &'a self,
        request: &'a Request,
        attempt: &'a Attempt,
        limits: Spell,
    ) -> Session<'a> {
        Session { backend: self, request, attempt, rpc: Rpc::new(&self.http, attempt, limits) }
    }

    /// Asks the node whether it is there; `Ok` if anybody who knows our credentials answers.
    fn probe(&self) -> RpcResult<()> {
        let attempt = Attempt::default();
        let rpc =
            Rpc::new(&self.http, &attempt, Spell::of(self.options.probe.min(self.options.connect)));
        // Every valid secret may ask for the version, whatever else it may.
        let answer = rpc.object("version", &[])?;
        let is_kubo = answer.get("Version").is_some_and(serde_json::Value::is_string);
        if is_kubo {
            Ok(())
        } else {
            Err(RpcError::Odd("`version` was answered without one".into()))
        }
    }

    fn remember(&self, id: OperationId, outcome: Outcome) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(id, outcome);
    }

    fn recall(&self, id: OperationId) -> Option<Outcome> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    /// A failure as it is told.
    fn failure(&self, class: FailureClass, error_type: &str, command: &str, what: &str) -> Failure {
        let message = format!("{} gave `{command}` no answer: {what}", self.node);
        Failure { class, error_type: error_type.into(), message }
    }

    fn away(&self, what: &str) -> Failure {
        let (node, name) = (&self.node, &self.options.name);
        // What a port says that speaks no TLS.
        let message = match what.contains("InvalidContentType") {
            true => format!(
                "{node} cannot be reached: it speaks no TLS; `backends.{name}.endpoint` may have to begin with `http:`"
            ),
            false => format!(
                "{node} cannot be reached: {what}; start it (`ipfs daemon`), or correct `backends.{name}.endpoint`"
            ),
        };
        Failure { class: FailureClass::Outage, error_type: "unreachable".into(), message }
    }

    /// What an error means for an attempt; `acted`: whether the command may have changed something.
    fn fail(&self, command: &str, error: RpcError, acted: bool) -> AttemptError {
        let unanswered = |failure| match acted {
            true => AttemptError::UnknownOutcome(failure),
            false => AttemptError::from(failure),
        };
        match error {
            RpcError::Trouble(Trouble::Stopped) if acted => unanswered(self.failure(
                FailureClass::Transient,
                "interrupted",
                command,
                "it was asked to stop before one came",
            )),
            RpcError::Trouble(Trouble::Stopped) => AttemptError::Stopped,
            RpcError::Trouble(Trouble::NoConnection(what)) => self.away(&what).into(),
            RpcError::Trouble(Trouble::NoNetwork(what)) => {
                let message =
                    format!("{} cannot be called from this machine now: {what}", self.node);
                AttemptError::failed(FailureClass::Outage, "no_network", message)
            }
            RpcError::Trouble(Trouble::Unusable(what)) => {
                let message = format!(
                    "{} cannot be called: {what}; correct `backends.{}.endpoint`, or its `token`, `username` and `password`",
                    self.node, self.options.name
                );
                AttemptError::failed(FailureClass::Outage, "misconfigured", message)
            }
            RpcError::Trouble(Trouble::BrokenOff(what)) => {
                self.lost(command, "connection_lost", &what, unanswered)
            }
            RpcError::Trouble(Trouble::TimedOut(what)) => {
                self.lost(command, "timed_out", &what, unanswered)
            }
            RpcError::Odd(what) => {
                unanswered(self.failure(FailureClass::Transient, "bad_answer", command, &what))
            }
            RpcError::Refused(refused) => self.refused(command, &refused, acted),
        }
    }

    /// What a refusal means for an attempt.
    fn refused(&self, command: &str, refused: &Refused, acted: bool) -> AttemptError {
        let failed = errors::meaning(refused, command, &self.node, self.clock.now());
        let AttemptError::Failed { mut failure, retry_after_ms } = failed else { return failed };
        // Whether it goes down, or only gave up on this one, is seen by asking.
        let may_be_away = [errors::GOING_DOWN, errors::UNKNOWN, errors::UNAVAILABLE];
        // Whether it refuses this, or us: that is no fault of the operation's, and passes when the settings are corrected.
        let may_be_closed = errors::OF_SETTINGS.contains(&&failure.error_type[..]);
        if may_be_away.contains(&&failure.error_type[..]) && is_away(&self.probe())
            || may_be_closed && is_closed(&self.probe())
        {
            failure.class = FailureClass::Outage;
        }
        // Who has too much to do has not begun. Anything else that may pass may have come up after it was done.
        let not_begun =
            refused.status == 503 || may_be_closed || failure.error_type == errors::RATE_LIMITED;
        if acted && !not_begun && failure.class != FailureClass::Permanent {
            return AttemptError::UnknownOutcome(failure);
        }
        AttemptError::Failed { failure, retry_after_ms }
    }

    /// An exchange that broke off: whether the node is still there decides whose fault it is.
    fn lost(
        &self,
        command: &str,
        error_type: &str,
        what: &str,
        unanswered: impl FnOnce(Failure) -> AttemptError,
    ) -> AttemptError {
        match self.probe() {
            probed if is_away(&probed) => {
                let what = format!("{what}, and it does not answer a probe either");
                unanswered(self.failure(FailureClass::Outage, error_type, command, &what))
            }
            // Kubo refuses before it has read what is sent, and that then ends in a reset.
            Err(RpcError::Refused(refused)) if matches!(refused.status, 401 | 403) => {
                match errors::meaning(&refused, command, &self.node, self.clock.now()) {
                    AttemptError::Failed { failure, .. } => {
                        Failure { class: FailureClass::Outage, ..failure }.into()
                    }
                    other => other,
                }
            }
            Ok(()) | Err(_) => {
                unanswered(self.failure(FailureClass::Transient, error_type, command, what))
            }
        }
    }
}

/// One attempt, or one question about one.
#[derive(Clone, Copy)]
struct Session<'a> {
    backend: &'a IpfsBackend,
    request: &'a Request,
    attempt: &'a Attempt,
    rpc: Rpc<'a>,
}

impl Session<'_> {
    /// The result of a command that changes nothing.
    fn read<T>(&self, command: &str, result: RpcResult<T>) -> Result<T> {
        result.map_err(|error| self.backend.fail(command, error, false))
    }

    /// The result of a command that changes something.
    fn acted<T>(&self, command: &str, result: RpcResult<T>) -> Result<T> {
        result.map_err(|error| self.backend.fail(command, error, true))
    }
}

impl Backend for IpfsBackend {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome> {
        let task = Task::of(request, self.options.unixfs)?;
        stop_if_asked(attempt)?;
        let limits = self.http.limits();
        let session = self.session(request, attempt, Spell::begin(limits.idle, limits.total));
        match task {
            Task::Add { path, recursive, options } => session.add(&path, recursive, options),
            Task::Upload { path, destination, recursive, options } => {
                session.upload(&path, &destination, recursive, options)
            }
            Task::Get { source, destination } => session.get(&source, &destination, true),
            Task::Cat { source, destination } => session.get(&source, &destination, false),
            Task::Pin { cid } => session.pin(&cid),
            Task::Unpin { cid } => session.unpin(&cid),
            Task::RemoveContent { cid, .. } => session.remove_content(&cid),
            Task::RemoveName { name, recursive } => session.remove_name(&name, recursive),
            Task::List { what, destination } => session.list(&what, destination.as_deref()),
            Task::MakeDirectory { name } => session.make_directory(&name),
            Task::Copy { source, destination } => session.copy(&source, &destination),
            Task::Move { source, destination } => session.move_name(&source, &destination),
        }
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus> {
        let silent_until = || self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = Attempt::default();
        let session =
            self.session(request, &attempt, Spell::of(self.options.idle.min(QUESTION_MAX)));
        let task = Task::of(request, self.options.unixfs)?;
        let does_harm = matches!(
            task,
            Task::RemoveContent { .. } | Task::RemoveName { .. } | Task::Move { .. }
        );
        let answer = match task {
            Task::Get { .. }
            | Task::Cat { .. }
            | Task::List { .. }
            | Task::MakeDirectory { .. } => {
                return Ok(AttemptStatus::NotDone);
            }
            _ if self.clock.elapsed() < *silent_until() => {
                let failure = self.away("it left a question unanswered just now");
                return if does_harm { Err(failure.into()) } else { Ok(AttemptStatus::NotDone) };
            }
            Task::Add { .. } => session.ask_added(),
            Task::Upload { destination, .. } => session.ask_uploaded(&destination),
            Task::Pin { cid } => session.ask_pinned(&cid),
            Task::Unpin { cid } => session.ask_unpinned(&cid),
            Task::RemoveContent { cid, .. } => session.ask_removed_content(&cid),
            Task::Copy { source, destination } => session.ask_copied(&source, &destination),
            Task::RemoveName { name, .. } => session.ask_removed(&name),
            Task::Move { source, destination } => session.ask_moved(&source, &destination),
        };
        if matches!(&answer, Err(AttemptError::Failed { failure, .. }) if failure.class == FailureClass::Outage)
        {
            *silent_until() = self.clock.elapsed() + SILENCE;
        }
        // What may be repeated without harm is repeated where nobody can be asked.
        if does_harm { answer } else { Ok(answer.unwrap_or(AttemptStatus::NotDone)) }
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult> {
        // A directory of the original may have been adopted without its operations' parameters.
        let Ok(task) = Task::of(request, self.options.unixfs) else {
            return Ok(AuditResult::NotApplicable);
        };
        self.session(request, attempt, Spell::of(self.options.idle.min(QUESTION_MAX)))
            .look_again(&task, outcome)
    }

    fn health(&self) -> std::result::Result<(), Failure> {
        let attempt = Attempt::default();
        let rpc =
            Rpc::new(&self.http, &attempt, Spell::of(self.options.probe.min(self.options.connect)));
        let answer = match rpc.object("id", &[]) {
            Ok(answer) if answer.get("ID").is_some_and(serde_json::Value::is_string) => Ok(()),
            Ok(_) => Err(RpcError::Odd("`id` was answered without one".into())),
            // These credentials may not ask for that.
            Err(RpcError::Refused(refused)) if refused.status == 403 => self.probe(),
            Err(error) => Err(error),
        };
        match answer {
            Ok(()) => Ok(()),
            Err(RpcError::Trouble(Trouble::BrokenOff(what) | Trouble::TimedOut(what))) => {
                Err(self.away(&what))
            }
            Err(error) => match self.fail("id", error, false) {
                AttemptError::Failed { failure, .. } | AttemptError::UnknownOutcome(failure) => {
                    Err(failure)
                }
                AttemptError::Stopped => Ok(()),
            },
        }
    }
}

/// Whether a probe finds nobody, or only a proxy that finds nobody.
fn is_away(probed: &RpcResult<()>) -> bool {
    match probed {
        Err(RpcError::Trouble(_)) => true,
        Err(RpcError::Refused(refused)) => matches!(refused.status, 502..=504),
        _ => false,
    }
}

/// Whether nobody like us gets in, or it is not Kubo that answers.
fn is_closed(probed: &RpcResult<()>) -> bool {
    matches!(probed, Err(RpcError::Refused(refused)) if (300..500).contains(&refused.status))
}

/// Whether two CIDs name the same block, however they are written.
fn same(a: &Cid, b: &Cid) -> bool {
    a.codec() == b.codec() && a.hash() == b.hash()
}
