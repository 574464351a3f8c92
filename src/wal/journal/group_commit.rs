//! Group commit: one process flushes for everybody, and tells them in its note.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::format::HEADER_LEN;
use super::lock::LockFile;
use super::note::{self, AppendNote, SyncNote};
use super::writer::{Appended, Wal};
use crate::disk::{Access, DiskFile};
use crate::wal::change::Written;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::LockName;

/// How often a thread that waits for another one's flush looks at the clock.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flushed {
    /// It is durable.
    Yes,
    /// The journal has moved on to another generation.
    Elsewhere,
    /// The flush failed: the journal needs a recovery.
    Failed,
}

#[derive(Debug, Clone, Copy)]
enum Led {
    Durable { generation: u64, synced: u64 },
    Busy,
    Failed,
}

/// What a flush needs open.
#[derive(Debug)]
pub(in crate::wal) struct Flusher {
    lock: LockFile,
    /// `lock`, for its note.
    append: Box<dyn DiskFile>,
}

impl Wal {
    pub(in crate::wal) fn synced_of(&self, generation: u64) -> u64 {
        let state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation == generation { state.synced } else { HEADER_LEN }
    }

    /// Waits until what was appended is durable, flushing for everybody if nobody else does.
    ///
    /// Returns how many of `written` are, counted from the first: fewer than all if a restart of the journal
    /// dropped the rest, which then has to be appended anew.
    pub(in crate::wal) fn wait_until_durable(
        &self,
        appended: &Appended,
        written: &[Written],
    ) -> WalResult<usize> {
        let standing = (|| {
            if self.flush_or_recover(appended)? {
                return Ok(written.len());
            }
            // The generation was ended by a recovery, which flushed all that it kept.
            let mut inner = self.lock_inner();
            inner.view.catch_up()?;
            for (nth, written) in written.iter().enumerate() {
                if !inner.view.has_transition(written, self.actor())? {
                    return Ok(nth);
                }
            }
            Ok(written.len())
        })();
        standing.map_err(|error| {
            let why = match error {
                WalError::Unconfirmed { why, .. } => why,
                other => other.to_string(),
            };
            WalError::Unconfirmed { why, ids: written.iter().map(|written| written.id).collect() }
        })
    }

    /// True: flushed. False: a recovery has ended the generation; what it kept is durable.
    pub(in crate::wal) fn flush_or_recover(&self, appended: &Appended) -> WalResult<bool> {
        let start = self.clock.elapsed();
        loop {
            match self.flush(appended)? {
                Flushed::Yes => return Ok(true),
                Flushed::Elsewhere => return Ok(false),
                Flushed::Failed => {}
            }
            let generation = {
                let mut inner = self.lock_inner();
                let note = self.take_lock(&mut inner)?;
                inner.lock.unlock()?;
                note.generation
            };
            // Only a newer generation proves that there was a recovery: whoever holds `sync.lock` at this moment
            // may merely be reading the note of the failure, as we did.
            if generation != appended.generation {
                return Ok(false);
            }
            if self.clock.elapsed().saturating_sub(start) >= self.options.lock_timeout {
                let why = "a flush failed, and the journal could not be restarted".to_owned();
                return Err(WalError::Unconfirmed { why, ids: Vec::new() });
            }
            self.clock.sleep(Duration::from_millis(1));
        }
    }

    /// Makes everything that readers can see by now durable: for whoever acts on what another wrote.
    pub fn confirm(&self) -> WalResult<()> {
        for _ in 0..3 {
            let position = self.read(|view| Ok(view.position()))?;
            let Some(position) = position else { return Ok(()) };
            let appended =
                Appended { generation: position.generation, end: position.end, file: None };
            if self.flush_or_recover(&appended)? {
                return Ok(());
            }
        }
        Err(WalError::Unconfirmed {
            why: "the journal is being restarted again and again".into(),
            ids: Vec::new(),
        })
    }

    fn open_flusher(&self) -> WalResult<Flusher> {
        Ok(Flusher {
            lock: LockFile::open(&*self.disk, &self.layout, LockName::Sync)?,
            append: self.disk.open(&self.layout.lock(LockName::Append), Access::Read)?,
        })
    }

    /// Opens what a flush needs, so that nothing is written that could not be confirmed for want of a descriptor.
    pub(in crate::wal) fn prepare_flush(&self) -> WalResult<()> {
        let mut state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation == 0 && state.flusher.is_none() {
            state.flusher = Some(self.open_flusher()?);
        }
        Ok(())
    }

    fn flush(&self, target: &Appended) -> WalResult<Flushed> {
        let start = self.clock.elapsed();
        let is_over = || self.clock.elapsed().saturating_sub(start) >= self.options.lock_timeout;
        let mut pause = Duration::from_micros(30);
        let mut state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.generation == target.generation && state.synced >= target.end {
                return Ok(Flushed::Yes);
            }
            if state.generation > target.generation {
                return Ok(Flushed::Elsewhere);
            }
            let mut flusher = match state.flusher.take() {
                Some(flusher) => flusher,
                // Another thread is flushing; what it flushes may be ours.
                None if state.generation != 0 => {
                    // It may stand still in the middle of that, as may a disk: nobody waits for it longer than for a lock.
                    let waited = self
                        .flushed
                        .wait_timeout(state, LOOK_AGAIN)
                        .unwrap_or_else(PoisonError::into_inner);
                    state = waited.0;
                    if is_over() {
                        return Err(
                            self.not_flushed("another thread of this process is flushing it")
                        );
                    }
                    continue;
                }
                None => self.open_flusher()?,
            };
            if state.generation == 0 {
                state.generation = target.generation;
                state.synced = HEADER_LEN;
            }
            drop(state);
            let led = self.try_flush(&mut flusher, target);
            state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
            state.flusher = Some(flusher);
            self.flushed.notify_all();
            match led? {
                Led::Durable { generation, synced } => {
                    if generation > state.generation
                        || (generation == state.generation && synced > state.synced)
                    {
                        (state.generation, state.synced) = (generation, synced);
                    }
                    continue;
                }
                Led::Failed => return Ok(Flushed::Failed),
                Led::Busy => {}
            }
            if is_over() {
                let holder = state
                    .flusher
                    .as_ref()
                    .map_or_else(String::new, |flusher| flusher.lock.holder());
                return Err(self.not_flushed(&holder));
            }
            drop(state);
            self.clock.sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
            state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn not_flushed(&self, who: &str) -> WalError {
        let waited = self.options.lock_timeout.as_secs_f64();
        let why = format!("nobody could flush the journal within {waited:.1}s; {who}");
        WalError::Unconfirmed { why, ids: Vec::new() }
    }

    /// Looks whether it was flushed; if not, flushes all that has been written so far.
    fn try_flush(&self, flusher: &mut Flusher, target: &Appended) -> WalResult<Led> {
        let Flusher { lock, append } = flusher;
        let boot = &self.disk.identity().boot_id;
        let read = |lock: &LockFile| -> WalResult<Option<SyncNote>> {
            let note: Option<SyncNote> = note::read(lock.file())?;
            Ok(note.filter(|note| note.boot == *boot))
        };
        let done = |note: &SyncNote| {
            (note.generation > target.generation
                || note.generation == target.generation && note.synced >= target.end)
                .then_some(Led::Durable { generation: note.generation, synced: note.synced })
        };
        if let Some(led) = read(lock)?.as_ref().and_then(done) {
            return Ok(led);
        }
        if !lock.try_lock(&*self.disk)? {
            return Ok(Led::Busy);
        }
        let result = (|| {
            let Some(mut note) = read(lock)? else { return Ok(Led::Failed) };
            if let Some(led) = done(&note) {
                return Ok(led);
            }
            if note.syncing.is_some() || note.generation != target.generation {
                return Ok(Led::Failed);
            }
            let append: Option<AppendNote> = note::read(&**append)?;
            let end = append
                .filter(|append| append.boot == *boot && append.generation == target.generation)
                .map_or(target.end, |append| append.end.max(target.end));
            note.syncing = Some(end);
            note.pid = self.disk.identity().pid;
            note.command.clone_from(&self.options.command);
            note::write(lock.file(), &note)?;
            let file = match &target.file {
                Some(file) => file.clone(),
                None => Arc::from(
                    self.disk.open(&self.layout.generation(target.generation), Access::Write)?,
                ),
            };
            if file.sync_data().is_err() {
                // The note keeps `syncing`: nobody may flush these pages again and believe the answer.
                return Ok(Led::Failed);
            }
            tracing::debug!(generation = note.generation, end, "journal flushed");
            note.synced = end;
            note.syncing = None;
            note::write(lock.file(), &note)?;
            Ok(Led::Durable { generation: note.generation, synced: end })
        })();
        lock.unlock()?;
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::disk::{Disk, Machine};
    use crate::operation::Revision;
    use crate::operation::{BackendName, Fields, Logged, OperationType};
    use crate::wal::journal::writer::Options;
    use crate::wal::layout::Layout;

    fn one() -> Logged {
        Logged::new(
            OperationType::new("job").unwrap(),
            BackendName::new("a").unwrap(),
            Fields::new(),
            0,
        )
    }

    #[test]
    fn a_lock_that_is_removed_before_the_first_write_is_made_again() {
        let (machine, layout) = (Machine::new(), Layout::new("/wal"));
        let clock = Arc::new(SystemClock::new());
        let wal = Wal::open(Arc::new(machine.process()), clock, layout.clone(), Options::default())
            .unwrap();
        machine.process().remove_file(&layout.lock(LockName::Append)).unwrap();
        wal.append_new(vec![one()]).unwrap();
    }

    #[test]
    fn a_thread_whose_flush_never_ends_is_not_waited_for_for_ever() {
        let options = Options { lock_timeout: Duration::from_millis(100), ..Options::default() };
        let clock = Arc::new(SystemClock::new());
        let wal = Wal::open(
            Arc::new(Machine::new().process()),
            clock.clone(),
            Layout::new("/wal"),
            options,
        )
        .unwrap();
        wal.append_new(vec![one()]).unwrap();
        // As a thread does that begins to flush.
        let flusher = wal.sync.lock().unwrap().flusher.take();
        assert!(flusher.is_some());
        let start = clock.elapsed();
        let error = wal.append_new(vec![one()]).unwrap_err();
        let WalError::Unconfirmed { why, ids } = &error else { panic!("{error}") };
        assert!(why.contains("within 0.1s; another thread") && ids.len() == 1, "{error}");
        assert!(clock.elapsed() - start < Duration::from_secs(5));
        // When it comes back, all goes on, and what was unconfirmed is there.
        wal.sync.lock().unwrap().flusher = flusher;
        wal.append_new(vec![one()]).unwrap();
        assert_eq!(wal.read(|view| Ok(view.last_revision())).unwrap(), Revision::new(3));
    }
}
