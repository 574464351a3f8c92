//! Choosing the columns of a file that are worth compressing.

use arrow_array::{Array, RecordBatch};
use parquet::arrow::ArrowSchemaConverter;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnPath;

/// Columns whose leaves have fewer bytes than this on average stay uncompressed. Zstd would save
/// little, and costs more than all other steps: setting up each of its contexts executes `cpuid`,
/// which traps in a virtual machine.
const BYTES_MIN: usize = 2048;

/// Returns the leaves of columns that are not worth compressing.
pub(super) fn small_columns(batches: &[RecordBatch]) -> Result<Vec<ColumnPath>, ParquetError> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let parquet =
        ArrowSchemaConverter::new().with_coerce_types(true).convert(first.schema().as_ref())?;
    let mut leaves = vec![0; first.num_columns()];
    (0..parquet.num_columns()).for_each(|leaf| leaves[parquet.get_column_root_idx(leaf)] += 1);
    let is_small: Vec<bool> = (0..first.num_columns())
        .map(|column| {
            let bytes: usize = batches.iter().map(|batch| bytes_of(batch.column(column))).sum();
            bytes < BYTES_MIN * leaves[column]
        })
        .collect();
    let leaves =
        (0..parquet.num_columns()).filter(|leaf| is_small[parquet.get_column_root_idx(*leaf)]);
    Ok(leaves.map(|leaf| parquet.column(leaf).path().clone()).collect())
}

/// Returns the approximate size of the values in bytes. A column of nulls has none.
fn bytes_of(array: &dyn Array) -> usize {
    match array.to_data().get_slice_memory_size() {
        _ if array.null_count() == array.len() => 0,
        Ok(bytes) => bytes,
        Err(_) => array.get_buffer_memory_size(),
    }
}
