//! The drain loop: claim, execute, settle; the one place where log and backends meet.
//!
//! One thread reads and writes the log; as many threads as a lane has jobs call its backend. A claim is
//! durable before its backend is called, an outcome before it is reported; both are written in batches.

mod executor;
mod lane;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use executor::{Executor, Finished, Job};
use lane::Lane;
pub use settle::{Settlement, after_crash, request_of, settle};

use crate::backend::{Attempt, Backends};
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::Disk;
use crate::operation::retry::RetryPolicy;
use crate::operation::{BackendName, Claim, Event, Number, Operation, Status, Transition, apply};
use crate::queue::{Entry, Next, Queue, Unloaded};
use crate::wal::{Change, HeldLock, Known, Order, View, Wal, WalError, WalResult, Written};

/// How long a second drain loop tries to get the lock of a first one.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);

/// How soon a loop that follows sees a new operation.
const POLL: Duration = Duration::from_millis(100);

/// Transitions of one frame, at most.
const TRANSITIONS_MAX: usize = 1000;

/// How often an observer is told that the loop is alive.
const TICK: Duration = Duration::from_millis(100);

/// What a drain loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Keep draining when nothing is due.
    pub follow: bool,
    /// Only this backend.
    pub backend: Option<BackendName>,
    /// Operations at once on each backend; none: as configured.
    pub jobs: Option<usize>,
    /// Carry out at most this many.
    pub limit: Option<u64>,
    /// Begin nothing new after this time.
    pub max_time: Option<Duration>,
    /// Only these operations.
    pub only: Option<BTreeSet<Number>>,
    /// How long to try for the lock.
    pub lock_timeout: Duration,
    /// How long running attempts may go on after a request to stop.
    pub grace: Duration,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        ProcessOptions {
            follow: false,
            backend: None,
            jobs: None,
            limit: None,
            max_time: None,
            only: None,
            lock_timeout: LOCK_TIMEOUT,
            grace: Duration::from_secs(10),
        }
    }
}

/// A request to stop; may be made from a signal handler or another thread.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requests: Arc<AtomicU8>,
}

impl Stop {
    /// A stop that nobody has requested.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Requests it: the first time gently, from the second time on at once.
    pub fn request(&self) {
        // Two are as good as many.
        let _ = self.requests.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n.saturating_add(1)));
    }

    /// Whether it was requested.
    pub fn is_requested(&self) -> bool {
        self.requests.load(Ordering::SeqCst) > 0
    }

    /// Whether it was requested twice.
    pub fn is_urgent(&self) -> bool {
        self.requests.load(Ordering::SeqCst) > 1
    }
}

/// What a drain loop did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessReport {
    /// Completed.
    pub completed: u64,
    /// Ended without success.
    pub failed: u64,
    /// To be tried again later.
    pub retrying: u64,
    /// Given back because the backend was away.
    pub postponed: u64,
    /// Given back because of a request to stop.
    pub handed_back: u64,
    /// Found claimed by a dead drain loop.
    pub recovered: u64,
    /// Whether a request to stop ended it.
    pub stopped: bool,
}

/// Who is told what a drain loop does.
pub trait Observer {
    /// An attempt begins.
    fn started(&mut self, _operation: &Operation, _attempt: &Arc<Attempt>) {}
    /// An attempt ended, and that is durable.
    fn settled(&mut self, _operation: &Operation) {}
    /// The loop is alive; `waiting` operations are pending or retrying.
    fn tick(&mut self, _report: &ProcessReport, _waiting: u64) {}
}

/// An observer that looks away.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// What a drain loop works with.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// The disk that the log is on.
    pub disk: &'a Arc<dyn Disk>,
    /// Time and chance.
    pub clock: &'a Arc<dyn Clock>,
    /// The settings.
    pub settings: &'a Settings,
    /// The backends.
    pub backends: &'a Backends,
    /// The log.
    pub wal: &'a Wal,
}

/// Runs a drain loop; holding its lock is the permission to do so.
pub fn run(
    tools: Tools<'_>,
    options: &ProcessOptions,
    stop: &Stop,
    observer: &mut dyn Observer,
    _lock: HeldLock,
) -> WalResult<ProcessReport> {
    let view = View::open(tools.disk.clone(), tools.wal.layout().clone())?;
    if let Some(damage) = view.damage() {
        return Err(WalError::Damaged(damage.clone()));
    }
    let policy = RetryPolicy {
        delay_ms: tools.settings.retry_delay.as_millis() as u64,
        retry_after_max_ms: tools.settings.retry_after_max.as_millis() as u64,
    };
    std::thread::scope(|scope| {
        let executor = Executor::new(scope, stop.clone(), policy, tools.clock.clone());
        let mut worker = Worker {
            tools,
            view,
            options,
            stop,
            executor,
            queue: Queue::new(),
            files: Vec::new(),
            lanes: BTreeMap::new(),
            running: BTreeMap::new(),
            alone: None,
            report: ProcessReport::default(),
            claimed: 0,
            started: tools.clock.elapsed(),
        };
        let result = worker.drain(observer);
        if result.is_err() {
            // What runs can no longer be settled; the next loop asks about it.
            worker.running.values().for_each(|running| running.attempt.cancel());
        }
        worker.executor.close();
        result.map(|()| worker.report)
    })
}

struct Worker<'scope, 'env, 'a> {
    tools: Tools<'a>,
    view: View,
    options: &'a ProcessOptions,
    stop: &'a Stop,
    executor: Executor<'scope, 'env>,
    queue: Queue,
    /// Files that the queue knows by their place here.
    files: Vec<crate::wal::FileEntry>,
    lanes: BTreeMap<BackendName, Lane>,
    running: BTreeMap<Number, Running>,
    /// The operation that runs with nothing else running.
    alone: Option<Number>,
    report: ProcessReport,
    claimed: u64,
    started: Duration,
}

struct Running {
    /// As it is since the claim.
    operation: Operation,
    attempt: Arc<Attempt>,
    claimed_at: Duration,
}

impl Worker<'_, '_, '_> {
    fn drain(&mut self, observer: &mut dyn Observer) -> WalResult<()> {
        if self.options.only.is_none() {
            self.recover(observer)?;
        }
        self.rebuild()?;
        let mut stop_at = None;
        let mut maintained = self.tools.clock.elapsed();
        let mut ticked = Duration::ZERO;
        loop {
            let now = self.tools.clock.elapsed();
            if self.stop.is_requested() {
                self.report.stopped = true;
                let deadline = *stop_at.get_or_insert(now + self.options.grace);
                if self.stop.is_urgent() || now >= deadline {
                    self.running.values().for_each(|running| running.attempt.cancel());
                }
            }
            let ended = self.is_over(now);
            if !ended {
                self.catch_up()?;
            }
            let finished = self.wait_for_results(ended);
            let picked = if ended { Vec::new() } else { self.pick()? };
            let idle = finished.is_empty() && picked.is_empty();
            self.write(finished, picked, observer)?;
            if now.saturating_sub(ticked) >= TICK {
                ticked = now;
                observer.tick(&self.report, self.waiting());
            }
            if self.running.is_empty() && idle {
                if ended || (!self.options.follow && self.nothing_due()?) {
                    break;
                }
                self.sleep();
            }
            // Not at every turn: folding is cheaper for many transitions at once.
            if now.saturating_sub(maintained) > Duration::from_millis(200) {
                maintained = now;
                self.tools.wal.maintain()?;
                self.cleanup_if_due()?;
            }
        }
        self.tools.wal.maintain()?;
        Ok(())
    }

    /// Whether nothing new may begin.
    fn is_over(&self, now: Duration) -> bool {
        self.stop.is_requested()
            || self.options.limit.is_some_and(|limit| self.claimed >= limit)
            || self.options.max_time.is_some_and(|max| now.saturating_sub(self.started) >= max)
    }

    fn waiting(&self) -> u64 {
        let counts = self.view.counts();
        counts.iter().filter(|((status, _, _), _)| status.is_waiting()).map(|(_, n)| n).sum()
    }

    fn wants(&self, backend: &BackendName) -> bool {
        self.options.backend.as_ref().is_none_or(|only| only == backend) && self.tools.backends.get(backend).is_some()
    }

    fn catch_up(&mut self) -> WalResult<()> {
        if self.view.catch_up()? {
            return self.rebuild();
        }
        let now = self.tools.clock.now();
        for number in self.view.take_changed() {
            let Some(glimpse) = self.view.glimpse(number) else { continue };
            if glimpse.status.is_waiting() && self.wants(&glimpse.backend) && !self.running.contains_key(&number) {
                self.offer(number, now)?;
            } else {
                self.queue.remove(number, &glimpse.backend);
            }
        }
        Ok(())
    }

    fn offer(&mut self, number: Number, now: crate::operation::Time) -> WalResult<()> {
        if self.options.only.as_ref().is_some_and(|only| !only.contains(&number)) {
            return Ok(());
        }
        if let Some(entry) = self.view.operation(number)?.as_ref().and_then(Entry::of) {
            self.queue.offer(entry, now);
        }
        Ok(())
    }

    /// Fills the queue anew: what the journal holds, and which files hold more.
    fn rebuild(&mut self) -> WalResult<()> {
        loop {
            match self.rebuild_once() {
                Err(error) if error.is_vanished() => self.view.reload()?,
                other => return other,
            }
        }
    }

    fn rebuild_once(&mut self) -> WalResult<()> {
        if let Some(damage) = self.view.damage() {
            return Err(WalError::Damaged(damage.clone()));
        }
        self.queue = Queue::new();
        self.view.take_changed();
        self.files = self.view.manifest().map(|manifest| manifest.files.clone()).unwrap_or_default();
        let now = self.tools.clock.now();
        for (at, file) in self.files.iter().enumerate() {
            if let Some(only) = &self.options.only
                && only.range(file.numbers.0..=file.numbers.1).next().is_none()
            {
                continue;
            }
            let waiting = file.counts.keys().filter(|(status, _, _)| status.is_waiting()).map(|(_, name, _)| name);
            let backends: BTreeSet<&BackendName> = waiting.filter(|backend| self.wants(backend)).collect();
            for backend in backends {
                let pending = file
                    .counts
                    .iter()
                    .filter(|((status, name, _), _)| *status == Status::Pending && name == backend)
                    .map(|(_, n)| n)
                    .sum();
                let (first, priority, due) = (file.numbers.0, file.priority.unwrap_or(0), file.due);
                self.queue.announce(backend, Unloaded { file: at, first, priority, pending, due });
            }
        }
        let waiting: Vec<Number> = self
            .view
            .touched()
            .filter(|glimpse| glimpse.status.is_waiting() && self.wants(&glimpse.backend))
            .map(|glimpse| glimpse.number)
            .collect();
        for number in waiting {
            if !self.running.contains_key(&number) {
                self.offer(number, now)?;
            }
        }
        Ok(())
    }

    fn load_file(&mut self, at: usize) -> WalResult<()> {
        self.queue.loaded(at);
        let rows = match self.view.untouched_rows(&self.files[at]) {
            Err(error) if error.is_vanished() => {
                self.view.reload()?;
                return self.rebuild();
            }
            other => other?,
        };
        let now = self.tools.clock.now();
        for row in rows {
            let wanted = self.wants(&row.backend)
                && self.options.only.as_ref().is_none_or(|only| only.contains(&row.number))
                && !self.running.contains_key(&row.number);
            if let Some(entry) = Entry::of(&row).filter(|_| wanted) {
                self.queue.offer(entry, now);
            }
        }
        Ok(())
    }

    /// The operations to claim next, as they are now.
    fn pick(&mut self) -> WalResult<Vec<Operation>> {
        if self.alone.is_some() {
            return Ok(Vec::new());
        }
        let mut picked = Vec::new();
        let (wall, now) = (self.tools.clock.now(), self.tools.clock.elapsed());
        for backend in self.queue.backends() {
            let jobs = self.options.jobs.unwrap_or_else(|| self.tools.settings.jobs_of(&backend));
            let mut room = self.lanes.entry(backend.clone()).or_insert_with(|| Lane::new(jobs)).room(now);
            if let Some(limit) = self.options.limit {
                let left = limit - self.claimed.min(limit);
                room = room.min(usize::try_from(left).unwrap_or(usize::MAX).saturating_sub(picked.len()));
            }
            while room > 0 {
                let (number, alone) = match self.queue.next(&backend, wall) {
                    Next::Take(number) => (number, false),
                    Next::TakeAlone(number) => (number, true),
                    Next::Load(file) => {
                        self.load_file(file)?;
                        continue;
                    }
                    Next::Nothing => break,
                };
                let operation = match self.view.operation(number) {
                    Err(error) if error.is_vanished() => {
                        self.view.reload()?;
                        self.rebuild()?;
                        continue;
                    }
                    other => other?,
                };
                let Some(operation) = operation.filter(|operation| operation.is_due(wall)) else { continue };
                if alone {
                    // It goes when nothing else runs; until then it is put back.
                    if self.running.is_empty() && picked.is_empty() {
                        self.alone = Some(number);
                        return Ok(vec![operation]);
                    }
                    if let Some(entry) = Entry::of(&operation) {
                        self.queue.offer(entry, wall);
                    }
                    break;
                }
                picked.push(operation);
                room -= 1;
            }
        }
        Ok(picked)
    }

    /// Whether, of what may be carried out, nothing is due now.
    fn nothing_due(&mut self) -> WalResult<bool> {
        let (wall, now) = (self.tools.clock.now(), self.tools.clock.elapsed());
        for backend in self.queue.backends() {
            if self.lanes.get(&backend).is_some_and(|lane| lane.is_closed(now)) {
                continue;
            }
            loop {
                match self.queue.next(&backend, wall) {
                    Next::Nothing => break,
                    Next::Load(file) => self.load_file(file)?,
                    Next::Take(number) | Next::TakeAlone(number) => {
                        self.offer(number, wall)?;
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn wait_for_results(&mut self, ended: bool) -> Vec<Finished> {
        // With room for more claims there is other work to do than to wait.
        let busy = !self.running.is_empty();
        let patience = if !busy {
            Duration::ZERO
        } else if ended {
            Duration::from_millis(20)
        } else {
            Duration::from_millis(5)
        };
        self.executor.finished(patience)
    }

    /// Settlements and new claims, with one flush for all of them.
    fn write(&mut self, finished: Vec<Finished>, picked: Vec<Operation>, observer: &mut dyn Observer) -> WalResult<()> {
        if finished.is_empty() && picked.is_empty() {
            return Ok(());
        }
        let identity = self.tools.disk.identity();
        let claim = Claim { pid: identity.pid, host: identity.host.clone(), started: self.tools.clock.now() };
        let mut events: Vec<(Operation, Event)> = Vec::with_capacity(finished.len() + picked.len());
        let now = self.tools.clock.elapsed();
        for done in finished {
            let Some(running) = self.running.remove(&done.number) else { continue };
            if self.alone == Some(done.number) {
                self.alone = None;
            }
            let interval = self.tools.settings.processing_interval;
            if let Some(lane) = self.lanes.get_mut(&running.operation.backend) {
                lane.in_flight = lane.in_flight.saturating_sub(1);
                if done.settlement.outage {
                    lane.close(now + interval);
                } else {
                    lane.settled(now.saturating_sub(running.claimed_at));
                }
            }
            events.push((running.operation, done.settlement.event));
        }
        for operation in picked {
            events.push((operation, Event::Claimed { claim: claim.clone() }));
        }
        for (operation, event) in self.record(events)? {
            if operation.status() == Status::Processing {
                self.start(operation, observer);
            } else {
                self.count(&operation, &event);
                observer.settled(&operation);
            }
        }
        Ok(())
    }

    /// Writes events, with one flush for all, and returns what they made of their operations. What somebody
    /// else changed meanwhile is left out: that stands.
    fn record(&self, events: Vec<(Operation, Event)>) -> WalResult<Vec<(Operation, Event)>> {
        let changes: Vec<Change> =
            events.iter().map(|(operation, event)| Change::Next(Known::from(operation), event.clone())).collect();
        let (written, ()) = self.tools.wal.transact(|view| {
            let mut standing = Vec::with_capacity(changes.len());
            for change in &changes {
                if let Change::Next(known, _) = change
                    && view.standing(known.number, known.id)? == Some((known.revision, known.status))
                {
                    standing.push(change.clone());
                }
            }
            Ok((standing, ()))
        })?;
        let written: BTreeMap<Number, Written> = written.into_iter().map(|written| (written.number, written)).collect();
        let at = self.tools.clock.now();
        let mut recorded = Vec::with_capacity(events.len());
        for (operation, event) in events {
            let Some(written) = written.get(&operation.number) else {
                tracing::debug!(number = operation.number, "changed by somebody else meanwhile; that stands");
                continue;
            };
            let transition = Transition {
                revision: written.revision,
                number: operation.number,
                id: operation.id,
                at,
                from: Some(operation.status()),
                operation_type: operation.operation_type.clone(),
                backend: operation.backend.clone(),
                actor: self.tools.wal.actor().to_owned(),
                event,
            };
            let operation = apply(Some(operation), &transition)?;
            tracing::debug!(number = operation.number, status = %operation.status(), "recorded");
            recorded.push((operation, transition.event));
        }
        Ok(recorded)
    }

    fn start(&mut self, operation: Operation, observer: &mut dyn Observer) {
        let Some(backend) = self.tools.backends.get(&operation.backend).cloned() else { return };
        self.claimed += 1;
        let attempt = Arc::new(Attempt::default());
        observer.started(&operation, &attempt);
        let jobs = self.options.jobs.unwrap_or_else(|| self.tools.settings.jobs_of(&operation.backend));
        self.executor.submit(Job { operation: operation.clone(), backend, attempt: attempt.clone() }, jobs);
        let claimed_at = self.tools.clock.elapsed();
        if let Some(lane) = self.lanes.get_mut(&operation.backend) {
            lane.in_flight += 1;
        }
        self.running.insert(operation.number, Running { operation, attempt, claimed_at });
    }

    fn count(&mut self, operation: &Operation, event: &Event) {
        let counter = match (operation.status(), event) {
            (Status::Completed, _) => &mut self.report.completed,
            (Status::Failed, _) => &mut self.report.failed,
            (Status::Retrying, _) => &mut self.report.retrying,
            (_, Event::Returned { failure: Some(_), .. }) => &mut self.report.postponed,
            _ => &mut self.report.handed_back,
        };
        *counter += 1;
    }

    /// Settles what a dead drain loop left claimed: the backends are asked before anything is repeated.
    fn recover(&mut self, observer: &mut dyn Observer) -> WalResult<()> {
        let mut orphans = Vec::new();
        self.view.visit(
            Order::OldestFirst,
            |file| file.count_of(Status::Processing) > 0,
            |glimpse| glimpse.status == Status::Processing,
            |operation| {
                if operation.status() == Status::Processing {
                    orphans.push(operation);
                }
                ControlFlow::Continue(())
            },
        )?;
        let mut events = Vec::with_capacity(orphans.len());
        for orphan in orphans {
            let answer = self.tools.backends.get(&orphan.backend).map(|backend| backend.ask(&request_of(&orphan)));
            if let Some(event) = after_crash(&orphan, answer) {
                events.push((orphan, event));
            }
        }
        self.report.recovered = events.len() as u64;
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(TRANSITIONS_MAX));
            for (operation, event) in self.record(std::mem::replace(&mut events, rest))? {
                // What only goes back to pending is told when it is done.
                if operation.status().is_terminal() {
                    self.count(&operation, &event);
                    observer.settled(&operation);
                }
            }
        }
        self.view.catch_up()?;
        Ok(())
    }

    fn cleanup_if_due(&self) -> WalResult<()> {
        let Some(manifest) = self.view.manifest() else { return Ok(()) };
        let interval = i64::try_from(self.tools.settings.cleanup_interval.as_millis()).unwrap_or(i64::MAX);
        let last = manifest.last_cleanup.or_else(|| manifest.files.iter().map(|file| file.times.0).min());
        if last.is_some_and(|last| self.tools.clock.now().millis_since(last) >= interval) {
            self.tools.wal.cleanup(u64::from(self.tools.settings.max_age_days), false)?;
        }
        Ok(())
    }

    fn sleep(&self) {
        let now = self.tools.clock.now();
        let until_due = self
            .queue
            .next_due(now)
            .map_or(POLL, |due| Duration::from_millis(u64::try_from(due.millis_since(now)).unwrap_or(0).max(1)));
        self.tools.clock.sleep(until_due.min(POLL));
    }
}
