//! The log: journal, manifest, Parquet files and spool. Synchronous; docs/format.md describes its
//! format.
//!
//! Each part uses only parts above it in this table (`suite::tidy` checks that):
//!
//! | part | contents |
//! |---|---|
//! | `error`, `layout` | errors; names of files |
//! | `role` | the role of a path, for failpoints |
//! | `options`, `change` | options; changes to be written |
//! | `journal` | generations of frames: reading, appending, group commit, rotation, recovery |
//! | `manifest`, `schema` | the file that names the others; rows in Parquet files |
//! | `original` | the files of the original system |
//! | `read` | the state of the log, from manifest, Parquet files and journal |
//! | `reserve` | disk space kept for finishing logged operations |
//! | `append` | logging operations that fit one frame |
//! | `spool` | content copied into the log |
//! | `files` | checkpoints, batches, retention, adoption, pushes of archives |
//! | `verify`, `repair` | checking a log; repairing a damaged one |
//! | `open` | opening a log: [`Wal`], the interface of the log |
//!
//! If a lower part needs a higher one, it declares a trait. The journal's writer decides on a
//! `JournalView` and creates a log through `LogFiles`; `read` and `files` implement them.

mod append;
mod change;
mod error;
mod files;
pub mod journal;
mod layout;
pub mod manifest;
mod open;
mod options;
pub mod original;
mod read;
mod repair;
mod reserve;
#[cfg(feature = "test-util")]
mod role;
pub mod schema;
mod spool;
mod verify;

pub use change::{Admitted, Change, Known, Written};
pub use error::{Damage, WalError, WalResult};
pub use files::batch::{Batch, Committed};
pub use files::checkpoint::CheckpointDue;
pub use files::destination::{BadPush, Push};
pub use files::edit::{ARCHIVE_PARTITIONS, CheckpointReport};
pub use files::push::{PushOperation, PushReport, PushedArchive};
pub use files::push_state::{Archive, PushState};
pub use files::retention::{CleanupPlan, PrunedArchive, Retention};
pub use journal::lock::HeldLock;
#[cfg(feature = "test-util")]
pub use journal::lock::LockFile;
pub use journal::note::{self, DrainLoop, HolderNote};
pub use layout::{Layout, LockName};
pub use manifest::{FileEntry, NumberSet};
pub use open::Wal;
pub use options::Options;
pub use read::index::OperationSummary;
pub use read::precheck::{DependencyState, Precheck};
pub use read::scan::Order;
pub use read::view::{CatchUp, View};
pub use repair::{ByteRange, Loss, Repaired, repair};
pub use spool::{NotTaken, Stage, Staged, hash_of};
#[cfg(feature = "cli")]
pub use verify::decode_files;
pub use verify::{Finding, FindingKind, Verified, verify};
