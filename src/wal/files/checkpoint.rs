//! Checkpoints: sealed generations are folded into Parquet files, and then removed.

use std::collections::{BTreeMap, BTreeSet};

use super::edit::{ARCHIVE_PARTITIONS, CheckpointReport, Folded, ManifestEdit};
use super::store::FileStore;
use crate::operation::{Operation, State};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::reader;
use crate::wal::layout::Layout;
use crate::wal::manifest::{FileEntry, Manifest};
use crate::wal::read::view::View;

/// The number of generations that are folded at a time. It bounds the memory of a checkpoint.
const GENERATIONS_AT_ONCE: usize = 2;

/// The reason why a checkpoint is due, if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointDue {
    /// The journal is small and young.
    No,
    /// The journal has grown to `checkpoint_bytes`.
    Size,
    /// The oldest transition of the journal is older than `checkpoint_age_ms`.
    Age,
}

impl FileStore {
    /// Runs a checkpoint if one is due, and no other process writes files. For use after writes.
    pub fn maintain(&self) -> WalResult<Option<CheckpointReport>> {
        match self.checkpoint_due() {
            CheckpointDue::No => Ok(None),
            due => self.fold_if_free(due == CheckpointDue::Age),
        }
    }

    /// Folds the whole journal, unless another process writes files.
    pub fn checkpoint_if_free(&self) -> WalResult<Option<CheckpointReport>> {
        self.fold_if_free(true)
    }

    fn fold_if_free(&self, also_open_generation: bool) -> WalResult<Option<CheckpointReport>> {
        let Some(_held) = self.reserve.finishing(|| self.try_lock_checkpoint())? else {
            return Ok(None);
        };
        let report = self.reserve.finishing(|| self.fold_all(also_open_generation))?;
        self.reserve.keep();
        Ok(Some(report))
    }

    /// Returns the reason why a checkpoint is due, judged by the part of the journal that this
    /// process has read.
    pub fn checkpoint_due(&self) -> CheckpointDue {
        let (bytes, oldest) = self.journal.lock_writer().view.journal_load();
        let is_old = oldest.is_some_and(|oldest| {
            let age = self.clock.now().millis_since(oldest);
            age >= self.options.checkpoint_age_ms || age < -self.options.checkpoint_age_ms
        });
        match is_old {
            true => CheckpointDue::Age,
            false if bytes >= self.options.checkpoint_bytes => CheckpointDue::Size,
            false => CheckpointDue::No,
        }
    }

    /// Folds the whole journal into Parquet files.
    pub fn checkpoint(&self) -> WalResult<CheckpointReport> {
        let _held = self.reserve.finishing(|| self.lock_checkpoint())?;
        let report = self.reserve.finishing(|| self.fold_all(true))?;
        self.reserve.keep();
        Ok(report)
    }

    /// Folds all sealed generations; with `also_open_generation`, the last one too. Holds
    /// `checkpoint.lock`.
    pub(in crate::wal) fn fold_all(
        &self,
        also_open_generation: bool,
    ) -> WalResult<CheckpointReport> {
        let mut report = CheckpointReport::default();
        for directory in self.layout.directories() {
            // `sweep` makes the names of the directories durable before files are published in
            // them.
            self.disk.create_dir_if_missing(&directory)?;
        }
        let open_generation = {
            let mut writer = self.journal.lock_writer();
            let note = self.journal.take_lock(&mut writer)?;
            let note = if also_open_generation && note.last != 0 {
                self.journal.rotate(&mut writer, note)
            } else {
                Ok(note)
            };
            writer.lock.unlock()?;
            note?.generation
        };
        self.continue_adopting()?;
        self.sweep(&mut report)?;
        loop {
            let manifest = self.manifest()?;
            let journal =
                reader::read_journal(&*self.disk, &self.layout, manifest.first_generation)?;
            if let Some(damage) = journal.damage {
                return Err(WalError::Damaged(damage));
            }
            let generations: Vec<u64> =
                journal.generations.iter().map(|generation| generation.header.generation).collect();
            let sealed =
                generations.iter().take_while(|generation| **generation < open_generation).count();
            let take = sealed.min(GENERATIONS_AT_ONCE);
            if take == 0 {
                if let Err(error) = self.spool.sweep_spool(open_generation) {
                    tracing::warn!(
                        %error,
                        "could not sweep the spool; the next checkpoint tries again"
                    );
                }
                return Ok(report);
            }
            self.fold_before(&manifest, generations[take - 1], generations[take], &mut report)?;
        }
    }

    /// Folds the generations up to `last`; `generation` is the one that follows.
    fn fold_before(
        &self,
        manifest: &Manifest,
        last: u64,
        generation: u64,
        report: &mut CheckpointReport,
    ) -> WalResult<()> {
        let view = View::open_before(self.disk.clone(), self.layout.clone(), generation)?;
        let headers = reader::headers(&*self.disk, &self.layout, generation)?;
        let next = headers.get(&generation).ok_or_else(|| {
            WalError::damaged(self.layout.generation(generation), None, "its header is missing")
        })?;
        let mut edit = ManifestEdit {
            folded: Some(Folded {
                last,
                before: generation,
                revision: next.revision,
                next_number: next.number,
            }),
            ..ManifestEdit::default()
        };
        // The generations are removed afterwards, so all of their transitions must have been read.
        if let Some(damage) = view.damage() {
            return Err(WalError::Damaged(damage.clone()));
        }
        if view.last_revision() != next.revision {
            let what = format!(
                "revision {} was read where {} is expected",
                view.last_revision(),
                next.revision
            );
            return Err(WalError::damaged(self.layout.generation(last), None, what));
        }
        let (waiting, completed) = self.fold_rows(manifest, &view, &mut edit)?;
        let mut counter = self.highest_counter(manifest)?;
        let used = counter;
        let written = (|| {
            self.write_partitions(manifest, &view, waiting, &mut counter, &mut edit)?;
            for (_, rows) in completed {
                self.write_archives(manifest, &view, rows, &mut counter, &mut edit)?;
            }
            report.files_written += edit.added.len() as u64;
            report.operations += edit.added.iter().map(|file| file.rows).sum::<u64>();
            tracing::debug!(files = edit.added.len(), before = generation, "checkpoint");
            self.publish(&edit)?;
            self.commit(&mut edit, None)
        })();
        if written.as_ref().is_err_and(WalError::is_full) {
            self.remove_uncommitted(used);
        }
        written?;
        self.remove_replaced(&edit, report)
    }

    /// Returns the new rows of all operations that the journal changed: those for partitions, and
    /// those for archives by day. Adds the files that lose rows to the edit.
    #[expect(clippy::type_complexity, reason = "one caller; two kinds of rows")]
    fn fold_rows(
        &self,
        manifest: &Manifest,
        view: &View,
        edit: &mut ManifestEdit,
    ) -> WalResult<(Vec<Operation>, BTreeMap<i64, Vec<Operation>>)> {
        let mut live = Vec::new();
        let mut completed: BTreeMap<i64, Vec<Operation>> = BTreeMap::new();
        let mut put = |operation: Operation| match &operation.state {
            State::Completed { at, .. } if self.options.archive_completed => {
                completed.entry(at.day()).or_default().push(operation);
            }
            _ => live.push(operation),
        };
        let mut in_files = BTreeSet::new();
        for number in view.touched_numbers() {
            if view.is_logged_here(number) {
                if let Some(operation) = view.fold_number(None, number)? {
                    put(operation);
                }
            } else {
                in_files.insert(number);
            }
        }
        for file in &manifest.files {
            let candidates = in_files.range(file.numbers.0..=file.numbers.1);
            if !candidates.into_iter().any(|number| file.may_hold_number(*number)) {
                continue;
            }
            let rows = view.table(file)?.read_all()?;
            let mut entry = file.clone();
            let mut moved = Vec::new();
            for row in rows.iter().filter(|row| !file.superseded.contains(row.number)) {
                if in_files.remove(&row.number) {
                    moved.push(row.number);
                    if let Some(operation) = view.fold_number(Some(row.clone()), row.number)? {
                        put(operation);
                    }
                }
            }
            if moved.is_empty() {
                continue;
            }
            entry.superseded.extend(moved);
            entry.count_rows(rows.iter());
            // A partition that has lost half of its rows is rewritten. An archive is removed only
            // when it has no rows left.
            let is_removable =
                !entry.is_archive() || (entry.live() == 0 && !entry.is_being_pushed());
            if entry.live() * 2 <= entry.rows && is_removable {
                rows.into_iter()
                    .filter(|row| !entry.superseded.contains(row.number))
                    .for_each(&mut put);
                edit.removed.insert(entry.name);
            } else {
                edit.changed.insert(entry.name.clone(), entry);
            }
        }
        match in_files.first() {
            None => Ok((live, completed)),
            Some(number) => {
                let what = format!("the journal changes operation {number}, which no file holds");
                Err(WalError::damaged(self.layout.manifest(), None, what))
            }
        }
    }

    /// Stages rows as partitions, merged with small existing ones.
    fn write_partitions(
        &self,
        manifest: &Manifest,
        view: &View,
        mut rows: Vec<Operation>,
        counter: &mut u64,
        edit: &mut ManifestEdit,
    ) -> WalResult<()> {
        let limit = self.options.partition_size;
        self.merge_small_files(manifest, view, &mut rows, limit, edit, |file| !file.is_archive())?;
        let now = self.clock.now();
        self.stage(rows, limit, None, edit, || {
            *counter += 1;
            Layout::partition_name(now, *counter)
        })
    }

    /// Stages rows of one day as archives, merged with small existing ones of that day.
    fn write_archives(
        &self,
        manifest: &Manifest,
        view: &View,
        mut rows: Vec<Operation>,
        counter: &mut u64,
        edit: &mut ManifestEdit,
    ) -> WalResult<()> {
        let Some(day) = rows.first().map(|row| match row.state {
            State::Completed { at, .. } => at,
            _ => row.updated_at,
        }) else {
            return Ok(());
        };
        let limit = self.options.partition_size * ARCHIVE_PARTITIONS;
        let same_day = |file: &FileEntry| {
            file.pushed.is_none() && file.day.is_some_and(|of| of.day() == day.day())
        };
        self.merge_small_files(manifest, view, &mut rows, limit, edit, same_day)?;
        self.stage(rows, limit, Some(day), edit, || {
            *counter += 1;
            Layout::archive_name(day, *counter)
        })
    }

    /// Adds the rows of the newest small files while these have no more rows than are to be
    /// written. The number of files that are not full thus grows with the logarithm of the rows
    /// written.
    fn merge_small_files(
        &self,
        manifest: &Manifest,
        view: &View,
        rows: &mut Vec<Operation>,
        limit: usize,
        edit: &mut ManifestEdit,
        same_kind: impl Fn(&FileEntry) -> bool,
    ) -> WalResult<()> {
        if rows.is_empty() {
            return Ok(());
        }
        for file in manifest.files.iter().rev().filter(|file| same_kind(file)) {
            if edit.removed.contains(&file.name) {
                continue;
            }
            let entry = edit.changed.get(&file.name).unwrap_or(file);
            let live = entry.live();
            if live as usize * 2 > limit {
                continue;
            }
            if live as usize > rows.len() % limit {
                return Ok(());
            }
            let kept = view.table(file)?.read_all()?;
            rows.extend(kept.into_iter().filter(|row| !entry.superseded.contains(row.number)));
            edit.changed.remove(&file.name);
            edit.removed.insert(file.name.clone());
        }
        Ok(())
    }
}
