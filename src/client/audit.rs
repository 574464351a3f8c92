//! Audits: ask the backends whether the effects of completed operations still exist unaltered.

mod conflicts;
mod finding;
mod query;
mod reopen;
mod touches;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Client, ClientError, Stop};
use crate::backend::{AuditResult, Effect};
use crate::operation::{
    BackendName, Failure, Number, Operation, Outcome, Revision, State, Status, Time,
};
use crate::wal::{DependencyState, FileEntry, OperationSummary, Order, View, WalError};
use crate::worker::request_of;
pub use finding::{AuditFinding, FollowUp};
use finding::{completed_in, live_successor};
use query::{AuditedBackend, Verdict};
use touches::{Loss, TouchIndex};

/// Operations that are read and held in memory at a time.
const BATCH: usize = 500;

/// Predecessors that are followed, at most, so that a damaged log cannot cause an endless loop.
const PREDECESSORS_MAX: u32 = 100;

/// Statuses of operations that may have touched their targets.
const BEGUN: [Status; 2] = [Status::Processing, Status::Retrying];

/// The scope of an audit, and whether lost effects are restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditOptions {
    /// Only operations completed at this time or later.
    pub since: Option<Time>,
    /// Only operations of this backend.
    pub backend: Option<BackendName>,
    /// Log missing and altered ones again, as new operations.
    pub reopen: bool,
}

impl AuditOptions {
    /// Restricts the audit to operations completed at this time or later.
    #[must_use]
    pub fn with_since(mut self, since: Option<Time>) -> AuditOptions {
        self.since = since;
        self
    }

    /// Restricts the audit to one backend.
    #[must_use]
    pub fn with_backend(mut self, backend: Option<BackendName>) -> AuditOptions {
        self.backend = backend;
        self
    }

    /// Sets whether operations with missing and altered effects are logged again.
    #[must_use]
    pub fn with_reopen(mut self, reopen: bool) -> AuditOptions {
        self.reopen = reopen;
        self
    }

    fn includes(&self, backend: &BackendName) -> bool {
        self.backend.as_ref().is_none_or(|only| only == backend)
    }

    fn includes_operation(&self, operation: &Operation) -> bool {
        let State::Completed { at, .. } = &operation.state else { return false };
        self.includes(&operation.backend) && self.since.is_none_or(|since| *at >= since)
    }

    fn may_include(&self, summary: &OperationSummary) -> bool {
        summary.status == Status::Completed && self.includes(&summary.backend)
    }

    fn may_include_from(&self, file: &FileEntry) -> bool {
        let is_recent = |day: Time| self.since.is_none_or(|since| day.day() >= since.day());
        file.day.is_none_or(is_recent)
            && file
                .counts
                .keys()
                .any(|(status, backend, _)| *status == Status::Completed && self.includes(backend))
    }
}

/// The result of an audit.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct AuditReport {
    /// Operations whose effect was checked: intact, missing and altered ones.
    pub checked: u64,
    /// Operations whose effect is intact.
    pub intact: u64,
    /// Operations whose effect no longer exists.
    pub missing: Vec<AuditFinding>,
    /// Operations whose effect has changed.
    pub altered: Vec<AuditFinding>,
    /// Operations whose effect a later operation replaced or removed.
    pub superseded: u64,
    /// Operations that leave nothing to check.
    pub without_effect: u64,
    /// Operations that could not be checked, by backend.
    pub unverified: Vec<Unverified>,
    /// New operations that were logged.
    pub reopened: u64,
    /// A request to stop ended the audit early.
    pub stopped: bool,
    /// The error that ended reopening early, if any.
    pub reopen_error: Option<ClientError>,
}

impl AuditReport {
    /// Returns `true` if every effect was checked and is intact.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.altered.is_empty() && self.unverified.is_empty()
    }

    /// Returns the missing, then the altered ones.
    pub fn findings(&self) -> impl Iterator<Item = &AuditFinding> {
        self.missing.iter().chain(&self.altered)
    }

    fn add_unverified(&mut self, backend: BackendName, failure: Failure) {
        match self.unverified.iter_mut().find(|unverified| unverified.backend == backend) {
            Some(unverified) => unverified.operations += 1,
            None => self.unverified.push(Unverified { backend, operations: 1, failure }),
        }
    }
}

/// The operations of one backend that could not be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unverified {
    /// The backend.
    pub backend: BackendName,
    /// The number of operations.
    pub operations: u64,
    /// The first failure of the backend.
    pub failure: Failure,
}

impl Client {
    /// Asks the backends whether the effects of completed operations still exist unaltered.
    ///
    /// `progress` receives the number of operations done and of all. The log is only written to if
    /// [`AuditOptions::reopen`] is set. A request to stop ends the audit soon; the report then
    /// covers the operations checked until then.
    pub fn audit(
        &self,
        options: &AuditOptions,
        stop: &Stop,
        progress: &dyn Fn(u64, u64),
    ) -> Result<AuditReport, ClientError> {
        if options.reopen && !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        Audit { client: self, options, stop }.run(progress)
    }
}

/// Returns the targets that an operation touches or would touch.
fn effects_of(client: &Client, operation: &Operation, outcome: &Outcome) -> Vec<Effect> {
    client.backends.effects(&request_of(operation, &client.layout), outcome)
}

/// One call of [`Client::audit`].
struct Audit<'a> {
    client: &'a Client,
    options: &'a AuditOptions,
    stop: &'a Stop,
}

impl Audit<'_> {
    fn run(&self, progress: &dyn Fn(u64, u64)) -> Result<AuditReport, ClientError> {
        let (client, stop) = (self.client, self.stop);
        let mut report = AuditReport::default();
        let (touched, newest) = self.touched_since(Revision::ZERO, stop)?;
        let total = client.with_view(|view| Ok(self.completed(view)))?;
        let mut backends: BTreeMap<BackendName, AuditedBackend> = BTreeMap::new();
        let (mut after, mut done) = (Number::ZERO, 0);
        while !stop.is_requested() {
            let batch = self.next_batch(after)?;
            let Some(last) = batch.last() else { break };
            after = last.number;
            let mut asked: BTreeMap<BackendName, Vec<Operation>> = BTreeMap::new();
            for operation in batch {
                if !client.backends.is_auditable(&operation.backend, &operation.operation_type) {
                    report.without_effect += 1;
                } else if self.is_superseded(&operation, &touched)? {
                    report.superseded += 1;
                } else {
                    let of_operation = || AuditedBackend::of(client, &operation);
                    backends.entry(operation.backend.clone()).or_insert_with(of_operation);
                    asked.entry(operation.backend.clone()).or_default().push(operation);
                    continue;
                }
                done += 1;
            }
            query::ask_all(&client.layout, asked, &backends, stop, &mut |operation, verdict| {
                done += u64::from(!matches!(verdict, Verdict::Stopped));
                self.record_verdict(operation, verdict, &touched, &mut report);
                progress(done, total);
            });
            progress(done, total);
        }
        report.stopped = stop.is_requested();
        let newest = self.drop_explained_findings(&mut report, newest)?;
        for finding in report.missing.iter_mut().chain(&mut report.altered) {
            finding.follow_up =
                client.with_view(|view| live_successor(view, finding.redirected_to))?;
        }
        if self.options.reopen && !report.stopped {
            self.reopen_findings(&mut report, newest);
        }
        Ok(report)
    }

    /// Logs the operations of the findings again, except those that have a live successor.
    fn reopen_findings(&self, report: &mut AuditReport, audited_until: Revision) {
        let findings = report.missing.iter_mut().chain(&mut report.altered);
        let open = findings.filter(|finding| finding.follow_up.is_none()).collect();
        report.reopen_error = reopen::reopen(self.client, open, audited_until, self.stop).err();
        let is_new =
            |finding: &&AuditFinding| matches!(finding.follow_up, Some(FollowUp::Reopened { .. }));
        report.reopened = report.findings().filter(is_new).count() as u64;
        report.stopped = self.stop.is_requested();
    }

    /// Returns the next completed operations after a number, as many as fit into memory.
    fn next_batch(&self, after: Number) -> Result<Vec<Operation>, ClientError> {
        self.client.with_view(|view| {
            let mut batch = Vec::new();
            view.visit_between(
                (after.next(), Number::MAX),
                Order::OldestFirst,
                |file| self.options.may_include_from(file),
                |summary| self.options.may_include(summary),
                |operation| {
                    if self.options.includes_operation(&operation) {
                        batch.push(operation);
                    }
                    if batch.len() < BATCH {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                },
            )?;
            Ok(batch)
        })
    }

    /// Returns the approximate number of completed operations.
    fn completed(&self, view: &View) -> u64 {
        let is_included = |status: Status, backend: &BackendName| {
            status == Status::Completed && self.options.includes(backend)
        };
        let counts = view.counts().into_iter();
        counts
            .filter(|((status, backend, _), _)| is_included(*status, backend))
            .map(|(_, n)| n)
            .sum()
    }

    /// Returns the targets that completed operations of later revisions touched, and the latest
    /// revision.
    fn touched_since(
        &self,
        newer_than: Revision,
        stop: &Stop,
    ) -> Result<(TouchIndex, Revision), ClientError> {
        self.client.with_view(|view| {
            // Operations that cannot be read may have replaced the effects of the others.
            if let Some(damage) = view.damage() {
                return Err(WalError::Damaged(damage.clone()));
            }
            let (mut touched, mut newest) = (TouchIndex::default(), newer_than);
            view.visit(
                Order::OldestFirst,
                |file| file.revisions.1 > newer_than && self.options.may_include_from(file),
                |summary| summary.revision > newer_than && self.options.may_include(summary),
                |operation| {
                    if let State::Completed { outcome, .. } = &operation.state
                        && operation.revision > newer_than
                        && self.options.includes_operation(&operation)
                    {
                        newest = newest.max(operation.revision);
                        let effects = effects_of(self.client, &operation, outcome);
                        touched.record(&operation.backend, &effects, completed_in(&operation));
                    }
                    if stop.is_requested() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            )?;
            Ok((touched, newest))
        })
    }

    /// Adds the targets of running and retrying operations, whose effect may exist before they
    /// complete.
    fn add_targets_in_progress(&self, touched: &mut TouchIndex) -> Result<(), ClientError> {
        self.client.with_view(|view| {
            view.visit(
                Order::OldestFirst,
                |file| BEGUN.iter().any(|status| file.count_of(*status) > 0),
                |summary| BEGUN.contains(&summary.status),
                |operation| {
                    let mut effects = effects_of(self.client, &operation, &Outcome::default());
                    match operation.status() {
                        Status::Processing => {}
                        // Its attempt has ended: it may have removed a target, but a target that
                        // it wrote is not missing.
                        Status::Retrying => effects.retain(|effect| !effect.is_write()),
                        _ => effects.clear(),
                    }
                    if self.options.includes(&operation.backend) {
                        touched.record(&operation.backend, &effects, Revision::MAX);
                    }
                    ControlFlow::Continue(())
                },
            )
        })
    }

    fn is_superseded(
        &self,
        operation: &Operation,
        touched: &TouchIndex,
    ) -> Result<bool, ClientError> {
        let State::Completed { outcome, .. } = &operation.state else { return Ok(false) };
        let effects = effects_of(self.client, operation, outcome);
        if touched.was_replaced_after(&operation.backend, &effects, completed_in(operation)) {
            return Ok(true);
        }
        // Its successor is checked instead, regardless of the targets.
        let Some(next) = operation.redirected_to else { return Ok(false) };
        let state = self.client.with_view(|view| view.dependency_state(next))?;
        Ok(matches!(state, DependencyState::Done))
    }

    /// Adds the verdict on an operation to the report.
    fn record_verdict(
        &self,
        operation: Operation,
        verdict: Verdict,
        touched: &TouchIndex,
        report: &mut AuditReport,
    ) {
        let (what, loss) = match verdict {
            Verdict::Stopped => return,
            Verdict::Unverified(failure) => {
                report.add_unverified(operation.backend, failure);
                return;
            }
            Verdict::Audited(AuditResult::NotApplicable) => {
                report.without_effect += 1;
                return;
            }
            Verdict::Audited(AuditResult::Intact) => {
                report.checked += 1;
                report.intact += 1;
                return;
            }
            Verdict::Audited(AuditResult::Missing(what)) => (what, Loss::Missing),
            Verdict::Audited(AuditResult::Altered(what)) => (what, Loss::Altered),
        };
        if let State::Completed { outcome, .. } = &operation.state {
            let effects = effects_of(self.client, &operation, outcome);
            let revision = completed_in(&operation);
            if touched.may_be_lost_after(&operation.backend, &effects, revision, loss) {
                report.superseded += 1;
                return;
            }
        }
        report.checked += 1;
        let finding = AuditFinding {
            completed_in: self.first_completed_in(&operation),
            number: operation.number,
            id: operation.id,
            operation_type: operation.operation_type,
            backend: operation.backend,
            parameters: operation.parameters,
            redirected_to: operation.redirected_to,
            what,
            follow_up: None,
        };
        let findings =
            if loss == Loss::Missing { &mut report.missing } else { &mut report.altered };
        findings.push(finding);
    }

    /// Returns the revision in which the first of a series of reopened operations completed.
    fn first_completed_in(&self, operation: &Operation) -> Revision {
        let (mut first, mut from) = (completed_in(operation), operation.redirected_from);
        for _ in 0..PREDECESSORS_MAX {
            let Some(id) = from else { break };
            // An unreadable or pruned predecessor leaves the revision found so far.
            let found = self.client.with_view(|view| view.operation_by_id(id));
            let Ok(Some(earlier)) = found else { break };
            if earlier.status() == Status::Completed {
                first = completed_in(&earlier);
            }
            from = earlier.redirected_from;
        }
        first
    }

    /// Drops findings explained by operations that ran during the audit. Returns the last revision
    /// considered.
    fn drop_explained_findings(
        &self,
        report: &mut AuditReport,
        newest: Revision,
    ) -> Result<Revision, ClientError> {
        if report.missing.is_empty() && report.altered.is_empty() {
            return Ok(newest);
        }
        let (mut touched, newest) = self.touched_since(newest, &Stop::new())?;
        self.add_targets_in_progress(&mut touched)?;
        for (findings, loss) in
            [(&mut report.missing, Loss::Missing), (&mut report.altered, Loss::Altered)]
        {
            findings.sort_by_key(|finding| finding.number);
            if touched.is_empty() {
                continue;
            }
            let mut kept = Vec::with_capacity(findings.len());
            for finding in std::mem::take(findings) {
                if self.is_explained(&finding, &touched, loss)? {
                    report.superseded += 1;
                    report.checked -= 1;
                } else {
                    kept.push(finding);
                }
            }
            *findings = kept;
        }
        Ok(newest)
    }

    fn is_explained(
        &self,
        finding: &AuditFinding,
        touched: &TouchIndex,
        loss: Loss,
    ) -> Result<bool, ClientError> {
        let now = self.client.with_view(|view| view.operation(finding.number))?;
        let Some(now) = now.filter(|now| now.id == finding.id) else { return Ok(true) };
        let State::Completed { outcome, .. } = &now.state else { return Ok(true) };
        let (effects, revision) = (effects_of(self.client, &now, outcome), completed_in(&now));
        Ok(touched.was_replaced_after(&now.backend, &effects, revision)
            || touched.may_be_lost_after(&now.backend, &effects, revision, loss))
    }
}
