//! Changes of the files beside the journal: checkpoints, batches, retention, adoption and pushes.
//!
//! Each file uses only those before it: `store`, `create`, `edit`, `sweep`, `adopt`, `checkpoint`,
//! `receipts`, `preconditions`, `batch`, `archive_days`, `destination`, `push_state`, `retention`,
//! `push`.

mod adopt;
mod archive_days;
pub(in crate::wal) mod batch;
pub(in crate::wal) mod checkpoint;
pub(in crate::wal) mod create;
pub(in crate::wal) mod destination;
pub(in crate::wal) mod edit;
mod preconditions;
pub(in crate::wal) mod push;
pub(in crate::wal) mod push_state;
pub(in crate::wal) mod receipts;
pub(in crate::wal) mod retention;
mod store;
mod sweep;

pub(in crate::wal) use store::FileStore;
