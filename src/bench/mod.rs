//! Benchmarks: the log's figures and the disk's own, measured in alternation.
//!
//! A disk's speed changes within minutes, so absolute times are misleading: each block takes one
//! sample of the disk and one of the log, and the ratio is reported.

mod batch;
mod verify;

use std::path::Path;
use std::sync::Arc;

pub use batch::{BatchRow, batch};
pub use verify::{VerifyRow, verify};

use crate::client::{Client, ClientError};
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::{Access, Disk, DiskResult};
use crate::operation::{BackendName, Fields, Logged, OperationType};

/// Bytes of one record: about the size of the record of an `add`.
pub const RECORD_BYTES: usize = 300;

/// Flushes of one sample of the disk.
const FLUSHES: usize = 100;

/// A method of writing records to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Append to a growing file, then `fdatasync`.
    Append,
    /// Overwrite zeros written in advance, then `fdatasync`, as the journal does.
    Overwrite,
}

impl Method {
    /// All methods.
    pub const ALL: [Method; 2] = [Method::Append, Method::Overwrite];

    /// Returns the method's name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Append => "append + fdatasync",
            Method::Overwrite => "zeros laid ahead, overwrite + fdatasync",
        }
    }
}

/// The disk's own figures for records in groups of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct FloorRow {
    /// The method.
    pub method: Method,
    /// Records per flush.
    pub group: usize,
    /// Median time of one write and flush, in microseconds.
    pub median_us: f64,
    /// 5th percentile of that time, in microseconds.
    pub p5_us: f64,
    /// 95th percentile of that time, in microseconds.
    pub p95_us: f64,
    /// Records per second.
    pub per_second: f64,
}

/// Appends to the log, compared with plain writes to the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct AppendRow {
    /// Threads that append concurrently, one operation at a time each.
    pub threads: usize,
    /// Durable operations per second of the log, median of the blocks.
    pub ours_per_second: f64,
    /// Records per second of the disk, flushed one by one, median of the blocks.
    pub alone_per_second: f64,
    /// Records per second of the disk, flushed in groups of one per thread, median of the blocks.
    pub grouped_per_second: f64,
    /// The log's time per operation as a multiple of the disk's, flushed one by one.
    pub ratio_alone: Spread,
    /// The same, flushed in groups of one per thread.
    pub ratio_grouped: Spread,
}

/// The spread of a figure over the blocks of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl From<Spread> for (f64, f64, f64) {
    /// Returns median, smallest and largest value, in the order of the JSON documents.
    fn from(spread: Spread) -> (f64, f64, f64) {
        (spread.median, spread.min, spread.max)
    }
}

/// Number and size of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// The number of files.
    pub count: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(min), Some(median), Some(max)) => Spread { median: *median, min: *min, max: *max },
        _ => Spread::default(),
    }
}

/// Returns the seconds that each of `flushes` writes of `bytes` takes, including the flush.
fn sample(
    disk: &dyn Disk,
    clock: &dyn Clock,
    directory: &Path,
    method: Method,
    bytes: usize,
    flushes: usize,
) -> DiskResult<Vec<f64>> {
    let path = directory.join(format!("bench-floor-{}.tmp", clock.random()));
    let file = disk.open(&path, Access::CreateNew)?;
    let result = (|| {
        if method == Method::Overwrite {
            file.write_at(&vec![0; bytes * flushes], 0)?;
            file.sync_all()?;
        }
        let record = vec![b'x'; bytes];
        let mut times = Vec::with_capacity(flushes);
        for nth in 0..flushes {
            let start = clock.elapsed();
            file.write_at(&record, (nth * bytes) as u64)?;
            file.sync_data()?;
            times.push(clock.elapsed().saturating_sub(start).as_secs_f64());
        }
        Ok(times)
    })();
    disk.remove_file(&path)?;
    result
}

/// Measures the disk of a directory.
pub fn floor(disk: &dyn Disk, clock: &dyn Clock, directory: &Path) -> DiskResult<Vec<FloorRow>> {
    let mut rows = Vec::new();
    for method in [Method::Append, Method::Overwrite] {
        for group in [1, 10, 100, 1000] {
            let mut times = sample(disk, clock, directory, method, group * RECORD_BYTES, FLUSHES)?;
            times.sort_by(f64::total_cmp);
            let total: f64 = times.iter().sum();
            let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)] * 1e6;
            rows.push(FloorRow {
                method,
                group,
                median_us: at(50),
                p5_us: at(5),
                p95_us: at(95),
                per_second: (group * times.len()) as f64 / total.max(f64::EPSILON),
            });
        }
    }
    Ok(rows)
}

/// Measures appends of `threads` threads and plain writes in alternating blocks, with a log below
/// `directory`.
pub fn append(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    directory: &Path,
    threads: usize,
    blocks: usize,
) -> Result<AppendRow, ClientError> {
    let base = directory.join(format!("bench-append-{}", clock.random()));
    let client = Client::builder(Settings::at(base.clone()))
        .with_environment(disk.clone(), clock.clone())
        .program("bench append")
        .build();
    let per_thread = (FLUSHES * 2 / threads).max(5);
    let operations = per_thread * threads;
    // The first append creates the log, which is not measured.
    append_with(&client, 1, 1)?;
    let (mut ours, mut alone, mut grouped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..blocks {
        let start = clock.elapsed();
        append_with(&client, threads, per_thread)?;
        ours.push(clock.elapsed().saturating_sub(start).as_secs_f64() / operations as f64);
        let seconds = |bytes: usize, records: usize| {
            sample(&**disk, &**clock, directory, Method::Append, bytes, FLUSHES)
                .map(|times| times.iter().sum::<f64>() / (records * FLUSHES) as f64)
        };
        alone.push(seconds(RECORD_BYTES, 1)?);
        grouped.push(seconds(RECORD_BYTES * threads, threads)?);
    }
    disk.remove_tree(&base)?;
    let ratios =
        |floor: &[f64]| spread(ours.iter().zip(floor).map(|(ours, floor)| ours / floor).collect());
    Ok(AppendRow {
        threads,
        ratio_alone: ratios(&alone),
        ratio_grouped: ratios(&grouped),
        ours_per_second: 1.0 / spread(ours).median.max(f64::EPSILON),
        alone_per_second: 1.0 / spread(alone).median.max(f64::EPSILON),
        grouped_per_second: 1.0 / spread(grouped).median.max(f64::EPSILON),
    })
}

/// Returns the addition of a file, for the backend `mock`.
fn add_of(path: String) -> Result<Logged, ClientError> {
    let operation_type = OperationType::new("add")?;
    let backend = BackendName::new("mock")?;
    Ok(Logged::new(operation_type, backend, Fields::from([("path".to_owned(), path)]), 5))
}

fn append_with(client: &Client, threads: usize, each: usize) -> Result<(), ClientError> {
    let operation = add_of("/bench/a-path-of-usual-length.txt".into())?;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    (0..each).try_for_each(|_| client.submit(operation.clone()).map(drop))
                })
            })
            .collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or(Err(ClientError::Interrupted)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::OsDisk;

    #[test]
    fn measuring_the_floor_leaves_no_files() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, clock) = (OsDisk::new(), SystemClock::new());
        let rows = floor(&disk, &clock, directory.path()).unwrap();
        assert_eq!(rows.len(), 8);
        assert!(rows.iter().all(|row| row.per_second > 0.0 && row.p5_us <= row.p95_us));
        assert_eq!(disk.list(directory.path()).unwrap(), []);
    }

    #[test]
    fn threads_append_beside_the_floor() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) =
            (Arc::new(OsDisk::new()), Arc::new(SystemClock::new()));
        let row = append(&disk, &clock, directory.path(), 4, 2).unwrap();
        assert_eq!(disk.list(directory.path()).unwrap(), [], "the log was removed");
        assert!(row.ours_per_second > 0.0 && row.ratio_alone.min <= row.ratio_alone.max, "{row:?}");
    }
}
