//! A stopped process (SIGSTOP) that holds a lock: other writers time out and name it, readers
//! continue.
#![expect(
    clippy::disallowed_methods,
    reason = "waits, and examines processes, as another program would"
)]

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::binary::Place;
use super::spool::document;

/// A process that is stopped at a failpoint; it continues, at the latest, when this is dropped.
struct Stopped {
    child: Option<Child>,
}

impl Stopped {
    fn at(place: &Place, point: &str, arguments: &str) -> Stopped {
        let mut command = place.command(arguments);
        command
            .env("WAL_CLI_FAILPOINT", format!("stop:{point}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let stopped = Stopped { child: Some(child) };
        let start = Instant::now();
        while !stopped.stands_still() {
            assert!(start.elapsed() < Duration::from_secs(20), "{arguments} did not reach {point}");
            std::thread::sleep(Duration::from_millis(5));
        }
        stopped
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn stands_still(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
    }

    /// Continues the process, and returns its output.
    fn go_on(mut self) -> Output {
        let child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns a log with one operation, and a file to add.
fn place() -> Place {
    let place = Place::new();
    place.file("a", "hello world\n");
    place.run("add --backend local a");
    place
}

/// Asserts that a command ends within a few seconds with this exit code and error type, and names
/// the stopped process.
fn times_out_naming(
    place: &Place,
    arguments: &str,
    expected: (i32, &str),
    holder: (u32, &str),
) -> Value {
    let start = Instant::now();
    let output = place.output(&format!("--json --lock-timeout 0.3 {arguments}"));
    let reported = document(&output);
    assert_eq!(
        (output.status.code(), reported["error"]["type"].as_str()),
        (Some(expected.0), Some(expected.1)),
        "{reported}"
    );
    let message = reported["error"]["message"].as_str().unwrap();
    let named = format!("pid {} (`{}`)", holder.0, holder.1);
    assert!(message.contains(&named), "{arguments}: {message} does not name {named}");
    assert!(start.elapsed() < Duration::from_secs(8), "{arguments} took {:?}", start.elapsed());
    reported
}

/// Asserts that readers work, since they need no lock.
fn check_readers(place: &Place, operations: u64) {
    assert_eq!(place.json("status")["stats"]["total"], operations);
    assert_eq!(
        place.json("list all --limit 0")["operations"].as_array().unwrap().len() as u64,
        operations
    );
    assert_eq!(place.json("show 1")["operation"]["number"], 1);
    place.json("why 1");
}

fn all_completed(place: &Place, operations: usize) {
    place.run("process --quiet");
    let listed = place.json("list completed --limit 0");
    assert_eq!(listed["operations"].as_array().unwrap().len(), operations, "{listed}");
}

#[test]
fn a_stopped_holder_of_the_append_lock_is_named() {
    let place = place();
    // From here on the process holds the lock, and its note names it.
    let stopped = Stopped::at(&place, "after:write:lock", "add --backend local a");
    let holder = (stopped.pid(), "add");
    for command in [
        "add --backend local --spool never a",
        "add --backend local a",
        "cancel 1",
        "hold 1",
        "process",
    ] {
        times_out_naming(&place, command, (5, "busy"), holder);
    }
    check_readers(&place, 1);
    assert!(stopped.go_on().status.success());
    place.run("add --backend local a");
    all_completed(&place, 3);
}

#[test]
fn a_stopped_drain_loop_is_named() {
    let place = place();
    let stopped = Stopped::at(&place, "before:effect", "process");
    let holder = (stopped.pid(), "process");
    times_out_naming(&place, "process", (5, "busy"), holder);
    check_readers(&place, 1);
    assert_eq!(place.json("status")["processing_active"], true);
    place.run("add --backend local a");
    place.run("checkpoint");
    assert!(place.run("process --skip-if-running").is_empty());
    let done = stopped.go_on();
    assert!(done.status.success(), "{done:?}");
    all_completed(&place, 2);
}

#[test]
fn a_process_stopped_in_a_flush_is_named_and_loses_nothing() {
    let place = place();
    let stopped = Stopped::at(&place, "before:sync:generation", "add --backend local a");
    let holder = (stopped.pid(), "add");
    let reported =
        times_out_naming(&place, "add --backend local --spool never a", (7, "unconfirmed"), holder);
    assert_eq!(reported["error"]["ids"].as_array().unwrap().len(), 1, "{reported}");
    times_out_naming(&place, "process", (7, "unconfirmed"), holder);
    // The operation was logged, and no error was reported.
    check_readers(&place, 3);
    assert!(stopped.go_on().status.success());
    place.run("add --backend local a");
    all_completed(&place, 4);
}

#[test]
fn a_process_stopped_in_a_checkpoint_delays_no_addition() {
    let place = place();
    let stopped = Stopped::at(&place, "before:sync:staged-partition", "checkpoint");
    times_out_naming(&place, "checkpoint", (5, "busy"), (stopped.pid(), "checkpoint"));
    place.run("add --backend local a");
    check_readers(&place, 2);
    assert!(stopped.go_on().status.success());
    all_completed(&place, 2);
}

/// Returns the processes whose command line contains this directory.
fn processes_at(place: &Place) -> Vec<String> {
    let command_of =
        |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("cmdline")).ok();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| command_of(entry.ok()?));
    let here = place.path("").display().to_string();
    all.filter(|command| command.contains(here.trim_end_matches('/'))).collect()
}

#[test]
fn a_durability_test_leaves_no_process_behind() {
    for (signal, leaves_its_folder) in
        [(Signal::TERM, false), (Signal::INT, false), (Signal::KILL, true)]
    {
        let place = Place::new();
        let path = place.path("tried");
        std::fs::create_dir(&path).unwrap();
        let mut child =
            place.start(&format!("verify --rounds 1000 --durability {}", path.display()));
        let start = Instant::now();
        while processes_at(&place).len() < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "a second process appends");
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        let start = Instant::now();
        while !processes_at(&place).is_empty() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "{signal:?}: {:?}",
                processes_at(&place)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = std::fs::read_dir(&path).unwrap().count();
        assert_eq!(left > 0, leaves_its_folder, "{signal:?}");
    }
}
