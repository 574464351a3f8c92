//! The document of `add` and `submit`: the operations that were logged.

use schemars::{JsonSchema, Schema};
use serde::ser::{Error, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::words::{AsDisplay, AsName};
use crate::client::{ClientError, Receipts};
use crate::operation::{BackendName, OperationId, OperationType, Status};

/// The logged operations in the order of the inputs, streamed while they are read back.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Receipts", transform = id_of_one)]
pub struct ReceiptsDoc<'a> {
    /// Id of the operation; present only if there is exactly one.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<AsDisplay<OperationId>>,
    /// The logged operations; all of them are durable.
    #[serde(serialize_with = "one_by_one")]
    #[schemars(with = "Vec<ReceiptDoc<'a>>")]
    operations: &'a Receipts,
}

/// A logged operation.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Receipt", transform = new_is_pending)]
struct ReceiptDoc<'a> {
    /// Id of the operation.
    operation_id: AsDisplay<OperationId>,
    /// Number of the operation in this log.
    #[schemars(range(min = 1))]
    number: u64,
    /// Status of the operation.
    status: AsName<Status>,
    /// True if its idempotency key was in use already, so that nothing was logged.
    existing: bool,
    /// Type of the operation.
    operation_type: &'a OperationType,
    /// Backend that will execute the operation.
    backend: &'a BackendName,
    /// Path of the input; null if the operation has none.
    path: Option<&'a str>,
    /// True if the content was copied into the log, so that the source may change.
    spooled: bool,
}

impl<'a> ReceiptsDoc<'a> {
    /// Returns the document of these receipts.
    pub fn new(operations: &'a Receipts) -> Result<ReceiptsDoc<'a>, ClientError> {
        let operation_id = match operations.count() {
            1 => operations.to_vec()?.pop().map(|only| AsDisplay(only.id)),
            _ => None,
        };
        Ok(ReceiptsDoc { operation_id, operations })
    }
}

/// A failure to read or to write the next receipt.
enum Broken<E> {
    Read(ClientError),
    Write(E),
}

impl<E> From<ClientError> for Broken<E> {
    fn from(error: ClientError) -> Broken<E> {
        Broken::Read(error)
    }
}

fn one_by_one<S: Serializer>(receipts: &&Receipts, serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    let written = receipts.each(|receipt| {
        let doc = ReceiptDoc {
            operation_id: AsDisplay(receipt.id),
            number: receipt.number.get(),
            status: AsName(receipt.status),
            existing: receipt.existing,
            operation_type: &receipt.operation_type,
            backend: &receipt.backend,
            path: receipt.path.as_deref(),
            spooled: receipt.spooled,
        };
        list.serialize_element(&doc).map_err(Broken::Write)
    });
    match written {
        Ok(()) => list.end(),
        Err(Broken::Write(error)) => Err(error),
        Err(Broken::Read(error)) => Err(S::Error::custom(error)),
    }
}

/// Adds the rule that an operation that was just logged is pending.
fn new_is_pending(schema: &mut Schema) {
    schema.insert("if".into(), json!({ "properties": { "existing": { "const": false } } }));
    schema.insert("then".into(), json!({ "properties": { "status": { "const": "pending" } } }));
}

/// Adds the rule that `operation_id` is present exactly if there is one operation.
pub(super) fn id_of_one(schema: &mut Schema) {
    schema.insert(
        "if".into(),
        json!({ "properties": { "operations": { "minItems": 1, "maxItems": 1 } } }),
    );
    schema.insert("then".into(), json!({ "required": ["operation_id"] }));
    schema.insert("else".into(), json!({ "properties": { "operation_id": false } }));
}
