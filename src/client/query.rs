use std::ops::ControlFlow;

use super::Client;
use super::error::ClientError;
use crate::disk::Access;
use crate::operation::{
    BackendName, Failure, Number, Operation, OperationId, OperationType, Status, Time, cause,
};
use crate::wal::{Damage, HolderNote, LockName, Order, View, WalError, note, original};
use crate::worker::progress::{self, Progress};

/// A reference to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Its number in this log.
    Number(Number),
    /// Its id.
    Id(OperationId),
    /// The operation that the current user of the machine logged last.
    Last,
}

impl Reference {
    /// Parses a number, a full id, `@last`, or `original:` followed by an id of `ipfs_kit_py` that is not a UUID.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadReference`] for any other text.
    pub fn parse(text: &str) -> Result<Reference, ClientError> {
        if text == "@last" {
            return Ok(Reference::Last);
        }
        if let Ok(number) = text.parse() {
            return Ok(Reference::Number(number));
        }
        if text.starts_with(original::KEY_PREFIX) {
            return Ok(Reference::Id(original::id_of_key(text)));
        }
        OperationId::parse(text)
            .map(Reference::Id)
            .ok_or_else(|| ClientError::BadReference(text.to_owned()))
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reference::Number(number) => number.fmt(f),
            Reference::Id(id) => id.fmt(f),
            Reference::Last => f.write_str("@last"),
        }
    }
}

/// Selects operations. A field that is `None` does not restrict; the others all have to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// The status.
    pub status: Option<Status>,
    /// The backend.
    pub backend: Option<BackendName>,
    /// The type.
    pub operation_type: Option<OperationType>,
    /// Logged at this time or later.
    pub since: Option<Time>,
    /// Logged before this time.
    pub until: Option<Time>,
    /// The type of error of the failure, or of the last attempt.
    pub error_type: Option<String>,
    /// Fingerprint of the cause of the failure, as [`Client::failures`] returns it, or its first digits.
    pub cause: Option<String>,
    /// Only operations that are held.
    pub held: bool,
    /// The idempotency key.
    pub key: Option<String>,
    /// Only operations that wait for this one.
    pub after: Option<OperationId>,
    /// Only operations with a lower number: [`Page::next`] of the page before.
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

    /// Restricts the cause of the failure, given as fingerprint or its first digits.
    #[must_use]
    pub fn with_cause(mut self, fingerprint: impl Into<String>) -> Filter {
        self.cause = Some(fingerprint.into());
        self
    }

    /// Continues after an earlier page: see [`Page::next`].
    #[must_use]
    pub fn with_before(mut self, number: Option<Number>) -> Filter {
        self.before = number;
        self
    }

    fn wants_failure(&self, failure: Option<&Failure>) -> bool {
        let of_type =
            |wanted: &String| failure.is_some_and(|failure| failure.error_type == *wanted);
        let of_cause = |wanted: &String| {
            failure.is_some_and(|failure| cause::fingerprint(failure).starts_with(wanted.as_str()))
        };
        self.error_type.as_ref().is_none_or(of_type) && self.cause.as_ref().is_none_or(of_cause)
    }

    fn wants(&self, operation: &Operation) -> bool {
        self.status.is_none_or(|status| operation.status() == status)
            && self.backend.as_ref().is_none_or(|backend| operation.backend == *backend)
            && self.operation_type.as_ref().is_none_or(|wanted| operation.operation_type == *wanted)
            && self.since.is_none_or(|since| operation.logged_at >= since)
            && self.until.is_none_or(|until| operation.logged_at < until)
            && (!self.held || (operation.hold && !operation.status().is_terminal()))
            && self.key.as_ref().is_none_or(|key| operation.idempotency_key.as_ref() == Some(key))
            && self.after.is_none_or(|id| operation.depends_on.contains(&id))
            && self.wants_failure(operation.state.failure())
            && self.before.is_none_or(|before| operation.number < before)
    }
}

/// One page of a list, newest operations first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The operations.
    pub operations: Vec<Operation>,
    /// The value of [`Filter::before`] for the next page; `None` on the last one.
    pub next: Option<Number>,
    /// Damage that hides operations which may belong here.
    pub damage: Option<Damage>,
}

impl Client {
    /// Returns the operation that a reference names.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoSuchOperation`] if there is none.
    pub fn operation(&self, reference: &Reference) -> Result<Operation, ClientError> {
        let found = self.with_view(|view| match reference {
            Reference::Number(number) => view.operation(*number),
            Reference::Id(id) => view.operation_by_id(*id),
            Reference::Last => self.last_of_user(view),
        })?;
        found.ok_or_else(|| ClientError::NoSuchOperation(reference.to_string()))
    }

    fn last_of_user(&self, view: &View) -> crate::wal::WalResult<Option<Operation>> {
        let user = format!("{}@", self.disk.identity().user);
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

    /// Returns the operations that match, newest first, at most `limit` of them.
    pub fn list(&self, filter: &Filter, limit: Option<usize>) -> Result<Page, ClientError> {
        self.with_view(|view| {
            let mut page = Page::default();
            let visited = view.visit(
                Order::NewestFirst,
                |file| {
                    filter.before.is_none_or(|before| file.numbers.0 < before)
                        && filter.since.is_none_or(|since| file.times.1 >= since)
                        && filter.until.is_none_or(|until| file.times.0 < until)
                        && (filter.key.is_none() || file.keys > 0)
                        && (filter.after.is_none() || file.dependents > 0)
                        && file.counts.keys().any(|(status, backend, kind)| {
                            filter.status.is_none_or(|wanted| wanted == *status)
                                && filter.backend.as_ref().is_none_or(|wanted| wanted == backend)
                                && filter
                                    .operation_type
                                    .as_ref()
                                    .is_none_or(|wanted| wanted == kind)
                        })
                },
                |glimpse| {
                    filter.status.is_none_or(|status| glimpse.status == status)
                        && filter.backend.as_ref().is_none_or(|backend| glimpse.backend == *backend)
                        && filter.before.is_none_or(|before| glimpse.number < before)
                },
                |operation| {
                    if !filter.wants(&operation) {
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

    /// Returns the process that drains this log now, if one does.
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

    /// Returns `true` if the process that claimed an operation is the one that drains the log now.
    ///
    /// The process id alone does not decide: in a container, earlier processes may have had the same one.
    pub(super) fn is_running(&self, operation: &Operation) -> Result<bool, ClientError> {
        let Some(claim) = operation.claim() else { return Ok(false) };
        let is_holder = |holder: &HolderNote| {
            holder.pid == claim.pid && holder.host == claim.host && holder.since <= claim.started
        };
        Ok(self.running_loop()?.as_ref().is_some_and(is_holder))
    }

    /// Returns the bytes moved by a running attempt; `None` if it moves none or has just begun.
    pub fn progress(&self, operation: &Operation) -> Result<Option<Progress>, ClientError> {
        let Some(claim) = operation.claim() else { return Ok(None) };
        Ok(self
            .is_running(operation)?
            .then(|| progress::of(&*self.disk, &self.layout, claim.pid, operation.number))
            .flatten())
    }

    /// Returns the first damage that keeps the log from being read in full, if there is one.
    pub fn damage(&self) -> Result<Option<Damage>, ClientError> {
        self.with_view(|view| Ok(view.damage().cloned()))
    }
}
