//! The backend `ipfs` on a real Kubo: every type of operation, the same results as `local`, and
//! every network fault.
#![expect(clippy::disallowed_methods, reason = "creates files as a user would, and measures")]

pub mod daemon;
mod faults;
mod kills;
mod outage;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Kubo, endpoint};
use wal_cli::backend::ipfs::{Credentials, IpfsBackend, IpfsOptions};
use wal_cli::backend::{Attempt, AttemptError, AttemptStatus, Backend};
use wal_cli::clock::SystemClock;
use wal_cli::disk::OsDisk;
use wal_cli::operation::FailureClass;

use super::behaviours::{self, Bench};
use super::binary::Place;
use super::proxy::{Proxy, Service};
use super::tools::peak_of;

/// Returns the options of a backend for a node, with short timeouts.
fn options(endpoint: String) -> IpfsOptions {
    IpfsOptions {
        name: "ipfs".into(),
        endpoint,
        credentials: Credentials::None,
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(30),
        total: None,
        probe: Duration::from_secs(2),
        unixfs: wal_cli::backend::unixfs::Options::default(),
    }
}

fn backend(options: IpfsOptions) -> Arc<dyn Backend> {
    Arc::new(IpfsBackend::new(Arc::new(OsDisk::new()), Arc::new(SystemClock::new()), options))
}

/// Returns a proxy in front of a node.
fn before(kubo: &Kubo) -> Proxy {
    let service = Service {
        command: |head| {
            let path = head.split(' ').nth(1).unwrap_or_default();
            path.strip_prefix("/api/v0/")
                .unwrap_or_default()
                .split('?')
                .next()
                .unwrap_or_default()
                .to_owned()
        },
        error_inside: "{\"Message\":\"it went wrong inside\",\"Code\":0,\"Type\":\"error\"}\n",
        refusal: "{\"Message\":\"an unknown text\",\"Code\":0,\"Type\":\"error\"}\n",
    };
    Proxy::before(kubo.port(), service)
}

/// Writes settings in which `ipfs` is this node.
fn configure(place: &Place, kubo: &Kubo, more: &str) {
    place.settings(&format!("[backends.ipfs]\nendpoint = \"{}\"\n{more}", kubo.endpoint()));
}

/// Returns pseudorandom bytes that depend on the seed alone.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// Returns the CIDs that the program prints for these arguments, in their order.
fn added(place: &Place, arguments: &str) -> Vec<String> {
    let text = place.run(&format!("add --wait {arguments}"));
    text.lines().map(|line| line.split_whitespace().nth(2).unwrap().to_owned()).collect()
}

#[test]
fn files_and_directories_have_the_same_cids_on_ipfs_as_on_local() {
    // Thousands of files with three flushes each would take minutes on a real disk.
    let place = Place::in_memory();
    let kubo = Kubo::shared();
    configure(&place, kubo, "");
    let sizes = [0, 1, 262_143, 262_144, 262_145, 3_000_000, 174 * 262_144 + 1];
    for (nth, size) in sizes.into_iter().enumerate() {
        std::fs::write(place.path(&format!("file-{nth}")), noise(size, nth as u64)).unwrap();
    }
    let files: Vec<String> = (0..sizes.len()).map(|nth| format!("file-{nth}")).collect();
    for options in [
        "",
        "--param cid_version=1",
        "--param cid_version=1 --param raw_leaves=false",
        "--param raw_leaves=true",
        "--param chunker=size-65536 --param max_links=100",
        "--param profile=unixfs-v1-2025",
    ] {
        let [ipfs, local] = ["ipfs", "local"]
            .map(|on| added(&place, &format!("--backend {on} {options} {}", files.join(" "))));
        assert_eq!(ipfs, local, "{options}");
        assert_eq!(ipfs.len(), files.len());
        assert!(kubo.has_pin(&ipfs[5]), "{options}");
    }

    // One directory with every unusual entry, and one large enough to be sharded.
    let odd = place.path("odd");
    std::fs::create_dir_all(odd.join("empty")).unwrap();
    std::fs::create_dir_all(odd.join("a b+c%20\"ü/deeper")).unwrap();
    std::fs::write(odd.join("a b+c%20\"ü/deeper/it's & so=on?.txt"), "x").unwrap();
    std::fs::write(odd.join("nothing"), "").unwrap();
    std::os::unix::fs::symlink("nowhere/at all", odd.join("link")).unwrap();
    let large = place.path("large");
    std::fs::create_dir(&large).unwrap();
    for nth in 0..4000 {
        std::fs::write(
            large.join(format!("a file with a name of some length {nth:05}")),
            format!("{nth}\n"),
        )
        .unwrap();
    }
    for options in ["", "--param cid_version=1"] {
        let directories = format!("--param recursive=true {options} odd large");
        let [ipfs, local] =
            ["ipfs", "local"].map(|on| added(&place, &format!("--backend {on} {directories}")));
        assert_eq!(ipfs, local, "{options}");
        for (cid, name) in ipfs.iter().zip(["odd", "large"]) {
            let back = format!("back of {name}{}", options.len()).replace(' ', "-");
            place.run(&format!("submit get {cid} {back} --backend ipfs --wait"));
            let mut diff = std::process::Command::new("diff");
            diff.args(["-r", "--no-dereference", name, &back]).current_dir(place.path(""));
            assert!(diff.status().unwrap().success(), "{name}");
        }
    }
}

#[test]
fn every_type_behaves_as_on_local() {
    let home = tempfile::tempdir().unwrap();
    behaviours::all(&Bench::new(
        backend(options(Kubo::shared().endpoint())),
        home.path().join("ipfs"),
        "/shared",
    ));
    let place = home.path().join("store");
    let local = wal_cli::backend::local::LocalBackend::new(
        Arc::new(OsDisk::new()),
        Arc::new(SystemClock::new()),
        place,
        wal_cli::backend::unixfs::Options::default(),
    );
    behaviours::all(&Bench::new(Arc::new(local), home.path().join("local"), "/shared"));
}

#[test]
fn pins_are_added_named_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let kubo = Kubo::new(&[]);
    let bench = Bench::new(backend(options(kubo.endpoint())), home.path().to_owned(), "/");
    let file = bench.write("file", b"pinned or not\n");
    let cid = bench.ok("add", &[("path", &file), ("pin", "false")]).cid.unwrap();
    assert!(!kubo.has_pin(&cid));
    bench.ok("pin", &[("cid", &cid), ("pin_name", "mine")]);
    assert!(
        kubo.ipfs("pin ls --type=recursive --names").contains(&format!("{cid} recursive mine"))
    );
    bench.ok("unpin", &[("cid", &cid)]);
    assert!(!kubo.has_pin(&cid));

    bench.ok("add", &[("path", &file), ("pin_name", "at once"), ("to_files", "/named")]);
    assert!(
        kubo.ipfs("pin ls --type=recursive --names").contains(&format!("{cid} recursive at once"))
    );
    assert_eq!(kubo.ipfs("files stat --hash /named"), cid);

    // Content that is part of pinned content stays pinned.
    let directory = bench.path("directory");
    bench.write("directory/file", b"pinned or not\n");
    let whole = bench.ok("add", &[("path", &directory), ("recursive", "true")]).cid.unwrap();
    bench.ok("rm", &[("cid", &cid)]);
    assert!(!kubo.has_pin(&cid) && kubo.has_pin(&whole));
    let (error_type, message) = bench.refused("rm", &[("cid", &cid)]);
    assert!(error_type == "pinned" && message.contains(&whole), "{message}");
    let listed = bench.ok("list", &[]).receipt["listing"].clone();
    assert!(listed.contains(&whole) && !listed.contains(&cid), "{listed}");
    bench.ok("rm", &[("cid", &whole)]);
    assert!(!kubo.has_pin(&whole));
}

#[test]
fn missing_content_is_reported_and_can_arrive_later() {
    let home = tempfile::tempdir().unwrap();
    let bench =
        Bench::new(backend(options(Kubo::shared().endpoint())), home.path().to_owned(), "/");
    let absent = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";
    let out = bench.path("out");
    for (operation_type, parameters) in
        [("get", &[("cid", absent), ("destination", &out[..])][..]), ("pin", &[("cid", absent)])]
    {
        let failure = match bench.run(operation_type, parameters) {
            Err(AttemptError::Failed { failure, .. }) if operation_type == "get" => failure,
            // A query shows that it had no effect.
            Err(AttemptError::UnknownOutcome(failure)) if operation_type == "pin" => failure,
            other => panic!("{operation_type} gave {other:?}"),
        };
        assert_eq!(
            (failure.class, &failure.error_type[..]),
            (FailureClass::Transient, "not_found"),
            "{failure:?}"
        );
        assert!(
            failure.message.contains(absent)
                && failure.message.contains("the node does not have the content")
        );
    }
    assert_eq!(bench.ask("pin", &[("cid", absent)]), AttemptStatus::NotDone);
    assert_eq!(bench.refused("rm", &[("cid", absent)]).0, "not_found");
    // dag-cbor: neither a file nor a directory.
    let other = "bafyreigaknpexyvxt76zgkitavbwx6ejgfheup5oybpm77f3pxzrvwpfdi";
    assert_eq!(bench.ask("pin", &[("cid", other)]), AttemptStatus::NotDone);
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_pin_without_a_provider_ends_at_the_limit() {
    let home = tempfile::tempdir().unwrap();
    let kubo = Kubo::alone();
    let idle = Duration::from_millis(1500);
    let bench = Bench::new(
        backend(IpfsOptions { idle, ..options(kubo.endpoint()) }),
        home.path().to_owned(),
        "/",
    );
    let absent = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";
    let since = Instant::now();
    let attempt = Attempt::default();
    let request = behaviours::request("pin", &[("cid", absent)]);
    let result = std::thread::scope(|scope| {
        let running = scope.spawn(|| bench.backend.execute(&request, &attempt));
        while !running.is_finished() && since.elapsed() < idle * 6 {
            std::thread::sleep(Duration::from_millis(10));
        }
        attempt.cancel();
        running.join().unwrap()
    });
    let took = since.elapsed();
    println!("a pin of missing content ended after {took:.1?}, with an idle timeout of {idle:?}");
    let Err(AttemptError::UnknownOutcome(failure)) = result else { panic!("{result:?}") };
    assert_eq!(
        (failure.class, &failure.error_type[..]),
        (FailureClass::Transient, "timed_out"),
        "{failure:?}"
    );
    assert!(failure.message.contains(absent), "{}", failure.message);
    assert!((idle..idle * 2).contains(&took), "{took:?}");
    assert_eq!(bench.ask("pin", &[("cid", absent)]), AttemptStatus::NotDone);

    // Content that the node has is pinned as usual.
    let file = bench.write("file", b"here\n");
    let cid = bench.ok("add", &[("path", &file), ("pin", "false")]).cid.unwrap();
    bench.ok("pin", &[("cid", &cid)]);
    assert!(kubo.has_pin(&cid));
}

#[test]
fn missing_certificates_and_a_wrong_address_cost_no_attempt() {
    for (endpoint, error_type, says) in [
        ("https://127.0.0.1:1/api/v0", "no_network", "certificates"),
        ("https://127.0.0.1:port/api/v0", "misconfigured", "`backends.ipfs.endpoint`"),
    ] {
        let place = Place::new();
        place.file("a.txt", "hello world\n");
        place.settings(&format!("[backends.ipfs]\nendpoint = \"{endpoint}\"\n"));
        // As on a machine without certificates.
        let run = |arguments: &str| {
            let nowhere = place.path("nowhere");
            place
                .command(arguments)
                .env("SSL_CERT_FILE", &nowhere)
                .env("SSL_CERT_DIR", &nowhere)
                .output()
                .unwrap()
        };
        place.run("add a.txt --backend ipfs");
        run("process");
        let shown = place.json("show 1");
        let operation = &shown["operation"];
        let seen =
            ["status", "failure_class", "error_type"].map(|name| operation[name].as_str().unwrap());
        assert_eq!(seen, ["pending", "outage", error_type], "{endpoint}: {shown:#}");
        assert_eq!(operation["retry_count"], 0, "{shown:#}");
        assert!(operation["error"].as_str().unwrap().contains(says), "{shown:#}");
        let health = run("health --backend ipfs");
        let said =
            String::from_utf8_lossy(&health.stdout) + String::from_utf8_lossy(&health.stderr);
        assert!(!health.status.success() && said.contains(says), "{said}");
    }
}

#[test]
fn credentials_grant_access_and_are_not_disclosed() {
    const USERS: &str = r#"{
        "ann": { "AuthSecret": "bearer:t0ken-of-ann", "AllowedPaths": ["/api/v0"] },
        "bob": { "AuthSecret": "basic:bob:s3cret of bob",
                 "AllowedPaths": ["/api/v0/add", "/api/v0/pin"] }
    }"#;
    let kubo = Kubo::new(&[("API.Authorizations", USERS)]);
    let home = tempfile::tempdir().unwrap();
    let with = |credentials| backend(IpfsOptions { credentials, ..options(kubo.endpoint()) });
    let ann = with(Credentials::Bearer("t0ken-of-ann".into()));
    let bob = with(Credentials::Basic("bob".into(), "s3cret of bob".into()));
    // Larger than the buffers of the connection, so the refusal comes in the middle of the body.
    let large = home.path().join("large");
    std::fs::write(&large, noise(30_000_000, 1)).unwrap();
    for (nth, backend) in [ann, bob].into_iter().enumerate() {
        backend.health().unwrap();
        let bench = Bench::new(backend, home.path().join(nth.to_string()), "/");
        bench.ok("add", &[("path", large.to_str().unwrap())]);
    }
    for credentials in [
        Credentials::None,
        Credentials::Bearer("wr0ng".into()),
        Credentials::Basic("bob".into(), "wr0ng".into()),
    ] {
        let backend = with(credentials.clone());
        let failure = backend.health().unwrap_err();
        assert_eq!(failure.error_type, "access_denied", "{failure:?}");
        let bench = Bench::new(backend.clone(), home.path().join("none"), "/");
        for parameters in
            [[("path", large.to_str().unwrap())], [("path", &bench.write("small", b"x"))]]
        {
            let failure = bench.fails("add", &parameters);
            assert_eq!(
                (failure.class, &failure.error_type[..]),
                (FailureClass::Outage, "access_denied"),
                "{failure:?}"
            );
        }
        let printed =
            format!("{credentials:?} {backend:?} {failure:?} {:?}", options(kubo.endpoint()));
        assert!(!printed.contains("wr0ng"), "{printed}");
    }

    // The same by settings; neither output nor stored files contain the credentials.
    let place = Place::new();
    configure(&place, &kubo, "username = \"bob\"\npassword = \"s3cret of bob\"\n");
    place.file("a.txt", "hello world\n");
    assert_eq!(added(&place, "a.txt"), ["QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"]);
    let shown = place.run("config show")
        + &place.run("show 1 --history")
        + &place.run("health --backend ipfs --json");
    assert!(shown.contains("********") && !shown.contains("s3cret"), "{shown}");
    configure(&place, &kubo, "token = \"wr0ng\"\n");
    place.run("add a.txt");
    let output =
        place.command("process --debug").env("IPFS_KIT_WAL_LOG", "trace").output().unwrap();
    let why = place.run("why 2");
    let said = String::from_utf8_lossy(&output.stdout)
        + String::from_utf8_lossy(&output.stderr)
        + why.as_str();
    assert!(said.contains("check `token`") && !said.contains("wr0ng"), "{said}");
    // Queued operations are unaffected, and complete once the settings are right.
    configure(&place, &kubo, "token = \"t0ken-of-ann\"\n");
    place.run("process");
    assert_eq!(place.json("show 2")["operation"]["status"], "completed");
}

#[test]
fn a_cancelled_upload_stops_within_two_seconds() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("endless");
    // A sparse file: it takes no space, and more time to send than this test waits.
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let node = backend(options(Kubo::shared().endpoint()));
    let request = behaviours::request("add", &[("path", path.to_str().unwrap())]);
    let attempt = Attempt::default();
    let (result, took) = std::thread::scope(|scope| {
        let running = scope.spawn(|| (node.execute(&request, &attempt), Instant::now()));
        while attempt.progress().0 < 10_000_000 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let since = Instant::now();
        attempt.cancel();
        let (result, ended) = running.join().unwrap();
        (result, ended - since)
    });
    assert_eq!(result, Err(AttemptError::Stopped));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(attempt.progress().1, 1 << 40);

    // An operation that exceeds its total time limit stops as well.
    let total = Some(Duration::from_secs(1));
    let bench = Bench::new(
        backend(IpfsOptions { total, ..options(Kubo::shared().endpoint()) }),
        home.path().to_owned(),
        "/",
    );
    let since = Instant::now();
    let failure = bench.fails("add", &[("path", path.to_str().unwrap())]);
    assert_eq!(
        (failure.class, &failure.error_type[..]),
        (FailureClass::Transient, "timed_out"),
        "{failure:?}"
    );
    assert!((1..3).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
}

#[test]
fn memory_does_not_grow_with_the_content() {
    let place = Place::in_memory();
    configure(&place, Kubo::shared(), "");
    std::fs::File::create(place.path("large")).unwrap().set_len(400 << 20).unwrap();
    let peak = |arguments: &str| {
        let (status, peak) = peak_of(place.start(arguments));
        assert!(status.success(), "{arguments}");
        peak
    };
    let sent = peak("add large --wait");
    let cid = place.json("show 1")["operation"]["result"]["cid"].as_str().unwrap().to_owned();
    let fetched = peak(&format!("submit get {cid} back --wait"));
    println!("peak KiB: {sent} for adding 400 MiB, {fetched} for getting it back");
    assert!(
        (1_000..64 << 10).contains(&sent) && (1_000..64 << 10).contains(&fetched),
        "{sent} {fetched}"
    );
    assert_eq!(std::fs::metadata(place.path("back")).unwrap().len(), 400 << 20);
}

#[test]
fn unreachable_and_foreign_servers_are_distinguished() {
    let home = tempfile::tempdir().unwrap();
    let kubo = Kubo::shared();
    let base = format!("http://127.0.0.1:{}", kubo.port());
    for (endpoint, error_type) in [
        (endpoint(1), "unreachable"),
        ("http://no-such-host.invalid/api/v0".to_owned(), "unreachable"),
        (format!("https://127.0.0.1:{}/api/v0", kubo.port()), "unreachable"),
        (format!("{base}/other"), "not_kubo"),
    ] {
        let bench = Bench::new(backend(options(endpoint.clone())), home.path().to_owned(), "/");
        let file = bench.write("f", b"x");
        let failure = bench.fails("add", &[("path", &file)]);
        let seen = (failure.class, &failure.error_type[..]);
        assert_eq!(seen, (FailureClass::Outage, error_type), "{endpoint}: {failure:?}");
        assert!(bench.backend.health().is_err(), "{endpoint}");
    }
}
