//! The real program, killed at every failpoint of every workload; a second writer acts before
//! anything is checked.
//!
//! The points that a run without a kill passes are recorded, so none is listed by hand. Plain runs
//! take a seeded sample (`WAL_CLI_SEED`); with `WAL_CLI_LONG` all points; with
//! `WAL_CLI_CASE=WORKLOAD/POINT` that one alone.
#![expect(clippy::disallowed_methods, reason = "reads files as another program would")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::adoption;
use super::binary::Place;
use super::kill::{account_for_files, id_in};

/// The number of points of a sample.
const SAMPLE: usize = 400;

/// The size of a batch that is too large for a frame.
const BATCH: usize = 1_010;

/// A command that is killed at every failpoint that it passes.
struct Workload {
    name: &'static str,
    /// The preparations: commands; `original`, a directory of the original system; `damage`, the
    /// loss of the manifest; or `POINT! COMMAND`, a command that is killed there.
    before: &'static [&'static str],
    command: &'static str,
}

const fn workload(
    name: &'static str,
    before: &'static [&'static str],
    command: &'static str,
) -> Workload {
    Workload { name, before, command }
}

/// The workloads.
const WORKLOADS: &[Workload] = &[
    workload("first", &[], "add --backend local f0"),
    workload("add", &["add --backend local f0"], "add --backend local f1"),
    workload(
        "add-several",
        &["add --backend local f0"],
        "add --backend local --spool always f0 f1 f2 f3",
    ),
    workload("add-wait", &["add --backend local f0"], "add --backend local f1 f2 --wait"),
    workload(
        "add-batch",
        &["add --backend local f0"],
        "add --backend mock --spool never --from-file batch",
    ),
    workload("process", &["add --backend local f0 f1 f2"], "--json process --jobs 1"),
    workload("process-mock", &["add --backend mock f0 f1 f2"], "--json process --jobs 1"),
    workload(
        "process-after-kill",
        &["add --backend local f0 f1", "before:effect! process"],
        "--json process --jobs 1",
    ),
    workload(
        "process-in-doubt",
        &["add --backend local f0 f1", "after:effect! process"],
        "--json process --jobs 1",
    ),
    workload(
        "retry",
        &["submit rm /d --backend local", "process", "submit mkdir /d --backend local"],
        "retry 1",
    ),
    workload("redirect", &["submit rm /d --backend local", "process"], "retry 1 --backend mock"),
    workload("cancel", &["add --backend local f0 f1 f2"], "cancel 1 3"),
    workload("hold", &["add --backend local f0 f1"], "hold 2"),
    workload("delete", &["add --backend local f0 f1", "cancel 1"], "delete 1"),
    workload("delete-completed", &["add --backend local f0", "process", "checkpoint"], "delete 1"),
    workload(
        "checkpoint",
        &["add --backend local f0 f1", "process", "add --backend local f2 f3"],
        "checkpoint",
    ),
    workload(
        "checkpoint-again",
        &["add --backend local f0 f1", "checkpoint", "process"],
        "checkpoint",
    ),
    workload("cleanup", &["original", "checkpoint", "add --backend local f0"], "cleanup --age 30"),
    workload("cleanup-failed", &["original", "checkpoint"], "cleanup --age 0 --failed"),
    workload(
        "archive-push",
        &["original", "checkpoint"],
        "archive push /history --backend local --host h",
    ),
    workload(
        "archive-push-wait",
        &["original", "checkpoint"],
        "archive push /history --backend local --host h --wait",
    ),
    workload("adoption", &["original"], "add --backend local f0"),
    workload("adoption-checkpoint", &["original"], "checkpoint"),
    workload(
        "recovery",
        &["add --backend local f0", "after:write:generation! add --backend local f1"],
        "add --backend local f2",
    ),
    workload(
        "after-failed-flush",
        &["add --backend local f0", "before:sync:generation! add --backend local f1"],
        "cancel 1",
    ),
    workload(
        "repair",
        &["add --backend local f0 f1", "process", "checkpoint", "add --backend local f2", "damage"],
        "verify --repair",
    ),
];

/// A prepared workload, and the states between which each kill must leave the log.
struct Scene {
    workload: &'static Workload,
    template: Place,
    /// The operations before the command.
    before: BTreeMap<String, Operation>,
    /// The settled operations if the command does nothing, and if it does everything.
    undone: BTreeMap<String, Operation>,
    done: BTreeMap<String, Operation>,
    /// The number of operations that the command logs.
    logs: usize,
    points: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Operation {
    number: u64,
    status: String,
    error_type: String,
}

fn put_files(place: &Place) {
    for n in 0..5 {
        place.file(&format!("f{n}"), &format!("content {n}\n"));
    }
    place.file("second", "of the second writer\n");
    place.file("batch", &"f0\n".repeat(BATCH));
}

fn prepare(workload: &'static Workload) -> Scene {
    let template = Place::in_memory();
    put_files(&template);
    for step in workload.before {
        match step.split_once("! ") {
            _ if *step == "damage" => {
                std::fs::write(template.log().join("MANIFEST.json"), "nonsense").unwrap()
            }
            _ if *step == "original" => {
                adoption::put(&template, "mixed", Duration::from_secs(7200))
            }
            Some((point, command)) => {
                let output =
                    template.command(command).env("WAL_CLI_FAILPOINT", point).output().unwrap();
                assert_eq!(
                    output.status.signal(),
                    Some(6),
                    "{}: {step}: {output:?}",
                    workload.name
                );
            }
            None => {
                let output = template.output(step);
                assert!(
                    [Some(0), Some(1)].contains(&output.status.code()),
                    "{}: {step}: {output:?}",
                    workload.name
                );
            }
        }
    }
    let undone = template.copy();
    mend(workload, &undone);
    let before = operations(&undone);
    let mut undone = settled(&undone, &mut BTreeSet::new());
    let recorded = template.copy();
    let list = recorded.path("points");
    let output =
        recorded.command(workload.command).env("WAL_CLI_FAILPOINT_LIST", &list).output().unwrap();
    assert!(output.status.success(), "{}: {output:?}", workload.name);
    let points = std::fs::read_to_string(&list)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    assert!(
        !points.is_empty(),
        "{}: no point is passed: the program needs debug assertions",
        workload.name
    );
    let mut done = settled(&recorded, &mut BTreeSet::new());
    let logs = done.keys().filter(|id| !before.contains_key(*id)).count();
    undone.retain(|id, _| before.contains_key(id));
    done.retain(|id, _| before.contains_key(id));
    Scene { workload, template, before, undone, done, logs, points }
}

/// Repairs the log if the workload damaged it.
fn mend(workload: &Workload, place: &Place) {
    if workload.before.contains(&"damage") {
        place.run("verify --repair");
    }
}

/// Returns all operations, and asserts that each exists once and completed at most once.
fn operations(place: &Place) -> BTreeMap<String, Operation> {
    let listed = place.json("list all --limit 0");
    let (mut found, mut numbers) = (BTreeMap::new(), BTreeSet::new());
    for one in listed["operations"].as_array().unwrap() {
        let id = one["operation_id"].as_str().unwrap().to_owned();
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let operation = Operation {
            number: one["number"].as_u64().unwrap(),
            status: text("status"),
            error_type: text("error_type"),
        };
        assert!(
            numbers.insert(operation.number),
            "number {} belongs to two operations",
            operation.number
        );
        let completed = one["history"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|step| step["to"] == "completed")
            .count();
        assert!(completed <= 1, "completed {completed} times: {one}");
        if let (Some(cid), "local", "add", "completed") = (
            one["result"]["cid"].as_str(),
            &*text("backend"),
            &*text("operation_type"),
            &*text("status"),
        ) {
            // Content of the original system is stored elsewhere, if at all.
            let ours =
                one["history"].as_array().unwrap().iter().any(|step| step["to"] == "completed");
            let path = place
                .log()
                .join("local/content")
                .join(&cid[cid.len() - 3..cid.len() - 1])
                .join(cid);
            assert!(!ours || path.exists(), "completed, but {} does not exist", path.display());
        }
        assert!(found.insert(id.clone(), operation).is_none(), "{id} exists twice");
    }
    found
}

/// Drains the log with a new process, and reads it with another. Adds the acknowledged completions
/// to the set.
fn settled(place: &Place, completed: &mut BTreeSet<String>) -> BTreeMap<String, Operation> {
    let output = place.output("--json process");
    assert!([Some(0), Some(1)].contains(&output.status.code()), "process: {output:?}");
    completed.extend(completed_in(&output));
    operations(place)
}

/// Returns the ids in complete lines that report a completion.
fn completed_in(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let reported: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    let completed = reported.iter().filter(|line| line["status"] == "completed");
    completed.filter_map(|line| line["operation_id"].as_str().map(str::to_owned)).collect()
}

/// Kills the workload at a point and checks the result. Returns false if it did not reach it.
fn kill_at(scene: &Scene, point: &str, nth: usize) -> bool {
    let place = scene.template.copy();
    let output =
        place.command(scene.workload.command).env("WAL_CLI_FAILPOINT", point).output().unwrap();
    let killed = output.status.signal() == Some(6);
    assert!(killed || output.status.success(), "neither killed nor completed: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let whole_lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    // A complete line is an acknowledgement, whatever happened later.
    let mut logged: BTreeSet<String> = whole_lines.filter_map(id_in).collect();
    let mut completed: BTreeSet<String> = completed_in(&output).into_iter().collect();
    let mut cancelled = BTreeSet::new();

    mend(scene.workload, &place);
    // A second writer, and the operations acknowledged to it.
    let added = place.json("add --backend local second");
    let second = added["operation_id"].as_str().unwrap().to_owned();
    let mut others = BTreeSet::from([second]);
    match nth % 3 {
        1 => {
            let third = place.json("add --backend local second")["operation_id"]
                .as_str()
                .unwrap()
                .to_owned();
            place.run(&format!("cancel {third}"));
            cancelled.insert(third.clone());
            others.insert(third);
        }
        2 => drop(place.run("checkpoint")),
        _ => {}
    }
    logged.extend(others.iter().cloned());

    let found = settled(&place, &mut completed);
    for id in &logged {
        assert!(found.contains_key(id), "{id} was acknowledged but does not exist");
    }
    for id in &completed {
        assert_eq!(
            found.get(id).map(|one| &*one.status),
            Some("completed"),
            "{id} was reported as completed"
        );
    }
    for id in &others {
        let expected = if cancelled.contains(id) { "failed" } else { "completed" };
        assert_eq!(found[id].status, expected, "{id} of the second writer: {:?}", found[id]);
    }
    let known: BTreeMap<_, _> = found
        .iter()
        .filter(|(id, _)| scene.before.contains_key(*id))
        .map(|(id, one)| (id.clone(), one.clone()))
        .collect();
    assert!(
        known == scene.done || known == scene.undone,
        "partial effect: {known:#?}\nis neither {:#?}\nnor {:#?}",
        scene.undone,
        scene.done
    );
    let new: Vec<_> = found
        .iter()
        .filter(|(id, _)| !scene.before.contains_key(*id) && !others.contains(*id))
        .collect();
    assert!(
        [0, scene.logs].contains(&new.len()),
        "{} of {} operations are logged",
        new.len(),
        scene.logs
    );
    for (id, operation) in new {
        assert_eq!(operation.status, "completed", "{id}: {operation:?}");
    }

    // The log continues to work, and a checkpoint changes nothing.
    let last = place.json("add --backend local f0 --wait")["operations"][0]["operation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    place.run("checkpoint");
    let mut folded = operations(&place);
    assert_eq!(folded.remove(&last).map(|one| one.status), Some("completed".into()));
    assert_eq!(folded, found, "a checkpoint changes nothing");
    assert_eq!(place.json("status")["stats"]["total"], found.len() + 1);
    account_for_files(&place, 0);
    killed
}

#[test]
fn a_kill_at_any_point_breaks_no_promise() {
    let variable = |name: &str| std::env::var(name).ok();
    let only = variable("WAL_CLI_CASE");
    let workloads = WORKLOADS.iter().filter(|workload| {
        only.as_ref()
            .is_none_or(|case| case.split_once('/').is_some_and(|(name, _)| name == workload.name))
    });
    let scenes: Vec<Scene> = workloads.map(prepare).collect();
    assert!(!scenes.is_empty(), "no workload is called {only:?}");
    let mut cases: Vec<(&Scene, &str)> = scenes
        .iter()
        .flat_map(|scene| scene.points.iter().map(move |point| (scene, &**point)))
        .collect();
    let names: BTreeSet<&str> =
        cases.iter().map(|(_, point)| point.split('#').next().unwrap()).collect();
    let (all, points) = (cases.len(), names.len());
    if let Some((_, point)) = only.as_deref().and_then(|case| case.split_once('/')) {
        cases.retain(|(_, of)| *of == point);
        assert_eq!(cases.len(), 1, "the workload does not pass {point}");
    } else if variable("WAL_CLI_LONG").is_none() {
        let seed = variable("WAL_CLI_SEED").map_or(1, |seed| seed.parse().expect("a number"));
        println!("seed {seed}");
        fastrand::Rng::with_seed(seed).shuffle(&mut cases);
        cases.truncate(SAMPLE);
    }
    let (next, missed, broken) =
        (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((scene, point)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The seed depends on the case alone, whatever sample it is part of.
                    let nth = point.bytes().map(usize::from).sum();
                    match catch_unwind(AssertUnwindSafe(|| kill_at(scene, point, nth))) {
                        Ok(true) => {}
                        Ok(false) => {
                            missed.lock().unwrap().push(format!("{}/{point}", scene.workload.name))
                        }
                        Err(_) => {
                            broken.lock().unwrap().push(format!("{}/{point}", scene.workload.name))
                        }
                    }
                }
            });
        }
    });
    let (missed, broken) = (missed.into_inner().unwrap(), broken.into_inner().unwrap());
    println!(
        "{} kills over {points} named points ({all} instants of {} workloads), {} broken promises; \
         {} runs ended before their point: {missed:?}",
        cases.len() - missed.len(),
        scenes.len(),
        broken.len(),
        missed.len()
    );
    let again =
        broken.iter().map(|case| format!("WAL_CLI_CASE='{case}' tests/run suite::failpoints\n"));
    assert!(
        broken.is_empty(),
        "broken promises; to replay each alone:\n{}",
        again.collect::<String>()
    );
    // The grouping of claims depends on time, so a few points are not reached a second time.
    assert!(missed.len() * 20 <= cases.len(), "too many points were not reached: {missed:?}");
}
