//! `verify --remote`: whether the effects of completed operations still exist, and their reopening.
#![expect(clippy::disallowed_methods, reason = "removes and damages files as other programs would")]

mod backends;
mod order;

use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use wal_cli::backend::local::LocalBackend;
use wal_cli::backend::unixfs::Options;
use wal_cli::backend::{Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Request};
use wal_cli::client::{
    AuditOptions, AuditReport, Client, ClientError, FollowUp, NoObserver, OnInvalid,
    ProcessOptions, Reference, Stop,
};
use wal_cli::disk::Disk;
use wal_cli::operation::{Failure, Fields, Logged, Number, OperationType, Outcome, Status};

use super::binary::Place;
use super::cli::{code, text};
use super::contract;
use super::kubo::daemon::{Kubo, endpoint};
use super::s3::server::{BUCKET, OWNER, S3};
use super::scenario::{Act, Scenario, backend};

fn look(client: &Client, reopen: bool) -> AuditReport {
    let options = AuditOptions::default().with_reopen(reopen);
    let report = client.audit(&options, &Stop::new(), &|_, _| {}).unwrap();
    assert!(report.reopen_error.is_none(), "{report:?}");
    report
}

fn numbers(report: &AuditReport) -> (Vec<u64>, Vec<u64>) {
    let numbers = |findings: &[wal_cli::client::AuditFinding]| {
        findings.iter().map(|finding| finding.number.get()).collect()
    };
    (numbers(&report.missing), numbers(&report.altered))
}

/// Returns the number under which the first missing operation was reopened.
fn reopened_as(report: &AuditReport) -> Option<Number> {
    match report.missing[0].follow_up {
        Some(FollowUp::Reopened { number, .. }) => Some(number),
        _ => None,
    }
}

fn finds(scenario: &Scenario, on: &str, name: &str, found: AuditResult) {
    scenario.scripts[on].audits.lock().unwrap().insert(name.to_owned(), found);
}

fn assert_valid(client: &Client) {
    let verified = client.verify(&|_, _| {}).unwrap();
    assert!(verified.is_valid(), "{:?}", verified.findings);
}

#[test]
fn a_missing_effect_is_reopened_even_from_an_archive() {
    let scenario = Scenario::new();
    scenario.add("a", "one two three").process();
    scenario.client().checkpoint().unwrap();
    finds(&scenario, "a", "one", AuditResult::Missing("it is missing".into()));
    finds(&scenario, "a", "two", AuditResult::Altered("its content differs".into()));

    let client = scenario.client();
    let before = client.status().unwrap();
    let report = look(&client, false);
    assert_eq!((report.checked, report.intact, numbers(&report)), (3, 1, (vec![1], vec![2])));
    assert_eq!(
        (&report.missing[0].what[..], &report.missing[0].follow_up),
        ("it is missing", &None)
    );
    assert_eq!(client.status().unwrap(), before, "an audit changes nothing");

    let report = look(&client, true);
    assert_eq!((report.reopened, numbers(&report)), (2, (vec![1], vec![2])));
    let (old, new) = (scenario.get(1), scenario.get(4));
    assert_eq!(
        report.missing[0].follow_up,
        Some(FollowUp::Reopened { number: Number::new(4), id: new.id })
    );
    assert_eq!(
        (old.status(), old.redirected_to, new.redirected_from),
        (Status::Completed, Some(new.id), Some(old.id))
    );
    assert_eq!(
        (new.status(), &new.parameters, new.max_retries),
        (Status::Pending, &old.parameters, old.max_retries)
    );
    assert_valid(&client);

    // A continued operation is not reopened again.
    let report = look(&scenario.client(), true);
    assert_eq!((report.reopened, client.status().unwrap().counts.total()), (0, 5));
    assert_eq!(
        report.missing[0].follow_up,
        Some(FollowUp::AlreadyReopened { number: Number::new(4), id: new.id })
    );

    // Its old row is superseded; its new row is in the archive of the day of its completion.
    client.checkpoint().unwrap();
    assert_valid(&client);
    let stats = client.status().unwrap();
    assert_eq!((stats.archived, stats.counts.completed, stats.counts.pending), (3, 3, 2));
    assert_eq!(scenario.get(1), old);

    scenario.scripts["a"].audits.lock().unwrap().clear();
    assert_eq!(scenario.process().completed, 2);
    client.checkpoint().unwrap();
    let report = look(&client, true);
    assert!(report.is_clean());
    assert_eq!((report.checked, report.superseded), (3, 2), "their successors are audited instead");
    assert_valid(&client);
}

#[test]
fn a_failed_or_deleted_successor_is_reopened_again() {
    let scenario = Scenario::new();
    scenario.add("a", "one").process();
    finds(&scenario, "a", "one", AuditResult::Missing("it is missing".into()));
    assert_eq!(look(&scenario.client(), true).reopened, 1);
    scenario
        .client()
        .change(
            &[Reference::Number(Number::new(2))],
            &wal_cli::client::Action::Delete,
            OnInvalid::Abort,
        )
        .unwrap();
    let report = look(&scenario.client(), true);
    assert_eq!(reopened_as(&report), Some(Number::new(3)), "{report:?}");
    scenario
        .client()
        .change(
            &[Reference::Number(Number::new(3))],
            &wal_cli::client::Action::Cancel { permanent: false },
            OnInvalid::Abort,
        )
        .unwrap();
    let report = look(&scenario.client(), true);
    assert_eq!(reopened_as(&report), Some(Number::new(4)), "{report:?}");
    let history = scenario.get(1).history;
    assert_eq!(history.iter().filter(|entry| entry.from == Some(Status::Completed)).count(), 3);
    assert_valid(&scenario.client());
}

#[test]
fn a_repair_keeps_reopened_operations() {
    let scenario = Scenario::new();
    scenario.add("a", "one two").process();
    scenario.client().checkpoint().unwrap();
    finds(&scenario, "a", "one", AuditResult::Missing("it is missing".into()));
    look(&scenario.client(), true);
    let old = scenario.get(1);
    for folded in [false, true] {
        let machine = scenario.machine.fork();
        let disk = machine.process();
        let client = Client::builder(scenario.settings.clone())
            .environment(Arc::new(disk.clone()), scenario.clock.clone())
            .program("verify")
            .build();
        if folded {
            client.checkpoint().unwrap();
        }
        assert!(!client.repair().unwrap().changed, "the log is valid");
        disk.remove_file(Path::new("/wal/MANIFEST.json")).unwrap();
        let repaired = client.repair().unwrap();
        assert!(repaired.changed && repaired.lost.iter().count() == 0, "{repaired:?}");
        assert_valid(&client);
        let now = client.operation(&Reference::Number(Number::new(1))).unwrap();
        assert_eq!(
            (now.status(), now.redirected_to),
            (Status::Completed, old.redirected_to),
            "{folded}"
        );
    }
}

#[test]
fn an_unreachable_backend_is_asked_and_reported_once() {
    let scenario = Scenario::new();
    scenario.add("a", "one two three four five").add("b", "six seven").process();
    finds(&scenario, "b", "seven", AuditResult::NotApplicable);
    scenario.scripts["a"].unreachable.store(true, Ordering::SeqCst);
    let report = look(&scenario.client(), true);
    let [unverified] = &report.unverified[..] else { panic!("{report:?}") };
    assert_eq!(
        (unverified.backend.as_str(), unverified.operations, &unverified.failure.message[..]),
        ("a", 5, "connection refused")
    );
    assert_eq!((report.checked, report.intact, report.without_effect), (1, 1, 1));
    assert_eq!(scenario.scripts["a"].audited.lock().unwrap().len(), 1);
    // A busy backend is asked about the next operations, but not indefinitely.
    scenario.scripts["a"].unreachable.store(false, Ordering::SeqCst);
    scenario.scripts["a"].busy.store(true, Ordering::SeqCst);
    assert_eq!(look(&scenario.client(), true).unverified[0].operations, 5);
    assert_eq!(scenario.scripts["a"].audited.lock().unwrap().len(), 1 + 3);
}

#[test]
fn a_stop_request_ends_an_audit_soon_with_its_findings() {
    let scenario = Scenario::new();
    scenario.add("a", "gone hangs never").process();
    finds(&scenario, "a", "gone", AuditResult::Missing("it is missing".into()));
    let (stop, client) = (Stop::new(), scenario.client());
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while scenario.scripts["a"].audited.lock().unwrap().len() < 2 {
                std::thread::yield_now();
            }
            stop.request();
        });
        client.audit(&AuditOptions::default().with_reopen(true), &stop, &|_, _| {}).unwrap()
    });
    assert!(report.stopped && report.unverified.is_empty(), "{report:?}");
    assert_eq!((numbers(&report), report.reopened), ((vec![1], vec![]), 0));
    assert_eq!(*scenario.scripts["a"].audited.lock().unwrap(), ["gone", "hangs"]);
}

#[test]
fn only_selected_operations_are_audited() {
    let scenario = Scenario::new();
    scenario.add("a", "old").process();
    scenario.client().checkpoint().unwrap();
    scenario.wait(100_000);
    scenario.add("a", "new").add("b", "other").process();
    let since = scenario.get(2).logged_at;
    let options = AuditOptions::default().with_since(Some(since)).with_backend(Some(backend("a")));
    let report = scenario.client().audit(&options, &Stop::new(), &|_, _| {}).unwrap();
    assert_eq!((report.checked, report.intact), (1, 1));
    assert_eq!(*scenario.scripts["a"].audited.lock().unwrap(), ["new"]);
    assert!(scenario.scripts["b"].audited.lock().unwrap().is_empty());
    let mut settings = scenario.settings.clone();
    settings.enabled = false;
    let off = Client::builder(settings)
        .environment(Arc::new(scenario.machine.process()), scenario.clock.clone())
        .program("verify")
        .build();
    let refused = off.audit(&options.with_reopen(true), &Stop::new(), &|_, _| {});
    assert!(matches!(refused, Err(ClientError::Disabled)));
}

/// The local store, with an action that runs during an audit.
struct Meddled {
    store: LocalBackend,
    meanwhile: Box<dyn Fn() + Send + Sync>,
    done: AtomicBool,
}

impl fmt::Debug for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Backend for Meddled {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        self.store.execute(request, attempt)
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError> {
        self.store.query_attempt(request)
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult, AttemptError> {
        if !self.done.swap(true, Ordering::SeqCst) {
            (self.meanwhile)();
        }
        self.store.audit(request, outcome, attempt)
    }

    fn health(&self) -> Result<(), Failure> {
        self.store.health()
    }
}

#[test]
fn effects_removed_during_an_audit_are_not_reopened() {
    let scenario = Arc::new(Scenario::new());
    let disk = Arc::new(scenario.machine.process());
    disk.create_dir(Path::new("/home")).unwrap();
    (&*disk as &dyn Disk).write_new_synced(Path::new("/home/f"), b"hello").unwrap();
    let submit = |operation_type: &str, parameters: &[(&str, &str)]| {
        let parameters: Fields = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let kind = OperationType::new(operation_type).unwrap();
        scenario.client().submit(Logged::new(kind, backend("local"), parameters, 0)).unwrap();
    };
    submit("upload", &[("path", "/home/f"), ("destination", "/n/f")]);
    submit("upload", &[("path", "/home/f"), ("destination", "/n/g")]);
    assert_eq!(scenario.process().completed, 2);
    submit("rm", &[("path", "/n/f")]);
    let store = LocalBackend::new(
        disk.clone(),
        scenario.clock.clone(),
        PathBuf::from("/wal/local"),
        Options::default(),
    );
    let other = scenario.clone();
    let meanwhile = Box::new(move || assert_eq!(other.process().completed, 1));
    let client = scenario
        .builder()
        .backend(
            backend("local"),
            Arc::new(Meddled { store, meanwhile, done: AtomicBool::new(false) }),
        )
        .build();
    let report = look(&client, true);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.intact, report.superseded, report.reopened), (1, 1, 0));
    // A removal by another program is a loss.
    disk.remove_file(Path::new("/wal/local/files/n/g")).unwrap();
    assert_eq!(numbers(&look(&scenario.client(), false)), (vec![2], vec![]));
}

/// Logs an operation of a type with known targets, on the scripted backend `a`.
fn touch(scenario: &Scenario, operation_type: &str, name: &str, parameters: &[(&str, &str)]) {
    let named = [("name", name)];
    let parameters = parameters
        .iter()
        .chain(&named)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let kind = OperationType::new(operation_type).unwrap();
    scenario.client().submit(Logged::new(kind, backend("a"), parameters.collect(), 2)).unwrap();
}

#[test]
fn running_operations_excuse_missing_effects_on_their_targets() {
    let scenario = Scenario::new();
    touch(&scenario, "mkdir", "one", &[("path", "/n")]);
    touch(&scenario, "mkdir", "other", &[("path", "/m")]);
    scenario.process();
    for name in ["one", "other"] {
        finds(&scenario, "a", name, AuditResult::Missing("it is missing".into()));
    }
    touch(&scenario, "rm", "rm", &[("path", "/n")]);
    // The operation has not begun, so it explains nothing; but a reopened one would follow and undo
    // it.
    let report = look(&scenario.client(), true);
    assert_eq!((numbers(&report), report.reopened), ((vec![1, 2], vec![]), 1), "{report:?}");
    let Some(FollowUp::Refused(why)) = &report.missing[0].follow_up else { panic!("{report:?}") };
    assert!(why.contains("operation 3 concerns the same target"), "{why}");
    // The operation began, and its process died: it may have taken effect.
    scenario.act("a", "rm", &[Act::Die]);
    let died = scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver);
    assert!(died.is_err() && scenario.get(3).status() == Status::Processing);
    let report = look(&scenario.client(), true);
    assert_eq!((numbers(&report), report.superseded), ((vec![2], vec![]), 1), "{report:?}");
    let Some(FollowUp::AlreadyReopened { number, .. }) = report.missing[0].follow_up else {
        panic!("{report:?}");
    };
    assert_eq!(number, Number::new(4));
    // The outcome stays unknown: a user has to check.
    scenario.scripts["a"]
        .answers
        .lock()
        .unwrap()
        .insert("rm".into(), AttemptStatus::Unknown("it was not observed".into()));
    scenario.process();
    if scenario.get(3).is_in_doubt() {
        let report = look(&scenario.client(), true);
        let Some(FollowUp::Refused(why)) = &report.missing[0].follow_up else {
            panic!("{report:?}")
        };
        assert!(why.contains("operation 3 concerns the same target"), "{why}");
    } else {
        panic!("{:?}", scenario.get(3));
    }
}

#[test]
fn damage_is_reported_whatever_was_removed_since() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("a", "a\n");
    place.file("b", "b\n");
    place.run("add a b --wait"); // 1, 2
    place.run("add b --param raw_leaves=true --param cid_version=1 --wait"); // 3
    let cid = place.json("show 3")["operation"]["result"]["cid"].as_str().unwrap().to_owned();
    place.run(&format!("submit rm {cid} --param recursive=true --wait"));
    std::fs::write(stored(&place, "a\n"), "x\n").unwrap();
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1, "{document:#}");
    assert_found(&document, &[], &[1]);
}

/// Returns the exit code of a command and its document, checked against its schema.
fn reported(place: &Place, arguments: &str) -> (i32, Value) {
    let output = place.output(&format!("--json {arguments}"));
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    contract::check(arguments, &document);
    (code(&output).unwrap_or(-1), document)
}

fn numbers_in(document: &Value, kind: &str) -> Vec<u64> {
    document[kind]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["number"].as_u64().unwrap())
        .collect()
}

fn assert_found(document: &Value, gone: &[u64], altered: &[u64]) {
    assert_eq!(
        (numbers_in(document, "gone"), numbers_in(document, "altered")),
        (gone.into(), altered.into()),
        "{document:#}"
    );
}

/// Reopens and drains, and asserts that everything is intact again.
fn put_back(place: &Place, count: u64) {
    let (exit, document) = reported(place, "verify --remote --reopen");
    assert_eq!((exit, document["reopened"].as_u64()), (1, Some(count)), "{document:#}");
    place.run("process");
    let (exit, document) = reported(place, "verify --remote");
    assert_eq!((exit, &document["clean"]), (0, &Value::Bool(true)), "{document:#}");
    place.run("checkpoint");
    place.run("verify");
}

/// Returns the file of the local store with this content.
fn stored(place: &Place, content: &str) -> PathBuf {
    let mut folders = vec![place.log().join("local/content")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).unwrap() == content.as_bytes() {
                return path;
            }
        }
    }
    panic!("no `{content}` in the store");
}
