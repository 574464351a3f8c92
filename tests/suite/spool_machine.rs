//! The spool on a simulated machine: kills, power cuts and other processes between any two disk
//! operations.
//!
//! Invariants: the complete content of every operation in the log that has not completed exists;
//! acknowledged operations are in the log; and after all have completed, a checkpoint leaves the
//! spool empty.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wal_cli::clock::{Clock, ManualClock};
use wal_cli::disk::{
    Access, Disk, DiskFile, DiskResult, Entry, Identity, Machine, MemoryDisk, Metadata,
};
use wal_cli::operation::{
    BackendName, Claim, Event, Failure, FailureClass, Fields, Logged, Operation, OperationId,
    OperationType, Outcome, Source, Status, Time,
};
use wal_cli::wal::{Change, Known, Layout, NotTaken, Options, Order, View, Wal, WalError};

/// An action before one of a process's disk operations.
type Act = Box<dyn FnOnce() + Send>;

/// A disk that runs an action before one of its operations.
#[derive(Clone)]
struct Between {
    disk: MemoryDisk,
    act: Arc<Mutex<(u64, Option<Act>)>>,
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Between {
    fn new(disk: MemoryDisk, at: u64, act: impl FnOnce() + Send + 'static) -> Between {
        Between { disk, act: Arc::new(Mutex::new((at, Some(Box::new(act))))) }
    }

    fn step(&self) {
        let act = {
            let mut act = self.act.lock().unwrap();
            match act.0 {
                0 => act.1.take(),
                _ => {
                    act.0 -= 1;
                    None
                }
            }
        };
        if let Some(act) = act {
            act();
        }
    }

    fn has_acted(&self) -> bool {
        self.act.lock().unwrap().1.is_none()
    }
}

#[derive(Debug)]
struct BetweenFile {
    disk: Between,
    file: Box<dyn DiskFile>,
}

macro_rules! each {
    ($disk:ident, $inner:ident: $($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> $result {
            each!(@step self $disk);
            self.$inner.$name($($argument),*)
        })*
    };
    (@step $self:ident itself) => { $self.step() };
    (@step $self:ident disk) => { $self.disk.step() };
}

impl Disk for Between {
    fn open(&self, path: &Path, access: Access) -> DiskResult<Box<dyn DiskFile>> {
        self.step();
        Ok(Box::new(BetweenFile { disk: self.clone(), file: self.disk.open(path, access)? }))
    }
    fn identity(&self) -> &Identity {
        self.disk.identity()
    }
    fn is_alive(&self, pid: u32, started: u64) -> bool {
        self.disk.is_alive(pid, started)
    }
    each! { itself, disk:
        create_dir(path: &Path) -> DiskResult<()>;
        rename(from: &Path, to: &Path) -> DiskResult<()>;
        remove_file(path: &Path) -> DiskResult<()>;
        remove_dir(path: &Path) -> DiskResult<()>;
        sync_dir(path: &Path) -> DiskResult<()>;
        list(path: &Path) -> DiskResult<Vec<Entry>>;
        metadata(path: &Path) -> DiskResult<Metadata>;
        symlink_metadata(path: &Path) -> DiskResult<Metadata>;
        read_link(path: &Path) -> DiskResult<PathBuf>;
        symlink(target: &Path, path: &Path) -> DiskResult<()>;
        link(from: &Path, to: &Path) -> DiskResult<()>;
        links(path: &Path) -> DiskResult<u64>;
        clone_file(from: &Path, to: &Path) -> DiskResult<bool>;
        free_bytes(path: &Path) -> DiskResult<u64>;
        is_network(path: &Path) -> DiskResult<bool>;
    }
}

impl DiskFile for BetweenFile {
    each! { disk, file:
        read_at(buffer: &mut [u8], offset: u64) -> DiskResult<usize>;
        write_at(data: &[u8], offset: u64) -> DiskResult<()>;
        sync_data() -> DiskResult<()>;
        sync_all() -> DiskResult<()>;
        metadata() -> DiskResult<Metadata>;
        try_lock() -> DiskResult<bool>;
        unlock() -> DiskResult<()>;
    }
}

/// A machine with a log and a file to add, and the operations that were acknowledged.
#[derive(Clone)]
struct World {
    machine: Machine,
    clock: Arc<ManualClock>,
    acknowledged: Arc<Mutex<BTreeSet<OperationId>>>,
    /// Operations whose deletion was started.
    deleted: Arc<Mutex<BTreeSet<OperationId>>>,
}

fn layout() -> Layout {
    Layout::new("/home/wal")
}

fn content_of(text: &str) -> Vec<u8> {
    text.repeat(300).into_bytes()
}

impl World {
    fn new() -> World {
        let world = World {
            machine: Machine::new(),
            clock: Arc::new(ManualClock::new(Time::from_millis(1_800_000_000_000), 1)),
            acknowledged: Arc::default(),
            deleted: Arc::default(),
        };
        let disk = world.machine.process();
        for text in ["same", "other"] {
            (&disk as &dyn Disk).write_new_synced(&source(text), &content_of(text)).unwrap();
        }
        disk.sync_dir(Path::new("/")).unwrap();
        world
    }

    fn wal(&self, disk: impl Disk + 'static) -> Result<Wal, WalError> {
        let options = Options { lock_timeout: Duration::from_millis(50), ..Options::default() };
        Wal::open(Arc::new(disk), self.clock.clone(), layout(), options)
    }

    /// Runs a step in a process of its own, and ignores the result.
    fn does(&self, step: Step) {
        let _ = self.run(self.machine.process(), step);
    }

    /// Runs a step in a process of its own, which must succeed.
    fn must(&self, step: Step) {
        self.run(self.machine.process(), step).unwrap();
    }

    fn run(&self, disk: impl Disk + 'static, step: Step) -> Result<(), WalError> {
        let wal = self.wal(disk)?;
        match step {
            Step::Add(text) => {
                let id = add(&wal, text)?;
                self.acknowledged.lock().unwrap().insert(id);
            }
            Step::Complete => complete_all(&wal, &*self.clock)?,
            Step::Fail => {
                settle_all(&wal, &*self.clock, || {
                    let failure = Failure {
                        class: FailureClass::Permanent,
                        error_type: "x".into(),
                        message: "y".into(),
                    };
                    Event::Failed { failure }
                })?;
            }
            Step::Redirect => {
                let id = redirect(&wal, &*self.clock)?;
                self.acknowledged.lock().unwrap().extend(id);
            }
            Step::Delete => delete(&wal, &self.deleted)?,
            Step::Checkpoint => drop(wal.checkpoint()?),
        }
        Ok(())
    }

    /// Asserts that incomplete operations find their content, and acknowledged ones are in the log.
    fn check(&self, when: &str) {
        let disk = self.machine.process();
        let operations =
            operations(&View::open(Arc::new(disk.clone()), layout()).unwrap()).unwrap();
        let ids: BTreeSet<_> = operations.iter().map(|operation| operation.id).collect();
        let acknowledged = &*self.acknowledged.lock().unwrap() - &*self.deleted.lock().unwrap();
        assert!(
            acknowledged.is_subset(&ids),
            "{when}: acknowledged {acknowledged:?}, but the log has {ids:?}"
        );
        for operation in operations.iter().filter(|operation| is_open(operation)) {
            let name = operation.source.as_ref().unwrap().spool.as_deref().unwrap();
            let content = (&disk as &dyn Disk).read(&layout().spooled_for(name, operation.id));
            let content =
                content.unwrap_or_else(|error| panic!("{when}: {error} {}", self.listing()));
            assert!(content == content_of(&operation.parameters["text"]), "{when}: torn content");
        }
    }

    fn listing(&self) -> String {
        format!("{:?} {:?}", self.names(&layout().spool()), self.names(&layout().tmp()))
    }

    fn names(&self, directory: &Path) -> Vec<String> {
        let entries = self.machine.process().list(directory).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
    }

    /// Completes all operations, and asserts that the spool is empty then.
    fn end(&self, when: &str) {
        self.check(when);
        self.must(Step::Add("same"));
        self.check(when);
        self.must(Step::Complete);
        self.clock.advance(Duration::from_secs(120));
        self.must(Step::Checkpoint);
        assert!(self.names(&layout().spool()).is_empty(), "{when}: {}", self.listing());
        assert!(self.names(&layout().tmp()).is_empty(), "{when}: {}", self.listing());
        let aside = self.names(&layout().quarantine());
        assert!(!aside.iter().any(|name| name.starts_with("spool-")), "{when}: {aside:?}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add(&'static str),
    Complete,
    Fail,
    Redirect,
    Delete,
    Checkpoint,
}

const STEPS: [Step; 6] = [
    Step::Add("same"),
    Step::Add("other"),
    Step::Complete,
    Step::Redirect,
    Step::Delete,
    Step::Checkpoint,
];

/// Returns whether an operation may still need its content.
fn is_open(operation: &Operation) -> bool {
    operation.status() != Status::Completed && operation.redirected_to.is_none()
}

fn source(text: &str) -> PathBuf {
    Path::new("/").join(text)
}

fn operations(view: &View) -> Result<Vec<Operation>, WalError> {
    let mut operations = Vec::new();
    view.visit(
        Order::OldestFirst,
        |_| true,
        |_| true,
        |operation| {
            operations.push(operation);
            ControlFlow::Continue(())
        },
    )?;
    Ok(operations)
}

fn logged(text: &str, source: Source) -> Logged {
    let parameters = Fields::from([("text".to_owned(), text.to_owned())]);
    let mut logged = Logged::new(
        OperationType::new("add").unwrap(),
        BackendName::new("mock").unwrap(),
        parameters,
        5,
    );
    logged.source = Some(source);
    logged
}

fn add(wal: &Wal, text: &str) -> Result<OperationId, WalError> {
    let mut stage = wal.stage_content()?;
    let (source, staged) =
        stage.take(&source(text), u64::MAX, u64::MAX).map_err(|not_taken| match not_taken {
            NotTaken::Log(error) => error,
            NotTaken::Source(error) => error.into(),
            other => panic!("{other:?}"),
        })?;
    Ok(wal.append_staged(vec![(logged(text, source), Some(staged))])?[0].id())
}

fn settle_all(
    wal: &Wal,
    clock: &dyn Clock,
    event: impl Fn() -> Event,
) -> Result<Vec<Operation>, WalError> {
    let open = wal.read(|view| operations(view))?;
    let open: Vec<Operation> = open.into_iter().filter(is_open).collect();
    let mut known: Vec<Known> = open.iter().map(Known::from).collect();
    let again: Vec<Change> = known
        .iter()
        .filter(|known| known.status == Status::Failed)
        .map(|known| {
            Change::Next(
                known.clone(),
                Event::Retried { reason: "test".into(), forget: Vec::new(), source: None },
            )
        })
        .collect();
    apply(wal, again, &mut known, Status::Pending)?;
    let claim = Claim { pid: 1, host: "h".into(), started: clock.now() };
    let claims = known.iter().filter(|known| known.status != Status::Processing);
    let claims = claims
        .map(|known| Change::Next(known.clone(), Event::Claimed { claim: claim.clone() }))
        .collect();
    apply(wal, claims, &mut known, Status::Processing)?;
    let ends = known.iter().map(|known| Change::Next(known.clone(), event())).collect();
    apply(wal, ends, &mut known, Status::Completed)?;
    Ok(open)
}

fn apply(wal: &Wal, changes: Vec<Change>, known: &mut [Known], to: Status) -> Result<(), WalError> {
    let (written, ()) = wal.transact(|_| Ok((changes.clone(), ())))?;
    for written in written {
        let known = known.iter_mut().find(|known| known.number == written.number).unwrap();
        (known.revision, known.status) = (written.revision, to);
    }
    Ok(())
}

fn complete_all(wal: &Wal, clock: &dyn Clock) -> Result<(), WalError> {
    let completed = settle_all(wal, clock, || Event::Completed { outcome: Outcome::default() })?;
    completed.iter().for_each(|operation| wal.release_spool(operation));
    Ok(())
}

fn redirect(wal: &Wal, clock: &dyn Clock) -> Result<Option<OperationId>, WalError> {
    let id = wal.new_id(clock.now(), 0);
    let (_, from) = wal.transact(|view| {
        let open = operations(view)?
            .into_iter()
            .find(|operation| is_open(operation) && operation.claim().is_none());
        let Some(from) = open else { return Ok((Vec::new(), None)) };
        wal.share_spool(&from, id)?;
        let source = from.source.clone().unwrap();
        let failure =
            Failure { class: FailureClass::Permanent, error_type: "r".into(), message: "r".into() };
        let new = Change::NewAs(id, logged(&from.parameters["text"], source));
        Ok((
            vec![new, Change::Next(Known::from(&from), Event::Redirected { to: id, failure })],
            Some(from),
        ))
    })?;
    Ok(from.map(|from| {
        wal.release_spool(&from);
        id
    }))
}

fn delete(wal: &Wal, deleted: &Mutex<BTreeSet<OperationId>>) -> Result<(), WalError> {
    let (_, gone) = wal.transact(|view| {
        let open = operations(view)?
            .into_iter()
            .find(|operation| is_open(operation) && operation.claim().is_none());
        let Some(gone) = open else { return Ok((Vec::new(), None)) };
        deleted.lock().unwrap().insert(gone.id);
        Ok((
            vec![Change::Next(Known::from(&gone), Event::Deleted { reason: "test".into() })],
            Some(gone),
        ))
    })?;
    gone.iter().for_each(|gone| wal.release_spool(gone));
    Ok(())
}

/// The unsynced writes that a power cut keeps.
#[derive(Debug, Clone, Copy)]
enum Cut {
    None,
    KeepsNothing,
    KeepsAll,
    KeepsSome(u64),
}

const CUTS: [Cut; 5] =
    [Cut::None, Cut::KeepsNothing, Cut::KeepsAll, Cut::KeepsSome(1), Cut::KeepsSome(2)];

impl Cut {
    fn cut(self, machine: &Machine) {
        let mut random = match self {
            Cut::None => return,
            Cut::KeepsNothing => return machine.power_cut(|| false),
            Cut::KeepsAll => return machine.power_cut(|| true),
            Cut::KeepsSome(seed) => fastrand::Rng::with_seed(seed),
        };
        machine.power_cut(|| random.bool());
    }
}

/// Kills the process at each disk operation of each step, in some cases together with a power cut.
fn killed_everywhere(abilities: (bool, bool), cuts: &[Cut], before: &[Step]) {
    let mut deaths = 0;
    for step in STEPS {
        for at in 0.. {
            let mut ended = false;
            for cut in cuts {
                let world = World::new();
                world.machine.set_abilities(abilities.0, abilities.1);
                before.iter().for_each(|step| world.must(*step));
                world.clock.advance(Duration::from_secs(120));
                let dying = world.machine.process();
                dying.kill_after(at);
                ended = world.run(dying.clone(), step).is_ok();
                let when =
                    format!("{step:?} killed at {at}, {cut:?}, after {before:?}, {abilities:?}");
                if matches!(cut, Cut::None) {
                    world.check(&when);
                }
                cut.cut(&world.machine);
                world.end(&when);
                deaths += u32::from(!ended);
            }
            if ended {
                break;
            }
        }
    }
    println!("{deaths} deaths after {before:?}");
    assert!(deaths > 100);
}

#[test]
fn kills_and_power_cuts_lose_and_leak_no_content() {
    killed_everywhere((true, false), &CUTS, &[Step::Add("same")]);
}

#[test]
fn kills_lose_and_leak_no_clones_of_failed_operations() {
    killed_everywhere(
        (true, true),
        &CUTS[..3],
        &[Step::Add("same"), Step::Fail, Step::Checkpoint, Step::Add("same")],
    );
}

#[test]
fn kills_lose_and_leak_nothing_without_hard_links() {
    killed_everywhere((false, false), &CUTS[1..4], &[Step::Add("same")]);
}

/// Before each disk operation of each step, another process runs another step, minutes later.
#[test]
fn other_processes_between_any_two_steps_remove_nothing() {
    let mut meetings = 0;
    for step in STEPS {
        for other in STEPS {
            for at in 0.. {
                let world = World::new();
                world.must(Step::Add("same"));
                world.must(Step::Add("other"));
                let others = world.clone();
                let disk = Between::new(world.machine.process(), at, move || {
                    others.clock.advance(Duration::from_secs(120));
                    others.does(other);
                });
                // An error may report that another process was faster.
                let result = world.run(disk.clone(), step);
                let when = format!(
                    "{other:?} before disk operation {at} of {step:?}, which returned {result:?}"
                );
                world.check(&when);
                if !disk.has_acted() {
                    break;
                }
                if let (Step::Add(_), Err(error)) = (step, &result) {
                    panic!("{when}: an add failed because of another process: {error}");
                }
                world.end(&when);
                meetings += 1;
            }
        }
    }
    println!("{meetings} meetings");
    assert!(meetings > 1000);
}

/// A checkpoint dies while it sweeps the files of a dead process.
#[test]
fn a_sweep_may_die_anywhere() {
    for at in 0.. {
        let world = World::new();
        world.must(Step::Add("other"));
        // Dies at every disk operation of an addition, to leave every possible remainder.
        for at in 0..60 {
            let dying = world.machine.process();
            dying.kill_after(at);
            let _ = world.run(dying, Step::Add("same"));
        }
        world.must(Step::Complete);
        world.clock.advance(Duration::from_secs(120));
        let dying = world.machine.process();
        dying.kill_after(at);
        let ended = world.run(dying, Step::Checkpoint).is_ok();
        world.end(&format!("a checkpoint killed at {at}"));
        if ended {
            break;
        }
    }
}

/// After the error nothing is logged, no file remains, and the next addition succeeds.
#[test]
fn a_full_disk_at_any_step_logs_and_keeps_nothing() {
    for abilities in [(true, false), (true, true), (false, false)] {
        for at in 0.. {
            let world = World::new();
            world.machine.set_abilities(abilities.0, abilities.1);
            world.must(Step::Add("other"));
            let disk = world.machine.process();
            let wal = world.wal(disk.clone()).unwrap();
            disk.fail_after(at, ErrorKind::StorageFull, false);
            let result = add(&wal, "same");
            disk.stop_failing();
            let when = format!("full at {at}: {result:?}");
            match result {
                Ok(id) => {
                    world.acknowledged.lock().unwrap().insert(id);
                }
                Err(WalError::Unconfirmed { .. }) => {}
                Err(WalError::NoRoom { .. } | WalError::NotLogged(_) | WalError::Disk(_)) => {
                    let view = View::open(Arc::new(disk.clone()), layout()).unwrap();
                    assert_eq!(operations(&view).unwrap().len(), 1, "{when}");
                    let links = if abilities.0 { 2 } else { 1 };
                    assert!(
                        world.names(&layout().spool()).len() <= links,
                        "{when}: {}",
                        world.listing()
                    );
                    assert!(world.names(&layout().tmp()).len() <= 1, "{when}: {}", world.listing());
                }
                Err(error) => panic!("{when}: {error}"),
            }
            world.check(&when);
            world.end(&when);
            if at > 80 {
                break;
            }
        }
    }
}

/// A file that changes while it is copied is copied as before, as after, again, or not at all.
#[test]
fn a_copy_is_a_consistent_snapshot() {
    let versions = ["a", "b"].map(|letter| letter.repeat(600_000).into_bytes());
    let mut outcomes = BTreeSet::new();
    for clones in [false, true] {
        for (always, at) in
            [false, true].into_iter().flat_map(|always| (0..40).map(move |at| (always, at)))
        {
            let world = World::new();
            world.machine.set_abilities(true, clones);
            let path = source("changing");
            let writer = world.machine.process();
            (&writer as &dyn Disk).write_new_synced(&path, &versions[0]).unwrap();
            let (target, new) = (path.clone(), versions[1].clone());
            let write = move || {
                // Replaced by a rename, and then overwritten in place.
                (&writer as &dyn Disk).write_new_synced(Path::new("/new"), &new).unwrap();
                writer.rename(Path::new("/new"), &target).unwrap();
                let file = writer.open(&target, Access::Write).unwrap();
                file.write_at(&new[..1000], 0).unwrap();
            };
            let disk = Between::new(world.machine.process(), at, write);
            let wal = world.wal(disk.clone()).unwrap();
            let mut stage = wal.stage_content().unwrap();
            let hash_max = if always { 1000 } else { u64::MAX };
            let (source, staged) =
                stage.take(&path, u64::MAX, hash_max).expect("the file changes only once");
            let written =
                wal.append_staged(vec![(logged("x", source.clone()), Some(staged))]).unwrap();
            drop(stage);
            let name = source.spool.as_deref().unwrap();
            let copy =
                (&disk as &dyn Disk).read(&layout().spooled_for(name, written[0].id())).unwrap();
            let version = versions.iter().position(|version| *version == copy);
            let version = version.unwrap_or_else(|| {
                panic!("at {at}: the copy is neither the old nor the new content")
            });
            assert_eq!(source.sha256.is_some(), !(clones && always));
            outcomes.insert((version, clones, source.sha256.is_some()));
        }
    }
    assert!(
        outcomes.iter().any(|(version, ..)| *version == 0)
            && outcomes.iter().any(|(version, ..)| *version == 1)
    );
}

#[test]
fn a_file_that_keeps_changing_is_not_copied() {
    let world = World::new();
    let wal = world.wal(world.machine.process()).unwrap();
    let writer = world.machine.process();
    let done = std::sync::atomic::AtomicBool::new(false);
    let file = writer.open(&source("same"), Access::Write).unwrap();
    file.write_at(&[1; 3 << 20], 0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                file.write_at(b"x", 0).unwrap();
            }
        });
        let mut stage = wal.stage_content().unwrap();
        let refused = (0..50)
            .any(|_| matches!(stage.take(&source("same"), u64::MAX, 0), Err(NotTaken::Changed)));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(refused);
    });
}
