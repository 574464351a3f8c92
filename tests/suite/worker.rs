//! The drain loop with scripted backends on a simulated machine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wal_cli::backend::{Attempt, AttemptError, AttemptStatus, Backend, Request};
use wal_cli::client::{
    Client, ClientError, Filter, NoObserver, Observer, ProcessOptions, ProcessReport, Reference,
    Stop,
};
use wal_cli::clock::Clock;
use wal_cli::operation::{
    Failure, FailureClass, Fields, Number, Operation, OperationType, Outcome, Status, Time,
};
use wal_cli::wal::{DrainLoop, WalError};

use super::scenario::{Act, Scenario, backend, layout, logged};

#[test]
fn operations_go_in_order_and_each_once() {
    let scenario = Scenario::new();
    scenario.add("a", "one two three");
    let client = scenario.client();
    client.submit(logged("a", "urgent", 9)).unwrap();
    assert_eq!(scenario.process().completed, 4);
    assert_eq!(scenario.calls("a"), "urgent one two three");
    assert_eq!(scenario.process(), ProcessReport::default());
    let operation = scenario.get(1);
    let words: Vec<_> = operation.history.iter().map(|entry| entry.to.as_str()).collect();
    assert_eq!(words, ["pending", "processing", "completed"]);
}

#[test]
fn transient_failures_are_retried_with_backoff_and_then_fail() {
    let scenario = Scenario::new();
    let fail = Act::Fail(FailureClass::Transient);
    scenario.act("a", "x", &[fail.clone(), fail.clone(), fail]).add("a", "x");
    assert_eq!(scenario.process().retrying, 1);
    assert_eq!(scenario.process(), ProcessReport::default(), "not due yet");
    scenario.wait(67);
    assert_eq!(scenario.process().retrying, 1);
    scenario.wait(67);
    assert_eq!(scenario.process(), ProcessReport::default(), "the second wait is twice as long");
    scenario.wait(67);
    assert_eq!(scenario.process().failed, 1);
    assert_eq!(scenario.calls("a"), "x x x");
    scenario.client().retry(&[Reference::Number(Number::new(1))]).unwrap();
    assert_eq!(scenario.get(1).retry_count, 0);
    assert_eq!(scenario.process().completed, 1);
}

#[test]
fn a_permanent_failure_fails_at_once() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Fail(FailureClass::Permanent)]).add("a", "x y");
    let report = scenario.process();
    assert_eq!((report.failed, report.completed), (1, 1));
    assert_eq!(scenario.get(1).status(), Status::Failed);
}

#[test]
fn a_backend_may_ask_for_a_longer_wait() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::RetryAfter(600_000)]).add("a", "x");
    assert_eq!(scenario.process().retrying, 1);
    scenario.wait(599);
    assert_eq!(scenario.process(), ProcessReport::default());
    scenario.wait(2);
    assert_eq!(scenario.process().completed, 1);
}

#[test]
fn an_outage_spends_no_attempt_and_delays_no_other_backend() {
    let scenario = Scenario::new();
    scenario.scripts["a"].unreachable.store(true, Ordering::SeqCst);
    scenario.add("a", "one two three").add("b", "four five");
    let report = scenario.process();
    assert_eq!((report.completed, report.postponed), (2, 1));
    assert_eq!(scenario.calls("a"), "one", "the breaker opens after the first");
    let operation = scenario.get(1);
    assert_eq!(
        (operation.status(), operation.retry_count, operation.interruptions),
        (Status::Pending, 0, 0)
    );
    assert!(operation.state.failure().is_some(), "the reason for the wait is known");
    scenario.scripts["a"].unreachable.store(false, Ordering::SeqCst);
    assert_eq!(scenario.process().completed, 3);
}

#[test]
fn a_lost_answer_is_settled_by_a_query() {
    let scenario = Scenario::new();
    for name in ["done", "not", "unknown"] {
        scenario.act("a", name, &[Act::Unanswered]);
    }
    let outcome = Outcome { cid: Some("asked".into()), ..Outcome::default() };
    let answers = [
        ("done", AttemptStatus::Done(outcome)),
        ("unknown", AttemptStatus::Unknown("no trace".into())),
    ];
    scenario.scripts["a"]
        .answers
        .lock()
        .unwrap()
        .extend(answers.map(|(name, answer)| (name.to_owned(), answer)));
    scenario.add("a", "done not unknown");
    let report = scenario.process();
    assert_eq!((report.completed, report.retrying, report.failed), (1, 1, 1));
    assert_eq!(scenario.get(3).state.failure().unwrap().error_type, "in_doubt");
}

#[test]
fn lost_answers_of_an_outage_are_queried_after_it() {
    let scenario = Scenario::new();
    let outcome = Outcome { cid: Some("found".into()), ..Outcome::default() };
    scenario.scripts["a"].answers.lock().unwrap().insert("x".into(), AttemptStatus::Done(outcome));
    scenario.act("a", "x", &[Act::Lost]).add("a", "x y z");
    let job = ProcessOptions::default().with_jobs(Some(1));
    scenario.client().process(&job, &Stop::new(), &mut NoObserver).unwrap();
    assert_eq!(scenario.get(1).status(), Status::Processing, "neither failed nor repeated");
    assert_eq!(
        (scenario.get(2).status(), scenario.calls("a")),
        (Status::Pending, "x".into()),
        "the breaker is open"
    );
    scenario.scripts["a"].unreachable.store(false, Ordering::SeqCst);
    let report = scenario.process();
    assert_eq!((report.recovered, report.completed), (1, 3));
    assert_eq!(scenario.get(1).status(), Status::Completed);
    assert_eq!((scenario.get(1).retry_count, scenario.calls("a")), (0, "x y z".into()));
}

#[test]
fn repeatable_operations_are_requeued_at_an_outage() {
    let scenario = Scenario::new();
    scenario.act("a", "harmless", &[Act::Lost]).add("a", "harmless y");
    let job = ProcessOptions::default().with_jobs(Some(1));
    let report = scenario.client().process(&job, &Stop::new(), &mut NoObserver).unwrap();
    let operation = scenario.get(1);
    assert_eq!(
        (operation.status(), operation.retry_count, operation.interruptions),
        (Status::Pending, 0, 0)
    );
    assert_eq!(
        (report.postponed, scenario.calls("a")),
        (1, "harmless".into()),
        "the breaker is open"
    );
}

#[test]
fn claims_of_a_dead_loop_are_queried_and_continue() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Die]).act("a", "y", &[Act::Die]).add("a", "x y");
    let run =
        || scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver);
    run().expect_err("the process died");
    assert_eq!(scenario.get(1).status(), Status::Processing);
    let outcome = Outcome { cid: Some("found".into()), ..Outcome::default() };
    scenario.scripts["a"].answers.lock().unwrap().insert("x".into(), AttemptStatus::Done(outcome));
    run().expect_err("the process died again, at y");
    assert_eq!(scenario.get(1).status(), Status::Completed, "the backend had executed it");
    let report = run().unwrap();
    assert_eq!((report.recovered, report.completed), (1, 1));
    assert_eq!(scenario.get(2).interruptions, 1);
    assert_eq!(scenario.get(2).retry_count, 0, "a crash spends no attempt");
    assert_eq!(scenario.calls("a"), "x y y");
}

#[test]
fn an_unknown_outcome_after_a_crash_is_a_failure() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Die]).add("a", "x");
    scenario
        .client()
        .process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver)
        .expect_err("the process died");
    scenario.scripts["a"]
        .answers
        .lock()
        .unwrap()
        .insert("x".into(), AttemptStatus::Unknown("no trace".into()));
    let report = scenario.process();
    assert_eq!((report.recovered, report.failed), (1, 1));
    assert_eq!(scenario.get(1).state.failure().unwrap().error_type, "in_doubt");
    assert_eq!(scenario.client().running_loop().unwrap(), None, "the lock was released");
}

#[test]
fn no_operation_crashes_drain_loops_indefinitely() {
    let scenario = Scenario::new();
    scenario.act("a", "poison", &vec![Act::Die; 20]).add("a", "poison good");
    let mut deaths = 0;
    let report = loop {
        match scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver) {
            Ok(report) => break report,
            Err(_) => deaths += 1,
        }
    };
    assert_eq!(deaths, 8);
    assert_eq!(report.recovered, 1);
    assert_eq!(scenario.get(1).state.failure().unwrap().error_type, "crashes_drain");
    assert_eq!(scenario.get(2).status(), Status::Completed);
    let calls = scenario.calls("a");
    assert_eq!(
        calls, "poison poison poison good poison poison poison poison poison",
        "after three crashes it runs last"
    );
}

#[test]
fn a_request_to_stop_requeues_operations_that_have_not_begun() {
    let mut scenario = Scenario::new();
    scenario.settings.jobs = 2;
    scenario.act("a", "x", &[Act::Hang]).act("a", "y", &[Act::Hang]).add("a", "x y z");
    let client = scenario.client();
    let stop = Stop::new();
    let (watcher, script) = (stop.clone(), scenario.scripts["a"].clone());
    let report = std::thread::scope(|scope| {
        scope.spawn(move || {
            while script.calls.lock().unwrap().len() < 2 {
                std::thread::yield_now();
            }
            watcher.request();
        });
        let options = ProcessOptions::default().with_follow(true).with_grace(Duration::ZERO);
        client.process(&options, &stop, &mut NoObserver).unwrap()
    });
    assert!(report.stopped);
    assert_eq!(report.handed_back, 2);
    for number in 1..=3 {
        let operation = scenario.get(number);
        assert_eq!((operation.status(), operation.interruptions), (Status::Pending, 0), "{number}");
    }
    assert_eq!(scenario.process().completed, 3);
}

#[test]
fn a_second_loop_learns_which_process_runs_the_first() {
    let scenario = Scenario::new();
    scenario.add("a", "x");
    let first = scenario.client();
    let work = Some(DrainLoop::default());
    let _held = first.log().unwrap().lock_process(Duration::ZERO, work).unwrap();
    let refused =
        scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver);
    match refused {
        Err(ClientError::Wal(WalError::Busy { holder, waited, .. })) => {
            assert!(holder.contains("`process`"), "{holder}");
            assert!(waited >= Duration::from_millis(250));
        }
        other => panic!("{other:?}"),
    }
    assert!(scenario.client().running_loop().unwrap().is_some());
}

#[test]
fn a_loop_waits_for_a_process_that_holds_the_lock_for_moments() {
    let mut scenario = Scenario::new();
    scenario.settings.lock_timeout = Duration::from_secs(10);
    scenario.add("a", "x");
    let disk = scenario.machine.process();
    let short = Client::builder(scenario.settings.clone())
        .environment(Arc::new(disk), scenario.clock.clone())
        .program("add")
        .build();
    let held = short.log().unwrap().lock_process(Duration::ZERO, None).unwrap();
    let before = scenario.clock.now();
    let refused =
        scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver);
    assert!(matches!(refused, Err(ClientError::Wal(WalError::Busy { .. }))));
    assert!(scenario.clock.now().millis_since(before) >= 10_000, "the loop waited for the lock");
    drop(held);
    assert_eq!(scenario.process().completed, 1);
}

/// An observer that asks, whenever an attempt begins, why another operation has not completed.
struct AskWhy<'a> {
    scenario: &'a Scenario,
    about: u64,
    sentences: Vec<String>,
}

impl Observer for AskWhy<'_> {
    fn started(&mut self, _operation: &Operation, _attempt: &Arc<Attempt>) {
        let reference = Reference::Number(Number::new(self.about));
        self.sentences.push(self.scenario.client().why(&reference).unwrap().sentence);
    }
}

#[test]
fn why_names_the_loop_of_a_library_and_its_limits() {
    for (options, about, expected) in [
        (
            ProcessOptions::default()
                .with_limit(Some(1))
                .with_max_time(Some(Duration::from_secs(90))),
            2,
            " will execute it in this run, which ends after 1 operation or 90s, or the next",
        ),
        (
            ProcessOptions::default().with_backend(Some(backend("a"))).with_limit(Some(1)),
            3,
            " drains backend `a` only; once that has ended, run `wal-cli process`",
        ),
        (
            ProcessOptions::default().with_only([Number::new(1)]),
            3,
            "it is due, but nothing is draining the log; run `wal-cli process`",
        ),
    ] {
        let scenario = Scenario::new();
        scenario.add("a", "one two").add("b", "three");
        let library = scenario.builder().program("my-app").build();
        let mut asked = AskWhy { scenario: &scenario, about, sentences: Vec::new() };
        library.process(&options, &Stop::new(), &mut asked).unwrap();
        assert_eq!(asked.sentences.len(), 1);
        assert!(asked.sentences[0].ends_with(expected), "{:?}", asked.sentences);
    }
}

#[test]
fn limits_are_kept() {
    let scenario = Scenario::new();
    scenario.add("a", "one two three four").add("b", "five");
    let run = |options: ProcessOptions| {
        scenario.client().process(&options, &Stop::new(), &mut NoObserver).unwrap().completed
    };
    assert_eq!(
        run(ProcessOptions::default().with_limit(Some(2)).with_backend(Some(backend("a")))),
        2
    );
    assert_eq!(run(ProcessOptions::default().with_backend(Some(backend("b")))), 1);
    assert_eq!(run(ProcessOptions::default().with_only([Number::new(4)])), 1);
    assert_eq!(run(ProcessOptions::default().with_max_time(Some(Duration::ZERO))), 0);
    assert_eq!(scenario.calls("a"), "one two four");
    assert_eq!(run(ProcessOptions::default()), 1);
}

#[test]
fn a_long_queue_is_drained_through_files_and_journal() {
    let mut scenario = Scenario::new();
    scenario.settings.partition_size = 50;
    scenario.settings.jobs = 8;
    let client = scenario.client();
    for round in 0..10 {
        for nth in 0..30 {
            client
                .submit(logged(["a", "b"][nth % 2], &format!("{round}-{nth}"), (nth % 3) as i32))
                .unwrap();
        }
        if round % 3 == 0 {
            client.checkpoint().unwrap();
        }
    }
    assert_eq!(scenario.process().completed, 300);
    let mut calls: Vec<_> = scenario.calls("a").split(' ').map(str::to_owned).collect();
    calls.extend(scenario.calls("b").split(' ').map(str::to_owned));
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), 300, "each was executed once");
    let stats = scenario.client().status().unwrap();
    assert_eq!((stats.counts.completed, stats.counts.total()), (300, 300));
    scenario.client().checkpoint().unwrap();
    let page =
        scenario.client().list(&Filter::default().with_status(Status::Completed), None).unwrap();
    assert_eq!(page.operations.len(), 300);
    assert_eq!(scenario.client().status().unwrap().archived, 300);
}

#[test]
fn a_wrapped_function_is_logged_before_it_runs() {
    let scenario = Scenario::new();
    let client = scenario.client();
    let (kind, name) = (OperationType::new("my_job").unwrap(), backend("a"));
    let operation = client
        .wrap(&kind, &name, Fields::new(), |request| {
            let seen = scenario.get(request.number.get());
            assert_eq!(seen.status(), Status::Processing);
            Ok(Outcome { size: Some(3), ..Outcome::default() })
        })
        .unwrap();
    assert_eq!(operation.status(), Status::Completed);
    let doubtful = client
        .wrap(&kind, &name, Fields::new(), |_| {
            Err(anyhow::Error::new(AttemptError::UnknownOutcome(Failure {
                class: FailureClass::Transient,
                error_type: "timeout".into(),
                message: "no answer".into(),
            })))
        })
        .unwrap();
    assert_eq!(doubtful.state.failure().unwrap().error_type, "in_doubt");
}

#[test]
fn waiting_executes_operations_or_ends_in_time() {
    let scenario = Scenario::new();
    scenario.add("a", "x y");
    let client = scenario.client();
    let reference = [Reference::Number(Number::new(1))];
    match client.wait(&reference, Some(Duration::from_secs(1)), &Stop::new()) {
        Err(ClientError::TimedOut { unfinished }) => assert_eq!(unfinished.len(), 1),
        other => panic!("{other:?}"),
    }
    let done = client.run_and_wait(&reference, None, &Stop::new(), &mut NoObserver).unwrap();
    assert_eq!(done[0].status(), Status::Completed);
    assert_eq!(scenario.get(2).status(), Status::Pending, "only its own operations are executed");
    assert!(scenario.clock.now() > Time::from_millis(1_800_000_000_000));
}

#[test]
fn threads_that_log_concurrently_share_frames() {
    let scenario = Scenario::new();
    let client = scenario.client();
    let mut receipts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|thread| {
                let client = &client;
                scope.spawn(move || {
                    (0..25)
                        .map(|nth| {
                            let name = format!("{thread}-{nth}");
                            (client.submit(logged("a", &name, 0)).unwrap(), name)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    receipts.sort_by_key(|(receipt, _)| receipt.number);
    let numbers: Vec<_> = receipts.iter().map(|(receipt, _)| receipt.number.get()).collect();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
    for (receipt, name) in receipts {
        let operation = scenario.get(receipt.number.get());
        assert_eq!((operation.id, &operation.parameters["name"]), (receipt.id, &name));
    }
}

#[test]
fn waiting_out_an_outage_leaves_one_history_entry() {
    let scenario = Scenario::new();
    scenario.scripts["a"].unreachable.store(true, Ordering::SeqCst);
    scenario.add("a", "x");
    let waited = scenario.client().run_and_wait(
        &[Reference::Number(Number::new(1))],
        Some(Duration::from_secs(200)),
        &Stop::new(),
        &mut NoObserver,
    );
    assert!(matches!(waited, Err(ClientError::TimedOut { .. })), "{waited:?}");
    let operation = scenario.get(1);
    assert!(operation.history.len() <= 5, "{} entries", operation.history.len());
    assert_eq!(operation.retry_count, 0);
}

#[test]
fn a_waiting_process_takes_over_from_a_dead_loop() {
    let scenario = Scenario::new();
    scenario.act("a", "x", &[Act::Die]).add("a", "x");
    scenario
        .client()
        .process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver)
        .expect_err("the process died");
    let done = scenario
        .client()
        .run_and_wait(&[Reference::Number(Number::new(1))], None, &Stop::new(), &mut NoObserver)
        .unwrap();
    assert_eq!(done[0].status(), Status::Completed);
}

#[test]
fn operations_that_have_not_begun_are_requeued_at_the_deadline() {
    let mut scenario = Scenario::new();
    scenario.settings.jobs = 1;
    let names: Vec<String> = (0..50).map(|n| format!("n{n}")).collect();
    scenario.act("a", "n40", &[Act::Hang]).add("a", &names.join(" "));
    let options = ProcessOptions::default()
        .with_max_time(Some(Duration::from_secs(5)))
        .with_grace(Duration::ZERO);
    let (client, stop) = (scenario.client(), Stop::new());
    let (scenario_too, stop_too) = (&scenario, stop.clone());
    let report = std::thread::scope(|scope| {
        scope.spawn(move || {
            while scenario_too.scripts["a"].calls.lock().unwrap().len() < 41 {
                std::thread::yield_now();
            }
            scenario_too.clock.advance(Duration::from_secs(6));
            let looker = scenario_too.client();
            for _ in 0..100 {
                assert_eq!(
                    looker.status().unwrap().counts.of(Status::Processing).min(1),
                    1,
                    "running attempts continue"
                );
                scenario_too.clock.advance(Duration::from_secs(60));
                std::thread::yield_now();
            }
            // Only the request to stop ends this loop.
            stop_too.request();
        });
        client.process(&options, &stop, &mut NoObserver).unwrap()
    });
    assert_eq!(report.completed, 40);
    let stats = scenario.client().status().unwrap();
    assert_eq!((stats.counts.pending, stats.counts.processing), (10, 0));
}

#[test]
fn an_operation_is_changed_once_in_one_write() {
    let scenario = Scenario::new();
    scenario.add("a", "x");
    let client = scenario.client();
    let known = wal_cli::wal::Known::from(&scenario.get(1));
    let claim =
        wal_cli::operation::Claim { pid: 1, host: "h".into(), started: scenario.clock.now() };
    let change = wal_cli::wal::Change::Next(known, wal_cli::operation::Event::Claimed { claim });
    let twice = client.log().unwrap().transact(|_| Ok((vec![change.clone(), change.clone()], ())));
    assert!(matches!(twice, Err(WalError::Conflict { number: Number::FIRST })), "{twice:?}");
    assert_eq!(scenario.process().completed, 1);
}

#[test]
fn a_damaged_partition_stops_only_what_needs_it() {
    let mut scenario = Scenario::new();
    scenario.settings.partition_size = 2;
    scenario.add("a", "one two");
    let client = scenario.client();
    client.checkpoint().unwrap();
    let damaged = client
        .log()
        .unwrap()
        .read(|view| Ok(view.manifest().unwrap().files[0].name.clone()))
        .unwrap();
    scenario.add("a", "three four five");
    client.checkpoint().unwrap();
    scenario.machine.corrupt(&layout().file(&damaged), |bytes| bytes.truncate(40));
    let result =
        scenario.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver);
    assert!(matches!(result, Err(ClientError::Wal(WalError::Damaged(_)))), "{result:?}");
    assert_eq!(scenario.calls("a"), "three four five");
    let page = scenario.client().list(&Filter::default(), None).unwrap();
    assert_eq!(page.operations.len(), 3);
    assert!(page.damage.is_some_and(|damage| damage.path.ends_with(&damaged)));
}

#[test]
fn a_panicking_backend_stops_nothing_else() {
    #[derive(Debug)]
    struct Panics;
    impl Backend for Panics {
        fn execute(&self, _: &Request, _: &Attempt) -> Result<Outcome, AttemptError> {
            panic!("a bug")
        }
        fn query_attempt(&self, _: &Request) -> Result<AttemptStatus, AttemptError> {
            Ok(AttemptStatus::NotDone)
        }
        fn health(&self) -> Result<(), Failure> {
            Ok(())
        }
    }
    let scenario = Scenario::new();
    let client = scenario.builder().backend(backend("c"), Arc::new(Panics)).build();
    client.submit(logged("c", "x", 0)).unwrap();
    client.submit(logged("a", "y", 0)).unwrap();
    let report = client.process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver).unwrap();
    assert_eq!((report.completed, report.retrying), (1, 1));
}
