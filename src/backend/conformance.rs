//! What every backend that stores content has to do, whatever it stores it in.
//!
//! A backend's own tests make a [`Bench`] and call [`content`] and [`names`]; what is particular to
//! it, such as its layout on a disk, it tests itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Answer, Attempt, AttemptError, Backend, Request};
use crate::disk::{Access, Disk};
use crate::operation::{BackendName, FailureClass, Fields, OperationId, OperationType, Outcome, Source, Time};

/// A backend, and the disk on which the files of its user are.
pub(super) struct Bench {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) disk: Arc<dyn Disk>,
    /// An empty directory for the user's files.
    pub(super) home: PathBuf,
}

/// A request with an id of its own.
pub(super) fn request(operation_type: &str, parameters: &[(&str, &str)]) -> Request {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let parameters: Fields = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Request {
        id: OperationId::new(Time::from_millis(0), 0, (NEXT.fetch_add(1, Ordering::Relaxed) as u128) << 64 | 1 << 100),
        number: 1,
        operation_type: OperationType::new(operation_type).unwrap(),
        backend: BackendName::new("tested").unwrap(),
        parameters,
        source: None,
        content: None,
    }
}

impl Bench {
    pub(super) fn path(&self, name: &str) -> String {
        self.home.join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        self.disk.create_dir_all_synced(Path::new(&path).parent().unwrap()).unwrap();
        self.disk.open(Path::new(&path), Access::OpenOrCreate).unwrap().write_at(content, 0).unwrap();
        path
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        self.disk.read(&self.home.join(name)).unwrap()
    }

    pub(super) fn there(&self, name: &str) -> bool {
        self.disk.symlink_metadata(&self.home.join(name)).is_ok()
    }

    pub(super) fn source(&self, path: &str) -> Source {
        let metadata = self.disk.metadata(Path::new(path)).unwrap();
        Source { size: metadata.len, mtime_ns: metadata.mtime_ns, inode: metadata.inode, sha256: None, spool: None }
    }

    pub(super) fn run(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Result<Outcome, AttemptError> {
        self.backend.execute(&request(operation_type, parameters), &Attempt::default())
    }

    pub(super) fn ok(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Outcome {
        self.run(operation_type, parameters)
            .unwrap_or_else(|error| panic!("{operation_type} {parameters:?} failed: {error:?}"))
    }

    /// The `error_type` of a failure that must be permanent, and must say more than a word.
    pub(super) fn refused(&self, operation_type: &str, parameters: &[(&str, &str)]) -> String {
        match self.run(operation_type, parameters) {
            Err(AttemptError::Failed { failure, .. }) => {
                assert_eq!(failure.class, FailureClass::Permanent, "{failure:?}");
                assert!(failure.message.len() > 20, "{failure:?}");
                failure.error_type
            }
            other => panic!("{operation_type} {parameters:?} gave {other:?}"),
        }
    }

    pub(super) fn ask(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Answer {
        self.backend.ask(&request(operation_type, parameters)).unwrap()
    }

    /// Names left lying around by unfinished work, in the user's directory.
    pub(super) fn litter(&self) -> Vec<String> {
        let names = self.disk.list(&self.home).unwrap().into_iter().map(|entry| entry.name.into_string().unwrap());
        names.filter(|name| name.starts_with(".wal-cli")).collect()
    }
}

const HELLO_CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

/// Adding, reading, pinning and removing content.
pub(super) fn content(bench: &Bench) {
    assert!(bench.backend.health().is_ok());
    let hello = bench.write("hello.txt", b"hello world\n");

    let added = bench.ok("add", &[("path", &hello)]);
    assert_eq!((added.cid.as_deref(), added.size), (Some(HELLO_CID), Some(12)));
    assert_eq!(bench.ok("add", &[("path", &hello)]), added, "adding again changes nothing");
    let raw = bench.ok("add", &[("path", &hello), ("cid_version", "1")]);
    assert_eq!(raw.cid.as_deref(), Some("bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"));

    for operation_type in ["get", "cat", "download"] {
        let out = bench.path(operation_type);
        let outcome = bench.ok(operation_type, &[("cid", HELLO_CID), ("destination", &out)]);
        assert_eq!((outcome.cid.as_deref(), outcome.size), (Some(HELLO_CID), Some(12)));
        assert_eq!(outcome.destination.as_deref(), Some(&out[..]));
        assert_eq!(bench.read(operation_type), b"hello world\n");
    }
    // What was there is replaced as a whole.
    bench.write("get", b"something longer than that");
    bench.ok("get", &[("source", HELLO_CID), ("destination", &bench.path("get"))]);
    assert_eq!(bench.read("get"), b"hello world\n");

    let absent = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
    assert_eq!(bench.refused("get", &[("cid", absent), ("destination", &bench.path("x"))]), "not_found");
    assert_eq!(bench.refused("add", &[("path", &bench.path("absent"))]), "not_found");
    assert_eq!(bench.refused("rm", &[("cid", absent)]), "not_found");
    assert_eq!(bench.refused("get", &[("cid", HELLO_CID), ("destination", &bench.path("no/such"))]), "not_found");

    for _ in 0..2 {
        bench.ok("pin", &[("cid", HELLO_CID)]);
    }
    assert_eq!(bench.refused("rm", &[("cid", HELLO_CID)]), "pinned");
    for _ in 0..2 {
        bench.ok("unpin", &[("cid", HELLO_CID)]);
    }
    assert_eq!(bench.ask("rm", &[("cid", HELLO_CID)]), Answer::NotDone);
    bench.ok("rm", &[("cid", HELLO_CID)]);
    assert!(matches!(bench.ask("rm", &[("cid", HELLO_CID)]), Answer::Done(_)));
    assert_eq!(bench.refused("pin", &[("cid", HELLO_CID)]), "not_found");
    assert_eq!(bench.refused("cat", &[("cid", HELLO_CID), ("destination", &bench.path("x"))]), "not_found");

    changed_sources(bench);
    cancelled_attempts(bench);
    trees(bench);
    assert!(bench.litter().is_empty(), "{:?}", bench.litter());
}

fn changed_sources(bench: &Bench) {
    let path = bench.write("changing", b"one");
    let mut add = request("add", &[("path", &path)]);
    add.source = Some(bench.source(&path));
    assert!(bench.backend.execute(&add, &Attempt::default()).is_ok());
    bench.write("changing", b"two, and longer");
    let Err(AttemptError::Failed { failure, .. }) = bench.backend.execute(&add, &Attempt::default()) else { panic!() };
    assert_eq!((failure.class, &failure.error_type[..]), (FailureClass::Permanent, "source_changed"));
    copied_sources(bench, add);
}

/// A copy is read in place of its source, which may be anything by now.
fn copied_sources(bench: &Bench, mut add: Request) {
    let one = bench.ok("add", &[("path", &bench.write("one", b"one"))]);
    let copy = bench.write("copy.of.changing", b"one");
    add.content = Some(copy.into());
    for path in ["changing", "that is gone"] {
        add.parameters.insert("path".into(), bench.path(path));
        assert_eq!(bench.backend.execute(&add, &Attempt::default()), Ok(one.clone()));
        let mut upload = Request { operation_type: OperationType::new("upload").unwrap(), ..add.clone() };
        upload.parameters.insert("destination".into(), "/named".into());
        assert_eq!(bench.backend.execute(&upload, &Attempt::default()).unwrap().cid, one.cid);
        bench.ok("rm", &[("path", "/named")]);
    }
    let refused = |add: &Request| match bench.backend.execute(add, &Attempt::default()) {
        Err(AttemptError::Failed { failure, .. }) => (failure.class, failure.error_type),
        other => panic!("{other:?}"),
    };
    bench.write("copy.of.changing", b"of another size");
    assert_eq!(refused(&add), (FailureClass::Permanent, "damaged_content".into()));
    add.content = Some(bench.path("no copy").into());
    assert_eq!(refused(&add), (FailureClass::Permanent, "not_found".into()));
}

fn cancelled_attempts(bench: &Bench) {
    let path = bench.write("to be stopped", &[7; 1 << 20]);
    let attempt = Attempt::default();
    bench.backend.execute(&request("add", &[("path", &path)]), &attempt).unwrap();
    assert_eq!(attempt.progress(), (1 << 20, 1 << 20));
    attempt.cancel();
    for (operation_type, parameters) in [
        ("add", [("path", &path[..]), ("destination", "")]),
        ("get", [("cid", HELLO_CID), ("destination", &bench.path("stopped"))]),
    ] {
        let stopped = bench.backend.execute(&request(operation_type, &parameters), &attempt);
        assert_eq!(stopped, Err(AttemptError::Stopped));
    }
    assert!(!bench.there("stopped"));
}

/// `top` of the shared vectors, with a link and an empty directory in a tree of its own.
fn trees(bench: &Bench) {
    bench.write("top/hello.txt", b"hello world\n");
    bench.write("top/sub/empty.bin", b"");
    let top = bench.path("top");
    assert_eq!(bench.refused("add", &[("path", &top)]), "is_directory");
    let added = bench.ok("add", &[("path", &top), ("recursive", "true")]);
    let cid = added.cid.unwrap();
    assert_eq!((&cid[..], added.size), ("QmcjsgMM9PyYaRLG3JvUwrgR3wYMYJSf6UbqsnhnU5SWyf", Some(12)));
    let added = bench.ok("add", &[("path", &top), ("recursive", "true"), ("profile", "unixfs-v1-2025")]);
    assert_eq!(added.cid.as_deref(), Some("bafybeifsyyisu7f7wzrfkyysa3im4svkvcul2m4dgpbpffpjn4lk7eygvm"));

    assert_eq!(bench.refused("cat", &[("cid", &cid), ("destination", &bench.path("x"))]), "is_directory");
    for _ in 0..2 {
        // The second time it is there already.
        bench.ok("get", &[("cid", &cid), ("destination", &bench.path("copy"))]);
        assert_eq!(bench.read("copy/hello.txt"), b"hello world\n");
        assert_eq!(bench.read("copy/sub/empty.bin"), b"");
    }
    let part = format!("{cid}/hello.txt");
    bench.ok("cat", &[("source", &part), ("destination", &bench.path("part"))]);
    assert_eq!(bench.read("part"), b"hello world\n");
    let none = format!("/ipfs/{cid}/none");
    assert_eq!(bench.refused("cat", &[("source", &none), ("destination", &bench.path("x"))]), "not_found");
    let clash = [("cid", HELLO_CID), ("destination", &bench.path("copy")[..])];
    assert_eq!(bench.refused("get", &clash), "destination_exists");

    let listed = bench.ok("list", &[("cid", &cid)]).receipt["listing"].clone();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("\"hello.txt\"") && listed.contains(HELLO_CID), "{listed}");

    // A pin protects what is in a pinned directory.
    bench.ok("pin", &[("cid", &cid)]);
    assert_eq!(bench.refused("rm", &[("cid", HELLO_CID)]), "pinned");
    assert_eq!(bench.refused("rm", &[("cid", &cid), ("recursive", "true")]), "pinned");
    bench.ok("unpin", &[("cid", &cid)]);
    bench.ok("rm", &[("cid", &cid), ("recursive", "true")]);
    assert_eq!(bench.refused("get", &[("cid", HELLO_CID), ("destination", &bench.path("x"))]), "not_found");
}

/// The tree of names.
pub(super) fn names(bench: &Bench) {
    let hello = bench.write("hello.txt", b"hello world\n");
    let outcome = bench.ok("upload", &[("path", &hello), ("destination", "/a/b/hello.txt")]);
    assert_eq!((outcome.cid.as_deref(), outcome.size), (Some(HELLO_CID), Some(12)));
    assert_eq!(outcome.destination.as_deref(), Some("/a/b/hello.txt"));
    bench.ok("download", &[("source", "a/b/hello.txt"), ("destination", &bench.path("back"))]);
    assert_eq!(bench.read("back"), b"hello world\n");

    for _ in 0..2 {
        bench.ok("mkdir", &[("path", "/new")]);
        bench.ok("copy", &[("source", "/a/b/hello.txt"), ("destination", "/new/copy.txt")]);
        bench.ok("copy", &[("source", "/a"), ("destination", "/new/tree")]);
    }
    let listed = bench.ok("list", &[("path", "/new")]).receipt["listing"].clone();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("\"copy.txt\"") && listed.contains("\"tree\""), "{listed}");
    let out = bench.path("listing.ndjson");
    assert_eq!(bench.ok("list", &[("path", "/new"), ("destination", &out)]).destination, Some(out));
    assert_eq!(bench.read("listing.ndjson"), listed.as_bytes());

    let step = [("source", "/new/copy.txt"), ("destination", "/moved.txt")];
    assert_eq!(bench.ask("move", &step), Answer::NotDone);
    bench.ok("move", &step);
    assert!(matches!(bench.ask("move", &step), Answer::Done(_)));
    let nowhere = [("source", "/nowhere"), ("destination", "/neither")];
    assert!(matches!(bench.ask("move", &nowhere), Answer::Unknown(_)));
    assert_eq!(bench.refused("move", &nowhere), "not_found");
    bench.ok("move", &[("source", "/new/tree"), ("destination", "/tree")]);
    bench.ok("download", &[("source", "/tree/b/hello.txt"), ("destination", &bench.path("back2"))]);
    assert_eq!(bench.read("back2"), b"hello world\n");
    assert_eq!(bench.refused("move", &[("source", "/moved.txt"), ("destination", "/tree")]), "destination_exists");
    assert_eq!(bench.refused("move", &[("source", "/tree"), ("destination", "/tree/below")]), "bad_path");
    assert_eq!(bench.refused("copy", &[("source", "/tree"), ("destination", "/tree/below")]), "bad_path");

    assert_eq!(bench.refused("rm", &[("path", "/tree")]), "is_directory");
    assert_eq!(bench.ask("rm", &[("path", "/tree")]), Answer::NotDone);
    bench.ok("rm", &[("path", "/tree"), ("recursive", "true")]);
    assert!(matches!(bench.ask("rm", &[("path", "/tree")]), Answer::Done(_)));
    bench.ok("rm", &[("path", "/moved.txt")]);
    assert_eq!(bench.refused("rm", &[("path", "/moved.txt")]), "not_found");

    for climbing in ["..", "/a/../../x", "a/.."] {
        assert_eq!(bench.refused("mkdir", &[("path", climbing)]), "bad_path");
        assert_eq!(bench.refused("upload", &[("path", &hello), ("destination", climbing)]), "bad_path");
    }
    assert_eq!(bench.refused("mkdir", &[("path", "/a/b/hello.txt")]), "destination_exists");
    assert_eq!(bench.refused("upload", &[("path", &hello), ("destination", "/a")]), "destination_exists");
    assert!(bench.litter().is_empty());
}
