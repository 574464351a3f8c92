//! What has to be looked up before an operation may be logged: its idempotency key, and what it
//! waits for.
//!
//! All of it is asked under `lock`, so that no other process can log the same key, or end a
//! dependency, in between.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::scan::Order;
use super::view::View;
use crate::operation::{Logged, Number, Operation, OperationId, Source, Status};
use crate::wal::error::{WalError, WalResult};

/// Redirects that are followed; a longer chain is taken to end where this many have been followed.
const REDIRECTS_MAX: usize = 100;

/// What becomes of an operation that is to be logged.
#[derive(Debug)]
pub enum Precheck {
    /// It is logged; what it waited for and is completed has been dropped.
    New(Box<Logged>),
    /// Its key is there already, with the same parameters.
    Existing(Box<Operation>),
}

/// The operation that has the key of one that is to be logged, if both are the same work.
pub(in crate::wal) fn same_or_taken(
    existing: Operation,
    logged: &Logged,
) -> WalResult<Box<Operation>> {
    let same = existing.operation_type == logged.operation_type
        && existing.backend == logged.backend
        && existing.parameters == logged.parameters
        && !other_content(existing.source.as_ref(), logged.source.as_ref());
    match same {
        true => Ok(Box::new(existing)),
        false => {
            let key = logged.idempotency_key.clone().unwrap_or_default();
            Err(WalError::KeyTaken { key, number: existing.number })
        }
    }
}

/// Returns true if two descriptions of a file prove that its content differs.
fn other_content(one: Option<&Source>, other: Option<&Source>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    let hashes_differ =
        one.sha256.is_some() && other.sha256.is_some() && one.sha256 != other.sha256;
    one.size != other.size || hashes_differ
}

/// What became of an operation that another one waits for.
#[derive(Debug)]
pub enum DependencyState {
    /// It is completed, or what it went on as is.
    Done,
    /// It has not ended; this is the operation that has to end, it or what it went on as.
    Open(OperationId),
    /// It has failed.
    Failed(Box<Operation>),
    /// There is no such operation.
    Unknown,
}

impl View {
    /// The operation with this idempotency key.
    pub fn operation_by_key(&self, key: &str) -> WalResult<Option<Operation>> {
        if let Some(number) = self.logged_with_key(key)
            && let Some(operation) = self.operation(number)?
        {
            return Ok(Some(operation));
        }
        for file in self.files().iter().rev().filter(|file| file.keys > 0) {
            let table = self.table(file)?;
            for group in table.groups().iter().filter(|group| table.may_hold_key(group, key)) {
                let rows = self.group(file, &table, group.index)?;
                let with_key = rows.iter().filter(|row| {
                    row.idempotency_key.as_deref() == Some(key)
                        && !file.superseded.contains(row.number)
                });
                // One that was deleted may still have its row.
                for row in with_key {
                    if let Some(operation) = self.operation(row.number)? {
                        return Ok(Some(operation));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What became of an operation, redirects followed.
    pub fn dependency_state(&self, id: OperationId) -> WalResult<DependencyState> {
        let mut at = id;
        for _ in 0..REDIRECTS_MAX {
            let Some(operation) = self.operation_by_id(at)? else {
                return Ok(DependencyState::Unknown);
            };
            match (operation.status(), operation.redirected_to) {
                (Status::Completed, _) => return Ok(DependencyState::Done),
                (Status::Failed, Some(next)) => at = next,
                (Status::Failed, None) => return Ok(DependencyState::Failed(Box::new(operation))),
                _ => return Ok(DependencyState::Open(at)),
            }
        }
        Ok(DependencyState::Open(at))
    }

    /// Who waits for one of these operations: what is waited for, and the number of who waits.
    pub fn dependents_of(
        &self,
        ids: &BTreeSet<OperationId>,
    ) -> WalResult<Vec<(OperationId, Number)>> {
        let mut found = Vec::new();
        self.visit(
            Order::OldestFirst,
            |file| file.dependents > 0,
            |glimpse| glimpse.status.is_waiting(),
            |operation| {
                let waits = operation.status().is_waiting();
                let for_ours = operation.depends_on.iter().filter(|id| waits && ids.contains(id));
                found.extend(for_ours.map(|id| (*id, operation.number)));
                ControlFlow::Continue(())
            },
        )?;
        Ok(found)
    }

    /// All operations that something waits for.
    pub fn dependencies(&self) -> WalResult<BTreeSet<OperationId>> {
        let mut found = BTreeSet::new();
        self.visit(
            Order::OldestFirst,
            |file| file.dependents > 0,
            |glimpse| glimpse.status.is_waiting(),
            |operation| {
                if operation.status().is_waiting() {
                    found.extend(operation.depends_on);
                }
                ControlFlow::Continue(())
            },
        )?;
        // What was redirected is waited for as what it went on as.
        let mut left: Vec<OperationId> = found.iter().copied().collect();
        while let Some(id) = left.pop() {
            if let Some(next) =
                self.operation_by_id(id)?.and_then(|operation| operation.redirected_to)
                && found.insert(next)
            {
                left.push(next);
            }
        }
        Ok(found)
    }

    /// Decides on an operation that is to be logged.
    pub fn check_preconditions(&self, mut logged: Logged) -> WalResult<Precheck> {
        if let Some(key) = &logged.idempotency_key
            && let Some(existing) = self.operation_by_key(key)?
        {
            return same_or_taken(existing, &logged).map(Precheck::Existing);
        }
        let mut open = Vec::with_capacity(logged.depends_on.len());
        for id in std::mem::take(&mut logged.depends_on) {
            match self.dependency_state(id)? {
                DependencyState::Done => {}
                DependencyState::Unknown => return Err(WalError::UnknownDependency { id }),
                DependencyState::Open(_) | DependencyState::Failed(_) => {
                    if !open.contains(&id) {
                        open.push(id);
                    }
                }
            }
        }
        logged.depends_on = open;
        Ok(Precheck::New(Box::new(logged)))
    }
}
