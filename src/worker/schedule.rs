//! The order of operations: the queue, filled from the journal and, file by file, from partitions.

use std::collections::BTreeSet;

use super::Worker;
use super::lane::Lane;
use super::settle::is_cancelled;
use crate::operation::{BackendName, Number, Operation, Status, Time};
use crate::queue::{Entry, Next, Queue, Unloaded};
use crate::wal::{CatchUp, WalError, WalResult};

/// Operations to be claimed next; neither running nor in the queue.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// In the order in which they start.
    pub(super) order: Vec<Operation>,
    pub(super) numbers: BTreeSet<Number>,
}

impl Worker<'_, '_, '_> {
    pub(super) fn catch_up(&mut self) -> WalResult<()> {
        let now = self.env.clock.now();
        // A clock that was set back ends waits, also in files that are not loaded.
        let set_back = now < self.last_wall;
        self.last_wall = now;
        if self.log.view.catch_up()? == CatchUp::Reloaded || self.log.is_stale || set_back {
            return self.rebuild();
        }
        for number in self.log.view.take_changed() {
            let Some(summary) = self.log.view.summary(number) else { continue };
            if summary.status.is_terminal() {
                self.dependents.ended(summary.id);
            }
            // Claims of this loop need no action.
            if self
                .running
                .get(&number)
                .is_some_and(|running| running.operation.revision != summary.revision)
            {
                self.propagate_cancel(number)?;
            }
            if summary.status.is_waiting()
                && self.wants(&summary.backend)
                && !self.is_in_progress(number)
            {
                self.offer(number, now)?;
            } else {
                self.queue.remove(number, &summary.backend);
            }
        }
        Ok(())
    }

    fn offer(&mut self, number: Number, now: Time) -> WalResult<()> {
        if self.options.only.as_ref().is_some_and(|only| !only.contains(number))
            || self.is_in_progress(number)
        {
            return Ok(());
        }
        let Some(operation) = self.log.operation(number)? else { return Ok(()) };
        self.queue.remove(number, &operation.backend);
        match Entry::of(&operation) {
            Some(entry) => self.queue.insert(entry, now),
            None => self.dependents.add(&operation),
        }
        Ok(())
    }

    /// Cancels the attempt at an operation that a user has cancelled.
    fn propagate_cancel(&mut self, number: Number) -> WalResult<()> {
        let is_cancelled =
            self.log.operation(number)?.is_some_and(|operation| is_cancelled(&operation));
        if let Some(running) = self.running.get(&number).filter(|_| is_cancelled) {
            running.attempt.cancel();
        }
        Ok(())
    }

    /// Refills the queue from the journal, and announces the files that hold more.
    pub(super) fn rebuild(&mut self) -> WalResult<()> {
        if let Some(damage) = self.log.view.damage() {
            return Err(WalError::Damaged(damage.clone()));
        }
        self.log.is_stale = false;
        self.queue = Queue::new();
        self.dependents.clear();
        self.log.view.take_changed();
        for number in self.running.keys().copied().collect::<Vec<_>>() {
            self.propagate_cancel(number)?;
        }
        self.files =
            self.log.view.manifest().map(|manifest| manifest.files.clone()).unwrap_or_default();
        let now = self.env.clock.now();
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
                // A time further ahead than any wait was written by a clock that has been set back:
                // the wait may be over.
                let due = file.due.map(|due| {
                    if due.millis_since(now) > self.longest_wait_ms() { now } else { due }
                });
                self.queue.announce(backend, Unloaded { file: at, first, priority, pending, due });
            }
        }
        let waiting: Vec<Number> = self
            .log
            .view
            .touched()
            .filter(|summary| summary.status.is_waiting() && self.wants(&summary.backend))
            .map(|summary| summary.number)
            .collect();
        waiting.into_iter().try_for_each(|number| self.offer(number, now))?;
        self.load_dependents()
    }

    /// Returns the longest wait between two attempts, in milliseconds.
    fn longest_wait_ms(&self) -> i64 {
        i64::try_from(self.policy.backoff_max_ms()).unwrap_or(i64::MAX)
    }

    fn load_file(&mut self, at: usize) -> WalResult<()> {
        self.queue.mark_loaded(at);
        let read = self.log.view.untouched_rows(&self.files[at]);
        let Some(rows) = self.log.skip_damaged(read)? else { return Ok(()) };
        let now = self.env.clock.now();
        for row in rows {
            let wanted = self.wants(&row.backend)
                && self.options.only.as_ref().is_none_or(|only| only.contains(row.number))
                && !self.is_in_progress(row.number);
            if let Some(entry) = Entry::of(&row).filter(|_| wanted) {
                self.queue.insert(entry, now);
            }
        }
        Ok(())
    }

    /// Picks the operations to claim next, in their current revisions.
    pub(super) fn pick(&mut self) -> WalResult<()> {
        let (wall, now) = (self.env.clock.now(), self.env.clock.elapsed());
        for backend in self.queue.backends() {
            let mut capacity = self.capacity(&backend, now);
            while capacity > 0 && !self.log.is_stale && self.alone.is_none() {
                let (number, alone) = match self.queue.next(&backend, wall) {
                    Next::Take(number) => (number, false),
                    Next::TakeAlone(number) => (number, true),
                    Next::Load(file) => {
                        self.load_file(file)?;
                        continue;
                    }
                    Next::Nothing => break,
                };
                let operation =
                    self.log.operation(number)?.filter(|operation| operation.is_due(wall));
                let Some(operation) = operation.filter(|_| !self.is_in_progress(number)) else {
                    continue;
                };
                // It runs when nothing else does; until then it returns to the queue.
                if alone && !(self.running.is_empty() && self.picked.order.is_empty()) {
                    if let Some(entry) = Entry::of(&operation) {
                        self.queue.insert(entry, wall);
                    }
                    break;
                }
                self.alone = alone.then_some(number);
                self.picked.numbers.insert(number);
                self.picked.order.push(operation);
                capacity -= 1;
            }
        }
        Ok(())
    }

    /// Returns whether no operation that this loop may execute is due.
    pub(super) fn nothing_due(&mut self) -> WalResult<bool> {
        if self.log.is_stale {
            return Ok(false);
        }
        let (wall, now) = (self.env.clock.now(), self.env.clock.elapsed());
        for backend in self.queue.backends() {
            let lane = self.lanes.get(&backend);
            if lane.is_some_and(|lane| lane.is_pausing(now)) {
                continue;
            }
            if lane.is_some_and(Lane::is_probing) {
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
                if self.log.is_stale {
                    return Ok(false);
                }
            }
        }
        Ok(!self.log.is_stale)
    }
}
