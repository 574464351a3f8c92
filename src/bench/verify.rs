//! Benchmark of `verify`.

use std::path::Path;
use std::sync::Arc;

use super::batch::generated;
use super::{FileTotals, Spread, spread};
use crate::client::{Client, ClientError};
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::Disk;
use crate::wal::{Damage, WalError};

/// Operations of one batch.
const BATCH: usize = 100_000;

/// Verification of a log, compared with a plain decode of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyRow {
    /// Operations in the log.
    pub operations: usize,
    /// Files of the log.
    pub files: FileTotals,
    /// Operations verified per second, median of the blocks.
    pub ours_per_second: f64,
    /// Rows decoded per second, median of the blocks.
    pub decoded_per_second: f64,
    /// The time of verification as a multiple of the plain decode's.
    pub ratio: Spread,
}

/// Creates a log below `directory`, and verifies and decodes it in alternation.
pub fn verify(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    directory: &Path,
    operations: usize,
    blocks: usize,
) -> Result<VerifyRow, ClientError> {
    let base = directory.join(format!("bench-verify-{}", clock.random()));
    let client = Client::builder(Settings::at(base.clone()))
        .with_environment(disk.clone(), clock.clone())
        .program("bench verify")
        .build();
    let wal = client.wal()?;
    for first in (0..operations).step_by(BATCH) {
        let mut batch = wal.batch();
        for nth in first..operations.min(first + BATCH) {
            batch.push(generated(nth)?)?;
        }
        batch.commit()?;
    }
    let (mut ours, mut decoded) = (Vec::new(), Vec::new());
    let mut files = FileTotals::default();
    for block in 0..=blocks {
        let start = clock.elapsed();
        let rows = client.decode_files()?;
        let plain = clock.elapsed().saturating_sub(start).as_secs_f64();
        let start = clock.elapsed();
        let found = client.verify(&|_, _| {})?;
        let checked = clock.elapsed().saturating_sub(start).as_secs_f64();
        if let Some(damage) = found.damages().next() {
            let damage = Damage {
                path: damage.path.clone().into(),
                offset: damage.offset,
                what: damage.what.clone(),
            };
            return Err(WalError::Damaged(damage).into());
        }
        tracing::debug!(rows, operations = found.operations, plain, checked, "block");
        files = FileTotals { count: found.files, bytes: found.bytes };
        // The first block fills the caches.
        if block > 0 {
            decoded.push(plain);
            ours.push(checked);
        }
    }
    disk.remove_tree(&base)?;
    let per_second =
        |seconds: &[f64]| operations as f64 / spread(seconds.to_vec()).median.max(f64::EPSILON);
    Ok(VerifyRow {
        operations,
        files,
        ours_per_second: per_second(&ours),
        decoded_per_second: per_second(&decoded),
        ratio: spread(
            ours.iter().zip(&decoded).map(|(ours, plain)| ours / plain.max(f64::EPSILON)).collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::OsDisk;

    #[test]
    fn a_log_is_checked_beside_a_plain_decode() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) =
            (Arc::new(OsDisk::new()), Arc::new(SystemClock::new()));
        let row = verify(&disk, &clock, directory.path(), 2500, 2).unwrap();
        assert_eq!(disk.list(directory.path()).unwrap(), [], "the log was removed");
        assert_eq!((row.operations, row.files.count), (2500, 3));
        assert!(row.ours_per_second > 0.0 && row.ratio.min <= row.ratio.max, "{row:?}");
    }
}
