//! The document of `retry`, `cancel`, `hold`, `release`, `delete` and `prioritize`.

use schemars::JsonSchema;
use serde::Serialize;

use super::OperationDoc;
use super::words::{AsDisplay, AsName};
use crate::client::{Changed, Skipped};
use crate::operation::{OperationId, Status};

/// The operations that were changed, and those that were not.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(transform = super::receipts::id_of_one)]
pub struct Change<'a> {
    /// Id of the operation; present only if there is exactly one.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<AsDisplay<OperationId>>,
    /// The changed operations after the change; deleted ones before it.
    operations: Vec<OperationDoc<'a>>,
    /// The operations that replace redirected ones.
    redirected_to: Vec<OperationDoc<'a>>,
    /// Operations that were in the requested state already.
    unchanged: Vec<OperationDoc<'a>>,
    /// Operations that the change does not apply to.
    skipped: Vec<SkippedOperation<'a>>,
}

/// An operation that a change does not apply to.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LeftOut")]
pub struct SkippedOperation<'a> {
    /// Id of the operation.
    operation_id: AsDisplay<OperationId>,
    /// Number of the operation.
    #[schemars(range(min = 1))]
    number: u64,
    /// Status of the operation.
    status: AsName<Status>,
    /// Reason, and what to do instead.
    #[schemars(length(min = 1))]
    reason: &'a str,
}

impl<'a> SkippedOperation<'a> {
    fn new(skipped: &'a Skipped) -> SkippedOperation<'a> {
        let Skipped { number, id, status, why } = skipped;
        SkippedOperation {
            operation_id: AsDisplay(*id),
            number: number.get(),
            status: AsName(*status),
            reason: why,
        }
    }
}

impl<'a> Change<'a> {
    /// Returns the document of a change.
    pub fn new(changed: &'a Changed) -> Change<'a> {
        let operation_id = match changed.operations.as_slice() {
            [only] => Some(AsDisplay(only.id)),
            _ => None,
        };
        Change {
            operation_id,
            operations: changed.operations.iter().map(OperationDoc::new).collect(),
            redirected_to: changed.redirected_to.iter().map(OperationDoc::new).collect(),
            unchanged: changed.unchanged.iter().map(OperationDoc::new).collect(),
            skipped: changed.skipped.iter().map(SkippedOperation::new).collect(),
        }
    }
}
