//! Operations that stand claimed although nobody carries them out: left by a dead drain loop, or by an attempt of this
//! one whose backend could not even be asked. Backends are asked before anything is repeated.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use super::Worker;
use super::executor::Question;
use super::settle::Unanswered;
use crate::operation::{BackendName, Event, Failure, Number, Operation, Status};
use crate::wal::{Order, WalResult};

/// What is in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Attempts of this run that ended without an answer.
    unanswered: BTreeMap<Number, Unanswered>,
    /// Asked about just now.
    asked: BTreeMap<Number, Operation>,
    /// When to ask again, on the monotonic clock, if there is any reason to.
    again_at: Option<Duration>,
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

    /// Whether it is time to ask again.
    pub fn are_due(&self, now: Duration) -> bool {
        self.again_at.is_some_and(|at| now >= at)
    }
}

impl Worker<'_, '_, '_> {
    /// An attempt ended without an answer, and its backend could not be asked: it stays claimed until it can.
    pub(super) fn doubt(&mut self, number: Number, unanswered: Unanswered) {
        self.doubts.unanswered.insert(number, unanswered);
        self.ask_again();
    }

    fn ask_again(&mut self) {
        self.doubts.again_at = Some(self.tools.clock.elapsed() + self.tools.settings.processing_interval);
    }

    /// Asks what became of all that stands claimed without being carried out.
    pub(super) fn ask_about_doubts(&mut self) -> WalResult<()> {
        let mut claimed = Vec::new();
        let only = self.options.only.as_ref();
        let read = self.view.visit(
            Order::OldestFirst,
            |file| file.count_of(Status::Processing) > 0,
            |glimpse| glimpse.status == Status::Processing,
            |operation| {
                let number = operation.number;
                let is_open = !self.running.contains_key(&number) && !self.doubts.asked.contains_key(&number);
                let is_wanted = only.is_none_or(|only| only.contains(number));
                if operation.status() == Status::Processing && is_open && is_wanted {
                    claimed.push(operation);
                }
                ControlFlow::Continue(())
            },
        );
        self.tolerate(read)?;
        self.doubts.again_at = None;
        let mut questions: BTreeMap<BackendName, Vec<Question>> = BTreeMap::new();
        for operation in claimed {
            if self.tools.backends.get(&operation.backend).is_none() {
                // It may be configured by the time of a later run.
                continue;
            }
            self.doubts.asked.insert(operation.number, operation.clone());
            let unanswered = self.doubts.unanswered.get(&operation.number).cloned();
            questions.entry(operation.backend.clone()).or_default().push(Question { operation, unanswered });
        }
        for (name, questions) in questions {
            if let Some(backend) = self.tools.backends.get(&name) {
                self.executor.ask(backend.clone(), questions);
            }
        }
        Ok(())
    }

    /// What is to be recorded of an operation that its backend was asked about.
    pub(super) fn answered(
        &mut self,
        number: Number,
        event: Option<Event>,
        outage: Option<Failure>,
    ) -> Option<(Operation, Event)> {
        let operation = self.doubts.asked.remove(&number)?;
        if let Some(failure) = outage {
            let (now, pause) = (self.tools.clock.elapsed(), self.tools.settings.processing_interval);
            if self.lane(&operation.backend).unasked(now, pause) {
                self.note(&operation.backend, Err(failure));
            }
        }
        let Some(event) = event else {
            self.ask_again();
            return None;
        };
        if self.doubts.unanswered.remove(&number).is_none() {
            self.report.recovered += 1;
        }
        Some((operation, event))
    }
}
