//! The log: journal, partitions, archives and manifest. Synchronous; its format is docs/format.md.

mod adopt;
mod change;
mod error;
mod files;
pub mod journal;
mod layout;
pub mod manifest;
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
pub use files::checkpoint::{ARCHIVE_PARTITIONS, CheckpointReport};
pub use files::push::{Archive, BadPush, Push, PushReport, PushedArchive, Standing};
pub use files::receipts::Entry;
pub use files::retention::{CleanupPlan, Retention};
pub use journal::lock::{HeldLock, LockFile};
pub use journal::note::{self, HolderNote};
pub use journal::writer::{Options, Wal};
pub use layout::{Layout, LockName};
pub use manifest::FileEntry;
pub use read::admit::{Admission, Fate};
pub use read::scan::Order;
pub use read::view::{Glimpse, View};
pub use repair::{Loss, Repaired, repair};
pub use spool::{NotTaken, Stage, Staged, hash_of};
pub use verify::{Finding, FindingKind, Progress, Verified, decode_files, verify};
