//! The log: journal, partitions, archives and manifest. Synchronous; its format is docs/format.md.

mod admit;
mod adopt;
mod batch;
mod chain;
mod change;
mod checkpoint;
mod cleanup;
mod conditions;
mod error;
mod flush;
pub mod journal;
mod layout;
mod locks;
mod log;
pub mod manifest;
pub mod note;
pub mod original;
mod receipts;
mod recovery;
mod repair;
mod reserve;
#[cfg(debug_assertions)]
mod role;
pub mod schema;
mod spool;
mod verify;
mod view;
mod visit;

pub use admit::{Admission, Fate};
pub use batch::{Batch, Committed};
pub use change::{Admitted, Change, Known, Written};
pub use checkpoint::CheckpointReport;
pub use cleanup::{CleanupPlan, Retention};
pub use error::{Damage, WalError, WalResult};
pub use layout::{Layout, LockName};
pub use locks::{HeldLock, LockFile};
pub use log::{Options, Wal};
pub use manifest::FileEntry;
pub use note::HolderNote;
pub use receipts::Entry;
pub use repair::{Loss, Repaired, repair};
pub use spool::{NotTaken, Stage, Staged, hash_of};
pub use verify::{Finding, FindingKind, Progress, Verified, decode_files, verify};
pub use view::{Glimpse, View};
pub use visit::Order;
