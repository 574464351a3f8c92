//! Reasons not to reopen a completed operation: later operations, and those that have not ended.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::effects_of;
use super::finding::completed_in;
use super::touches::TouchIndex;
use crate::backend::{Effect, Reach};
use crate::client::Client;
use crate::operation::{Number, Operation, OperationId, Outcome, Revision, State, Status};
use crate::wal::{FileEntry, Order, View, WalResult};

/// Statuses of operations that may still have an effect.
const UNENDED: [Status; 3] = [Status::Pending, Status::Processing, Status::Retrying];

/// The targets that completed operations touched after a revision.
#[derive(Debug)]
struct TouchedAfter {
    revision: Revision,
    index: TouchIndex,
}

impl TouchedAfter {
    fn new(revision: Revision) -> TouchedAfter {
        TouchedAfter { revision, index: TouchIndex::default() }
    }
}

/// The targets of operations that conflict with reopening others.
///
/// First read without the lock, which may take long, and then again under the lock for newer
/// operations.
#[derive(Debug)]
pub(super) struct ReopenConflicts {
    /// Targets of completed operations other than findings, each of which is decided on its own.
    done: TouchedAfter,
    findings: HashSet<OperationId>,
    /// The revision up to which the audit has considered operations that replaced or removed
    /// single objects.
    audited: Revision,
    /// Targets of operations that have not ended, or whose outcome is unknown, by number.
    open: TouchIndex<Number>,
    /// Changed sources of copies, except those that were restored.
    sources: TouchedAfter,
    /// Successors of reopened operations, which restore the earlier effect.
    restoring: HashSet<OperationId>,
    /// Operations logged by this run, each of which has another target.
    ours: HashSet<OperationId>,
    /// The revision up to which the log has been read.
    seen: Revision,
}

impl ReopenConflicts {
    /// Returns an empty set.
    ///
    /// Completed operations count after revision `done`, and after `sources` if they may have
    /// changed a copied source. `audited` is the last revision that the audit has considered.
    pub(super) fn new(
        done: Revision,
        sources: Option<Revision>,
        audited: Revision,
        findings: HashSet<OperationId>,
    ) -> ReopenConflicts {
        ReopenConflicts {
            done: TouchedAfter::new(done),
            findings,
            audited,
            open: TouchIndex::default(),
            sources: TouchedAfter::new(sources.unwrap_or(Revision::MAX)),
            restoring: HashSet::new(),
            ours: HashSet::new(),
            seen: Revision::ZERO,
        }
    }

    /// Adds operations that this run has logged.
    pub(super) fn extend_ours(&mut self, ids: impl Iterator<Item = OperationId>) {
        self.ours.extend(ids);
    }

    /// Reads the operations that were logged or changed since the last call.
    pub(super) fn update(&mut self, client: &Client, view: &View) -> WalResult<()> {
        let (seen, mut newest) = (self.seen, self.seen);
        let completed_after = self.done.revision.min(self.sources.revision).max(seen);
        let is_relevant = |file: &FileEntry| {
            let (_, last) = file.revisions;
            let has_open =
                UNENDED.iter().chain(&[Status::Failed]).any(|status| file.count_of(*status) > 0);
            last > completed_after || (last > seen && has_open)
        };
        view.visit(
            Order::OldestFirst,
            is_relevant,
            |summary| summary.revision > seen,
            |operation| {
                newest = newest.max(operation.revision);
                if operation.revision > seen {
                    self.add(client, &operation);
                }
                ControlFlow::Continue(())
            },
        )?;
        self.seen = newest;
        Ok(())
    }

    fn add(&mut self, client: &Client, operation: &Operation) {
        let backend = &operation.backend;
        let is_ours = self.ours.contains(&operation.id);
        match &operation.state {
            State::Completed { outcome, .. } => {
                self.restoring.extend(operation.redirected_to);
                let effects = effects_of(client, operation, outcome);
                let at = completed_in(operation);
                let is_finding = self.findings.contains(&operation.id);
                if at > self.done.revision && !is_ours && !is_finding {
                    self.done.index.record(backend, &effects, at);
                }
                let is_restoring = self.restoring.contains(&operation.id);
                if at > self.sources.revision && !is_ours && !is_restoring {
                    self.sources.index.record(backend, &effects, at);
                }
            }
            _ if is_ours => {}
            _ if UNENDED.contains(&operation.status()) || operation.is_in_doubt() => {
                let effects = effects_of(client, operation, &Outcome::default());
                self.open.record(backend, &effects, operation.number);
            }
            _ => {}
        }
    }

    /// Returns the reason not to reopen an operation, if there is one.
    pub(super) fn conflict(
        &self,
        operation: &Operation,
        written: &[Effect],
        read: &[Effect],
    ) -> Option<String> {
        let (backend, at) = (&operation.backend, completed_in(operation));
        for (effects, what) in [(written, "the same target"), (read, "the source of this copy")] {
            if let Some(number) = self.open.last_touched(backend, effects) {
                return Some(format!(
                    "operation {number} concerns {what} and may not have ended; \
                     see `wal-cli why {number}`"
                ));
            }
        }
        // A tree is reopened as a whole: parts replaced or removed before would come back, too.
        let has_parts =
            written.iter().any(|effect| matches!(effect.reach, Reach::Tree | Reach::Prefix));
        let since = if has_parts { at } else { at.max(self.audited) };
        if self.done.index.last_touched(backend, written) > Some(since) {
            return Some("a later operation has replaced or removed it, or a part of it".into());
        }
        if self.sources.index.last_touched(backend, read) > Some(at) {
            return Some("a later operation has changed or removed the source of this copy".into());
        }
        None
    }
}
