//! Operations as Parquet rows. Only this and `original` know Arrow and Parquet.

mod check;
mod compression;
pub(in crate::wal) mod footer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames,
    StringBuilder, StructBuilder, TimestampMillisecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Fields as ArrowFields, Schema, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;

#[cfg(feature = "cli")]
pub use check::decode;
pub use check::{Checked, Salvaged, Spooled, salvage};

use crate::disk::Disk;
use crate::operation::{
    BackendName, Claim, Failure, FailureClass, Fields, HistoryEntry, Number, Operation,
    OperationId, OperationType, Outcome, Revision, Source, State, Status, Time, Wait,
};
use crate::wal::error::{WalError, WalResult};
use crate::wal::manifest::sha256_hex;

/// Footer key that marks a file as ours; its value is the format version.
pub const FORMAT_KEY: &str = "wal-cli.format";

/// Rows of one row group.
pub const ROW_GROUP_ROWS: usize = 1000;

fn utf8(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn time(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), true)
}

fn int64(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn int32(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

fn structure(name: &str, fields: Vec<Field>) -> Field {
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

fn source_fields() -> Vec<Field> {
    vec![int64("size"), int64("mtime_ns"), int64("inode"), utf8("sha256"), utf8("spool")]
}

fn history_fields() -> Vec<Field> {
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

/// The columns, in order: those of the original system, then ours.
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
        structure("result", vec![utf8("cid"), int64("size"), utf8("destination")]),
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
        structure("claim", vec![int64("pid"), utf8("host"), time("started")]),
        utf8("redirected_from"),
        utf8("redirected_to"),
        map("receipt"),
        list("history", structure("element", history_fields())),
        Field::new("cancel_requested", DataType::Boolean, true),
    ])
}

fn properties(rows: usize, small: Vec<ColumnPath>) -> WriterProperties {
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
    // Counters, times and ids grow from row to row: deltas are far smaller than a dictionary.
    for name in ["timestamp", "updated_at", "completed_at", "next_retry_at", "number", "revision"]
        .into_iter()
        .chain(["source.mtime_ns", "source.inode", "claim.started"])
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
    for column in small {
        builder = builder.set_column_compression(column, Compression::UNCOMPRESSED);
    }
    builder.build()
}

/// The bytes of a Parquet file with these operations, which it sorts by id.
pub fn encode(operations: &mut [Operation]) -> WalResult<Vec<u8>> {
    operations.sort_by_key(|operation| operation.id);
    let failed = |error: ParquetError| {
        WalError::damaged(
            "",
            None,
            format!("these operations cannot be written as Parquet: {error}"),
        )
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

fn columns(rows: &[Operation]) -> Vec<ArrayRef> {
    let outcome = |row: &Operation| match &row.state {
        State::Completed { outcome, .. } => Some(outcome.clone()),
        _ => None,
    };
    let mut result =
        struct_builder(vec![utf8("cid"), int64("size"), utf8("destination")], rows.len());
    let mut source = struct_builder(source_fields(), rows.len());
    let mut claim = struct_builder(vec![int64("pid"), utf8("host"), time("started")], rows.len());
    let mut depends_on = ListBuilder::new(StringBuilder::new()).with_field(utf8("element"));
    let mut history = ListBuilder::new(struct_builder(history_fields(), rows.len() * 3))
        .with_field(structure("element", history_fields()));
    let mut hold = BooleanBuilder::new();
    let mut cancel_requested = BooleanBuilder::new();
    for row in rows {
        let done = outcome(row);
        put_text(&mut result, 0, done.as_ref().and_then(|outcome| outcome.cid.as_deref()));
        put_int64(&mut result, 1, done.as_ref().and_then(|outcome| outcome.size).map(as_i64));
        put_text(&mut result, 2, done.as_ref().and_then(|outcome| outcome.destination.as_deref()));
        result.append(done.is_some());

        let from = row.source.as_ref();
        put_int64(&mut source, 0, from.map(|source| as_i64(source.size)));
        put_int64(&mut source, 1, from.map(|source| source.mtime_ns));
        put_int64(&mut source, 2, from.map(|source| source.inode as i64));
        put_text(&mut source, 3, from.and_then(|source| source.sha256.as_deref()));
        put_text(&mut source, 4, from.and_then(|source| source.spool.as_deref()));
        source.append(from.is_some());

        let by = match &row.state {
            State::Processing { claim, .. } => Some(claim),
            _ => None,
        };
        put_int64(&mut claim, 0, by.map(|claim| i64::from(claim.pid)));
        put_text(&mut claim, 1, by.map(|claim| claim.host.as_str()));
        put_time(&mut claim, 2, by.map(|claim| claim.started));
        claim.append(by.is_some());

        for id in &row.depends_on {
            depends_on.values().append_value(id.to_string());
        }
        depends_on.append(true);
        hold.append_value(row.hold);
        cancel_requested
            .append_value(matches!(row.state, State::Processing { cancel_requested: true, .. }));

        for entry in &row.history {
            let values = history.values();
            put_int64(values, 0, Some(as_i64(entry.revision.get())));
            put_time(values, 1, Some(entry.at));
            put_text(values, 2, entry.from.map(Status::as_str));
            put_text(values, 3, Some(entry.to.as_str()));
            put_text(values, 4, Some(&entry.actor));
            put_text(values, 5, entry.reason.as_deref());
            put_text(values, 6, entry.error.as_deref());
            values.append(true);
        }
        history.append(true);
    }
    let failure = |row: &Operation| row.state.failure().cloned();
    let failures: Vec<Option<Failure>> = rows.iter().map(failure).collect();
    let outcomes: Vec<Option<Outcome>> = rows.iter().map(outcome).collect();
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
        Arc::new(result.finish()),
        texts(failures.iter().map(|f| f.as_ref().map(|f| f.message.as_str()))),
        texts(failures.iter().map(|f| f.as_ref().map(|f| f.error_type.as_str()))),
        int32s(rows.iter().map(|row| as_i32(row.retry_count))),
        int32s(rows.iter().map(|row| as_i32(row.max_retries))),
        times(rows.iter().map(|row| match &row.state {
            State::Retrying { wait, .. } => Some(wait.until),
            _ => None,
        })),
        int64s(rows.iter().map(|row| as_i64(row.number.get()))),
        int64s(rows.iter().map(|row| as_i64(row.revision.get()))),
        int32s(rows.iter().map(|row| row.priority)),
        Arc::new(depends_on.finish()),
        texts(rows.iter().map(|row| row.idempotency_key.as_deref())),
        Arc::new(hold.finish()),
        times(rows.iter().map(|row| row.not_before)),
        texts(failures.iter().map(|f| f.as_ref().map(|f| f.class.as_str()))),
        int32s(rows.iter().map(|row| as_i32(row.interruptions))),
        Arc::new(source.finish()),
        Arc::new(claim.finish()),
        ids(rows.iter().map(|row| row.redirected_from)),
        ids(rows.iter().map(|row| row.redirected_to)),
        maps(outcomes.iter().map(|outcome| outcome.as_ref().map(|outcome| &outcome.receipt))),
        Arc::new(history.finish()),
        Arc::new(cancel_requested.finish()),
    ]
}

/// What is known of a row group without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    /// Its place in the file.
    pub index: usize,
    /// Its rows.
    pub rows: usize,
    /// First and last number.
    pub numbers: (Number, Number),
    /// First and last id.
    pub ids: (OperationId, OperationId),
}

/// An open Parquet file of operations.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    groups: Vec<RowGroup>,
}

impl Table {
    /// Reads a file, which must have this SHA-256, and its footer.
    ///
    /// Files are at most a few hundred kilobytes. What does not have the bytes that were written is
    /// damaged, whatever Parquet would make of it: pages carry no checksums of their own.
    pub fn open(disk: &dyn Disk, path: &Path, sha256: &str) -> WalResult<Table> {
        let broken = |what: String| WalError::damaged(path, None, what);
        let bytes = Bytes::from(disk.read(path)?);
        if sha256_hex(&bytes) != sha256 {
            return Err(broken("its bytes are not those that the manifest describes".into()));
        }
        let metadata = footer::footer(&bytes)
            .map_err(|what| broken(format!("it cannot be read as Parquet: {what}")))?;
        let format = metadata
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .and_then(|pairs| pairs.iter().find(|pair| pair.key == FORMAT_KEY))
            .and_then(|pair| pair.value.as_deref())
            .and_then(|value| value.parse::<u64>().ok());
        match format {
            None => {
                let what =
                    format!("the Parquet file has no key `{FORMAT_KEY}`: another program made it");
                return Err(WalError::NotOurs { path: path.to_owned(), what });
            }
            Some(found) if found > u64::from(crate::wal::journal::FORMAT) => {
                let known = u64::from(crate::wal::journal::FORMAT);
                return Err(WalError::NewerFormat { path: path.to_owned(), found, known });
            }
            Some(_) => {}
        }
        let names: Vec<String> =
            metadata.schema().fields().iter().map(|field| field.name().clone()).collect();
        if names != schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>() {
            return Err(broken(format!(
                "its columns are not those of format {}",
                crate::wal::journal::FORMAT
            )));
        }
        let groups = metadata
            .metadata()
            .row_groups()
            .iter()
            .enumerate()
            .map(|(index, group)| {
                let statistics = |name: &str| {
                    group
                        .columns()
                        .iter()
                        .find(|column| column.column_path().string() == name)?
                        .statistics()
                };
                let numbers = match statistics("number")? {
                    Statistics::Int64(values) => {
                        let bound = |value: &i64| Number::new(*value as u64);
                        (bound(values.min_opt()?), bound(values.max_opt()?))
                    }
                    _ => return None,
                };
                let id =
                    |bytes: Option<&[u8]>| OperationId::parse(std::str::from_utf8(bytes?).ok()?);
                let ids = statistics("operation_id")?;
                let ids = (id(ids.min_bytes_opt())?, id(ids.max_bytes_opt())?);
                Some(RowGroup {
                    index,
                    rows: usize::try_from(group.num_rows()).ok()?,
                    numbers,
                    ids,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| broken("its row groups lack the ranges of ids and numbers".into()))?;
        Ok(Table { path: path.to_owned(), bytes, metadata, groups })
    }

    /// Its row groups.
    pub fn groups(&self) -> &[RowGroup] {
        &self.groups
    }

    /// Whether a row group may hold this id, asking its bloom filter.
    pub fn may_hold(&self, group: &RowGroup, id: OperationId) -> bool {
        if id < group.ids.0 || id > group.ids.1 {
            return false;
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.bytes.clone(),
            self.metadata.clone(),
        );
        let text = id.to_string();
        let ask = || {
            Some(
                builder
                    .get_row_group_column_bloom_filter(group.index, 0)
                    .ok()??
                    .check(&text.as_str()),
            )
        };
        // Without a filter nothing is ruled out; damage shows when the rows are read.
        footer::caught(ask).ok().flatten().unwrap_or(true)
    }

    /// Whether a row group may hold this idempotency key, asking its bloom filter.
    pub fn may_hold_key(&self, group: &RowGroup, key: &str) -> bool {
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        let column =
            schema.columns().iter().position(|column| column.path().string() == "idempotency_key");
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.bytes.clone(),
            self.metadata.clone(),
        );
        let ask = || {
            Some(builder.get_row_group_column_bloom_filter(group.index, column?).ok()??.check(&key))
        };
        footer::caught(ask).ok().flatten().unwrap_or(true)
    }

    /// The operations of some row groups.
    pub fn read(&self, groups: impl IntoIterator<Item = usize>) -> WalResult<Vec<Operation>> {
        footer::caught(|| self.read_believing(groups))
            .unwrap_or_else(|what| Err(WalError::damaged(&self.path, None, what)))
    }

    fn read_believing(&self, groups: impl IntoIterator<Item = usize>) -> WalResult<Vec<Operation>> {
        let broken = |what: String| WalError::damaged(&self.path, None, what);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.bytes.clone(),
            self.metadata.clone(),
        )
        .with_row_groups(groups.into_iter().collect())
        .with_batch_size(ROW_GROUP_ROWS)
        .build()
        .map_err(|error| broken(format!("it cannot be read as Parquet: {error}")))?;
        let mut operations = Vec::new();
        for batch in reader {
            let batch =
                batch.map_err(|error| broken(format!("its rows cannot be read: {error}")))?;
            for row in 0..batch.num_rows() {
                let operation = decode_row(&batch, row).map_err(|what| {
                    broken(format!("row {} is invalid: {what}", operations.len()))
                })?;
                operations.push(operation);
            }
        }
        Ok(operations)
    }

    /// All operations.
    pub fn read_all(&self) -> WalResult<Vec<Operation>> {
        self.read(0..self.groups.len())
    }
}

type RowResult<T> = Result<T, &'static str>;

struct Row<'a> {
    columns: &'a [ArrayRef],
    row: usize,
}

impl Row<'_> {
    fn text(&self, column: usize) -> Option<&str> {
        // Files of before a field was added lack it.
        let array = self.columns.get(column)?.as_string_opt::<i32>()?;
        array.is_valid(self.row).then(|| array.value(self.row))
    }

    fn time(&self, column: usize) -> Option<Time> {
        let array = self.columns[column].as_primitive_opt::<TimestampMillisecondType>()?;
        array.is_valid(self.row).then(|| Time::from_millis(array.value(self.row)))
    }

    fn int64(&self, column: usize) -> Option<i64> {
        let array = self.columns[column].as_primitive_opt::<Int64Type>()?;
        array.is_valid(self.row).then(|| array.value(self.row))
    }

    fn count(&self, column: usize) -> Option<u64> {
        self.int64(column).and_then(|value| u64::try_from(value).ok())
    }

    fn int32(&self, column: usize) -> Option<i32> {
        let array = self.columns[column].as_primitive_opt::<Int32Type>()?;
        array.is_valid(self.row).then(|| array.value(self.row))
    }

    fn flag(&self, column: usize) -> bool {
        self.columns[column]
            .as_boolean_opt()
            .is_some_and(|array| array.is_valid(self.row) && array.value(self.row))
    }

    fn id(&self, column: usize) -> RowResult<Option<OperationId>> {
        self.text(column)
            .map(|text| OperationId::parse(text).ok_or("an id is not a UUID"))
            .transpose()
    }

    fn structure(&self, column: usize) -> Option<Row<'_>> {
        let array: &StructArray = self.columns[column].as_struct_opt()?;
        array.is_valid(self.row).then(|| Row { columns: array.columns(), row: self.row })
    }

    fn map(&self, column: usize) -> Option<Fields> {
        let array = self.columns[column].as_map_opt()?;
        if array.is_null(self.row) {
            return None;
        }
        let entries = array.value(self.row);
        let entries = Row { columns: entries.columns(), row: 0 };
        let keys = entries.columns.first()?.as_string_opt::<i32>()?;
        let pairs = (0..keys.len()).map(|row| {
            let pair = Row { columns: entries.columns, row };
            (
                pair.text(0).unwrap_or_default().to_owned(),
                pair.text(1).unwrap_or_default().to_owned(),
            )
        });
        Some(pairs.collect())
    }

    fn list(&self, column: usize) -> Option<ArrayRef> {
        let array = self.columns[column].as_list_opt::<i32>()?;
        array.is_valid(self.row).then(|| array.value(self.row))
    }
}

fn decode_row(batch: &RecordBatch, row: usize) -> RowResult<Operation> {
    let row = Row { columns: batch.columns(), row };
    let count = |column: usize, what: &'static str| {
        u32::try_from(row.int32(column).unwrap_or(0)).map_err(|_| what)
    };
    let history = decode_history(row.list(28))?;
    let logged_at = row.time(3).ok_or("it has no timestamp")?;
    let updated_at = row.time(4).unwrap_or(logged_at);
    let status = row.text(2).and_then(Status::parse).ok_or("its status is none of the five")?;
    // The instant at which the present status began; no column of its own holds it.
    let since = history
        .iter()
        .rev()
        .find(|entry| entry.to == status && entry.from != Some(status))
        .map_or(updated_at, |entry| entry.at);
    let failure = match (row.text(9), row.text(10), row.text(21)) {
        (None, None, None) => None,
        (message, error_type, class) => Some(Failure {
            class: class
                .map_or(Some(FailureClass::Permanent), FailureClass::parse)
                .ok_or("its failure class is unknown")?,
            error_type: error_type.unwrap_or("unknown").to_owned(),
            message: message.unwrap_or_default().to_owned(),
        }),
    };
    let state = match status {
        Status::Pending => State::Pending { last_failure: failure },
        Status::Processing => {
            let claim = row.structure(24).ok_or("it is processing without a claim")?;
            let claim = Claim {
                pid: u32::try_from(claim.int64(0).unwrap_or(0))
                    .map_err(|_| "its claim has no process id")?,
                host: claim.text(1).unwrap_or_default().to_owned(),
                started: claim.time(2).unwrap_or(updated_at),
            };
            State::Processing { claim, last_failure: failure, cancel_requested: row.flag(29) }
        }
        Status::Retrying => State::Retrying {
            failure: failure.ok_or("it is retrying without a failure")?,
            wait: Wait { since, until: row.time(13).ok_or("it is retrying without a time")? },
        },
        Status::Failed => {
            State::Failed { at: since, failure: failure.ok_or("it failed without a failure")? }
        }
        Status::Completed => {
            let result = row.structure(8);
            let result = result.as_ref();
            let size = result.and_then(|result| result.int64(1));
            State::Completed {
                at: row.time(5).unwrap_or(since),
                outcome: Outcome {
                    cid: result.and_then(|result| result.text(0)).map(str::to_owned),
                    size: size
                        .map(u64::try_from)
                        .transpose()
                        .map_err(|_| "its size is negative")?,
                    destination: result.and_then(|result| result.text(2)).map(str::to_owned),
                    receipt: row.map(27).unwrap_or_default(),
                },
            }
        }
    };
    let source = row.structure(23).map(|source| Source {
        size: source.int64(0).unwrap_or(0) as u64,
        mtime_ns: source.int64(1).unwrap_or(0),
        inode: source.int64(2).unwrap_or(0) as u64,
        sha256: source.text(3).map(str::to_owned),
        spool: source.text(4).map(str::to_owned),
    });
    let mut depends_on = Vec::new();
    if let Some(list) = row.list(17) {
        for id in list.as_string_opt::<i32>().ok_or("its dependencies are no text")?.iter() {
            depends_on.push(id.and_then(OperationId::parse).ok_or("a dependency is not a UUID")?);
        }
    }
    Ok(Operation {
        id: row.id(0)?.ok_or("it has no id")?,
        number: row.count(14).map(Number::new).ok_or("it has no number")?,
        revision: row.count(15).map(Revision::new).ok_or("it has no revision")?,
        operation_type: row
            .text(1)
            .and_then(|text| OperationType::new(text).ok())
            .ok_or("its type is not a valid name")?,
        backend: row
            .text(6)
            .and_then(|text| BackendName::new(text).ok())
            .ok_or("its backend is not a valid name")?,
        parameters: row.map(7).unwrap_or_default(),
        logged_at,
        updated_at,
        retry_count: count(11, "its retry count is negative")?,
        max_retries: count(12, "its maximum of retries is negative")?,
        priority: row.int32(16).unwrap_or(0),
        depends_on,
        idempotency_key: row.text(18).map(str::to_owned),
        hold: row.flag(19),
        not_before: row.time(20),
        interruptions: count(22, "its interruptions are negative")?,
        source,
        redirected_from: row.id(25)?,
        redirected_to: row.id(26)?,
        state,
        history,
    })
}

fn decode_history(list: Option<ArrayRef>) -> RowResult<Vec<HistoryEntry>> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let entries = list.as_struct_opt().ok_or("its history is not a list of structures")?;
    (0..entries.len())
        .map(|index| {
            let entry = Row { columns: entries.columns(), row: index };
            Ok(HistoryEntry {
                revision: entry
                    .count(0)
                    .map(Revision::new)
                    .ok_or("its history lacks a revision")?,
                at: entry.time(1).ok_or("its history lacks a time")?,
                from: entry
                    .text(2)
                    .map(|text| Status::parse(text).ok_or("its history has an unknown status"))
                    .transpose()?,
                to: entry
                    .text(3)
                    .and_then(Status::parse)
                    .ok_or("its history has an unknown status")?,
                actor: entry.text(4).unwrap_or_default().to_owned(),
                reason: entry.text(5).map(str::to_owned),
                error: entry.text(6).map(str::to_owned),
            })
        })
        .collect()
}
