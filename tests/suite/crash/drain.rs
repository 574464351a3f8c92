//! A drain loop that dies at any of its disk operations, with a backend that remembers its effects.

use std::collections::BTreeMap;
use std::sync::Arc;

use wal_cli::backend::AttemptStatus;
use wal_cli::client::{Client, ProcessOptions, Stop};
use wal_cli::operation::{Operation, Outcome, Status};
use wal_cli::worker::Observer;

use super::{OPERATIONS_MAX, is_long, replaying, try_all};
use crate::suite::scenario::{Scenario, backend};

const NAMES: &str = "one two three four five";

/// The completions that were reported.
#[derive(Default)]
struct Told(Vec<u64>);

impl Observer for Told {
    fn settled(&mut self, operation: &Operation) {
        self.0.push(operation.number.get());
    }
}

fn client(scenario: &Scenario, kill_after: u64) -> (Client, wal_cli::disk::MemoryDisk) {
    let disk = scenario.machine.process();
    disk.kill_after(kill_after);
    let settings = scenario.settings.clone();
    let client = Client::builder(settings)
        .environment(Arc::new(disk.clone()), scenario.clock.clone())
        .program("process")
        .backend(backend("a"), scenario.scripts["a"].clone())
        .build();
    (client, disk)
}

/// Runs a drain that dies after `at` disk operations, and then a complete one. Returns the number
/// of disk operations of the first.
fn drain(at: u64) -> u64 {
    let scenario = Scenario::new();
    scenario.add("a", NAMES);
    *scenario.scripts["a"].process.lock().unwrap() = None;
    let mut reported = Told::default();
    let (dying, disk) = client(&scenario, at);
    let ended = dying.process(&ProcessOptions::default(), &Stop::new(), &mut reported);
    let made = at - disk.operations_left().unwrap();
    drop(dying);
    disk.kill();
    if !at.is_multiple_of(3) {
        let mut random = fastrand::Rng::with_seed(at);
        scenario.machine.power_cut(|| at % 3 == 1 && random.bool());
    }
    // The backend remembers its effects.
    let done = scenario.scripts["a"].calls.lock().unwrap().clone();
    let answers = done.into_iter().map(|name| (name, AttemptStatus::Done(Outcome::default())));
    *scenario.scripts["a"].answers.lock().unwrap() = answers.collect();
    for number in &reported.0 {
        assert_eq!(
            scenario.get(*number).status(),
            Status::Completed,
            "{number} was reported as completed"
        );
    }
    *scenario.scripts["a"].process.lock().unwrap() = None;
    client(&scenario, OPERATIONS_MAX)
        .0
        .process(&ProcessOptions::default(), &Stop::new(), &mut reported)
        .unwrap();
    for number in 1..=5 {
        let operation = scenario.get(number);
        let completed =
            operation.history.iter().filter(|entry| entry.to == Status::Completed).count();
        assert_eq!(
            (operation.status(), completed),
            (Status::Completed, 1),
            "{operation:?} after {ended:?}"
        );
    }
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for name in scenario.calls("a").split_whitespace() {
        *calls.entry(name.to_owned()).or_default() += 1;
    }
    let each_once: BTreeMap<String, usize> =
        NAMES.split_whitespace().map(|name| (name.to_owned(), 1)).collect();
    assert_eq!(calls, each_once, "each effect happens once");
    made
}

#[test]
fn each_effect_happens_once_wherever_a_drain_is_cut() {
    let operations = drain(OPERATIONS_MAX - OPERATIONS_MAX % 3);
    let stride = if is_long() { 1 } else { 5 };
    let mut points: Vec<u64> = (0..=operations).step_by(stride).collect();
    match replaying().as_deref() {
        Some([kind, at]) if kind == "drain" => points = vec![at.parse().unwrap()],
        Some(_) => return,
        None => {}
    }
    let one = |at: &u64| {
        drain(*at);
    };
    try_all("drain", &points, u64::to_string, one);
    println!("drain: {operations} disk operations, {} deaths", points.len());
}
