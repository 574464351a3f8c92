//! Benchmark of large batches.

use std::path::Path;
use std::sync::Arc;

use super::{FileTotals, Spread, add_of, spread};
use crate::client::{Client, ClientError};
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::{Access, Disk, DiskResult};
use crate::operation::Logged;

/// Large batches, compared with plain writes to the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRow {
    /// Operations per batch.
    pub operations: usize,
    /// Partitions of one batch.
    pub files: FileTotals,
    /// Operations per second of the log, median of the blocks.
    pub ours_per_second: f64,
    /// Operations per second if only the same bytes are written and flushed, median of the blocks.
    pub floor_per_second: f64,
    /// The log's time as a multiple of the disk's.
    pub ratio: Spread,
}

/// Measures batches, each in a log of its own below `directory`, and plain writes of files of the
/// same sizes, in alternation.
pub fn batch(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    directory: &Path,
    operations: usize,
    blocks: usize,
) -> Result<BatchRow, ClientError> {
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let mut files = FileTotals::default();
    for _ in 0..blocks {
        let base = directory.join(format!("bench-batch-{}", clock.random()));
        let client = Client::builder(Settings::at(base.clone()))
            .with_environment(disk.clone(), clock.clone())
            .program("bench batch")
            .build();
        let wal = client.wal()?;
        // The first append creates the log, which is not measured.
        wal.append_new(vec![generated(0)?])?;
        let start = clock.elapsed();
        let mut batch = wal.batch();
        for nth in 0..operations {
            batch.push(generated(nth)?)?;
        }
        batch.commit()?;
        ours.push(clock.elapsed().saturating_sub(start).as_secs_f64());
        let mut sizes = Vec::new();
        for entry in disk.list(&wal.layout().partitions())? {
            sizes.push(disk.metadata(&wal.layout().partitions().join(entry.name))?.len);
        }
        files = FileTotals { count: sizes.len() as u64, bytes: sizes.iter().sum() };
        disk.remove_tree(&base)?;
        floor.push(write_files(&**disk, &**clock, directory, &sizes)?);
    }
    let per_second =
        |seconds: &[f64]| operations as f64 / spread(seconds.to_vec()).median.max(f64::EPSILON);
    Ok(BatchRow {
        operations,
        files,
        ours_per_second: per_second(&ours),
        floor_per_second: per_second(&floor),
        ratio: spread(
            ours.iter().zip(&floor).map(|(ours, floor)| ours / floor.max(f64::EPSILON)).collect(),
        ),
    })
}

pub(super) fn generated(nth: usize) -> Result<Logged, ClientError> {
    add_of(format!("/home/ann/pictures/2026/{:03}/picture-{nth:07}.jpg", nth / 1000))
}

/// Returns the seconds that writing and flushing files of these sizes takes.
fn write_files(
    disk: &dyn Disk,
    clock: &dyn Clock,
    directory: &Path,
    sizes: &[u64],
) -> DiskResult<f64> {
    let directory = directory.join(format!("bench-floor-{}", clock.random()));
    disk.create_dir(&directory)?;
    let content =
        vec![0xa5; usize::try_from(sizes.iter().copied().max().unwrap_or(0)).unwrap_or(0)];
    let start = clock.elapsed();
    let written = sizes.iter().enumerate().try_for_each(|(nth, size)| {
        let file = disk.open(&directory.join(nth.to_string()), Access::CreateNew)?;
        file.write_at(&content[..usize::try_from(*size).unwrap_or(0)], 0)?;
        file.sync_data()
    });
    let seconds = clock.elapsed().saturating_sub(start).as_secs_f64();
    disk.remove_tree(&directory)?;
    written.map(|()| seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::OsDisk;

    #[test]
    fn batches_are_logged_beside_the_floor() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) =
            (Arc::new(OsDisk::new()), Arc::new(SystemClock::new()));
        let row = batch(&disk, &clock, directory.path(), 2500, 2).unwrap();
        assert_eq!(disk.list(directory.path()).unwrap(), [], "the logs were removed");
        assert_eq!((row.operations, row.files.count), (2500, 3));
        assert!(
            row.files.bytes > 0 && row.ours_per_second > 0.0 && row.ratio.min <= row.ratio.max,
            "{row:?}"
        );
    }
}
