//! Directories written by the code of the original system: how they are shown and adopted, and what
//! that code reads afterwards.
#![expect(
    clippy::disallowed_methods,
    reason = "creates and reads directories as the original system does"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::binary::{Place, names};
use super::tools;

/// The files that `make.py` created: directory, name, content.
pub const FILES: &[(&str, &str, &[u8])] = &[
    (
        "mixed",
        "partitions/wal_1735680000_0.parquet",
        include_bytes!("../data/original/mixed/partitions/wal_1735680000_0.parquet"),
    ),
    (
        "mixed",
        "partitions/wal_1735680004_0.parquet",
        include_bytes!("../data/original/mixed/partitions/wal_1735680004_0.parquet"),
    ),
    (
        "mixed",
        "partitions/wal_1735766412_0.parquet",
        include_bytes!("../data/original/mixed/partitions/wal_1735766412_0.parquet"),
    ),
    (
        "mixed",
        "archives/archive_20241231.parquet",
        include_bytes!("../data/original/mixed/archives/archive_20241231.parquet"),
    ),
    (
        "mixed",
        "archives/archive_20250101.parquet",
        include_bytes!("../data/original/mixed/archives/archive_20250101.parquet"),
    ),
    (
        "appended",
        "partitions/wal_1735700000_0.parquet",
        include_bytes!("../data/original/appended/partitions/wal_1735700000_0.parquet"),
    ),
    (
        "appended",
        "partitions/wal_1735700003_0.parquet",
        include_bytes!("../data/original/appended/partitions/wal_1735700003_0.parquet"),
    ),
    (
        "lines",
        "partitions/wal_1735720000_0.parquet",
        include_bytes!("../data/original/lines/partitions/wal_1735720000_0.parquet"),
    ),
    (
        "lines",
        "archives/archive_20250101.parquet",
        include_bytes!("../data/original/lines/archives/archive_20250101.parquet"),
    ),
];

/// The directories, each with its number of readable operations.
const SCENARIOS: [(&str, usize); 3] = [("mixed", 12), ("appended", 5), ("lines", 4)];

/// The files of one directory.
pub fn files_of(scenario: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    FILES
        .iter()
        .filter(move |(of, _, _)| *of == scenario)
        .map(|(_, name, content)| (*name, *content))
}

/// Puts a directory of the original system in the place of the log, last changed some time ago.
pub fn put(place: &Place, scenario: &str, age: Duration) {
    for (name, content) in files_of(scenario) {
        write(&place.log().join(name), content, age);
    }
}

fn write(path: &Path, content: &[u8], age: Duration) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(SystemTime::now() - age)
        .unwrap();
}

const OLD: Duration = Duration::from_secs(7200);

fn python(what: &str, directory: &Path) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/adoption.py");
    serde_json::from_str(&tools::stdout_of(tools::python().arg(script).arg(what).arg(directory)))
        .unwrap()
}

/// Returns the content of every file below a directory, by path.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(
                    path.strip_prefix(directory).unwrap().to_owned(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

/// Returns all operations as `list` shows them, even if there is damage.
fn list(place: &Place) -> Vec<Value> {
    let output = place.output("--json list all --limit 0");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["operations"].as_array().unwrap().clone()
}

/// Returns id, status and times in the form in which the Python script prints them.
fn shown(operations: &[Value]) -> Value {
    // Our log also records when operations failed; the original has only their last change.
    let ended = |of: &'_ Value| {
        if of["status"] == "failed" { Value::Null } else { of["completed_at"].clone() }
    };
    let mut rows: Vec<Vec<Value>> = operations
        .iter()
        .map(|of| {
            let names = ["operation_id", "status", "timestamp", "updated_at"];
            names.iter().map(|name| of[*name].clone()).chain([ended(of)]).collect()
        })
        .collect();
    rows.sort_by_key(|row| row[0].as_str().unwrap().to_owned());
    json!(rows)
}

/// Returns the rows that Python reads, without those of unknown status.
fn understood(document: &Value) -> Value {
    let rows = document["rows"].as_array().unwrap();
    json!(rows.iter().filter(|row| row[1] != "queued").collect::<Vec<_>>())
}

#[test]
fn the_original_code_makes_the_fixtures() {
    let place = Place::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/original/make.py");
    tools::stdout_of(tools::python().arg(script).arg(place.path("made")));
    let made = tree(&place.path("made"));
    for (scenario, name, content) in FILES {
        let path = Path::new(scenario).join(name);
        assert!(
            made.get(&path).is_some_and(|made| made == content),
            "{} has changed",
            path.display()
        );
    }
    assert_eq!(made.len(), FILES.len());
}

#[test]
fn every_id_time_and_status_is_kept_and_no_original_is_changed() {
    for (scenario, count) in SCENARIOS {
        let place = Place::new();
        put(&place, scenario, OLD);
        let (before, expected) = (tree(&place.log()), understood(&python("all", &place.log())));
        let unadopted = list(&place);
        assert_eq!((shown(&unadopted), unadopted.len()), (expected.clone(), count), "{scenario}");
        for operation in &unadopted {
            let id = operation["operation_id"].as_str().unwrap();
            let by_id: Value =
                serde_json::from_slice(&place.output(&format!("--json show {id}")).stdout).unwrap();
            let by_number = place.output(&format!("--json show {}", operation["number"]));
            assert_eq!(by_id["operation"]["operation_id"], operation["operation_id"]);
            assert_eq!(by_id, serde_json::from_slice::<Value>(&by_number.stdout).unwrap());
        }
        assert_eq!(tree(&place.log()), before, "{scenario}: readers change nothing");

        place.run("checkpoint");
        assert_eq!(list(&place), unadopted, "{scenario}: adoption changed a field");
        let aside = tree(&place.log().join("quarantine/original"));
        assert_eq!(aside, before, "{scenario}: the originals are set aside, unchanged");
        // From here on it is an ordinary log.
        place.file("a.txt", "hello world\n");
        place.run("add --backend local a.txt --wait");
        place.run("checkpoint");
        let all = list(&place);
        assert_eq!(
            (all[0]["number"].clone(), all.len()),
            (json!(count + 1), count + 1),
            "{scenario}"
        );
        assert_eq!(all[1..], unadopted, "{scenario}");
    }
}

#[test]
fn the_original_reads_an_adopted_log() {
    let place = Place::new();
    put(&place, "mixed", OLD);
    let before = python("own", &place.log());
    assert_eq!(before["statistics"]["total_operations"], 13, "one operation is counted twice");
    place.run("checkpoint");
    let after = python("own", &place.log());
    assert_eq!(after["rows"], understood(&python("all", &place.log().join("quarantine/original"))));
    let statistics = json!({"total_operations": 12, "pending": 4, "processing": 1, "completed": 5, "failed": 1,
        "retrying": 1, "partitions": 1, "archives": 2});
    assert_eq!(after["statistics"], statistics);
    assert_eq!(
        python("own", &place.log().join("quarantine/original")),
        before,
        "the original system finds its files there"
    );
}

#[test]
fn files_changed_within_the_last_minute_are_not_adopted() {
    let place = Place::new();
    put(&place, "mixed", OLD);
    let (name, content) = files_of("mixed").next().unwrap();
    write(&place.log().join(name), content, Duration::from_secs(5));
    let before = tree(&place.log());
    place.file("a.txt", "hello world\n");
    for command in ["add --backend local a.txt", "process", "checkpoint", "retry 4", "cleanup"] {
        let output = place.output(&format!("--json {command}"));
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (output.status.code(), &error["error"]["type"]),
            (Some(5), &json!("original_at_work")),
            "{command}"
        );
    }
    assert_eq!(tree(&place.log()), before);
    assert_eq!(list(&place).len(), 12, "readers still show the directory");
    write(&place.log().join(name), content, Duration::from_secs(61));
    place.run("add --backend local a.txt");
    assert_eq!(list(&place).len(), 13);
}

#[test]
fn unreadable_records_are_reported_and_kept() {
    let place = Place::new();
    put(&place, "lines", OLD);
    // A truncated write, and an empty archive.
    let (_, whole) = files_of("mixed").next().unwrap();
    write(&place.log().join("partitions/wal_1735680000_0.parquet"), &whole[..whole.len() / 2], OLD);
    write(&place.log().join("archives/archive_20240101.parquet"), b"", OLD);
    let document: Value = serde_json::from_slice(&place.output("--json status").stdout).unwrap();
    assert_eq!(document["success"], false);
    assert!(
        document["damage"]["path"]
            .as_str()
            .unwrap()
            .ends_with("partitions/wal_1735680000_0.parquet")
    );
    assert_eq!(document["stats"]["total"], 4, "damage in one file hides no other file");
    let before = tree(&place.log());
    place.run("checkpoint");
    let document = place.json("status");
    let unread: Vec<(&str, &str)> = document["unread"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| (place["path"].as_str().unwrap(), place["what"].as_str().unwrap()))
        .map(|(path, what)| (path.split_once("quarantine/original/").unwrap().1, what))
        .collect();
    let expected = [
        ("partitions/wal_1735680000_0.parquet", "neither Parquet nor JSON"),
        ("partitions/wal_1735720000_0.parquet", "the line at byte 689: unknown status `queued`"),
        ("archives/archive_20240101.parquet", "the file is empty"),
    ];
    assert_eq!(unread, expected);
    assert_eq!(place.run("status").matches("not adopted").count(), expected.len(), "each once");
    assert_eq!(tree(&place.log().join("quarantine/original")), before);
    assert_eq!(document["stats"]["total"], 4);
    // The damage is reported while the files exist.
    fs::remove_dir_all(place.log().join("quarantine/original")).unwrap();
    assert_eq!(place.json("status")["unread"], json!([]));
}

#[test]
fn ids_that_are_not_uuids_are_found_by_their_text() {
    let place = Place::new();
    let line = |id: &str| {
        json!({"operation_id": id, "operation_type": "ADD", "backend": "local", "status": "completed",
            "timestamp": 1735680000000_i64, "updated_at": 1735680001000_i64, "parameters": {"path": "/x"}})
    };
    let content = format!("{}\n{}", line("job-17"), line("job 18"));
    write(&place.log().join("partitions/wal_1735680000_0.parquet"), content.as_bytes(), OLD);
    let before = place.json("show original:job-17");
    let operation = &before["operation"];
    assert_eq!(operation["idempotency_key"], "original:job-17");
    assert_eq!(operation["operation_type"], "original_add", "no backend executes it as an `add`");
    assert_eq!(operation["parameters"], json!({"path": "/x", "original_operation_type": "ADD"}));
    place.run("checkpoint");
    assert_eq!(place.json("show original:job-17"), before);
    assert_eq!(place.output("show original:job-19").status.code(), Some(3));
}

#[test]
fn claims_of_a_dead_original_process_are_queried() {
    let place = Place::new();
    // The original records neither the claimant nor the outcome: repeating `rm` may do harm.
    let line = json!({"operation_id": "1715609f-7c74-4c6d-820f-c1e1d0a4e909", "operation_type": "mkdir",
        "backend": "local", "status": "processing", "timestamp": 1735680000000_i64, "updated_at": 1735680001000_i64,
        "parameters": {"path": "/d"}});
    write(
        &place.log().join("partitions/wal_1735680000_0.parquet"),
        line.to_string().as_bytes(),
        OLD,
    );
    let operation = &place.json("show 1")["operation"].clone();
    assert_eq!(operation["claim"]["pid"], 0);
    place.run("process --quiet");
    let operation = &place.json("show 1 --history")["operation"].clone();
    let steps: Vec<&str> = operation["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["to"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["processing", "pending", "processing", "completed"], "{operation}");
}

#[test]
fn several_first_writers_adopt_once() {
    let place = Place::new();
    put(&place, "mixed", OLD);
    place.file("a.txt", "hello world\n");
    let writers: Vec<_> = (0..6)
        .map(|_| place.command("add --backend local a.txt").stdout(Stdio::null()).spawn().unwrap())
        .collect();
    while list(&place).len() < 18 {
        let seen = list(&place);
        let numbers: std::collections::BTreeSet<_> =
            seen.iter().map(|of| of["number"].as_u64()).collect();
        assert!(
            seen.len() >= 12 && numbers.len() == seen.len(),
            "each exists exactly once at any time: {seen:?}"
        );
    }
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert_eq!(list(&place).len(), 18);
    assert_eq!(names(&place.log().join("quarantine/original/partitions")).len(), 3);
    assert_eq!(
        names(&place.log().join("partitions")).len(),
        1,
        "{:?}",
        names(&place.log().join("quarantine"))
    );
}
