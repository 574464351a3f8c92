//! Audits: asks the backends whether the effects of completed operations still exist unaltered.

mod conflicts;
mod finding;
mod touches;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Client, ClientError, Stop};
use crate::backend::{Attempt, AttemptError, AuditResult, Backend, Effect};
use crate::operation::{
    BackendName, Failure, FailureClass, Number, Operation, Outcome, Revision, State, Status, Time,
};
use crate::wal::{DependencyState, FileEntry, OperationSummary, Order, View, WalError};
use crate::worker::request_of;
pub(super) use conflicts::ReopenConflicts;
pub use finding::{AuditFinding, FollowUp};
pub(super) use finding::{completed_in, live_successor};
use touches::{Loss, TouchIndex};

/// Operations that are read and held in memory at a time.
const BATCH: usize = 500;

/// Consecutive failed questions after which a backend is not asked any more.
const CONSECUTIVE_FAILURES_MAX: u32 = 3;

/// Statuses of operations that may have touched their targets.
const BEGUN: [Status; 2] = [Status::Processing, Status::Retrying];

/// How often a request to stop is checked.
const STOP_POLL: Duration = Duration::from_millis(50);

/// What an audit covers, and what follows.
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

    /// Sets whether missing and altered effects are logged again.
    #[must_use]
    pub fn with_reopen(mut self, reopen: bool) -> AuditOptions {
        self.reopen = reopen;
        self
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
    /// The error that ended reopening early, if one did.
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
}

/// A backend that could not be asked about some operations.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unverified {
    /// The backend.
    pub backend: BackendName,
    /// The number of operations.
    pub operations: u64,
    /// Its first failure.
    pub failure: Failure,
}

/// The answer to one question.
enum Verdict {
    Audit(AuditResult),
    Unverified(Failure),
    Stopped,
}

/// A backend during an audit.
struct BackendState {
    backend: Result<Arc<dyn Backend>, Failure>,
    jobs: usize,
    /// Consecutive questions that failed.
    consecutive_failures: AtomicU32,
    /// The failure after which it is not asked any more.
    unreachable: Mutex<Option<Failure>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Asks the backends whether the effects of completed operations still exist unaltered.
    ///
    /// `progress` receives the number of operations done and of all. The log is only written to if
    /// [`AuditOptions::reopen`] is set. A request to stop ends the audit soon, with what was found so far.
    pub fn audit(
        &self,
        options: &AuditOptions,
        stop: &Stop,
        progress: &dyn Fn(u64, u64),
    ) -> Result<AuditReport, ClientError> {
        if options.reopen && !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        let mut report = AuditReport::default();
        let (superseded, newest) = self.touched_since(options, Revision::ZERO, stop)?;
        let total = self.with_view(|view| Ok(completed(view, options)))?;
        let mut states: BTreeMap<BackendName, BackendState> = BTreeMap::new();
        let (mut after, mut done) = (Number::ZERO, 0);
        while !stop.is_requested() {
            let batch = self.next_batch(options, after)?;
            let Some(last) = batch.last() else { break };
            after = last.number;
            let mut asked: BTreeMap<BackendName, Vec<Operation>> = BTreeMap::new();
            for operation in batch {
                if !self.backends.is_auditable(&operation.backend, &operation.operation_type) {
                    report.without_effect += 1;
                } else if self.is_superseded(&operation, &superseded)? {
                    report.superseded += 1;
                } else {
                    let state = || self.state_of(&operation);
                    states.entry(operation.backend.clone()).or_insert_with(state);
                    asked.entry(operation.backend.clone()).or_default().push(operation);
                    continue;
                }
                done += 1;
            }
            self.verify_all(asked, &states, stop, &mut |operation, verdict| {
                done += u64::from(!matches!(verdict, Verdict::Stopped));
                self.record_verdict(operation, verdict, &superseded, &mut report);
                progress(done, total);
            });
            progress(done, total);
        }
        report.stopped = stop.is_requested();
        let newest = self.drop_explained_findings(&mut report, options, newest)?;
        for finding in report.missing.iter_mut().chain(&mut report.altered) {
            finding.follow_up =
                self.with_view(|view| live_successor(view, finding.redirected_to))?;
        }
        if options.reopen && !report.stopped {
            let findings = report.missing.iter_mut().chain(&mut report.altered);
            let reopened = self.reopen(
                findings.filter(|finding| finding.follow_up.is_none()).collect(),
                newest,
                stop,
            );
            report.reopen_error = reopened.err();
            let is_new = |finding: &&AuditFinding| {
                matches!(finding.follow_up, Some(FollowUp::Reopened { .. }))
            };
            report.reopened = report.findings().filter(is_new).count() as u64;
            report.stopped = stop.is_requested();
        }
        Ok(report)
    }

    fn state_of(&self, operation: &Operation) -> BackendState {
        let Operation { backend: name, operation_type, parameters, .. } = operation;
        let missing = || match self.backends.check(name, operation_type, parameters) {
            Err(refusal) => refusal.to_string(),
            Ok(()) => format!("backend `{name}` cannot be asked"),
        };
        let backend = self.backends.get(name).cloned().ok_or_else(|| Failure {
            class: FailureClass::Permanent,
            error_type: "unknown_backend".into(),
            message: missing(),
        });
        let jobs = self.settings.jobs_of(name).max(1);
        BackendState {
            backend,
            jobs,
            consecutive_failures: AtomicU32::new(0),
            unreachable: Mutex::default(),
        }
    }

    /// Returns the targets that an operation touches or would touch.
    pub(super) fn effects_of(&self, operation: &Operation, outcome: &Outcome) -> Vec<Effect> {
        self.backends.effects(&request_of(operation, &self.layout), outcome)
    }

    /// Returns the next completed operations after a number, as many as fit into memory.
    fn next_batch(
        &self,
        options: &AuditOptions,
        after: Number,
    ) -> Result<Vec<Operation>, ClientError> {
        self.with_view(|view| {
            let mut batch = Vec::new();
            view.visit_between(
                (after.next(), Number::MAX),
                Order::OldestFirst,
                |file| file_counts(file, options),
                |glimpse| glimpse_counts(glimpse, options),
                |operation| {
                    if counts(&operation, options) {
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

    /// Returns what completed operations of later revisions touched, and the latest revision.
    fn touched_since(
        &self,
        options: &AuditOptions,
        newer_than: Revision,
        stop: &Stop,
    ) -> Result<(TouchIndex, Revision), ClientError> {
        self.with_view(|view| {
            // Operations that cannot be read may have replaced the effects of the others.
            if let Some(damage) = view.damage() {
                return Err(WalError::Damaged(damage.clone()));
            }
            let (mut superseded, mut newest) = (TouchIndex::default(), newer_than);
            view.visit(
                Order::OldestFirst,
                |file| file.revisions.1 > newer_than && file_counts(file, options),
                |glimpse| glimpse.revision > newer_than && glimpse_counts(glimpse, options),
                |operation| {
                    if let State::Completed { outcome, .. } = &operation.state
                        && operation.revision > newer_than
                        && counts(&operation, options)
                    {
                        newest = newest.max(operation.revision);
                        let effects = self.effects_of(&operation, outcome);
                        superseded.record(&operation.backend, &effects, completed_in(&operation));
                    }
                    if stop.is_requested() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            )?;
            Ok((superseded, newest))
        })
    }

    /// Adds what running and retrying operations touch: their effect may exist before they complete.
    fn touched_now(
        &self,
        options: &AuditOptions,
        superseded: &mut TouchIndex,
    ) -> Result<(), ClientError> {
        self.with_view(|view| {
            view.visit(
                Order::OldestFirst,
                |file| BEGUN.iter().any(|status| file.count_of(*status) > 0),
                |glimpse| BEGUN.contains(&glimpse.status),
                |operation| {
                    let is_meant = options
                        .backend
                        .as_ref()
                        .is_none_or(|backend| *backend == operation.backend);
                    let mut effects = self.effects_of(&operation, &Outcome::default());
                    match operation.status() {
                        Status::Processing => {}
                        // Its attempt has ended: it may have removed something, but what it put is not missing.
                        Status::Retrying => effects.retain(|effect| !effect.is_write()),
                        _ => effects.clear(),
                    }
                    if is_meant {
                        superseded.record(&operation.backend, &effects, Revision::MAX);
                    }
                    ControlFlow::Continue(())
                },
            )
        })
    }

    fn is_superseded(
        &self,
        operation: &Operation,
        superseded: &TouchIndex,
    ) -> Result<bool, ClientError> {
        let State::Completed { outcome, .. } = &operation.state else { return Ok(false) };
        let effects = self.effects_of(operation, outcome);
        if superseded.was_replaced_after(&operation.backend, &effects, completed_in(operation)) {
            return Ok(true);
        }
        // Its successor is checked instead, whatever that touches.
        let Some(next) = operation.redirected_to else { return Ok(false) };
        Ok(matches!(self.with_view(|view| view.dependency_state(next))?, DependencyState::Done))
    }

    /// Asks about operations, several at a time of each backend.
    fn verify_all(
        &self,
        asked: BTreeMap<BackendName, Vec<Operation>>,
        states: &BTreeMap<BackendName, BackendState>,
        stop: &Stop,
        record: &mut dyn FnMut(Operation, Verdict),
    ) {
        let stopped = AtomicBool::new(false);
        let running: Mutex<BTreeMap<Number, Arc<Attempt>>> = Mutex::default();
        std::thread::scope(|scope| {
            let (sender, answers) = mpsc::channel();
            for (name, operations) in asked {
                let Some(state) = states.get(&name) else { continue };
                let jobs = state.jobs.min(operations.len());
                let queue = Arc::new(Mutex::new(operations.into_iter()));
                for _ in 0..jobs {
                    let (sender, queue, stopped, running) =
                        (sender.clone(), queue.clone(), &stopped, &running);
                    scope.spawn(move || {
                        loop {
                            let next = lock(&queue).next();
                            let Some(operation) = next else { return };
                            let answer = match stopped.load(Ordering::SeqCst) {
                                true => Verdict::Stopped,
                                false => self.verify_one(state, &operation, stopped, running),
                            };
                            // The receiver outlives the threads.
                            let _ = sender.send((operation, answer));
                        }
                    });
                }
            }
            drop(sender);
            loop {
                match answers.recv_timeout(STOP_POLL) {
                    Ok((operation, answer)) => record(operation, answer),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if stop.is_requested() && !stopped.swap(true, Ordering::SeqCst) {
                    lock(&running).values().for_each(|attempt| attempt.cancel());
                }
            }
        });
    }

    fn verify_one(
        &self,
        state: &BackendState,
        operation: &Operation,
        stopped: &AtomicBool,
        running: &Mutex<BTreeMap<Number, Arc<Attempt>>>,
    ) -> Verdict {
        let backend = match &state.backend {
            Ok(backend) => backend,
            Err(failure) => return Verdict::Unverified(failure.clone()),
        };
        if let Some(failure) = &*lock(&state.unreachable) {
            return Verdict::Unverified(failure.clone());
        }
        let State::Completed { outcome, .. } = &operation.state else {
            return Verdict::Audit(AuditResult::NotApplicable);
        };
        let attempt = Arc::new(Attempt::default());
        lock(running).insert(operation.number, attempt.clone());
        // A stop that came before the insertion has not cancelled this one.
        if stopped.load(Ordering::SeqCst) {
            attempt.cancel();
        }
        let answer = backend.audit(&request_of(operation, &self.layout), outcome, &attempt);
        lock(running).remove(&operation.number);
        match answer {
            Ok(audit) => {
                state.consecutive_failures.store(0, Ordering::SeqCst);
                Verdict::Audit(audit)
            }
            Err(AttemptError::Stopped) => Verdict::Stopped,
            Err(_) if stopped.load(Ordering::SeqCst) => Verdict::Stopped,
            Err(AttemptError::Failed { failure, .. } | AttemptError::UnknownOutcome(failure)) => {
                // A permanent failure is about the operation, not about the backend.
                let consecutive_failures = match failure.class {
                    FailureClass::Permanent => 0,
                    FailureClass::Transient => {
                        state.consecutive_failures.fetch_add(1, Ordering::SeqCst) + 1
                    }
                    FailureClass::Outage => CONSECUTIVE_FAILURES_MAX,
                };
                if consecutive_failures >= CONSECUTIVE_FAILURES_MAX {
                    lock(&state.unreachable).get_or_insert_with(|| failure.clone());
                }
                Verdict::Unverified(failure)
            }
        }
    }

    /// Counts the verdict on an operation in the report.
    fn record_verdict(
        &self,
        operation: Operation,
        verdict: Verdict,
        superseded: &TouchIndex,
        report: &mut AuditReport,
    ) {
        let (what, loss) = match verdict {
            Verdict::Stopped => return,
            Verdict::Unverified(failure) => {
                match report
                    .unverified
                    .iter_mut()
                    .find(|unverified| unverified.backend == operation.backend)
                {
                    Some(unverified) => unverified.operations += 1,
                    None => report.unverified.push(Unverified {
                        backend: operation.backend,
                        operations: 1,
                        failure,
                    }),
                }
                return;
            }
            Verdict::Audit(AuditResult::NotApplicable) => {
                report.without_effect += 1;
                return;
            }
            Verdict::Audit(AuditResult::Intact) => {
                report.checked += 1;
                report.intact += 1;
                return;
            }
            Verdict::Audit(AuditResult::Missing(what)) => (what, Loss::Missing),
            Verdict::Audit(AuditResult::Altered(what)) => (what, Loss::Altered),
        };
        if let State::Completed { outcome, .. } = &operation.state {
            let effects = self.effects_of(&operation, outcome);
            if superseded.may_be_lost_after(
                &operation.backend,
                &effects,
                completed_in(&operation),
                loss,
            ) {
                report.superseded += 1;
                return;
            }
        }
        report.checked += 1;
        let completed_in = self.completed_first_in(&operation);
        let Operation { number, id, operation_type, backend, parameters, redirected_to, .. } =
            operation;
        let follow_up = None;
        let finding = AuditFinding {
            number,
            id,
            operation_type,
            backend,
            parameters,
            redirected_to,
            completed_in,
            what,
            follow_up,
        };
        let findings =
            if loss == Loss::Missing { &mut report.missing } else { &mut report.altered };
        findings.push(finding);
    }

    /// Returns the revision in which the first operation of a line of reopened ones completed.
    fn completed_first_in(&self, operation: &Operation) -> Revision {
        let (mut first, mut from, mut left) =
            (completed_in(operation), operation.redirected_from, 100);
        while let Some(id) = from.filter(|_| left > 0) {
            // One that cannot be read or was pruned leaves the revision that is known.
            let Ok(Some(earlier)) = self.with_view(|view| view.operation_by_id(id)) else { break };
            if earlier.status() == Status::Completed {
                first = completed_in(&earlier);
            }
            (from, left) = (earlier.redirected_from, left - 1);
        }
        first
    }

    /// Drops findings explained by operations that ran during the audit. Returns the last revision considered.
    fn drop_explained_findings(
        &self,
        report: &mut AuditReport,
        options: &AuditOptions,
        newest: Revision,
    ) -> Result<Revision, ClientError> {
        if report.missing.is_empty() && report.altered.is_empty() {
            return Ok(newest);
        }
        let (mut superseded, newest) = self.touched_since(options, newest, &Stop::new())?;
        self.touched_now(options, &mut superseded)?;
        let order = |finding: &AuditFinding| finding.number;
        for (findings, loss) in
            [(&mut report.missing, Loss::Missing), (&mut report.altered, Loss::Altered)]
        {
            findings.sort_by_key(order);
            if superseded.is_empty() {
                continue;
            }
            let mut kept = Vec::with_capacity(findings.len());
            for finding in std::mem::take(findings) {
                let now = self
                    .with_view(|view| view.operation(finding.number))?
                    .filter(|now| now.id == finding.id);
                let is_excused = now.is_none_or(|now| {
                    let State::Completed { outcome, .. } = &now.state else { return true };
                    let (effects, revision) = (self.effects_of(&now, outcome), completed_in(&now));
                    superseded.was_replaced_after(&now.backend, &effects, revision)
                        || superseded.may_be_lost_after(&now.backend, &effects, revision, loss)
                });
                if is_excused {
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
}

fn counts(operation: &Operation, options: &AuditOptions) -> bool {
    let State::Completed { at, .. } = &operation.state else { return false };
    options.backend.as_ref().is_none_or(|backend| *backend == operation.backend)
        && options.since.is_none_or(|since| *at >= since)
}

fn glimpse_counts(glimpse: &OperationSummary, options: &AuditOptions) -> bool {
    glimpse.status == Status::Completed
        && options.backend.as_ref().is_none_or(|backend| *backend == glimpse.backend)
}

fn file_counts(file: &FileEntry, options: &AuditOptions) -> bool {
    let is_meant =
        |name: &BackendName| options.backend.as_ref().is_none_or(|backend| backend == name);
    let is_recent = |day: Time| options.since.is_none_or(|since| day.day() >= since.day());
    file.day.is_none_or(is_recent)
        && file
            .counts
            .keys()
            .any(|(status, backend, _)| *status == Status::Completed && is_meant(backend))
}

/// Returns the approximate number of completed operations.
fn completed(view: &View, options: &AuditOptions) -> u64 {
    let is_meant =
        |name: &BackendName| options.backend.as_ref().is_none_or(|backend| backend == name);
    let counted = view.counts().into_iter();
    counted
        .filter(|((status, name, _), _)| *status == Status::Completed && is_meant(name))
        .map(|(_, n)| n)
        .sum()
}
