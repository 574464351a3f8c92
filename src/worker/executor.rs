use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use super::settle::{Settlement, request_of, settle};
use crate::backend::{Attempt, AttemptError, Backend};
use crate::clock::Clock;
use crate::health::{self, Checked};
use crate::operation::retry::{RetryPolicy, UNSENT};
use crate::operation::{BackendName, Event, Failure, FailureClass, Number, Operation};
use crate::wal::Layout;

/// An operation whose claim is durable.
pub struct Job {
    /// As it is since the claim.
    pub operation: Operation,
    /// Its backend.
    pub backend: Arc<dyn Backend>,
    /// What the attempt and the loop tell each other.
    pub attempt: Arc<Attempt>,
}

/// An attempt that ended.
pub struct Finished {
    /// The operation's number.
    pub number: Number,
    /// What it leads to.
    pub settlement: Settlement,
}

/// Threads that call backends: for each backend as many as it has jobs, started when first needed.
pub struct Executor<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// Whether what has not begun is to go back.
    held_back: Arc<AtomicBool>,
    policy: RetryPolicy,
    clock: Arc<dyn Clock>,
    /// Where the log's copies of content are.
    layout: Layout,
    lanes: BTreeMap<BackendName, LaneThreads>,
    results: Receiver<Finished>,
    sender: Sender<Finished>,
}

struct LaneThreads {
    jobs: Sender<Job>,
    /// What the attempt said that found the backend away: what was claimed behind it goes back unsent.
    away: Arc<Mutex<Option<Failure>>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    threads: usize,
    submitted: usize,
}

impl<'scope, 'env> Executor<'scope, 'env> {
    /// An executor without threads.
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        policy: RetryPolicy,
        clock: Arc<dyn Clock>,
        layout: Layout,
    ) -> Executor<'scope, 'env> {
        let (sender, results) = channel();
        Executor { scope, held_back: Arc::default(), policy, clock, layout, lanes: BTreeMap::new(), results, sender }
    }

    /// Hands a job to a thread of its backend; `jobs` is how many there may be.
    pub fn submit(&mut self, job: Job, jobs: usize) {
        let lane = self.lanes.entry(job.operation.backend.clone()).or_insert_with(|| {
            let (jobs, queue) = channel();
            LaneThreads { jobs, away: Arc::default(), queue: Arc::new(Mutex::new(queue)), threads: 0, submitted: 0 }
        });
        lane.submitted += 1;
        if lane.threads < jobs.min(lane.submitted) {
            lane.threads += 1;
            let (queue, sender, away) = (lane.queue.clone(), self.sender.clone(), lane.away.clone());
            let (held_back, policy, clock) = (self.held_back.clone(), self.policy, self.clock.clone());
            let layout = self.layout.clone();
            self.scope.spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    // No sender is left: the loop has ended.
                    let Ok(job) = job else { return };
                    let known = away.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let finished = match known {
                        Some(failure) => unsent(&job, failure),
                        None => carry_out(job, &held_back, &policy, &*clock, &layout),
                    };
                    if let Some(failure) = finished.settlement.outage.clone() {
                        *away.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                    }
                    if sender.send(finished).is_err() {
                        return;
                    }
                }
            });
        }
        // The receiver lives as long as the lane, so this cannot fail.
        let _ = lane.jobs.send(job);
    }

    /// Asks a backend whether it is there, without waiting for it.
    pub fn probe(&self, backend: Arc<dyn Backend>) -> Receiver<Checked> {
        let (sender, answer) = channel();
        self.scope.spawn(move || {
            // The loop may have ended meanwhile.
            let _ = sender.send(health::check(&*backend));
        });
        answer
    }

    /// The attempts that ended, waiting for the first one no longer than `patience`.
    pub fn finished(&mut self, patience: Duration) -> Vec<Finished> {
        let mut finished = Vec::new();
        if !patience.is_zero() {
            match self.results.recv_timeout(patience) {
                Ok(first) => finished.push(first),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return finished,
            }
        }
        finished.extend(self.results.try_iter());
        finished
    }

    /// The backend has been found again: its jobs are sent.
    pub fn reopen(&mut self, backend: &BackendName) {
        if let Some(lane) = self.lanes.get(backend) {
            *lane.away.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// From now on, jobs that have not begun come back untouched.
    pub fn hold_back(&self) {
        self.held_back.store(true, Ordering::Relaxed);
    }

    /// Lets the threads end when they have nothing left to do.
    pub fn close(&mut self) {
        self.lanes.clear();
    }
}

/// A job that was claimed ahead, and whose backend turned out to be away before its turn came.
fn unsent(job: &Job, failure: Failure) -> Finished {
    let event = Event::Returned { reason: UNSENT.into(), interrupted: false, failure: Some(failure.clone()) };
    Finished { number: job.operation.number, settlement: Settlement { event: Some(event), outage: Some(failure) } }
}

fn carry_out(job: Job, held_back: &AtomicBool, policy: &RetryPolicy, clock: &dyn Clock, layout: &Layout) -> Finished {
    let Job { operation, backend, attempt } = job;
    let request = request_of(&operation, layout);
    let result = if held_back.load(Ordering::Relaxed) || attempt.is_cancelled() {
        Err(AttemptError::Stopped)
    } else {
        tracing::debug!(number = operation.number, backend = %operation.backend, "calling the backend");
        guarded(&operation.backend, || backend.execute(&request, &attempt))
    };
    let ask = |request: &_| guarded(&operation.backend, || backend.ask(request));
    let settlement = settle(policy, &operation, &request, result, attempt.is_cancelled(), clock, ask);
    Finished { number: operation.number, settlement }
}

/// A backend that panics has given no answer; the loop and the other backends go on.
fn guarded<T>(backend: &BackendName, call: impl FnOnce() -> Result<T, AttemptError>) -> Result<T, AttemptError> {
    // What it was in the middle of is its own; nothing of ours is seen half changed.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let message = format!("backend `{backend}` panicked: a bug in it, see what it wrote to stderr");
        Err(AttemptError::Unanswered(Failure {
            class: FailureClass::Transient,
            error_type: "backend_panicked".into(),
            message,
        }))
    })
}
