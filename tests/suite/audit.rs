//! `verify --remote`: whether the effects of completed operations still exist, and their reopening.
#![expect(clippy::disallowed_methods, reason = "it removes and damages files as others would")]

mod order;

use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use wal_cli::backend::unixfs::Options;
use wal_cli::backend::{
    Attempt, AttemptError, AttemptStatus, AuditResult, Backend, LocalBackend, Request,
};
use wal_cli::client::{
    AuditOptions, AuditReport, Client, ClientError, FollowUp, OnInvalid, ProcessOptions, Reference,
    Silent, Stop,
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

fn finds(scenario: &Scenario, on: &str, name: &str, found: AuditResult) {
    scenario.scripts[on].audits.lock().unwrap().insert(name.to_owned(), found);
}

fn assert_sound(client: &Client) {
    let verified = client.verify(&|_, _| {}).unwrap();
    assert!(verified.is_valid(), "{:?}", verified.findings);
}

#[test]
fn a_missing_effect_is_reopened_even_from_an_archive() {
    let scenario = Scenario::new();
    scenario.add("a", "one two three").process();
    scenario.client().checkpoint().unwrap();
    finds(&scenario, "a", "one", AuditResult::Missing("it is gone".into()));
    finds(&scenario, "a", "two", AuditResult::Altered("it is another one".into()));

    let client = scenario.client();
    let before = client.status().unwrap();
    let report = look(&client, false);
    assert_eq!((report.checked, report.intact, numbers(&report)), (3, 1, (vec![1], vec![2])));
    assert_eq!((&report.missing[0].what[..], &report.missing[0].follow_up), ("it is gone", &None));
    assert_eq!(client.status().unwrap(), before, "a look changes nothing");

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
    assert_sound(&client);

    // A continued operation is not reopened again.
    let report = look(&scenario.client(), true);
    assert_eq!((report.reopened, client.status().unwrap().counts.total()), (0, 5));
    assert_eq!(
        report.missing[0].follow_up,
        Some(FollowUp::AlreadyReopened { number: Number::new(4), id: new.id })
    );

    // Its old row is superseded; its new one is in an archive of the day on which it was completed.
    client.checkpoint().unwrap();
    assert_sound(&client);
    let stats = client.status().unwrap();
    assert_eq!((stats.archived, stats.counts.completed, stats.counts.pending), (3, 3, 2));
    assert_eq!(scenario.get(1), old);

    scenario.scripts["a"].audits.lock().unwrap().clear();
    assert_eq!(scenario.process().completed, 2);
    client.checkpoint().unwrap();
    let report = look(&client, true);
    assert!(report.is_clean());
    assert_eq!(
        (report.checked, report.superseded),
        (3, 2),
        "what they went on as is looked at in their place"
    );
    assert_sound(&client);
}

#[test]
fn a_failed_or_deleted_successor_is_reopened_again() {
    let scenario = Scenario::new();
    scenario.add("a", "one").process();
    finds(&scenario, "a", "one", AuditResult::Missing("it is gone".into()));
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
    assert!(
        matches!(report.missing[0].follow_up, Some(FollowUp::Reopened { number, .. }) if number == Number::new(3)),
        "{report:?}"
    );
    scenario
        .client()
        .change(
            &[Reference::Number(Number::new(3))],
            &wal_cli::client::Action::Cancel { permanent: false },
            OnInvalid::Abort,
        )
        .unwrap();
    let report = look(&scenario.client(), true);
    assert!(
        matches!(report.missing[0].follow_up, Some(FollowUp::Reopened { number, .. }) if number == Number::new(4)),
        "{report:?}"
    );
    let history = scenario.get(1).history;
    assert_eq!(history.iter().filter(|entry| entry.from == Some(Status::Completed)).count(), 3);
    assert_sound(&scenario.client());
}

#[test]
fn a_repair_keeps_reopened_operations() {
    let scenario = Scenario::new();
    scenario.add("a", "one two").process();
    scenario.client().checkpoint().unwrap();
    finds(&scenario, "a", "one", AuditResult::Missing("it is gone".into()));
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
        assert!(!client.repair().unwrap().changed, "it is sound");
        disk.remove_file(Path::new("/wal/MANIFEST.json")).unwrap();
        let repaired = client.repair().unwrap();
        assert!(repaired.changed && repaired.lost.iter().count() == 0, "{repaired:?}");
        assert_sound(&client);
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
    scenario.scripts["a"].away.store(true, Ordering::SeqCst);
    let report = look(&scenario.client(), true);
    let [unverified] = &report.unverified[..] else { panic!("{report:?}") };
    assert_eq!(
        (unverified.backend.as_str(), unverified.operations, &unverified.failure.message[..]),
        ("a", 5, "connection refused")
    );
    assert_eq!((report.checked, report.intact, report.without_effect), (1, 1, 1));
    assert_eq!(scenario.scripts["a"].audited.lock().unwrap().len(), 1);
    // A busy backend is asked for the next operation, but not indefinitely.
    scenario.scripts["a"].away.store(false, Ordering::SeqCst);
    scenario.scripts["a"].busy.store(true, Ordering::SeqCst);
    assert_eq!(look(&scenario.client(), true).unverified[0].operations, 5);
    assert_eq!(scenario.scripts["a"].audited.lock().unwrap().len(), 1 + 3);
}

#[test]
fn a_stop_request_ends_an_audit_soon_with_its_findings() {
    let scenario = Scenario::new();
    scenario.add("a", "gone hangs never").process();
    finds(&scenario, "a", "gone", AuditResult::Missing("it is gone".into()));
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

/// The local store, and something that happens while it is looked at.
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

/// Logs an operation of a type that touches places, on the scripted backend `a`.
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
        finds(&scenario, "a", name, AuditResult::Missing("it is gone".into()));
    }
    touch(&scenario, "rm", "rm", &[("path", "/n")]);
    // Not begun yet, so it has nothing to do with it; but what is logged behind it would undo it.
    let report = look(&scenario.client(), true);
    assert_eq!((numbers(&report), report.reopened), ((vec![1, 2], vec![]), 1), "{report:?}");
    let Some(FollowUp::Refused(why)) = &report.missing[0].follow_up else { panic!("{report:?}") };
    assert!(why.contains("operation 3 concerns the same target"), "{why}");
    // Begun, and the process died: it may be done.
    scenario.act("a", "rm", &[Act::Die]);
    let died = scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut Silent);
    assert!(died.is_err() && scenario.get(3).status() == Status::Processing);
    let report = look(&scenario.client(), true);
    assert_eq!((numbers(&report), report.superseded), ((vec![2], vec![]), 1), "{report:?}");
    assert!(
        matches!(report.missing[0].follow_up, Some(FollowUp::AlreadyReopened { number, .. }) if number == Number::new(4)),
        "{report:?}"
    );
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

/// Reopens, drains, and sees that all is well again.
fn put_back(place: &Place, count: u64) {
    let (exit, document) = reported(place, "verify --remote --reopen");
    assert_eq!((exit, document["reopened"].as_u64()), (1, Some(count)), "{document:#}");
    place.run("process");
    let (exit, document) = reported(place, "verify --remote");
    assert_eq!((exit, &document["clean"]), (0, &Value::Bool(true)), "{document:#}");
    place.run("checkpoint");
    place.run("verify");
}

/// The file of the local store with this content.
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

#[test]
fn losses_in_the_local_store_are_found_and_restored() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    for name in ["one", "two", "three", "four"] {
        place.file(name, &format!("{name}\n"));
    }
    std::fs::create_dir(place.path("d")).unwrap();
    place.file("d/five", "five\n");
    place.run("add one two three --wait"); // 1 to 3
    place.run("add d --recursive --wait"); // 4
    place.run("submit upload four /n/four --wait"); // 5
    place.run("submit copy /n/four /n/copy --wait"); // 6
    place.run("submit mkdir /m --wait"); // 7
    place.run("submit upload d /tree --wait"); // 8
    place.run("submit list --wait"); // 9
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(
        (exit, &document["checked"], &document["nothing"]),
        (0, &8.into(), &1.into()),
        "{document:#}"
    );

    std::fs::remove_file(stored(&place, "one\n")).unwrap();
    std::fs::write(stored(&place, "two\n"), "twx\n").unwrap();
    std::fs::remove_file(stored(&place, "five\n")).unwrap();
    let files = place.log().join("local/files");
    std::fs::remove_file(files.join("n/four")).unwrap();
    std::fs::write(files.join("n/copy"), "other").unwrap();
    std::fs::remove_dir(files.join("m")).unwrap();
    std::fs::write(files.join("tree/more"), "more").unwrap();
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1, 5, 7], &[2, 4, 6, 8]);
    assert_eq!(document["intact"], 1, "{document:#}");

    let output = place.output("verify --remote");
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(
        shown.contains(&format!("gone     1  local  add     {}", place.path("one").display())),
        "{shown}"
    );
    assert!(shown.contains("`/n/four` no longer exists"), "{shown}");
    assert!(
        shown.contains("of 9 completed operations, 1 intact, 3 gone, 4 altered, 1 with nothing"),
        "{shown}"
    );
    assert!(said.contains("failed verification: 3 missing, 4 altered"), "{said}");
    assert!(said.contains("--reopen"), "{said}");

    // A tree with additional entries is removed first: restoring it would not change that.
    place.run("submit rm /tree --param recursive=true --wait"); // 10
    let output = place.output("verify --remote --reopen");
    let shown = text(&output.stdout);
    assert_eq!(code(&output), Some(1), "{shown}");
    assert!(shown.contains("reopened as operation 11"), "{shown}");
    assert!(text(&output.stderr).contains("wal-cli process"));
    let (_, document) = reported(&place, "verify --remote --reopen");
    assert_eq!(
        (&document["reopened"], &document["gone"][0]["went_on_as"]["new"]),
        (&0.into(), &false.into())
    );
    let shown = place.run("show 1");
    assert!(shown.contains("went on as") && shown.contains("completed"), "{shown}");
    let next = document["gone"][0]["went_on_as"]["number"].as_u64().unwrap();
    assert!(place.run(&format!("show {next}")).contains("made from"));
    assert!(place.run("why 1").contains(&format!("so it went on as operation {next} (pending)")));
    // Copies from there wait for it.
    let copy = place.json("show 15");
    assert_eq!(copy["operation"]["operation_type"], "copy");
    assert_eq!(
        copy["operation"]["depends_on"][0],
        place.json("show 14")["operation"]["operation_id"]
    );
    place.run("process");
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!((exit, &document["clean"]), (0, &true.into()), "{document:#}");
    assert_eq!(std::fs::read_to_string(files.join("n/copy")).unwrap(), "four\n");
    assert!(place.run("list failed").is_empty());
    place.run("verify");
}

#[test]
fn a_reopening_that_is_refused_does_not_stop_the_others() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    for name in ["same", "gone", "changed", "touched"] {
        place.file(name, &format!("{name}\n"));
    }
    place.run("add same gone changed touched --wait"); // 1 to 4
    place.run("submit upload same /n/a --wait"); // 5
    place.run("submit move /n/a /n/b --wait"); // 6
    for name in ["same", "gone", "changed", "touched"] {
        std::fs::remove_file(stored(&place, &format!("{name}\n"))).unwrap();
    }
    std::fs::remove_file(place.log().join("local/files/n/b")).unwrap();
    std::fs::remove_file(place.path("gone")).unwrap();
    place.file("changed", "chanGed\n");
    // The same bytes in another file: the hash of the log's copy identifies them.
    std::fs::remove_file(place.path("touched")).unwrap();
    place.file("touched", "touched\n");
    let (exit, document) = reported(&place, "verify --remote --reopen");
    assert_eq!(exit, 1);
    assert_found(&document, &[1, 2, 3, 4, 6], &[]);
    let refused: Vec<&str> = document["gone"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["refused"].as_str().unwrap_or(""))
        .collect();
    assert!(refused[0].is_empty() && refused[3].is_empty(), "{refused:?}");
    assert!(refused[1].ends_with("gone` no longer exists"), "{refused:?}");
    assert!(refused[2].ends_with("changed` has changed since it was sent"), "{refused:?}");
    assert!(refused[4].contains("the move itself removed its source"), "{refused:?}");
    assert_eq!(
        (&document["reopened"], place.run("list all -q --limit 0").lines().count()),
        (&2.into(), 8)
    );
    // Copied afresh: from now on the file may go.
    std::fs::remove_file(place.path("touched")).unwrap();
    place.run("process");
    stored(&place, "touched\n");
    place.run("verify");
}

#[test]
fn effects_replaced_or_removed_later_are_not_reported() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("a", "a\n");
    place.file("b", "b\n");
    std::fs::create_dir(place.path("d")).unwrap();
    place.file("d/x", "x\n");
    place.run("add a --wait"); // 1
    let cid = place.json("show 1")["operation"]["result"]["cid"].as_str().unwrap().to_owned();
    place.run(&format!("submit rm {cid} --wait"));
    place.run("submit upload a /n/f --wait"); // 3: replaced
    place.run("submit upload b /n/f --wait");
    place.run("submit upload a /n/g --wait"); // 5: moved
    place.run("submit move /n/g /o/g --wait");
    place.run("submit upload d /t --wait"); // 7: something in it is replaced
    place.run("submit upload a /t/x --wait");
    place.run("submit upload a /gone/deep/f --wait"); // 9: removed with what it is in
    place.run("submit rm /gone --param recursive=true --wait");
    place.run("add d/x --wait"); // 11: removed with the directory that it is in as well
    place.run("add d --recursive --wait"); // 12
    let cid = place.json("show 12")["operation"]["result"]["cid"].as_str().unwrap().to_owned();
    place.run(&format!("submit rm {cid} --param recursive=true --wait"));
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 0, "{document:#}");
    assert_eq!(
        (&document["superseded"], &document["checked"]),
        (&7.into(), &3.into()),
        "{document:#}"
    );
}

#[test]
fn an_unmounted_store_does_not_count_as_lost() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("a", "a\n");
    place.run("add a --wait");
    std::fs::rename(place.log().join("local"), place.path("elsewhere")).unwrap();
    std::fs::create_dir(place.log().join("local")).unwrap();
    let (exit, document) = reported(&place, "verify --remote --reopen");
    assert_eq!((exit, &document["reopened"]), (1, &0.into()), "{document:#}");
    assert_found(&document, &[], &[]);
    assert!(
        document["unasked"][0]["error"].as_str().unwrap().contains("mount its disk"),
        "{document:#}"
    );
}

#[test]
fn losses_on_a_kubo_node_are_found_and_restored() {
    let place = Place::new();
    let mut kubo = Kubo::new(&[]);
    place.settings(&format!(
        "default_backend = \"ipfs\"\n[backends.ipfs]\nendpoint = \"{}\"\n",
        kubo.endpoint()
    ));
    for name in ["one", "two", "three", "four"] {
        place.file(name, &format!("{name}\n"));
    }
    place.run("add one two --wait"); // 1, 2
    let cid = |number: u64| {
        let shown = place.json(&format!("show {number}"));
        shown["operation"]["result"]["cid"].as_str().unwrap().to_owned()
    };
    place.run("submit upload three /n/three --wait"); // 3
    place.run("submit upload four /n/four --wait"); // 4
    place.run("submit mkdir /m --wait"); // 5
    place.run("add four --param pin=false --wait"); // 6
    place.run("add four --param to_files=/named --wait"); // 7
    place.run(&format!("submit pin {} --wait", cid(3))); // 8
    place.run("submit copy /n/three /n/copy --wait"); // 9
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!((exit, &document["intact"]), (0, &8.into()), "{document:#}");

    kubo.ipfs(&format!("pin rm {}", cid(1)));
    kubo.ipfs(&format!("pin rm {}", cid(3)));
    kubo.ipfs("files rm /n/three");
    kubo.ipfs("files rm /n/four");
    kubo.ipfs(&format!("files cp /ipfs/{} /n/four", cid(2)));
    kubo.ipfs("files rm -r /m");
    kubo.ipfs("files rm /named");
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1, 3, 5, 7, 8], &[4]);
    put_back(&place, 6);
    assert!(kubo.has_pin(&cid(1)) && kubo.has_pin(&cid(3)));
    assert_eq!(kubo.ipfs("files read /n/four"), "four");

    place.run("add one --backend local --wait");
    kubo.stop();
    let (exit, document) = reported(&place, "verify --remote --reopen");
    assert_eq!(
        (exit, &document["intact"], &document["reopened"]),
        (1, &1.into(), &0.into()),
        "{document:#}"
    );
    let [unasked] = &document["unasked"].as_array().unwrap()[..] else { panic!("{document:#}") };
    assert_eq!(
        (&unasked["backend"], &unasked["error_type"]),
        (&"ipfs".into(), &"unreachable".into()),
        "{document:#}"
    );
    let shown = text(&place.output("verify --remote").stdout);
    assert_eq!(shown.matches("is unreachable").count(), 1, "{shown}");

    // A server that accepts connections and never answers: Ctrl-C ends the wait.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = endpoint(silent.local_addr().unwrap().port());
    place.settings(&format!("[backends.ipfs]\nendpoint = \"{endpoint}\"\n"));
    let mut command = place.command("--json verify --remote --backend ipfs");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    silent.accept().unwrap();
    let begun = Instant::now();
    Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    contract::check("verify", &document);
    assert_eq!((code(&output), &document["stopped"]), (Some(130), &true.into()), "{document:#}");
}

/// A log whose operations go to the shared service.
fn on_s3() -> Place {
    let place = Place::new();
    place.settings(&format!(
        "default_backend = \"s3\"\n[backends.s3]\nendpoint = \"{}\"\nregion = \"us-east-1\"\nbucket = \"{BUCKET}\"\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
        S3::shared().endpoint(),
        OWNER.key,
        OWNER.secret
    ));
    place
}

#[test]
fn a_deleted_bucket_and_foreign_objects_are_reported() {
    let (place, s3) = (on_s3(), S3::shared());
    s3.python("s3.create_bucket(Bucket='audit-gone')");
    std::fs::create_dir(place.path("d")).unwrap();
    for name in ["d/x", "d/y", "d/z", "f"] {
        place.file(name, name);
    }
    place.run("submit upload f s3://audit-gone/f --wait"); // 1
    place.run("submit upload d audit-others --wait"); // 2
    s3.python(&format!(
        "s3.delete_object(Bucket='audit-gone', Key='f')\ns3.delete_bucket(Bucket='audit-gone')\n\
         s3.put_object(Bucket={BUCKET:?}, Key='audit-others/x', Body=b'x')\n\
         s3.put_object(Bucket={BUCKET:?}, Key='audit-others/y', Body=b'y')"
    ));
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1], &[2]);
    assert_eq!(document["unasked"], serde_json::json!([]), "{document:#}");
    assert_eq!(document["gone"][0]["what"], "the bucket `audit-gone` no longer exists");
    let others = "; `audit-others/x` and 1 more were not put by this operation";
    assert!(document["altered"][0]["what"].as_str().unwrap().ends_with(others), "{document:#}");
}

#[test]
fn deleting_the_record_of_a_removal_warns_of_a_loss() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("f", "f");
    place.run("submit upload f /f --wait");
    place.run("submit rm /f --wait");
    assert_eq!(reported(&place, "verify --remote").0, 0);
    let deleted = place.output("delete 2");
    assert!(
        String::from_utf8(deleted.stderr)
            .unwrap()
            .contains("operation 2 removed something on purpose")
    );
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1], &[]);
    let deleted = place.output("delete 1");
    assert!(deleted.stderr.is_empty(), "{deleted:?}");
}

#[test]
fn losses_in_a_bucket_are_found_and_restored() {
    let (place, s3) = (on_s3(), S3::shared());
    for name in ["one", "two", "three"] {
        place.file(name, &format!("{name}\n"));
    }
    std::fs::create_dir(place.path("d")).unwrap();
    place.file("d/x", "x\n");
    place.file("d/y", "y\n");
    place.run("submit upload one audit/one --wait"); // 1
    place.run("submit upload two audit/two --wait"); // 2
    place.run(&format!("submit upload three s3://{BUCKET}/audit/three --wait")); // 3
    place.run("submit upload d audit/d --wait"); // 4
    place.run("submit mkdir audit/m --wait"); // 5
    place.run("submit copy audit/three audit/copy --wait"); // 6
    place.run("submit upload one audit/old --wait"); // 7: superseded
    place.run("submit rm audit/old --wait"); // 8
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(
        (exit, &document["intact"], &document["superseded"]),
        (0, &6.into(), &1.into()),
        "{document:#}"
    );

    s3.python(&format!(
        "s3.delete_object(Bucket={BUCKET:?}, Key='audit/one')\n\
         s3.put_object(Bucket={BUCKET:?}, Key='audit/two', Body=b'TWO\\n')\n\
         s3.put_object(Bucket={BUCKET:?}, Key='audit/three', Body=b'longer than three\\n')\n\
         s3.delete_object(Bucket={BUCKET:?}, Key='audit/d/x')\n\
         s3.delete_object(Bucket={BUCKET:?}, Key='audit/m/')\n\
         s3.delete_object(Bucket={BUCKET:?}, Key='audit/copy')"
    ));
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1, 5, 6], &[2, 3, 4]);
    let what = |nth: usize| document["altered"][nth]["what"].as_str().unwrap();
    assert!(what(0).contains("is not what was put"), "{document:#}");
    assert!(what(1).ends_with("has 18 bytes, not 6"), "{document:#}");
    assert!(what(2).starts_with("1 of 2 objects"), "{document:#}");
    put_back(&place, 6);
    let body = format!(
        "print(s3.get_object(Bucket={BUCKET:?}, Key='audit/two')['Body'].read().decode(), end='')"
    );
    assert_eq!(s3.python(&body), "two");
}
