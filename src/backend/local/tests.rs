use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::parameters::{ParameterError, TYPES, check};
use crate::clock::ManualClock;
use crate::disk::{Access, FileKind, Machine, MemoryDisk, OsDisk};
use crate::operation::{
    BackendName, FailureClass, Fields, Number, OperationId, OperationType, Source, Time,
};

const DAY: i64 = 86_400_000;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Time::from_millis(20_000 * DAY), 1))
}

fn backend(disk: Arc<dyn Disk>, root: &Path) -> Arc<LocalBackend> {
    Arc::new(LocalBackend::new(disk, clock(), root.to_owned(), Options::default()))
}

fn on_memory(machine: &Machine) -> (Bench, MemoryDisk) {
    let disk = machine.process();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    shared.create_dir_all_synced(Path::new("/home")).unwrap();
    (
        Bench {
            backend: backend(shared.clone(), Path::new("/var/store")),
            disk: shared,
            home: "/home".into(),
        },
        disk,
    )
}

fn on_disk() -> (Bench, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let home = directory.path().join("home");
    disk.create_dir(&home).unwrap();
    (
        Bench { backend: backend(disk.clone(), &directory.path().join("deep/store")), disk, home },
        directory,
    )
}

/// A store, and the disk with the files of its user.
struct Bench {
    backend: Arc<dyn Backend>,
    disk: Arc<dyn Disk>,
    /// An empty directory for the user's files.
    home: PathBuf,
}

/// Returns a request with a new id.
fn request(operation_type: &str, parameters: &[(&str, &str)]) -> Request {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let parameters: Fields =
        parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Request {
        id: OperationId::new(
            Time::from_millis(0),
            0,
            (NEXT.fetch_add(1, Ordering::Relaxed) as u128) << 64 | 1 << 100,
        ),
        number: Number::new(1),
        operation_type: OperationType::new(operation_type).unwrap(),
        backend: BackendName::new("tested").unwrap(),
        parameters,
        source: None,
        content: None,
    }
}

impl Bench {
    fn path(&self, name: &str) -> String {
        self.home.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        self.disk.create_dir_all_synced(Path::new(&path).parent().unwrap()).unwrap();
        self.disk
            .open(Path::new(&path), Access::OpenOrCreate)
            .unwrap()
            .write_at(content, 0)
            .unwrap();
        path
    }

    fn read(&self, name: &str) -> Vec<u8> {
        self.disk.read(&self.home.join(name)).unwrap()
    }

    fn exists(&self, name: &str) -> bool {
        self.disk.symlink_metadata(&self.home.join(name)).is_ok()
    }

    fn source(&self, path: &str) -> Source {
        let metadata = self.disk.metadata(Path::new(path)).unwrap();
        Source {
            size: metadata.len,
            mtime_ns: metadata.mtime_ns,
            inode: metadata.inode,
            ctime_ns: Some(metadata.ctime_ns),
            sha256: None,
            spool: None,
        }
    }

    fn run(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Result<Outcome> {
        self.backend.execute(&request(operation_type, parameters), &Attempt::default())
    }

    fn ok(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Outcome {
        self.run(operation_type, parameters)
            .unwrap_or_else(|error| panic!("{operation_type} {parameters:?} failed: {error:?}"))
    }

    /// Runs an operation that must fail permanently, with a real message. Returns its `error_type`.
    fn refused(&self, operation_type: &str, parameters: &[(&str, &str)]) -> String {
        match self.run(operation_type, parameters) {
            Err(AttemptError::Failed { failure, .. }) => {
                assert_eq!(failure.class, FailureClass::Permanent, "{failure:?}");
                assert!(failure.message.len() > 20, "{failure:?}");
                failure.error_type
            }
            other => panic!("{operation_type} {parameters:?} gave {other:?}"),
        }
    }

    fn query(&self, operation_type: &str, parameters: &[(&str, &str)]) -> AttemptStatus {
        self.backend.query_attempt(&request(operation_type, parameters)).unwrap()
    }

    /// Returns the staging files in the user's directory.
    fn staging_files(&self) -> Vec<String> {
        let names = self
            .disk
            .list(&self.home)
            .unwrap()
            .into_iter()
            .map(|entry| entry.name.into_string().unwrap());
        names.filter(|name| name.starts_with(".wal-cli")).collect()
    }
}

/// Returns all files below a directory.
fn files(disk: &dyn Disk, directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in disk.list(directory).unwrap() {
        let path = directory.join(entry.name);
        match entry.kind {
            FileKind::Directory => found.extend(files(disk, &path)),
            _ => found.push(path),
        }
    }
    found.sort();
    found
}

const HELLO_CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

#[test]
fn content_is_removed_only_if_no_pin_protects_it() {
    let (bench, _) = on_memory(&Machine::new());
    let absent = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
    assert_eq!(
        bench.refused("get", &[("cid", absent), ("destination", &bench.path("x"))]),
        "not_found"
    );
    assert_eq!(bench.refused("rm", &[("cid", absent)]), "not_found");

    bench.ok("add", &[("path", &bench.write("hello.txt", b"hello world\n"))]);
    bench.ok("pin", &[("cid", HELLO_CID)]);
    assert_eq!(bench.refused("rm", &[("cid", HELLO_CID)]), "pinned");
    bench.ok("unpin", &[("cid", HELLO_CID)]);
    assert_eq!(bench.query("rm", &[("cid", HELLO_CID)]), AttemptStatus::NotDone);
    bench.ok("rm", &[("cid", HELLO_CID)]);
    assert!(matches!(bench.query("rm", &[("cid", HELLO_CID)]), AttemptStatus::Done(_)));
    assert_eq!(bench.refused("pin", &[("cid", HELLO_CID)]), "not_found");
    assert_eq!(
        bench.refused("cat", &[("cid", HELLO_CID), ("destination", &bench.path("x"))]),
        "not_found"
    );
}

#[test]
fn a_pin_protects_the_entries_of_a_directory() {
    let (bench, _) = on_memory(&Machine::new());
    bench.write("top/hello.txt", b"hello world\n");
    let cid = bench.ok("add", &[("path", &bench.path("top")), ("recursive", "true")]).cid.unwrap();
    bench.ok("pin", &[("cid", &cid)]);
    assert_eq!(bench.refused("rm", &[("cid", HELLO_CID)]), "pinned");
    assert_eq!(bench.refused("rm", &[("cid", &cid), ("recursive", "true")]), "pinned");
    bench.ok("unpin", &[("cid", &cid)]);
    bench.ok("rm", &[("cid", &cid), ("recursive", "true")]);
    assert_eq!(
        bench.refused("get", &[("cid", HELLO_CID), ("destination", &bench.path("x"))]),
        "not_found"
    );
}

#[test]
fn a_spooled_copy_is_read_instead_of_its_changed_source() {
    let (bench, _) = on_memory(&Machine::new());
    let path = bench.write("changing", b"one");
    let mut add = request("add", &[("path", &path)]);
    add.source = Some(bench.source(&path));
    let one = bench.backend.execute(&add, &Attempt::default()).unwrap();
    bench.write("changing", b"two, and longer");
    let refused = |add: &Request| match bench.backend.execute(add, &Attempt::default()) {
        Err(AttemptError::Failed { failure, .. }) => (failure.class, failure.error_type),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&add), (FailureClass::Permanent, "source_changed".into()));
    add.content = Some(bench.write("copy.of.changing", b"one").into());
    for path in ["changing", "no longer exists"] {
        add.parameters.insert("path".into(), bench.path(path));
        assert_eq!(bench.backend.execute(&add, &Attempt::default()), Ok(one.clone()));
        let mut upload =
            Request { operation_type: OperationType::new("upload").unwrap(), ..add.clone() };
        upload.parameters.insert("destination".into(), "/named".into());
        assert_eq!(bench.backend.execute(&upload, &Attempt::default()).unwrap().cid, one.cid);
        bench.ok("rm", &[("path", "/named")]);
    }
    bench.write("copy.of.changing", b"of another size");
    assert_eq!(refused(&add), (FailureClass::Permanent, "spool_damaged".into()));
    add.content = Some(bench.path("no copy").into());
    assert_eq!(refused(&add), (FailureClass::Permanent, "not_found".into()));
}

#[test]
fn no_staging_files_are_left() {
    let (bench, directory) = on_disk();
    let hello = bench.write("hello.txt", b"hello world\n");
    bench.ok("upload", &[("path", &hello), ("destination", "/a/b/hello.txt")]);
    bench.ok("add", &[("path", &hello)]);
    bench.ok("get", &[("cid", HELLO_CID), ("destination", &bench.path("back"))]);
    let attempt = Attempt::default();
    attempt.cancel();
    let get = request("get", &[("cid", HELLO_CID), ("destination", &bench.path("stopped"))]);
    assert_eq!(bench.backend.execute(&get, &attempt), Err(AttemptError::Stopped));
    assert!(!bench.exists("stopped"));
    assert_eq!(bench.staging_files(), Vec::<String>::new());
    assert!(bench.disk.list(&directory.path().join("deep/store/tmp")).unwrap().is_empty());
}

#[test]
fn invalid_parameters_are_refused_before_logging() {
    let fields = |pairs: &[(&str, &str)]| -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    const CID: &str = HELLO_CID;
    for (operation_type, parameters, expected) in [
        ("add", &[][..], "`path`"),
        ("add", &[("path", "/a"), ("recursive", "yes")], "recursive"),
        ("add", &[("path", "/a"), ("chunk_size", "x")], "chunk_size"),
        ("upload", &[("path", "/a")], "`destination`"),
        ("upload", &[("path", "/a"), ("destination", "../x")], "`..`"),
        ("get", &[("destination", "/a")], "`cid` or `source`"),
        ("get", &[("cid", CID)], "`destination`"),
        ("get", &[("cid", "Qm"), ("destination", "/a")], "not a valid CID"),
        ("cat", &[("source", "name"), ("destination", "/a")], "starts with `/`"),
        ("pin", &[("cid", "nonsense")], "not a valid CID"),
        ("rm", &[], "`cid` or `path`"),
        ("rm", &[("path", "/")], "tree itself"),
        ("rm", &[("path", "/a"), ("cid", CID)], "not both"),
        ("move", &[("source", "/a")], "`destination`"),
        ("mkdir", &[("path", "/a\0b")], "zero byte"),
        ("dance", &[], "dance"),
    ] {
        let ParameterError { message, .. } =
            check(operation_type, &fields(parameters)).unwrap_err();
        assert!(message.contains(expected), "{operation_type} {parameters:?}: {message}");
    }
    let bench = on_disk().0;
    let takes =
        |name: &str| bench.backend.operation_types().contains(&OperationType::new(name).unwrap());
    assert!(TYPES.iter().all(|name| takes(name)) && !takes("dance"));
    assert_eq!(check("list", &fields(&[])), Ok(()));
    assert_eq!(check("download", &fields(&[("source", "name"), ("destination", "/a")])), Ok(()));
    assert_eq!(
        check("get", &fields(&[("source", &format!("ipfs://{CID}/x")), ("destination", "/a")])),
        Ok(())
    );
}

#[test]
fn content_is_stored_unchanged_with_a_layout_only_if_needed() {
    let (bench, _) = on_memory(&Machine::new());
    let path = bench.write("f", &[1; 3000]);
    let cid = bench.ok("add", &[("path", &path)]).cid.unwrap();
    let shard = &cid[cid.len() - 3..cid.len() - 1];
    let place = format!("/var/store/content/{shard}/{cid}");
    assert_eq!(files(&*bench.disk, Path::new("/var/store/content")), [PathBuf::from(&place)]);
    assert_eq!(bench.disk.read(Path::new(&place)).unwrap(), [1; 3000]);

    // It is found by the other version of the CID as well.
    let other = store::forms(&place.rsplit('/').next().unwrap().try_into().unwrap())
        .nth(1)
        .unwrap()
        .to_string();
    assert!(other.starts_with("bafybei"));
    bench.ok("get", &[("cid", &other), ("destination", &bench.path("out"))]);
    assert_eq!(bench.read("out"), [1; 3000]);

    for (index, parameters) in [
        &[("chunk_size", "1024")][..],
        &[("chunk_size", "1000"), ("max_links", "2")],
        &[("raw_leaves", "true"), ("chunk_size", "1024")],
        &[("cid_version", "1"), ("raw_leaves", "false")],
        &[("cid_version", "1"), ("chunk_size", "100"), ("max_links", "3")],
        &[("cid_version", "1")],
        &[("raw_leaves", "true")],
    ]
    .into_iter()
    .enumerate()
    {
        let cid = bench.ok("add", &[parameters, &[("path", &path)]].concat()).cid.unwrap();
        // Verifying the content requires its layout.
        let out = format!("out{index}");
        bench.ok("get", &[("cid", &cid), ("destination", &bench.path(&out))]);
        assert_eq!(bench.read(&out), [1; 3000]);
    }
    // The last two are the same raw block, which needs no layout.
    let layouts = files(&*bench.disk, Path::new("/var/store/content"));
    assert_eq!(layouts.iter().filter(|path| path.extension().is_some()).count(), 5, "{layouts:?}");
}

#[test]
fn damaged_content_is_never_returned() {
    let machine = Machine::new();
    let (bench, _) = on_memory(&machine);
    bench.write("d/file", &[5; 300_000]);
    let directory =
        bench.ok("add", &[("path", &bench.path("d")), ("recursive", "true")]).cid.unwrap();
    let cid = bench.ok("add", &[("path", &bench.path("d/file"))]).cid.unwrap();
    for place in files(&*bench.disk, Path::new("/var/store/content")) {
        machine.corrupt(&place, |bytes| *bytes.last_mut().unwrap() ^= 1);
    }
    for cid in [&cid, &directory] {
        let get = [("cid", &cid[..]), ("destination", &bench.path("out")[..])];
        assert_eq!(bench.refused("get", &get), "damaged_content");
        assert!(!bench.exists("out"));
    }
    assert!(bench.staging_files().is_empty());
    // The next step that the message names.
    bench.ok("rm", &[("cid", &cid)]);
    bench.ok("add", &[("path", &bench.path("d/file"))]);
    bench.ok("get", &[("cid", &cid), ("destination", &bench.path("out"))]);
    // Content of another length is repaired by adding it again.
    let place = files(&*bench.disk, Path::new("/var/store/content"))
        .into_iter()
        .find(|path| path.ends_with(&cid));
    machine.corrupt(&place.unwrap(), |bytes| bytes.truncate(10));
    bench.ok("add", &[("path", &bench.path("d/file"))]);
    bench.ok("get", &[("cid", &cid), ("destination", &bench.path("out"))]);
}

#[test]
fn removing_a_tree_keeps_content_of_other_trees() {
    let (bench, _) = on_memory(&Machine::new());
    bench.write("a/shared/one", b"one");
    bench.write("a/two", b"two");
    bench.write("a/pinned", b"pinned");
    bench.write("b/shared/one", b"one");
    let add = |name: &str| {
        bench.ok("add", &[("path", &bench.path(name)), ("recursive", "true")]).cid.unwrap()
    };
    let (a, b, two, pinned) = (add("a"), add("b"), add("a/two"), add("a/pinned"));
    bench.ok("pin", &[("cid", &pinned)]);
    bench.ok("rm", &[("cid", &a), ("recursive", "true")]);
    let get = |cid: &str| bench.run("get", &[("cid", cid), ("destination", &bench.path("out"))]);
    assert!(get(&a).is_err() && get(&two).is_err());
    assert!(get(&pinned).is_ok());
    bench.disk.remove_file(Path::new("/home/out")).unwrap();
    get(&b).unwrap();
    assert_eq!(bench.read("out/shared/one"), b"one");
}

#[test]
fn links_are_stored_and_never_followed_out_of_the_tree() {
    let (bench, directory) = on_disk();
    bench.write("secret/key", b"secret");
    bench.write("t/file", b"file");
    bench.disk.symlink(Path::new("../secret"), Path::new(&bench.path("t/link"))).unwrap();
    bench.disk.symlink(Path::new("t/file"), Path::new(&bench.path("to file"))).unwrap();
    let cid = bench.ok("add", &[("path", &bench.path("t")), ("recursive", "true")]).cid.unwrap();
    bench.ok("get", &[("cid", &cid), ("destination", &bench.path("out"))]);
    assert_eq!(
        bench.disk.read_link(Path::new(&bench.path("out/link"))).unwrap(),
        Path::new("../secret")
    );
    let listing = bench.ok("list", &[("cid", &cid)]).receipt["listing"].clone();
    assert!(listing.contains("../secret"), "{listing}");
    // Given as the path itself, a link is followed.
    assert_eq!(bench.ok("add", &[("path", &bench.path("to file"))]).size, Some(4));

    bench.ok("upload", &[("path", &bench.path("t")), ("destination", "/t"), ("recursive", "true")]);
    let key = bench.write("my key", b"mine");
    assert_eq!(
        bench.refused("upload", &[("path", &key), ("destination", "/t/link/key")]),
        "bad_path"
    );
    assert_eq!(bench.refused("rm", &[("path", "/t/link/key")]), "bad_path");
    let out = bench.path("stolen");
    assert_eq!(
        bench.refused("download", &[("source", "/t/link/key"), ("destination", &out)]),
        "bad_path"
    );
    bench.ok("rm", &[("path", "/t"), ("recursive", "true")]);
    assert_eq!(bench.read("secret/key"), b"secret");

    let pipe = bench.path("t/pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    assert_eq!(bench.refused("add", &[("path", &pipe)]), "unsupported_file");
    assert_eq!(
        bench.refused("add", &[("path", &bench.path("t")), ("recursive", "true")]),
        "unsupported_file"
    );
    drop(directory);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let (bench, disk) = on_memory(&Machine::new());
    let path = bench.write("f", &[1; 2 << 20]);
    let meddled = &path[..];
    std::thread::scope(|scope| {
        // Another thread writes while the attempts run.
        let (done, wait) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let file = disk.open(Path::new(meddled), Access::Write).unwrap();
            while wait.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                file.write_at(b"x", 0).unwrap();
            }
        });
        let changed = (0..100).any(|_| {
            matches!(bench.run("add", &[("path", &path)]),
                Err(AttemptError::Failed { failure, .. }) if failure.error_type == "source_changed")
        });
        done.send(()).unwrap();
        assert!(changed);
    });
}

#[test]
fn large_listings_need_a_destination() {
    let (bench, _) = on_memory(&Machine::new());
    for i in 0..1500 {
        bench.write(&format!("many/{i:050}"), b"");
    }
    let cid = bench.ok("add", &[("path", &bench.path("many")), ("recursive", "true")]).cid.unwrap();
    assert_eq!(bench.refused("list", &[("cid", &cid)]), "listing_too_large");
    let outcome = bench.ok("list", &[("cid", &cid), ("destination", &bench.path("all"))]);
    assert_eq!(outcome.receipt["entries"], "1500");
    let text = String::from_utf8(bench.read("all")).unwrap();
    assert_eq!(text.lines().count(), 1500);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    bench.ok("pin", &[("cid", &cid)]);
    let all = bench.ok("list", &[]).receipt["listing"].clone();
    assert_eq!(all.lines().count(), 2, "the directory and the one empty file: {all}");
    assert!(all.contains("\"pinned\":true") && all.contains("\"pinned\":false"));
}

#[test]
fn only_staging_files_of_dead_processes_are_swept() {
    let machine = Machine::new();
    let (bench, disk) = on_memory(&machine);
    bench.backend.health().unwrap();
    let (dying, living) = (machine.process(), machine.process());
    let leave = |process: &MemoryDisk| {
        let identity = process.identity();
        let path = format!("/var/store/tmp/{}-{}-0-0", identity.pid, identity.started);
        process.create_dir(Path::new(&path)).unwrap();
        process.open(&Path::new(&path).join("file"), Access::CreateNew).unwrap();
    };
    leave(&dying);
    leave(&living);
    dying.kill();
    bench.backend.health().unwrap();
    let left = disk.list(Path::new("/var/store/tmp")).unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].name.to_str().unwrap().starts_with(&living.identity().pid.to_string()));
}

/// Returns the requests of the script. None of their effects may be lost.
fn script(bench: &Bench) -> Vec<Request> {
    let path = |name: &str| bench.path(name);
    vec![
        request("add", &[("path", &path("f"))]),
        request("add", &[("path", &path("t")), ("recursive", "true"), ("chunk_size", "1000")]),
        request("pin", &[("cid", DIRECTORY)]),
        request("upload", &[("path", &path("t")), ("destination", "/x/t"), ("recursive", "true")]),
        request("copy", &[("source", "/x/t"), ("destination", "/y")]),
        request("move", &[("source", "/x/t/sub"), ("destination", "/z/sub")]),
        request("mkdir", &[("path", "/m/n")]),
        request("rm", &[("path", "/x"), ("recursive", "true")]),
        request("get", &[("cid", DIRECTORY), ("destination", &path("out"))]),
        request("unpin", &[("cid", DIRECTORY)]),
        request("rm", &[("cid", FILE)]),
    ]
}

const FILE: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
/// The CID of `t` with chunks of 1000 bytes.
const DIRECTORY: &str = "QmX3JRmoqPVXFapnVgvEXKTJ6g6VTirAgLckpJuCT18wtq";

fn prepare(bench: &Bench) {
    bench.write("f", b"hello world\n");
    bench.write("t/large", &[3; 5000]);
    bench.write("t/sub/small", b"small");
    bench.disk.symlink(Path::new("large"), Path::new(&bench.path("t/link"))).unwrap();
    for name in ["f", "t/large", "t/sub/small"] {
        bench.disk.open(Path::new(&bench.path(name)), Access::Read).unwrap().sync_all().unwrap();
    }
    for name in ["", "t", "t/sub"] {
        bench.disk.sync_dir(Path::new(&bench.path(name))).unwrap();
    }
}

/// Asserts the state after the whole script.
fn assert_done(bench: &Bench) {
    let listing =
        |parameters: &[(&str, &str)]| bench.ok("list", parameters).receipt["listing"].clone();
    let cids = listing(&[]);
    assert!(!cids.contains(FILE) && cids.contains(DIRECTORY), "{cids}");
    assert!(!cids.contains("\"pinned\":true"), "{cids}");
    bench.ok("get", &[("cid", DIRECTORY), ("destination", &bench.path("check"))]);
    for place in ["check", "out"] {
        assert_eq!(bench.read(&format!("{place}/large")), [3; 5000]);
        assert_eq!(bench.read(&format!("{place}/sub/small")), b"small");
    }
    let store = files(&*bench.disk, Path::new("/var/store/files"));
    let store: Vec<&str> = store.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        store,
        ["y/large", "y/link", "y/sub/small", "z/sub/small"]
            .map(|name| format!("/var/store/files/{name}"))
    );
    assert_eq!(bench.disk.read(Path::new("/var/store/files/z/sub/small")).unwrap(), b"small");
    assert!(bench.disk.exists(Path::new("/var/store/files/m/n")).unwrap());
}

/// Kills the process, or cuts the power, at each disk operation of the script, continues as a drain
/// loop would, and finds the same state as without the interruption.
#[test]
fn nothing_is_lost_by_a_kill_or_a_power_cut_at_any_point() {
    let mut at = 0;
    let mut finished = false;
    while !finished {
        for power_cut in [false, true] {
            let machine = Machine::new();
            let (mut bench, mut disk) = on_memory(&machine);
            prepare(&bench);
            let requests = script(&bench);
            disk.kill_after(at);
            let mut chance = fastrand::Rng::with_seed(at);
            let mut killed = false;
            for request in &requests {
                if !killed {
                    let result = bench.backend.execute(request, &Attempt::default());
                    if result.is_ok() {
                        continue;
                    }
                    assert!(
                        disk.symlink_metadata(Path::new("/")).is_err(),
                        "{at} {request:?} {result:?}"
                    );
                    killed = true;
                    if power_cut {
                        machine.power_cut(|| chance.bool());
                    }
                    (bench, disk) = on_memory(&machine);
                    match bench.backend.query_attempt(request).unwrap() {
                        AttemptStatus::Done(_) => continue,
                        AttemptStatus::NotDone => {}
                        other @ (AttemptStatus::Unknown(_) | AttemptStatus::StillRunning(_)) => {
                            panic!("{at} {request:?} {other:?}")
                        }
                    }
                }
                let result = bench.backend.execute(request, &Attempt::default());
                assert!(result.is_ok(), "{at} {power_cut} {request:?} {result:?}");
            }
            // Operations reported as done survive the loss of everything that was not synced.
            machine.power_cut(|| false);
            let (bench, _) = on_memory(&machine);
            assert_done(&bench);
            assert!(bench.staging_files().is_empty(), "{at} {:?}", bench.staging_files());
            bench.backend.health().unwrap();
            assert!(bench.disk.list(Path::new("/var/store/tmp")).unwrap().is_empty(), "{at}");
            finished = !killed;
        }
        at += 1;
    }
    assert!(at > 200, "only {at} operations");
}

#[test]
fn a_full_disk_is_a_transient_failure_without_traces() {
    for at in 0..40 {
        let machine = Machine::new();
        let (bench, disk) = on_memory(&machine);
        prepare(&bench);
        disk.fail_after(at, ErrorKind::StorageFull, true);
        let add = [("path", &bench.path("t")[..]), ("recursive", "true"), ("chunk_size", "1000")];
        match bench.run("add", &add) {
            Err(AttemptError::Failed { failure, .. }) => {
                assert_eq!(
                    (failure.class, &failure.error_type[..]),
                    (FailureClass::Transient, "disk_full")
                );
                let failure = bench.backend.health().unwrap_err();
                assert_eq!(
                    (failure.class, &failure.error_type[..]),
                    (FailureClass::Outage, "disk_full")
                );
                assert!(failure.message.contains("free some space"), "{}", failure.message);
            }
            other => assert!(other.is_ok(), "{at} {other:?}"),
        }
        disk.stop_failing();
        assert_eq!(bench.ok("add", &add).cid.unwrap(), DIRECTORY);
    }
}
