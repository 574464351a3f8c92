//! What a drain loop knows of its backends: whether they are there, and what is due since they came back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::lane::Lane;
use super::{Settlement, TRANSITIONS_MAX, Worker};
use crate::backend::Pace;
use crate::health::{self, BackendHealth, Checked, Records};
use crate::operation::{BackendName, Event, Operation, State, Status, Time};
use crate::wal::{Order, WalResult};

/// When each backend was last written down, on the monotonic clock, and whether it was there.
#[derive(Debug, Default)]
pub(super) struct Noted {
    last: BTreeMap<BackendName, (Duration, bool)>,
    /// Backends that came back, and when: what waits for a next attempt at them since before that is due.
    returned: Vec<(BackendName, Time)>,
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
        let is_known = |(at, said): &(Duration, bool)| *said && is_there && now.saturating_sub(*at) < fresh;
        if !self.noted.last.get(backend).is_some_and(is_known) {
            self.noted.last.insert(backend.clone(), (now, is_there));
            health::note(self.records(), self.tools.clock.now(), &[(backend.clone(), checked)]);
        }
    }

    /// What an attempt that ended says of its backend; none: nothing.
    pub(super) fn signal(settlement: &Settlement) -> Option<Checked> {
        match (&settlement.outage, &settlement.event) {
            (Some(failure), _) => Some(Err(failure.clone())),
            (None, Some(Event::Completed { .. })) => Some(Ok(())),
            (None, _) => None,
        }
    }

    /// How many operations of a backend may be claimed now.
    pub(super) fn room(&mut self, backend: &BackendName, now: Duration) -> usize {
        if !self.lanes.contains_key(backend) {
            let lane = self.open_lane(backend);
            self.lanes.insert(backend.clone(), lane);
        }
        let Some(lane) = self.lanes.get_mut(backend) else { return 0 };
        let mut room = lane.room(now);
        // A backend that was away is asked whether it is back before anything is sent, so that an outage leaves
        // no trace in the histories of those who wait.
        if room > 0 && lane.is_lost() {
            let probe = || self.tools.backends.get(backend).map(|backend| self.executor.probe(backend.clone()));
            let answer = lane.is_back(probe);
            match &answer {
                Some(Ok(())) => {
                    lane.found();
                    self.executor.reopen(backend);
                    self.noted.returned.push((backend.clone(), self.tools.clock.now()));
                }
                Some(Err(_)) => {
                    lane.close(now + self.tools.settings.processing_interval);
                    room = 0;
                }
                None => room = 0,
            }
            if let Some(checked) = answer {
                self.note(backend, checked);
            }
        }
        match self.options.limit {
            Some(limit) => {
                let left = usize::try_from(limit.saturating_sub(self.claimed)).unwrap_or(usize::MAX);
                room.min(left.saturating_sub(self.picked.order.len()))
            }
            None => room,
        }
    }

    /// A lane as earlier runs left it: of a backend that was away, closed until a probe finds it.
    fn open_lane(&mut self, backend: &BackendName) -> Lane {
        let jobs = self.options.jobs.unwrap_or_else(|| self.tools.settings.jobs_of(backend));
        let mut lane = Lane::new(jobs);
        let limit = self.tools.settings.bytes_per_second_of(backend);
        lane.pace = limit.map(|limit| Arc::new(Pace::new(limit, self.tools.clock.clone())));
        let known: Option<BackendHealth> =
            health::known(self.records()).into_iter().find(|health| health.backend == *backend);
        if let Some(health) = known {
            if health.failure.is_some() {
                lane.suspect();
            }
            let returned = health.recovered_at().map(|at| (backend.clone(), at));
            self.noted.returned.extend(returned);
        }
        lane
    }

    /// Backends that are away, and that something waits for.
    pub(super) fn away(&self) -> Vec<BackendName> {
        let is_lost = |backend: &BackendName| self.lanes.get(backend).is_some_and(Lane::is_lost);
        self.queue.backends().into_iter().filter(is_lost).collect()
    }

    /// What waits for its next attempt at backends that have come back since is due at once.
    /// True: there was something.
    pub(super) fn release_waiting(&mut self) -> WalResult<bool> {
        let mut released = false;
        for (backend, at) in std::mem::take(&mut self.noted.returned) {
            let mut events: Vec<(Operation, Event)> = Vec::new();
            let only = self.options.only.as_ref();
            let read = self.view.visit(
                Order::OldestFirst,
                |file| file.counts.keys().any(|(status, name, _)| *status == Status::Retrying && *name == backend),
                |glimpse| glimpse.status == Status::Retrying && glimpse.backend == backend,
                |operation| {
                    let waits = matches!(&operation.state, State::Retrying { wait, .. } if wait.since < at);
                    if waits && operation.backend == backend && only.is_none_or(|only| only.contains(operation.number))
                    {
                        let reason = format!("its backend `{backend}` is back");
                        events.push((operation, Event::Released { reason }));
                    }
                    ControlFlow::Continue(())
                },
            );
            self.tolerate(read)?;
            released |= !events.is_empty();
            while !events.is_empty() {
                let rest = events.split_off(events.len().min(TRANSITIONS_MAX));
                self.record(std::mem::replace(&mut events, rest))?;
            }
        }
        Ok(released)
    }
}
