//! The rows of all files: valid files stay, and the readable rows of damaged ones are rewritten.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{ByteRange, Loss, Plan, READS, Read, Repair, read};
use crate::disk::{DiskError, FileKind};
use crate::operation::{Number, Operation, OperationId, Revision, State};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::{FileEntry, Manifest, NumberSet, sha256_hex};
use crate::wal::original;
use crate::wal::schema::{self, LiveIds, Spooled, Table};
use crate::wal::verify;

/// The first and the last bytes of every Parquet file.
const MAGIC: &[u8] = b"PAR1";

/// The rows of all files.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) plan: Plan,
    /// The live rows of files that stay.
    pub(super) live: HashMap<Number, OperationId>,
    /// The spooled content that they refer to.
    pub(super) spooled: Vec<Spooled>,
    /// The numbers of rows in lost or damaged files, each with the number of lost rows.
    pub(super) lost: Vec<(NumberSet, u64)>,
    /// The highest number and revision in any file.
    pub(super) highest: (Number, Revision),
}

impl Files {
    /// Records a number and a revision that a file contains.
    fn see(&mut self, number: Number, revision: Revision) {
        self.highest = (self.highest.0.max(number), self.highest.1.max(revision));
    }

    /// Adds a row to be rewritten; of two rows of one operation, the later one counts.
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

/// Returns the bytes of a Parquet file with its magic number restored if the first piece is
/// unreadable: the rest of that piece is not needed to read the others.
fn with_magic(mut read: Read) -> Vec<u8> {
    if read.bad.first().is_some_and(|(from, _)| *from == 0) && read.bytes.len() > MAGIC.len() {
        read.bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    }
    read.bytes
}

fn two_of_one_number(path: &str, row: &Operation) -> Loss {
    let what = format!(
        "two operations have number {}; the one with id {} is left out",
        row.number, row.id
    );
    Loss { path: path.to_owned(), range: None, what }
}

/// The valid files of a log without a manifest.
#[derive(Debug, Default)]
struct ValidFiles {
    entries: Vec<FileEntry>,
    /// The highest revision of each operation, and the index of the file that contains it.
    latest: HashMap<OperationId, (Revision, usize)>,
}

impl ValidFiles {
    fn add(&mut self, entry: FileEntry, rows: &[Operation]) {
        let file = self.entries.len();
        for row in rows {
            let latest = self.latest.entry(row.id).or_insert((row.revision, file));
            if latest.0 < row.revision {
                *latest = (row.revision, file);
            }
        }
        self.entries.push(entry);
    }
}

impl Repair<'_> {
    /// Reads the files that a manifest names.
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
        // An operation in two files is rewritten once.
        self.load(&mut files, &twice.into_iter().collect())?;
        self.listed_originals(manifest, &mut files)?;
        Ok(files)
    }

    /// Checks a file. Returns none if it is damaged or missing.
    fn check(&self, entry: &FileEntry) -> WalResult<Option<schema::Checked>> {
        for _ in 0..READS {
            match verify::files::check(
                &**self.disk,
                self.layout,
                entry,
                &HashSet::new(),
                LiveIds::Collect,
            ) {
                Ok(checked) => return Ok(Some(checked)),
                Err(error @ WalError::NewerFormat { .. }) => return Err(error),
                Err(WalError::Disk(error)) if error.is_medium_error() => {}
                Err(WalError::Disk(error)) if !error.is_not_found() => return Err(error.into()),
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Takes the readable rows of a damaged file.
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
                    self.lose(
                        &entry.name,
                        None,
                        &format!("the file cannot be read: {}", error.source),
                    );
                    schema::Salvaged::default()
                }
            };
            for schema::LostRows { range, rows, why } in salvaged.lost {
                let rows = if rows == 0 { entry.live() } else { rows };
                self.lose(
                    &entry.name,
                    Some(ByteRange { start: range.start, end: range.end }),
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
                        "a row with number {} is not one that the file contained",
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

    /// Adopts files of the original system that are still part of the log.
    fn listed_originals(&mut self, manifest: &Manifest, files: &mut Files) -> WalResult<()> {
        let Some(originals) = manifest.originals.as_ref().filter(|originals| !originals.adopted)
        else {
            return Ok(());
        };
        let mut existing = Vec::new();
        for file in &originals.files {
            match self.disk.exists(&self.layout.file(&file.name))? {
                true => existing.push(file.clone()),
                false => self.lose(&file.name, None, "the file of the original system is missing"),
            }
        }
        match original::read_listed(&**self.disk, self.layout, &existing) {
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

    /// Schedules the rows of these operations in files that stay to be rewritten.
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

    /// Reads all files that this program wrote, for a log without a manifest. Of rows with one id,
    /// the one with the highest revision counts.
    pub(super) fn found_files(&mut self) -> WalResult<Files> {
        let mut files = Files::default();
        let mut valid = ValidFiles::default();
        for path in self.parquet_files()? {
            self.found_file(&path, &mut files, &mut valid)?;
        }
        let ValidFiles { entries, latest } = valid;
        for (nth, mut entry) in entries.into_iter().enumerate() {
            let rows = Table::open(&**self.disk, &self.layout.file(&entry.name), &entry.sha256)?
                .read_all()?;
            let is_latest =
                |row: &&Operation| latest.get(&row.id).is_some_and(|(_, file)| *file == nth);
            entry
                .superseded
                .extend(rows.iter().filter(|row| !is_latest(row)).map(|row| row.number));
            entry.count_rows(rows.iter());
            if entry.live() == 0 {
                files.plan.damaged.push(entry.name);
                continue;
            }
            for row in rows.iter().filter(is_latest) {
                files.live.insert(row.number, row.id);
                files.spooled.extend(Spooled::of(row));
            }
            files.plan.kept.push(entry);
        }
        // Rows of damaged files that valid files contain as well are not needed.
        let salvaged: BTreeMap<Number, Operation> = std::mem::take(&mut files.plan.rows);
        let is_later = |row: &Operation| {
            latest.get(&row.id).is_none_or(|(revision, _)| *revision < row.revision)
        };
        let (rows, known): (BTreeMap<_, _>, BTreeMap<_, _>) =
            salvaged.into_iter().partition(|(_, row)| is_later(row));
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

    /// Reads one file. A valid one may stay; the readable rows of a damaged one are rewritten.
    fn found_file(
        &mut self,
        path: &Path,
        files: &mut Files,
        valid: &mut ValidFiles,
    ) -> WalResult<()> {
        let name = self.layout.relative(path);
        let bytes = match read(&**self.disk, path)? {
            Ok(read) => with_magic(read),
            Err(error) => {
                self.lose(&name, None, &format!("the file cannot be read: {}", error.source));
                return Ok(());
            }
        };
        let sha256 = sha256_hex(&bytes);
        let salvaged = schema::salvage(path, &Bytes::from(bytes.clone()))?;
        if !salvaged.is_ours && !Layout::is_numbered(&name) {
            self.lose(&name, None, "another program wrote the file; it is left in place");
            return Ok(());
        }
        let is_archive = Layout::is_in_archives(&name);
        let completed_at = |row: &Operation| match &row.state {
            State::Completed { at, .. } => Some(*at),
            _ => None,
        };
        let day = salvaged.rows.first().and_then(completed_at).filter(|_| is_archive);
        let is_of_day =
            |row: &Operation| completed_at(row).map(|at| at.day()) == day.map(|at| at.day());
        let opens = match Table::open(&**self.disk, path, &sha256) {
            Err(WalError::Disk(error)) if !error.is_medium_error() => return Err(error.into()),
            opened => opened.is_ok(),
        };
        let is_valid = salvaged.lost.is_empty()
            && !salvaged.rows.is_empty()
            && opens
            && salvaged.rows.windows(2).all(|pair| pair[0].id < pair[1].id)
            && Layout::counter_of(&name).is_some()
            && (!is_archive || salvaged.rows.iter().all(is_of_day));
        if is_valid
            && let Some(entry) = FileEntry::describe(name.clone(), day, &salvaged.rows, &bytes)
        {
            files.see(entry.numbers.1, entry.revisions.1);
            valid.add(entry, &salvaged.rows);
            return Ok(());
        }
        for schema::LostRows { range, rows, why } in salvaged.lost {
            let rows = if rows == 0 { "its".to_owned() } else { rows.to_string() };
            let what = format!("{rows} rows are lost: {why}");
            self.lose(&name, Some(ByteRange { start: range.start, end: range.end }), &what);
        }
        for row in salvaged.rows {
            self.report.doubtful.insert(row.number);
            files.take(row, &mut self.report.losses, &name);
        }
        files.plan.damaged.push(name);
        Ok(())
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
