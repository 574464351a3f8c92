use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use super::lane::Epoch;
use super::settle::{
    End, Settlement, Terms, Unanswered, after_crash, outage_of, request_of, settle,
    settle_unanswered,
};
use crate::backend::{Attempt, AttemptError, AttemptStatus, Backend};
use crate::clock::Clock;
use crate::health::{self, Checked};
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
    /// What the attempt and the loop tell each other.
    pub attempt: Arc<Attempt>,
    /// When it was claimed, in outages of its lane.
    pub epoch: Epoch,
    /// When another operation last succeeded at the backend.
    pub last_success: Option<Time>,
}

/// An operation whose backend is to be asked what became of it.
pub struct Question {
    /// As it is in the log.
    pub operation: Operation,
    /// What is known of the attempt, if it was one of this run's; else its drain loop died.
    pub unanswered: Option<Unanswered>,
}

/// What a thread says when it is done.
pub enum Finished {
    /// An attempt ended.
    Attempt {
        /// The operation's number.
        number: Number,
        /// What it leads to.
        settlement: Settlement,
    },
    /// A question has been asked.
    Question {
        /// The operation's number.
        number: Number,
        /// What the answer leads to; none: there was none.
        event: Option<Event>,
        /// If the backend turned out to be away: what was said of that.
        outage: Option<Failure>,
    },
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
    /// What the attempt said that found the backend away, and in which epoch it was claimed: what was claimed no later
    /// goes back unsent.
    away: Arc<Mutex<Option<(Epoch, Failure)>>>,
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

    /// Hands a job to a thread of its backend; `jobs` is how many there may be.
    pub fn submit(&mut self, job: Job, jobs: usize) {
        let lane = self.lanes.entry(job.operation.backend.clone()).or_insert_with(|| {
            let (jobs, queue) = channel();
            LaneThreads {
                jobs,
                away: Arc::default(),
                queue: Arc::new(Mutex::new(queue)),
                threads: 0,
                submitted: 0,
            }
        });
        lane.submitted += 1;
        if lane.threads < jobs.min(lane.submitted) {
            lane.threads += 1;
            let (queue, sender, away) =
                (lane.queue.clone(), self.sender.clone(), lane.away.clone());
            let (held_back, policy, clock) =
                (self.held_back.clone(), self.policy, self.clock.clone());
            let layout = self.layout.clone();
            self.scope.spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    // No sender is left: the loop has ended.
                    let Ok(job) = job else { return };
                    let (number, epoch) = (job.operation.number, job.epoch);
                    let known = || away.lock().unwrap_or_else(PoisonError::into_inner);
                    let earlier = known().clone().filter(|(of, _)| epoch <= *of);
                    let settlement = match earlier {
                        Some((_, failure)) => unsent(failure),
                        None => carry_out(job, &held_back, &policy, &*clock, &layout),
                    };
                    if let Some(failure) = &settlement.outage {
                        let mut known = known();
                        // One that hung since an earlier outage tells nothing of what was sent since.
                        if known.as_ref().is_none_or(|(of, _)| epoch > *of) {
                            *known = Some((epoch, failure.clone()));
                        }
                    }
                    if sender.send(Finished::Attempt { number, settlement }).is_err() {
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

    /// Asks a backend questions, one by one, up to the first one to which nobody answers.
    pub fn ask(&self, backend: Arc<dyn Backend>, questions: Vec<Question>) {
        let (sender, held_back, policy) =
            (self.sender.clone(), self.held_back.clone(), self.policy);
        let (clock, layout) = (self.clock.clone(), self.layout.clone());
        self.scope.spawn(move || {
            let mut away = None;
            for Question { operation, unanswered } in questions {
                let number = operation.number;
                let (event, outage) = if away.is_some() || held_back.load(Ordering::Relaxed) {
                    (None, away.clone())
                } else {
                    let request = request_of(&operation, &layout);
                    let answer = guarded(&operation.backend, || backend.query_attempt(&request));
                    let terms = Terms { policy: &policy, clock: &*clock, last_success: None };
                    settle_question(&terms, &operation, unanswered, answer)
                };
                away = outage.clone();
                if sender.send(Finished::Question { number, event, outage }).is_err() {
                    return;
                }
            }
        });
    }

    /// Has a backend give up what is left at it of operations that are over, without waiting for it. What does not succeed
    /// is left to another time.
    pub fn give_up(
        &self,
        name: BackendName,
        backend: Arc<dyn Backend>,
        over: Vec<(Number, OperationId)>,
    ) {
        self.scope.spawn(move || {
            for (number, id) in over {
                let given_up = guarded(&name, || backend.abort_orphan(number, id));
                if let Err(error) = given_up {
                    tracing::warn!(number = number.get(), backend = %name, ?error, "what is left of it at the backend stays for now");
                    return;
                }
            }
        });
    }

    /// What has ended, waiting for the first end no longer than `patience`.
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

    /// From now on, jobs that have not begun come back untouched.
    pub fn hold_back(&self) {
        self.held_back.store(true, Ordering::Relaxed);
    }

    /// Lets the threads end when they have nothing left to do.
    pub fn close(&mut self) {
        self.lanes.clear();
    }
}

/// What becomes of a job that was claimed ahead, and whose backend turned out to be away before its turn came.
fn unsent(failure: Failure) -> Settlement {
    let event = Event::Requeued {
        reason: NOT_SENT.into(),
        interrupted: false,
        failure: Some(failure.clone()),
    };
    Settlement { end: End::Known(event), outage: Some(failure) }
}

fn carry_out(
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
        tracing::debug!(number = operation.number.get(), backend = %operation.backend, "calling the backend");
        guarded(&operation.backend, || backend.execute(&request, &attempt))
    };
    let terms = Terms { policy, clock, last_success };
    settle(&terms, &operation, result, attempt.is_cancelled(), || {
        guarded(&operation.backend, || backend.query_attempt(&request))
    })
}

fn settle_question(
    terms: &Terms<'_>,
    operation: &Operation,
    unanswered: Option<Unanswered>,
    answer: Result<AttemptStatus, AttemptError>,
) -> (Option<Event>, Option<Failure>) {
    let Some(unanswered) = unanswered else {
        let outage = outage_of(&answer);
        return (after_crash(operation, answer), outage);
    };
    let Settlement { end, outage } = settle_unanswered(terms, operation, unanswered, answer);
    match end {
        End::Known(event) => (Some(event), outage),
        End::Open(_) => (None, outage),
    }
}

/// A backend that panics has given no answer; the loop and the other backends go on.
pub(super) fn guarded<T>(
    backend: &BackendName,
    call: impl FnOnce() -> Result<T, AttemptError>,
) -> Result<T, AttemptError> {
    // What it was in the middle of is its own; nothing of ours is seen half changed.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let message =
            format!("backend `{backend}` panicked: a bug in it, see what it wrote to stderr");
        Err(AttemptError::UnknownOutcome(Failure {
            class: FailureClass::Transient,
            error_type: "backend_panicked".into(),
            message,
        }))
    })
}
