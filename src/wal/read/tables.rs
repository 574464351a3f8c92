//! Opening the Parquet files that the manifest names, and caching their row groups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::Disk;
use crate::operation::{Number, Operation};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::FileEntry;
use crate::wal::schema::Table;

/// The number of row groups in the cache.
const CACHED_GROUPS: usize = 4;

/// The row groups decoded last.
#[derive(Debug, Default)]
pub(super) struct GroupCache {
    groups: Mutex<Vec<CachedGroup>>,
}

/// The rows of one row group.
#[derive(Debug)]
struct CachedGroup {
    file: String,
    group: usize,
    rows: Arc<Vec<Operation>>,
    /// The indices of rows that are not superseded.
    live: HashMap<Number, usize>,
}

impl GroupCache {
    pub(super) fn clear(&self) {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the live row with this number, if its row group is cached: the rows of the group,
    /// and the index of the row.
    pub(super) fn row(&self, number: Number) -> Option<(Arc<Vec<Operation>>, usize)> {
        let cache = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        cache.iter().find_map(|entry| Some((entry.rows.clone(), *entry.live.get(&number)?)))
    }

    /// Returns the rows of a row group, decoding them unless they are cached.
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

/// Opens a file that the manifest names. Fails if its content differs from that in the manifest.
///
/// `is_named` returns true if the manifest that names the file is still the current one. A file is
/// removed only after a new manifest no longer names it, so a named one that does not exist is
/// damage.
pub(super) fn open(
    disk: &dyn Disk,
    layout: &Layout,
    file: &FileEntry,
    is_named: impl Fn() -> WalResult<bool>,
) -> WalResult<Table> {
    let path = layout.file(&file.name);
    let table = match Table::open(disk, &path, &file.sha256) {
        Err(error) if error.is_vanished() && is_named()? => {
            Err(WalError::damaged(&path, None, "the file is missing"))
        }
        other => other,
    }?;
    let rows: u64 = table.groups().iter().map(|group| group.rows as u64).sum();
    if rows != file.rows {
        let what = format!("the file has {rows} rows, but the manifest has {}", file.rows);
        return Err(WalError::damaged(path, None, what));
    }
    Ok(table)
}
