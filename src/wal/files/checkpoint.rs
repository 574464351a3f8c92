//! Checkpoints: folding sealed generations into Parquet files, and dropping what is no longer needed.

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::FileKind;
use crate::operation::{Number, Operation, Revision, State, Time};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::lock::{HeldLock, LockFile};
use crate::wal::journal::reader;
use crate::wal::journal::writer::Wal;
use crate::wal::layout::{Layout, LockName};
use crate::wal::manifest::{FileEntry, Manifest, Unread};
use crate::wal::read::view::View;
use crate::wal::schema;

/// An archive holds at most this many partitions' worth of operations.
pub const ARCHIVE_PARTITIONS: usize = 8;

/// Generations folded at a time: what bounds the memory of a checkpoint.
const GENERATIONS_AT_ONCE: usize = 2;

/// What a checkpoint did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Operations whose rows were written.
    pub operations: u64,
    /// Files written.
    pub files_written: u64,
    /// Parquet files that were replaced and removed.
    pub files_removed: u64,
    /// Generations that were folded and removed.
    pub generations_removed: u64,
    /// Files set aside in `quarantine/`, relative to the log.
    pub quarantined: Vec<String>,
}

/// Files to add to and take from the manifest.
#[derive(Debug, Default)]
pub(in crate::wal) struct Exchange {
    pub(in crate::wal) added: Vec<FileEntry>,
    pub(in crate::wal) changed: BTreeMap<String, FileEntry>,
    pub(in crate::wal) removed: BTreeSet<String>,
    pub(in crate::wal) folded: Option<Folded>,
    /// Set when the files added hold what stood in the original's: what of that could not be understood.
    pub(in crate::wal) adopted: Option<Vec<Unread>>,
    /// Rows that go for good, by file: if the journal has changed one of them meanwhile, its file stays as it is.
    pub(in crate::wal) dropped: BTreeMap<String, Dropped>,
}

/// Rows of a file that go for good.
#[derive(Debug, Clone, Default)]
pub(in crate::wal) struct Dropped {
    /// Their numbers; empty: all rows of the file.
    pub(in crate::wal) numbers: Vec<Number>,
    pub(in crate::wal) completed: u64,
    pub(in crate::wal) failed: u64,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::wal) struct Folded {
    /// The last generation that was folded; the first one after it is found when the manifest is replaced.
    last: u64,
    before: u64,
    revision: Revision,
    next_number: Number,
}

impl Wal {
    /// Runs a checkpoint if one is due and nobody else is at it; for use after writes.
    pub fn maintain(&self) -> WalResult<Option<CheckpointReport>> {
        let (due, aged) = self.checkpoint_due();
        if !due {
            return Ok(None);
        }
        self.fold_if_free(aged)
    }

    /// Folds the whole journal unless somebody else is at work on the files.
    pub fn checkpoint_if_free(&self) -> WalResult<Option<CheckpointReport>> {
        self.fold_if_free(true)
    }

    fn fold_if_free(&self, also_open_generation: bool) -> WalResult<Option<CheckpointReport>> {
        let Some(_held) = self.finishing(|| self.try_lock_checkpoint())? else { return Ok(None) };
        let report = self.finishing(|| self.fold_all(also_open_generation))?;
        self.keep_reserve();
        Ok(Some(report))
    }

    pub(in crate::wal) fn try_lock_checkpoint(&self) -> WalResult<Option<HeldLock>> {
        let mut lock = LockFile::open(&*self.disk, &self.layout, LockName::Checkpoint)?;
        if !lock.try_lock(&*self.disk)? {
            return Ok(None);
        }
        lock.hold(&*self.disk, &self.options.command, self.clock.now()).map(Some)
    }

    /// Whether a checkpoint is due, by what this process has seen of the journal; and whether that is for its age.
    pub fn checkpoint_due(&self) -> (bool, bool) {
        let (bytes, oldest) = self.lock_inner().view.journal_load();
        let aged = oldest.is_some_and(|oldest| {
            let age = self.clock.now().millis_since(oldest);
            age >= self.options.checkpoint_age_ms || age < -self.options.checkpoint_age_ms
        });
        (aged || bytes >= self.options.checkpoint_bytes, aged)
    }

    /// Folds the whole journal into Parquet files.
    pub fn checkpoint(&self) -> WalResult<CheckpointReport> {
        let _held = self.finishing(|| self.lock_checkpoint())?;
        let report = self.finishing(|| self.fold_all(true))?;
        self.keep_reserve();
        Ok(report)
    }

    pub(in crate::wal) fn lock_checkpoint(&self) -> WalResult<HeldLock> {
        let mut lock = LockFile::open(&*self.disk, &self.layout, LockName::Checkpoint)?;
        lock.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        lock.hold(&*self.disk, &self.options.command, self.clock.now())
    }

    /// Holds `checkpoint.lock`.
    pub(in crate::wal) fn fold_all(
        &self,
        also_open_generation: bool,
    ) -> WalResult<CheckpointReport> {
        let mut report = CheckpointReport::default();
        for directory in self.layout.directories() {
            // Their names are made durable by `sweep`, before anything is published in them.
            self.disk.create_dir_if_missing(&directory)?;
        }
        let open_generation = {
            let mut inner = self.lock_inner();
            let note = self.take_lock(&mut inner)?;
            let note = if also_open_generation && note.last != 0 {
                self.rotate(&mut inner, note)
            } else {
                Ok(note)
            };
            inner.lock.unlock()?;
            note?.generation
        };
        self.carry_on_adopting()?;
        self.sweep(&mut report)?;
        loop {
            let manifest = self.manifest()?;
            let chain = reader::read_chain(&*self.disk, &self.layout, manifest.first_generation)?;
            if let Some(damage) = chain.damage {
                return Err(WalError::Damaged(damage));
            }
            let links: Vec<u64> = chain.links.iter().map(|link| link.header.generation).collect();
            let sealed =
                links.iter().take_while(|generation| **generation < open_generation).count();
            let take = sealed.min(GENERATIONS_AT_ONCE);
            if take == 0 {
                if let Err(error) = self.sweep_spool(open_generation) {
                    tracing::warn!(%error, "could not look through the spool; the next checkpoint tries again");
                }
                return Ok(report);
            }
            self.fold_before(&manifest, links[take - 1], links[take], &mut report)?;
        }
    }

    pub(in crate::wal) fn manifest(&self) -> WalResult<Manifest> {
        Manifest::load(&*self.disk, &self.layout)?.ok_or_else(|| {
            WalError::damaged(self.layout.manifest(), None, "the manifest is missing")
        })
    }

    /// Folds all generations before this one.
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
            WalError::damaged(self.layout.generation(generation), None, "its header is gone")
        })?;
        let mut exchange = Exchange {
            folded: Some(Folded {
                last,
                before: generation,
                revision: next.revision,
                next_number: next.number,
            }),
            ..Exchange::default()
        };
        // What is folded is removed afterwards, so it has to be all of it.
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
        let (waiting, completed) = self.fold_rows(manifest, &view, &mut exchange)?;
        let mut counter = self.highest_counter(manifest)?;
        let used = counter;
        let written = (|| {
            self.write_partitions(manifest, &view, waiting, &mut counter, &mut exchange)?;
            for (_, rows) in completed {
                self.write_archives(manifest, &view, rows, &mut counter, &mut exchange)?;
            }
            report.files_written += exchange.added.len() as u64;
            report.operations += exchange.added.iter().map(|file| file.rows).sum::<u64>();
            tracing::debug!(files = exchange.added.len(), before = generation, "checkpoint");
            self.publish(&exchange)?;
            self.commit(&mut exchange, None)
        })();
        if written.as_ref().is_err_and(WalError::is_full) {
            self.give_back(used);
        }
        written?;
        self.remove_replaced(&exchange, report)
    }

    /// Removes what this holder of `checkpoint.lock` wrote and did not commit, after the disk became full: set aside,
    /// it would take the room that the next try needs. `used` is the highest counter there was before.
    pub(in crate::wal) fn give_back(&self, used: u64) {
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

    /// The new rows of all operations that the journal changed, and the files that lose rows to them.
    #[expect(clippy::type_complexity, reason = "one caller; two kinds of rows")]
    fn fold_rows(
        &self,
        manifest: &Manifest,
        view: &View,
        exchange: &mut Exchange,
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
            // A file that lost most of its rows gives up the rest, too; an archive goes only when nothing of it is left.
            let may_go = !entry.is_archive() || (entry.live() == 0 && !entry.is_being_pushed());
            if entry.live() * 2 <= entry.rows && may_go {
                rows.into_iter()
                    .filter(|row| !entry.superseded.contains(row.number))
                    .for_each(&mut put);
                exchange.removed.insert(entry.name);
            } else {
                exchange.changed.insert(entry.name.clone(), entry);
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

    fn write_partitions(
        &self,
        manifest: &Manifest,
        view: &View,
        mut rows: Vec<Operation>,
        counter: &mut u64,
        exchange: &mut Exchange,
    ) -> WalResult<()> {
        let limit = self.options.partition_size;
        self.absorb_small(manifest, view, &mut rows, limit, exchange, |file| !file.is_archive())?;
        let now = self.clock.now();
        self.stage(rows, limit, None, exchange, || {
            *counter += 1;
            Layout::partition_name(now, *counter)
        })
    }

    fn write_archives(
        &self,
        manifest: &Manifest,
        view: &View,
        mut rows: Vec<Operation>,
        counter: &mut u64,
        exchange: &mut Exchange,
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
        self.absorb_small(manifest, view, &mut rows, limit, exchange, same_day)?;
        self.stage(rows, limit, Some(day), exchange, || {
            *counter += 1;
            Layout::archive_name(day, *counter)
        })
    }

    /// Takes in the newest small files as long as they are no larger than what is there already:
    /// so the number of files that are not full grows with the logarithm of what was written.
    fn absorb_small(
        &self,
        manifest: &Manifest,
        view: &View,
        rows: &mut Vec<Operation>,
        limit: usize,
        exchange: &mut Exchange,
        same_kind: impl Fn(&FileEntry) -> bool,
    ) -> WalResult<()> {
        if rows.is_empty() {
            return Ok(());
        }
        for file in manifest.files.iter().rev().filter(|file| same_kind(file)) {
            if exchange.removed.contains(&file.name) {
                continue;
            }
            let entry = exchange.changed.get(&file.name).unwrap_or(file);
            let live = entry.live();
            if live as usize * 2 > limit {
                continue;
            }
            if live as usize > rows.len() % limit {
                return Ok(());
            }
            let kept = view.table(file)?.read_all()?;
            rows.extend(kept.into_iter().filter(|row| !entry.superseded.contains(row.number)));
            exchange.changed.remove(&file.name);
            exchange.removed.insert(file.name.clone());
        }
        Ok(())
    }

    /// Writes rows to `tmp/`, in files of at most `limit`, each flushed.
    pub(in crate::wal) fn stage(
        &self,
        mut rows: Vec<Operation>,
        limit: usize,
        day: Option<Time>,
        exchange: &mut Exchange,
        mut name: impl FnMut() -> String,
    ) -> WalResult<()> {
        rows.sort_by_key(|row| row.number);
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(limit));
            let name = name();
            let bytes = schema::encode(&mut rows)?;
            self.disk.write_new_synced(&self.layout.staged(&name), &bytes)?;
            exchange.added.extend(FileEntry::describe(name, day, &rows, &bytes));
            rows = rest;
        }
        Ok(())
    }

    /// Renames staged files into place and makes their names durable.
    pub(in crate::wal) fn publish(&self, exchange: &Exchange) -> WalResult<()> {
        if exchange.added.is_empty() {
            return Ok(());
        }
        {
            let mut inner = self.lock_inner();
            self.take_lock(&mut inner)?;
            let renamed = exchange.added.iter().try_for_each(|file| {
                self.disk.rename(&self.layout.staged(&file.name), &self.layout.file(&file.name))
            });
            inner.lock.unlock()?;
            renamed?;
        }
        self.disk.sync_dir(&self.layout.partitions())?;
        self.disk.sync_dir(&self.layout.archives())?;
        Ok(())
    }

    /// Replaces the manifest.
    pub(in crate::wal) fn commit(
        &self,
        exchange: &mut Exchange,
        cleaned_at: Option<Time>,
    ) -> WalResult<()> {
        let mut inner = self.lock_inner();
        self.take_lock(&mut inner)?;
        let committed = self.replace_manifest(&inner.view, exchange, cleaned_at);
        inner.lock.unlock()?;
        committed
    }

    /// The same, holding `lock`.
    pub(in crate::wal) fn replace_manifest(
        &self,
        view: &View,
        exchange: &mut Exchange,
        cleaned_at: Option<Time>,
    ) -> WalResult<()> {
        let mut manifest = self.manifest()?;
        keep_what_changed(view, &manifest, exchange)?;
        manifest.files.retain(|file| !exchange.removed.contains(&file.name));
        for file in &mut manifest.files {
            if let Some(changed) = exchange.changed.remove(&file.name) {
                *file = changed;
            }
        }
        for file in exchange.added.drain(..) {
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
        if let Some(folded) = &mut exchange.folded {
            // A recovery may have passed over the generation that followed when folding began.
            let headers = reader::headers(&*self.disk, &self.layout, manifest.first_generation)?;
            let next = reader::successor(&headers, folded.last)
                .filter(|next| next.revision == folded.revision);
            let next = next.ok_or_else(|| {
                WalError::damaged(
                    self.layout.generation(folded.last),
                    None,
                    "nothing follows what was folded",
                )
            })?;
            folded.before = next.generation;
            manifest.first_generation = next.generation;
            manifest.revision = folded.revision;
            manifest.next_number = folded.next_number;
        }
        if let (Some(unread), Some(originals)) = (exchange.adopted.take(), &mut manifest.originals)
        {
            originals.adopted = true;
            manifest.unread = unread;
        }
        manifest.last_cleanup = cleaned_at.or(manifest.last_cleanup);
        manifest.written_at = self.clock.now();
        manifest.commit(&*self.disk, &self.layout)
    }

    /// Removes what the committed manifest no longer names.
    pub(in crate::wal) fn remove_replaced(
        &self,
        exchange: &Exchange,
        report: &mut CheckpointReport,
    ) -> WalResult<()> {
        for name in &exchange.removed {
            self.disk.remove_if_present(&self.layout.file(name))?;
            report.files_removed += 1;
        }
        if let Some(folded) = exchange.folded {
            for generation in reader::generations(&*self.disk, &self.layout)? {
                if generation < folded.before {
                    self.disk.remove_if_present(&self.layout.generation(generation))?;
                    report.generations_removed += 1;
                }
            }
        }
        Ok(())
    }

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
                // Content that is being copied is no remains; of that of dead processes nobody needs anything.
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
        // Generations before the first one needed are leftovers of a process that died while removing them.
        for generation in reader::generations(&*self.disk, &self.layout)? {
            if generation < manifest.first_generation {
                self.disk.remove_if_present(&self.layout.generation(generation))?;
            }
        }
        Ok(())
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

/// Leaves files as they are of which rows were to go that somebody has changed since that was decided.
fn keep_what_changed(view: &View, manifest: &Manifest, exchange: &mut Exchange) -> WalResult<()> {
    if exchange.dropped.is_empty() {
        return Ok(());
    }
    let files = &manifest.files;
    let mut changed: BTreeSet<Number> =
        view.touched_numbers().filter(|number| !view.is_logged_here(*number)).collect();
    // Somebody may have logged an operation that waits for one of them.
    for id in view.dependencies()? {
        changed.extend(view.operation_by_id(id)?.map(|operation| operation.number));
    }
    exchange.dropped.retain(|name, dropped| {
        let hit = match files.iter().find(|file| file.name == *name) {
            Some(file) if dropped.numbers.is_empty() => changed
                .range(file.numbers.0..=file.numbers.1)
                .any(|number| file.may_hold_number(*number)),
            Some(_) => dropped.numbers.iter().any(|number| changed.contains(number)),
            None => true,
        };
        if hit {
            exchange.removed.remove(name);
            exchange.changed.remove(name);
        }
        !hit
    });
    Ok(())
}
