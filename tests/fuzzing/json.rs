//! A line of `submit --from-file`: the logged operation must match the line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wal_cli::backend::mock::{MockBackend, MockOptions};
use wal_cli::client::{
    AddOptions, Client, NumberOrText, OnInvalid, OperationLine, Reference, SecondsOrText,
};
use wal_cli::config::{Settings, SpoolMode, parse_seconds};
use wal_cli::disk::{Disk, Machine};
use wal_cli::operation::{BackendName, Number, Operation, Status};

use super::image::{BASE, NOW, clock};

pub fn run(data: &[u8]) {
    let machine = Machine::new();
    let disk = machine.process();
    (&disk as &dyn Disk).write_new_synced(Path::new("/f"), b"content").unwrap();
    let clock = clock();
    let mut settings =
        Settings { min_free_bytes: 0, spool: SpoolMode::Never, ..Settings::at(BASE.into()) };
    settings.default_backend = BackendName::new("any").unwrap();
    let mock = MockOptions { seed: Some(1), ..MockOptions::default() };
    let client = Client::builder(settings)
        .environment(Arc::new(disk.clone()), clock.clone())
        .program("submit")
        .backend(BackendName::new("any").unwrap(), Arc::new(MockBackend::new(clock, mock)))
        .build();
    // An operation that lines can depend on.
    client.add(Path::new("/f"), &AddOptions::default()).unwrap();
    let mut said = Vec::new();
    let mut batch = client.batch(&AddOptions::default(), OnInvalid::Skip).unwrap();
    for (nth, line) in
        data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(8).enumerate()
    {
        if batch.submit(line, Some(nth as u64 + 1)).is_err() {
            return;
        }
        said.push(serde_json::from_slice::<OperationLine>(line).ok());
    }
    let total = said.len() as u64;
    let receipts = match batch.commit() {
        Ok(receipts) => receipts,
        // With a key conflict, or an unknown dependency, nothing is logged.
        Err(_) => {
            assert!(client.operation(&Reference::Number(Number::new(2))).is_err());
            return;
        }
    };
    assert_eq!(receipts.total, total);
    let refused: Vec<u64> = receipts.bad.listed.iter().filter_map(|bad| bad.line).collect();
    let good =
        said.into_iter().enumerate().filter(|(nth, _)| !refused.contains(&(*nth as u64 + 1)));
    let good: Vec<OperationLine> = good
        .map(|(nth, line)| line.unwrap_or_else(|| panic!("line {nth} is no operation")))
        .collect();
    let reported = receipts.to_vec().unwrap();
    assert_eq!(reported.len(), good.len());
    drop(receipts);
    let reader = Client::builder(Settings::at(BASE.into()))
        .environment(Arc::new(machine.process()), super::image::clock())
        .program("list")
        .build();
    for (receipt, line) in reported.iter().zip(&good) {
        let operation = reader.operation(&Reference::Id(receipt.id)).unwrap();
        assert_eq!((operation.number, operation.status()), (receipt.number, Status::Pending));
        same(&operation, line);
    }
    if !reported.is_empty() {
        client.checkpoint().unwrap();
        for (receipt, line) in reported.iter().zip(&good) {
            same(&reader.operation(&Reference::Number(receipt.number)).unwrap(), line);
        }
    }
}

fn same(operation: &Operation, line: &OperationLine) {
    assert_eq!(operation.operation_type, line.operation_type);
    assert_eq!(
        operation.backend.as_str(),
        line.backend.as_ref().map_or("any", BackendName::as_str)
    );
    for (name, value) in &line.parameters {
        let found = operation.parameters.get(name);
        // Paths are made absolute.
        let is_path = ["path", "destination"].contains(&name.as_str());
        assert!(
            found == Some(value) || (is_path && found.is_some()),
            "{name}: {value:?} became {found:?}"
        );
    }
    assert_eq!(operation.priority, line.priority.unwrap_or(0));
    assert_eq!(operation.max_retries, line.max_retries.unwrap_or(5));
    assert_eq!(operation.idempotency_key, line.idempotency_key);
    let mut waits = operation.depends_on.len();
    for after in &line.after {
        waits = waits.saturating_sub(1);
        assert!(!matches!(after, NumberOrText::Number(Number::ZERO)));
    }
    assert_eq!(waits, 0, "{:?} waits for more than {:?}", operation.depends_on, line.after);
    let delay = line.delay.as_ref().map(|delay| match delay {
        SecondsOrText::Seconds(seconds) => Duration::from_secs(u64::from(*seconds)),
        SecondsOrText::Text(text) => parse_seconds(text).expect("it was taken"),
    });
    let until = operation.not_before.map(|time| time.as_millis() - NOW);
    assert_eq!(until, delay.map(|delay| delay.as_millis() as i64));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let seeds = [
        r#"{"operation_type":"pin"}"#,
        r#"{"operation_type":"pin","parameters":{"cid":"Qm","":"ä\u0000\"\\"}}"#,
        r#"{"operation_type":"add","parameters":{"path":"/f"},"priority":-2147483648,"max_retries":1000}"#,
        r#"{"operation_type":"add","parameters":{"path":"f"}}"#,
        r#"{"operation_type":"add","parameters":{"path":"/missing"}}"#,
        r#"{"operation_type":"get","parameters":{"cid":"Qm","destination":"../x"},"delay":"1.5h"}"#,
        r#"{"operation_type":"rm","after":[1,"@last","1"],"delay":4294967295}"#,
        r#"{"operation_type":"rm","after":["00000000-0000-7000-8000-000000000000"]}"#,
        r#"{"operation_type":"rm","after":["original:x"]}"#,
        r#"{"operation_type":"rm","after":[0]}"#,
        r#"{"operation_type":"pin","idempotency_key":"k","parameters":{"a":"b"}}"#,
        "{\"operation_type\":\"pin\",\"idempotency_key\":\"k\"}\n{\"operation_type\":\"pin\",\"idempotency_key\":\"k\"}",
        "{\"operation_type\":\"pin\",\"idempotency_key\":\"k\"}\n{\"operation_type\":\"rm\",\"idempotency_key\":\"k\"}",
        "{\"operation_type\":\"a\"}\n{\"operation_type\":\"B\"}\n\n{\"operation_type\":\"c\",\"after\":[\"@last\"]}",
        r#"{"operation_type":"pin","backend":"local","parameters":{"cid":"Qm"}}"#,
        r#"{"operation_type":"pin","backend":"nowhere"}"#,
        r#"{"operation_type":"pin","unknown":1}"#,
        r#"{"operation_type":"pin","delay":"1e9"}"#,
        r#"{"operation_type":"pin","delay":"36500d","max_retries":0,"priority":2147483647}"#,
        r#"{"operation_type":"pin","priority":2147483648}"#,
        r#"["operation_type","pin"]"#,
        "not JSON",
        "{",
        "\u{0}",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}
