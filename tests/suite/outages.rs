//! How a drain loop learns that backends are unreachable: from its own attempts, and from earlier
//! runs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wal_cli::client::{HealthStatus, NoObserver, OnInvalid, ProcessOptions, Stop};
use wal_cli::operation::{FailureClass, Number, Status};

use super::scenario::{Act, Scenario, backend};

fn set_unreachable(scenario: &Scenario, unreachable: bool) {
    scenario.scripts["a"].unreachable.store(unreachable, Ordering::SeqCst);
}

fn health(scenario: &Scenario) -> HealthStatus {
    let stats = scenario.client().status().unwrap();
    stats
        .health
        .iter()
        .find(|health| health.backend == backend("a"))
        .map_or(HealthStatus::Unknown, |health| health.status)
}

#[test]
fn a_backend_unreachable_in_the_last_run_is_probed_first() {
    let scenario = Scenario::new();
    set_unreachable(&scenario, true);
    scenario.add("a", "one two");
    assert_eq!(scenario.process().postponed, 1);
    assert_eq!(health(&scenario), HealthStatus::Offline, "an attempt counts as a check");
    for _ in 0..3 {
        scenario.wait(60);
        let report = scenario.process();
        assert_eq!(
            (report.postponed, report.completed, &report.unreachable[..]),
            (0, 0, &[backend("a")][..])
        );
    }
    assert_eq!(scenario.calls("a"), "one", "the others were probes");
    assert_eq!(scenario.get(1).history.len(), 3, "probes are not recorded in the history");
    set_unreachable(&scenario, false);
    assert_eq!(scenario.process().completed, 2);
    assert_eq!(scenario.calls("a"), "one one two");
    assert_ne!(health(&scenario), HealthStatus::Offline);
}

#[test]
fn retries_are_due_at_once_when_their_backend_recovers() {
    let mut scenario = Scenario::new();
    scenario.settings.retry_delay = Duration::from_secs(3600);
    scenario.act("a", "first", &[Act::Fail(FailureClass::Transient)]).add("a", "first");
    assert_eq!(scenario.process().retrying, 1);
    set_unreachable(&scenario, true);
    scenario.add("a", "second");
    assert_eq!(scenario.process().postponed, 1);
    assert_eq!(scenario.get(1).status(), Status::Retrying);
    set_unreachable(&scenario, false);
    scenario.wait(1);
    assert_eq!(scenario.process().completed, 2, "no operation waits for the rest of its hour");
    let released = scenario.get(1).history.iter().any(|entry| {
        entry.from == Some(Status::Retrying)
            && entry.reason.as_deref().is_some_and(|reason| reason.contains("is reachable again"))
    });
    assert!(released, "{:#?}", scenario.get(1).history);
    assert_eq!(scenario.get(1).retry_count, 1, "the attempt stays spent");
}

#[test]
fn a_failure_after_the_recovery_waits_its_backoff() {
    let mut scenario = Scenario::new();
    scenario.settings.retry_delay = Duration::from_secs(3600);
    set_unreachable(&scenario, true);
    scenario.act("a", "one", &[]).add("a", "one");
    scenario.process();
    set_unreachable(&scenario, false);
    scenario.wait(1);
    scenario.act("a", "one", &[Act::Fail(FailureClass::Transient)]);
    for _ in 0..3 {
        assert_eq!(scenario.process().completed, 0);
        scenario.wait(60);
    }
    assert_eq!(scenario.calls("a"), "one one", "the outage was not the cause of this failure");
}

#[test]
fn a_manual_probe_closes_the_breaker_for_the_next_run() {
    let scenario = Scenario::new();
    set_unreachable(&scenario, true);
    scenario.add("a", "one");
    scenario.process();
    set_unreachable(&scenario, false);
    let probed = scenario.client().backend_health(Some(&backend("a"))).unwrap();
    assert_eq!(probed[0].status, HealthStatus::Online, "the last of two checks decides");
    assert!(probed[0].recovered_at().is_some());
    assert_eq!(scenario.process().completed, 1);
}

#[test]
fn only_named_operations_are_released() {
    let mut scenario = Scenario::new();
    scenario.settings.retry_delay = Duration::from_secs(3600);
    for name in ["x", "y"] {
        scenario.act("a", name, &[Act::Fail(FailureClass::Transient)]).add("a", name);
    }
    assert_eq!(scenario.process().retrying, 2);
    set_unreachable(&scenario, true);
    scenario.add("a", "z");
    scenario.process();
    set_unreachable(&scenario, false);
    scenario.wait(1);
    let options = ProcessOptions::default().with_only([Number::FIRST]);
    let report = scenario.client().process(&options, &Stop::new(), &mut NoObserver).unwrap();
    assert_eq!((report.completed, scenario.get(2).status()), (1, Status::Retrying));
}

#[test]
fn an_operation_that_alone_meets_outages_delays_no_other() {
    let mut scenario = Scenario::new();
    scenario.settings.retry_delay = Duration::from_secs(60);
    // Each probe succeeds, and each attempt of this operation reports an outage.
    scenario
        .act("a", "poison", &vec![Act::Fail(FailureClass::Outage); 99])
        .add("a", "poison good better");
    for _ in 0..60 {
        scenario.process();
        scenario.wait(10);
    }
    let poison = scenario.get(1);
    assert_eq!((poison.status(), poison.retry_count), (Status::Failed, 2), "{:#?}", poison.history);
    assert_eq!(
        (scenario.get(2).status(), scenario.get(3).status()),
        (Status::Completed, Status::Completed)
    );
    assert!(
        scenario.calls("a").starts_with("poison poison poison good better poison"),
        "{}",
        scenario.calls("a")
    );
    assert!(poison.state.failure().unwrap().message.contains("own fault"), "{poison:?}");
}

#[test]
fn an_outage_that_only_operations_notice_spends_nothing() {
    let scenario = Scenario::new();
    // Each probe succeeds, and every attempt reports an outage, as with a program whose interpreter
    // is missing.
    for name in ["one", "two", "three"] {
        scenario.act("a", name, &vec![Act::Fail(FailureClass::Outage); 20]);
    }
    scenario.add("a", "one two three");
    for _ in 0..30 {
        assert_eq!(scenario.process().unreachable, [backend("a")]);
        scenario.wait(60);
    }
    for number in 1..=3 {
        let operation = scenario.get(number);
        assert_eq!(
            (operation.status(), operation.retry_count),
            (Status::Pending, 0),
            "{:#?}",
            operation.history
        );
    }
    let calls = scenario.calls("a");
    assert!(
        ["one", "two", "three"].iter().all(|name| calls.matches(name).count() >= 3),
        "all were attempted: {calls}"
    );
    for name in ["one", "two", "three"] {
        scenario.act("a", name, &[]);
    }
    assert_eq!(scenario.process().completed, 3);
}

/// Runs a drain loop with `--follow` in a thread of its own until `then` returns.
fn following(scenario: &Scenario, then: impl FnOnce()) -> wal_cli::client::ProcessReport {
    let (client, stop) = (scenario.client(), Stop::new());
    std::thread::scope(|scope| {
        let options = ProcessOptions::default().with_follow(true).with_grace(Duration::ZERO);
        let (client, stop_too) = (&client, stop.clone());
        let running =
            scope.spawn(move || client.process(&options, &stop_too, &mut NoObserver).unwrap());
        then();
        stop.request();
        running.join().unwrap()
    })
}

/// Advances the clock until a condition holds.
fn until(scenario: &Scenario, holds: impl Fn() -> bool) {
    while !holds() {
        scenario.clock.advance(Duration::from_millis(100));
        std::thread::yield_now();
    }
}

#[test]
fn attempts_that_hang_do_not_delay_probes() {
    let mut scenario = Scenario::new();
    scenario.settings.jobs = 2;
    scenario.act("a", "hangs", &[Act::Hang]).act("a", "two", &[Act::Fail(FailureClass::Outage)]);
    scenario.add("a", "hangs two three four");
    let report =
        following(&scenario, || until(&scenario, || scenario.get(4).status() == Status::Completed));
    assert_eq!((report.completed, report.handed_back), (3, 1), "{report:?}");
    assert_eq!(scenario.get(1).status(), Status::Pending);
}

#[test]
fn a_wait_ends_in_time_whatever_hangs() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Hang]).add("a", "x");
    let client = scenario.client();
    std::thread::scope(|scope| {
        let timeout = Some(Duration::from_secs(5));
        let references = [wal_cli::client::Reference::Number(Number::new(1))];
        let client = &client;
        let waiting = scope.spawn(move || {
            client.run_and_wait(&references, timeout, &Stop::new(), &mut NoObserver)
        });
        until(&scenario, || waiting.is_finished());
        let ended = waiting.join().unwrap();
        assert!(matches!(ended, Err(wal_cli::client::ClientError::TimedOut { .. })), "{ended:?}");
    });
    let operation = scenario.get(1);
    assert_eq!(
        (operation.status(), operation.retry_count, operation.interruptions),
        (Status::Pending, 0, 0)
    );
}

#[test]
fn an_outcome_that_cannot_be_queried_is_not_a_crash() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Lost]).add("a", "x");
    following(&scenario, || {
        until(&scenario, || {
            !scenario.calls("a").is_empty() && health(&scenario) == HealthStatus::Offline
        });
        assert_eq!(scenario.get(1).status(), Status::Processing, "its outcome is unknown");
        set_unreachable(&scenario, false);
        until(&scenario, || scenario.get(1).status() == Status::Completed);
    });
    let operation = scenario.get(1);
    assert_eq!(
        (operation.interruptions, operation.retry_count),
        (0, 0),
        "{:#?}",
        operation.history
    );
    assert_eq!(scenario.calls("a"), "x x");
}

#[test]
fn a_single_broken_connection_ends_no_backoff() {
    let mut scenario = Scenario::new();
    scenario.settings.retry_delay = Duration::from_secs(3600);
    for _ in 0..3 {
        scenario.client().backend_health(None).unwrap();
    }
    scenario.act("a", "first", &[Act::Fail(FailureClass::Transient)]).add("a", "first");
    assert_eq!(scenario.process().retrying, 1);
    scenario.act("a", "second", &[Act::Fail(FailureClass::Outage)]).add("a", "second");
    assert_eq!((scenario.process().postponed, scenario.process().completed), (1, 1));
    scenario.wait(1);
    scenario.process();
    assert_eq!(scenario.get(1).status(), Status::Retrying);
}

#[test]
fn a_requested_retry_delay_outlasts_a_recovery() {
    let scenario = Scenario::new();
    scenario.act("a", "asked", &[Act::RetryAfter(1_800_000)]).add("a", "asked");
    assert_eq!(scenario.process().retrying, 1);
    set_unreachable(&scenario, true);
    scenario.add("a", "second");
    scenario.process();
    set_unreachable(&scenario, false);
    scenario.wait(60);
    assert_eq!(scenario.process().completed, 1);
    assert_eq!(scenario.get(1).status(), Status::Retrying, "the backend asked for half an hour");
    scenario.wait(1800);
    assert_eq!(scenario.process().completed, 1);
}

#[test]
fn why_reports_the_latest_check() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Fail(FailureClass::Outage)]).add("a", "x");
    scenario.process();
    let why = || {
        scenario.client().why(&wal_cli::client::Reference::Number(Number::new(1))).unwrap().reason
    };
    assert_eq!(why(), wal_cli::client::Reason::BackendUnreachable);
    scenario.wait(5);
    scenario.client().backend_health(None).unwrap();
    assert_eq!(why(), wal_cli::client::Reason::NoDrainLoop, "a later check succeeded");
    set_unreachable(&scenario, true);
    scenario.wait(5);
    scenario.client().backend_health(None).unwrap();
    assert_eq!(why(), wal_cli::client::Reason::BackendUnreachable);
}

#[test]
fn a_stopped_attempt_that_was_not_done_spends_nothing() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::HangUnanswered]).add("a", "x");
    let (client, stop) = (scenario.client(), Stop::new());
    std::thread::scope(|scope| {
        let options = ProcessOptions::default().with_grace(Duration::ZERO);
        let (client, stop_too) = (&client, stop.clone());
        let running =
            scope.spawn(move || client.process(&options, &stop_too, &mut NoObserver).unwrap());
        while scenario.calls("a").is_empty() {
            std::thread::yield_now();
        }
        stop.request();
        assert_eq!(running.join().unwrap().handed_back, 1);
    });
    let operation = scenario.get(1);
    assert_eq!(
        (operation.status(), operation.retry_count, operation.interruptions),
        (Status::Pending, 0, 0)
    );
}

#[test]
fn unknown_outcomes_are_resolved_before_later_operations() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Lost]).add("a", "x y");
    following(&scenario, || {
        until(&scenario, || health(&scenario) == HealthStatus::Offline);
        set_unreachable(&scenario, false);
        until(&scenario, || scenario.get(2).status() == Status::Completed);
    });
    assert_eq!(scenario.calls("a"), "x x y");
}

#[test]
fn a_backend_that_cannot_be_queried_is_queried_later() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Unanswered]).add("a", "x");
    scenario.scripts["a"].busy.store(true, Ordering::SeqCst);
    for recovered in [0, 0] {
        let report = scenario.process();
        assert_eq!(
            (report.in_doubt, report.recovered, report.failed),
            (1, recovered, 0),
            "{report:?}"
        );
        assert_eq!(scenario.get(1).status(), Status::Processing);
    }
    scenario.scripts["a"].busy.store(false, Ordering::SeqCst);
    let report = scenario.process();
    assert_eq!((report.in_doubt, report.recovered, report.completed), (0, 1, 1), "{report:?}");
}

#[test]
fn a_cancelled_unknown_outcome_ends_without_a_query() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Lost]).add("a", "x");
    let report = scenario.process();
    assert_eq!((report.in_doubt, &report.unreachable[..]), (1, &[backend("a")][..]), "{report:?}");
    assert_eq!(scenario.process().in_doubt, 1);
    let cancel = wal_cli::client::Action::Cancel { permanent: false };
    scenario
        .client()
        .change(&[wal_cli::client::Reference::Number(Number::new(1))], &cancel, OnInvalid::Abort)
        .unwrap();
    assert_eq!(scenario.process().failed, 1);
    assert_eq!(scenario.get(1).state.failure().unwrap().error_type, "in_doubt");
}
