//! Reads operations: single ones, and lists by filter.

use std::ops::ControlFlow;

use super::Client;
use super::error::ClientError;
use super::reference::Reference;
use crate::disk::Access;
use crate::operation::{
    BackendName, Failure, Number, Operation, OperationId, OperationType, Status, Time, cause,
};
use crate::wal::{
    Damage, FileEntry, HolderNote, LockName, OperationSummary, Order, View, WalError, WalResult,
    note,
};
use crate::worker::progress::{self, Progress};

/// Conditions that select operations. All of them have to match; `None` matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Only operations with this status.
    pub status: Option<Status>,
    /// Only operations of this backend.
    pub backend: Option<BackendName>,
    /// Only operations of this type.
    pub operation_type: Option<OperationType>,
    /// Only operations logged at this time or later.
    pub since: Option<Time>,
    /// Only operations logged before this time.
    pub until: Option<Time>,
    /// Only operations whose failure, or last failed attempt, has this type of error.
    pub error_type: Option<String>,
    /// Only operations whose cause of failure has this fingerprint, which [`Client::failures`]
    /// returns, or one that begins with these digits.
    pub cause: Option<String>,
    /// Only operations that are held.
    pub held: bool,
    /// Only the operation with this idempotency key.
    pub key: Option<String>,
    /// Only operations that depend on this one.
    pub after: Option<OperationId>,
    /// Only operations with a lower number than this: [`Page::next`] of the previous page.
    pub before: Option<Number>,
}

impl Filter {
    /// Restricts the status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Filter {
        self.status = Some(status);
        self
    }

    /// Restricts the backend.
    #[must_use]
    pub fn with_backend(mut self, backend: BackendName) -> Filter {
        self.backend = Some(backend);
        self
    }

    /// Restricts the type of operation.
    #[must_use]
    pub fn with_operation_type(mut self, operation_type: OperationType) -> Filter {
        self.operation_type = Some(operation_type);
        self
    }

    /// Restricts the cause of the failure, by its fingerprint or the first digits of it.
    #[must_use]
    pub fn with_cause(mut self, fingerprint: impl Into<String>) -> Filter {
        self.cause = Some(fingerprint.into());
        self
    }

    /// Continues after the previous page: see [`Page::next`].
    #[must_use]
    pub fn with_before(mut self, number: Option<Number>) -> Filter {
        self.before = number;
        self
    }

    /// Returns `false` if no operation in a file can match.
    fn may_match_in(&self, file: &FileEntry) -> bool {
        let matches_counts = |status: Status, backend: &BackendName, kind: &OperationType| {
            self.status.is_none_or(|wanted| wanted == status)
                && self.backend.as_ref().is_none_or(|wanted| wanted == backend)
                && self.operation_type.as_ref().is_none_or(|wanted| wanted == kind)
        };
        self.before.is_none_or(|before| file.numbers.0 < before)
            && self.since.is_none_or(|since| file.times.1 >= since)
            && self.until.is_none_or(|until| file.times.0 < until)
            && (self.key.is_none() || file.keys > 0)
            && (self.after.is_none() || file.dependents > 0)
            && file
                .counts
                .keys()
                .any(|(status, backend, kind)| matches_counts(*status, backend, kind))
    }

    /// Returns `false` if an operation with this summary cannot match.
    fn may_match(&self, summary: &OperationSummary) -> bool {
        self.status.is_none_or(|status| summary.status == status)
            && self.backend.as_ref().is_none_or(|backend| summary.backend == *backend)
            && self.before.is_none_or(|before| summary.number < before)
    }

    fn matches_failure(&self, failure: Option<&Failure>) -> bool {
        let of_type =
            |wanted: &String| failure.is_some_and(|failure| failure.error_type == *wanted);
        let of_cause = |wanted: &String| {
            failure.is_some_and(|failure| cause::fingerprint(failure).starts_with(wanted.as_str()))
        };
        self.error_type.as_ref().is_none_or(of_type) && self.cause.as_ref().is_none_or(of_cause)
    }

    fn matches(&self, operation: &Operation) -> bool {
        self.status.is_none_or(|status| operation.status() == status)
            && self.backend.as_ref().is_none_or(|backend| operation.backend == *backend)
            && self.operation_type.as_ref().is_none_or(|wanted| operation.operation_type == *wanted)
            && self.since.is_none_or(|since| operation.logged_at >= since)
            && self.until.is_none_or(|until| operation.logged_at < until)
            && (!self.held || (operation.hold && !operation.status().is_terminal()))
            && self.key.as_ref().is_none_or(|key| operation.idempotency_key.as_ref() == Some(key))
            && self.after.is_none_or(|id| operation.depends_on.contains(&id))
            && self.matches_failure(operation.state.failure())
            && self.before.is_none_or(|before| operation.number < before)
    }
}

/// One page of a list, newest operations first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The operations.
    pub operations: Vec<Operation>,
    /// The value of [`Filter::before`] for the next page; `None` on the last page.
    pub next: Option<Number>,
    /// Damage that may hide further operations.
    pub damage: Option<Damage>,
}

impl Client {
    /// Returns the operation that a reference names.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoSuchOperation`] if it names none.
    pub fn operation(&self, reference: &Reference) -> Result<Operation, ClientError> {
        let found = self.with_view(|view| match reference {
            Reference::Number(number) => view.operation(*number),
            Reference::Id(id) => view.operation_by_id(*id),
            Reference::Last => last_of_user(self, view),
        })?;
        found.ok_or_else(|| ClientError::NoSuchOperation(reference.to_string()))
    }

    /// Returns at most `limit` operations that match, newest first.
    pub fn list(&self, filter: &Filter, limit: Option<usize>) -> Result<Page, ClientError> {
        self.with_view(|view| {
            let mut page = Page::default();
            let visited = view.visit(
                Order::NewestFirst,
                |file| filter.may_match_in(file),
                |summary| filter.may_match(summary),
                |operation| {
                    if !filter.matches(&operation) {
                        return ControlFlow::Continue(());
                    }
                    if limit.is_some_and(|limit| page.operations.len() == limit) {
                        page.next = page.operations.last().map(|last| last.number);
                        return ControlFlow::Break(());
                    }
                    page.operations.push(operation);
                    ControlFlow::Continue(())
                },
            );
            match visited {
                Err(WalError::Damaged(damage)) => page.damage = Some(damage),
                other => other?,
            }
            page.damage = page.damage.or_else(|| view.damage().cloned());
            Ok(page)
        })
    }

    /// Returns the process that drains this log now, if there is one.
    pub fn running_loop(&self) -> Result<Option<HolderNote>, ClientError> {
        let file = match self.disk.open(&self.layout.lock(LockName::Process), Access::Read) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let note: Option<HolderNote> = note::read(&*file)?;
        Ok(note.filter(|note| {
            note.boot == self.disk.identity().boot_id && self.disk.is_alive(note.pid, note.started)
        }))
    }

    /// Returns the bytes moved by a running attempt; `None` if it moves none or has just begun.
    pub fn progress(&self, operation: &Operation) -> Result<Option<Progress>, ClientError> {
        let Some(claim) = operation.claim() else { return Ok(None) };
        if !is_running(self, operation)? {
            return Ok(None);
        }
        Ok(progress::of(&*self.disk, &self.layout, claim.pid, operation.number))
    }

    /// Returns the first damage that keeps the log from being read in full, if there is one.
    pub fn damage(&self) -> Result<Option<Damage>, ClientError> {
        self.with_view(|view| Ok(view.damage().cloned()))
    }
}

fn last_of_user(client: &Client, view: &View) -> WalResult<Option<Operation>> {
    let user = format!("{}@", client.disk.identity().user);
    let mut found = None;
    view.visit(
        Order::NewestFirst,
        |_| true,
        |_| true,
        |operation| {
            if operation.history.first().is_some_and(|entry| entry.actor.starts_with(&user)) {
                found = Some(operation);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(found)
}

/// Returns `true` if the process that claimed an operation is the one that drains the log now.
///
/// The process id alone does not decide: in a container, an earlier process may have had it.
pub(super) fn is_running(client: &Client, operation: &Operation) -> Result<bool, ClientError> {
    let Some(claim) = operation.claim() else { return Ok(false) };
    let is_holder = |holder: &HolderNote| {
        holder.pid == claim.pid && holder.host == claim.host && holder.since <= claim.started
    };
    Ok(client.running_loop()?.as_ref().is_some_and(is_holder))
}
