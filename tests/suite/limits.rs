//! Full disks, huge parameters, too few descriptors: errors are clear, nothing is lost, and the log
//! works again afterwards.
#![expect(
    clippy::disallowed_methods,
    reason = "fills disks, waits and reads files, as another program would"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use wal_cli::client::{
    Action, Client, ClientError, NoObserver, OnInvalid, ProcessOptions, Reference, Stop,
};
use wal_cli::config::Settings;
use wal_cli::disk::Fault;
use wal_cli::operation::{Number, Status};
use wal_cli::wal::WalError;

use super::binary::{Place, names};
use super::scenario::{Scenario, backend, logged};
use super::spool::{Mount, document};

const RESERVE: u64 = 4 << 20;

/// A small disk on which a log keeps `min_free` bytes free.
struct Small {
    disk: Mount,
    min_free: &'static str,
}

impl Small {
    fn new(size: &str, min_free: &'static str) -> Small {
        let small = Small { disk: Mount::tmpfs(size), min_free };
        small.disk.place.file("a", "hello world\n");
        small
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = self.disk.command(arguments);
        command.env("IPFS_KIT_WAL_MIN_FREE_BYTES", self.min_free);
        command
    }

    fn output(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed.
    fn json(&self, arguments: &str) -> Value {
        let output = self.output(&format!("--json {arguments}"));
        assert!(
            output.status.success(),
            "{arguments}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap()
    }

    /// Returns the size of the reserve; none if there is no such file.
    fn reserve(&self) -> Option<u64> {
        fs::metadata(self.disk.log().join("reserve")).ok().map(|meta| meta.len())
    }

    /// Fills the disk except for `but` bytes.
    fn fill(&self, but: u64) {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.disk.path("filler"))
            .unwrap();
        loop {
            let left = self.disk.free().saturating_sub(but);
            let piece = usize::try_from(left).unwrap();
            if left == 0 || file.write_all(&vec![1; piece]).is_err() {
                return;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.disk.path("filler")).unwrap();
    }

    fn statuses(&self) -> Vec<(u64, String)> {
        let listed = self.json("list all --limit 0");
        let status = |one: &Value| {
            (one["number"].as_u64().unwrap(), one["status"].as_str().unwrap().to_owned())
        };
        let mut found: Vec<_> =
            listed["operations"].as_array().unwrap().iter().map(status).collect();
        found.sort();
        found
    }
}

#[test]
fn logged_operations_finish_in_the_space_of_the_reserve() {
    let small = Small::new("16m", "0");
    small.json("submit mkdir /held");
    small.json("hold 1");
    assert_eq!(small.reserve(), Some(RESERVE), "the reserve is created with the log");
    let mut acknowledged = BTreeSet::new();
    let mut refused = 0;
    let mut drain = small
        .command("process --follow --quiet")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let adders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut ids, mut refused) = (Vec::new(), 0);
                    while !over.load(Ordering::Relaxed) || refused < 5 {
                        let output = small.output("--json add --spool never a");
                        let reported = document(&output);
                        match output.status.code() {
                            Some(0) => {
                                ids.push(reported["operation_id"].as_str().unwrap().to_owned())
                            }
                            Some(7) => {
                                let message = reported["error"]["message"].as_str().unwrap();
                                assert!(message.starts_with("nothing was logged"), "{message}");
                                refused += 1;
                            }
                            _ => panic!("{reported}"),
                        }
                    }
                    (ids, refused)
                })
            })
            .collect();
        // Another program fills the disk step by step, and takes freed space while adders run.
        for left in (0..10).rev() {
            small.fill(left * (small.disk.free() / 10).max(1));
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
        for adder in adders {
            let (ids, times) = adder.join().unwrap();
            acknowledged.extend(ids);
            refused += times;
        }
    });
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&drain),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let ended = drain.wait().unwrap();
    assert!(ended.success(), "the loop finished the logged operations: {ended}");
    let drained = small.json("process");
    let cancelled = small.json("cancel 1");
    let folded = small.json("checkpoint");
    small.json("cleanup");
    println!(
        "{} acknowledged, {refused} refused; on the full disk ({} bytes free): {drained}, {cancelled}, {folded}",
        acknowledged.len(),
        small.disk.free()
    );
    assert!(refused >= 10 && !acknowledged.is_empty());
    let listed = small.json("list completed --limit 0");
    let completed: BTreeSet<String> = listed["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["operation_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(completed, acknowledged, "exactly the acknowledged operations completed");
    assert_eq!(small.json("show 1")["operation"]["error_type"], "cancelled");
    small.make_room();
    small.json("checkpoint");
    assert_eq!(small.reserve(), Some(RESERVE), "the reserve is restored");
    small.json("add a --wait");
    assert_eq!(
        names(&small.disk.log().join("quarantine")),
        [] as [&str; 0],
        "no leftover files use space"
    );
}

/// With the disk full to the last page, each command has to use the reserve.
#[test]
fn every_way_of_finishing_works_on_a_full_disk() {
    for command in ["process", "cancel 1", "delete 1", "checkpoint", "cleanup"] {
        let small = Small::new("12m", "0");
        (0..3).for_each(|_| drop(small.json("add --spool never a")));
        small.fill(0);
        // Preallocated space is used up as well, since writing to it needs no space.
        for len in [64 << 10, 8 << 10, 1 << 10] {
            let line = json!({"operation_type": "mkdir", "parameters": {"path": "/d", "note": "x".repeat(len)}});
            small.disk.place.file("large", &line.to_string());
            while small.output("submit --from-file large").status.success() {}
        }
        let full = loop {
            let output = small.output("--json hold 3");
            let held = output.status.code();
            let back = small.output("--json release 3");
            if held != Some(0) || back.status.code() != Some(0) {
                break if held != Some(0) { output } else { back };
            }
        };
        assert_eq!(full.status.code(), Some(7), "{full:?}");
        assert_eq!(small.reserve(), Some(RESERVE), "hold and release leave the reserve alone");
        let refused = small.output("--json add --spool never a");
        assert_eq!(refused.status.code(), Some(7), "{refused:?}");
        assert_eq!(small.reserve(), Some(RESERVE), "additions do not use the reserve");
        let before = small.statuses();
        small.json(command);
        if ["process", "cancel 1", "delete 1"].contains(&command) {
            assert_ne!(small.statuses(), before, "{command}");
        }
        let refused = small.output("--json add --spool never a");
        if small.reserve() == Some(0) {
            let reported = document(&refused);
            assert_eq!(
                (refused.status.code(), &reported["error"]["type"]),
                (Some(7), &json!("no_space")),
                "{reported}"
            );
        }
        small.make_room();
        small.json("checkpoint");
        assert_eq!(small.reserve(), Some(RESERVE), "{command}");
        small.json("add a");
    }
}

#[test]
fn only_additions_stop_before_the_disk_is_full() {
    let small = Small::new("32m", "8MiB");
    (0..4).for_each(|_| drop(small.json("add --spool never a")));
    small.fill(7 << 20);
    for command in ["add a", "add --spool never a", "submit mkdir /d"] {
        let output = small.output(&format!("--json {command}"));
        let reported = document(&output);
        assert_eq!(
            (output.status.code(), &reported["error"]["type"]),
            (Some(7), &json!("no_space")),
            "{command}: {reported}"
        );
        assert_eq!(reported["error"]["min_free_bytes"], 8 << 20);
    }
    small.json("cancel 1");
    small.json("process --limit 1");
    small.json("checkpoint");
    small.json("process");
    small.json("cleanup");
    assert_eq!(small.reserve(), Some(RESERVE), "the reserve was not needed");
    let expected = ["failed", "completed", "completed", "completed"].map(str::to_owned);
    assert_eq!(
        small.statuses().into_iter().map(|(_, status)| status).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn nothing_is_claimed_without_space_for_its_outcome() {
    let small = Small::new("12m", "0");
    (0..3).for_each(|_| drop(small.json("add --spool never a")));
    // As if the reserve had been released, and other programs had used its space.
    fs::write(small.disk.log().join("reserve"), "").unwrap();
    small.fill(64 << 10);
    let output = small.output("--json process");
    let reported = document(&output);
    assert_eq!(
        (output.status.code(), &reported["error"]["type"]),
        (Some(7), &json!("no_space")),
        "{reported}"
    );
    assert_eq!((&reported["out_of_room"], &reported["completed"]), (&json!(true), &json!(0)));
    assert!(
        reported["error"]["message"].as_str().unwrap().starts_with("nothing more was begun"),
        "{reported}"
    );
    let shown = small.json("show 1 --history");
    assert_eq!(shown["operation"]["history"].as_array().unwrap().len(), 1, "it was not claimed");
    // A loop with `--follow` waits for space.
    let mut drain =
        small.command("process --follow --quiet").stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(small.statuses()[0].1, "pending");
    small.make_room();
    small.json("wait 1 2 3 --timeout 20");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&drain),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(drain.wait().unwrap().success());
}

/// Runs a command on a simulated machine where one disk operation fails. Returns whether it
/// succeeded, or `None` if it ended before that operation.
fn with_one_failure(command: &str, fault: Fault, nth: u64) -> Option<bool> {
    let scenario = Scenario::new();
    scenario.add("a", "one two three");
    let disk = scenario.machine.process();
    let client = Client::builder(scenario.settings.clone())
        .environment(Arc::new(disk.clone()), scenario.clock.clone())
        .program("test")
        .backend(backend("a"), scenario.scripts["a"].clone())
        .build();
    disk.fail_after(nth, fault, false);
    let before = scenario.machine.operations();
    let result = match command {
        "add" => client.submit(logged("a", "four", 0)).map(drop),
        "process" => {
            client.process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver).map(drop)
        }
        "cancel" => client
            .change(
                &[Reference::Number(Number::new(1))],
                &Action::Cancel { permanent: false },
                OnInvalid::Abort,
            )
            .map(drop),
        _ => client.checkpoint().map(drop),
    };
    let passed = scenario.machine.operations() - before > nth;
    disk.stop_failing();
    let case = format!("{command} with {fault:?} at {nth}");
    if let Err(error) = &result {
        let of_the_disk = match error {
            ClientError::Wal(error) => {
                matches!(
                    error,
                    WalError::NotLogged(_) | WalError::Disk(_) | WalError::Unconfirmed { .. }
                )
            }
            _ => false,
        };
        assert!(of_the_disk, "{case}: {error:?}");
    }
    scenario.process();
    scenario.client().checkpoint().unwrap();
    let added = scenario.client().status().unwrap().counts.total() - 3;
    if command == "add" {
        let unconfirmed = matches!(&result, Err(ClientError::Wal(WalError::Unconfirmed { .. })));
        assert!(
            unconfirmed || added == u64::from(result.is_ok()),
            "{case}: {result:?}, {added} added"
        );
    }
    for number in 1..=3 + added {
        let status = scenario.get(number).status();
        let cancelled = command == "cancel" && number == 1;
        assert!(
            status == Status::Completed || cancelled && status == Status::Failed,
            "{case}: {status}"
        );
        assert!(
            result.is_err() || !cancelled || status == Status::Failed,
            "{case}: an acknowledged outcome was lost"
        );
    }
    let calls = scenario.calls("a");
    let repeated = calls.split_whitespace().count() as u64 > 3 + added;
    assert!(!repeated || result.is_err(), "{case}: {calls}");
    passed.then_some(result.is_ok())
}

/// The seed of a plain run.
fn step_of(fault: Fault) -> u64 {
    match fault {
        Fault::Full => 0,
        Fault::Quota => 1,
        Fault::ShortWrite => 2,
        _ => 3,
    }
}

#[test]
fn a_failure_of_any_disk_operation_loses_no_outcome() {
    let all = std::env::var_os("WAL_CLI_LONG").is_some();
    for fault in [Fault::Full, Fault::Quota, Fault::ShortWrite, Fault::Descriptors] {
        // A plain run tries every fifth operation, different ones for each fault; a long run tries
        // all.
        let step = if all { 1 } else { 5 };
        let mut reported = Vec::new();
        for command in ["add", "process", "cancel", "checkpoint"] {
            let (mut nth, mut instants, mut went_on) = (if all { 0 } else { step_of(fault) }, 0, 0);
            while let Some(succeeded) = with_one_failure(command, fault, nth) {
                nth += step;
                instants += 1;
                went_on += u64::from(succeeded);
            }
            reported.push(format!("{command} at {instants}, {went_on} of them without notice"));
            // Commands that finish operations may use the reserve.
            let finishes = command != "add" && matches!(fault, Fault::Full | Fault::Quota);
            assert!(!finishes || went_on * 5 >= instants * 2, "{fault:?}: {reported:?}");
        }
        println!("{fault:?}: {}", reported.join("; "));
    }
}

#[test]
fn a_parameter_too_large_for_a_frame_is_refused() {
    let place = Place::new();
    place.file("a", "hello world\n");
    place.run("add --backend local a");
    let huge = "x".repeat(16 << 20);
    for len in [16 << 20, 2 << 20, 3 << 19] {
        let line =
            json!({"operation_type": "mkdir", "parameters": {"path": "/d", "note": &huge[..len]}});
        place.file("huge", &format!("{line}\n"));
        // Limits memory by address space: enough to run, but not for repeated copies of 16 MiB.
        let mut limited = Command::new("prlimit");
        limited.arg("--as=268435456");
        let output = place
            .command_under(limited, "--json submit --backend local --from-file huge")
            .output()
            .unwrap();
        let reported = document(&output);
        assert_eq!(output.status.code(), Some(2), "{len}: {reported}");
        let message = reported["error"]["bad_inputs"][0]["message"].as_str().unwrap_or_default();
        let sizes = message
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .count();
        assert!(sizes >= 2, "both sizes are reported: {message}");
    }
    assert_eq!(place.json("status")["stats"]["total"], 1);
    let client = Client::builder(Settings::at(place.path("library"))).program("test").build();
    let mut operation = logged("local", "d", 0);
    operation.operation_type = wal_cli::operation::OperationType::new("mkdir").unwrap();
    operation.parameters = [("path".to_owned(), "/d".to_owned()), ("note".to_owned(), huge)].into();
    let error = client.submit(operation).unwrap_err().to_string();
    assert!(error.contains("bytes in the log; at most 1048576 are possible"), "{error}");
    assert_eq!(client.status().unwrap().counts.total(), 0);
}

#[test]
fn too_few_descriptors_are_reported_and_lose_nothing() {
    let place = Place::new();
    place.file("a", "hello world\n");
    place.run("add --backend local a");
    let (mut reported, mut acknowledged) = (BTreeSet::new(), 1);
    for command in [
        "add --backend local a",
        "add --backend local --spool never a",
        "process",
        "status",
        "list all",
    ] {
        let mut succeeded = 0;
        for limit in 3..40 {
            let mut limited = Command::new("prlimit");
            limited.arg(format!("--nofile={limit}"));
            let output = place
                .command_under(limited, &format!("--lock-timeout 1 {command}"))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.code() {
                Some(0) => {
                    succeeded += 1;
                    acknowledged += usize::from(command.starts_with("add"));
                }
                // There were too few descriptors to open the program's libraries.
                Some(127) => {}
                Some(7) => {
                    assert!(text.contains("Too many open files"), "{command} with {limit}: {text}");
                    assert!(text.contains("hint: "), "{command} with {limit}: {text}");
                    reported.insert((command, text));
                }
                code => panic!("{command} with {limit}: {code:?}: {text}"),
            }
        }
        assert!(succeeded >= 10, "{command} needs too many descriptors: {succeeded}");
    }
    assert!(reported.len() >= 4, "{reported:?}");
    place.run("process");
    // The backend lacked descriptors, too: `retry --now` makes the postponed operations due.
    let put_off = place.run("list retrying -q --limit 0").replace('\n', " ");
    if !put_off.is_empty() {
        place.run(&format!("retry --now {put_off}"));
        place.run("process");
    }
    place.run("checkpoint");
    let listed = place.json("list completed --limit 0");
    assert_eq!(
        listed["operations"].as_array().unwrap().len(),
        acknowledged,
        "exactly the acknowledged operations completed"
    );
    for one in listed["operations"].as_array().unwrap() {
        let completed = one["history"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|step| step["to"] == "completed")
            .count();
        assert_eq!(completed, 1, "{one}");
    }
    println!("{} different errors, {acknowledged} operations logged and completed", reported.len());
}
