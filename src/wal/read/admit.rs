//! What has to be looked up before an operation may be logged: its idempotency key, and what it waits for.
//!
//! All of it is asked under `lock`, so that nobody can log the same key, or end a dependency, in between.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::scan::Order;
use super::view::View;
use crate::operation::{Logged, Number, Operation, OperationId, Source, Status};
use crate::wal::change::{Admitted, Change};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::writer::Wal;

/// Redirects that are followed; a longer chain is taken to end where this many have been followed.
const REDIRECTS_MAX: usize = 100;

/// What becomes of an operation that is to be logged.
#[derive(Debug)]
pub enum Admission {
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

/// Whether two descriptions of a file tell for certain that its content differs.
fn other_content(one: Option<&Source>, other: Option<&Source>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    let hashes_differ =
        one.sha256.is_some() && other.sha256.is_some() && one.sha256 != other.sha256;
    one.size != other.size || hashes_differ
}

/// What became of an operation that another one waits for.
#[derive(Debug)]
pub enum Fate {
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
    pub fn fate(&self, id: OperationId) -> WalResult<Fate> {
        let mut at = id;
        for _ in 0..REDIRECTS_MAX {
            let Some(operation) = self.operation_by_id(at)? else { return Ok(Fate::Unknown) };
            match (operation.status(), operation.redirected_to) {
                (Status::Completed, _) => return Ok(Fate::Done),
                (Status::Failed, Some(next)) => at = next,
                (Status::Failed, None) => return Ok(Fate::Failed(Box::new(operation))),
                _ => return Ok(Fate::Open(at)),
            }
        }
        Ok(Fate::Open(at))
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
    pub fn admit(&self, mut logged: Logged) -> WalResult<Admission> {
        if let Some(key) = &logged.idempotency_key
            && let Some(existing) = self.operation_by_key(key)?
        {
            return same_or_taken(existing, &logged).map(Admission::Existing);
        }
        let mut open = Vec::with_capacity(logged.depends_on.len());
        for id in std::mem::take(&mut logged.depends_on) {
            match self.fate(id)? {
                Fate::Done => {}
                Fate::Unknown => return Err(WalError::UnknownDependency { id }),
                Fate::Open(_) | Fate::Failed(_) => {
                    if !open.contains(&id) {
                        open.push(id);
                    }
                }
            }
        }
        logged.depends_on = open;
        Ok(Admission::New(Box::new(logged)))
    }
}

impl Wal {
    /// Logs operations that have keys or wait for others: all of them in one turn under `lock`.
    pub(in crate::wal) fn append_admitted(
        &self,
        operations: Vec<Change>,
    ) -> WalResult<Vec<Admitted>> {
        let (written, admitted) = self.transact(|view| {
            let mut changes = Vec::with_capacity(operations.len());
            let mut places = Vec::with_capacity(operations.len());
            for change in &operations {
                let Some(logged) = logged_in(change) else { continue };
                // A key may stand twice in one batch.
                let twin = logged.idempotency_key.as_ref().and_then(|key| {
                    let has_key = |other: &Logged| other.idempotency_key.as_ref() == Some(key);
                    changes.iter().position(|change| logged_in(change).is_some_and(has_key))
                });
                if let (Some(twin), Some(key)) = (twin, &logged.idempotency_key) {
                    if !logged_in(&changes[twin]).is_some_and(|other| same_work(other, logged)) {
                        return Err(WalError::KeyTwice { key: key.clone() });
                    }
                    places.push(Place::Written(twin));
                    continue;
                }
                match view.admit(logged.clone())? {
                    Admission::New(logged) => {
                        places.push(Place::Written(changes.len()));
                        changes.push(match change {
                            Change::NewAs(id, _) => Change::NewAs(*id, *logged),
                            _ => Change::New(*logged),
                        });
                    }
                    Admission::Existing(operation) => places.push(Place::Existing(operation)),
                }
            }
            Ok((changes, places))
        })?;
        if admitted.iter().any(|place| matches!(place, Place::Existing(_))) {
            // What another process logged is promised again by us, so it has to be durable.
            self.confirm()?;
        }
        Ok(admitted
            .into_iter()
            .filter_map(|place| match place {
                Place::Written(at) => written.get(at).cloned().map(Admitted::Logged),
                Place::Existing(operation) => Some(Admitted::Existing(operation)),
            })
            .collect())
    }
}

enum Place {
    Written(usize),
    Existing(Box<Operation>),
}

/// The operation that a change logs, if it logs one.
fn logged_in(change: &Change) -> Option<&Logged> {
    match change {
        Change::New(logged) | Change::NewAs(_, logged) => Some(logged),
        Change::Next(..) => None,
    }
}

fn same_work(one: &Logged, other: &Logged) -> bool {
    one.operation_type == other.operation_type
        && one.backend == other.backend
        && one.parameters == other.parameters
}
