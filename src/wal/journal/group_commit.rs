//! Group commit: one process flushes for all that wait, and its note says how far.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::format::HEADER_LEN;
use super::interfaces::JournalView;
use super::lock::LockFile;
use super::note::{self, AppendNote, SyncNote};
use super::writer::{Appended, Flusher, JournalWriter};
use crate::disk::Access;
use crate::wal::change::Written;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::LockName;

/// How often a thread that waits for another one's flush looks at the clock.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlushOutcome {
    /// The frames are durable.
    Synced,
    /// The journal has moved on to another generation.
    Superseded,
    /// The flush failed: the journal needs a recovery.
    Failed,
}

#[derive(Debug, Clone, Copy)]
enum FlushAttempt {
    Durable { generation: u64, synced: u64 },
    Busy,
    Failed,
}

/// How it became certain what of an append is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wal) enum Flush {
    /// All of it was flushed.
    Synced,
    /// A recovery has ended its generation. The part that the recovery kept is durable.
    Recovered,
}

impl<V: JournalView> JournalWriter<V> {
    pub(in crate::wal) fn synced_of(&self, generation: u64) -> u64 {
        let state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation == generation { state.synced } else { HEADER_LEN }
    }

    /// Waits until what was appended is durable, and flushes it if no other process does.
    ///
    /// Returns how many of `written` are durable, counted from the first. If a recovery dropped the
    /// rest, that has to be appended again.
    pub(in crate::wal) fn wait_until_durable(
        &self,
        appended: &Appended,
        written: &[Written],
    ) -> WalResult<usize> {
        let standing = (|| {
            if self.flush_or_recover(appended)? == Flush::Synced {
                return Ok(written.len());
            }
            // The generation was ended by a recovery, which flushed all that it kept.
            let mut writer = self.lock_writer();
            writer.view.catch_up()?;
            for (nth, written) in written.iter().enumerate() {
                if !writer.view.has_transition(written, self.actor())? {
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

    /// Flushes what was appended, or has the journal recovered if that is not possible.
    pub(in crate::wal) fn flush_or_recover(&self, appended: &Appended) -> WalResult<Flush> {
        let start = self.clock.elapsed();
        loop {
            match self.flush(appended)? {
                FlushOutcome::Synced => return Ok(Flush::Synced),
                FlushOutcome::Superseded => return Ok(Flush::Recovered),
                FlushOutcome::Failed => {}
            }
            let generation = {
                let mut writer = self.lock_writer();
                let note = self.take_lock(&mut writer)?;
                writer.lock.unlock()?;
                note.generation
            };
            // Only a newer generation proves that there was a recovery: the holder of `sync.lock`
            // may merely be reading the note of the failure, as this process did.
            if generation != appended.generation {
                return Ok(Flush::Recovered);
            }
            if self.clock.elapsed().saturating_sub(start) >= self.options.lock_timeout {
                let why = "a flush failed, and the journal could not be recovered".to_owned();
                return Err(WalError::Unconfirmed { why, ids: Vec::new() });
            }
            self.clock.sleep(Duration::from_millis(1));
        }
    }

    /// Makes everything durable that readers can see by now: for acting on what another process
    /// wrote.
    pub fn confirm(&self) -> WalResult<()> {
        for _ in 0..3 {
            let position = self.read(|view| Ok(view.position()))?;
            let Some(position) = position else { return Ok(()) };
            let appended =
                Appended { generation: position.generation, end: position.end, file: None };
            if self.flush_or_recover(&appended)? == Flush::Synced {
                return Ok(());
            }
        }
        Err(WalError::Unconfirmed {
            why: "the journal is being recovered repeatedly".into(),
            ids: Vec::new(),
        })
    }

    fn open_flusher(&self) -> WalResult<Flusher> {
        Ok(Flusher {
            lock: LockFile::open(&*self.disk, &self.layout, LockName::Sync)?,
            append: self.disk.open(&self.layout.lock(LockName::Append), Access::Read)?,
        })
    }

    /// Opens what a flush needs, so that nothing is written that could not be confirmed for want of
    /// a descriptor.
    pub(in crate::wal) fn prepare_flush(&self) -> WalResult<()> {
        let mut state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation == 0 && state.flusher.is_none() {
            state.flusher = Some(self.open_flusher()?);
        }
        Ok(())
    }

    fn flush(&self, target: &Appended) -> WalResult<FlushOutcome> {
        let start = self.clock.elapsed();
        let is_over = || self.clock.elapsed().saturating_sub(start) >= self.options.lock_timeout;
        let mut pause = Duration::from_micros(30);
        let mut state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.generation == target.generation && state.synced >= target.end {
                return Ok(FlushOutcome::Synced);
            }
            if state.generation > target.generation {
                return Ok(FlushOutcome::Superseded);
            }
            let mut flusher = match state.flusher.take() {
                Some(flusher) => flusher,
                // Another thread is flushing; what it flushes may be ours.
                None if state.generation != 0 => {
                    // That thread may have stopped, or the disk may hang: the wait ends when that
                    // for a lock would.
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
            let attempt = self.try_flush(&mut flusher, target);
            state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
            state.flusher = Some(flusher);
            self.flushed.notify_all();
            match attempt? {
                FlushAttempt::Durable { generation, synced } => {
                    if generation > state.generation
                        || (generation == state.generation && synced > state.synced)
                    {
                        (state.generation, state.synced) = (generation, synced);
                    }
                    continue;
                }
                FlushAttempt::Failed => return Ok(FlushOutcome::Failed),
                FlushAttempt::Busy => {}
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
        let why = format!("the journal was not flushed within {waited:.1}s; {who}");
        WalError::Unconfirmed { why, ids: Vec::new() }
    }

    /// Looks whether it was flushed; if not, flushes all that has been written so far.
    fn try_flush(&self, flusher: &mut Flusher, target: &Appended) -> WalResult<FlushAttempt> {
        let Flusher { lock, append } = flusher;
        let boot = &self.disk.identity().boot_id;
        let read = |lock: &LockFile| -> WalResult<Option<SyncNote>> {
            let note: Option<SyncNote> = note::read(lock.file())?;
            Ok(note.filter(|note| note.boot == *boot))
        };
        let done = |note: &SyncNote| {
            (note.generation > target.generation
                || note.generation == target.generation && note.synced >= target.end)
                .then_some(FlushAttempt::Durable {
                    generation: note.generation,
                    synced: note.synced,
                })
        };
        if let Some(attempt) = read(lock)?.as_ref().and_then(done) {
            return Ok(attempt);
        }
        if !lock.try_lock(&*self.disk)? {
            return Ok(FlushAttempt::Busy);
        }
        let result = (|| {
            let Some(mut note) = read(lock)? else { return Ok(FlushAttempt::Failed) };
            if let Some(attempt) = done(&note) {
                return Ok(attempt);
            }
            if note.syncing.is_some() || note.generation != target.generation {
                return Ok(FlushAttempt::Failed);
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
                // The note keeps `syncing`: a second flush of these pages may report success
                // without having written them.
                return Ok(FlushAttempt::Failed);
            }
            tracing::debug!(generation = note.generation, end, "journal flushed");
            note.synced = end;
            note.syncing = None;
            note::write(lock.file(), &note)?;
            Ok(FlushAttempt::Durable { generation: note.generation, synced: end })
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
    use crate::wal::layout::Layout;
    use crate::wal::{Options, Wal};

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
        let flusher = wal.journal.sync.lock().unwrap().flusher.take();
        assert!(flusher.is_some());
        let start = clock.elapsed();
        let error = wal.append_new(vec![one()]).unwrap_err();
        let WalError::Unconfirmed { why, ids } = &error else { panic!("{error}") };
        assert!(why.contains("within 0.1s; another thread") && ids.len() == 1, "{error}");
        assert!(clock.elapsed() - start < Duration::from_secs(5));
        // When it comes back, all goes on, and what was unconfirmed is there.
        wal.journal.sync.lock().unwrap().flusher = flusher;
        wal.append_new(vec![one()]).unwrap();
        assert_eq!(wal.read(|view| Ok(view.last_revision())).unwrap(), Revision::new(3));
    }
}
