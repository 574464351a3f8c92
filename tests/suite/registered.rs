//! A backend that a program registers has all functions of the built-in ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use wal_cli::backend::{
    Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Effect, OperationTypes,
    ParameterError, Reach, Refusal, Request,
};
use wal_cli::client::{
    AuditOptions, AuditReport, Client, ClientError, NoObserver, ProcessOptions, Stop,
};
use wal_cli::operation::{
    BackendName, Failure, FailureClass, Fields, Logged, Number, OperationType, Outcome, Status,
};

use super::scenario::{Scenario, backend};

/// Notes in memory, and a trace of each attempt that only a sweep removes.
#[derive(Debug, Default)]
struct Notes {
    notes: Mutex<BTreeMap<String, String>>,
    traces: Mutex<BTreeSet<Number>>,
}

fn title(parameters: &Fields) -> String {
    parameters.get("title").cloned().unwrap_or_default()
}

impl Backend for Notes {
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Only(&["note", "erase"])
    }

    fn check(&self, operation_type: &OperationType, fields: &Fields) -> Result<(), ParameterError> {
        match title(fields).is_empty() {
            true => Err(ParameterError::new(format!("`{operation_type}` needs a `title`"))),
            false => Ok(()),
        }
    }

    fn execute(&self, request: &Request, _: &Attempt) -> Result<Outcome, AttemptError> {
        let title = title(&request.parameters);
        self.traces.lock().unwrap().insert(request.number);
        if title == "lost" {
            let message = "no answer".to_owned();
            let class = FailureClass::Transient;
            let failure = Failure { class, error_type: "lost".into(), message };
            return Err(AttemptError::UnknownOutcome(failure));
        }
        let text = request.parameters.get("text").cloned().unwrap_or_default();
        let mut notes = self.notes.lock().unwrap();
        match request.operation_type.as_str() {
            "note" => notes.insert(title, text.clone()),
            _ => notes.remove(&title),
        };
        Ok(Outcome { destination: Some(text), ..Outcome::default() })
    }

    fn query_attempt(&self, _: &Request) -> Result<AttemptStatus, AttemptError> {
        Ok(AttemptStatus::Unknown("notes keep no record".into()))
    }

    fn is_auditable(&self, operation_type: &OperationType) -> bool {
        operation_type.as_str() == "note"
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        _: &Attempt,
    ) -> Result<AuditResult, AttemptError> {
        Ok(match self.notes.lock().unwrap().get(&title(&request.parameters)) {
            None => AuditResult::Missing("the note no longer exists".into()),
            text if text == outcome.destination.as_ref() => AuditResult::Intact,
            Some(_) => AuditResult::Altered("the note has another text".into()),
        })
    }

    fn effects(&self, request: &Request, _: &Outcome) -> Vec<Effect> {
        let target = format!("note/{}", title(&request.parameters));
        vec![match request.operation_type.as_str() {
            "note" => Effect::writes(target, Reach::Exact),
            _ => Effect::removes(target, Reach::Removed),
        }]
    }

    fn sweep(&self, is_needed: &dyn Fn(Number) -> bool) -> Result<(), AttemptError> {
        self.traces.lock().unwrap().retain(|number| is_needed(*number));
        Ok(())
    }

    fn health(&self) -> Result<(), Failure> {
        Ok(())
    }
}

struct Bench {
    scenario: Scenario,
    notes: Arc<Notes>,
}

impl Bench {
    fn new() -> Bench {
        Bench { scenario: Scenario::new(), notes: Arc::default() }
    }

    fn client(&self) -> Client {
        self.scenario.builder().backend(backend("notes"), self.notes.clone()).build()
    }

    fn submit(&self, operation_type: &str, title: &str, text: &str) -> Result<Number, ClientError> {
        let fields = [("title", title), ("text", text)];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let kind = OperationType::new(operation_type).unwrap();
        let name: BackendName = backend("notes");
        Ok(self.client().submit(Logged::new(kind, name, fields, 2))?.number)
    }

    fn process(&self) {
        self.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver).unwrap();
    }

    fn audit(&self, reopen: bool) -> AuditReport {
        let options = AuditOptions::default().with_reopen(reopen);
        self.client().audit(&options, &Stop::new(), &|_, _| {}).unwrap()
    }
}

#[test]
fn operations_it_refuses_are_not_logged() {
    let bench = Bench::new();
    let refused = |operation_type: &str, title: &str| match bench
        .submit(operation_type, title, "")
        .unwrap_err()
    {
        ClientError::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let Refusal::Unsupported { supported, .. } = refused("add", "x") else { panic!() };
    assert_eq!(supported, ["note", "erase"]);
    assert_eq!(refused("note", "").to_string(), "`note` needs a `title`");
    assert_eq!(bench.client().status().unwrap().counts.total(), 0);
}

#[test]
fn its_completed_operations_are_audited() {
    let bench = Bench::new();
    for (title, text) in [("kept", "1"), ("missing", "2"), ("altered", "3"), ("replaced", "4")] {
        bench.submit("note", title, text).unwrap();
    }
    bench.process();
    assert_eq!((bench.audit(false).checked, bench.audit(false).intact), (4, 4));
    bench.submit("note", "replaced", "5").unwrap();
    bench.submit("note", "erased", "6").unwrap();
    bench.process();
    bench.submit("erase", "erased", "").unwrap();
    bench.process();
    bench.notes.notes.lock().unwrap().remove("missing");
    bench.notes.notes.lock().unwrap().insert("altered".into(), "x".into());

    let report = bench.audit(true);
    let numbers = |findings: &[wal_cli::client::AuditFinding]| -> Vec<u64> {
        findings.iter().map(|finding| finding.number.get()).collect()
    };
    assert_eq!((numbers(&report.missing), numbers(&report.altered)), (vec![2], vec![3]));
    assert_eq!((report.intact, report.superseded, report.without_effect), (2, 2, 1), "{report:?}");
    assert_eq!(report.reopened, 2);
    bench.process();
    let report = bench.audit(false);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(bench.notes.notes.lock().unwrap()["missing"], "2");
}

#[test]
fn its_traces_are_swept_once_no_operation_needs_them() {
    let bench = Bench::new();
    bench.submit("note", "a", "1").unwrap();
    let lost = bench.submit("note", "lost", "2").unwrap();
    bench.notes.traces.lock().unwrap().insert(Number::new(99));
    bench.process();
    let in_doubt = bench.scenario.get(lost.get());
    assert!(in_doubt.status() == Status::Failed && in_doubt.is_in_doubt(), "{in_doubt:?}");
    let traces = || bench.notes.traces.lock().unwrap().iter().copied().collect::<Vec<Number>>();
    assert_eq!(traces(), [Number::FIRST, lost], "an operation that does not exist needs nothing");
    bench.process();
    assert_eq!(traces(), [lost]);
}
