//! Adoption of a directory of the original system: its operations become part of the log, and its
//! files are set aside unchanged.
//!
//! 1. The process that creates the log lists the original files in the manifest; from then on they
//!    are part of the log.
//! 2. The same operations are written to new files, and one manifest names those instead.
//! 3. The original files are moved to `quarantine/original/`, and the list is removed.
//!
//! A process that dies leaves one of these states, and the next writer continues from there.

use std::collections::BTreeMap;

use crate::operation::{Operation, State, Time};
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::files::checkpoint::{ARCHIVE_PARTITIONS, CheckpointReport, Exchange};
use crate::wal::files::retention::CleanupPlan;
use crate::wal::journal::lock::LockFile;
use crate::wal::journal::writer::Wal;
use crate::wal::layout::{Layout, LockName};
use crate::wal::manifest::{Manifest, Originals, Unread};
use crate::wal::original::{self, Survey};
use crate::wal::read::view::View;

/// A file that changed within this time, in milliseconds, may still be written to.
const QUIET_MS: i64 = 60_000;

/// Fails if the original system seems to be running: a file changed within the last minute.
pub fn check_quiet(found: &Survey, layout: &Layout, now: Time) -> WalResult<()> {
    let Some(last) = found.files.iter().max_by_key(|surveyed| surveyed.metadata.mtime_ns) else {
        return Ok(());
    };
    let changed = Time::from_millis(last.metadata.mtime_ns.div_euclid(1_000_000));
    let ago = now.millis_since(changed);
    if ago.abs() < QUIET_MS {
        let path = layout.file(&last.file.name);
        return Err(WalError::OriginalAtWork { path, ago_s: ago.max(0).unsigned_abs() / 1000 });
    }
    Ok(())
}

impl Unread {
    /// Returns it as damage, for readers.
    pub fn at(&self, layout: &Layout) -> Damage {
        Damage { path: layout.file(&self.name), offset: self.offset, what: self.what.clone() }
    }
}

impl View {
    /// Returns what a cleanup, which adopts them first, would prune of the original operations;
    /// `None` without such operations.
    pub fn plan_of_originals(&self, max_age_days: u64, now: Time) -> Option<CleanupPlan> {
        let oldest_kept = now.day().saturating_sub(i64::try_from(max_age_days).unwrap_or(i64::MAX));
        let old = |row: &&Operation| match row.state {
            State::Completed { at, .. } => at.day() < oldest_kept,
            _ => false,
        };
        let operations = self.original_rows()?.operations().iter().filter(old).count() as u64;
        Some(CleanupPlan { operations, ..CleanupPlan::default() })
    }
}

impl Wal {
    /// Adopts the files of the original system, if there are any.
    pub(super) fn adopt(&self) -> WalResult<()> {
        if !self.lock_inner().view.has_originals() {
            return Ok(());
        }
        let _held = self.lock_checkpoint()?;
        {
            // This creates the log, with the list in its manifest, unless another process has.
            let mut inner = self.lock_inner();
            self.take_lock(&mut inner)?;
            inner.lock.unlock()?;
        }
        self.carry_on_adopting()
    }

    /// Returns the original files for the manifest of a new log, and the number of their
    /// operations.
    pub(super) fn find_originals(&self) -> WalResult<(Option<Originals>, u64)> {
        let found = original::survey(&*self.disk, &self.layout)?;
        if found.files.is_empty() {
            return Ok((None, 0));
        }
        check_quiet(&found, &self.layout, self.clock.now())?;
        Ok((Some(Originals { adopted: false, files: found.listing() }), found.rows().count()))
    }

    /// Completes the adoption of the files that the manifest lists. The caller holds
    /// `checkpoint.lock`.
    pub(super) fn carry_on_adopting(&self) -> WalResult<()> {
        let mut manifest = self.manifest()?;
        while let Some(originals) = manifest.originals.take_if(|originals| !originals.adopted) {
            let found = original::survey(&*self.disk, &self.layout)?;
            check_quiet(&found, &self.layout, self.clock.now())?;
            if found.listing() == originals.files {
                self.write_adopted(found)?;
            } else {
                self.list_again(&manifest)?;
            }
            manifest = self.manifest()?;
        }
        match manifest.originals {
            Some(originals) => self.set_aside(&originals),
            None => Ok(()),
        }
    }

    /// Lists the files again after the original system changed them before they were adopted.
    fn list_again(&self, manifest: &Manifest) -> WalResult<()> {
        let mut inner = self.lock_inner();
        let note = self.take_lock(&mut inner)?;
        let listed = (|| {
            if note.revision != manifest.revision {
                let what =
                    "the original system changed its files after new operations had been logged";
                return Err(WalError::damaged(self.layout.partitions(), None, what));
            }
            let mut sync = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
            sync.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
            let made = self.create_log(&mut inner, &sync);
            sync.unlock()?;
            made?;
            inner.view.catch_up()
        })();
        inner.lock.unlock()?;
        listed.map(|_| ())
    }

    /// Writes the operations to new files, and makes those part of the log in place of the
    /// originals.
    fn write_adopted(&self, found: Survey) -> WalResult<()> {
        // A process that died here left files that no manifest names.
        self.sweep(&mut CheckpointReport::default())?;
        let manifest = self.manifest()?;
        let rows = found.rows();
        let aside = |unread: &Unread| Unread {
            name: Layout::set_aside_name(&unread.name),
            ..unread.clone()
        };
        let unread = rows.unread.iter().map(aside).collect();
        let mut exchange = Exchange { adopted: Some(unread), ..Exchange::default() };
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
        self.stage(live, limit, None, &mut exchange, || {
            counter += 1;
            Layout::partition_name(now, counter)
        })?;
        for (day, rows) in completed.into_values() {
            self.stage(rows, limit * ARCHIVE_PARTITIONS, Some(day), &mut exchange, || {
                counter += 1;
                Layout::archive_name(day, counter)
            })?;
        }
        self.publish(&exchange)?;
        self.commit(&mut exchange, None)
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
        // A process that died here may have created them, or renamed the manifest, without a sync.
        above.retain(|path| !directories.iter().any(|directory| directory == path));
        above.iter().try_for_each(|directory| self.disk.sync_dir(directory))?;
        for file in &originals.files {
            let from = self.layout.file(&file.name);
            let to = self.layout.file(&Layout::set_aside_name(&file.name));
            // A process that died here may have moved some of them. Nothing may be overwritten.
            if !self.disk.exists(&to)? && self.disk.exists(&from)? {
                self.disk.rename(&from, &to)?;
            }
        }
        directories.iter().try_for_each(|directory| self.disk.sync_dir(directory))?;
        let mut inner = self.lock_inner();
        self.take_lock(&mut inner)?;
        let committed = (|| {
            let mut manifest = self.manifest()?;
            manifest.originals = None;
            manifest.written_at = self.clock.now();
            manifest.commit(&*self.disk, &self.layout)
        })();
        inner.lock.unlock()?;
        committed
    }
}
