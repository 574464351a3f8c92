//! Parquet files, several at a time: bytes, rows, and what the manifest says of them.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::journal::Journal;
use super::{Finding, Look, Verified, into_finding};
use crate::disk::Disk;
use crate::operation::{Number, OperationId};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::{FileEntry, Manifest};
use crate::wal::schema::{Checked, Table};

/// The rows of a file, or what is wrong with it.
pub(in crate::wal) fn check(
    disk: &dyn Disk,
    layout: &Layout,
    file: &FileEntry,
    wanted: &HashSet<Number>,
    keep: bool,
) -> WalResult<Checked> {
    let path = layout.file(&file.name);
    let table = Table::open(disk, &path, &file.sha256)?;
    let is_wanted = |number: Number| !wanted.is_empty() && wanted.contains(&number);
    let checked = table.check(file, is_wanted, keep)?;
    if let Some(first) = checked.problems.first() {
        return Err(WalError::damaged(
            path,
            None,
            format!("{} of its rows are wrong; {first}", checked.wrong),
        ));
    }
    if let Some(what) = disagreement(file, &checked) {
        return Err(WalError::damaged(path, None, what));
    }
    Ok(checked)
}

/// What the manifest says of a file that is not so.
fn disagreement(file: &FileEntry, checked: &Checked) -> Option<String> {
    fn differ<T: PartialEq + std::fmt::Debug>(what: &str, said: T, is: T) -> Option<String> {
        (said != is)
            .then(|| format!("the manifest says that its {what} is {said:?}, but it is {is:?}"))
    }
    differ("number of rows", file.rows, checked.rows)
        .or_else(|| differ("range of ids", Some(file.ids), checked.ids))
        .or_else(|| differ("range of numbers", Some(file.numbers), checked.numbers))
        .or_else(|| differ("range of revisions", Some(file.revisions), checked.revisions))
        .or_else(|| differ("range of times", Some(file.times), checked.times))
        .or_else(|| {
            (file.counts != checked.counts)
                .then(|| "the manifest counts its rows differently".into())
        })
        .or_else(|| differ("count of keys", file.keys, checked.keys))
        .or_else(|| differ("count of waiting rows", file.dependents, checked.dependents))
        .or_else(|| differ("highest priority", file.priority, checked.priority))
        .or_else(|| differ("earliest time", file.due, checked.due))
        .or_else(|| {
            let outside =
                file.superseded.iter().find(|n| *n < file.numbers.0 || *n > file.numbers.1);
            outside.map(|number| {
                format!("the manifest calls operation {number} superseded, which it never held")
            })
        })
}

/// The files whose range of numbers or ids overlaps that of another: only those can hold something twice.
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

/// What comes of each file, on as many threads as there are processors.
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

impl Look<'_> {
    pub(super) fn files(
        &self,
        manifest: &Manifest,
        journal: &mut Journal,
        found: &mut Verified,
    ) -> WalResult<()> {
        let files = &manifest.files;
        self.names(manifest, found);
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        let keep = overlapping(files);
        let wanted = journal.numbers();
        let done = AtomicU64::new(0);
        let results = on_threads(files, |at, file| {
            let checked = check(&**self.disk, self.layout, file, &wanted, keep.contains(&at));
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
        twice(live, found);
        Ok(())
    }

    /// A file that is not there although the manifest still is the one that names it.
    fn missing(&self, error: WalError) -> WalResult<Finding> {
        match error {
            WalError::Disk(error) if error.is_not_found() => {
                let what = "the manifest names it, but it is missing";
                Ok(Finding::damage(self.layout.relative(&error.path), None, what))
            }
            other => into_finding(self.layout, other),
        }
    }

    fn names(&self, manifest: &Manifest, found: &mut Verified) {
        let manifest_name = self.layout.relative(&self.layout.manifest());
        let mut names = BTreeSet::new();
        for file in &manifest.files {
            if !names.insert(&file.name) {
                found.findings.push(Finding::damage(
                    &manifest_name,
                    None,
                    format!("it names `{}` twice", file.name),
                ));
            }
            let counter = Layout::counter_of(&file.name);
            if counter.is_none_or(|counter| counter > manifest.counter) {
                let what =
                    format!("its counter is {}, but it names `{}`", manifest.counter, file.name);
                found.findings.push(Finding::damage(&manifest_name, None, what));
            }
            if Layout::is_in_archives(&file.name) != file.is_archive() {
                let what = format!("`{}` is in the wrong folder for what it says of it", file.name);
                found.findings.push(Finding::damage(&manifest_name, None, what));
            }
        }
    }

    /// No file holds a number or revision that the journal, read to its end, has not given yet.
    fn within_position(&self, file: &FileEntry, journal: &Journal, found: &mut Verified) {
        let Some(position) = journal.position else { return };
        if file.numbers.1 >= position.number || file.revisions.1 > position.revision {
            let what = format!(
                "it holds number {} and revision {}, but the journal has given none beyond {} and {}",
                file.numbers.1,
                file.revisions.1,
                position.number.previous(),
                position.revision
            );
            found.findings.push(Finding::damage(&file.name, None, what));
        }
    }
}

fn twice(mut live: Vec<(Number, OperationId)>, found: &mut Verified) {
    let mut tell = |what: String| found.findings.push(Finding::damage("MANIFEST.json", None, what));
    live.sort();
    for pair in live.windows(2).filter(|pair| pair[0].0 == pair[1].0).take(10) {
        tell(format!(
            "two files hold operation {}, and it says of neither that it is superseded",
            pair[0].0
        ));
    }
    live.sort_by_key(|(_, id)| *id);
    for pair in
        live.windows(2).filter(|pair| pair[0].1 == pair[1].1 && pair[0].0 != pair[1].0).take(10)
    {
        tell(format!("operations {} and {} have the same id {}", pair[0].0, pair[1].0, pair[0].1));
    }
}
