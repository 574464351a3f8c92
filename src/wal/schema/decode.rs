//! Decoding rows of a Parquet file into operations.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};

use super::columns::{claim, column, history, result, source};
use crate::operation::{
    BackendName, Claim, Failure, FailureClass, Fields, HistoryEntry, Number, Operation,
    OperationId, OperationType, Outcome, Revision, Source, State, Status, Time, Wait,
};

/// The error of a row is a description of what is invalid.
type RowResult<T> = Result<T, &'static str>;

/// One row of a batch, or of a structure in it.
struct Row<'a> {
    columns: &'a [ArrayRef],
    index: usize,
}

impl Row<'_> {
    fn text(&self, column: usize) -> Option<&str> {
        // A field that was added later is absent in older files.
        let array = self.columns.get(column)?.as_string_opt::<i32>()?;
        array.is_valid(self.index).then(|| array.value(self.index))
    }

    fn time(&self, column: usize) -> Option<Time> {
        let array = self.columns[column].as_primitive_opt::<TimestampMillisecondType>()?;
        array.is_valid(self.index).then(|| Time::from_millis(array.value(self.index)))
    }

    fn int64(&self, column: usize) -> Option<i64> {
        // Files of earlier versions lack fields that were added at the end of a structure.
        let array = self.columns.get(column)?.as_primitive_opt::<Int64Type>()?;
        array.is_valid(self.index).then(|| array.value(self.index))
    }

    fn count(&self, column: usize) -> Option<u64> {
        self.int64(column).and_then(|value| u64::try_from(value).ok())
    }

    fn int32(&self, column: usize) -> Option<i32> {
        let array = self.columns[column].as_primitive_opt::<Int32Type>()?;
        array.is_valid(self.index).then(|| array.value(self.index))
    }

    fn flag(&self, column: usize) -> bool {
        self.columns[column]
            .as_boolean_opt()
            .is_some_and(|array| array.is_valid(self.index) && array.value(self.index))
    }

    fn id(&self, column: usize) -> RowResult<Option<OperationId>> {
        self.text(column)
            .map(|text| OperationId::parse(text).ok_or("an id is not a UUID"))
            .transpose()
    }

    fn structure(&self, column: usize) -> Option<Row<'_>> {
        let array: &StructArray = self.columns[column].as_struct_opt()?;
        array.is_valid(self.index).then(|| Row { columns: array.columns(), index: self.index })
    }

    fn map(&self, column: usize) -> Option<Fields> {
        let array = self.columns[column].as_map_opt()?;
        if array.is_null(self.index) {
            return None;
        }
        let entries = array.value(self.index);
        let entries = Row { columns: entries.columns(), index: 0 };
        let keys = entries.columns.first()?.as_string_opt::<i32>()?;
        let pairs = (0..keys.len()).map(|index| {
            let pair = Row { columns: entries.columns, index };
            (
                pair.text(0).unwrap_or_default().to_owned(),
                pair.text(1).unwrap_or_default().to_owned(),
            )
        });
        Some(pairs.collect())
    }

    fn list(&self, column: usize) -> Option<ArrayRef> {
        let array = self.columns[column].as_list_opt::<i32>()?;
        array.is_valid(self.index).then(|| array.value(self.index))
    }
}

/// Decodes one row of a batch whose columns are those of the schema.
pub(super) fn decode_row(batch: &RecordBatch, index: usize) -> RowResult<Operation> {
    let row = Row { columns: batch.columns(), index };
    let count = |column: usize, negative: &'static str| {
        u32::try_from(row.int32(column).unwrap_or(0)).map_err(|_| negative)
    };
    let history = decode_history(row.list(column::HISTORY))?;
    let logged_at = row.time(column::TIMESTAMP).ok_or("it has no timestamp")?;
    let updated_at = row.time(column::UPDATED_AT).unwrap_or(logged_at);
    let state = decode_state(&row, &history, updated_at)?;
    Ok(Operation {
        id: row.id(column::OPERATION_ID)?.ok_or("it has no id")?,
        number: row.count(column::NUMBER).map(Number::new).ok_or("it has no number")?,
        revision: row.count(column::REVISION).map(Revision::new).ok_or("it has no revision")?,
        operation_type: row
            .text(column::OPERATION_TYPE)
            .and_then(|text| OperationType::new(text).ok())
            .ok_or("its type is not a valid name")?,
        backend: row
            .text(column::BACKEND)
            .and_then(|text| BackendName::new(text).ok())
            .ok_or("its backend is not a valid name")?,
        parameters: row.map(column::PARAMETERS).unwrap_or_default(),
        logged_at,
        updated_at,
        retry_count: count(column::RETRY_COUNT, "its retry count is negative")?,
        max_retries: count(column::MAX_RETRIES, "its maximum of retries is negative")?,
        priority: row.int32(column::PRIORITY).unwrap_or(0),
        depends_on: decode_dependencies(row.list(column::DEPENDS_ON))?,
        idempotency_key: row.text(column::IDEMPOTENCY_KEY).map(str::to_owned),
        hold: row.flag(column::HOLD),
        not_before: row.time(column::NOT_BEFORE),
        interruptions: count(column::INTERRUPTIONS, "its number of interruptions is negative")?,
        source: row.structure(column::SOURCE).map(|file| Source {
            size: file.int64(source::SIZE).unwrap_or(0) as u64,
            mtime_ns: file.int64(source::MTIME_NS).unwrap_or(0),
            inode: file.int64(source::INODE).unwrap_or(0) as u64,
            sha256: file.text(source::SHA256).map(str::to_owned),
            spool: file.text(source::SPOOL).map(str::to_owned),
            ctime_ns: file.int64(source::CTIME_NS),
        }),
        redirected_from: row.id(column::REDIRECTED_FROM)?,
        redirected_to: row.id(column::REDIRECTED_TO)?,
        state,
        history,
    })
}

fn decode_state(row: &Row<'_>, history: &[HistoryEntry], updated_at: Time) -> RowResult<State> {
    let status = row.text(column::STATUS).and_then(Status::parse).ok_or("its status is unknown")?;
    // No column holds the time at which the present status began; the history does.
    let since = history
        .iter()
        .rev()
        .find(|entry| entry.to == status && entry.from != Some(status))
        .map_or(updated_at, |entry| entry.at);
    let failure = decode_failure(row)?;
    Ok(match status {
        Status::Pending => State::Pending { last_failure: failure },
        Status::Processing => {
            let holder = row.structure(column::CLAIM).ok_or("it is processing without a claim")?;
            let claim = Claim {
                pid: u32::try_from(holder.int64(claim::PID).unwrap_or(0))
                    .map_err(|_| "the process id of its claim is invalid")?,
                host: holder.text(claim::HOST).unwrap_or_default().to_owned(),
                started: holder.time(claim::STARTED).unwrap_or(updated_at),
            };
            let cancel_requested = row.flag(column::CANCEL_REQUESTED);
            State::Processing { claim, last_failure: failure, cancel_requested }
        }
        Status::Retrying => State::Retrying {
            failure: failure.ok_or("it is retrying without a failure")?,
            wait: Wait {
                since,
                until: row.time(column::NEXT_RETRY_AT).ok_or("it is retrying without a time")?,
            },
        },
        Status::Failed => {
            State::Failed { at: since, failure: failure.ok_or("it failed without a failure")? }
        }
        Status::Completed => State::Completed {
            at: row.time(column::COMPLETED_AT).unwrap_or(since),
            outcome: decode_outcome(row)?,
        },
    })
}

fn decode_failure(row: &Row<'_>) -> RowResult<Option<Failure>> {
    let message = row.text(column::ERROR);
    let error_type = row.text(column::ERROR_TYPE);
    let class = row.text(column::FAILURE_CLASS);
    if message.is_none() && error_type.is_none() && class.is_none() {
        return Ok(None);
    }
    Ok(Some(Failure {
        class: class
            .map_or(Some(FailureClass::Permanent), FailureClass::parse)
            .ok_or("its failure class is unknown")?,
        error_type: error_type.unwrap_or("unknown").to_owned(),
        message: message.unwrap_or_default().to_owned(),
    }))
}

fn decode_outcome(row: &Row<'_>) -> RowResult<Outcome> {
    let fields = row.structure(column::RESULT);
    let text = |field| fields.as_ref()?.text(field).map(str::to_owned);
    let size = fields.as_ref().and_then(|fields| fields.int64(result::SIZE));
    Ok(Outcome {
        cid: text(result::CID),
        size: size.map(u64::try_from).transpose().map_err(|_| "its size is negative")?,
        destination: text(result::DESTINATION),
        receipt: row.map(column::RECEIPT).unwrap_or_default(),
    })
}

fn decode_dependencies(list: Option<ArrayRef>) -> RowResult<Vec<OperationId>> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let ids = list.as_string_opt::<i32>().ok_or("its dependencies are not text")?;
    ids.iter()
        .map(|id| id.and_then(OperationId::parse).ok_or("a dependency is not a UUID"))
        .collect()
}

fn decode_history(list: Option<ArrayRef>) -> RowResult<Vec<HistoryEntry>> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let entries = list.as_struct_opt().ok_or("its history is not a list of structures")?;
    (0..entries.len())
        .map(|index| {
            let entry = Row { columns: entries.columns(), index };
            Ok(HistoryEntry {
                revision: entry
                    .count(history::REVISION)
                    .map(Revision::new)
                    .ok_or("its history lacks a revision")?,
                at: entry.time(history::AT).ok_or("its history lacks a time")?,
                from: entry
                    .text(history::FROM)
                    .map(|text| Status::parse(text).ok_or("its history has an unknown status"))
                    .transpose()?,
                to: entry
                    .text(history::TO)
                    .and_then(Status::parse)
                    .ok_or("its history has an unknown status")?,
                actor: entry.text(history::ACTOR).unwrap_or_default().to_owned(),
                reason: entry.text(history::REASON).map(str::to_owned),
                error: entry.text(history::ERROR).map(str::to_owned),
            })
        })
        .collect()
}
