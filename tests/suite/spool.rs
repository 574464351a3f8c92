//! The spool with the real program, on real file systems: XFS, which shares content, and a full
//! one.
#![expect(clippy::disallowed_methods, reason = "changes and removes files as other programs would")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::binary::{Place, names};
use super::tools::{Need, stdout_of};

/// Returns content that shares no block with that of another seed.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn write(path: &Path, seed: u64, len: usize) {
    fs::write(path, content(seed, len)).unwrap();
}

fn spool(log: &Path) -> Vec<String> {
    if log.join("spool").exists() { names(&log.join("spool")) } else { Vec::new() }
}

/// Returns the CID of a file that is added without a copy.
fn cid_of(file: &Path) -> String {
    let place = Place::new();
    let added = place.json(&format!("add --backend local --spool never --wait {}", file.display()));
    let cid = added["operations"][0]["result"]["cid"].as_str();
    cid.unwrap_or_else(|| panic!("{added}")).to_owned()
}

fn cid(place: &Place, number: u64) -> String {
    let shown = place.json(&format!("show {number}"));
    shown["operation"]["result"]["cid"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
}

pub fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn spooled_content_is_independent_of_its_source() {
    let place = Place::new();
    let (gone, overwritten) = (place.path("gone.bin"), place.path("overwritten.bin"));
    write(&gone, 1, 700_000);
    write(&overwritten, 2, 300_000);
    let expected = [cid_of(&gone), cid_of(&overwritten)];
    let added = place.json("add --backend local gone.bin overwritten.bin");
    assert_eq!(
        (&added["operations"][0]["spooled"], &added["operations"][1]["spooled"]),
        (&true.into(), &true.into())
    );
    fs::remove_file(&gone).unwrap();
    write(&overwritten, 3, 300_000);
    place.run("process");
    assert_eq!([cid(&place, 1), cid(&place, 2)], expected);
    assert!(spool(&place.log()).is_empty(), "{:?}", spool(&place.log()));
    assert!(names(&place.log().join("tmp")).is_empty());
}

#[test]
fn equal_content_is_stored_once() {
    let place = Place::new();
    write(&place.path("a"), 1, 5_000_000);
    fs::copy(place.path("a"), place.path("b")).unwrap();
    place.run("add --backend local a b");
    place.run("submit upload a /names/a --backend local");
    let spooled = spool(&place.log());
    assert_eq!(spooled.len(), 4, "{spooled:?}");
    let inodes: std::collections::BTreeSet<u64> = spooled
        .iter()
        .map(|name| fs::metadata(place.log().join("spool").join(name)).unwrap().ino())
        .collect();
    assert_eq!(inodes.len(), 1);
    let shown = place.json("show 1");
    let source = &shown["operation"]["source"];
    assert_eq!(source["sha256"], source["spool"]);
    let sum = stdout_of(Command::new("sha256sum").arg(place.path("a")));
    assert_eq!(source["sha256"].as_str(), sum.split_whitespace().next());
    fs::remove_file(place.path("a")).unwrap();
    // Operations complete one by one, and the others keep their content.
    for left in [3, 2, 0] {
        place.run("process --limit 1");
        assert_eq!(spool(&place.log()).len(), left);
    }
    place.run("submit download /names/a out --backend local --wait");
    assert_eq!(fs::read(place.path("out")).unwrap(), content(1, 5_000_000));
}

#[test]
fn the_mode_decides_what_is_copied() {
    let place = Place::new();
    write(&place.path("large"), 1, 200 << 20);
    write(&place.path("small"), 2, 1000);
    fs::create_dir(place.path("folder")).unwrap();
    let spooled = |arguments: &str| {
        let added = place.json(&format!("add --backend local {arguments}"));
        let all = added["operations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["spooled"].as_bool().unwrap());
        all.collect::<Vec<bool>>()
    };
    assert_eq!(spooled("small --spool never"), [false]);
    assert!(!place.log().join("spool").exists(), "created only when needed");
    place.run("config set spool_max_bytes 1MiB");
    // If this file system shares content, the size does not matter.
    let shares = spooled("large")[0];
    assert_eq!(spooled("small large folder"), [true, shares, false]);
    place.run("config set spool never");
    assert_eq!(spooled("small"), [false]);
    assert_eq!(spooled("small --spool auto"), [true]);
    assert_eq!(spooled("large --spool always"), [true]);
    let refused = place.output("--json add --backend local small folder --spool always");
    assert_eq!(refused.status.code(), Some(2));
    let bad = &document(&refused)["error"]["bad_inputs"];
    assert_eq!(
        (bad.as_array().unwrap().len(), bad[0]["error_type"].as_str()),
        (1, Some("is_directory"))
    );

    let expected = cid_of(&place.path("large"));
    let last = place.json("show @last")["operation"]["number"].as_u64().unwrap();
    // Operations that refer to the file fail; the one with a copy completes.
    fs::remove_file(place.path("large")).unwrap();
    place.output("process");
    assert_eq!(cid(&place, last), expected);
    assert!(spool(&place.log()).is_empty(), "{:?}", spool(&place.log()));
}

#[test]
fn a_failed_operation_keeps_its_content_until_it_is_retried() {
    let place = Place::new();
    write(&place.path("a"), 1, 100_000);
    place.run("submit mkdir /d --backend local --wait");
    place.run("submit upload a /d --backend local");
    fs::remove_file(place.path("a")).unwrap();
    assert_eq!(place.output("process").status.code(), Some(1));
    assert_eq!(place.json("show 2")["operation"]["error_type"], "destination_exists");
    place.run("checkpoint");
    assert_eq!(spool(&place.log()).len(), 2);
    place.run("submit rm /d --recursive --backend local --wait");
    place.run("retry 2");
    place.run("process");
    assert!(spool(&place.log()).is_empty());
    place.run("submit download /d out --backend local --wait");
    assert_eq!(fs::read(place.path("out")).unwrap(), content(1, 100_000));
}

#[test]
fn a_referenced_file_must_not_change() {
    let place = Place::new();
    let time = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    for (name, change) in [
        ("longer", &(|path: &Path| write(path, 2, 2000)) as &dyn Fn(&Path)),
        ("newer", &|path| write(path, 1, 1000)),
        ("another with the same content and time", &|path| {
            let new = path.with_extension("new");
            write(&new, 1, 1000);
            fs::File::options().write(true).open(&new).unwrap().set_times(time).unwrap();
            fs::rename(new, path).unwrap();
        }),
        ("gone", &|path| fs::remove_file(path).unwrap()),
        ("the same", &|_| {}),
    ] {
        let path = place.path("file");
        write(&path, 1, 1000);
        fs::File::options().write(true).open(&path).unwrap().set_times(time).unwrap();
        place.run("add --backend local --spool never file");
        change(&path);
        place.output("process");
        let shown = place.json("show @last");
        let operation = &shown["operation"];
        let seen = (
            operation["status"].as_str().unwrap(),
            operation["error_type"].as_str().unwrap_or("none"),
        );
        let expected = match name {
            "the same" => ("completed", "none"),
            "gone" => ("failed", "not_found"),
            _ => ("failed", "source_changed"),
        };
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn deleting_or_redirecting_frees_the_content() {
    let place = Place::new();
    write(&place.path("a"), 1, 100_000);
    let expected = cid_of(&place.path("a"));
    fs::create_dir(place.path("config")).unwrap();
    let settings = place.run("config path");
    fs::create_dir_all(Path::new(settings.trim()).parent().unwrap()).unwrap();
    fs::write(settings.trim(), "[backends.other]\ntype = \"local\"\n").unwrap();
    place.run("add --backend local a a");
    place.run("add --backend local --key k a");
    assert_eq!(spool(&place.log()).len(), 4);
    let again = place.json("add --backend local --key k a");
    assert_eq!(again["operations"][0]["number"], 3);
    assert_eq!(spool(&place.log()).len(), 4, "a repeated key needs no further copy");
    place.run("delete 1");
    assert_eq!(spool(&place.log()).len(), 3);
    fs::remove_file(place.path("a")).unwrap();
    place.run("retry 2 --backend other");
    assert_eq!(spool(&place.log()).len(), 3, "the new operation has a link, the old one none");
    place.run("checkpoint");
    assert_eq!(spool(&place.log()).len(), 3);
    place.run("process");
    assert_eq!([cid(&place, 3), cid(&place, 4)], [expected.clone(), expected]);
    assert!(spool(&place.log()).is_empty(), "{:?}", spool(&place.log()));
}

/// The next checkpoint removes the files that a killed `add` leaves behind.
#[test]
fn a_killed_add_leaves_nothing_for_long() {
    let place = Place::new();
    write(&place.path("large"), 1, 40 << 20);
    place.run("submit mkdir /d --backend local");
    for delay in [1, 3, 10, 30] {
        let mut child = place.start("add --backend local --spool always large");
        std::thread::sleep(std::time::Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.run("process");
    place.run("checkpoint");
    assert!(names(&place.log().join("tmp")).is_empty(), "{:?}", names(&place.log().join("tmp")));
    assert!(names(&place.log().join("quarantine")).is_empty());
}

/// A mounted file system, which is unmounted and removed when this is dropped.
pub struct Mount {
    pub place: Place,
}

impl Mount {
    fn new(mount: impl FnOnce(&Place, &Path)) -> Mount {
        Need::Root.check();
        let place = Place::new();
        let at = place.path("mounted");
        fs::create_dir(&at).unwrap();
        let mounted = Mount { place };
        mount(&mounted.place, &at);
        mounted
    }

    fn xfs(bytes: u64) -> Mount {
        Mount::new(|place, at| {
            let image = place.path("image");
            fs::File::create(&image).unwrap().set_len(bytes).unwrap();
            must(
                Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image),
                "mkfs.xfs (package xfsprogs)",
            );
            must(
                Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at),
                "root and loop devices",
            );
        })
    }

    pub fn tmpfs(size: &str) -> Mount {
        Mount::new(|_, at| {
            let options = format!("size={size}");
            must(
                Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at),
                "root",
            );
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path("mounted").join(name)
    }

    pub fn log(&self) -> PathBuf {
        self.path("wal")
    }

    /// Returns the program with its log on this file system, and its backend elsewhere.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = self.place.command(arguments);
        command
            .env("IPFS_KIT_WAL_PATH", self.log())
            .env("IPFS_KIT_WAL_BACKENDS_LOCAL_PATH", self.place.path("store"))
            .env("IPFS_KIT_WAL_DEFAULT_BACKEND", "local");
        command
    }

    pub fn output(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn json(&self, arguments: &str) -> Value {
        let output = self.output(&format!("--json {arguments}"));
        assert!(
            output.status.success(),
            "{arguments}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        document(&output)
    }

    fn cid(&self, number: u64) -> String {
        let shown = self.json(&format!("show {number}"));
        shown["operation"]["result"]["cid"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
    }

    /// Returns the free bytes.
    pub fn free(&self) -> u64 {
        let stat = stdout_of(Command::new("stat").args(["-f", "-c", "%f %S"]).arg(self.path("")));
        let numbers: Vec<u64> =
            stat.split_whitespace().map(|number| number.parse().unwrap()).collect();
        numbers[0] * numbers[1]
    }

    /// Returns the free bytes after everything has been flushed.
    fn free_synced(&self) -> u64 {
        must(Command::new("sync").arg("-f").arg(self.path("")), "sync");
        self.free()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Unmount in any case, also after a failed test.
        let unmounted =
            Command::new("umount").arg(self.place.path("mounted")).stderr(Stdio::null()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.place.path("mounted"))
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn must(command: &mut Command, needs: &str) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; this test needs {needs}"));
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {reported}; this test needs {needs}");
}

#[test]
fn a_copy_is_free_where_the_file_system_shares_content() {
    let disk = Mount::xfs(1 << 30);
    let (small, large) = (disk.path("small"), disk.path("large"));
    write(&small, 1, 48 << 20);
    write(&large, 2, 200 << 20);
    let expected = [cid_of(&small), cid_of(&large)];
    disk.json("submit mkdir /d");
    let before = disk.free_synced();
    let started = std::time::Instant::now();
    let added = disk.json("add mounted/large");
    let taken = started.elapsed();
    assert_eq!(
        added["operations"][0]["spooled"], true,
        "larger than spool_max_bytes, and yet in the spool"
    );
    let added = disk.json("add mounted/small");
    assert_eq!(added["operations"][0]["spooled"], true);
    let spent = before.saturating_sub(disk.free_synced());
    println!("{} MiB cloned in {taken:?}; both additions took {spent} bytes of the disk", 200);
    assert!(spent < 4 << 20, "{spent} bytes of 248 MiB");
    let source = |number: u64| disk.json(&format!("show {number}"))["operation"]["source"].clone();
    let (of_large, of_small) = (source(2), source(3));
    assert!(of_large["sha256"].is_null(), "the large file was not read");
    assert_eq!(of_large["spool"].as_str().unwrap().len(), 32);
    assert_eq!(of_small["sha256"], of_small["spool"]);
    // Written in place, which keeps the inode: reading the source would return the new content.
    write(&large, 3, 200 << 20);
    fs::remove_file(&small).unwrap();
    let processed = disk.output("process");
    assert!(processed.status.success(), "{}", String::from_utf8_lossy(&processed.stderr));
    assert_eq!([disk.cid(3), disk.cid(2)], expected);
    assert!(spool(&disk.log()).is_empty());
}

#[test]
fn a_full_disk_refuses_or_references_and_loses_nothing() {
    let disk = Mount::tmpfs("64m");
    let sources = disk.place.path("sources");
    fs::create_dir(&sources).unwrap();
    let run = |arguments: &str| {
        let mut command = disk.command(arguments);
        command.env("IPFS_KIT_WAL_MIN_FREE_BYTES", "16MiB").output().unwrap()
    };
    let mut expected = Vec::new();
    let mut add = |seed: u64, mode: &str| {
        let file = sources.join(seed.to_string());
        write(&file, seed, 6 << 20);
        let expect = cid_of(&file);
        let output = run(&format!("--json add --spool {mode} {}", file.display()));
        let reported = document(&output);
        if output.status.success() {
            expected.push(expect);
        }
        (
            output.status.code().unwrap(),
            reported,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let mut refused = None;
    for seed in 1..20 {
        let (code, reported, _) = add(seed, "always");
        if code != 0 {
            assert_eq!(
                (code, reported["error"]["type"].as_str()),
                (7, Some("no_space")),
                "{reported}"
            );
            refused = Some(seed);
            break;
        }
        assert_eq!(reported["operations"][0]["spooled"], true);
    }
    let accepted = refused.expect("the disk becomes full") - 1;
    assert!(accepted >= 5, "{accepted}");
    assert!(names(&disk.log().join("tmp")).is_empty());
    let (code, reported, warned) = add(30, "auto");
    assert_eq!((code, &reported["operations"][0]["spooled"]), (0, &false.into()), "{reported}");
    assert!(warned.contains("too little room"), "{warned}");
    // A spooled source may be removed; a referenced one may not.
    (1..=accepted).for_each(|seed| fs::remove_file(sources.join(seed.to_string())).unwrap());
    let full = disk.free();
    let processed = run("process");
    assert!(processed.status.success(), "{}", String::from_utf8_lossy(&processed.stderr));
    assert!(spool(&disk.log()).is_empty());
    assert!(disk.free() > full + ((accepted * 6 - 1) << 20), "the space is free again");
    let (code, reported, _) = add(31, "always");
    assert_eq!(
        (code, &reported["operations"][0]["spooled"]),
        (0, &true.into()),
        "the freed space is used again"
    );
    assert!(run("process").status.success());
    for (nth, cid) in expected.iter().enumerate() {
        assert_eq!(disk.cid(nth as u64 + 1), *cid);
    }
}

/// Several copies, each of which would fit alone, fill the disk together.
#[test]
fn a_disk_that_fills_up_while_copying_frees_the_copy() {
    let disk = Mount::tmpfs("48m");
    let sources: Vec<PathBuf> =
        (0..6).map(|seed| disk.place.path(&format!("source-{seed}"))).collect();
    sources.iter().enumerate().for_each(|(seed, path)| write(path, seed as u64, 12 << 20));
    let expected: Vec<String> = sources.iter().map(|path| cid_of(path)).collect();
    assert!(
        disk.output("submit mkdir /d").status.code() == Some(7),
        "less space is free than the settings require"
    );
    let run = |arguments: &str| {
        let mut command = disk.command(arguments);
        command
            .env("IPFS_KIT_WAL_MIN_FREE_BYTES", "1MiB")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    assert!(run("submit mkdir /d").wait().unwrap().success());
    let adds: Vec<_> = sources
        .iter()
        .map(|path| run(&format!("--json add --spool always {}", path.display())))
        .collect();
    let outputs: Vec<Output> =
        adds.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let codes: Vec<_> = outputs.iter().map(|output| output.status.code().unwrap()).collect();
    println!("{codes:?}");
    assert!(codes.contains(&7) && codes.iter().all(|code| [0, 7].contains(code)), "{codes:?}");
    for output in outputs.iter().filter(|output| !output.status.success()) {
        assert_eq!(document(output)["error"]["type"], "no_space");
    }
    assert!(names(&disk.log().join("tmp")).is_empty(), "{:?}", names(&disk.log().join("tmp")));
    assert!(run("process").wait().unwrap().success());
    let listed = disk.json("list --limit 0 --type add");
    let mut arrived: Vec<&str> = listed["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["result"]["cid"].as_str().unwrap())
        .collect();
    let accepted =
        expected.iter().zip(&codes).filter(|(_, code)| **code == 0).map(|(cid, _)| cid.as_str());
    let mut accepted: Vec<&str> = accepted.collect();
    arrived.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(arrived, accepted);
    assert!(spool(&disk.log()).is_empty());
}

/// Without a reserve, and with a disk full to the last byte, acknowledged operations exist.
#[test]
fn a_log_on_a_full_disk_keeps_what_it_acknowledged() {
    let disk = Mount::tmpfs("4m");
    fs::write(disk.place.path("a"), "hello world\n").unwrap();
    let run = |arguments: &str| {
        let mut command = disk.command(arguments);
        command
            .env("IPFS_KIT_WAL_MIN_FREE_BYTES", "0")
            .current_dir(disk.place.path(""))
            .output()
            .unwrap()
    };
    let mut acknowledged = Vec::new();
    let mut add = |mode: &str| {
        let output = run(&format!("--json add --spool {mode} a"));
        let reported = document(&output);
        if output.status.success() {
            acknowledged.push(reported["operation_id"].as_str().unwrap().to_owned());
        }
        output.status.code().unwrap()
    };
    assert_eq!(add("auto"), 0);
    // Uses all space except a few pages.
    let filler = vec![1; usize::try_from(disk.free()).unwrap() - 8 * 4096];
    fs::write(disk.path("filler"), filler).unwrap();
    let mut codes = std::collections::BTreeSet::new();
    for nth in 0..2000 {
        codes.insert(add(if nth % 2 == 0 { "never" } else { "auto" }));
        if codes.contains(&7) && nth % 10 == 9 {
            break;
        }
        let journal = fs::OpenOptions::new().append(true).create(true).open(disk.path("more"));
        // Another program uses the remaining space.
        let _ = journal.and_then(|mut file| std::io::Write::write_all(&mut file, &[1; 4096]));
    }
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [0, 7]);
    let listed = run("list --limit 0 -q");
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(
        listed.lines().count(),
        acknowledged.len(),
        "exactly the acknowledged operations exist"
    );
    for name in ["filler", "more"] {
        fs::remove_file(disk.path(name)).unwrap();
    }
    let processed = run("process");
    assert!(processed.status.success(), "{}", String::from_utf8_lossy(&processed.stderr));
    for id in &acknowledged {
        let shown = document(&run(&format!("--json show {id}")));
        assert_eq!(shown["operation"]["status"], "completed");
    }
    assert!(spool(&disk.log()).is_empty());
}
