//! The document of `verify --remote`.

use schemars::JsonSchema;
use serde::Serialize;

use super::words::{AsDisplay, OpenCode};
use crate::client::{AuditFinding, AuditReport, FollowUp, Unverified};
use crate::operation::{BackendName, Fields, Number, OperationId, OperationType};

/// The result of asking the backends about completed operations.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Audit")]
pub struct AuditDoc<'a> {
    /// True if every operation that was to be checked is intact.
    clean: bool,
    /// Number of operations whose effect was checked: intact, gone and altered.
    checked: u64,
    /// Number of intact operations.
    intact: u64,
    /// Operations whose effect no longer exists.
    gone: Vec<AuditFindingDoc<'a>>,
    /// Operations whose effect differs from the recorded one.
    altered: Vec<AuditFindingDoc<'a>>,
    /// Number of operations whose effect a later operation replaced or removed.
    superseded: u64,
    /// Number of operations that have no lasting effect to check.
    nothing: u64,
    /// Operations that could not be checked, by backend.
    unasked: Vec<UnverifiedDoc<'a>>,
    /// Number of operations logged again.
    reopened: u64,
    /// True if a signal ended the run before all operations were checked.
    stopped: bool,
}

/// A completed operation whose effect is gone or altered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditFinding")]
struct AuditFindingDoc<'a> {
    /// Number of the operation.
    #[schemars(range(min = 1))]
    number: u64,
    /// Id of the operation.
    operation_id: AsDisplay<OperationId>,
    /// Type of the operation.
    operation_type: &'a OperationType,
    /// Backend of the operation.
    backend: &'a BackendName,
    /// Parameters of the operation.
    parameters: &'a Fields,
    /// Description of the finding.
    #[schemars(length(min = 1))]
    what: &'a str,
    /// The operation that replaces it; null if there is none.
    went_on_as: Option<SuccessorDoc>,
    /// Reason why it was not logged again; null unless `--reopen` was refused for it.
    #[schemars(length(min = 1))]
    refused: Option<&'a str>,
}

/// The operation that replaces another one.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WentOn")]
struct SuccessorDoc {
    /// Number of the operation.
    #[schemars(range(min = 1))]
    number: u64,
    /// Id of the operation.
    operation_id: AsDisplay<OperationId>,
    /// True if this run logged it.
    new: bool,
}

/// A backend that could not answer for some operations.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Unasked")]
struct UnverifiedDoc<'a> {
    /// Name of the backend.
    backend: &'a BackendName,
    /// Number of operations that could not be checked.
    #[schemars(range(min = 1))]
    operations: u64,
    /// First failure of the backend.
    #[schemars(length(min = 1))]
    error: &'a str,
    /// Stable code of the failure.
    error_type: OpenCode<'a>,
}

impl<'a> AuditDoc<'a> {
    /// Returns the document of an audit.
    pub fn new(report: &'a AuditReport) -> AuditDoc<'a> {
        let unverified = |of_backend: &'a Unverified| UnverifiedDoc {
            backend: &of_backend.backend,
            operations: of_backend.operations,
            error: &of_backend.failure.message,
            error_type: OpenCode(&of_backend.failure.error_type),
        };
        AuditDoc {
            clean: report.is_clean(),
            checked: report.checked,
            intact: report.intact,
            gone: report.missing.iter().map(AuditFindingDoc::new).collect(),
            altered: report.altered.iter().map(AuditFindingDoc::new).collect(),
            superseded: report.superseded,
            nothing: report.without_effect,
            unasked: report.unverified.iter().map(unverified).collect(),
            reopened: report.reopened,
            stopped: report.stopped,
        }
    }
}

impl<'a> AuditFindingDoc<'a> {
    fn new(finding: &'a AuditFinding) -> AuditFindingDoc<'a> {
        let successor = |number: Number, id, new| {
            Some(SuccessorDoc { number: number.get(), operation_id: AsDisplay(id), new })
        };
        let (went_on_as, refused) = match &finding.follow_up {
            None => (None, None),
            Some(FollowUp::Reopened { number, id }) => (successor(*number, *id, true), None),
            Some(FollowUp::AlreadyReopened { number, id }) => {
                (successor(*number, *id, false), None)
            }
            Some(FollowUp::Refused(why)) => (None, Some(&why[..])),
        };
        AuditFindingDoc {
            number: finding.number.get(),
            operation_id: AsDisplay(finding.id),
            operation_type: &finding.operation_type,
            backend: &finding.backend,
            parameters: &finding.parameters,
            what: &finding.what,
            went_on_as,
            refused,
        }
    }
}
