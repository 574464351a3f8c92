//! The documents of `bench`.

use schemars::JsonSchema;
use serde::Serialize;

use super::words::AsName;
use crate::bench::{AppendRow, BatchRow, FloorRow, Method, VerifyRow};

/// Throughput of the disk alone.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Floor {
    floor: Vec<FloorDoc>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FloorRow")]
struct FloorDoc {
    /// Method by which records reach the disk.
    method: AsName<Method>,
    /// Number of records per flush.
    #[schemars(range(min = 1))]
    group: usize,
    /// Median time of one write and flush, in microseconds.
    median_us: f64,
    /// 5th and 95th percentile of that time, in microseconds.
    range_us: (f64, f64),
    /// Records per second.
    per_second: f64,
}

impl Floor {
    /// Returns the document of these rows.
    pub fn new(rows: &[FloorRow]) -> Floor {
        let row = |row: &FloorRow| FloorDoc {
            method: AsName(row.method),
            group: row.group,
            median_us: row.median_us,
            range_us: (row.p5_us, row.p95_us),
            per_second: row.per_second,
        };
        Floor { floor: rows.iter().map(row).collect() }
    }
}

/// Appends to the log beside plain writes to the disk.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Append {
    append: Vec<AppendDoc>,
}

/// Ratios are median, minimum, maximum.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AppendRow")]
struct AppendDoc {
    /// Number of concurrent writers.
    #[schemars(range(min = 1))]
    threads: usize,
    /// Durable operations per second.
    ours_per_second: f64,
    /// Records per second of the disk with one flush per record.
    alone_per_second: f64,
    /// Records per second of the disk with one flush for as many records as there are threads.
    grouped_per_second: f64,
    /// Time per operation divided by the disk's time per record, one flush per record.
    ratio_alone: (f64, f64, f64),
    /// The same with grouped flushes.
    ratio_grouped: (f64, f64, f64),
}

impl Append {
    /// Returns the document of these rows.
    pub fn new(rows: &[AppendRow]) -> Append {
        let row = |row: &AppendRow| AppendDoc {
            threads: row.threads,
            ours_per_second: row.ours_per_second,
            alone_per_second: row.alone_per_second,
            grouped_per_second: row.grouped_per_second,
            ratio_alone: row.ratio_alone.into(),
            ratio_grouped: row.ratio_grouped.into(),
        };
        Append { append: rows.iter().map(row).collect() }
    }
}

/// Large batches beside plain writes to the disk.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Batch")]
pub struct BatchDoc {
    batch: BatchRowDoc,
}

/// Ratios are median, minimum, maximum.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchRow")]
struct BatchRowDoc {
    /// Number of operations in a batch.
    #[schemars(range(min = 1))]
    operations: usize,
    /// Number of partitions written.
    files: usize,
    /// Size of the files in bytes.
    bytes: u64,
    /// Durable operations per second.
    ours_per_second: f64,
    /// Operations per second if writing the same bytes were the only cost.
    floor_per_second: f64,
    /// Time of a batch divided by the disk's time for the same bytes.
    ratio: (f64, f64, f64),
}

impl BatchDoc {
    /// Returns the document of this row.
    pub fn new(row: &BatchRow) -> BatchDoc {
        BatchDoc {
            batch: BatchRowDoc {
                operations: row.operations,
                files: row.files.count as usize,
                bytes: row.files.bytes,
                ours_per_second: row.ours_per_second,
                floor_per_second: row.floor_per_second,
                ratio: row.ratio.into(),
            },
        }
    }
}

/// Verification of a log beside a plain decode of its files.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BenchVerify")]
pub struct BenchVerifyDoc {
    verify: VerifyRowDoc,
}

/// Ratios are median, minimum, maximum.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VerifyRow")]
struct VerifyRowDoc {
    /// Number of operations in the log.
    #[schemars(range(min = 1))]
    operations: usize,
    /// Number of files.
    files: u64,
    /// Size of the files in bytes.
    bytes: u64,
    /// Operations verified per second.
    ours_per_second: f64,
    /// Rows decoded per second.
    decoded_per_second: f64,
    /// Time of the verification divided by the time of the decode.
    ratio: (f64, f64, f64),
}

impl BenchVerifyDoc {
    /// Returns the document of this row.
    pub fn new(row: &VerifyRow) -> BenchVerifyDoc {
        BenchVerifyDoc {
            verify: VerifyRowDoc {
                operations: row.operations,
                files: row.files.count,
                bytes: row.files.bytes,
                ours_per_second: row.ours_per_second,
                decoded_per_second: row.decoded_per_second,
                ratio: row.ratio.into(),
            },
        }
    }
}
