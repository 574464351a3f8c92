//! Every network fault × every type of operation: its state, its error, and the time of its retry.
#![expect(clippy::disallowed_methods, reason = "creates files as a user would, and measures")]

use std::time::{Duration, Instant};

use wal_cli::client::{Client, NoObserver, ProcessOptions, Reference, Stop};
use wal_cli::config::Settings;
use wal_cli::operation::{
    BackendName, Fields, Logged, Number, Operation, OperationType, State, Status,
};

use super::before;
use super::daemon::{Kubo, endpoint};
use crate::suite::faults::{
    Case, Expected, HANGS, INTERRUPTIONS, LIMIT, Lost, OVERLOADS, PATIENCE, Table, Unreachable,
};
use crate::suite::proxy::Fault;

/// Each type, with the Kubo command that a fault hits, and what follows from a lost response.
const TYPES: [(&str, &str, Lost); 14] = [
    ("add", "add", Lost::Asked),
    ("upload", "files/cp", Lost::Asked),
    ("get", "block/get", Lost::Read),
    ("cat", "block/get", Lost::Read),
    ("download", "files/stat", Lost::Read),
    ("pin", "pin/add", Lost::Asked),
    ("unpin", "pin/rm", Lost::Asked),
    ("rm cid", "pin/rm", Lost::Asked),
    ("rm path", "files/rm", Lost::Asked),
    ("list", "files/ls", Lost::Read),
    ("mkdir", "files/mkdir", Lost::Repeated),
    ("copy", "files/cp", Lost::Asked),
    ("move", "files/mv", Lost::Asked),
    ("move a directory", "files/mv", Lost::Asked),
];

/// Returns the expected state after a fault in one command.
fn expected(fault: Fault, operation_type: &str, lost: Lost) -> Expected {
    let asked_or = |error_type| {
        if lost == Lost::Asked { Expected::Completed } else { Expected::Retrying(error_type) }
    };
    match fault {
        Fault::None => Expected::Completed,
        Fault::HangBeforeReading | Fault::HangBeforeHead => Expected::Retrying("timed_out"),
        Fault::HangInBody => asked_or("timed_out"),
        Fault::ResetInBody | Fault::Truncate | Fault::DropAnswer => asked_or("connection_lost"),
        Fault::Status(429) => Expected::RetryingLater("rate_limited"),
        // Kubo may have executed it before the error, so it is queried; the requested delay applies
        // to errors only.
        Fault::Status(500) if lost != Lost::Read => Expected::Retrying("backend_error"),
        Fault::Status(500) => Expected::RetryingLater("backend_error"),
        Fault::Status(502 | 504) if lost != Lost::Read => Expected::Retrying("unavailable"),
        Fault::Status(_) => Expected::RetryingLater("unavailable"),
        Fault::ErrorInside if operation_type == "get" || operation_type == "cat" => {
            Expected::Retrying("damaged_content")
        }
        Fault::ErrorInside => Expected::Retrying("backend_error"),
        // The query decides, whatever the response says.
        Fault::ErrorBehind | Fault::RefuseBehind => asked_or("backend_error"),
        Fault::Nonsense if operation_type == "get" || operation_type == "cat" => {
            Expected::Retrying("damaged_content")
        }
        Fault::Nonsense => Expected::Retrying("bad_answer"),
        Fault::Other(..)
        | Fault::OtherSent(..)
        | Fault::OtherEtag
        | Fault::StandStill
        | Fault::Count => {
            panic!("these have a test of their own")
        }
    }
}

/// Returns a log whose node is behind this port.
fn table(port: u16) -> Table {
    let straight = Kubo::shared().endpoint();
    Table::new("ipfs", "Kubo at http://127.0.0.1:", |ipfs, is_faulty| {
        let ipfs = ipfs.ipfs_mut().unwrap();
        ipfs.endpoint = Some(if is_faulty { endpoint(port) } else { straight.clone() });
    })
}

/// Runs one operation of a type after preparing what it needs; `begin` starts the fault.
fn attempt(table: &Table, operation_type: &str, begin: &dyn Fn()) -> Operation {
    let nth = Table::next();
    let names = format!("/faults-{}-{nth}", std::process::id());
    let (_, file) = table.write(nth);
    let (from, to) = (format!("{names}/from"), format!("{names}/to"));
    let cid = || {
        let added = table.prepared("add", &[("path", &file)]);
        let State::Completed { outcome, .. } = added.state else { panic!("{added:?}") };
        outcome.cid.unwrap()
    };
    let upload = || drop(table.prepared("upload", &[("path", &file), ("destination", &from)]));
    let out = table.directory.path().join("out").to_str().unwrap().to_owned();
    let (kind, parameters): (&str, Vec<(&str, String)>) = match operation_type {
        "add" => ("add", vec![("path", file.clone())]),
        "upload" => ("upload", vec![("path", file.clone()), ("destination", to)]),
        "get" | "cat" => (operation_type, vec![("cid", cid()), ("destination", out)]),
        "download" => {
            upload();
            ("download", vec![("source", from), ("destination", out)])
        }
        "pin" => {
            let cid = cid();
            table.prepared("unpin", &[("cid", &cid)]);
            ("pin", vec![("cid", cid)])
        }
        "unpin" => ("unpin", vec![("cid", cid())]),
        "rm cid" => ("rm", vec![("cid", cid())]),
        "mkdir" => ("mkdir", vec![("path", to)]),
        "list" => {
            upload();
            ("list", vec![("path", names.clone())])
        }
        "rm path" => {
            upload();
            ("rm", vec![("path", from)])
        }
        "move a directory" => {
            table.prepared("upload", &[("path", &file), ("destination", &format!("{from}/below"))]);
            ("move", vec![("source", from), ("destination", to)])
        }
        "copy" | "move" => {
            upload();
            (operation_type, vec![("source", from), ("destination", to)])
        }
        other => panic!("{other}"),
    };
    begin();
    table.run_owned(kind, &parameters)
}

fn every_type_with(faults: &[Fault]) {
    let proxy = before(Kubo::shared());
    for fault in faults {
        let cases = TYPES.map(|(operation_type, call, lost)| {
            let expected = expected(*fault, operation_type, lost);
            Case { operation_type, call, expected }
        });
        table(proxy.port()).walk(&proxy, *fault, attempt, cases);
    }
}

#[test]
fn without_a_fault_every_type_passes_the_proxy() {
    every_type_with(&[Fault::None]);
}

#[test]
fn hangs_end_at_the_limit_and_are_settled() {
    every_type_with(&HANGS);
}

#[test]
fn a_request_that_is_not_read_ends_at_the_limit() {
    every_type_with(&[Fault::HangBeforeReading]);
}

#[test]
fn interrupted_responses_are_settled_by_a_query() {
    every_type_with(&INTERRUPTIONS);
}

#[test]
fn overload_is_waited_out_for_the_requested_time() {
    every_type_with(&OVERLOADS);
}

#[test]
fn errors_inside_and_after_a_response_are_errors() {
    every_type_with(&[
        Fault::ErrorInside,
        Fault::ErrorBehind,
        Fault::RefuseBehind,
        Fault::Nonsense,
    ]);
}

#[test]
fn only_lines_that_report_progress_keep_a_pin_waiting() {
    let proxy = before(Kubo::shared());
    let table = table(proxy.port());
    let since = Instant::now();
    let operation = attempt(&table, "pin", &|| proxy.plan("pin/add", Fault::StandStill));
    table.check(&operation, Expected::Retrying("timed_out"), "no bytes move");
    assert!((PATIENCE..LIMIT).contains(&since.elapsed()), "{:?}", since.elapsed());
    let message = &operation.state.failure().unwrap().message;
    assert!(
        message.contains(&operation.parameters["cid"]) && message.contains("idle_timeout"),
        "{message}"
    );
    proxy.plan("*", Fault::None);
    table.check_retry(&operation, "no bytes move");

    let operation = attempt(&table, "pin", &|| proxy.plan("pin/add", Fault::Count));
    table.check(&operation, Expected::Completed, "something moves");
    assert_eq!(operation.history.len(), 3, "at once, and by its answer: {operation:?}");
}

#[test]
fn an_error_before_an_outage_costs_no_attempt() {
    let proxy = before(Kubo::shared());
    for (fault, wanted) in [
        (Fault::RefuseBehind, Expected::Completed),
        (Fault::ErrorInside, Expected::Pending("backend_error")),
    ] {
        for (operation_type, command) in
            [("rm path", "files/rm"), ("move", "files/mv"), ("pin", "pin/add")]
        {
            let table = table(proxy.port());
            let operation = attempt(&table, operation_type, &|| {
                proxy.plan(command, fault);
                proxy.also("version", Fault::HangBeforeHead);
            });
            proxy.plan("*", Fault::None);
            table.check(
                &operation,
                wanted,
                &format!("{fault:?} at {command}, and no probe succeeds"),
            );
        }
    }
}

#[test]
fn content_that_does_not_match_its_cid_is_refused() {
    let proxy = before(Kubo::shared());
    let table = table(proxy.port());
    for (operation_type, command, from, to, wanted) in [
        ("get", "block/get", "content", "Content", Expected::Retrying("damaged_content")),
        ("cat", "block/get", "content", "Content", Expected::Retrying("damaged_content")),
        ("download", "block/get", "content", "Content", Expected::Retrying("damaged_content")),
        // The CID becomes another one, or invalid.
        ("add", "add", "Hash\":\"Qm", "Hash\":\"Qx", Expected::Completed),
        ("pin", "pin/add", "[\"Qm", "[\"Qx", Expected::Completed),
        ("copy", "files/stat", "\"Type\"", "\"Tip\" ", Expected::Retrying("bad_answer")),
    ] {
        let operation =
            attempt(&table, operation_type, &|| proxy.plan(command, Fault::Other(from, to)));
        let case = format!("{to} for {from} at {command} of `{operation_type}`");
        proxy.plan("*", Fault::None);
        table.check(&operation, wanted, &case);
        if operation.status() == Status::Retrying {
            table.check_retry(&operation, &case);
        }
    }
    // Changed in transit to Kubo, which stores the changed content under another CID.
    let operation =
        attempt(&table, "add", &|| proxy.plan("add", Fault::OtherSent("content", "Content")));
    table.check(&operation, Expected::Failed("cid_mismatch"), "other content");
}

#[test]
fn an_unreachable_node_costs_no_attempt_of_any_type() {
    let unreachable_ports = Unreachable::new();
    let (silent, deaf) = (before(Kubo::shared()), before(Kubo::shared()));
    silent.plan("*", Fault::HangBeforeHead);
    deaf.plan("*", Fault::HangBeforeReading);
    let unreachable = unreachable_ports.ports().map(|port| (port, "unreachable"));
    let hanging = [silent.port(), deaf.port()].map(|port| (port, "timed_out"));
    for (port, error_type) in unreachable.into_iter().chain(hanging) {
        table(port).check_unreachable(
            error_type,
            attempt,
            TYPES.map(|(operation_type, _, _)| operation_type),
        );
    }
}

#[test]
fn a_node_that_hangs_holds_up_no_other_backend() {
    let silent = before(Kubo::shared());
    silent.plan("*", Fault::HangBeforeHead);
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::at(directory.path().join("log"));
    settings.processing_interval = Duration::from_millis(100);
    let ipfs = settings.backends.get_mut(&BackendName::new("ipfs").unwrap()).unwrap();
    let ipfs = ipfs.ipfs_mut().unwrap();
    ipfs.endpoint = Some(endpoint(silent.port()));
    // The time for which each probe hangs.
    ipfs.timeouts.connection = Duration::from_secs(3);
    ipfs.timeouts.idle = Duration::from_millis(300);
    let client = Client::builder(settings).program("test").build();
    let log = |on: &str, name: String| {
        let parameters = Fields::from([("path".to_owned(), name)]);
        let kind = OperationType::new("mkdir").unwrap();
        client.submit(Logged::new(kind, BackendName::new(on).unwrap(), parameters, 3)).unwrap()
    };
    log("ipfs", "/never".into());
    let stop = Stop::new();
    let worst = std::thread::scope(|scope| {
        scope.spawn(|| {
            let options = ProcessOptions::default().with_follow(true);
            client.process(&options, &stop, &mut NoObserver).unwrap();
        });
        // By then the first attempt has failed, and the node is probed repeatedly.
        std::thread::sleep(Duration::from_secs(4));
        let mut worst = Duration::ZERO;
        for nth in 0..20 {
            let since = Instant::now();
            let number = log("local", format!("/made-{nth}")).number;
            while client.operation(&Reference::Number(number)).unwrap().status()
                != Status::Completed
            {
                assert!(since.elapsed() < LIMIT, "{nth}");
                std::thread::sleep(Duration::from_millis(5));
            }
            worst = worst.max(since.elapsed());
            std::thread::sleep(Duration::from_millis(150));
        }
        stop.request();
        worst
    });
    println!("the longest wait for an operation beside a hanging node: {worst:?}");
    assert!(worst < Duration::from_millis(1500), "{worst:?}");
    assert_eq!(
        client.operation(&Reference::Number(Number::new(1))).unwrap().status(),
        Status::Pending
    );
}
