//! Operations as JSON documents.

use std::cell::RefCell;

use schemars::JsonSchema;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::words::{AsDisplay, AsName, Cid, OpenCode, Sha256};
use crate::client::Progress;
use crate::operation::{
    BackendName, Claim, FailureClass, Fields, HistoryEntry, Operation, OperationId, OperationType,
    Outcome, Source, State, Status, Time,
};

/// Operations, in the order in which they were named.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(transform = super::receipts::id_of_one)]
pub struct Operations<'a> {
    /// Id of the operation; present only if there is exactly one.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<AsDisplay<OperationId>>,
    /// The operations.
    operations: Vec<OperationDoc<'a>>,
}

impl<'a> Operations<'a> {
    /// Returns the document of these operations.
    pub fn new(operations: &'a [Operation]) -> Operations<'a> {
        let operation_id = match operations {
            [only] => Some(AsDisplay(only.id)),
            _ => None,
        };
        Operations { operation_id, operations: operations.iter().map(OperationDoc::new).collect() }
    }
}

/// Operations that are streamed while they are read.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ManyOperations")]
pub struct OperationsDoc<I: Iterator<Item = Operation>> {
    /// The operations.
    #[serde(serialize_with = "one_by_one")]
    #[schemars(with = "Vec<OperationDoc<'static>>")]
    operations: RefCell<I>,
}

impl<I: Iterator<Item = Operation>> OperationsDoc<I> {
    /// Returns the document of these operations; it can be serialized once.
    pub fn new(operations: I) -> OperationsDoc<I> {
        OperationsDoc { operations: RefCell::new(operations) }
    }
}

fn one_by_one<S: Serializer, I: Iterator<Item = Operation>>(
    operations: &RefCell<I>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for operation in &mut *operations.borrow_mut() {
        list.serialize_element(&OperationDoc::new(&operation))?;
    }
    list.end()
}

/// The operation that was asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShownOne<'a> {
    /// The operation.
    pub operation: OperationDoc<'a>,
}

/// The operations that were asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShownMany<'a> {
    /// The operations, in the order in which they were named.
    pub operations: Vec<OperationDoc<'a>>,
}

/// An operation. Fields without a value are null.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Operation", transform = fields_by_status)]
pub struct OperationDoc<'a> {
    /// Id of the operation.
    operation_id: AsDisplay<OperationId>,
    /// Number of the operation in this log.
    #[schemars(range(min = 1))]
    number: u64,
    /// Type of the operation.
    operation_type: &'a OperationType,
    /// Backend that executes the operation.
    backend: &'a BackendName,
    /// Status of the operation.
    status: AsName<Status>,
    /// Parameters of the operation.
    parameters: &'a Fields,
    /// Time of logging.
    timestamp: AsDisplay<Time>,
    /// Time of the last change.
    updated_at: AsDisplay<Time>,
    /// Time at which the operation completed or failed.
    completed_at: Option<AsDisplay<Time>>,
    /// Result; null unless completed.
    result: Option<ResultDoc<'a>>,
    /// Receipt from the backend; null if it gave none.
    receipt: Option<&'a Fields>,
    /// Message of the last failure.
    error: Option<&'a str>,
    /// Stable code of the last failure.
    error_type: Option<OpenCode<'a>>,
    /// Class of the last failure, which decides whether it is retried.
    failure_class: Option<AsName<FailureClass>>,
    /// Number of retries used.
    retry_count: u32,
    /// Number of retries allowed.
    max_retries: u32,
    /// Time of the next attempt; null unless retrying.
    next_retry_at: Option<AsDisplay<Time>>,
    /// Number of times a drain loop died while executing the operation.
    interruptions: u32,
    /// Priority; higher values are executed first.
    priority: i32,
    /// Operations that must complete first.
    depends_on: Vec<AsDisplay<OperationId>>,
    /// Idempotency key that prevents logging it twice.
    idempotency_key: Option<&'a str>,
    /// True if the operation is held until it is released.
    hold: bool,
    /// Earliest time of execution.
    not_before: Option<AsDisplay<Time>>,
    /// The source file as it was when the operation was logged.
    source: Option<SourceDoc<'a>>,
    /// The drain loop that executes the operation; null unless processing.
    claim: Option<ClaimDoc<'a>>,
    /// Progress of a transfer that has run for at least a second; null except in `show`.
    progress: Option<ProgressDoc>,
    /// The operation that this one replaces.
    redirected_from: Option<AsDisplay<OperationId>>,
    /// The operation that replaces this one.
    redirected_to: Option<AsDisplay<OperationId>>,
    /// Revision of the last change, counted over the whole log.
    #[schemars(range(min = 1))]
    revision: u64,
    /// Every change, oldest first.
    history: Vec<HistoryDoc<'a>>,
}

/// The result of a completed operation.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Result")]
struct ResultDoc<'a> {
    /// CID of the content.
    cid: Option<Cid<'a>>,
    /// Size of the content in bytes.
    size: Option<u64>,
    /// Destination of the result.
    destination: Option<&'a str>,
}

/// A source file at the time of logging.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Source")]
struct SourceDoc<'a> {
    /// Size in bytes.
    size: u64,
    /// Modification time in nanoseconds since 1970-01-01 UTC.
    mtime_ns: i64,
    /// Inode number.
    inode: u64,
    /// Time of the last change of content or metadata in nanoseconds since 1970-01-01 UTC; null in
    /// records of earlier versions.
    ctime_ns: Option<i64>,
    /// SHA-256 of the content; null if the content was not read.
    sha256: Option<Sha256<'a>>,
    /// Name of the copy in the spool; null if none was made.
    spool: Option<&'a str>,
}

/// The drain loop that executes the operation.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Claim")]
struct ClaimDoc<'a> {
    /// Process id.
    pid: u32,
    /// Host name.
    host: &'a str,
    /// Time of the claim.
    started: AsDisplay<Time>,
}

/// Progress of a running attempt.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Progress")]
struct ProgressDoc {
    /// Bytes transferred.
    bytes_done: u64,
    /// Bytes to transfer in total; null if unknown.
    bytes_total: Option<u64>,
    /// Transfer rate over the last seconds, in bytes per second.
    bytes_per_second: u64,
    /// Estimated time left in seconds; null if unknown.
    seconds_left: Option<u64>,
}

/// A change of an operation.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HistoryEntry")]
struct HistoryDoc<'a> {
    /// Revision of the change, counted over the whole log.
    #[schemars(range(min = 1))]
    revision: u64,
    /// Time of the change.
    at: AsDisplay<Time>,
    /// Status before the change; null for the logging.
    from: Option<AsName<Status>>,
    /// Status after the change.
    to: AsName<Status>,
    /// The process that made the change: `user@host command[pid]`.
    actor: &'a str,
    /// Reason of the change.
    reason: Option<&'a str>,
    /// Error that caused the change.
    error: Option<&'a str>,
}

impl<'a> OperationDoc<'a> {
    /// Returns the document of an operation.
    pub fn new(operation: &'a Operation) -> OperationDoc<'a> {
        let failure = operation.state.failure();
        let (outcome, completed_at, next_retry_at, claim) = match &operation.state {
            State::Completed { at, outcome } => (Some(outcome), Some(*at), None, None),
            State::Failed { at, .. } => (None, Some(*at), None, None),
            State::Retrying { wait, .. } => (None, None, Some(wait.until), None),
            State::Processing { claim, .. } => (None, None, None, Some(claim)),
            State::Pending { .. } => (None, None, None, None),
        };
        OperationDoc {
            operation_id: AsDisplay(operation.id),
            number: operation.number.get(),
            operation_type: &operation.operation_type,
            backend: &operation.backend,
            status: AsName(operation.status()),
            parameters: &operation.parameters,
            timestamp: AsDisplay(operation.logged_at),
            updated_at: AsDisplay(operation.updated_at),
            completed_at: completed_at.map(AsDisplay),
            result: outcome.map(ResultDoc::new),
            receipt: outcome.map(|outcome| &outcome.receipt).filter(|receipt| !receipt.is_empty()),
            error: failure.map(|failure| failure.message.as_str()),
            error_type: failure.map(|failure| OpenCode(&failure.error_type)),
            failure_class: failure.map(|failure| AsName(failure.class)),
            retry_count: operation.retry_count,
            max_retries: operation.max_retries,
            next_retry_at: next_retry_at.map(AsDisplay),
            interruptions: operation.interruptions,
            priority: operation.priority,
            depends_on: operation.depends_on.iter().copied().map(AsDisplay).collect(),
            idempotency_key: operation.idempotency_key.as_deref(),
            hold: operation.hold,
            not_before: operation.not_before.map(AsDisplay),
            source: operation.source.as_ref().map(SourceDoc::new),
            claim: claim.map(ClaimDoc::new),
            progress: None,
            redirected_from: operation.redirected_from.map(AsDisplay),
            redirected_to: operation.redirected_to.map(AsDisplay),
            revision: operation.revision.get(),
            history: operation.history.iter().map(HistoryDoc::new).collect(),
        }
    }

    /// Returns the document with the progress of a running attempt.
    pub fn with_progress(self, progress: Option<Progress>) -> OperationDoc<'a> {
        let progress = progress.map(|progress| ProgressDoc {
            bytes_done: progress.bytes_done,
            bytes_total: progress.bytes_total,
            bytes_per_second: progress.bytes_per_second,
            seconds_left: progress.seconds_left(),
        });
        OperationDoc { progress, ..self }
    }
}

impl<'a> ResultDoc<'a> {
    fn new(outcome: &'a Outcome) -> ResultDoc<'a> {
        let Outcome { cid, size, destination, .. } = outcome;
        ResultDoc { cid: cid.as_deref().map(Cid), size: *size, destination: destination.as_deref() }
    }
}

impl<'a> SourceDoc<'a> {
    fn new(source: &'a Source) -> SourceDoc<'a> {
        let Source { size, mtime_ns, inode, ctime_ns, sha256, spool } = source;
        SourceDoc {
            size: *size,
            mtime_ns: *mtime_ns,
            inode: *inode,
            ctime_ns: *ctime_ns,
            sha256: sha256.as_deref().map(Sha256),
            spool: spool.as_deref(),
        }
    }
}

impl<'a> ClaimDoc<'a> {
    fn new(claim: &'a Claim) -> ClaimDoc<'a> {
        ClaimDoc { pid: claim.pid, host: &claim.host, started: AsDisplay(claim.started) }
    }
}

impl<'a> HistoryDoc<'a> {
    fn new(entry: &'a HistoryEntry) -> HistoryDoc<'a> {
        HistoryDoc {
            revision: entry.revision.get(),
            at: AsDisplay(entry.at),
            from: entry.from.map(AsName),
            to: AsName(entry.to),
            actor: &entry.actor,
            reason: entry.reason.as_deref(),
            error: entry.error.as_deref(),
        }
    }
}

/// Adds the rules that say which fields are set in which status.
fn fields_by_status(schema: &mut schemars::Schema) {
    let rule = |status: Status, has: &[&str], has_not: &[&str]| {
        let set = has.iter().map(|name| (*name, json!({ "not": { "type": "null" } })));
        let unset = has_not.iter().map(|name| (*name, json!({ "type": "null" })));
        let properties: serde_json::Map<_, _> =
            set.chain(unset).map(|(name, is)| (name.to_owned(), is)).collect();
        let condition = json!({ "properties": { "status": { "const": status.as_str() } } });
        json!({ "if": condition, "then": { "properties": properties } })
    };
    let rules = [
        rule(
            Status::Pending,
            &[],
            &["completed_at", "result", "receipt", "next_retry_at", "claim"],
        ),
        rule(
            Status::Processing,
            &["claim"],
            &["completed_at", "result", "receipt", "next_retry_at"],
        ),
        rule(
            Status::Completed,
            &["completed_at", "result"],
            &["error", "error_type", "failure_class", "claim"],
        ),
        rule(
            Status::Failed,
            &["completed_at", "error", "error_type", "failure_class"],
            &["result", "claim"],
        ),
        rule(
            Status::Retrying,
            &["next_retry_at", "error", "error_type", "failure_class"],
            &["result", "claim"],
        ),
    ];
    schema.insert("allOf".into(), rules.into_iter().collect());
}
