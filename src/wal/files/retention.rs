//! Retention: pruning old operations, and rewriting archives of past days, merged and without
//! deleted rows.

use std::collections::BTreeSet;

use super::archive_days::{Unsettled, days_of_archives, unsettled_archives};
use super::edit::{ARCHIVE_PARTITIONS, CheckpointReport, Dropped, ManifestEdit};
use super::store::FileStore;
use crate::operation::{Operation, OperationId, State, Status, Time};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::FileEntry;
use crate::wal::read::view::View;

/// What a cleanup is to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Completed operations go when they were completed more than this many days ago.
    pub max_age_days: u64,
    /// Whether failed ones of that age go, too.
    pub failed: bool,
    /// Whether archives stay until they are pushed; those whose push is logged always do.
    pub keep_unpushed: bool,
}

/// What a cleanup drops, or would drop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupPlan {
    /// Archives that are removed as a whole.
    pub archives: Vec<PrunedArchive>,
    /// Completed operations that are dropped from partitions.
    pub operations: u64,
    /// Failed operations that are dropped.
    pub failed: u64,
    /// Operations old enough that stay because others wait for them, with what shares their
    /// archive.
    pub kept: u64,
    /// Operations old enough that stay because their archive is not pushed yet.
    pub unpushed: u64,
    /// Small archives that are joined with others of their day.
    pub joined: u64,
}

/// An archive that a cleanup removes as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunedArchive {
    /// Path of the file, relative to the log.
    pub name: String,
    /// Number of operations in it.
    pub operations: u64,
    /// Size in bytes.
    pub bytes: u64,
}

impl CleanupPlan {
    fn count(&mut self, edit: &ManifestEdit) {
        self.operations = edit.dropped.values().map(|dropped| dropped.completed).sum();
        self.failed = edit.dropped.values().map(|dropped| dropped.failed).sum();
    }
}

/// What decides whether something is old enough.
struct Age {
    /// Days before this one are old.
    oldest_kept: i64,
    /// The day that the clock shows.
    today: i64,
    failed: bool,
    keep_unpushed: bool,
}

impl Age {
    fn is_old(&self, day: i64) -> bool {
        day < self.oldest_kept
    }

    /// Whether a row of a partition goes. Nothing ends before it is logged, whatever the clock said
    /// then.
    fn drops(&self, row: &Operation) -> bool {
        match &row.state {
            State::Completed { at, .. } => self.is_old((*at).max(row.logged_at).day()),
            State::Failed { at, .. } => self.failed && self.is_old((*at).max(row.logged_at).day()),
            _ => false,
        }
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

impl FileStore {
    /// Prunes what is old enough by the present clock, or returns what that would be.
    pub fn cleanup(&self, retention: Retention, dry_run: bool) -> WalResult<CleanupPlan> {
        let now = self.clock.now();
        let age = age(retention, now, now);
        if dry_run {
            return self.journal.read(|view| {
                let (mut plan, edit) = self.plan_cleanup(view, &age)?;
                plan.count(&edit);
                let limit = self.archive_rows() as u64;
                let (files, deleted) = (view.files(), view.deleted_numbers());
                let unsettled =
                    unsettled_archives(files, &edit.removed, &deleted, age.today, limit);
                plan.joined = unsettled.iter().map(Unsettled::joined).sum();
                Ok(plan)
            });
        }
        let _held = self.reserve.finishing(|| self.lock_checkpoint())?;
        self.clean_up_on_any_disk(&age)
    }

    /// Prunes what was old enough at the last cleanup, unless another process works on the files.
    ///
    /// A clock that jumped ahead thus has to stay there until the next cleanup before anything goes
    /// because of it.
    pub fn cleanup_if_free(&self, retention: Retention) -> WalResult<Option<CleanupPlan>> {
        let Some(_held) = self.reserve.finishing(|| self.try_lock_checkpoint())? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let last = self.manifest()?.last_cleanup;
        let believed = last.map_or(Time::from_millis(i64::MIN), |last| last.min(now));
        self.clean_up_on_any_disk(&age(retention, believed, now)).map(Some)
    }

    fn clean_up_on_any_disk(&self, age: &Age) -> WalResult<CleanupPlan> {
        let plan = self.reserve.finishing(|| self.clean_up(age))?;
        self.reserve.keep();
        Ok(plan)
    }

    fn clean_up(&self, age: &Age) -> WalResult<CleanupPlan> {
        let mut report = self.fold_all(true)?;
        let (mut plan, mut edit) = self.journal.read(|view| self.plan_cleanup(view, age))?;
        self.commit(&mut edit, Some(self.clock.now()))?;
        self.remove_replaced(&edit, &mut report)?;
        self.spool.sweep_spool_again();
        plan.archives.retain(|archive| edit.dropped.contains_key(&archive.name));
        plan.count(&edit);
        plan.joined = self.settle_archives(age.today, &mut report)?;
        Ok(plan)
    }

    fn plan_cleanup(&self, view: &View, age: &Age) -> WalResult<(CleanupPlan, ManifestEdit)> {
        let mut plan = CleanupPlan::default();
        let mut edit = ManifestEdit::default();
        let Some(manifest) = view.manifest() else { return Ok((plan, edit)) };
        let days = days_of_archives(&manifest.files, age.today);
        let needed = view.dependencies()?;
        let pushes = view.marked_pushes()?;
        for file in &manifest.files {
            if file.is_archive() {
                if let Some(entry) = view.newly_pushed(file, &pushes)? {
                    edit.changed.insert(entry.name.clone(), entry);
                }
                if !days.get(file.name.as_str()).is_some_and(|day| age.is_old(*day)) {
                    continue;
                }
                if view.must_stay(file, age.keep_unpushed, &pushes)? {
                    plan.unpushed += file.live();
                    continue;
                }
                if self.holds_any(view, file, &needed)? {
                    plan.kept += file.live();
                    continue;
                }
                plan.archives.push(PrunedArchive {
                    name: file.name.clone(),
                    operations: file.live(),
                    bytes: file.bytes,
                });
                edit.removed.insert(file.name.clone());
                edit.dropped.insert(file.name.clone(), Dropped::default());
                continue;
            }
            let ended = file.count_of(Status::Completed)
                + if age.failed { file.count_of(Status::Failed) } else { 0 };
            if ended == 0 {
                continue;
            }
            let rows = view.table(file)?.read_all()?;
            let mut entry = file.clone();
            let mut gone = Dropped::default();
            for row in
                rows.iter().filter(|row| !file.superseded.contains(row.number) && age.drops(row))
            {
                // The journal has a newer state: the operation may have been retried.
                if view.is_touched(row.number) {
                    continue;
                }
                // What no archive holds cannot be pushed before it goes.
                if age.keep_unpushed && row.status() == Status::Completed {
                    plan.unpushed += 1;
                    continue;
                }
                if needed.contains(&row.id) {
                    plan.kept += 1;
                    continue;
                }
                *if row.status() == Status::Failed {
                    &mut gone.failed
                } else {
                    &mut gone.completed
                } += 1;
                gone.numbers.push(row.number);
            }
            if gone.numbers.is_empty() {
                continue;
            }
            entry.superseded.extend(gone.numbers.iter().copied());
            edit.dropped.insert(file.name.clone(), gone);
            entry.count_rows(rows.iter());
            if entry.live() == 0 {
                edit.removed.insert(entry.name);
            } else {
                edit.changed.insert(entry.name.clone(), entry);
            }
        }
        Ok((plan, edit))
    }

    fn holds_any(
        &self,
        view: &View,
        file: &FileEntry,
        ids: &BTreeSet<OperationId>,
    ) -> WalResult<bool> {
        let mut inside = ids.range(file.ids.0..=file.ids.1).peekable();
        if inside.peek().is_none() {
            return Ok(false);
        }
        let rows = view.table(file)?.read_all()?;
        Ok(inside.any(|id| rows.binary_search_by_key(id, |row| row.id).is_ok()))
    }

    fn archive_rows(&self) -> usize {
        self.options.partition_size * ARCHIVE_PARTITIONS
    }

    /// Rewrites archives of past days where that merges them or drops deleted rows. Returns how
    /// many were merged. There is a commit for each group, so that memory stays bounded. Damage
    /// stops only the group that it is in.
    pub(in crate::wal) fn settle_archives(
        &self,
        today: i64,
        report: &mut CheckpointReport,
    ) -> WalResult<u64> {
        let manifest = self.manifest()?;
        let mut joined = 0;
        for group in unsettled_archives(
            &manifest.files,
            &BTreeSet::new(),
            &[],
            today,
            self.archive_rows() as u64,
        ) {
            match self.write_anew(&group, report) {
                Ok(()) => joined += group.joined(),
                Err(WalError::Damaged(damage)) => {
                    tracing::warn!(%damage, "an archive stays as it is")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(joined)
    }

    fn write_anew(&self, group: &Unsettled, report: &mut CheckpointReport) -> WalResult<()> {
        let used = self.highest_counter(&self.manifest()?)?;
        let mut counter = used;
        let mut edit = ManifestEdit::default();
        let mut rows = Vec::new();
        for file in &group.files {
            let view = View::open(self.disk.clone(), self.layout.clone())?;
            // An archived operation changes only by being deleted, and then the journal holds the
            // tombstone.
            let kept = view.table(file)?.read_all()?;
            rows.extend(kept.into_iter().filter(|row| !file.superseded.contains(row.number)));
            edit.removed.insert(file.name.clone());
        }
        let written = (|| {
            self.stage(rows, self.archive_rows(), Some(group.day), &mut edit, || {
                counter += 1;
                Layout::archive_name(group.day, counter)
            })?;
            self.publish(&edit)?;
            self.commit(&mut edit, None)
        })();
        if written.as_ref().is_err_and(WalError::is_full) {
            self.remove_uncommitted(used);
        }
        written?;
        self.remove_replaced(&edit, report)
    }
}

fn age(retention: Retention, believed: Time, now: Time) -> Age {
    let days = i64::try_from(retention.max_age_days).unwrap_or(i64::MAX);
    Age {
        oldest_kept: believed.day().saturating_sub(days),
        today: now.day(),
        failed: retention.failed,
        keep_unpushed: retention.keep_unpushed,
    }
}
