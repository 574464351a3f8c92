//! Checks every byte and every cross-reference of a log. Changes nothing and takes no lock.
//!
//! The manifest, the journal up to its end, and the files are read as of one moment. If damage is
//! found and the manifest has been replaced meanwhile, a checkpoint was running, and the check
//! starts over.

pub(super) mod files;
mod journal;
mod spool;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile, DiskResult, FileKind, Metadata};
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::journal::note::{self, AppendNote, HolderNote, SyncNote};
use crate::wal::layout::{Layout, LockName};
use crate::wal::manifest::{Manifest, sha256_hex};
use crate::wal::original;
use crate::wal::read::view::View;

/// Attempts at a check before its result counts although the log keeps changing.
const ATTEMPTS: usize = 20;

/// The largest number of unnamed files that are reported one by one.
const REPORTED_MAX: usize = 100;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FindingKind {
    /// Data that was durable can no longer be read, or contradicts other data.
    Damage,
    /// Not damage, but worth knowing.
    Note,
}

impl FindingKind {
    /// All kinds.
    pub const ALL: [FindingKind; 2] = [FindingKind::Damage, FindingKind::Note];

    /// Returns the word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::Damage => "damage",
            FindingKind::Note => "note",
        }
    }
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Finding {
    /// Its severity.
    pub kind: FindingKind,
    /// The file, relative to the log.
    pub path: String,
    /// The first byte concerned, if it is known.
    pub offset: Option<u64>,
    /// The finding itself.
    pub what: String,
    /// The next step for the user.
    pub advice: String,
}

pub(super) const REPAIR: &str = "run `wal-cli verify --repair`, or restore the file from a backup";
const NOTHING: &str = "no action is needed";
const CHECKPOINT: &str = "the next checkpoint sets it aside";
const NEXT_CHECKPOINT: &str = "the next checkpoint removes it";
/// A file that this program did not create.
const FOREIGN: &str = "not a file of this log";

impl Finding {
    pub(super) fn damage(
        path: impl Into<String>,
        offset: Option<u64>,
        what: impl Into<String>,
    ) -> Finding {
        let (path, what) = (path.into(), what.into());
        Finding { kind: FindingKind::Damage, path, offset, what, advice: REPAIR.into() }
    }

    fn note(
        path: impl Into<String>,
        offset: Option<u64>,
        what: impl Into<String>,
        advice: &str,
    ) -> Finding {
        Finding {
            kind: FindingKind::Note,
            path: path.into(),
            offset,
            what: what.into(),
            advice: advice.into(),
        }
    }

    fn of(layout: &Layout, damage: &Damage) -> Finding {
        Finding::damage(layout.relative(&damage.path), damage.offset, damage.what.clone())
    }
}

/// The outcome of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// True if the log exists.
    pub exists: bool,
    /// The number of operations.
    pub operations: u64,
    /// The number of Parquet files.
    pub files: u64,
    /// The number of journal generations.
    pub generations: u64,
    /// The bytes read of files and journal.
    pub bytes: u64,
    /// All findings, damage first.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// Returns true if there is no damage.
    pub fn is_valid(&self) -> bool {
        self.damages().next().is_none()
    }

    /// Returns the findings that are damage.
    pub fn damages(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.kind == FindingKind::Damage)
    }
}

/// Receives the bytes checked so far, and the total.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Checks a log. Damage is part of the result; fails if the format is newer than this program.
pub fn verify(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    progress: Progress<'_>,
) -> WalResult<Verified> {
    verify_repeatedly(disk, layout, progress, 3)
}

/// Checks a log; damage counts after `attempts_min` attempts with an unchanged manifest.
pub(super) fn verify_repeatedly(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    progress: Progress<'_>,
    attempts_min: usize,
) -> WalResult<Verified> {
    let mut attempt = 1;
    loop {
        let verifier = Verifier { disk, layout, progress };
        let seen = verifier.manifest_metadata()?;
        let result = verifier.run();
        let last = attempt == ATTEMPTS;
        match result {
            // A write in progress may look like damage, so the log is checked again.
            Ok(found)
                if found.is_valid()
                    || last
                    || (attempt >= attempts_min && verifier.manifest_metadata()? == seen) =>
            {
                return Ok(found);
            }
            Ok(_) => {}
            Err(error) if error.is_vanished() && !last => {}
            Err(error) => return Err(error),
        }
        attempt += 1;
    }
}

/// Decodes the files of a log into Arrow batches, on as many threads as a check uses, as a baseline
/// for benchmarks. Returns the number of rows.
#[cfg(feature = "cli")]
pub fn decode_files(disk: &Arc<dyn Disk>, layout: &Layout) -> WalResult<u64> {
    let manifest = Manifest::load(&**disk, layout)?;
    let files = manifest.map(|manifest| manifest.files).unwrap_or_default();
    let results = files::on_threads(&files, |_, file| {
        crate::wal::schema::count_rows(&**disk, &layout.file(&file.name))
    });
    results.into_iter().map(|(_, rows)| rows).sum()
}

struct Verifier<'a> {
    disk: &'a Arc<dyn Disk>,
    layout: &'a Layout,
    progress: Progress<'a>,
}

/// Turns an error into a finding, unless the log is not at fault.
fn into_finding(layout: &Layout, error: WalError) -> WalResult<Finding> {
    match error {
        WalError::Damaged(damage) => Ok(Finding::of(layout, &damage)),
        WalError::NotOurs { path, what } => Ok(Finding::damage(layout.relative(&path), None, what)),
        WalError::Disk(error) if error.is_medium_error() => Ok(Finding::damage(
            layout.relative(&error.path),
            None,
            format!("the file cannot be read: {}", error.source),
        )),
        other => Err(other),
    }
}

impl Verifier<'_> {
    fn manifest_metadata(&self) -> WalResult<Option<Metadata>> {
        match self.disk.metadata(&self.layout.manifest()) {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn run(&self) -> WalResult<Verified> {
        let mut found = Verified::default();
        // Files are listed before the manifest is read: one that the manifest does not name is then
        // a leftover, not the work of another process.
        let present = self.present()?;
        let manifest = match Manifest::load(&**self.disk, self.layout) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => {
                self.without_manifest(&mut found)?;
                self.leftovers(&mut found, &present, &Manifest::new(0, Default::default()))?;
                return Ok(finished(found));
            }
            Err(error) => {
                found.exists = true;
                found.findings.push(into_finding(self.layout, error)?);
                return Ok(finished(found));
            }
        };
        found.exists = true;
        let mut journal = self.journal(&manifest, &mut found)?;
        self.files(&manifest, &mut journal, &mut found)?;
        self.originals(&manifest, &mut journal, &mut found)?;
        journal.apply(&mut found);
        self.spool(&journal, &mut found)?;
        self.leftovers(&mut found, &present, &manifest)?;
        Ok(finished(found))
    }

    /// Checks a directory without a manifest, which is a log only if it contains other files of
    /// one.
    fn without_manifest(&self, found: &mut Verified) -> WalResult<()> {
        match View::open((*self.disk).clone(), self.layout.clone()) {
            Ok(view) => {
                found.exists = view.exists();
                found.operations = view.counts().values().sum();
                found.findings.extend(view.damage().map(|damage| Finding::of(self.layout, damage)));
                if let Some(rows) = view.original_rows() {
                    found.files = rows.names().len() as u64;
                    let what =
                        "written by the original system; the first command that writes adopts them";
                    found.findings.push(Finding::note("partitions", None, what, NOTHING));
                }
            }
            Err(error) => {
                found.exists = true;
                found.findings.push(into_finding(self.layout, error)?);
            }
        }
        Ok(())
    }

    /// Checks files of the original system that are still part of the log.
    fn originals(
        &self,
        manifest: &Manifest,
        journal: &mut journal::Journal,
        found: &mut Verified,
    ) -> WalResult<()> {
        for unread in &manifest.unread {
            let what = format!("not understood during adoption: {}", unread.what);
            found.findings.push(Finding::note(
                &unread.name,
                unread.offset,
                what,
                "see docs/adoption.md",
            ));
        }
        let Some(originals) = manifest.originals.as_ref().filter(|originals| !originals.adopted)
        else {
            return Ok(());
        };
        for file in &originals.files {
            match self.disk.read(&self.layout.file(&file.name)) {
                Ok(bytes) if sha256_hex(&bytes) == file.sha256 => found.bytes += file.bytes,
                Ok(_) => {
                    let what = "changed by the original system since it was listed";
                    let advice = "stop the original system; the next command that writes adopts \
                                  the current files";
                    found.findings.push(Finding::note(&file.name, None, what, advice));
                }
                Err(error) if error.is_not_found() => {
                    found.findings.push(Finding::damage(
                        &file.name,
                        None,
                        "the manifest lists it, but it is missing",
                    ));
                }
                Err(error) => found.findings.push(into_finding(self.layout, error.into())?),
            }
        }
        found.files += originals.files.len() as u64;
        if let Ok(rows) = original::read_listed(&**self.disk, self.layout, &originals.files) {
            found.operations += rows.count();
            journal.bases.extend(rows.operations().iter().map(|row| (row.number, row.clone())));
        }
        Ok(())
    }

    /// Returns all files in the log's directories.
    fn present(&self) -> WalResult<BTreeSet<String>> {
        let mut present = BTreeSet::new();
        for directory in [
            self.layout.partitions(),
            self.layout.archives(),
            self.layout.tmp(),
            self.layout.quarantine(),
        ] {
            let entries = match self.disk.list(&directory) {
                Ok(entries) => entries,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            let files = entries.iter().filter(|entry| entry.kind != FileKind::Directory);
            present.extend(files.map(|entry| self.layout.relative(&directory.join(&entry.name))));
        }
        Ok(present)
    }

    /// Reports leftovers, files in quarantine, and the notes of lock files.
    fn leftovers(
        &self,
        found: &mut Verified,
        present: &BTreeSet<String>,
        manifest: &Manifest,
    ) -> WalResult<()> {
        let originals =
            manifest.originals.iter().flat_map(|originals| &originals.files).map(|file| &file.name);
        let named: BTreeSet<&String> =
            manifest.files.iter().map(|file| &file.name).chain(originals).collect();
        let mut quarantined = 0u64;
        let mut reported = 0;
        for name in present.iter().filter(|name| !named.contains(name)) {
            let path = self.layout.file(name);
            if path.starts_with(self.layout.quarantine()) {
                quarantined += 1;
                continue;
            }
            if !found.exists || reported == REPORTED_MAX || !self.disk.exists(&path)? {
                continue;
            }
            reported += 1;
            let (what, advice) = match path.starts_with(self.layout.tmp()) {
                true => ("staged by a process that is still at work, or has died", CHECKPOINT),
                false => (
                    "no manifest names it: a batch in progress, or a leftover of an abandoned one",
                    CHECKPOINT,
                ),
            };
            found.findings.push(Finding::note(name, None, what, advice));
        }
        if quarantined > 0 {
            let what = format!("files set aside: {quarantined}; the log does not need them");
            found.findings.push(Finding::note(
                "quarantine",
                None,
                what,
                "inspect them, then remove them",
            ));
        }
        for name in [LockName::Process, LockName::Checkpoint, LockName::Append, LockName::Sync] {
            self.lock_note(found, name)?;
        }
        Ok(())
    }

    fn lock_note(&self, found: &mut Verified, name: LockName) -> WalResult<()> {
        let file_name = name.file_name();
        let file = match self.disk.open(&self.layout.lock(name), Access::Read) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => {
                let is_optional = matches!(name, LockName::Process | LockName::Checkpoint);
                if found.exists && !is_optional {
                    let what = "missing: it was removed, which must not happen while a writer runs";
                    found.findings.push(Finding::note(
                        file_name,
                        None,
                        what,
                        "the next writer creates it",
                    ));
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match self.describe_note(name, &*file) {
            Ok(note) => found
                .findings
                .extend(note.map(|what| Finding::note(file_name, None, what, NOTHING))),
            Err(error) => found.findings.push(into_finding(self.layout, error.into())?),
        }
        Ok(())
    }

    /// Describes the note in a lock file.
    fn describe_note(&self, name: LockName, file: &dyn DiskFile) -> DiskResult<Option<String>> {
        Ok(match name {
            LockName::Append => note::read(file)?.map(|note: AppendNote| {
                let at_work = if note.at_work { ", and has not finished" } else { "" };
                format!(
                    "last written by pid {} (`{}`) at {}{at_work}: generation {} ends at byte {}",
                    note.pid, note.command, note.since, note.generation, note.end
                )
            }),
            LockName::Sync => note::read(file)?.map(|note: SyncNote| {
                let syncing = note
                    .syncing
                    .map(|to| format!(", a flush up to byte {to} has not finished"))
                    .unwrap_or_default();
                format!(
                    "generation {} is synced up to byte {}{syncing}",
                    note.generation, note.synced
                )
            }),
            LockName::Process | LockName::Checkpoint => {
                note::read(file)?.map(|note: HolderNote| {
                    let alive = match note.boot == self.disk.identity().boot_id
                        && self.disk.is_alive(note.pid, note.started)
                    {
                        true => "holds it",
                        false => "held it and has died",
                    };
                    format!("pid {} (`{}`) {alive}, since {}", note.pid, note.command, note.since)
                })
            }
        })
    }
}

/// Sorts the findings.
fn finished(mut found: Verified) -> Verified {
    found.findings.sort();
    found.findings.dedup();
    found
}
