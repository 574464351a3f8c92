//! Edits of the manifest: files are staged, renamed into place, and then named by one new manifest.

use std::collections::{BTreeMap, BTreeSet};

use super::store::FileStore;
use crate::operation::{Number, Operation, Revision, Time};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::lock::{HeldLock, LockFile};
use crate::wal::journal::reader;
use crate::wal::layout::{Layout, LockName};
use crate::wal::manifest::{FileEntry, Manifest, Unread};
use crate::wal::read::view::View;
use crate::wal::schema;

/// The capacity of an archive, in multiples of that of a partition.
pub const ARCHIVE_PARTITIONS: usize = 8;

/// The result of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The number of operations whose rows were written.
    pub operations: u64,
    /// The number of files that were written.
    pub files_written: u64,
    /// The number of Parquet files that were replaced and removed.
    pub files_removed: u64,
    /// The number of generations that were folded and removed.
    pub generations_removed: u64,
    /// The files that were moved to `quarantine/`, relative to the log.
    pub quarantined: Vec<String>,
}

/// A change of the manifest.
#[derive(Debug, Default)]
pub(in crate::wal) struct ManifestEdit {
    pub(in crate::wal) added: Vec<FileEntry>,
    /// New entries of files, by name.
    pub(in crate::wal) changed: BTreeMap<String, FileEntry>,
    /// The names of files that are removed.
    pub(in crate::wal) removed: BTreeSet<String>,
    /// The generations whose transitions the files hold from now on.
    pub(in crate::wal) folded: Option<Folded>,
    /// Set if the added files hold the operations of the original system: the places in its files
    /// that could not be read.
    pub(in crate::wal) adopted: Option<Vec<Unread>>,
    /// Rows that are deleted, by file. If the journal has changed one of them meanwhile, its file
    /// stays as it is.
    pub(in crate::wal) deleted: BTreeMap<String, DeletedRows>,
}

/// Rows of a file that are deleted.
#[derive(Debug, Clone, Default)]
pub(in crate::wal) struct DeletedRows {
    /// Their numbers; empty for all rows of the file.
    pub(in crate::wal) numbers: Vec<Number>,
    /// The number of completed operations among them.
    pub(in crate::wal) completed: u64,
    /// The number of failed operations among them.
    pub(in crate::wal) failed: u64,
}

/// Generations that were folded into Parquet files.
#[derive(Debug, Clone, Copy)]
pub(in crate::wal) struct Folded {
    /// The last one.
    pub(in crate::wal) last: u64,
    /// The one that follows. It is looked up again when the manifest is replaced.
    pub(in crate::wal) before: u64,
    /// The last revision in them.
    pub(in crate::wal) revision: Revision,
    /// The number of the next operation after them.
    pub(in crate::wal) next_number: Number,
}

impl FileStore {
    /// Takes `checkpoint.lock`. Returns none if another process holds it.
    pub(in crate::wal) fn try_lock_checkpoint(&self) -> WalResult<Option<HeldLock>> {
        let mut lock = LockFile::open(&*self.disk, &self.layout, LockName::Checkpoint)?;
        if !lock.try_lock(&*self.disk)? {
            return Ok(None);
        }
        lock.hold(&*self.disk, &self.options.command, None, self.clock.now()).map(Some)
    }

    /// Takes `checkpoint.lock`, waiting for at most `lock_timeout`.
    pub(in crate::wal) fn lock_checkpoint(&self) -> WalResult<HeldLock> {
        let mut lock = LockFile::open(&*self.disk, &self.layout, LockName::Checkpoint)?;
        lock.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        lock.hold(&*self.disk, &self.options.command, None, self.clock.now())
    }

    /// Reads the manifest. Fails if there is none.
    pub(in crate::wal) fn manifest(&self) -> WalResult<Manifest> {
        Manifest::load(&*self.disk, &self.layout)?.ok_or_else(|| {
            WalError::damaged(self.layout.manifest(), None, "the manifest is missing")
        })
    }

    /// Writes rows to files in `tmp/` of at most `limit` rows each, and flushes them.
    pub(in crate::wal) fn stage(
        &self,
        mut rows: Vec<Operation>,
        limit: usize,
        day: Option<Time>,
        edit: &mut ManifestEdit,
        mut name: impl FnMut() -> String,
    ) -> WalResult<()> {
        rows.sort_by_key(|row| row.number);
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(limit));
            let name = name();
            let bytes = schema::encode(&mut rows)?;
            self.disk.write_new_synced(&self.layout.staged(&name), &bytes)?;
            edit.added.extend(FileEntry::describe(name, day, &rows, &bytes));
            rows = rest;
        }
        Ok(())
    }

    /// Renames staged files into place, and makes their names durable.
    pub(in crate::wal) fn publish(&self, edit: &ManifestEdit) -> WalResult<()> {
        if edit.added.is_empty() {
            return Ok(());
        }
        {
            let mut writer = self.journal.lock_writer();
            self.journal.take_lock(&mut writer)?;
            let renamed = edit.added.iter().try_for_each(|file| {
                self.disk.rename(&self.layout.staged(&file.name), &self.layout.file(&file.name))
            });
            writer.lock.unlock()?;
            renamed?;
        }
        self.disk.sync_dir(&self.layout.partitions())?;
        self.disk.sync_dir(&self.layout.archives())?;
        Ok(())
    }

    /// Replaces the manifest. `cleaned_at` is the time of the cleanup that made this edit, if one
    /// did.
    pub(in crate::wal) fn commit(
        &self,
        edit: &mut ManifestEdit,
        cleaned_at: Option<Time>,
    ) -> WalResult<()> {
        let mut writer = self.journal.lock_writer();
        self.journal.take_lock(&mut writer)?;
        let committed = self.replace_manifest(&writer.view, edit, cleaned_at);
        writer.lock.unlock()?;
        committed
    }

    /// Like [`FileStore::commit`], for a caller that holds `lock`.
    pub(in crate::wal) fn replace_manifest(
        &self,
        view: &View,
        edit: &mut ManifestEdit,
        cleaned_at: Option<Time>,
    ) -> WalResult<()> {
        let mut manifest = self.manifest()?;
        drop_stale_changes(view, &manifest, edit)?;
        manifest.files.retain(|file| !edit.removed.contains(&file.name));
        for file in &mut manifest.files {
            if let Some(changed) = edit.changed.remove(&file.name) {
                *file = changed;
            }
        }
        for file in edit.added.drain(..) {
            let path = self.layout.file(&file.name);
            let len = self.disk.metadata(&path)?.len;
            if len != file.bytes {
                let what = format!("it has {len} bytes instead of the {} just written", file.bytes);
                return Err(WalError::damaged(path, None, what));
            }
            let counter = Layout::counter_of(&file.name).unwrap_or(0);
            manifest.counter = manifest.counter.max(counter);
            manifest.files.push(file);
        }
        if let Some(folded) = &mut edit.folded {
            // A recovery may have replaced the generation that followed when folding began.
            let headers = reader::headers(&*self.disk, &self.layout, manifest.first_generation)?;
            let next = reader::successor(&headers, folded.last)
                .filter(|next| next.revision == folded.revision);
            let next = next.ok_or_else(|| {
                WalError::damaged(
                    self.layout.generation(folded.last),
                    None,
                    "no generation follows the folded ones",
                )
            })?;
            folded.before = next.generation;
            manifest.first_generation = next.generation;
            manifest.revision = folded.revision;
            manifest.next_number = folded.next_number;
        }
        if let (Some(unread), Some(originals)) = (edit.adopted.take(), &mut manifest.originals) {
            originals.adopted = true;
            manifest.unread = unread;
        }
        manifest.last_cleanup = cleaned_at.or(manifest.last_cleanup);
        manifest.written_at = self.clock.now();
        manifest.commit(&*self.disk, &self.layout)
    }

    /// Removes the files and generations that the committed manifest no longer names.
    pub(in crate::wal) fn remove_replaced(
        &self,
        edit: &ManifestEdit,
        report: &mut CheckpointReport,
    ) -> WalResult<()> {
        for name in &edit.removed {
            self.disk.remove_if_present(&self.layout.file(name))?;
            report.files_removed += 1;
        }
        if let Some(folded) = edit.folded {
            for generation in reader::generations(&*self.disk, &self.layout)? {
                if generation < folded.before {
                    self.disk.remove_if_present(&self.layout.generation(generation))?;
                    report.generations_removed += 1;
                }
            }
        }
        Ok(())
    }
}

/// Takes deletions out of an edit whose rows the journal has changed since they were decided.
fn drop_stale_changes(view: &View, manifest: &Manifest, edit: &mut ManifestEdit) -> WalResult<()> {
    if edit.deleted.is_empty() {
        return Ok(());
    }
    let files = &manifest.files;
    let mut changed: BTreeSet<Number> =
        view.touched_numbers().filter(|number| !view.is_logged_here(*number)).collect();
    // Another process may have logged an operation that depends on one of the rows.
    for id in view.dependencies()? {
        changed.extend(view.operation_by_id(id)?.map(|operation| operation.number));
    }
    edit.deleted.retain(|name, deleted| {
        let is_stale = match files.iter().find(|file| file.name == *name) {
            Some(file) if deleted.numbers.is_empty() => changed
                .range(file.numbers.0..=file.numbers.1)
                .any(|number| file.may_hold_number(*number)),
            Some(_) => deleted.numbers.iter().any(|number| changed.contains(number)),
            None => true,
        };
        if is_stale {
            edit.removed.remove(name);
            edit.changed.remove(name);
        }
        !is_stale
    });
    Ok(())
}
