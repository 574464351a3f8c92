//! Defaults that more than one module uses: the log when it is opened without a configuration, and
//! the configuration itself.

use std::time::Duration;

/// The number of operations in a partition.
pub const PARTITION_SIZE: usize = 1000;

/// True: completed operations are moved to archives.
pub const ARCHIVE_COMPLETED: bool = true;

/// The longest wait for a lock of the log.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of bytes that are kept free to finish logged operations.
pub const MIN_FREE_BYTES: u64 = 64 << 20;

/// The number of retries after the first attempt of an operation.
pub const MAX_RETRIES: u32 = 5;
