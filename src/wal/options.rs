//! The options with which a log is opened.

use std::time::Duration;

use crate::operation::defaults;

/// The default size in bytes at which a generation is closed.
pub(super) const GENERATION_BYTES: u64 = 4 << 20;

/// The options with which a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of operations in a partition.
    pub partition_size: usize,
    /// If true, a checkpoint moves completed operations to archives.
    pub archive_completed: bool,
    /// The longest wait for a lock, or for a flush by another thread or process.
    pub lock_timeout: Duration,
    /// The largest number of operations that one frame logs; 1000 in any case. A larger batch is
    /// written to partitions.
    pub frame_operations: usize,
    /// The number of operations of such a batch that are in memory before they get their numbers.
    pub chunk_operations: usize,
    /// The size in bytes at which a generation is closed.
    pub generation_bytes: u64,
    /// The number of zero bytes that are written ahead of the frames of a generation. Overwriting
    /// them costs less to flush than growing the file.
    pub preallocate_bytes: u64,
    /// The size of the journal in bytes at which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// The age of the oldest transition, in milliseconds, at which a checkpoint is due.
    pub checkpoint_age_ms: i64,
    /// The number of bytes that are kept free to finish logged operations. With less free space, no
    /// operation is logged.
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
            partition_size: defaults::PARTITION_SIZE,
            archive_completed: defaults::ARCHIVE_COMPLETED,
            lock_timeout: defaults::LOCK_TIMEOUT,
            frame_operations: usize::MAX,
            chunk_operations: 8192,
            generation_bytes: GENERATION_BYTES,
            preallocate_bytes: 256 << 10,
            checkpoint_bytes: 8 << 20,
            checkpoint_age_ms: 60_000,
            min_free_bytes: defaults::MIN_FREE_BYTES,
            reserve_bytes: 4 << 20,
            allow_network_fs: false,
            command: "library".into(),
        }
    }
}
