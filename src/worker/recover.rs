//! Operations that stand claimed although nobody carries them out: left by a dead drain loop, or by an attempt of this
//! one whose backend could not even be asked. Backends are asked before anything is repeated, and before anything else
//! is sent to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use super::executor::Question;
use super::settle::{Unanswered, in_doubt, is_cancelled};
use super::{Observer, Worker};
use crate::operation::{BackendName, Event, Failure, Number, Operation, Status};
use crate::wal::{Order, WalResult};

/// What is in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Operations that are, and their backends.
    open: BTreeMap<Number, BackendName>,
    /// Attempts of this run that ended without an answer.
    unanswered: BTreeMap<Number, Unanswered>,
    /// Asked about just now.
    asked: BTreeMap<Number, Operation>,
    /// Backends that did not answer the last question: they are asked again before anything else is sent to them.
    first: BTreeSet<BackendName>,
    /// When to ask again, on the monotonic clock, if there is any reason to.
    again_at: Option<Duration>,
    /// Left by dead loops, and about to be settled.
    recovered: BTreeSet<Number>,
}

impl Doubts {
    /// Whether questions are under way.
    pub fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether questions to this backend are under way.
    pub fn are_asked_of(&self, backend: &BackendName) -> bool {
        self.asked.values().any(|operation| operation.backend == *backend)
    }

    /// Whether this backend is to be asked before anything else is sent to it.
    pub fn go_first_at(&self, backend: &BackendName) -> bool {
        self.first.contains(backend)
    }

    /// Whether it is time to ask again.
    pub fn are_due(&self, now: Duration) -> bool {
        self.again_at.is_some_and(|at| now >= at)
    }

    /// A backend has been found again: it is asked at once.
    pub fn found(&mut self, backend: &BackendName, now: Duration) {
        if self.first.contains(backend) {
            self.again_at = Some(now);
        }
    }

    /// Operations that are in doubt.
    pub fn count(&self) -> u64 {
        self.open.len() as u64
    }

    /// Backends that cannot be asked.
    pub fn unasked(&self) -> impl Iterator<Item = &BackendName> {
        self.first.iter()
    }

    /// Whether what was just recorded of an operation settles what a dead loop left.
    pub fn is_recovered(&mut self, number: Number) -> bool {
        self.recovered.remove(&number)
    }
}

impl Worker<'_, '_, '_> {
    /// An attempt ended without an answer, and its backend could not be asked: it stays claimed until it can.
    pub(super) fn doubt(
        &mut self,
        operation: &Operation,
        unanswered: Unanswered,
        found_nobody: bool,
    ) {
        self.doubts.unanswered.insert(operation.number, unanswered);
        self.ask_again(operation, found_nobody);
    }

    fn ask_again(&mut self, operation: &Operation, found_nobody: bool) {
        self.doubts.open.insert(operation.number, operation.backend.clone());
        if found_nobody {
            self.doubts.first.insert(operation.backend.clone());
        }
        let later = self.tools.clock.elapsed() + self.tools.settings.processing_interval;
        self.doubts.again_at.get_or_insert(later);
    }

    /// Asks what became of all that stands claimed without being carried out. The view must have caught up.
    pub(super) fn ask_about_doubts(&mut self, observer: &mut dyn Observer) -> WalResult<()> {
        let mut claimed = Vec::new();
        let only = self.options.only.as_ref();
        let read = self.view.visit(
            Order::OldestFirst,
            |file| file.count_of(Status::Processing) > 0,
            |glimpse| glimpse.status == Status::Processing,
            |operation| {
                let number = operation.number;
                let is_open =
                    !self.running.contains_key(&number) && !self.doubts.asked.contains_key(&number);
                let is_wanted = only.is_none_or(|only| only.contains(number));
                if operation.status() == Status::Processing && is_open && is_wanted {
                    claimed.push(operation);
                }
                ControlFlow::Continue(())
            },
        );
        if self.tolerate(read)?.is_none() && self.stale {
            // Files have changed meanwhile; the next turn looks at the new ones.
            self.doubts.again_at = Some(self.tools.clock.elapsed());
            return Ok(());
        }
        self.doubts.again_at = None;
        let mut questions: BTreeMap<BackendName, Vec<Question>> = BTreeMap::new();
        let mut ends = Vec::new();
        self.doubts.open =
            self.doubts.asked.values().map(|asked| (asked.number, asked.backend.clone())).collect();
        for operation in claimed {
            self.doubts.open.insert(operation.number, operation.backend.clone());
            if self.tools.backends.get(&operation.backend).is_some() {
                self.doubts.asked.insert(operation.number, operation.clone());
                let unanswered = self.doubts.unanswered.get(&operation.number).cloned();
                questions
                    .entry(operation.backend.clone())
                    .or_default()
                    .push(Question { operation, unanswered });
            } else if is_cancelled(&operation) {
                let why = format!(
                    "its backend `{}` is not configured, and cannot be asked",
                    operation.backend
                );
                ends.push((operation, Event::Failed { failure: in_doubt(&why) }));
            } else {
                // Somebody may cancel it; that it is configured again is for a later run to see.
                self.ask_again(&operation, false);
            }
        }
        // Somebody else has settled the others.
        self.doubts.first.retain(|backend| self.doubts.open.values().any(|open| open == backend));
        self.doubts.unanswered.retain(|number, _| self.doubts.open.contains_key(number));
        for (name, questions) in questions {
            if let Some(backend) = self.tools.backends.get(&name) {
                self.executor.ask(backend.clone(), questions);
            }
        }
        ends.iter().for_each(|(operation, _)| drop(self.doubts.open.remove(&operation.number)));
        self.record_ends(ends, observer)
    }

    /// What is to be recorded of an operation that its backend was asked about.
    pub(super) fn answered(
        &mut self,
        number: Number,
        event: Option<Event>,
        outage: Option<Failure>,
    ) -> Option<(Operation, Event)> {
        let operation = self.doubts.asked.remove(&number)?;
        let found_nobody = outage.is_some();
        if let Some(failure) = outage {
            let (now, pause) =
                (self.tools.clock.elapsed(), self.tools.settings.processing_interval);
            if self.lane(&operation.backend).unasked(now, pause) {
                self.note(&operation.backend, Err(failure));
            }
        } else {
            self.doubts.first.remove(&operation.backend);
        }
        let Some(event) = event else {
            self.ask_again(&operation, found_nobody);
            return None;
        };
        self.doubts.open.remove(&number);
        if self.doubts.unanswered.remove(&number).is_none() {
            self.doubts.recovered.insert(number);
        }
        Some((operation, event))
    }
}
