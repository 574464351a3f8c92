//! Failpoints around what backends do.

use std::sync::Arc;

use super::{Answer, Attempt, AttemptError, Audit, Backend, Request};
use crate::disk::Failpoints;
use crate::operation::{Failure, Number, OperationId, Outcome};

/// A backend that passes `before:effect` and `after:effect` around every attempt, whatever comes of it.
#[derive(Debug)]
pub struct FailpointBackend {
    backend: Arc<dyn Backend>,
    points: Arc<Failpoints>,
}

impl FailpointBackend {
    /// `backend` with points.
    pub fn new(backend: Arc<dyn Backend>, points: Arc<Failpoints>) -> FailpointBackend {
        FailpointBackend { backend, points }
    }
}

impl Backend for FailpointBackend {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        self.points.pass("before:effect");
        let result = self.backend.execute(request, attempt);
        self.points.pass("after:effect");
        result
    }

    fn ask(&self, request: &Request) -> Result<Answer, AttemptError> {
        self.backend.ask(request)
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<Audit, AttemptError> {
        self.backend.audit(request, outcome, attempt)
    }

    fn still_running(&self, request: &Request) -> Option<String> {
        self.backend.still_running(request)
    }

    fn forget(&self, number: Number) {
        self.backend.forget(number);
    }

    fn leftovers(&self) -> Vec<(Number, OperationId)> {
        self.backend.leftovers()
    }

    fn give_up(&self, number: Number, id: OperationId) -> Result<(), AttemptError> {
        self.backend.give_up(number, id)
    }

    fn health(&self) -> Result<(), Failure> {
        self.backend.health()
    }
}
