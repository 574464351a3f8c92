//! Every network fault × every type of operation: its state, its error, and the time of its retry.

use wal_cli::backend::s3::S3Options;
use wal_cli::backend::{Attempt, AttemptError};
use wal_cli::config::Secret;
use wal_cli::operation::{FailureClass, Operation, Status};

use super::before;
use super::server::{BUCKET, OWNER, S3};
use crate::suite::behaviours::request;
use crate::suite::faults::{
    Case, Expected, HANGS, INTERRUPTIONS, Lost, OVERLOADS, PATIENCE, Table, Unreachable,
};
use crate::suite::proxy::Fault;

/// Each type, with the call that a fault hits, and what follows from a lost response.
const TYPES: [(&str, &str, Lost, Answer); 17] = [
    ("add", "PutObject", Lost::Asked, Answer::Bare),
    ("upload", "PutObject", Lost::Asked, Answer::Bare),
    ("upload in parts", "CreateMultipartUpload", Lost::Read, Answer::Text),
    ("upload in parts", "UploadPart", Lost::Read, Answer::Bare),
    ("upload in parts", "CompleteMultipartUpload", Lost::Asked, Answer::Text),
    ("get", "GetObject", Lost::Read, Answer::Content),
    ("cat", "GetObject", Lost::Read, Answer::Content),
    ("download a folder", "ListObjectsV2", Lost::Read, Answer::Text),
    ("rm", "HeadObject", Lost::Read, Answer::Head),
    ("rm", "DeleteObject", Lost::Asked, Answer::Bare),
    ("rm a folder", "DeleteObject", Lost::Asked, Answer::Bare),
    ("list", "ListObjectsV2", Lost::Read, Answer::Text),
    ("mkdir", "PutObject", Lost::Repeated, Answer::Bare),
    ("copy", "CopyObject", Lost::Repeated, Answer::Text),
    ("move", "CopyObject", Lost::Repeated, Answer::Text),
    ("move", "DeleteObject if", Lost::Asked, Answer::Bare),
    ("move a folder", "DeleteObject if", Lost::Asked, Answer::Bare),
];

/// The form of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Headers without a body, which cannot end in the middle.
    Bare,
    /// The same, in response to a HEAD request.
    Head,
    /// XML.
    Text,
    /// The content of an object.
    Content,
}

/// Returns the expected state after a fault in one call.
fn expected(fault: Fault, lost: Lost, answer: Answer) -> Expected {
    let asked_or = |error_type| {
        if lost == Lost::Asked { Expected::Completed } else { Expected::Retrying(error_type) }
    };
    let has_middle = matches!(answer, Answer::Text | Answer::Content);
    match fault {
        Fault::None => Expected::Completed,
        Fault::HangBeforeReading | Fault::HangBeforeHead => Expected::Retrying("timed_out"),
        Fault::HangInBody | Fault::ResetInBody | Fault::Truncate if !has_middle => {
            Expected::Completed
        }
        Fault::HangInBody => asked_or("timed_out"),
        Fault::ResetInBody | Fault::Truncate | Fault::DropAnswer => asked_or("connection_lost"),
        Fault::Status(429) => Expected::RetryingLater("rate_limited"),
        // The service may have executed it before the error, so it is queried; the requested delay
        // applies to errors only.
        Fault::Status(500 | 502 | 504) if lost != Lost::Read => Expected::Retrying("unavailable"),
        Fault::Status(_) => Expected::RetryingLater("unavailable"),
        // An error in place of content could be content, and an unread body says nothing.
        Fault::ErrorInside if matches!(answer, Answer::Content | Answer::Head) => {
            Expected::Retrying("bad_answer")
        }
        Fault::ErrorInside => Expected::Retrying("unavailable"),
        // The query decides, whatever the response says.
        Fault::RefuseBehind => asked_or("unavailable"),
        Fault::Nonsense => Expected::Retrying("bad_answer"),
        other => panic!("{other:?} has a test of its own"),
    }
}

/// Returns a log whose service is behind this port.
fn table(port: u16) -> Table {
    let straight = S3::shared().endpoint();
    Table::new("s3", "S3 at http://127.0.0.1:", |s3, is_faulty| {
        let s3 = s3.s3_mut().unwrap();
        s3.endpoint =
            Some(if is_faulty { format!("http://127.0.0.1:{port}") } else { straight.clone() });
        s3.bucket = Some(BUCKET.into());
        s3.region = Some("us-east-1".into());
        s3.access_key_id = Some(Secret::new(OWNER.key.into()));
        s3.secret_access_key = Some(Secret::new(OWNER.secret.into()));
        s3.part_size = 5 << 20;
        s3.part_jobs = 2;
        // Longer than the connection timeout, so that it is known which of them ends a call.
        s3.timeouts.idle = 2 * PATIENCE;
    })
}

/// Runs one operation of a type after preparing what it needs; `begin` starts the fault.
fn attempt(table: &Table, operation_type: &str, begin: &dyn Fn()) -> Operation {
    let nth = Table::next();
    let names = format!("faults-{}-{nth}", std::process::id());
    let (path, file) = table.write(nth);
    let (from, to) = (format!("{names}/from"), format!("{names}/to"));
    let upload = |to: &str| drop(table.prepared("upload", &[("path", &file), ("destination", to)]));
    let out = table.directory.path().join(format!("out-{nth}")).to_str().unwrap().to_owned();
    let (kind, parameters): (&str, Vec<(&str, String)>) = match operation_type {
        "add" | "upload" => (operation_type, vec![("path", file.clone()), ("destination", to)]),
        "upload in parts" => {
            super::large::noise(&path, 6 << 20, nth);
            ("upload", vec![("path", file.clone()), ("destination", to)])
        }
        "get" | "cat" => {
            upload(&from);
            (operation_type, vec![("source", from), ("destination", out)])
        }
        "download a folder" => {
            upload(&format!("{from}/a"));
            ("download", vec![("source", from), ("destination", out)])
        }
        "mkdir" => ("mkdir", vec![("path", to)]),
        "list" => {
            upload(&from);
            ("list", vec![("path", names.clone())])
        }
        "rm" => {
            upload(&from);
            ("rm", vec![("path", from)])
        }
        "rm a folder" => {
            upload(&format!("{from}/a"));
            ("rm", vec![("path", from), ("recursive", "true".into())])
        }
        "move a folder" => {
            upload(&format!("{from}/a"));
            ("move", vec![("source", from), ("destination", to)])
        }
        "copy" | "move" => {
            upload(&from);
            (operation_type, vec![("source", from), ("destination", to)])
        }
        other => panic!("{other}"),
    };
    begin();
    table.run_owned(kind, &parameters)
}

fn every_type_with(faults: &[Fault]) {
    let proxy = before(S3::shared());
    for fault in faults {
        let cases = TYPES.map(|(operation_type, call, lost, answer)| {
            let expected = expected(*fault, lost, answer);
            Case { operation_type, call, expected }
        });
        table(proxy.port()).walk(&proxy, *fault, attempt, cases);
    }
}

#[test]
fn without_a_fault_every_type_passes_the_proxy() {
    every_type_with(&[Fault::None]);
}

#[test]
fn hangs_end_at_the_limit_and_are_settled() {
    every_type_with(&HANGS);
}

#[test]
fn a_request_that_is_not_read_ends_at_the_limit() {
    every_type_with(&[Fault::HangBeforeReading]);
}

#[test]
fn interrupted_responses_are_settled_by_a_query() {
    every_type_with(&INTERRUPTIONS);
}

#[test]
fn overload_is_waited_out_for_the_requested_time() {
    every_type_with(&OVERLOADS);
}

#[test]
fn errors_inside_and_after_a_response_are_errors() {
    every_type_with(&[Fault::ErrorInside, Fault::RefuseBehind, Fault::Nonsense]);
}

#[test]
fn a_query_decides_about_errors_before_an_outage() {
    let proxy = before(S3::shared());
    for fault in [Fault::RefuseBehind, Fault::DropAnswer] {
        for (operation_type, call) in
            [("rm", "DeleteObject"), ("move", "DeleteObject if"), ("upload", "PutObject")]
        {
            let table = table(proxy.port());
            let operation = attempt(&table, operation_type, &|| {
                proxy.plan(call, fault);
                proxy.also("HeadBucket", Fault::Status(502));
            });
            proxy.plan("*", Fault::None);
            table.check(
                &operation,
                Expected::Completed,
                &format!("{fault:?} at {call}, and no probe succeeds"),
            );
        }
    }
}

#[test]
fn a_move_does_not_remove_an_object_that_was_replaced() {
    let (proxy, home) = (before(S3::shared()), tempfile::tempdir().unwrap());
    let endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let there = super::backend(home.path(), S3Options { endpoint, ..super::options(S3::shared()) });
    let put = |key: &str, text: &str| {
        S3::shared()
            .python(&format!("s3.put_object(Bucket={BUCKET:?}, Key={key:?}, Body=b{text:?})"));
    };
    let read = |key: &str| {
        S3::shared().python(&format!(
            "print(s3.get_object(Bucket={BUCKET:?}, Key={key:?})['Body'].read().decode())"
        ))
    };
    for (source, object, moved) in [
        ("replaced/from", "replaced/from", "replaced/to"),
        ("replaced/all", "replaced/all/a", "replaced/to/a"),
    ] {
        put(object, "old");
        let to = if source == object { moved } else { "replaced/to" };
        let request = request("move", &[("source", source), ("destination", to)]);
        let newer = object.to_owned();
        proxy.first("DeleteObject if", move || put(&newer, "new"));
        let refused = there.execute(&request, &Attempt::default());
        let Err(AttemptError::Failed { failure, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(
            (failure.class, &failure.error_type[..]),
            (FailureClass::Transient, "conflict"),
            "{failure:?}"
        );
        assert_eq!((read(object).trim(), read(moved).trim()), ("new", "old"));
        // On a service without conditions for removals, the object is removed without one.
        proxy.plan("DeleteObject if", Fault::Status(501));
        there.execute(&request, &Attempt::default()).unwrap();
        proxy.plan("*", Fault::None);
        assert_eq!(read(moved).trim(), "new");
        let gone = there.execute(
            &self::request("get", &[("source", object), ("destination", "/nowhere")]),
            &Attempt::default(),
        );
        assert!(gone.is_err());
        S3::shared().python(&format!("s3.delete_object(Bucket={BUCKET:?}, Key={moved:?})"));
    }
}

#[test]
fn a_move_accepts_a_source_that_no_longer_exists() {
    let (proxy, home) = (before(S3::shared()), tempfile::tempdir().unwrap());
    let endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let there = super::backend(home.path(), S3Options { endpoint, ..super::options(S3::shared()) });
    let keys = |of: &str| {
        S3::shared().python(&format!(
            "found = s3.list_objects_v2(Bucket={BUCKET:?}, Prefix={of:?})\n\
             print([o['Key'] for o in found.get('Contents', [])])"
        ))
    };
    for (nth, fault) in
        [Fault::None, Fault::Status(412), Fault::Status(404)].into_iter().enumerate()
    {
        let (from, to) = (format!("gone-{nth}/from"), format!("gone-{nth}/to"));
        S3::shared().python(&format!("s3.put_object(Bucket={BUCKET:?}, Key={from:?}, Body=b'x')"));
        proxy.plan("DeleteObject if", fault);
        let key = from.clone();
        // As if the same call had arrived twice; SeaweedFS reports a failed precondition.
        proxy.first("DeleteObject if", move || {
            S3::shared().python(&format!("s3.delete_object(Bucket={BUCKET:?}, Key={key:?})"));
        });
        there
            .execute(
                &request("move", &[("source", &from), ("destination", &to)]),
                &Attempt::default(),
            )
            .unwrap();
        assert_eq!(keys(&format!("gone-{nth}/")).trim(), format!("['{to}']"));
    }
    // A service that reports this for an unchanged object does not support the condition.
    S3::shared().python(&format!("s3.put_object(Bucket={BUCKET:?}, Key='odd/from', Body=b'x')"));
    for status in [412, 400, 405] {
        proxy.plan("DeleteObject if", Fault::Status(status));
        there
            .execute(
                &request("move", &[("source", "odd/from"), ("destination", "odd/to")]),
                &Attempt::default(),
            )
            .unwrap();
        assert_eq!(keys("odd/").trim(), "['odd/to']");
        proxy.plan("*", Fault::None);
        there
            .execute(
                &request("move", &[("source", "odd/to"), ("destination", "odd/from")]),
                &Attempt::default(),
            )
            .unwrap();
    }
}

#[test]
fn content_under_a_folder_key_is_kept() {
    let (proxy, home) = (before(S3::shared()), tempfile::tempdir().unwrap());
    let endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let there = super::backend(home.path(), S3Options { endpoint, ..super::options(S3::shared()) });
    S3::shared().python(&format!("s3.put_object(Bucket={BUCKET:?}, Key='odd-marks/a/')"));
    // SeaweedFS stores no content under such keys; others do, and list its size.
    proxy.plan("ListObjectsV2", Fault::Other("<Size>0</Size>", "<Size>7</Size>"));
    let out = home.path().join("out");
    for (kind, destination) in
        [("move", "odd-moved"), ("copy", "odd-copied"), ("get", out.to_str().unwrap())]
    {
        let parameters = [("source", "odd-marks"), ("destination", destination)];
        let refused = there.execute(&request(kind, &parameters), &Attempt::default());
        let Err(AttemptError::Failed { failure, .. }) = refused else {
            panic!("{kind}: {refused:?}")
        };
        let expected = if kind == "get" { "unsupported_name" } else { "not_found" };
        assert_eq!(
            (failure.class, &failure.error_type[..]),
            (FailureClass::Permanent, expected),
            "{failure:?}"
        );
    }
    proxy.plan("*", Fault::None);
    let parameters = [("source", "odd-marks"), ("destination", "odd-moved")];
    there.execute(&request("move", &parameters), &Attempt::default()).unwrap();
}

#[test]
fn responses_of_other_servers_fail_no_operation() {
    let proxy = before(S3::shared());
    proxy.plan("*", Fault::Status(404));
    let table = table(proxy.port());
    for operation_type in ["upload", "get", "mkdir", "rm"] {
        let operation = attempt(&table, operation_type, &|| table.forget_health());
        assert_eq!(
            (operation.status(), operation.retry_count),
            (Status::Pending, 0),
            "{operation:?}"
        );
        table.cancel(&operation);
    }
}

#[test]
fn content_damaged_in_transit_is_refused() {
    let proxy = before(S3::shared());
    let table = table(proxy.port());
    // In both directions: the service, and then the backend, detects the wrong checksum.
    for (operation_type, call, fault, error_type) in [
        ("get", "GetObject", Fault::Other("content", "Content"), "damaged_content"),
        ("cat", "GetObject", Fault::Other("content", "Content"), "damaged_content"),
        ("upload", "PutObject", Fault::OtherSent("content", "Content"), "damaged_content"),
        ("add", "PutObject", Fault::OtherSent("content", "Content"), "damaged_content"),
    ] {
        let operation = attempt(&table, operation_type, &|| proxy.plan(call, fault));
        let case = format!("{fault:?} at {call} of `{operation_type}`");
        proxy.plan("*", Fault::None);
        table.check(&operation, Expected::Retrying(error_type), &case);
        table.check_retry(&operation, &case);
    }
}

#[test]
fn checksums_of_content_are_in_the_headers() {
    let (proxy, home) = (before(S3::shared()), tempfile::tempdir().unwrap());
    let endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let path = home.path().join("file");
    let send = |checksums: bool, size: usize| {
        let copy_max = 6 << 20;
        let options = S3Options {
            checksums,
            copy_max,
            endpoint: endpoint.clone(),
            ..super::options(S3::shared())
        };
        let there = super::backend(home.path(), options);
        std::fs::write(&path, "content".repeat(size / 7)).unwrap();
        let upload = [("path", path.to_str().unwrap()), ("destination", "announced/file")];
        there.execute(&request("upload", &upload), &Attempt::default()).unwrap();
        there
    };
    send(true, 7);
    let head = proxy.head("PutObject");
    // The CRC-32 and the SHA-256 of `content`, from `gzip` and `sha256sum`.
    let sha256 = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    assert!(head.contains("x-amz-checksum-crc32: /sUwqQ==") && head.contains(sha256), "{head}");
    send(false, 7);
    let head = proxy.head("PutObject");
    assert!(!head.contains("x-amz-checksum-") && head.contains(sha256), "{head}");
    let there = send(true, 7_000_000);
    let head = proxy.head("UploadPart");
    assert!(head.contains("x-amz-checksum-crc32") && !head.contains("UNSIGNED-PAYLOAD"), "{head}");
    for call in ["PutObject", "UploadPart"] {
        // Garage and others accept no content signed in chunks, and old services no trailers.
        let head = proxy.head(call);
        assert!(!head.contains("aws-chunked") && !head.contains("x-amz-trailer"), "{head}");
    }
    // The object has a checksum of the whole, with which fetched content is compared.
    let head = proxy.head("CompleteMultipartUpload");
    assert!(
        head.contains("x-amz-checksum-crc32: ")
            && head.contains("x-amz-checksum-type: FULL_OBJECT"),
        "{head}"
    );
    let get = [("source", "announced/file"), ("destination", path.to_str().unwrap())];
    proxy.plan("GetObject", Fault::Other("content", "Content"));
    let refused = there.execute(&request("get", &get), &Attempt::default());
    let Err(AttemptError::Failed { failure, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (failure.class, &failure.error_type[..]),
        (FailureClass::Transient, "damaged_content"),
        "{failure:?}"
    );
    proxy.plan("*", Fault::None);
    let got = there.execute(&request("get", &get), &Attempt::default()).unwrap();
    assert!(!got.receipt["checksum_crc32"].contains('-'), "{got:?}");
    // MinIO and Versity report no checksums of parts that they copy.
    let copy = [("source", "announced/file"), ("destination", "announced/copy")];
    there.execute(&request("copy", &copy), &Attempt::default()).unwrap();
    let head = proxy.head("CreateMultipartUpload");
    assert!(
        head.contains("announced/copy") && !head.contains("x-amz-checksum-algorithm"),
        "{head}"
    );
}

#[test]
fn content_without_a_checksum_is_compared_by_its_etag() {
    let (proxy, home) = (before(S3::shared()), tempfile::tempdir().unwrap());
    let endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let there = super::backend(home.path(), S3Options { endpoint, ..super::options(S3::shared()) });
    let path = home.path().join("file");
    let spoilt = |kind: &str, parameters: &[(&str, &str)]| {
        let refused = there.execute(&request(kind, parameters), &Attempt::default());
        let Err(AttemptError::Failed { failure, .. }) = refused else { panic!("{refused:?}") };
        let found = (failure.class, &failure.error_type[..]);
        assert_eq!(found, (FailureClass::Transient, "damaged_content"), "{failure:?}");
        proxy.plan("*", Fault::None);
        there.execute(&request(kind, parameters), &Attempt::default()).unwrap();
    };
    for (call, size) in [("PutObject", 1000), ("UploadPart", 6_000_000)] {
        std::fs::write(&path, "content".repeat(size / 7)).unwrap();
        proxy.plan(call, Fault::OtherEtag);
        spoilt("upload", &[("path", path.to_str().unwrap()), ("destination", "bare/sent")]);
    }
    S3::shared().python(&format!(
        "bare = boto3.client('s3', endpoint_url='{}', region_name='us-east-1', \
         aws_access_key_id='{}', aws_secret_access_key='{}',\n\
             config=config.merge(botocore.config.Config(\
             request_checksum_calculation='when_required')))\n\
         bare.put_object(Bucket={BUCKET:?}, Key='bare/got', Body=b'content')",
        S3::shared().endpoint(),
        OWNER.key,
        OWNER.secret
    ));
    proxy.plan("GetObject", Fault::Other("content", "Content"));
    spoilt("get", &[("source", "bare/got"), ("destination", path.to_str().unwrap())]);
}

#[test]
fn a_file_changed_while_it_is_sent_is_reported() {
    use std::os::unix::fs::FileExt;
    let (proxy, home) = (before(S3::shared()), tempfile::tempdir().unwrap());
    let endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let there = super::backend(
        home.path(),
        S3Options { endpoint, part_size: 64 << 20, ..super::options(S3::shared()) },
    );
    let path = home.path().join("file");
    std::fs::write(&path, vec![7; 40 << 20]).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    // As by a program that writes through a mapping: only the content shows the change.
    proxy.first("PutObject", move || {
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"8", (40 << 20) - 1).unwrap();
        file.set_modified(modified).unwrap();
    });
    let upload =
        request("upload", &[("path", path.to_str().unwrap()), ("destination", "changing")]);
    let refused = there.execute(&upload, &Attempt::default());
    let Err(AttemptError::Failed { failure, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (failure.class, &failure.error_type[..]),
        (FailureClass::Permanent, "source_changed"),
        "{failure:?}"
    );
    let gone =
        format!("print(s3.list_objects_v2(Bucket={BUCKET:?}, Prefix='changing')['KeyCount'])");
    assert_eq!(S3::shared().python(&gone), "0");
}

#[test]
fn content_is_compared_on_a_service_without_checksums() {
    let (proxy, home) = (before(S3::shared()), tempfile::tempdir().unwrap());
    let endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let options = S3Options { checksums: false, endpoint, ..super::options(S3::shared()) };
    let there = super::backend(home.path(), options);
    let path = home.path().join("file");
    for (call, size) in [("PutObject", 1000), ("UploadPart", 6_000_000)] {
        std::fs::write(&path, "content".repeat(size / 7)).unwrap();
        let key = format!("unchecked/{call}");
        let parameters =
            [("path", path.to_str().unwrap()), ("destination", &key), ("if_none_match", "*")];
        let upload = request("upload", &parameters);
        proxy.plan(call, Fault::OtherSent("content", "Content"));
        let refused = there.execute(&upload, &Attempt::default());
        let Err(AttemptError::Failed { failure, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(
            (failure.class, &failure.error_type[..]),
            (FailureClass::Transient, "damaged_content"),
            "{failure:?}"
        );
        proxy.plan("*", Fault::None);
        // The object is neither taken for the result, nor does it block the next attempt.
        assert!(matches!(
            there.query_attempt(&upload),
            Ok(wal_cli::backend::AttemptStatus::NotDone)
        ));
        there.execute(&upload, &Attempt::default()).unwrap();
        assert!(matches!(
            there.query_attempt(&upload),
            Ok(wal_cli::backend::AttemptStatus::Done(_))
        ));
        let out = home.path().join("out");
        let get = [("source", &key[..]), ("destination", out.to_str().unwrap())];
        proxy.plan("GetObject", Fault::Other("content", "Content"));
        let spoilt = there.execute(&request("get", &get), &Attempt::default());
        // The etag of an object in parts is not an MD5, so it cannot be compared.
        assert_eq!(spoilt.is_err(), call == "PutObject", "{spoilt:?}");
        proxy.plan("*", Fault::None);
    }
}

#[test]
fn an_unreachable_service_costs_no_attempt_of_any_type() {
    let unreachable_ports = Unreachable::new();
    let (silent, broken) = (before(S3::shared()), before(S3::shared()));
    silent.plan("*", Fault::HangBeforeHead);
    broken.plan("*", Fault::Status(500));
    let unreachable = unreachable_ports.ports().map(|port| (port, "unreachable"));
    let others = [(silent.port(), "timed_out"), (broken.port(), "unavailable")];
    for (port, error_type) in unreachable.into_iter().chain(others) {
        table(port).check_unreachable(
            error_type,
            attempt,
            TYPES.map(|(operation_type, ..)| operation_type),
        );
    }
}
