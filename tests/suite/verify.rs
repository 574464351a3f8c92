//! `verify` on a simulated machine: a log with every kind of content is valid, and every flipped
//! bit is noticed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal_cli::clock::{Clock, ManualClock};
use wal_cli::disk::{Disk, FileKind, Machine, MemoryDisk};
use wal_cli::operation::{
    BackendName, Claim, Event, Failure, FailureClass, Fields, Logged, Number, OperationType,
    Outcome, Time,
};
use wal_cli::wal::{
    Admitted, Change, FindingKind, Known, Layout, Options, Verified, Wal, WalResult,
};

pub fn layout() -> Layout {
    Layout::new("/home/wal")
}

pub fn open(disk: MemoryDisk, seed: u64) -> WalResult<Wal> {
    let clock: Arc<dyn Clock> =
        Arc::new(ManualClock::new(Time::from_millis(1_800_000_000_000), seed));
    let options = Options {
        partition_size: 8,
        frame_operations: 20,
        preallocate_bytes: 4096,
        ..Options::default()
    };
    Wal::open(Arc::new(disk), clock, layout(), options)
}

pub fn logged(nth: usize) -> Logged {
    let parameters = Fields::from([("path".to_owned(), format!("/files/{nth:05}"))]);
    let backend = BackendName::new(["local", "mock"][nth % 2]).unwrap();
    Logged::new(OperationType::new("add").unwrap(), backend, parameters, 5)
}

fn change(wal: &Wal, number: u64, event: Event) {
    let known = wal.read(|view| view.operation(Number::new(number))).unwrap().unwrap();
    wal.transact(|_| Ok((vec![Change::Next(Known::from(&known), event.clone())], ()))).unwrap();
}

pub fn claim(wal: &Wal, number: u64) {
    let claim = Claim { pid: 1, host: "h".into(), started: Time::from_millis(1_800_000_000_000) };
    change(wal, number, Event::Claimed { claim });
}

pub fn complete(wal: &Wal, number: u64) {
    claim(wal, number);
    let outcome =
        Outcome { cid: Some(format!("cid{number}")), size: Some(number), ..Outcome::default() };
    change(wal, number, Event::Completed { outcome });
}

/// Returns a log with partitions, archives, a large batch, two journal generations, and every
/// status.
pub fn machine() -> Machine {
    let machine = Machine::new();
    let wal = open(machine.process(), 1).unwrap();
    let failure = |class| Failure { class, error_type: "x".into(), message: "it broke".into() };
    let life = |from: u64| {
        complete(&wal, from);
        claim(&wal, from + 1);
        change(&wal, from + 1, Event::Failed { failure: failure(FailureClass::Permanent) });
        claim(&wal, from + 2);
        let until = Time::from_millis(1_800_000_100_000);
        change(
            &wal,
            from + 2,
            Event::Retrying { failure: failure(FailureClass::Transient), until },
        );
        claim(&wal, from + 3);
        change(&wal, from + 4, Event::Held { reason: "later".into() });
        change(&wal, from + 5, Event::Deleted { reason: "by mistake".into() });
    };
    let mut first = logged(0);
    first.idempotency_key = Some("k".into());
    let Admitted::Logged(written) = &wal.append_new(vec![first]).unwrap()[0] else {
        panic!("the operation is not new")
    };
    let mut after = logged(1);
    after.depends_on = vec![written.id];
    wal.append_new(vec![after]).unwrap();
    wal.append_new((2..14).map(logged).collect()).unwrap();
    life(3);
    wal.checkpoint().unwrap();
    wal.append_new((14..40).map(logged).collect()).unwrap();
    life(20);
    wal.append_new((40..44).map(logged).collect()).unwrap();
    life(9);
    // A recovery begins a second generation.
    drop(wal);
    machine.power_cut(|| true);
    let wal = open(machine.process(), 2).unwrap();
    wal.append_new((44..46).map(logged).collect()).unwrap();
    complete(&wal, 42);
    machine
}

pub fn verified(machine: &Machine) -> WalResult<Verified> {
    let disk: Arc<dyn Disk> = Arc::new(machine.process());
    wal_cli::wal::verify(&disk, &layout(), &|_, _| {})
}

/// Returns all files of the log in these directories.
pub fn files(machine: &Machine, directories: &[&str]) -> Vec<PathBuf> {
    let disk = machine.process();
    let mut found = Vec::new();
    for directory in directories {
        let directory = layout().base().join(directory);
        for entry in disk.list(&directory).unwrap_or_default() {
            if entry.kind == FileKind::File && !entry.name.to_string_lossy().ends_with("lock") {
                found.push(directory.join(entry.name));
            }
        }
    }
    found
}

pub fn read(machine: &Machine, path: &Path) -> Vec<u8> {
    (&machine.process() as &dyn Disk).read(path).unwrap()
}

#[test]
fn a_log_with_every_kind_of_content_is_valid() {
    let machine = machine();
    let before: Vec<_> = files(&machine, &["", "journal", "partitions", "archives"]);
    let found = verified(&machine).unwrap();
    assert!(found.is_valid(), "{:#?}", found.findings);
    let view = wal_cli::wal::View::open(Arc::new(machine.process()), layout()).unwrap();
    assert_eq!(found.operations, view.counts().values().sum::<u64>());
    assert!(found.files > 3 && found.generations == 2 && found.bytes > 10_000, "{found:?}");
    assert_eq!(
        files(&machine, &["", "journal", "partitions", "archives"]),
        before,
        "no file was created or removed"
    );
}

#[test]
fn absent_parts_are_not_damage() {
    let found = verified(&Machine::new()).unwrap();
    assert!(!found.exists && found.is_valid(), "{found:?}");
}

/// Returns the end of the frames of a generation, where preallocated zeros begin.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn every_flipped_bit_is_reported() {
    let machine = machine();
    let mut flipped = 0;
    for path in files(&machine, &["", "journal", "partitions", "archives"]) {
        let bytes = read(&machine, &path);
        let is_journal = path.starts_with("/home/wal/journal");
        // Every bit of small files; of Parquet files, whose hash covers every byte, a sample.
        let (whole, stride) = if is_journal {
            (450, 37)
        } else {
            (0, if path.ends_with("MANIFEST.json") { 41 } else { 499 })
        };
        for at in (0..used(&bytes)).filter(|at| *at < whole || at % stride == 0) {
            let bit = 1 << (at % 8);
            machine.corrupt(&path, |bytes| bytes[at] ^= bit);
            let name = layout().relative(&path);
            let reported = match verified(&machine) {
                Ok(found) => found.findings.iter().any(|finding| {
                    finding.kind == FindingKind::Damage
                        || (finding.path == name && finding.offset.is_some())
                }),
                Err(wal_cli::wal::WalError::NewerFormat { .. }) => true,
                Err(error) => panic!("{name} byte {at}: {error}"),
            };
            assert!(reported, "{name}: a flip in byte {at} is not noticed");
            machine.corrupt(&path, |bytes| bytes[at] ^= bit);
            flipped += 1;
        }
    }
    assert!(flipped > 1000, "{flipped}");
    assert!(verified(&machine).unwrap().is_valid(), "the log is unchanged");
}

#[test]
fn a_missing_file_is_damage_to_readers_too() {
    let machine = machine();
    let path = files(&machine, &["partitions"]).remove(0);
    machine.process().remove_file(&path).unwrap();
    let found = verified(&machine).unwrap();
    assert_eq!(found.damages().count(), 1, "{:#?}", found.findings);
    assert_eq!(found.findings[0].path, layout().relative(&path));
    let view = wal_cli::wal::View::open(Arc::new(machine.process()), layout()).unwrap();
    let result = view.operation(Number::new(1));
    assert!(matches!(result, Err(wal_cli::wal::WalError::Damaged(_))), "{result:?}");
}

#[test]
fn concurrent_writers_and_checkpoints_are_not_damage() {
    let machine = machine();
    let (writer, stop) =
        (open(machine.process(), 7).unwrap(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 0..60 {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                writer.append_new(vec![logged(nth)]).unwrap();
                if nth % 9 == 0 {
                    writer.checkpoint().unwrap();
                }
                if nth % 21 == 0 {
                    writer.append_new((0..25).map(logged).collect()).unwrap();
                }
            }
        });
        let (mut worst, mut errors) = (Vec::new(), Vec::new());
        for _ in 0..15 {
            match verified(&machine) {
                Ok(found) if found.is_valid() => {}
                Ok(found) => worst = found.findings,
                Err(error) => errors.push(error.to_string()),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((worst, errors), (vec![], vec![]), "a valid log was reported as damaged");
    });
}
