//! Archive pushes: every completed operation is in the log or at the destination, whatever
//! interrupts a push.

mod lives;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wal_cli::clock::{Clock, ManualClock};
use wal_cli::disk::{Disk, Fault, Machine, MemoryDisk};
use wal_cli::operation::{
    BackendName, Claim, Event, Failure, FailureClass, Fields, Logged, Number, Operation,
    OperationId, OperationType, Outcome, Status, Time,
};
use wal_cli::wal::schema::Table;
use wal_cli::wal::{
    BadPush, Change, Known, Layout, Options, Order, Push, PushReport, PushState, Retention, View,
    Wal, WalError,
};

const START: &str = "2026-11-20T12:00:00Z";
const DAY: u64 = 86_400;

fn layout() -> Layout {
    Layout::new("/home/wal")
}

fn name(name: &str) -> BackendName {
    BackendName::new(name).unwrap()
}

fn push_to(destination: &str) -> Push {
    Push::new(destination, "web1", name("local"), 5).unwrap()
}

fn is_push(operation: &Operation) -> bool {
    operation.idempotency_key.as_deref().is_some_and(|key| key.starts_with("archive push "))
}

/// A log, and the destination of its archives.
struct World {
    machine: Machine,
    clock: Arc<ManualClock>,
    /// Rows by destination.
    there: BTreeMap<String, Vec<Operation>>,
    /// The revision of each acknowledged completion.
    completed: BTreeMap<OperationId, u64>,
}

impl World {
    fn new() -> World {
        World {
            machine: Machine::new(),
            clock: Arc::new(ManualClock::new(Time::parse_rfc3339(START).unwrap(), 1)),
            there: BTreeMap::new(),
            completed: BTreeMap::new(),
        }
    }

    fn fork(&self) -> World {
        World {
            machine: self.machine.fork(),
            clock: Arc::new(ManualClock::new(self.clock.now(), 2)),
            there: self.there.clone(),
            completed: self.completed.clone(),
        }
    }

    fn open(&self, disk: MemoryDisk) -> Result<Wal, WalError> {
        let options = Options {
            partition_size: 2,
            generation_bytes: 4000,
            min_free_bytes: 1 << 20,
            reserve_bytes: 4096,
            lock_timeout: Duration::from_millis(50),
            ..Options::default()
        };
        Wal::open(Arc::new(disk), self.clock.clone(), layout(), options)
    }

    fn wal(&self) -> Wal {
        self.open(self.machine.process()).unwrap()
    }

    fn view(&self) -> View {
        View::open(Arc::new(self.machine.process()), layout()).unwrap()
    }

    fn set(&self, text: &str) {
        self.clock.set(Time::parse_rfc3339(text).unwrap());
    }

    /// Lets days pass.
    fn pass(&self, days: u64) {
        self.clock.advance(Duration::from_secs(days * DAY));
    }

    /// Logs and completes `count` operations.
    fn complete(&mut self, wal: &Wal, count: usize) -> Result<(), WalError> {
        let logged = (0..count).map(|nth| {
            let parameters = Fields::from([("path".to_owned(), format!("/{nth}"))]);
            Logged::new(OperationType::new("add").unwrap(), name("local"), parameters, 5)
        });
        let logged: Vec<Logged> = logged.collect();
        let numbers: BTreeSet<Number> =
            wal.append_new(logged)?.iter().map(|admitted| admitted.number()).collect();
        self.end(wal, |operation| numbers.contains(&operation.number), true)?;
        Ok(())
    }

    /// Claims operations and settles them. Returns their number.
    fn end(
        &mut self,
        wal: &Wal,
        which: impl Fn(&Operation) -> bool,
        well: bool,
    ) -> Result<usize, WalError> {
        let claim = || Claim { pid: 7, host: "here".into(), started: self.clock.now() };
        let claim = |_: &Operation| Event::Claimed { claim: claim() };
        let waiting: Vec<Operation> = all(wal)?
            .into_iter()
            .filter(|operation| operation.status() == Status::Pending && which(operation))
            .collect();
        let numbers: BTreeSet<Number> = waiting.iter().map(|operation| operation.number).collect();
        next(wal, &numbers, claim)?;
        let failure = Failure {
            class: FailureClass::Permanent,
            error_type: "no_bucket".into(),
            message: "no".into(),
        };
        let written = next(wal, &numbers, |_| match well {
            true => Event::Completed { outcome: Outcome::default() },
            false => Event::Failed { failure: failure.clone() },
        })?;
        let pushes: BTreeSet<OperationId> =
            waiting.iter().filter(|one| is_push(one)).map(|one| one.id).collect();
        if well {
            self.completed.extend(written.into_iter().filter(|(id, _)| !pushes.contains(id)));
        }
        Ok(numbers.len())
    }

    /// Executes pushes as a drain loop does, and checks that the bytes are those that were logged.
    fn execute_pushes(&mut self, wal: &Wal) -> Result<usize, WalError> {
        let disk: Arc<dyn Disk> = Arc::new(self.machine.process());
        for operation in all(wal)?.iter().filter(|operation| is_push(operation)) {
            if operation.status() == Status::Pending {
                let path = Path::new(&operation.parameters["path"]);
                let source = operation.source.as_ref().unwrap();
                let sha256 = source.sha256.clone().unwrap();
                let metadata = disk.metadata(path).expect("the archive exists");
                assert_eq!(
                    (metadata.len, metadata.mtime_ns, metadata.inode),
                    (source.size, source.mtime_ns, source.inode)
                );
                let rows = Table::open(&*disk, path, &sha256)
                    .expect("the archive is unchanged")
                    .read_all()
                    .unwrap();
                let to = operation.parameters["destination"].clone();
                assert!(to.contains(&sha256[..8]), "{to}");
                if let Some(before) = self.there.insert(to.clone(), rows) {
                    assert_eq!(before, self.there[&to], "one name stands for one content");
                }
            }
        }
        self.end(wal, is_push, true)
    }

    /// Logs and executes pushes until nothing is left to push.
    fn push_all(&mut self, wal: &Wal, to: &str) {
        for _ in 0..4 {
            let report = wal.push(&push_to(to)).unwrap();
            if report.archives.is_empty() {
                return;
            }
            self.execute_pushes(wal).unwrap();
        }
        panic!("pushes do not end");
    }

    /// Asserts that every completed operation is in the log or at the destination, and that marked
    /// archives stay until they are pushed.
    fn check(&self, when: &str) {
        let view = self.view();
        assert_eq!(view.damage(), None, "{when}");
        let mut here: BTreeMap<OperationId, u64> = BTreeMap::new();
        let visited = view.visit(
            Order::OldestFirst,
            |_| true,
            |_| true,
            |operation| {
                here.insert(operation.id, operation.revision.get());
                ControlFlow::Continue(())
            },
        );
        visited.unwrap();
        let there: BTreeMap<OperationId, u64> = self
            .there
            .values()
            .flatten()
            .map(|operation| (operation.id, operation.revision.get()))
            .collect();
        for (id, revision) in &self.completed {
            let found = here.get(id).max(there.get(id));
            assert_eq!(found, Some(revision), "{when}: {id}");
        }
        let mut keys = BTreeSet::new();
        for operation in everything(&view) {
            // A pending push needs its archive.
            if is_push(&operation) && !operation.status().is_terminal() {
                let to = &operation.parameters["destination"];
                let marks =
                    view.manifest().unwrap().files.iter().filter(|file| file.is_being_pushed());
                let mut marks = marks.filter_map(|file| file.pushed.as_ref());
                assert!(marks.any(|pushed| pushed.to == *to), "{when}: {operation:?} is lost");
            }
            if let Some(key) = &operation.idempotency_key {
                assert!(keys.insert(key.clone()), "{when}: {key} is logged twice");
            }
        }
    }
}

fn everything(view: &View) -> Vec<Operation> {
    let mut found = Vec::new();
    let take = |operation| {
        found.push(operation);
        ControlFlow::Continue(())
    };
    view.visit(Order::OldestFirst, |_| true, |_| true, take).unwrap();
    found
}

fn all(wal: &Wal) -> Result<Vec<Operation>, WalError> {
    wal.read(|view| {
        let mut found = Vec::new();
        let take = |operation| {
            found.push(operation);
            ControlFlow::Continue(())
        };
        view.visit(Order::OldestFirst, |_| true, |_| true, take)?;
        Ok(found)
    })
}

/// Records the next event of operations, and returns their ids and new revisions.
fn next(
    wal: &Wal,
    numbers: &BTreeSet<Number>,
    event: impl Fn(&Operation) -> Event,
) -> Result<Vec<(OperationId, u64)>, WalError> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let (written, ()) = wal.transact(|view| {
        let mut changes = Vec::new();
        for number in numbers {
            if let Some(operation) = view.operation(*number)? {
                changes.push(Change::Next(Known::from(&operation), event(&operation)));
            }
        }
        Ok((changes, ()))
    })?;
    Ok(written.iter().map(|written| (written.id, written.revision.get())).collect())
}

fn states(world: &World) -> Vec<&'static str> {
    let archives = world.view().archives(world.clock.now(), None).unwrap();
    archives.iter().map(|archive| archive.state.as_str()).collect()
}

/// Returns the report of a push that logs nothing.
fn unlogged(pushed: u64, open: u64) -> PushReport {
    let mut report = PushReport::default();
    (report.pushed, report.open) = (pushed, open);
    report
}

fn destinations(report: &PushReport) -> Vec<&str> {
    report.archives.iter().map(|archive| archive.to.as_str()).collect()
}

const KEEP: Retention = Retention { max_age_days: 0, failed: false, keep_unpushed: true };

#[test]
fn past_days_are_merged_and_pushed_once() {
    let mut world = World::new();
    let wal = world.wal();
    // Three small archives of one day, since each fold is smaller than the last archive.
    for count in [3, 2, 1] {
        world.complete(&wal, count).unwrap();
        wal.checkpoint().unwrap();
    }
    assert_eq!(states(&world), ["open", "open", "open"]);
    assert_eq!(wal.push(&push_to("/h")).unwrap(), unlogged(0, 3));
    world.pass(1);
    // Two operations of the new day, still in the journal.
    world.complete(&wal, 2).unwrap();
    let planned = world.view().plan_push(&push_to("/h"), world.clock.now(), 16).unwrap();
    assert_eq!(
        destinations(&planned),
        ["/h/host=web1/date=2026-11-20/"; 3],
        "the archives are merged first"
    );
    let report = wal.push(&push_to("/h/")).unwrap();
    assert_eq!((report.logged(), report.pushed, report.open), (1, 0, 1));
    let archive = &report.archives[0];
    let view = world.view();
    let file = view
        .manifest()
        .unwrap()
        .files
        .iter()
        .find(|file| file.name == archive.name)
        .cloned()
        .unwrap();
    let stem = archive.name.strip_prefix("archives/").unwrap().strip_suffix(".parquet").unwrap();
    let to = format!("/h/host=web1/date=2026-11-20/{stem}_{}.parquet", &file.sha256[..8]);
    assert_eq!((archive.to.as_str(), archive.rows, archive.existing), (to.as_str(), 6, false));
    let logged = view.operation_by_key(&format!("archive push {to}")).unwrap().unwrap();
    assert_eq!((logged.operation_type.as_str(), logged.max_retries), ("upload", 5));
    assert_eq!(states(&world), ["open", "pushing"]);
    // A second push logs nothing, before or after the first one is executed.
    let again = wal.push(&push_to("/h")).unwrap();
    assert_eq!(
        (again.logged(), again.archives[0].existing, again.archives[0].operation),
        (0, true, archive.operation)
    );
    assert_eq!(world.execute_pushes(&wal).unwrap(), 1);
    let bytes = world.machine.process();
    let manifest = |disk: &MemoryDisk| (disk as &dyn Disk).read(&layout().manifest()).unwrap();
    assert_eq!(wal.push(&push_to("/h")).unwrap(), unlogged(1, 2));
    let before = manifest(&bytes);
    assert_eq!(wal.push(&push_to("/elsewhere")).unwrap(), unlogged(1, 2));
    assert_eq!(manifest(&bytes), before, "without anything to push, nothing is written");
    assert_eq!(world.there[&to].len(), 6);
    world.check("at the end");
}

#[test]
fn deleted_operations_are_not_pushed() {
    let mut world = World::new();
    let wal = world.wal();
    // One archive that is more than half full, and a small one.
    for (count, then) in [(24, 0), (2, 1)] {
        world.complete(&wal, count).unwrap();
        wal.checkpoint().unwrap();
        world.pass(then);
    }
    let deleted = all(&wal).unwrap().iter().map(|operation| operation.number).step_by(5).collect();
    for (id, _) in next(&wal, &deleted, |_| Event::Deleted { reason: "by hand".into() }).unwrap() {
        world.completed.remove(&id);
    }
    let planned = world.view().plan_push(&push_to("/h"), world.clock.now(), 16).unwrap();
    assert!(planned.archives.len() > 1, "{planned:?}");
    // Each is rewritten, since some of its rows were deleted.
    assert!(
        planned.archives.iter().all(|archive| archive.to.ends_with("/date=2026-11-20/")),
        "{planned:?}"
    );
    let pushed = wal.push(&push_to("/h")).unwrap();
    assert_eq!(planned.logged(), pushed.logged());
    world.execute_pushes(&wal).unwrap();
    world.push_all(&wal, "/h");
    let there: BTreeSet<OperationId> =
        world.there.values().flatten().map(|operation| operation.id).collect();
    assert_eq!(there, world.completed.keys().copied().collect());
    assert_eq!(there.len(), 26 - deleted.len());
    world.check("at the end");
    // Neither is rewritten a second time.
    assert!(wal.push(&push_to("/h")).unwrap().archives.is_empty());
}

#[test]
fn a_damaged_archive_does_not_stop_other_pushes() {
    let mut world = World::new();
    let wal = world.wal();
    for _ in 0..2 {
        for count in [3, 2] {
            world.complete(&wal, count).unwrap();
            wal.checkpoint().unwrap();
        }
        world.pass(1);
    }
    let names = |world: &World| -> Vec<String> {
        world
            .view()
            .manifest()
            .unwrap()
            .files
            .iter()
            .filter(|file| file.is_archive())
            .map(|file| file.name.clone())
            .collect()
    };
    let before = names(&world);
    assert_eq!(before.len(), 4);
    let disk: Arc<dyn Disk> = Arc::new(world.machine.process());
    let path = layout().file(&before[0]);
    let mut bytes = disk.read(&path).unwrap();
    bytes[20] ^= 1;
    disk.open(&path, wal_cli::disk::Access::Write).unwrap().write_at(&bytes, 0).unwrap();
    let report = wal.push(&push_to("/h")).unwrap();
    let after = names(&world);
    assert!(after.contains(&before[0]) && after.contains(&before[1]), "{after:?}");
    assert!(!after.contains(&before[2]) && !after.contains(&before[3]), "{after:?}");
    assert_eq!((after.len(), report.logged()), (3, 3));
}

#[test]
fn late_completions_go_to_a_second_file_of_a_pushed_day() {
    let mut world = World::new();
    let wal = world.wal();
    world.complete(&wal, 1).unwrap();
    world.pass(1);
    world.push_all(&wal, "/h");
    // The clock was set back: the operation follows those of a later day, so it counts as that old.
    for (count, then) in
        [(1, "2026-11-22T13:00:00Z"), (1, "2026-11-23T13:00:00Z"), (2, "2026-11-24T13:00:00Z")]
    {
        world.set("2026-11-20T13:00:00Z");
        world.complete(&wal, count).unwrap();
        wal.checkpoint().unwrap();
        world.set(then);
        world.push_all(&wal, "/h");
        world.check("late");
    }
    let there: Vec<usize> = world.there.values().map(Vec::len).collect();
    assert_eq!(there.iter().sum::<usize>(), 5, "{there:?}");
    assert!(
        world.there.keys().all(|to| to.starts_with("/h/host=web1/date=2026-11-20/")),
        "{:?}",
        world.there.keys()
    );
    assert_eq!(world.there.len(), 4);
    wal.cleanup(Retention { keep_unpushed: false, max_age_days: 30, failed: false }, false)
        .unwrap();
    assert_eq!(states(&world).iter().filter(|state| **state == "pushed").count(), 4);
}

#[test]
fn retention_waits_for_a_completed_push() {
    let mut world = World::new();
    let wal = world.wal();
    world.complete(&wal, 3).unwrap();
    wal.checkpoint().unwrap();
    world.pass(5);
    // Not marked: kept only if pushes are configured.
    assert_eq!(wal.cleanup(KEEP, true).unwrap().unpushed, 3);
    assert_eq!(wal.cleanup(KEEP, false).unwrap().unpushed, 3);
    let plain = Retention { keep_unpushed: false, ..KEEP };
    assert_eq!(wal.cleanup(plain, true).unwrap().archives.len(), 1);
    wal.push(&push_to("/h")).unwrap();
    // Marked: kept in any case.
    assert_eq!(wal.cleanup(plain, false).unwrap().unpushed, 3);
    world.end(&wal, is_push, false).unwrap();
    assert_eq!(states(&world), ["failed"]);
    let report = wal.push(&push_to("/h")).unwrap();
    assert_eq!(
        (report.logged(), report.archives[0].operation.unwrap().status),
        (0, Status::Failed)
    );
    assert_eq!(wal.cleanup(plain, false).unwrap().unpushed, 3);
    let number = report.archives[0].operation.unwrap().number;
    next(&wal, &BTreeSet::from([number]), |_| Event::Retried {
        reason: "by hand".into(),
        forget: Vec::new(),
        source: None,
    })
    .unwrap();
    assert_eq!(world.execute_pushes(&wal).unwrap(), 1);
    // The cleanup itself notices that the push completed.
    let plan = wal.cleanup(KEEP, false).unwrap();
    assert_eq!((plan.archives.len(), plan.unpushed), (1, 0));
    world.check("pruned in the log, kept at the destination");
    // The push operation is in an archive of today that holds nothing else, which is never pushed.
    world.pass(1);
    wal.checkpoint().unwrap();
    assert_eq!(states(&world), ["bare"]);
    assert_eq!(wal.push(&push_to("/h")).unwrap(), PushReport::default());
    assert_eq!(
        wal.cleanup(KEEP, false).unwrap().archives.len(),
        1,
        "it does not delay pruning either"
    );
}

#[test]
fn a_failed_push_may_be_sent_elsewhere_or_logged_again() {
    let mut world = World::new();
    let wal = world.wal();
    world.complete(&wal, 3).unwrap();
    world.pass(1);
    let wrong = wal.push(&push_to("/wrong")).unwrap();
    let waiting = wal.push(&push_to("/right")).unwrap();
    assert_eq!(
        (waiting.logged(), destinations(&waiting)),
        (0, destinations(&wrong)),
        "a pending push keeps its destination"
    );
    world.end(&wal, is_push, false).unwrap();
    let right = wal.push(&push_to("/right")).unwrap();
    assert_eq!(right.logged(), 1);
    assert!(right.archives[0].to.starts_with("/right/"), "{right:?}");
    let number = right.archives[0].operation.unwrap().number;
    next(&wal, &BTreeSet::from([number]), |_| Event::Deleted { reason: "by hand".into() }).unwrap();
    assert_eq!(states(&world), ["closed"]);
    assert_eq!(wal.cleanup(Retention { keep_unpushed: false, ..KEEP }, false).unwrap().unpushed, 3);
    let again = wal.push(&push_to("/right")).unwrap();
    assert_eq!((again.logged(), destinations(&again)), (1, destinations(&right)));
    world.execute_pushes(&wal).unwrap();
    assert_eq!(states(&world), ["pushed"]);
    world.check("at the end");
}

#[test]
fn a_wrong_clock_ends_no_day() {
    let mut world = World::new();
    let wal = world.wal();
    // Completed with the clock in 3010, then with a correct one: later operations decide the day.
    world.set("3010-06-01T12:00:00Z");
    world.complete(&wal, 1).unwrap();
    wal.checkpoint().unwrap();
    world.set(START);
    assert_eq!(states(&world), ["open"]);
    world.complete(&wal, 1).unwrap();
    wal.checkpoint().unwrap();
    // Completed with the clock in 1970, it counts as old as its predecessors.
    world.set("1970-01-01T12:00:00Z");
    world.complete(&wal, 1).unwrap();
    wal.checkpoint().unwrap();
    world.set(START);
    assert_eq!(states(&world), ["open", "open", "open"]);
    world.pass(1);
    let report = wal.push(&push_to("/h")).unwrap();
    let mut dates: Vec<_> =
        destinations(&report).iter().map(|to| to.split('/').nth(3).unwrap().to_owned()).collect();
    dates.sort();
    assert_eq!(dates, ["date=1970-01-01", "date=2026-11-20", "date=3010-06-01"]);
    world.execute_pushes(&wal).unwrap();
    world.check("every clock");
    // With the clock set back, no day has ended, and nothing is undone either.
    world.set("1970-01-02T12:00:00Z");
    assert_eq!(wal.push(&push_to("/h")).unwrap().logged(), 0);
    assert_eq!(states(&world).iter().filter(|state| **state == "pushed").count(), 3);
}

#[test]
fn names_that_queries_cannot_use_are_refused() {
    let push = |to: &str, host: &str| Push::new(to, host, name("s3"), 5).map(|_| ());
    for host in ["", "a b", "a/b", "a=b", "ä", "a%b"] {
        assert_eq!(push("s3://b/p", host), Err(BadPush::Host { host: host.to_owned() }), "{host}");
    }
    for host in ["web1", "db-2.example_x", "10.0.0.1"] {
        push("s3://b/p", host).unwrap();
    }
    for bad in ["", "s3://", "s3:///", "a\nb", &format!("s3://b/{}", "x".repeat(450))] {
        assert!(matches!(push(bad, "h"), Err(BadPush::Destination { .. })), "{bad}");
    }
    for good in ["s3://b", "s3://b/", "s3://b/a/b/", "/", "/history"] {
        push(good, "h").unwrap();
    }
}

#[test]
fn the_next_push_completes_an_interrupted_one() {
    let mut before = World::new();
    let wal = before.wal();
    for count in [3, 2] {
        before.complete(&wal, count).unwrap();
        wal.checkpoint().unwrap();
    }
    before.pass(1);
    before.push_all(&wal, "/h");
    before.complete(&wal, 3).unwrap();
    before.pass(1);
    // One archive has been pushed, one has not, and one more comes from the journal.
    before.complete(&wal, 2).unwrap();
    before.pass(1);
    drop(wal);
    let mut marked_only = 0;
    let mut finished = false;
    for at in 0.. {
        for fault in [None, Some(Fault::Full), Some(Fault::Medium), Some(Fault::Flush)] {
            let mut world = before.fork();
            let mut random = fastrand::Rng::with_seed(at);
            let disk = world.machine.process();
            let wal = world.open(disk.clone()).unwrap();
            match fault {
                None => disk.kill_after(at),
                Some(fault) => disk.fail_after(at, fault, at.is_multiple_of(2)),
            }
            let result = wal.push(&push_to("/h"));
            if fault.is_none() {
                finished = disk.operations_left().is_some_and(|left| left > 0);
            }
            disk.stop_failing();
            drop(wal);
            if at.is_multiple_of(3) || fault.is_none() {
                world.machine.power_cut(|| random.bool());
            } else {
                disk.kill();
            }
            let when = format!("{at} {fault:?}: {:?}", result.map(|report| report.logged()));
            world.check(&when);
            let view = world.view();
            for archive in view.archives(world.clock.now(), None).unwrap() {
                marked_only +=
                    u64::from(archive.is_assigned() && archive.state == PushState::Ready);
            }
            let wal = world.wal();
            // A cleanup may come before the next push.
            if random.bool() {
                wal.cleanup(KEEP, false).unwrap();
            }
            world.push_all(&wal, "/h");
            world.check(&when);
            wal.cleanup(KEEP, false).unwrap();
            world.check(&when);
            let rows: usize = world.there.values().map(Vec::len).sum();
            assert!(
                world.there.values().flatten().any(|row| !is_push(row)) && rows >= 10,
                "{when}: {rows}"
            );
            let files = world.view().manifest().unwrap().files.clone();
            assert!(
                files.iter().all(|file| file.pushed.is_none()),
                "{when}: all pushed archives may be pruned"
            );
        }
        if finished {
            println!(
                "died at {at} disk operations, {marked_only} times between mark and operation"
            );
            break;
        }
    }
    assert!(marked_only > 0, "no kill happened between the mark and the operation");
}

#[test]
fn a_first_push_does_not_scan_the_history_per_archive() {
    let disk_operations = |days: u64| {
        let mut world = World::new();
        let wal = world.wal();
        for day in 0..days {
            let logged = (0..2).map(|nth| {
                let parameters = Fields::from([("path".to_owned(), format!("/{nth}"))]);
                let mut logged =
                    Logged::new(OperationType::new("add").unwrap(), name("local"), parameters, 5);
                logged.idempotency_key = Some(format!("{day} {nth}"));
                logged
            });
            wal.append_new(logged.collect()).unwrap();
            world.end(&wal, |_| true, true).unwrap();
            wal.checkpoint().unwrap();
            world.pass(1);
        }
        drop(wal);
        let wal = world.wal();
        let before = world.machine.operations();
        assert_eq!(wal.push(&push_to("/h")).unwrap().logged(), days);
        world.machine.operations() - before
    };
    let (short, long) = (disk_operations(30), disk_operations(90));
    println!("30 days: {short} disk operations, 90 days: {long}");
    assert!(long < short * 4, "{short} for 30 days, {long} for 90");
}
