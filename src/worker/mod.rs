//! The drain loop: claim, execute, settle; the one place where log and backends meet.
//!
//! One thread reads and writes the log; as many threads as a lane has jobs call its backend. A claim is
//! durable before its backend is called, an outcome before it is reported; both are written in batches.

mod dependencies;
mod executor;
mod health;
mod lane;
mod options;
pub mod progress;
mod recover;
mod settle;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dependencies::{Dependents, still_fails};
use executor::{Executor, Finished, Job};
use health::Noted;
use lane::{Epoch, Lane, Picked};
pub use options::{Observer, ProcessOptions, ProcessReport, Silent, Stop};
use progress::Meter;
use recover::Doubts;
use settle::honour_cancel;
pub use settle::{End, LAST_ERROR, Settlement, Terms, cancelled, is_cancelled, request_of, settle};
use upkeep::Room;
pub use upkeep::{NoPush, PushOptions, is_over, push_to};

use crate::backend::{Attempt, Backends};
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::Disk;
use crate::operation::retry::RetryPolicy;
use crate::operation::{
    BackendName, Claim, Event, Number, Operation, Status, Time, Transition, apply, failure,
};
use crate::queue::{Entry, Next, Queue, Unloaded};
use crate::wal::manifest::NumberSet;
use crate::wal::{
    CatchUp, Change, Damage, HeldLock, Known, View, Wal, WalError, WalResult, Written,
};

/// How soon a loop that follows sees a new operation.
const POLL: Duration = Duration::from_millis(100);

/// Transitions of one frame, at most.
const TRANSITIONS_MAX: usize = 1000;

/// How often an observer is told that the loop is alive.
const TICK: Duration = Duration::from_millis(100);

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
    let policy = tools.settings.retry_policy();
    std::thread::scope(|scope| {
        let executor =
            Executor::new(scope, policy, tools.clock.clone(), tools.wal.layout().clone());
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
            picked: Picked::default(),
            dependents: Dependents::default(),
            waits_outside: false,
            stale: false,
            pushed: false,
            damage: None,
            doubts: Doubts::default(),
            policy,
            last_wall: tools.clock.now(),
            alone: None,
            room: Room::default(),
            leftovers_due: true,
            leftovers_at: Duration::ZERO,
            noted: Noted::default(),
            meter: Meter::new(),
            report: ProcessReport::default(),
            claimed: 0,
            started: tools.clock.elapsed(),
        };
        let result = worker.drain(observer);
        if result.is_err() {
            // What runs can no longer be settled; the next loop asks about it.
            worker.running.values().for_each(|running| running.attempt.cancel());
        }
        worker.executor.hold_back();
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
    /// Chosen to be claimed next; neither running nor in the queue.
    picked: Picked,
    /// Who waits for which operation.
    dependents: Dependents,
    /// Whether something waits for an operation that this loop is not to carry out: whoever asked for it to
    /// follow has to say anew what it may.
    waits_outside: bool,
    /// Whether the queue has to be filled anew, because files changed under it.
    stale: bool,
    /// Whether a cleanup has logged pushes of archives.
    pushed: bool,
    /// What cannot be read; everything else is carried out before that is told.
    damage: Option<Damage>,
    doubts: Doubts,
    policy: RetryPolicy,
    /// Wall time of the last turn.
    last_wall: Time,
    /// The operation that runs with nothing else running.
    alone: Option<Number>,
    room: Room,
    /// Whether something has ended without success, and may have left something at its backend.
    leftovers_due: bool,
    leftovers_at: Duration,
    noted: Noted,
    meter: Meter,
    report: ProcessReport,
    claimed: u64,
    started: Duration,
}

struct Running {
    /// As it is since the claim.
    operation: Operation,
    attempt: Arc<Attempt>,
    claimed_at: Duration,
    epoch: Epoch,
}

impl Worker<'_, '_, '_> {
    fn drain(&mut self, observer: &mut dyn Observer) -> WalResult<()> {
        self.ask_about_doubts(observer)?;
        self.rebuild()?;
        self.sweep_backends();
        let mut over_at = None;
        let mut maintained = self.tools.clock.elapsed();
        let mut ticked = Duration::ZERO;
        loop {
            let now = self.tools.clock.elapsed();
            let ended = self.is_over(now);
            if self.stop.is_requested() || self.is_late(now) {
                self.executor.hold_back();
            }
            self.report.stopped = self.stop.is_requested();
            if self.report.stopped
                || self.options.deadline.is_some_and(|at| now.saturating_sub(self.started) >= at)
            {
                let deadline = *over_at.get_or_insert(now + self.options.grace);
                if self.stop.is_urgent() || now >= deadline {
                    self.running.values().for_each(|running| running.attempt.cancel());
                }
            }
            let mut freed = false;
            if !ended {
                self.catch_up()?;
                if self.doubts.are_due(now) {
                    self.ask_about_doubts(observer)?;
                }
                freed = self.settle_dependents(observer)?;
            } else if !self.running.is_empty() && !self.stop.is_requested() {
                // What runs may still be cancelled.
                self.catch_up()?;
            }
            let finished = self.wait_for_results(ended);
            if !ended && self.may_claim()? {
                self.pick()?;
                freed |= self.release_waiting()?;
            }
            let idle = finished.is_empty() && self.picked.order.is_empty() && !freed;
            self.write(finished, observer)?;
            if now.saturating_sub(ticked) >= TICK {
                ticked = now;
                self.report.away = self.away();
                observer.tick(&self.report, self.waiting());
            }
            self.tell_progress(now);
            if self.running.is_empty() && idle && !self.doubts.are_asked() {
                if ended || (self.has_nothing_left()? && !self.has_more_to_push()?) {
                    break;
                }
                if self.ends_for_room() {
                    self.report.out_of_room = self.room.lacking;
                    break;
                }
                self.sleep();
            }
            // Not at every turn: folding is cheaper for many transitions at once.
            if now.saturating_sub(maintained) > Duration::from_millis(200) {
                maintained = now;
                self.maintain()?;
                if self.leftovers_due
                    || now.saturating_sub(self.leftovers_at) >= upkeep::LEFTOVERS_AGAIN
                {
                    self.give_up_leftovers();
                }
            }
        }
        self.maintain()?;
        if !self.stop.is_urgent() {
            self.give_up_leftovers();
        }
        self.forget_progress();
        self.report.away = self.away();
        self.report.in_doubt = self.doubts.count();
        self.report.out_of_time =
            self.is_late(self.tools.clock.elapsed()) && !self.queue.backends().is_empty();
        match self.damage.take() {
            Some(damage) => Err(WalError::Damaged(damage)),
            None => Ok(()),
        }
    }

    /// Whether a loop may end that has nothing under way.
    fn has_nothing_left(&mut self) -> WalResult<bool> {
        let Some(only) = &self.options.only else {
            return Ok(!self.options.follow && self.nothing_due()?);
        };
        if !self.options.follow {
            return self.nothing_due();
        }
        if std::mem::take(&mut self.waits_outside) {
            return Ok(true);
        }
        for number in only.clone().iter() {
            let operation = self.operation(number)?;
            if operation.is_some_and(|operation| !operation.status().is_terminal()) {
                return Ok(false);
            }
        }
        Ok(!self.stale)
    }

    /// What was read; none if a file is damaged (then everything else goes on) or has vanished (then the
    /// queue is filled anew).
    fn tolerate<T>(&mut self, read: WalResult<T>) -> WalResult<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_vanished() => {
                self.view.reload()?;
                self.stale = true;
                Ok(None)
            }
            Err(WalError::Damaged(damage)) => {
                self.damage.get_or_insert(damage);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn operation(&mut self, number: Number) -> WalResult<Option<Operation>> {
        let read = self.view.operation(number);
        Ok(self.tolerate(read)?.flatten())
    }

    fn is_taken(&self, number: Number) -> bool {
        self.running.contains_key(&number) || self.picked.numbers.contains(&number)
    }

    /// Whether the time for beginning anything is up.
    fn is_late(&self, now: Duration) -> bool {
        let ends = [self.options.max_time, self.options.deadline];
        ends.into_iter().flatten().min().is_some_and(|end| now.saturating_sub(self.started) >= end)
    }

    /// Whether nothing new may begin.
    fn is_over(&self, now: Duration) -> bool {
        self.stop.is_requested()
            || self.options.limit.is_some_and(|limit| self.claimed >= limit)
            || self.is_late(now)
    }

    /// Operations that this loop may carry out, and that wait.
    fn waiting(&self) -> u64 {
        let counts = self.view.counts();
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
            && self.tools.backends.get(backend).is_some()
    }

    fn catch_up(&mut self) -> WalResult<()> {
        let now = self.tools.clock.now();
        // A clock that was set back ends waits, also those of files that were not worth loading.
        let set_back = now < self.last_wall;
        self.last_wall = now;
        if self.view.catch_up()? == CatchUp::Reloaded || self.stale || set_back {
            return self.rebuild();
        }
        for number in self.view.take_changed() {
            let Some(glimpse) = self.view.summary(number) else { continue };
            if glimpse.status.is_terminal() {
                self.dependents.ended(glimpse.id);
            }
            // Of our own claims there is nothing to learn.
            if self
                .running
                .get(&number)
                .is_some_and(|running| running.operation.revision != glimpse.revision)
            {
                self.mind_cancel(number)?;
            }
            if glimpse.status.is_waiting() && self.wants(&glimpse.backend) && !self.is_taken(number)
            {
                self.offer(number, now)?;
            } else {
                self.queue.remove(number, &glimpse.backend);
            }
        }
        Ok(())
    }

    fn offer(&mut self, number: Number, now: Time) -> WalResult<()> {
        if self.options.only.as_ref().is_some_and(|only| !only.contains(number))
            || self.is_taken(number)
        {
            return Ok(());
        }
        let Some(operation) = self.operation(number)? else { return Ok(()) };
        self.queue.remove(number, &operation.backend);
        match Entry::of(&operation) {
            Some(entry) => self.queue.insert(entry, now),
            None => self.dependents.add(&operation),
        }
        Ok(())
    }

    /// Stops an attempt that somebody asked an end of.
    fn mind_cancel(&mut self, number: Number) -> WalResult<()> {
        let is_cancelled =
            self.operation(number)?.is_some_and(|operation| is_cancelled(&operation));
        if let Some(running) = self.running.get(&number).filter(|_| is_cancelled) {
            running.attempt.cancel();
        }
        Ok(())
    }

    /// Fills the queue anew: what the journal holds, and which files hold more.
    fn rebuild(&mut self) -> WalResult<()> {
        if let Some(damage) = self.view.damage() {
            return Err(WalError::Damaged(damage.clone()));
        }
        self.stale = false;
        self.queue = Queue::new();
        self.dependents = Dependents::default();
        self.view.take_changed();
        for number in self.running.keys().copied().collect::<Vec<_>>() {
            self.mind_cancel(number)?;
        }
        self.files =
            self.view.manifest().map(|manifest| manifest.files.clone()).unwrap_or_default();
        let now = self.tools.clock.now();
        for (at, file) in self.files.iter().enumerate() {
            if let Some(only) = &self.options.only
                && !only.intersects(file.numbers.0, file.numbers.1)
            {
                continue;
            }
            let waiting = file
                .counts
                .keys()
                .filter(|(status, _, _)| status.is_waiting())
                .map(|(_, name, _)| name);
            let backends: BTreeSet<&BackendName> =
                waiting.filter(|backend| self.wants(backend)).collect();
            for backend in backends {
                let pending = file
                    .counts
                    .iter()
                    .filter(|((status, name, _), _)| *status == Status::Pending && name == backend)
                    .map(|(_, n)| n)
                    .sum();
                let (first, priority) = (file.numbers.0, file.priority.unwrap_or(0));
                // Further away than any wait: the clock was ahead when it was written, so it may be over.
                let due = file
                    .due
                    .map(|due| if due.millis_since(now) > self.longest_wait() { now } else { due });
                self.queue.announce(backend, Unloaded { file: at, first, priority, pending, due });
            }
        }
        let waiting: Vec<Number> = self
            .view
            .touched()
            .filter(|glimpse| glimpse.status.is_waiting() && self.wants(&glimpse.backend))
            .map(|glimpse| glimpse.number)
            .collect();
        waiting.into_iter().try_for_each(|number| self.offer(number, now))?;
        self.load_dependents()
    }

    /// Milliseconds of the longest wait between two attempts.
    fn longest_wait(&self) -> i64 {
        i64::try_from(self.policy.backoff_max_ms()).unwrap_or(i64::MAX)
    }

    fn load_file(&mut self, at: usize) -> WalResult<()> {
        self.queue.mark_loaded(at);
        let read = self.view.untouched_rows(&self.files[at]);
        let Some(rows) = self.tolerate(read)? else { return Ok(()) };
        let now = self.tools.clock.now();
        for row in rows {
            let wanted = self.wants(&row.backend)
                && self.options.only.as_ref().is_none_or(|only| only.contains(row.number))
                && !self.is_taken(row.number);
            if let Some(entry) = Entry::of(&row).filter(|_| wanted) {
                self.queue.insert(entry, now);
            }
        }
        Ok(())
    }

    /// Chooses the operations to claim next, as they are now.
    fn pick(&mut self) -> WalResult<()> {
        let (wall, now) = (self.tools.clock.now(), self.tools.clock.elapsed());
        for backend in self.queue.backends() {
            let mut room = self.room(&backend, now);
            while room > 0 && !self.stale && self.alone.is_none() {
                let (number, alone) = match self.queue.next(&backend, wall) {
                    Next::Take(number) => (number, false),
                    Next::TakeAlone(number) => (number, true),
                    Next::Load(file) => {
                        self.load_file(file)?;
                        continue;
                    }
                    Next::Nothing => break,
                };
                let operation = self.operation(number)?.filter(|operation| operation.is_due(wall));
                let Some(operation) = operation.filter(|_| !self.is_taken(number)) else {
                    continue;
                };
                // It goes when nothing else runs; until then it is put back.
                if alone && !(self.running.is_empty() && self.picked.order.is_empty()) {
                    if let Some(entry) = Entry::of(&operation) {
                        self.queue.insert(entry, wall);
                    }
                    break;
                }
                self.alone = alone.then_some(number);
                self.picked.numbers.insert(number);
                self.picked.order.push(operation);
                room -= 1;
            }
        }
        Ok(())
    }

    /// Whether, of what may be carried out, nothing is due now.
    fn nothing_due(&mut self) -> WalResult<bool> {
        if self.stale {
            return Ok(false);
        }
        let (wall, now) = (self.tools.clock.now(), self.tools.clock.elapsed());
        for backend in self.queue.backends() {
            let lane = self.lanes.get(&backend);
            if lane.is_some_and(|lane| lane.is_closed(now)) {
                continue;
            }
            if lane.is_some_and(Lane::is_being_probed) {
                return Ok(false);
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
                if self.stale {
                    return Ok(false);
                }
            }
        }
        Ok(!self.stale)
    }

    fn wait_for_results(&mut self, ended: bool) -> Vec<Finished> {
        let patience = match self.running.is_empty() && !self.doubts.are_asked() {
            true => Duration::ZERO,
            false if ended => Duration::from_millis(20),
            // A result ends the pause at once; a new operation waits for its end.
            false => POLL / 2,
        };
        self.executor.finished(patience)
    }

    /// Settlements and new claims, with one flush for all of them.
    fn write(&mut self, finished: Vec<Finished>, observer: &mut dyn Observer) -> WalResult<()> {
        let picked = std::mem::take(&mut self.picked).order;
        if finished.is_empty() && picked.is_empty() {
            return Ok(());
        }
        let identity = self.tools.disk.identity();
        let claim = Claim {
            pid: identity.pid,
            host: identity.host.clone(),
            started: self.tools.clock.now(),
        };
        let mut events: Vec<(Operation, Event)> = Vec::with_capacity(finished.len() + picked.len());
        for done in finished {
            match done {
                Finished::Attempt { number, settlement } => {
                    let Some(running) = self.running.remove(&number) else { continue };
                    if self.alone == Some(number) {
                        self.alone = None;
                    }
                    self.learn(&running, &settlement);
                    match settlement.end {
                        End::Known(event) => events.push((running.operation, event)),
                        End::Open(unanswered) => {
                            self.doubt(&running.operation, unanswered, settlement.outage.is_some());
                        }
                    }
                }
                Finished::Question { number, event, outage } => {
                    events.extend(self.answered(number, event, outage))
                }
            }
        }
        for operation in picked {
            events.push((operation, Event::Claimed { claim: claim.clone() }));
        }
        let recorded = self.record(events)?;
        if let Some(number) = self.alone
            && !self.running.contains_key(&number)
            && !recorded.iter().any(|(operation, _)| {
                operation.number == number && !operation.status().is_terminal()
            })
        {
            self.alone = None;
        }
        for (operation, event) in recorded {
            self.leftovers_due |= operation.status() == Status::Failed;
            self.report.recovered += u64::from(self.doubts.is_recovered(operation.number));
            if operation.status() == Status::Processing {
                self.start(operation, observer);
            } else if !matches!(event, Event::Requeued { interrupted: true, .. }) {
                // What only goes back after a crash is told when it is done.
                self.count(&operation, &event);
                observer.settled(&operation);
            }
        }
        Ok(())
    }

    /// Writes events, with one flush for all, and returns what they made of their operations. What somebody
    /// else changed meanwhile is left out: that stands. Only notes on what we carry out do not stand in our way.
    fn record(&self, events: Vec<(Operation, Event)>) -> WalResult<Vec<(Operation, Event)>> {
        let (written, mut newer) = self.tools.wal.transact_finishing(|view| {
            let mut changes = Vec::with_capacity(events.len());
            let mut newer: BTreeMap<Number, Operation> = BTreeMap::new();
            for (operation, event) in &events {
                let standing = view.revision_and_status(operation.number, operation.id)?;
                let stands = standing == Some((operation.revision, operation.status()));
                if stands && !still_fails(view, operation, event)? {
                    continue;
                }
                if stands {
                    changes.push(Change::Next(
                        Known::from(operation),
                        honour_cancel(operation, event.clone()),
                    ));
                    continue;
                }
                let Some(now) = view.operation(operation.number)? else { continue };
                if now.id == operation.id
                    && now.claim().is_some()
                    && now.claim() == operation.claim()
                {
                    changes
                        .push(Change::Next(Known::from(&now), honour_cancel(&now, event.clone())));
                    newer.insert(now.number, now);
                }
            }
            Ok((changes, newer))
        })?;
        let written: BTreeMap<Number, Written> =
            written.into_iter().map(|written| (written.number, written)).collect();
        let at = self.tools.clock.now();
        let mut recorded = Vec::with_capacity(events.len());
        for (operation, event) in events {
            let Some(written) = written.get(&operation.number) else {
                tracing::debug!(
                    number = operation.number.get(),
                    "changed by somebody else meanwhile; that stands"
                );
                continue;
            };
            let operation = newer.remove(&operation.number).unwrap_or(operation);
            let event = honour_cancel(&operation, event);
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
            let Some(operation) = apply(Some(operation), &transition)? else { continue };
            tracing::debug!(number = operation.number.get(), status = %operation.status(), "recorded");
            if operation.status() == Status::Completed {
                self.tools.wal.release_spool(&operation);
            }
            let is_known = operation
                .state
                .failure()
                .is_none_or(|failure| failure.error_type != failure::IN_DOUBT);
            if let Some(backend) = self
                .tools
                .backends
                .get(&operation.backend)
                .filter(|_| operation.status() != Status::Processing && is_known)
            {
                backend.release_attempt(operation.number);
            }
            recorded.push((operation, transition.event));
        }
        Ok(recorded)
    }

    fn start(&mut self, operation: Operation, observer: &mut dyn Observer) {
        let Some(backend) = self.tools.backends.get(&operation.backend).cloned() else { return };
        self.claimed += 1;
        let lane = self.lane(&operation.backend);
        let (pace, last_success, epoch) = (lane.pace.clone(), lane.last_success(), lane.claimed());
        let attempt = Arc::new(Attempt::rate_limited(pace));
        observer.started(&operation, &attempt);
        let jobs =
            self.options.jobs.unwrap_or_else(|| self.tools.settings.jobs_of(&operation.backend));
        let job = Job {
            operation: operation.clone(),
            backend,
            attempt: attempt.clone(),
            epoch,
            last_success,
        };
        self.executor.submit(job, jobs);
        let claimed_at = self.tools.clock.elapsed();
        self.running.insert(operation.number, Running { operation, attempt, claimed_at, epoch });
    }

    fn count(&mut self, operation: &Operation, event: &Event) {
        let counter = match (operation.status(), event) {
            (Status::Completed, _) => &mut self.report.completed,
            (Status::Failed, Event::Failed { failure })
                if failure.error_type == failure::CANCELLED =>
            {
                &mut self.report.cancelled
            }
            (Status::Failed, _) => &mut self.report.failed,
            (Status::Retrying, _) => &mut self.report.retrying,
            (_, Event::Requeued { failure: Some(_), .. }) => &mut self.report.postponed,
            _ => &mut self.report.handed_back,
        };
        *counter += 1;
    }

    /// Writes any number of events, and tells of those that end operations; what only goes back to pending is
    /// told when it is done.
    fn record_ends(
        &mut self,
        mut events: Vec<(Operation, Event)>,
        observer: &mut dyn Observer,
    ) -> WalResult<()> {
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(TRANSITIONS_MAX));
            for (operation, event) in self.record(std::mem::replace(&mut events, rest))? {
                if operation.status().is_terminal() {
                    self.count(&operation, &event);
                    observer.settled(&operation);
                }
            }
        }
        Ok(())
    }

    fn sleep(&self) {
        let now = self.tools.clock.now();
        let until_due = self.queue.next_due(now).map_or(POLL, |due| {
            Duration::from_millis(u64::try_from(due.millis_since(now)).unwrap_or(0).max(1))
        });
        self.tools.clock.sleep(until_due.min(POLL));
    }
}
