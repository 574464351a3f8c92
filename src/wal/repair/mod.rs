//! Repair of a damaged log: the result is valid and contains every record that can be read.
//!
//! 1. Everything is read, and losses are noted. Nothing has been changed so far.
//! 2. Rewritten operations are staged in `tmp/`, flushed, and renamed into place. Damaged files
//!    that a checkpoint would remove are copied to `quarantine/`. A new generation is created. No
//!    manifest names any of these yet.
//! 3. One manifest replaces the old one. A kill before it leaves the damaged log, a kill after it
//!    the repaired one.
//! 4. Only then are the damaged originals moved to `quarantine/`. Nothing is deleted.

mod fold;
mod hold;
mod journal;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskError, DiskResult};
use crate::operation::{Number, Operation, Revision, State, Time};
use crate::wal::error::{WalError, WalResult};
use crate::wal::files::edit::ARCHIVE_PARTITIONS;
use crate::wal::journal::Header;
use crate::wal::journal::generation;
use crate::wal::journal::lock::LockFile;
use crate::wal::journal::note::{self, AppendNote};
use crate::wal::journal::reader::{self, Position};
use crate::wal::layout::{Layout, LockName};
use crate::wal::manifest::{FileEntry, Manifest, NumberSet};
use crate::wal::options::Options;
use crate::wal::schema;
use crate::wal::verify::{Finding, Verified, verify, verify_repeatedly};

/// Data that can no longer be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Loss {
    /// The file, by its former name relative to the log.
    pub path: String,
    /// The lost bytes; `None` for the whole file.
    pub range: Option<ByteRange>,
    /// The loss and its cause.
    pub what: String,
}

/// A range of bytes in a file. An empty one marks a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The first byte after the range.
    pub end: u64,
}

impl ByteRange {
    /// Returns the number of bytes.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Returns `true` if the range only marks a position.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The outcome of a repair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// True if anything was changed. A valid log is left as it is.
    pub changed: bool,
    /// The damage that was found.
    pub damages: Vec<Finding>,
    /// The number of operations in the repaired log.
    pub operations: u64,
    /// The number of operations that were rewritten.
    pub rewritten: u64,
    /// Data that can no longer be read.
    pub losses: Vec<Loss>,
    /// Lost operations, as far as their numbers are known.
    pub lost: NumberSet,
    /// Operations with gaps in their history.
    pub holed: NumberSet,
    /// Operations read from damaged files: any of their fields may have changed.
    pub doubtful: NumberSet,
    /// Operations that are held until a user releases them: lost records may have completed or
    /// deleted them, or their fields may have changed.
    pub held: NumberSet,
    /// Files that were moved or copied to `quarantine/`, by their new names.
    pub set_aside: Vec<String>,
}

impl Repaired {
    /// Returns true if nothing is lost. A lost manifest alone can be rebuilt from the files.
    pub fn is_whole(&self) -> bool {
        let sets = [&self.lost, &self.holed, &self.doubtful, &self.held];
        sets.iter().all(|set| set.is_empty())
            && self.losses.iter().all(|loss| loss.path == MANIFEST)
    }
}

/// The log that is to be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Files that stay, some with newly superseded rows.
    pub(super) kept: Vec<FileEntry>,
    /// Operations to be rewritten.
    pub(super) rows: BTreeMap<Number, Operation>,
    /// Files that are moved to `quarantine/` at the end.
    pub(super) damaged: Vec<String>,
    /// Spooled content without a known operation: it may belong to a lost one, and is moved as
    /// well.
    pub(super) ownerless: Vec<String>,
    pub(super) next_number: Number,
    pub(super) revision: Revision,
}

/// The name of the manifest in reports.
const MANIFEST: &str = "MANIFEST.json";
const REBUILT: &str =
    "rebuilt from the files, which may bring back deleted or never committed operations";
/// Attempts to read before the data counts as lost.
const READS: usize = 3;

/// The contents of a file, as far as the medium returns them.
pub(super) struct Read {
    /// Its bytes; zeros in unreadable ranges.
    pub(super) bytes: Vec<u8>,
    /// The unreadable ranges in ascending order.
    pub(super) bad: Vec<(u64, u64)>,
}

/// The number of bytes per read of a medium with bad blocks. No disk loses less at a time.
const PIECE: usize = 4096;

/// Repeats a read that the medium fails, up to [`READS`] times.
fn insist<T>(read: impl Fn() -> DiskResult<T>) -> DiskResult<T> {
    let mut result = read();
    for _ in 1..READS {
        if !result.as_ref().is_err_and(DiskError::is_medium_error) {
            break;
        }
        result = read();
    }
    result
}

/// Reads a file, with zeros in place of ranges that the medium does not return.
///
/// The inner error means that the file is missing or wholly unreadable. Any other error says
/// nothing about the file, and ends the repair before anything is changed.
fn read(disk: &dyn Disk, path: &Path) -> WalResult<Result<Read, DiskError>> {
    match insist(|| disk.read(path)) {
        Ok(bytes) => Ok(Ok(Read { bytes, bad: Vec::new() })),
        Err(error) if error.is_not_found() => Ok(Err(error)),
        Err(error) if !error.is_medium_error() => Err(error.into()),
        Err(error) => Ok(in_pieces(disk, path)?.ok_or(error)),
    }
}

/// Reads a file piece by piece; `None` if no piece is readable.
fn in_pieces(disk: &dyn Disk, path: &Path) -> WalResult<Option<Read>> {
    let file = match insist(|| disk.open(path, Access::Read)) {
        Err(error) if error.is_medium_error() => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len).unwrap_or(0)];
    let mut bad: Vec<(u64, u64)> = Vec::new();
    let mut any_readable = false;
    let mut at = 0;
    while at < bytes.len() {
        // A short read continues in the same piece.
        let end = ((at / PIECE + 1) * PIECE).min(bytes.len());
        let read = insist(|| {
            let mut piece = vec![0; end - at];
            let read = file.read_at(&mut piece, at as u64)?;
            piece.truncate(read);
            Ok(piece)
        });
        match read {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => {
                bytes[at..at + piece.len()].copy_from_slice(&piece);
                (any_readable, at) = (true, at + piece.len());
            }
            Err(error) if error.is_medium_error() => {
                bad.push((at as u64, end as u64));
                at = end;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(any_readable.then_some(Read { bytes, bad }))
}

struct Repair<'a> {
    disk: &'a Arc<dyn Disk>,
    clock: &'a dyn Clock,
    layout: &'a Layout,
    options: &'a Options,
    report: Repaired,
}

/// Repairs a log. A valid one is left as it is. Fails without a change if its format is newer.
pub fn repair(
    disk: &Arc<dyn Disk>,
    clock: &dyn Clock,
    layout: &Layout,
    options: &Options,
) -> WalResult<Repaired> {
    let ignore = |_: u64, _: u64| {};
    let unchanged =
        |found: Verified| Repaired { operations: found.operations, ..Repaired::default() };
    let found = verify(disk, layout, &ignore)?;
    if found.is_valid() {
        // A repair may have been killed before its links and the name of its manifest were durable.
        if disk.exists(&layout.spool())? {
            disk.sync_dir(&layout.spool())?;
        }
        if disk.exists(layout.base())? {
            disk.sync_dir(layout.base())?;
        }
        return Ok(unchanged(found));
    }
    // All processes take the locks in this order. A drain loop may hold its lock for a long time,
    // so this does not wait for it.
    let take = |name: LockName, timeout: Duration| -> WalResult<LockFile> {
        let mut lock = LockFile::open(&**disk, layout, name)?;
        lock.lock(&**disk, clock, timeout)?;
        Ok(lock)
    };
    let process = take(LockName::Process, options.lock_timeout.min(Duration::from_secs(1)))?;
    let checkpoint = take(LockName::Checkpoint, options.lock_timeout)?;
    let append = take(LockName::Append, options.lock_timeout)?;
    let sync = take(LockName::Sync, options.lock_timeout)?;
    // No other process writes now, so one attempt is conclusive.
    let found = verify_repeatedly(disk, layout, &ignore, 1)?;
    let repaired = if found.is_valid() {
        Ok(unchanged(found))
    } else {
        let damages = found.damages().cloned().collect();
        let report = Repaired { changed: true, damages, ..Repaired::default() };
        Repair { disk, clock, layout, options, report }.run(&append, &sync)
    };
    [&sync, &append, &checkpoint, &process].iter().try_for_each(|lock| lock.unlock())?;
    repaired
}

impl Repair<'_> {
    fn run(mut self, append: &LockFile, sync: &LockFile) -> WalResult<Repaired> {
        if let Some(mut note) = note::read_if_readable::<AppendNote>(append.file())? {
            // If this process is killed, the next writer recovers the journal and makes the
            // manifest durable.
            note.at_work = true;
            note::write(append.file(), &note)?;
        }
        for directory in self.layout.directories() {
            // The names of the directories become durable before the manifest that needs them.
            self.disk.create_dir_if_missing(&directory)?;
        }
        let mut loaded = Manifest::load(&**self.disk, self.layout);
        for _ in 1..READS {
            if matches!(&loaded, Err(WalError::Disk(error)) if error.is_medium_error()) {
                loaded = Manifest::load(&**self.disk, self.layout);
            }
        }
        let manifest = match loaded {
            Ok(Some(manifest)) => Some(manifest),
            Ok(None) => {
                self.lose(MANIFEST, None, &format!("the file is missing; {REBUILT}"));
                None
            }
            Err(WalError::Disk(error)) if error.is_medium_error() => {
                self.lose(
                    MANIFEST,
                    None,
                    &format!("the file cannot be read: {}; {REBUILT}", error.source),
                );
                None
            }
            Err(WalError::Damaged(damage)) => {
                self.lose(MANIFEST, None, &format!("{}; {REBUILT}", damage.what));
                None
            }
            Err(error) => return Err(error),
        };
        let mut journal = journal::Journal::read(&**self.disk, self.layout, manifest.as_ref())?;
        let noted = note::read_if_readable::<AppendNote>(append.file())?;
        let generations = reader::noted_generations(&**self.disk, self.layout)?;
        let lowest = journal.generations.first().copied().unwrap_or(0);
        let first = manifest.as_ref().map_or(lowest, |manifest| manifest.first_generation);
        journal.miss_noted(self.layout, first, &generations, noted.as_ref());
        let plan = self.plan(manifest.as_ref(), &mut journal, noted.as_ref())?;
        self.write(manifest, &journal, plan, append, sync)
    }

    fn lose(&mut self, path: &str, range: Option<ByteRange>, what: &str) {
        self.report.losses.push(Loss { path: path.to_owned(), range, what: what.to_owned() });
    }

    /// Writes the repaired log, commits it with one manifest, and sets the damaged files aside.
    fn write(
        mut self,
        manifest: Option<Manifest>,
        journal: &journal::Journal,
        plan: Plan,
        append: &LockFile,
        sync: &LockFile,
    ) -> WalResult<Repaired> {
        let Plan { kept, rows, mut damaged, ownerless, next_number, revision } = plan;
        self.report.rewritten = rows.len() as u64;
        let mut counter = self.highest_counter(manifest.as_ref())?;
        let added = self.stage(rows, &mut counter)?;
        let disk = &**self.disk;
        for file in &added {
            disk.rename(&self.layout.staged(&file.name), &self.layout.file(&file.name))?;
        }
        disk.sync_dir(&self.layout.partitions())?;
        disk.sync_dir(&self.layout.archives())?;
        let copied = self.copy_evidence(manifest.is_none(), journal)?;
        let (linked, unlinked) = self.link_ownerless(ownerless)?;
        damaged.extend(unlinked);
        self.disk.sync_dir(&self.layout.quarantine())?;
        let first = manifest.as_ref().map_or(0, |manifest| manifest.first_generation);
        let header = self.start_generation(journal, first, next_number, revision)?;
        let mut files = kept;
        files.extend(added);
        self.report.operations = files.iter().map(FileEntry::live).sum();
        let mut replaced = Manifest::new(header.generation, header.created);
        (replaced.counter, replaced.revision, replaced.next_number) =
            (counter, revision, next_number);
        replaced.files = files;
        // Automatic cleanups must not prune operations of a rebuilt manifest before their owner has
        // seen them.
        replaced.last_cleanup =
            manifest.as_ref().map_or(Some(header.created), |manifest| manifest.last_cleanup);
        if let Some(manifest) = manifest {
            replaced.originals = manifest.originals.map(|mut originals| {
                originals.adopted = true;
                originals
            });
            replaced.unread = manifest.unread;
        }
        replaced.commit(&**self.disk, self.layout)?;
        // From here on, readers see the repaired log.
        self.begin(&header, append, sync)?;
        for name in linked {
            self.disk.remove_if_present(&self.layout.file(&name))?;
        }
        for generation in &journal.generations {
            let path = self.layout.generation(*generation);
            let name = self.layout.relative(&path);
            match copied.contains(&name) {
                // The copy in `quarantine/` is durable.
                true => self.disk.remove_if_present(&path)?,
                false => damaged.push(name),
            }
        }
        self.set_aside(damaged)?;
        self.report.losses.sort();
        self.report.losses.dedup();
        self.report.set_aside.sort();
        Ok(self.report)
    }

    /// Copies to `quarantine/` the files that a checkpoint would remove after the new manifest is
    /// committed. Returns the names of the copied files.
    fn copy_evidence(
        &mut self,
        without_manifest: bool,
        journal: &journal::Journal,
    ) -> WalResult<BTreeSet<String>> {
        let mut evidence: Vec<String> = journal
            .generations
            .iter()
            .map(|generation| self.layout.relative(&self.layout.generation(*generation)))
            .collect();
        if without_manifest && self.disk.exists(&self.layout.manifest())? {
            evidence.push(self.layout.relative(&self.layout.manifest()));
        }
        let mut copied = BTreeSet::new();
        for name in evidence {
            if self.copy_aside(&name)? {
                copied.insert(name);
            }
        }
        Ok(copied)
    }

    /// Links spooled content without a known operation into `quarantine/`. Returns the linked
    /// names, and those that cannot be linked.
    ///
    /// Checkpoints of the repaired log would remove it. Until there is one, it may still be needed
    /// in place.
    fn link_ownerless(&mut self, ownerless: Vec<String>) -> WalResult<(Vec<String>, Vec<String>)> {
        let (mut linked, mut unlinked) = (Vec::new(), Vec::new());
        for name in ownerless {
            let target = self.free_name(&name)?;
            match self.disk.link(&self.layout.file(&name), &self.layout.file(&target)) {
                Ok(()) => {
                    self.report.set_aside.push(target);
                    linked.push(name);
                }
                Err(error) if error.is_link_unsupported() => unlinked.push(name),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((linked, unlinked))
    }

    /// Creates the generation in which the repaired journal begins. Returns its header.
    fn start_generation(
        &self,
        journal: &journal::Journal,
        first: u64,
        number: Number,
        revision: Revision,
    ) -> WalResult<Header> {
        let disk = &**self.disk;
        let noted = reader::noted_generations(disk, self.layout)?;
        let last = journal.generations.iter().chain(&noted).copied().max().unwrap_or(0);
        let header = Header {
            generation: last.max(first) + 1,
            previous: 0,
            previous_end: 0,
            revision,
            number,
            checksum: 0,
            created: self.clock.now(),
        };
        generation::create_generation(disk, self.layout, &header, &[])?;
        disk.sync_dir(&self.layout.journal())?;
        disk.sync_ancestors(self.layout.base())?;
        Ok(header)
    }

    /// Moves damaged files to `quarantine/`.
    ///
    /// A power cut may undo the renames. The repaired log does not name these files, so the next
    /// checkpoint sets them aside again.
    fn set_aside(&mut self, damaged: Vec<String>) -> WalResult<()> {
        for name in damaged {
            let path = self.layout.file(&name);
            if self.disk.exists(&path)? {
                let target = self.free_name(&name)?;
                self.disk.rename(&path, &self.layout.file(&target))?;
                self.report.set_aside.push(target);
            }
        }
        Ok(())
    }

    /// Writes operations to durable files in `tmp/`.
    fn stage(
        &self,
        rows: BTreeMap<Number, Operation>,
        counter: &mut u64,
    ) -> WalResult<Vec<FileEntry>> {
        let mut live = Vec::new();
        let mut completed: BTreeMap<i64, (Time, Vec<Operation>)> = BTreeMap::new();
        for row in rows.into_values() {
            match &row.state {
                State::Completed { at, .. } if self.options.archive_completed => {
                    completed.entry(at.day()).or_insert((*at, Vec::new())).1.push(row);
                }
                _ => live.push(row),
            }
        }
        let limit = self.options.partition_size;
        let mut added = Vec::new();
        let now = self.clock.now();
        let all = std::iter::once((None, live, limit)).chain(
            completed
                .into_values()
                .map(|(day, rows)| (Some(day), rows, limit * ARCHIVE_PARTITIONS)),
        );
        for (day, mut rows, limit) in all {
            rows.sort_by_key(|row| row.number);
            while !rows.is_empty() {
                let rest = rows.split_off(rows.len().min(limit));
                *counter += 1;
                let name = match day {
                    Some(day) => Layout::archive_name(day, *counter),
                    None => Layout::partition_name(now, *counter),
                };
                let bytes = schema::encode(&mut rows)?;
                self.disk.write_new_synced(&self.layout.staged(&name), &bytes)?;
                added.extend(FileEntry::describe(name, day, &rows, &bytes));
                rows = rest;
            }
        }
        Ok(added)
    }

    fn highest_counter(&self, manifest: Option<&Manifest>) -> WalResult<u64> {
        let mut highest = manifest.map_or(0, |manifest| manifest.counter);
        let directories = [
            self.layout.partitions(),
            self.layout.archives(),
            self.layout.quarantine(),
            self.layout.tmp(),
        ];
        for directory in directories {
            for entry in self.disk.list(&directory)? {
                highest =
                    highest.max(entry.name.to_str().and_then(Layout::counter_of).unwrap_or(0));
            }
        }
        Ok(highest)
    }

    /// Returns an unused name in `quarantine/`.
    fn free_name(&self, name: &str) -> WalResult<String> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let named = |nth: u64| match nth {
            0 => format!("quarantine/{name}"),
            nth => format!("quarantine/{name}.{nth}"),
        };
        let mut nth = 0;
        while self.disk.exists(&self.layout.file(&named(nth)))? {
            nth += 1;
        }
        Ok(named(nth))
    }

    /// Copies a file durably to `quarantine/`, unless an equal copy exists. Returns false if it
    /// cannot be read.
    fn copy_aside(&mut self, name: &str) -> WalResult<bool> {
        let path = self.layout.file(name);
        // A file with bad blocks is moved instead, since a copy would differ. The manifest cannot
        // be moved: it is about to be replaced.
        let bytes = match insist(|| self.disk.read(&path)) {
            Ok(bytes) => bytes,
            Err(_) if name == MANIFEST => match read(&**self.disk, &path)? {
                Ok(read) => read.bytes,
                Err(_) => return Ok(false),
            },
            Err(error) if error.is_not_found() || error.is_medium_error() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let target = self.free_name(name)?;
        let short = name.rsplit('/').next().unwrap_or(name);
        for nth in 0.. {
            let earlier = if nth == 0 {
                format!("quarantine/{short}")
            } else {
                format!("quarantine/{short}.{nth}")
            };
            if earlier == target {
                break;
            }
            if read(&**self.disk, &self.layout.file(&earlier))?
                .is_ok_and(|there| there.bytes == bytes)
            {
                // An earlier repair made this copy before it was killed. A copy is durable before
                // it gets its name.
                self.report.set_aside.push(earlier);
                return Ok(true);
            }
        }
        let staged = loop {
            let staged = self.layout.staged(&format!("repair-{:016x}", self.clock.random()));
            // A repair that was killed may have left a file with this name.
            if !self.disk.exists(&staged)? {
                break staged;
            }
        };
        self.disk.write_new_synced(&staged, &bytes)?;
        self.disk.rename(&staged, &self.layout.file(&target))?;
        self.report.set_aside.push(target);
        Ok(true)
    }

    /// Writes the notes with the position of the repaired journal.
    fn begin(&self, header: &Header, append: &LockFile, sync: &LockFile) -> WalResult<()> {
        let identity = self.disk.identity();
        let (position, now) = (Position::start_of(header), header.created);
        generation::write_notes(identity, "verify --repair", now, position, append, sync)?;
        Ok(())
    }
}
