//! Backend `mock`: fails and takes time as configured, and has no effect.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::configured::{Configured, Context};
use super::{Attempt, AttemptError, AttemptStatus, Backend, OperationTypes, Request};
use crate::clock::Clock;
use crate::config::MockSettings;
use crate::operation::{Failure, FailureClass, Outcome};

/// The interval at which an attempt checks for a request to stop.
const POLL: Duration = Duration::from_millis(20);

/// The behaviour of a [`MockBackend`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MockOptions {
    /// The share of attempts that fail, 0 to 1. Their failures are transient.
    pub failure_rate: f64,
    /// The duration of every attempt, in milliseconds.
    pub latency_ms: u64,
    /// The seed that decides which attempts fail. `None` means a different one in each process.
    pub seed: Option<u64>,
    /// True if the backend is unreachable at first.
    pub offline: bool,
}

/// Builds the backend from its settings.
pub(super) fn configure(mock: &MockSettings, context: &Context<'_>) -> Configured {
    let options = MockOptions {
        failure_rate: mock.failure_rate,
        latency_ms: mock.latency_ms,
        seed: (mock.seed != 0).then_some(mock.seed),
        offline: mock.offline,
    };
    Configured::complete(MockBackend::new(context.clock.clone(), options))
}

/// A backend that only pretends to carry operations out. Its receipts say so: `mock` is `true`.
#[derive(Debug)]
pub struct MockBackend {
    clock: Arc<dyn Clock>,
    options: MockOptions,
    offline: AtomicBool,
    random: Option<Mutex<fastrand::Rng>>,
}

impl MockBackend {
    /// Returns a backend with this behaviour.
    pub fn new(clock: Arc<dyn Clock>, options: MockOptions) -> MockBackend {
        let random = options.seed.map(|seed| Mutex::new(fastrand::Rng::with_seed(seed)));
        MockBackend { clock, options, offline: AtomicBool::new(options.offline), random }
    }

    /// Begins or ends an outage.
    #[cfg(any(test, feature = "test-util"))]
    pub fn set_offline(&self, offline: bool) {
        self.offline.store(offline, Ordering::Relaxed);
    }

    fn chance(&self) -> f64 {
        match &self.random {
            Some(random) => random.lock().unwrap_or_else(PoisonError::into_inner).f64(),
            None => self.clock.chance(),
        }
    }

    fn outage(&self) -> Option<Failure> {
        self.offline.load(Ordering::Relaxed).then(|| Failure {
            class: FailureClass::Outage,
            error_type: "offline".into(),
            message: "the mock backend simulates an outage; set its `offline` to false to end it"
                .into(),
        })
    }

    fn take_time(&self, attempt: &Attempt) -> Result<(), AttemptError> {
        let until = self.clock.elapsed() + Duration::from_millis(self.options.latency_ms);
        loop {
            if attempt.is_cancelled() {
                return Err(AttemptError::Stopped);
            }
            let left = until.saturating_sub(self.clock.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            self.clock.sleep(left.min(POLL));
        }
    }
}

impl Backend for MockBackend {
    /// A rehearsal takes the operations that a real backend would.
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Standard
    }

    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        let size = request.source.as_ref().map(|source| source.size);
        attempt.expect_bytes(size.unwrap_or(0));
        self.take_time(attempt)?;
        if let Some(failure) = self.outage() {
            return Err(AttemptError::from(failure));
        }
        if self.chance() < self.options.failure_rate {
            return Err(AttemptError::transient(
                "mock_failure",
                "the mock backend failed as its `failure_rate` demands",
            ));
        }
        attempt.add_bytes(size.unwrap_or(0));
        let cid = match request.operation_type.as_str() {
            "add" | "upload" => Some(format!("mock-{}", request.id)),
            _ => request.parameters.get("cid").cloned(),
        };
        Ok(Outcome {
            cid,
            size,
            destination: request.parameters.get("destination").cloned(),
            receipt: [("mock".to_owned(), "true".to_owned())].into(),
        })
    }

    fn query_attempt(&self, _request: &Request) -> Result<AttemptStatus, AttemptError> {
        match self.outage() {
            Some(failure) => Err(AttemptError::from(failure)),
            None => Ok(AttemptStatus::NotDone),
        }
    }

    fn health(&self) -> Result<(), Failure> {
        self.outage().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::operation::{BackendName, Number, OperationId, OperationType, Source, Time};

    fn request(operation_type: &str) -> Request {
        Request {
            id: OperationId::new(Time::from_millis(1), 0, 7),
            number: Number::new(1),
            operation_type: OperationType::new(operation_type).unwrap(),
            backend: BackendName::new("mock").unwrap(),
            parameters: [("destination".to_owned(), "/there".to_owned())].into(),
            source: Some(Source {
                size: 5,
                mtime_ns: 0,
                inode: 0,
                ctime_ns: None,
                sha256: None,
                spool: None,
            }),
            content: None,
        }
    }

    fn mock(options: MockOptions) -> (MockBackend, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Time::from_millis(0), 1));
        (MockBackend::new(clock.clone(), options), clock)
    }

    #[test]
    fn receipts_say_that_the_effect_is_simulated() {
        let (backend, clock) = mock(MockOptions { latency_ms: 130, ..MockOptions::default() });
        let attempt = Attempt::default();
        let outcome = backend.execute(&request("add"), &attempt).unwrap();
        assert_eq!(outcome.cid.unwrap(), format!("mock-{}", request("add").id));
        assert_eq!(outcome.receipt["mock"], "true");
        assert_eq!((outcome.size, attempt.progress()), (Some(5), (5, 5)));
        assert_eq!(clock.elapsed(), Duration::from_millis(130));
        for other in ["rm", "a_type_of_its_own"] {
            assert!(backend.execute(&request(other), &Attempt::default()).is_ok());
        }
    }

    #[test]
    fn failures_follow_the_rate_and_repeat_with_the_seed() {
        let run = |seed, failure_rate| -> Vec<bool> {
            let (backend, _) =
                mock(MockOptions { seed: Some(seed), failure_rate, ..MockOptions::default() });
            (0..1000)
                .map(|_| backend.execute(&request("pin"), &Attempt::default()).is_err())
                .collect()
        };
        let failed = |run: Vec<bool>| run.into_iter().filter(|failed| *failed).count();
        assert_eq!(run(1, 0.3), run(1, 0.3));
        assert_ne!(run(1, 0.3), run(2, 0.3));
        assert!((250..350).contains(&failed(run(1, 0.3))));
        assert_eq!((failed(run(1, 0.0)), failed(run(1, 1.0))), (0, 1000));
    }

    #[test]
    fn an_outage_lasts_until_it_is_ended_and_a_stop_is_noticed() {
        let (backend, _) = mock(MockOptions { offline: true, ..MockOptions::default() });
        let Err(AttemptError::Failed { failure, .. }) =
            backend.execute(&request("add"), &Attempt::default())
        else {
            panic!()
        };
        assert_eq!(failure.class, FailureClass::Outage);
        assert!(backend.health().is_err() && backend.query_attempt(&request("add")).is_err());
        backend.set_offline(false);
        assert!(backend.health().is_ok());
        assert_eq!(backend.query_attempt(&request("add")), Ok(AttemptStatus::NotDone));
        let attempt = Attempt::default();
        attempt.cancel();
        assert_eq!(backend.execute(&request("add"), &attempt), Err(AttemptError::Stopped));
    }
}
