//! Repair: a log in which something cannot be read becomes one that is sound, with every record that can be read.
//!
//! 1. Everything is read, and what is lost is noted. Nothing has been changed by then.
//! 2. What is folded anew is staged in `tmp/`, flushed, renamed into place; copies of what is damaged and would be removed by
//!    a checkpoint are put into `quarantine/`; a new generation is made. All of that is named by no manifest.
//! 3. One manifest replaces the old one. A kill before it leaves the damaged log, a kill behind it the repaired one.
//! 4. Only then the damaged originals move to `quarantine/`. Nothing is deleted.

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
use crate::wal::files::checkpoint::ARCHIVE_PARTITIONS;
use crate::wal::journal::Header;
use crate::wal::journal::lock::LockFile;
use crate::wal::journal::note::{self, AppendNote, SyncNote};
use crate::wal::journal::reader;
use crate::wal::journal::recover;
use crate::wal::journal::writer::Options;
use crate::wal::layout::{Layout, LockName};
use crate::wal::manifest::{FileEntry, Manifest, NumberSet};
use crate::wal::schema;
use crate::wal::verify::{Finding, Verified, look_at, verify};

/// Something that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    /// The file, relative to the log, as it was called.
    pub path: String,
    /// First byte, and the first one behind it; none: the file as a whole.
    pub range: Option<(u64, u64)>,
    /// What is lost, and why.
    pub what: String,
}

/// What a repair came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Whether anything was changed: a sound log is left alone.
    pub changed: bool,
    /// What was wrong.
    pub damages: Vec<Finding>,
    /// Operations in the log as it is now.
    pub operations: u64,
    /// Operations that were written anew.
    pub rewritten: u64,
    /// What cannot be read any more.
    pub losses: Vec<Loss>,
    /// Numbers of operations that are gone, as far as they are known.
    pub lost: NumberSet,
    /// Operations in whose history something is missing.
    pub holed: NumberSet,
    /// Operations from files that are not as they were written: any field of them may have changed.
    pub doubtful: NumberSet,
    /// Operations that wait until they are released: they may have been done or deleted in what is lost, or be other ones
    /// than they were.
    pub held: NumberSet,
    /// Files that were set aside, as they are called now.
    pub set_aside: Vec<String>,
}

impl Repaired {
    /// Whether all that the log held is still in it. A manifest alone can be made anew from the files.
    pub fn is_whole(&self) -> bool {
        let sets = [&self.lost, &self.holed, &self.doubtful, &self.held];
        sets.iter().all(|set| set.is_empty())
            && self.losses.iter().all(|loss| loss.path == MANIFEST)
    }
}

/// What has been read and is to be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Files that stay, some with rows that are superseded by now.
    pub(super) kept: Vec<FileEntry>,
    /// Operations that are written anew.
    pub(super) rows: BTreeMap<Number, Operation>,
    /// Files that go to `quarantine/` in the end.
    pub(super) damaged: Vec<String>,
    /// Content in the spool that may belong to operations that are lost: it goes there as well.
    pub(super) ownerless: Vec<String>,
    pub(super) next_number: Number,
    pub(super) revision: Revision,
}

/// The manifest's name, for what is told of it.
const MANIFEST: &str = "MANIFEST.json";
const ANEW: &str =
    "it is made anew from what the files say, what was deleted or never committed included";
/// How often something is read before it counts as lost.
const READS: usize = 3;

/// A file as far as the medium gives it.
pub(super) struct Read {
    /// Its bytes; zeros where it gives nothing.
    pub(super) bytes: Vec<u8>,
    /// Where that is, in order.
    pub(super) bad: Vec<(u64, u64)>,
}

/// What a medium that has bad places is read in, in bytes: no disk loses less at once.
const PIECE: usize = 4096;

/// Does it again if the medium does not give something; what it says then, it stands by.
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

/// Reads a file, with zeros where the medium gives nothing, however often it is asked. The inner error says that the file is
/// missing, or that the medium gives nothing of it. Any other one says nothing about the file, and ends the repair before
/// anything was changed.
fn read(disk: &dyn Disk, path: &Path) -> WalResult<Result<Read, DiskError>> {
    match insist(|| disk.read(path)) {
        Ok(bytes) => Ok(Ok(Read { bytes, bad: Vec::new() })),
        Err(error) if error.is_not_found() => Ok(Err(error)),
        Err(error) if !error.is_medium_error() => Err(error.into()),
        Err(error) => Ok(in_pieces(disk, path)?.ok_or(error)),
    }
}

/// What can be read of a file; none if that is nothing.
fn in_pieces(disk: &dyn Disk, path: &Path) -> WalResult<Option<Read>> {
    let file = match insist(|| disk.open(path, Access::Read)) {
        Err(error) if error.is_medium_error() => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len).unwrap_or(0)];
    let mut bad: Vec<(u64, u64)> = Vec::new();
    let mut gives = false;
    let mut at = 0;
    while at < bytes.len() {
        // Up to the next piece: what came short goes on in the same one.
        let end = (at / PIECE + 1) * PIECE;
        let end = end.min(bytes.len());
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
                (gives, at) = (true, at + piece.len());
            }
            Err(error) if error.is_medium_error() => {
                bad.push((at as u64, end as u64));
                at = end;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(gives.then_some(Read { bytes, bad }))
}

struct Repair<'a> {
    disk: &'a Arc<dyn Disk>,
    clock: &'a dyn Clock,
    layout: &'a Layout,
    options: &'a Options,
    report: Repaired,
}

/// Repairs a log; one that is sound is left as it is. A newer format is an error, and left untouched.
pub fn repair(
    disk: &Arc<dyn Disk>,
    clock: &dyn Clock,
    layout: &Layout,
    options: &Options,
) -> WalResult<Repaired> {
    let look = |_: u64, _: u64| {};
    let unchanged =
        |found: Verified| Repaired { operations: found.operations, ..Repaired::default() };
    let found = verify(disk, layout, &look)?;
    if found.is_sound() {
        // Another repair may have been killed before it made that durable: its links, and the name of its manifest.
        if disk.exists(&layout.spool())? {
            disk.sync_dir(&layout.spool())?;
        }
        if disk.exists(layout.base())? {
            disk.sync_dir(layout.base())?;
        }
        return Ok(unchanged(found));
    }
    // In the order in which locks are taken. A drain loop keeps its own for long.
    let take = |name: LockName, timeout: Duration| -> WalResult<LockFile> {
        let mut lock = LockFile::open(&**disk, layout, name)?;
        lock.lock(&**disk, clock, timeout)?;
        Ok(lock)
    };
    let process = take(LockName::Process, options.lock_timeout.min(Duration::from_secs(1)))?;
    let checkpoint = take(LockName::Checkpoint, options.lock_timeout)?;
    let append = take(LockName::Append, options.lock_timeout)?;
    let sync = take(LockName::Sync, options.lock_timeout)?;
    // Nobody else writes now: one look tells.
    let found = look_at(disk, layout, &look, 1)?;
    let repaired = if found.is_sound() {
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
            // If this is killed, the next writer puts the journal in order first, and makes the manifest durable.
            note.at_work = true;
            note::write(append.file(), &note)?;
        }
        for directory in self.layout.directories() {
            // Their names are made durable before the manifest that needs them.
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
                self.lose(MANIFEST, None, &format!("it is missing; {ANEW}"));
                None
            }
            Err(WalError::Disk(error)) if error.is_medium_error() => {
                self.lose(MANIFEST, None, &format!("it cannot be read: {}; {ANEW}", error.source));
                None
            }
            Err(WalError::Damaged(damage)) => {
                self.lose(MANIFEST, None, &format!("{}; {ANEW}", damage.what));
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

    fn lose(&mut self, path: &str, range: Option<(u64, u64)>, what: &str) {
        self.report.losses.push(Loss { path: path.to_owned(), range, what: what.to_owned() });
    }

    fn write(
        mut self,
        manifest: Option<Manifest>,
        journal: &journal::Journal,
        plan: Plan,
        append: &LockFile,
        sync: &LockFile,
    ) -> WalResult<Repaired> {
        let Plan { kept, rows, damaged, ownerless, next_number, revision } = plan;
        self.report.rewritten = rows.len() as u64;
        let mut counter = self.highest_counter(manifest.as_ref())?;
        let added = self.stage(rows, &mut counter)?;
        let disk = &**self.disk;
        for file in &added {
            disk.rename(&self.layout.staged(&file.name), &self.layout.file(&file.name))?;
        }
        disk.sync_dir(&self.layout.partitions())?;
        disk.sync_dir(&self.layout.archives())?;
        // What a checkpoint would remove as no longer needed once the new manifest is there.
        let mut evidence = Vec::new();
        for generation in &journal.generations {
            evidence.push(self.layout.relative(&self.layout.generation(*generation)));
        }
        if manifest.is_none() && disk.exists(&self.layout.manifest())? {
            evidence.push(self.layout.relative(&self.layout.manifest()));
        }
        let mut copied = BTreeSet::new();
        for name in evidence {
            if self.copy_aside(&name)? {
                copied.insert(name);
            }
        }
        // In the repaired log checkpoints would remove it; until there is one, somebody may still need it where it is.
        let mut unlinked = Vec::new();
        let mut linked = Vec::new();
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
        let disk = &**self.disk;
        disk.sync_dir(&self.layout.quarantine())?;
        let noted = reader::noted_generations(disk, self.layout)?;
        let last = journal.generations.iter().chain(&noted).copied().max().unwrap_or(0);
        let generation =
            last.max(manifest.as_ref().map_or(0, |manifest| manifest.first_generation)) + 1;
        let now = self.clock.now();
        let header = Header {
            generation,
            previous: 0,
            previous_end: 0,
            revision,
            number: next_number,
            checksum: 0,
            created: now,
        };
        recover::create_generation(disk, self.layout, &header, &[])?;
        disk.sync_dir(&self.layout.journal())?;
        disk.sync_ancestors(self.layout.base())?;
        let mut files = kept;
        files.extend(added);
        self.report.operations = files.iter().map(FileEntry::live).sum();
        let mut replaced = Manifest::new(generation, now);
        (replaced.counter, replaced.revision, replaced.next_number) =
            (counter, revision, next_number);
        replaced.files = files;
        // Nothing that a new manifest names is old enough to be dropped before its owner has had a look at it.
        replaced.last_cleanup =
            manifest.as_ref().map_or(Some(now), |manifest| manifest.last_cleanup);
        if let Some(manifest) = manifest {
            replaced.originals = manifest.originals.map(|mut originals| {
                originals.adopted = true;
                originals
            });
            replaced.unread = manifest.unread;
        }
        replaced.commit(disk, self.layout)?;
        // From here on it is the repaired log.
        self.begin(&header, append, sync)?;
        let mut damaged = damaged;
        damaged.extend(unlinked);
        for name in linked {
            disk.remove_if_present(&self.layout.file(&name))?;
        }
        for generation in &journal.generations {
            let name = self.layout.relative(&self.layout.generation(*generation));
            if !copied.contains(&name) {
                damaged.push(name);
                continue;
            }
            // Its copy stands in `quarantine/`, and is durable.
            disk.remove_if_present(&self.layout.generation(*generation))?;
        }
        for name in damaged {
            let path = self.layout.file(&name);
            if self.disk.exists(&path)? {
                let target = self.free_name(&name)?;
                self.disk.rename(&path, &self.layout.file(&target))?;
                self.report.set_aside.push(target);
            }
        }
        // After a power cut they may have their old names again. Those are no part of the log, and the next checkpoint
        // sets them aside.
        self.report.losses.sort();
        self.report.losses.dedup();
        self.report.set_aside.sort();
        Ok(self.report)
    }

    /// Writes operations to files in `tmp/`, each flushed.
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

    /// A name in `quarantine/` that nothing has.
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

    /// Puts a durable copy of a file into `quarantine/`, unless one that is the same stands there already.
    fn copy_aside(&mut self, name: &str) -> WalResult<bool> {
        let path = self.layout.file(name);
        // A file with bad places is no copy of itself, and moves as it is; only the manifest is about to be replaced.
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
                // A repair that was killed has made it, and flushed it before it got this name.
                self.report.set_aside.push(earlier);
                return Ok(true);
            }
        }
        let staged = loop {
            let staged = self.layout.staged(&format!("repair-{:016x}", self.clock.random()));
            // One that was killed may have left something there.
            if !self.disk.exists(&staged)? {
                break staged;
            }
        };
        self.disk.write_new_synced(&staged, &bytes)?;
        self.disk.rename(&staged, &self.layout.file(&target))?;
        self.report.set_aside.push(target);
        Ok(true)
    }

    /// Notes that say where the repaired journal stands.
    fn begin(&self, header: &Header, append: &LockFile, sync: &LockFile) -> WalResult<()> {
        let identity = self.disk.identity();
        let position = crate::wal::journal::reader::Position::start_of(header);
        let synced = SyncNote {
            boot: identity.boot_id.clone(),
            generation: position.generation,
            synced: position.end,
            syncing: None,
            pid: identity.pid,
            command: "verify --repair".into(),
        };
        note::write(sync.file(), &synced)?;
        let noted = AppendNote {
            boot: identity.boot_id.clone(),
            at_work: false,
            generation: position.generation,
            end: position.end,
            last: position.last,
            checksum: position.checksum,
            number: position.number,
            revision: position.revision,
            pid: identity.pid,
            command: "verify --repair".into(),
            since: header.created,
        };
        Ok(note::write(append.file(), &noted)?)
    }
}
