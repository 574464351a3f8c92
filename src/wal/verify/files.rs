//! Checks Parquet files, several at a time: their bytes, their rows, and their figures in the
//! manifest.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::journal::Journal;
use super::{Finding, Verified, Verifier, into_finding};
use crate::disk::Disk;
use crate::operation::{Number, OperationId};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::{FileEntry, Manifest};
use crate::wal::schema::{Checked, LiveIds, Table};

/// Checks a file. Returns its figures and the wanted rows; damage is an error.
pub(in crate::wal) fn check(
    disk: &dyn Disk,
    layout: &Layout,
    file: &FileEntry,
    wanted: &HashSet<Number>,
    live_ids: LiveIds,
) -> WalResult<Checked> {
    let path = layout.file(&file.name);
    let table = Table::open(disk, &path, &file.sha256)?;
    let is_wanted = |number: Number| !wanted.is_empty() && wanted.contains(&number);
    let checked = table.check(file, is_wanted, live_ids)?;
    if let Some(first) = checked.problems.first() {
        return Err(WalError::damaged(
            path,
            None,
            format!("{} invalid rows; {first}", checked.invalid_rows),
        ));
    }
    if let Some(what) = disagreement(file, &checked) {
        return Err(WalError::damaged(path, None, what));
    }
    Ok(checked)
}

/// Returns the first contradiction between a file and its figures in the manifest.
fn disagreement(file: &FileEntry, checked: &Checked) -> Option<String> {
    fn differ<T: PartialEq + std::fmt::Debug>(what: &str, said: T, is: T) -> Option<String> {
        (said != is).then(|| format!("its {what} is {is:?}, but the manifest has {said:?}"))
    }
    differ("number of rows", file.rows, checked.rows)
        .or_else(|| differ("range of ids", Some(file.ids), checked.ids))
        .or_else(|| differ("range of numbers", Some(file.numbers), checked.numbers))
        .or_else(|| differ("range of revisions", Some(file.revisions), checked.revisions))
        .or_else(|| differ("range of times", Some(file.times), checked.times))
        .or_else(|| {
            (file.counts != checked.counts)
                .then(|| "its rows by status differ from the counts in the manifest".into())
        })
        .or_else(|| differ("number of keys", file.keys, checked.keys))
        .or_else(|| differ("number of rows with dependencies", file.dependents, checked.dependents))
        .or_else(|| differ("highest priority", file.priority, checked.priority))
        .or_else(|| differ("earliest due time", file.due, checked.due))
        .or_else(|| {
            let outside =
                file.superseded.iter().find(|n| *n < file.numbers.0 || *n > file.numbers.1);
            outside.map(|number| {
                format!(
                    "the manifest calls operation {number} superseded, which is not in its range"
                )
            })
        })
}

/// Returns the files whose range of numbers or ids overlaps that of another one: only these can
/// contain the same operation.
fn overlapping(files: &[FileEntry]) -> BTreeSet<usize> {
    fn of<T: Ord + Copy>(
        files: &[FileEntry],
        range: impl Fn(&FileEntry) -> (T, T),
        into: &mut BTreeSet<usize>,
    ) {
        let mut order: Vec<usize> = (0..files.len()).collect();
        order.sort_by_key(|at| range(&files[*at]).0);
        let mut furthest: Option<usize> = None;
        for at in order {
            if let Some(before) =
                furthest.filter(|before| range(&files[*before]).1 >= range(&files[at]).0)
            {
                into.extend([before, at]);
            }
            if furthest.is_none_or(|before| range(&files[before]).1 < range(&files[at]).1) {
                furthest = Some(at);
            }
        }
    }
    let mut found = BTreeSet::new();
    of(files, |file| file.numbers, &mut found);
    of(files, |file| file.ids, &mut found);
    found
}

/// Calls `each` for all files, on as many threads as there are processors. Returns the results in
/// order.
pub(super) fn on_threads<T: Send>(
    files: &[FileEntry],
    each: impl Fn(usize, &FileEntry) -> T + Sync,
) -> Vec<(usize, T)> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(files.len()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(at) else { return };
            let result = each(at, file);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results
}

impl Verifier<'_> {
    pub(super) fn files(
        &self,
        manifest: &Manifest,
        journal: &mut Journal,
        found: &mut Verified,
    ) -> WalResult<()> {
        let files = &manifest.files;
        self.names(manifest, found);
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        let overlapping = overlapping(files);
        let wanted = journal.numbers();
        let done = AtomicU64::new(0);
        let results = on_threads(files, |at, file| {
            let live_ids = if overlapping.contains(&at) { LiveIds::Collect } else { LiveIds::Skip };
            let checked = check(&**self.disk, self.layout, file, &wanted, live_ids);
            (self.progress)(done.fetch_add(file.bytes, Ordering::Relaxed) + file.bytes, total);
            checked
        });
        let mut live = Vec::new();
        for (at, checked) in results {
            let file = &files[at];
            match checked {
                Ok(mut checked) => {
                    found.operations += file.live();
                    found.bytes += file.bytes;
                    live.append(&mut checked.live);
                    journal.bases.extend(checked.wanted.into_iter().map(|row| (row.number, row)));
                    journal.spooled.append(&mut checked.spooled);
                    self.within_position(file, journal, found);
                }
                Err(error) => {
                    journal.has_all_bases = false;
                    found.findings.push(self.missing(error)?);
                }
            }
        }
        found.files = files.len() as u64;
        duplicates(live, found);
        Ok(())
    }

    /// Turns the error of a file into a finding. The manifest that names the file is still the
    /// current one.
    fn missing(&self, error: WalError) -> WalResult<Finding> {
        match error {
            WalError::Disk(error) if error.is_not_found() => {
                let what = "the manifest names it, but it is missing";
                Ok(Finding::damage(self.layout.relative(&error.path), None, what))
            }
            other => into_finding(self.layout, other),
        }
    }

    /// Checks the names of the files in the manifest.
    fn names(&self, manifest: &Manifest, found: &mut Verified) {
        let manifest_name = self.layout.relative(&self.layout.manifest());
        let mut names = BTreeSet::new();
        for file in &manifest.files {
            if !names.insert(&file.name) {
                found.findings.push(Finding::damage(
                    &manifest_name,
                    None,
                    format!("`{}` is named twice", file.name),
                ));
            }
            let counter = Layout::counter_of(&file.name);
            if counter.is_none_or(|counter| counter > manifest.counter) {
                let what =
                    format!("the counter is {}, but `{}` is named", manifest.counter, file.name);
                found.findings.push(Finding::damage(&manifest_name, None, what));
            }
            if Layout::is_in_archives(&file.name) != file.is_archive() {
                let what = format!("`{}` is in the wrong directory for its kind", file.name);
                found.findings.push(Finding::damage(&manifest_name, None, what));
            }
        }
    }

    /// Reports a file with a number or revision that the journal, read to its end, has not
    /// assigned.
    fn within_position(&self, file: &FileEntry, journal: &Journal, found: &mut Verified) {
        let Some(position) = journal.position else { return };
        if file.numbers.1 >= position.number || file.revisions.1 > position.revision {
            let what = format!(
                "it contains number {} and revision {}, but the journal ends at {} and {}",
                file.numbers.1,
                file.revisions.1,
                position.number.previous(),
                position.revision
            );
            found.findings.push(Finding::damage(&file.name, None, what));
        }
    }
}

/// Reports live operations that share a number or an id.
fn duplicates(mut live: Vec<(Number, OperationId)>, found: &mut Verified) {
    let mut report =
        |what: String| found.findings.push(Finding::damage("MANIFEST.json", None, what));
    live.sort();
    for pair in live.windows(2).filter(|pair| pair[0].0 == pair[1].0).take(10) {
        report(format!(
            "two files contain operation {}, and neither entry calls it superseded",
            pair[0].0
        ));
    }
    live.sort_by_key(|(_, id)| *id);
    for pair in
        live.windows(2).filter(|pair| pair[0].1 == pair[1].1 && pair[0].0 != pair[1].0).take(10)
    {
        report(format!(
            "operations {} and {} have the same id {}",
            pair[0].0, pair[1].0, pair[0].1
        ));
    }
}
