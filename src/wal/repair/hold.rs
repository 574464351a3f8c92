//! Holding operations whose lost records may have completed, deleted or changed them, until a user
//! has checked them: a completed operation must not run twice, and a deleted one not at all.

use std::collections::HashSet;

use super::journal::Journal;
use super::rows::Files;
use super::{Plan, Repair};
use crate::operation::{self, Event, Number, Operation, Status, Transition};
use crate::wal::error::WalResult;
use crate::wal::manifest::{FileEntry, Manifest};
use crate::wal::schema::Table;

/// The reason of the hold in the history.
const REASON: &str = "a repair could not determine whether it had run or changed since; check it, \
                      then release or delete it";

/// Returns true if a row does not prove the current state of its operation without the journal.
pub(super) fn rows_prove_nothing(manifest: Option<&Manifest>, journal: &Journal) -> bool {
    manifest.is_none() || journal.has_gaps
}

impl Repair<'_> {
    /// Returns the unfinished operations in valid files whose state the journal does not prove.
    pub(super) fn load_unproven(
        &self,
        journal: &Journal,
        files: &mut Files,
    ) -> WalResult<HashSet<Number>> {
        let is_open = |entry: &FileEntry| {
            let statuses = [Status::Pending, Status::Retrying, Status::Processing];
            statuses.into_iter().any(|status| entry.count_of(status) > 0)
        };
        let mut unproven = HashSet::new();
        for entry in files.plan.kept.iter().filter(|entry| is_open(entry)) {
            let rows = Table::open(&**self.disk, &self.layout.file(&entry.name), &entry.sha256)?
                .read_all()?;
            let is_live = |row: &&Operation| {
                files.live.contains_key(&row.number) && !entry.superseded.contains(row.number)
            };
            let open = rows.iter().filter(is_live).filter(|row| !row.status().is_terminal());
            unproven.extend(
                open.map(|row| row.number).filter(|number| !journal.proven.contains(number)),
            );
        }
        Ok(unproven)
    }

    /// Holds operations that are doubtful, have gaps in their history, or whose state is not
    /// proven.
    pub(super) fn hold(
        &mut self,
        prove_nothing: bool,
        journal: &Journal,
        plan: &mut Plan,
    ) -> WalResult<()> {
        let report = &mut self.report;
        for (number, row) in &mut plan.rows {
            let in_doubt = report.doubtful.contains(*number) || report.holed.contains(*number);
            let is_unproven = prove_nothing && !journal.proven.contains(number);
            if row.status().is_terminal() || !(in_doubt || is_unproven) {
                continue;
            }
            report.held.insert(*number);
            if row.hold {
                continue;
            }
            plan.revision = plan.revision.next();
            let transition = Transition {
                revision: plan.revision,
                number: row.number,
                id: row.id,
                at: self.clock.now(),
                from: Some(row.status()),
                operation_type: row.operation_type.clone(),
                backend: row.backend.clone(),
                actor: self.options.command.clone(),
                event: Event::Held { reason: REASON.to_owned() },
            };
            if let Some(held) = operation::apply(Some(row.clone()), &transition)? {
                *row = held;
            }
        }
        Ok(())
    }
}
