//! The columns of a file of operations: their names, their types, and their order.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields as ArrowFields, Schema, TimeUnit};

/// The index of each column in [`schema`].
pub(super) mod column {
    pub(in crate::wal::schema) const OPERATION_ID: usize = 0;
    pub(in crate::wal::schema) const OPERATION_TYPE: usize = 1;
    pub(in crate::wal::schema) const STATUS: usize = 2;
    pub(in crate::wal::schema) const TIMESTAMP: usize = 3;
    pub(in crate::wal::schema) const UPDATED_AT: usize = 4;
    pub(in crate::wal::schema) const COMPLETED_AT: usize = 5;
    pub(in crate::wal::schema) const BACKEND: usize = 6;
    pub(in crate::wal::schema) const PARAMETERS: usize = 7;
    pub(in crate::wal::schema) const RESULT: usize = 8;
    pub(in crate::wal::schema) const ERROR: usize = 9;
    pub(in crate::wal::schema) const ERROR_TYPE: usize = 10;
    pub(in crate::wal::schema) const RETRY_COUNT: usize = 11;
    pub(in crate::wal::schema) const MAX_RETRIES: usize = 12;
    pub(in crate::wal::schema) const NEXT_RETRY_AT: usize = 13;
    pub(in crate::wal::schema) const NUMBER: usize = 14;
    pub(in crate::wal::schema) const REVISION: usize = 15;
    pub(in crate::wal::schema) const PRIORITY: usize = 16;
    pub(in crate::wal::schema) const DEPENDS_ON: usize = 17;
    pub(in crate::wal::schema) const IDEMPOTENCY_KEY: usize = 18;
    pub(in crate::wal::schema) const HOLD: usize = 19;
    pub(in crate::wal::schema) const NOT_BEFORE: usize = 20;
    pub(in crate::wal::schema) const FAILURE_CLASS: usize = 21;
    pub(in crate::wal::schema) const INTERRUPTIONS: usize = 22;
    pub(in crate::wal::schema) const SOURCE: usize = 23;
    pub(in crate::wal::schema) const CLAIM: usize = 24;
    pub(in crate::wal::schema) const REDIRECTED_FROM: usize = 25;
    pub(in crate::wal::schema) const REDIRECTED_TO: usize = 26;
    pub(in crate::wal::schema) const RECEIPT: usize = 27;
    pub(in crate::wal::schema) const HISTORY: usize = 28;
    pub(in crate::wal::schema) const CANCEL_REQUESTED: usize = 29;
}

/// The index of each field of the column `result`.
pub(super) mod result {
    pub(in crate::wal::schema) const CID: usize = 0;
    pub(in crate::wal::schema) const SIZE: usize = 1;
    pub(in crate::wal::schema) const DESTINATION: usize = 2;
}

/// The index of each field of the column `source`.
pub(super) mod source {
    pub(in crate::wal::schema) const SIZE: usize = 0;
    pub(in crate::wal::schema) const MTIME_NS: usize = 1;
    pub(in crate::wal::schema) const INODE: usize = 2;
    pub(in crate::wal::schema) const SHA256: usize = 3;
    pub(in crate::wal::schema) const SPOOL: usize = 4;
}

/// The index of each field of the column `claim`.
pub(super) mod claim {
    pub(in crate::wal::schema) const PID: usize = 0;
    pub(in crate::wal::schema) const HOST: usize = 1;
    pub(in crate::wal::schema) const STARTED: usize = 2;
}

/// The index of each field of an element of the column `history`.
pub(super) mod history {
    pub(in crate::wal::schema) const REVISION: usize = 0;
    pub(in crate::wal::schema) const AT: usize = 1;
    pub(in crate::wal::schema) const FROM: usize = 2;
    pub(in crate::wal::schema) const TO: usize = 3;
    pub(in crate::wal::schema) const ACTOR: usize = 4;
    pub(in crate::wal::schema) const REASON: usize = 5;
    pub(in crate::wal::schema) const ERROR: usize = 6;
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
    vec![int64("size"), int64("mtime_ns"), int64("inode"), utf8("sha256"), utf8("spool")]
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
