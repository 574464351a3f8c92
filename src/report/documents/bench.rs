//! What `bench` prints.

use schemars::JsonSchema;
use serde::Serialize;

use super::words::AsName;
use crate::bench::{AppendRow, BatchRow, FloorRow, Method, VerifyRow};

/// What the disk can do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Floor {
    floor: Vec<FloorDoc>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FloorRow")]
struct FloorDoc {
    /// How records reach the disk.
    method: AsName<Method>,
    /// Records of one flush.
    #[schemars(range(min = 1))]
    group: usize,
    /// Median time of one write and flush, in microseconds.
    median_us: f64,
    /// From the fastest to the slowest of them, one in twenty left out at each end.
    range_us: (f64, f64),
    /// Records per second.
    per_second: f64,
}

impl Floor {
    /// The document of these rows.
    pub fn new(rows: &[FloorRow]) -> Floor {
        let row = |row: &FloorRow| FloorDoc {
            method: AsName(row.method),
            group: row.group,
            median_us: row.median_us,
            range_us: row.range_us,
            per_second: row.per_second,
        };
        Floor { floor: rows.iter().map(row).collect() }
    }
}

/// Appends beside the disk.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Append {
    append: Vec<AppendDoc>,
}

/// Ratios are median, least, most.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AppendRow")]
struct AppendDoc {
    /// Threads that append at the same time.
    #[schemars(range(min = 1))]
    threads: usize,
    /// Durable operations per second.
    ours_per_second: f64,
    /// Records per second of the disk, flushed one by one.
    alone_per_second: f64,
    /// Records per second of the disk, flushed in groups as large as there are threads.
    grouped_per_second: f64,
    /// Our time as a multiple of the disk's, flushed one by one.
    ratio_alone: (f64, f64, f64),
    /// The same in groups.
    ratio_grouped: (f64, f64, f64),
}

impl Append {
    /// The document of these rows.
    pub fn new(rows: &[AppendRow]) -> Append {
        let row = |row: &AppendRow| AppendDoc {
            threads: row.threads,
            ours_per_second: row.ours_per_second,
            alone_per_second: row.alone_per_second,
            grouped_per_second: row.grouped_per_second,
            ratio_alone: row.ratio_alone,
            ratio_grouped: row.ratio_grouped,
        };
        Append { append: rows.iter().map(row).collect() }
    }
}

/// Large batches beside the disk.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Batch")]
pub struct BatchDoc {
    batch: BatchRowDoc,
}

/// Ratios are median, least, most.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchRow")]
struct BatchRowDoc {
    /// Operations of one batch.
    #[schemars(range(min = 1))]
    operations: usize,
    /// Partitions that it came to.
    files: usize,
    /// Their size.
    bytes: u64,
    /// Durable operations per second.
    ours_per_second: f64,
    /// As many per second as the disk takes for the same bytes.
    floor_per_second: f64,
    /// Our time as a multiple of the disk's.
    ratio: (f64, f64, f64),
}

impl BatchDoc {
    /// The document of this row.
    pub fn new(row: &BatchRow) -> BatchDoc {
        BatchDoc {
            batch: BatchRowDoc {
                operations: row.operations,
                files: row.files.0,
                bytes: row.files.1,
                ours_per_second: row.ours_per_second,
                floor_per_second: row.floor_per_second,
                ratio: row.ratio,
            },
        }
    }
}

/// Checking a log beside a plain decode of its files.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BenchVerify")]
pub struct BenchVerifyDoc {
    verify: VerifyRowDoc,
}

/// Ratios are median, least, most.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VerifyRow")]
struct VerifyRowDoc {
    /// Operations in the log.
    #[schemars(range(min = 1))]
    operations: usize,
    /// Its files.
    files: u64,
    /// Their size.
    bytes: u64,
    /// Operations that are checked per second.
    ours_per_second: f64,
    /// Rows that a plain decode reads per second.
    decoded_per_second: f64,
    /// Our time as a multiple of the plain decode's.
    ratio: (f64, f64, f64),
}

impl BenchVerifyDoc {
    /// The document of this row.
    pub fn new(row: &VerifyRow) -> BenchVerifyDoc {
        BenchVerifyDoc {
            verify: VerifyRowDoc {
                operations: row.operations,
                files: row.files.0,
                bytes: row.files.1,
                ours_per_second: row.ours_per_second,
                decoded_per_second: row.decoded_per_second,
                ratio: row.ratio,
            },
        }
    }
}
