//! The histories of several logs as one table: `archive push` to SeaweedFS, and the queries of
//! docs/fleet.md on the result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wal_cli::backend::{Attempt, AttemptError, AttemptStatus, Backend, Request};
use wal_cli::client::{Action, AddOptions, Client, NoObserver, OnInvalid, Reference, Stop};
use wal_cli::clock::{Clock, ManualClock, SystemClock};
use wal_cli::config::Settings;
use wal_cli::disk::OsDisk;
use wal_cli::operation::{BackendName, Failure, Fields, Logged, OperationType, Outcome, Time};

use super::adoption;
use super::binary::Place;
use super::cli::{code, text};
use super::s3::server::{OWNER, S3};
use super::tools::{python, stdout_of};

const DAY: i64 = 86_400_000;

/// Host, backend and cause.
type Cause = (String, String, String);

/// The bucket that the page names.
const BUCKET: &str = "history";

/// A backend that changes the priority of an operation during its only attempt.
#[derive(Debug)]
struct Reordered(PathBuf, Arc<ManualClock>);

impl Backend for Reordered {
    fn execute(&self, request: &Request, _: &Attempt) -> Result<Outcome, AttemptError> {
        self.1.advance(Duration::from_secs(2));
        let client = Client::builder(Settings::at(self.0.clone()))
            .environment(Arc::new(OsDisk::new()), self.1.clone())
            .program("prioritize")
            .build();
        client
            .change(&[Reference::Number(request.number)], &Action::Prioritize(3), OnInvalid::Abort)
            .unwrap();
        self.1.advance(Duration::from_secs(3));
        Ok(Outcome::default())
    }

    fn query_attempt(&self, _: &Request) -> Result<AttemptStatus, AttemptError> {
        Ok(AttemptStatus::NotDone)
    }

    fn health(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Fills a log with two days of operations, some days ago, through the library with a simulated
/// clock.
fn live(place: &Place, seed: u64) {
    let today = SystemClock::new().now().day();
    let clock = Arc::new(ManualClock::new(Time::from_millis((today - 3) * DAY + 36_000_000), seed));
    let mut settings = Settings::at(place.log());
    settings.retry_delay = Duration::from_secs(7);
    let mock = settings.backends.get_mut(&BackendName::new("mock").unwrap()).unwrap();
    let mock = mock.mock_mut().unwrap();
    (mock.failure_rate, mock.seed) = (0.4, seed);
    let client = Client::builder(settings)
        .environment(Arc::new(OsDisk::new()), clock.clone())
        .program("process")
        .backend(
            BackendName::new("reordered").unwrap(),
            Arc::new(Reordered(place.log(), clock.clone())),
        )
        .build();
    let submit = |operation_type: &str, backend: &str, parameters: &[(&str, &str)]| {
        let parameters: Fields =
            parameters.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let operation_type = OperationType::new(operation_type).unwrap();
        let logged =
            Logged::new(operation_type, BackendName::new(backend).unwrap(), parameters, 30);
        Reference::Number(client.submit(logged).unwrap().number)
    };
    let hello = place.file("hello.txt", "hello world\n");
    for day in 0..2 {
        let report = place.file("report.csv", &"1;2\n".repeat(seed as usize * 10 + day));
        let local = AddOptions::default().with_backend(BackendName::new("local").unwrap());
        let mut references = vec![Reference::Number(client.add(&hello, &local).unwrap().number)];
        let to = [("path", report.to_str().unwrap()), ("destination", "/reports/today.csv")];
        references.push(submit("upload", "local", &to));
        for nth in 0..4 + seed {
            clock.advance(Duration::from_secs(nth));
            references.push(submit("add", "mock", &[("path", hello.to_str().unwrap())]));
        }
        if day == 0 {
            references.push(submit("job", "reordered", &[]));
        }
        // It fails permanently, so it stays in its log.
        references.push(submit("rm", "local", &[("path", "/nowhere")]));
        client.run_and_wait(&references, None, &Stop::new(), &mut NoObserver).unwrap();
        client.checkpoint().unwrap();
        clock.advance(Duration::from_secs(86_400));
    }
}

fn configure(place: &Place, s3: &S3, more: &str) {
    place.settings(&format!(
        "{more}\n[backends.s3]\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
        s3.endpoint(),
        OWNER.key,
        OWNER.secret
    ));
}

/// All operations of a log with their histories.
fn operations(place: &Place) -> Vec<Value> {
    let list = place.json("list all --limit 0");
    let numbers: Vec<String> = list["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["number"].to_string())
        .collect();
    let shown = place.json(&format!("show {}", numbers.join(" ")));
    shown["operations"].as_array().unwrap().clone()
}

fn millis(value: &Value) -> i64 {
    Time::parse_rfc3339(value.as_str().unwrap()).unwrap().as_millis()
}

/// Returns a time as DuckDB prints it, in milliseconds.
fn instant(value: &Value) -> i64 {
    Time::parse_rfc3339(&format!("{}Z", value.as_str().unwrap())).unwrap().as_millis()
}

fn changes(operation: &Value) -> &Vec<Value> {
    operation["history"].as_array().unwrap()
}

fn attempts(operation: &Value) -> Vec<&Value> {
    let begins = |change: &&Value| change["to"] == "processing" && change["from"] != "processing";
    changes(operation).iter().filter(begins).collect()
}

#[test]
fn the_queries_of_the_page_match_the_logs_of_two_hosts() {
    let s3 = S3::new();
    s3.python(&format!("s3.create_bucket(Bucket={BUCKET:?})"));
    let hosts = [("web1", 1), ("web2", 2)].map(|(host, seed)| {
        let place = Place::new();
        live(&place, seed);
        configure(&place, &s3, "");
        (host, place)
    });
    for (host, place) in &hosts {
        // Completed today, so it is not pushed yet.
        place.run("add --backend local hello.txt --wait --key today");
        let planned = place.json(&format!("archive push s3://history/wal --host {host} --dry-run"));
        assert_eq!(
            (&planned["logged"], &planned["archives"][0]["operation"]),
            (&json!(2), &Value::Null),
            "{planned:#}"
        );
        let pushed = place
            .json(&format!("archive push s3://history/wal --host {host} --wait --timeout 2min"));
        assert_eq!(pushed["operations"].as_array().unwrap().len(), 2, "{pushed:#}");
        assert!(
            pushed["operations"].as_array().unwrap().iter().all(|one| one["status"] == "completed"),
            "{pushed:#}"
        );
        let again = place.json(&format!("archive push s3://history/wal --host {host}"));
        assert_eq!((&again["logged"], &again["pushed"]), (&json!(0), &json!(2)), "{again:#}");
        let states: Vec<Value> = place.json("archive list")["archives"].as_array().unwrap().clone();
        let states: Vec<&str> =
            states.iter().map(|archive| archive["state"].as_str().unwrap()).collect();
        assert_eq!(states.iter().filter(|state| **state == "pushed").count(), 2, "{states:?}");
        assert!(
            place.run("verify").contains("The log is valid"),
            "the log with its marks is valid"
        );
    }
    // Two pushes may leave the same rows in a second file.
    s3.python(
        "one = s3.list_objects_v2(Bucket='history', Prefix='wal/host=web1/')['Contents'][0]['Key']\n\
         s3.copy_object(Bucket='history', Key=one.replace('.parquet', 'b.parquet'), CopySource={'Bucket': 'history', 'Key': one})",
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = folder.join("tests/suite/fleet.py");
    let page = folder.join("docs/fleet.md");
    let printed =
        stdout_of(python().arg(script).arg(page).args([&s3.endpoint(), OWNER.key, OWNER.secret]));
    let answers: BTreeMap<String, Vec<Value>> = serde_json::from_str(&printed).unwrap();

    let today = SystemClock::new().now().day();
    let mut rows: Vec<(&str, Value)> = Vec::new();
    for (host, place) in &hosts {
        let all = operations(place);
        let (mut past, rest): (Vec<Value>, Vec<Value>) = all.into_iter().partition(|one| {
            one["status"] == "completed" && millis(&one["completed_at"]) / DAY < today
        });
        // Two failed, one was completed today, two are the pushes.
        assert_eq!((past.len(), rest.len()), (if *host == "web1" { 15 } else { 17 }, 5), "{host}");
        let status = place.json("status");
        assert_eq!(status["stats"]["completed"].as_u64().unwrap() as usize, past.len() + 3);
        rows.extend(past.drain(..).map(|one| (*host, one)));
    }

    let mut counted: BTreeMap<(String, String, String), (u64, u64)> = BTreeMap::new();
    for (host, one) in &rows {
        let date = one["completed_at"].as_str().unwrap()[..10].to_owned();
        let count = counted
            .entry((host.to_string(), date, one["status"].as_str().unwrap().to_owned()))
            .or_default();
        *count = (count.0 + 1, count.1 + one["result"]["size"].as_u64().unwrap_or(0));
    }
    let expected: Vec<Value> = counted
        .iter()
        .map(|((host, date, status), (operations, bytes))| {
            json!({ "host": host, "date": date, "status": status, "operations": operations, "bytes": bytes.to_string() })
        })
        .collect();
    let mut found = answers["How many, by host, day and status"].clone();
    // DuckDB prints a sum, which may exceed 64 bits, as text.
    found
        .iter_mut()
        .for_each(|row| row["bytes"] = json!(row["bytes"].to_string().trim_matches('"')));
    assert_eq!(found, expected);
    assert_eq!(found.len(), 4);

    let took = |one: &Value| millis(&one["completed_at"]) - millis(&one["timestamp"]);
    let mut slowest: Vec<&(&str, Value)> = rows.iter().collect();
    slowest.sort_by_key(|(_, one)| (-took(one), one["operation_id"].as_str().unwrap().to_owned()));
    let expected: Vec<Value> = slowest
        .iter()
        .take(10)
        .map(|(host, one)| {
            let last = millis(&attempts(one).last().unwrap()["at"]);
            json!({ "host": host, "number": one["number"], "operation_type": one["operation_type"], "backend": one["backend"],
                "took_ms": took(one), "last_attempt_ms": millis(&one["completed_at"]) - last })
        })
        .collect();
    assert_eq!(answers["The slowest"], expected);
    assert!(took(&slowest[0].1) >= 7000, "some operations waited for a retry");

    let mut causes: BTreeMap<Cause, (u64, BTreeSet<String>, i64)> = BTreeMap::new();
    for (host, one) in &rows {
        let failed = |change: &&Value| {
            change["from"] == "processing"
                && !["completed", "processing"].map(Value::from).contains(&change["to"])
        };
        for change in changes(one).iter().filter(failed) {
            let cause = change["error"].as_str().or(change["reason"].as_str()).unwrap();
            let key =
                (host.to_string(), one["backend"].as_str().unwrap().to_owned(), cause.to_owned());
            let seen = causes.entry(key).or_default();
            seen.0 += 1;
            seen.1.insert(one["operation_id"].to_string());
            seen.2 = seen.2.max(millis(&change["at"]));
        }
    }
    let mut expected: Vec<_> = causes.into_iter().collect();
    expected.sort_by_key(|(key, (times, _, _))| (u64::MAX - times, key.clone()));
    assert_eq!(answers["Why attempts failed"].len(), expected.len());
    assert!(expected.len() >= 2, "attempts failed on both hosts");
    for (found, ((host, backend, cause), (times, ids, last))) in
        answers["Why attempts failed"].iter().zip(&expected)
    {
        let reported = json!({ "host": host, "backend": backend, "cause": cause, "times": times, "operations": ids.len(),
            "last_seen": found["last_seen"] });
        assert_eq!((found, instant(&found["last_seen"])), (&reported, *last));
    }

    // The operation whose priority changed meanwhile had one attempt, of five seconds.
    let is_reordered = |one: &&(&str, Value)| one.1["backend"] == "reordered";
    for (_, one) in rows.iter().filter(is_reordered) {
        assert_eq!(
            (
                changes(one).iter().filter(|change| change["to"] == "processing").count(),
                attempts(one).len()
            ),
            (2, 1)
        );
        assert!(millis(&one["completed_at"]) - millis(&attempts(one)[0]["at"]) >= 5000, "{one:#}");
    }
    assert_eq!(rows.iter().filter(is_reordered).count(), 2);

    let mut tries: BTreeMap<(String, usize), u64> = BTreeMap::new();
    for (host, one) in &rows {
        *tries.entry((host.to_string(), attempts(one).len())).or_default() += 1;
    }
    let expected: Vec<Value> = tries
        .iter()
        .map(|((host, attempts), operations)| json!({ "host": host, "attempts": attempts, "operations": operations }))
        .collect();
    assert_eq!(answers["Attempts per operation"], expected);
    assert!(tries.keys().any(|(_, attempts)| *attempts > 1));

    let last = |is_it: &dyn Fn(&Value) -> bool| {
        let found = rows.iter().filter(|(_, one)| is_it(one));
        found
            .max_by_key(|(_, one)| {
                (millis(&one["completed_at"]), one["operation_id"].as_str().unwrap().to_owned())
            })
            .unwrap()
    };
    let (host, one) =
        last(&|one| one["result"]["cid"] == "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
    let found = &answers["When a CID was last uploaded"];
    let reported = json!([{ "host": host, "number": one["number"], "operation_type": "add", "backend": "local",
        "completed_at": found[0]["completed_at"], "path": one["parameters"]["path"] }]);
    assert_eq!(
        (&json!(found), instant(&found[0]["completed_at"])),
        (&reported, millis(&one["completed_at"]))
    );

    let is_report = |one: &Value| one["parameters"]["destination"] == "/reports/today.csv";
    let (host, one) = last(&is_report);
    let found = &answers["When something was last uploaded to a key"];
    let reported = json!([{ "host": host, "number": one["number"], "completed_at": found[0]["completed_at"],
        "bytes": one["result"]["size"] }]);
    assert_eq!(
        (&json!(found), instant(&found[0]["completed_at"])),
        (&reported, millis(&one["completed_at"]))
    );

    let lives = rows
        .iter()
        .filter(|(host, one)| *host == "web2" && is_report(one))
        .flat_map(|(_, one)| changes(one));
    let mut expected: Vec<&Value> = lives.collect();
    expected.sort_by_key(|change| change["revision"].as_u64());
    let found = &answers["The life of one operation"];
    assert_eq!(found.len(), expected.len());
    for (found, change) in found.iter().zip(expected) {
        for name in ["from", "to", "actor", "reason", "error"] {
            assert_eq!(found[name], change[name], "{change}");
        }
        assert_eq!(instant(&found["at"]), millis(&change["at"]));
    }
}

#[test]
fn a_drain_loop_pushes_archives_before_cleanup_prunes_them() {
    let s3 = S3::shared();
    s3.python("s3.create_bucket(Bucket='drained')");
    let place = Place::new();
    live(&place, 3);
    let settings = "archive_push = \"s3://drained/all\"\narchive_host = \"web3\"\nmax_age_days = 1\ncleanup_interval = 3600";
    configure(&place, s3, settings);
    let kept = place.json("cleanup --dry-run");
    assert_eq!((&kept["operations"], &kept["unpushed"]), (&json!(0), &json!(19)), "{kept:#}");
    // There has been no cleanup yet, so one is due: it logs the pushes, and the same loop executes
    // them.
    place.run("process");
    let keys =
        "print(' '.join(one['Key'] for one in s3.list_objects_v2(Bucket='drained')['Contents']))";
    let keys = s3.python(keys);
    assert_eq!(keys.split(' ').count(), 2, "{keys}");
    assert!(keys.split(' ').all(|key| key.starts_with("all/host=web3/date=20")), "{keys}");
    let dropped = place.json("cleanup");
    assert_eq!(
        (&dropped["operations"], &dropped["unpushed"]),
        (&json!(19), &json!(0)),
        "{dropped:#}"
    );
    assert_eq!(place.json("archive list")["archives"][0]["state"], "open");
}

#[test]
fn any_backend_that_uploads_takes_pushes() {
    let place = Place::new();
    live(&place, 1);
    let planned = place.run("archive push /history --backend local --host h --dry-run");
    // Small archives of one day are merged first, so only their folder is known in advance.
    let small = planned.lines().filter(|line| line.ends_with('/')).count();
    let whole = planned.lines().filter(|line| line.ends_with(".parquet")).count();
    assert_eq!(
        (planned.matches("would push").count(), small + whole),
        (planned.lines().count(), planned.lines().count())
    );
    assert!(planned.contains("/history/host=h/date=20"), "{planned}");
    assert_eq!(place.run("archive list").matches(" closed").count(), small + whole);
    let logged = place.run("archive push /history --backend local --host h");
    assert_eq!(logged.lines().count(), 2, "{logged}");
    let again = place.output("archive push /history --backend local --host h");
    assert!(
        text(&again.stdout).contains("no archive of a past day is left to push (0 pushed)"),
        "{again:?}"
    );
    assert!(text(&again.stderr).contains("logged earlier, is pending"), "{again:?}");
    assert_eq!(place.run("archive list").matches(" pushing").count(), 2);
    place.run("archive push /history --backend local --host h --wait");
    assert_eq!(place.run("archive list").matches(" pushed").count(), 2);
    let again = place.run("archive push --host h --wait /history --backend local");
    assert!(again.contains("(2 pushed, 1 of days that are not over)"), "{again}");
    place.run("submit list /history/host=h --backend local --wait");
    // A host name that cannot be the name of a folder.
    let refused = place.output("archive push /history --backend local --host a/b");
    assert_eq!(code(&refused), Some(2));
    assert!(text(&refused.stderr).contains("`a/b` cannot be the name of a host"), "{refused:?}");
    let refused = place.output("archive push");
    assert_eq!(code(&refused), Some(2));
    assert!(text(&refused.stderr).contains("archive_push"), "{refused:?}");
}

#[test]
fn a_failed_push_is_reported_kept_and_retried() {
    let place = Place::new();
    live(&place, 1);
    // A file has the name of the folder.
    place.run("submit upload hello.txt /history --backend local --wait");
    let failed = place.output("archive push /history --backend local --host h --wait");
    assert_eq!(code(&failed), Some(1), "{failed:?}");
    assert_eq!(place.run("archive list").matches(" failed ").count(), 2);
    let causes = place.json("failures");
    assert!(causes.to_string().contains("/history"), "{causes:#}");
    assert_eq!(place.json("cleanup --age 0")["unpushed"], 15, "archives of failed pushes are kept");
    let again = place.output("archive push /history --backend local --host h");
    assert!(
        text(&again.stderr).contains("logged earlier, is failed; run `wal-cli why "),
        "{again:?}"
    );
    place.run("submit rm /history --backend local --wait");
    let numbers: Vec<String> = place.json("archive list")["archives"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|archive| {
            archive["operation"]["number"].as_u64().map(|number| number.to_string())
        })
        .collect();
    place.run(&format!("retry {}", numbers.join(" ")));
    place.run("process");
    assert_eq!(place.run("archive list").matches(" pushed").count(), 2);
    assert_eq!(place.json("cleanup --age 0")["unpushed"], 0);
}

#[test]
fn a_push_to_a_missing_bucket_can_go_to_another_one() {
    let s3 = S3::shared();
    s3.python("s3.create_bucket(Bucket='rightbucket')");
    let place = Place::new();
    live(&place, 1);
    configure(&place, s3, "");
    let failed = place.output("archive push s3://nosuchbucket/x --host h --wait --timeout 2min");
    assert_eq!(code(&failed), Some(1), "{failed:?}");
    assert!(text(&failed.stdout).contains("no_such_bucket"), "{failed:?}");
    let logged = place.json("archive push s3://rightbucket/x --host h");
    assert_eq!(logged["logged"], 2, "{logged:#}");
    place.run("process");
    assert_eq!(
        place.json("archive list").to_string().matches("s3://rightbucket/x/host=h/").count(),
        2
    );
    assert_eq!(place.run("archive list").matches("pushed  s3://rightbucket/x/host=h\n").count(), 2);
}

#[test]
fn a_repair_without_a_manifest_pushes_the_same_names_again() {
    let place = Place::new();
    live(&place, 2);
    place.run("archive push /history --backend local --host h --wait");
    let before = place.json("archive list");
    place.run("archive push /history --backend local --host h");
    place.file("wal/MANIFEST.json", "nonsense");
    place.output("verify --repair");
    assert!(place.run("verify").contains("The log is valid"));
    let destinations = |list: &Value| -> BTreeSet<String> {
        let archives = list["archives"].as_array().unwrap().iter();
        archives.filter_map(|archive| archive["destination"].as_str().map(str::to_owned)).collect()
    };
    assert!(destinations(&place.json("archive list")).is_empty(), "the record of the push is lost");
    let again = place.json("archive push /history --backend local --host h");
    // The log finds the operations by their keys.
    assert_eq!((&again["logged"], &again["pushed"]), (&json!(0), &json!(2)), "{again:#}");
    assert_eq!(destinations(&place.json("archive list")), destinations(&before));
}

#[test]
fn adopted_archives_are_pushed_too() {
    let place = Place::new();
    adoption::put(&place, "mixed", Duration::from_secs(7200));
    let pushed = place.json("archive push /history --backend local --host h --wait");
    assert!(!pushed["operations"].as_array().unwrap().is_empty(), "{pushed:#}");
    assert!(
        pushed["operations"].as_array().unwrap().iter().all(|one| one["status"] == "completed"),
        "{pushed:#}"
    );
}
