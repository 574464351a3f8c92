//! The backend for services that speak S3.
//!
//! Every object that is put carries the id of its operation in its metadata. After an attempt whose
//! response was lost, an object with that id proves that the attempt succeeded.

mod audit;
mod body;
mod checksum;
mod client;
mod copy;
mod errors;
mod folder;
mod get;
mod list;
mod location;
mod multipart;
mod objects;
mod operation;
mod put;
mod remove;
mod stream;
mod upload_records;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;

use super::configured::{Configured, Context};
use super::errors::{Result, ours};
use super::files::stop_if_asked;
use super::runtime::{Deadline, SideEffect};
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
use client::SdkClient;
use errors::{S3Error, S3ErrorClass, S3Rejection};
use location::Location;
use objects::OPERATION_METADATA;
use operation::S3Operation;
pub use upload_records::UploadRecords;

/// An AWS access key.
#[derive(Clone)]
pub struct AccessKeys {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: String,
    /// The session token of temporary credentials.
    pub token: Option<String>,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKeys(…)")
    }
}

/// The settings of an [`S3Backend`].
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The backend's configured name.
    pub name: BackendName,
    /// The URL of the service; without one, AWS's endpoint of the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket of operations that name none.
    pub bucket: Option<String>,
    /// True if the bucket is in the path of a URL instead of its host name.
    pub path_style: bool,
    /// The access key; without one, the standard AWS credential chain.
    pub keys: Option<AccessKeys>,
    /// True if the service supports CRC-32 checksums.
    pub checksums: bool,
    /// The size of a part in bytes; smaller files are sent in one request.
    pub part_size: u64,
    /// The number of parts of one file that are sent at once.
    pub part_jobs: usize,
    /// The largest object in bytes that is copied in one request; larger ones are copied in parts.
    pub copy_max: u64,
    /// The longest time until a connection is established.
    pub connect: Duration,
    /// The longest time without progress.
    pub idle: Duration,
    /// The longest time for an attempt, if it is limited.
    pub total: Option<Duration>,
    /// The longest time for a probe.
    pub probe: Duration,
}

/// The largest object in bytes that AWS copies in one request.
pub const COPY_MAX: u64 = 5 << 30;

/// Builds the backend from its settings.
pub(super) fn configure(s3: &S3Settings, context: &Context<'_>) -> Configured {
    let Context { name, settings, disk, clock } = context;
    let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
    let (id, secret) = (text(&s3.access_key_id), text(&s3.secret_access_key));
    let missing = match (&id, &secret) {
        // Without either it is unknown which service the keys are for.
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
    let uploads = UploadRecords::of(&settings.base_path);
    let backend = S3Backend::new(disk.clone(), clock.clone(), uploads, options);
    Configured { missing, ..Configured::complete(backend) }
}

/// A backend that carries operations out on an object store.
pub struct S3Backend {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    uploads: UploadRecords,
    client: SdkClient,
    options: S3Options,
    /// The service's name in messages.
    service: String,
}

impl fmt::Debug for S3Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Backend").field("service", &self.service).finish_non_exhaustive()
    }
}

impl S3Backend {
    /// Returns a backend for one service; nothing is started or sent before the first call.
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        uploads: UploadRecords,
        options: S3Options,
    ) -> S3Backend {
        let service = match &options.endpoint {
            Some(endpoint) => format!("S3 at {}", crate::config::redact("endpoint", endpoint)),
            None => format!("S3 in {}", options.region),
        };
        S3Backend {
            disk,
            uploads,
            client: SdkClient::new(options.clone(), clock.clone()),
            clock,
            options,
            service,
        }
    }

    fn context<'a>(&'a self, attempt: &'a Attempt, deadline: Deadline) -> CallContext<'a> {
        CallContext { backend: self, attempt, deadline }
    }

    fn query_deadline(&self) -> Deadline {
        Deadline::for_query(self.options.idle)
    }

    fn probe_deadline(&self) -> Deadline {
        Deadline::after(self.options.probe.min(self.options.connect))
    }

    /// Checks that the service is reachable, accepts the access key, and has the bucket.
    fn probe(&self) -> std::result::Result<(), S3Error> {
        if let Some(bucket) = &self.options.bucket {
            return self.probe_bucket(bucket);
        }
        let attempt = Attempt::default();
        let context = self.context(&attempt, self.probe_deadline());
        context.call(async |client| client.list_buckets().send().await).map(drop)
    }

    fn probe_bucket(&self, bucket: &str) -> std::result::Result<(), S3Error> {
        let attempt = Attempt::default();
        let context = self.context(&attempt, self.probe_deadline());
        match context.call(async |client| client.head_bucket().bucket(bucket).send().await) {
            Ok(_) => Ok(()),
            Err(S3Error::Rejected(rejection)) if rejection.status == 404 => {
                Err(S3Error::Rejected(S3Rejection { code: "NoSuchBucket".into(), ..rejection }))
            }
            Err(S3Error::Rejected(rejection)) => self.repeat_with_error_code(rejection, bucket),
            Err(other) => Err(other),
        }
    }

    /// Returns a rejection of a HEAD request with its error code, which responses to such requests
    /// do not have. Succeeds if the second request is not rejected: from the first response the SDK
    /// learns the difference between the clocks, and corrects the time in later signatures.
    fn repeat_with_error_code(
        &self,
        rejection: S3Rejection,
        bucket: &str,
    ) -> std::result::Result<(), S3Error> {
        if !rejection.code.is_empty() || rejection.status >= 500 {
            return Err(S3Error::Rejected(rejection));
        }
        let attempt = Attempt::default();
        let context = self.context(&attempt, self.probe_deadline());
        context
            .call(async |client| client.list_objects_v2().bucket(bucket).max_keys(1).send().await)
            .map(drop)
    }

    /// Parses a request, with the configured bucket for operations that name none.
    fn operation_of(&self, request: &Request) -> Result<S3Operation> {
        let operation = S3Operation::read(request.operation_type.as_str(), &request.parameters)
            .map_err(AttemptError::from)?;
        Ok(operation.in_bucket(self.options.bucket.as_deref()))
    }

    fn failure(&self, class: FailureClass, error_type: &str, message: String) -> Failure {
        Failure { class, error_type: error_type.into(), message }
    }

    /// Returns the failure of a call that was not answered: an outage if a probe fails, too.
    fn no_response(
        &self,
        call: &str,
        error_type: &str,
        outage_type: &str,
        reason: &str,
    ) -> Failure {
        match self.probe() {
            Err(S3Error::ConnectionLost(_) | S3Error::TimedOut(_) | S3Error::Rejected(_)) => {
                self.unreachable(outage_type, reason)
            }
            _ => {
                let message = format!(
                    "{} did not answer `{call}`: {reason}; it will be retried",
                    self.service
                );
                self.failure(FailureClass::Transient, error_type, message)
            }
        }
    }

    fn unreachable(&self, error_type: &str, reason: &str) -> Failure {
        let message = format!(
            "{} is unreachable: {reason}; start it, or correct `backends.{}.endpoint`",
            self.service, self.options.name
        );
        self.failure(FailureClass::Outage, error_type, message)
    }

    fn rejection_failure(&self, call: &str, rejection: &S3Rejection) -> Failure {
        let S3ErrorClass { class, error_type, hint } = errors::classify(rejection);
        let code = match &rejection.code[..] {
            "" => format!("status {}", rejection.status),
            code => code.to_owned(),
        };
        let reason = match rejection.message.trim_end_matches('.') {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let message = format!("{} refused `{call}` ({code}){reason}; {hint}", self.service);
        self.failure(class, error_type, message)
    }

    /// Returns what an error of a call means for the attempt.
    fn attempt_error(&self, call: &str, error: S3Error, effect: SideEffect) -> AttemptError {
        match error {
            S3Error::Cancelled if effect == SideEffect::Possible => {
                let message = format!(
                    "{} did not answer `{call}` before the attempt was cancelled",
                    self.service
                );
                effect.error(self.failure(FailureClass::Transient, "interrupted", message))
            }
            S3Error::Cancelled => AttemptError::Stopped,
            S3Error::NoNetwork(reason) => {
                let message = format!("this machine cannot call {} now: {reason}", self.service);
                AttemptError::failed(FailureClass::Outage, "no_network", message)
            }
            S3Error::InvalidRequest(reason) => {
                let (reason, name) = (reason.trim_end_matches('.'), &self.options.name);
                let message = format!(
                    "cannot call {}: {reason}; set `backends.{name}.access_key_id` and \
                     `backends.{name}.secret_access_key`, or provide an access key through the \
                     standard AWS credential chain",
                    self.service
                );
                AttemptError::failed(FailureClass::Outage, "misconfigured", message)
            }
            S3Error::ConnectionLost(reason) => {
                effect.error(self.no_response(call, "connection_lost", "unreachable", &reason))
            }
            S3Error::TimedOut(reason) => {
                effect.error(self.no_response(call, "timed_out", "timed_out", &reason))
            }
            S3Error::Rejected(rejection) => self.rejected(call, &rejection, effect),
        }
    }

    /// Returns what a rejection means for the attempt.
    fn rejected(&self, call: &str, rejection: &S3Rejection, effect: SideEffect) -> AttemptError {
        let mut failure = self.rejection_failure(call, rejection);
        // Decided before the probe: the call may have taken effect in spite of the error, whatever
        // the state of the service afterwards.
        let is_definite = matches!(&failure.error_type[..], "rate_limited" | "damaged_content")
            || rejection.status == 503;
        let may_have_taken_effect = failure.class == FailureClass::Transient && !is_definite;
        failure.class = self.class_after_probe(&failure, rejection);
        if effect == SideEffect::Possible && may_have_taken_effect {
            return AttemptError::UnknownOutcome(failure);
        }
        let retry_after_ms = rejection.retry_after.map(|seconds| seconds.saturating_mul(1000));
        AttemptError::Failed { failure, retry_after_ms }
    }

    /// Returns the class of a rejection: an outage if a probe fails as well, because then the
    /// settings or the service are at fault and not the operation.
    fn class_after_probe(&self, failure: &Failure, rejection: &S3Rejection) -> FailureClass {
        let has_code = rejection.has_error_code();
        let Some(class) = errors::class_if_reachable(&failure.error_type, has_code) else {
            return failure.class;
        };
        match self.probe() {
            Err(S3Error::Rejected(_) | S3Error::ConnectionLost(_) | S3Error::TimedOut(_)) => {
                FailureClass::Outage
            }
            _ => class,
        }
    }
}

/// Everything a call needs: the backend, the attempt that may cancel it, and its time limits.
#[derive(Clone, Copy)]
struct CallContext<'a> {
    backend: &'a S3Backend,
    attempt: &'a Attempt,
    deadline: Deadline,
}

impl CallContext<'_> {
    /// Sends a request and waits for the response.
    fn call<T, E>(
        &self,
        send: impl AsyncFnOnce(&aws_sdk_s3::Client) -> std::result::Result<T, SdkError<E>>,
    ) -> std::result::Result<T, S3Error>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (runtime, client) = self.backend.client.get()?;
        runtime.wait(self.attempt, self.deadline, None, send(client))?.map_err(S3Error::from)
    }

    /// Converts the result of a call that changes nothing.
    fn after_read<T>(&self, call: &str, result: std::result::Result<T, S3Error>) -> Result<T> {
        result.map_err(|error| self.backend.attempt_error(call, error, SideEffect::None))
    }

    /// Converts the result of a call that changes something.
    fn after_change<T>(&self, call: &str, result: std::result::Result<T, S3Error>) -> Result<T> {
        result.map_err(|error| self.backend.attempt_error(call, error, SideEffect::Possible))
    }

    /// Fails if a response has no etag. Every S3 service returns one for each object.
    fn require_etag<T>(
        &self,
        call: &str,
        response: T,
        etag: impl Fn(&T) -> Option<&str>,
        effect: SideEffect,
    ) -> Result<T> {
        match etag(&response) {
            Some(_) => Ok(response),
            None => Err(self.backend.attempt_error(call, S3Error::no_etag(), effect)),
        }
    }

    /// Returns the bucket of a location.
    fn bucket<'b>(&'b self, location: &'b Location) -> Result<&'b str> {
        location.bucket.as_deref().or(self.backend.options.bucket.as_deref()).ok_or_else(|| {
            let name = &self.backend.options.name;
            let message = format!(
                "`{}` names no bucket; write `s3://BUCKET/KEY`, or set `backends.{name}.bucket`",
                location.key
            );
            AttemptError::permanent("no_bucket", message)
        })
    }
}

/// One attempt at an operation, or one query about an attempt.
#[derive(Clone, Copy)]
struct S3Session<'a> {
    context: CallContext<'a>,
    request: &'a Request,
}

impl S3Session<'_> {
    fn execute(&self, operation: &S3Operation) -> Result<Outcome> {
        match operation {
            S3Operation::Put { path, destination, recursive, options } => {
                self.put(path, destination, *recursive, options)
            }
            S3Operation::Get { source, destination, folders } => {
                self.get(source, destination, *folders)
            }
            S3Operation::Remove { location, recursive } => self.remove(location, *recursive),
            S3Operation::List { location, destination } => {
                list::list(self, location, destination.as_deref())
            }
            S3Operation::MakeFolder { location } => self.make_folder(location),
            S3Operation::Copy { source, destination } => self.copy(source, destination),
            S3Operation::Move { source, destination } => self.move_all(source, destination),
        }
    }

    /// Returns whether this operation put an object.
    fn is_own(&self, head: &HeadObjectOutput) -> bool {
        head.metadata().and_then(|metadata| metadata.get(OPERATION_METADATA))
            == Some(&self.request.id.to_string())
    }
}

impl Backend for S3Backend {
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Only(&operation::TYPES)
    }

    fn check(
        &self,
        operation_type: &OperationType,
        parameters: &Fields,
    ) -> std::result::Result<(), ParameterError> {
        operation::check(operation_type.as_str(), parameters)
    }

    fn addressing(&self) -> Addressing {
        Addressing::Keys
    }

    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome> {
        let operation = self.operation_of(request)?;
        stop_if_asked(attempt)?;
        let deadline = Deadline::new(self.options.idle, self.options.total);
        let session = S3Session { context: self.context(attempt, deadline), request };
        session.execute(&operation)
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus> {
        let attempt = Attempt::default();
        let session = S3Session { context: self.context(&attempt, self.query_deadline()), request };
        let status = match self.operation_of(request)? {
            S3Operation::Put { destination, .. } => session.query_put(&destination),
            S3Operation::Remove { location, .. } => return session.query_remove(&location),
            S3Operation::Move { source, destination } => {
                return session.query_move(&source, &destination);
            }
            // Repeating these has the same result.
            S3Operation::Get { .. }
            | S3Operation::List { .. }
            | S3Operation::MakeFolder { .. }
            | S3Operation::Copy { .. } => Ok(AttemptStatus::NotDone),
        };
        // Without an answer, an operation that is safe to repeat is repeated.
        Ok(status.unwrap_or(AttemptStatus::NotDone))
    }

    fn orphans(&self) -> Vec<(Number, OperationId)> {
        let records = self.uploads.of_backend(&*self.disk, &self.options.name);
        let records = records
            .inspect_err(|error| tracing::debug!(%error, "cannot read the records of uploads"));
        let owner = |record: upload_records::UploadRecord| (record.number, record.operation);
        records.unwrap_or_default().into_iter().map(owner).collect()
    }

    fn abort_orphan(&self, number: Number, id: OperationId) -> Result<()> {
        let attempt = Attempt::default();
        let context = self.context(&attempt, self.query_deadline());
        let records = self.uploads.of_backend(&*self.disk, &self.options.name).map_err(ours)?;
        records
            .iter()
            .filter(|record| (record.number, record.operation) == (number, id))
            .try_for_each(|record| context.abort_upload(record))
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult> {
        audit::audit(self, request, outcome, attempt)
    }

    fn effects(&self, request: &Request, outcome: &Outcome) -> Vec<Effect> {
        audit::effects(self.options.bucket.as_deref(), request, outcome)
    }

    fn health(&self) -> std::result::Result<(), Failure> {
        match self.probe() {
            Ok(()) | Err(S3Error::Cancelled) => Ok(()),
            Err(S3Error::ConnectionLost(reason)) => Err(self.unreachable("unreachable", &reason)),
            Err(S3Error::TimedOut(reason)) => Err(self.unreachable("timed_out", &reason)),
            Err(S3Error::Rejected(rejection)) => {
                Err(self.rejection_failure("HeadBucket", &rejection))
            }
            Err(error @ (S3Error::NoNetwork(_) | S3Error::InvalidRequest(_))) => {
                match self.attempt_error("HeadBucket", error, SideEffect::None) {
                    AttemptError::Failed { failure, .. }
                    | AttemptError::UnknownOutcome(failure) => Err(failure),
                    AttemptError::Stopped => Ok(()),
                }
            }
        }
    }
}
