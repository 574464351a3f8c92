//! The backend `custom`: programs that succeed, fail, take too long, and outlive their drain loop.
#![expect(
    clippy::disallowed_methods,
    reason = "waits for real processes, and examines their effects"
)]

mod unruly;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wal_cli::backend::custom::CustomBackend;
use wal_cli::backend::{Attempt, AttemptError};
use wal_cli::clock::SystemClock;
use wal_cli::disk::OsDisk;

use super::behaviours::{self, Bench, request};
use super::binary::Place;
use super::tools::Need;

/// Returns the backend with this shell script.
fn shell(place: &Place, script: &str, limit: Option<Duration>) -> Bench {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let (disk, clock) = (Arc::new(OsDisk::new()), Arc::new(SystemClock::new()));
    let custom = CustomBackend::new(disk, clock, command, place.path("run"), limit);
    Bench::new(Arc::new(custom), place.path("home"), "/shared")
}

/// Writes settings in which `custom` is this shell script, run in the directory of the test.
fn configure(place: &Place, script: &str, more: &str) {
    place.file("program.sh", &format!("#!/bin/sh\ncd '{}'\n{script}\n", place.path("").display()));
    let program = place.path("program.sh");
    place.settings(&format!(
        "retry_delay = 0\nprocessing_interval = 0.2\ndefault_backend = \"custom\"\n[backends.custom]\n\
         command = [\"/bin/sh\", \"{}\"]\n{more}",
        program.display()
    ));
}

/// Waits until a condition holds, for half a minute at most.
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn status(place: &Place, number: u64) -> Value {
    place.json(&format!("show {number}"))["operation"].clone()
}

fn is_alive(pid: &str) -> bool {
    // A zombie that has not been waited for is dead.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_program_does_what_other_backends_do() {
    Need::Python.check();
    let place = Place::in_memory();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/custom/program.py");
    let script = format!(
        "STORE={} STORE_PROGRAM={} exec python3 {program}",
        place.path("store").display(),
        env!("CARGO_BIN_EXE_wal-cli")
    );
    let mut bench = shell(&place, &script, None);
    bench.knows_effects = false;
    behaviours::all(&bench);
}

#[test]
fn a_program_gets_the_operation_and_returns_the_result() {
    let place = Place::new();
    configure(
        &place,
        "cat > input.$WAL_CLI_OPERATION_NUMBER; env | grep ^WAL_CLI_OPERATION_ | sort > environment.$WAL_CLI_OPERATION_NUMBER\n\
         echo '{\"cid\": \"bafy\", \"size\": 12, \"destination\": \"/x\", \"receipt\": {\"job\": 7, \"by\": \"us\"}}'",
        "",
    );
    place.file("a.txt", "hello world\n");
    place.run("add a.txt --param colour=green");
    place.run("submit transcode_v2 --param to=webm");
    place.run("process");
    let operation = status(&place, 1);
    assert_eq!(operation["result"], json!({"cid": "bafy", "size": 12, "destination": "/x"}));
    assert_eq!(operation["receipt"], json!({"job": "7", "by": "us"}));
    assert_eq!(status(&place, 2)["status"], "completed");
    let reported: Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("input.2")).unwrap()).unwrap();
    let (id, kind) =
        (reported["operation_id"].as_str().unwrap(), reported["operation_type"].as_str().unwrap());
    let environment = std::fs::read_to_string(place.path("environment.2")).unwrap();
    let number = reported["number"].as_u64().unwrap();
    let variables = [("ID", id), ("NUMBER", &number.to_string()), ("TYPE", kind)];
    let expected: String = variables
        .iter()
        .map(|(name, value)| format!("WAL_CLI_OPERATION_{name}={value}\n"))
        .collect();
    assert_eq!(environment, expected);
    assert_eq!(
        (&reported["backend"], &reported["parameters"], &reported["content"]),
        (&json!("custom"), &json!({"to": "webm"}), &Value::Null)
    );
    assert!(!place.log().join("run/1").exists(), "the output is part of the result");
}

#[test]
fn a_program_reads_the_content_that_was_logged() {
    let place = Place::new();
    configure(&place, "sed 's/.*\"content\":\"\\([^\"]*\\)\".*/\\1/' | xargs cat", "");
    place.file("a.txt", "old text\n");
    place.run("add a.txt");
    place.run("add a.txt --spool never");
    place.file("a.txt", "new text\n");
    assert_eq!(place.output("process").status.code(), Some(1));
    assert_eq!(status(&place, 1)["receipt"], json!({"output": "old text"}));
    assert_eq!(status(&place, 2)["error_type"], "source_changed");
}

#[test]
fn the_exit_status_decides_the_outcome() {
    let place = Place::new();
    let script = "test -e tried && exit 3; touch tried; echo one >&2; echo 'the tape is not in' >&2; exit 75";
    configure(&place, script, "");
    place.run("submit backup");
    place.output("process --limit 1");
    let operation = status(&place, 1);
    assert_eq!(
        (&operation["status"], &operation["error_type"]),
        (&json!("retrying"), &json!("exit_75"))
    );
    assert_eq!(operation["error"], "the program ended with 75: the tape is not in");
    assert_eq!(place.output("process").status.code(), Some(1));
    let operation = status(&place, 1);
    assert_eq!(
        (&operation["status"], &operation["error_type"]),
        (&json!("failed"), &json!("exit_3"))
    );
    assert_eq!(operation["failure_class"], "permanent");

    configure(
        &place,
        "echo '{\"error_type\": \"no_tape\", \"message\": \"insert one\", \"retry_after\": 90}'; exit 75",
        "",
    );
    place.run("submit backup");
    place.output("process");
    let operation = status(&place, 2);
    assert_eq!(
        (&operation["error_type"], &operation["error"]),
        (&json!("no_tape"), &json!("insert one"))
    );
    assert!(operation["next_retry_at"].as_str() > operation["updated_at"].as_str());

    configure(&place, "kill -KILL $$", "");
    place.run("submit backup");
    assert_eq!(place.output("process").status.code(), Some(1));
    assert_eq!(status(&place, 3)["error_type"], "in_doubt");
}

#[test]
fn a_missing_program_is_an_outage() {
    let place = Place::new();
    let refused = place.output("--json submit backup --backend custom");
    assert_eq!(refused.status.code(), Some(2));
    let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(refused["error"]["type"], "backend_unconfigured", "{refused}");
    assert!(
        refused["error"]["hint"].as_str().unwrap().contains("backends.custom.command"),
        "{refused}"
    );

    configure(&place, "", "");
    let right = std::fs::read_to_string(place.path("config/ipfs-kit/wal.toml")).unwrap();
    place.settings(&right.replace("/bin/sh", "/bin/no-such-shell"));
    place.run("submit backup");
    place.output("process");
    let operation = status(&place, 1);
    assert_eq!(
        (&operation["status"], &operation["retry_count"]),
        (&json!("pending"), &json!(0)),
        "{operation}"
    );
    assert!(place.run("why 1").contains("no-such-shell"), "{}", place.run("why 1"));
    place.settings(&right);
    place.run("health --backend custom");
    place.run("process");
    assert_eq!(status(&place, 1)["status"], "completed");
}

#[test]
fn a_program_inherits_only_its_own_output() {
    let place = Place::new();
    configure(&place, "ls -l /proc/$$/fd | grep -o '[0-9]* -> .*'", "");
    place.run("submit look");
    place.run("process");
    let open = status(&place, 1)["receipt"]["output"].as_str().unwrap().to_owned();
    let output = place.log().join("run/1");
    for line in open.lines() {
        let (number, target) = line.split_once(" -> ").unwrap();
        match number {
            "0" | "2" => assert!(target.starts_with("pipe:"), "{open}"),
            "1" => assert_eq!(Path::new(target), output, "{open}"),
            // The shell keeps its script open, and inherits the descriptors of this test.
            _ => assert!(!Path::new(target).starts_with(place.log()), "{open}"),
        }
    }
    assert!(open.lines().count() >= 3, "{open}");
}

#[test]
fn a_stopped_program_returns_its_operation_or_is_killed() {
    let place = Place::new();
    for (script, handed_back) in [
        ("trap 'exit 75' TERM; sleep 60 & wait", true),
        ("trap '' TERM; sleep 60; sleep 60", false),
    ] {
        let bench =
            shell(&place, &format!("echo $$ > {}; {script}", place.path("pid").display()), None);
        let _ = std::fs::remove_file(place.path("pid"));
        let attempt = Attempt::default();
        let started = Instant::now();
        let result = std::thread::scope(|scope| {
            let running = scope.spawn(|| bench.backend.execute(&request("backup", &[]), &attempt));
            until("the program started", || {
                std::fs::read_to_string(place.path("pid")).is_ok_and(|pid| pid.ends_with('\n'))
            });
            attempt.cancel();
            running.join().unwrap()
        });
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "slow, but less than the minute of `sleep`"
        );
        match result {
            Err(AttemptError::Stopped) => assert!(handed_back),
            Err(AttemptError::UnknownOutcome(failure)) => assert!(!handed_back, "{failure:?}"),
            other => panic!("{other:?}"),
        }
        let pid = std::fs::read_to_string(place.path("pid")).unwrap();
        assert!(!is_alive(&pid));
        let group = || {
            let found =
                std::process::Command::new("pgrep").args(["-g", pid.trim()]).output().unwrap();
            String::from_utf8(found.stdout).unwrap()
        };
        until("its children have ended, too", || !group().lines().any(is_alive));
    }
}

#[test]
fn total_timeout_limits_a_program() {
    let place = Place::new();
    configure(&place, "sleep 60", "total_timeout = 0.3\n");
    place.run("submit backup");
    assert_eq!(place.output("process").status.code(), Some(1));
    let operation = status(&place, 1);
    assert_eq!(operation["error_type"], "in_doubt");
    // Leftover processes keep its pipes open; the drain loop does not wait for them.
    configure(&place, "sleep 60 2>&1 & echo $! > left; exit 0", "");
    place.run("submit backup");
    let start = Instant::now();
    place.run("process");
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(status(&place, 2)["status"], "completed");
    let left = std::fs::read_to_string(place.path("left")).unwrap();
    let left = Pid::from_raw(left.trim().parse().unwrap()).unwrap();
    kill_process(left, Signal::KILL).unwrap();
}

#[test]
fn a_program_that_outlives_its_loop_is_not_started_twice() {
    let place = Place::new();
    configure(
        &place,
        "echo $$ >> started; while [ ! -e go ]; do sleep 0.05; done; touch ended",
        "",
    );
    place.run("submit backup");
    let mut drain = place.start("process");
    until("the program started", || place.path("started").exists());
    drain.kill().unwrap();
    drain.wait().unwrap();
    for _ in 0..3 {
        place.output("process");
        let operation = status(&place, 1);
        assert_eq!(operation["status"], "processing", "{operation}");
    }
    let why = place.run("why 1");
    assert!(why.contains("still running"), "{why}");
    place.file("go", "");
    until("it ended", || place.path("ended").exists());
    let pid = std::fs::read_to_string(place.path("started")).unwrap();
    assert_eq!(pid.lines().count(), 1, "the program was started once: {pid}");
    until("the process has ended", || !is_alive(&pid));
    assert_eq!(place.output("process").status.code(), Some(1));
    let operation = status(&place, 1);
    assert_eq!(
        (&operation["status"], &operation["error_type"]),
        (&json!("failed"), &json!("in_doubt")),
        "{operation}"
    );
    place.run("verify");
    place.run("retry 1");
    place.run("process");
    assert_eq!(status(&place, 1)["status"], "completed");
    assert_eq!(std::fs::read_to_string(place.path("started")).unwrap().lines().count(), 2);
}

#[test]
fn a_claim_whose_program_never_started_is_not_in_doubt() {
    let place = Place::new();
    configure(
        &place,
        "echo $$ >> started; while [ ! -e go ]; do sleep 0.02; done; echo '{\"cid\": \"bafy\"}'",
        "jobs = 1\n",
    );
    // The lane claims ahead once operations turn out to be short.
    place.file("go", "");
    for _ in 0..8 {
        place.run("submit backup");
    }
    place.run("process");
    std::fs::remove_file(place.path("go")).unwrap();
    std::fs::remove_file(place.path("started")).unwrap();
    for _ in 0..8 {
        place.run("submit backup");
    }
    let mut drain = place.start("process");
    until("one is started", || place.path("started").exists());
    drain.kill().unwrap();
    drain.wait().unwrap();
    place.file("go", "");
    let pid = std::fs::read_to_string(place.path("started")).unwrap();
    until("the process has ended", || !is_alive(&pid));
    place.output("process");
    let statuses: Vec<Value> =
        (9..=16).map(|number| status(&place, number)["error_type"].clone()).collect();
    assert_eq!(statuses[0], "in_doubt", "the first program was started: {statuses:?}");
    assert!(statuses[1..].iter().all(Value::is_null), "the others were not: {statuses:?}");
    assert_eq!(
        std::fs::read_to_string(place.path("started")).unwrap().lines().count(),
        8,
        "each ran once"
    );
    assert_eq!(
        super::binary::names(&place.log().join("run")),
        ["9"],
        "the output of an operation in doubt is kept"
    );
}

#[test]
fn time_limits_of_the_loop_and_of_the_program_differ() {
    let place = Place::new();
    configure(&place, "sleep 0.6; echo '{\"size\": 7}'", "");
    place.run("submit backup");
    place.run("process --max-time 0.2s --grace 0.1s");
    assert_eq!(status(&place, 1)["result"]["size"], 7, "the program had begun in time");
    configure(&place, "trap 'exit 75' TERM; sleep 60 & wait", "total_timeout = 0.2\n");
    place.run("submit backup --max-retries 1");
    assert_eq!(place.output("process").status.code(), Some(1), "it ends");
    let operation = status(&place, 2);
    assert_eq!(
        (&operation["status"], &operation["error_type"]),
        (&json!("failed"), &json!("timed_out")),
        "{operation}"
    );
    assert_eq!(operation["retry_count"], 1);
}
