//! What a drain loop knows of its backends: whether they are there, and what is due since they came back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::lane::Lane;
use super::settle::End;
use super::{Running, Settlement, TRANSITIONS_MAX, Worker};
use crate::backend::RateLimiter;
use crate::health::{self, BackendHealth, Checked, HealthStatus, Records};
use crate::operation::retry::RetryPolicy;
use crate::operation::{BackendName, Event, Operation, State, Status, Time};
use crate::wal::{Order, WalResult};

/// When each backend was last written down, on the monotonic clock, and whether it was there.
#[derive(Debug, Default)]
pub(super) struct Noted {
    last: BTreeMap<BackendName, (Duration, bool)>,
    /// Backends that came back, and when: what waits for a next attempt at them since before that is due.
    returned: BTreeMap<BackendName, Time>,
}

impl Worker<'_, '_, '_> {
    fn records(&self) -> Records<'_> {
        Records {
            disk: &**self.tools.disk,
            layout: self.tools.wal.layout(),
            history_size: self.tools.settings.health_history_size,
        }
    }

    /// Writes down what a probe or an attempt says of a backend: if that is news, or it has not been said for a while.
    pub(super) fn note(&mut self, backend: &BackendName, checked: Checked) {
        let (now, is_there) = (self.tools.clock.elapsed(), checked.is_ok());
        let fresh = self.tools.settings.health_check_interval;
        let is_known =
            |(at, said): &(Duration, bool)| *said && is_there && now.saturating_sub(*at) < fresh;
        if !self.noted.last.get(backend).is_some_and(is_known) {
            self.noted.last.insert(backend.clone(), (now, is_there));
            health::note(self.records(), self.tools.clock.now(), &[(backend.clone(), checked)]);
        }
    }

    /// What the end of an attempt says of its backend.
    pub(super) fn learn(&mut self, running: &Running, settlement: &Settlement) {
        let now = self.tools.clock.elapsed();
        let (backend, epoch) = (running.operation.backend.clone(), running.epoch);
        let pause = self.tools.settings.processing_interval;
        let Some(lane) = self.lanes.get_mut(&backend) else { return };
        match &settlement.outage {
            // Of those that were sent at once the first one tells, and the others say no more.
            Some(failure) => {
                if lane.away(epoch, now, pause) {
                    self.note(&backend, Err(failure.clone()));
                }
            }
            None => {
                let has_succeeded = matches!(settlement.end, End::Known(Event::Completed { .. }));
                let success = has_succeeded.then(|| self.tools.clock.now());
                let is_back = lane.settled(epoch, success, now.saturating_sub(running.claimed_at));
                if has_succeeded {
                    self.note(&backend, Ok(()));
                }
                if is_back {
                    self.noted.returned.insert(backend, self.tools.clock.now());
                }
            }
        }
    }

    /// The lane of a backend: as earlier runs left it, if it is new.
    pub(super) fn lane(&mut self, backend: &BackendName) -> &mut Lane {
        if !self.lanes.contains_key(backend) {
            let lane = self.open_lane(backend);
            self.lanes.insert(backend.clone(), lane);
        }
        self.lanes.entry(backend.clone()).or_insert_with(|| Lane::new(1))
    }

    /// How many operations of a backend may be claimed now.
    pub(super) fn room(&mut self, backend: &BackendName, now: Duration) -> usize {
        let lane = self.lane(backend);
        if lane.is_closed(now) {
            return 0;
        }
        let is_lost = lane.is_lost();
        if self.doubts.are_asked_of(backend) {
            return 0;
        }
        // A backend that was away is asked whether it is back before anything is sent, so that an outage leaves
        // no trace in the histories of those who wait.
        if is_lost {
            self.look_for(backend, now);
        }
        // What is in doubt goes first: what is sent now may look like the result of that.
        if self.doubts.go_first_at(backend) {
            return 0;
        }
        let room = self.lane(backend).room(now);
        match self.options.limit {
            Some(limit) => {
                let left =
                    usize::try_from(limit.saturating_sub(self.claimed)).unwrap_or(usize::MAX);
                room.min(left.saturating_sub(self.picked.order.len()))
            }
            None => room,
        }
    }

    /// Probes a backend that was away.
    fn look_for(&mut self, backend: &BackendName, now: Duration) {
        let pause = self.tools.settings.processing_interval;
        let Some(lane) = self.lanes.get_mut(backend) else { return };
        let probe =
            || self.tools.backends.get(backend).map(|backend| self.executor.probe(backend.clone()));
        let Some(checked) = lane.is_back(probe) else { return };
        match &checked {
            Ok(()) => {
                self.doubts.found(backend, now);
                if lane.found() {
                    self.noted.returned.insert(backend.clone(), self.tools.clock.now());
                }
            }
            Err(_) => lane.missed(now, pause),
        }
        self.note(backend, checked);
    }

    fn open_lane(&mut self, backend: &BackendName) -> Lane {
        let jobs = self.options.jobs.unwrap_or_else(|| self.tools.settings.jobs_of(backend));
        let mut lane = Lane::new(jobs);
        let limit = self.tools.settings.bytes_per_second_of(backend);
        lane.pace = limit.map(|limit| Arc::new(RateLimiter::new(limit, self.tools.clock.clone())));
        let known: Option<BackendHealth> =
            health::known(self.records()).into_iter().find(|health| health.backend == *backend);
        if let Some(health) = known {
            if health.failure.is_some() {
                lane.suspect(health.status == HealthStatus::Offline);
            }
            // What lies ahead was written by a clock that has been set back since.
            if let Some(at) = health.recovered_at().filter(|at| *at <= self.tools.clock.now()) {
                self.noted.returned.insert(backend.clone(), at);
            }
        }
        lane
    }

    /// Backends that are away, and that something waits for.
    pub(super) fn away(&self) -> Vec<BackendName> {
        let is_lost = |backend: &BackendName| self.lanes.get(backend).is_some_and(Lane::is_lost);
        let mut away: BTreeSet<BackendName> =
            self.queue.backends().into_iter().filter(is_lost).collect();
        away.extend(self.doubts.unasked().cloned());
        away.into_iter().collect()
    }

    /// What waits for its next attempt at backends that have come back since is due at once, unless the backend asked
    /// for that wait. True: there was something.
    pub(super) fn release_waiting(&mut self) -> WalResult<bool> {
        let mut released = false;
        for (backend, at) in std::mem::take(&mut self.noted.returned) {
            let mut events: Vec<(Operation, Event)> = Vec::new();
            let only = self.options.only.as_ref();
            let policy = &self.policy;
            let read = self.view.visit(
                Order::OldestFirst,
                |file| {
                    file.counts
                        .keys()
                        .any(|(status, name, _)| *status == Status::Retrying && *name == backend)
                },
                |glimpse| glimpse.status == Status::Retrying && glimpse.backend == backend,
                |operation| {
                    let is_wanted = operation.backend == backend
                        && only.is_none_or(|only| only.contains(operation.number));
                    if is_wanted && waits_for_the_backend_alone(policy, &operation, at) {
                        let reason = format!("its backend `{backend}` is back");
                        events.push((operation, Event::BackoffEnded { reason }));
                    }
                    ControlFlow::Continue(())
                },
            );
            if self.tolerate(read)?.is_none() && self.stale {
                // Files have changed meanwhile; the next turn looks at the new ones.
                self.noted.returned.insert(backend, at);
                continue;
            }
            released |= !events.is_empty();
            while !events.is_empty() {
                let rest = events.split_off(events.len().min(TRANSITIONS_MAX));
                self.record(std::mem::replace(&mut events, rest))?;
            }
        }
        Ok(released)
    }
}

/// Whether an operation has waited since before its backend came back, and for no longer than we would have it wait.
fn waits_for_the_backend_alone(policy: &RetryPolicy, operation: &Operation, back_at: Time) -> bool {
    let State::Retrying { wait, .. } = &operation.state else { return false };
    let longest =
        i64::try_from(policy.longest_backoff_ms(operation.retry_count)).unwrap_or(i64::MAX);
    wait.since < back_at && wait.until.millis_since(wait.since) <= longest
}
