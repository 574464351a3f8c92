//! Encoding operations as the bytes of a Parquet file.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames,
    StringBuilder, StructBuilder, TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, Fields as ArrowFields};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::columns::{
    claim, claim_fields, history, history_fields, result, result_fields, schema, source,
    source_fields, structure, utf8,
};
use super::{FORMAT_KEY, ROW_GROUP_ROWS, compression};
use crate::operation::{Fields, Operation, OperationId, Outcome, State, Status, Time};
use crate::wal::error::{WalError, WalResult};

/// Returns the bytes of a Parquet file with these operations. Sorts them by id.
pub fn encode(operations: &mut [Operation]) -> WalResult<Vec<u8>> {
    operations.sort_by_key(|operation| operation.id);
    let failed = |error: ParquetError| {
        WalError::damaged("", None, format!("cannot write the operations as Parquet: {error}"))
    };
    let schema = Arc::new(schema());
    let batches: Vec<RecordBatch> = operations
        .chunks(ROW_GROUP_ROWS)
        .map(|group| RecordBatch::try_new(schema.clone(), columns(group)))
        .collect::<Result<_, _>>()
        .map_err(|error| failed(ParquetError::ArrowError(error.to_string())))?;
    let small = compression::small_columns(&batches).map_err(failed)?;
    let properties = properties(operations.len(), small);
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(failed)?;
    batches.iter().try_for_each(|batch| writer.write(batch)).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

fn properties(rows: usize, uncompressed: Vec<ColumnPath>) -> WriterProperties {
    let column = |name: &str| ColumnPath::new(name.split('.').map(str::to_owned).collect());
    let mut builder = WriterProperties::builder()
        .set_compression(ZstdLevel::try_new(1).map_or(Compression::UNCOMPRESSED, Compression::ZSTD))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_offset_index_disabled(true)
        .set_coerce_types(true)
        .set_created_by(concat!("wal-cli ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(
            FORMAT_KEY.to_owned(),
            Some(crate::wal::journal::FORMAT.to_string()),
        )]));
    // Counters and times grow from row to row, so their deltas are far smaller than a dictionary.
    for name in ["timestamp", "updated_at", "completed_at", "next_retry_at", "number", "revision"]
        .into_iter()
        .chain(["source.mtime_ns", "source.ctime_ns", "source.inode", "claim.started"])
        .chain(["history.list.element.revision", "history.list.element.at"])
    {
        builder = builder
            .set_column_dictionary_enabled(column(name), false)
            .set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["operation_id", "result.cid"] {
        builder = builder
            .set_column_dictionary_enabled(column(name), false)
            .set_column_encoding(column(name), Encoding::DELTA_BYTE_ARRAY);
    }
    for name in ["operation_id", "number", "revision"] {
        builder = builder.set_column_statistics_enabled(column(name), EnabledStatistics::Chunk);
    }
    for name in ["operation_id", "idempotency_key"] {
        builder = builder
            .set_column_bloom_filter_enabled(column(name), true)
            .set_column_bloom_filter_max_ndv(column(name), rows.clamp(1, ROW_GROUP_ROWS) as u64);
    }
    for column in uncompressed {
        builder = builder.set_column_compression(column, Compression::UNCOMPRESSED);
    }
    builder.build()
}

/// Returns the columns of a row group, in the order of the schema.
fn columns(rows: &[Operation]) -> Vec<ArrayRef> {
    vec![
        ids(rows.iter().map(|row| Some(row.id))),
        texts(rows.iter().map(|row| Some(row.operation_type.as_str()))),
        texts(rows.iter().map(|row| Some(row.status().as_str()))),
        times(rows.iter().map(|row| Some(row.logged_at))),
        times(rows.iter().map(|row| Some(row.updated_at))),
        times(rows.iter().map(|row| match &row.state {
            State::Completed { at, .. } => Some(*at),
            _ => None,
        })),
        texts(rows.iter().map(|row| Some(row.backend.as_str()))),
        maps(rows.iter().map(|row| Some(&row.parameters))),
        results(rows),
        texts(rows.iter().map(|row| row.state.failure().map(|failure| failure.message.as_str()))),
        texts(
            rows.iter().map(|row| row.state.failure().map(|failure| failure.error_type.as_str())),
        ),
        int32s(rows.iter().map(|row| as_i32(row.retry_count))),
        int32s(rows.iter().map(|row| as_i32(row.max_retries))),
        times(rows.iter().map(|row| match &row.state {
            State::Retrying { wait, .. } => Some(wait.until),
            _ => None,
        })),
        int64s(rows.iter().map(|row| as_i64(row.number.get()))),
        int64s(rows.iter().map(|row| as_i64(row.revision.get()))),
        int32s(rows.iter().map(|row| row.priority)),
        dependencies(rows),
        texts(rows.iter().map(|row| row.idempotency_key.as_deref())),
        flags(rows.iter().map(|row| row.hold)),
        times(rows.iter().map(|row| row.not_before)),
        texts(rows.iter().map(|row| row.state.failure().map(|failure| failure.class.as_str()))),
        int32s(rows.iter().map(|row| as_i32(row.interruptions))),
        sources(rows),
        claims(rows),
        ids(rows.iter().map(|row| row.redirected_from)),
        ids(rows.iter().map(|row| row.redirected_to)),
        maps(rows.iter().map(|row| outcome_of(row).map(|outcome| &outcome.receipt))),
        histories(rows),
        flags(
            rows.iter()
                .map(|row| matches!(row.state, State::Processing { cancel_requested: true, .. })),
        ),
    ]
}

fn outcome_of(row: &Operation) -> Option<&Outcome> {
    match &row.state {
        State::Completed { outcome, .. } => Some(outcome),
        _ => None,
    }
}

fn results(rows: &[Operation]) -> ArrayRef {
    let mut column = struct_builder(result_fields(), rows.len());
    for outcome in rows.iter().map(outcome_of) {
        put_text(&mut column, result::CID, outcome.and_then(|outcome| outcome.cid.as_deref()));
        put_int64(&mut column, result::SIZE, outcome.and_then(|outcome| outcome.size).map(as_i64));
        let destination = outcome.and_then(|outcome| outcome.destination.as_deref());
        put_text(&mut column, result::DESTINATION, destination);
        column.append(outcome.is_some());
    }
    Arc::new(column.finish())
}

fn sources(rows: &[Operation]) -> ArrayRef {
    let mut column = struct_builder(source_fields(), rows.len());
    for file in rows.iter().map(|row| row.source.as_ref()) {
        put_int64(&mut column, source::SIZE, file.map(|file| as_i64(file.size)));
        put_int64(&mut column, source::MTIME_NS, file.map(|file| file.mtime_ns));
        put_int64(&mut column, source::INODE, file.map(|file| file.inode as i64));
        put_text(&mut column, source::SHA256, file.and_then(|file| file.sha256.as_deref()));
        put_text(&mut column, source::SPOOL, file.and_then(|file| file.spool.as_deref()));
        put_int64(&mut column, source::CTIME_NS, file.and_then(|file| file.ctime_ns));
        column.append(file.is_some());
    }
    Arc::new(column.finish())
}

fn claims(rows: &[Operation]) -> ArrayRef {
    let mut column = struct_builder(claim_fields(), rows.len());
    for row in rows {
        let holder = match &row.state {
            State::Processing { claim, .. } => Some(claim),
            _ => None,
        };
        put_int64(&mut column, claim::PID, holder.map(|holder| i64::from(holder.pid)));
        put_text(&mut column, claim::HOST, holder.map(|holder| holder.host.as_str()));
        put_time(&mut column, claim::STARTED, holder.map(|holder| holder.started));
        column.append(holder.is_some());
    }
    Arc::new(column.finish())
}

fn dependencies(rows: &[Operation]) -> ArrayRef {
    let mut column = ListBuilder::new(StringBuilder::new()).with_field(utf8("element"));
    for row in rows {
        for id in &row.depends_on {
            column.values().append_value(id.to_string());
        }
        column.append(true);
    }
    Arc::new(column.finish())
}

fn histories(rows: &[Operation]) -> ArrayRef {
    // A completed operation has three entries if its first attempt succeeded.
    let mut column = ListBuilder::new(struct_builder(history_fields(), rows.len() * 3))
        .with_field(structure("element", history_fields()));
    for row in rows {
        for entry in &row.history {
            let values = column.values();
            put_int64(values, history::REVISION, Some(as_i64(entry.revision.get())));
            put_time(values, history::AT, Some(entry.at));
            put_text(values, history::FROM, entry.from.map(Status::as_str));
            put_text(values, history::TO, Some(entry.to.as_str()));
            put_text(values, history::ACTOR, Some(&entry.actor));
            put_text(values, history::REASON, entry.reason.as_deref());
            put_text(values, history::ERROR, entry.error.as_deref());
            values.append(true);
        }
        column.append(true);
    }
    Arc::new(column.finish())
}

fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

fn struct_builder(fields: Vec<Field>, capacity: usize) -> StructBuilder {
    StructBuilder::from_fields(ArrowFields::from(fields), capacity)
}

fn put_text(builder: &mut StructBuilder, field: usize, value: Option<&str>) {
    if let Some(builder) = builder.field_builder::<StringBuilder>(field) {
        builder.append_option(value);
    }
}

fn put_int64(builder: &mut StructBuilder, field: usize, value: Option<i64>) {
    if let Some(builder) = builder.field_builder::<Int64Builder>(field) {
        builder.append_option(value);
    }
}

fn put_time(builder: &mut StructBuilder, field: usize, value: Option<Time>) {
    if let Some(builder) = builder.field_builder::<TimestampMillisecondBuilder>(field) {
        builder.append_option(value.map(Time::as_millis));
    }
}

fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn as_i32(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.for_each(|value| builder.append_option(value));
    Arc::new(builder.finish())
}

fn ids(values: impl Iterator<Item = Option<OperationId>>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.for_each(|value| builder.append_option(value.map(|id| id.to_string())));
    Arc::new(builder.finish())
}

fn times(values: impl Iterator<Item = Option<Time>>) -> ArrayRef {
    let mut builder = TimestampMillisecondBuilder::new();
    values.for_each(|value| builder.append_option(value.map(Time::as_millis)));
    Arc::new(builder.finish())
}

fn int64s(values: impl Iterator<Item = i64>) -> ArrayRef {
    let mut builder = Int64Builder::new();
    values.for_each(|value| builder.append_value(value));
    Arc::new(builder.finish())
}

fn int32s(values: impl Iterator<Item = i32>) -> ArrayRef {
    let mut builder = Int32Builder::new();
    values.for_each(|value| builder.append_value(value));
    Arc::new(builder.finish())
}

fn maps<'a>(values: impl Iterator<Item = Option<&'a Fields>>) -> ArrayRef {
    let mut builder = map_builder();
    for value in values {
        for (key, text) in value.into_iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_value(text);
        }
        // Keys and values were appended in pairs, so this cannot fail.
        let _ = builder.append(value.is_some());
    }
    Arc::new(builder.finish())
}

fn flags(values: impl Iterator<Item = bool>) -> ArrayRef {
    let mut builder = BooleanBuilder::new();
    values.for_each(|value| builder.append_value(value));
    Arc::new(builder.finish())
}
