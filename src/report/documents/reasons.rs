//! The documents of `why`, `failures` and `process --dry-run`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::OperationDoc;
use super::words::{AsDisplay, AsName, OpenCode};
use crate::client::{self, CauseGroup, Plan, Reason};
use crate::operation::{BackendName, FailureClass, OperationId, Status, Time};

/// The reasons why operations have not completed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Why<'a> {
    /// The operations, in the order in which they were named.
    operations: Vec<ReasonDoc<'a>>,
}

/// The reason for the status of an operation.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WhyOne")]
struct ReasonDoc<'a> {
    /// Id of the operation.
    operation_id: AsDisplay<OperationId>,
    /// Number of the operation.
    #[schemars(range(min = 1))]
    number: u64,
    /// Status of the operation.
    status: AsName<Status>,
    /// Code of the reason.
    reason: AsName<Reason>,
    /// The reason as a sentence, with what would change it.
    #[schemars(length(min = 1))]
    why: &'a str,
    /// Time of the next attempt; null if unknown.
    next_attempt_at: Option<AsDisplay<Time>>,
}

impl<'a> Why<'a> {
    /// Returns the document of these reasons.
    pub fn new(all: &'a [client::Why]) -> Why<'a> {
        let one = |why: &'a client::Why| ReasonDoc {
            operation_id: AsDisplay(why.operation.id),
            number: why.operation.number.get(),
            status: AsName(why.operation.status()),
            reason: AsName(why.reason),
            why: &why.sentence,
            next_attempt_at: why.next_attempt_at.map(AsDisplay),
        };
        Why { operations: all.iter().map(one).collect() }
    }
}

/// Failed and retrying operations by cause and backend, the most frequent first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failures<'a> {
    /// The groups.
    failures: Vec<FailureGroup<'a>>,
}

/// Failed and retrying operations of one backend with one cause.
#[derive(Debug, Serialize, JsonSchema)]
struct FailureGroup<'a> {
    /// Fingerprint of the cause, as `--cause` takes it; the same on every backend.
    #[schemars(regex(pattern = "^[0-9a-f]{8}$"))]
    cause: &'a str,
    /// The message without the parts that differ between operations.
    what: &'a str,
    /// Stable code of the failure.
    error_type: OpenCode<'a>,
    /// Class of the failure, which decides whether it is retried.
    failure_class: AsName<FailureClass>,
    /// Name of the backend.
    backend: &'a BackendName,
    /// Number of failed operations.
    failed: u64,
    /// Number of operations that will be retried.
    retrying: u64,
    /// Time of the first failure.
    first: AsDisplay<Time>,
    /// Time of the last failure.
    last: AsDisplay<Time>,
    /// Number of the operation that failed last.
    #[schemars(range(min = 1))]
    example: u64,
    /// Message of the last failure.
    message: &'a str,
}

impl<'a> Failures<'a> {
    /// Returns the document of these groups.
    pub fn new(groups: &'a [CauseGroup]) -> Failures<'a> {
        let one = |group: &'a CauseGroup| FailureGroup {
            cause: &group.fingerprint,
            what: &group.cause,
            error_type: OpenCode(&group.error_type),
            failure_class: AsName(group.class),
            backend: &group.backend,
            failed: group.failed,
            retrying: group.retrying,
            first: AsDisplay(group.first),
            last: AsDisplay(group.last),
            example: group.example.get(),
            message: &group.message,
        };
        Failures { failures: groups.iter().map(one).collect() }
    }
}

/// The work that `process` would do now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DryRun<'a> {
    #[schemars(extend("const" = true))]
    dry_run: bool,
    /// The first operations that would be executed, in order, backend by backend.
    operations: Vec<OperationDoc<'a>>,
    /// Number of due operations, by backend.
    due: BTreeMap<&'a str, u64>,
    /// Number of held operations.
    held: u64,
    /// Number of operations that wait for others.
    waiting_for_others: u64,
    /// Number of operations whose delay has not passed.
    delayed: u64,
    /// Number of operations that wait for their next attempt.
    backing_off: u64,
    /// Number of operations whose backend is not configured or not built in, by backend.
    no_backend: BTreeMap<&'a str, u64>,
    /// Number of operations left claimed by a dead drain loop; their outcome is queried first.
    to_be_asked: u64,
}

impl<'a> DryRun<'a> {
    /// Returns the document of a plan.
    pub fn new(plan: &'a Plan) -> DryRun<'a> {
        let by_name = |counts: &'a BTreeMap<BackendName, u64>| {
            counts.iter().map(|(name, n)| (name.as_str(), *n)).collect()
        };
        DryRun {
            dry_run: true,
            operations: plan.operations.iter().map(OperationDoc::new).collect(),
            due: by_name(&plan.due),
            held: plan.held,
            waiting_for_others: plan.waiting_for_others,
            delayed: plan.delayed,
            backing_off: plan.backing_off,
            no_backend: by_name(&plan.no_backend),
            to_be_asked: plan.to_be_asked,
        }
    }
}
