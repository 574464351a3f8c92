//! Reads files of the original system leniently: Parquet rows, and the JSON lines that it appends
//! where a row does not fit its columns.

use std::collections::HashMap;
use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::disk::{Disk, FileKind, Metadata};
use crate::operation::{
    BackendName, Claim, Failure, FailureClass, Fields, HistoryEntry, Number, Operation,
    OperationId, OperationType, Outcome, Revision, State, Status, Time, Wait, defaults,
};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::{OriginalFile, Unread, sha256_hex};
use crate::wal::schema::FORMAT_KEY;
use crate::wal::schema::footer::{self, MAGIC};

/// The actor of the first entry in the history of an adopted operation.
pub const ACTOR: &str = "ipfs_kit_py";

/// Parameters that keep a name which is not valid in this log.
const TYPE_KEPT: &str = "original_operation_type";
const BACKEND_KEPT: &str = "original_backend";

/// The Parquet files in `partitions/` and `archives/` of a log.
#[derive(Debug, Default)]
pub struct Survey {
    /// Files of the original system: partitions, then archives, by name.
    pub files: Vec<Surveyed>,
    /// A Parquet file of this program, if there is one.
    pub ours: Option<PathBuf>,
}

/// A file of the original system.
#[derive(Debug)]
pub struct Surveyed {
    /// Name, size and hash.
    pub file: OriginalFile,
    /// Its metadata.
    pub metadata: Metadata,
    bytes: Vec<u8>,
}

/// Reads all Parquet files of a log, in the order of their names.
pub fn survey(disk: &dyn Disk, layout: &Layout) -> WalResult<Survey> {
    let mut survey = Survey::default();
    for directory in [layout.partitions(), layout.archives()] {
        let entries = match disk.list(&directory) {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        let mut names: Vec<String> = entries
            .into_iter()
            .filter(|entry| entry.kind != FileKind::Directory)
            .filter_map(|entry| entry.name.into_string().ok())
            .filter(|name| Layout::is_parquet(name))
            .collect();
        names.sort();
        for name in names {
            let path = directory.join(&name);
            let metadata = disk.metadata(&path)?;
            let bytes = disk.read(&path)?;
            if is_ours(&name, &bytes) {
                survey.ours.get_or_insert(path);
                continue;
            }
            let name = layout.relative(&path);
            let file = OriginalFile { name, bytes: bytes.len() as u64, sha256: sha256_hex(&bytes) };
            survey.files.push(Surveyed { file, metadata, bytes });
        }
    }
    Ok(survey)
}

/// Returns true if the footer of a file has the key of this program or, without a footer, probably
/// had it.
fn is_ours(name: &str, bytes: &[u8]) -> bool {
    match footer::footer(&Bytes::copy_from_slice(bytes)) {
        Ok(metadata) => metadata
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .is_some_and(|pairs| pairs.iter().any(|pair| pair.key == FORMAT_KEY)),
        Err(_) => {
            Layout::is_numbered(name)
                && bytes.windows(FORMAT_KEY.len()).any(|window| window == FORMAT_KEY.as_bytes())
        }
    }
}

impl Survey {
    /// Returns the files as a manifest lists them.
    pub fn listing(&self) -> Vec<OriginalFile> {
        self.files.iter().map(|surveyed| surveyed.file.clone()).collect()
    }

    /// Returns their operations.
    pub fn rows(&self) -> Rows {
        Rows::of(
            self.files
                .iter()
                .map(|surveyed| (surveyed.file.name.as_str(), surveyed.bytes.as_slice())),
        )
    }
}

/// Reads the operations of the original files that a manifest lists.
pub fn read_listed(disk: &dyn Disk, layout: &Layout, files: &[OriginalFile]) -> WalResult<Rows> {
    let mut read = Vec::with_capacity(files.len());
    for file in files {
        read.push((file.name.as_str(), disk.read(&layout.file(&file.name))?));
    }
    Ok(Rows::of(read.iter().map(|(name, bytes)| (*name, bytes.as_slice()))))
}

/// The operations of the original files, without duplicates, with the numbers that adoption
/// assigns.
#[derive(Debug, Default)]
pub struct Rows {
    /// In the order of their numbers, which are dense and start at 1.
    operations: Vec<Operation>,
    /// True for each operation that was found in an archive.
    archived: Vec<bool>,
    numbers: HashMap<OperationId, Number>,
    /// The files.
    names: Vec<String>,
    /// The places that could not be read, at most one per file.
    pub unread: Vec<Unread>,
}

impl Rows {
    fn of<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Rows {
        let mut rows = Rows::default();
        let mut newest: HashMap<OperationId, (Operation, bool)> = HashMap::new();
        for (name, bytes) in files {
            rows.names.push(name.to_owned());
            let archived = Layout::is_in_archives(name);
            let (operations, unread) = read_file(name, bytes);
            rows.unread.extend(unread);
            for operation in operations {
                // The original system may leave an id in two files. Of rows with the same time, the
                // one read last counts: that in an archive, or the later one in a file.
                let is_newer = newest
                    .get(&operation.id)
                    .is_none_or(|(known, _)| known.updated_at <= operation.updated_at);
                if is_newer {
                    newest.insert(operation.id, (operation, archived));
                }
            }
        }
        let mut found: Vec<(Operation, bool)> = newest.into_values().collect();
        found.sort_by_key(|(operation, _)| (operation.logged_at, operation.id));
        for (nth, (mut operation, archived)) in found.into_iter().enumerate() {
            let number = Number::new(nth as u64 + 1);
            let revision = Revision::new(number.get());
            (operation.number, operation.revision) = (number, revision);
            operation.history.iter_mut().for_each(|entry| entry.revision = revision);
            rows.numbers.insert(operation.id, number);
            rows.archived.push(archived && operation.status() == Status::Completed);
            rows.operations.push(operation);
        }
        rows
    }

    /// Returns the names of the files, relative to the log.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the number of operations, which is also the highest number.
    pub fn count(&self) -> u64 {
        self.operations.len() as u64
    }

    /// Returns all operations by number.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Returns the operation with this number.
    pub fn operation(&self, number: Number) -> Option<&Operation> {
        self.operations.get(usize::try_from(number.get().checked_sub(1)?).ok()?)
    }

    /// Returns the operation with this id.
    pub fn operation_by_id(&self, id: OperationId) -> Option<&Operation> {
        self.operation(*self.numbers.get(&id)?)
    }

    /// Returns the number of completed operations in archives.
    pub fn archived(&self) -> u64 {
        self.archived.iter().filter(|archived| **archived).count() as u64
    }

    /// Returns all operations, each with true if it was found in an archive.
    pub fn into_operations(self) -> impl Iterator<Item = (Operation, bool)> {
        self.operations.into_iter().zip(self.archived)
    }
}

/// Returns the operations of one file, and the place that could not be read, if there is one.
fn read_file(name: &str, bytes: &[u8]) -> (Vec<Operation>, Option<Unread>) {
    let mut found = Found { name, operations: Vec::new(), unread: Vec::new() };
    let mut rest = 0;
    if let Some((end, rows)) = parquet_part(bytes) {
        rest = end;
        for (nth, row) in rows.into_iter().enumerate() {
            found.take(None, row, || format!("row {}", nth + 1));
        }
    }
    // The original system appends a row that does not fit the columns as a line of JSON.
    let mut at = rest;
    let mut after_damage = false;
    for line in bytes[rest..].split(|byte| *byte == b'\n') {
        let start = at as u64;
        at += line.len() + 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(value) => {
                found.take(Some(start), Ok(value), || format!("the line at byte {start}"));
                after_damage = false;
            }
            // Binary remains contain line feeds at random. They are reported once.
            Err(error) if !after_damage => {
                let what = match std::str::from_utf8(line) {
                    Ok(_) => format!("the line at byte {start} is not valid JSON: {error}"),
                    Err(_) => "neither Parquet nor JSON".into(),
                };
                found.unread.push((Some(start), what));
                after_damage = true;
            }
            Err(_) => {}
        }
    }
    if bytes.is_empty() {
        found.unread.push((None, "the file is empty".into()));
    }
    let more = found.unread.len().saturating_sub(1);
    let unread = found.unread.into_iter().next().map(|(offset, what)| Unread {
        name: name.to_owned(),
        offset,
        what: if more > 0 { format!("{what} (and {more} more)") } else { what },
    });
    (found.operations, unread)
}

/// The contents of one file.
struct Found<'a> {
    name: &'a str,
    operations: Vec<Operation>,
    unread: Vec<(Option<u64>, String)>,
}

impl Found<'_> {
    /// Adds a row, or the reason why it cannot be decoded.
    fn take(
        &mut self,
        offset: Option<u64>,
        row: Result<Value, String>,
        place: impl Fn() -> String,
    ) {
        match row.and_then(|row| decode(&row, self.name)) {
            Ok(operation) => self.operations.push(operation),
            Err(what) => self.unread.push((offset, format!("{}: {what}", place()))),
        }
    }
}

/// Returns the end of the Parquet part of a file, which JSON lines may follow, and its rows.
fn parquet_part(bytes: &[u8]) -> Option<(usize, Vec<Result<Value, String>>)> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let shared = Bytes::copy_from_slice(bytes);
    let ends = (0..=bytes.len().checked_sub(MAGIC.len())?)
        .rev()
        .filter(|at| bytes[*at..].starts_with(MAGIC));
    let (end, metadata) = ends
        .map(|at| at + MAGIC.len())
        .find_map(|end| Some((end, footer::footer(&shared.slice(..end)).ok()?)))?;
    let mut rows = Vec::new();
    // Row groups are read one by one, so that a damaged one does not hide the others.
    for group in 0..metadata.metadata().num_row_groups() {
        let read = footer::caught(|| rows_of_group(shared.slice(..end), metadata.clone(), group));
        rows.extend(read.unwrap_or_else(|what| vec![Err(format!("{UNREADABLE}: {what}"))]));
    }
    Some((end, rows))
}

const UNREADABLE: &str = "this row and those after it cannot be read";

fn rows_of_group(
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    group: usize,
) -> Vec<Result<Value, String>> {
    let mut rows = Vec::new();
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
        .with_row_groups(vec![group]);
    let read = || -> Result<(), Box<dyn std::error::Error>> {
        for batch in builder.build()? {
            // After an error, the reader would return the same error indefinitely.
            let batch = batch?;
            rows.extend((0..batch.num_rows()).map(|row| row_of(&batch, row)));
        }
        Ok(())
    };
    if let Err(error) = read() {
        rows.push(Err(format!("{UNREADABLE}: {error}")));
    }
    rows
}

fn row_of(batch: &RecordBatch, row: usize) -> Result<Value, String> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    fields
        .map(|(field, column)| {
            let value = value_of(column, row)
                .map_err(|what| format!("its column `{}`: {what}", field.name()))?;
            Ok((field.name().clone(), value))
        })
        .collect::<Result<Map<_, _>, String>>()
        .map(Value::Object)
}

/// Converts one value to JSON; times become milliseconds.
fn value_of(array: &dyn Array, row: usize) -> Result<Value, String> {
    fn number<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Value
    where
        Value: From<T::Native>,
    {
        array.as_primitive::<T>().value(row).into()
    }
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => number::<Int8Type>(array, row),
        DataType::Int16 => number::<Int16Type>(array, row),
        DataType::Int32 => number::<Int32Type>(array, row),
        DataType::Int64 => number::<Int64Type>(array, row),
        DataType::UInt8 => number::<UInt8Type>(array, row),
        DataType::UInt16 => number::<UInt16Type>(array, row),
        DataType::UInt32 => number::<UInt32Type>(array, row),
        DataType::UInt64 => number::<UInt64Type>(array, row),
        DataType::Float32 => number::<Float32Type>(array, row),
        DataType::Float64 => number::<Float64Type>(array, row),
        DataType::Timestamp(TimeUnit::Second, _) => {
            array.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1000).into()
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            number::<TimestampMillisecondType>(array, row)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).div_euclid(1000).into()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000_000).into()
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let values =
                columns.map(|(field, column)| Ok((field.name().clone(), value_of(column, row)?)));
            Value::Object(values.collect::<Result<_, String>>()?)
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let pairs = (0..entries.len()).map(|at| {
                let key = value_of(entries.column(0), at)?;
                Ok((text_of(&key), value_of(entries.column(1), at)?))
            });
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Value::Array((0..items.len()).map(|at| value_of(&items, at)).collect::<Result<_, _>>()?)
        }
        other => return Err(format!("values of type {other} are not supported")),
    })
}

/// Converts a value to a parameter: text as it is, everything else as JSON.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns the id for an id of the original system: the same if it is a UUID, otherwise a hash of
/// its text.
pub fn id_of(text: &str) -> OperationId {
    OperationId::parse(text).unwrap_or_else(|| {
        let hash = Sha256::digest(format!("wal-cli operation_id {text}").as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        // Version 8, variant 1: a UUID with custom content.
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        OperationId::from_bytes(bytes)
    })
}

/// The prefix of the idempotency key that keeps an id which is not a UUID.
pub const KEY_PREFIX: &str = "original:";

/// Returns the id for an idempotency key with that prefix.
pub fn id_of_key(key: &str) -> OperationId {
    id_of(key.strip_prefix(KEY_PREFIX).unwrap_or(key))
}

/// Converts an invalid name to a valid one that no backend has.
fn renamed(text: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    "original_".chars().chain(text.chars().map(word)).take(64).collect()
}

/// A row of the original system.
struct Row<'a>(&'a Map<String, Value>);

impl Row<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(text_of)
    }

    fn time(&self, name: &str) -> Result<Option<Time>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let time = match value {
            Value::Number(number) => {
                number.as_i64().or(number.as_f64().map(|ms| ms as i64)).map(Time::from_millis)
            }
            Value::String(text) => Time::parse_rfc3339(text),
            _ => None,
        };
        time.map(Some).ok_or_else(|| format!("its `{name}` is not a time: {value}"))
    }

    /// Returns a count, limited to what the columns of this program hold.
    fn count(&self, name: &str) -> Option<u32> {
        let number = self.get(name)?.as_i64()?;
        u32::try_from(number.clamp(0, i64::from(i32::MAX))).ok()
    }
}

/// Converts parameters of any form to text by name.
fn fields_of(value: Option<&Value>, otherwise: &str) -> Fields {
    match value {
        None => Fields::new(),
        Some(Value::Object(fields)) => {
            fields.iter().map(|(name, value)| (name.clone(), text_of(value))).collect()
        }
        Some(other) => match other.as_str().and_then(|text| serde_json::from_str(text).ok()) {
            Some(Value::Object(fields)) => fields_of(Some(&Value::Object(fields)), otherwise),
            _ => Fields::from([(otherwise.to_owned(), text_of(other))]),
        },
    }
}

/// Returns the state of a row. `is_spent` is true if no retries are left.
fn state_of(
    row: &Row<'_>,
    status: Status,
    updated_at: Time,
    is_spent: bool,
) -> Result<State, String> {
    let (error, error_type) = (row.text("error"), row.text("error_type"));
    let failure = |class| Failure {
        class,
        error_type: error_type.clone().unwrap_or_else(|| "unknown".into()),
        message: error.clone().unwrap_or_default(),
    };
    let last_failure =
        (error.is_some() || error_type.is_some()).then(|| failure(FailureClass::Transient));
    Ok(match status {
        Status::Pending => State::Pending { last_failure },
        // The claiming process is not known. No process has the id 0, so a drain loop queries the
        // backend first.
        Status::Processing => State::Processing {
            claim: Claim { pid: 0, host: "unknown".into(), started: updated_at },
            cancel_requested: false,
            last_failure,
        },
        Status::Retrying => State::Retrying {
            failure: failure(FailureClass::Transient),
            wait: Wait {
                since: updated_at,
                until: row.time("next_retry_at")?.unwrap_or(updated_at),
            },
        },
        Status::Failed => {
            let class = if is_spent { FailureClass::Transient } else { FailureClass::Permanent };
            State::Failed { at: updated_at, failure: failure(class) }
        }
        Status::Completed => State::Completed {
            at: row.time("completed_at")?.unwrap_or(updated_at),
            outcome: outcome_of(row.get("result")),
        },
    })
}

/// Decodes a row of the original system; number and revision are assigned later.
fn decode(row: &Value, origin: &str) -> Result<Operation, String> {
    let row = Row(row.as_object().ok_or("not a JSON object")?);
    let id_text = row
        .text("operation_id")
        .filter(|text| !text.is_empty())
        .ok_or("it has no `operation_id`")?;
    let status = row.text("status").ok_or("it has no `status`")?;
    let status = Status::parse(&status).ok_or_else(|| format!("unknown status `{status}`"))?;
    let updated_at = row.time("updated_at")?;
    let completed_at = row.time("completed_at")?;
    let logged_at =
        row.time("timestamp")?.or(updated_at).or(completed_at).ok_or("it has no time")?;
    let updated_at = updated_at.unwrap_or(logged_at);
    let mut parameters = fields_of(row.get("parameters"), "parameters");
    let type_text = row.text("operation_type").unwrap_or_default();
    let operation_type = OperationType::new(&type_text).or_else(|_| {
        parameters.insert(TYPE_KEPT.into(), type_text.clone());
        OperationType::new(&renamed(&type_text)).map_err(|error| error.to_string())
    })?;
    let backend_text = row.text("backend").unwrap_or_default();
    let backend = BackendName::new(&backend_text).or_else(|_| {
        parameters.insert(BACKEND_KEPT.into(), backend_text.clone());
        BackendName::new(&renamed(&backend_text)).map_err(|error| error.to_string())
    })?;
    let retry_count = row.count("retry_count").unwrap_or(0);
    let max_retries = row.count("max_retries").unwrap_or(defaults::MAX_RETRIES);
    let state = state_of(&row, status, updated_at, retry_count >= max_retries)?;
    Ok(Operation {
        id: id_of(&id_text),
        number: Number::ZERO,
        revision: Revision::ZERO,
        operation_type,
        backend,
        parameters,
        logged_at,
        updated_at,
        retry_count,
        max_retries,
        priority: 0,
        depends_on: Vec::new(),
        idempotency_key: OperationId::parse(&id_text)
            .is_none()
            .then(|| format!("{KEY_PREFIX}{id_text}")),
        hold: false,
        not_before: None,
        interruptions: 0,
        source: None,
        redirected_from: None,
        redirected_to: None,
        history: vec![HistoryEntry {
            revision: Revision::ZERO,
            at: updated_at,
            from: None,
            to: status,
            actor: ACTOR.into(),
            reason: Some(format!("adopted from `{origin}`")),
            error: row.text("error"),
        }],
        state,
    })
}

fn outcome_of(result: Option<&Value>) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(Value::Object(fields)) = result else {
        outcome.receipt = fields_of(result, "result");
        return outcome;
    };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match (name.as_str(), value.as_i64()) {
            ("cid", _) => outcome.cid = Some(text_of(value)),
            ("destination", _) => outcome.destination = Some(text_of(value)),
            ("size", Some(size @ 0..)) => outcome.size = u64::try_from(size).ok(),
            _ => {
                outcome.receipt.insert(name.clone(), text_of(value));
            }
        }
    }
    outcome
}

/// A file that changed within this time, in milliseconds, may still be written to.
const QUIET_MS: i64 = 60_000;

/// Fails if the original system seems to be running: a file changed within the last minute.
pub fn check_quiet(found: &Survey, layout: &Layout, now: Time) -> WalResult<()> {
    let Some(last) = found.files.iter().max_by_key(|surveyed| surveyed.metadata.mtime_ns) else {
        return Ok(());
    };
    let changed = Time::from_millis(last.metadata.mtime_ns.div_euclid(1_000_000));
    let ago = now.millis_since(changed);
    if ago.abs() < QUIET_MS {
        let path = layout.file(&last.file.name);
        return Err(WalError::OriginalAtWork { path, ago_s: ago.max(0).unsigned_abs() / 1000 });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
