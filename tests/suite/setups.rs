//! Initial states for commands: logs in every relevant condition.
#![expect(clippy::disallowed_methods, reason = "creates and damages files as other programs would")]

use std::fs::File;
use std::time::Duration;

use super::adoption;
use super::binary::Place;

/// Prepares an initial state. A returned file is kept open while the command runs.
pub type Setup = fn(&Place) -> Option<File>;

/// Two files, and no log.
pub fn nothing(place: &Place) -> Option<File> {
    place.file("a.txt", "hello world\n");
    place.file("b.txt", "b\n");
    None
}

/// The first file is logged.
pub fn one_pending(place: &Place) -> Option<File> {
    nothing(place);
    place.run("add --backend local a.txt");
    None
}

/// The first file is logged under a key.
pub fn one_with_a_key(place: &Place) -> Option<File> {
    nothing(place);
    place.run("add --backend local a.txt --key k");
    None
}

/// The first file is added and stored.
pub fn one_completed(place: &Place) -> Option<File> {
    nothing(place);
    place.run("add --backend local a.txt --wait");
    None
}

/// Both files are stored; the stored content of the first is missing.
pub fn one_missing(place: &Place) -> Option<File> {
    nothing(place);
    place.run("add --backend local a.txt b.txt --wait");
    let cid = place.json("show 1")["operation"]["result"]["cid"].as_str().unwrap().to_owned();
    let store = place.log().join("local/content");
    let shards = std::fs::read_dir(store).unwrap().map(|shard| shard.unwrap().path().join(&cid));
    let content: Vec<_> = shards.filter(|path| path.exists()).collect();
    assert_eq!(content.len(), 1);
    std::fs::remove_file(&content[0]).unwrap();
    None
}

/// As `one_missing`, and the source file is missing, too.
pub fn one_missing_with_its_source(place: &Place) -> Option<File> {
    one_missing(place);
    std::fs::remove_file(place.path("a.txt")).unwrap();
    None
}

/// The first file was added to a backend that is no longer configured.
pub fn one_of_an_unconfigured_backend(place: &Place) -> Option<File> {
    place.settings("[backends.old]\ntype = \"local\"\n");
    nothing(place);
    place.run("add --backend old a.txt --wait");
    place.settings("");
    None
}

/// The first operation failed, since its source file was removed; the second completed.
pub fn one_failed(place: &Place) -> Option<File> {
    nothing(place);
    place.run("add --spool never --backend local b.txt a.txt");
    std::fs::remove_file(place.path("b.txt")).unwrap();
    assert_eq!(place.output("process --quiet").status.code(), Some(1));
    place.file("b.txt", "b\n");
    None
}

/// The first file is logged, and its source file no longer exists.
pub fn one_will_fail(place: &Place) -> Option<File> {
    nothing(place);
    place.run("add --spool never --backend local a.txt");
    std::fs::remove_file(place.path("a.txt")).unwrap();
    None
}

/// The first file is logged, and held.
pub fn one_held(place: &Place) -> Option<File> {
    one_pending(place);
    place.run("hold 1");
    None
}

/// Both files are logged; the second waits for the first.
pub fn one_with_a_dependent(place: &Place) -> Option<File> {
    nothing(place);
    place.run("add --backend local --spool never a.txt");
    place.run("add --backend local b.txt --after 1");
    None
}

/// The first operation failed, and the second, which depends on it, failed with it.
pub fn chain_failed(place: &Place) -> Option<File> {
    one_with_a_dependent(place);
    std::fs::remove_file(place.path("a.txt")).unwrap();
    assert_eq!(place.output("process --quiet").status.code(), Some(1));
    place.file("a.txt", "hello world\n");
    None
}

/// The first operation was cancelled before it ran.
pub fn one_cancelled(place: &Place) -> Option<File> {
    one_pending(place);
    place.run("cancel 1");
    None
}

/// The first operation failed once, and waits for its next attempt.
pub fn one_retrying(place: &Place) -> Option<File> {
    configured(place, "[backends.mock]\nfailure_rate = 1.0\n");
    place.run("add --backend mock b.txt");
    place.run("process");
    None
}

/// The first operation was redirected to another backend, as the second.
pub fn one_redirected(place: &Place) -> Option<File> {
    one_pending(place);
    place.run("retry 1 --backend mock");
    None
}

/// A drain loop died while it executed the second operation; the first is completed.
pub fn one_left_claimed(place: &Place) -> Option<File> {
    configured(place, "[backends.mock]\nlatency_ms = 600000\n");
    place.run("add --backend mock b.txt");
    let mut child = place.start("process");
    let begun = std::time::Instant::now();
    while place.run("list processing -q --backend mock").is_empty()
        || !place.run("list pending -q").is_empty()
    {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "nothing was claimed");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// As `one_left_claimed`, and the operation was asked to stop.
pub fn one_asked_to_stop(place: &Place) -> Option<File> {
    one_left_claimed(place);
    place.run("cancel 2");
    None
}

pub fn locked(place: &Place, name: &str) -> Option<File> {
    one_pending(place);
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(place.log().join(name))
        .unwrap();
    lock.lock().unwrap();
    Some(lock)
}

pub fn log_locked(place: &Place) -> Option<File> {
    locked(place, "lock")
}

pub fn drain_locked(place: &Place) -> Option<File> {
    locked(place, "process.lock")
}

/// A list of more paths than fit in a frame.
pub fn long_list(place: &Place) -> Option<File> {
    nothing(place);
    place.file("list", &"a.txt\n".repeat(1001));
    None
}

pub fn long_list_full_disk(place: &Place) -> Option<File> {
    long_list(place);
    full_disk(place)
}

pub fn long_list_checkpoint_locked(place: &Place) -> Option<File> {
    long_list(place);
    checkpoint_locked(place)
}

/// A valid line, a missing path, a line that is not JSON.
pub fn lists_with_bad_lines(place: &Place) -> Option<File> {
    nothing(place);
    place.file("list", "a.txt\nno.txt\n");
    let good = r#"{"operation_type":"mkdir","parameters":{"path":"/d"}}"#;
    place.file("good.ndjson", good);
    place.file("ops.ndjson", &format!("{good}\n{{\n"));
    None
}

pub fn checkpoint_locked(place: &Place) -> Option<File> {
    locked(place, "checkpoint.lock")
}

/// The first operation is in a partition, the second in a frame that is damaged.
pub fn damaged(place: &Place) -> Option<File> {
    one_completed(place);
    damage(place)
}

/// As `damaged`, but the first operation has failed.
pub fn damaged_with_a_failure(place: &Place) -> Option<File> {
    one_failed(place);
    damage(place)
}

pub fn damage(place: &Place) -> Option<File> {
    place.run("checkpoint");
    place.run("add --backend local a.txt");
    place.run("add --backend local b.txt");
    let journal = place.log().join("journal");
    let path =
        std::fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[150] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
    None
}

/// As `damaged`, while a drain loop seems to run.
pub fn damaged_and_draining(place: &Place) -> Option<File> {
    damaged(place);
    let path = place.log().join("process.lock");
    let lock =
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    lock.lock().unwrap();
    Some(lock)
}

pub fn newer_format(place: &Place) -> Option<File> {
    one_pending(place);
    let path = place.log().join("MANIFEST.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("{\"format\":1,", "{\"format\":99,");
    std::fs::write(path, text).unwrap();
    None
}

pub fn configured(place: &Place, text: &str) -> Option<File> {
    one_pending(place);
    place.settings(text);
    None
}

pub fn full_disk(place: &Place) -> Option<File> {
    // No disk has this much free space: this simulates a full disk without root.
    configured(place, "min_free_bytes = \"900 TiB\"\n")
}

pub fn logging_disabled(place: &Place) -> Option<File> {
    configured(place, "enabled = false\n")
}

/// Two files, no log, and settings that require one.
pub fn log_not_mounted(place: &Place) -> Option<File> {
    nothing(place);
    place.settings("must_exist = true\n");
    None
}

pub fn invalid_settings(place: &Place) -> Option<File> {
    configured(place, "job = 4\n")
}

/// A settings file that is not valid TOML.
pub fn unparsable_settings(place: &Place) -> Option<File> {
    configured(place, "jobs = [\n")
}

pub fn mock_offline(place: &Place) -> Option<File> {
    configured(place, "[backends.mock]\noffline = true\n")
}

/// No process listens at the address of the node.
pub fn kubo_unreachable(place: &Place) -> Option<File> {
    configured(place, "[backends.ipfs]\nendpoint = \"http://127.0.0.1:1/api/v0\"\n")
}

/// A directory that the original system last changed some time ago.
pub fn original(place: &Place) -> Option<File> {
    nothing(place);
    adoption::put(place, "mixed", Duration::from_secs(3600));
    None
}

/// Archives of past days.
pub fn past_archives(place: &Place) -> Option<File> {
    original(place);
    place.run("checkpoint");
    None
}

/// Archives of past days, whose pushes are logged.
pub fn past_archives_pushed(place: &Place) -> Option<File> {
    past_archives(place);
    place.run("archive push /h --backend local --host web1");
    None
}

/// Archives of past days, and a file with the name of their destination.
pub fn past_archives_in_the_way(place: &Place) -> Option<File> {
    past_archives(place);
    place.run("submit upload a.txt /h --backend local --wait");
    None
}

/// Archives of past days; a drain loop seems to run, and executes nothing.
pub fn past_archives_drain_locked(place: &Place) -> Option<File> {
    past_archives(place);
    drain_locked(place)
}

/// A directory that the original system changed a moment ago.
pub fn original_at_work(place: &Place) -> Option<File> {
    nothing(place);
    adoption::put(place, "mixed", Duration::from_secs(1));
    None
}

pub fn log_in_a_file(place: &Place) -> Option<File> {
    nothing(place);
    std::fs::write(place.log(), "").unwrap();
    None
}
