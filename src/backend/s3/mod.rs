//! The backend for services that speak S3.
//!
//! What is put carries the id of its operation, so that an attempt without an answer can be asked about: an object that
//! carries it was put by it.

mod audit;
mod change;
mod checks;
mod client;
mod errors;
mod get;
mod multipart;
mod notes;
mod objects;
mod place;
mod put;
mod send;
mod stream;
mod task;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::configured::{Configured, Context};
use super::errors::{Result, ours};
use super::files::stop_if_asked;
use super::runtime::Deadline;
use super::{
    Addressing, Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Effect, OperationTypes,
    ParameterError, Request,
};
use crate::clock::Clock;
use crate::config::{S3Settings, Secret};
use crate::disk::Disk;
use crate::operation::{
    BackendName, Failure, FailureClass, Fields, Number, OperationId, OperationType, Outcome,
};
use client::Caller;
use errors::{Refused, Trouble};
pub use notes::Notes;
use place::Place;
use task::Task;

/// Who we are to a service.
#[derive(Clone)]
pub struct AccessKeys {
    /// The access key's id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The token of a session, if it is one.
    pub token: Option<String>,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKeys(…)")
    }
}

/// How a service is reached, and what is asked of it.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The backend's configured name.
    pub name: BackendName,
    /// The address of the service; none: AWS's own of the region.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// The bucket of operations that name none.
    pub bucket: Option<String>,
    /// Whether the bucket goes into the path of an address rather than into its host.
    pub path_style: bool,
    /// Who we are; none: what the usual places say.
    pub keys: Option<AccessKeys>,
    /// Whether the service takes and gives CRC-32.
    pub checksums: bool,
    /// Bytes of a part of a large file; smaller files are sent as they are.
    pub part_size: u64,
    /// Parts of one file that are sent at once.
    pub part_jobs: usize,
    /// Bytes of an object that is copied in one call; larger ones are copied in parts.
    pub copy_max: u64,
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long nothing may move.
    pub idle: Duration,
    /// How long an attempt may take.
    pub total: Option<Duration>,
    /// How long a probe may take.
    pub probe: Duration,
}

/// Bytes that AWS copies in one call, at most.
pub const COPY_MAX: u64 = 5 << 30;

/// Builds the backend from its settings.
pub(super) fn configure(s3: &S3Settings, context: &Context<'_>) -> Configured {
    let Context { name, settings, disk, clock } = context;
    let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
    let (id, secret) = (text(&s3.access_key_id), text(&s3.secret_access_key));
    let missing = match (&id, &secret) {
        // Without either it is unknown where the keys of AWS are meant to be used.
        _ if s3.bucket.is_none() && s3.endpoint.is_none() => Some("bucket"),
        (Some(_), None) => Some("secret_access_key"),
        (None, Some(_)) => Some("access_key_id"),
        (None, None) if s3.session_token.is_some() => Some("access_key_id"),
        (Some(_), Some(_)) | (None, None) => None,
    };
    let keys = id.zip(secret).map(|(id, secret)| {
        let token = text(&s3.session_token);
        AccessKeys { id, secret, token }
    });
    let options = S3Options {
        name: (*name).clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone().unwrap_or_default(),
        bucket: s3.bucket.clone(),
        path_style: s3.path_style.unwrap_or(s3.endpoint.is_some()),
        keys,
        checksums: s3.checksums,
        part_size: s3.part_size,
        part_jobs: s3.part_jobs,
        copy_max: COPY_MAX,
        connect: s3.timeouts.connection,
        idle: s3.timeouts.idle,
        total: Some(s3.timeouts.total).filter(|total| !total.is_zero()),
        probe: settings.health_check_timeout,
    };
    let notes = Notes::of(&settings.base_path);
    let backend = S3Backend::new(disk.clone(), clock.clone(), notes, options);
    Configured { missing, ..Configured::complete(backend) }
}

/// How long a question about an earlier attempt may take.
const QUESTION_MAX: Duration = Duration::from_secs(10);

/// Carries operations out on a service for objects.
pub struct S3Backend {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    notes: Notes,
    caller: Caller,
    options: S3Options,
    /// How messages call it.
    service: String,
}

impl fmt::Debug for S3Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Backend").field("service", &self.service).finish_non_exhaustive()
    }
}

impl S3Backend {
    /// A backend for one service; nothing is started, and nobody called, before it is first needed.
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        notes: Notes,
        options: S3Options,
    ) -> S3Backend {
        let service = match &options.endpoint {
            Some(endpoint) => format!("S3 at {}", crate::config::redact("endpoint", endpoint)),
            None => format!("S3 in {}", options.region),
        };
        S3Backend {
            disk,
            notes,
            caller: Caller::new(options.clone(), clock.clone()),
            clock,
            options,
            service,
        }
    }

    fn session<'a>(
        &'a self,
        request: &'a Request,
        attempt: &'a Attempt,
        spell: Deadline,
    ) -> Session<'a> {
        Session { line: Line { backend: self, attempt, spell }, request }
    }

    /// Asks the service whether it is there, and knows us and the bucket.
    fn probe(&self) -> std::result::Result<(), Trouble> {
        if let Some(bucket) = &self.options.bucket {
            return self.probe_bucket(bucket);
        }
        let (threads, client) = self.caller.engine()?;
        let list = client.list_buckets().send();
        threads
            .wait(&Attempt::default(), self.probe_spell(), None, list)?
            .map(drop)
            .map_err(Trouble::from)
    }

    fn probe_bucket(&self, bucket: &str) -> std::result::Result<(), Trouble> {
        let (threads, client) = self.caller.engine()?;
        let head = client.head_bucket().bucket(bucket).send();
        match threads
            .wait(&Attempt::default(), self.probe_spell(), None, head)?
            .map_err(Trouble::from)
        {
            Ok(_) => Ok(()),
            Err(Trouble::Refused(refused)) if refused.status == 404 => {
                Err(Trouble::Refused(Refused { code: "NoSuchBucket".into(), ..refused }))
            }
            Err(Trouble::Refused(refused)) => self.worded(refused, bucket),
            Err(other) => Err(other),
        }
    }

    /// The same refusal in words, which answers to calls that ask for a head alone have none of. It may be that nothing is
    /// refused any more: the first answer tells the SDK how far our clock is off, for the calls that follow.
    fn worded(&self, refused: Refused, bucket: &str) -> std::result::Result<(), Trouble> {
        if !refused.code.is_empty() || refused.status >= 500 {
            return Err(Trouble::Refused(refused));
        }
        let (threads, client) = self.caller.engine()?;
        let list = client.list_objects_v2().bucket(bucket).max_keys(1).send();
        threads
            .wait(&Attempt::default(), self.probe_spell(), None, list)?
            .map(drop)
            .map_err(Trouble::from)
    }

    fn probe_spell(&self) -> Deadline {
        Deadline::after(self.options.probe.min(self.options.connect))
    }

    /// What is asked for, with the bucket of the settings where none is named.
    fn task_of(&self, request: &Request) -> Result<Task> {
        let task = Task::read(request.operation_type.as_str(), &request.parameters)
            .map_err(AttemptError::from)?;
        Ok(task.in_bucket(self.options.bucket.as_deref()))
    }

    fn failure(&self, class: FailureClass, error_type: &str, message: String) -> Failure {
        Failure { class, error_type: error_type.into(), message }
    }

    /// No answer came: to this one call, or, if a probe gets none either, to any.
    fn unanswered(&self, call: &str, alone: &str, away: &str, what: &str) -> Failure {
        match self.probe() {
            Err(Trouble::NoAnswer(_) | Trouble::TimedOut(_) | Trouble::Refused(_)) => {
                self.away(away, what)
            }
            _ => {
                let message =
                    format!("{} gave `{call}` no answer: {what}; it is tried again", self.service);
                self.failure(FailureClass::Transient, alone, message)
            }
        }
    }

    fn away(&self, error_type: &str, what: &str) -> Failure {
        let message = format!(
            "{} cannot be reached: {what}; see that it runs, or correct `backends.{}.endpoint`",
            self.service, self.options.name
        );
        self.failure(FailureClass::Outage, error_type, message)
    }

    fn refusal(&self, call: &str, refused: &Refused) -> (Failure, Option<u64>) {
        let (class, error_type, advice) = errors::meaning(refused);
        let code = if refused.code.is_empty() {
            format!("status {}", refused.status)
        } else {
            refused.code.clone()
        };
        // Another sentence follows.
        let said = refused.message.trim_end_matches('.');
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let message = format!("{} refused `{call}` ({code}){said}; {advice}", self.service);
        (
            self.failure(class, error_type, message),
            refused.retry_after.map(|after| after.saturating_mul(1000)),
        )
    }

    /// What trouble means for an attempt; `acted`: whether the call may have changed something.
    fn fail(&self, call: &str, trouble: Trouble, acted: bool) -> AttemptError {
        let unanswered = |failure| match acted {
            true => AttemptError::UnknownOutcome(failure),
            false => AttemptError::from(failure),
        };
        match trouble {
            Trouble::Stopped if acted => {
                let message = format!(
                    "{} gave `{call}` no answer: it was asked to stop before one came",
                    self.service
                );
                unanswered(self.failure(FailureClass::Transient, "interrupted", message))
            }
            Trouble::Stopped => AttemptError::Stopped,
            Trouble::NoNetwork(what) => {
                let message =
                    format!("{} cannot be called from this machine now: {what}", self.service);
                AttemptError::failed(FailureClass::Outage, "no_network", message)
            }
            Trouble::Unusable(what) => {
                let what = what.trim_end_matches('.');
                let message = format!(
                    "{} cannot be called: {what}; set the access keys of `backends.{}`, or where AWS's tools look for them",
                    self.service, self.options.name
                );
                AttemptError::from(self.failure(FailureClass::Outage, "misconfigured", message))
            }
            Trouble::NoAnswer(what) => {
                unanswered(self.unanswered(call, "connection_lost", "unreachable", &what))
            }
            Trouble::TimedOut(what) => {
                unanswered(self.unanswered(call, "timed_out", "timed_out", &what))
            }
            Trouble::Refused(refused) => {
                let (mut failure, retry_after_ms) = self.refusal(call, &refused);
                // It may have been said of what was done all the same, whatever becomes of the service then.
                let is_no =
                    matches!(failure.error_type.as_str(), "rate_limited" | "damaged_content");
                let may_pass = failure.class == FailureClass::Transient && !is_no;
                failure.class = self.class_seen(&failure, &refused);
                if acted && may_pass && refused.status != 503 {
                    return AttemptError::UnknownOutcome(failure);
                }
                AttemptError::Failed { failure, retry_after_ms }
            }
        }
    }

    /// Whose fault a refusal is: that of the settings or the service if a probe is refused, too; else of this one call.
    fn class_seen(&self, failure: &Failure, refused: &Refused) -> FailureClass {
        let alone = match failure.error_type.as_str() {
            // Whoever says it need not be a service of this kind.
            "not_found" if !refused.is_worded() => FailureClass::Permanent,
            "rejected" => FailureClass::Permanent,
            "bad_credentials" | "no_such_bucket" | "wrong_region" | "access_denied" => {
                FailureClass::Permanent
            }
            "unavailable" => FailureClass::Transient,
            _ => return failure.class,
        };
        match self.probe() {
            Err(Trouble::Refused(_) | Trouble::NoAnswer(_) | Trouble::TimedOut(_)) => {
                FailureClass::Outage
            }
            _ => alone,
        }
    }
}

/// Calls, with what may end them.
#[derive(Clone, Copy)]
struct Line<'a> {
    backend: &'a S3Backend,
    attempt: &'a Attempt,
    spell: Deadline,
}

/// One attempt at an operation, or one question about one: a line, and what it is for.
#[derive(Clone, Copy)]
struct Session<'a> {
    line: Line<'a>,
    request: &'a Request,
}

impl<'a> Deref for Session<'a> {
    type Target = Line<'a>;

    fn deref(&self) -> &Line<'a> {
        &self.line
    }
}

impl Line<'_> {
    /// Sends a call and waits for its answer.
    fn call<T, E>(
        &self,
        send: impl AsyncFnOnce(&aws_sdk_s3::Client) -> std::result::Result<T, SdkError<E>>,
    ) -> std::result::Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (threads, client) = self.backend.caller.engine()?;
        threads.wait(self.attempt, self.spell, None, send(client))?.map_err(Trouble::from)
    }

    fn read<T>(&self, call: &str, result: std::result::Result<T, Trouble>) -> Result<T> {
        result.map_err(|trouble| self.backend.fail(call, trouble, false))
    }

    fn acted<T>(&self, call: &str, result: std::result::Result<T, Trouble>) -> Result<T> {
        result.map_err(|trouble| self.backend.fail(call, trouble, true))
    }

    /// What a service says of every object that it has or takes; an answer without it is no answer of such a service.
    fn has_etag<T>(
        &self,
        call: &str,
        answer: T,
        etag: impl Fn(&T) -> Option<&str>,
        acted: bool,
    ) -> Result<T> {
        match etag(&answer) {
            Some(_) => Ok(answer),
            None => {
                let trouble = Trouble::Refused(Refused::nonsense("there is no etag in its answer"));
                Err(self.backend.fail(call, trouble, acted))
            }
        }
    }

    /// The bucket that a place is in.
    fn bucket<'b>(&'b self, place: &'b Place) -> Result<&'b str> {
        place.bucket.as_deref().or(self.backend.options.bucket.as_deref()).ok_or_else(|| {
            let name = &self.backend.options.name;
            let message = format!(
                "`{}` names no bucket: write s3://BUCKET/KEY, or set `backends.{name}.bucket`",
                place.key
            );
            AttemptError::permanent("no_bucket", message)
        })
    }
}

impl Backend for S3Backend {
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Only(&task::TYPES)
    }

    fn check(
        &self,
        operation_type: &OperationType,
        parameters: &Fields,
    ) -> std::result::Result<(), ParameterError> {
        task::check(operation_type.as_str(), parameters)
    }

    fn addressing(&self) -> Addressing {
        Addressing::Keys
    }

    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome> {
        let task = self.task_of(request)?;
        stop_if_asked(attempt)?;
        let session =
            self.session(request, attempt, Deadline::new(self.options.idle, self.options.total));
        match task {
            Task::Put { path, destination, recursive, options } => {
                session.put(&path, &destination, recursive, &options)
            }
            Task::Get { source, destination, folders } => {
                session.get(&source, &destination, folders)
            }
            Task::Remove { place, recursive } => session.remove(&place, recursive),
            Task::List { place, destination } => session.list(&place, destination.as_deref()),
            Task::MakeFolder { place } => session.make_folder(&place),
            Task::Copy { source, destination } => session.copy(&source, &destination),
            Task::Move { source, destination } => session.move_object(&source, &destination),
        }
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus> {
        let attempt = Attempt::default();
        let limit = self.options.idle.min(QUESTION_MAX);
        let session = self.session(request, &attempt, Deadline::after(limit));
        let answer = match self.task_of(request)? {
            Task::Put { destination, .. } => session.ask_put(&destination),
            Task::Remove { place, .. } => return session.ask_removed(&place),
            Task::Move { source, destination } => return session.ask_moved(&source, &destination),
            // Doing it again comes to the same.
            Task::Get { .. } | Task::List { .. } | Task::MakeFolder { .. } | Task::Copy { .. } => {
                Ok(AttemptStatus::NotDone)
            }
        };
        // What may be repeated without harm is repeated where nobody can be asked.
        Ok(answer.unwrap_or(AttemptStatus::NotDone))
    }

    fn orphans(&self) -> Vec<(Number, OperationId)> {
        let notes = self.notes.of_backend(&*self.disk, &self.options.name);
        let notes = notes
            .inspect_err(|error| tracing::debug!(%error, "notes on uploads cannot be read now"));
        notes.unwrap_or_default().into_iter().map(|note| (note.number, note.operation)).collect()
    }

    fn abort_orphan(&self, number: Number, id: OperationId) -> Result<()> {
        let attempt = Attempt::default();
        let limit = self.options.idle.min(QUESTION_MAX);
        let line = Line { backend: self, attempt: &attempt, spell: Deadline::after(limit) };
        let notes = self.notes.of_backend(&*self.disk, &self.options.name).map_err(ours)?;
        let of_it = notes.iter().filter(|note| (note.number, note.operation) == (number, id));
        of_it.into_iter().try_for_each(|note| line.abort(note))
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult> {
        self.look_again(request, outcome, attempt)
    }

    fn effects(&self, request: &Request, outcome: &Outcome) -> Vec<Effect> {
        audit::effects(self.options.bucket.as_deref(), request, outcome)
    }

    fn health(&self) -> std::result::Result<(), Failure> {
        match self.probe() {
            Ok(()) | Err(Trouble::Stopped) => Ok(()),
            Err(Trouble::NoAnswer(what)) => Err(self.away("unreachable", &what)),
            Err(Trouble::TimedOut(what)) => Err(self.away("timed_out", &what)),
            Err(Trouble::Refused(refused)) => Err(self.refusal("HeadBucket", &refused).0),
            Err(trouble @ (Trouble::NoNetwork(_) | Trouble::Unusable(_))) => {
                match self.fail("HeadBucket", trouble, false) {
                    AttemptError::Failed { failure, .. }
                    | AttemptError::UnknownOutcome(failure) => Err(failure),
                    AttemptError::Stopped => Ok(()),
                }
            }
        }
    }
}
