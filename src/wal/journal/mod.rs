//! The journal: the append-only tail of the log, a sequence of generations, each a file of frames.
//!
//! A record's life: `append` decides under `lock` and writes a frame, `group_commit` makes it
//! durable for all processes that wait, and `reader` finds it again. `rotate` begins a new
//! generation when one is full, `recover` when the end of one cannot be trusted. Writers pass on
//! where the journal ends in notes in the lock files. `format` encodes and decodes headers, frames
//! and records; docs/format.md describes the bytes.
//!
//! The journal knows neither a manifest nor a Parquet file: `interfaces` says what it needs of
//! them. Of the files here, each uses only those before it: `format`, `note`, `lock`, `reader`,
//! `interfaces`, `writer`, `generation`, `recover`, `rotate`, `turn`, `group_commit`, `append`.

pub(in crate::wal) mod append;
pub(in crate::wal) mod format;
pub(in crate::wal) mod generation;
pub(in crate::wal) mod group_commit;
pub(in crate::wal) mod interfaces;
pub(in crate::wal) mod lock;
pub mod note;
pub(in crate::wal) mod reader;
pub(in crate::wal) mod recover;
pub(in crate::wal) mod rotate;
mod turn;
pub(in crate::wal) mod writer;

pub use format::*;
