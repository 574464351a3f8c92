//! The files that the manifest names.

use super::view::View;
use crate::wal::error::{WalError, WalResult};
use crate::wal::manifest::FileEntry;
use crate::wal::schema::Table;

impl View {
    /// Opens a file that the manifest names, which has to be as the manifest says.
    pub(in crate::wal) fn table(&self, file: &FileEntry) -> WalResult<Table> {
        let path = self.layout.file(&file.name);
        let table = match Table::open(&*self.disk, &path, &file.sha256) {
            // A file goes only once the manifest no longer names it.
            Err(gone) if gone.is_vanished() && self.is_current()? => {
                Err(WalError::damaged(&path, None, "it is missing"))
            }
            other => other,
        }?;
        let rows: u64 = table.groups().iter().map(|group| group.rows as u64).sum();
        if rows != file.rows {
            let what = format!("it has {rows} rows; the manifest says {}", file.rows);
            return Err(WalError::damaged(path, None, what));
        }
        Ok(table)
    }
}
