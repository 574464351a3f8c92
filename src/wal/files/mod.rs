//! The manifest, the Parquet files that it names, and all that changes them.

pub(in crate::wal) mod batch;
pub(in crate::wal) mod checkpoint;
pub(in crate::wal) mod preconditions;
pub(in crate::wal) mod push;
pub(in crate::wal) mod receipts;
pub(in crate::wal) mod retention;
