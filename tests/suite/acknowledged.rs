//! Content that was acknowledged is what is sent, or the operation fails: the real program, with
//! damage to the spool between `add` and `process`.
#![expect(clippy::disallowed_methods, reason = "damages files as a disk would")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::binary::{Place, names};

/// Flips a bit of each file in the spool, in place: links keep it.
fn damage_spool(place: &Place) {
    for path in spool(place).iter().filter(|path| path.extension().is_none()) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

fn spool(place: &Place) -> Vec<PathBuf> {
    let directory = place.log().join("spool");
    names(&directory).into_iter().map(|name| directory.join(name)).collect()
}

fn shown(place: &Place, number: u64) -> Value {
    place.json(&format!("show {number}"))["operation"].clone()
}

/// Returns the status and the error type of an operation.
fn ended(place: &Place, number: u64) -> (String, String) {
    let shown = shown(place, number);
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("error_type"))
}

fn failed(error_type: &str) -> (String, String) {
    ("failed".to_owned(), error_type.to_owned())
}

fn completed() -> (String, String) {
    ("completed".to_owned(), String::new())
}

#[test]
fn damaged_spool_content_is_not_completed() {
    let place = Place::new();
    place.file("program.sh", "touch \"$0.stored\"");
    let program = place.path("program.sh");
    place.settings(&format!(
        "retry_delay = 0\n[backends.custom]\ncommand = [\"/bin/sh\", \"{}\"]\n",
        program.display()
    ));
    place.file("file", &"content ".repeat(100_000));
    place.run("add --backend local file");
    place.run("submit upload file /names/file --backend local");
    place.run("add --backend custom file");
    damage_spool(&place);
    place.output("process");
    for number in 1..=3 {
        assert_eq!(ended(&place, number), failed("spool_damaged"), "{number}");
        assert_eq!(shown(&place, number)["result"], Value::Null);
    }
    assert!(!place.path("program.sh.stored").exists(), "the program was not started");
    let error = shown(&place, 1)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("is damaged: its content is not what was logged; add the file again"));
    // As the error says.
    place.run("add --backend local file --wait");
    assert_eq!(ended(&place, 4), completed());
}

#[test]
fn a_program_that_read_damaged_content_has_not_completed() {
    let place = Place::new();
    // The damage happens while it runs.
    let spool = place.log().join("spool");
    place.file(
        "program.sh",
        &format!("for f in {}/*; do printf Xontent >\"$f\"; done", spool.display()),
    );
    let program = place.path("program.sh");
    place.settings(&format!(
        "retry_delay = 0\n[backends.custom]\ncommand = [\"/bin/sh\", \"{}\"]\n",
        program.display()
    ));
    place.file("file", "content");
    place.run("add --backend custom file");
    place.output("process");
    assert_eq!(ended(&place, 1), failed("spool_damaged"));
    // One that consumes the copy has read it as it was.
    place.file("program.sh", &format!("rm {}/*", spool.display()));
    place.run("add --backend custom file");
    place.output("process");
    assert_eq!(ended(&place, 2), completed());
}

#[test]
fn equal_content_is_not_linked_to_a_damaged_copy() {
    let place = Place::new();
    place.file("file", "the content\n");
    place.run("add --backend local file");
    damage_spool(&place);
    place.run("add --backend local file");
    // The damaged file was replaced for those that follow.
    place.run("add --backend local file");
    place.output("process");
    assert_eq!(ended(&place, 1), failed("spool_damaged"));
    assert_eq!(ended(&place, 2), completed());
    assert_eq!(ended(&place, 3), completed());
    let cid = |number| shown(&place, number)["result"]["cid"].as_str().unwrap().to_owned();
    let fresh = Place::new();
    fresh.file("file", "the content\n");
    fresh.run("add --backend local file --spool never --wait");
    assert_eq!(cid(2), shown(&fresh, 1)["result"]["cid"]);
    assert_eq!(cid(2), cid(3));
}

#[test]
fn a_damaged_copy_is_not_redirected() {
    let place = Place::new();
    place.settings("[backends.custom]\ncommand = [\"/bin/true\"]\n");
    place.file("file", "the content\n");
    place.file("other", "other content\n");
    place.run("add --backend local file other");
    let kept: Vec<_> =
        spool(&place).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    damage_spool(&place);
    for (bytes, path) in kept.iter().filter(|(bytes, _)| bytes == b"other content\n") {
        fs::write(path, bytes).unwrap();
    }
    let refused = place.output("retry 1 2 --backend custom");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("its spooled copy is damaged; add the file again"), "{text}");
    assert_eq!((ended(&place, 1).0, ended(&place, 2).0), ("pending".into(), "pending".into()));
    place.run("retry 2 --backend custom");
    assert_eq!(shown(&place, 3)["redirected_from"], shown(&place, 2)["operation_id"]);
}

/// Rewrites a file without a trace but its ctime, as tools do that keep times.
fn rewrite_in_secret(path: &std::path::Path, content: &str) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    // File systems keep times in ticks of some milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(50));
    fs::write(path, content).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
}

#[test]
fn a_rewritten_reference_is_not_sent_though_its_mtime_is_kept() {
    let place = Place::new();
    let program = "[backends.custom]\ncommand = [\"/bin/true\"]\n";
    place.settings(&format!("retry_delay = 0\n{program}"));
    let file = place.file("file", "first\n");
    place.run("add --backend local --spool never file");
    place.run("submit upload file /names/file --backend local --spool never");
    place.run("add --backend custom --spool never file");
    rewrite_in_secret(&file, "other\n");
    place.output("process");
    for number in 1..=3 {
        assert_eq!(ended(&place, number), failed("source_changed"), "{number}");
    }
    let error = shown(&place, 1)["error"].as_str().unwrap().to_owned();
    assert!(error.ends_with("send it as it is now: `retry --accept-source`"), "{error}");
    // A plain retry does not accept it.
    place.run("retry 1");
    place.output("process");
    assert_eq!(ended(&place, 1), failed("source_changed"));
    place.run("retry 1 2 3 --accept-source");
    place.run("process");
    for number in 1..=3 {
        assert_eq!(ended(&place, number), completed(), "{number}");
    }
    place.run("submit get /names/file back --backend local --wait");
    assert_eq!(fs::read_to_string(place.path("back")).unwrap(), "other\n");
    // Also after the journal was folded into Parquet.
    place.run("checkpoint");
    let source = shown(&place, 1)["source"].clone();
    assert_eq!(source["size"], 6, "{source}");
    assert!(source["ctime_ns"].is_i64(), "{source}");
}

#[test]
fn the_hash_decides_if_only_the_ctime_of_a_file_changed() {
    let place = Place::new();
    let file = place.file("file", "the content\n");
    place.run("add --backend local file");
    place.run("add --backend local --spool never file");
    std::thread::sleep(std::time::Duration::from_millis(50));
    fs::hard_link(&file, place.path("link")).unwrap();
    place.output("process");
    assert_eq!(ended(&place, 1), completed(), "it has a copy with a hash");
    assert_eq!(ended(&place, 2), failed("source_changed"), "nothing shows that it is unchanged");
    place.run("retry 2 --accept-source");
    place.run("process");
    assert_eq!(ended(&place, 2), completed());
}

#[test]
fn a_damaged_copy_is_replaced_only_by_a_source_with_the_same_content() {
    let place = Place::new();
    place.file("same", "the content\n");
    place.file("other", "more content\n");
    place.run("add --backend local same other");
    damage_spool(&place);
    place.output("process");
    rewrite_in_secret(&place.path("other"), "more CONTENT\n");
    place.run("retry 1 2 --accept-source");
    place.output("process");
    assert_eq!(ended(&place, 1), completed());
    assert_eq!(ended(&place, 2), failed("source_changed"));
    let error = shown(&place, 2)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("its content is not what was logged"), "{error}");
    // Both damaged copies were given up.
    assert_eq!(spool(&place), Vec::<PathBuf>::new());
}
