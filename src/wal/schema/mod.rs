//! Operations as rows of Parquet files. Only this module and `original` use Arrow and Parquet.
//!
//! `columns` defines the schema, `encode` writes a file, `table` reads one and `decode` its rows.
//! `check` verifies rows without decoding operations, and `salvage` takes the readable rows of a
//! damaged file. `footer` guards the reader against damaged metadata.

mod check;
mod columns;
mod compression;
mod decode;
mod encode;
pub(in crate::wal) mod footer;
mod salvage;
mod table;

pub use check::{Checked, LiveIds, Spooled};
pub use encode::encode;
#[cfg(feature = "cli")]
pub use salvage::count_rows;
pub use salvage::{LostRows, Salvaged, salvage};
pub use table::Table;

/// The footer key that marks a file as ours; its value is the format version.
pub const FORMAT_KEY: &str = "wal-cli.format";

/// The number of rows in a row group.
pub const ROW_GROUP_ROWS: usize = 1000;
