//! Kubo stops with a full queue, and starts again: nothing is lost, no attempt is spent, and one
//! operation goes first.
//!
//! `WAL_CLI_LONG` sets the seconds for which it is stopped (`tests/long kubo`).
#![expect(clippy::disallowed_methods, reason = "waits as another program would")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use wal_cli::clock::{Clock, SystemClock};

use super::before;
use super::configure;
use super::daemon::{Kubo, endpoint};
use crate::suite::binary::Place;
use crate::suite::proxy::Fault;

const OPERATIONS: usize = 500;

/// Waits until `status` is as expected, and returns it.
fn until(place: &Place, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let status = place.json("status");
        if holds(&status) {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{what}: {status:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn completed(status: &Value) -> u64 {
    status["stats"]["completed"].as_u64().unwrap()
}

#[test]
fn an_outage_with_a_full_queue_costs_only_time() {
    let away = std::env::var("WAL_CLI_LONG").map_or(3, |n| n.parse().expect("a number of seconds"));
    let (place, mut kubo) = (Place::in_memory(), Kubo::new(&[]));
    configure(&place, &kubo, "");
    let settings = std::fs::read_to_string(place.path("config/ipfs-kit/wal.toml")).unwrap();
    place
        .settings(&format!("processing_interval = 0.25\nhealth_check_interval = 0.25\n{settings}"));
    let files: Vec<String> = (0..OPERATIONS).map(|nth| format!("file-{nth}")).collect();
    for (nth, file) in files.iter().enumerate() {
        place.file(file, &format!("{nth} in {}\n", place.path("").display()));
    }
    place.run(&format!("add --backend ipfs {}", files.join(" ")));

    let mut drain = place.start("process --follow");
    let before = until(&place, "operations complete", |status| completed(status) >= 20);
    kubo.stop();
    let gone = Instant::now();
    until(&place, "the outage is noticed", |status| {
        status["health"]["ipfs"]["status"] == "offline"
    });
    let noticed = gone.elapsed();
    let alarm = place.output("status --fail-if offline>0");
    assert_eq!(alarm.status.code(), Some(1));
    until(&place, "claimed operations return to the queue", |status| {
        status["stats"]["processing"] == 0
    });
    let why = place.run(&format!("why {OPERATIONS}"));
    assert!(
        why.contains("its backend `ipfs` is unreachable: ")
            && why.contains("retries it when the backend answers"),
        "{why}"
    );
    let meanwhile = completed(&until(&place, "the status is read", |_| true));
    std::thread::sleep(Duration::from_secs(away).saturating_sub(gone.elapsed()));
    assert_eq!(
        completed(&until(&place, "the status is read", |_| true)),
        meanwhile,
        "no operation completes or fails meanwhile"
    );
    let back = SystemClock::new().now().to_string();
    kubo.start();
    let started = Instant::now();
    until(&place, "all are completed", |status| completed(status) == OPERATIONS as u64);
    let took = started.elapsed();
    kill_process(Pid::from_child(&drain), Signal::TERM).unwrap();
    assert!(drain.wait().unwrap().success());

    let all = place.json("list --limit 0");
    let operations = all["operations"].as_array().unwrap();
    assert_eq!(operations.len(), OPERATIONS);
    let pinned = kubo.ipfs("pin ls --type=recursive --quiet");
    let pinned: HashSet<&str> = pinned.lines().collect();
    assert!(
        operations
            .iter()
            .all(|operation| pinned.contains(operation["result"]["cid"].as_str().unwrap()))
    );
    let mut changes: Vec<(u64, &str, u64)> = Vec::new();
    for operation in operations {
        let number = operation["number"].as_u64().unwrap();
        assert_eq!(
            (&operation["retry_count"], &operation["interruptions"]),
            (&0.into(), &0.into()),
            "{operation:#}"
        );
        for change in operation["history"].as_array().unwrap() {
            if change["at"].as_str().unwrap() >= &back[..] {
                changes.push((
                    change["revision"].as_u64().unwrap(),
                    change["to"].as_str().unwrap(),
                    number,
                ));
            }
        }
    }
    changes.sort_unstable();
    let first = changes.iter().position(|(_, to, _)| *to == "processing").unwrap();
    let (canary, next) = (changes[first], changes[first + 1]);
    assert_eq!(
        (next.1, next.2),
        ("completed", canary.2),
        "one goes first, and alone: {:?}",
        &changes[first..first + 4]
    );
    let rest = &changes[first + 2..];
    let second = rest.iter().take_while(|(_, to, _)| *to == "processing").count();
    assert!(second <= 2, "then two: {:?}", &rest[..4]);
    let before = completed(&before);
    println!(
        "{OPERATIONS} operations: {before} done when Kubo was asked to stop, {meanwhile} when it \
         had; noticed after {noticed:.1?}, \
         unreachable for {away} s, all done {took:.1?} after its return; 0 attempts spent; \
         operation {} went first",
        canary.2
    );
}

#[test]
fn unreachable_hanging_and_failing_backends_delay_no_other() {
    let kubo = Kubo::shared();
    let silent = before(kubo);
    silent.plan("*", Fault::HangBeforeHead);
    let place = Place::in_memory();
    let patience = 60;
    place.settings(&format!(
        "retry_delay = 0.2\nprocessing_interval = 0.2\n\
         [backends.ipfs]\nendpoint = \"{}\"\njobs = 1\n\
         [backends.hanging]\ntype = \"ipfs\"\nendpoint = \"{}\"\nidle_timeout = {patience}\n\
         [backends.dead]\ntype = \"ipfs\"\nendpoint = \"http://127.0.0.1:1/api/v0\"\n",
        kubo.endpoint(),
        endpoint(silent.port())
    ));
    // Content without a provider, which Kubo reports for each attempt.
    let absent = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    place.run(&format!("submit pin {absent} --backend ipfs --priority 9 --max-retries 2"));
    for on in ["hanging", "dead"] {
        for name in ["a", "b"] {
            place.run(&format!("submit mkdir /{name} --backend {on} --priority 9"));
        }
    }
    let files: Vec<String> = (0..40).map(|nth| format!("file-{nth}")).collect();
    for file in &files {
        place.file(file, &format!("{file} in {}\n", place.path("").display()));
    }
    place.run(&format!("add --backend ipfs {}", files[..20].join(" ")));
    place.run(&format!("add --backend local {}", files[20..].join(" ")));
    let started = Instant::now();
    let mut drain = place.start("process --follow --grace 0");
    until(&place, "the others are done", |status| completed(status) == 40);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(patience / 2), "hanging backends delayed others: {took:?}");
    let status =
        until(&place, "the poisoned one is given up", |status| status["stats"]["failed"] == 1);
    let of = |backend: &str, status_word: &str| {
        status["backends"][backend][status_word].as_u64().unwrap()
    };
    assert_eq!((of("hanging", "processing"), of("dead", "pending")), (2, 2), "{status:#}");
    let why = place.run("why 1 2 4");
    let says = ["not found locally", "has been executing it since", "`dead` is unreachable"];
    assert!(why.lines().zip(says).all(|(line, what)| line.contains(what)), "{why}");
    print!("40 operations beside those took {took:.1?}; then `why 1 2 4`:\n{why}");
    kill_process(Pid::from_child(&drain), Signal::TERM).unwrap();
    drain.wait().unwrap();
}
