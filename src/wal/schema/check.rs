//! Checking the rows of a file column by column, without making operations of them: what `verify`
//! does with every row.

use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{
    Array, BooleanArray, ListArray, PrimitiveArray, RecordBatch, StringArray, StructArray,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Table, decode_row};
use crate::operation::{
    BackendName, FailureClass, Number, Operation, OperationId, OperationType, Revision, Status,
    Time,
};
use crate::wal::error::{WalError, WalResult};
use crate::wal::manifest::{Counts, FileEntry};

/// Rows decoded at a time.
const BATCH: usize = 2048;

/// How many invalid rows of a file are reported.
const TOLD_MAX: usize = 5;

/// What the rows of a file come to, as the manifest should say it, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Checked {
    /// Rows, superseded ones included.
    pub rows: u64,
    /// First and last id.
    pub ids: Option<(OperationId, OperationId)>,
    /// First and last number.
    pub numbers: Option<(Number, Number)>,
    /// First and last revision.
    pub revisions: Option<(Revision, Revision)>,
    /// First and last time of logging.
    pub times: Option<(Time, Time)>,
    /// How many rows that are not superseded, as are the fields below.
    pub counts: Counts,
    /// With an idempotency key.
    pub keys: u64,
    /// That wait for others.
    pub dependents: u64,
    /// Highest priority of those that wait.
    pub priority: Option<i32>,
    /// Earliest time at which a waiting one is due.
    pub due: Option<Time>,
    /// What is wrong with rows, of the first few.
    pub problems: Vec<String>,
    /// How many rows are wrong.
    pub wrong: u64,
    /// Numbers and ids of all, if they were asked for.
    pub live: Vec<(Number, OperationId)>,
    /// Those that were asked for.
    pub wanted: Vec<Operation>,
    /// Those that still need content in the spool.
    pub spooled: Vec<Spooled>,
}

/// An operation that still needs its content in the spool.
#[derive(Debug, Clone)]
pub struct Spooled {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// The name of the content.
    pub name: String,
    /// Its size.
    pub size: u64,
}

impl Spooled {
    /// The content of an operation, if that is in the spool and will be read again.
    pub fn of(operation: &Operation) -> Option<Spooled> {
        let is_over = operation.status() == Status::Completed || operation.redirected_to.is_some();
        let source = operation.source.as_ref().filter(|_| !is_over)?;
        Some(Spooled {
            number: operation.number,
            id: operation.id,
            name: source.spool.clone()?,
            size: source.size,
        })
    }
}

type Problem = Result<(), &'static str>;

/// The columns of one batch, with the types they must have.
struct Columns<'a> {
    id: &'a StringArray,
    kind: &'a StringArray,
    status: &'a StringArray,
    logged_at: &'a PrimitiveArray<TimestampMillisecondType>,
    completed_at: &'a PrimitiveArray<TimestampMillisecondType>,
    backend: &'a StringArray,
    result: &'a StructArray,
    result_size: &'a PrimitiveArray<Int64Type>,
    failure: [&'a StringArray; 3],
    counts: [&'a PrimitiveArray<Int32Type>; 3],
    next_retry_at: &'a PrimitiveArray<TimestampMillisecondType>,
    number: &'a PrimitiveArray<Int64Type>,
    revision: &'a PrimitiveArray<Int64Type>,
    priority: &'a PrimitiveArray<Int32Type>,
    depends_on: &'a ListArray,
    dependencies: &'a StringArray,
    key: &'a StringArray,
    hold: &'a BooleanArray,
    not_before: &'a PrimitiveArray<TimestampMillisecondType>,
    source: &'a StructArray,
    source_size: &'a PrimitiveArray<Int64Type>,
    spool: Option<&'a StringArray>,
    claim: &'a StructArray,
    claim_pid: &'a PrimitiveArray<Int64Type>,
    redirected: [&'a StringArray; 2],
    history: &'a ListArray,
    revisions: &'a PrimitiveArray<Int64Type>,
    times: &'a PrimitiveArray<TimestampMillisecondType>,
    from: &'a StringArray,
    to: &'a StringArray,
}

fn typed<A: Array + 'static>(array: Option<&dyn Array>) -> Option<&A> {
    array?.as_any().downcast_ref()
}

fn column<A: Array + 'static>(batch: &RecordBatch, at: usize) -> Option<&A> {
    typed(batch.columns().get(at).map(|column| &**column))
}

fn field<A: Array + 'static>(array: &StructArray, at: usize) -> Option<&A> {
    typed(array.columns().get(at).map(|column| &**column))
}

impl<'a> Columns<'a> {
    /// None if one of them has another type.
    fn of(batch: &'a RecordBatch) -> Option<Columns<'a>> {
        let (result, source, claim): (&StructArray, &StructArray, &StructArray) =
            (column(batch, 8)?, column(batch, 23)?, column(batch, 24)?);
        let (depends_on, history): (&ListArray, &ListArray) =
            (column(batch, 17)?, column(batch, 28)?);
        let entries: &StructArray = typed(Some(&**history.values()))?;
        Some(Columns {
            id: column(batch, 0)?,
            kind: column(batch, 1)?,
            status: column(batch, 2)?,
            logged_at: column(batch, 3)?,
            completed_at: column(batch, 5)?,
            backend: column(batch, 6)?,
            result,
            result_size: field(result, 1)?,
            failure: [column(batch, 9)?, column(batch, 10)?, column(batch, 21)?],
            counts: [column(batch, 11)?, column(batch, 12)?, column(batch, 22)?],
            next_retry_at: column(batch, 13)?,
            number: column(batch, 14)?,
            revision: column(batch, 15)?,
            priority: column(batch, 16)?,
            depends_on,
            dependencies: typed(Some(&**depends_on.values()))?,
            key: column(batch, 18)?,
            hold: column(batch, 19)?,
            not_before: column(batch, 20)?,
            source,
            source_size: field(source, 0)?,
            spool: field(source, 4),
            claim,
            claim_pid: field(claim, 0)?,
            redirected: [column(batch, 25)?, column(batch, 26)?],
            history,
            revisions: field(entries, 0)?,
            times: field(entries, 1)?,
            from: field(entries, 2)?,
            to: field(entries, 3)?,
        })
    }
}

fn text(array: &StringArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

fn time(array: &PrimitiveArray<TimestampMillisecondType>, row: usize) -> Option<Time> {
    array.is_valid(row).then(|| Time::from_millis(array.value(row)))
}

fn count(array: &PrimitiveArray<Int64Type>, row: usize) -> Option<u64> {
    array.is_valid(row).then(|| u64::try_from(array.value(row)).ok())?
}

/// Range of values that come one by one.
fn widen<T: Ord + Copy>(range: &mut Option<(T, T)>, value: T) {
    *range =
        Some(range.map_or((value, value), |(first, last)| (first.min(value), last.max(value))));
}

/// Remembers what the last row had: neighbours mostly have the same.
#[derive(Default)]
struct Kinds {
    known: Vec<(Status, OperationType, BackendName, u64)>,
    last: usize,
}

impl Kinds {
    fn add(&mut self, status: Status, kind: &str, backend: &str, n: u64) -> Problem {
        let is = |(s, k, b, _): &(Status, OperationType, BackendName, u64)| {
            *s == status && k.as_str() == kind && b.as_str() == backend
        };
        if !self.known.get(self.last).is_some_and(is) {
            self.last = match self.known.iter().position(is) {
                Some(at) => at,
                None => {
                    let kind =
                        OperationType::new(kind).map_err(|_| "its type is not a valid name")?;
                    let backend =
                        BackendName::new(backend).map_err(|_| "its backend is not a valid name")?;
                    self.known.push((status, kind, backend, 0));
                    self.known.len() - 1
                }
            };
        }
        self.known[self.last].3 += n;
        Ok(())
    }
}

impl Table {
    /// Checks every row, which must be those that `entry` describes; `wanted` are numbers of
    /// operations to be returned whole, and `keep` asks for all numbers and ids.
    pub fn check(
        &self,
        entry: &FileEntry,
        wanted: impl Fn(Number) -> bool,
        keep: bool,
    ) -> WalResult<Checked> {
        let broken = |what: String| WalError::damaged(&self.path, None, what);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.bytes.clone(),
            self.metadata.clone(),
        )
        .with_batch_size(BATCH)
        .build()
        .map_err(|error| broken(format!("it cannot be read as Parquet: {error}")))?;
        let mut checked = Checked::default();
        let mut kinds = Kinds::default();
        let mut before = String::new();
        for batch in reader {
            let batch =
                batch.map_err(|error| broken(format!("its rows cannot be read: {error}")))?;
            let columns =
                Columns::of(&batch).ok_or_else(|| broken("its columns have other types".into()))?;
            for row in 0..batch.num_rows() {
                let nth = checked.rows;
                checked.rows += 1;
                let last = if row > 0 { columns.id.value(row - 1) } else { &before };
                let sorted = if text(columns.id, row).is_some_and(|id| id > last) {
                    Ok(())
                } else {
                    Err(UNSORTED)
                };
                let found = check_row(&columns, row, Some(entry), &mut checked, &mut kinds, keep);
                let found = match found.and_then(|number| sorted.map(|()| number)) {
                    Ok(number) if wanted(number) && !entry.superseded.contains(number) => {
                        decode_row(&batch, row).map(|operation| checked.wanted.push(operation))
                    }
                    other => other.map(drop),
                };
                if let Err(what) = found {
                    checked.wrong += 1;
                    if checked.problems.len() < TOLD_MAX {
                        checked.problems.push(format!("row {nth} is invalid: {what}"));
                    }
                }
            }
            if let Some(last) = batch.num_rows().checked_sub(1) {
                before.clear();
                before.push_str(text(columns.id, last).unwrap_or_default());
            }
        }
        let counted = kinds.known.into_iter().filter(|(.., n)| *n > 0);
        checked.counts =
            counted.map(|(status, kind, backend, n)| ((status, backend, kind), n)).collect();
        Ok(checked)
    }
}

const UNSORTED: &str = "its id does not come after that of the row before";

/// Checks one row, and counts it; its number.
fn check_row(
    columns: &Columns<'_>,
    row: usize,
    entry: Option<&FileEntry>,
    checked: &mut Checked,
    kinds: &mut Kinds,
    keep: bool,
) -> Result<Number, &'static str> {
    let id = text(columns.id, row).ok_or("it has no id")?;
    let id = OperationId::parse(id).ok_or("an id is not a UUID")?;
    let number = count(columns.number, row).map(Number::new).ok_or("it has no number")?;
    let revision = count(columns.revision, row).map(Revision::new).ok_or("it has no revision")?;
    let logged_at = time(columns.logged_at, row).ok_or("it has no timestamp")?;
    widen(&mut checked.ids, id);
    widen(&mut checked.numbers, number);
    widen(&mut checked.revisions, revision);
    widen(&mut checked.times, logged_at);
    let status = text(columns.status, row)
        .and_then(Status::parse)
        .ok_or("its status is none of the five")?;
    let live = entry.is_none_or(|entry| !entry.superseded.contains(number));
    let (kind, backend) = (text(columns.kind, row), text(columns.backend, row));
    let (kind, backend) = (kind.ok_or("it has no type")?, backend.ok_or("it has no backend")?);
    kinds.add(status, kind, backend, u64::from(live))?;
    for counter in columns.counts {
        if counter.is_valid(row) && counter.value(row) < 0 {
            return Err("a counter of it is negative");
        }
    }
    let failure = columns.failure.iter().any(|array| array.is_valid(row));
    if text(columns.failure[2], row).is_some_and(|class| FailureClass::parse(class).is_none()) {
        return Err("its failure class is unknown");
    }
    let due = match status {
        Status::Retrying if !failure => return Err("it is retrying without a failure"),
        Status::Retrying => {
            Some(time(columns.next_retry_at, row).ok_or("it is retrying without a time")?)
        }
        Status::Failed if !failure => return Err("it failed without a failure"),
        Status::Processing => {
            let pid = columns.claim.is_valid(row).then(|| count(columns.claim_pid, row)).flatten();
            pid.and_then(|pid| u32::try_from(pid).ok())
                .ok_or("it is processing without a claim")?;
            None
        }
        Status::Completed => {
            if columns.result.is_valid(row)
                && columns.result_size.is_valid(row)
                && count(columns.result_size, row).is_none()
            {
                return Err("its size is negative");
            }
            None
        }
        Status::Pending | Status::Failed => None,
    };
    if let Some(day) = entry.and_then(|entry| entry.day)
        && live
        && (status != Status::Completed
            || time(columns.completed_at, row).is_none_or(|completed| completed.day() != day.day()))
    {
        return Err("it was not completed on the day of its archive");
    }
    for ids in columns.redirected {
        if text(ids, row).is_some_and(|id| OperationId::parse(id).is_none()) {
            return Err("an id is not a UUID");
        }
    }
    let depends_on = range(columns.depends_on, row);
    for at in depends_on.clone() {
        text(columns.dependencies, at)
            .and_then(OperationId::parse)
            .ok_or("a dependency is not a UUID")?;
    }
    check_history(columns, row, status, revision)?;
    let is_over = status == Status::Completed || columns.redirected[1].is_valid(row);
    if live
        && !is_over
        && columns.source.is_valid(row)
        && let Some(name) = columns.spool.and_then(|names| text(names, row))
    {
        let size = count(columns.source_size, row).unwrap_or(0);
        checked.spooled.push(Spooled { number, id, name: name.to_owned(), size });
    }
    if live {
        checked.keys += u64::from(columns.key.is_valid(row));
        if status.is_waiting() {
            checked.dependents += u64::from(!depends_on.is_empty());
            checked.priority = checked.priority.max(Some(columns.priority.value(row)));
            if depends_on.is_empty() && !(columns.hold.is_valid(row) && columns.hold.value(row)) {
                let start = time(columns.not_before, row).unwrap_or(logged_at);
                let due = due.map_or(start, |until| until.max(start));
                checked.due = Some(checked.due.map_or(due, |earliest| earliest.min(due)));
            }
        }
        if keep {
            checked.live.push((number, id));
        }
    }
    Ok(number)
}

fn range(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offsets = list.value_offsets();
    if list.is_null(row) { 0..0 } else { offsets[row] as usize..offsets[row + 1] as usize }
}

/// Revisions ascend, each entry follows from the one before, and the last one is what the row says.
fn check_history(columns: &Columns<'_>, row: usize, status: Status, revision: Revision) -> Problem {
    let (mut last, mut current) = (None, None);
    for at in range(columns.history, row) {
        let entry = count(columns.revisions, at)
            .map(Revision::new)
            .ok_or("its history lacks a revision")?;
        if last.is_some_and(|last| last >= entry) {
            return Err("the revisions of its history do not ascend");
        }
        if columns.times.is_null(at) {
            return Err("its history lacks a time");
        }
        let from = text(columns.from, at);
        let from = from
            .map(|word| Status::parse(word).ok_or("its history has an unknown status"))
            .transpose()?;
        let to = text(columns.to, at)
            .and_then(Status::parse)
            .ok_or("its history has an unknown status")?;
        if from != current {
            return Err("its history has a hole");
        }
        if from.is_some_and(|from| !from.may_become(to)) {
            return Err("its history has a step that is not allowed");
        }
        (last, current) = (Some(entry), Some(to));
    }
    match (last, current) {
        (None, _) => Err("it has no history"),
        (last, _) if last != Some(revision) => Err("its history ends with another revision"),
        (_, current) if current != Some(status) => Err("its history ends with another status"),
        _ => Ok(()),
    }
}

/// Decodes a file into Arrow batches and nothing else: what checking it is measured against. Its
/// rows.
#[cfg(feature = "cli")]
pub fn decode(disk: &dyn crate::disk::Disk, path: &std::path::Path) -> WalResult<u64> {
    let broken = |error: String| WalError::damaged(path, None, error);
    let bytes = bytes::Bytes::from(disk.read(path)?);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(BATCH).build())
        .map_err(|error| broken(error.to_string()))?;
    let mut rows = 0;
    for batch in reader {
        rows += batch.map_err(|error| broken(error.to_string()))?.num_rows() as u64;
    }
    Ok(rows)
}

/// What is left of a file that cannot be read as a whole, or that is not the one that was written.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Whether it is, or was, a file of ours, as far as can be seen.
    pub is_ours: bool,
    /// Rows that decode and make sense.
    pub rows: Vec<Operation>,
    /// First and last byte behind it, of row groups in which rows cannot be read, how many rows,
    /// and why.
    pub lost: Vec<(std::ops::Range<u64>, u64, String)>,
}

/// Reads what can be read of a file, row group by row group. A newer format is an error.
pub fn salvage(path: &std::path::Path, bytes: &bytes::Bytes) -> WalResult<Salvaged> {
    let whole = 0..bytes.len() as u64;
    let Ok(metadata) = super::footer::footer(bytes) else {
        let is_ours = bytes
            .windows(super::FORMAT_KEY.len())
            .any(|window| window == super::FORMAT_KEY.as_bytes());
        let lost = vec![(whole, 0, "its footer cannot be read".to_owned())];
        return Ok(Salvaged { is_ours, rows: Vec::new(), lost });
    };
    let pairs = metadata.metadata().file_metadata().key_value_metadata();
    let format = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == super::FORMAT_KEY));
    let Some(format) = format else { return Ok(Salvaged::default()) };
    if let Some(found) = format.value.as_deref().and_then(|value| value.parse::<u64>().ok())
        && found > u64::from(crate::wal::journal::FORMAT)
    {
        let known = u64::from(crate::wal::journal::FORMAT);
        return Err(WalError::NewerFormat { path: path.to_owned(), found, known });
    }
    let mut salvaged = Salvaged { is_ours: true, ..Salvaged::default() };
    for group in 0..metadata.metadata().num_row_groups() {
        let about = metadata.metadata().row_group(group);
        let start = about.columns().iter().map(|column| column.byte_range().0).min().unwrap_or(0);
        let end = about
            .columns()
            .iter()
            .map(|column| column.byte_range().0 + column.byte_range().1)
            .max()
            .unwrap_or(0);
        let expected = u64::try_from(about.num_rows()).unwrap_or(0);
        // The reader of pages panics at some of those that make no sense.
        let read = || rows_of_group(bytes, &metadata, group);
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
        let (rows, why) =
            read.unwrap_or_else(|_| (Vec::new(), Some("its pages make no sense".into())));
        let lost = expected.saturating_sub(rows.len() as u64);
        salvaged.rows.extend(rows);
        if lost > 0 {
            salvaged.lost.push((
                start..end,
                lost,
                why.unwrap_or_else(|| "rows are missing".into()),
            ));
        }
    }
    Ok(salvaged)
}

fn rows_of_group(
    bytes: &bytes::Bytes,
    metadata: &parquet::arrow::arrow_reader::ArrowReaderMetadata,
    group: usize,
) -> (Vec<Operation>, Option<String>) {
    let mut rows = Vec::new();
    let mut why = None;
    let reader =
        ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(BATCH)
            .build();
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => return (rows, Some(error.to_string())),
    };
    for batch in reader {
        let batch = match batch {
            Ok(batch) => batch,
            // After an error it would return the same error indefinitely.
            Err(error) => return (rows, Some(error.to_string())),
        };
        let Some(columns) = Columns::of(&batch) else {
            return (rows, Some("its columns have other types".into()));
        };
        for row in 0..batch.num_rows() {
            let checked_row = check_row(
                &columns,
                row,
                None,
                &mut Checked::default(),
                &mut Kinds::default(),
                false,
            );
            match checked_row.and_then(|_| decode_row(&batch, row)) {
                Ok(operation) => rows.push(operation),
                Err(what) => why = Some(format!("row {row} is invalid: {what}")),
            }
        }
    }
    (rows, why)
}
