//! Which columns of a file are worth compressing.

use arrow_array::{Array, RecordBatch};
use parquet::arrow::ArrowSchemaConverter;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnPath;

/// Columns whose leaves have fewer bytes than this on average stay as they are. What zstd would
/// save of them is little, and it costs more than all else: setting up each of its contexts asks
/// the processor what it is, which traps in a virtual machine.
const BYTES_MIN: usize = 2048;

/// The leaves of those columns that are not worth it.
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

/// About as many bytes as its values take; null ones take none.
fn bytes_of(array: &dyn Array) -> usize {
    match array.to_data().get_slice_memory_size() {
        _ if array.null_count() == array.len() => 0,
        Ok(bytes) => bytes,
        Err(_) => array.get_buffer_memory_size(),
    }
}
