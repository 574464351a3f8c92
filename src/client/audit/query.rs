//! Asks backends about operations, several at a time of each backend.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::{Attempt, AttemptError, AuditResult, Backend};
use crate::client::{Client, Stop};
use crate::operation::{BackendName, Failure, FailureClass, Number, Operation, State};
use crate::wal::Layout;
use crate::worker::request_of;

/// Consecutive failures after which a backend is not asked any more.
const CONSECUTIVE_FAILURES_MAX: u32 = 3;

/// The interval at which a request to stop is checked.
const STOP_POLL: Duration = Duration::from_millis(50);

/// The answer about one operation.
pub(super) enum Verdict {
    Audited(AuditResult),
    Unverified(Failure),
    Stopped,
}

/// A backend during an audit.
pub(super) struct AuditedBackend {
    backend: Result<Arc<dyn Backend>, Failure>,
    jobs: usize,
    consecutive_failures: AtomicU32,
    /// The failure after which the backend is not asked any more.
    unreachable: Mutex<Option<Failure>>,
}

impl AuditedBackend {
    /// Returns the backend of an operation.
    pub(super) fn of(client: &Client, operation: &Operation) -> AuditedBackend {
        let Operation { backend: name, operation_type, parameters, .. } = operation;
        let backend = client.backends.get(name).cloned().ok_or_else(|| Failure {
            class: FailureClass::Permanent,
            error_type: "unknown_backend".into(),
            message: match client.backends.check(name, operation_type, parameters) {
                Err(refusal) => refusal.to_string(),
                Ok(()) => format!("backend `{name}` cannot be asked"),
            },
        });
        AuditedBackend {
            backend,
            jobs: client.settings.jobs_of(name).max(1),
            consecutive_failures: AtomicU32::new(0),
            unreachable: Mutex::default(),
        }
    }

    fn record_failure(&self, failure: &Failure) {
        let consecutive_failures = match failure.class {
            // A permanent failure concerns the operation, not the backend.
            FailureClass::Permanent => return,
            FailureClass::Transient => self.consecutive_failures.fetch_add(1, Ordering::SeqCst) + 1,
            FailureClass::Outage => CONSECUTIVE_FAILURES_MAX,
        };
        if consecutive_failures >= CONSECUTIVE_FAILURES_MAX {
            lock(&self.unreachable).get_or_insert_with(|| failure.clone());
        }
    }
}

/// The questions that are being asked, so that a request to stop can cancel them.
#[derive(Default)]
struct Questions {
    stopped: AtomicBool,
    running: Mutex<BTreeMap<Number, Arc<Attempt>>>,
}

impl Questions {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn begin(&self, number: Number) -> Arc<Attempt> {
        let attempt = Arc::new(Attempt::default());
        lock(&self.running).insert(number, attempt.clone());
        // A stop before the insertion has not cancelled this attempt.
        if self.is_stopped() {
            attempt.cancel();
        }
        attempt
    }

    fn stop(&self) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            lock(&self.running).values().for_each(|attempt| attempt.cancel());
        }
    }
}

/// Asks about operations, and calls `record` with each answer.
pub(super) fn ask_all(
    layout: &Layout,
    operations: BTreeMap<BackendName, Vec<Operation>>,
    backends: &BTreeMap<BackendName, AuditedBackend>,
    stop: &Stop,
    record: &mut dyn FnMut(Operation, Verdict),
) {
    let questions = Questions::default();
    std::thread::scope(|scope| {
        let (sender, answers) = mpsc::channel();
        for (name, operations) in operations {
            let Some(backend) = backends.get(&name) else { continue };
            let jobs = backend.jobs.min(operations.len());
            let queue = Arc::new(Mutex::new(operations.into_iter()));
            for _ in 0..jobs {
                let (sender, queue, questions) = (sender.clone(), queue.clone(), &questions);
                scope.spawn(move || {
                    loop {
                        let next = lock(&queue).next();
                        let Some(operation) = next else { return };
                        let verdict = match questions.is_stopped() {
                            true => Verdict::Stopped,
                            false => ask(layout, backend, &operation, questions),
                        };
                        // The receiver outlives the threads.
                        let _ = sender.send((operation, verdict));
                    }
                });
            }
        }
        drop(sender);
        loop {
            match answers.recv_timeout(STOP_POLL) {
                Ok((operation, verdict)) => record(operation, verdict),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if stop.is_requested() {
                questions.stop();
            }
        }
    });
}

fn ask(
    layout: &Layout,
    audited: &AuditedBackend,
    operation: &Operation,
    questions: &Questions,
) -> Verdict {
    let backend = match &audited.backend {
        Ok(backend) => backend,
        Err(failure) => return Verdict::Unverified(failure.clone()),
    };
    if let Some(failure) = &*lock(&audited.unreachable) {
        return Verdict::Unverified(failure.clone());
    }
    let State::Completed { outcome, .. } = &operation.state else {
        return Verdict::Audited(AuditResult::NotApplicable);
    };
    let attempt = questions.begin(operation.number);
    let answer = backend.audit(&request_of(operation, layout), outcome, &attempt);
    lock(&questions.running).remove(&operation.number);
    match answer {
        Ok(result) => {
            audited.consecutive_failures.store(0, Ordering::SeqCst);
            Verdict::Audited(result)
        }
        Err(AttemptError::Stopped) => Verdict::Stopped,
        Err(_) if questions.is_stopped() => Verdict::Stopped,
        Err(AttemptError::Failed { failure, .. } | AttemptError::UnknownOutcome(failure)) => {
            audited.record_failure(&failure);
            Verdict::Unverified(failure)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
