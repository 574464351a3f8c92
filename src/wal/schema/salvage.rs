//! Taking the readable rows from a file that may be damaged.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};

use super::check::{BATCH_ROWS, Columns, LiveIds, RowChecker};
use super::decode::decode_row;
use super::table::format_entry;
use super::{FORMAT_KEY, footer};
use crate::operation::Operation;
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::FORMAT;

/// The readable rows of a file, and the row groups in which rows are lost.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// True if the file is, or once was, one of this program's, as far as its bytes show.
    pub is_ours: bool,
    /// The valid rows.
    pub rows: Vec<Operation>,
    /// The row groups in which rows are lost.
    pub lost: Vec<LostRows>,
}

/// The lost rows of a row group, or of a whole file.
#[derive(Debug)]
pub struct LostRows {
    /// The bytes of the row group in the file.
    pub range: Range<u64>,
    /// The number of lost rows; 0 if it is unknown.
    pub rows: u64,
    /// The reason.
    pub why: String,
}

/// Reads the valid rows of a file, row group by row group. A newer format is an error.
pub fn salvage(path: &Path, bytes: &Bytes) -> WalResult<Salvaged> {
    let whole = 0..bytes.len() as u64;
    let Ok(metadata) = footer::footer(bytes) else {
        let key = FORMAT_KEY.as_bytes();
        let is_ours = bytes.windows(key.len()).any(|window| window == key);
        let why = "its footer cannot be read".to_owned();
        let lost = vec![LostRows { range: whole, rows: 0, why }];
        return Ok(Salvaged { is_ours, rows: Vec::new(), lost });
    };
    let Some(format) = format_entry(&metadata) else { return Ok(Salvaged::default()) };
    let known = u64::from(FORMAT);
    if let Some(found) = format.value.as_deref().and_then(|value| value.parse::<u64>().ok())
        && found > known
    {
        return Err(WalError::NewerFormat { path: path.to_owned(), found, known });
    }
    let mut salvaged = Salvaged { is_ours: true, ..Salvaged::default() };
    for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
        let ranges = || group.columns().iter().map(|column| column.byte_range());
        let start = ranges().map(|(start, _)| start).min().unwrap_or(0);
        let end = ranges().map(|(start, len)| start + len).max().unwrap_or(0);
        let expected = u64::try_from(group.num_rows()).unwrap_or(0);
        let (rows, error) = footer::caught(|| rows_of_group(bytes, &metadata, index))
            .unwrap_or_else(|panicked| (Vec::new(), Some(panicked)));
        let lost = expected.saturating_sub(rows.len() as u64);
        salvaged.rows.extend(rows);
        if lost > 0 {
            let why = error.unwrap_or_else(|| "rows are missing".into());
            salvaged.lost.push(LostRows { range: start..end, rows: lost, why });
        }
    }
    Ok(salvaged)
}

/// Returns the valid rows of a row group, and the last reason for which others are lost.
fn rows_of_group(
    bytes: &Bytes,
    metadata: &ArrowReaderMetadata,
    group: usize,
) -> (Vec<Operation>, Option<String>) {
    let mut rows = Vec::new();
    let mut why = None;
    let reader =
        ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(BATCH_ROWS)
            .build();
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => return (rows, Some(error.to_string())),
    };
    for batch in reader {
        let batch = match batch {
            Ok(batch) => batch,
            // After an error the reader would return the same error indefinitely.
            Err(error) => return (rows, Some(error.to_string())),
        };
        let Some(columns) = Columns::of(&batch) else {
            return (rows, Some("its columns have unexpected types".into()));
        };
        let mut checker = RowChecker::new(None, LiveIds::Skip);
        for row in 0..batch.num_rows() {
            match checker.check(&columns, row).and_then(|_| decode_row(&batch, row)) {
                Ok(operation) => rows.push(operation),
                Err(what) => why = Some(format!("row {row} is invalid: {what}")),
            }
        }
    }
    (rows, why)
}

/// Decodes a file into Arrow batches and does nothing else, as a baseline for the speed of
/// `verify`. Returns the number of rows.
#[cfg(feature = "cli")]
pub fn count_rows(disk: &dyn crate::disk::Disk, path: &Path) -> WalResult<u64> {
    let broken = |error: String| WalError::damaged(path, None, error);
    let bytes = Bytes::from(disk.read(path)?);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
        .map_err(|error| broken(error.to_string()))?;
    let mut rows = 0;
    for batch in reader {
        rows += batch.map_err(|error| broken(error.to_string()))?.num_rows() as u64;
    }
    Ok(rows)
}
