//! `verify --repair` on a simulated machine: all readable records are saved, losses are named, and
//! a repair may be interrupted anywhere.

mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use wal_cli::clock::ManualClock;
use wal_cli::disk::{Disk, Machine, MemoryDisk};
use wal_cli::operation::{Number, Operation, Time};
use wal_cli::wal::{Options, Order, Repaired, View, WalError, WalResult};

use super::verify::{claim, files, layout, logged, machine, open, read, verified};

/// An upper bound on the disk operations of a repair.
const STEPS_MAX: u64 = 3000;

fn repair(disk: MemoryDisk) -> WalResult<Repaired> {
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let clock = ManualClock::new(Time::from_millis(1_800_000_200_000), 5);
    wal_cli::wal::repair(
        &disk,
        &clock,
        &layout(),
        &Options { partition_size: 8, ..Options::default() },
    )
}

/// Returns the document of `--json verify --repair`, and its exit code.
fn repaired(place: &super::binary::Place, code: i32) -> serde_json::Value {
    let output = place.output("--json verify --repair");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns a log with an operation in a file, and its content in the spool.
fn with_content() -> super::binary::Place {
    let place = super::binary::Place::new();
    place.file("a.txt", "precious\n");
    place.run("add --backend local --spool always a.txt");
    place.run("checkpoint");
    place
}

/// Returns all operations that a reader sees.
fn seen(machine: &Machine) -> BTreeMap<Number, Operation> {
    let view = View::open(Arc::new(machine.process()), layout()).unwrap();
    let mut seen = BTreeMap::new();
    let take = |operation: Operation| {
        assert!(seen.insert(operation.number, operation).is_none(), "each once");
        ControlFlow::Continue(())
    };
    view.visit(Order::OldestFirst, |_| true, |_| true, take).unwrap();
    seen
}

fn is_held_by_repair(operation: &Operation) -> bool {
    let last = operation.history.last().and_then(|entry| entry.reason.as_ref());
    last.is_some_and(|reason| reason.contains("a repair could not determine"))
}

/// Returns an operation without the hold of a repair.
fn released(operation: &Operation) -> Operation {
    let mut operation = operation.clone();
    if is_held_by_repair(&operation) {
        operation.history.pop();
        let before = operation.history.last().unwrap();
        (operation.revision, operation.updated_at, operation.hold) =
            (before.revision, before.at, false);
    }
    operation
}

/// Asserts what holds after a repair: valid, writable, no number reused, and losses named.
fn check(
    machine: &Machine,
    before: &BTreeMap<Number, Operation>,
    report: &Repaired,
    context: &str,
) -> BTreeSet<Number> {
    let found = verified(machine).unwrap();
    assert!(found.is_valid(), "{context}: {:#?}\n{report:#?}", found.findings);
    let after = seen(machine);
    assert_eq!(found.operations, after.len() as u64, "{context}");
    assert_eq!(report.operations, after.len() as u64, "{context}");
    let lost: BTreeSet<Number> =
        before.keys().filter(|number| !after.contains_key(number)).copied().collect();
    let unknown_extent = report.losses.iter().any(|loss| loss.what.contains("unknown"));
    for number in &lost {
        let is_named = report.lost.contains(*number) || unknown_extent;
        assert!(is_named, "{context}: operation {number} is lost but not named: {report:#?}");
    }
    for (number, operation) in &after {
        let Some(was) = before.get(number) else {
            // A deleted operation reappears only if the record of its deletion is lost.
            let loses_records = report
                .losses
                .iter()
                .any(|loss| !loss.path.contains('/') || loss.path.starts_with("journal"));
            assert!(loses_records, "{context}: operation {number} reappeared");
            assert!(
                operation.hold || operation.status().is_terminal(),
                "{context}: {number} is not held"
            );
            continue;
        };
        assert_eq!(operation.id, was.id, "{context}");
        // Operations that continued in a lost part are not repeated automatically.
        let as_it_was = operation.status() == was.status();
        assert!(
            as_it_was || operation.hold || operation.status().is_terminal(),
            "{context}: {number}: {operation:?}"
        );
        if !report.doubtful.contains(*number) {
            // The history is a part of the old one, in order, with nothing added except a hold.
            let kept = operation.history.len() - usize::from(is_held_by_repair(operation));
            let mut history = was.history.iter();
            let is_part =
                operation.history[..kept].iter().all(|entry| history.any(|old| old == entry));
            assert!(is_part, "{context}: {number}: {operation:#?}");
        }
    }
    assert!(lost.is_empty() || !report.losses.is_empty(), "{context}: {report:#?}");
    // A second repair changes nothing.
    let again = repair(machine.process()).unwrap();
    assert!(!again.changed, "{context}: {again:#?}");
    // The log accepts operations.
    let wal = open(machine.process(), 9).unwrap();
    let new = wal.append_new(vec![logged(99)]).unwrap()[0].number();
    let highest = before.keys().last().copied().unwrap_or(Number::ZERO);
    assert!(new > highest, "{context}: {new} is reused");
    claim(&wal, new.get());
    wal.checkpoint().unwrap();
    machine.power_cut(|| false);
    assert!(verified(machine).unwrap().is_valid(), "{context}: after another write");
    assert_eq!(seen(machine).len(), after.len() + 1, "{context}");
    lost
}

/// A way to damage a log.
type Damage = fn(&Machine);

fn journals(machine: &Machine) -> Vec<std::path::PathBuf> {
    files(machine, &["journal"])
}

fn parquet(machine: &Machine, nth: usize) -> std::path::PathBuf {
    files(machine, &["partitions"]).remove(nth)
}

fn flip(machine: &Machine, path: &Path, at: usize) {
    machine.corrupt(path, |bytes| {
        let at = at % bytes.len();
        bytes[at] ^= 0x55;
    });
}

fn remove(machine: &Machine, path: &Path) {
    let disk = machine.process();
    disk.remove_file(path).unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

fn put(machine: &Machine, path: &Path, content: &[u8]) {
    let disk = machine.process();
    (&disk as &dyn Disk).write_new_synced(path, content).unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

fn manifest_path() -> std::path::PathBuf {
    layout().manifest()
}

/// Makes the medium unreadable from the sector in which the journal ends.
fn spoil_tail(machine: &Machine) {
    let last = journals(machine).pop().unwrap();
    let end = read(machine, &last).iter().rposition(|byte| *byte != 0).unwrap();
    machine.spoil(&last, end / 512 * 512..1 << 30);
}

/// Returns all kinds of damage, each with the largest number of operations that it may lose.
const CATALOGUE: &[(&str, Damage, usize)] = &[
    ("a partition is missing", |machine| remove(machine, &parquet(machine, 0)), 8),
    ("an archive is missing", |machine| remove(machine, &files(machine, &["archives"])[0]), 8),
    ("a data page has a flipped byte", |machine| flip(machine, &parquet(machine, 1), 900), 8),
    (
        "a footer has a flipped byte",
        |machine| {
            let path = parquet(machine, 1);
            let len = read(machine, &path).len();
            flip(machine, &path, len - 200);
        },
        8,
    ),
    (
        "a file is truncated",
        |machine| machine.corrupt(&parquet(machine, 0), |bytes| bytes.truncate(1000)),
        8,
    ),
    ("a file is empty", |machine| machine.corrupt(&parquet(machine, 0), Vec::clear), 8),
    (
        "a file is replaced by one of another program",
        |machine| {
            machine.corrupt(&parquet(machine, 0), |bytes| *bytes = b"PAR1 not really PAR1".to_vec())
        },
        8,
    ),
    (
        "a byte of the journal's first header has flipped",
        |machine| flip(machine, &journals(machine)[0], 30),
        0,
    ),
    ("a byte of a later header has flipped", |machine| flip(machine, &journals(machine)[1], 30), 0),
    ("a byte of a frame has flipped", |machine| flip(machine, &journals(machine)[0], 200), 12),
    (
        "a sector in the middle of the journal is zeroed",
        |machine| machine.corrupt(&journals(machine)[0], |bytes| bytes[512..1024].fill(0)),
        8,
    ),
    ("the last generation is missing", |machine| remove(machine, &journals(machine)[1]), 2),
    ("the first generation is missing", |machine| remove(machine, &journals(machine)[0]), 8),
    ("the manifest is missing", |machine| remove(machine, &manifest_path()), 0),
    ("the manifest has a flipped byte", |machine| flip(machine, &manifest_path(), 77), 0),
    (
        "the manifest is torn",
        |machine| machine.corrupt(&manifest_path(), |bytes| bytes.truncate(512)),
        0,
    ),
    (
        "the manifest is zeros",
        |machine| machine.corrupt(&manifest_path(), |bytes| bytes.fill(0)),
        0,
    ),
    (
        "the manifest is missing, and a file exists twice",
        |machine| {
            let path = parquet(machine, 1);
            put(
                machine,
                &layout().partitions().join("wal_1800000000_000900.parquet"),
                &read(machine, &path),
            );
            remove(machine, &manifest_path());
        },
        0,
    ),
    (
        "the manifest is missing, and one file is damaged",
        |machine| {
            flip(machine, &parquet(machine, 1), 900);
            remove(machine, &manifest_path());
        },
        8,
    ),
    (
        "all lock files and the manifest are missing",
        |machine| {
            for name in ["lock", "sync.lock", "checkpoint.lock", "process.lock", "MANIFEST.json"] {
                let path = layout().base().join(name);
                if machine.process().metadata(&path).is_ok() {
                    remove(machine, &path);
                }
            }
        },
        0,
    ),
    ("a block of the manifest gives nothing", |machine| machine.spoil(&manifest_path(), 0..512), 0),
    (
        "a block of the journal is unreadable",
        |machine| machine.spoil(&journals(machine)[0], 512..1024),
        12,
    ),
    ("a generation gives nothing", |machine| machine.spoil(&journals(machine)[0], 0..1 << 30), 24),
    (
        "a block of a file is unreadable",
        |machine| machine.spoil(&parquet(machine, 1), 512..1024),
        8,
    ),
    (
        "the first block of a file is unreadable",
        |machine| machine.spoil(&parquet(machine, 1), 0..512),
        8,
    ),
    ("the end of the journal gives nothing", spoil_tail, 2),
    (
        "the end of the journal is unreadable after a reboot",
        |machine| {
            machine.power_cut(|| true);
            spoil_tail(machine);
        },
        2,
    ),
    (
        "the end of the journal is unreadable after a reboot, and no note records it",
        |machine| {
            machine.power_cut(|| true);
            spoil_tail(machine);
            remove(machine, &layout().base().join("lock"));
            remove(machine, &layout().base().join("sync.lock"));
        },
        2,
    ),
    (
        "the last generation is unreadable after a reboot, and no note records its end",
        |machine| {
            machine.power_cut(|| true);
            machine.spoil(journals(machine).last().unwrap(), 0..1 << 30);
            remove(machine, &layout().base().join("lock"));
            remove(machine, &layout().base().join("sync.lock"));
        },
        2,
    ),
    (
        "the last generation is missing, and only the note of the last flush names it",
        |machine| {
            remove(machine, &journals(machine)[1]);
            remove(machine, &layout().base().join("lock"));
        },
        2,
    ),
    (
        "the note of the last append is unreadable",
        |machine| machine.spoil(&layout().base().join("lock"), 0..512),
        0,
    ),
    (
        "the note of the last flush is unreadable",
        |machine| machine.spoil(&layout().base().join("sync.lock"), 0..512),
        0,
    ),
    (
        "all of these at once",
        |machine| {
            remove(machine, &manifest_path());
            flip(machine, &journals(machine)[0], 300);
            flip(machine, &parquet(machine, 0), 50);
            remove(machine, &parquet(machine, 2));
        },
        24,
    ),
];

#[test]
fn a_repair_saves_everything_readable_and_names_losses() {
    for (context, damage, most) in CATALOGUE {
        let machine = machine();
        let before = seen(&machine);
        damage(&machine);
        assert!(!verified(&machine).unwrap().is_valid(), "{context}");
        let report = repair(machine.process()).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(report.changed && !report.damages.is_empty(), "{context}: {report:#?}");
        let lost = check(&machine, &before, &report, context);
        eprintln!("{context}: {} lost, {} losses", lost.len(), report.losses.len());
        assert!(lost.len() <= *most, "{context}: {lost:?} are lost\n{report:#?}");
    }
}

#[test]
fn a_repair_deletes_no_damaged_file() {
    for (context, damage, _) in CATALOGUE {
        let machine = machine();
        damage(&machine);
        // A file with a bad block is identified by its inode, since it may have been moved.
        let content = |path: &std::path::PathBuf| {
            let disk = machine.process();
            (&disk as &dyn Disk).read(path).map_err(|_| disk.metadata(path).unwrap().inode)
        };
        let there: Vec<_> =
            files(&machine, &["journal", "partitions", "archives"]).iter().map(content).collect();
        repair(machine.process()).unwrap();
        let all = files(&machine, &["journal", "partitions", "archives", "quarantine"]);
        let kept: BTreeSet<_> = all.iter().map(content).collect();
        for bytes in there {
            assert!(
                kept.contains(&bytes),
                "{context}: {:?} bytes are lost",
                bytes.map(|bytes| bytes.len())
            );
        }
    }
}

#[test]
fn a_valid_log_is_not_changed() {
    let machine = machine();
    let all = ["", "journal", "partitions", "archives", "quarantine", "tmp"];
    let state = |machine: &Machine| -> Vec<_> {
        files(machine, &all).into_iter().map(|path| (path.clone(), read(machine, &path))).collect()
    };
    let before = state(&machine);
    let report = repair(machine.process()).unwrap();
    assert!(!report.changed && report.losses.is_empty(), "{report:#?}");
    assert!(state(&machine) == before, "a valid log was changed");
}

#[test]
fn a_newer_format_is_left_untouched() {
    let machine = machine();
    machine.corrupt(&manifest_path(), |bytes| {
        *bytes =
            String::from_utf8_lossy(bytes).replace("{\"format\":1,", "{\"format\":9,").into_bytes();
    });
    assert!(matches!(repair(machine.process()), Err(WalError::NewerFormat { found: 9, .. })));
}

#[test]
fn a_repair_waits_for_the_drain_loop_to_end() {
    let machine = machine();
    flip(&machine, &parquet(&machine, 0), 50);
    let held = machine.process();
    let lock = held
        .open(&layout().base().join("process.lock"), wal_cli::disk::Access::OpenOrCreate)
        .unwrap();
    assert!(lock.try_lock().unwrap());
    assert!(matches!(repair(machine.process()), Err(WalError::Busy { .. })));
}

/// Returns a small log with a partition, an archive and a journal.
fn small() -> Machine {
    let machine = Machine::new();
    let wal = open(machine.process(), 1).unwrap();
    wal.append_new((0..6).map(logged).collect()).unwrap();
    super::verify::complete(&wal, 2);
    wal.checkpoint().unwrap();
    wal.append_new((6..8).map(logged).collect()).unwrap();
    claim(&wal, 1);
    claim(&wal, 7);
    wal.append_new(vec![logged(8)]).unwrap();
    machine
}

fn without_manifest(machine: &Machine) {
    flip(machine, &journals(machine)[0], 200);
    remove(machine, &manifest_path());
}

fn with_manifest(machine: &Machine) {
    flip(machine, &journals(machine)[0], 200);
    flip(machine, &files(machine, &["archives"])[0], 600);
}

fn without_generation(machine: &Machine) {
    remove(machine, journals(machine).last().unwrap());
}

fn cut_short(power_cut: bool) {
    let cases: [(&str, Damage, usize); 3] = [
        ("manifest lost", without_manifest, 1),
        ("file damaged", with_manifest, 1),
        ("generation lost", without_generation, 1),
    ];
    for (context, damage, stride) in cases {
        let damaged = || {
            let machine = small();
            damage(&machine);
            machine
        };
        let whole = damaged();
        repair(whole.process()).unwrap();
        let expected = seen(&whole);
        let mut done = None;
        for at in (0..STEPS_MAX).step_by(stride) {
            let machine = damaged();
            let dying = machine.process();
            dying.kill_after(at);
            let ended = repair(dying).is_ok();
            if power_cut {
                let (mut count, keeps) = (at / 2, [0, 2, 0, 3][at as usize % 4]);
                machine.power_cut(|| {
                    count += 1;
                    keeps > 0 && count % keeps == 0
                });
            }
            // Until all losses are reported, writers refuse the log.
            if !verified(&machine).unwrap().is_valid() {
                let other = machine.fork();
                let wal = open(other.process(), 77);
                let went_on = wal.and_then(|wal| wal.append_new(vec![logged(77)]).map(drop));
                assert!(
                    went_on.is_err(),
                    "{context}, at {at}: a process writes to a damaged journal"
                );
            }
            let report = repair(machine.process())
                .unwrap_or_else(|error| panic!("{context}, at {at}: {error}"));
            let found = verified(&machine).unwrap();
            assert!(found.is_valid(), "{context}, at {at}: {:#?}\n{report:#?}", found.findings);
            let after = seen(&machine);
            assert_eq!(
                after.keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>(),
                "{context}, at {at}"
            );
            for (number, operation) in &after {
                // The first repair may have removed the proof that the operation may run, so that
                // the second one holds it; never the other way round.
                assert_eq!(released(operation), released(&expected[number]), "{context}, at {at}");
                assert!(operation.hold || !expected[number].hold, "{context}, at {at}");
            }
            if ended {
                done = Some(at);
                break;
            }
        }
        assert!(done.is_some_and(|at| at > 50), "{context}: the repair took {done:?} steps");
    }
}

#[test]
fn a_killed_repair_leaves_the_same_records_to_the_next() {
    cut_short(false);
}

#[test]
fn a_power_cut_leaves_the_same_records_to_the_next_repair() {
    cut_short(true);
}

#[expect(clippy::disallowed_methods, reason = "damages files as other programs would")]
#[test]
fn completions_in_a_lost_sealed_generation_are_not_repeated() {
    let place = super::binary::Place::new();
    place.run("submit mkdir /a --backend mock");
    place.run("submit mkdir /b --backend mock");
    // The process dies after it began the next generation, before anything is folded.
    let mut dying = place.command("checkpoint");
    assert!(
        !dying
            .env("WAL_CLI_FAILPOINT", "before:rename:manifest")
            .output()
            .unwrap()
            .status
            .success()
    );
    place.run("process");
    let last = super::binary::names(&place.log().join("journal")).pop().unwrap();
    for lost in [&format!("journal/{last}")[..], "lock", "sync.lock"] {
        std::fs::remove_file(place.log().join(lost)).unwrap();
    }
    assert_eq!(repaired(&place, 1)["held"], serde_json::json!([1, 2]));
    place.run("process");
    assert_eq!(place.json("status")["stats"]["pending"], 2);
    assert_eq!(place.json("verify")["sound"], true);
}

/// Notes are never flushed: after a power cut they may be older than the files they describe.
#[expect(clippy::disallowed_methods, reason = "damages files as other programs would")]
#[test]
fn completions_in_a_zeroed_generation_are_not_repeated() {
    for zeros in [true, false] {
        let place = super::binary::Place::new();
        place.run("submit mkdir /a --backend mock");
        place.run("submit mkdir /b --backend mock");
        place.run("checkpoint");
        let notes = ["lock", "sync.lock"]
            .map(|name| (name, std::fs::read(place.log().join(name)).unwrap()));
        place.run("process");
        for (name, note) in notes {
            std::fs::write(place.log().join(name), note).unwrap();
        }
        let last = super::binary::names(&place.log().join("journal")).pop().unwrap();
        let last = place.log().join("journal").join(last);
        let len = std::fs::metadata(&last).unwrap().len() as usize;
        std::fs::write(&last, if zeros { vec![0; len] } else { Vec::new() }).unwrap();
        assert_eq!(repaired(&place, 1)["held"], serde_json::json!([1, 2]), "{zeros}");
        place.run("process");
        assert_eq!(place.json("status")["stats"]["pending"], 2);
    }
}

/// A log without its original first generation, as a killed command or a repair leaves it.
#[expect(clippy::disallowed_methods, reason = "damages files as other programs would")]
#[test]
fn without_a_manifest_all_generations_count() {
    let place = super::binary::Place::new();
    let mut dying = place.command("submit mkdir /lost --backend mock");
    assert!(
        !dying
            .env("WAL_CLI_FAILPOINT", "before:rename:manifest")
            .output()
            .unwrap()
            .status
            .success()
    );
    for name in ["/a", "/b", "/c"] {
        place.run(&format!("submit mkdir {name} --backend mock"));
    }
    std::fs::remove_file(place.log().join("MANIFEST.json")).unwrap();
    let mut dying = place.command("verify --repair");
    assert!(
        !dying
            .env("WAL_CLI_FAILPOINT", "before:remove:generation")
            .output()
            .unwrap()
            .status
            .success()
    );
    assert_eq!(place.json("status")["stats"]["pending"], 3);
    place.run("process");
    let held = place.json("status")["stats"]["pending"].as_u64().unwrap();
    std::fs::remove_file(place.log().join("MANIFEST.json")).unwrap();
    repaired(&place, i32::from(held > 0));
    place.run("process");
    let stats = &place.json("status")["stats"];
    assert_eq!(
        (stats["pending"].as_u64(), stats["total"].as_u64()),
        (Some(held), Some(3)),
        "{stats}"
    );
}
