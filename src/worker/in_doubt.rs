//! Operations that are claimed but not running: left by a dead drain loop, or by an attempt of this
//! loop whose backend could not be queried. A backend is queried before an operation is repeated,
//! and before anything else is sent to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use super::executor::Query;
use super::settle::{UnknownOutcome, in_doubt, is_cancelled};
use super::{Observer, Worker};
use crate::operation::{BackendName, Event, Failure, Number, Operation, Status};
use crate::wal::{Order, WalResult};

/// Operations whose outcome is unknown.
#[derive(Debug, Default)]
pub(super) struct InDoubt {
    /// All of them, and their backends.
    open: BTreeMap<Number, BackendName>,
    /// Attempts of this run whose answers were lost.
    unknown: BTreeMap<Number, UnknownOutcome>,
    /// Queries under way.
    querying: BTreeMap<Number, Operation>,
    /// Backends that did not answer the last query: they are queried again before anything else is
    /// sent to them.
    blocking: BTreeSet<BackendName>,
    /// When to query again, on the monotonic clock, if there is a reason to.
    next_query: Option<Duration>,
    /// Operations of dead loops that are about to be settled.
    recovered: BTreeSet<Number>,
}

impl InDoubt {
    /// Returns whether queries are under way.
    pub fn is_querying(&self) -> bool {
        !self.querying.is_empty()
    }

    /// Returns whether queries of this backend are under way.
    pub fn is_querying_backend(&self, backend: &BackendName) -> bool {
        self.querying.values().any(|operation| operation.backend == *backend)
    }

    /// Returns whether this backend has to be queried before anything else is sent to it.
    pub fn blocks(&self, backend: &BackendName) -> bool {
        self.blocking.contains(backend)
    }

    /// Returns whether it is time to query again.
    pub fn is_due(&self, now: Duration) -> bool {
        self.next_query.is_some_and(|at| now >= at)
    }

    /// Schedules the queries of a backend that is reachable again.
    pub fn backend_recovered(&mut self, backend: &BackendName, now: Duration) {
        if self.blocking.contains(backend) {
            self.next_query = Some(now);
        }
    }

    /// Returns the number of operations in doubt.
    pub fn count(&self) -> u64 {
        self.open.len() as u64
    }

    /// Returns the backends that cannot be queried.
    pub fn unreachable(&self) -> impl Iterator<Item = &BackendName> {
        self.blocking.iter()
    }

    /// Returns whether the operation was left by a dead loop; true only once.
    pub fn take_recovered(&mut self, number: Number) -> bool {
        self.recovered.remove(&number)
    }
}

impl Worker<'_, '_, '_> {
    /// Records that the answer of an attempt was lost, and that its backend could not be queried.
    /// The operation stays claimed until it can be.
    pub(super) fn mark_in_doubt(
        &mut self,
        operation: &Operation,
        unknown: UnknownOutcome,
        is_unreachable: bool,
    ) {
        self.in_doubt.unknown.insert(operation.number, unknown);
        self.query_later(operation, is_unreachable);
    }

    fn query_later(&mut self, operation: &Operation, is_unreachable: bool) {
        self.in_doubt.open.insert(operation.number, operation.backend.clone());
        if is_unreachable {
            self.in_doubt.blocking.insert(operation.backend.clone());
        }
        let later = self.env.clock.elapsed() + self.env.settings.processing_interval;
        self.in_doubt.next_query.get_or_insert(later);
    }

    /// Queries the outcomes of all claimed operations that nothing executes. The view must be up to
    /// date.
    pub(super) fn query_in_doubt(&mut self, observer: &mut dyn Observer) -> WalResult<()> {
        let mut claimed = Vec::new();
        let only = self.options.only.as_ref();
        let read = self.log.view.visit(
            Order::OldestFirst,
            |file| file.count_of(Status::Processing) > 0,
            |summary| summary.status == Status::Processing,
            |operation| {
                let number = operation.number;
                let is_open = !self.running.contains_key(&number)
                    && !self.in_doubt.querying.contains_key(&number);
                let is_wanted = only.is_none_or(|only| only.contains(number));
                if operation.status() == Status::Processing && is_open && is_wanted {
                    claimed.push(operation);
                }
                ControlFlow::Continue(())
            },
        );
        if self.log.skip_damaged(read)?.is_none() && self.log.is_stale {
            // The files have changed during the read; the next turn reads the new ones.
            self.in_doubt.next_query = Some(self.env.clock.elapsed());
            return Ok(());
        }
        self.in_doubt.next_query = None;
        let mut queries: BTreeMap<BackendName, Vec<Query>> = BTreeMap::new();
        let mut ends = Vec::new();
        self.in_doubt.open = self
            .in_doubt
            .querying
            .values()
            .map(|queried| (queried.number, queried.backend.clone()))
            .collect();
        for operation in claimed {
            self.in_doubt.open.insert(operation.number, operation.backend.clone());
            if self.env.backends.get(&operation.backend).is_some() {
                self.in_doubt.querying.insert(operation.number, operation.clone());
                let unknown = self.in_doubt.unknown.get(&operation.number).cloned();
                queries
                    .entry(operation.backend.clone())
                    .or_default()
                    .push(Query { operation, unknown });
            } else if is_cancelled(&operation) {
                let why = format!(
                    "its backend `{}` is not configured, and cannot be queried",
                    operation.backend
                );
                ends.push((operation, Event::Failed { failure: in_doubt(&why) }));
            } else {
                // A user may cancel it, or configure the backend again before a later run.
                self.query_later(&operation, false);
            }
        }
        // Other processes have settled the rest.
        self.in_doubt
            .blocking
            .retain(|backend| self.in_doubt.open.values().any(|open| open == backend));
        self.in_doubt.unknown.retain(|number, _| self.in_doubt.open.contains_key(number));
        for (name, queries) in queries {
            if let Some(backend) = self.env.backends.get(&name) {
                self.executor.query(backend.clone(), queries);
            }
        }
        ends.iter().for_each(|(operation, _)| drop(self.in_doubt.open.remove(&operation.number)));
        self.record_ends(ends, observer)
    }

    /// Returns the event to be recorded for an operation that its backend was queried about, if its
    /// outcome is known now.
    pub(super) fn query_answered(
        &mut self,
        number: Number,
        event: Option<Event>,
        outage: Option<Failure>,
    ) -> Option<(Operation, Event)> {
        let operation = self.in_doubt.querying.remove(&number)?;
        let is_unreachable = outage.is_some();
        if let Some(failure) = outage {
            self.lanes.record_query_failure(&operation.backend, failure);
        } else {
            self.in_doubt.blocking.remove(&operation.backend);
        }
        let Some(event) = event else {
            self.query_later(&operation, is_unreachable);
            return None;
        };
        self.in_doubt.open.remove(&number);
        if self.in_doubt.unknown.remove(&number).is_none() {
            self.in_doubt.recovered.insert(number);
        }
        Some((operation, event))
    }
}
