//! Checking the rows of a file column by column, without decoding operations: `verify` does this
//! with every row.

use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{
    Array, BooleanArray, ListArray, PrimitiveArray, RecordBatch, StringArray, StructArray,
};

use super::Table;
use super::columns::{claim, column, history, result, source};
use super::decode::decode_row;
use crate::operation::{
    BackendName, FailureClass, Number, Operation, OperationId, OperationType, Revision, Status,
    Time,
};
use crate::wal::error::{WalError, WalResult};
use crate::wal::manifest::{Counts, FileEntry};

/// The number of rows in a batch.
pub(super) const BATCH_ROWS: usize = 2048;

/// The number of invalid rows of a file that are described.
const PROBLEMS_MAX: usize = 5;

const UNSORTED: &str = "its id does not come after that of the row before";

/// The figures of a file's rows, as its entry in the manifest should have them, and the problems
/// found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The number of rows, superseded ones included.
    pub rows: u64,
    /// The lowest and the highest id.
    pub ids: Option<(OperationId, OperationId)>,
    /// The lowest and the highest number.
    pub numbers: Option<(Number, Number)>,
    /// The lowest and the highest revision.
    pub revisions: Option<(Revision, Revision)>,
    /// The earliest and the latest time of logging.
    pub times: Option<(Time, Time)>,
    /// The number of rows of each status, backend and type. This and all fields below leave
    /// superseded rows out.
    pub counts: Counts,
    /// The number of rows with an idempotency key.
    pub keys: u64,
    /// The number of waiting rows with dependencies.
    pub dependents: u64,
    /// The highest priority among waiting rows.
    pub priority: Option<i32>,
    /// The earliest time at which a waiting row is due.
    pub due: Option<Time>,
    /// Descriptions of the first few invalid rows.
    pub problems: Vec<String>,
    /// The number of invalid rows.
    pub invalid_rows: u64,
    /// The numbers and ids of all rows, if they were requested.
    pub live: Vec<(Number, OperationId)>,
    /// The operations that were requested.
    pub wanted: Vec<Operation>,
    /// The operations that still need content in the spool.
    pub spooled: Vec<Spooled>,
}

/// A choice for [`Table::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveIds {
    /// Return the numbers and ids of all rows that are not superseded.
    Collect,
    /// Return none.
    Skip,
}

/// An operation that still needs its content in the spool.
#[derive(Debug, Clone)]
pub struct Spooled {
    /// The operation's number.
    pub number: Number,
    /// The operation's id.
    pub id: OperationId,
    /// The name of the content.
    pub name: String,
    /// The size of the content in bytes.
    pub size: u64,
}

impl Spooled {
    /// Returns the content of an operation if that is in the spool and may be read again.
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

/// The error of a row is a description of what is invalid.
type RowCheck = Result<(), &'static str>;

/// The columns of one batch, with the types that they must have.
pub(super) struct Columns<'a> {
    id: &'a StringArray,
    operation_type: &'a StringArray,
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

fn column<A: Array + 'static>(batch: &RecordBatch, index: usize) -> Option<&A> {
    typed(batch.columns().get(index).map(|column| &**column))
}

fn field<A: Array + 'static>(array: &StructArray, index: usize) -> Option<&A> {
    typed(array.columns().get(index).map(|column| &**column))
}

impl<'a> Columns<'a> {
    /// Returns none if a column is missing or has another type.
    pub(super) fn of(batch: &'a RecordBatch) -> Option<Columns<'a>> {
        let (result, source, claim): (&StructArray, &StructArray, &StructArray) = (
            column(batch, column::RESULT)?,
            column(batch, column::SOURCE)?,
            column(batch, column::CLAIM)?,
        );
        let (depends_on, history): (&ListArray, &ListArray) =
            (column(batch, column::DEPENDS_ON)?, column(batch, column::HISTORY)?);
        let entries: &StructArray = typed(Some(&**history.values()))?;
        Some(Columns {
            id: column(batch, column::OPERATION_ID)?,
            operation_type: column(batch, column::OPERATION_TYPE)?,
            status: column(batch, column::STATUS)?,
            logged_at: column(batch, column::TIMESTAMP)?,
            completed_at: column(batch, column::COMPLETED_AT)?,
            backend: column(batch, column::BACKEND)?,
            result,
            result_size: field(result, result::SIZE)?,
            failure: [
                column(batch, column::ERROR)?,
                column(batch, column::ERROR_TYPE)?,
                column(batch, column::FAILURE_CLASS)?,
            ],
            counts: [
                column(batch, column::RETRY_COUNT)?,
                column(batch, column::MAX_RETRIES)?,
                column(batch, column::INTERRUPTIONS)?,
            ],
            next_retry_at: column(batch, column::NEXT_RETRY_AT)?,
            number: column(batch, column::NUMBER)?,
            revision: column(batch, column::REVISION)?,
            priority: column(batch, column::PRIORITY)?,
            depends_on,
            dependencies: typed(Some(&**depends_on.values()))?,
            key: column(batch, column::IDEMPOTENCY_KEY)?,
            hold: column(batch, column::HOLD)?,
            not_before: column(batch, column::NOT_BEFORE)?,
            source,
            source_size: field(source, source::SIZE)?,
            spool: field(source, source::SPOOL),
            claim,
            claim_pid: field(claim, claim::PID)?,
            redirected: [
                column(batch, column::REDIRECTED_FROM)?,
                column(batch, column::REDIRECTED_TO)?,
            ],
            history,
            revisions: field(entries, history::REVISION)?,
            times: field(entries, history::AT)?,
            from: field(entries, history::FROM)?,
            to: field(entries, history::TO)?,
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

/// Extends a range to include a value.
fn widen<T: Ord + Copy>(range: &mut Option<(T, T)>, value: T) {
    *range =
        Some(range.map_or((value, value), |(first, last)| (first.min(value), last.max(value))));
}

/// Counts rows by status, type and backend. Neighbouring rows mostly agree in these, so the entry
/// of the last row is tried first.
#[derive(Default)]
struct RowCounts {
    known: Vec<(Status, OperationType, BackendName, u64)>,
    last: usize,
}

impl RowCounts {
    fn add(&mut self, status: Status, operation_type: &str, backend: &str, n: u64) -> RowCheck {
        let is = |(s, k, b, _): &(Status, OperationType, BackendName, u64)| {
            *s == status && k.as_str() == operation_type && b.as_str() == backend
        };
        if !self.known.get(self.last).is_some_and(is) {
            self.last = match self.known.iter().position(is) {
                Some(at) => at,
                None => {
                    let operation_type = OperationType::new(operation_type)
                        .map_err(|_| "its type is not a valid name")?;
                    let backend =
                        BackendName::new(backend).map_err(|_| "its backend is not a valid name")?;
                    self.known.push((status, operation_type, backend, 0));
                    self.known.len() - 1
                }
            };
        }
        self.known[self.last].3 += n;
        Ok(())
    }
}

impl Table {
    /// Checks every row of the file that `entry` describes.
    ///
    /// Returns the operations whose numbers are `wanted`, too. Invalid rows are counted and
    /// described; only a file that cannot be read is an error.
    pub fn check(
        &self,
        entry: &FileEntry,
        wanted: impl Fn(Number) -> bool,
        live_ids: LiveIds,
    ) -> WalResult<Checked> {
        let broken = |what: String| WalError::damaged(&self.path, None, what);
        let reader = self
            .reader()
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| broken(format!("it cannot be read as Parquet: {error}")))?;
        let mut rows = RowChecker::new(Some(entry), live_ids);
        let mut last_id = String::new();
        for batch in reader {
            let batch =
                batch.map_err(|error| broken(format!("its rows cannot be read: {error}")))?;
            let columns = Columns::of(&batch)
                .ok_or_else(|| broken("its columns have unexpected types".into()))?;
            for row in 0..batch.num_rows() {
                let nth = rows.checked.rows;
                let before = if row > 0 { columns.id.value(row - 1) } else { &last_id };
                let is_sorted = text(columns.id, row).is_some_and(|id| id > before);
                let valid = match rows.check(&columns, row) {
                    Ok(_) if !is_sorted => Err(UNSORTED),
                    Ok(number) if wanted(number) && !entry.superseded.contains(number) => {
                        decode_row(&batch, row).map(|operation| rows.checked.wanted.push(operation))
                    }
                    other => other.map(drop),
                };
                if let Err(what) = valid {
                    rows.checked.invalid_rows += 1;
                    if rows.checked.problems.len() < PROBLEMS_MAX {
                        rows.checked.problems.push(format!("row {nth} is invalid: {what}"));
                    }
                }
            }
            if let Some(last) = batch.num_rows().checked_sub(1) {
                last_id.clear();
                last_id.push_str(text(columns.id, last).unwrap_or_default());
            }
        }
        Ok(rows.finish())
    }
}

/// Checks rows one by one, and adds up their figures.
pub(super) struct RowChecker<'a> {
    /// The file's entry in the manifest; none for a file that is salvaged.
    entry: Option<&'a FileEntry>,
    live_ids: LiveIds,
    checked: Checked,
    counts: RowCounts,
}

impl<'a> RowChecker<'a> {
    pub(super) fn new(entry: Option<&'a FileEntry>, live_ids: LiveIds) -> RowChecker<'a> {
        RowChecker { entry, live_ids, checked: Checked::default(), counts: RowCounts::default() }
    }

    fn finish(mut self) -> Checked {
        let counted = self.counts.known.into_iter().filter(|(.., n)| *n > 0);
        self.checked.counts = counted
            .map(|(status, operation_type, backend, n)| ((status, backend, operation_type), n))
            .collect();
        self.checked
    }

    /// Checks a row and counts it. Returns its number.
    pub(super) fn check(
        &mut self,
        columns: &Columns<'_>,
        row: usize,
    ) -> Result<Number, &'static str> {
        self.checked.rows += 1;
        let id = text(columns.id, row).ok_or("it has no id")?;
        let id = OperationId::parse(id).ok_or("an id is not a UUID")?;
        let number = count(columns.number, row).map(Number::new).ok_or("it has no number")?;
        let revision =
            count(columns.revision, row).map(Revision::new).ok_or("it has no revision")?;
        let logged_at = time(columns.logged_at, row).ok_or("it has no timestamp")?;
        widen(&mut self.checked.ids, id);
        widen(&mut self.checked.numbers, number);
        widen(&mut self.checked.revisions, revision);
        widen(&mut self.checked.times, logged_at);

        let status =
            text(columns.status, row).and_then(Status::parse).ok_or("its status is unknown")?;
        let is_live = self.entry.is_none_or(|entry| !entry.superseded.contains(number));
        let operation_type = text(columns.operation_type, row).ok_or("it has no type")?;
        let backend = text(columns.backend, row).ok_or("it has no backend")?;
        self.counts.add(status, operation_type, backend, u64::from(is_live))?;
        check_counters(columns, row)?;
        let retry_at = check_state(columns, row, status)?;
        if is_live {
            self.check_day(columns, row, status)?;
        }
        check_references(columns, row)?;
        check_history(columns, row, status, revision)?;
        if is_live {
            self.add_spooled(columns, row, status, (number, id));
            self.checked.keys += u64::from(columns.key.is_valid(row));
            if status.is_waiting() {
                let start = time(columns.not_before, row).unwrap_or(logged_at);
                self.add_waiting(columns, row, retry_at.map_or(start, |until| until.max(start)));
            }
            if self.live_ids == LiveIds::Collect {
                self.checked.live.push((number, id));
            }
        }
        Ok(number)
    }

    /// Fails if an archive holds an operation that was not completed on the archive's day.
    fn check_day(&self, columns: &Columns<'_>, row: usize, status: Status) -> RowCheck {
        let Some(day) = self.entry.and_then(|entry| entry.day) else { return Ok(()) };
        let completed = time(columns.completed_at, row);
        if status != Status::Completed || completed.is_none_or(|at| at.day() != day.day()) {
            return Err("it was not completed on the day of its archive");
        }
        Ok(())
    }

    fn add_spooled(
        &mut self,
        columns: &Columns<'_>,
        row: usize,
        status: Status,
        (number, id): (Number, OperationId),
    ) {
        let is_over = status == Status::Completed || columns.redirected[1].is_valid(row);
        if !is_over
            && columns.source.is_valid(row)
            && let Some(name) = columns.spool.and_then(|names| text(names, row))
        {
            let size = count(columns.source_size, row).unwrap_or(0);
            self.checked.spooled.push(Spooled { number, id, name: name.to_owned(), size });
        }
    }

    /// Adds a waiting row, which is due at `due` unless it is held or has dependencies.
    fn add_waiting(&mut self, columns: &Columns<'_>, row: usize, due: Time) {
        let has_dependencies = !elements(columns.depends_on, row).is_empty();
        let is_held = columns.hold.is_valid(row) && columns.hold.value(row);
        let checked = &mut self.checked;
        checked.dependents += u64::from(has_dependencies);
        checked.priority = checked.priority.max(Some(columns.priority.value(row)));
        if !has_dependencies && !is_held {
            checked.due = Some(checked.due.map_or(due, |earliest| earliest.min(due)));
        }
    }
}

fn check_counters(columns: &Columns<'_>, row: usize) -> RowCheck {
    match columns.counts.iter().any(|counter| counter.is_valid(row) && counter.value(row) < 0) {
        true => Err("one of its counters is negative"),
        false => Ok(()),
    }
}

/// Checks the columns that belong to a status. Returns the time of the next attempt of a retrying
/// operation.
fn check_state(
    columns: &Columns<'_>,
    row: usize,
    status: Status,
) -> Result<Option<Time>, &'static str> {
    let has_failure = columns.failure.iter().any(|array| array.is_valid(row));
    if text(columns.failure[2], row).is_some_and(|class| FailureClass::parse(class).is_none()) {
        return Err("its failure class is unknown");
    }
    match status {
        Status::Retrying if !has_failure => Err("it is retrying without a failure"),
        Status::Retrying => {
            time(columns.next_retry_at, row).map(Some).ok_or("it is retrying without a time")
        }
        Status::Failed if !has_failure => Err("it failed without a failure"),
        Status::Processing => {
            let pid = columns.claim.is_valid(row).then(|| count(columns.claim_pid, row)).flatten();
            pid.and_then(|pid| u32::try_from(pid).ok())
                .ok_or("it is processing without a claim")?;
            Ok(None)
        }
        Status::Completed => {
            let has_size = columns.result.is_valid(row) && columns.result_size.is_valid(row);
            match has_size && count(columns.result_size, row).is_none() {
                true => Err("its size is negative"),
                false => Ok(None),
            }
        }
        Status::Pending | Status::Failed => Ok(None),
    }
}

/// Fails if an id of another operation is invalid.
fn check_references(columns: &Columns<'_>, row: usize) -> RowCheck {
    for ids in columns.redirected {
        if text(ids, row).is_some_and(|id| OperationId::parse(id).is_none()) {
            return Err("an id is not a UUID");
        }
    }
    for at in elements(columns.depends_on, row) {
        text(columns.dependencies, at)
            .and_then(OperationId::parse)
            .ok_or("a dependency is not a UUID")?;
    }
    Ok(())
}

/// Returns the range of a row's elements among those of all rows.
fn elements(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offsets = list.value_offsets();
    if list.is_null(row) { 0..0 } else { offsets[row] as usize..offsets[row + 1] as usize }
}

/// Fails unless revisions ascend, each entry follows from the one before it, and the last entry
/// matches the row.
fn check_history(
    columns: &Columns<'_>,
    row: usize,
    status: Status,
    revision: Revision,
) -> RowCheck {
    let (mut last, mut current) = (None, None);
    for at in elements(columns.history, row) {
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
            return Err("its history has a gap");
        }
        if from.is_some_and(|from| !from.may_become(to)) {
            return Err("its history has an illegal transition");
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
