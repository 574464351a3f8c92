//! Reading a Parquet file of operations.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use super::columns::schema;
use super::decode::decode_row;
use super::{FORMAT_KEY, ROW_GROUP_ROWS, footer};
use crate::disk::Disk;
use crate::operation::{Number, Operation, OperationId};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::FORMAT;
use crate::wal::manifest::sha256_hex;

/// A row group, as the footer describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    /// The index among the row groups of the file.
    pub index: usize,
    /// The number of rows.
    pub rows: usize,
    /// The lowest and the highest number.
    pub numbers: (Number, Number),
    /// The lowest and the highest id.
    pub ids: (OperationId, OperationId),
}

/// An open Parquet file of operations.
#[derive(Debug)]
pub struct Table {
    pub(super) path: PathBuf,
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    groups: Vec<RowGroup>,
}

impl Table {
    /// Reads a file, which must have this SHA-256, and its footer.
    ///
    /// A file is a few hundred kilobytes at most, so it is read as a whole. Any other bytes than
    /// those that were written are damage, even if Parquet could read them: pages carry no
    /// checksums of their own.
    pub fn open(disk: &dyn Disk, path: &Path, sha256: &str) -> WalResult<Table> {
        let broken = |what: String| WalError::damaged(path, None, what);
        let bytes = Bytes::from(disk.read(path)?);
        if sha256_hex(&bytes) != sha256 {
            return Err(broken("its bytes are not those that the manifest describes".into()));
        }
        let metadata = footer::footer(&bytes)
            .map_err(|what| broken(format!("it cannot be read as Parquet: {what}")))?;
        check_format(path, &metadata)?;
        let names = metadata.schema().fields().iter().map(|field| field.name());
        if !names.eq(schema().fields().iter().map(|field| field.name())) {
            return Err(broken(format!("its columns are not those of format {FORMAT}")));
        }
        let groups = metadata.metadata().row_groups().iter().enumerate();
        let groups = groups
            .map(|(index, group)| RowGroup::describe(index, group))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| broken("its row groups lack the ranges of ids and numbers".into()))?;
        Ok(Table { path: path.to_owned(), bytes, metadata, groups })
    }

    /// Returns the row groups in order.
    pub fn groups(&self) -> &[RowGroup] {
        &self.groups
    }

    /// Returns false if the bloom filter of a row group rules this id out.
    pub fn may_hold(&self, group: &RowGroup, id: OperationId) -> bool {
        group.ids.0 <= id
            && id <= group.ids.1
            && self.filter_admits(group, "operation_id", &id.to_string())
    }

    /// Returns false if the bloom filter of a row group rules this idempotency key out.
    pub fn may_hold_key(&self, group: &RowGroup, key: &str) -> bool {
        self.filter_admits(group, "idempotency_key", key)
    }

    fn filter_admits(&self, group: &RowGroup, name: &str, value: &str) -> bool {
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        let column = schema.columns().iter().position(|column| column.path().string() == name);
        let check = || {
            let filter = self.reader().get_row_group_column_bloom_filter(group.index, column?);
            Some(filter.ok()??.check(&value))
        };
        // A missing or unreadable filter rules nothing out: damage is found when the rows are read.
        footer::caught(check).ok().flatten().unwrap_or(true)
    }

    pub(super) fn reader(&self) -> ParquetRecordBatchReaderBuilder<Bytes> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.bytes.clone(),
            self.metadata.clone(),
        )
    }

    /// Reads the operations of some row groups.
    pub fn read(&self, groups: impl IntoIterator<Item = usize>) -> WalResult<Vec<Operation>> {
        footer::caught(|| self.read_unguarded(groups))
            .unwrap_or_else(|what| Err(WalError::damaged(&self.path, None, what)))
    }

    /// Like [`Table::read`], but the reader may panic.
    fn read_unguarded(&self, groups: impl IntoIterator<Item = usize>) -> WalResult<Vec<Operation>> {
        let broken = |what: String| WalError::damaged(&self.path, None, what);
        let reader = self
            .reader()
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

    /// Reads all operations.
    pub fn read_all(&self) -> WalResult<Vec<Operation>> {
        self.read(0..self.groups.len())
    }
}

impl RowGroup {
    /// Returns none if the footer lacks a statistic.
    fn describe(index: usize, group: &RowGroupMetaData) -> Option<RowGroup> {
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
        let id = |bytes: Option<&[u8]>| OperationId::parse(std::str::from_utf8(bytes?).ok()?);
        let ids = statistics("operation_id")?;
        let ids = (id(ids.min_bytes_opt())?, id(ids.max_bytes_opt())?);
        Some(RowGroup { index, rows: usize::try_from(group.num_rows()).ok()?, numbers, ids })
    }
}

/// Fails unless the footer says that this program, or an older version of it, wrote the file.
fn check_format(path: &Path, metadata: &ArrowReaderMetadata) -> WalResult<()> {
    let format = format_entry(metadata)
        .and_then(|entry| entry.value.as_deref())
        .and_then(|value| value.parse::<u64>().ok());
    let Some(found) = format else {
        let what = format!("the Parquet file has no key `{FORMAT_KEY}`: another program made it");
        return Err(WalError::NotOurs { path: path.to_owned(), what });
    };
    let known = u64::from(FORMAT);
    if found > known {
        return Err(WalError::NewerFormat { path: path.to_owned(), found, known });
    }
    Ok(())
}

/// Returns the footer entry that names the format version.
pub(super) fn format_entry(metadata: &ArrowReaderMetadata) -> Option<&KeyValue> {
    let entries = metadata.metadata().file_metadata().key_value_metadata()?;
    entries.iter().find(|entry| entry.key == FORMAT_KEY)
}
