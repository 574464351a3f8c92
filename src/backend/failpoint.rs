//! Failpoints around the attempts of a backend.

use std::sync::Arc;

use super::{
    Addressing, Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Effect, OperationTypes,
    ParameterError, Request,
};
use crate::disk::Failpoints;
use crate::operation::{Failure, Fields, Number, OperationId, OperationType, Outcome};

/// A backend that passes the points `before:effect` and `after:effect` around every attempt,
/// whatever its result.
#[derive(Debug)]
pub struct FailpointBackend {
    backend: Arc<dyn Backend>,
    points: Arc<Failpoints>,
}

impl FailpointBackend {
    /// Returns `backend` with failpoints around its attempts.
    pub fn new(backend: Arc<dyn Backend>, points: Arc<Failpoints>) -> FailpointBackend {
        FailpointBackend { backend, points }
    }
}

impl Backend for FailpointBackend {
    fn operation_types(&self) -> OperationTypes<'_> {
        self.backend.operation_types()
    }

    fn check(
        &self,
        operation_type: &OperationType,
        parameters: &Fields,
    ) -> Result<(), ParameterError> {
        self.backend.check(operation_type, parameters)
    }

    fn addressing(&self) -> Addressing {
        self.backend.addressing()
    }

    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        self.points.pass("before:effect");
        let result = self.backend.execute(request, attempt);
        self.points.pass("after:effect");
        result
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError> {
        self.backend.query_attempt(request)
    }

    fn is_auditable(&self, operation_type: &OperationType) -> bool {
        self.backend.is_auditable(operation_type)
    }

    fn effects(&self, request: &Request, outcome: &Outcome) -> Vec<Effect> {
        self.backend.effects(request, outcome)
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

    fn sweep(&self, is_needed: &dyn Fn(Number) -> bool) -> Result<(), AttemptError> {
        self.backend.sweep(is_needed)
    }

    fn health(&self) -> Result<(), Failure> {
        self.backend.health()
    }
}
