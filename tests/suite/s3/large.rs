//! Uploads in parts: complete and undamaged at the service, resumed after a crash, aborted when
//! they are no longer needed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wal_cli::backend::s3::S3Options;
use wal_cli::backend::{Attempt, AttemptError, AttemptStatus, Backend, Request};
use wal_cli::operation::{Outcome, Source};
use wal_cli::wal::manifest::sha256_hex;

use super::server::{BUCKET, OWNER, S3};
use super::{backend, before, configure, options, shown};
use crate::suite::behaviours::request;
use crate::suite::binary::Place;
use crate::suite::proxy::Fault;
use crate::suite::tools::peak_of;

/// Writes pseudorandom bytes, different in each piece.
pub fn noise(path: &Path, length: usize, seed: u64) {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Returns the size and the SHA-256 of an object, as another client reads it.
fn seen(s3: &S3, key: &str) -> String {
    s3.python(&format!(
        "body = s3.get_object(Bucket={BUCKET:?}, Key={key:?})['Body']\n\
         h = hashlib.sha256()\nn = 0\n\
         for piece in body.iter_chunks(1 << 20):\n h.update(piece)\n n += len(piece)\n\
         print(n, h.hexdigest())"
    ))
}

/// Returns the same of a file.
fn sum(path: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!(
        "{} {}",
        std::fs::metadata(path).unwrap().len(),
        text.split_whitespace().next().unwrap()
    )
}

fn notes(log: &Path) -> usize {
    std::fs::read_dir(log.join("uploads")).map_or(0, Iterator::count)
}

#[test]
fn large_files_arrive_complete_in_constant_memory() {
    let (place, s3) = (Place::in_memory(), S3::shared());
    for (key, checksums) in [("large/checked", true), ("large/plain", false)] {
        configure(&place, &s3.endpoint(), OWNER, &format!("checksums = {checksums}\n"));
        noise(&place.path("large"), (200 << 20) + 12_345, 7);
        let (status, sent) = peak_of(place.start(&format!("submit upload large {key} --wait")));
        assert!(status.success());
        assert_eq!(seen(s3, key), sum(&place.path("large")));
        let (status, fetched) = peak_of(place.start(&format!("submit get {key} back --wait")));
        assert!(status.success());
        assert_eq!(sum(&place.path("back")), sum(&place.path("large")));
        println!(
            "peak KiB: {sent} for putting 200 MiB, {fetched} for fetching it; checksums {checksums}"
        );
        assert!(
            (1_000..96 << 10).contains(&sent) && (1_000..96 << 10).contains(&fetched),
            "{sent} {fetched}"
        );
    }
    assert_eq!(shown(&place, 1)["receipt"]["parts"], "13");
    assert_eq!((notes(&place.log()), s3.uploads("large/")), (0, String::new()));
}

#[test]
fn a_directory_may_hold_large_files() {
    let (place, s3) = (Place::in_memory(), S3::shared());
    configure(&place, &s3.endpoint(), OWNER, "part_size = \"5 MiB\"\n");
    std::fs::create_dir_all(place.path("dir/sub")).unwrap();
    for (nth, name) in ["one", "sub/two", "sub/small"].into_iter().enumerate() {
        noise(
            &place.path("dir").join(name),
            if name == "sub/small" { 10 } else { 6 << 20 },
            nth as u64,
        );
    }
    place.run("submit upload dir large-dir --param recursive=true --wait");
    assert_eq!(shown(&place, 1)["receipt"]["objects"], "3");
    for name in ["one", "sub/two", "sub/small"] {
        assert_eq!(seen(s3, &format!("large-dir/{name}")), sum(&place.path("dir").join(name)));
    }
    assert_eq!(notes(&place.log()), 0);
}

/// Starts an upload of 12 MB in parts of 5 MB, of which the last part hits a fault of the proxy.
fn interrupted(s3: &S3, log: &Path, key: &str) -> (Arc<dyn Backend>, wal_cli::backend::Request) {
    noise(&log.join("file"), 12_000_000, 3);
    let proxy = before(s3);
    let through = S3Options {
        endpoint: Some(format!("http://127.0.0.1:{}", proxy.port())),
        part_jobs: 1,
        idle: Duration::from_millis(800),
        ..options(s3)
    };
    let path = log.join("file").to_str().unwrap().to_owned();
    let upload = request("upload", &[("path", &path), ("destination", key)]);
    let attempt = Attempt::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while attempt.progress().0 < 10 << 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
            proxy.plan("UploadPart", Fault::HangBeforeReading);
        });
        let broken = backend(log, through).execute(&upload, &attempt);
        assert!(matches!(broken, Err(AttemptError::Failed { .. })), "{broken:?}");
    });
    assert!(notes(log) > 0 && s3.uploads(key).lines().any(|begun| begun == key));
    (backend(log, options(s3)), upload)
}

#[test]
fn an_interrupted_upload_is_resumed_with_the_missing_parts_only() {
    let (home, s3) = (tempfile::tempdir().unwrap(), S3::shared());
    let (there, upload) = interrupted(s3, home.path(), "resumed");
    let attempt = Attempt::default();
    let proxy = before(s3);
    let counting =
        S3Options { endpoint: Some(format!("http://127.0.0.1:{}", proxy.port())), ..options(s3) };
    // It can neither create another upload nor send the parts that exist.
    proxy.plan("CreateMultipartUpload", Fault::Status(503));
    let outcome = backend(home.path(), counting).execute(&upload, &attempt).unwrap();
    assert_eq!((outcome.size, &outcome.receipt["parts"][..]), (Some(12_000_000), "3"));
    assert_eq!(seen(s3, "resumed"), sum(&home.path().join("file")));
    assert_eq!((notes(home.path()), s3.uploads("resumed")), (0, String::new()));
    assert!(there.orphans().is_empty());
}

#[test]
fn an_upload_without_a_whole_checksum_is_resumed_without_it() {
    let (home, s3) = (tempfile::tempdir().unwrap(), S3::shared());
    let (there, upload) = interrupted(s3, home.path(), "of parts");
    let entry = std::fs::read_dir(home.path().join("uploads")).unwrap().next().unwrap().unwrap();
    let mut note: serde_json::Value =
        serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
    assert_eq!(note["whole"], true);
    // As with older services, and with older versions of this program.
    let id = s3.python(&format!(
        "s3.abort_multipart_upload(Bucket={BUCKET:?}, Key='of parts', UploadId={})\n\
         u = s3.create_multipart_upload(Bucket={BUCKET:?}, Key='of parts', \
         ChecksumAlgorithm='CRC32')\nprint(u['UploadId'])",
        note["upload"]
    ));
    note["upload"] = id.into();
    note.as_object_mut().unwrap().remove("whole");
    std::fs::write(entry.path(), note.to_string()).unwrap();
    let outcome = there.execute(&upload, &Attempt::default()).unwrap();
    assert!(outcome.receipt["checksum_crc32"].ends_with("-3"), "{outcome:?}");
    assert_eq!(seen(s3, "of parts"), sum(&home.path().join("file")));
}

#[test]
fn changed_content_starts_a_new_upload() {
    let (home, s3) = (tempfile::tempdir().unwrap(), S3::shared());
    let (there, upload) = interrupted(s3, home.path(), "rewritten");
    // The same size and time: only the content shows the change.
    let (path, before) =
        (home.path().join("file"), std::fs::metadata(home.path().join("file")).unwrap());
    noise(&path, 12_000_000, 4);
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(before.modified().unwrap())
        .unwrap();
    there.execute(&upload, &Attempt::default()).unwrap();
    assert_eq!(seen(s3, "rewritten"), sum(&path));
    // Changed since, so another upload is created.
    let (there, upload) = interrupted(s3, home.path(), "rewritten again");
    noise(&path, 13_000_000, 5);
    there.execute(&upload, &Attempt::default()).unwrap();
    assert_eq!(seen(s3, "rewritten again"), sum(&path));
    assert_eq!((notes(home.path()), s3.uploads("rewritten")), (0, String::new()));
}

#[test]
fn orphaned_uploads_are_aborted_and_foreign_ones_are_not() {
    let (home, s3) = (tempfile::tempdir().unwrap(), S3::shared());
    let (there, upload) = interrupted(s3, home.path(), "given-up");
    assert_eq!(there.orphans(), [(upload.number, upload.id)]);
    there.abort_orphan(upload.number, upload.id).unwrap();
    there.abort_orphan(upload.number, upload.id).unwrap();
    assert_eq!(
        (there.orphans().len(), notes(home.path()), s3.uploads("given-up")),
        (0, 0, String::new())
    );

    // The process was killed before it received the upload id: it is the upload of this key that no
    // record names.
    let (there, lost) = interrupted(s3, home.path(), "unnamed");
    let (_, other) = interrupted(s3, home.path(), "unnamed");
    for entry in std::fs::read_dir(home.path().join("uploads")).unwrap() {
        let path = entry.unwrap().path();
        let mut note: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if note["number"] == lost.number.get() {
            note["upload"] = serde_json::Value::Null;
            std::fs::write(&path, note.to_string()).unwrap();
        }
    }
    there.abort_orphan(lost.number, lost.id).unwrap();
    assert_eq!(s3.uploads("unnamed"), "unnamed", "the other operation's is still there");
    there.execute(&other, &Attempt::default()).unwrap();
    assert_eq!((notes(home.path()), s3.uploads("unnamed")), (0, String::new()));
}

#[test]
fn uploads_are_aborted_on_cancellation_and_by_cleanup() {
    let s3 = S3::shared();
    for (key, at_work) in [("cancelled/running", true), ("cancelled/left", false)] {
        let place = Place::in_memory();
        configure(
            &place,
            &s3.endpoint(),
            OWNER,
            "part_size = \"5 MiB\"\nmax_bytes_per_second = \"8 MiB\"\n",
        );
        noise(&place.path("large"), 60 << 20, 1);
        place.run(&format!("submit upload large {key}"));
        let mut child = place.start("process");
        let begun = Instant::now();
        while s3.uploads("cancelled/") != key {
            assert!(begun.elapsed() < Duration::from_secs(60), "no upload was begun");
        }
        if at_work {
            let asked = Instant::now();
            place.run("cancel 1");
            child.wait().unwrap();
            assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        } else {
            child.kill().unwrap();
            child.wait().unwrap();
            place.run("cancel 1");
            // It is cancelled after its loop was killed.
            let rehearsed = place.json("cleanup --dry-run");
            assert_eq!(rehearsed["uploads_aborted"], serde_json::json!([]), "{rehearsed}");
            place.output("process");
        }
        assert_eq!(shown(&place, 1)["status"], "failed");
        assert_eq!((notes(&place.log()), s3.uploads("cancelled/")), (0, String::new()));
    }
    // Cancelled while no loop runs: `cleanup` aborts the upload.
    let place = Place::in_memory();
    configure(
        &place,
        &s3.endpoint(),
        OWNER,
        "part_size = \"5 MiB\"\nmax_bytes_per_second = \"8 MiB\"\n",
    );
    noise(&place.path("large"), 60 << 20, 1);
    place.run("submit upload large cancelled/swept");
    let mut child = place.start("process");
    while s3.uploads("cancelled/").is_empty() {}
    // A stopped loop releases the operation, which is resumed later.
    for _ in 0..2 {
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    child.wait().unwrap();
    assert_eq!(
        (shown(&place, 1)["status"].as_str(), s3.uploads("cancelled/")),
        (Some("pending"), "cancelled/swept".into())
    );
    place.run("cancel 1");
    let rehearsed = place.json("cleanup --dry-run");
    assert_eq!(rehearsed["uploads_aborted"], serde_json::json!([1]), "{rehearsed}");
    assert_eq!(s3.uploads("cancelled/"), "cancelled/swept");
    let text = place.run("cleanup");
    assert!(text.contains("1 unfinished upload of deleted operations aborted"), "{text}");
    assert_eq!((notes(&place.log()), s3.uploads("cancelled/")), (0, String::new()));
}

#[test]
fn large_objects_are_copied_in_parts() {
    let (home, s3) = (tempfile::tempdir().unwrap(), S3::shared());
    let there = backend(home.path(), S3Options { copy_max: 6 << 20, ..options(s3) });
    noise(&home.path().join("file"), 14_000_000, 9);
    let path = home.path().join("file").to_str().unwrap().to_owned();
    let upload = [
        ("path", &path[..]),
        ("destination", "copied/from"),
        ("content_type", "text/x"),
        ("metadata.by", "ann"),
    ];
    there.execute(&request("upload", &upload), &Attempt::default()).unwrap();
    for (operation_type, to) in [("copy", "copied/to"), ("move", "copied/away")] {
        let copy = request(operation_type, &[("source", "copied/from"), ("destination", to)]);
        let outcome = there.execute(&copy, &Attempt::default()).unwrap();
        assert_eq!((outcome.size, &outcome.receipt["parts"][..]), (Some(14_000_000), "3"));
        assert_eq!(seen(s3, to), sum(&home.path().join("file")));
        let print = format!(
            "h = s3.head_object(Bucket={BUCKET:?}, Key={to:?})\n\
             print(h['ContentType'], h['Metadata']['by'])"
        );
        assert_eq!(s3.python(&print), "text/x ann");
    }
    assert_eq!(
        s3.python(&format!(
            "print(s3.list_objects_v2(Bucket={BUCKET:?}, Prefix='copied/from')['KeyCount'])"
        )),
        "0"
    );
    assert_eq!((notes(home.path()), s3.uploads("copied/")), (0, String::new()));
}

#[test]
fn an_error_inside_the_response_to_the_last_call_is_an_error() {
    let (home, s3) = (tempfile::tempdir().unwrap(), S3::shared());
    let proxy = before(s3);
    proxy.plan("CompleteMultipartUpload", Fault::ErrorInside);
    let through =
        S3Options { endpoint: Some(format!("http://127.0.0.1:{}", proxy.port())), ..options(s3) };
    noise(&home.path().join("file"), 6_000_000, 2);
    let path = home.path().join("file").to_str().unwrap().to_owned();
    let upload = request("upload", &[("path", &path), ("destination", "inside")]);
    let there = backend(home.path(), through);
    let refused = there.execute(&upload, &Attempt::default());
    let Err(AttemptError::UnknownOutcome(failure)) = refused else { panic!("{refused:?}") };
    assert!(failure.message.contains("it went wrong inside"), "{failure:?}");
    assert_eq!(there.query_attempt(&upload), Ok(wal_cli::backend::AttemptStatus::NotDone));
    proxy.plan("*", Fault::None);
    there.execute(&upload, &Attempt::default()).unwrap();
    assert_eq!((seen(s3, "inside"), notes(home.path())), (sum(&home.path().join("file")), 0));
}

/// Notes a file as `add` does when it copies it.
fn note(upload: &mut Request, copy: &Path) {
    let content = std::fs::read(copy).unwrap();
    upload.source = Some(Source {
        size: content.len() as u64,
        mtime_ns: 0,
        inode: 0,
        ctime_ns: None,
        sha256: Some(sha256_hex(&content)),
        spool: None,
    });
    upload.content = Some(copy.to_owned());
}

/// Flips a bit of a file, without a trace in its metadata.
fn flip(path: &Path, place: usize) {
    let before = std::fs::metadata(path).unwrap().modified().unwrap();
    let mut content = std::fs::read(path).unwrap();
    content[place] ^= 1;
    std::fs::write(path, content).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
}

fn error_type(result: Result<Outcome, AttemptError>) -> String {
    match result {
        Err(AttemptError::Failed { failure, .. }) => failure.error_type,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_upload_is_completed_only_with_the_content_that_was_logged() {
    let s3 = S3::shared();
    for place in [0, 11_999_999] {
        let (home, key) = (tempfile::tempdir().unwrap(), format!("acknowledged/{place}"));
        let (there, mut upload) = interrupted(s3, home.path(), &key);
        let copy = home.path().join("file");
        note(&mut upload, &copy);
        // In a part of the earlier attempt, or in one that is sent now.
        flip(&copy, place);
        assert_eq!(error_type(there.execute(&upload, &Attempt::default())), "spool_damaged");
        assert!(matches!(there.query_attempt(&upload), Ok(AttemptStatus::NotDone)));
        // As it was: the parts that were read from the damaged file are sent again.
        flip(&copy, place);
        there.execute(&upload, &Attempt::default()).unwrap();
        assert_eq!(seen(s3, &key), sum(&copy));
    }
}

#[test]
fn a_damaged_object_is_not_taken_for_the_result_of_an_attempt() {
    let (home, s3) = (tempfile::tempdir().unwrap(), S3::shared());
    // In one piece, and in parts, whose etag is no hash of the content.
    for (checksums, length) in
        [(true, 1_000_000), (false, 1_000_000), (true, 12_000_000), (false, 12_000_000)]
    {
        let there = backend(home.path(), S3Options { checksums, ..options(s3) });
        let (copy, key) = (home.path().join("copy"), format!("acknowledged/{checksums}/{length}"));
        noise(&copy, length, 11);
        let path = copy.to_str().unwrap().to_owned();
        let mut upload = request("upload", &[("path", &path), ("destination", &key)]);
        note(&mut upload, &copy);
        there.execute(&upload, &Attempt::default()).unwrap();
        let is_done = |upload: &Request| match there.query_attempt(upload).unwrap() {
            AttemptStatus::Done(_) => true,
            AttemptStatus::NotDone => false,
            other => panic!("{other:?}"),
        };
        let missing = Request { content: Some(home.path().join("missing")), ..upload.clone() };
        assert!(is_done(&upload) && is_done(&missing), "{key}");
        // The same size and the same id, but other content.
        s3.python(&format!(
            "head = s3.head_object(Bucket={BUCKET:?}, Key={key:?})\n\
             s3.put_object(Bucket={BUCKET:?}, Key={key:?}, Body=b'x' * {length}, \
             Metadata=head['Metadata'])"
        ));
        assert!(!is_done(&upload) && !is_done(&missing), "{key}");
        // It does not block an attempt that must not replace anything.
        let mut once = upload.clone();
        once.parameters.insert("if_none_match".into(), "*".into());
        assert_eq!(error_type(there.execute(&once, &Attempt::default())), "damaged_content");
        there.execute(&once, &Attempt::default()).unwrap();
        assert_eq!(seen(s3, &key), sum(&copy));
        // The response to the last attempt was lost.
        there.execute(&once, &Attempt::default()).unwrap();
    }
}
