//! The Parquet files that the manifest names: opening them, and the row groups decoded last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::Disk;
use crate::operation::{Number, Operation};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::FileEntry;
use crate::wal::schema::Table;

/// Decoded row groups that are kept.
const CACHED_GROUPS: usize = 4;

/// The row groups decoded last.
#[derive(Debug, Default)]
pub(super) struct GroupCache {
    groups: Mutex<Vec<CachedGroup>>,
}

#[derive(Debug)]
struct CachedGroup {
    file: String,
    group: usize,
    rows: Arc<Vec<Operation>>,
    /// Where the rows are that nothing superseded.
    live: HashMap<Number, usize>,
}

impl GroupCache {
    pub(super) fn clear(&self) {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The live row of a number, if its group was decoded lately.
    pub(super) fn row(&self, number: Number) -> Option<(Arc<Vec<Operation>>, usize)> {
        let cache = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        cache.iter().find_map(|entry| Some((entry.rows.clone(), *entry.live.get(&number)?)))
    }

    pub(super) fn group(
        &self,
        file: &FileEntry,
        table: &Table,
        group: usize,
    ) -> WalResult<Arc<Vec<Operation>>> {
        let mut cache = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) =
            cache.iter().find(|entry| entry.group == group && entry.file == file.name)
        {
            return Ok(entry.rows.clone());
        }
        let rows = Arc::new(table.read([group])?);
        if cache.len() >= CACHED_GROUPS {
            cache.remove(0);
        }
        let live = rows.iter().enumerate().filter(|(_, row)| !file.superseded.contains(row.number));
        let live = live.map(|(at, row)| (row.number, at)).collect();
        cache.push(CachedGroup { file: file.name.clone(), group, rows: rows.clone(), live });
        Ok(rows)
    }
}

/// Opens a file that the manifest names, which has to be as the manifest says.
///
/// `is_named`: whether the manifest that names it is still the current one. A file is removed only
/// once no manifest names it, so a named one that does not exist is damage.
pub(super) fn open(
    disk: &dyn Disk,
    layout: &Layout,
    file: &FileEntry,
    is_named: impl Fn() -> WalResult<bool>,
) -> WalResult<Table> {
    let path = layout.file(&file.name);
    let table = match Table::open(disk, &path, &file.sha256) {
        Err(gone) if gone.is_vanished() && is_named()? => {
            Err(WalError::damaged(&path, None, "the file is missing"))
        }
        other => other,
    }?;
    let rows: u64 = table.groups().iter().map(|group| group.rows as u64).sum();
    if rows != file.rows {
        let what = format!("the file has {rows} rows; the manifest says {}", file.rows);
        return Err(WalError::damaged(path, None, what));
    }
    Ok(table)
}
