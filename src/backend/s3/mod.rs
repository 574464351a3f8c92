//! The backend for services that speak S3.
//!
//! What is put carries the id of its operation, so that an attempt without an answer can be asked about: an object that
//! carries it was put by it.

mod client;
mod errors;
mod multipart;
mod objects;
mod place;
mod send;
pub(super) mod task;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::errors::Result;
use super::files::stop_if_asked;
use super::{Answer, Attempt, AttemptError, Backend, Request};
use crate::disk::Disk;
use crate::operation::{Failure, FailureClass, Outcome};
use client::{Caller, Spell, wait};
use errors::{Refused, Trouble};
pub use multipart::Notes;
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
    /// The backend's configured name, for messages.
    pub name: String,
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
    /// Whether the service takes checksums behind what is streamed.
    pub checksums: bool,
    /// Bytes of a part of a large file; smaller files are sent as they are.
    pub part_size: u64,
    /// Parts of one file that are sent at once.
    pub part_jobs: usize,
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long nothing may move.
    pub idle: Duration,
    /// How long an attempt may take.
    pub total: Option<Duration>,
    /// How long a probe may take.
    pub probe: Duration,
}

/// How long a question about an earlier attempt may take.
const QUESTION_MAX: Duration = Duration::from_secs(10);

/// Carries operations out on a service for objects.
pub struct S3Backend {
    disk: Arc<dyn Disk>,
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
    pub fn new(disk: Arc<dyn Disk>, notes: Notes, options: S3Options) -> S3Backend {
        let service = match &options.endpoint {
            Some(endpoint) => format!("S3 at {}", crate::config::mask("endpoint", endpoint)),
            None => format!("S3 in {}", options.region),
        };
        S3Backend { disk, notes, caller: Caller::new(options.clone()), options, service }
    }

    fn session<'a>(&'a self, request: &'a Request, attempt: &'a Attempt, spell: Spell) -> Session<'a> {
        Session { backend: self, request, attempt, spell }
    }

    /// Asks the service whether it is there, and knows us and the bucket.
    fn probe(&self) -> std::result::Result<(), Trouble> {
        let attempt = Attempt::default();
        let limit = self.options.probe.min(self.options.connect);
        let (runtime, client) = self.caller.engine()?;
        let spell = Spell::begin(limit, Some(limit));
        match &self.options.bucket {
            Some(bucket) => match wait(runtime, &attempt, spell, client.head_bucket().bucket(bucket).send())? {
                Ok(_) => Ok(()),
                // An answer without a body: there is no word in it.
                Err(error) => Err(match Trouble::from(error) {
                    Trouble::Refused(refused) if refused.status == 404 => {
                        Trouble::Refused(Refused { code: "NoSuchBucket".into(), ..refused })
                    }
                    other => other,
                }),
            },
            None => wait(runtime, &attempt, spell, client.list_buckets().send())?.map(drop).map_err(Trouble::from),
        }
    }

    fn failure(&self, class: FailureClass, error_type: &str, message: String) -> Failure {
        Failure { class, error_type: error_type.into(), message }
    }

    fn away(&self, what: &str) -> Failure {
        let message = format!(
            "{} cannot be reached: {what}; see that it runs, or correct `backends.{}.endpoint`",
            self.service, self.options.name
        );
        self.failure(FailureClass::Outage, "unreachable", message)
    }

    fn refusal(&self, call: &str, refused: &Refused) -> (Failure, Option<u64>) {
        let (class, error_type, advice) = errors::meaning(refused);
        let code = if refused.code.is_empty() { format!("status {}", refused.status) } else { refused.code.clone() };
        let said = if refused.message.is_empty() { String::new() } else { format!(": {}", refused.message) };
        let message = format!("{} refused `{call}` ({code}){said}; {advice}", self.service);
        (self.failure(class, error_type, message), refused.retry_after.map(|after| after.saturating_mul(1000)))
    }

    /// What trouble means for an attempt; `acted`: whether the call may have changed something.
    fn fail(&self, call: &str, trouble: Trouble, acted: bool) -> AttemptError {
        let unanswered = |failure| match acted {
            true => AttemptError::Unanswered(failure),
            false => AttemptError::from(failure),
        };
        match trouble {
            Trouble::Stopped if acted => {
                let message = format!("{} gave `{call}` no answer: it was asked to stop before one came", self.service);
                unanswered(self.failure(FailureClass::Transient, "interrupted", message))
            }
            Trouble::Stopped => AttemptError::Stopped,
            Trouble::Unusable(what) => {
                let message = format!(
                    "{} cannot be called: {what}; set the access keys of `backends.{}`, or where AWS's tools look for them",
                    self.service, self.options.name
                );
                AttemptError::from(self.failure(FailureClass::Outage, "misconfigured", message))
            }
            Trouble::NoAnswer(what) => match self.probe() {
                Err(Trouble::NoAnswer(_)) => unanswered(self.away(&what)),
                _ => {
                    let message = format!("{} gave `{call}` no answer: {what}; it is tried again", self.service);
                    unanswered(self.failure(FailureClass::Transient, "connection_lost", message))
                }
            },
            Trouble::Refused(refused) => {
                let (mut failure, retry_after_ms) = self.refusal(call, &refused);
                // Whether that is said to everybody like us, or of this object, is seen by asking.
                if failure.error_type == "access_denied" && matches!(self.probe(), Err(Trouble::Refused(_))) {
                    failure.class = FailureClass::Outage;
                }
                let is_unclear = failure.class == FailureClass::Transient && refused.status != 503;
                if acted && is_unclear && failure.error_type != "rate_limited" {
                    return AttemptError::Unanswered(failure);
                }
                AttemptError::Failed { failure, retry_after_ms }
            }
        }
    }
}

/// One attempt, or one question about one.
#[derive(Clone, Copy)]
struct Session<'a> {
    backend: &'a S3Backend,
    request: &'a Request,
    attempt: &'a Attempt,
    spell: Spell,
}

impl Session<'_> {
    /// Sends a call and waits for its answer.
    fn call<T, E>(
        &self,
        send: impl AsyncFnOnce(&aws_sdk_s3::Client) -> std::result::Result<T, SdkError<E>>,
    ) -> std::result::Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (runtime, client) = self.backend.caller.engine()?;
        wait(runtime, self.attempt, self.spell, send(client))?.map_err(Trouble::from)
    }

    fn read<T>(&self, call: &str, result: std::result::Result<T, Trouble>) -> Result<T> {
        result.map_err(|trouble| self.backend.fail(call, trouble, false))
    }

    fn acted<T>(&self, call: &str, result: std::result::Result<T, Trouble>) -> Result<T> {
        result.map_err(|trouble| self.backend.fail(call, trouble, true))
    }

    /// The bucket that a place is in.
    fn bucket<'b>(&'b self, place: &'b Place) -> Result<&'b str> {
        place.bucket.as_deref().or(self.backend.options.bucket.as_deref()).ok_or_else(|| {
            let name = &self.backend.options.name;
            let message =
                format!("`{}` names no bucket: write s3://BUCKET/KEY, or set `backends.{name}.bucket`", place.key);
            AttemptError::permanent("no_bucket", message)
        })
    }
}

impl Backend for S3Backend {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome> {
        let task = task_of(request)?;
        stop_if_asked(attempt)?;
        let session = self.session(request, attempt, Spell::begin(self.options.idle, self.options.total));
        match task {
            Task::Put { path, destination, recursive } => session.put(&path, &destination, recursive),
            Task::Get { source, destination } => session.get(&source, &destination),
            Task::Remove { place, recursive } => session.remove(&place, recursive),
            Task::List { place, destination } => session.list(&place, destination.as_deref()),
            Task::MakeFolder { place } => session.make_folder(&place),
            Task::Copy { source, destination } => session.copy(&source, &destination),
            Task::Move { source, destination } => session.move_object(&source, &destination),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer> {
        let attempt = Attempt::default();
        let limit = self.options.idle.min(QUESTION_MAX);
        let session = self.session(request, &attempt, Spell::begin(limit, Some(limit)));
        let answer = match task_of(request)? {
            Task::Put { destination, .. } => session.ask_put(&destination),
            Task::Remove { place, .. } => return session.ask_removed(&place),
            Task::Move { source, destination } => return session.ask_moved(&source, &destination),
            // Doing it again comes to the same.
            Task::Get { .. } | Task::List { .. } | Task::MakeFolder { .. } | Task::Copy { .. } => Ok(Answer::NotDone),
        };
        // What may be repeated without harm is repeated where nobody can be asked.
        Ok(answer.unwrap_or(Answer::NotDone))
    }

    fn health(&self) -> std::result::Result<(), Failure> {
        match self.probe() {
            Ok(()) | Err(Trouble::Stopped) => Ok(()),
            Err(Trouble::NoAnswer(what)) => Err(self.away(&what)),
            Err(Trouble::Refused(refused)) => Err(self.refusal("HeadBucket", &refused).0),
            Err(trouble @ Trouble::Unusable(_)) => match self.fail("HeadBucket", trouble, false) {
                AttemptError::Failed { failure, .. } | AttemptError::Unanswered(failure) => Err(failure),
                AttemptError::Stopped => Ok(()),
            },
        }
    }
}

fn task_of(request: &Request) -> Result<Task> {
    Task::read(request.operation_type.as_str(), &request.parameters)
        .map_err(|message| AttemptError::permanent("bad_parameters", message))
}
