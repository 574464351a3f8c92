//! What stands in the way of logging a completed operation once more: others that came after it, or that wait.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::completed_in;
use super::superseded::Superseded;
use crate::backend::{Effect, Reach};
use crate::client::Client;
use crate::operation::{Number, Operation, OperationId, Outcome, Revision, State, Status};
use crate::wal::{FileEntry, Order, View, WalResult};

/// Statuses of operations that may still change something.
const UNENDED: [Status; 3] = [Status::Pending, Status::Processing, Status::Retrying];

/// What operations touched that came later than what is to be logged once more, or that may still touch.
///
/// It is looked at outside of the lock first, which may take long, and then once more inside, for what is newer.
#[derive(Debug)]
pub(in crate::client) struct Later {
    /// Completed ones, from this revision on. Findings of the same run do not count: each is put back in its turn, or
    /// it is told why not.
    done: (Revision, Superseded),
    findings: HashSet<OperationId>,
    /// Up to this revision, the audit has looked for what replaced or took away what is in one piece.
    audited: Revision,
    /// Those that have not ended, or of which nobody knows; by number.
    open: Superseded<Number>,
    /// Completed ones that changed what copies were made from: not those that brought back what was there.
    sources: (Revision, Superseded),
    /// What operations were reopened as: they bring back what was there.
    restoring: HashSet<OperationId>,
    /// Logged by ourselves: each is about another place.
    ours: HashSet<OperationId>,
    /// All up to here was looked at.
    seen: Revision,
}

impl Later {
    /// Nothing looked at yet. Of completed operations those behind `done` count, and those behind `sources` if they
    /// may have changed what was copied; `audited`: up to where the audit itself has looked.
    pub(in crate::client) fn new(
        done: Revision,
        sources: Option<Revision>,
        audited: Revision,
        findings: HashSet<OperationId>,
    ) -> Later {
        Later {
            done: (done, Superseded::default()),
            findings,
            audited,
            open: Superseded::default(),
            sources: (sources.unwrap_or(Revision::MAX), Superseded::default()),
            restoring: HashSet::new(),
            ours: HashSet::new(),
            seen: Revision::ZERO,
        }
    }

    /// These are logged by us.
    pub(in crate::client) fn extend_ours(&mut self, ids: impl Iterator<Item = OperationId>) {
        self.ours.extend(ids);
    }

    /// Looks at what the log has become since the last look.
    pub(in crate::client) fn look(&mut self, client: &Client, view: &View) -> WalResult<()> {
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
                    self.done.1.note(backend, &effects, at);
                }
                let brings_back =
                    self.restoring.contains(&operation.id) || self.ours.contains(&operation.id);
                if at > self.sources.0 && !brings_back {
                    self.sources.1.note(backend, &effects, at);
                }
            }
            _ if self.ours.contains(&operation.id) => {}
            _ if UNENDED.contains(&operation.status()) || operation.is_in_doubt() => {
                self.open.note(
                    backend,
                    &client.effects_of(operation, &Outcome::default()),
                    operation.number,
                );
            }
            _ => {}
        }
    }

    /// Why this operation had better not be logged once more, if there is a reason. `reads`: what it copies.
    pub(in crate::client) fn objection(
        &self,
        operation: &Operation,
        puts: &[Effect],
        reads: &[Effect],
    ) -> Option<String> {
        let (backend, at) = (&operation.backend, completed_in(operation));
        for (effects, what) in [(puts, "the same place"), (reads, "what this one copies")] {
            if let Some(number) = self.open.last_touched(backend, effects) {
                return Some(format!(
                    "operation {number} concerns {what}, and it was not certain that it had ended; see `wal-cli why {number}`"
                ));
            }
        }
        // What has parts is a loss also where some of them were replaced or taken away before: all of it would be back.
        let has_parts =
            puts.iter().any(|effect| matches!(effect.reach, Reach::Tree | Reach::Prefix));
        let since = if has_parts { at } else { at.max(self.audited) };
        if self.done.1.last_touched(backend, puts) > Some(since) {
            return Some(
                "a later operation has replaced it or something in it, or taken that away".into(),
            );
        }
        if self.sources.1.last_touched(backend, reads) > Some(at) {
            return Some("a later operation has changed, or taken away, what it copied".into());
        }
        None
    }
}
