//! What was logged, as JSON.

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::json;

use super::words::{Named, Shown};
use crate::client::Receipt;
use crate::operation::{BackendName, OperationId, OperationType, Status};

/// What was logged, in the order in which it was given.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(transform = id_of_one)]
pub struct Receipts<'a> {
    /// The id, if there is one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<Shown<OperationId>>,
    /// What was logged, durable.
    operations: Vec<ReceiptDoc<'a>>,
}

/// An operation that was logged.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Receipt", transform = new_is_pending)]
struct ReceiptDoc<'a> {
    /// Its id.
    operation_id: Shown<OperationId>,
    /// Its number in this log.
    #[schemars(range(min = 1))]
    number: u64,
    /// Where it stands.
    status: Named<Status>,
    /// Whether its key was known, so that nothing new was logged.
    existing: bool,
    /// What is to be done.
    operation_type: &'a OperationType,
    /// Who will carry it out.
    backend: &'a BackendName,
    /// The path it concerns, where it concerns one.
    path: Option<&'a str>,
    /// Whether its content was copied into the log, so that the file may change from now on.
    spooled: bool,
}

impl<'a> Receipts<'a> {
    /// These receipts.
    pub fn new(receipts: &'a [Receipt]) -> Receipts<'a> {
        let operation_id = match receipts {
            [only] => Some(Shown(only.id)),
            _ => None,
        };
        let operations = receipts
            .iter()
            .map(|receipt| ReceiptDoc {
                operation_id: Shown(receipt.id),
                number: receipt.number,
                status: Named(receipt.status),
                existing: receipt.existing,
                operation_type: &receipt.operation_type,
                backend: &receipt.backend,
                path: receipt.path.as_deref(),
                spooled: receipt.spooled,
            })
            .collect();
        Receipts { operation_id, operations }
    }
}

/// What has just been logged is pending.
fn new_is_pending(schema: &mut Schema) {
    schema.insert("if".into(), json!({ "properties": { "existing": { "const": false } } }));
    schema.insert("then".into(), json!({ "properties": { "status": { "const": "pending" } } }));
}

/// The id stands beside the operations exactly if there is one of them.
pub(super) fn id_of_one(schema: &mut Schema) {
    schema.insert("if".into(), json!({ "properties": { "operations": { "minItems": 1, "maxItems": 1 } } }));
    schema.insert("then".into(), json!({ "required": ["operation_id"] }));
    schema.insert("else".into(), json!({ "properties": { "operation_id": false } }));
}
