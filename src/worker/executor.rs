//! The threads that call backends. The loop itself never waits for a backend.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use super::lane::Epoch;
use super::settle::{
    End, RetryContext, Settlement, UnknownOutcome, after_crash, outage_of, request_of, settle,
    settle_unknown,
};
use crate::backend::{Attempt, AttemptError, AttemptStatus, Backend};
use crate::clock::Clock;
use crate::health::{self, ProbeResult};
use crate::operation::retry::{NOT_SENT, RetryPolicy};
use crate::operation::{
    BackendName, Event, Failure, FailureClass, Number, Operation, OperationId, Time,
};
use crate::wal::Layout;

/// An operation whose claim is durable.
pub struct Job {
    /// As it is since the claim.
    pub operation: Operation,
    /// Its backend.
    pub backend: Arc<dyn Backend>,
    /// Progress and cancellation, shared with the loop.
    pub attempt: Arc<Attempt>,
    /// The epoch of its claim.
    pub epoch: Epoch,
    /// When another operation last succeeded at the backend.
    pub last_success: Option<Time>,
}

/// A query about the outcome of an attempt.
pub struct Query {
    /// As it is in the log.
    pub operation: Operation,
    /// The attempt, if it was one of this run; otherwise its drain loop died.
    pub unknown: Option<UnknownOutcome>,
}

/// The report of a thread.
pub enum Finished {
    /// An attempt ended.
    Attempt {
        /// The operation's number.
        number: Number,
        /// The settlement of the attempt.
        settlement: Settlement,
    },
    /// A query ended.
    Query {
        /// The operation's number.
        number: Number,
        /// The event to be recorded; `None` if the outcome is still unknown.
        event: Option<Event>,
        /// The failure to reach the backend, if it was unreachable.
        outage: Option<Failure>,
    },
}

/// The threads of all backends, as many for each as it has jobs, started when first needed.
pub struct Executor<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// True if jobs that have not begun return unexecuted.
    held_back: Arc<AtomicBool>,
    policy: RetryPolicy,
    clock: Arc<dyn Clock>,
    /// Locates the spooled content.
    layout: Layout,
    lanes: BTreeMap<BackendName, LaneThreads>,
    results: Receiver<Finished>,
    sender: Sender<Finished>,
}

struct LaneThreads {
    jobs: Sender<Job>,
    /// The last failure to reach the backend, and the epoch of that attempt's claim: jobs claimed
    /// no later return unsent.
    outage: Arc<Mutex<Option<(Epoch, Failure)>>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    threads: usize,
    submitted: usize,
}

impl<'scope, 'env> Executor<'scope, 'env> {
    /// Returns an executor without threads.
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        policy: RetryPolicy,
        clock: Arc<dyn Clock>,
        layout: Layout,
    ) -> Executor<'scope, 'env> {
        let (sender, results) = channel();
        Executor {
            scope,
            held_back: Arc::default(),
            policy,
            clock,
            layout,
            lanes: BTreeMap::new(),
            results,
            sender,
        }
    }

    /// Hands a job to a thread of its backend, which has at most `jobs` of them.
    pub fn submit(&mut self, job: Job, jobs: usize) {
        let lane = self.lanes.entry(job.operation.backend.clone()).or_insert_with(|| {
            let (jobs, queue) = channel();
            LaneThreads {
                jobs,
                outage: Arc::default(),
                queue: Arc::new(Mutex::new(queue)),
                threads: 0,
                submitted: 0,
            }
        });
        lane.submitted += 1;
        if lane.threads < jobs.min(lane.submitted) {
            lane.threads += 1;
            let (queue, sender, outage) =
                (lane.queue.clone(), self.sender.clone(), lane.outage.clone());
            let (held_back, policy, clock) =
                (self.held_back.clone(), self.policy, self.clock.clone());
            let layout = self.layout.clone();
            self.scope.spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    // The loop has ended and dropped the sender.
                    let Ok(job) = job else { return };
                    let (number, epoch) = (job.operation.number, job.epoch);
                    let last_outage = || outage.lock().unwrap_or_else(PoisonError::into_inner);
                    let earlier = last_outage().clone().filter(|(of, _)| epoch <= *of);
                    let settlement = match earlier {
                        Some((_, failure)) => not_sent(failure),
                        None => run_job(job, &held_back, &policy, &*clock, &layout),
                    };
                    if let Some(failure) = &settlement.outage {
                        let mut last = last_outage();
                        // An attempt from before the last outage says nothing about jobs claimed
                        // since.
                        if last.as_ref().is_none_or(|(of, _)| epoch > *of) {
                            *last = Some((epoch, failure.clone()));
                        }
                    }
                    if sender.send(Finished::Attempt { number, settlement }).is_err() {
                        return;
                    }
                }
            });
        }
        // The receiver lives as long as the lane, so this does not fail.
        let _ = lane.jobs.send(job);
    }

    /// Probes a backend on a thread of its own.
    pub fn probe(&self, backend: Arc<dyn Backend>) -> Receiver<ProbeResult> {
        let (sender, answer) = channel();
        self.scope.spawn(move || {
            // The loop may have ended in the meantime.
            let _ = sender.send(health::check(&*backend));
        });
        answer
    }

    /// Queries a backend about attempts, one after the other, until it is found unreachable.
    pub fn query(&self, backend: Arc<dyn Backend>, queries: Vec<Query>) {
        let (sender, held_back, policy) =
            (self.sender.clone(), self.held_back.clone(), self.policy);
        let (clock, layout) = (self.clock.clone(), self.layout.clone());
        self.scope.spawn(move || {
            let mut known_outage: Option<Failure> = None;
            for Query { operation, unknown } in queries {
                let number = operation.number;
                let (event, outage) = if known_outage.is_some() || held_back.load(Ordering::Relaxed)
                {
                    (None, known_outage.clone())
                } else {
                    let request = request_of(&operation, &layout);
                    let status =
                        catch_panic(&operation.backend, || backend.query_attempt(&request));
                    let context =
                        RetryContext { policy: &policy, clock: &*clock, last_success: None };
                    settle_query(&context, &operation, unknown, status)
                };
                known_outage.clone_from(&outage);
                if sender.send(Finished::Query { number, event, outage }).is_err() {
                    return;
                }
            }
        });
    }

    /// Has a backend abort orphans, on a thread of its own; after an error, the rest is left to the
    /// next time.
    pub fn abort_orphans(
        &self,
        name: BackendName,
        backend: Arc<dyn Backend>,
        orphans: Vec<(Number, OperationId)>,
    ) {
        self.scope.spawn(move || {
            for (number, id) in orphans {
                let aborted = catch_panic(&name, || backend.abort_orphan(number, id));
                if let Err(error) = aborted {
                    tracing::warn!(
                        number = number.get(),
                        backend = %name,
                        ?error,
                        "could not abort an orphan; trying again later"
                    );
                    return;
                }
            }
        });
    }

    /// Returns the attempts and queries that have ended. If none has, waits for at most `patience`.
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

    /// From now on, jobs that have not begun return unexecuted.
    pub fn hold_back(&self) {
        self.held_back.store(true, Ordering::Relaxed);
    }

    /// Lets the threads end once they are idle.
    pub fn close(&mut self) {
        self.lanes.clear();
    }
}

/// Returns the settlement of a job that was claimed ahead, and whose backend became unreachable
/// before the job began.
fn not_sent(failure: Failure) -> Settlement {
    let event = Event::Requeued {
        reason: NOT_SENT.into(),
        interrupted: false,
        failure: Some(failure.clone()),
    };
    Settlement { end: End::Known(event), outage: Some(failure) }
}

fn run_job(
    job: Job,
    held_back: &AtomicBool,
    policy: &RetryPolicy,
    clock: &dyn Clock,
    layout: &Layout,
) -> Settlement {
    let Job { operation, backend, attempt, last_success, .. } = job;
    let request = request_of(&operation, layout);
    let result = if held_back.load(Ordering::Relaxed) || attempt.is_cancelled() {
        Err(AttemptError::Stopped)
    } else {
        let number = operation.number.get();
        tracing::debug!(number, backend = %operation.backend, "calling the backend");
        catch_panic(&operation.backend, || backend.execute(&request, &attempt))
    };
    let context = RetryContext { policy, clock, last_success };
    settle(&context, &operation, result, attempt.is_cancelled(), || {
        catch_panic(&operation.backend, || backend.query_attempt(&request))
    })
}

fn settle_query(
    context: &RetryContext<'_>,
    operation: &Operation,
    unknown: Option<UnknownOutcome>,
    status: Result<AttemptStatus, AttemptError>,
) -> (Option<Event>, Option<Failure>) {
    let Some(unknown) = unknown else {
        let outage = outage_of(&status);
        return (after_crash(operation, status), outage);
    };
    let Settlement { end, outage } = settle_unknown(context, operation, unknown, status);
    match end {
        End::Known(event) => (Some(event), outage),
        End::Unknown(_) => (None, outage),
    }
}

/// Turns a panic of a backend into an unknown outcome; the loop and the other backends go on.
pub(super) fn catch_panic<T>(
    backend: &BackendName,
    call: impl FnOnce() -> Result<T, AttemptError>,
) -> Result<T, AttemptError> {
    // The closures share no state of the loop that a panic could leave half changed.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let message =
            format!("backend `{backend}` panicked: this is a bug in the backend, see stderr");
        Err(AttemptError::UnknownOutcome(Failure {
            class: FailureClass::Transient,
            error_type: "backend_panicked".into(),
            message,
        }))
    })
}
