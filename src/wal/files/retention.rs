//! Retention: dropping what is old enough, and writing archives of days that are over anew: joined, without deleted rows.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::{ARCHIVE_PARTITIONS, CheckpointReport, Dropped, Exchange};
use crate::operation::{Number, Operation, OperationId, State, Status, Time};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::writer::Wal;
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
pub struct CleanupPlan {
    /// Whole archives, with their operations and bytes.
    pub archives: Vec<(String, u64, u64)>,
    /// Completed operations that are dropped from partitions.
    pub operations: u64,
    /// Failed operations that are dropped.
    pub failed: u64,
    /// Operations old enough that stay because others wait for them, with what shares their archive.
    pub kept: u64,
    /// Operations old enough that stay because their archive is not pushed yet.
    pub unpushed: u64,
    /// Small archives that are joined with others of their day.
    pub joined: u64,
}

impl CleanupPlan {
    fn count(&mut self, exchange: &Exchange) {
        self.operations = exchange.dropped.values().map(|dropped| dropped.completed).sum();
        self.failed = exchange.dropped.values().map(|dropped| dropped.failed).sum();
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

    /// Whether a row of a partition goes. Nothing ends before it is logged, whatever the clock said then.
    fn drops(&self, row: &Operation) -> bool {
        match &row.state {
            State::Completed { at, .. } => self.is_old((*at).max(row.logged_at).day()),
            State::Failed { at, .. } => self.failed && self.is_old((*at).max(row.logged_at).day()),
            _ => false,
        }
    }
}

impl Wal {
    /// Drops what is old enough by the clock of this moment, or only tells what that would be.
    pub fn cleanup(&self, retention: Retention, dry_run: bool) -> WalResult<CleanupPlan> {
        let now = self.clock.now();
        let age = age(retention, now, now);
        if dry_run {
            return self.read(|view| {
                let (mut plan, exchange) = self.plan_cleanup(view, &age)?;
                plan.count(&exchange);
                let limit = self.archive_rows() as u64;
                let (files, deleted) = (view.files(), view.deleted_numbers());
                let unsettled =
                    unsettled_archives(files, &exchange.removed, &deleted, age.today, limit);
                plan.joined = unsettled.iter().map(Unsettled::joined).sum();
                Ok(plan)
            });
        }
        let _held = self.finishing(|| self.lock_checkpoint())?;
        self.clean_up_on_any_disk(&age)
    }

    /// Drops what was old enough already when the last cleanup ran, unless somebody else is at work on the files.
    ///
    /// A clock that jumped ahead thus has to stay there until the next cleanup before anything goes because of it.
    pub fn cleanup_if_free(&self, retention: Retention) -> WalResult<Option<CleanupPlan>> {
        let Some(_held) = self.finishing(|| self.try_lock_checkpoint())? else { return Ok(None) };
        let now = self.clock.now();
        let last = self.manifest()?.last_cleanup;
        let believed = last.map_or(Time::from_millis(i64::MIN), |last| last.min(now));
        self.clean_up_on_any_disk(&age(retention, believed, now)).map(Some)
    }

    fn clean_up_on_any_disk(&self, age: &Age) -> WalResult<CleanupPlan> {
        let plan = self.finishing(|| self.clean_up(age))?;
        self.keep_reserve();
        Ok(plan)
    }

    fn clean_up(&self, age: &Age) -> WalResult<CleanupPlan> {
        let mut report = self.fold_all(true)?;
        let (mut plan, mut exchange) = self.read(|view| self.plan_cleanup(view, age))?;
        self.commit(&mut exchange, Some(self.clock.now()))?;
        self.remove_replaced(&exchange, &mut report)?;
        self.sweep_spool_again();
        plan.archives.retain(|(name, _, _)| exchange.dropped.contains_key(name));
        plan.count(&exchange);
        plan.joined = self.settle_archives(age.today, &mut report)?;
        Ok(plan)
    }

    fn plan_cleanup(&self, view: &View, age: &Age) -> WalResult<(CleanupPlan, Exchange)> {
        let mut plan = CleanupPlan::default();
        let mut exchange = Exchange::default();
        let Some(manifest) = view.manifest() else { return Ok((plan, exchange)) };
        let days = days_of_archives(&manifest.files, age.today);
        let needed = view.dependencies()?;
        let pushes = view.marked_pushes()?;
        for file in &manifest.files {
            if file.is_archive() {
                if let Some(entry) = view.newly_pushed(file, &pushes)? {
                    exchange.changed.insert(entry.name.clone(), entry);
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
                plan.archives.push((file.name.clone(), file.live(), file.bytes));
                exchange.removed.insert(file.name.clone());
                exchange.dropped.insert(file.name.clone(), Dropped::default());
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
                // What the journal says of it is newer: somebody may have retried it.
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
            exchange.dropped.insert(file.name.clone(), gone);
            entry.count_rows(rows.iter());
            if entry.live() == 0 {
                exchange.removed.insert(entry.name);
            } else {
                exchange.changed.insert(entry.name.clone(), entry);
            }
        }
        Ok((plan, exchange))
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

    /// Writes archives of days that are over anew, where that joins them or leaves deleted rows out; how many were joined.
    /// There is a commit for each group, so that memory stays bounded. Damage stops only the group that it is in.
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
        let mut exchange = Exchange::default();
        let mut rows = Vec::new();
        for file in &group.files {
            let view = View::open(self.disk.clone(), self.layout.clone())?;
            // An archived operation changes only by being deleted, and then the journal holds the tombstone.
            let kept = view.table(file)?.read_all()?;
            rows.extend(kept.into_iter().filter(|row| !file.superseded.contains(row.number)));
            exchange.removed.insert(file.name.clone());
        }
        let written = (|| {
            self.stage(rows, self.archive_rows(), Some(group.day), &mut exchange, || {
                counter += 1;
                Layout::archive_name(group.day, counter)
            })?;
            self.publish(&exchange)?;
            self.commit(&mut exchange, None)
        })();
        if written.as_ref().is_err_and(WalError::is_full) {
            self.give_back(used);
        }
        written?;
        self.remove_replaced(&exchange, report)
    }
}

/// Archives of a day that are written anew together.
#[derive(Debug)]
pub(in crate::wal) struct Unsettled {
    day: Time,
    files: Vec<FileEntry>,
}

impl Unsettled {
    /// How many are joined with others.
    fn joined(&self) -> u64 {
        if self.files.len() > 1 { self.files.len() as u64 } else { 0 }
    }

    /// The names of the files.
    pub(in crate::wal) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| &file.name[..])
    }
}

/// Archives of days that are over which are to be written anew: the several of a day that are not half full of the
/// `limit` rows that one may hold, together, and each that still has rows which were deleted. One that is pushed, or about
/// to be, stays as it is. `removed`: files that go anyway; `deleted`: numbers that the files do not know to be deleted yet.
pub(in crate::wal) fn unsettled_archives(
    files: &[FileEntry],
    removed: &BTreeSet<String>,
    deleted: &[Number],
    today: i64,
    limit: u64,
) -> Vec<Unsettled> {
    let mut small: BTreeMap<i64, Unsettled> = BTreeMap::new();
    let mut large = Vec::new();
    for file in files.iter().filter(|file| !removed.contains(&file.name) && file.pushed.is_none()) {
        let Some(day) = file.day.filter(|day| day.day() < today) else { continue };
        match file.live() * 2 <= limit {
            true => {
                small
                    .entry(day.day())
                    .or_insert_with(|| Unsettled { day, files: Vec::new() })
                    .files
                    .push(file.clone());
            }
            false => large.push(Unsettled { day, files: vec![file.clone()] }),
        }
    }
    let has_deleted = |file: &FileEntry| {
        !file.superseded.is_empty() || deleted.iter().any(|number| file.may_hold_number(*number))
    };
    let all = small.into_values().chain(large);
    all.filter(|group| group.files.len() > 1 || group.files.iter().any(has_deleted)).collect()
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

/// The day that each archive counts as: its own, unless the clock was wrong on that day.
///
/// What was completed later in the order of the log cannot be older, so a day that lies before that of an
/// earlier archive counts as that one; and a day that has not come yet counts as that of the next archive
/// whose day has, if there is one.
pub(in crate::wal) fn days_of_archives(files: &[FileEntry], today: i64) -> BTreeMap<&str, i64> {
    let mut archives: Vec<(&FileEntry, i64)> =
        files.iter().filter_map(|file| Some((file, file.day?.day()))).collect();
    archives.sort_by_key(|(file, _)| file.revisions.1);
    let mut floor = i64::MIN;
    for (_, day) in archives.iter_mut().filter(|(_, day)| *day <= today) {
        floor = floor.max(*day);
        *day = floor;
    }
    let mut next = i64::MAX;
    for (_, day) in archives.iter_mut().rev() {
        if *day > today {
            *day = next;
        } else {
            next = next.min(*day);
        }
    }
    archives.into_iter().map(|(file, day)| (file.name.as_str(), day)).collect()
}
