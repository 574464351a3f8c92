//! A log behind a proxy that injects faults, direct access to the same service, and the expected
//! outcomes of operations.
#![expect(
    clippy::disallowed_methods,
    reason = "creates and removes files as a user would, and measures time"
)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wal_cli::client::{Action, Client, NoObserver, OnInvalid, ProcessOptions, Reference, Stop};
use wal_cli::config::{BackendSettings, Settings};
use wal_cli::operation::{
    BackendName, FailureClass, Fields, Logged, Operation, OperationType, State, Status,
};

use super::proxy::{Fault, Full, Proxy};

/// The idle timeout.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// The longest time for a case: a hanging command, a probe, a query, and everything that does not
/// hang.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Faults after which a call ends at its time limit.
pub const HANGS: [Fault; 2] = [Fault::HangBeforeHead, Fault::HangInBody];

/// Faults that cut a response off, or drop it.
pub const INTERRUPTIONS: [Fault; 3] = [Fault::ResetInBody, Fault::Truncate, Fault::DropAnswer];

/// Statuses of services that are overloaded or have no server behind them.
pub const OVERLOADS: [Fault; 5] = [
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(502),
    Fault::Status(503),
    Fault::Status(504),
];

/// What follows from a lost response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// A query shows that the operation was done.
    Asked,
    /// The operation is repeated, which does no harm.
    Repeated,
    /// The operation is repeated, because it changes nothing.
    Read,
}

/// The expected state of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Completed,
    /// Pending again without a spent attempt: an outage, with this error type.
    Pending(&'static str),
    /// Retried after the usual delay.
    Retrying(&'static str),
    /// Retried after the delay that the service asked for.
    RetryingLater(&'static str),
    Failed(&'static str),
}

/// Runs one operation of a type after preparing what it needs, and calls the given function just
/// before.
pub type Attempt = fn(&Table, &str, &dyn Fn()) -> Operation;

/// An operation type, the call that a fault hits, and the expected state.
pub struct Case {
    pub operation_type: &'static str,
    pub call: &'static str,
    pub expected: Expected,
}

/// One log behind one proxy, and direct access to the service to prepare operations.
pub struct Table {
    pub directory: tempfile::TempDir,
    pub faulty: Client,
    straight: Client,
    backend: BackendName,
    /// The service's name in messages.
    who: &'static str,
}

impl Table {
    /// Returns a table for a backend of this name; `configure` makes its settings, for access
    /// through the proxy (`true`) and for direct access.
    pub fn new(
        backend: &str,
        who: &'static str,
        configure: impl Fn(&mut BackendSettings, bool),
    ) -> Table {
        let directory = tempfile::tempdir().unwrap();
        let name = BackendName::new(backend).unwrap();
        let client = |folder: &str, is_faulty: bool| {
            let mut settings = Settings::at(directory.path().join(folder));
            settings.retry_delay = Duration::from_secs(2);
            settings.max_retries = 3;
            let backend = settings.backends.get_mut(&name).unwrap();
            let timeouts = backend.timeouts_mut().unwrap();
            (timeouts.connection, timeouts.idle) = (PATIENCE, PATIENCE);
            configure(backend, is_faulty);
            Client::builder(settings).program("test").build()
        };
        let (faulty, straight) = (client("faulty", true), client("straight", false));
        Table { faulty, straight, directory, backend: name, who }
    }

    /// Returns a number that no other case has.
    pub fn next() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes a file with unique content.
    pub fn write(&self, nth: u64) -> (PathBuf, String) {
        let path = self.directory.path().join(format!("file-{nth}"));
        std::fs::write(&path, format!("content {nth} of {}\n", self.directory.path().display()))
            .unwrap();
        let text = path.to_str().unwrap().to_owned();
        (path, text)
    }

    /// Removes the health file, so that the backend is used and not only probed.
    pub fn forget_health(&self) {
        let _ = std::fs::remove_file(self.directory.path().join("faulty/health.json"));
    }

    /// Logs one operation and executes it once.
    fn run_on(
        &self,
        client: &Client,
        operation_type: &str,
        parameters: &[(&str, &str)],
    ) -> Operation {
        let parameters: Fields =
            parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let kind = OperationType::new(operation_type).unwrap();
        let receipt =
            client.submit(Logged::new(kind, self.backend.clone(), parameters, 3)).unwrap();
        client.process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver).unwrap();
        client.operation(&Reference::Number(receipt.number)).unwrap()
    }

    /// The same through the proxy.
    pub fn run(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Operation {
        self.run_on(&self.faulty, operation_type, parameters)
    }

    /// Logs one operation with owned parameters, and executes it through the proxy.
    pub fn run_owned(&self, operation_type: &str, parameters: &[(&str, String)]) -> Operation {
        let parameters: Vec<(&str, &str)> =
            parameters.iter().map(|(name, value)| (*name, &value[..])).collect();
        self.run(operation_type, &parameters)
    }

    /// The same with direct access, where it must succeed.
    pub fn prepared(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Operation {
        let operation = self.run_on(&self.straight, operation_type, parameters);
        assert_eq!(operation.status(), Status::Completed, "{operation:?}");
        operation
    }

    /// Checks the state of an operation, with its message and its delay.
    pub fn check(&self, operation: &Operation, expected: Expected, case: &str) {
        let failure = operation.state.failure();
        let status = operation.status();
        let is = |wanted: Status, class: FailureClass, error_type: &str| {
            let Some(failure) = failure else { panic!("{case}: {operation:?}") };
            assert_eq!(
                (status, failure.class, &failure.error_type[..]),
                (wanted, class, error_type),
                "{case}: {failure:?}"
            );
            let says_who = failure.message.contains(self.who);
            assert!(says_who && failure.message.len() > 50, "{case}: {}", failure.message);
        };
        match expected {
            Expected::Completed => assert_eq!(status, Status::Completed, "{case}: {failure:?}"),
            Expected::Pending(error_type) => {
                is(Status::Pending, FailureClass::Outage, error_type);
                assert_eq!(operation.retry_count, 0, "{case}: an outage spends no attempt");
            }
            Expected::Failed(error_type) => is(Status::Failed, FailureClass::Permanent, error_type),
            Expected::Retrying(error_type) | Expected::RetryingLater(error_type) => {
                is(Status::Retrying, FailureClass::Transient, error_type);
                let State::Retrying { wait, .. } = &operation.state else { panic!("{case}") };
                let wait = wait.until.millis_since(operation.updated_at);
                let (least, most) = if expected == Expected::Retrying(error_type) {
                    (1_950, 2_200)
                } else {
                    (6_950, 7_000)
                };
                assert!((least..=most).contains(&wait), "{case}: it waits {wait} ms");
            }
        }
    }

    /// Checks that a retry completes an operation after the fault.
    pub fn check_retry(&self, operation: &Operation, case: &str) {
        let reference = [Reference::Number(operation.number)];
        self.faulty.change(&reference, &Action::Retry { now: true }, OnInvalid::Abort).unwrap();
        self.faulty.process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver).unwrap();
        let done = self.faulty.operation(&reference[0]).unwrap();
        assert_eq!(
            done.status(),
            Status::Completed,
            "{case}, then nothing: {:?}",
            done.state.failure()
        );
    }

    /// Checks that each case with this fault ends in the expected state and in time, and that a
    /// retry then completes it.
    pub fn walk(
        &self,
        proxy: &Proxy,
        fault: Fault,
        attempt: Attempt,
        cases: impl IntoIterator<Item = Case>,
    ) {
        for Case { operation_type, call, expected } in cases {
            let since = Instant::now();
            let operation = attempt(self, operation_type, &|| proxy.plan(call, fault));
            let case = format!("{fault:?} at {call} of `{operation_type}`");
            self.check(&operation, expected, &case);
            assert!(since.elapsed() < LIMIT, "{case} took {:?}", since.elapsed());
            proxy.plan("*", Fault::None);
            if operation.status() == Status::Retrying {
                self.check_retry(&operation, &case);
            }
        }
    }

    /// Checks that operations of these types return to the queue without a spent attempt while the
    /// service is unreachable.
    pub fn check_unreachable(
        &self,
        error_type: &'static str,
        attempt: Attempt,
        types: impl IntoIterator<Item = &'static str>,
    ) {
        for operation_type in types {
            let since = Instant::now();
            let operation = attempt(self, operation_type, &|| self.forget_health());
            let case = format!("{error_type}, for `{operation_type}`");
            self.check(&operation, Expected::Pending(error_type), &case);
            assert!(since.elapsed() < LIMIT, "{case} took {:?}", since.elapsed());
            self.cancel(&operation);
        }
        let operation = attempt(self, "mkdir", &|| {});
        assert_eq!(
            (operation.status(), operation.history.len()),
            (Status::Pending, 1),
            "known to be unreachable: not sent"
        );
    }

    /// Cancels an operation.
    pub fn cancel(&self, operation: &Operation) {
        let reference = [Reference::Number(operation.number)];
        self.faulty
            .change(&reference, &Action::Cancel { permanent: false }, OnInvalid::Abort)
            .unwrap();
    }
}

/// Ports on which nothing answers.
pub struct Unreachable {
    refused: u16,
    full: Full,
}

impl Unreachable {
    pub fn new() -> Unreachable {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Unreachable { refused: listener.local_addr().unwrap().port(), full: Full::new() }
    }

    pub fn ports(&self) -> [u16; 2] {
        [self.refused, self.full.port]
    }
}
