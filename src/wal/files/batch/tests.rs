use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::*;
use crate::clock::ManualClock;
use crate::disk::{Disk, Machine, MemoryDisk};
use crate::operation::{BackendName, Claim, Fields, Operation, OperationType, Status, Time};
use crate::wal::change::{Change, Known};
use crate::wal::read::scan::Order;
use crate::wal::read::view::View;
use crate::wal::{Options, Wal};

fn layout() -> Layout {
    Layout::new("/home/wal")
}

/// Frames of up to three operations; larger batches in partitions of four, eight at a time.
fn wal_on(disk: MemoryDisk) -> Wal {
    let clock =
        ManualClock::new(Time::from_millis(1_800_000_000_000), u64::from(disk.identity().pid));
    let options = Options {
        frame_operations: 3,
        chunk_operations: 8,
        partition_size: 4,
        ..Options::default()
    };
    Wal::open(Arc::new(disk), Arc::new(clock), layout(), options).unwrap()
}

fn new(text: &str) -> Logged {
    let parameters = Fields::from([("path".to_owned(), text.to_owned())]);
    Logged::new(
        OperationType::new("add").unwrap(),
        BackendName::new("local").unwrap(),
        parameters,
        5,
    )
}

fn many(count: usize) -> Vec<Logged> {
    (0..count).map(|nth| new(&nth.to_string())).collect()
}

fn all(machine: &Machine) -> Vec<Operation> {
    let view = View::open(Arc::new(machine.process()), layout()).unwrap();
    assert_eq!(view.damage(), None);
    let mut operations = Vec::new();
    let visited = view.visit(
        Order::OldestFirst,
        |_| true,
        |_| true,
        |operation| {
            operations.push(operation);
            ControlFlow::Continue(())
        },
    );
    visited.unwrap();
    let counted: u64 = view.counts().values().sum();
    assert_eq!(counted, operations.len() as u64);
    operations
}

fn names(machine: &Machine, directory: std::path::PathBuf) -> Vec<String> {
    let entries = machine.process().list(&directory).unwrap();
    entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
}

fn texts(operations: &[Operation]) -> Vec<&str> {
    operations.iter().map(|operation| operation.parameters["path"].as_str()).collect()
}

#[test]
fn a_small_batch_is_a_frame_and_a_large_one_partitions() {
    let machine = Machine::new();
    let wal = wal_on(machine.process());
    assert_eq!(wal.append_new(many(3)).unwrap().len(), 3);
    assert_eq!(names(&machine, layout().partitions()), [] as [&str; 0]);
    let mut batch = wal.batch();
    many(21).into_iter().for_each(|operation| batch.push(operation).unwrap());
    assert_eq!(all(&machine).len(), 3, "nothing is visible before the commit");
    let committed = batch.commit().unwrap();
    assert_eq!(
        (committed.count(), committed.numbers.as_slice()),
        (21, &[NumberRange { first: Number::new(4), last: Number::new(24) }][..])
    );
    // Three chunks: twice two full partitions, then one of four and one of the rest.
    assert_eq!(names(&machine, layout().partitions()).len(), 6);
    assert_eq!(names(&machine, layout().tmp()), [] as [&str; 0]);
    machine.power_cut(|| false);
    let operations = all(&machine);
    assert_eq!(texts(&operations[3..]), (0..21).map(|nth| nth.to_string()).collect::<Vec<_>>());
    let mut entries = Vec::new();
    committed
        .each(|entry| {
            entries.push((entry.written.number, entry.written.id, entry.path.unwrap()));
            Ok::<(), WalError>(())
        })
        .unwrap_err();
    assert_eq!(entries, [], "the receipts are lost with the machine");
}

#[test]
fn frames_and_partitions_hold_the_same_operation() {
    let machine = Machine::new();
    let wal = wal_on(machine.process());
    let mut logged = new("x");
    logged.priority = 7;
    logged.idempotency_key = Some("key".into());
    wal.append_new(vec![logged.clone()]).unwrap();
    logged.idempotency_key = Some("another".into());
    let mut others = many(4);
    others.push(logged);
    let written = wal.append_new(others).unwrap();
    let operations = all(&machine);
    let (by_frame, by_batch) = (&operations[0], &operations[5]);
    assert_eq!((written[4].number(), written[4].id()), (by_batch.number, by_batch.id));
    let mut expected = by_frame.clone();
    (expected.number, expected.id, expected.revision) =
        (by_batch.number, by_batch.id, by_batch.revision);
    expected.idempotency_key = Some("another".into());
    (expected.logged_at, expected.updated_at) = (by_batch.logged_at, by_batch.updated_at);
    (expected.history[0].revision, expected.history[0].at) =
        (by_batch.revision, by_batch.logged_at);
    assert_eq!(*by_batch, expected);
}

#[test]
fn operations_of_a_batch_can_change_afterwards() {
    let machine = Machine::new();
    let wal = wal_on(machine.process());
    wal.append_new(many(9)).unwrap();
    let claim = |number: Number| {
        wal.transact(|view| {
            let operation = view.operation(number)?.unwrap();
            let claim = Claim { pid: 1, host: "here".into(), started: Time::default() };
            Ok((vec![Change::Next(Known::from(&operation), Event::Claimed { claim })], ()))
        })
        .unwrap()
        .0
        .remove(0)
    };
    let claimed = claim(Number::new(5));
    assert_eq!(claimed.revision, Revision::new(10), "after the revisions of the batch");
    wal.checkpoint().unwrap();
    wal.append_new(many(5)).unwrap();
    claim(Number::new(12));
    wal.checkpoint().unwrap();
    assert_eq!(wal.append_new(many(1)).unwrap()[0].number(), Number::new(15));
    let operations = all(&machine);
    assert_eq!(
        operations.iter().map(|one| one.number.get()).collect::<Vec<_>>(),
        (1..=15).collect::<Vec<_>>()
    );
    let processing = operations.iter().filter(|one| one.status() == Status::Processing);
    assert_eq!(processing.map(|one| one.number.get()).collect::<Vec<_>>(), [5, 12]);
}

#[test]
fn an_abandoned_batch_leaves_nothing_but_unused_numbers() {
    let machine = Machine::new();
    let wal = wal_on(machine.process());
    let mut batch = wal.batch();
    many(20).into_iter().for_each(|operation| batch.push(operation).unwrap());
    batch.prepare().unwrap();
    drop(batch);
    assert_eq!(names(&machine, layout().partitions()), [] as [&str; 0]);
    assert_eq!(names(&machine, layout().tmp()), [] as [&str; 0]);
    assert_eq!(all(&machine), []);
    wal.checkpoint().unwrap();
    machine.power_cut(|| false);
    assert_eq!(wal_on(machine.process()).append_new(many(1)).unwrap()[0].number(), Number::new(21));
}

#[test]
fn a_reservation_outlives_recovery_rotation_and_checkpoint() {
    for lost in [false, true] {
        let machine = Machine::new();
        let wal = wal_on(machine.process());
        wal.append_new(many(2)).unwrap();
        let (number, revision) = wal.files.reserve_numbers(10).unwrap();
        assert_eq!((number, revision), (Number::new(3), Revision::new(3)));
        machine.power_cut(|| !lost);
        let wal = wal_on(machine.process());
        // It survives in a recovery's copy, then across a rotation, and last only in a header.
        assert_eq!(wal.files.reserve_numbers(10).unwrap(), (Number::new(13), Revision::new(13)));
        wal.checkpoint().unwrap();
        let manifest = wal.files.manifest().unwrap();
        assert_eq!((manifest.next_number, manifest.revision), (Number::new(23), Revision::new(22)));
        assert_eq!(wal.append_new(many(1)).unwrap()[0].number(), Number::new(23));
        assert_eq!(all(&machine).pop().unwrap().revision, Revision::new(23));
        wal.checkpoint().unwrap();
        assert_eq!(all(&machine).len(), 3);
    }
}

#[test]
fn on_a_full_disk_nothing_is_logged() {
    let machine = Machine::new();
    let disk = machine.process();
    let wal = wal_on(disk.clone());
    wal.append_new(many(1)).unwrap();
    let mut batch = wal.batch();
    many(12).into_iter().for_each(|operation| batch.push(operation).unwrap());
    machine.set_free_bytes(wal.options().min_free_bytes + 1);
    assert!(matches!(batch.commit(), Err(WalError::NoSpace { .. })));
    machine.set_free_bytes(1 << 40);
    disk.fail_after(44, ErrorKind::StorageFull, false);
    assert!(matches!(wal.append_new(many(40)), Err(WalError::NotLogged(_))));
    disk.stop_failing();
    assert_eq!(all(&machine).len(), 1);
    assert_eq!(names(&machine, layout().partitions()), [] as [&str; 0]);
    assert_eq!(names(&machine, layout().tmp()), [] as [&str; 0]);
    assert_eq!(wal.append_new(many(40)).unwrap().len(), 40, "no leftover is in the way");
}

#[test]
fn an_operation_too_large_for_a_frame_is_refused_alone() {
    let machine = Machine::new();
    let wal = wal_on(machine.process());
    let mut batch = wal.batch();
    let large = || new(&"x".repeat(FRAME_MAX));
    for nth in 0..10 {
        assert!(matches!(batch.push(large()), Err(WalError::TooLarge { .. })));
        batch.push(new(&nth.to_string())).unwrap();
    }
    assert_eq!(batch.commit().unwrap().count(), 10);
    // Each fits a frame, two do not.
    let half = || new(&"x".repeat(FRAME_MAX * 2 / 3));
    assert_eq!(wal.append_new(vec![half(), half()]).unwrap().len(), 2);
    assert_eq!(all(&machine).len(), 12);
}

#[test]
fn there_is_one_large_batch_at_a_time() {
    let machine = Machine::new();
    let (first, second) = (wal_on(machine.process()), wal_on(machine.process()));
    let mut batch = first.batch();
    many(4).into_iter().for_each(|operation| batch.push(operation).unwrap());
    assert!(matches!(second.append_new(many(4)), Err(WalError::Busy { .. })));
    assert!(matches!(second.checkpoint(), Err(WalError::Busy { .. })));
    // A small batch does not wait.
    assert_eq!(second.append_new(many(3)).unwrap().len(), 3);
    batch.commit().unwrap();
    assert_eq!(second.append_new(many(4)).unwrap().len(), 4);
    assert_eq!(all(&machine).len(), 11);
}

/// Logs a batch that is disturbed, and checks that it is logged as a whole or not at all.
///
/// Returns true if it was acknowledged, the number of its operations that were logged, and the
/// number of disk operations. `cut` cuts the power afterwards, with or without the unsynced data.
fn after(disturb: impl Fn(&MemoryDisk), cut: Option<bool>) -> (bool, usize, u64) {
    let machine = Machine::new();
    wal_on(machine.process()).append_new(many(2)).unwrap();
    let disk = machine.process();
    let wal = wal_on(disk.clone());
    disturb(&disk);
    let before = machine.operations();
    let result = wal.append_new(many(11));
    let operations = machine.operations() - before;
    disk.stop_failing();
    drop(wal);
    // Another process sees the batch, and writes before the power is cut.
    let other = wal_on(machine.process());
    let number = other.append_new(many(1)).unwrap()[0].number();
    let seen = all(&machine);
    if let Some(keep) = cut {
        machine.power_cut(|| keep);
    }
    wal_on(machine.process()).checkpoint().unwrap();
    let found = all(&machine);
    assert_eq!(found, seen, "a later append keeps everything before it");
    let batch: Vec<_> =
        found.iter().filter(|one| one.number > Number::new(2) && one.number < number).collect();
    assert!(batch.is_empty() || batch.len() == 11, "{} of 11", batch.len());
    assert_eq!(found.len(), 3 + batch.len());
    assert_eq!(names(&machine, layout().tmp()), [] as [&str; 0]);
    assert!(batch.is_empty() || !matches!(result, Err(WalError::NotLogged(_))), "{result:?}");
    (result.is_ok(), batch.len(), operations)
}

#[test]
fn a_batch_killed_at_any_disk_operation_is_whole_or_absent() {
    for cut in [None, Some(false), Some(true)] {
        let (_, _, operations) = after(|_| (), cut);
        let ends: Vec<_> =
            (0..=operations).map(|at| after(|disk| disk.kill_after(at), cut)).collect();
        assert_eq!(ends.last().map(|(done, logged, _)| (*done, *logged)), Some((true, 11)));
        assert!(ends.iter().all(|(done, logged, _)| !done || *logged == 11));
        // Killed after the commit, it is logged although it was never acknowledged.
        assert!(ends.iter().any(|(done, logged, _)| !done && *logged == 11));
    }
}

#[test]
fn a_batch_failing_at_any_disk_operation_is_whole_or_absent() {
    for (cut, for_good) in [(None, true), (Some(false), false), (Some(false), true)] {
        let (_, _, operations) = after(|_| (), cut);
        for at in 0..=operations {
            let (done, logged, _) =
                after(|disk| disk.fail_after(at, ErrorKind::StorageFull, for_good), cut);
            assert!(!done || logged == 11);
        }
    }
}

fn keyed(text: &str, key: &str) -> Logged {
    Logged { idempotency_key: Some(key.into()), ..new(text) }
}

#[test]
fn a_key_in_a_file_or_the_journal_is_not_logged_again() {
    let machine = Machine::new();
    let wal = wal_on(machine.process());
    wal.append_new(vec![keyed("a", "in a file")]).unwrap();
    wal.checkpoint().unwrap();
    wal.append_new(vec![keyed("b", "in the journal")]).unwrap();
    let mut batch = many(4);
    let again = [
        keyed("a", "in a file"),
        keyed("b", "in the journal"),
        keyed("c", "new"),
        keyed("c", "new"),
    ];
    batch.extend(again.clone());
    let admitted = wal.append_new(batch).unwrap();
    let numbers: Vec<u64> = admitted.iter().map(|one| one.number().get()).collect();
    assert_eq!(numbers, [3, 4, 5, 6, 1, 2, 7, 7]);
    let existing: Vec<bool> =
        admitted.iter().map(|one| matches!(one, Admitted::Existing(_))).collect();
    assert_eq!(existing, [false, false, false, false, true, true, false, false]);
    assert_eq!(all(&machine).len(), 7);
    // Nothing new at all.
    let admitted = wal.append_new(again.into_iter().chain([keyed("c", "new")]).collect()).unwrap();
    assert_eq!(admitted.iter().map(|one| one.number().get()).collect::<Vec<_>>(), [1, 2, 7, 7, 7]);
    for bad in
        [keyed("other", "in a file"), keyed("other", "in the journal"), keyed("other", "new")]
    {
        let result = wal.append_new(many(4).into_iter().chain([bad]).collect());
        assert!(matches!(result, Err(WalError::KeyTaken { .. })), "{result:?}");
    }
    let pair = [keyed("x", "twice"), keyed("y", "twice")];
    assert!(matches!(
        wal.append_new(many(4).into_iter().chain(pair).collect()),
        Err(WalError::KeyTwice { .. })
    ));
    assert_eq!(all(&machine).len(), 7);
}

#[test]
fn a_key_logged_by_another_process_stops_the_batch() {
    let machine = Machine::new();
    let (wal, other) = (wal_on(machine.process()), wal_on(machine.process()));
    let mut batch = wal.batch();
    many(8).into_iter().for_each(|operation| batch.push(operation).unwrap());
    batch.push(keyed("mine", "key")).unwrap();
    batch.prepare().unwrap();
    other.append_new(vec![keyed("theirs", "key")]).unwrap();
    assert!(matches!(batch.commit(), Err(WalError::KeyTaken { .. })));
    assert_eq!(texts(&all(&machine)), ["theirs"]);
}

#[test]
fn a_dependency_must_exist_until_the_commit() {
    let machine = Machine::new();
    let wal = wal_on(machine.process());
    let first = wal.append_new(many(1)).unwrap()[0].id();
    let waiting = |id| {
        let mut operations = many(9);
        operations.iter_mut().for_each(|operation| operation.depends_on = vec![id, id]);
        operations
    };
    wal.append_new(waiting(first)).unwrap();
    assert!(all(&machine)[1..].iter().all(|operation| operation.depends_on == [first]));
    let missing = wal.new_id(Time::default(), 0);
    assert!(matches!(wal.append_new(waiting(missing)), Err(WalError::UnknownDependency { .. })));
    assert_eq!(all(&machine).len(), 10);
}
