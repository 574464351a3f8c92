use std::path::Path;
use std::sync::Arc;

use super::batch::generated;
use super::spread;
use crate::client::{Client, ClientError};
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::Disk;

/// Operations of one batch.
const BATCH: usize = 100_000;

/// Checking a log beside a plain decode of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyRow {
    /// Operations in the log.
    pub operations: usize,
    /// Its files, and their bytes.
    pub files: (u64, u64),
    /// Operations that are checked per second, median of the blocks.
    pub ours_per_second: f64,
    /// Rows that are decoded per second, median of the blocks.
    pub decoded_per_second: f64,
    /// Our time as a multiple of the plain decode's: median, least, most.
    pub ratio: (f64, f64, f64),
}

/// Makes a log below `directory`, and checks and decodes it in alternation.
pub fn verify(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    directory: &Path,
    operations: usize,
    blocks: usize,
) -> Result<VerifyRow, ClientError> {
    let base = directory.join(format!("bench-verify-{}", clock.random()));
    let client =
        Client::with(disk.clone(), clock.clone(), Settings::at(base.clone()), "bench verify");
    let wal = client.wal()?;
    for first in (0..operations).step_by(BATCH) {
        let mut batch = wal.batch();
        for nth in first..operations.min(first + BATCH) {
            batch.push(generated(nth)?)?;
        }
        batch.commit()?;
    }
    let (mut ours, mut decoded) = (Vec::new(), Vec::new());
    let mut files = (0, 0);
    for block in 0..=blocks {
        let start = clock.elapsed();
        let rows = client.decode_files()?;
        let plain = clock.elapsed().saturating_sub(start).as_secs_f64();
        let start = clock.elapsed();
        let found = client.verify(&|_, _| {})?;
        let checked = clock.elapsed().saturating_sub(start).as_secs_f64();
        if let Some(damage) = found.damages().next() {
            return Err(ClientError::BadReference(format!("{}: {}", damage.path, damage.what)));
        }
        tracing::debug!(rows, operations = found.operations, plain, checked, "block");
        files = (found.files, found.bytes);
        // The first one fills the caches.
        if block > 0 {
            decoded.push(plain);
            ours.push(checked);
        }
    }
    disk.remove_tree(&base)?;
    let per_second =
        |seconds: &[f64]| operations as f64 / spread(seconds.to_vec()).0.max(f64::EPSILON);
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
        assert_eq!(disk.list(directory.path()).unwrap(), [], "all of it is gone again");
        assert_eq!((row.operations, row.files.0), (2500, 3));
        assert!(row.ours_per_second > 0.0 && row.ratio.1 <= row.ratio.2, "{row:?}");
    }
}
