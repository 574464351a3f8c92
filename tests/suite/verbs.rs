//! User actions on logged operations, and operations that wait for others.

use std::sync::Arc;
use std::time::Duration;

use wal_cli::client::{
    Action, AddOptions, Changed, CleanupOptions, Client, ClientError, Failures, Filter, NoObserver,
    OnInvalid, ProcessOptions, Reason, Reference, Stop,
};
use wal_cli::operation::{FailureClass, Fields, Logged, Number, OperationId, Source, Status};
use wal_cli::wal::WalError;

use super::scenario::{Act, Scenario, backend, logged};

const CANCEL: Action = Action::Cancel { permanent: false };
const RETRY: Action = Action::Retry { now: false };

fn numbers(numbers: &[u64]) -> Vec<Reference> {
    numbers.iter().map(|number| Reference::Number(Number::new(*number))).collect()
}

fn change(scenario: &Scenario, verb: &Action, on: &[u64]) -> Changed {
    scenario.client().change(&numbers(on), verb, OnInvalid::Abort).unwrap()
}

fn refused(scenario: &Scenario, verb: &Action, on: &[u64]) -> String {
    match scenario.client().change(&numbers(on), verb, OnInvalid::Abort) {
        Err(error @ ClientError::NotApplicable { .. }) => error.to_string(),
        other => panic!("{verb:?} on {on:?} was not refused: {other:?}"),
    }
}

/// Logs an operation that waits for others, and returns its number.
fn add_after(scenario: &Scenario, on: &str, name: &str, after: &[u64]) -> u64 {
    submit_with(scenario, on, name, AddOptions::default().with_after(numbers(after)))
}

fn submit_with(scenario: &Scenario, on: &str, name: &str, options: AddOptions) -> u64 {
    let client = scenario.client();
    let options = options.with_backend(backend(on)).with_max_retries(2);
    let mut batch = client.batch(&options, OnInvalid::Abort).unwrap();
    let Logged { operation_type, parameters, .. } = logged(on, name, 0);
    batch.operation(&operation_type, parameters).unwrap();
    batch.commit().unwrap().to_vec().unwrap()[0].number.get()
}

fn statuses(scenario: &Scenario) -> String {
    let page = scenario.client().list(&Filter::default(), None).unwrap();
    let words: Vec<String> = page
        .operations
        .iter()
        .rev()
        .map(|one| format!("{}:{}", one.number, one.status()))
        .collect();
    words.join(" ")
}

fn reason(scenario: &Scenario, number: u64) -> Reason {
    scenario.client().why(&Reference::Number(Number::new(number))).unwrap().reason
}

#[test]
fn held_operations_stay_until_they_are_released() {
    let scenario = Scenario::new();
    scenario.add("a", "x y");
    change(&scenario, &Action::Hold, &[1]);
    assert_eq!(reason(&scenario, 1), Reason::Held);
    assert_eq!(scenario.process().completed, 1);
    assert_eq!(scenario.calls("a"), "y");
    scenario.client().checkpoint().unwrap();
    assert_eq!(scenario.process().completed, 0, "nor after a checkpoint");
    let again = change(&scenario, &Action::Hold, &[1]);
    assert_eq!((again.operations.len(), again.unchanged.len()), (0, 1));
    change(&scenario, &Action::Release, &[1]);
    assert_eq!(scenario.process().completed, 1);
    assert!(refused(&scenario, &Action::Hold, &[1]).contains("ended"));
}

#[test]
fn the_priority_of_a_pending_operation_can_be_changed() {
    let scenario = Scenario::new();
    scenario.add("a", "one two three");
    scenario.client().checkpoint().unwrap();
    change(&scenario, &Action::Prioritize(5), &[3]);
    change(&scenario, &Action::Prioritize(-5), &[1]);
    scenario.process();
    assert_eq!(scenario.calls("a"), "three two one");
}

#[test]
fn cancelled_operations_fail_and_bulk_retries_skip_them() {
    let scenario = Scenario::new();
    scenario.act("a", "y", &[Act::Fail(FailureClass::Transient)]).add("a", "x y z");
    scenario.client().change(&numbers(&[3]), &Action::Hold, OnInvalid::Abort).unwrap();
    scenario.client().change(&numbers(&[1]), &CANCEL, OnInvalid::Abort).unwrap();
    scenario.process();
    assert_eq!(statuses(&scenario), "1:failed 2:retrying 3:pending");
    change(&scenario, &CANCEL, &[2, 3]);
    let operation = scenario.get(2);
    assert_eq!(operation.state.failure().unwrap().error_type, "cancelled");
    assert!(
        operation.state.failure().unwrap().message.contains("failed as scripted"),
        "the last error is kept"
    );
    assert!(operation.is_abandoned());
    assert!(refused(&scenario, &CANCEL, &[2]).contains("already failed"));
    change(&scenario, &RETRY, &[2]);
    assert_eq!(scenario.process().completed, 1, "an operation that is named is retried");
    assert!(refused(&scenario, &CANCEL, &[2]).contains("already completed"));
}

#[test]
fn one_inapplicable_operation_prevents_the_whole_change() {
    let scenario = Scenario::new();
    scenario.add("a", "x");
    scenario.process();
    scenario.add("a", "y z");
    assert!(refused(&scenario, &CANCEL, &[1, 2]).contains("completed"));
    assert_eq!(statuses(&scenario), "1:completed 2:pending 3:pending");
    let changed = scenario.client().change(&numbers(&[1, 2]), &CANCEL, OnInvalid::Skip).unwrap();
    assert_eq!(
        (changed.operations.len(), changed.skipped.len()),
        (1, 1),
        "operations that a filter selects are skipped"
    );
    assert_eq!(statuses(&scenario), "1:completed 2:failed 3:pending");
}

#[test]
fn a_running_operation_is_asked_to_stop_when_cancelled() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Hang]).add("a", "x y");
    let stop = Stop::new();
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            scenario.client().process(&ProcessOptions::default(), &stop, &mut NoObserver)
        });
        while scenario.calls("a").is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(reason(&scenario, 1), Reason::Running);
        let changed = change(&scenario, &CANCEL, &[1]);
        assert_eq!(
            changed.operations[0].status(),
            Status::Processing,
            "only the drain loop settles it"
        );
        running.join().unwrap().unwrap()
    });
    assert_eq!((report.cancelled, report.completed, report.failed), (1, 1, 0));
    let operation = scenario.get(1);
    assert_eq!((operation.status(), operation.retry_count), (Status::Failed, 0));
    let reasons: Vec<_> =
        operation.history.iter().filter_map(|entry| entry.reason.clone()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("asked to stop")), "{reasons:?}");
}

#[test]
fn an_operation_that_ends_before_it_stops_is_completed() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Die]).add("a", "x");
    let _ = scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver);
    assert_eq!(reason(&scenario, 1), Reason::LoopDied);
    change(&scenario, &CANCEL, &[1]);
    let answer = wal_cli::backend::AttemptStatus::Done(wal_cli::operation::Outcome::default());
    scenario.scripts["a"].answers.lock().unwrap().insert("x".into(), answer);
    assert_eq!(scenario.process().completed, 1);
    assert_eq!(scenario.get(1).status(), Status::Completed);
}

#[test]
fn a_cancelled_claim_of_a_dead_loop_is_not_executed_again() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Die]).add("a", "x");
    let _ = scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver);
    change(&scenario, &CANCEL, &[1]);
    // The request survives a checkpoint: it is a column of its own.
    scenario.client().checkpoint().unwrap();
    let report = scenario.process();
    assert_eq!((report.cancelled, scenario.calls("a").as_str()), (1, "x"));
}

#[test]
fn a_permanent_cancel_excludes_an_operation_from_retries() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Fail(FailureClass::Permanent)]).add("a", "x y");
    change(&scenario, &Action::Hold, &[2]);
    scenario.process();
    let ended = scenario.get(1).updated_at;
    scenario.wait(10);
    change(&scenario, &Action::Cancel { permanent: true }, &[1, 2]);
    for number in [1, 2] {
        let operation = scenario.get(number);
        assert_eq!(operation.state.failure().unwrap().error_type, "permanent_failure");
    }
    assert!(
        matches!(scenario.get(1).state, wal_cli::operation::State::Failed { at, .. } if at == ended)
    );
    let again = change(&scenario, &Action::Cancel { permanent: true }, &[1]);
    assert_eq!(again.unchanged.len(), 1);
}

#[test]
fn deleting_removes_operations_that_no_others_wait_for() {
    let scenario = Scenario::new();
    scenario.add("a", "x");
    assert_eq!(add_after(&scenario, "a", "y", &[1]), 2);
    assert!(refused(&scenario, &Action::Delete, &[1]).contains("operation 2 waits for it"));
    let id = scenario.get(1).id;
    change(&scenario, &Action::Delete, &[1, 2]);
    assert_eq!(statuses(&scenario), "");
    let client = scenario.client();
    assert!(matches!(client.operation(&Reference::Id(id)), Err(ClientError::NoSuchOperation(_))));
    assert_eq!(client.status().unwrap().counts.total(), 0);
    scenario.add("a", "z");
    client.checkpoint().unwrap();
    assert_eq!(statuses(&scenario), "3:pending", "numbers are not reused");
    scenario.process();
    client.checkpoint().unwrap();
    change(&scenario, &Action::Delete, &[3]);
    client.checkpoint().unwrap();
    assert_eq!((statuses(&scenario).as_str(), client.status().unwrap().counts.total()), ("", 0));
}

#[test]
fn a_redirect_and_its_new_operation_name_each_other() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Fail(FailureClass::Permanent)]).add("a", "x y");
    change(&scenario, &Action::Hold, &[2]);
    scenario.process();
    let changed = change(&scenario, &Action::Redirect(backend("b")), &[1, 2]);
    let (one, two) = (&changed.redirected_to[0], &changed.redirected_to[1]);
    assert_eq!(
        (one.redirected_from, scenario.get(1).redirected_to),
        (Some(scenario.get(1).id), Some(one.id))
    );
    assert_eq!(
        scenario.get(1).state.failure().unwrap().error_type,
        "scripted",
        "the old operation keeps its failure"
    );
    assert_eq!(scenario.get(2).state.failure().unwrap().error_type, "redirected");
    assert_eq!((one.parameters["name"].as_str(), two.parameters["name"].as_str()), ("x", "y"));
    assert!(two.hold && !one.hold, "a held operation stays held");
    change(&scenario, &Action::Release, &[4]);
    assert!(refused(&scenario, &RETRY, &[1]).contains("continues as another operation"));
    assert!(
        refused(&scenario, &Action::Redirect(backend("b")), &[1])
            .contains("continues as another operation")
    );
    scenario.process();
    assert_eq!((scenario.calls("a").as_str(), scenario.calls("b").as_str()), ("x", "x y"));
    assert_eq!(statuses(&scenario), "1:failed 2:failed 3:completed 4:completed");
}

#[test]
fn dependents_run_after_their_dependencies_completed() {
    let scenario = Scenario::new();
    scenario.add("a", "first");
    let second = add_after(&scenario, "b", "second", &[1]);
    let third = add_after(&scenario, "a", "third", &[1, second]);
    assert_eq!(reason(&scenario, third), Reason::WaitsForOthers);
    scenario.client().checkpoint().unwrap();
    assert_eq!(scenario.process().completed, 3, "in one run");
    assert_eq!(scenario.calls("a"), "first third");
    assert!(scenario.get(third).depends_on.is_empty());
    let late = add_after(&scenario, "a", "late", &[1]);
    assert!(scenario.get(late).depends_on.is_empty(), "completed dependencies are dropped at once");
}

#[test]
fn a_failure_fails_its_dependents_and_a_retry_revives_them() {
    let scenario = Scenario::new();
    scenario.act("a", "two", &[Act::Fail(FailureClass::Permanent)]).add("a", "one");
    add_after(&scenario, "a", "two", &[1]);
    add_after(&scenario, "a", "three", &[2]);
    add_after(&scenario, "b", "four", &[3]);
    let report = scenario.process();
    assert_eq!((report.completed, report.failed), (1, 3));
    assert_eq!(scenario.get(4).state.failure().unwrap().error_type, "dependency_failed");
    assert_eq!(reason(&scenario, 4), Reason::DependencyFailed);
    let changed = change(&scenario, &RETRY, &[2]);
    assert_eq!(
        changed.operations.iter().map(|one| one.number.get()).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    assert_eq!(scenario.process().completed, 3);
    assert_eq!(scenario.calls("a"), "one two two three");
}

#[test]
fn dependents_follow_a_redirect() {
    let scenario = Scenario::new();
    scenario.act("a", "one", &[Act::Fail(FailureClass::Permanent)]).add("a", "one");
    add_after(&scenario, "a", "two", &[1]);
    scenario.process();
    assert_eq!(statuses(&scenario), "1:failed 2:failed");
    change(&scenario, &Action::Redirect(backend("b")), &[1]);
    assert_eq!(
        statuses(&scenario),
        "1:failed 2:pending 3:pending",
        "its dependents are retried with it"
    );
    assert_eq!(scenario.process().completed, 2);
    assert_eq!(statuses(&scenario), "1:failed 2:completed 3:completed");
}

#[test]
fn an_unknown_dependency_is_refused() {
    let scenario = Scenario::new();
    scenario.add("a", "x");
    let client = scenario.client();
    let mut operation = logged("a", "y", 0);
    operation.depends_on = vec![OperationId::from_bytes([1; 16])];
    let result = client.submit(operation);
    assert!(
        matches!(result, Err(ClientError::Wal(WalError::UnknownDependency { .. }))),
        "{result:?}"
    );
    assert_eq!(statuses(&scenario), "1:pending");
}

#[test]
fn a_cleanup_keeps_operations_that_others_wait_for() {
    let scenario = Scenario::new();
    scenario.add("a", "x");
    add_after(&scenario, "b", "y", &[1]);
    let only = ProcessOptions::default().with_backend(Some(backend("a")));
    scenario.client().process(&only, &Stop::new(), &mut NoObserver).unwrap();
    scenario.client().checkpoint().unwrap();
    scenario.wait(100 * 86_400);
    let plan = scenario
        .client()
        .cleanup(&CleanupOptions::default().with_max_age_days(Some(30)).with_dry_run(true))
        .unwrap();
    assert_eq!((plan.kept, plan.archives.len()), (1, 0));
    scenario
        .client()
        .cleanup(&CleanupOptions::default().with_max_age_days(Some(30)).with_dry_run(false))
        .unwrap();
    assert_eq!(scenario.process().completed, 1, "the dependent runs");
    scenario
        .client()
        .cleanup(&CleanupOptions::default().with_max_age_days(Some(30)).with_dry_run(false))
        .unwrap();
    assert_eq!(statuses(&scenario), "2:completed");
}

fn keyed(name: &str, key: &str) -> Logged {
    Logged { idempotency_key: Some(key.into()), ..logged("a", name, 0) }
}

#[test]
fn a_key_is_logged_once_wherever_its_operation_is_stored() {
    let scenario = Scenario::new();
    let first = scenario.client().submit(keyed("x", "k")).unwrap();
    assert!(!first.existing);
    let same = |scenario: &Scenario| {
        let receipt = scenario.client().submit(keyed("x", "k")).unwrap();
        assert_eq!((receipt.id, receipt.existing), (first.id, true));
        receipt.status
    };
    assert_eq!(same(&scenario), Status::Pending, "in the journal");
    scenario.client().checkpoint().unwrap();
    assert_eq!(same(&scenario), Status::Pending, "in a partition");
    scenario.process();
    assert_eq!(same(&scenario), Status::Completed);
    scenario.client().checkpoint().unwrap();
    assert_eq!(same(&scenario), Status::Completed, "in an archive");
    let other = scenario.client().submit(keyed("y", "k"));
    let Err(ClientError::Wal(WalError::KeyTaken { number, .. })) = other else {
        panic!("{other:?}");
    };
    assert_eq!(number, Number::new(1));
    assert_eq!(statuses(&scenario), "1:completed");
    change(&scenario, &Action::Delete, &[1]);
    let fresh = scenario.client().submit(keyed("y", "k")).unwrap();
    assert!(!fresh.existing, "a key is free once its operation is deleted");
}

#[test]
fn threads_with_one_key_log_one_operation() {
    let scenario = Scenario::new();
    let clients: Vec<Arc<Client>> = (0..4).map(|_| Arc::new(scenario.client())).collect();
    let ids: Vec<OperationId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|nth| {
                let client = clients[nth % 4].clone();
                scope.spawn(move || client.submit(keyed("x", "k")).unwrap())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap().id).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(statuses(&scenario), "1:pending");
}

#[test]
fn a_delayed_operation_is_not_due_before_its_time() {
    let scenario = Scenario::new();
    let options = AddOptions::default().with_delay(Duration::from_secs(600));
    submit_with(&scenario, "a", "x", options);
    scenario.client().checkpoint().unwrap();
    assert_eq!(scenario.process().completed, 0);
    assert_eq!(reason(&scenario, 1), Reason::Delayed);
    scenario.wait(601);
    assert_eq!(scenario.process().completed, 1);
}

#[test]
fn failures_are_grouped_and_one_cause_can_be_retried() {
    let scenario = Scenario::new();
    let fail = |class| Act::Fail(class);
    scenario.act("a", "x", &[fail(FailureClass::Permanent)]).act(
        "a",
        "y",
        &[fail(FailureClass::Permanent)],
    );
    scenario.act("b", "z", &[fail(FailureClass::Transient)]).add("a", "x y").add("b", "z");
    scenario.process();
    let Failures { groups, damage, .. } = scenario.client().failures(None).unwrap();
    assert_eq!(damage, None);
    let counts: Vec<_> =
        groups.iter().map(|group| (group.backend.as_str(), group.failed, group.retrying)).collect();
    assert_eq!(counts, [("a", 2, 0), ("b", 0, 1)]);
    let filter = Filter::default().with_cause(&groups[0].fingerprint[..4]);
    assert_eq!(
        scenario.client().list(&filter, None).unwrap().operations.len(),
        3,
        "one cause has one id on all backends"
    );
}

#[test]
fn retrying_now_keeps_the_counters() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Fail(FailureClass::Transient)]).add("a", "x");
    scenario.process();
    assert_eq!(reason(&scenario, 1), Reason::Backoff);
    change(&scenario, &Action::Retry { now: true }, &[1]);
    assert_eq!((scenario.get(1).status(), scenario.get(1).retry_count), (Status::Pending, 1));
    assert_eq!(scenario.process().completed, 1);
}

#[test]
fn a_dry_run_lists_due_operations_and_counts_the_others() {
    let scenario = Scenario::new();
    scenario.act("a", "w", &[Act::Fail(FailureClass::Transient)]).add("a", "w x y");
    scenario.client().change(&numbers(&[2]), &Action::Hold, OnInvalid::Abort).unwrap();
    scenario.client().change(&numbers(&[3]), &Action::Hold, OnInvalid::Abort).unwrap();
    scenario.process();
    scenario.client().change(&numbers(&[3]), &Action::Release, OnInvalid::Abort).unwrap();
    add_after(&scenario, "a", "z", &[2]);
    let unknown = Fields::from([("name".to_owned(), "u".to_owned())]);
    let unserved = Logged::new(
        wal_cli::operation::OperationType::new("job").unwrap(),
        backend("a"),
        unknown,
        0,
    );
    scenario.client().submit(unserved).unwrap();
    let plan = scenario.client().plan(None, None, 1).unwrap();
    assert_eq!(plan.operations.iter().map(|one| one.number.get()).collect::<Vec<_>>(), [3]);
    assert_eq!(plan.due[&backend("a")], 2);
    assert_eq!((plan.held, plan.backing_off, plan.waiting_for_others, plan.delayed), (1, 1, 1, 0));
    assert_eq!(scenario.calls("a"), "w", "a dry run executes nothing");
}

#[test]
fn a_retry_drops_dependencies_that_no_longer_exist() {
    let scenario = Scenario::new();
    scenario.act("a", "one", &[Act::Fail(FailureClass::Permanent)]).add("a", "one");
    add_after(&scenario, "a", "two", &[1]);
    scenario.process();
    change(&scenario, &Action::Delete, &[1]);
    change(&scenario, &RETRY, &[2]);
    assert_eq!(scenario.process().completed, 1);
    assert_eq!(scenario.calls("a"), "one two");
}

#[test]
fn deleting_part_of_a_chain_keeps_needed_operations() {
    let scenario = Scenario::new();
    scenario.add("a", "one");
    add_after(&scenario, "a", "two", &[1]);
    add_after(&scenario, "b", "three", &[2]);
    let changed =
        scenario.client().change(&numbers(&[1, 2]), &Action::Delete, OnInvalid::Skip).unwrap();
    assert_eq!((changed.operations.len(), changed.skipped.len()), (0, 2));
    assert_eq!(scenario.process().completed, 3);
}

#[test]
fn the_target_of_a_redirect_stays_while_it_is_needed() {
    let scenario = Scenario::new();
    scenario.add("a", "one");
    add_after(&scenario, "a", "two", &[1]);
    change(&scenario, &Action::Redirect(backend("b")), &[1]);
    assert!(refused(&scenario, &Action::Delete, &[3]).contains("operation 2 waits for it"));
    assert_eq!(scenario.process().completed, 2);
}

#[test]
fn abandoned_operations_are_not_retried_by_filters() {
    let scenario = Scenario::new();
    scenario.add("a", "one");
    change(&scenario, &Action::Cancel { permanent: true }, &[1]);
    let changed = scenario.client().change(&numbers(&[1]), &RETRY, OnInvalid::Skip).unwrap();
    assert_eq!((changed.operations.len(), changed.skipped.len()), (0, 1));
    assert_eq!(
        change(&scenario, &RETRY, &[1]).operations.len(),
        1,
        "an operation that is named is retried"
    );
}

#[test]
fn a_key_is_refused_for_other_content() {
    let scenario = Scenario::new();
    let with = |size| {
        let source =
            Source { size, mtime_ns: 0, inode: 1, ctime_ns: None, sha256: None, spool: None };
        Logged { source: Some(source), ..keyed("x", "k") }
    };
    scenario.client().submit(with(3)).unwrap();
    assert!(scenario.client().submit(with(3)).unwrap().existing);
    let other = scenario.client().submit(with(4));
    let Err(ClientError::Wal(WalError::KeyTaken { number, .. })) = other else {
        panic!("{other:?}");
    };
    assert_eq!(number, Number::new(1));
}
