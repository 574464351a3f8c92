//! Adopting the directory of the original system: its operations become part of the log, and its
//! files are moved to `quarantine/` unchanged.
//!
//! 1. The process that creates the log lists the original files in the manifest; from then on they
//!    are part of the log.
//! 2. The operations are written to new files, and one manifest names these instead.
//! 3. The original files are moved to `quarantine/original/`, and the list is removed.
//!
//! A process that dies leaves the log in one of these states, and the next writer continues.

use std::collections::BTreeMap;

use super::edit::{ARCHIVE_PARTITIONS, CheckpointReport, ManifestEdit};
use super::store::FileStore;
use crate::operation::{Operation, State, Time};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::lock::LockFile;
use crate::wal::layout::{Layout, LockName};
use crate::wal::manifest::{Manifest, Originals, Unread};
use crate::wal::original::{self, Survey};

impl FileStore {
    /// Adopts the files of the original system, if there are any.
    pub(in crate::wal) fn adopt(&self) -> WalResult<()> {
        if !self.journal.lock_writer().view.has_originals() {
            return Ok(());
        }
        let _held = self.lock_checkpoint()?;
        {
            // This creates the log, with the list in its manifest, unless another process has.
            let mut writer = self.journal.lock_writer();
            self.journal.take_lock(&mut writer)?;
            writer.lock.unlock()?;
        }
        self.continue_adopting()
    }

    /// Completes the adoption of the files that the manifest lists. The caller holds
    /// `checkpoint.lock`.
    pub(super) fn continue_adopting(&self) -> WalResult<()> {
        let mut manifest = self.manifest()?;
        while let Some(originals) = manifest.originals.take_if(|originals| !originals.adopted) {
            let found = original::survey(&*self.disk, &self.layout)?;
            original::check_quiet(&found, &self.layout, self.clock.now())?;
            if found.listing() == originals.files {
                self.write_adopted(found)?;
            } else {
                self.renew_list(&manifest)?;
            }
            manifest = self.manifest()?;
        }
        match manifest.originals {
            Some(originals) => self.set_aside(&originals),
            None => Ok(()),
        }
    }

    /// Lists the files again after the original system changed them before they were adopted.
    fn renew_list(&self, manifest: &Manifest) -> WalResult<()> {
        let mut writer = self.journal.lock_writer();
        let note = self.journal.take_lock(&mut writer)?;
        let listed = (|| {
            if note.revision != manifest.revision {
                let what =
                    "the original system changed its files after new operations had been logged";
                return Err(WalError::damaged(self.layout.partitions(), None, what));
            }
            let mut sync = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
            sync.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
            let created = self.journal.create_log(&mut writer, &sync);
            sync.unlock()?;
            created?;
            writer.view.catch_up()
        })();
        writer.lock.unlock()?;
        listed.map(|_| ())
    }

    /// Writes the operations to new files, and makes those part of the log in place of the
    /// originals.
    fn write_adopted(&self, found: Survey) -> WalResult<()> {
        // A process that died at this point left files that no manifest names.
        self.sweep(&mut CheckpointReport::default())?;
        let manifest = self.manifest()?;
        let rows = found.rows();
        let aside = |unread: &Unread| Unread {
            name: Layout::set_aside_name(&unread.name),
            ..unread.clone()
        };
        let unread = rows.unread.iter().map(aside).collect();
        let mut edit = ManifestEdit { adopted: Some(unread), ..ManifestEdit::default() };
        let mut live = Vec::new();
        let mut completed: BTreeMap<i64, (Time, Vec<Operation>)> = BTreeMap::new();
        for (operation, archived) in rows.into_operations() {
            match &operation.state {
                State::Completed { at, .. } if archived || self.options.archive_completed => {
                    completed.entry(at.day()).or_insert((*at, Vec::new())).1.push(operation);
                }
                _ => live.push(operation),
            }
        }
        let adopted = live.len() + completed.values().map(|(_, rows)| rows.len()).sum::<usize>();
        tracing::info!(
            operations = adopted,
            files = found.files.len(),
            "adopting the files of the original system"
        );
        let mut counter = self.highest_counter(&manifest)?;
        let limit = self.options.partition_size;
        let now = self.clock.now();
        self.stage(live, limit, None, &mut edit, || {
            counter += 1;
            Layout::partition_name(now, counter)
        })?;
        for (day, rows) in completed.into_values() {
            self.stage(rows, limit * ARCHIVE_PARTITIONS, Some(day), &mut edit, || {
                counter += 1;
                Layout::archive_name(day, counter)
            })?;
        }
        self.publish(&edit)?;
        self.commit(&mut edit, None)
    }

    /// Moves adopted original files to quarantine, unchanged.
    fn set_aside(&self, originals: &Originals) -> WalResult<()> {
        let mut directories = Vec::new();
        for file in &originals.files {
            let to = self.layout.file(&Layout::set_aside_name(&file.name));
            directories.extend(to.parent().map(std::path::Path::to_owned));
        }
        directories.sort();
        directories.dedup();
        let mut above: Vec<_> =
            directories.iter().flat_map(|directory| directory.ancestors()).collect();
        above.retain(|path| path.starts_with(self.layout.base()));
        above.sort();
        above.dedup();
        above
            .iter()
            .skip(1)
            .try_for_each(|directory| self.disk.create_dir_if_missing(directory))?;
        // A process may have died after creating the directories, or renaming the manifest, and
        // before making that durable.
        above.retain(|path| !directories.iter().any(|directory| directory == path));
        above.iter().try_for_each(|directory| self.disk.sync_dir(directory))?;
        for file in &originals.files {
            let from = self.layout.file(&file.name);
            let to = self.layout.file(&Layout::set_aside_name(&file.name));
            // A process that died at this point may have moved some files. None may be overwritten.
            if !self.disk.exists(&to)? && self.disk.exists(&from)? {
                self.disk.rename(&from, &to)?;
            }
        }
        directories.iter().try_for_each(|directory| self.disk.sync_dir(directory))?;
        let mut writer = self.journal.lock_writer();
        self.journal.take_lock(&mut writer)?;
        let committed = (|| {
            let mut manifest = self.manifest()?;
            manifest.originals = None;
            manifest.written_at = self.clock.now();
            manifest.commit(&*self.disk, &self.layout)
        })();
        writer.lock.unlock()?;
        committed
    }
}
