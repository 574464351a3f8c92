//! The append-only tail of the log: a sequence of generations, each a file of frames.

pub(in crate::wal) mod format;
pub(in crate::wal) mod group_commit;
pub(in crate::wal) mod lock;
pub mod note;
pub(in crate::wal) mod reader;
pub(in crate::wal) mod recover;
pub(in crate::wal) mod writer;

pub use format::*;
