//! The backend for a Kubo node, through its RPC.
//!
//! Nothing that can be computed here is taken from the node: the CID of content that is sent is
//! computed on the way, and content that is fetched comes block by block, each checked against its
//! hash.

mod add;
mod add_response;
mod audit;
mod dag;
mod errors;
mod form;
mod http;
mod list;
mod mfs;
mod pins;
mod rpc;
mod walk;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::configured::{Configured, Context};
use super::errors::Result;
use super::files::stop_if_asked;
use super::parameters::StandardOperation;
use super::runtime::{Deadline, SideEffect};
use super::standard::{self, Retention};
use super::unixfs::{Cid, Options};
use super::{
    Addressing, Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Effect, OperationTypes,
    Request,
};
use crate::clock::Clock;
use crate::config::{IpfsSettings, Secret};
use crate::disk::Disk;
use crate::operation::{Failure, FailureClass, OperationId, Outcome};
use dag::Dag;
pub use http::Credentials;
use http::{CallError, HttpClient, Timeouts};
use mfs::Mfs;
use pins::Pins;
use rpc::{Rpc, RpcError, RpcRejection, RpcResult};

/// The settings of an [`IpfsBackend`].
#[derive(Debug, Clone)]
pub struct IpfsOptions {
    /// The backend's configured name, for messages.
    pub name: String,
    /// The URL of the RPC.
    pub endpoint: String,
    /// The credentials for the RPC.
    pub credentials: Credentials,
    /// The longest time until a connection is established.
    pub connect: Duration,
    /// The longest time without progress.
    pub idle: Duration,
    /// The longest time for an attempt, if it is limited.
    pub total: Option<Duration>,
    /// The longest time for a probe.
    pub probe: Duration,
    /// The UnixFS options, which decide the CIDs of new content.
    pub unixfs: Options,
}

/// Builds the backend from its settings.
pub(super) fn configure(ipfs: &IpfsSettings, context: &Context<'_>) -> Configured {
    let Context { name, settings, disk, clock } = context;
    let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
    let credentials = match (text(&ipfs.token), &ipfs.username) {
        (Some(token), _) => Credentials::Bearer(token),
        (None, Some(user)) => {
            Credentials::Basic(user.clone(), text(&ipfs.password).unwrap_or_default())
        }
        (None, None) => Credentials::None,
    };
    let options = IpfsOptions {
        name: name.to_string(),
        endpoint: ipfs.endpoint.clone().unwrap_or_default(),
        credentials,
        connect: ipfs.timeouts.connection,
        idle: ipfs.timeouts.idle,
        total: Some(ipfs.timeouts.total).filter(|total| !total.is_zero()),
        probe: settings.health_check_timeout,
        unixfs: Options::from(&ipfs.unixfs),
    };
    let missing = ipfs.endpoint.is_none().then_some("endpoint");
    let backend = IpfsBackend::new(disk.clone(), clock.clone(), options);
    Configured { missing, ..Configured::complete(backend) }
}

/// The time without queries after one that the node did not answer, because many may follow in a
/// row.
const QUERY_PAUSE: Duration = Duration::from_secs(5);

/// The longest time for which a node that shuts down is still reachable after it cancelled its
/// commands: it then closes its port, which a busy machine delays.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// The time between two probes of a node that may be shutting down.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// A backend that carries operations out on a Kubo node.
pub struct IpfsBackend {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    http: HttpClient,
    /// The node's name in messages.
    node: String,
    options: IpfsOptions,
    /// The outcomes of content that was sent completely without a response, if it arrived.
    sent: Mutex<HashMap<OperationId, Outcome>>,
    /// The end of the current pause in queries, on the monotonic clock.
    no_queries_until: Mutex<Duration>,
}

impl fmt::Debug for IpfsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpfsBackend").field("node", &self.node).finish_non_exhaustive()
    }
}

impl IpfsBackend {
    /// Returns a backend for one node; nothing is started or sent before the first call.
    pub fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: IpfsOptions) -> IpfsBackend {
        let timeouts =
            Timeouts { connect: options.connect, idle: options.idle, total: options.total };
        let http = HttpClient::new(options.endpoint.clone(), options.credentials.clone(), timeouts);
        let node = format!("Kubo at {}", crate::config::redact("endpoint", &options.endpoint));
        IpfsBackend {
            disk,
            clock,
            http,
            node,
            options,
            sent: Mutex::default(),
            no_queries_until: Mutex::default(),
        }
    }

    fn session<'a>(
        &'a self,
        request: &'a Request,
        attempt: &'a Attempt,
        deadline: Deadline,
    ) -> KuboSession<'a> {
        KuboSession {
            backend: self,
            request,
            attempt,
            rpc: Rpc::new(&self.http, attempt, deadline),
        }
    }

    fn query_deadline(&self) -> Deadline {
        Deadline::for_query(self.options.idle)
    }

    fn probe_deadline(&self) -> Deadline {
        Deadline::after(self.options.probe.min(self.options.connect))
    }

    /// Asks the node for its version, which every valid credential may do.
    fn probe(&self) -> RpcResult<()> {
        let attempt = Attempt::default();
        let rpc = Rpc::new(&self.http, &attempt, self.probe_deadline());
        let response = rpc.json("version", &[])?;
        let is_kubo = response.get("Version").is_some_and(serde_json::Value::is_string);
        match is_kubo {
            true => Ok(()),
            false => {
                Err(RpcError::Unexpected("the response to `version` contains no version".into()))
            }
        }
    }

    fn remember_sent(&self, id: OperationId, outcome: Outcome) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(id, outcome);
    }

    fn take_sent(&self, id: OperationId) -> Option<Outcome> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    fn incomplete(
        &self,
        class: FailureClass,
        error_type: &str,
        command: &str,
        reason: &str,
    ) -> Failure {
        let message = format!("{} did not complete `{command}`: {reason}", self.node);
        Failure { class, error_type: error_type.into(), message }
    }

    fn unreachable(&self, reason: &str) -> Failure {
        let (node, name) = (&self.node, &self.options.name);
        // rustls reports this if the server does not speak TLS.
        let message = match reason.contains("InvalidContentType") {
            true => format!(
                "{node} is unreachable: the server does not speak TLS; \
                 `backends.{name}.endpoint` may have to begin with `http:`"
            ),
            false => format!(
                "{node} is unreachable: {reason}; start it (`ipfs daemon`), or correct \
                 `backends.{name}.endpoint`"
            ),
        };
        Failure { class: FailureClass::Outage, error_type: "unreachable".into(), message }
    }

    /// Returns what an error of a command means for the attempt.
    fn attempt_error(&self, command: &str, error: RpcError, effect: SideEffect) -> AttemptError {
        let error = match error {
            RpcError::Call(error) => error,
            RpcError::Unexpected(reason) => {
                let class = FailureClass::Transient;
                return effect.error(self.incomplete(class, "bad_answer", command, &reason));
            }
            RpcError::Rejected(rejection) => return self.rejected(command, &rejection, effect),
        };
        match error {
            CallError::Cancelled if effect == SideEffect::Possible => {
                let reason = "the attempt was cancelled before a response arrived";
                let class = FailureClass::Transient;
                effect.error(self.incomplete(class, "interrupted", command, reason))
            }
            CallError::Cancelled => AttemptError::Stopped,
            CallError::ConnectFailed(reason) => self.unreachable(&reason).into(),
            CallError::NoNetwork(reason) => {
                let message = format!("this machine cannot call {} now: {reason}", self.node);
                AttemptError::failed(FailureClass::Outage, "no_network", message)
            }
            CallError::InvalidRequest(reason) => {
                let message = format!(
                    "cannot call {}: {reason}; correct `backends.{}.endpoint`, or its `token`, \
                     `username` and `password`",
                    self.node, self.options.name
                );
                AttemptError::failed(FailureClass::Outage, "misconfigured", message)
            }
            CallError::ConnectionLost(reason) => {
                self.interrupted(command, "connection_lost", &reason, effect)
            }
            CallError::TimedOut(reason) => self.interrupted(command, "timed_out", &reason, effect),
        }
    }

    /// Returns what a rejection means for the attempt.
    fn rejected(
        &self,
        command: &str,
        rejection: &RpcRejection,
        effect: SideEffect,
    ) -> AttemptError {
        let failed = errors::classify(rejection, command, &self.node, self.clock.now());
        let AttemptError::Failed { mut failure, retry_after_ms } = failed else { return failed };
        let error_type = &failure.error_type[..];
        // A probe shows whether the node is unavailable, or only this command failed.
        let is_unavailable = match error_type {
            errors::SHUTTING_DOWN => stops(&*self.clock, || self.probe()),
            errors::UNKNOWN | errors::UNAVAILABLE => is_unreachable(&self.probe()),
            _ => false,
        };
        // A probe shows whether the node refuses this command or all requests with these settings.
        // The latter is not the operation's fault, and ends when the settings are corrected.
        let may_be_misconfigured = errors::CONFIGURATION_ERRORS.contains(&error_type);
        // An overloaded node has not started the command. Any other error that may pass can have
        // occurred after the command took effect.
        let has_not_started =
            rejection.status == 503 || may_be_misconfigured || error_type == errors::RATE_LIMITED;
        if is_unavailable || may_be_misconfigured && denies_access(&self.probe()) {
            failure.class = FailureClass::Outage;
        }
        if effect == SideEffect::Possible
            && !has_not_started
            && failure.class != FailureClass::Permanent
        {
            return AttemptError::UnknownOutcome(failure);
        }
        AttemptError::Failed { failure, retry_after_ms }
    }

    /// Returns what an interrupted exchange means for the attempt: an outage if a probe fails, too.
    fn interrupted(
        &self,
        command: &str,
        error_type: &str,
        reason: &str,
        effect: SideEffect,
    ) -> AttemptError {
        match self.probe() {
            probed if is_unreachable(&probed) => {
                let reason = format!("{reason}, and a probe failed as well");
                let class = FailureClass::Outage;
                effect.error(self.incomplete(class, error_type, command, &reason))
            }
            // Kubo refuses access before it has read the body, which resets the connection.
            Err(RpcError::Rejected(rejection)) if matches!(rejection.status, 401 | 403) => {
                match errors::classify(&rejection, command, &self.node, self.clock.now()) {
                    AttemptError::Failed { failure, .. } => {
                        Failure { class: FailureClass::Outage, ..failure }.into()
                    }
                    other => other,
                }
            }
            Ok(()) | Err(_) => {
                let class = FailureClass::Transient;
                effect.error(self.incomplete(class, error_type, command, reason))
            }
        }
    }
}

/// One attempt at an operation, or one query about an attempt.
#[derive(Clone, Copy)]
struct KuboSession<'a> {
    backend: &'a IpfsBackend,
    request: &'a Request,
    attempt: &'a Attempt,
    rpc: Rpc<'a>,
}

impl<'a> KuboSession<'a> {
    /// Returns a parameter of the request, unless it is empty.
    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.request.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Converts the result of a command that changes nothing.
    fn after_read<T>(&self, command: &str, result: RpcResult<T>) -> Result<T> {
        result.map_err(|error| self.backend.attempt_error(command, error, SideEffect::None))
    }

    /// Converts the result of a command that changes something.
    fn after_change<T>(&self, command: &str, result: RpcResult<T>) -> Result<T> {
        result.map_err(|error| self.backend.attempt_error(command, error, SideEffect::Possible))
    }

    fn execute(self, operation: StandardOperation) -> Result<Outcome> {
        match operation {
            StandardOperation::Add { path, recursive, options } => {
                add::add(self, &path, recursive, options)
            }
            StandardOperation::Upload { path, destination, recursive, options } => {
                add::upload(self, &path, &destination, recursive, options)
            }
            StandardOperation::Get { source, destination } => Dag(self).get(&source, &destination),
            StandardOperation::Cat { source, destination } => Dag(self).cat(&source, &destination),
            StandardOperation::Pin { cid } => Pins(self).pin(&cid),
            StandardOperation::Unpin { cid } => Pins(self).unpin(&cid),
            StandardOperation::RemoveContent { cid, .. } => Pins(self).remove_content(&cid),
            StandardOperation::RemoveName { name, recursive } => {
                Mfs(self).remove_name(&name, recursive)
            }
            StandardOperation::List { what, destination } => {
                list::list(self, &what, destination.as_deref())
            }
            StandardOperation::MakeDirectory { name } => Mfs(self).make_directory(&name),
            StandardOperation::Copy { source, destination } => {
                Mfs(self).copy(&source, &destination)
            }
            StandardOperation::Move { source, destination } => {
                Mfs(self).move_name(&source, &destination)
            }
        }
    }

    /// Returns what became of an earlier attempt at a operation.
    fn query(self, operation: &StandardOperation) -> Result<AttemptStatus> {
        match operation {
            // Repeating these has the same result.
            StandardOperation::Get { .. }
            | StandardOperation::Cat { .. }
            | StandardOperation::List { .. }
            | StandardOperation::MakeDirectory { .. } => Ok(AttemptStatus::NotDone),
            StandardOperation::Add { .. } => add::query_add(self),
            StandardOperation::Upload { destination, .. } => add::query_upload(self, destination),
            StandardOperation::Pin { cid } => Pins(self).query_pin(cid),
            StandardOperation::Unpin { cid } => Pins(self).query_unpin(cid),
            StandardOperation::RemoveContent { cid, .. } => Pins(self).query_remove_content(cid),
            StandardOperation::Copy { source, destination } => {
                Mfs(self).query_copy(source, destination)
            }
            StandardOperation::RemoveName { name, .. } => Mfs(self).query_remove(name),
            StandardOperation::Move { source, destination } => {
                Mfs(self).query_move(source, destination)
            }
        }
    }
}

/// Returns whether repeating a operation has the same result, without a query.
fn is_repeatable(operation: &StandardOperation) -> bool {
    matches!(
        operation,
        StandardOperation::Get { .. }
            | StandardOperation::Cat { .. }
            | StandardOperation::List { .. }
            | StandardOperation::MakeDirectory { .. }
    )
}

/// Returns whether repeating a operation that was done already may fail or do harm.
fn is_destructive(operation: &StandardOperation) -> bool {
    matches!(
        operation,
        StandardOperation::RemoveContent { .. }
            | StandardOperation::RemoveName { .. }
            | StandardOperation::Move { .. }
    )
}

impl Backend for IpfsBackend {
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Standard
    }

    fn addressing(&self) -> Addressing {
        Addressing::PathsAndCids
    }

    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome> {
        let operation = StandardOperation::of(request, self.options.unixfs)?;
        stop_if_asked(attempt)?;
        let timeouts = self.http.timeouts();
        let deadline = Deadline::new(timeouts.idle, timeouts.total);
        self.session(request, attempt, deadline).execute(operation)
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus> {
        let no_queries_until =
            || self.no_queries_until.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = StandardOperation::of(request, self.options.unixfs)?;
        if is_repeatable(&operation) {
            return Ok(AttemptStatus::NotDone);
        }
        let is_destructive = is_destructive(&operation);
        if self.clock.elapsed() < *no_queries_until() {
            let failure = self.unreachable("it did not answer a query a moment ago");
            return if is_destructive { Err(failure.into()) } else { Ok(AttemptStatus::NotDone) };
        }
        let attempt = Attempt::default();
        let status = self.session(request, &attempt, self.query_deadline()).query(&operation);
        if matches!(&status, Err(AttemptError::Failed { failure, .. })
            if failure.class == FailureClass::Outage)
        {
            *no_queries_until() = self.clock.elapsed() + QUERY_PAUSE;
        }
        // Without an answer, an operation that is safe to repeat is repeated.
        if is_destructive { status } else { Ok(status.unwrap_or(AttemptStatus::NotDone)) }
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult> {
        // Operations adopted from the original's log may lack their parameters.
        let Ok(operation) = StandardOperation::of(request, self.options.unixfs) else {
            return Ok(AuditResult::NotApplicable);
        };
        audit::audit(self.session(request, attempt, self.query_deadline()), &operation, outcome)
    }

    /// Returns the targets of an operation; added content is kept by its pin.
    fn effects(&self, request: &Request, outcome: &Outcome) -> Vec<Effect> {
        standard::effects(Retention::WhilePinned, request, outcome)
    }

    fn health(&self) -> std::result::Result<(), Failure> {
        let attempt = Attempt::default();
        let rpc = Rpc::new(&self.http, &attempt, self.probe_deadline());
        let answer = match rpc.json("id", &[]) {
            Ok(answer) if answer.get("ID").is_some_and(serde_json::Value::is_string) => Ok(()),
            Ok(_) => Err(RpcError::Unexpected("the response to `id` contains no id".into())),
            // These credentials do not allow `id`.
            Err(RpcError::Rejected(rejection)) if rejection.status == 403 => self.probe(),
            Err(error) => Err(error),
        };
        match answer {
            Ok(()) => Ok(()),
            Err(RpcError::Call(
                CallError::ConnectionLost(reason) | CallError::TimedOut(reason),
            )) => Err(self.unreachable(&reason)),
            Err(error) => match self.attempt_error("id", error, SideEffect::None) {
                AttemptError::Failed { failure, .. } | AttemptError::UnknownOutcome(failure) => {
                    Err(failure)
                }
                AttemptError::Stopped => Ok(()),
            },
        }
    }
}

/// Returns whether a probe reached no node, or only a proxy that reached none.
fn is_unreachable(probed: &RpcResult<()>) -> bool {
    match probed {
        Err(RpcError::Call(_)) => true,
        Err(RpcError::Rejected(rejection)) => matches!(rejection.status, 502..=504),
        _ => false,
    }
}

/// Returns whether probes find the node unreachable within [`STOPS_WITHIN`].
fn stops(clock: &dyn Clock, mut probe: impl FnMut() -> RpcResult<()>) -> bool {
    let start = clock.elapsed();
    loop {
        if is_unreachable(&probe()) {
            return true;
        }
        if clock.elapsed().saturating_sub(start) >= STOPS_WITHIN {
            return false;
        }
        clock.sleep(PROBE_PAUSE);
    }
}

/// Returns whether a probe was refused with these settings, or answered by another server.
fn denies_access(probed: &RpcResult<()>) -> bool {
    matches!(probed,
        Err(RpcError::Rejected(rejection)) if (300..500).contains(&rejection.status))
}

/// Returns whether two CIDs name the same block, however they are written.
fn is_same_block(a: &Cid, b: &Cid) -> bool {
    a.codec() == b.codec() && a.hash() == b.hash()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::operation::Time;

    #[test]
    fn probes_tell_an_unreachable_node_from_one_that_denies_access() {
        let rejected = |status| {
            let message = String::new();
            Err(RpcError::Rejected(RpcRejection { status, message, code: None, retry_after: None }))
        };
        for (probed, unreachable, denied) in [
            (Ok(()), false, false),
            (Err(RpcError::Call(CallError::ConnectFailed("refused".into()))), true, false),
            (Err(RpcError::Call(CallError::TimedOut("no progress".into()))), true, false),
            (Err(RpcError::Unexpected("no version".into())), false, false),
            (rejected(301), false, true),
            (rejected(401), false, true),
            (rejected(403), false, true),
            (rejected(404), false, true),
            (rejected(500), false, false),
            (rejected(502), true, false),
            (rejected(503), true, false),
            (rejected(504), true, false),
        ] {
            let found = (is_unreachable(&probed), denies_access(&probed));
            assert_eq!(found, (unreachable, denied), "{probed:?}");
        }
    }

    #[test]
    fn a_node_that_answers_for_a_moment_longer_is_stopping() {
        let refused = || Err(RpcError::Call(CallError::ConnectFailed("refused".into())));
        for (answers, stopping) in [(0, true), (1, true), (10, true), (100, false)] {
            let (clock, mut left) = (ManualClock::new(Time::from_millis(0), 1), answers);
            let found = stops(&clock, || match left {
                0 => refused(),
                _ => {
                    left -= 1;
                    Ok(())
                }
            });
            assert_eq!(found, stopping, "after {answers} answers");
            assert!(clock.elapsed() <= STOPS_WITHIN + PROBE_PAUSE, "{:?}", clock.elapsed());
        }
    }

    #[test]
    fn equal_blocks_may_have_different_cids() {
        let cid = |text| Cid::try_from(text).unwrap();
        let v0 = cid("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
        let v1 = cid("bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby");
        assert!(is_same_block(&v0, &v1));
        assert!(!is_same_block(&v0, &cid("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")));
    }
}
