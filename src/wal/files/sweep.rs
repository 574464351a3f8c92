//! Sweeping: what dead processes left in the folders of the log.

use std::collections::BTreeSet;

use super::edit::CheckpointReport;
use super::store::FileStore;
use crate::disk::FileKind;
use crate::wal::error::WalResult;
use crate::wal::journal::reader;
use crate::wal::layout::Layout;
use crate::wal::manifest::Manifest;

impl FileStore {
    /// Sets aside Parquet files that no manifest names, and what a dead process left in `tmp/`.
    pub(in crate::wal) fn sweep(&self, report: &mut CheckpointReport) -> WalResult<()> {
        let manifest = self.manifest()?;
        // Its rename may have been the last act of a process that died before making it durable.
        self.disk.sync_dir(self.layout.base())?;
        let originals =
            manifest.originals.iter().flat_map(|originals| &originals.files).map(|file| &file.name);
        let named = manifest.files.iter().map(|file| &file.name).chain(originals);
        let named: BTreeSet<_> = named.map(|name| self.layout.file(name)).collect();
        // What is set aside may come back after a power cut: then it is set aside again.
        for directory in [self.layout.partitions(), self.layout.archives(), self.layout.tmp()] {
            for entry in self.disk.list(&directory)? {
                let path = directory.join(&entry.name);
                // Content that is being copied belongs to a live process; sweeping the spool
                // removes the rest.
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
        // Generations before the first one needed are leftovers of a process that died while
        // removing them.
        for generation in reader::generations(&*self.disk, &self.layout)? {
            if generation < manifest.first_generation {
                self.disk.remove_if_present(&self.layout.generation(generation))?;
            }
        }
        Ok(())
    }

    /// Removes what this holder of `checkpoint.lock` wrote and did not commit, after the disk
    /// became full: set aside, it would take the room that the next try needs. `used` is the
    /// highest counter there was before.
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
                    // What stays, the next sweep sets aside.
                    let _ = self.disk.remove_file(&path);
                }
            }
        }
    }

    /// The highest counter that any file name has used.
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
