//! A log before a proxy that does its worst, a straight way to the same service, and what is to become of an operation.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wal_cli::client::{Client, ProcessOptions, Reference, Silent, Stop, Verb};
use wal_cli::config::{BackendSettings, Settings};
use wal_cli::operation::{BackendName, FailureClass, Fields, Logged, Operation, OperationType, State, Status};

/// How long nothing may move.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// What no case takes longer than: a hanging command, a probe and a question, and all that is not hanging.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What an answer that is lost leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// To ask: it was done.
    Asked,
    /// To do it again: that does no harm.
    Repeated,
    /// To do it again: nothing was changed.
    Read,
}

/// What is to become of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Completed,
    /// Goes back, no attempt spent: an outage, with this type of error.
    Pending(&'static str),
    /// Tried again after the usual wait.
    Retrying(&'static str),
    /// Tried again after the wait that was asked for.
    RetryingLater(&'static str),
    Failed(&'static str),
}

/// One log before one proxy, and a straight way to the service to prepare what operations need.
pub struct Table {
    pub directory: tempfile::TempDir,
    pub faulty: Client,
    straight: Client,
    backend: BackendName,
    /// How messages call the service.
    who: &'static str,
}

impl Table {
    /// For a backend of this name, whose settings are made for the way through the proxy (`true`) and the straight one.
    pub fn new(backend: &str, who: &'static str, configure: impl Fn(&mut BackendSettings, bool)) -> Table {
        let directory = tempfile::tempdir().unwrap();
        let name = BackendName::new(backend).unwrap();
        let client = |folder: &str, is_faulty: bool| {
            let mut settings = Settings::at(directory.path().join(folder));
            settings.retry_delay = Duration::from_secs(2);
            settings.max_retries = 3;
            let backend = settings.backends.get_mut(&name).unwrap();
            backend.connection_timeout = PATIENCE;
            backend.idle_timeout = PATIENCE;
            configure(backend, is_faulty);
            Client::open(settings, "test")
        };
        let (faulty, straight) = (client("faulty", true), client("straight", false));
        Table { faulty, straight, directory, backend: name, who }
    }

    /// A number that no other case has.
    pub fn next() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// A file with content of its own.
    #[expect(clippy::disallowed_methods, reason = "it makes files as a user would")]
    pub fn write(&self, nth: u64) -> (PathBuf, String) {
        let path = self.directory.path().join(format!("file-{nth}"));
        std::fs::write(&path, format!("content {nth} of {}\n", self.directory.path().display())).unwrap();
        let text = path.to_str().unwrap().to_owned();
        (path, text)
    }

    /// What is known of the backend's health is forgotten, so that it is tried and not only probed.
    #[expect(clippy::disallowed_methods, reason = "it removes what is kept")]
    pub fn forget_health(&self) {
        let _ = std::fs::remove_file(self.directory.path().join("faulty/health.json"));
    }

    /// Logs one operation and carries it out once.
    fn run_on(&self, client: &Client, operation_type: &str, parameters: &[(&str, &str)]) -> Operation {
        let parameters: Fields = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let kind = OperationType::new(operation_type).unwrap();
        let receipt = client.submit(Logged::new(kind, self.backend.clone(), parameters, 3)).unwrap();
        client.process(&ProcessOptions::default(), &Stop::new(), &mut Silent).unwrap();
        client.operation(&Reference::Number(receipt.number)).unwrap()
    }

    /// The same through the proxy.
    pub fn run(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Operation {
        self.run_on(&self.faulty, operation_type, parameters)
    }

    /// The same on the straight way, where it must succeed.
    pub fn prepared(&self, operation_type: &str, parameters: &[(&str, &str)]) -> Operation {
        let operation = self.run_on(&self.straight, operation_type, parameters);
        assert_eq!(operation.status(), Status::Completed, "{operation:?}");
        operation
    }

    /// Whether that became of an operation, and its message and its wait are as they should be.
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
                let (least, most) =
                    if expected == Expected::Retrying(error_type) { (1_950, 2_200) } else { (6_950, 7_000) };
                assert!((least..=most).contains(&wait), "{case}: it waits {wait} ms");
            }
        }
    }

    /// Once the fault is gone, a retry completes it.
    pub fn ends_well(&self, operation: &Operation, case: &str) {
        let reference = [Reference::Number(operation.number)];
        self.faulty.change(&reference, &Verb::Retry { now: true }, true).unwrap();
        self.faulty.process(&ProcessOptions::default(), &Stop::new(), &mut Silent).unwrap();
        let done = self.faulty.operation(&reference[0]).unwrap();
        assert_eq!(done.status(), Status::Completed, "{case}, then nothing: {:?}", done.state.failure());
    }

    /// It is not to be carried out any more.
    pub fn cancel(&self, operation: &Operation) {
        let reference = [Reference::Number(operation.number)];
        self.faulty.change(&reference, &Verb::Cancel { permanent: false }, true).unwrap();
    }
}
