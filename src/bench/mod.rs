//! Benchmarks: what this disk can do, and what the log makes of it, measured in alternation.
//!
//! A disk's speed changes within minutes, so nothing here is judged by its time alone: each block takes a
//! sample of the disk and one of ours, and what counts is their ratio.

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

/// Bytes of a record: about what logging the addition of a file takes.
pub const RECORD_BYTES: usize = 300;

/// Flushes of one sample of the disk.
const FLUSHES: usize = 100;

/// How records reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Written at the end of a growing file, then `fdatasync`.
    Append,
    /// Written over zeros laid before, then `fdatasync`: how the journal does it.
    Overwrite,
}

impl Method {
    /// Both.
    pub const ALL: [Method; 2] = [Method::Append, Method::Overwrite];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Append => "append + fdatasync",
            Method::Overwrite => "zeros laid ahead, overwrite + fdatasync",
        }
    }
}

/// What the disk can do with records in groups of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct FloorRow {
    /// How.
    pub method: Method,
    /// Records of one flush.
    pub group: usize,
    /// Median time of one write and flush, in microseconds.
    pub median_us: f64,
    /// The fastest and the slowest of a hundred, left out one in twenty at each end, in microseconds.
    pub range_us: (f64, f64),
    /// Records per second.
    pub per_second: f64,
}

/// Our appends beside the disk's.
#[derive(Debug, Clone, PartialEq)]
pub struct AppendRow {
    /// Threads that append at the same time, one operation at a time.
    pub threads: usize,
    /// Durable operations per second of ours, median of the blocks.
    pub ours_per_second: f64,
    /// Records per second of the disk, flushed one by one, median of the blocks.
    pub alone_per_second: f64,
    /// Records per second of the disk, flushed in groups as large as there are threads, median of the blocks.
    pub grouped_per_second: f64,
    /// Our time per operation as a multiple of the disk's, flushed one by one: median, least, most.
    pub ratio_alone: (f64, f64, f64),
    /// The same in groups as large as there are threads.
    pub ratio_grouped: (f64, f64, f64),
}

/// Median, least and most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(least), Some(median), Some(most)) => (*median, *least, *most),
        _ => (0.0, 0.0, 0.0),
    }
}

/// Seconds of each of `flushes` writes of `bytes`, each flushed.
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

/// What the disk of a directory can do.
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
                range_us: (at(5), at(95)),
                per_second: (group * times.len()) as f64 / total.max(f64::EPSILON),
            });
        }
    }
    Ok(rows)
}

/// Our appends with so many threads beside the disk, in alternating blocks, in a log below `directory`.
pub fn append(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    directory: &Path,
    threads: usize,
    blocks: usize,
) -> Result<AppendRow, ClientError> {
    let base = directory.join(format!("bench-append-{}", clock.random()));
    let client =
        Client::with(disk.clone(), clock.clone(), Settings::at(base.clone()), "bench append");
    let per_thread = (FLUSHES * 2 / threads).max(5);
    let operations = per_thread * threads;
    // The first append makes the log; that is not what is measured.
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
        ours_per_second: 1.0 / spread(ours).0.max(f64::EPSILON),
        alone_per_second: 1.0 / spread(alone).0.max(f64::EPSILON),
        grouped_per_second: 1.0 / spread(grouped).0.max(f64::EPSILON),
    })
}

fn append_with(client: &Client, threads: usize, each: usize) -> Result<(), ClientError> {
    let refused =
        |error: crate::operation::InvalidName| ClientError::BadReference(error.to_string());
    let operation = Logged::new(
        OperationType::new("add").map_err(refused)?,
        BackendName::new("mock").map_err(refused)?,
        Fields::from([("path".to_owned(), "/bench/a-path-of-usual-length.txt".to_owned())]),
        5,
    );
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
    fn the_floor_is_measured_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, clock) = (OsDisk::new(), SystemClock::new());
        let rows = floor(&disk, &clock, directory.path()).unwrap();
        assert_eq!(rows.len(), 8);
        assert!(rows.iter().all(|row| row.per_second > 0.0 && row.range_us.0 <= row.range_us.1));
        assert_eq!(disk.list(directory.path()).unwrap(), []);
    }

    #[test]
    fn threads_append_beside_the_floor() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) =
            (Arc::new(OsDisk::new()), Arc::new(SystemClock::new()));
        let row = append(&disk, &clock, directory.path(), 4, 2).unwrap();
        assert_eq!(disk.list(directory.path()).unwrap(), [], "the log is gone again");
        assert!(row.ours_per_second > 0.0 && row.ratio_alone.1 <= row.ratio_alone.2, "{row:?}");
    }
}
