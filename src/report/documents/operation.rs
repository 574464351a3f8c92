//! Operations as JSON.

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
    /// The id, if there is one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<AsDisplay<OperationId>>,
    /// The operations.
    operations: Vec<OperationDoc<'a>>,
}

impl<'a> Operations<'a> {
    /// These operations.
    pub fn new(operations: &'a [Operation]) -> Operations<'a> {
        let operation_id = match operations {
            [only] => Some(AsDisplay(only.id)),
            _ => None,
        };
        Operations { operation_id, operations: operations.iter().map(OperationDoc::new).collect() }
    }
}

/// Many operations, written as they are read.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ManyOperations")]
pub struct OperationsDoc<I: Iterator<Item = Operation>> {
    /// The operations.
    #[serde(serialize_with = "one_by_one")]
    #[schemars(with = "Vec<OperationDoc<'static>>")]
    operations: RefCell<I>,
}

impl<I: Iterator<Item = Operation>> OperationsDoc<I> {
    /// These operations; they can be written once.
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

/// The one operation that `show` was asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShownOne<'a> {
    /// The operation.
    pub operation: OperationDoc<'a>,
}

/// The operations that `show` was asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShownMany<'a> {
    /// The operations, in the order in which they were named.
    pub operations: Vec<OperationDoc<'a>>,
}

/// An operation, with everything that is known of it. What is absent is null.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Operation", transform = facts_of_status)]
pub struct OperationDoc<'a> {
    /// Its id.
    operation_id: AsDisplay<OperationId>,
    /// Its number in this log.
    #[schemars(range(min = 1))]
    number: u64,
    /// What is to be done.
    operation_type: &'a OperationType,
    /// Who carries it out.
    backend: &'a BackendName,
    /// Where it stands.
    status: AsName<Status>,
    /// What is to be done with what.
    parameters: &'a Fields,
    /// When it was logged.
    timestamp: AsDisplay<Time>,
    /// When it last changed.
    updated_at: AsDisplay<Time>,
    /// When it ended, completed or failed.
    completed_at: Option<AsDisplay<Time>>,
    /// What came out of it; null unless completed.
    result: Option<ResultDoc<'a>>,
    /// Proof or detail from the backend; null where there is none.
    receipt: Option<&'a Fields>,
    /// What the last failure said.
    error: Option<&'a str>,
    /// A stable word for it.
    error_type: Option<OpenCode<'a>>,
    /// What it means for the next attempt.
    failure_class: Option<AsName<FailureClass>>,
    /// Retries that were spent.
    retry_count: u32,
    /// Retries that may be spent.
    max_retries: u32,
    /// When the next attempt is due; null unless retrying.
    next_retry_at: Option<AsDisplay<Time>>,
    /// How often a drain loop died while it carried the operation out.
    interruptions: u32,
    /// Higher goes first.
    priority: i32,
    /// The operations that have to be completed before.
    depends_on: Vec<AsDisplay<OperationId>>,
    /// What keeps it from being logged twice.
    idempotency_key: Option<&'a str>,
    /// Whether it waits until somebody releases it.
    hold: bool,
    /// Before then it is not carried out.
    not_before: Option<AsDisplay<Time>>,
    /// What the file was when it was logged.
    source: Option<SourceDoc<'a>>,
    /// Who is carrying it out; null unless processing.
    claim: Option<ClaimDoc<'a>>,
    /// How far it has come, if it moves bytes and has run for a second; `show` alone tells, elsewhere this is null.
    progress: Option<ProgressDoc>,
    /// The operation that this one was made from.
    redirected_from: Option<AsDisplay<OperationId>>,
    /// The operation that it went on as.
    redirected_to: Option<AsDisplay<OperationId>>,
    /// The last change of it, counted over the whole log.
    #[schemars(range(min = 1))]
    revision: u64,
    /// Every change of status, oldest first.
    history: Vec<HistoryDoc<'a>>,
}

/// What came out of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Result")]
struct ResultDoc<'a> {
    /// The content's CID.
    cid: Option<Cid<'a>>,
    /// Bytes of content.
    size: Option<u64>,
    /// Where the result was written.
    destination: Option<&'a str>,
}

/// A file when it was logged.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Source")]
struct SourceDoc<'a> {
    /// Bytes of it.
    size: u64,
    /// When it was last changed, in nanoseconds since 1970.
    mtime_ns: i64,
    /// Its inode.
    inode: u64,
    /// The hash of its content, where that was read.
    sha256: Option<Sha256<'a>>,
    /// The name of its copy in the log, where one was made.
    spool: Option<&'a str>,
}

/// A drain loop that is carrying the operation out.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Claim")]
struct ClaimDoc<'a> {
    /// Its process.
    pid: u32,
    /// Its machine.
    host: &'a str,
    /// When it claimed the operation.
    started: AsDisplay<Time>,
}

/// How far a running attempt has come.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Progress")]
struct ProgressDoc {
    /// Bytes moved.
    bytes_done: u64,
    /// Bytes to be moved; null if that is not known.
    bytes_total: Option<u64>,
    /// Bytes per second over the last seconds.
    bytes_per_second: u64,
    /// Seconds until the rest is moved at this rate; null if that is not known.
    seconds_left: Option<u64>,
}

/// One change of status.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HistoryEntry")]
struct HistoryDoc<'a> {
    /// Its place among all changes of the log.
    #[schemars(range(min = 1))]
    revision: u64,
    /// When.
    at: AsDisplay<Time>,
    /// The status before; null: it was logged.
    from: Option<AsName<Status>>,
    /// The status after.
    to: AsName<Status>,
    /// Who: `user@host command[pid]`.
    actor: &'a str,
    /// Why.
    reason: Option<&'a str>,
    /// What went wrong.
    error: Option<&'a str>,
}

impl<'a> OperationDoc<'a> {
    /// The document of an operation.
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

    /// The same with how far it has come.
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
        let Source { size, mtime_ns, inode, sha256, spool } = source;
        SourceDoc {
            size: *size,
            mtime_ns: *mtime_ns,
            inode: *inode,
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

/// What a status brings with it.
fn facts_of_status(schema: &mut schemars::Schema) {
    let rule = |status: Status, has: &[&str], has_not: &[&str]| {
        let set = has.iter().map(|name| (*name, json!({ "not": { "type": "null" } })));
        let unset = has_not.iter().map(|name| (*name, json!({ "type": "null" })));
        let properties: serde_json::Map<_, _> =
            set.chain(unset).map(|(name, is)| (name.to_owned(), is)).collect();
        json!({ "if": { "properties": { "status": { "const": status.as_str() } } }, "then": { "properties": properties } })
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
