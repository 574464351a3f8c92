//! Sweeping: leftovers of dead processes in the directories of the log.

use std::collections::BTreeSet;

use super::edit::CheckpointReport;
use super::store::FileStore;
use crate::disk::FileKind;
use crate::wal::error::WalResult;
use crate::wal::journal::reader;
use crate::wal::layout::Layout;
use crate::wal::manifest::Manifest;

impl FileStore {
    /// Moves Parquet files that the manifest does not name, and leftovers in `tmp/`, to
    /// `quarantine/`. Holds `checkpoint.lock`.
    pub(in crate::wal) fn sweep(&self, report: &mut CheckpointReport) -> WalResult<()> {
        let manifest = self.manifest()?;
        // A process may have died after renaming the manifest and before making that durable.
        self.disk.sync_dir(self.layout.base())?;
        let originals =
            manifest.originals.iter().flat_map(|originals| &originals.files).map(|file| &file.name);
        let named = manifest.files.iter().map(|file| &file.name).chain(originals);
        let named: BTreeSet<_> = named.map(|name| self.layout.file(name)).collect();
        // A power cut may undo these renames. Then the next sweep repeats them.
        for directory in [self.layout.partitions(), self.layout.archives(), self.layout.tmp()] {
            for entry in self.disk.list(&directory)? {
                let path = directory.join(&entry.name);
                // Staged content may belong to a live process. Sweeping the spool removes that of
                // dead ones.
                let is_content =
                    entry.name.to_str().and_then(Layout::parse_staged_content).is_some();
                if entry.kind == FileKind::Directory || named.contains(&path) || is_content {
                    continue;
                }
                let mut target = self.layout.quarantine().join(&entry.name);
                let mut nth = 1;
                while self.disk.exists(&target)? {
                    let mut name = entry.name.clone();
                    name.push(format!(".{nth}"));
                    target = self.layout.quarantine().join(name);
                    nth += 1;
                }
                self.disk.rename(&path, &target)?;
                if let Ok(relative) = target.strip_prefix(self.layout.base()) {
                    report.quarantined.push(relative.display().to_string());
                }
            }
        }
        // A process may have died while it removed folded generations.
        for generation in reader::generations(&*self.disk, &self.layout)? {
            if generation < manifest.first_generation {
                self.disk.remove_if_present(&self.layout.generation(generation))?;
            }
        }
        Ok(())
    }

    /// Removes uncommitted files of this process after the disk became full, since in `quarantine/`
    /// they would take the space that the next attempt needs. `used` is the highest counter of
    /// earlier files. Holds `checkpoint.lock`.
    pub(in crate::wal) fn remove_uncommitted(&self, used: u64) {
        let Ok(manifest) = self.manifest() else { return };
        for directory in [self.layout.tmp(), self.layout.partitions(), self.layout.archives()] {
            let names = self.disk.list(&directory).unwrap_or_default().into_iter();
            for name in names.filter_map(|entry| entry.name.into_string().ok()) {
                let path = directory.join(&name);
                let is_named =
                    manifest.files.iter().any(|file| self.layout.file(&file.name) == path);
                let is_ours = Layout::is_numbered(&name)
                    && Layout::counter_of(&name).is_some_and(|counter| counter > used);
                if is_ours && !is_named {
                    // The next sweep moves files that cannot be removed now.
                    let _ = self.disk.remove_file(&path);
                }
            }
        }
    }

    /// Returns the highest counter in the name of any file, past ones included.
    pub(in crate::wal) fn highest_counter(&self, manifest: &Manifest) -> WalResult<u64> {
        let mut highest = manifest.counter;
        for directory in
            [self.layout.partitions(), self.layout.archives(), self.layout.quarantine()]
        {
            for entry in self.disk.list(&directory)? {
                let counter = entry.name.to_str().and_then(Layout::counter_of);
                highest = highest.max(counter.unwrap_or(0));
            }
        }
        Ok(highest)
    }
}
