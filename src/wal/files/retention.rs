//! Retention: pruning old operations, and rewriting archives of past days, merged and without
//! deleted rows.

use std::collections::BTreeSet;

use super::archive_days::{RewriteGroup, archives_to_rewrite, days_of_archives};
use super::edit::{ARCHIVE_PARTITIONS, CheckpointReport, DeletedRows, ManifestEdit};
use super::store::FileStore;
use crate::operation::{Operation, OperationId, State, Status, Time};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::FileEntry;
use crate::wal::read::view::View;

/// The rules for pruning operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The number of days after which completed operations are pruned.
    pub max_age_days: u64,
    /// True if failed operations of that age are pruned as well.
    pub failed: bool,
    /// True if archives are kept until they are pushed. Those with a logged push always are.
    pub keep_unpushed: bool,
}

/// The operations that a cleanup pruned or, in a dry run, would prune.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupPlan {
    /// The archives that are removed as a whole.
    pub archives: Vec<PrunedArchive>,
    /// The number of completed operations that are pruned from partitions.
    pub operations: u64,
    /// The number of failed operations that are pruned.
    pub failed: u64,
    /// The number of operations that are old enough but kept because others depend on them, or on
    /// an operation in the same archive.
    pub kept: u64,
    /// The number of operations that are old enough but kept because they are not pushed yet.
    pub unpushed: u64,
    /// The number of small archives that are merged with others of their day.
    pub joined: u64,
}

/// An archive that a cleanup removes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunedArchive {
    /// Its path, relative to the log.
    pub name: String,
    /// The number of its operations.
    pub operations: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

impl CleanupPlan {
    /// Counts the operations that an edit deletes from partitions.
    fn count(&mut self, edit: &ManifestEdit) {
        self.operations = edit.deleted.values().map(|rows| rows.completed).sum();
        self.failed = edit.deleted.values().map(|rows| rows.failed).sum();
    }
}

/// The criteria for pruning.
struct PruneRule {
    /// Days before this one are old.
    oldest_kept: i64,
    /// The day that the clock shows.
    today: i64,
    failed: bool,
    keep_unpushed: bool,
}

impl PruneRule {
    fn is_old(&self, day: i64) -> bool {
        day < self.oldest_kept
    }

    /// Returns true if a row of a partition is pruned. An operation counts as ended no earlier than
    /// it was logged, in case the clock was wrong.
    fn prunes(&self, row: &Operation) -> bool {
        match &row.state {
            State::Completed { at, .. } => self.is_old((*at).max(row.logged_at).day()),
            State::Failed { at, .. } => self.failed && self.is_old((*at).max(row.logged_at).day()),
            _ => false,
        }
    }
}

impl View {
    /// Returns the operations of the original system that a cleanup would prune after adopting
    /// them; none without such operations.
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
    /// Prunes operations that are old enough by the current time. With `dry_run`, only returns what
    /// would be pruned.
    pub fn cleanup(&self, retention: Retention, dry_run: bool) -> WalResult<CleanupPlan> {
        let now = self.clock.now();
        let rule = prune_rule(retention, now, now);
        if dry_run {
            return self.journal.read(|view| {
                let (mut plan, edit) = self.plan_cleanup(view, &rule)?;
                plan.count(&edit);
                let limit = self.archive_rows() as u64;
                let (files, deleted) = (view.files(), view.deleted_numbers());
                let groups = archives_to_rewrite(files, &edit.removed, &deleted, rule.today, limit);
                plan.joined = groups.iter().map(RewriteGroup::merged).sum();
                Ok(plan)
            });
        }
        let _held = self.reserve.finishing(|| self.lock_checkpoint())?;
        self.prune(&rule)
    }

    /// Prunes operations that were old enough at the last cleanup, unless another process writes
    /// files.
    ///
    /// A clock that jumps ahead therefore prunes nothing unless it is still ahead at the next
    /// cleanup.
    pub fn cleanup_if_free(&self, retention: Retention) -> WalResult<Option<CleanupPlan>> {
        let Some(_held) = self.reserve.finishing(|| self.try_lock_checkpoint())? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let last = self.manifest()?.last_cleanup;
        let trusted = last.map_or(Time::from_millis(i64::MIN), |last| last.min(now));
        self.prune(&prune_rule(retention, trusted, now)).map(Some)
    }

    /// Prunes, releasing the reserve if the disk is full. Holds `checkpoint.lock`.
    fn prune(&self, rule: &PruneRule) -> WalResult<CleanupPlan> {
        let plan = self.reserve.finishing(|| self.try_prune(rule))?;
        self.reserve.keep();
        Ok(plan)
    }

    /// Folds the journal, removes what the plan prunes, and rewrites archives. Holds
    /// `checkpoint.lock`.
    fn try_prune(&self, rule: &PruneRule) -> WalResult<CleanupPlan> {
        let mut report = self.fold_all(true)?;
        let (mut plan, mut edit) = self.journal.read(|view| self.plan_cleanup(view, rule))?;
        self.commit(&mut edit, Some(self.clock.now()))?;
        self.remove_replaced(&edit, &mut report)?;
        self.spool.sweep_spool_again();
        plan.archives.retain(|archive| edit.deleted.contains_key(&archive.name));
        plan.count(&edit);
        plan.joined = self.rewrite_archives(rule.today, &mut report)?;
        Ok(plan)
    }

    /// Returns the plan of a cleanup, and the edit that carries it out.
    fn plan_cleanup(
        &self,
        view: &View,
        rule: &PruneRule,
    ) -> WalResult<(CleanupPlan, ManifestEdit)> {
        let mut plan = CleanupPlan::default();
        let mut edit = ManifestEdit::default();
        let Some(manifest) = view.manifest() else { return Ok((plan, edit)) };
        let days = days_of_archives(&manifest.files, rule.today);
        let needed = view.dependencies()?;
        let pushes = view.marked_pushes()?;
        for file in &manifest.files {
            if !file.is_archive() {
                self.plan_partition(view, rule, file, &needed, &mut plan, &mut edit)?;
                continue;
            }
            if let Some(entry) = view.newly_pushed(file, &pushes)? {
                edit.changed.insert(entry.name.clone(), entry);
            }
            if !days.get(file.name.as_str()).is_some_and(|day| rule.is_old(*day)) {
                continue;
            }
            if view.is_needed_for_push(file, rule.keep_unpushed, &pushes)? {
                plan.unpushed += file.live();
            } else if self.holds_any(view, file, &needed)? {
                plan.kept += file.live();
            } else {
                plan.archives.push(PrunedArchive {
                    name: file.name.clone(),
                    operations: file.live(),
                    bytes: file.bytes,
                });
                edit.removed.insert(file.name.clone());
                edit.deleted.insert(file.name.clone(), DeletedRows::default());
            }
        }
        Ok((plan, edit))
    }

    /// Adds the rows of a partition that are pruned. `needed` are the ids of dependencies.
    fn plan_partition(
        &self,
        view: &View,
        rule: &PruneRule,
        file: &FileEntry,
        needed: &BTreeSet<OperationId>,
        plan: &mut CleanupPlan,
        edit: &mut ManifestEdit,
    ) -> WalResult<()> {
        let failed = if rule.failed { file.count_of(Status::Failed) } else { 0 };
        if file.count_of(Status::Completed) + failed == 0 {
            return Ok(());
        }
        let rows = view.table(file)?.read_all()?;
        let mut deleted = DeletedRows::default();
        for row in
            rows.iter().filter(|row| !file.superseded.contains(row.number) && rule.prunes(row))
        {
            // The journal has a newer state: the operation may have been retried.
            if view.is_touched(row.number) {
                continue;
            }
            // Only archives are pushed, and this operation is still in a partition.
            if rule.keep_unpushed && row.status() == Status::Completed {
                plan.unpushed += 1;
                continue;
            }
            if needed.contains(&row.id) {
                plan.kept += 1;
                continue;
            }
            match row.status() {
                Status::Failed => deleted.failed += 1,
                _ => deleted.completed += 1,
            }
            deleted.numbers.push(row.number);
        }
        if deleted.numbers.is_empty() {
            return Ok(());
        }
        let mut entry = file.clone();
        entry.superseded.extend(deleted.numbers.iter().copied());
        edit.deleted.insert(file.name.clone(), deleted);
        entry.count_rows(rows.iter());
        if entry.live() == 0 {
            edit.removed.insert(entry.name);
        } else {
            edit.changed.insert(entry.name.clone(), entry);
        }
        Ok(())
    }

    /// Returns true if a file contains an operation with one of these ids.
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

    /// Returns the largest number of rows of an archive.
    fn archive_rows(&self) -> usize {
        self.options.partition_size * ARCHIVE_PARTITIONS
    }

    /// Rewrites archives of past days if that merges them or drops deleted rows. Returns the number
    /// of merged archives.
    ///
    /// Each group is committed on its own, so that memory stays bounded. A damaged archive stays as
    /// it is.
    pub(in crate::wal) fn rewrite_archives(
        &self,
        today: i64,
        report: &mut CheckpointReport,
    ) -> WalResult<u64> {
        let manifest = self.manifest()?;
        let mut merged = 0;
        for group in archives_to_rewrite(
            &manifest.files,
            &BTreeSet::new(),
            &[],
            today,
            self.archive_rows() as u64,
        ) {
            match self.rewrite_group(&group, report) {
                Ok(()) => merged += group.merged(),
                Err(WalError::Damaged(damage)) => {
                    tracing::warn!(%damage, "an archive stays as it is")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(merged)
    }

    fn rewrite_group(&self, group: &RewriteGroup, report: &mut CheckpointReport) -> WalResult<()> {
        let used = self.highest_counter(&self.manifest()?)?;
        let mut counter = used;
        let mut edit = ManifestEdit::default();
        let mut rows = Vec::new();
        for file in &group.files {
            let view = View::open(self.disk.clone(), self.layout.clone())?;
            // An archived operation can only be deleted, and its deletion is in the journal.
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

/// Returns the rule that counts ages up to `trusted`.
fn prune_rule(retention: Retention, trusted: Time, now: Time) -> PruneRule {
    let days = i64::try_from(retention.max_age_days).unwrap_or(i64::MAX);
    PruneRule {
        oldest_kept: trusted.day().saturating_sub(days),
        today: now.day(),
        failed: retention.failed,
        keep_unpushed: retention.keep_unpushed,
    }
}
