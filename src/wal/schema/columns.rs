//! The columns of a file of operations: their names, their types, and their order.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields as ArrowFields, Schema, TimeUnit};

/// The index of each column in [`schema`].
pub(super) mod column {
    pub const OPERATION_ID: usize = 0;
    pub const OPERATION_TYPE: usize = 1;
    pub const STATUS: usize = 2;
    pub const TIMESTAMP: usize = 3;
    pub const UPDATED_AT: usize = 4;
    pub const COMPLETED_AT: usize = 5;
    pub const BACKEND: usize = 6;
    pub const PARAMETERS: usize = 7;
    pub const RESULT: usize = 8;
    pub const ERROR: usize = 9;
    pub const ERROR_TYPE: usize = 10;
    pub const RETRY_COUNT: usize = 11;
    pub const MAX_RETRIES: usize = 12;
    pub const NEXT_RETRY_AT: usize = 13;
    pub const NUMBER: usize = 14;
    pub const REVISION: usize = 15;
    pub const PRIORITY: usize = 16;
    pub const DEPENDS_ON: usize = 17;
    pub const IDEMPOTENCY_KEY: usize = 18;
    pub const HOLD: usize = 19;
    pub const NOT_BEFORE: usize = 20;
    pub const FAILURE_CLASS: usize = 21;
    pub const INTERRUPTIONS: usize = 22;
    pub const SOURCE: usize = 23;
    pub const CLAIM: usize = 24;
    pub const REDIRECTED_FROM: usize = 25;
    pub const REDIRECTED_TO: usize = 26;
    pub const RECEIPT: usize = 27;
    pub const HISTORY: usize = 28;
    pub const CANCEL_REQUESTED: usize = 29;
}

/// The index of each field of the column `result`.
pub(super) mod result {
    pub const CID: usize = 0;
    pub const SIZE: usize = 1;
    pub const DESTINATION: usize = 2;
}

/// The index of each field of the column `source`.
pub(super) mod source {
    pub const SIZE: usize = 0;
    pub const MTIME_NS: usize = 1;
    pub const INODE: usize = 2;
    pub const SHA256: usize = 3;
    pub const SPOOL: usize = 4;
    /// Missing in files of earlier versions.
    pub const CTIME_NS: usize = 5;
}

/// The index of each field of the column `claim`.
pub(super) mod claim {
    pub const PID: usize = 0;
    pub const HOST: usize = 1;
    pub const STARTED: usize = 2;
}

/// The index of each field of an element of the column `history`.
pub(super) mod history {
    pub const REVISION: usize = 0;
    pub const AT: usize = 1;
    pub const FROM: usize = 2;
    pub const TO: usize = 3;
    pub const ACTOR: usize = 4;
    pub const REASON: usize = 5;
    pub const ERROR: usize = 6;
}

pub(super) fn utf8(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

pub(super) fn time(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), true)
}

pub(super) fn int64(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn int32(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

pub(super) fn structure(name: &str, fields: Vec<Field>) -> Field {
    Field::new(name, DataType::Struct(ArrowFields::from(fields)), true)
}

fn map(name: &str) -> Field {
    let entries = Field::new(
        "entries",
        DataType::Struct(ArrowFields::from(vec![
            Field::new("key", DataType::Utf8, false),
            utf8("value"),
        ])),
        false,
    );
    Field::new(name, DataType::Map(Arc::new(entries), false), true)
}

fn list(name: &str, element: Field) -> Field {
    Field::new(name, DataType::List(Arc::new(element)), true)
}

pub(super) fn result_fields() -> Vec<Field> {
    vec![utf8("cid"), int64("size"), utf8("destination")]
}

pub(super) fn claim_fields() -> Vec<Field> {
    vec![int64("pid"), utf8("host"), time("started")]
}

pub(super) fn source_fields() -> Vec<Field> {
    vec![
        int64("size"),
        int64("mtime_ns"),
        int64("inode"),
        utf8("sha256"),
        utf8("spool"),
        int64("ctime_ns"),
    ]
}

pub(super) fn history_fields() -> Vec<Field> {
    vec![
        int64("revision"),
        time("at"),
        utf8("from"),
        utf8("to"),
        utf8("actor"),
        utf8("reason"),
        utf8("error"),
    ]
}

/// Returns the columns in order: those of the original system, then ours.
pub fn schema() -> Schema {
    Schema::new(vec![
        utf8("operation_id"),
        utf8("operation_type"),
        utf8("status"),
        time("timestamp"),
        time("updated_at"),
        time("completed_at"),
        utf8("backend"),
        map("parameters"),
        structure("result", result_fields()),
        utf8("error"),
        utf8("error_type"),
        int32("retry_count"),
        int32("max_retries"),
        time("next_retry_at"),
        int64("number"),
        int64("revision"),
        int32("priority"),
        list("depends_on", utf8("element")),
        utf8("idempotency_key"),
        Field::new("hold", DataType::Boolean, true),
        time("not_before"),
        utf8("failure_class"),
        int32("interruptions"),
        structure("source", source_fields()),
        structure("claim", claim_fields()),
        utf8("redirected_from"),
        utf8("redirected_to"),
        map("receipt"),
        list("history", structure("element", history_fields())),
        Field::new("cancel_requested", DataType::Boolean, true),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_name_their_columns() {
        let schema = schema();
        let last = column::CANCEL_REQUESTED;
        assert_eq!(schema.fields().len(), last + 1);
        for (index, name) in [
            (column::OPERATION_ID, "operation_id"),
            (column::RESULT, "result"),
            (column::REVISION, "revision"),
            (column::IDEMPOTENCY_KEY, "idempotency_key"),
            (column::CLAIM, "claim"),
            (column::HISTORY, "history"),
            (last, "cancel_requested"),
        ] {
            assert_eq!(schema.field(index).name(), name);
        }
    }
}
