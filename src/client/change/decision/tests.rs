use super::*;
use crate::operation::{
    Claim, Fields, Logged, OperationId, OperationType, Outcome, Revision, State, Time, Transition,
    apply,
};

fn failure(error_type: &str) -> Failure {
    Failure {
        class: FailureClass::Permanent,
        error_type: error_type.into(),
        message: "no such bucket".into(),
    }
}

/// Returns an operation after these events.
fn operation_after(events: Vec<Event>) -> Operation {
    let (operation_type, backend) =
        (OperationType::new("add").unwrap(), BackendName::new("a").unwrap());
    let logged = Logged::new(operation_type.clone(), backend.clone(), Fields::new(), 5);
    let mut operation: Option<Operation> = None;
    for (nth, event) in std::iter::once(Event::Logged(Box::new(logged))).chain(events).enumerate() {
        let transition = Transition {
            revision: Revision::new(nth as u64 + 1),
            number: Number::new(1),
            id: OperationId::from_bytes([1; 16]),
            at: Time::from_millis(0),
            from: operation.as_ref().map(Operation::status),
            operation_type: operation_type.clone(),
            backend: backend.clone(),
            actor: "ann@host test[1]".into(),
            event,
        };
        operation = apply(operation, &transition).unwrap();
    }
    operation.unwrap()
}

fn claimed() -> Event {
    Event::Claimed { claim: Claim { pid: 1, host: "host".into(), started: Time::from_millis(0) } }
}

/// Returns one operation per status, in the order of the columns below.
fn operations() -> Vec<Operation> {
    let retrying = Event::Retrying { failure: failure("timeout"), until: Time::from_millis(1000) };
    let stopping = Event::CancelRequested { reason: "test".into() };
    vec![
        operation_after(vec![]),
        operation_after(vec![Event::Held { reason: "test".into() }]),
        operation_after(vec![claimed()]),
        operation_after(vec![claimed(), stopping]),
        operation_after(vec![claimed(), retrying]),
        operation_after(vec![claimed(), Event::Completed { outcome: Outcome::default() }]),
        operation_after(vec![claimed(), Event::Failed { failure: failure("refused") }]),
        operation_after(vec![Event::Abandoned { failure: failure(failure::PERMANENT) }]),
    ]
}

/// Returns the name of the event, `=` for an unchanged operation, or `-` for a refusal.
fn word(decision: Decision) -> String {
    match decision {
        Decision::Apply(event) => {
            let debug = format!("{event:?}");
            debug.split([' ', '(']).next().unwrap_or_default().to_owned()
        }
        Decision::Unchanged => "=".into(),
        Decision::Refused(_) => "-".into(),
    }
}

#[test]
fn every_action_has_one_effect_per_status() {
    type Act = fn(&Operation) -> Decision;
    let other = |operation: &Operation| redirect(operation, &BackendName::new("b").unwrap(), None);
    let table: [(&str, Act); 10] = [
        ("cancel", cancel),
        ("abandon", abandon),
        ("hold", hold),
        ("release", release),
        ("delete", |operation| delete(operation, None)),
        ("prioritize", |operation| prioritize(operation, 3)),
        ("retry", |operation| retry(operation, false)),
        ("retry now", |operation| retry(operation, true)),
        ("accept source", |operation| accept_source(operation, || Ok(source()))),
        ("redirect", other),
    ];
    let rows: Vec<String> = table
        .iter()
        .map(|(name, act)| {
            let words: Vec<_> = operations().iter().map(|one| word(act(one))).collect();
            format!("{name}: {}", words.join(" "))
        })
        .collect();
    // pending, held, processing, stopping, retrying, completed, failed, abandoned
    assert_eq!(
        rows,
        [
            "cancel: Failed Failed CancelRequested = Failed - - -",
            "abandon: Abandoned Abandoned - - Abandoned - Abandoned =",
            "hold: Held = Held Held Held - - -",
            "release: = HoldReleased = = = = = =",
            "delete: Deleted Deleted - - Deleted Deleted Deleted Deleted",
            "prioritize: Prioritized Prioritized Prioritized Prioritized Prioritized - - -",
            "retry: - - - - Retried - Retried Retried",
            "retry now: - - - - BackoffEnded - Retried Retried",
            "accept source: - - - - - - Retried Retried",
            "redirect: Redirected Redirected - - Redirected - Redirected Redirected",
        ]
    );
}

fn source() -> Source {
    Source { size: 1, mtime_ns: 2, inode: 3, ctime_ns: Some(4), sha256: None, spool: None }
}

#[test]
fn a_copy_in_the_log_is_given_up_only_if_it_is_unusable() {
    let mut operation = operations().into_iter().nth(6).unwrap();
    for (error_type, spool, expected) in [
        ("source_changed", None, "Retried"),
        ("rejected", Some("copy"), "-"),
        ("spool_damaged", Some("copy"), "Retried"),
        ("not_found", Some("copy"), "Retried"),
    ] {
        let spool = spool.map(str::to_owned);
        operation.source = Some(Source { spool, ..source() });
        let State::Failed { failure, .. } = &mut operation.state else { panic!("not failed") };
        failure.error_type = error_type.to_owned();
        let decision = accept_source(&operation, || Ok(source()));
        assert_eq!(word(decision), expected, "{error_type}");
        let refusal = accept_source(&operation, || Err("no file".into()));
        assert_eq!(word(refusal), "-", "{error_type}");
    }
}
