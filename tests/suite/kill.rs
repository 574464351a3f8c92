//! Adders and drain loops killed with `kill -9` at random instants, in one directory.
//!
//! `WAL_CLI_LONG` sets the number of rounds, `WAL_CLI_SEED` the seed of the first one.
#![expect(clippy::disallowed_methods, reason = "waits, and reads files, as another program would")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::binary::{Place, names};

const ADDERS: usize = 3;

#[test]
fn acknowledged_operations_survive_kills_and_run_once() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let rounds = number("WAL_CLI_LONG").unwrap_or(10);
    let first = number("WAL_CLI_SEED").unwrap_or(1);
    let place = Place::new();
    for n in 0..5 {
        place.file(&format!("f{n}"), &format!("content {n}\n"));
    }
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    for seed in first..first + rounds {
        round(&place, seed, &acknowledged);
        // Checked after each round, so that the seed of a failing round is known.
        check(&place, &acknowledged.lock().unwrap(), seed);
    }
    let total = acknowledged.lock().unwrap().len();
    println!("{rounds} rounds, {total} operations acknowledged, each exists and completed once");
    assert!(total as u64 >= rounds, "too few operations were acknowledged to prove anything");
}

/// Three adders and a drain loop, each killed after a random time, repeatedly.
fn round(place: &Place, seed: u64, acknowledged: &Arc<Mutex<BTreeSet<String>>>) {
    let random = fastrand::Rng::with_seed(seed);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for adder in 0..ADDERS {
            let mut random = fastrand::Rng::with_seed(seed * 100 + adder as u64);
            let (over, acknowledged) = (&over, acknowledged.clone());
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let paths = (0..random.usize(1..4))
                        .map(|_| format!("f{} ", random.u8(..5)))
                        .collect::<String>();
                    let command = format!("add --backend local {paths}");
                    let mut child = place
                        .command(&command)
                        .stdout(Stdio::piped())
                        .stderr(Stdio::null())
                        .spawn()
                        .unwrap();
                    let output = BufReader::new(child.stdout.take().unwrap());
                    let reader = std::thread::spawn(move || {
                        output
                            .lines()
                            .map_while(Result::ok)
                            .filter_map(|line| id_in(&line))
                            .collect::<Vec<_>>()
                    });
                    // Half of them may end normally; most others die within the time of an add.
                    if random.bool() {
                        std::thread::sleep(Duration::from_micros(random.u64(..12_000)));
                        let _ = child.kill();
                    }
                    child.wait().unwrap();
                    // A complete line is an acknowledgement, whatever happened later.
                    acknowledged.lock().unwrap().extend(reader.join().unwrap());
                }
            });
        }
        let mut random = random.clone();
        for _ in 0..4 {
            let mut child = place.start("process --follow --quiet");
            std::thread::sleep(Duration::from_millis(random.u64(1..150)));
            child.kill().unwrap();
            child.wait().unwrap();
            if random.u8(..3) == 0 {
                let mut child = place.start("checkpoint");
                std::thread::sleep(Duration::from_micros(random.u64(..20_000)));
                let _ = child.kill();
                child.wait().unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

pub fn id_in(line: &str) -> Option<String> {
    line.split_whitespace()
        .find(|word| word.len() == 36 && word.matches('-').count() == 4)
        .map(str::to_owned)
}

fn check(place: &Place, acknowledged: &BTreeSet<String>, seed: u64) {
    // An operation that several killed loops had claimed is retried alone; that is not a failure.
    place.run("process --quiet");
    let listed = place.json("list all --limit 0");
    let operations: BTreeMap<&str, &Value> = listed["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|operation| (operation["operation_id"].as_str().unwrap(), operation))
        .collect();
    for id in acknowledged {
        let operation = operations.get(id.as_str());
        let operation = operation
            .unwrap_or_else(|| panic!("seed {seed}: {id} was acknowledged but does not exist"));
        assert_eq!(operation["status"], "completed", "seed {seed}: {operation}");
    }
    for operation in operations.values() {
        let history = operation["history"].as_array().unwrap();
        let completed = history.iter().filter(|entry| entry["to"] == "completed").count();
        assert_eq!(completed, 1, "seed {seed}: {operation}");
    }
    place.run("checkpoint");
    account_for_files(place, seed);
}

/// Asserts that every file belongs to the manifest, the journal or `quarantine/`.
pub fn account_for_files(place: &Place, seed: u64) {
    let log = place.log();
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(log.join("MANIFEST.json")).unwrap()).unwrap();
    let named: BTreeSet<&str> = manifest["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    for directory in ["partitions", "archives"] {
        for name in names(&log.join(directory)) {
            let name = format!("{directory}/{name}");
            assert!(named.contains(name.as_str()), "seed {seed}: {name} is in no manifest");
        }
    }
    for name in &named {
        assert!(log.join(name).exists(), "seed {seed}: {name} is missing");
    }
    let first = manifest["first_generation"].as_u64().unwrap();
    for name in names(&log.join("journal")) {
        let generation: u64 = name["journal_".len()..].trim_end_matches(".log").parse().unwrap();
        assert!(generation >= first, "seed {seed}: {name} was folded but still exists");
    }
    assert_eq!(names(&log.join("tmp")), [] as [&str; 0], "seed {seed}");
}
