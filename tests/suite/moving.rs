//! Long attempts: their progress, their rate limit, and how soon they stop.
#![expect(clippy::disallowed_methods, reason = "waits for real processes")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::binary::Place;
use super::kubo::daemon::Kubo;

/// Adds a file of 12 MiB to a backend limited to 2 MiB per second, observes its progress, and
/// cancels it.
fn keeps_its_rate_and_stops(place: &Place, backend: &str) {
    let size = 12 << 20;
    std::fs::write(place.path("large"), vec![7; size]).unwrap();
    let number = place.json(&format!("add large --backend {backend} --spool never"))["operations"]
        [0]["number"]
        .clone();
    let started = Instant::now();
    let mut drain = place.start("process");
    let show = || place.json(&format!("show {number}"))["operation"].clone();
    let progress = loop {
        let operation = show();
        assert!(started.elapsed() < Duration::from_secs(30), "{operation}");
        if !operation["progress"].is_null() {
            assert_eq!(operation["status"], "processing");
            break operation["progress"].clone();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let figure = |name: &str| progress[name].as_u64().unwrap();
    assert_eq!(figure("bytes_total"), size as u64);
    assert!((1..size as u64).contains(&figure("bytes_done")), "{progress}");
    // The first bytes are not limited, and the reader may be late.
    let (done, passed) = (figure("bytes_done") as f64, started.elapsed().as_secs_f64());
    assert!(done <= (passed + 2.0) * f64::from(2 << 20), "{progress} after {passed} s");
    assert!(figure("bytes_per_second") > 0 && figure("seconds_left") > 0, "{progress}");
    let text = place.run(&format!("show {number}"));
    assert!(
        text.contains("of 12.0 MiB") && text.contains("/s") && text.contains(" left\n"),
        "{text}"
    );

    let asked = Instant::now();
    place.run(&format!("cancel {number}"));
    assert_eq!(drain.wait().unwrap().code(), Some(0), "a requested cancellation is not a failure");
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "the attempt stopped after {:?}",
        asked.elapsed()
    );
    let operation = show();
    assert_eq!(operation["error_type"], "cancelled", "{operation}");
    assert!(operation["progress"].is_null() && !place.log().join("progress.json").exists());
}

#[test]
fn attempts_report_progress_keep_their_rate_and_stop_in_time() {
    let place = Place::new();
    place.settings("[backends.local]\nmax_bytes_per_second = \"2 MiB\"\n");
    keeps_its_rate_and_stops(&place, "local");
    let place = Place::new();
    place.settings(&format!(
        "[backends.ipfs]\nendpoint = \"{}\"\nmax_bytes_per_second = \"2 MiB\"\n",
        Kubo::shared().endpoint()
    ));
    keeps_its_rate_and_stops(&place, "ipfs");
}

#[test]
fn only_backends_in_use_fail_health() {
    let place = Place::new();
    let away = "[backends.away]\ntype = \"ipfs\"\nendpoint = \"http://127.0.0.1:1\"\n";
    let (of_local, file) = ("default_backend = \"local\"\n", place.file("x", "x\n"));
    place.settings(of_local);
    let used = || {
        let used: Vec<String> =
            serde_json::from_value(place.json("status")["backends_used"].clone()).unwrap();
        used.join(" ")
    };
    assert_eq!(used(), "local");
    // `ipfs` is predeclared, even where no node runs.
    place.run("health");
    place.run(&format!("add {} --backend ipfs", file.display()));
    assert_eq!(used(), "ipfs local", "an operation waits for it");
    place.run("cancel 1");
    place.run("delete 1");
    assert_eq!(used(), "local");
    place.settings(&format!("{of_local}{away}"));
    assert_eq!(used(), "away local", "a configured backend is in use");
    let ends = |command: &str| place.output(command).status.code();
    assert_eq!((ends("health"), ends("status --fail-if offline>0")), (Some(1), Some(1)));
    place.settings(&format!("{of_local}[backends.ipfs]\nendpoint = \"http://127.0.0.1:1\"\n"));
    assert_eq!((used(), ends("health")), ("ipfs local".into(), Some(1)));
    place.settings("default_backend = \"ipfs\"\n");
    assert_eq!(used(), "ipfs local");
}

#[test]
fn a_health_watch_reports_every_change_until_it_is_stopped() {
    let place = Place::new();
    let program = place.path("program");
    place.file("file", "");
    let nowhere = "[backends.ipfs]\nendpoint = \"http://127.0.0.1:1/api/v0\"\n";
    place.settings(&format!("[backends.custom]\ncommand = [\"{}\"]\n{nowhere}", program.display()));
    // Health is stored with a log, once there is one.
    place.run("add file --backend mock");
    let mut watch = place
        .command("health --watch --backend custom --interval 0.05")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let first = next();
    assert!(first.contains("custom is offline: ") && first.contains("program"), "{first}");
    std::os::unix::fs::symlink("/bin/true", &program).unwrap();
    let back = next();
    assert!(back.ends_with("custom is degraded") || back.ends_with("custom is online"), "{back}");
    while !next().ends_with("custom is online") {}
    kill_process(Pid::from_child(&watch), Signal::INT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(130));

    let mut watch = place
        .command("--json health --watch --interval 0.05")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let document: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        super::contract::check("health", &document);
        assert_eq!(document["backends"]["custom"]["status"], "online", "{document}");
        assert_eq!(
            document["backends"]["custom"]["status_changes"][0]["to"], "offline",
            "{document}"
        );
    }
    kill_process(Pid::from_child(&watch), Signal::TERM).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    let status = place.output("status --fail-if offline>0");
    assert_eq!(status.status.code(), Some(1), "no process listens for `ipfs`");
}
