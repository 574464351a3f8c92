//! What `verify --remote` prints.

use schemars::JsonSchema;
use serde::Serialize;

use super::words::{AsDisplay, OpenCode};
use crate::client::{AuditFinding, AuditReport, Followed, Unasked};
use crate::operation::{BackendName, Fields, Number, OperationId, OperationType};

/// What the backends said of completed operations.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Audit")]
pub struct AuditDoc<'a> {
    /// Whether everything that was to be looked at is as it was.
    clean: bool,
    /// Operations whose effect was looked at: intact, gone and altered ones.
    checked: u64,
    /// How many of them are as they were.
    intact: u64,
    /// Those whose effect is not there any more.
    gone: Vec<AuditFindingDoc<'a>>,
    /// Those whose effect is something else now.
    altered: Vec<AuditFindingDoc<'a>>,
    /// How many were replaced or taken away by later operations.
    superseded: u64,
    /// How many leave nothing to look at.
    nothing: u64,
    /// Of which nothing could be found out, by backend.
    unasked: Vec<UnaskedDoc<'a>>,
    /// How many new operations were logged.
    reopened: u64,
    /// Whether a signal ended it early: there are more operations than are told of here.
    stopped: bool,
}

/// A completed operation whose effect is gone or altered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditFinding")]
struct AuditFindingDoc<'a> {
    /// Its number.
    #[schemars(range(min = 1))]
    number: u64,
    /// Its id.
    operation_id: AsDisplay<OperationId>,
    /// Its type.
    operation_type: &'a OperationType,
    /// Its backend.
    backend: &'a BackendName,
    /// With what.
    parameters: &'a Fields,
    /// What was found.
    #[schemars(length(min = 1))]
    what: &'a str,
    /// The operation that it goes on as; null: none.
    went_on_as: Option<WentOnDoc>,
    /// Why it cannot be done once more, if that was asked for and refused; null otherwise.
    #[schemars(length(min = 1))]
    refused: Option<&'a str>,
}

/// The operation that another one goes on as.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WentOn")]
struct WentOnDoc {
    /// Its number.
    #[schemars(range(min = 1))]
    number: u64,
    /// Its id.
    operation_id: AsDisplay<OperationId>,
    /// Whether it was logged just now.
    new: bool,
}

/// A backend of which something could not be found out.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Unasked")]
struct UnaskedDoc<'a> {
    /// Which.
    backend: &'a BackendName,
    /// Of how many operations.
    #[schemars(range(min = 1))]
    operations: u64,
    /// Why: what it said first.
    #[schemars(length(min = 1))]
    error: &'a str,
    /// A stable word for it.
    error_type: OpenCode<'a>,
}

impl<'a> AuditDoc<'a> {
    /// The document of a look.
    pub fn new(report: &'a AuditReport) -> AuditDoc<'a> {
        let unasked = |Unasked { backend, operations, failure }: &'a Unasked| UnaskedDoc {
            backend,
            operations: *operations,
            error: &failure.message,
            error_type: OpenCode(&failure.error_type),
        };
        AuditDoc {
            clean: report.is_clean(),
            checked: report.checked,
            intact: report.intact,
            gone: report.gone.iter().map(AuditFindingDoc::new).collect(),
            altered: report.altered.iter().map(AuditFindingDoc::new).collect(),
            superseded: report.superseded,
            nothing: report.nothing,
            unasked: report.unasked.iter().map(unasked).collect(),
            reopened: report.reopened,
            stopped: report.stopped,
        }
    }
}

impl<'a> AuditFindingDoc<'a> {
    fn new(finding: &'a AuditFinding) -> AuditFindingDoc<'a> {
        let went_on = |number: Number, id, new| {
            Some(WentOnDoc { number: number.get(), operation_id: AsDisplay(id), new })
        };
        let (went_on_as, refused) = match &finding.followed {
            None => (None, None),
            Some(Followed::Reopened { number, id }) => (went_on(*number, *id, true), None),
            Some(Followed::GoesOn { number, id }) => (went_on(*number, *id, false), None),
            Some(Followed::Refused(why)) => (None, Some(&why[..])),
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
