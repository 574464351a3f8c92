//! The journal: the append-only tail of the log, a sequence of generations, each a file of frames.
//!
//! A writer appends a frame while it holds `lock` (`acquire`, `append`), and then waits until the
//! frame is durable; one of the waiting processes flushes for all of them (`group_commit`). A full
//! generation is sealed, and the journal continues in a new one (`rotate`). If the end of a
//! generation cannot be trusted, a new one begins with its valid rest (`recover`). Readers take no
//! lock (`reader`). Notes in the lock files record where the journal ends, so that a writer need
//! not read it first (`note`, `lock`). `format` and `payload` encode and decode headers, frames and
//! transitions; docs/format.md describes the bytes.
//!
//! The journal knows neither the manifest nor Parquet files: `interfaces` declares what it needs of
//! them. Each file here uses only those before it in this list: `format`, `payload`, `note`,
//! `lock`, `reader`, `interfaces`, `writer`, `generation`, `recover`, `rotate`, `acquire`,
//! `group_commit`, `append`.

mod acquire;
pub(in crate::wal) mod append;
pub(in crate::wal) mod format;
pub(in crate::wal) mod generation;
pub(in crate::wal) mod group_commit;
pub(in crate::wal) mod interfaces;
pub(in crate::wal) mod lock;
pub mod note;
pub(in crate::wal) mod payload;
pub(in crate::wal) mod reader;
pub(in crate::wal) mod recover;
pub(in crate::wal) mod rotate;
pub(in crate::wal) mod writer;

pub use format::*;
pub use payload::*;
