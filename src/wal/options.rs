//! How a log is written.

use std::time::Duration;

/// Bytes of zeros written ahead of the frames: overwriting costs less to flush than growing the
/// file.
const PREALLOCATE_BYTES: u64 = 256 * 1024;

/// Bytes of the reserve.
const RESERVE_BYTES: u64 = 4 << 20;

/// How a log is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of operations in a partition.
    pub partition_size: usize,
    /// If true, a checkpoint moves completed operations to archives.
    pub archive_completed: bool,
    /// How long to wait for a lock, or for the flush of another process.
    pub lock_timeout: Duration,
    /// How many operations a frame may log at most. A larger batch is written to partitions. A
    /// frame holds no more than 1000 in any case.
    pub frame_operations: usize,
    /// How many operations of such a batch are held in memory until they get their numbers.
    pub chunk_operations: usize,
    /// The size in bytes at which a generation is closed.
    pub generation_bytes: u64,
    /// Bytes of zeros written ahead of the frames of a generation.
    pub preallocate_bytes: u64,
    /// The size of the journal in bytes at which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// The age of the oldest transition, in milliseconds, at which a checkpoint is due.
    pub checkpoint_age_ms: i64,
    /// Free bytes kept to finish logged operations: no operation is logged below that.
    pub min_free_bytes: u64,
    /// The size in bytes of the reserve, a file that is removed to finish logged operations on a
    /// full disk; 0 for none.
    pub reserve_bytes: u64,
    /// If true, the log may be on a network file system.
    pub allow_network_fs: bool,
    /// The command of this process, for notes and histories.
    pub command: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            partition_size: 1000,
            archive_completed: true,
            lock_timeout: Duration::from_secs(10),
            frame_operations: usize::MAX,
            chunk_operations: 8192,
            generation_bytes: 4 << 20,
            preallocate_bytes: PREALLOCATE_BYTES,
            checkpoint_bytes: 8 << 20,
            checkpoint_age_ms: 60_000,
            min_free_bytes: 64 << 20,
            reserve_bytes: RESERVE_BYTES,
            allow_network_fs: false,
            command: "library".into(),
        }
    }
}
