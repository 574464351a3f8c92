//! Adoption on a simulated machine: interrupted at every step by a kill, a power cut or a full
//! disk, then resumed.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use wal_cli::clock::ManualClock;
use wal_cli::disk::{Disk, Machine, MemoryDisk};
use wal_cli::operation::{
    BackendName, Fields, Logged, Number, Operation, OperationType, Status, Time,
};
use wal_cli::wal::{Layout, Options, Order, View, Wal, WalError};

use super::adoption::files_of;

/// An upper bound on the disk operations of an adoption.
const STEPS_MAX: u64 = 2000;

const NEW: &str = "partitions/wal_1735799999_0.parquet";
const NEW_ID: &str = "1715609f-7c74-4c6d-820f-c1e1d0a4e909";

fn layout() -> Layout {
    Layout::new("/home/wal")
}

fn put(disk: &MemoryDisk, name: &str, content: &[u8]) {
    let path = layout().file(name);
    let disk: &dyn Disk = disk;
    disk.create_dir_all_synced(path.parent().unwrap()).unwrap();
    disk.write_new_synced(&path, content).unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

/// Returns a machine with a durable directory of the original system.
fn machine(scenario: &str) -> Machine {
    let machine = Machine::new();
    files_of(scenario).for_each(|(name, content)| put(&machine.process(), name, content));
    machine
}

fn open(disk: MemoryDisk, seed: u64) -> Result<Wal, WalError> {
    let clock = ManualClock::new(Time::from_millis(1_800_000_000_000), seed);
    // Small files, so that there are several of each kind.
    let options = Options { partition_size: 5, preallocate_bytes: 4096, ..Options::default() };
    Wal::open(Arc::new(disk), Arc::new(clock), layout(), options)
}

/// Returns all operations that a new reader sees, by number.
fn seen(machine: &Machine) -> Vec<Operation> {
    let view = View::open(Arc::new(machine.process()), layout()).expect("readable");
    let mut seen = Vec::new();
    let take = |operation| {
        seen.push(operation);
        ControlFlow::Continue(())
    };
    view.visit(Order::OldestFirst, |_| true, |_| true, take).expect("readable");
    assert!(
        seen.windows(2).all(|pair| pair[0].number < pair[1].number),
        "an operation exists twice: {seen:?}"
    );
    for operation in seen.iter().step_by(8) {
        assert_eq!(view.operation(operation.number).unwrap().as_ref(), Some(operation));
        assert_eq!(view.operation_by_id(operation.id).unwrap().as_ref(), Some(operation));
    }
    assert_eq!(view.counts().values().sum::<u64>(), seen.len() as u64);
    seen
}

/// Returns whether a file of the original system exists unchanged, in its place or set aside.
fn is_kept(machine: &Machine, name: &str, content: &[u8]) -> bool {
    let disk = machine.process();
    let reads = |path: &Path| (&disk as &dyn Disk).read(path).is_ok_and(|read| read == content);
    let aside = Path::new("/home/wal/quarantine/original").join(name);
    reads(&layout().file(name)) || reads(&aside)
}

/// Asserts what holds after an interruption: nothing is lost or duplicated, and the next writer
/// continues.
fn check_recovery(machine: &Machine, scenario: &str, expected: &[Operation], context: &str) {
    assert_eq!(seen(machine), expected, "{context}: after the interruption");
    for (name, content) in files_of(scenario) {
        assert!(is_kept(machine, name, content), "{context}: {name} is missing");
    }
    open(machine.process(), 99).unwrap_or_else(|error| panic!("{context}: {error}"));
    machine.power_cut(|| false);
    assert_eq!(seen(machine), expected, "{context}: after the next writer");
    let disk = machine.process();
    for (name, content) in files_of(scenario) {
        let aside = Path::new("/home/wal/quarantine/original").join(name);
        assert_eq!(
            (&disk as &dyn Disk).read(&aside).unwrap(),
            content,
            "{context}: {name} has changed"
        );
        assert!(
            !(&disk as &dyn Disk).exists(&layout().file(name)).unwrap(),
            "{context}: {name} was not moved"
        );
    }
}

/// Asserts that the result is an ordinary log.
fn check_usable(machine: &Machine, expected: &[Operation], context: &str) {
    let wal = open(machine.process(), 100).unwrap();
    let parameters = Fields::from([("path".to_owned(), "/x".to_owned())]);
    let new = Logged::new(
        OperationType::new("add").unwrap(),
        BackendName::new("local").unwrap(),
        parameters,
        5,
    );
    let written = wal.append_new(vec![new]).unwrap();
    assert_eq!(written[0].number(), Number::new(expected.len() as u64 + 1), "{context}");
    wal.checkpoint().unwrap();
    machine.power_cut(|| false);
    let after = seen(machine);
    assert_eq!(
        (&after[..expected.len()], after.len()),
        (expected, expected.len() + 1),
        "{context}: after a checkpoint"
    );
}

#[test]
fn a_kill_at_any_step_loses_and_duplicates_nothing() {
    // Every step of one directory; the others have fewer files, and take the same path.
    for (scenario, stride) in [("mixed", 1), ("appended", 9), ("lines", 7)] {
        let expected = seen(&machine(scenario));
        let done = (0..STEPS_MAX).step_by(stride).find(|at| {
            let machine = machine(scenario);
            let dying = machine.process();
            dying.kill_after(*at);
            let result = open(dying, 1);
            check_recovery(&machine, scenario, &expected, &format!("{scenario}, killed at {at}"));
            if at % 10 == 0 || result.is_ok() {
                check_usable(&machine, &expected, &format!("{scenario}, killed at {at}"));
            }
            result.is_ok()
        });
        assert!(done.is_some_and(|at| at > 50), "the adoption took {done:?} steps");
    }
}

#[test]
fn a_power_cut_at_any_step_loses_and_duplicates_nothing() {
    let scenario = "mixed";
    let expected = seen(&machine(scenario));
    let mut done = None;
    for at in 0..STEPS_MAX {
        let machine = machine(scenario);
        let dying = machine.process();
        dying.kill_after(at);
        let ended = open(dying, 1).is_ok();
        // None or some of the unsynced writes survive.
        let (mut nth, keeps) = (at / 2, [0, 2, 0, 3][at as usize % 4]);
        machine.power_cut(|| {
            nth += 1;
            keeps > 0 && nth % keeps == 0
        });
        check_recovery(&machine, scenario, &expected, &format!("cut at {at}, 1 of {keeps} kept"));
        if at % 10 == 0 || ended {
            check_usable(&machine, &expected, &format!("cut at {at}"));
        }
        if ended {
            done = Some(at);
            break;
        }
    }
    assert!(done.is_some_and(|at| at > 50), "the adoption took {done:?} steps");
}

#[test]
fn a_resuming_process_may_die_too() {
    let scenario = "mixed";
    let expected = seen(&machine(scenario));
    for first in (0..200).step_by(23) {
        for second in (0..200).step_by(29) {
            let machine = machine(scenario);
            for (seed, at) in [(1, first), (2, second)] {
                let dying = machine.process();
                dying.kill_after(at);
                let _ = open(dying, seed);
                if (first + second) % 2 == 0 {
                    let mut nth = first;
                    machine.power_cut(|| {
                        nth += 1;
                        nth % 3 == 0
                    });
                }
            }
            check_recovery(
                &machine,
                scenario,
                &expected,
                &format!("killed at {first}, then at {second}"),
            );
        }
    }
}

#[test]
fn a_full_disk_at_any_step_only_delays_adoption() {
    let scenario = "mixed";
    let expected = seen(&machine(scenario));
    let done = (0..STEPS_MAX).step_by(3).find(|at| {
        let machine = machine(scenario);
        let disk = machine.process();
        disk.fail_after(*at, ErrorKind::StorageFull, true);
        let result = open(disk.clone(), 1).map(|_| ());
        disk.kill();
        check_recovery(&machine, scenario, &expected, &format!("full at {at}: {result:?}"));
        result.is_ok()
    });
    assert!(done.is_some_and(|at| at > 10), "the adoption took {done:?} steps");
}

#[test]
fn writes_of_the_original_in_between_are_not_lost() {
    let line = format!(
        r#"{{"operation_id": "{NEW_ID}", "operation_type": "rm", "status": "completed", "backend": "local",
        "timestamp": 1735679999000, "updated_at": 1799999000000}}"#
    );
    let line = line.replace('\n', "");
    let before = seen(&machine("mixed"));
    let expected = {
        let machine = machine("mixed");
        put(&machine.process(), NEW, line.as_bytes());
        seen(&machine)
    };
    let status = |operations: &[Operation]| {
        operations
            .iter()
            .find(|operation| operation.id.to_string() == NEW_ID)
            .map(Operation::status)
    };
    assert_eq!(
        (status(&before), status(&expected)),
        (Some(Status::Pending), Some(Status::Completed))
    );
    assert_ne!(before[0].id, expected[0].id, "the numbers change, too");
    let (mut adopted, mut too_late) = (0, 0);
    for at in (0..STEPS_MAX).step_by(3) {
        let machine = machine("mixed");
        let dying = machine.process();
        dying.kill_after(at);
        let done = open(dying, 1).is_ok();
        // The original system was started again, although that is not supported.
        put(&machine.process(), NEW, line.as_bytes());
        open(machine.process(), 2).unwrap().checkpoint().unwrap();
        let after = seen(&machine);
        if after == expected {
            adopted += 1;
        } else {
            assert_eq!(after, before, "at {at}");
            too_late += 1;
            let path = Path::new("/home/wal/quarantine").join(NEW.rsplit('/').next().unwrap());
            assert_eq!(
                (&machine.process() as &dyn Disk).read(&path).unwrap(),
                line.as_bytes(),
                "at {at}"
            );
        }
        if done {
            break;
        }
    }
    assert!(adopted > 10 && too_late > 1, "{adopted}, {too_late}");
}
