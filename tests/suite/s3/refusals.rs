//! Refusals of the service: each has its failure class, its error type and a hint.

use std::sync::Arc;
use std::time::Duration;

use wal_cli::backend::s3::{S3Backend, S3Options, UploadRecords};
use wal_cli::backend::{Attempt, AttemptError, Backend};
use wal_cli::clock::{Clock, ManualClock, SystemClock};
use wal_cli::disk::OsDisk;
use wal_cli::operation::FailureClass;

use super::configure;
use super::options;
use super::server::{BUCKET, Identity, OWNER, READER, S3};
use crate::suite::behaviours::request;
use crate::suite::binary::Place;

/// Runs one upload with these settings; returns status, class, type, message and spent attempts.
fn upload(
    s3: &S3,
    who: Identity,
    more: &str,
    destination: &str,
) -> (String, String, String, String, u64) {
    let place = Place::new();
    configure(&place, &s3.endpoint(), who, more);
    place.file("x", "x\n");
    place.run(&format!("submit upload x {destination}"));
    place.output("process");
    let shown = place.json("show 1");
    let operation = &shown["operation"];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let spent = operation["retry_count"].as_u64().unwrap();
    let [status, class, error_type, message] =
        ["status", "failure_class", "error_type", "error"].map(|name| text(&operation[name]));
    (status, class, error_type, message, spent)
}

#[test]
fn each_refusal_has_its_class_and_hint() {
    let s3 = S3::shared();
    let wrong = Identity { secret: "wrongsecret", ..OWNER };
    let unknown = Identity { key: "nobodysaccesskey", ..OWNER };
    for (who, more, destination, expected, advice) in [
        (
            wrong,
            "",
            "x",
            ("pending", "outage", "bad_credentials"),
            "correct the access key, its secret",
        ),
        (
            unknown,
            "",
            "x",
            ("pending", "outage", "bad_credentials"),
            "correct the access key, its secret",
        ),
        // The configured bucket, and one that only this operation names.
        (
            OWNER,
            "bucket = \"nowhere\"\n",
            "x",
            ("pending", "outage", "no_such_bucket"),
            "create the bucket, or correct",
        ),
        (
            OWNER,
            "",
            "s3://nowhere/x",
            ("failed", "permanent", "no_such_bucket"),
            "create the bucket, or correct",
        ),
        (
            READER,
            "",
            "denied/x",
            ("failed", "permanent", "access_denied"),
            "grant this key the permission",
        ),
    ] {
        let more = more.to_owned();
        let (status, class, error_type, message, spent) = upload(s3, who, &more, destination);
        assert_eq!((&status[..], &class[..], &error_type[..]), expected, "{message}");
        assert!(
            message.contains(advice) && message.contains("S3 at http://127.0.0.1:"),
            "{message}"
        );
        assert_eq!(spent, 0, "{message}");
    }
}

#[test]
fn a_wrong_clock_is_reported_as_such() {
    let home = tempfile::tempdir().unwrap();
    let s3 = S3::shared();
    let clock: Arc<dyn Clock> =
        Arc::new(ManualClock::new(SystemClock::new().now().plus_millis(2 * 3_600_000), 1));
    let backend =
        S3Backend::new(Arc::new(OsDisk::new()), clock, UploadRecords::of(home.path()), options(s3));
    let path = home.path().join("x");
    std::fs::write(&path, "x").unwrap();
    let upload = request("upload", &[("path", path.to_str().unwrap()), ("destination", "late/x")]);
    let refused = backend.execute(&upload, &Attempt::default());
    let Err(AttemptError::Failed { failure, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (failure.class, &failure.error_type[..]),
        (FailureClass::Outage, "clock_skew"),
        "{failure:?}"
    );
    assert!(failure.message.contains("correct the clock of this machine"), "{}", failure.message);
    // Its response shows the difference.
    backend.execute(&upload, &Attempt::default()).unwrap();
    backend.health().unwrap();
}

#[test]
fn a_missing_access_key_is_reported_with_a_hint() {
    let home = tempfile::tempdir().unwrap();
    let place = Place::new();
    place.settings(&format!(
        "default_backend = \"s3\"\n[backends.s3]\nendpoint = \"{}\"\n\
         region = \"us-east-1\"\nbucket = \"{BUCKET}\"\n",
        S3::shared().endpoint()
    ));
    place.file("x", "x\n");
    place.run("submit upload x without/x");
    let mut command = place.command("process");
    // Without instance metadata either.
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", home.path());
    command.output().unwrap();
    let why = place.run("why 1");
    assert!(why.contains("set `backends.s3.access_key_id` and"), "{why}");
    // The standard AWS credential chain.
    let mut command = place.command("process");
    command.env("AWS_ACCESS_KEY_ID", OWNER.key).env("AWS_SECRET_ACCESS_KEY", OWNER.secret);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(place.run("show 1").contains("completed"));
}

#[test]
fn a_half_configured_backend_reports_the_missing_setting() {
    let place = Place::new();
    for (settings, missing) in [
        ("bucket = \"b\"\naccess_key_id = \"id\"\n", "secret_access_key"),
        ("bucket = \"b\"\nsecret_access_key = \"s\"\n", "access_key_id"),
        ("access_key_id = \"id\"\nsecret_access_key = \"s\"\n", "bucket"),
        ("session_token = \"t\"\n", "bucket"),
        ("region = \"garage\"\n", "bucket"),
    ] {
        place.settings(&format!("[backends.s3]\n{settings}"));
        let said = place.run("health --backend s3");
        assert!(
            said.contains(&format!("s3: the setting `backends.s3.{missing}` is missing")),
            "{said}"
        );
    }
    place.settings("");
    assert!(!place.run("health --backend s3").contains("s3:"));
}

#[test]
fn a_hanging_call_ends_at_its_limit() {
    let s3 = S3::shared();
    let proxy = super::before(s3);
    proxy.plan("PutObject", crate::suite::proxy::Fault::HangBeforeHead);
    let home = tempfile::tempdir().unwrap();
    let total = Some(Duration::from_millis(700));
    let limited = S3Options {
        endpoint: Some(format!("http://127.0.0.1:{}", proxy.port())),
        total,
        ..options(s3)
    };
    let refused = super::backend(home.path(), limited)
        .execute(&request("mkdir", &[("path", "m")]), &Attempt::default());
    let Err(AttemptError::UnknownOutcome(failure)) = refused else { panic!("{refused:?}") };
    assert!(failure.message.contains("the total time limit was exceeded"), "{failure:?}");
}
