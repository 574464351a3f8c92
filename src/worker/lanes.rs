//! The lanes of a drain loop, one per backend. Attempts, queries and probes report here whether
//! they reached their backend; waits end when a backend is reachable again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::Recovery;
use super::executor::Executor;
use super::lane::{Lane, Trip};
use super::record::record;
use super::settle::End;
use super::{Environment, ProcessOptions, Running, Settlement, TRANSITIONS_MAX, Worker};
use crate::backend::RateLimiter;
use crate::health::{self, HealthStatus, HealthStore, ProbeResult};
use crate::operation::retry::RetryPolicy;
use crate::operation::{BackendName, Event, Failure, Operation, State, Status, Time};
use crate::wal::{Order, WalResult};

/// The entries that the loop has written to `health.json`, and the backends that have recovered.
#[derive(Debug, Default)]
struct HealthLog {
    /// When each backend was last recorded, on the monotonic clock, and whether it was reachable.
    last: BTreeMap<BackendName, (Duration, bool)>,
    /// When backends recovered. Waits for retries there that began earlier end.
    recovered: BTreeMap<BackendName, Time>,
}

/// The lanes of all backends that the loop has met.
pub(super) struct Lanes<'a> {
    env: Environment<'a>,
    options: &'a ProcessOptions,
    lanes: BTreeMap<BackendName, Lane>,
    health_log: HealthLog,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(env: Environment<'a>, options: &'a ProcessOptions) -> Lanes<'a> {
        Lanes { env, options, lanes: BTreeMap::new(), health_log: HealthLog::default() }
    }

    /// Returns the lane of a backend, if the loop has met it.
    pub(super) fn get(&self, backend: &BackendName) -> Option<&Lane> {
        self.lanes.get(backend)
    }

    /// Returns the lane of a backend. A new lane continues in the state that earlier runs recorded.
    pub(super) fn open(&mut self, backend: &BackendName) -> &mut Lane {
        if !self.lanes.contains_key(backend) {
            let lane = self.restore(backend);
            self.lanes.insert(backend.clone(), lane);
        }
        self.lanes.entry(backend.clone()).or_insert_with(|| Lane::new(1))
    }

    /// Returns how many operations of a backend may run at the same time.
    pub(super) fn jobs_of(&self, backend: &BackendName) -> usize {
        self.options.jobs.unwrap_or_else(|| self.env.settings.jobs_of(backend))
    }

    fn restore(&mut self, backend: &BackendName) -> Lane {
        let mut lane = Lane::new(self.jobs_of(backend));
        let limit = self.env.settings.bytes_per_second_of(backend);
        lane.rate_limiter =
            limit.map(|limit| Arc::new(RateLimiter::new(limit, self.env.clock.clone())));
        let known = health::known(self.health_store());
        if let Some(health) = known.into_iter().find(|health| health.backend == *backend) {
            if health.failure.is_some() {
                lane.start_open(health.status == HealthStatus::Offline);
            }
            // A time ahead of now was written by a clock that has been set back since.
            if let Some(at) = health.recovered_at().filter(|at| *at <= self.env.clock.now()) {
                self.health_log.recovered.insert(backend.clone(), at);
            }
        }
        lane
    }

    fn health_store(&self) -> HealthStore<'a> {
        HealthStore {
            disk: &**self.env.disk,
            layout: self.env.wal.layout(),
            history_size: self.env.settings.health_history_size,
        }
    }

    /// Records the result of a probe or an attempt, unless the backend is still reachable and was
    /// recorded within `health_check_interval`.
    fn record_health(&mut self, backend: &BackendName, result: ProbeResult) {
        let (now, is_reachable) = (self.env.clock.elapsed(), result.is_ok());
        let interval = self.env.settings.health_check_interval;
        let is_known = |(at, was_reachable): &(Duration, bool)| {
            *was_reachable && is_reachable && now.saturating_sub(*at) < interval
        };
        if !self.health_log.last.get(backend).is_some_and(is_known) {
            self.health_log.last.insert(backend.clone(), (now, is_reachable));
            let checks = [(backend.clone(), result)];
            health::record(self.health_store(), self.env.clock.now(), &checks);
        }
    }

    fn note_recovery(&mut self, backend: &BackendName, recovery: Recovery) {
        if recovery == Recovery::OutageEnded {
            self.health_log.recovered.insert(backend.clone(), self.env.clock.now());
        }
    }

    /// Records whether an attempt that ended reached its backend.
    pub(super) fn record_backend_result(&mut self, running: &Running, settlement: &Settlement) {
        let now = self.env.clock.elapsed();
        let (backend, epoch) = (&running.operation.backend, running.epoch);
        let pause = self.env.settings.processing_interval;
        let Some(lane) = self.lanes.get_mut(backend) else { return };
        if let Some(failure) = &settlement.outage {
            // Of several concurrent attempts only the first failure is recorded.
            if lane.attempt_failed_to_connect(epoch, now, pause) == Trip::Tripped {
                self.record_health(backend, Err(failure.clone()));
            }
            return;
        }
        let has_succeeded = matches!(settlement.end, End::Known(Event::Completed { .. }));
        let success = has_succeeded.then(|| self.env.clock.now());
        let batch_took = now.saturating_sub(running.claimed_at);
        let recovery = lane.attempt_ended(epoch, success, batch_took);
        if has_succeeded {
            self.record_health(backend, Ok(()));
        }
        self.note_recovery(backend, recovery);
    }

    /// Records that a query about an earlier attempt could not reach its backend.
    pub(super) fn record_query_failure(&mut self, backend: &BackendName, failure: Failure) {
        let (now, pause) = (self.env.clock.elapsed(), self.env.settings.processing_interval);
        if self.open(backend).query_failed(now, pause) == Trip::Tripped {
            self.record_health(backend, Err(failure));
        }
    }

    /// Probes a backend whose breaker is open. Returns whether the probe reached it.
    fn probe(&mut self, backend: &BackendName, executor: &Executor<'_, '_>) -> bool {
        let (now, pause) = (self.env.clock.elapsed(), self.env.settings.processing_interval);
        let Some(lane) = self.lanes.get_mut(backend) else { return false };
        let backends = self.env.backends;
        let start = || backends.get(backend).map(|backend| executor.probe(backend.clone()));
        let Some(result) = lane.poll_probe(start) else { return false };
        let is_reachable = result.is_ok();
        if is_reachable {
            let recovery = lane.probe_succeeded();
            self.note_recovery(backend, recovery);
        } else {
            lane.probe_failed(now, pause);
        }
        self.record_health(backend, result);
        is_reachable
    }
}

impl Worker<'_, '_, '_> {
    /// Returns how many operations of a backend may be claimed now.
    pub(super) fn capacity(&mut self, backend: &BackendName, now: Duration) -> usize {
        let lane = self.lanes.open(backend);
        let is_open = lane.is_open();
        if lane.is_pausing(now) || self.in_doubt.is_querying_backend(backend) {
            return 0;
        }
        // A backend that was unreachable is probed before anything is sent, so that an outage
        // leaves no trace in the histories of operations that wait.
        if is_open && self.lanes.probe(backend, &self.executor) {
            self.in_doubt.backend_recovered(backend, now);
        }
        // Unknown outcomes are resolved first: what is sent now could be mistaken for their result.
        if self.in_doubt.blocks(backend) {
            return 0;
        }
        let capacity = self.lanes.open(backend).capacity();
        self.budget
            .left()
            .map_or(capacity, |left| capacity.min(left.saturating_sub(self.picked.order.len())))
    }

    /// Returns the unreachable backends that operations wait for.
    pub(super) fn unreachable(&self) -> Vec<BackendName> {
        let is_open = |backend: &BackendName| self.lanes.get(backend).is_some_and(Lane::is_open);
        let mut unreachable: BTreeSet<BackendName> =
            self.queue.backends().into_iter().filter(is_open).collect();
        unreachable.extend(self.in_doubt.unreachable().cloned());
        unreachable.into_iter().collect()
    }

    /// Ends the waits for retries at backends that have recovered since these waits began, except
    /// those that the backend asked for. Returns whether there were any.
    pub(super) fn end_backoffs(&mut self) -> WalResult<bool> {
        let mut ended_any = false;
        for (backend, at) in std::mem::take(&mut self.lanes.health_log.recovered) {
            let mut events: Vec<(Operation, Event)> = Vec::new();
            let only = self.options.only.as_ref();
            let policy = &self.policy;
            let read = self.log.view.visit(
                Order::OldestFirst,
                |file| {
                    file.counts
                        .keys()
                        .any(|(status, name, _)| *status == Status::Retrying && *name == backend)
                },
                |summary| summary.status == Status::Retrying && summary.backend == backend,
                |operation| {
                    let is_wanted = operation.backend == backend
                        && only.is_none_or(|only| only.contains(operation.number));
                    if is_wanted && waits_for_the_backend_alone(policy, &operation, at) {
                        let reason = format!("backend `{backend}` is reachable again");
                        events.push((operation, Event::BackoffEnded { reason }));
                    }
                    ControlFlow::Continue(())
                },
            );
            if self.log.skip_damaged(read)?.is_none() && self.log.is_stale {
                // The files have changed during the read; the next turn reads the new ones.
                self.lanes.health_log.recovered.insert(backend, at);
                continue;
            }
            ended_any |= !events.is_empty();
            while !events.is_empty() {
                let rest = events.split_off(events.len().min(TRANSITIONS_MAX));
                record(self.env, std::mem::replace(&mut events, rest))?;
            }
        }
        Ok(ended_any)
    }
}

/// Returns whether an operation has waited since before its backend recovered, and for no longer
/// than the retry policy alone would make it wait.
fn waits_for_the_backend_alone(
    policy: &RetryPolicy,
    operation: &Operation,
    recovered_at: Time,
) -> bool {
    let State::Retrying { wait, .. } = &operation.state else { return false };
    let longest =
        i64::try_from(policy.longest_backoff_ms(operation.retry_count)).unwrap_or(i64::MAX);
    wait.since < recovered_at && wait.until.millis_since(wait.since) <= longest
}
