//! Programs that print without end, ask the terminal, leave processes behind, or cannot be started.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use wal_cli::backend::Attempt;

use super::{Need, Place, configure, is_alive, shell, status, until};
use crate::suite::behaviours::request;

/// The processes whose ids are in a file, killed when this is dropped.
struct Left(std::path::PathBuf);

impl Left {
    fn kill(&self) {
        for pid in std::fs::read_to_string(&self.0).unwrap_or_default().lines() {
            let _ = kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL);
            until("the process has ended", || !is_alive(pid));
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_program_does_not_see_secrets_of_backends() {
    let place = Place::new();
    configure(&place, "env | grep -o '^IPFS_KIT_WAL_[A-Z_]*\\|^TAPE_KEY=.*' | sort", "");
    place.run("submit look");
    let variables = [
        ("IPFS_KIT_WAL_BACKENDS_IPFS_TOKEN", "s3cret"),
        ("IPFS_KIT_WAL_BACKENDS_CUSTOM_JOBS", "2"),
        ("IPFS_KIT_WAL_JOBS", "3"),
        ("TAPE_KEY", "mine"),
    ];
    assert!(place.command("process").envs(variables).output().unwrap().status.success());
    let printed = "IPFS_KIT_WAL_JOBS\nIPFS_KIT_WAL_PATH\nTAPE_KEY=mine";
    assert_eq!(status(&place, 1)["receipt"], json!({ "output": printed }));
}

#[test]
fn a_program_that_prints_without_end_is_stopped() {
    let place = Place::new();
    configure(&place, "head -c 20000000 /dev/zero; sleep 60", "");
    place.run("submit backup");
    let start = Instant::now();
    assert_eq!(place.output("process").status.code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(30));
    let operation = status(&place, 1);
    assert_eq!(operation["error_type"], "in_doubt", "{operation}");
    let message = operation["error"].as_str().unwrap();
    assert!(message.contains("more than 16 MiB") && message.contains("run/1"), "{message}");
    assert_eq!(
        std::fs::metadata(place.log().join("run/1")).unwrap().len(),
        16 << 20,
        "the first of it is kept"
    );
    // A program that ends at once has completed.
    configure(&place, "head -c 20000000 /dev/zero | tr '\\0' x", "");
    place.run("submit backup");
    place.output("process");
    let operation = status(&place, 2);
    if operation["status"] == "completed" {
        assert_eq!(operation["receipt"]["output"].as_str().unwrap().len(), 64 << 10);
    }
}

#[test]
fn reopening_the_output_overwrites_nothing() {
    let place = Place::new();
    let script = "printf 'a long first line\\n'; printf 'two\\n' > /dev/stdout; printf 'three\\n'; printf 'x' >> /dev/stdout; echo y";
    configure(&place, script, "");
    place.run("submit backup");
    place.run("process");
    // The shell truncates the file that it opens, so the earlier output is lost.
    assert_eq!(status(&place, 1)["receipt"], json!({"output": "two\nthree\nxy"}));
}

#[test]
fn only_a_result_that_is_too_long_is_truncated() {
    let place = Place::new();
    let print = |n: usize| {
        format!(
            "printf '{{\"cid\": \"bafy\", \"size\": 3, \"receipt\": {{\"a\": \"short\", \"log\": \"'; \
             head -c {n} /dev/zero | tr '\\0' x; printf '\"}}}}'"
        )
    };
    for (nth, n) in [60_000, 500_000, 2_000_000].into_iter().enumerate() {
        configure(&place, &print(n), "");
        place.run("submit backup");
        place.run("process");
        let operation = status(&place, nth as u64 + 1);
        assert_eq!(operation["status"], "completed");
        let receipt = &operation["receipt"];
        let len = |name: &str| receipt[name].as_str().map(str::len);
        if n < 1_000_000 {
            assert_eq!(
                operation["result"],
                json!({"cid": "bafy", "size": 3, "destination": null}),
                "{n}"
            );
            assert_eq!(receipt["a"], "short");
        }
        match n {
            60_000 => assert_eq!((len("log"), len("cut")), (Some(60_000), None)),
            500_000 => {
                assert!(
                    len("log").unwrap() > 50_000 && len("log").unwrap() < 70_000,
                    "{:?}",
                    len("log")
                );
                assert!(receipt["cut"].as_str().unwrap().contains("`log`"), "{}", receipt["cut"]);
            }
            _ => {
                assert_eq!(len("output"), Some(64 << 10));
                assert!(receipt["cut"].as_str().unwrap().contains("1 MiB"), "{}", receipt["cut"]);
            }
        }
    }
    assert!(super::super::binary::names(&place.log().join("run")).is_empty());
}

#[test]
fn output_files_are_swept_unless_their_operation_is_in_doubt() {
    let place = Place::new();
    configure(&place, "echo so far; kill -KILL $$", "");
    for _ in 0..4 {
        place.run("submit backup");
    }
    place.output("process");
    let outputs = || super::super::binary::names(&place.log().join("run"));
    assert_eq!(outputs(), ["1", "2", "3", "4"]);
    place.run("delete 1 3");
    place.file("wal/run/not-ours", "");
    // A process still writes to it.
    let left = Left(place.path("left"));
    let held = std::fs::OpenOptions::new().append(true).open(place.log().join("run/3")).unwrap();
    held.lock().unwrap();
    // Swept by a loop that does not know the backend.
    place.settings("");
    place.output("process");
    assert_eq!(outputs(), ["2", "3", "4", "not-ours"]);
    drop(held);
    // Processes that other tests start at this moment may have a copy of that file.
    until("no process has it open", || {
        place.output("process");
        outputs() == ["2", "4", "not-ours"]
    });
    // A running program keeps its output file.
    configure(
        &place,
        "echo $$ > left; echo so far; while [ ! -e go ]; do sleep 0.02; done; kill -KILL $$",
        "",
    );
    place.run("retry 2");
    let mut drain = place.start("process");
    until("it started", || left.0.exists());
    drain.kill().unwrap();
    drain.wait().unwrap();
    place.output("process");
    assert_eq!(outputs(), ["2", "4", "not-ours"]);
    left.kill();
    place.output("process");
    assert_eq!(status(&place, 2)["error_type"], "in_doubt");
    assert_eq!(outputs(), ["2", "4", "not-ours"]);
}

#[test]
fn a_program_that_reads_the_terminal_is_stopped() {
    Need::Python.check();
    let place = Place::new();
    configure(&place, "echo 'Password:' >&2; read answer < /dev/tty; echo \"$answer\"", "");
    place.run("submit backup");
    let mut python = Command::new("python3");
    python.args([
        "-c",
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
    ]);
    let start = Instant::now();
    let output = place.command_under(python, "process").output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let operation = status(&place, 1);
    assert_eq!(
        (&operation["failure_class"], &operation["error_type"]),
        (&json!("permanent"), &json!("wants_terminal")),
        "{operation}"
    );
    let message = operation["error"].as_str().unwrap();
    assert!(message.contains("terminal") && message.contains("Password:"), "{message}");
}

#[test]
fn a_suspended_program_may_still_return_its_operation() {
    let place = Place::new();
    configure(
        &place,
        "trap 'exit 75' TERM; kill -STOP $$; sleep 60 & wait",
        "total_timeout = 0.5\n",
    );
    place.run("submit backup --max-retries 0");
    assert_eq!(place.output("process").status.code(), Some(1));
    assert_eq!(status(&place, 1)["error_type"], "timed_out");
}

#[test]
fn leftover_processes_keep_an_operation_until_cancelled() {
    let place = Place::new();
    let left = Left(place.path("left"));
    configure(&place, "echo $$ >> started; sleep 60 & echo $! >> left; kill -KILL $$", "");
    let started = || std::fs::read_to_string(place.path("started")).unwrap().lines().count();
    place.run("submit backup");
    for _ in 0..2 {
        place.output("process");
        assert_eq!(status(&place, 1)["status"], "processing");
    }
    place.run("cancel 1");
    assert_eq!(place.output("process").status.code(), Some(1));
    let operation = status(&place, 1);
    assert_eq!(operation["error_type"], "in_doubt", "{operation}");
    let message = operation["error"].as_str().unwrap();
    assert!(message.contains("still running") && message.contains("run/1"), "{message}");
    // Another attempt waits for the leftover processes, and spends nothing.
    place.run("retry 1");
    for _ in 0..3 {
        place.output("process");
        let operation = status(&place, 1);
        assert_eq!(
            (&operation["status"], &operation["retry_count"]),
            (&json!("processing"), &json!(0)),
            "{operation}"
        );
    }
    assert_eq!(started(), 1);
    left.kill();
    place.output("process");
    assert_eq!(status(&place, 1)["error_type"], "in_doubt");
    assert_eq!(started(), 1);
}

#[test]
fn a_starting_program_is_not_taken_for_a_leftover() {
    let place = Place::new();
    configure(&place, "kill -KILL $$", "jobs = 8\n");
    for _ in 0..40 {
        place.run("submit backup");
    }
    assert_eq!(place.output("process").status.code(), Some(1));
    assert_eq!(place.json("status")["stats"]["failed"], 40);
}

#[test]
fn cancelling_does_not_wait_for_leftover_processes() {
    let place = Place::new();
    let _left = Left(place.path("left"));
    // A process in a session of its own is not killed with the program.
    configure(&place, "setsid sleep 60 & echo $! > left; touch started; sleep 60", "");
    place.run("submit backup");
    let mut drain = place.start("process --follow");
    until("it started", || place.path("started").exists());
    place.run("cancel 1");
    until("it is settled", || status(&place, 1)["status"] == "failed");
    drain.kill().unwrap();
    drain.wait().unwrap();
    let operation = status(&place, 1);
    assert_eq!(operation["error_type"], "in_doubt");
    assert!(operation["error"].as_str().unwrap().contains("fuser"), "{operation}");
}

#[test]
fn an_exit_status_counts_despite_leftover_processes() {
    let place = Place::new();
    let _left = Left(place.path("left"));
    configure(
        &place,
        "sleep 60 & echo $! >> left; test -e tried && exit 0; touch tried; exit 75",
        "",
    );
    place.run("submit backup");
    place.run("process");
    assert_eq!(status(&place, 1)["status"], "completed");
    assert_eq!(std::fs::read_to_string(place.path("left")).unwrap().lines().count(), 2);
}

#[test]
fn leftover_processes_cost_the_drain_loop_no_threads() {
    let place = Place::new();
    let _left = Left(place.path("left"));
    configure(&place, "sleep 60 & echo $! >> left", "jobs = 2\n");
    for _ in 0..20 {
        place.run("submit backup");
    }
    let mut drain = place.start("process --follow");
    until("they are done", || place.json("status")["stats"]["completed"] == 20);
    let threads = std::fs::read_dir(format!("/proc/{}/task", drain.id())).unwrap().count();
    drain.kill().unwrap();
    drain.wait().unwrap();
    assert!(threads < 10, "{threads}");
}

#[test]
fn full_pipes_block_no_drain_loop() {
    let place = Place::new();
    let script =
        "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 'the end' >&2; wc -c; exit 3";
    let bench = shell(&place, script, None);
    let long = "y".repeat(300_000);
    let asked = request("backup", &[("note", &long)]);
    let result = bench.backend.execute(&asked, &Attempt::default());
    let message = format!("{result:?}");
    assert!(message.contains("ended with 3: the end"), "{message}");
    let printed =
        std::fs::read_to_string(place.path("run").join(asked.number.to_string())).unwrap();
    assert!(printed.trim().parse::<usize>().unwrap() > 300_000, "{printed}");
    let result = shell(&place, "exit 0", None).backend;
    result.execute(&request("backup", &[("note", &long)]), &Attempt::default()).unwrap();
}

#[test]
fn a_script_without_its_interpreter_is_an_outage() {
    let place = Place::new();
    configure(&place, "", "");
    let program = place.path("program.sh");
    place.settings(&format!(
        "default_backend = \"custom\"\n[backends.custom]\ncommand = ['{}']\n",
        program.display()
    ));
    place.run("submit backup");
    let mode =
        |mode| std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
    let mut said = Vec::new();
    for (first, bits) in [
        ("#!/bin/sh", 0o644),
        ("#!/no/such/shell -e", 0o755),
        ("#!/usr/bin/env no-such-shell", 0o755),
    ] {
        place.file("program.sh", &format!("{first}\nexit 0\n"));
        mode(bits);
        let output = place.output("health --backend custom");
        assert_ne!(output.status.code(), Some(0), "{first}");
        said.push(String::from_utf8(output.stdout).unwrap());
    }
    assert!(said[0].contains("chmod +x"), "{}", said[0]);
    assert!(said[1].contains("/no/such/shell"), "{}", said[1]);
    assert!(said[2].contains("no-such-shell"), "{}", said[2]);
    place.file("program.sh", "#!/no/such/shell\nexit 0\n");
    place.output("process");
    let operation = status(&place, 1);
    assert_eq!(
        (&operation["status"], &operation["retry_count"]),
        (&json!("pending"), &json!(0)),
        "{operation}"
    );
    place.file("program.sh", "#!/usr/bin/env sh\nexit 0\n");
    place.run("health --backend custom");
    place.run("process");
    assert_eq!(status(&place, 1)["status"], "completed");
}
