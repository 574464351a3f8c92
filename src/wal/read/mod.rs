//! What a reader sees of the log: manifest, Parquet files and journal as one.

pub(in crate::wal) mod admit;
mod keys;
pub(in crate::wal) mod scan;
mod tables;
pub(in crate::wal) mod view;
