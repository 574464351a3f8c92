//! The drain loop: claims due operations, has backends execute them, and settles them.
//!
//! One thread reads and writes the log; each backend is called by as many threads as it has jobs. A
//! claim is durable before its backend is called, and an outcome before it is reported; both are
//! written in batches.

mod breaker;
mod budget;
mod dependencies;
mod executor;
mod in_doubt;
mod lane;
mod lanes;
mod log_view;
mod maintenance;
mod options;
pub mod progress;
mod record;
mod schedule;
mod settle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use budget::Budget;
use dependencies::Dependents;
use executor::{Executor, Finished, Job};
use in_doubt::InDoubt;
use lane::Epoch;
use lanes::Lanes;
use log_view::LogView;
use maintenance::Maintenance;
pub use maintenance::{NoPush, PushOptions, is_over, push_to};
pub use options::{NoObserver, Observer, ProcessOptions, ProcessReport, Stop};
use progress::ProgressMeter;
use record::record;
use schedule::Picked;
pub use settle::{
    End, LAST_ERROR, RetryContext, Settlement, cancelled, is_cancelled, request_of, settle,
};

use crate::backend::{Attempt, Backends};
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::Disk;
use crate::operation::retry::RetryPolicy;
use crate::operation::{BackendName, Claim, Event, Number, Operation, Status, Time};
use crate::queue::Queue;
use crate::wal::{FileEntry, HeldLock, NumberSet, View, Wal, WalError, WalResult};

/// The time within which a loop that follows the log sees a new operation.
const POLL: Duration = Duration::from_millis(100);

/// Transitions of one frame, at most.
const TRANSITIONS_MAX: usize = 1000;

/// The interval of [`Observer::tick`].
const TICK: Duration = Duration::from_millis(100);

/// The parts that a drain loop works with.
#[derive(Debug, Clone, Copy)]
pub struct Environment<'a> {
    /// The disk that holds the log.
    pub disk: &'a Arc<dyn Disk>,
    /// Time and randomness.
    pub clock: &'a Arc<dyn Clock>,
    /// The configuration.
    pub settings: &'a Settings,
    /// The backends.
    pub backends: &'a Backends,
    /// The log.
    pub wal: &'a Wal,
}

/// Runs a drain loop until it has nothing left to do, or is asked to stop. The caller holds
/// `process.lock`, so that no other loop runs.
///
/// Fails if the log is damaged, after executing everything that could be read, or cannot be
/// written.
pub fn run(
    env: Environment<'_>,
    options: &ProcessOptions,
    stop: &Stop,
    observer: &mut dyn Observer,
    _lock: HeldLock,
) -> WalResult<ProcessReport> {
    let view = View::open(env.disk.clone(), env.wal.layout().clone())?;
    if let Some(damage) = view.damage() {
        return Err(WalError::Damaged(damage.clone()));
    }
    let policy = env.settings.retry_policy();
    std::thread::scope(|scope| {
        let executor = Executor::new(scope, policy, env.clock.clone(), env.wal.layout().clone());
        let mut worker = Worker {
            env,
            log: LogView::new(view),
            options,
            stop,
            executor,
            queue: Queue::new(),
            files: Vec::new(),
            lanes: Lanes::new(env, options),
            running: BTreeMap::new(),
            picked: Picked::default(),
            alone: None,
            dependents: Dependents::default(),
            in_doubt: InDoubt::default(),
            policy,
            last_wall: env.clock.now(),
            maintenance: Maintenance::new(env.clock.elapsed()),
            meter: ProgressMeter::new(env),
            report: ProcessReport::default(),
            budget: Budget::new(options, env.clock.elapsed()),
        };
        let result = worker.drain(observer);
        if result.is_err() {
            // Running attempts can no longer be settled; the next loop queries their outcomes.
            worker.cancel_running();
        }
        worker.executor.hold_back();
        worker.executor.close();
        result.map(|()| worker.report)
    })
}

struct Worker<'scope, 'env, 'a> {
    env: Environment<'a>,
    log: LogView,
    options: &'a ProcessOptions,
    stop: &'a Stop,
    executor: Executor<'scope, 'env>,
    queue: Queue,
    /// The queue refers to files by their index here.
    files: Vec<FileEntry>,
    lanes: Lanes<'a>,
    running: BTreeMap<Number, Running>,
    picked: Picked,
    /// The operation that runs while nothing else does.
    alone: Option<Number>,
    dependents: Dependents,
    in_doubt: InDoubt,
    policy: RetryPolicy,
    /// Wall time of the last turn.
    last_wall: Time,
    maintenance: Maintenance,
    meter: ProgressMeter<'a>,
    report: ProcessReport,
    budget: Budget,
}

struct Running {
    /// The state after the claim.
    operation: Operation,
    attempt: Arc<Attempt>,
    claimed_at: Duration,
    epoch: Epoch,
}

impl Worker<'_, '_, '_> {
    fn drain(&mut self, observer: &mut dyn Observer) -> WalResult<()> {
        self.query_in_doubt(observer)?;
        self.rebuild()?;
        self.sweep_backends();
        let mut cancel_at = None;
        let mut ticked = Duration::ZERO;
        loop {
            let now = self.env.clock.elapsed();
            let has_ended = self.stop.is_requested() || self.budget.is_spent(now);
            self.wind_down(now, &mut cancel_at);
            let mut freed = self.follow_log(now, has_ended, observer)?;
            let finished = self.wait_for_results(has_ended);
            if !has_ended && self.may_claim()? {
                self.pick()?;
                freed |= self.end_backoffs()?;
            }
            let is_idle = finished.is_empty() && self.picked.order.is_empty() && !freed;
            self.settle_and_claim(finished, observer)?;
            if now.saturating_sub(ticked) >= TICK {
                ticked = now;
                self.report.unreachable = self.unreachable();
                observer.tick(&self.report, self.waiting());
            }
            self.meter.publish(now, &self.running);
            if self.running.is_empty() && is_idle && !self.in_doubt.is_querying() {
                if has_ended || (self.has_nothing_left()? && !self.has_more_to_push()?) {
                    break;
                }
                if self.ends_for_lack_of_space() {
                    self.report.out_of_room = self.maintenance.space.lacking;
                    break;
                }
                self.sleep();
            }
            self.maintain_if_due(now)?;
        }
        self.finish()
    }

    /// Starts nothing more once the loop is asked to stop or out of time; cancels running attempts
    /// once the grace period is over.
    fn wind_down(&mut self, now: Duration, cancel_at: &mut Option<Duration>) {
        let is_stopping = self.stop.is_requested();
        if is_stopping || self.budget.is_out_of_time(now) {
            self.executor.hold_back();
        }
        self.report.stopped = is_stopping;
        if is_stopping || self.budget.is_past_deadline(now) {
            let cancel_at = *cancel_at.get_or_insert(now + self.options.grace);
            if self.stop.is_urgent() || now >= cancel_at {
                self.cancel_running();
            }
        }
    }

    /// Reads what other processes have logged. Returns whether operations that waited for others
    /// were settled or released.
    fn follow_log(
        &mut self,
        now: Duration,
        has_ended: bool,
        observer: &mut dyn Observer,
    ) -> WalResult<bool> {
        if has_ended {
            // Running attempts may still be cancelled.
            if !self.running.is_empty() && !self.stop.is_requested() {
                self.catch_up()?;
            }
            return Ok(false);
        }
        self.catch_up()?;
        if self.in_doubt.is_due(now) {
            self.query_in_doubt(observer)?;
        }
        self.settle_dependents(observer)
    }

    /// Maintains the log a last time and completes the report.
    fn finish(&mut self) -> WalResult<()> {
        self.maintain()?;
        if !self.stop.is_urgent() {
            self.abort_orphans();
        }
        self.meter.withdraw();
        self.report.unreachable = self.unreachable();
        self.report.in_doubt = self.in_doubt.count();
        let is_out_of_time = self.budget.is_out_of_time(self.env.clock.elapsed());
        self.report.out_of_time = is_out_of_time && !self.queue.backends().is_empty();
        self.log.take_damage().map_or(Ok(()), |damage| Err(WalError::Damaged(damage)))
    }

    fn cancel_running(&self) {
        self.running.values().for_each(|running| running.attempt.cancel());
    }

    /// Returns whether a loop with nothing under way may end.
    fn has_nothing_left(&mut self) -> WalResult<bool> {
        let Some(only) = &self.options.only else {
            return Ok(!self.options.follow && self.nothing_due()?);
        };
        if !self.options.follow {
            return self.nothing_due();
        }
        if self.dependents.take_waits_for_outside() {
            return Ok(true);
        }
        for number in only.clone().iter() {
            let operation = self.log.operation(number)?;
            if operation.is_some_and(|operation| !operation.status().is_terminal()) {
                return Ok(false);
            }
        }
        Ok(!self.log.is_stale)
    }

    fn is_in_progress(&self, number: Number) -> bool {
        self.running.contains_key(&number) || self.picked.numbers.contains(&number)
    }

    /// Returns how many waiting operations this loop may execute.
    fn waiting(&self) -> u64 {
        let counts = self.log.view.counts();
        let is_ours = |status: Status, backend| status.is_waiting() && self.wants(backend);
        let all = counts
            .iter()
            .filter(|((status, backend, _), _)| is_ours(*status, backend))
            .map(|(_, n)| n)
            .sum();
        let ended = self.report.completed + self.report.failed + self.report.cancelled;
        let left = |only: &NumberSet| only.len().saturating_sub(ended + self.running.len() as u64);
        self.options.only.as_ref().map_or(all, |only| left(only).min(all))
    }

    fn wants(&self, backend: &BackendName) -> bool {
        self.options.backend.as_ref().is_none_or(|only| only == backend)
            && self.env.backends.get(backend).is_some()
    }

    fn wait_for_results(&mut self, has_ended: bool) -> Vec<Finished> {
        let patience = match self.running.is_empty() && !self.in_doubt.is_querying() {
            true => Duration::ZERO,
            false if has_ended => Duration::from_millis(20),
            // A result ends the wait at once; a new operation is seen after it.
            false => POLL / 2,
        };
        self.executor.finished(patience)
    }

    /// Writes settlements and new claims with one flush, and starts what was claimed.
    fn settle_and_claim(
        &mut self,
        finished: Vec<Finished>,
        observer: &mut dyn Observer,
    ) -> WalResult<()> {
        let picked = std::mem::take(&mut self.picked).order;
        if finished.is_empty() && picked.is_empty() {
            return Ok(());
        }
        let identity = self.env.disk.identity();
        let claim =
            Claim { pid: identity.pid, host: identity.host.clone(), started: self.env.clock.now() };
        let mut events: Vec<(Operation, Event)> = Vec::with_capacity(finished.len() + picked.len());
        events.extend(finished.into_iter().filter_map(|finished| self.settled_by(finished)));
        let claims = picked.into_iter();
        events.extend(claims.map(|operation| (operation, Event::Claimed { claim: claim.clone() })));
        let recorded = record(self.env, events)?;
        for (operation, event) in recorded {
            self.maintenance.orphans_due |= operation.status() == Status::Failed;
            self.report.recovered += u64::from(self.in_doubt.take_recovered(operation.number));
            if operation.status() == Status::Processing {
                self.start(operation, observer);
            } else if !matches!(event, Event::Requeued { interrupted: true, .. }) {
                // An operation that a crash returned to the queue is reported when it ends.
                self.report.count(&operation, &event);
                observer.settled(&operation);
            }
        }
        // It has ended, or another process has changed it before the claim.
        self.alone = self.alone.filter(|number| self.running.contains_key(number));
        Ok(())
    }

    /// Returns the event to be recorded for the end of an attempt or of a query, if there is one.
    fn settled_by(&mut self, finished: Finished) -> Option<(Operation, Event)> {
        let (number, settlement) = match finished {
            Finished::Attempt { number, settlement } => (number, settlement),
            Finished::Query { number, event, outage } => {
                return self.query_answered(number, event, outage);
            }
        };
        let running = self.running.remove(&number)?;
        self.lanes.record_backend_result(&running, &settlement);
        match settlement.end {
            End::Known(event) => Some((running.operation, event)),
            End::Unknown(unknown) => {
                self.mark_in_doubt(&running.operation, unknown, settlement.outage.is_some());
                None
            }
        }
    }

    fn start(&mut self, operation: Operation, observer: &mut dyn Observer) {
        let Some(backend) = self.env.backends.get(&operation.backend).cloned() else { return };
        self.budget.claimed += 1;
        let lane = self.lanes.open(&operation.backend);
        let (limiter, last_success) = (lane.rate_limiter.clone(), lane.last_success());
        let epoch = lane.claimed();
        let attempt = Arc::new(Attempt::rate_limited(limiter));
        observer.started(&operation, &attempt);
        let job = Job {
            operation: operation.clone(),
            backend,
            attempt: attempt.clone(),
            epoch,
            last_success,
        };
        self.executor.submit(job, self.lanes.jobs_of(&operation.backend));
        let claimed_at = self.env.clock.elapsed();
        self.running.insert(operation.number, Running { operation, attempt, claimed_at, epoch });
    }

    /// Writes events in frames of bounded size, and reports those that end operations; a return to
    /// the queue is reported when the operation ends.
    fn record_ends(
        &mut self,
        mut events: Vec<(Operation, Event)>,
        observer: &mut dyn Observer,
    ) -> WalResult<()> {
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(TRANSITIONS_MAX));
            for (operation, event) in record(self.env, std::mem::replace(&mut events, rest))? {
                if operation.status().is_terminal() {
                    self.report.count(&operation, &event);
                    observer.settled(&operation);
                }
            }
        }
        Ok(())
    }

    fn sleep(&self) {
        let now = self.env.clock.now();
        let until_due = self.queue.next_due(now).map_or(POLL, |due| {
            Duration::from_millis(u64::try_from(due.millis_since(now)).unwrap_or(0).max(1))
        });
        self.env.clock.sleep(until_due.min(POLL));
    }
}
