//! Operations that speak against reopening a completed one: later ones, and open ones.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::completed_in;
use super::touches::TouchIndex;
use crate::backend::{Effect, Reach};
use crate::client::Client;
use crate::operation::{Number, Operation, OperationId, Outcome, Revision, State, Status};
use crate::wal::{FileEntry, Order, View, WalResult};

/// Statuses of operations that may still have an effect.
const UNENDED: [Status; 3] = [Status::Pending, Status::Processing, Status::Retrying];

/// What operations touched after those that are to be reopened, or may still touch.
///
/// Read without the lock first, which may take long, and again under the lock for what is newer.
#[derive(Debug)]
pub(in crate::client) struct ReopenConflicts {
    /// Completed ones after this revision. Findings of the same run do not count: each is reopened in its turn, or
    /// has a reason why not.
    done: (Revision, TouchIndex),
    findings: HashSet<OperationId>,
    /// Up to this revision, the audit itself has considered what replaced or removed single objects.
    audited: Revision,
    /// Operations that have not ended, or whose outcome is unknown; by number.
    open: TouchIndex<Number>,
    /// Completed ones that changed the sources of copies, except those that restored them.
    sources: (Revision, TouchIndex),
    /// Successors of reopened operations: they restore what was there.
    restoring: HashSet<OperationId>,
    /// Logged by this run: each has another target.
    ours: HashSet<OperationId>,
    /// Everything up to this revision has been read.
    seen: Revision,
}

impl ReopenConflicts {
    /// Returns an empty set. Completed operations count after revision `done`, and after `sources` if they may have
    /// changed what was copied. `audited` is the last revision that the audit itself has considered.
    pub(in crate::client) fn new(
        done: Revision,
        sources: Option<Revision>,
        audited: Revision,
        findings: HashSet<OperationId>,
    ) -> ReopenConflicts {
        ReopenConflicts {
            done: (done, TouchIndex::default()),
            findings,
            audited,
            open: TouchIndex::default(),
            sources: (sources.unwrap_or(Revision::MAX), TouchIndex::default()),
            restoring: HashSet::new(),
            ours: HashSet::new(),
            seen: Revision::ZERO,
        }
    }

    /// Adds operations that this run has logged.
    pub(in crate::client) fn extend_ours(&mut self, ids: impl Iterator<Item = OperationId>) {
        self.ours.extend(ids);
    }

    /// Reads what was logged or changed since the last call.
    pub(in crate::client) fn update(&mut self, client: &Client, view: &View) -> WalResult<()> {
        let (seen, mut newest) = (self.seen, self.seen);
        let completed_after = self.done.0.min(self.sources.0).max(seen);
        let has_some = |file: &FileEntry| {
            let (_, last) = file.revisions;
            let is_open =
                UNENDED.iter().chain(&[Status::Failed]).any(|status| file.count_of(*status) > 0);
            last > completed_after || (last > seen && is_open)
        };
        view.visit(
            Order::OldestFirst,
            has_some,
            |glimpse| glimpse.revision > seen,
            |operation| {
                newest = newest.max(operation.revision);
                if operation.revision > seen {
                    self.note(client, &operation);
                }
                ControlFlow::Continue(())
            },
        )?;
        self.seen = newest;
        Ok(())
    }

    fn note(&mut self, client: &Client, operation: &Operation) {
        let backend = &operation.backend;
        match &operation.state {
            State::Completed { outcome, .. } => {
                self.restoring.extend(operation.redirected_to);
                let (effects, at) =
                    (client.effects_of(operation, outcome), completed_in(operation));
                let is_put_back =
                    self.ours.contains(&operation.id) || self.findings.contains(&operation.id);
                if at > self.done.0 && !is_put_back {
                    self.done.1.record(backend, &effects, at);
                }
                let brings_back =
                    self.restoring.contains(&operation.id) || self.ours.contains(&operation.id);
                if at > self.sources.0 && !brings_back {
                    self.sources.1.record(backend, &effects, at);
                }
            }
            _ if self.ours.contains(&operation.id) => {}
            _ if UNENDED.contains(&operation.status()) || operation.is_in_doubt() => {
                self.open.record(
                    backend,
                    &client.effects_of(operation, &Outcome::default()),
                    operation.number,
                );
            }
            _ => {}
        }
    }

    /// Returns why this operation must not be reopened, if there is a reason. `reads`: what it copies.
    pub(in crate::client) fn conflict(
        &self,
        operation: &Operation,
        puts: &[Effect],
        reads: &[Effect],
    ) -> Option<String> {
        let (backend, at) = (&operation.backend, completed_in(operation));
        for (effects, what) in [(puts, "the same target"), (reads, "what this one copies")] {
            if let Some(number) = self.open.last_touched(backend, effects) {
                return Some(format!(
                    "operation {number} concerns {what} and may not have ended; \
                     see `wal-cli why {number}`"
                ));
            }
        }
        // A tree is reopened as a whole: parts that were replaced or removed before would come back, too.
        let has_parts =
            puts.iter().any(|effect| matches!(effect.reach, Reach::Tree | Reach::Prefix));
        let since = if has_parts { at } else { at.max(self.audited) };
        if self.done.1.last_touched(backend, puts) > Some(since) {
            return Some("a later operation has replaced or removed it, or something in it".into());
        }
        if self.sources.1.last_touched(backend, reads) > Some(at) {
            return Some("a later operation has changed or removed what it copied".into());
        }
        None
    }
}
