//! Wrong clocks, set to 1970, to 3010 and back within one run: order, waits and retention stay
//! correct.

use std::time::Duration;

use wal_cli::client::{Filter, Reference};
use wal_cli::clock::ManualClock;
use wal_cli::operation::{FailureClass, Number, Status, Time};

use super::scenario::{Act, Scenario};

const DAY: u64 = 86_400;

fn at(text: &str) -> Time {
    Time::parse_rfc3339(text).unwrap()
}

fn set(scenario: &Scenario, text: &str) {
    scenario.clock.set(at(text));
}

fn completed(scenario: &Scenario) -> Vec<u64> {
    let filter = Filter::default().with_status(Status::Completed);
    let page = scenario.client().list(&filter, None).unwrap();
    page.operations.iter().rev().map(|one| one.number.get()).collect()
}

const TIMES: [&str; 5] = [
    "2026-11-22T12:00:00Z",
    "1970-01-01T00:00:00Z",
    "3010-06-01T00:00:00Z",
    "2026-11-22T12:00:05Z",
    "1970-01-01T00:01:00Z",
];

#[test]
fn order_is_by_number_whatever_the_clock_says() {
    let scenario = Scenario::new();
    for (name, time) in ["one", "two", "three", "four", "five"].into_iter().zip(TIMES) {
        set(&scenario, time);
        scenario.add("a", name);
    }
    scenario.client().checkpoint().unwrap();
    assert_eq!(scenario.process().completed, 5);
    assert_eq!(scenario.calls("a"), "one two three four five");
    let page = scenario.client().list(&Filter::default(), None).unwrap();
    assert_eq!(
        page.operations.iter().map(|one| one.number.get()).collect::<Vec<_>>(),
        [5, 4, 3, 2, 1]
    );
    for number in 1..=5 {
        let operation = scenario.get(number);
        let by_id = scenario.client().operation(&Reference::Id(operation.id)).unwrap();
        assert_eq!(by_id.number, Number::new(number));
    }
}

#[test]
fn a_clock_jump_never_prolongs_a_wait() {
    for (failed_at, then, due) in [
        ("2026-11-22T12:00:00Z", "2026-11-22T12:00:30Z", false),
        ("2026-11-22T12:00:00Z", "2026-11-22T12:01:07Z", true),
        // The clock was set back: the elapsed time is unknown, so the operation is due at once.
        ("2026-11-22T12:00:00Z", "1970-01-01T00:00:00Z", true),
        ("3010-06-01T00:00:00Z", "2026-11-22T12:00:00Z", true),
        ("1970-01-01T00:00:00Z", "2026-11-22T12:00:00Z", true),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:30Z", false),
        ("3010-06-01T00:00:00Z", "3010-06-01T00:00:30Z", false),
    ] {
        for folded in [false, true] {
            let scenario = Scenario::new();
            set(&scenario, failed_at);
            scenario.act("a", "x", &[Act::Fail(FailureClass::Transient)]).add("a", "x");
            assert_eq!(scenario.process().retrying, 1);
            if folded {
                scenario.client().checkpoint().unwrap();
            }
            set(&scenario, then);
            let reported = format!("failed {failed_at}, now {then}, folded {folded}");
            assert_eq!(scenario.process().completed, u64::from(due), "{reported}");
        }
    }
}

#[test]
fn backoff_depends_on_attempts_and_not_on_the_clock() {
    let scenario = Scenario::new();
    let fail = Act::Fail(FailureClass::Transient);
    scenario.act("a", "x", &[fail.clone(), fail]).add("a", "x");
    set(&scenario, TIMES[0]);
    scenario.process();
    set(&scenario, TIMES[2]);
    assert_eq!(scenario.process().retrying, 1);
    let operation = scenario.get(1);
    let wal_cli::operation::State::Retrying { wait, .. } = &operation.state else {
        panic!("{operation:?}")
    };
    let length = wait.until.millis_since(wait.since);
    assert!((120_000..=132_000).contains(&length), "the second wait is twice as long: {length} ms");
    assert_eq!(wait.since, at(TIMES[2]));
}

/// Runs a drain loop, which cleans up if that is due.
fn run(scenario: &Scenario) {
    scenario.process();
}

#[test]
fn a_clock_jump_ahead_and_back_prunes_nothing() {
    let scenario = Scenario::new();
    set(&scenario, "2026-11-22T12:00:00Z");
    scenario.add("a", "x y");
    run(&scenario);
    scenario.client().checkpoint().unwrap();
    scenario.clock.advance(Duration::from_secs(2 * DAY));
    run(&scenario);
    set(&scenario, "3010-06-01T00:00:00Z");
    scenario.add("a", "z");
    run(&scenario);
    scenario.client().checkpoint().unwrap();
    assert_eq!(completed(&scenario), [1, 2, 3], "a clock in 3010 alone prunes nothing");
    set(&scenario, "2026-11-24T13:00:00Z");
    run(&scenario);
    scenario.clock.advance(Duration::from_secs(2 * DAY));
    run(&scenario);
    assert_eq!(completed(&scenario), [1, 2, 3], "with the clock set back, nothing is old");
    // Completions in 3010 are pruned with their successors, not in 3010.
    scenario.add("a", "w");
    run(&scenario);
    scenario.client().checkpoint().unwrap();
    for _ in 0..40 {
        scenario.clock.advance(Duration::from_secs(DAY));
        run(&scenario);
    }
    assert_eq!(completed(&scenario), Vec::<u64>::new());
}

#[test]
fn completions_in_1970_are_as_old_as_their_predecessors() {
    let scenario = Scenario::new();
    set(&scenario, "2026-11-22T12:00:00Z");
    scenario.add("a", "x");
    run(&scenario);
    scenario.client().checkpoint().unwrap();
    set(&scenario, "1970-01-01T00:00:00Z");
    scenario.add("a", "y");
    run(&scenario);
    scenario.client().checkpoint().unwrap();
    run(&scenario);
    set(&scenario, "2026-11-22T12:30:00Z");
    for _ in 0..20 {
        run(&scenario);
        scenario.clock.advance(Duration::from_secs(DAY));
    }
    assert_eq!(completed(&scenario), [1, 2], "after twenty days both exist");
    for _ in 0..20 {
        run(&scenario);
        scenario.clock.advance(Duration::from_secs(DAY));
    }
    assert_eq!(completed(&scenario), Vec::<u64>::new(), "after forty days both are pruned");
}

#[test]
fn cleanup_works_with_a_stopped_and_with_a_running_clock() {
    let scenario = Scenario::new();
    set(&scenario, "2026-11-22T12:00:00Z");
    for day in 0..50 {
        if day < 10 {
            scenario.add("a", &format!("op{day}"));
        }
        run(&scenario);
        scenario.client().checkpoint().unwrap();
        scenario.clock.advance(Duration::from_secs(DAY));
        let old = (day + 1i64 - 31).clamp(0, 10) as usize;
        let left = completed(&scenario).len();
        let logged = (day + 1).min(10) as usize;
        assert!(
            left <= logged && left + old + 2 >= logged,
            "day {day}: {left} of {logged} left, some {old} are old"
        );
        assert!(day > 30 || left == logged, "day {day}: nothing is pruned early");
    }
    assert_eq!(completed(&scenario), Vec::<u64>::new());
    let _: &ManualClock = &scenario.clock;
}
