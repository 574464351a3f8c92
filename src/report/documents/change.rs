//! What `retry`, `cancel`, `hold`, `release`, `delete` and `prioritize` did.

use schemars::JsonSchema;
use serde::Serialize;

use super::OperationDoc;
use super::words::{AsDisplay, AsName};
use crate::client::{Changed, Skipped};
use crate::operation::{OperationId, Status};

/// What was changed, and what was left as it is.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(transform = super::receipts::id_of_one)]
pub struct Change<'a> {
    /// The id, if there is one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<AsDisplay<OperationId>>,
    /// The operations that were changed, as they are now; deleted ones as they were.
    operations: Vec<OperationDoc<'a>>,
    /// The new operations that redirected ones went on as.
    redirected_to: Vec<OperationDoc<'a>>,
    /// The operations that were like that already.
    unchanged: Vec<OperationDoc<'a>>,
    /// The operations that were left out, because it does not apply to them.
    skipped: Vec<LeftOut<'a>>,
}

/// An operation to which something does not apply.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LeftOut<'a> {
    /// Its id.
    operation_id: AsDisplay<OperationId>,
    /// Its number.
    #[schemars(range(min = 1))]
    number: u64,
    /// Where it stands.
    status: AsName<Status>,
    /// Why, and what to do instead.
    #[schemars(length(min = 1))]
    reason: &'a str,
}

impl<'a> LeftOut<'a> {
    fn new(skipped: &'a Skipped) -> LeftOut<'a> {
        let Skipped { number, id, status, why } = skipped;
        LeftOut {
            operation_id: AsDisplay(*id),
            number: number.get(),
            status: AsName(*status),
            reason: why,
        }
    }
}

impl<'a> Change<'a> {
    /// The document of what came of it.
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
            skipped: changed.skipped.iter().map(LeftOut::new).collect(),
        }
    }
}
