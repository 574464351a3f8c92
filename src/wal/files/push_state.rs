//! The state of each archive on the way to its destination.

use std::collections::BTreeMap;

use super::archive_days::days_of_archives;
use super::destination::{KEY_START, Push, key_of};
use crate::operation::{Operation, Time};
use crate::wal::error::WalResult;
use crate::wal::manifest::{FileEntry, Pushed};
use crate::wal::read::precheck::DependencyState;
use crate::wal::read::view::View;

/// The operations that push archives, by destination.
pub(in crate::wal) type Pushes = BTreeMap<String, Operation>;

/// The state of an archive on the way to its destination.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PushState {
    /// Its day is not over.
    Open,
    /// It contains nothing but pushes of other archives, or no rows at all: it is not pushed.
    Skipped,
    /// Its day is over, and no push is logged.
    Ready,
    /// Its push is logged, and has not ended.
    Pushing(Box<Operation>),
    /// Its push failed.
    Failed(Box<Operation>),
    /// It is at its destination.
    Pushed,
}

impl PushState {
    /// Returns the word used in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            PushState::Open => "open",
            PushState::Skipped => "bare",
            PushState::Ready => "closed",
            PushState::Pushing(_) => "pushing",
            PushState::Failed(_) => "failed",
            PushState::Pushed => "pushed",
        }
    }

    /// Returns the operation that pushes it.
    pub fn operation(&self) -> Option<&Operation> {
        match self {
            PushState::Pushing(operation) | PushState::Failed(operation) => Some(operation),
            _ => None,
        }
    }
}

/// An archive and its push state.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Archive {
    pub(crate) file: FileEntry,
    /// Any instant of its day.
    pub day: Time,
    /// The destination; none if none is configured, or if the archive is not pushed.
    pub to: Option<String>,
    /// The state of its push.
    pub state: PushState,
}

impl Archive {
    /// Returns the path of the file, relative to the log.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Returns the number of operations in it.
    pub fn operations(&self) -> u64 {
        self.file.live()
    }

    /// Returns the size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.file.bytes
    }

    /// Returns whether its destination is recorded in the manifest, which precedes its push.
    pub fn is_assigned(&self) -> bool {
        self.file.pushed.is_some()
    }
}

impl View {
    /// Returns all archives in the order of the log, with their states. `push` determines the
    /// destinations of those that have none yet.
    pub fn archives(&self, now: Time, push: Option<&Push>) -> WalResult<Vec<Archive>> {
        let days = days_of_archives(self.files(), now.day());
        let is_over =
            |file: &FileEntry| days.get(file.name.as_str()).is_some_and(|day| *day < now.day());
        let wanted =
            |file: &FileEntry| push.zip(file.day).map(|(push, day)| push.destination_of(file, day));
        let left = self.files().iter().filter(|file| match &file.pushed {
            Some(pushed) => !pushed.done,
            None => is_over(file),
        });
        let marked =
            left.clone().filter_map(|file| file.pushed.as_ref().map(|pushed| pushed.to.clone()));
        let pushes = self.pushes_to(marked.chain(left.filter_map(wanted)))?;
        let mut archives = Vec::new();
        for file in self.files() {
            let Some(day) = file.day else { continue };
            let (to, state) = self.push_state_of(file, is_over(file), wanted(file), &pushes)?;
            archives.push(Archive { file: file.clone(), day, to, state });
        }
        Ok(archives)
    }

    /// Returns the destination and the state of an archive; `wanted` is its destination by the
    /// present configuration.
    fn push_state_of(
        &self,
        file: &FileEntry,
        is_over: bool,
        wanted: Option<String>,
        pushes: &Pushes,
    ) -> WalResult<(Option<String>, PushState)> {
        match (&file.pushed, wanted) {
            (Some(pushed), wanted) => {
                let state = self.state_of_destination(pushed, pushes)?;
                // Without a push, or after a failed one, the archive may get another destination.
                let may_redirect = matches!(state, PushState::Ready | PushState::Failed(_));
                match wanted.filter(|wanted| may_redirect && *wanted != pushed.to) {
                    Some(to) => Ok((
                        Some(to.clone()),
                        self.state_of_destination(&Pushed { to, done: false }, pushes)?,
                    )),
                    None => Ok((Some(pushed.to.clone()), state)),
                }
            }
            (None, _) if !is_over => Ok((None, PushState::Open)),
            (None, _) if self.holds_only_pushes(file)? => Ok((None, PushState::Skipped)),
            (None, Some(to)) => Ok((
                Some(to.clone()),
                self.state_of_destination(&Pushed { to, done: false }, pushes)?,
            )),
            (None, None) => Ok((None, PushState::Ready)),
        }
    }

    /// Returns the operations that push to these destinations. Opens each file at most once.
    fn pushes_to(&self, destinations: impl Iterator<Item = String>) -> WalResult<Pushes> {
        let mut found = Pushes::new();
        let mut left = BTreeMap::new();
        for to in destinations {
            let key = key_of(&to);
            match self
                .logged_with_key(&key)
                .map(|number| self.operation(number))
                .transpose()?
                .flatten()
            {
                Some(operation) => drop(found.insert(to, operation)),
                None => drop(left.insert(key, to)),
            }
        }
        for file in self.files().iter().rev().filter(|file| file.keys > 0) {
            if left.is_empty() {
                break;
            }
            let table = self.table(file)?;
            for group in table.groups() {
                if !left.keys().any(|key| table.may_hold_key(group, key)) {
                    continue;
                }
                for row in self.group(file, &table, group.index)?.iter() {
                    let key = row.idempotency_key.as_deref().filter(|key| left.contains_key(*key));
                    let Some(key) = key.filter(|_| !file.superseded.contains(row.number)) else {
                        continue;
                    };
                    // A deleted operation may still have its row.
                    if let (Some(operation), Some(to)) =
                        (self.operation(row.number)?, left.get(key))
                    {
                        found.insert(to.clone(), operation);
                        left.remove(key);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Returns the operations that push to recorded destinations, except those known to be
    /// completed.
    pub(in crate::wal) fn marked_pushes(&self) -> WalResult<Pushes> {
        let marks = self.files().iter().filter_map(|file| file.pushed.as_ref());
        self.pushes_to(marks.filter(|pushed| !pushed.done).map(|pushed| pushed.to.clone()))
    }

    /// Returns the state of the push to a recorded destination.
    fn state_of_destination(&self, pushed: &Pushed, pushes: &Pushes) -> WalResult<PushState> {
        if pushed.done {
            return Ok(PushState::Pushed);
        }
        let Some(operation) = pushes.get(&pushed.to).cloned() else { return Ok(PushState::Ready) };
        Ok(match self.dependency_state(operation.id)? {
            DependencyState::Done => PushState::Pushed,
            DependencyState::Failed(failed) => PushState::Failed(failed),
            DependencyState::Open(id) if id == operation.id => {
                PushState::Pushing(Box::new(operation))
            }
            DependencyState::Open(id) => {
                PushState::Pushing(Box::new(self.operation_by_id(id)?.unwrap_or(operation)))
            }
            // It was redirected to an operation that was deleted.
            DependencyState::Unknown => PushState::Failed(Box::new(operation)),
        })
    }

    /// Returns true if an archive that retention would prune must be kept for a push.
    pub(in crate::wal) fn is_needed_for_push(
        &self,
        file: &FileEntry,
        keep_unpushed: bool,
        pushes: &Pushes,
    ) -> WalResult<bool> {
        match &file.pushed {
            Some(pushed) => Ok(self.state_of_destination(pushed, pushes)? != PushState::Pushed),
            None => Ok(keep_unpushed && !self.holds_only_pushes(file)?),
        }
    }

    /// Returns the new entry of an archive if its push has been completed since its destination was
    /// recorded.
    pub(in crate::wal) fn newly_pushed(
        &self,
        file: &FileEntry,
        pushes: &Pushes,
    ) -> WalResult<Option<FileEntry>> {
        let Some(pushed) = file.pushed.as_ref().filter(|pushed| !pushed.done) else {
            return Ok(None);
        };
        if self.state_of_destination(pushed, pushes)? != PushState::Pushed {
            return Ok(None);
        }
        Ok(Some(FileEntry {
            pushed: Some(Pushed { to: pushed.to.clone(), done: true }),
            ..file.clone()
        }))
    }

    /// Returns true if an archive contains nothing but pushes of other archives. Pushing it would
    /// add another such archive every day, even to an idle log.
    fn holds_only_pushes(&self, file: &FileEntry) -> WalResult<bool> {
        if file.keys < file.live() || file.live() == 0 {
            return Ok(file.live() == 0);
        }
        let is_push = |row: &Operation| {
            row.idempotency_key.as_deref().is_some_and(|key| key.starts_with(KEY_START))
        };
        let table = self.table(file)?;
        for group in table.groups() {
            let rows = self.group(file, &table, group.index)?;
            if !rows.iter().filter(|row| !file.superseded.contains(row.number)).all(is_push) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
