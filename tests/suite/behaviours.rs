//! Behaviour that all backends that store content share.
#![expect(clippy::disallowed_methods, reason = "creates files as a user would")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wal_cli::backend::unixfs::{FileHasher, Options};
use wal_cli::backend::{
    Attempt, AttemptError, AttemptStatus, AuditResult, Backend, EffectKind, Request,
};
use wal_cli::operation::{
    BackendName, Failure, FailureClass, Fields, Number, OperationId, OperationType, Outcome,
    Source, Time,
};
use wal_cli::wal::manifest::sha256_hex;

/// A backend, a directory for a user's files, and a prefix of names for this test alone.
pub struct Bench {
    pub backend: Arc<dyn Backend>,
    pub home: PathBuf,
    pub names: String,
    /// True if the backend knows its past effects and reports progress; if false, it only knows
    /// which operations it never began.
    pub knows_effects: bool,
    /// True if content has CIDs, and a name is either a file or a directory.
    pub has_cids: bool,
    /// The prefix of names in results.
    pub origin: String,
}

/// Returns a request with a unique id.
pub fn request(operation_type: &str, parameters: &[(&str, &str)]) -> Request {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    Request {
        id: OperationId::new(Time::from_millis(0), 0, u128::from(nth) << 64 | 1 << 100),
        number: Number::new(nth),
        operation_type: OperationType::new(operation_type).unwrap(),
        backend: BackendName::new("tested").unwrap(),
        parameters: parameters
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        source: None,
        content: None,
    }
}

impl Bench {
    pub fn new(backend: Arc<dyn Backend>, home: PathBuf, names: &str) -> Bench {
        std::fs::create_dir_all(&home).unwrap();
        Bench {
            backend,
            home,
            names: names.to_owned(),
            knows_effects: true,
            has_cids: true,
            origin: String::new(),
        }
    }

    pub fn path(&self, name: &str) -> String {
        self.home.join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.home.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self.path(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.home.join(name)).unwrap()
    }

    pub fn run(
        &self,
        operation_type: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Outcome, AttemptError> {
        self.backend.execute(&request(operation_type, parameters), &Attempt::default())
    }

    pub fn ok(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Outcome {
        let result = self.run(operation_type, parameters);
        result.unwrap_or_else(|error| panic!("{operation_type} {parameters:?} failed: {error:?}"))
    }

    pub fn fails(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Failure {
        match self.run(operation_type, parameters) {
            Err(AttemptError::Failed { failure, .. }) => failure,
            other => panic!("{operation_type} {parameters:?} gave {other:?}"),
        }
    }

    /// Returns type and message of a failure, which must be permanent.
    pub fn refused(&self, operation_type: &str, parameters: &[(&str, &str)]) -> (String, String) {
        let failure = self.fails(operation_type, parameters);
        assert_eq!(
            failure.class,
            FailureClass::Permanent,
            "{operation_type} {parameters:?}: {failure:?}"
        );
        assert!(failure.message.len() > 20, "{failure:?}");
        (failure.error_type, failure.message)
    }

    pub fn ask(&self, operation_type: &str, parameters: &[(&str, &str)]) -> AttemptStatus {
        self.backend.query_attempt(&request(operation_type, parameters)).unwrap()
    }

    /// Asserts the answer about an attempt whose response was lost.
    fn answers(
        &self,
        operation_type: &str,
        parameters: &[(&str, &str)],
        is_right: fn(&AttemptStatus) -> bool,
    ) {
        let answer = self.ask(operation_type, parameters);
        let is_right = if self.knows_effects { is_right(&answer) } else { is_not_done(&answer) };
        assert!(is_right, "{operation_type} {parameters:?}: {answer:?}");
    }

    /// Asserts that stored content is reported with this CID and size.
    fn is_stored(&self, outcome: &Outcome, cid: &str, size: u64) -> bool {
        (outcome.cid.as_deref(), outcome.size) == (self.has_cids.then_some(cid), Some(size))
    }

    /// Returns a name below the prefix of this test.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.names)
    }
}

fn is_done(answer: &AttemptStatus) -> bool {
    matches!(answer, AttemptStatus::Done(_))
}

fn is_not_done(answer: &AttemptStatus) -> bool {
    *answer == AttemptStatus::NotDone
}

fn is_unknown(answer: &AttemptStatus) -> bool {
    matches!(answer, AttemptStatus::Unknown(_))
}

const HELLO: &[u8] = b"hello world\n";
const HELLO_CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

/// Runs all shared tests.
pub fn all(bench: &Bench) {
    bench.backend.health().unwrap();
    if bench.has_cids {
        content(bench);
        trees(bench);
    }
    moving(bench);
    sources(bench);
    acknowledged_content(bench);
    names(bench);
    parameters(bench);
    effects(bench);
    let litter = std::fs::read_dir(&bench.home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let litter: Vec<String> = litter.filter(|name| name.starts_with(".wal-cli")).collect();
    assert!(litter.is_empty(), "{litter:?}");
}

/// Invalid operations are refused before they are logged, with the same error as on execution.
fn parameters(bench: &Bench) {
    let (backend, named) = (&bench.backend, |name: &str| OperationType::new(name).unwrap());
    let types = backend.operation_types();
    let Some(listed) = types.listed() else { return };
    assert!(listed.iter().all(|name| types.contains(&named(name))));
    assert!(!types.contains(&named("dance")));
    for operation_type in listed {
        let Err(error) = backend.check(&named(operation_type), &Fields::new()) else { continue };
        let refused = bench.refused(operation_type, &[]);
        assert_eq!(refused, (error.error_type.to_owned(), error.message));
    }
    let complete = [("source", "/a"), ("destination", "/b")];
    let complete = complete.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(backend.check(&named("copy"), &complete), Ok(()));
}

/// Effects name the targets that operations touch, audits compare them, and sweeps leave them.
fn effects(bench: &Bench) {
    let backend = &bench.backend;
    let (hello, named) = (bench.write("hello.txt", HELLO), bench.name("effects/hello.txt"));
    let upload = request("upload", &[("path", &hello), ("destination", &named)]);
    let outcome = backend.execute(&upload, &Attempt::default()).unwrap();
    let touched = |operation_type: &str,
                   parameters: &[(&str, &str)]|
     -> Vec<(EffectKind, String)> {
        let touched =
            backend.effects(&request(operation_type, parameters), &Outcome::default()).into_iter();
        touched.map(|effect| (effect.kind, effect.target)).collect()
    };
    let written = backend.effects(&upload, &outcome);
    assert!(written.len() == 1 && written[0].is_write(), "{written:?}");
    let target = written[0].target.clone();
    let without_slash = named.trim_start_matches('/');
    assert_eq!(
        touched("upload", &[("path", &hello), ("destination", without_slash)]),
        [(EffectKind::Write, target.clone())]
    );
    assert_eq!(touched("rm", &[("path", &named)]), [(EffectKind::Remove, target.clone())]);
    let other = [("source", &named[..]), ("destination", "/effects-elsewhere")];
    for (operation_type, kind) in [("copy", EffectKind::Read), ("move", EffectKind::Remove)] {
        let touched = touched(operation_type, &other);
        assert_eq!(touched[0], (kind, target.clone()), "{operation_type}");
        assert!(touched.len() == 2 && touched[1].0 == EffectKind::Write, "{touched:?}");
    }
    assert_eq!(touched("download", &other), []);

    let is_auditable = |name: &str| backend.is_auditable(&OperationType::new(name).unwrap());
    assert!(is_auditable("upload") && !is_auditable("download") && !is_auditable("rm"));
    let audit = || backend.audit(&upload, &outcome, &Attempt::default()).unwrap();
    for is_needed in [true, false] {
        backend.sweep(&|_| is_needed).unwrap();
        let expected =
            if bench.knows_effects { AuditResult::Intact } else { AuditResult::NotApplicable };
        assert_eq!(audit(), expected);
    }
    bench.ok("download", &[("source", &named), ("destination", &bench.path("kept"))]);
    assert_eq!(bench.read("kept"), HELLO);
    bench.ok("rm", &[("path", &named)]);
    let is_right = match audit() {
        AuditResult::Missing(what) => bench.knows_effects && what.len() > 10,
        other => !bench.knows_effects && other == AuditResult::NotApplicable,
    };
    assert!(is_right, "{:?}", audit());
    assert!(backend.orphans().is_empty());
    backend.abort_orphan(upload.number, upload.id).unwrap();
}

fn content(bench: &Bench) {
    let hello = bench.write("hello.txt", HELLO);
    let added = bench.ok("add", &[("path", &hello)]);
    assert_eq!((added.cid.as_deref(), added.size), (Some(HELLO_CID), Some(12)));
    assert_eq!(bench.ok("add", &[("path", &hello)]), added, "adding again changes nothing");
    let raw = bench.ok("add", &[("path", &hello), ("cid_version", "1")]);
    assert_eq!(
        raw.cid.as_deref(),
        Some("bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4")
    );
    for operation_type in ["get", "cat", "download"] {
        let out = bench.path(operation_type);
        for cid in [HELLO_CID, raw.cid.as_deref().unwrap()] {
            let outcome = bench.ok(operation_type, &[("cid", cid), ("destination", &out)]);
            assert_eq!((outcome.cid.as_deref(), outcome.size), (Some(cid), Some(12)));
            assert_eq!(outcome.destination.as_deref(), Some(&out[..]));
            assert_eq!(bench.read(operation_type), HELLO);
        }
    }
    // An existing file is replaced as a whole.
    bench.write("get", b"something longer than that");
    bench.ok("get", &[("source", HELLO_CID), ("destination", &bench.path("get"))]);
    assert_eq!(bench.read("get"), HELLO);
    for _ in 0..2 {
        bench.ok("pin", &[("cid", HELLO_CID)]);
    }
    bench.answers("unpin", &[("cid", HELLO_CID)], is_not_done);
    for _ in 0..2 {
        bench.ok("unpin", &[("cid", HELLO_CID)]);
    }
}

/// Transfers report progress, stop on request, and are refused where they cannot go.
fn moving(bench: &Bench) {
    let (hello, named) = (bench.write("hello.txt", HELLO), bench.name("moving"));
    let absent = bench.path("absent");
    assert_eq!(
        bench.refused("upload", &[("path", &absent), ("destination", &named)]).0,
        "not_found"
    );
    bench.ok("upload", &[("path", &hello), ("destination", &named)]);
    assert_eq!(
        bench.refused("get", &[("source", &named), ("destination", &bench.path("no/such"))]).0,
        "not_found"
    );

    let long: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let attempt = Attempt::default();
    let path = bench.write("long", &long);
    let upload = request("upload", &[("path", &path), ("destination", &named)]);
    bench.backend.execute(&upload, &attempt).unwrap();
    assert_eq!(
        attempt.progress(),
        if bench.knows_effects { (2_000_000, 2_000_000) } else { (0, 0) }
    );
    bench.ok("cat", &[("source", &named), ("destination", &bench.path("long again"))]);
    assert_eq!(bench.read("long again"), long);
    attempt.cancel();
    for (operation_type, parameters) in [
        ("add", [("path", &hello[..]), ("destination", &named)]),
        ("upload", [("path", &hello), ("destination", &named)]),
        ("get", [("source", &named), ("destination", &bench.path("stopped"))]),
    ] {
        let stopped = bench.backend.execute(&request(operation_type, &parameters), &attempt);
        assert_eq!(stopped, Err(AttemptError::Stopped));
    }
}

fn trees(bench: &Bench) {
    bench.write("top/hello.txt", HELLO);
    bench.write("top/sub/empty.bin", b"");
    let top = bench.path("top");
    assert_eq!(bench.refused("add", &[("path", &top)]).0, "is_directory");
    let added =
        bench.ok("add", &[("path", &top), ("recursive", "true"), ("profile", "unixfs-v1-2025")]);
    assert_eq!(
        added.cid.as_deref(),
        Some("bafybeifsyyisu7f7wzrfkyysa3im4svkvcul2m4dgpbpffpjn4lk7eygvm")
    );
    let added = bench.ok("add", &[("path", &top), ("recursive", "true")]);
    let cid = added.cid.unwrap();
    assert_eq!(
        (&cid[..], added.size),
        ("QmcjsgMM9PyYaRLG3JvUwrgR3wYMYJSf6UbqsnhnU5SWyf", Some(12))
    );

    assert_eq!(
        bench.refused("cat", &[("cid", &cid), ("destination", &bench.path("x"))]).0,
        "is_directory"
    );
    for _ in 0..2 {
        // The second time the destination exists already.
        bench.ok("get", &[("cid", &cid), ("destination", &bench.path("copy"))]);
        assert_eq!(
            (bench.read("copy/hello.txt"), bench.read("copy/sub/empty.bin")),
            (HELLO.to_vec(), Vec::new())
        );
    }
    let part = format!("{cid}/hello.txt");
    bench.ok("cat", &[("source", &part), ("destination", &bench.path("part"))]);
    assert_eq!(bench.read("part"), HELLO);
    let none = format!("/ipfs/{cid}/none");
    assert_eq!(
        bench.refused("cat", &[("source", &none), ("destination", &bench.path("x"))]).0,
        "not_found"
    );
    let clash = [("cid", HELLO_CID), ("destination", &bench.path("copy")[..])];
    assert_eq!(bench.refused("get", &clash).0, "destination_exists");
    let listed = bench.ok("list", &[("cid", &cid)]).receipt["listing"].clone();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("\"hello.txt\"") && listed.contains(HELLO_CID), "{listed}");
}

/// A source may change after logging; its copy is read instead.
fn sources(bench: &Bench) {
    let path = bench.write("changing", b"one");
    let mut add = request("add", &[("path", &path), ("destination", &bench.name("changing"))]);
    add.source = Some(now(&path, 3));
    let one = bench.backend.execute(&add, &Attempt::default()).unwrap();
    bench.write("changing", b"two, and longer");
    let changed = bench.backend.execute(&add, &Attempt::default());
    assert!(
        matches!(changed, Err(AttemptError::Failed { failure, .. }) if failure.error_type == "source_changed")
    );
    add.content = Some(bench.write("copy of changing", b"one").into());
    let mut again = bench.backend.execute(&add, &Attempt::default()).unwrap();
    // Uploading again stores the same content; where versions are kept, a newer one.
    if let Some(version) = one.receipt.get("version_id") {
        let newer = again.receipt.insert("version_id".into(), version.clone());
        assert!(newer.is_some_and(|newer| newer != *version));
    }
    assert_eq!(again, one);
    bench.write("copy of changing", b"of another size");
    let damaged = bench.backend.execute(&add, &Attempt::default());
    assert!(
        matches!(damaged, Err(AttemptError::Failed { failure, .. }) if failure.error_type == "spool_damaged")
    );
}

/// Content that is not what was logged is never stored: neither under a name nor under its CID.
fn acknowledged_content(bench: &Bench) {
    // One piece, several, and more than a part of an upload.
    for length in [1, 100, 700_000, 11_000_000] {
        let mut content = vec![0; length];
        fastrand::Rng::with_seed(length as u64).fill(&mut content);
        let noted = Source {
            size: length as u64,
            mtime_ns: 0,
            inode: 0,
            ctime_ns: None,
            sha256: Some(sha256_hex(&content)),
            spool: None,
        };
        // The operation types that read a file of the user.
        let name = bench.name(&format!("acknowledged/{length}"));
        for operation_type in ["upload", "add"] {
            let path = bench.write("acknowledged", &content);
            let mut send = request(operation_type, &[("path", &path), ("destination", &name)]);
            // A reference whose times are those that were logged.
            send.source = Some(Source { sha256: Some(sha256_hex(b"other")), ..now(&path, length) });
            assert_eq!(refusal(bench, &send), "source_changed", "{length}");
            send.source = Some(noted.clone());
            for place in [0, length / 2, length - 1] {
                let mut damaged = content.clone();
                damaged[place] ^= 1;
                send.content = Some(bench.write("logged copy", &damaged).into());
                assert_eq!(refusal(bench, &send), "spool_damaged", "{length}, byte {place}");
                if bench.has_cids {
                    let mut hasher = FileHasher::new(Options::default());
                    hasher.update(&damaged);
                    let cid = hasher.finish().cid.to_string();
                    let get = [("cid", &cid[..]), ("destination", &bench.path("none"))];
                    assert_eq!(bench.fails("get", &get).error_type, "not_found", "{length}");
                }
            }
            if operation_type == "upload" {
                let get = [("source", &name[..]), ("destination", &bench.path("none"))];
                assert_eq!(bench.fails("get", &get).error_type, "not_found", "{length}");
            }
            send.content = Some(bench.write("logged copy", &content).into());
            let stored = bench.backend.execute(&send, &Attempt::default());
            assert_eq!(stored.unwrap().size, Some(length as u64));
        }
        bench.ok("get", &[("source", &name), ("destination", &bench.path("back"))]);
        assert!(bench.read("back") == content, "{length}");
        bench.ok("rm", &[("path", &name)]);
    }
}

/// Returns a file as it would be noted now.
fn now(path: &str, length: usize) -> Source {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).unwrap();
    let mtime_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
    let (size, inode) = (length as u64, metadata.ino());
    Source { size, mtime_ns, inode, ctime_ns: None, sha256: None, spool: None }
}

/// Returns the type of the permanent error that an operation ends with.
fn refusal(bench: &Bench, request: &Request) -> String {
    match bench.backend.execute(request, &Attempt::default()) {
        Err(AttemptError::Failed { failure, .. }) if failure.class == FailureClass::Permanent => {
            failure.error_type
        }
        other => panic!("{request:?} gave {other:?}"),
    }
}

fn names(bench: &Bench) {
    let hello = bench.write("hello.txt", HELLO);
    let named = bench.name("a/b/hello.txt");
    for _ in 0..2 {
        let outcome = bench.ok("upload", &[("path", &hello), ("destination", &named)]);
        assert!(bench.is_stored(&outcome, HELLO_CID, 12), "{outcome:?}");
        assert_eq!(outcome.destination, Some(format!("{}{named}", bench.origin)));
    }
    let without_slash = named.trim_start_matches('/');
    bench.ok("download", &[("source", without_slash), ("destination", &bench.path("back"))]);
    assert_eq!(bench.read("back"), HELLO);
    // A file is replaced.
    let other = bench.write("other", b"other");
    bench.ok("upload", &[("path", &other), ("destination", &named)]);
    bench.ok("cat", &[("source", &named), ("destination", &bench.path("back"))]);
    assert_eq!(bench.read("back"), b"other");

    for _ in 0..2 {
        bench.ok("mkdir", &[("path", &bench.name("new"))]);
        bench.ok("copy", &[("source", &named), ("destination", &bench.name("new/copy.txt"))]);
        bench.ok("copy", &[("source", &bench.name("a")), ("destination", &bench.name("new/tree"))]);
    }
    let listed = bench.ok("list", &[("path", &bench.name("new"))]).receipt["listing"].clone();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("\"copy.txt\"") && listed.contains("\"tree\""), "{listed}");
    // The contents of a directory are added to the existing ones.
    for _ in 0..2 {
        bench.ok(
            "download",
            &[("source", &bench.name("new")), ("destination", &bench.path("fetched"))],
        );
        assert_eq!(bench.read("fetched/copy.txt"), b"other");
        assert_eq!(bench.read("fetched/tree/b/hello.txt"), b"other");
    }
    let directory =
        bench.refused("cat", &[("source", &bench.name("new")), ("destination", &bench.path("x"))]);
    assert_eq!(directory.0, "is_directory");
    let clash = [("source", &named[..]), ("destination", &bench.path("fetched"))];
    assert_eq!(bench.refused("download", &clash).0, "destination_exists");
    let out = bench.path("listing.ndjson");
    assert_eq!(
        bench.ok("list", &[("path", &bench.name("new")), ("destination", &out)]).destination,
        Some(out)
    );
    assert_eq!(bench.read("listing.ndjson"), listed.as_bytes());

    let (from, to) = (bench.name("new/copy.txt"), bench.name("moved.txt"));
    let step = [("source", &from[..]), ("destination", &to[..])];
    bench.answers("move", &step, is_not_done);
    bench.ok("move", &step);
    bench.answers("move", &step, is_done);
    let (nowhere, neither) = (bench.name("nowhere"), bench.name("neither"));
    let nowhere = [("source", &nowhere[..]), ("destination", &neither[..])];
    bench.answers("move", &nowhere, is_unknown);
    assert_eq!(bench.refused("move", &nowhere).0, "not_found");
    let tree = bench.name("tree");
    bench.ok("move", &[("source", &bench.name("new/tree")), ("destination", &tree)]);
    bench.ok("move", &[("source", &tree), ("destination", &bench.name("deep/er/tree"))]);
    bench.ok("move", &[("source", &bench.name("deep/er/tree")), ("destination", &tree)]);
    bench.ok(
        "download",
        &[("source", &bench.name("tree/b/hello.txt")), ("destination", &bench.path("back2"))],
    );
    assert_eq!(bench.read("back2"), b"other");
    for operation_type in ["move", "copy"] {
        if bench.has_cids {
            let onto = [("source", &to[..]), ("destination", &tree[..])];
            assert_eq!(
                bench.refused(operation_type, &onto).0,
                "destination_exists",
                "{operation_type}"
            );
        }
        let below = [("source", &tree[..]), ("destination", &bench.name("tree/below"))];
        assert_eq!(bench.refused(operation_type, &below).0, "bad_path", "{operation_type}");
    }
    assert_eq!(bench.refused("rm", &[("path", &tree)]).0, "is_directory");
    bench.answers("rm", &[("path", &tree)], is_not_done);
    bench.ok("rm", &[("path", &tree), ("recursive", "true")]);
    bench.answers("rm", &[("path", &tree)], is_done);
    bench.ok("rm", &[("path", &to)]);
    assert_eq!(bench.refused("rm", &[("path", &to)]).0, "not_found");
    for climbing in ["..", "/a/../../x", "a/.."] {
        assert_eq!(bench.refused("mkdir", &[("path", climbing)]).0, "bad_path");
        assert_eq!(
            bench.refused("upload", &[("path", &hello), ("destination", climbing)]).0,
            "bad_path"
        );
    }
    assert_eq!(bench.refused("mkdir", &[("path", &named)]).0, "destination_exists");
    if bench.has_cids {
        let onto = [("path", &hello[..]), ("destination", &bench.name("a"))];
        assert_eq!(bench.refused("upload", &onto).0, "destination_exists");
    }
    let all = [
        ("path", &bench.path("fetched")[..]),
        ("destination", &bench.name("all")),
        ("recursive", "true"),
    ];
    assert_eq!(bench.ok("upload", &all).size, Some(10));
    bench.ok(
        "download",
        &[("source", &bench.name("all/tree")), ("destination", &bench.path("part of all"))],
    );
    assert_eq!(bench.read("part of all/b/hello.txt"), b"other");
}
