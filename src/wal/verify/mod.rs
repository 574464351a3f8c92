//! Checking every byte and every cross-reference of a log, changing nothing and waiting for nobody.
//!
//! What is read is the log of one moment: the manifest, the journal as far as it went, the files. Where something is amiss
//! and the manifest has been replaced meanwhile, it was a checkpoint at work, and everything is looked at again.

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

/// How often everything is looked at again because the log has moved on.
const ATTEMPTS: usize = 20;

/// Unnamed files that are told one by one.
const TOLD_MAX: usize = 100;

/// Whether something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// It is: something that was durable once cannot be read any more, or contradicts something else.
    Damage,
    /// It is not, but worth knowing.
    Note,
}

impl FindingKind {
    /// Both.
    pub const ALL: [FindingKind; 2] = [FindingKind::Damage, FindingKind::Note];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::Damage => "damage",
            FindingKind::Note => "note",
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Whether something is wrong.
    pub kind: FindingKind,
    /// The file, relative to the log.
    pub path: String,
    /// The first byte concerned, where that is known.
    pub offset: Option<u64>,
    /// What it is.
    pub what: String,
    /// What to do.
    pub advice: String,
}

pub(super) const REPAIR: &str = "run `wal-cli verify --repair`, or restore the file from a backup";
const NOTHING: &str = "nothing needs to be done";
const CHECKPOINT: &str = "the next checkpoint sets it aside";

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

/// What a look at everything came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Whether there is a log at all.
    pub exists: bool,
    /// Operations.
    pub operations: u64,
    /// Parquet files.
    pub files: u64,
    /// Generations of the journal.
    pub generations: u64,
    /// Bytes that were read of files and journal.
    pub bytes: u64,
    /// What was found: damage first.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damages().next().is_none()
    }

    /// What is wrong.
    pub fn damages(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.kind == FindingKind::Damage)
    }
}

/// Is told how many bytes of how many have been checked.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Checks a log; a newer format is an error.
pub fn verify(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    progress: Progress<'_>,
) -> WalResult<Verified> {
    look_at(disk, layout, progress, 3)
}

/// The same; what is amiss is believed after so many looks at one manifest.
pub(super) fn look_at(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    progress: Progress<'_>,
    looks: usize,
) -> WalResult<Verified> {
    let mut attempt = 1;
    loop {
        let look = Look { disk, layout, progress };
        let seen = look.manifest_seen()?;
        let result = look.everything();
        let last = attempt == ATTEMPTS;
        match result {
            // What is amiss may be a writer in the middle of its work: a second look tells.
            Ok(found)
                if found.is_sound()
                    || last
                    || (attempt >= looks && look.manifest_seen()? == seen) =>
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

/// Decodes the files of a log into Arrow batches and nothing else, on as many threads as checking them uses: what that is
/// measured against. How many rows they hold.
pub fn decode_files(disk: &Arc<dyn Disk>, layout: &Layout) -> WalResult<u64> {
    let manifest = Manifest::load(&**disk, layout)?;
    let files = manifest.map(|manifest| manifest.files).unwrap_or_default();
    let results = files::on_threads(&files, |_, file| {
        crate::wal::schema::decode(&**disk, &layout.file(&file.name))
    });
    results.into_iter().map(|(_, rows)| rows).sum()
}

struct Look<'a> {
    disk: &'a Arc<dyn Disk>,
    layout: &'a Layout,
    progress: Progress<'a>,
}

/// What is wrong goes on the list, unless it is no fault of the log.
fn into_finding(layout: &Layout, error: WalError) -> WalResult<Finding> {
    match error {
        WalError::Damaged(damage) => Ok(Finding::of(layout, &damage)),
        WalError::NotOurs { path, what } => Ok(Finding::damage(layout.relative(&path), None, what)),
        WalError::Disk(error) if error.is_medium_error() => Ok(Finding::damage(
            layout.relative(&error.path),
            None,
            format!("it cannot be read: {}", error.source),
        )),
        other => Err(other),
    }
}

impl Look<'_> {
    fn manifest_seen(&self) -> WalResult<Option<Metadata>> {
        match self.disk.metadata(&self.layout.manifest()) {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn everything(&self) -> WalResult<Verified> {
        let mut found = Verified::default();
        // Before the manifest: what is there by then and named by none has been left behind.
        let present = self.present()?;
        let manifest = match Manifest::load(&**self.disk, self.layout) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => {
                self.without_manifest(&mut found)?;
                self.others(&mut found, &present, &Manifest::new(0, Default::default()))?;
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
        self.others(&mut found, &present, &manifest)?;
        Ok(finished(found))
    }

    /// A log without a manifest is none, unless something is there that only a log has.
    fn without_manifest(&self, found: &mut Verified) -> WalResult<()> {
        match View::open((*self.disk).clone(), self.layout.clone()) {
            Ok(view) => {
                found.exists = view.exists();
                found.operations = view.counts().values().sum();
                found.findings.extend(view.damage().map(|damage| Finding::of(self.layout, damage)));
                if let Some(rows) = view.original_rows() {
                    found.files = rows.names().len() as u64;
                    let what = "the original system wrote these files; the first command that writes adopts them";
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

    /// Files of the original system that are still a part of the log.
    fn originals(
        &self,
        manifest: &Manifest,
        journal: &mut journal::Journal,
        found: &mut Verified,
    ) -> WalResult<()> {
        for unread in &manifest.unread {
            let what = format!("not understood when it was adopted: {}", unread.what);
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
                    let what = "the original system has changed it since it was listed";
                    let advice = "stop the original system; the next command that writes adopts what is there then";
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

    /// The files that the manifest should name, and others in the log's directories.
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

    /// What stands beside the log: leftovers, what was set aside, notes of lock files.
    fn others(
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
        let mut told = 0;
        for name in present.iter().filter(|name| !named.contains(name)) {
            let path = self.layout.file(name);
            if path.starts_with(self.layout.quarantine()) {
                quarantined += 1;
                continue;
            }
            if !found.exists || told == TOLD_MAX || !self.disk.exists(&path)? {
                continue;
            }
            told += 1;
            let (what, advice) = match path.starts_with(self.layout.tmp()) {
                true => ("staged by a process that is at work, or died", CHECKPOINT),
                false => (
                    "no manifest names it: a batch under way, or what one that was given up left",
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
                "look through them, then remove them",
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
                let made_when_needed = matches!(name, LockName::Process | LockName::Checkpoint);
                if found.exists && !made_when_needed {
                    let what = "it is missing: somebody removed it, which must not happen while a writer runs";
                    found.findings.push(Finding::note(
                        file_name,
                        None,
                        what,
                        "the next writer makes it again",
                    ));
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match self.told_by(name, &*file) {
            Ok(told) => found
                .findings
                .extend(told.map(|what| Finding::note(file_name, None, what, NOTHING))),
            Err(error) => found.findings.push(into_finding(self.layout, error.into())?),
        }
        Ok(())
    }

    /// What the note in a lock file says.
    fn told_by(&self, name: LockName, file: &dyn DiskFile) -> DiskResult<Option<String>> {
        Ok(match name {
            LockName::Append => note::read(file)?.map(|note: AppendNote| {
                let at_work = if note.at_work { ", in the middle of something" } else { "" };
                format!(
                    "pid {} (`{}`) wrote last, at {}{at_work}: generation {} ends at byte {}",
                    note.pid, note.command, note.since, note.generation, note.end
                )
            }),
            LockName::Sync => note::read(file)?.map(|note: SyncNote| {
                let syncing = note
                    .syncing
                    .map(|to| format!(", a flush to {to} has not ended"))
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
                        false => "held it, and died",
                    };
                    format!("pid {} (`{}`) {alive}; since {}", note.pid, note.command, note.since)
                })
            }
        })
    }
}

fn finished(mut found: Verified) -> Verified {
    found.findings.sort();
    found.findings.dedup();
    found
}
