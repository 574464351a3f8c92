//! What was logged, as JSON.

use schemars::{JsonSchema, Schema};
use serde::ser::{Error, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::words::{AsDisplay, AsName};
use crate::client::{ClientError, Receipts};

use crate::operation::{BackendName, OperationId, OperationType, Status};

/// What was logged, in the order in which it was given; written as it is read.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Receipts", transform = id_of_one)]
pub struct ReceiptsDoc<'a> {
    /// The id, if there is one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<AsDisplay<OperationId>>,
    /// What was logged, durable.
    #[serde(serialize_with = "one_by_one")]
    #[schemars(with = "Vec<ReceiptDoc<'a>>")]
    operations: &'a Receipts,
}

/// An operation that was logged.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Receipt", transform = new_is_pending)]
struct ReceiptDoc<'a> {
    /// Its id.
    operation_id: AsDisplay<OperationId>,
    /// Its number in this log.
    #[schemars(range(min = 1))]
    number: u64,
    /// Where it stands.
    status: AsName<Status>,
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

impl<'a> ReceiptsDoc<'a> {
    /// These receipts.
    pub fn new(operations: &'a Receipts) -> Result<ReceiptsDoc<'a>, ClientError> {
        let operation_id = match operations.count() {
            1 => operations.to_vec()?.pop().map(|only| AsDisplay(only.id)),
            _ => None,
        };
        Ok(ReceiptsDoc { operation_id, operations })
    }
}

/// What went wrong while receipts were read and written.
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

/// What has just been logged is pending.
fn new_is_pending(schema: &mut Schema) {
    schema.insert("if".into(), json!({ "properties": { "existing": { "const": false } } }));
    schema.insert("then".into(), json!({ "properties": { "status": { "const": "pending" } } }));
}

/// The id stands beside the operations exactly if there is one of them.
pub(super) fn id_of_one(schema: &mut Schema) {
    schema.insert(
        "if".into(),
        json!({ "properties": { "operations": { "minItems": 1, "maxItems": 1 } } }),
    );
    schema.insert("then".into(), json!({ "required": ["operation_id"] }));
    schema.insert("else".into(), json!({ "properties": { "operation_id": false } }));
}
