//! One log on a simulated machine, with scripted backends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wal_cli::backend::{Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Request};
use wal_cli::client::{
    Client, ClientBuilder, NoObserver, ProcessOptions, ProcessReport, Reference, Stop,
};
use wal_cli::clock::ManualClock;
use wal_cli::config::Settings;
use wal_cli::disk::{Machine, MemoryDisk};
use wal_cli::operation::{
    BackendName, Failure, FailureClass, Fields, Logged, Number, Operation, OperationType, Outcome,
    Status, Time,
};
use wal_cli::wal::{Layout, View};

/// The reaction of a scripted backend to the next call for an operation.
#[derive(Debug, Clone)]
pub enum Act {
    Done,
    Fail(FailureClass),
    RetryAfter(u64),
    Unanswered,
    /// Loses the answer, and is unreachable from then on.
    Lost,
    /// Kills the whole process during the call.
    Die,
    /// Continues until it is asked to stop.
    Hang,
    /// Continues until it is asked to stop, with an unknown outcome.
    HangUnanswered,
}

/// A backend that follows a script, and records its calls.
#[derive(Debug, Default)]
pub struct Script {
    pub acts: Mutex<BTreeMap<String, Vec<Act>>>,
    pub calls: Mutex<Vec<String>>,
    pub answers: Mutex<BTreeMap<String, AttemptStatus>>,
    /// Results of audits; operations without one are intact, and an audit of `hangs` never returns.
    pub audits: Mutex<BTreeMap<String, AuditResult>>,
    /// The operations that were audited.
    pub audited: Mutex<Vec<String>>,
    pub unreachable: AtomicBool,
    /// True if queries fail because the backend is busy.
    pub busy: AtomicBool,
    pub process: Mutex<Option<MemoryDisk>>,
}

impl Script {
    pub fn name(request: &Request) -> String {
        request.parameters.get("name").cloned().unwrap_or_default()
    }
}

impl Backend for Script {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        let name = Script::name(request);
        self.calls.lock().unwrap().push(name.clone());
        if let Some(disk) = &*self.process.lock().unwrap() {
            let view = View::open(Arc::new(disk.clone()), layout());
            if let Ok(view) = view {
                let seen = view.operation(request.number).unwrap().unwrap();
                assert_eq!(
                    seen.status(),
                    Status::Processing,
                    "the claim is logged before the effect"
                );
            }
        }
        if self.unreachable.load(Ordering::SeqCst) {
            return Err(AttemptError::failed(
                FailureClass::Outage,
                "refused",
                "connection refused",
            ));
        }
        let act = self
            .acts
            .lock()
            .unwrap()
            .get_mut(&name)
            .and_then(|acts| (!acts.is_empty()).then(|| acts.remove(0)));
        let failure = |class| Failure {
            class,
            error_type: "scripted".into(),
            message: "failed as scripted".into(),
        };
        match act.unwrap_or(Act::Done) {
            Act::Done => Ok(Outcome { cid: Some(format!("cid-of-{name}")), ..Outcome::default() }),
            Act::Fail(class) => Err(failure(class).into()),
            Act::RetryAfter(ms) => Err(AttemptError::Failed {
                failure: failure(FailureClass::Transient),
                retry_after_ms: Some(ms),
            }),
            Act::Unanswered => Err(AttemptError::UnknownOutcome(failure(FailureClass::Transient))),
            Act::Lost => {
                self.unreachable.store(true, Ordering::SeqCst);
                Err(AttemptError::UnknownOutcome(failure(FailureClass::Outage)))
            }
            Act::Die => {
                self.process.lock().unwrap().as_ref().unwrap().kill();
                Err(AttemptError::Stopped)
            }
            act @ (Act::Hang | Act::HangUnanswered) => {
                while !attempt.is_cancelled() {
                    std::thread::yield_now();
                }
                match act {
                    Act::Hang => Err(AttemptError::Stopped),
                    _ => Err(AttemptError::UnknownOutcome(failure(FailureClass::Transient))),
                }
            }
        }
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError> {
        if self.unreachable.load(Ordering::SeqCst) && !Script::name(request).starts_with("harmless")
        {
            return Err(AttemptError::failed(
                FailureClass::Outage,
                "refused",
                "connection refused",
            ));
        }
        if self.busy.load(Ordering::SeqCst) {
            return Err(AttemptError::transient("busy", "try again later"));
        }
        Ok(self
            .answers
            .lock()
            .unwrap()
            .get(&Script::name(request))
            .cloned()
            .unwrap_or(AttemptStatus::NotDone))
    }

    fn audit(
        &self,
        request: &Request,
        _: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult, AttemptError> {
        let name = Script::name(request);
        self.audited.lock().unwrap().push(name.clone());
        if self.unreachable.load(Ordering::SeqCst) {
            return Err(AttemptError::failed(
                FailureClass::Outage,
                "refused",
                "connection refused",
            ));
        }
        if self.busy.load(Ordering::SeqCst) {
            return Err(AttemptError::transient("busy", "try again later"));
        }
        if name == "hangs" {
            while !attempt.is_cancelled() {
                std::thread::yield_now();
            }
            return Err(AttemptError::Stopped);
        }
        Ok(self.audits.lock().unwrap().get(&name).cloned().unwrap_or(AuditResult::Intact))
    }

    fn health(&self) -> Result<(), Failure> {
        match self.unreachable.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(Failure {
                class: FailureClass::Outage,
                error_type: "refused".into(),
                message: "connection refused".into(),
            }),
        }
    }
}

pub fn layout() -> Layout {
    Layout::new(PathBuf::from("/wal"))
}

pub fn backend(name: &str) -> BackendName {
    BackendName::new(name).unwrap()
}

/// One log, one clock, scripted backends `a` and `b`; processes come and go.
pub struct Scenario {
    pub machine: Machine,
    pub clock: Arc<ManualClock>,
    pub scripts: BTreeMap<&'static str, Arc<Script>>,
    pub settings: Settings,
}

impl Scenario {
    pub fn new() -> Scenario {
        // Threads that wait for a lock advance the clock, even if the thread that holds it is slow.
        let lock_timeout = Duration::from_secs(86_400);
        let settings = Settings { jobs: 1, lock_timeout, ..Settings::at(PathBuf::from("/wal")) };
        Scenario {
            machine: Machine::new(),
            clock: Arc::new(ManualClock::new(Time::from_millis(1_800_000_000_000), 1)),
            scripts: BTreeMap::from([("a", Arc::default()), ("b", Arc::default())]),
            settings,
        }
    }

    pub fn client(&self) -> Client {
        self.builder().build()
    }

    pub fn builder(&self) -> ClientBuilder {
        let disk = self.machine.process();
        let mut builder = Client::builder(self.settings.clone())
            .environment(Arc::new(disk.clone()), self.clock.clone())
            .program("process");
        for (name, script) in &self.scripts {
            *script.process.lock().unwrap() = Some(disk.clone());
            builder = builder.backend(backend(name), script.clone());
        }
        builder
    }

    pub fn act(&self, on: &str, name: &str, acts: &[Act]) -> &Scenario {
        self.scripts[on].acts.lock().unwrap().insert(name.to_owned(), acts.to_vec());
        self
    }

    pub fn add(&self, on: &str, names: &str) -> &Scenario {
        let client = self.client();
        for name in names.split_whitespace() {
            client.submit(logged(on, name, 0)).unwrap();
        }
        self
    }

    pub fn process(&self) -> ProcessReport {
        self.client().process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver).unwrap()
    }

    pub fn calls(&self, on: &str) -> String {
        self.scripts[on].calls.lock().unwrap().join(" ")
    }

    pub fn get(&self, number: u64) -> Operation {
        self.client().operation(&Reference::Number(Number::new(number))).unwrap()
    }

    pub fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

pub fn logged(on: &str, name: &str, priority: i32) -> Logged {
    let parameters = Fields::from([("name".to_owned(), name.to_owned())]);
    let mut logged = Logged::new(OperationType::new("job").unwrap(), backend(on), parameters, 2);
    logged.priority = priority;
    logged
}
