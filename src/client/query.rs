use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::Client;
use super::error::ClientError;
use crate::disk::Access;
use crate::operation::{
    BackendName, Failure, Number, Operation, OperationId, OperationType, Status, Time, cause,
};
use crate::wal::{Damage, HolderNote, LockName, Order, View, WalError, note, original};
use crate::worker::progress::{self, Progress};

/// How a caller names an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Its number.
    Number(Number),
    /// Its id.
    Id(OperationId),
    /// The one that this user logged last.
    Last,
}

impl Reference {
    /// Reads a number, a full id, `@last`, or `original:` with an id of the original system that is no UUID.
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

/// Which operations a list shows. What is not given does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this status.
    pub status: Option<Status>,
    /// Of this backend.
    pub backend: Option<BackendName>,
    /// Of this type.
    pub operation_type: Option<OperationType>,
    /// Logged at this time or later.
    pub since: Option<Time>,
    /// Logged before this time.
    pub until: Option<Time>,
    /// With this type of error, in force or of the last attempt.
    pub error_type: Option<String>,
    /// With a failure of this cause: its fingerprint, as `failures` shows it, or its beginning.
    pub cause: Option<String>,
    /// Set aside.
    pub held: bool,
    /// With this idempotency key.
    pub key: Option<String>,
    /// That wait for this operation.
    pub after: Option<OperationId>,
    /// With a lower number than this.
    pub before: Option<Number>,
}

impl Filter {
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
            && self.operation_type.as_ref().is_none_or(|kind| operation.operation_type == *kind)
            && self.since.is_none_or(|since| operation.logged_at >= since)
            && self.until.is_none_or(|until| operation.logged_at < until)
            && (!self.held || (operation.hold && !operation.status().is_terminal()))
            && self.key.as_ref().is_none_or(|key| operation.idempotency_key.as_ref() == Some(key))
            && self.after.is_none_or(|id| operation.depends_on.contains(&id))
            && self.wants_failure(operation.state.failure())
            && self.before.is_none_or(|before| operation.number < before)
    }
}

/// Operations of one page, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The operations.
    pub operations: Vec<Operation>,
    /// What to pass as `before` for the next page; none on the last one.
    pub next: Option<Number>,
    /// What could not be read: operations in there are missing.
    pub damage: Option<Damage>,
}

/// Operations by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Waiting.
    pub pending: u64,
    /// Claimed.
    pub processing: u64,
    /// Done, archived ones included.
    pub completed: u64,
    /// Ended without success.
    pub failed: u64,
    /// Waiting for another attempt.
    pub retrying: u64,
}

impl StatusCounts {
    /// How many are of this status.
    pub fn of(&self, status: Status) -> u64 {
        match status {
            Status::Pending => self.pending,
            Status::Processing => self.processing,
            Status::Completed => self.completed,
            Status::Failed => self.failed,
            Status::Retrying => self.retrying,
        }
    }

    fn add(&mut self, status: Status, n: u64) {
        *match status {
            Status::Pending => &mut self.pending,
            Status::Processing => &mut self.processing,
            Status::Completed => &mut self.completed,
            Status::Failed => &mut self.failed,
            Status::Retrying => &mut self.retrying,
        } += n;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        Status::ALL.into_iter().map(|status| self.of(status)).sum()
    }
}

/// What `status` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// By status.
    pub counts: StatusCounts,
    /// How many of the completed ones are archived.
    pub archived: u64,
    /// By backend and status.
    pub backends: BTreeMap<BackendName, StatusCounts>,
    /// The pending operation that was logged first: number and time.
    pub oldest_pending: Option<(Number, Time)>,
    /// The drain loop that runs, if one does.
    pub processing: Option<HolderNote>,
    /// Bytes of transitions that no Parquet file holds yet.
    pub journal_bytes: u64,
    /// Partitions and archives.
    pub files: (u64, u64),
    /// Bytes that may still be written where the log is; none if that cannot be told.
    pub free_bytes: Option<u64>,
    /// What earlier probes say of the backends.
    pub health: Vec<crate::health::BackendHealth>,
    /// The backends that somebody means to use.
    pub used: BTreeSet<BackendName>,
    /// What of the log cannot be read.
    pub damage: Option<Damage>,
    /// What the adoption of the original system's files did not understand, in the files that it set aside.
    pub unread: Vec<Damage>,
}

impl Client {
    /// Looks at the log; without a log, at an empty one. Starts over if files vanish meanwhile.
    pub(crate) fn look<T>(
        &self,
        mut look: impl FnMut(&View) -> crate::wal::WalResult<T>,
    ) -> Result<T, ClientError> {
        let mut slot = self.view.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let view = match slot.as_mut() {
            Some(view) => {
                view.catch_up()?;
                view
            }
            None => slot.insert(View::open(self.disk.clone(), self.layout.clone())?),
        };
        for _ in 0..20 {
            match look(view) {
                Err(error) if error.is_vanished() => view.reload()?,
                other => return Ok(other?),
            }
        }
        Ok(look(view)?)
    }

    /// The operation with this reference.
    pub fn operation(&self, reference: &Reference) -> Result<Operation, ClientError> {
        let found = self.look(|view| match reference {
            Reference::Number(number) => view.operation(*number),
            Reference::Id(id) => view.operation_by_id(*id),
            Reference::Last => self.last_of_user(view),
        })?;
        found.ok_or_else(|| ClientError::NoSuchOperation(reference.to_string()))
    }

    /// The same under the name of the original system's API.
    pub fn status(&self, reference: &Reference) -> Result<Operation, ClientError> {
        self.operation(reference)
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

    /// A page of operations, newest first; `limit` 0 means all.
    pub fn list(&self, filter: &Filter, limit: usize) -> Result<Page, ClientError> {
        self.look(|view| {
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
                    if limit > 0 && page.operations.len() == limit {
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

    /// Counts, the oldest pending operation, the drain loop, room and damage.
    pub fn stats(&self) -> Result<Stats, ClientError> {
        let processing = self.processing_active()?;
        let free_bytes = self.disk.free_bytes(self.layout.base()).ok();
        self.look(|view| {
            let mut counts = StatusCounts::default();
            let mut backends: BTreeMap<BackendName, StatusCounts> = BTreeMap::new();
            for ((status, backend, _), n) in view.counts() {
                counts.add(status, n);
                backends.entry(backend).or_default().add(status, n);
            }
            let mut oldest_pending = None;
            // Damage in one file must not hide the counts, which need no file.
            let looked = view.visit(
                Order::OldestFirst,
                |file| counts.pending > 0 && file.count_of(Status::Pending) > 0,
                |glimpse| glimpse.status == Status::Pending,
                |operation| {
                    if operation.status() == Status::Pending {
                        oldest_pending = Some((operation.number, operation.logged_at));
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                },
            );
            let damage = match (view.damage(), looked) {
                (Some(damage), _) => Some(damage.clone()),
                (None, Err(WalError::Damaged(damage))) => Some(damage),
                (None, Err(error)) => return Err(error),
                (None, Ok(())) => None,
            };
            Ok(Stats {
                used: self.used(&backends),
                counts,
                archived: view.archived(),
                backends,
                oldest_pending,
                processing: processing.clone(),
                journal_bytes: view.journal_load().0,
                files: view.file_counts(),
                free_bytes,
                health: self.known_health(),
                damage,
                unread: view.unread()?,
            })
        })
    }

    /// The backends that somebody means to use: the default one, those with settings of their own, and those of
    /// operations in the log. The others are known because every type is.
    pub fn used_backends(&self) -> Result<BTreeSet<BackendName>, ClientError> {
        self.look(|view| {
            let logged = view.counts().into_iter().map(|((_, backend, _), n)| (backend, n));
            Ok(self.used(&logged.collect()))
        })
    }

    fn used<N>(&self, logged: &BTreeMap<BackendName, N>) -> BTreeSet<BackendName> {
        let is_used = |name: &BackendName| {
            *name == self.settings.default_backend
                || logged.contains_key(name)
                || self
                    .settings
                    .backends
                    .get(name)
                    .is_none_or(|settings| !settings.is_untouched(name))
        };
        self.backends.names().map(|(name, _)| name).filter(|name| is_used(name)).cloned().collect()
    }

    /// The drain loop that runs on this log, if one does.
    pub fn processing_active(&self) -> Result<Option<HolderNote>, ClientError> {
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

    /// Whether the process that claimed an operation is the one that drains the log now. In a container, others before it
    /// had the same number.
    pub(super) fn is_carried_out(&self, operation: &Operation) -> Result<bool, ClientError> {
        let Some(claim) = operation.claim() else { return Ok(false) };
        let is_holder = |holder: &HolderNote| {
            holder.pid == claim.pid && holder.host == claim.host && holder.since <= claim.started
        };
        Ok(self.processing_active()?.as_ref().is_some_and(is_holder))
    }

    /// How far a running attempt has come, if it moves bytes and has run for a while.
    pub fn progress(&self, operation: &Operation) -> Result<Option<Progress>, ClientError> {
        let Some(claim) = operation.claim() else { return Ok(None) };
        Ok(self
            .is_carried_out(operation)?
            .then(|| progress::of(&*self.disk, &self.layout, claim.pid, operation.number))
            .flatten())
    }

    /// What of the log cannot be read, if anything.
    pub fn damage(&self) -> Result<Option<Damage>, ClientError> {
        self.look(|view| Ok(view.damage().cloned()))
    }
}
