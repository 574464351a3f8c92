//! The backend `s3` on SeaweedFS; another client reads the objects.
#![expect(clippy::disallowed_methods, reason = "creates files as a user would, and measures")]

mod faults;
mod kills;
mod large;
mod refusals;
mod secrets;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use server::{BUCKET, Identity, OWNER, S3};
use wal_cli::backend::s3::{AccessKeys, S3Backend, S3Options, UploadRecords};
use wal_cli::backend::{Attempt, AttemptError, AttemptStatus, Backend};
use wal_cli::clock::{Clock, SystemClock};
use wal_cli::disk::OsDisk;
use wal_cli::operation::BackendName;

use super::behaviours::{self, Bench, request};
use super::binary::Place;
use super::proxy::{Proxy, Service};

/// Writes settings in which `s3` is this service, and the default backend.
fn configure(place: &Place, endpoint: &str, who: Identity, more: &str) {
    let bucket =
        if more.contains("bucket =") { String::new() } else { format!("bucket = \"{BUCKET}\"\n") };
    place.settings(&format!(
        "default_backend = \"s3\"\nretry_delay = 0.01\n[backends.s3]\n\
         endpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
         {bucket}access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n{more}",
        who.key, who.secret
    ));
}

/// Returns the options of a backend for a service, with short timeouts.
fn options(s3: &S3) -> S3Options {
    S3Options {
        name: BackendName::new("s3").unwrap(),
        endpoint: Some(s3.endpoint()),
        region: "us-east-1".into(),
        bucket: Some(BUCKET.into()),
        path_style: true,
        keys: Some(AccessKeys { id: OWNER.key.into(), secret: OWNER.secret.into(), token: None }),
        checksums: true,
        part_size: 5 << 20,
        part_jobs: 2,
        copy_max: 5 << 30,
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(30),
        total: None,
        probe: Duration::from_secs(2),
    }
}

/// Returns a backend whose log is in this directory.
fn backend(log: &std::path::Path, options: S3Options) -> Arc<dyn Backend> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Arc::new(S3Backend::new(Arc::new(OsDisk::new()), clock, UploadRecords::of(log), options))
}

/// Returns a proxy in front of a service; its commands have the names of S3.
fn before(s3: &S3) -> Proxy {
    fn command(head: &str) -> String {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        let is_copy = head.to_ascii_lowercase().contains("\r\nx-amz-copy-source:");
        let is_bucket = !path.trim_matches('/').contains('/');
        match method {
            "GET" if has("list-type") => "ListObjectsV2",
            "GET" if has("uploads") => "ListMultipartUploads",
            "GET" if has("uploadId") => "ListParts",
            "GET" => "GetObject",
            "HEAD" if is_bucket => "HeadBucket",
            "HEAD" => "HeadObject",
            "PUT" if has("partNumber") && is_copy => "UploadPartCopy",
            "PUT" if has("partNumber") => "UploadPart",
            "PUT" if is_copy => "CopyObject",
            "PUT" => "PutObject",
            "POST" if has("uploads") => "CreateMultipartUpload",
            "POST" if has("uploadId") => "CompleteMultipartUpload",
            "DELETE" if has("uploadId") => "AbortMultipartUpload",
            "DELETE" if head.to_ascii_lowercase().contains("\r\nif-match:") => "DeleteObject if",
            "DELETE" => "DeleteObject",
            other => other,
        }
        .to_owned()
    }
    let service = Service {
        command,
        error_inside: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                       <Error><Code>InternalError</Code>\
                       <Message>it went wrong inside</Message></Error>",
        refusal: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SomethingNew</Code>\
                  <Message>words that no release had before</Message></Error>",
    };
    Proxy::before(s3.port(), service)
}

/// Returns an operation as `show --json` prints it.
fn shown(place: &Place, number: u64) -> Value {
    place.json(&format!("show {number}"))["operation"].clone()
}

#[test]
fn every_type_behaves_as_on_other_backends() {
    let home = tempfile::tempdir().unwrap();
    for (names, checksums) in [("/shared", true), ("/shared-plain", false)] {
        let s3 = backend(home.path(), S3Options { checksums, ..options(S3::shared()) });
        let mut bench = Bench::new(s3, home.path().join(&names[1..]), names);
        bench.has_cids = false;
        bench.origin = format!("s3://{BUCKET}");
        behaviours::all(&bench);
    }
}

#[test]
fn tls_works_with_a_trusted_certificate() {
    // Not the existing service, which need not have a certificate.
    let (place, s3) = (Place::new(), S3::new());
    configure(&place, &s3.tls_endpoint(), OWNER, "part_size = \"5 MiB\"\n");
    place.file("small", "hello\n");
    std::fs::write(place.path("large"), vec![7; 12_000_000]).unwrap();
    let run = |arguments: &str| {
        let output =
            place.command(arguments).env("SSL_CERT_FILE", server::CERTIFICATE).output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
    };
    for name in ["small", "large"] {
        run(&format!("submit upload {name} tls/{name} --wait"));
        run(&format!("submit get tls/{name} back-{name} --wait"));
        assert!(
            std::fs::read(place.path(name)).unwrap()
                == std::fs::read(place.path(&format!("back-{name}"))).unwrap()
        );
        let whole =
            shown(&place, if name == "small" { 1 } else { 3 })["receipt"]["checksum_crc32"].clone();
        assert!(!whole.as_str().unwrap().contains('-'), "{whole}");
    }
    // Without a trusted certificate nothing is sent, and the operation stays queued.
    place.run("submit upload small tls/again");
    place.output("process");
    let waiting = shown(&place, 5);
    assert_eq!(
        (waiting["status"].as_str(), waiting["retry_count"].as_u64()),
        (Some("pending"), Some(0)),
        "{waiting:#}"
    );
    println!("{}", waiting["error"]);
}

#[test]
fn other_programs_can_read_an_object_that_was_put() {
    let (place, s3) = (Place::new(), S3::shared());
    configure(&place, &s3.endpoint(), OWNER, "");
    place.run("health --backend s3");
    place.file("hello.txt", "hello world\n");
    place.run(&format!("submit upload hello.txt s3://{BUCKET}/first/hello.txt --wait"));
    let operation = shown(&place, 1);
    assert_eq!(operation["result"]["size"], 12, "{operation:#}");
    assert_eq!(operation["receipt"]["key"], "first/hello.txt", "{operation:#}");
    assert_eq!(
        operation["receipt"]["etag"], "\"6f5902ac237024bdd0c176cb93063dc4\"",
        "{operation:#}"
    );
    let body = format!(
        "body = s3.get_object(Bucket={BUCKET:?}, Key='first/hello.txt')['Body']\n\
         print(body.read().decode(), end='')"
    );
    assert_eq!(s3.python(&body), "hello world");
    // Without a destination, under its own name.
    place.file("by its own name", "hello\n");
    let mut add = place.command("add --wait");
    assert!(add.arg("by its own name").status().unwrap().success());
    assert_eq!(shown(&place, 2)["receipt"]["key"], "by its own name");
    place.run("delete 2");
    // Into a folder, under its own name; a key alone is in the configured bucket.
    place.run("submit upload hello.txt first/ --wait");
    assert_eq!(shown(&place, 3)["receipt"]["key"], "first/hello.txt");
    place.run("submit get first/hello.txt back.txt --wait");
    assert_eq!(std::fs::read_to_string(place.path("back.txt")).unwrap(), "hello world\n");
    place.run("submit copy first/hello.txt first/copy.txt --wait");
    place.run("submit move first/copy.txt first/moved.txt --wait");
    assert_eq!(shown(&place, 6)["receipt"]["etag"], operation["receipt"]["etag"]);
    let said = place.run("submit list first --wait");
    let listing = shown(&place, 7)["receipt"]["listing"].clone();
    let names: Vec<&str> = listing.as_str().unwrap().lines().collect();
    assert_eq!(names.len(), 2, "{listing}");
    assert!(names[0].contains("hello.txt") && names[1].contains("moved.txt"), "{listing}");
    assert_eq!(said.lines().skip(1).collect::<Vec<_>>(), names, "{said}");
    place.run("submit rm first/moved.txt --wait");
    place.run("submit rm first/hello.txt --wait");
    let left = format!("print(s3.list_objects_v2(Bucket={BUCKET:?}, Prefix='first/')['KeyCount'])");
    assert_eq!(s3.python(&left), "0");
}

#[test]
fn options_of_an_object_are_stored_with_it() {
    let (place, s3) = (Place::new(), S3::shared());
    configure(&place, &s3.endpoint(), OWNER, "part_size = \"5 MiB\"\n");
    place.file("small", "{}\n");
    std::fs::write(place.path("large"), vec![7; 6 << 20]).unwrap();
    for name in ["small", "large"] {
        place.run(&format!(
            "submit upload {name} with/{name} --param content_type=application/json \
             --param metadata.by=ann \
             --param metadata.for=tests --param storage_class=STANDARD_IA --wait"
        ));
    }
    let print = format!(
        "for name in ('small', 'large'):\n \
         h = s3.head_object(Bucket={BUCKET:?}, Key='with/' + name)\n \
         print(h['ContentType'], h['Metadata']['by'], h['Metadata']['for'], \
         'wal-cli-operation' in h['Metadata'], \
         h.get('StorageClass'))"
    );
    let line = "application/json ann tests True STANDARD_IA";
    assert_eq!(s3.python(&print), format!("{line}\n{line}"));
    for bad in ["if_none_match=1", "metadata.By=x", "metadata.wal-cli-operation=1"] {
        let refused = place.output(&format!("submit upload small with/bad --param {bad}"));
        assert_eq!(refused.status.code(), Some(2), "{bad}: {refused:?}");
    }
}

#[test]
fn if_none_match_replaces_nothing() {
    let (place, s3) = (Place::new(), S3::shared());
    configure(&place, &s3.endpoint(), OWNER, "part_size = \"5 MiB\"\n");
    place.file("small", "first\n");
    std::fs::write(place.path("large"), vec![7; 6 << 20]).unwrap();
    for (nth, name) in [(1, "small"), (3, "large")] {
        place.run(&format!("submit upload {name} once/{name} --param if_none_match=* --wait"));
        let again = place
            .output(&format!("submit upload {name} once/{name} --param if_none_match=* --wait"));
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        let failed = shown(&place, nth + 1);
        assert_eq!(
            (&failed["error_type"], &failed["failure_class"]),
            (&"destination_exists".into(), &"permanent".into())
        );
    }
    // Its unfinished upload is aborted.
    assert_eq!(s3.uploads("once/"), "");
    // The object of its own earlier attempt does not block it.
    let s3 = backend(&place.log(), options(s3));
    let path = place.path("small").to_str().unwrap().to_owned();
    let once = request(
        "upload",
        &[("path", &path), ("destination", "once/by itself"), ("if_none_match", "*")],
    );
    let first = s3.execute(&once, &Attempt::default()).unwrap();
    let second = s3.execute(&once, &Attempt::default()).unwrap();
    assert_eq!((first.size, &first.receipt["etag"]), (second.size, &second.receipt["etag"]));
}

#[test]
fn long_listings_come_in_pages() {
    let (place, s3) = (Place::in_memory(), S3::shared());
    configure(&place, &s3.endpoint(), OWNER, "");
    let many = format!(
        "for n in range(1203):\n s3.put_object(Bucket={BUCKET:?}, Key=f'pages/{{n:04}}', Body=b'x')"
    );
    s3.python(&many);
    place.run("submit list pages listing --wait");
    let listing = std::fs::read_to_string(place.path("listing")).unwrap();
    assert_eq!(listing.lines().count(), 1203);
    place.run("submit move pages moved-pages --wait");
    place.run("submit get moved-pages fetched --wait");
    assert_eq!(std::fs::read_dir(place.path("fetched")).unwrap().count(), 1203);
    place.run("submit rm moved-pages --param recursive=true --wait");
    let left =
        format!("print(s3.list_objects_v2(Bucket={BUCKET:?}, Prefix='moved-pages')['KeyCount'])");
    assert_eq!(s3.python(&left), "0");
}

#[test]
fn a_query_recognises_the_operation_that_put_an_object() {
    let home = tempfile::tempdir().unwrap();
    let s3 = backend(home.path(), options(S3::shared()));
    let bench = Bench::new(s3.clone(), home.path().join("files"), "/asked");
    let hello = bench.write("hello", b"hello\n");
    let put = || request("upload", &[("path", &hello), ("destination", "/asked/hello")]);
    let (ours, other) = (put(), put());
    assert_eq!(s3.query_attempt(&ours), Ok(AttemptStatus::NotDone));
    s3.execute(&ours, &Attempt::default()).unwrap();
    assert!(matches!(s3.query_attempt(&ours),
            Ok(AttemptStatus::Done(outcome)) if outcome.size == Some(6)));
    assert_eq!(
        s3.query_attempt(&other),
        Ok(AttemptStatus::NotDone),
        "the same content, put by another operation"
    );
    s3.execute(&other, &Attempt::default()).unwrap();
    assert_eq!(s3.query_attempt(&ours), Ok(AttemptStatus::NotDone), "put, and put over since");
    let missing = [("source", "s3://no-such-bucket/x"), ("destination", &hello)];
    let refused = s3.execute(&request("get", &missing), &Attempt::default());
    assert!(
        matches!(&refused, Err(AttemptError::Failed { failure, .. })
            if failure.error_type == "no_such_bucket"),
        "{refused:?}"
    );
}

#[test]
fn keys_are_used_as_written() {
    let (place, s3) = (Place::new(), S3::shared());
    configure(&place, &s3.endpoint(), OWNER, "");
    place.file("x", "odd\n");
    for (nth, key) in ["odd/a b+c%20\"ü.txt", "odd/it's & so=on?#.txt", "odd/ünïcödé/日本"]
        .into_iter()
        .enumerate()
    {
        let mut command = place.command("submit upload x");
        assert!(command.args([key, "--wait"]).status().unwrap().success());
        let mut command = place.command("submit copy");
        assert!(
            command.args([key, &format!("odd copy/{nth}"), "--wait"]).status().unwrap().success()
        );
    }
    let print = format!(
        "found = s3.list_objects_v2(Bucket={BUCKET:?}, Prefix='odd/')['Contents']\n\
         print([o['Key'] for o in found], \
         s3.list_objects_v2(Bucket={BUCKET:?}, Prefix='odd copy/')['KeyCount'])"
    );
    let keys = s3.python(&print);
    for key in ["a b+c%20\"ü.txt", "it's & so=on?#.txt", "ünïcödé/日本"] {
        assert!(keys.contains(key), "{key}: {keys}");
    }
    assert!(keys.ends_with(" 3"), "{keys}");
}

#[test]
fn a_location_is_parsed_in_every_form_and_is_never_a_bucket() {
    let home = tempfile::tempdir().unwrap();
    let s3 = backend(home.path(), options(S3::shared()));
    let bench = Bench::new(s3, home.path().join("files"), "/same");
    let hello = bench.write("hello", b"hello\n");
    bench.ok("upload", &[("path", &hello), ("destination", "same/photos/a")]);
    for bucket in [format!("s3://{BUCKET}/"), format!("s3://{BUCKET}//"), "/".into(), "//".into()] {
        assert_eq!(
            bench.refused("rm", &[("path", &bucket), ("recursive", "true")]).0,
            "bad_path",
            "{bucket}"
        );
        assert_eq!(
            bench.refused("move", &[("source", &bucket), ("destination", "x")]).0,
            "bad_path",
            "{bucket}"
        );
    }
    let itself = format!("s3://{BUCKET}/same/photos/a");
    let within = format!("s3://{BUCKET}/same/photos/2026");
    for operation_type in ["move", "copy"] {
        let onto = [("source", "same/photos/a"), ("destination", &itself[..])];
        assert_eq!(bench.refused(operation_type, &onto).0, "bad_path");
        let below = [("source", "same/photos"), ("destination", &within[..])];
        assert_eq!(bench.refused(operation_type, &below).0, "bad_path");
    }
    bench.ok("cat", &[("source", "same/photos/a"), ("destination", &bench.path("still there"))]);
}

#[test]
fn an_object_and_a_folder_may_share_a_name() {
    let home = tempfile::tempdir().unwrap();
    let s3 = backend(home.path(), options(S3::shared()));
    let bench = Bench::new(s3, home.path().join("files"), "/twins");
    let names = |folder: &str| {
        let listed = bench.ok("list", &[("path", folder)]).receipt["listing"].clone();
        listed.lines().map(|line| line.split('"').nth(3).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let put = |name: &str, content: &[u8]| {
        let path = bench.write("content", content);
        bench.ok("upload", &[("path", &path), ("destination", name)]);
    };
    put("twins/a", b"object");
    put("twins/a/x", b"in the folder");
    bench.ok("move", &[("source", "twins/a"), ("destination", "twins/b")]);
    assert_eq!(names("twins/a"), ["x"], "the folder stays where it is");
    // It is unknown whether the object or the folder was to be moved.
    let moved = [("source", "twins/a"), ("destination", "twins/b")];
    assert!(matches!(bench.ask("move", &moved), AttemptStatus::Unknown(_)));
    put("twins/a", b"object");
    bench.ok("rm", &[("path", "twins/a")]);
    assert_eq!(names("twins/a"), ["x"]);
    // A key with a slash is the folder, with or without a marker.
    bench.ok("mkdir", &[("path", "twins/album")]);
    put("twins/album/one", b"1");
    bench.ok("copy", &[("source", "twins/album/"), ("destination", "twins/copy")]);
    assert_eq!(names("twins/copy"), ["one"]);
    bench.ok("get", &[("source", "twins/album/"), ("destination", &bench.path("album"))]);
    assert_eq!(bench.read("album/one"), b"1");
    bench.ok("copy", &[("source", "twins/album/one"), ("destination", "twins/copy/")]);
    bench.ok("move", &[("source", "twins/b"), ("destination", "twins/copy/")]);
    assert_eq!(names("twins/copy"), ["b", "one"]);
    bench.ok("rm", &[("path", "twins/album/"), ("recursive", "true")]);
    // SeaweedFS keeps the empty folder.
    let left = bench.run("list", &[("path", "twins/album")]);
    assert!(left.map_or(true, |listed| listed.receipt["entries"] == "0"));
    // Moved up from a nested folder, one object would replace another before that is copied.
    put("twins/n/n/n/x", b"deep");
    put("twins/n/n/x", b"less");
    let up = [("source", "twins/n/n"), ("destination", "twins/n")];
    assert_eq!(bench.refused("move", &up).0, "bad_path");
}
