//! The log: journal, partitions, archives and manifest. Synchronous; its format is docs/format.md.

mod chain;
mod checkpoint;
mod error;
pub mod journal;
mod layout;
mod locks;
mod log;
pub mod manifest;
pub mod note;
pub mod schema;
mod view;

pub use checkpoint::{CheckpointReport, CleanupPlan};
pub use error::{Damage, WalError, WalResult};
pub use layout::{Layout, LockName};
pub use locks::LockFile;
pub use log::{Change, Known, Options, Wal, Written};
pub use manifest::FileEntry;
pub use view::{Glimpse, Order, View};
