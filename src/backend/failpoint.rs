//! Failpoints around what backends do.

use std::sync::Arc;

use super::{Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Request};
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

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError> {
        self.backend.query_attempt(request)
    }

    fn audit(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult, AttemptError> {
        self.backend.audit(request, outcome, attempt)
    }

    fn detached_work(&self, request: &Request) -> Option<String> {
        self.backend.detached_work(request)
    }

    fn release_attempt(&self, number: Number) {
        self.backend.release_attempt(number);
    }

    fn orphans(&self) -> Vec<(Number, OperationId)> {
        self.backend.orphans()
    }

    fn abort_orphan(&self, number: Number, id: OperationId) -> Result<(), AttemptError> {
        self.backend.abort_orphan(number, id)
    }

    fn health(&self) -> Result<(), Failure> {
        self.backend.health()
    }
}
