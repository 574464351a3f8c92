//! Reading the log: manifest, Parquet files and journal as one.

pub(in crate::wal) mod index;
pub(in crate::wal) mod precheck;
pub(in crate::wal) mod scan;
mod tables;
pub(in crate::wal) mod view;

/// The journal with the view that its writer decides on.
pub(in crate::wal) type SharedJournal = super::journal::writer::JournalWriter<view::View>;
