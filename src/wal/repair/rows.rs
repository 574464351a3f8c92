//! The rows of all files: of those that are as the manifest says, which stay, and what can be read of the others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use bytes::Bytes;

use super::{Loss, Plan, READS, Read, Repair, read};
use crate::disk::{DiskError, FileKind};
use crate::operation::{Number, Operation, OperationId, Revision, State};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::{FileEntry, Manifest, NumberSet, sha256_hex};
use crate::wal::original;
use crate::wal::schema::{self, Spooled, Table};
use crate::wal::verify;

/// What every Parquet file begins and ends with.
const MAGIC: &[u8] = b"PAR1";

/// Everything that files tell.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) plan: Plan,
    /// Live rows of files that stay: where each is.
    pub(super) live: HashMap<Number, OperationId>,
    /// Of those, what needs content in the spool.
    pub(super) spooled: Vec<Spooled>,
    /// Numbers that rows of lost or damaged files had, each with how many rows are lost.
    pub(super) lost: Vec<(NumberSet, u64)>,
    /// The highest number and revision in any file.
    pub(super) highest: (Number, Revision),
}

impl Files {
    fn see(&mut self, number: Number, revision: Revision) {
        self.highest = (self.highest.0.max(number), self.highest.1.max(revision));
    }

    /// Takes a row that is to be written anew; of two of one operation the later one.
    fn take(&mut self, row: Operation, losses: &mut Vec<Loss>, from: &str) {
        self.see(row.number, row.revision);
        match self.plan.rows.get(&row.number) {
            Some(there) if there.revision >= row.revision => {
                if there.id != row.id {
                    losses.push(two_of_one_number(from, &row));
                }
            }
            there => {
                losses.extend(
                    there
                        .filter(|there| there.id != row.id)
                        .map(|there| two_of_one_number(from, there)),
                );
                self.plan.rows.insert(row.number, row);
            }
        }
    }
}

/// The bytes of a Parquet file, beginning as they all do, if that cannot be read: nobody needs the rest of the first
/// piece to read what stands in others.
fn with_magic(mut read: Read) -> Vec<u8> {
    if read.bad.first().is_some_and(|(from, _)| *from == 0) && read.bytes.len() > MAGIC.len() {
        read.bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    }
    read.bytes
}

fn two_of_one_number(path: &str, row: &Operation) -> Loss {
    let what = format!(
        "two operations have number {}; the one with the id {} stays out",
        row.number, row.id
    );
    Loss { path: path.to_owned(), range: None, what }
}

impl Repair<'_> {
    /// The files that a manifest names.
    pub(super) fn named_files(&mut self, manifest: &Manifest) -> WalResult<Files> {
        let mut files = Files::default();
        let mut names = BTreeSet::new();
        let mut twice = Vec::new();
        for entry in manifest.files.iter().filter(|entry| names.insert(&entry.name)) {
            files.see(entry.numbers.1, entry.revisions.1);
            match self.check(entry)? {
                Some(checked) => {
                    for (number, id) in checked.live {
                        if files.live.insert(number, id).is_some() {
                            twice.push(number);
                        }
                    }
                    files.spooled.extend(checked.spooled);
                    files.plan.kept.push(entry.clone());
                }
                None => self.damaged_file(entry, &mut files)?,
            }
        }
        // What stands in two files is written anew, once.
        self.load(&mut files, &twice.into_iter().collect())?;
        self.listed_originals(manifest, &mut files)?;
        Ok(files)
    }

    /// What a file holds; none if it is damaged or missing.
    fn check(&self, entry: &FileEntry) -> WalResult<Option<schema::Checked>> {
        for _ in 0..READS {
            match verify::files::check(&**self.disk, self.layout, entry, &HashSet::new(), true) {
                Ok(checked) => return Ok(Some(checked)),
                Err(error @ WalError::NewerFormat { .. }) => return Err(error),
                Err(WalError::Disk(error)) if error.is_medium_error() => {}
                Err(WalError::Disk(error)) if !error.is_not_found() => return Err(error.into()),
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    fn damaged_file(&mut self, entry: &FileEntry, files: &mut Files) -> WalResult<()> {
        let path = self.layout.file(&entry.name);
        let read = read(&**self.disk, &path)?;
        let missing = read.as_ref().is_err_and(DiskError::is_not_found);
        let mut found: BTreeSet<Number> = BTreeSet::new();
        if missing {
            self.lose(&entry.name, None, "the file is missing");
        } else {
            let is_whole;
            let salvaged = match read {
                Ok(read) => {
                    let bytes = with_magic(read);
                    is_whole = sha256_hex(&bytes) == entry.sha256;
                    schema::salvage(&path, &Bytes::from(bytes))?
                }
                Err(error) => {
                    is_whole = false;
                    self.lose(&entry.name, None, &format!("it cannot be read: {}", error.source));
                    schema::Salvaged::default()
                }
            };
            for (range, rows, why) in salvaged.lost {
                let rows = if rows == 0 { entry.live() } else { rows };
                self.lose(
                    &entry.name,
                    Some((range.start, range.end)),
                    &format!("{rows} rows are lost: {why}"),
                );
            }
            for row in salvaged.rows {
                let fits = entry.numbers.0 <= row.number
                    && row.number <= entry.numbers.1
                    && entry.ids.0 <= row.id
                    && row.id <= entry.ids.1
                    && row.revision <= entry.revisions.1;
                if !fits && !is_whole {
                    let what = format!(
                        "a row with number {} is not one of those that it held",
                        row.number
                    );
                    self.lose(&entry.name, None, &what);
                    continue;
                }
                if entry.superseded.contains(row.number) {
                    continue;
                }
                if !is_whole {
                    self.report.doubtful.insert(row.number);
                }
                found.insert(row.number);
                files.take(row, &mut self.report.losses, &entry.name);
            }
            files.plan.damaged.push(entry.name.clone());
        }
        let rows_lost = entry.live().saturating_sub(found.len() as u64);
        if rows_lost > 0 {
            let numbers =
                entry.numbers.0.through(entry.numbers.1).filter(|number| {
                    !entry.superseded.contains(*number) && !found.contains(number)
                });
            files.lost.push((numbers.collect(), rows_lost));
        }
        Ok(())
    }

    /// Files of the original system that are still a part of the log: they are adopted by the way.
    fn listed_originals(&mut self, manifest: &Manifest, files: &mut Files) -> WalResult<()> {
        let Some(originals) = manifest.originals.as_ref().filter(|originals| !originals.adopted)
        else {
            return Ok(());
        };
        let mut there = Vec::new();
        for file in &originals.files {
            match self.disk.exists(&self.layout.file(&file.name))? {
                true => there.push(file.clone()),
                false => self.lose(&file.name, None, "the file of the original system is missing"),
            }
        }
        match original::read_listed(&**self.disk, self.layout, &there) {
            Ok(rows) => {
                for (row, _) in rows.into_operations() {
                    files.take(row, &mut self.report.losses, "partitions");
                }
            }
            Err(WalError::Disk(error)) if !error.is_medium_error() => return Err(error.into()),
            Err(error) => {
                self.lose("partitions", None, &format!("files of the original system: {error}"))
            }
        }
        Ok(())
    }

    /// Makes the rows of these operations, in files that stay, rows to be written anew.
    pub(super) fn load(&mut self, files: &mut Files, wanted: &HashSet<Number>) -> WalResult<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        for mut entry in std::mem::take(&mut files.plan.kept) {
            if !wanted.iter().any(|number| entry.may_hold_number(*number)) {
                files.plan.kept.push(entry);
                continue;
            }
            let table = Table::open(&**self.disk, &self.layout.file(&entry.name), &entry.sha256)?;
            let rows = table.read_all()?;
            let moved: Vec<Operation> = rows
                .iter()
                .filter(|row| {
                    wanted.contains(&row.number) && !entry.superseded.contains(row.number)
                })
                .cloned()
                .collect();
            entry.superseded.extend(moved.iter().map(|row| row.number));
            entry.count_rows(rows.iter());
            for row in moved {
                files.live.remove(&row.number);
                files.take(row, &mut self.report.losses, &entry.name);
            }
            match entry.live() {
                0 => files.plan.damaged.push(entry.name),
                _ => files.plan.kept.push(entry),
            }
        }
        Ok(())
    }

    /// Without a manifest: all files of ours that are there. Of rows of one id the one with the highest revision counts.
    pub(super) fn found_files(&mut self) -> WalResult<Files> {
        let mut files = Files::default();
        let mut best: HashMap<OperationId, (Revision, usize)> = HashMap::new();
        let mut entries = Vec::new();
        for path in self.parquet_files()? {
            let name = self.layout.relative(&path);
            let bytes = match read(&**self.disk, &path)? {
                Ok(read) => with_magic(read),
                Err(error) => {
                    self.lose(&name, None, &format!("it cannot be read: {}", error.source));
                    continue;
                }
            };
            let sha256 = sha256_hex(&bytes);
            let salvaged = schema::salvage(&path, &Bytes::from(bytes.clone()))?;
            if !salvaged.is_ours && !Layout::is_numbered(&name) {
                self.lose(&name, None, "another program made it; it stays where it is");
                continue;
            }
            let is_archive = Layout::is_in_archives(&name);
            let completed = |row: &Operation| match &row.state {
                State::Completed { at, .. } => Some(*at),
                _ => None,
            };
            let day = salvaged.rows.first().and_then(completed).filter(|_| is_archive);
            let opens = match Table::open(&**self.disk, &path, &sha256) {
                Err(WalError::Disk(error)) if !error.is_medium_error() => return Err(error.into()),
                opened => opened.is_ok(),
            };
            let is_sound = salvaged.lost.is_empty()
                && !salvaged.rows.is_empty()
                && opens
                && salvaged.rows.windows(2).all(|pair| pair[0].id < pair[1].id)
                && Layout::counter_of(&name).is_some()
                && (!is_archive
                    || salvaged
                        .rows
                        .iter()
                        .all(|row| completed(row).map(|at| at.day()) == day.map(|at| at.day())));
            if is_sound
                && let Some(entry) = FileEntry::describe(name.clone(), day, &salvaged.rows, &bytes)
            {
                for row in &salvaged.rows {
                    let there = best.entry(row.id).or_insert((row.revision, entries.len()));
                    if there.0 < row.revision {
                        *there = (row.revision, entries.len());
                    }
                }
                files.see(entry.numbers.1, entry.revisions.1);
                entries.push(entry);
                continue;
            }
            for (range, rows, why) in salvaged.lost {
                let rows = if rows == 0 { "its".to_owned() } else { rows.to_string() };
                self.lose(
                    &name,
                    Some((range.start, range.end)),
                    &format!("{rows} rows are lost: {why}"),
                );
            }
            for row in salvaged.rows {
                self.report.doubtful.insert(row.number);
                files.take(row, &mut self.report.losses, &name);
            }
            files.plan.damaged.push(name);
        }
        for (nth, mut entry) in entries.into_iter().enumerate() {
            let rows = Table::open(&**self.disk, &self.layout.file(&entry.name), &entry.sha256)?
                .read_all()?;
            let is_best =
                |row: &&Operation| best.get(&row.id).is_some_and(|(_, file)| *file == nth);
            entry.superseded.extend(rows.iter().filter(|row| !is_best(row)).map(|row| row.number));
            entry.count_rows(rows.iter());
            if entry.live() == 0 {
                files.plan.damaged.push(entry.name);
                continue;
            }
            for row in rows.iter().filter(is_best) {
                files.live.insert(row.number, row.id);
                files.spooled.extend(Spooled::of(row));
            }
            files.plan.kept.push(entry);
        }
        // Rows of damaged files that sound ones hold as well.
        let doubled: BTreeMap<Number, Operation> = std::mem::take(&mut files.plan.rows);
        let later = |row: &Operation| {
            best.get(&row.id).is_none_or(|(revision, _)| *revision < row.revision)
        };
        let (rows, known): (BTreeMap<_, _>, BTreeMap<_, _>) =
            doubled.into_iter().partition(|(_, row)| later(row));
        let doubtful: Vec<Number> =
            self.report.doubtful.iter().filter(|number| !known.contains_key(number)).collect();
        self.report.doubtful = doubtful.into_iter().collect();
        let replaced: HashSet<Number> =
            rows.keys().copied().filter(|number| files.live.contains_key(number)).collect();
        self.load(&mut files, &replaced)?;
        for (_, row) in rows {
            files.take(row, &mut self.report.losses, "partitions");
        }
        Ok(files)
    }

    fn parquet_files(&self) -> WalResult<Vec<PathBuf>> {
        let mut found = Vec::new();
        for directory in [self.layout.partitions(), self.layout.archives()] {
            for entry in self.disk.list(&directory)? {
                let name = entry.name.to_string_lossy();
                if entry.kind != FileKind::Directory && Layout::is_parquet(&name) {
                    found.push(directory.join(&entry.name));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}
