//! Asking the backends whether what was completed is still there, and still is what it was.

mod later;
mod superseded;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Client, ClientError, Stop};
use crate::backend::{Attempt, AttemptError, AuditResult, Backend, Effect};
use crate::operation::{
    BackendName, Failure, FailureClass, Fields, Number, Operation, OperationId, OperationType,
    Outcome, Revision, State, Status, Time,
};
use crate::wal::{Fate, FileEntry, Glimpse, Order, View, WalError};
use crate::worker::request_of;
pub(super) use later::Later;
use superseded::{Loss, Superseded};

/// Operations that are read, and held in memory, at a time.
const PORTION: usize = 500;

/// Answers that a backend may fail to give in a row until it counts as away.
const TROUBLES_MAX: u32 = 3;

/// Statuses of operations that may have touched their places.
const BEGUN: [Status; 2] = [Status::Processing, Status::Retrying];

/// How often we look whether to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// Which operations are looked at, and what is done with those whose effect is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditOptions {
    /// Only those completed since then.
    pub since: Option<Time>,
    /// Only those of this backend.
    pub backend: Option<BackendName>,
    /// Whether what is gone or altered is logged once more, as a new operation.
    pub reopen: bool,
}

/// What the backends said.
#[derive(Debug, Default)]
pub struct AuditReport {
    /// Operations whose effect was looked at: intact, gone and altered ones.
    pub checked: u64,
    /// How many of them are as they were.
    pub intact: u64,
    /// Those whose effect is not there any more.
    pub gone: Vec<AuditFinding>,
    /// Those whose effect is something else now.
    pub altered: Vec<AuditFinding>,
    /// How many were replaced or taken away by later operations.
    pub superseded: u64,
    /// How many leave nothing to look at.
    pub nothing: u64,
    /// Of which nothing could be found out, by backend.
    pub unasked: Vec<Unasked>,
    /// How many new operations were logged.
    pub reopened: u64,
    /// Whether a request to stop ended it early.
    pub stopped: bool,
    /// Why reopening ended early, if it did.
    pub trouble: Option<ClientError>,
}

impl AuditReport {
    /// Whether everything that was to be looked at is as it was.
    pub fn is_clean(&self) -> bool {
        self.gone.is_empty() && self.altered.is_empty() && self.unasked.is_empty()
    }

    /// What was found: gone, then altered.
    pub fn findings(&self) -> impl Iterator<Item = &AuditFinding> {
        self.gone.iter().chain(&self.altered)
    }
}

/// A completed operation whose effect is gone or altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFinding {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// Its type.
    pub operation_type: OperationType,
    /// Its backend.
    pub backend: BackendName,
    /// With what.
    pub parameters: Fields,
    /// What it went on as before, if it did.
    pub redirected_to: Option<OperationId>,
    /// The revision in which it was completed; of what was reopened, that of what it brought back.
    pub completed_in: Revision,
    /// What was found.
    pub what: String,
    /// What follows from that; none: nothing, since nobody asked for it.
    pub followed: Option<Followed>,
}

/// What followed from a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A new operation was logged.
    Reopened {
        /// Its number.
        number: Number,
        /// Its id.
        id: OperationId,
    },
    /// One was logged for it before, which has not ended.
    GoesOn {
        /// Its number.
        number: Number,
        /// Its id.
        id: OperationId,
    },
    /// It cannot be done once more; the text says why.
    Refused(String),
}

/// A backend of which something could not be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unasked {
    /// Which.
    pub backend: BackendName,
    /// Of how many operations.
    pub operations: u64,
    /// Why: what it said first.
    pub failure: Failure,
}

/// What came of one question.
enum Told {
    Audit(AuditResult),
    Unasked(Failure),
    Stopped,
}

/// A backend while it is asked.
struct Lane {
    backend: Result<Arc<dyn Backend>, Failure>,
    jobs: usize,
    /// Questions in a row without an answer.
    troubles: AtomicU32,
    /// What was said when it turned out to be away: nobody asks it any more.
    away: Mutex<Option<Failure>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Asks the backends whether what was completed is still there. The log is only written to if something is to be
    /// reopened. `progress` is told how many operations are done, of how many.
    ///
    /// A request to stop ends it soon, with what was found so far.
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
        let total = self.look(|view| Ok(completed(view, options)))?;
        let mut lanes: BTreeMap<BackendName, Lane> = BTreeMap::new();
        let (mut after, mut done) = (Number::ZERO, 0);
        while !stop.is_requested() {
            let portion = self.portion(options, after)?;
            let Some(last) = portion.last() else { break };
            after = last.number;
            let mut asked: BTreeMap<BackendName, Vec<Operation>> = BTreeMap::new();
            for operation in portion {
                if !self.backends.is_auditable(&operation.backend, &operation.operation_type) {
                    report.nothing += 1;
                } else if self.is_superseded(&operation, &superseded)? {
                    report.superseded += 1;
                } else {
                    let lane = || self.lane_of(&operation);
                    lanes.entry(operation.backend.clone()).or_insert_with(lane);
                    asked.entry(operation.backend.clone()).or_default().push(operation);
                    continue;
                }
                done += 1;
            }
            self.ask(asked, &lanes, stop, &mut |operation, told| {
                done += u64::from(!matches!(told, Told::Stopped));
                self.take(operation, told, &superseded, &mut report);
                progress(done, total);
            });
            progress(done, total);
        }
        report.stopped = stop.is_requested();
        let newest = self.excuse(&mut report, options, newest)?;
        for finding in report.gone.iter_mut().chain(&mut report.altered) {
            finding.followed =
                self.look(|view| super::reopen::goes_on(view, finding.redirected_to))?;
        }
        if options.reopen && !report.stopped {
            let findings = report.gone.iter_mut().chain(&mut report.altered);
            let reopened = self.reopen(
                findings.filter(|finding| finding.followed.is_none()).collect(),
                newest,
                stop,
            );
            report.trouble = reopened.err();
            let is_new = |finding: &&AuditFinding| {
                matches!(finding.followed, Some(Followed::Reopened { .. }))
            };
            report.reopened = report.findings().filter(is_new).count() as u64;
            report.stopped = stop.is_requested();
        }
        Ok(report)
    }

    fn lane_of(&self, operation: &Operation) -> Lane {
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
        Lane { backend, jobs, troubles: AtomicU32::new(0), away: Mutex::default() }
    }

    /// The places that an operation touches, or will.
    pub(super) fn effects_of(&self, operation: &Operation, outcome: &Outcome) -> Vec<Effect> {
        self.backends.effects(&request_of(operation, &self.layout), outcome)
    }

    /// The completed operations behind this number, so many that they fit into memory.
    fn portion(
        &self,
        options: &AuditOptions,
        after: Number,
    ) -> Result<Vec<Operation>, ClientError> {
        self.look(|view| {
            let mut portion = Vec::new();
            view.visit_between(
                (after.next(), Number::MAX),
                Order::OldestFirst,
                |file| file_counts(file, options),
                |glimpse| glimpse_counts(glimpse, options),
                |operation| {
                    if counts(&operation, options) {
                        portion.push(operation);
                    }
                    if portion.len() < PORTION {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                },
            )?;
            Ok(portion)
        })
    }

    /// What completed operations of a later revision touched, and the latest revision of any.
    fn touched_since(
        &self,
        options: &AuditOptions,
        newer_than: Revision,
        stop: &Stop,
    ) -> Result<(Superseded, Revision), ClientError> {
        self.look(|view| {
            // In what cannot be read there may stand what replaced the rest.
            if let Some(damage) = view.damage() {
                return Err(WalError::Damaged(damage.clone()));
            }
            let (mut superseded, mut newest) = (Superseded::default(), newer_than);
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
                        superseded.note(&operation.backend, &effects, completed_in(&operation));
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

    /// What operations touch that are being carried out, or were: their effect may be there before they are completed.
    fn touched_now(
        &self,
        options: &AuditOptions,
        superseded: &mut Superseded,
    ) -> Result<(), ClientError> {
        self.look(|view| {
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
                        // What it began is over: it may have taken something away, but nothing is gone by putting.
                        Status::Retrying => effects.retain(|effect| !effect.is_write()),
                        _ => effects.clear(),
                    }
                    if is_meant {
                        superseded.note(&operation.backend, &effects, Revision::MAX);
                    }
                    ControlFlow::Continue(())
                },
            )
        })
    }

    fn is_superseded(
        &self,
        operation: &Operation,
        superseded: &Superseded,
    ) -> Result<bool, ClientError> {
        let State::Completed { outcome, .. } = &operation.state else { return Ok(false) };
        let effects = self.effects_of(operation, outcome);
        if superseded.certainly(&operation.backend, &effects, completed_in(operation)) {
            return Ok(true);
        }
        // What it went on as is looked at in its place, whatever that touches.
        let Some(next) = operation.redirected_to else { return Ok(false) };
        Ok(matches!(self.look(|view| view.fate(next))?, Fate::Done))
    }

    /// Asks about operations, several at once of each backend.
    fn ask(
        &self,
        asked: BTreeMap<BackendName, Vec<Operation>>,
        lanes: &BTreeMap<BackendName, Lane>,
        stop: &Stop,
        told: &mut dyn FnMut(Operation, Told),
    ) {
        let stopped = AtomicBool::new(false);
        let running: Mutex<BTreeMap<Number, Arc<Attempt>>> = Mutex::default();
        std::thread::scope(|scope| {
            let (sender, answers) = mpsc::channel();
            for (name, operations) in asked {
                let Some(lane) = lanes.get(&name) else { continue };
                let jobs = lane.jobs.min(operations.len());
                let queue = Arc::new(Mutex::new(operations.into_iter()));
                for _ in 0..jobs {
                    let (sender, queue, stopped, running) =
                        (sender.clone(), queue.clone(), &stopped, &running);
                    scope.spawn(move || {
                        loop {
                            let next = lock(&queue).next();
                            let Some(operation) = next else { return };
                            let answer = match stopped.load(Ordering::SeqCst) {
                                true => Told::Stopped,
                                false => self.ask_one(lane, &operation, stopped, running),
                            };
                            // There is somebody who listens for as long as there are threads.
                            let _ = sender.send((operation, answer));
                        }
                    });
                }
            }
            drop(sender);
            loop {
                match answers.recv_timeout(PATIENCE) {
                    Ok((operation, answer)) => told(operation, answer),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if stop.is_requested() && !stopped.swap(true, Ordering::SeqCst) {
                    lock(&running).values().for_each(|attempt| attempt.cancel());
                }
            }
        });
    }

    fn ask_one(
        &self,
        lane: &Lane,
        operation: &Operation,
        stopped: &AtomicBool,
        running: &Mutex<BTreeMap<Number, Arc<Attempt>>>,
    ) -> Told {
        let backend = match &lane.backend {
            Ok(backend) => backend,
            Err(failure) => return Told::Unasked(failure.clone()),
        };
        if let Some(failure) = &*lock(&lane.away) {
            return Told::Unasked(failure.clone());
        }
        let State::Completed { outcome, .. } = &operation.state else {
            return Told::Audit(AuditResult::NotApplicable);
        };
        let attempt = Arc::new(Attempt::default());
        lock(running).insert(operation.number, attempt.clone());
        // Whoever asked us to stop before has not seen this one.
        if stopped.load(Ordering::SeqCst) {
            attempt.cancel();
        }
        let answer = backend.audit(&request_of(operation, &self.layout), outcome, &attempt);
        lock(running).remove(&operation.number);
        match answer {
            Ok(audit) => {
                lane.troubles.store(0, Ordering::SeqCst);
                Told::Audit(audit)
            }
            Err(AttemptError::Stopped) => Told::Stopped,
            Err(_) if stopped.load(Ordering::SeqCst) => Told::Stopped,
            Err(AttemptError::Failed { failure, .. } | AttemptError::UnknownOutcome(failure)) => {
                // What is wrong with one operation alone says nothing of the backend.
                let troubles = match failure.class {
                    FailureClass::Permanent => 0,
                    FailureClass::Transient => lane.troubles.fetch_add(1, Ordering::SeqCst) + 1,
                    FailureClass::Outage => TROUBLES_MAX,
                };
                if troubles >= TROUBLES_MAX {
                    lock(&lane.away).get_or_insert_with(|| failure.clone());
                }
                Told::Unasked(failure)
            }
        }
    }

    /// Counts what was told of an operation.
    fn take(
        &self,
        operation: Operation,
        told: Told,
        superseded: &Superseded,
        report: &mut AuditReport,
    ) {
        let (what, loss) = match told {
            Told::Stopped => return,
            Told::Unasked(failure) => {
                match report.unasked.iter_mut().find(|unasked| unasked.backend == operation.backend)
                {
                    Some(unasked) => unasked.operations += 1,
                    None => report.unasked.push(Unasked {
                        backend: operation.backend,
                        operations: 1,
                        failure,
                    }),
                }
                return;
            }
            Told::Audit(AuditResult::NotApplicable) => {
                report.nothing += 1;
                return;
            }
            Told::Audit(AuditResult::Intact) => {
                report.checked += 1;
                report.intact += 1;
                return;
            }
            Told::Audit(AuditResult::Missing(what)) => (what, Loss::Gone),
            Told::Audit(AuditResult::Altered(what)) => (what, Loss::Altered),
        };
        if let State::Completed { outcome, .. } = &operation.state {
            let effects = self.effects_of(&operation, outcome);
            if superseded.perhaps(&operation.backend, &effects, completed_in(&operation), loss) {
                report.superseded += 1;
                return;
            }
        }
        report.checked += 1;
        let completed_in = self.completed_first_in(&operation);
        let Operation { number, id, operation_type, backend, parameters, redirected_to, .. } =
            operation;
        let followed = None;
        let finding = AuditFinding {
            number,
            id,
            operation_type,
            backend,
            parameters,
            redirected_to,
            completed_in,
            what,
            followed,
        };
        let findings = if loss == Loss::Gone { &mut report.gone } else { &mut report.altered };
        findings.push(finding);
    }

    /// The revision in which an operation was completed, or what it brought back.
    fn completed_first_in(&self, operation: &Operation) -> Revision {
        let (mut first, mut from, mut left) =
            (completed_in(operation), operation.redirected_from, 100);
        while let Some(id) = from.filter(|_| left > 0) {
            // One that cannot be read, or is dropped already, leaves the order that is known.
            let Ok(Some(earlier)) = self.look(|view| view.operation_by_id(id)) else { break };
            if earlier.status() == Status::Completed {
                first = completed_in(&earlier);
            }
            (from, left) = (earlier.redirected_from, left - 1);
        }
        first
    }

    /// Takes back what operations brought about that were at work meanwhile. Up to the revision that it returns, what
    /// was completed has been looked at.
    fn excuse(
        &self,
        report: &mut AuditReport,
        options: &AuditOptions,
        newest: Revision,
    ) -> Result<Revision, ClientError> {
        if report.gone.is_empty() && report.altered.is_empty() {
            return Ok(newest);
        }
        let (mut superseded, newest) = self.touched_since(options, newest, &Stop::new())?;
        self.touched_now(options, &mut superseded)?;
        let order = |finding: &AuditFinding| finding.number;
        for (findings, loss) in
            [(&mut report.gone, Loss::Gone), (&mut report.altered, Loss::Altered)]
        {
            findings.sort_by_key(order);
            if superseded.is_empty() {
                continue;
            }
            let mut kept = Vec::with_capacity(findings.len());
            for finding in std::mem::take(findings) {
                let now = self
                    .look(|view| view.operation(finding.number))?
                    .filter(|now| now.id == finding.id);
                let is_excused = now.is_none_or(|now| {
                    let State::Completed { outcome, .. } = &now.state else { return true };
                    let (effects, revision) = (self.effects_of(&now, outcome), completed_in(&now));
                    superseded.certainly(&now.backend, &effects, revision)
                        || superseded.perhaps(&now.backend, &effects, revision, loss)
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

/// The revision in which an operation was completed: later ones are about what it went on as.
pub(super) fn completed_in(operation: &Operation) -> Revision {
    let completion =
        operation.history.iter().rev().find(|entry| entry.from != Some(Status::Completed));
    completion.map_or(operation.revision, |entry| entry.revision)
}

fn counts(operation: &Operation, options: &AuditOptions) -> bool {
    let State::Completed { at, .. } = &operation.state else { return false };
    options.backend.as_ref().is_none_or(|backend| *backend == operation.backend)
        && options.since.is_none_or(|since| *at >= since)
}

fn glimpse_counts(glimpse: &Glimpse, options: &AuditOptions) -> bool {
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

/// How many completed operations there are, about.
fn completed(view: &View, options: &AuditOptions) -> u64 {
    let is_meant =
        |name: &BackendName| options.backend.as_ref().is_none_or(|backend| backend == name);
    let counted = view.counts().into_iter();
    counted
        .filter(|((status, name, _), _)| *status == Status::Completed && is_meant(name))
        .map(|(_, n)| n)
        .sum()
}
