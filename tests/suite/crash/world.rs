//! A log on a simulated machine, and the states that it may have, given what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wal_cli::clock::{Clock, ManualClock};
use wal_cli::disk::{Disk, FileKind, Machine, MemoryDisk, Unsynced};
use wal_cli::operation::{
    BackendName, Claim, Event, Failure, FailureClass, Fields, HistoryEntry, Logged, Number,
    Operation, OperationType, Outcome, Status, Time,
};
use wal_cli::wal::{
    Admitted, Change, Known, Layout, Options, Order, Repaired, Retention, View, Wal, WalError,
};

use crate::suite::adoption::files_of;

const START: i64 = 1_800_000_000_000;

/// The changes of status of an operation, oldest first.
type History = Vec<(&'static str, &'static str)>;

/// The content of a log: the history of each operation, by its text.
pub type State = BTreeMap<String, History>;

/// One call of a process. Operations are identified by their texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Opens the log for writing: a first run in a new directory, or an adoption.
    Open,
    /// Logs operations in one frame, or in a batch if they do not fit in one.
    Add(&'static str),
    /// Logs an operation with a key; the second time it exists already.
    Keyed(&'static str),
    /// Logs an operation with content in the spool.
    Spool(&'static str),
    Claim(&'static str),
    Complete(&'static str),
    Fail(&'static str),
    Delay(&'static str),
    Again(&'static str),
    Hold(&'static str),
    /// Reopens an operation; the text of its successor ends with `+`.
    Reopen(&'static str),
    Delete(&'static str),
    Checkpoint,
    Maintain,
    /// Prunes operations that completed more than this many days ago.
    Cleanup(u64),
    /// Lets this many hours pass.
    Pass(u64),
    /// Restores the log from a copy without empty directories.
    Restore,
}

/// Possible contents of the log.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The permitted states,
    pub candidates: Vec<State>,
    /// without any of these operations.
    pub droppable: BTreeSet<String>,
}

impl Expected {
    fn allows(&self, seen: &State) -> bool {
        self.candidates.iter().any(|candidate| {
            seen.iter().all(|(text, history)| candidate.get(text) == Some(history))
                && candidate
                    .keys()
                    .all(|text| seen.contains_key(text) || self.droppable.contains(text))
        })
    }

    /// Permits only the observed state from now on, unless operations may still be dropped.
    fn settle(&mut self, seen: &State) {
        if self.droppable.is_empty() {
            self.candidates = vec![seen.clone()];
        }
    }
}

#[derive(Debug)]
pub struct World {
    pub machine: Machine,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    pub expected: Expected,
    /// The numbers of acknowledged operations.
    numbers: BTreeMap<Number, String>,
    /// The initial directory of the original system.
    original: Option<&'static str>,
    /// Files with damage that loses nothing: a process that opens the log repairs it first.
    evidence: Option<Vec<Vec<u8>>>,
    /// The seed of random choices.
    seed: u64,
    /// True if a repair was acknowledged, after which the log must be valid.
    mended: AtomicBool,
}

/// Damages a log, and returns the damaged files.
pub type Damage = fn(&Machine) -> &'static [&'static str];

/// Removes the links through which operations read spooled content; shared content remains.
pub fn remove_spool_links(machine: &Machine) {
    let disk = machine.process();
    let spool = layout().base().join("spool");
    for entry in disk.list(&spool).unwrap() {
        if entry.name.to_str().unwrap().contains('.') {
            disk.remove_file(&spool.join(&entry.name)).unwrap();
        }
    }
    disk.sync_dir(&spool).unwrap();
}

pub fn layout() -> Layout {
    Layout::new("/home/wal")
}

fn texts(list: &str) -> Vec<String> {
    // `name*20` means twenty operations.
    let many = |word: &str| match word.split_once('*') {
        Some((name, count)) => {
            (0..count.parse().unwrap()).map(|nth: usize| format!("{name}{nth}")).collect()
        }
        None => vec![word.to_owned()],
    };
    list.split_whitespace().flat_map(many).collect()
}

fn content_of(text: &str) -> Vec<u8> {
    text.repeat(400).into_bytes()
}

fn source_of(text: &str) -> std::path::PathBuf {
    Path::new("/home").join(text)
}

fn logged(text: &str) -> Logged {
    let parameters = Fields::from([("text".to_owned(), text.to_owned())]);
    Logged::new(
        OperationType::new("add").unwrap(),
        BackendName::new("local").unwrap(),
        parameters,
        5,
    )
}

/// Returns the text of an operation; that of an adopted one is its id.
fn text_of(operation: &Operation) -> String {
    operation.parameters.get("text").cloned().unwrap_or_else(|| operation.id.to_string())
}

/// Returns a clock whose randomness is unique to its process, and follows from the seed.
fn clock_at(now: Time, seed: u64) -> Arc<ManualClock> {
    Arc::new(ManualClock::new(now, seed))
}

impl World {
    /// Returns a machine with `spooled` as files to add, and, if named, a directory of the original
    /// system.
    pub fn new(options: Options, original: Option<&'static str>) -> World {
        let machine = Machine::new();
        let disk = machine.process();
        let disk: &dyn Disk = &disk;
        disk.create_dir_all_synced(Path::new("/home")).unwrap();
        for text in ["photo", "film"] {
            disk.write_new_synced(&source_of(text), &content_of(text)).unwrap();
        }
        for (name, content) in original.into_iter().flat_map(files_of) {
            let path = layout().file(name);
            disk.create_dir_all_synced(path.parent().unwrap()).unwrap();
            disk.write_new_synced(&path, content).unwrap();
            disk.sync_dir(path.parent().unwrap()).unwrap();
        }
        disk.sync_dir(Path::new("/home")).unwrap();
        let clock = clock_at(Time::from_millis(START), 1);
        let (expected, numbers) = (Expected::default(), BTreeMap::new());
        let mut world = World {
            machine,
            clock,
            options,
            expected,
            numbers,
            original,
            evidence: None,
            seed: 0,
            mended: AtomicBool::new(true),
        };
        world.expected.candidates = vec![world.seen()];
        world
    }

    /// Returns a copy of the world with its own random choices.
    pub fn fork(&self, seed: u64) -> World {
        World {
            machine: self.machine.fork(),
            clock: clock_at(self.clock.now(), seed ^ 0x5eed),
            options: self.options.clone(),
            expected: self.expected.clone(),
            numbers: self.numbers.clone(),
            original: self.original,
            evidence: self.evidence.clone(),
            seed,
            mended: AtomicBool::new(self.mended.load(Ordering::SeqCst)),
        }
    }

    pub fn damage(&mut self, damage: Damage) {
        let damaged = damage(&self.machine);
        let disk = self.machine.process();
        let bytes = |name: &&str| (&disk as &dyn Disk).read(&layout().file(name)).unwrap();
        self.evidence = Some(damaged.iter().map(bytes).collect());
        let report =
            self.repair(&(Arc::new(self.machine.fork().process()) as Arc<dyn Disk>)).unwrap();
        assert!(report.changed && report.lost.is_empty(), "{report:?}");
        self.mended.store(false, Ordering::SeqCst);
    }

    fn repair(&self, disk: &Arc<dyn Disk>) -> Result<Repaired, WalError> {
        wal_cli::wal::repair(disk, &*self.clock, &layout(), &self.options)
    }

    /// Opens the log, after a repair if it is damaged.
    pub fn open(&self, disk: impl Disk + 'static) -> Result<Wal, WalError> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        if !self.mended.load(Ordering::SeqCst) {
            self.repair(&disk)?;
            self.mended.store(true, Ordering::SeqCst);
        }
        Wal::open(disk, self.clock.clone(), layout(), self.options.clone())
    }

    /// Performs all deeds in a new process, without interruption.
    pub fn does(&mut self, deeds: &[Deed]) {
        let disk = self.machine.process();
        let wal = self.open(disk).unwrap();
        deeds.iter().for_each(|deed| self.does_with(&wal, *deed).unwrap());
    }

    /// Performs one deed, and derives the permitted states from its result.
    pub fn does_with(&mut self, wal: &Wal, deed: Deed) -> Result<(), WalError> {
        let before = self.expected.clone();
        let mut after = before.clone();
        for candidate in &mut after.candidates {
            self.is_done(candidate, &mut after.droppable, deed);
        }
        let result = self.perform(wal, deed);
        self.expected = match &result {
            Ok(numbers) => {
                self.numbers.extend(numbers.iter().cloned());
                after
            }
            // Other processes may see records that are not durable, but if nothing was logged, none
            // may see any.
            Err(WalError::NotLogged(_) | WalError::NoSpace { .. }) if !deed.is_in_steps() => before,
            Err(_) => {
                let mut either = before;
                either.candidates.extend(after.candidates);
                either.droppable.extend(after.droppable);
                either
            }
        };
        result.map(|_| ())
    }

    /// Records the state of the log after an action.
    fn is_done(&self, state: &mut State, droppable: &mut BTreeSet<String>, deed: Deed) {
        let mut next = |list: &str, from: &[&'static str], to: &'static str| {
            for text in texts(list) {
                if let Some(history) = state.get_mut(&text) {
                    let last = history.last().map_or("", |(_, to)| to);
                    assert!(from.contains(&last), "{text} is {last}");
                    history.push((last, if to.is_empty() { last } else { to }));
                }
            }
        };
        match deed {
            Deed::Open | Deed::Checkpoint | Deed::Maintain | Deed::Pass(_) | Deed::Restore => {}
            Deed::Add(list) | Deed::Keyed(list) | Deed::Spool(list) => {
                for text in texts(list) {
                    state.entry(text).or_insert_with(|| vec![("", "pending")]);
                }
            }
            Deed::Claim(list) => next(list, &["pending", "retrying"], "processing"),
            Deed::Complete(list) => next(list, &["processing"], "completed"),
            Deed::Fail(list) => next(list, &["processing"], "failed"),
            Deed::Delay(list) => next(list, &["processing"], "retrying"),
            Deed::Again(list) => next(list, &["failed"], "pending"),
            Deed::Hold(list) => next(list, &["pending", "retrying"], ""),
            Deed::Reopen(text) => {
                next(text, &["completed"], "");
                state.entry(format!("{text}+")).or_insert_with(|| vec![("", "pending")]);
            }
            Deed::Delete(list) => texts(list).iter().for_each(|text| drop(state.remove(text))),
            Deed::Cleanup(_) => {
                let completed =
                    |history: &History| history.last().is_some_and(|(_, to)| *to == "completed");
                droppable.extend(
                    state
                        .iter()
                        .filter(|(_, history)| completed(history))
                        .map(|(text, _)| text.clone()),
                );
            }
        }
    }

    fn perform(&self, wal: &Wal, deed: Deed) -> Result<Vec<(Number, String)>, WalError> {
        let numbered = |admitted: Vec<Admitted>, texts: Vec<String>| {
            Ok(admitted.iter().map(Admitted::number).zip(texts).collect())
        };
        let now = self.clock.now();
        let failure = || Failure {
            class: FailureClass::Transient,
            error_type: "test".into(),
            message: "no".into(),
        };
        match deed {
            Deed::Open => {}
            Deed::Restore => self.remove_empty_directories(),
            Deed::Pass(hours) => self.clock.advance(Duration::from_secs(hours * 3600)),
            Deed::Add(list) => {
                let new = texts(list);
                return numbered(
                    wal.append_new(new.iter().map(|text| logged(text)).collect())?,
                    new,
                );
            }
            Deed::Keyed(list) => {
                let new = texts(list);
                let keyed = new.iter().map(|text| {
                    let mut logged = logged(text);
                    logged.idempotency_key = Some(text.clone());
                    logged
                });
                return numbered(wal.append_new(keyed.collect())?, new);
            }
            Deed::Spool(text) => {
                let mut stage = wal.stage_content()?;
                let (source, staged) = stage.take(&source_of(text), u64::MAX, u64::MAX).map_err(
                    |error| match error {
                        wal_cli::wal::NotTaken::Log(error) => error,
                        wal_cli::wal::NotTaken::Source(error) => WalError::NotLogged(error),
                        other => panic!("{other:?}"),
                    },
                )?;
                let mut logged = logged(text);
                logged.source = Some(source);
                return numbered(
                    wal.append_staged(vec![(logged, Some(staged))])?,
                    vec![text.to_owned()],
                );
            }
            Deed::Claim(list) => {
                let claim = Claim { pid: 7, host: "here".into(), started: now };
                self.next(wal, list, |_| Event::Claimed { claim: claim.clone() })?;
            }
            Deed::Complete(list) => {
                let done =
                    self.next(wal, list, |_| Event::Completed { outcome: Outcome::default() })?;
                done.iter().for_each(|operation| wal.release_spool(operation));
            }
            Deed::Fail(list) => {
                drop(self.next(wal, list, |_| Event::Failed { failure: failure() })?)
            }
            Deed::Delay(list) => {
                let until = now.plus_millis(60_000);
                self.next(wal, list, |_| Event::Retrying { failure: failure(), until })?;
            }
            Deed::Again(list) => {
                self.next(wal, list, |_| Event::Retried {
                    reason: "by hand".into(),
                    forget: Vec::new(),
                    source: None,
                })?;
            }
            Deed::Hold(list) => {
                drop(self.next(wal, list, |_| Event::Held { reason: "by hand".into() })?)
            }
            Deed::Reopen(text) => {
                let id = wal.new_id(now, 0);
                wal.transact(|view| {
                    let named = |operation: &Operation| text_of(operation) == text;
                    let old = all(view)?.into_iter().find(named).expect("the operation exists");
                    let mut new = logged(&format!("{text}+"));
                    new.redirected_from = Some(old.id);
                    let reopened = Change::Next(Known::from(&old), Event::Reopened { to: id });
                    Ok((vec![Change::NewAs(id, new), reopened], ()))
                })?;
            }
            Deed::Delete(list) => {
                let deleted =
                    self.next(wal, list, |_| Event::Deleted { reason: "by hand".into() })?;
                deleted.iter().for_each(|operation| wal.release_spool(operation));
            }
            Deed::Checkpoint => drop(wal.checkpoint()?),
            Deed::Maintain => drop(wal.maintain()?),
            Deed::Cleanup(days) => drop(wal.cleanup(
                Retention { max_age_days: days, failed: false, keep_unpushed: false },
                false,
            )?),
        }
        Ok(Vec::new())
    }

    fn remove_empty_directories(&self) {
        let disk = self.machine.process();
        for directory in layout().directories() {
            if disk.list(&directory).is_ok_and(|entries| entries.is_empty()) {
                disk.remove_dir(&directory).unwrap();
            }
        }
        disk.sync_dir(layout().base()).unwrap();
    }

    /// Writes the next event of each operation in one frame, and returns their previous states.
    fn next(
        &self,
        wal: &Wal,
        list: &str,
        event: impl Fn(&Operation) -> Event,
    ) -> Result<Vec<Operation>, WalError> {
        let named: BTreeSet<String> = texts(list).into_iter().collect();
        let (_, before) = wal.transact(|view| {
            let mut found = Vec::new();
            for operation in all(view)? {
                if named.contains(&text_of(&operation)) {
                    found.push(operation);
                }
            }
            let changes = found
                .iter()
                .map(|operation| Change::Next(Known::from(operation), event(operation)));
            Ok((changes.collect(), found))
        })?;
        Ok(before)
    }

    /// Returns the state that a new reader sees, after a repair if the log is damaged.
    pub fn seen(&self) -> State {
        let mut disk = self.machine.process();
        self.check_evidence(&disk);
        if !self.mended.load(Ordering::SeqCst) {
            disk = self.machine.fork().process();
            self.repair(&(Arc::new(disk.clone()) as Arc<dyn Disk>))
                .expect("the log can be repaired");
        }
        let view = View::open(Arc::new(disk.clone()), layout()).expect("a reader can read");
        assert_eq!(view.damage(), None);
        let mut state = State::new();
        let mut numbers = BTreeSet::new();
        for operation in all(&view).expect("a reader can read all") {
            let text = text_of(&operation);
            assert!(
                numbers.insert(operation.number),
                "number {} belongs to two operations",
                operation.number
            );
            if let Some(known) = self.numbers.get(&operation.number) {
                assert_eq!(
                    *known, text,
                    "number {} belonged to another operation",
                    operation.number
                );
            }
            self.check_content(&disk, &operation);
            // A repair may hold operations, depending on what was readable: see `suite::repair`.
            let by_repair = |entry: &&HistoryEntry| {
                entry
                    .reason
                    .as_ref()
                    .is_some_and(|reason| reason.contains("a repair could not determine"))
            };
            let history = operation.history.iter().filter(|entry| !by_repair(entry));
            let history = history.map(|entry| (entry.from.map_or("", word), word(entry.to)));
            let doubled = state.insert(text.clone(), history.collect());
            assert_eq!(doubled, None, "{text} exists twice");
        }
        for (name, content) in self.original.into_iter().flat_map(files_of) {
            let aside = layout().quarantine().join("original").join(name);
            let is_kept =
                |path: &Path| (&disk as &dyn Disk).read(path).is_ok_and(|read| read == content);
            assert!(
                is_kept(&layout().file(name)) || is_kept(&aside),
                "{name} of the original system is missing"
            );
        }
        let counted: u64 = view.counts().values().sum();
        assert_eq!(counted, state.len() as u64, "counts match the operations");
        for (number, text) in &self.numbers {
            let acknowledged =
                self.expected.candidates.iter().all(|candidate| candidate.contains_key(text));
            assert!(
                !acknowledged || numbers.contains(number) || self.expected.droppable.contains(text),
                "{text} was acknowledged with number {number}"
            );
        }
        state
    }

    /// Asserts that damaged files exist unchanged, in place or set aside.
    fn check_evidence(&self, disk: &MemoryDisk) {
        let Some(evidence) = &self.evidence else { return };
        let mut there = BTreeSet::new();
        for folder in layout().directories().into_iter().chain([layout().base().to_owned()]) {
            let files = disk
                .list(&folder)
                .unwrap_or_default()
                .into_iter()
                .filter(|file| file.kind == FileKind::File);
            there.extend(
                files.map(|file| (disk as &dyn Disk).read(&folder.join(&file.name)).unwrap()),
            );
        }
        assert!(evidence.iter().all(|bytes| there.contains(bytes)), "a damaged file was removed");
    }

    /// Asserts that the content of an operation exists, if the operation needs it.
    fn check_content(&self, disk: &MemoryDisk, operation: &Operation) {
        let Some(name) = operation.source.as_ref().and_then(|source| source.spool.as_deref())
        else {
            return;
        };
        if operation.status() != Status::Completed {
            let path = layout().spooled_for(name, operation.id);
            let content = (disk as &dyn Disk)
                .read(&path)
                .unwrap_or_else(|error| panic!("content is missing: {error}"));
            assert!(content == content_of(&text_of(operation)), "content is torn");
        }
    }

    /// Asserts that the log is in a permitted state.
    pub fn check(&self, when: &str) -> State {
        let seen = self.seen();
        assert!(self.expected.allows(&seen), "{when}:\nseen {seen:?}\nof   {:?}", self.expected);
        seen
    }

    /// Asserts that the log is valid, opens, does not change by that, and accepts operations.
    pub fn check_usable(&mut self) {
        self.check("as found");
        let wal = self.open(self.machine.process()).expect("the log opens");
        let seen = self.check("opened");
        self.expected.settle(&seen);
        drop(wal);
        let files = self.files();
        let wal = self.open(self.machine.process()).expect("the log opens again");
        assert!(self.files() == files, "a second opening changes nothing");
        self.does_with(&wal, Deed::Add("goes-on")).expect("the log accepts operations");
        // Power is cut before every other checkpoint: acknowledged operations do not need one.
        if fastrand::Rng::with_seed(self.seed).bool() {
            self.machine.power_cut(|| false);
            self.check("after an acknowledged operation and a power cut");
        }
        let wal = self.open(self.machine.process()).expect("the log opens");
        wal.checkpoint().expect("a checkpoint works");
        self.machine.power_cut(|| false);
        self.check("after a checkpoint and a power cut");
    }

    /// Returns every file of the log with its content, except the notes in lock files.
    fn files(&self) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
        let disk = self.machine.process();
        let mut found = BTreeMap::new();
        let mut folders = vec![layout().base().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in disk.list(&folder).unwrap() {
                let path = folder.join(&entry.name);
                match entry.kind {
                    FileKind::Directory => folders.push(path),
                    _ if entry.name.to_str().unwrap().ends_with("lock") => {}
                    _ => {
                        drop(found.insert(path.clone(), (&disk as &dyn Disk).read(&path).unwrap()))
                    }
                }
            }
        }
        found
    }

    /// Cuts the power; the seed decides which unsynced writes survive.
    pub fn power_cut(&self, nth: u64) {
        let mut random = fastrand::Rng::with_seed(nth);
        self.machine.power_cut_by(|unsynced| match nth % 6 {
            0 => false,
            1 => true,
            2 => unsynced == Unsynced::Name,
            3 => unsynced != Unsynced::Name,
            _ => random.bool(),
        });
    }

    /// Lets another process act after the death of the first, and be acknowledged.
    pub fn second_acts(&mut self, nth: u64) {
        let wal = self.open(self.machine.process()).expect("the log opens after a death");
        match nth % 5 {
            0 => self.does_with(&wal, Deed::Add("second")),
            1 => self.does_with(&wal, Deed::Checkpoint),
            2 => self.does_with(&wal, Deed::Add("second*20")),
            3 => self.does_with(&wal, Deed::Keyed("theirs")),
            _ => self
                .does_with(&wal, Deed::Add("second"))
                .and_then(|()| self.does_with(&wal, Deed::Claim("second"))),
        }
        .expect("the log accepts operations after a death");
        if nth % 5 != 1 {
            let seen = self.check("after the second process");
            self.expected.settle(&seen);
        }
    }
}

impl Deed {
    /// Returns whether the deed makes several commits, of which the first may survive if a later
    /// one fails.
    fn is_in_steps(self) -> bool {
        matches!(self, Deed::Cleanup(_) | Deed::Maintain | Deed::Checkpoint | Deed::Open)
    }
}

fn word(status: Status) -> &'static str {
    status.as_str()
}

fn all(view: &View) -> Result<Vec<Operation>, WalError> {
    let mut found = Vec::new();
    let take = |operation| {
        found.push(operation);
        ControlFlow::Continue(())
    };
    view.visit(Order::OldestFirst, |_| true, |_| true, take)?;
    Ok(found)
}
