//! Pushing archives: which of them are ready to leave, where each goes, and the operations that carry them there.
//!
//! The order of writes, all of it under `checkpoint.lock`: what is completed into archives; marks into the manifest;
//! operations into the journal. A mark keeps its file as it is until its operation is completed, so that the operation
//! finds the bytes it was logged for. What is marked and has no operation is logged again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::absolute;

use super::checkpoint::{CheckpointReport, Exchange};
use super::retention::{days_of_archives, unsettled_archives};
use crate::operation::{
    BackendName, Fields, Logged, Number, Operation, OperationId, OperationType, Source, Status,
    Time,
};
use crate::wal::change::Change;
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::writer::Wal;
use crate::wal::manifest::{FileEntry, Pushed};
use crate::wal::read::admit::Fate;
use crate::wal::read::view::View;

/// What the idempotency keys of pushes begin with.
const KEY_START: &str = "archive push ";

/// Bytes of such a key, at most.
const KEY_MAX: usize = 512;

/// Operations that are logged in one turn.
const AT_ONCE: usize = 500;

/// Where archives go, and on which backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    prefix: String,
    host: String,
    backend: BackendName,
    max_retries: u32,
}

/// Why archives cannot be pushed there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPush {
    /// Nobody said where to.
    #[error("nobody said where archives go")]
    NoDestination,
    /// It is no place for them.
    #[error("archives cannot go to `{}`: {why}", destination.escape_debug())]
    Destination {
        /// As it was given.
        destination: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It would not be what queries see, or not one folder.
    #[error("`{}` cannot be the name of a host in the history: it takes letters, digits, `.`, `_` and `-`", host.escape_debug())]
    Host {
        /// As it was given.
        host: String,
    },
}

impl Push {
    /// Archives of this host, by this backend, to `destination/host=…/date=…/`.
    pub fn new(
        destination: &str,
        host: &str,
        backend: BackendName,
        max_retries: u32,
    ) -> Result<Push, BadPush> {
        let bad = |why| BadPush::Destination { destination: destination.to_owned(), why };
        let prefix = destination.trim_end_matches('/');
        if destination.is_empty() || destination.contains(char::is_control) {
            return Err(bad("it takes text on one line"));
        }
        if prefix.ends_with(':') {
            return Err(bad("it names no bucket; write s3://BUCKET/PREFIX"));
        }
        if host.is_empty()
            || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return Err(BadPush::Host { host: host.to_owned() });
        }
        let push = Push { prefix: prefix.to_owned(), host: host.to_owned(), backend, max_retries };
        match key_of(&push.sample()).len() > KEY_MAX {
            true => Err(bad("it is too long")),
            false => Ok(push),
        }
    }

    /// The name of this machine in the history.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Who carries them there.
    pub fn backend(&self) -> &BackendName {
        &self.backend
    }

    /// What is to be done with each.
    pub fn operation_type() -> OperationType {
        let Ok(upload) = OperationType::new("upload") else {
            unreachable!("it is a type of operation")
        };
        upload
    }

    /// The parameters of a push, for asking the backend whether it takes such.
    pub fn sample_parameters(&self) -> Fields {
        parameters("/".into(), self.sample())
    }

    fn sample(&self) -> String {
        self.place(Time::from_millis(0), &"x".repeat(40), &"0".repeat(8))
    }

    /// The folder of a day.
    fn folder(&self, day: Time) -> String {
        let text = day.to_string();
        let date = text.split('T').next().unwrap_or_default();
        format!("{}/host={}/date={date}/", self.prefix, self.host)
    }

    fn place(&self, day: Time, stem: &str, hash: &str) -> String {
        format!("{}{stem}_{hash}.parquet", self.folder(day))
    }

    /// Where a file goes. Its hash keeps two logs of one host apart, and gives the same bytes the same name.
    fn destination_of(&self, file: &FileEntry, day: Time) -> String {
        let name = file.name.rsplit('/').next().unwrap_or(&file.name);
        let stem = name.split_once(".parquet").map_or(name, |(stem, _)| stem);
        self.place(day, stem, file.sha256.get(..8).unwrap_or(&file.sha256))
    }
}

fn key_of(destination: &str) -> String {
    format!("{KEY_START}{destination}")
}

fn parameters(path: String, destination: String) -> Fields {
    [("path".to_owned(), path), ("destination".to_owned(), destination)].into_iter().collect()
}

/// Operations that push archives, by their destinations.
pub(in crate::wal) type Pushes = BTreeMap<String, Operation>;

/// Where an archive stands on its way out.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Its day is not over.
    Open,
    /// It holds nothing but pushes of other archives, or nothing at all any more: it stays here.
    Bare,
    /// Its day is over, and nothing is logged to push it.
    Closed,
    /// Its push is logged, and has not ended.
    Logged(Box<Operation>),
    /// Its push failed.
    Failed(Box<Operation>),
    /// It is there.
    Pushed,
}

impl Standing {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Standing::Open => "open",
            Standing::Bare => "bare",
            Standing::Closed => "closed",
            Standing::Logged(_) => "pushing",
            Standing::Failed(_) => "failed",
            Standing::Pushed => "pushed",
        }
    }

    /// The operation that pushes it.
    pub fn operation(&self) -> Option<&Operation> {
        match self {
            Standing::Logged(operation) | Standing::Failed(operation) => Some(operation),
            _ => None,
        }
    }
}

/// An archive, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Archive {
    /// What the manifest says of it.
    pub file: FileEntry,
    /// Any instant of its day.
    pub day: Time,
    /// Where it goes or went; none: nobody has said so yet, or it stays here.
    pub to: Option<String>,
    /// How far it has come.
    pub standing: Standing,
}

/// An archive that is to be pushed, or on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedArchive {
    /// Its path, relative to the log.
    pub name: String,
    /// Any instant of its day.
    pub day: Time,
    /// Operations in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Where it goes; with a `/` at the end, the folder: it is written anew first, joined with others of its day perhaps.
    pub to: String,
    /// The operation that pushes it, and its status; none in a dry run.
    pub operation: Option<(Number, OperationId, Status)>,
    /// Whether that was logged before.
    pub existing: bool,
    /// In a dry run, archives with the same number become one first.
    pub together: Option<usize>,
}

/// What a push logged, or would log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushReport {
    /// Archives that are pushed now, and those whose push was logged before and is not completed.
    pub archives: Vec<PushedArchive>,
    /// Archives that are where they belong.
    pub pushed: u64,
    /// Archives of days that are not over.
    pub open: u64,
}

impl PushReport {
    /// How many operations were logged, or would be.
    pub fn logged(&self) -> u64 {
        let (mut logged, mut groups) = (0, BTreeSet::new());
        for archive in self.archives.iter().filter(|archive| !archive.existing) {
            logged += u64::from(archive.together.is_none_or(|group| groups.insert(group)));
        }
        logged
    }
}

impl View {
    /// All archives, in the order of the log, and where they stand; with `push`, where they are to go by it.
    pub fn archives(&self, now: Time, push: Option<&Push>) -> WalResult<Vec<Archive>> {
        let days = days_of_archives(self.files(), now.day());
        let is_over =
            |file: &FileEntry| days.get(file.name.as_str()).is_some_and(|day| *day < now.day());
        let wanted =
            |file: &FileEntry| push.zip(file.day).map(|(push, day)| push.destination_of(file, day));
        let left = self.files().iter().filter(|file| match &file.pushed {
            Some(pushed) => !pushed.done,
            None => is_over(file),
        });
        let marked =
            left.clone().filter_map(|file| file.pushed.as_ref().map(|pushed| pushed.to.clone()));
        let pushes = self.pushes_to(marked.chain(left.filter_map(wanted)))?;
        let mut archives = Vec::new();
        for file in self.files() {
            let Some(day) = file.day else { continue };
            let (to, standing) =
                self.standing_of_archive(file, is_over(file), wanted(file), &pushes)?;
            archives.push(Archive { file: file.clone(), day, to, standing });
        }
        Ok(archives)
    }

    fn standing_of_archive(
        &self,
        file: &FileEntry,
        is_over: bool,
        wanted: Option<String>,
        pushes: &Pushes,
    ) -> WalResult<(Option<String>, Standing)> {
        match (&file.pushed, wanted) {
            (Some(pushed), wanted) => {
                let standing = self.standing_of_mark(pushed, pushes)?;
                // What nothing carries there, or could not, may go elsewhere now.
                let may_turn = matches!(standing, Standing::Closed | Standing::Failed(_));
                match wanted.filter(|wanted| may_turn && *wanted != pushed.to) {
                    Some(to) => Ok((
                        Some(to.clone()),
                        self.standing_of_mark(&Pushed { to, done: false }, pushes)?,
                    )),
                    None => Ok((Some(pushed.to.clone()), standing)),
                }
            }
            (None, _) if !is_over => Ok((None, Standing::Open)),
            (None, _) if self.is_bare(file)? => Ok((None, Standing::Bare)),
            (None, Some(to)) => {
                Ok((Some(to.clone()), self.standing_of_mark(&Pushed { to, done: false }, pushes)?))
            }
            (None, None) => Ok((None, Standing::Closed)),
        }
    }

    /// The operations that push to these destinations: each file is opened once for all of them.
    fn pushes_to(&self, destinations: impl Iterator<Item = String>) -> WalResult<Pushes> {
        let mut found = Pushes::new();
        let mut left = BTreeMap::new();
        for to in destinations {
            let key = key_of(&to);
            match self
                .logged_with_key(&key)
                .map(|number| self.operation(number))
                .transpose()?
                .flatten()
            {
                Some(operation) => drop(found.insert(to, operation)),
                None => drop(left.insert(key, to)),
            }
        }
        for file in self.files().iter().rev().filter(|file| file.keys > 0) {
            if left.is_empty() {
                break;
            }
            let table = self.table(file)?;
            for group in table.groups() {
                if !left.keys().any(|key| table.may_hold_key(group, key)) {
                    continue;
                }
                for row in self.group(file, &table, group.index)?.iter() {
                    let key = row.idempotency_key.as_deref().filter(|key| left.contains_key(*key));
                    let Some(key) = key.filter(|_| !file.superseded.contains(row.number)) else {
                        continue;
                    };
                    // One that was deleted may still have its row.
                    if let (Some(operation), Some(to)) =
                        (self.operation(row.number)?, left.get(key))
                    {
                        found.insert(to.clone(), operation);
                        left.remove(key);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The operations of all marks that are not known to be done.
    pub(in crate::wal) fn marked_pushes(&self) -> WalResult<Pushes> {
        let marks = self.files().iter().filter_map(|file| file.pushed.as_ref());
        self.pushes_to(marks.filter(|pushed| !pushed.done).map(|pushed| pushed.to.clone()))
    }

    /// What came of the operation that a mark stands for.
    fn standing_of_mark(&self, pushed: &Pushed, pushes: &Pushes) -> WalResult<Standing> {
        if pushed.done {
            return Ok(Standing::Pushed);
        }
        let Some(operation) = pushes.get(&pushed.to).cloned() else { return Ok(Standing::Closed) };
        Ok(match self.fate(operation.id)? {
            Fate::Done => Standing::Pushed,
            Fate::Failed(failed) => Standing::Failed(failed),
            Fate::Open(id) if id == operation.id => Standing::Logged(Box::new(operation)),
            Fate::Open(id) => {
                Standing::Logged(Box::new(self.operation_by_id(id)?.unwrap_or(operation)))
            }
            // It went on as another one, which was deleted.
            Fate::Unknown => Standing::Failed(Box::new(operation)),
        })
    }

    /// Whether a file that retention would drop has to be kept for a push.
    pub(in crate::wal) fn must_stay(
        &self,
        file: &FileEntry,
        keep_unpushed: bool,
        pushes: &Pushes,
    ) -> WalResult<bool> {
        match &file.pushed {
            Some(pushed) => Ok(self.standing_of_mark(pushed, pushes)? != Standing::Pushed),
            None => Ok(keep_unpushed && !self.is_bare(file)?),
        }
    }

    /// The entry of a file whose push has been completed since its mark was written.
    pub(in crate::wal) fn newly_pushed(
        &self,
        file: &FileEntry,
        pushes: &Pushes,
    ) -> WalResult<Option<FileEntry>> {
        let Some(pushed) = file.pushed.as_ref().filter(|pushed| !pushed.done) else {
            return Ok(None);
        };
        if self.standing_of_mark(pushed, pushes)? != Standing::Pushed {
            return Ok(None);
        }
        Ok(Some(FileEntry {
            pushed: Some(Pushed { to: pushed.to.clone(), done: true }),
            ..file.clone()
        }))
    }

    /// Whether an archive says nothing but that others were pushed. Pushed itself, it would make the next one,
    /// day after day, on a log where nothing else happens.
    fn is_bare(&self, file: &FileEntry) -> WalResult<bool> {
        if file.keys < file.live() || file.live() == 0 {
            return Ok(file.live() == 0);
        }
        let is_push = |row: &Operation| {
            row.idempotency_key.as_deref().is_some_and(|key| key.starts_with(KEY_START))
        };
        let table = self.table(file)?;
        for group in table.groups() {
            let rows = self.group(file, &table, group.index)?;
            if !rows.iter().filter(|row| !file.superseded.contains(row.number)).all(is_push) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a push would log, by what the files say at this moment; `archive_rows`: the most that one archive holds.
    pub fn plan_push(&self, push: &Push, now: Time, archive_rows: u64) -> WalResult<PushReport> {
        let groups = unsettled_archives(
            self.files(),
            &BTreeSet::new(),
            &self.deleted_numbers(),
            now.day(),
            archive_rows,
        );
        let group_of =
            |name: &str| groups.iter().position(|group| group.names().any(|named| named == name));
        let mut report = PushReport::default();
        for archive in self.archives(now, Some(push))? {
            let anew = group_of(&archive.file.name).map(|group| (group, push.folder(archive.day)));
            report.take(&archive, anew);
        }
        Ok(report)
    }
}

impl PushReport {
    /// `anew`: the archives with which it is written anew first, by a number, and the folder that it goes to.
    fn take(&mut self, archive: &Archive, anew: Option<(usize, String)>) {
        match &archive.standing {
            Standing::Open => self.open += 1,
            Standing::Pushed => self.pushed += 1,
            Standing::Bare => {}
            Standing::Closed | Standing::Logged(_) | Standing::Failed(_) => {
                let operation = archive.standing.operation();
                let (together, folder) = anew.unzip();
                self.archives.push(PushedArchive {
                    name: archive.file.name.clone(),
                    day: archive.day,
                    rows: archive.file.live(),
                    bytes: archive.file.bytes,
                    to: folder.or_else(|| archive.to.clone()).unwrap_or_default(),
                    operation: operation
                        .map(|operation| (operation.number, operation.id, operation.status())),
                    existing: operation.is_some(),
                    together,
                });
            }
        }
    }
}

impl Wal {
    /// Logs an operation for each archive of a day that is over and that is not pushed yet: durable when this returns.
    pub fn push(&self, push: &Push) -> WalResult<PushReport> {
        let _held = self.finishing(|| self.lock_checkpoint())?;
        self.push_held(push)
    }

    /// The same, unless somebody else is at work on the files.
    pub fn push_if_free(&self, push: &Push) -> WalResult<Option<PushReport>> {
        let Some(_held) = self.finishing(|| self.try_lock_checkpoint())? else { return Ok(None) };
        self.push_held(push).map(Some)
    }

    fn push_held(&self, push: &Push) -> WalResult<PushReport> {
        let now = self.clock.now();
        self.finishing(|| {
            let mut report: CheckpointReport = self.fold_all(true)?;
            self.settle_archives(now.day(), &mut report)
        })?;
        self.keep_reserve();
        let archives = self.read(|view| view.archives(now, Some(push)))?;
        let mut report = PushReport::default();
        archives.iter().for_each(|archive| report.take(archive, None));
        if report.logged() > 0 {
            // Before anything is marked that could not be logged then.
            self.check_room(0)?;
        }
        self.mark(&archives)?;
        self.log_pushes(push, &archives, &mut report)?;
        Ok(report)
    }

    /// Writes into the manifest where each archive goes, or that it is there.
    fn mark(&self, archives: &[Archive]) -> WalResult<()> {
        let mut changed = BTreeMap::new();
        for archive in archives {
            let done = archive.standing == Standing::Pushed;
            let pushed = archive.to.clone().map(|to| Pushed { to, done });
            if pushed != archive.file.pushed {
                changed.insert(
                    archive.file.name.clone(),
                    FileEntry { pushed, ..archive.file.clone() },
                );
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        // A commit uses its exchange up, whether or not it comes about.
        self.finishing(|| {
            self.commit(&mut Exchange { changed: changed.clone(), ..Exchange::default() }, None)
        })
    }

    /// Logs what nothing carries away yet.
    fn log_pushes(
        &self,
        push: &Push,
        archives: &[Archive],
        report: &mut PushReport,
    ) -> WalResult<()> {
        let mut operations = Vec::new();
        for archive in archives.iter().filter(|archive| archive.standing == Standing::Closed) {
            operations.push((archive.file.name.clone(), self.operation_for(push, archive)?));
        }
        for chunk in operations.chunks(AT_ONCE) {
            let (written, existing) = self.transact(|view| {
                let (mut changes, mut existing) = (Vec::new(), Vec::new());
                for (_, logged) in chunk {
                    // No file gains a row as long as we hold `checkpoint.lock`: the journal alone may know the key by now.
                    let number =
                        logged.idempotency_key.as_ref().and_then(|key| view.logged_with_key(key));
                    let there = number.map(|number| view.operation(number)).transpose()?.flatten();
                    if there.is_none() {
                        changes.push(Change::New(logged.clone()));
                    }
                    existing.push(
                        there.map(|operation| (operation.number, operation.id, operation.status())),
                    );
                }
                Ok((changes, existing))
            })?;
            if existing.iter().any(Option::is_some) {
                // What somebody else logged is promised again by us, so it has to be durable.
                self.confirm()?;
            }
            let mut written = written.into_iter();
            for ((name, _), existing) in chunk.iter().zip(existing) {
                let Some(archive) =
                    report.archives.iter_mut().find(|archive| archive.name == *name)
                else {
                    continue;
                };
                archive.existing = existing.is_some();
                let logged =
                    || written.next().map(|written| (written.number, written.id, Status::Pending));
                archive.operation = existing.or_else(logged);
            }
        }
        Ok(())
    }

    fn operation_for(&self, push: &Push, archive: &Archive) -> WalResult<Logged> {
        let path = self.layout.file(&archive.file.name);
        let refuse = |what: &str| WalError::NotOurs { path: path.clone(), what: what.to_owned() };
        let absolute = absolute(&path).map_err(|_| refuse("its path cannot be made absolute"))?;
        let text =
            absolute.to_str().ok_or_else(|| refuse("its path is not UTF-8, as parameters are"))?;
        let metadata = self.disk.metadata(&path)?;
        let to = archive.to.clone().unwrap_or_default();
        let key = key_of(&to);
        let parameters = parameters(text.to_owned(), to);
        let mut logged =
            Logged::new(Push::operation_type(), push.backend.clone(), parameters, push.max_retries);
        logged.idempotency_key = Some(key);
        // The archive itself is kept, so nothing of it is copied.
        logged.source = Some(Source {
            size: metadata.len,
            mtime_ns: metadata.mtime_ns,
            inode: metadata.inode,
            sha256: Some(archive.file.sha256.clone()),
            spool: None,
        });
        Ok(logged)
    }
}
