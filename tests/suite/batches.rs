//! Batches larger than a frame, with the real program: all or nothing.
#![expect(clippy::disallowed_methods, reason = "creates files, waits and kills as a user would")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::binary::{Place, names};
use super::cli::{code, text};

/// Writes a list of `count` paths that repeats a hundred files, with some lines replaced.
fn list(place: &Place, count: usize, replaced: &[(usize, &str)]) {
    for nth in 0..100 {
        place.file(&format!("f{nth}"), &format!("content {nth}\n"));
    }
    let mut lines: Vec<String> = (0..count).map(|nth| format!("f{}", nth % 100)).collect();
    for (line, path) in replaced {
        lines[line - 1] = (*path).to_owned();
    }
    place.file("list", &(lines.join("\n") + "\n"));
}

fn total(place: &Place) -> u64 {
    place.json("status")["stats"]["total"].as_u64().unwrap()
}

fn piped(place: &Place, arguments: &str) -> Child {
    let mut command = place.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

fn fed(place: &Place, arguments: &str, input: &str) -> Output {
    let mut child = piped(place, arguments);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn invalid_lines_are_listed_and_stop_all_but_keep_going() {
    let place = Place::new();
    list(&place, 2500, &[(7, "gone"), (2100, "/dev/null")]);
    let output = place.output("add --json --backend local --from-file list");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), json["error"]["bad_count"].as_u64()), (Some(2), Some(2)), "{json}");
    let bad = json["error"]["bad_inputs"].as_array().unwrap();
    let lines: Vec<_> =
        bad.iter().map(|bad| (bad["line"].as_u64().unwrap(), bad["error_type"].as_str())).collect();
    assert_eq!(lines, [(7, Some("not_found")), (2100, Some("unsupported_file"))]);
    let reported = text(&place.output("add --backend local --from-file list").stderr);
    assert!(
        reported.contains("2 of 2500")
            && reported.contains("line 7: gone")
            && reported.contains("line 2100: "),
        "{reported}"
    );
    assert_eq!(total(&place), 0);
    assert_eq!(names_if_any(&place, "tmp"), [] as [&str; 0]);
    assert_eq!(names_if_any(&place, "partitions"), [] as [&str; 0]);

    let output = place.output("add --json --backend local --from-file list --keep-going");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), json["success"].as_bool()), (Some(1), Some(false)));
    let operations = json["operations"].as_array().unwrap();
    assert_eq!(
        (operations.len(), json["error"]["bad_inputs"].as_array().unwrap().len()),
        (2498, 2)
    );
    assert!(operations[6]["path"].as_str().unwrap().ends_with("/f7"), "the seventh was left out");
    assert_eq!(total(&place), 2498);
    // Everything reported exists.
    let last = &operations[2497];
    let shown = place.json(&format!("show {}", last["number"]));
    assert_eq!(shown["operation"]["operation_id"], last["operation_id"]);
    assert_eq!(shown["operation"]["history"][0]["to"], "pending");

    let output = place.output("add --backend local --from-file list --keep-going");
    assert_eq!((code(&output), text(&output.stdout).lines().count()), (Some(1), 2498));
    assert!(
        text(&output.stderr).contains("2 of 2500 inputs are invalid; the other 2498 were logged")
    );
}

#[test]
fn a_batch_killed_at_any_instant_is_whole_or_absent() {
    let place = Place::new();
    list(&place, 3000, &[]);
    place.run("add --backend local f1");
    let mut random = fastrand::Rng::with_seed(11);
    let (mut logged, mut killed) = (1, 0);
    for round in 0..12 {
        let mut child = place.start("add --backend local --from-file list");
        std::thread::sleep(Duration::from_millis(
            random.u64(5..if round % 2 == 0 { 120 } else { 500 }),
        ));
        killed += u64::from(child.kill().is_ok() && !child.wait().unwrap().success());
        let now = total(&place);
        assert!(now == logged || now == logged + 3000, "round {round}: {now} after {logged}");
        logged = now;
    }
    assert!(killed > 0, "every batch ended before it could be killed");
    place.run("checkpoint");
    assert_eq!(total(&place), logged);
    assert_eq!(names(&place.log().join("tmp")), [] as [&str; 0]);
    let listed = place.json("list all --limit 0");
    let numbers: BTreeSet<u64> = listed["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers.len() as u64, logged);
}

#[test]
fn writers_and_a_drain_loop_continue_beside_a_batch() {
    let place = Place::new();
    list(&place, 4000, &[]);
    place.run("add --backend mock f1");
    let beside = std::thread::scope(|scope| {
        let batches = [(); 2].map(|()| {
            scope.spawn(|| place.output("add --backend mock --from-file list --lock-timeout 2min"))
        });
        let writers = [(); 2].map(|()| {
            scope.spawn(|| {
                for _ in 0..20 {
                    place.run("add --backend mock f1 f2");
                }
            })
        });
        place.run("process --quiet");
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        batches.into_iter().for_each(|batch| {
            let output = batch.join().unwrap();
            assert_eq!((code(&output), text(&output.stdout).lines().count()), (Some(0), 4000));
        });
        20 * 2 * 2
    });
    place.run("process --quiet");
    let stats = &place.json("status")["stats"];
    assert_eq!(
        (stats["total"].as_u64(), stats["completed"].as_u64()),
        (Some(8001 + beside), Some(8001 + beside))
    );
}

#[test]
fn json_lines_are_logged_together_or_rejected_by_line() {
    let place = Place::new();
    place.file("a.txt", "a");
    let good = [
        r#"{"operation_type":"add","parameters":{"path":"a.txt"}}"#,
        r#"{"operation_type":"mkdir","parameters":{"path":"/d"},"backend":"mock","priority":4,"max_retries":0}"#,
        "",
        r#"{"operation_type":"mkdir","parameters":{"path":"/d"},"idempotency_key":"k","delay":"2h"}"#,
        r#"{"operation_type":"mkdir","parameters":{"path":"/d"},"idempotency_key":"k"}"#,
    ];
    let bad = [
        (r#"{"operation_type":"mkdir","parameters":{"path":"/d"},"prio":1}"#, "bad_line"),
        (r#"{"operation_type":"mkdir""#, "bad_line"),
        (r#"{"operation_type":"dance"}"#, "unsupported"),
        (
            r#"{"operation_type":"mkdir","backend":"elsewhere","parameters":{"path":"/d"}}"#,
            "unknown_backend",
        ),
        (r#"{"operation_type":"add","parameters":{"path":"gone"}}"#, "not_found"),
        (r#"{"operation_type":"pin","parameters":{"cid":"x"}}"#, "bad_parameters"),
        (r#"{"operation_type":"mkdir","parameters":{"path":"/d"},"after":[99]}"#, "bad_after"),
        (r#"{"operation_type":"mkdir","parameters":{"path":"/d"},"delay":"soon"}"#, "bad_line"),
        (
            r#"{"operation_type":"mkdir","parameters":{"path":"/d"},"idempotency_key":""}"#,
            "bad_key",
        ),
    ];
    let lines: Vec<&str> = good.into_iter().chain(bad.map(|(line, _)| line)).collect();
    let output = fed(&place, "--json submit --backend local --from-file -", &lines.join("\n"));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(code(&output), Some(2), "{json}");
    let named: Vec<_> = json["error"]["bad_inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bad| (bad["line"].as_u64().unwrap(), bad["error_type"].as_str().unwrap().to_owned()))
        .collect();
    let expected: Vec<_> =
        (6..).zip(bad).map(|(line, (_, kind))| (line, kind.to_owned())).collect();
    assert_eq!(named, expected);
    assert_eq!(total(&place), 0);

    let output =
        fed(&place, "--json submit --backend local --priority 2 --from-file -", &good.join("\r\n"));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(code(&output), Some(0), "{json}");
    let numbers: Vec<_> =
        json["operations"].as_array().unwrap().iter().map(|one| one["number"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3, 3], "a key identifies one operation");
    let (first, second) = (place.json("show 1"), place.json("show 2"));
    assert_eq!(first["operation"]["parameters"]["path"], place.path("a.txt").to_str().unwrap());
    assert_eq!(
        (&first["operation"]["priority"], &second["operation"]["priority"]),
        (&2.into(), &4.into())
    );
    assert_eq!(
        (&second["operation"]["backend"], &second["operation"]["max_retries"]),
        (&"mock".into(), &0.into())
    );

    // More than fit in a frame.
    let many: Vec<String> = (0..1500)
        .map(|nth| format!(r#"{{"operation_type":"mkdir","parameters":{{"path":"/{nth}"}}}}"#))
        .collect();
    let output = fed(&place, "submit --backend local --from-file -", &many.join("\n"));
    assert_eq!((code(&output), text(&output.stdout).lines().count()), (Some(0), 1500));
}

#[test]
fn an_interrupted_batch_is_absent_or_reported_in_full() {
    let place = Place::new();
    list(&place, 3000, &[]);
    let paths = std::fs::read_to_string(place.path("list")).unwrap();
    let mut child = piped(&place, "add --backend local --from-file -");
    let mut input = child.stdin.take().unwrap();
    input.write_all(paths.as_bytes()).unwrap();
    // It has become a large batch, and waits for more input.
    while names_if_any(&place, "tmp").is_empty() && !place.log().join("checkpoint.lock").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(code(&output), Some(130), "{}", text(&output.stderr));
    assert_eq!(total(&place), 0);
    assert_eq!(names(&place.log().join("tmp")), [] as [&str; 0]);

    let mut child = piped(&place, "--json add --backend local --from-file list");
    let mut output = child.stdout.take().unwrap();
    // It has begun to print, and blocks until the pipe is read.
    let mut reported = vec![0; 10];
    output.read_exact(&mut reported).unwrap();
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(50));
    output.read_to_end(&mut reported).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let json: Value = serde_json::from_slice(&reported).unwrap();
    assert_eq!(json["operations"].as_array().unwrap().len(), 3000);
    assert_eq!(total(&place), 3000);
}

fn names_if_any(place: &Place, directory: &str) -> Vec<String> {
    let directory = place.log().join(directory);
    if directory.exists() { names(&directory) } else { Vec::new() }
}

#[test]
fn a_large_batch_can_be_waited_for() {
    let place = Place::new();
    list(&place, 1200, &[(1100, "gone")]);
    let output = place.output("add --backend local --from-file list --wait --keep-going");
    let stdout = text(&output.stdout);
    assert_eq!(
        (code(&output), stdout.lines().count()),
        (Some(1), 1199),
        "{}",
        text(&output.stderr)
    );
    assert!(stdout.lines().all(|line| line.contains("completed")), "{stdout}");
    assert!(text(&output.stderr).contains("line 1100: gone"));
    list(&place, 1200, &[]);
    let json = place.json("add --backend local --from-file list --wait");
    let operations = json["operations"].as_array().unwrap();
    assert_eq!((operations.len(), json["success"].as_bool()), (1200, Some(true)));
    assert!(operations.iter().all(|operation| operation["status"] == "completed"));
}

#[test]
fn paths_that_get_the_same_name_at_a_backend_are_refused() {
    let place = Place::new();
    place.settings(
        "[backends.s3]\nendpoint = \"http://127.0.0.1:9\"\nregion = \"us-east-1\"\n\
         bucket = \"b\"\naccess_key_id = \"a\"\nsecret_access_key = \"s\"\n",
    );
    std::fs::create_dir(place.path("a")).unwrap();
    std::fs::create_dir(place.path("b")).unwrap();
    place.file("a/x.txt", "first\n");
    place.file("b/x.txt", "second\n");
    place.file("b/y.txt", "third\n");
    for (arguments, name) in [
        ("add a/x.txt b/x.txt --backend s3", "b/x.txt"),
        ("add a/x.txt a/x.txt --backend s3", "b/x.txt"),
        ("add a/x.txt b/y.txt --backend s3 --param destination=one", "b/one"),
        ("add a/x.txt b/x.txt --backend s3 --param destination=folder/", "b/folder/x.txt"),
        ("add a/x.txt b/x.txt --backend ipfs --param to_files=/folder/", "folder/x.txt"),
        ("add a/x.txt b/y.txt --backend ipfs --param to_files=/one", "one"),
    ] {
        let refused = place.output(arguments);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{arguments}: {text}");
        let expected = format!("gets the same name `{name}`");
        assert!(text.replace("`/", "`").contains(&expected), "{arguments}: {text}");
        assert!(place.run("list all -q").is_empty(), "{arguments}");
    }
    let kept = place.output("add a/x.txt b/x.txt b/y.txt --backend s3 --keep-going");
    assert_eq!(kept.status.code(), Some(1), "{kept:?}");
    // Content under its CID has no name.
    place.run("add a/x.txt b/x.txt --backend local");
    place.run("add a/x.txt b/x.txt --backend ipfs");
    assert_eq!(place.run("list all -q").lines().count(), 6);
}
