//! Logs a function of the caller's own: its call before it runs, its outcome afterwards.

use super::{Client, ClientError, Reference};
use crate::backend::{AttemptError, AttemptStatus, Request};
use crate::operation::{
    BackendName, Claim, Event, Failure, FailureClass, Fields, Logged, Number, Operation,
    OperationType, Outcome,
};
use crate::wal::{Change, Known};
use crate::worker::{End, RetryContext, request_of, settle};

/// Type of error of an operation whose function returned an error of the caller's own.
const CALLER: &str = "caller";

impl Client {
    /// Logs an operation, runs `function` in this process, and records its outcome.
    ///
    /// The operation is durable before the function runs, and its outcome is durable when this
    /// returns. If the process is killed in between, the log shows it. The function runs once and
    /// is never retried. Drain loops do not run meanwhile, because this holds their lock.
    ///
    /// The returned operation is `Completed` with the outcome, or `Failed`. An error of the
    /// function is recorded with its causes under the type `caller`. If it carries an
    /// [`AttemptError`], that is recorded instead: [`AttemptError::UnknownOutcome`] leaves the
    /// operation failed as
    /// `in_doubt`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use anyhow::Context;
    /// use wal_cli::{BackendName, Client, Fields, OperationType, Outcome, Settings, Status};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let client = Client::builder(Settings::at(directory.path().join("wal"))).build();
    /// let (job, local) = (OperationType::new("thumbnail")?, BackendName::new("local")?);
    /// let operation = client.wrap(&job, &local, Fields::new(), |_request| {
    ///     std::fs::read("/nonexistent/picture.jpg").context("cannot read the picture")?;
    ///     Ok(Outcome::default())
    /// })?;
    /// assert_eq!(operation.status(), Status::Failed);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails only if the log cannot be written, or is in use by a drain loop. Then the function did
    /// not run, or its outcome could not be recorded.
    pub fn wrap(
        &self,
        operation_type: &OperationType,
        backend: &BackendName,
        parameters: Fields,
        function: impl FnOnce(&Request) -> anyhow::Result<Outcome>,
    ) -> Result<Operation, ClientError> {
        if !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        let wal = self.wal()?;
        // A drain loop must not find a pending operation to claim, or the claim of a dead process.
        let _lock = wal.lock_process(self.settings.lock_timeout, None)?;
        let logged = Logged::new(operation_type.clone(), backend.clone(), parameters, 0);
        let (written, ()) = wal.transact(|_| Ok((vec![Change::New(logged.clone())], ())))?;
        let number = written.first().map_or(Number::ZERO, |written| written.number);
        let pending = self.operation(&Reference::Number(number))?;
        let identity = self.disk.identity();
        let claim =
            Claim { pid: identity.pid, host: identity.host.clone(), started: self.clock.now() };
        let claimed = Change::Next(Known::from(&pending), Event::Claimed { claim });
        wal.transact_finishing(|_| Ok((vec![claimed.clone()], ())))?;
        let processing = self.operation(&Reference::Number(number))?;
        let result = function(&request_of(&processing, &self.layout)).map_err(attempt_error);
        let policy = self.settings.retry_policy();
        let context = RetryContext { policy: &policy, clock: &*self.clock, last_success: None };
        let settlement = settle(&context, &processing, result, false, || {
            Ok(AttemptStatus::Unknown("the function did not report whether it took effect".into()))
        });
        if let End::Known(event) = settlement.end {
            let settled = Change::Next(Known::from(&processing), event);
            wal.transact_finishing(|_| Ok((vec![settled.clone()], ())))?;
        }
        self.operation(&Reference::Number(number))
    }
}

/// Returns the [`AttemptError`] that a caller's error carries, or a permanent failure with all
/// its causes.
fn attempt_error(error: anyhow::Error) -> AttemptError {
    error.downcast().unwrap_or_else(|error: anyhow::Error| {
        AttemptError::from(Failure {
            class: FailureClass::Permanent,
            error_type: CALLER.into(),
            message: format!("{error:#}"),
        })
    })
}

#[cfg(test)]
mod tests;
