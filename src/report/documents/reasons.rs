//! What `why`, `failures` and `process --dry-run` tell.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::OperationDoc;
use super::words::{AsDisplay, AsName, OpenCode};
use crate::client::{self, CauseGroup, Plan, Reason};
use crate::operation::{BackendName, FailureClass, OperationId, Status, Time};

/// Why operations stand where they do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Why<'a> {
    /// The operations, in the order in which they were named.
    operations: Vec<WhyOne<'a>>,
}

/// Why an operation stands where it does.
#[derive(Debug, Serialize, JsonSchema)]
struct WhyOne<'a> {
    /// Its id.
    operation_id: AsDisplay<OperationId>,
    /// Its number.
    #[schemars(range(min = 1))]
    number: u64,
    /// Where it stands.
    status: AsName<Status>,
    /// The reason in a word.
    reason: AsName<Reason>,
    /// The reason in a sentence, with what would change it.
    #[schemars(length(min = 1))]
    why: &'a str,
    /// When it is tried next; null where nobody knows.
    next_attempt_at: Option<AsDisplay<Time>>,
}

impl<'a> Why<'a> {
    /// The document of these.
    pub fn new(all: &'a [client::Why]) -> Why<'a> {
        let one = |why: &'a client::Why| WhyOne {
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
    /// What `--cause` takes; the same on every backend.
    #[schemars(regex(pattern = "^[0-9a-f]{8}$"))]
    cause: &'a str,
    /// The messages without what is particular to one operation.
    what: &'a str,
    /// A stable word for the error.
    error_type: OpenCode<'a>,
    /// What it means for the next attempt.
    failure_class: AsName<FailureClass>,
    /// The backend.
    backend: &'a BackendName,
    /// How many have failed for good.
    failed: u64,
    /// How many wait for another attempt.
    retrying: u64,
    /// When the first of them failed.
    first: AsDisplay<Time>,
    /// When the last of them failed.
    last: AsDisplay<Time>,
    /// The number of the last one.
    #[schemars(range(min = 1))]
    example: u64,
    /// What was said of the last one.
    message: &'a str,
}

impl<'a> Failures<'a> {
    /// The document of these groups.
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

/// What `process` would do now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DryRun<'a> {
    #[schemars(extend("const" = true))]
    dry_run: bool,
    /// The first operations that would be carried out, in the order of their lanes.
    operations: Vec<OperationDoc<'a>>,
    /// How many would be carried out, per backend.
    due: BTreeMap<&'a str, u64>,
    /// How many are set aside.
    held: u64,
    /// How many wait for other operations.
    waiting_for_others: u64,
    /// How many were logged with a delay that is not over.
    delayed: u64,
    /// How many wait for their next attempt.
    backing_off: u64,
    /// How many belong to a backend that cannot carry them out here, per backend.
    no_backend: BTreeMap<&'a str, u64>,
    /// How many a dead drain loop left claimed: their backends would be asked about them first.
    to_be_asked: u64,
}

impl<'a> DryRun<'a> {
    /// The document of a plan.
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
