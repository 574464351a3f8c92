//! Checks before an operation is logged: its idempotency key and its dependencies.
//!
//! Writers make them under `lock`, so that no other process can log the same key, or end a
//! dependency, in between.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::scan::Order;
use super::view::View;
use crate::operation::{Logged, Number, Operation, OperationId, Source, Status};
use crate::wal::error::{WalError, WalResult};

/// The number of redirects that are followed. A longer chain counts as ending there.
const REDIRECTS_MAX: usize = 100;

/// The decision on an operation that is to be logged.
#[derive(Debug)]
pub enum Precheck {
    /// It is logged, without its completed dependencies.
    New(Box<Logged>),
    /// An operation with the same key and the same work is already logged.
    Existing(Box<Operation>),
}

/// Returns the operation that already has the key. Fails if its work differs.
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

/// The state of an operation on which another one depends.
#[derive(Debug)]
pub enum DependencyState {
    /// It is completed, or the operation to which it was redirected is.
    Done,
    /// It has not ended. The id is that of the operation to wait for, with redirects followed.
    Open(OperationId),
    /// It has failed.
    Failed(Box<Operation>),
    /// It does not exist.
    Unknown,
}

impl View {
    /// Returns the operation with this idempotency key.
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
                // A deleted operation may still have its row.
                for row in with_key {
                    if let Some(operation) = self.operation(row.number)? {
                        return Ok(Some(operation));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Returns the state of a dependency, with redirects followed.
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

    /// Returns the waiting operations that depend on one of these: the id of the dependency, and
    /// the number of the dependent.
    pub fn dependents_of(
        &self,
        ids: &BTreeSet<OperationId>,
    ) -> WalResult<Vec<(OperationId, Number)>> {
        let mut found = Vec::new();
        self.visit(
            Order::OldestFirst,
            |file| file.dependents > 0,
            |summary| summary.status.is_waiting(),
            |operation| {
                let waits = operation.status().is_waiting();
                let for_ours = operation.depends_on.iter().filter(|id| waits && ids.contains(id));
                found.extend(for_ours.map(|id| (*id, operation.number)));
                ControlFlow::Continue(())
            },
        )?;
        Ok(found)
    }

    /// Returns all operations on which waiting ones depend.
    pub fn dependencies(&self) -> WalResult<BTreeSet<OperationId>> {
        let mut found = BTreeSet::new();
        self.visit(
            Order::OldestFirst,
            |file| file.dependents > 0,
            |summary| summary.status.is_waiting(),
            |operation| {
                if operation.status().is_waiting() {
                    found.extend(operation.depends_on);
                }
                ControlFlow::Continue(())
            },
        )?;
        // A dependency on a redirected operation is one on its replacement, too.
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
