//! Actions of other processes between two steps of one call. Each test reproduces a defect that
//! once lost, duplicated or blocked an operation.
//!
//! A disk wrapped around the simulated one calls back at chosen steps, where other processes of the
//! same machine act.

use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wal_cli::clock::{Clock, ManualClock, SystemClock};
use wal_cli::disk::{
    Access, Disk, DiskError, DiskFile, DiskResult, Entry, FileKind, Identity, Machine, MemoryDisk,
    Metadata,
};
use wal_cli::operation::{
    BackendName, Claim, Event, Failure, FailureClass, Fields, Logged, Number, OperationId,
    OperationType, Outcome, Status, Time,
};
use wal_cli::wal::{
    Change, Known, Layout, LockFile, LockName, Options, Order, Retention, View, Wal, WalError,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Open(Access),
    LayZeros,
    SyncData,
    TryLock,
}

/// Called before a step; if it returns a result, that replaces the step.
type Hook = Arc<dyn Fn(At, &Path) -> Option<DiskResult<()>> + Send + Sync>;

#[derive(Clone)]
struct Hooked {
    disk: MemoryDisk,
    hook: Hook,
}

struct HookedFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    hook: Hook,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Disk for Hooked {
    fn open(&self, path: &Path, access: Access) -> DiskResult<Box<dyn DiskFile>> {
        (self.hook)(At::Open(access), path).unwrap_or(Ok(()))?;
        let file = self.disk.open(path, access)?;
        Ok(Box::new(HookedFile { file, path: path.to_owned(), hook: self.hook.clone() }))
    }
    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        self.disk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        self.disk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        self.disk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> DiskResult<Vec<Entry>> {
        self.disk.list(path)
    }
    fn metadata(&self, path: &Path) -> DiskResult<Metadata> {
        self.disk.metadata(path)
    }
    fn symlink_metadata(&self, path: &Path) -> DiskResult<Metadata> {
        self.disk.symlink_metadata(path)
    }
    fn read_link(&self, path: &Path) -> DiskResult<PathBuf> {
        self.disk.read_link(path)
    }
    fn symlink(&self, target: &Path, path: &Path) -> DiskResult<()> {
        self.disk.symlink(target, path)
    }
    fn free_bytes(&self, path: &Path) -> DiskResult<u64> {
        self.disk.free_bytes(path)
    }
    fn is_network(&self, path: &Path) -> DiskResult<bool> {
        self.disk.is_network(path)
    }
    fn identity(&self) -> &Identity {
        self.disk.identity()
    }
    fn is_alive(&self, pid: u32, started: u64) -> bool {
        self.disk.is_alive(pid, started)
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        let zeros = data.len() > 1000 && data.iter().all(|byte| *byte == 0);
        let replaced = if zeros { (self.hook)(At::LayZeros, &self.path) } else { None };
        replaced.unwrap_or_else(|| self.file.write_at(data, offset))
    }
    fn sync_data(&self) -> DiskResult<()> {
        (self.hook)(At::SyncData, &self.path).unwrap_or_else(|| self.file.sync_data())
    }
    fn sync_all(&self) -> DiskResult<()> {
        self.file.sync_all()
    }
    fn metadata(&self) -> DiskResult<Metadata> {
        self.file.metadata()
    }
    fn try_lock(&self) -> DiskResult<bool> {
        (self.hook)(At::TryLock, &self.path).unwrap_or(Ok(()))?;
        self.file.try_lock()
    }
    fn unlock(&self) -> DiskResult<()> {
        self.file.unlock()
    }
}

fn layout() -> Layout {
    Layout::new("/home/wal")
}

fn clock() -> Arc<dyn Clock> {
    // Ids use the randomness of the clock, so each process needs a clock of its own.
    static SEED: AtomicUsize = AtomicUsize::new(1);
    let seed = SEED.fetch_add(1, Ordering::SeqCst) as u64;
    Arc::new(ManualClock::new(Time::from_millis(1_800_000_000_000), seed))
}

fn wal(machine: &Machine) -> Wal {
    wal_on(machine.process(), Options::default())
}

fn wal_on(disk: impl Disk + 'static, options: Options) -> Wal {
    Wal::open(Arc::new(disk), clock(), layout(), options).unwrap()
}

fn logged(text: &str) -> Logged {
    let parameters = Fields::from([("path".to_owned(), text.to_owned())]);
    Logged::new(
        OperationType::new("add").unwrap(),
        BackendName::new("local").unwrap(),
        parameters,
        5,
    )
}

fn add(wal: &Wal, text: &str) -> OperationId {
    wal.append_new(vec![logged(text)]).unwrap()[0].id()
}

/// Returns the ids of all operations that a new reader sees.
fn ids(machine: &Machine) -> BTreeSet<OperationId> {
    let view = View::open(Arc::new(machine.process()), layout()).expect("readable");
    assert_eq!(view.damage(), None);
    let mut ids = BTreeSet::new();
    view.visit(
        Order::OldestFirst,
        |_| true,
        |_| true,
        |operation| {
            ids.insert(operation.id);
            ControlFlow::Continue(())
        },
    )
    .expect("readable");
    ids
}

fn generations(machine: &Machine) -> usize {
    machine.process().list(&layout().journal()).unwrap().len()
}

fn is_journal(path: &Path) -> bool {
    path.to_str().unwrap().contains("journal_")
}

fn io_error(path: &Path, kind: ErrorKind) -> DiskResult<()> {
    Err(DiskError { action: "change", path: path.to_owned(), source: kind.into() })
}

#[test]
fn preallocation_never_covers_frames_of_others() {
    let machine = Machine::new();
    let (a, b) = (wal(&machine), wal(&machine));
    let mut acknowledged = BTreeSet::from([add(&a, "first")]);
    acknowledged.extend((0..4).map(|_| add(&b, &"x".repeat(100_000))));
    acknowledged.insert(add(&a, "last"));
    assert_eq!(ids(&machine), acknowledged);
}

#[test]
fn a_checkpoint_survives_a_recovery_that_skips_its_generation() {
    for at in 0..60 {
        let machine = Machine::new();
        let acknowledged = Arc::new(Mutex::new(BTreeSet::from([add(&wal(&machine), "one")])));
        let (others, reported, fired) =
            (machine.clone(), acknowledged.clone(), AtomicBool::new(false));
        let hook: Hook = Arc::new(move |step, path| {
            let staging =
                step == At::Open(Access::CreateNew) && path.to_str().unwrap().contains("tmp/wal_");
            if staging && !fired.swap(true, Ordering::SeqCst) {
                let dying = others.process();
                let wal_of_dying = wal_on(dying.clone(), Options::default());
                dying.kill_after(at);
                let _ = wal_of_dying.append_new(vec![logged("killed")]);
                reported.lock().unwrap().insert(add(&wal(&others), "acknowledged"));
            }
            None
        });
        let result =
            wal_on(Hooked { disk: machine.process(), hook }, Options::default()).checkpoint();
        let acknowledged = acknowledged.lock().unwrap().clone();
        assert!(
            acknowledged.is_subset(&ids(&machine)),
            "killed at {at}; the checkpoint returned {result:?}"
        );
        add(&wal(&machine), "after the checkpoint");
        wal(&machine).checkpoint().unwrap();
    }
}

#[test]
fn after_a_failed_flush_only_recovery_acknowledges() {
    let machine = Machine::new();
    add(&wal(&machine), "one");
    let (failed, held) = (AtomicBool::new(false), Mutex::new(None));
    let other = machine.process();
    let hook: Hook = Arc::new(move |step, path| {
        if step == At::SyncData && is_journal(path) && !failed.swap(true, Ordering::SeqCst) {
            return Some(io_error(path, ErrorKind::Other));
        }
        // Another waiter reads `sync.lock` at the same moment.
        let mut held = held.lock().unwrap();
        if step == At::TryLock
            && path.ends_with("lock")
            && failed.load(Ordering::SeqCst)
            && held.is_none()
        {
            let mut lock = LockFile::open(&other, &layout(), LockName::Sync).unwrap();
            assert!(lock.try_lock(&other).unwrap());
            *held = Some(lock);
        }
        None
    });
    let result = wal_on(Hooked { disk: machine.process(), hook }, Options::default())
        .append_new(vec![logged("two")]);
    machine.power_cut(|| false);
    if let Ok(written) = result {
        assert!(
            ids(&machine).contains(&written[0].id()),
            "an acknowledged operation was lost by the power cut"
        );
    }
}

/// Linux marks pages clean when a flush fails: a later flush succeeds without writing them.
#[test]
fn a_rotation_distrusts_a_second_flush_of_the_same_pages() {
    let machine = Machine::new();
    let options = Options { generation_bytes: 4000, ..Options::default() };
    add(&wal_on(machine.process(), options.clone()), "one");
    let first = |path: &Path| path.to_str().unwrap().contains("journal_0000000001");
    let (lost, entered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (lost_by_b, entered_by_b, pause) = (lost.clone(), entered.clone(), SystemClock::new());
    let fails: Hook = Arc::new(move |step, path| {
        if step != At::SyncData || !first(path) || lost_by_b.load(Ordering::SeqCst) {
            return None;
        }
        entered_by_b.store(true, Ordering::SeqCst);
        // Meanwhile the other process waits for `sync.lock`, to rotate.
        pause.sleep(Duration::from_millis(300));
        lost_by_b.store(true, Ordering::SeqCst);
        Some(io_error(path, ErrorKind::Other))
    });
    let lies: Hook = Arc::new(move |step, path| {
        (step == At::SyncData && first(path) && lost.load(Ordering::SeqCst)).then_some(Ok(()))
    });
    let open = |hook: Hook| {
        let disk: Arc<dyn Disk> = Arc::new(Hooked { disk: machine.process(), hook });
        Wal::open(disk, Arc::new(SystemClock::new()), layout(), options.clone()).unwrap()
    };
    let (b, a) = (open(fails), open(lies));
    let results = std::thread::scope(|scope| {
        let of_b = scope.spawn(|| b.append_new(vec![logged("of B")]));
        while !entered.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let of_a = scope.spawn(|| a.append_new(vec![logged(&"y".repeat(3800))]));
        [of_b.join().unwrap(), of_a.join().unwrap()]
    });
    machine.power_cut(|| false);
    let seen = ids(&machine);
    for written in results.into_iter().flatten() {
        assert!(seen.contains(&written[0].id()), "an acknowledged operation was lost");
    }
}

#[test]
fn removals_wait_for_a_manifest_whose_name_is_durable() {
    let mut bad = Vec::new();
    for (first, second) in
        (60..140).flat_map(|first| (10..90).step_by(3).map(move |second| (first, second)))
    {
        let machine = Machine::new();
        let dying = machine.process();
        let one = wal_on(dying.clone(), Options::default());
        let acknowledged = BTreeSet::from([add(&one, "one")]);
        dying.kill_after(first);
        if one.checkpoint().is_ok() {
            continue;
        }
        let dying = machine.process();
        let two = wal_on(dying.clone(), Options::default());
        dying.kill_after(second);
        let _ = two.checkpoint();
        let mut nth = 0;
        let dropped = (first + second) % 4;
        machine.power_cut(|| {
            nth += 1;
            nth > dropped
        });
        if std::panic::catch_unwind(|| ids(&machine)).ok() != Some(acknowledged) {
            bad.push((first, second));
        }
    }
    assert_eq!(bad, []);
}

#[test]
fn a_writer_outlives_the_removal_of_its_directory() {
    let machine = Machine::new();
    let a = wal(&machine);
    (0..5).for_each(|_| {
        add(&a, "old");
    });
    let disk = machine.process();
    for directory in layout().directories().into_iter().chain([layout().base().to_owned()]) {
        for entry in
            disk.list(&directory).unwrap().into_iter().filter(|entry| entry.kind == FileKind::File)
        {
            disk.remove_file(&directory.join(entry.name)).unwrap();
        }
    }
    add(&wal(&machine), "new");
    if let Ok(written) = a.append_new(vec![logged("of A")]) {
        machine.power_cut(|| false);
        assert!(ids(&machine).contains(&written[0].id()), "an acknowledged operation is missing");
    }
}

#[test]
fn a_pruned_operation_is_found_by_neither_number_nor_id() {
    let machine = Machine::new();
    let clock = Arc::new(ManualClock::new(Time::from_millis(1_800_000_000_000), 7));
    let options = Options { archive_completed: false, ..Options::default() };
    let wal = Wal::open(Arc::new(machine.process()), clock.clone(), layout(), options).unwrap();
    let one = add(&wal, "one");
    add(&wal, "two");
    add(&wal, "three");
    let claim = Claim { pid: 1, host: "h".into(), started: clock.now() };
    for event in [Event::Claimed { claim }, Event::Completed { outcome: Outcome::default() }] {
        wal.transact(|view| {
            let operation = view.operation(Number::new(1))?.unwrap();
            Ok((vec![Change::Next(Known::from(&operation), event.clone())], ()))
        })
        .unwrap();
    }
    clock.advance(Duration::from_secs(10 * 86_400));
    wal.cleanup(Retention { max_age_days: 1, failed: false, keep_unpushed: false }, false).unwrap();
    let view = View::open(Arc::new(machine.process()), layout()).unwrap();
    assert_eq!(view.operation(Number::new(1)).unwrap(), None);
    assert_eq!(view.operation_by_id(one).unwrap(), None);
}

#[test]
fn a_cleanup_skips_operations_that_change_meanwhile() {
    // Before each read of a Parquet file, another process changes an operation that is due for
    // pruning.
    for (nth, delete) in (0..12).flat_map(|nth| [(nth, false), (nth, true)]) {
        let machine = Machine::new();
        let clock = Arc::new(ManualClock::new(Time::from_millis(1_800_000_000_000), 7));
        let open = |disk: Arc<dyn Disk>, archive_completed| {
            let options = Options { archive_completed, ..Options::default() };
            Wal::open(disk, clock.clone(), layout(), options).unwrap()
        };
        let other = Arc::new(open(Arc::new(machine.process()), delete));
        add(&other, "one");
        add(&other, "two");
        let end = |wal: &Wal, number: u64, event: Event| {
            wal.transact(|view| {
                let operation = view.operation(Number::new(number))?.unwrap();
                Ok((vec![Change::Next(Known::from(&operation), event.clone())], ()))
            })
            .unwrap();
        };
        let claim = Claim { pid: 1, host: "h".into(), started: clock.now() };
        let class = FailureClass::Permanent;
        let failure = Failure { class, error_type: "x".into(), message: "y".into() };
        for number in [1, 2] {
            end(&other, number, Event::Claimed { claim: claim.clone() });
            let completed = Event::Completed { outcome: Outcome::default() };
            end(
                &other,
                number,
                if delete { completed } else { Event::Failed { failure: failure.clone() } },
            );
        }
        other.checkpoint().unwrap();
        clock.advance(Duration::from_secs(10 * 86_400));
        let (count, acts) = (AtomicUsize::new(0), other.clone());
        let acted = Arc::new(AtomicBool::new(false));
        let reported = acted.clone();
        let hook: Hook = Arc::new(move |step, path| {
            let looks = step == At::Open(Access::Read)
                && path.extension().is_some_and(|end| end == "parquet");
            if looks && count.fetch_add(1, Ordering::SeqCst) == nth {
                let event = match delete {
                    true => Event::Deleted { reason: "x".into() },
                    false => {
                        Event::Retried { reason: "x".into(), forget: Vec::new(), source: None }
                    }
                };
                end(&acts, 1, event);
                reported.store(true, Ordering::SeqCst);
            }
            None
        });
        let cleaner = open(Arc::new(Hooked { disk: machine.process(), hook }), delete);
        cleaner
            .cleanup(Retention { max_age_days: 1, failed: true, keep_unpushed: false }, false)
            .unwrap();
        other.checkpoint().expect("the log is valid");
        let view = View::open(Arc::new(machine.process()), layout()).unwrap();
        assert_eq!(view.damage(), None);
        let status = view.operation(Number::new(1)).unwrap().map(|operation| operation.status());
        let acted = acted.load(Ordering::SeqCst);
        assert_eq!(
            status,
            (acted && !delete).then_some(Status::Pending),
            "read {nth}, delete {delete}"
        );
    }
}

#[test]
fn a_long_command_fits_into_the_notes() {
    let machine = Machine::new();
    let options = Options { command: "\"é\u{1}".repeat(300), ..Options::default() };
    let wal = wal_on(machine.process(), options);
    (0..5).for_each(|_| {
        add(&wal, "x");
    });
    assert_eq!(generations(&machine), 1, "each unreadable note would cause a recovery");
}

#[test]
fn a_busy_log_is_not_called_damaged() {
    for nth in 0..8 {
        let machine = Machine::new();
        let b = wal(&machine);
        add(&b, "one");
        let count = AtomicUsize::new(0);
        let hook: Hook = Arc::new(move |step, path| {
            let looks = step == At::Open(Access::Read) && path.ends_with("sync.lock");
            if looks && count.fetch_add(1, Ordering::SeqCst) == nth {
                add(&b, "meanwhile");
            }
            None
        });
        let result =
            wal_on(Hooked { disk: machine.process(), hook }, Options::default()).checkpoint();
        assert!(result.is_ok(), "read {nth}: {result:?}");
    }
}

/// Returns a writer whose flush failed and lost its page; `act` runs before it takes `lock` again.
fn with_dropped_page(machine: &Machine, act: impl Fn(&Machine) + Send + Sync + 'static) -> Wal {
    let (others, state) = (machine.clone(), AtomicUsize::new(0));
    let step_to = move |from: usize| {
        state.compare_exchange(from, from + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    let hook: Hook = Arc::new(move |step, path| {
        if step == At::SyncData && is_journal(path) && step_to(0) {
            let disk = others.process();
            let bytes = (&disk as &dyn Disk).read(path).unwrap();
            let frames = bytes.windows(4).enumerate().filter(|(_, window)| *window == b"WFRM");
            let last = frames.map(|(at, _)| at).max().unwrap();
            others.corrupt(path, |bytes| bytes[last..].fill(0));
            return Some(io_error(path, ErrorKind::Other));
        }
        if step == At::TryLock && path.ends_with("lock") && step_to(1) {
            act(&others);
        }
        None
    });
    wal_on(Hooked { disk: machine.process(), hook }, Options::default())
}

#[test]
fn a_reused_revision_is_not_mistaken_for_ones_own() {
    let machine = Machine::new();
    add(&wal(&machine), "one");
    let a = with_dropped_page(&machine, |machine| {
        let b = wal(machine);
        add(&b, "of B");
        b.checkpoint().unwrap();
    });
    let result = a.append_new(vec![logged("of A")]);
    if let Ok(written) = result {
        assert!(
            ids(&machine).contains(&written[0].id()),
            "an acknowledged operation was dropped by a recovery"
        );
    }
}

#[test]
fn a_claim_of_another_loop_is_not_mistaken_for_ones_own() {
    fn claim(wal: &Wal) -> Result<bool, WalError> {
        let claim = Claim { pid: 1, host: "h".into(), started: Time::from_millis(0) };
        let (_, claimed) = wal.transact(|view| {
            let operation = view.operation(Number::new(1))?.unwrap();
            if operation.status() != Status::Pending {
                return Ok((Vec::new(), false));
            }
            Ok((
                vec![Change::Next(
                    Known::from(&operation),
                    Event::Claimed { claim: claim.clone() },
                )],
                true,
            ))
        })?;
        Ok(claimed)
    }
    let machine = Machine::new();
    add(&wal(&machine), "one");
    let a = with_dropped_page(&machine, |machine| assert!(claim(&wal(machine)).unwrap()));
    assert!(!matches!(claim(&a), Ok(true)), "both processes believe that they hold the claim");
}

#[test]
fn a_batch_is_complete_although_the_journal_restarts() {
    let machine = Machine::new();
    add(&wal(&machine), "one");
    let a = with_dropped_page(&machine, |_| {});
    let written = a.append_new((0..1500).map(|nth| logged(&nth.to_string())).collect()).unwrap();
    let seen = ids(&machine);
    assert_eq!((written.len(), seen.len()), (1500, 1501));
    assert!(written.iter().all(|written| seen.contains(&written.id())));
}

#[test]
fn frames_are_written_where_preallocation_finds_no_space() {
    let machine = Machine::new();
    add(&wal(&machine), "one");
    let hook: Hook = Arc::new(|step, path| {
        (step == At::LayZeros).then(|| io_error(path, ErrorKind::StorageFull))
    });
    let a = wal_on(Hooked { disk: machine.process(), hook }, Options::default());
    for text in ["x".repeat(300_000).as_str(), "small", "smaller"] {
        add(&a, text);
    }
    assert_eq!((ids(&machine).len(), generations(&machine)), (4, 1));
}

#[test]
fn a_missing_directory_is_created_again() {
    let machine = Machine::new();
    let a = wal(&machine);
    add(&a, "one");
    let disk = machine.process();
    disk.remove_dir(&layout().tmp()).unwrap();
    disk.remove_dir(&layout().quarantine()).unwrap();
    a.checkpoint().unwrap();
    assert_eq!(ids(&machine).len(), 1);
}

#[test]
fn no_flipped_bit_of_a_parquet_file_goes_unnoticed() {
    let machine = Machine::new();
    let a = wal(&machine);
    (0..3).for_each(|nth| {
        add(&a, &format!("/home/someone/file {nth}"));
    });
    a.checkpoint().unwrap();
    let disk = machine.process();
    let name = disk.list(&layout().partitions()).unwrap().pop().unwrap().name;
    let path = layout().partitions().join(name);
    let good = (&disk as &dyn Disk).read(&path).unwrap();
    for at in 0..good.len() {
        machine.corrupt(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        let view = View::open(Arc::new(disk.clone()), layout()).unwrap();
        for number in 1..=3 {
            let read = view.operation(Number::new(number));
            assert!(matches!(read, Err(WalError::Damaged(_))), "byte {at}: {read:?}");
        }
        machine.corrupt(&path, |bytes| bytes[at] ^= 1 << (at % 8));
    }
    machine.corrupt(&path, |bytes| bytes[good.len() / 2] ^= 1);
    // As many as the file holds: a checkpoint would now merge it with them.
    (0..3).for_each(|_| {
        add(&a, "more");
    });
    assert!(
        matches!(a.checkpoint(), Err(WalError::Damaged(_))),
        "a damaged file must not be named by a new manifest"
    );
}
