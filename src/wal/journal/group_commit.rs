//! Group commit: one of the waiting processes flushes for all, and notes the end of what is
//! durable.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::format::HEADER_LEN;
use super::interfaces::JournalView;
use super::lock::LockFile;
use super::note::{self, AppendNote, SyncNote};
use super::writer::{Appended, Flusher, JournalWriter, lock};
use crate::disk::Access;
use crate::wal::change::Written;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::LockName;

/// The longest time that a thread waits for another one's flush before it checks the clock.
const THREAD_WAIT: Duration = Duration::from_millis(20);

/// The number of times that confirming is attempted if the journal is recovered meanwhile.
const CONFIRMATIONS_MAX: usize = 3;

/// The outcome of waiting for a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlushOutcome {
    /// The frames are durable.
    Synced,
    /// The journal continues in another generation.
    Superseded,
    /// A flush failed: the journal has to be recovered.
    Failed,
}

/// The outcome of one attempt to flush.
#[derive(Debug, Clone, Copy)]
enum FlushAttempt {
    /// The journal is durable up to offset `synced` of `generation`.
    Durable { generation: u64, synced: u64 },
    /// Another process is flushing.
    Busy,
    /// A flush failed: the journal has to be recovered.
    Failed,
}

/// The way in which an append became durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wal) enum Flush {
    /// All of it was flushed.
    Synced,
    /// A recovery has ended its generation. The frames that the recovery kept are durable.
    Recovered,
}

impl<V: JournalView> JournalWriter<V> {
    /// Returns the offset up to which this process knows a generation to be durable.
    pub(in crate::wal) fn synced_of(&self, generation: u64) -> u64 {
        let state = lock(&self.sync);
        if state.generation == generation { state.synced } else { HEADER_LEN }
    }

    /// Waits until an append is durable, and flushes it if no other process does.
    ///
    /// Returns the number of durable transitions, counted from the first of `written`. A recovery
    /// dropped the others; they have to be appended again.
    pub(in crate::wal) fn wait_until_durable(
        &self,
        appended: &Appended,
        written: &[Written],
    ) -> WalResult<usize> {
        let durable = (|| {
            if self.flush_or_recover(appended)? == Flush::Synced {
                return Ok(written.len());
            }
            // A recovery ended the generation, and flushed the frames that it kept.
            let mut writer = self.lock_writer();
            writer.view.catch_up()?;
            for (nth, written) in written.iter().enumerate() {
                if !writer.view.has_transition(written, self.actor())? {
                    return Ok(nth);
                }
            }
            Ok(written.len())
        })();
        durable.map_err(|error| {
            let why = match error {
                WalError::Unconfirmed { why, .. } => why,
                other => other.to_string(),
            };
            WalError::Unconfirmed { why, ids: written.iter().map(|written| written.id).collect() }
        })
    }

    /// Flushes an append, or recovers the journal if that fails.
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
            // Taking `lock` recovers the journal only if no process holds `sync.lock`, and its
            // holder may merely be reading the note of the failure. A newer generation proves a
            // recovery.
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

    /// Makes everything durable that readers can see now, so that this process can act on
    /// transitions of another one.
    pub fn confirm(&self) -> WalResult<()> {
        for _ in 0..CONFIRMATIONS_MAX {
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

    /// Opens the files that a flush needs.
    fn open_flusher(&self) -> WalResult<Flusher> {
        Ok(Flusher {
            lock: LockFile::open(&*self.disk, &self.layout, LockName::Sync)?,
            append: self.disk.open(&self.layout.lock(LockName::Append), Access::Read)?,
        })
    }

    /// Opens the files that a flush needs, unless they are open. Called before writing: without
    /// file descriptors for the flush, a frame could be written but not confirmed.
    pub(in crate::wal) fn prepare_flush(&self) -> WalResult<()> {
        let mut state = lock(&self.sync);
        if state.generation == 0 && state.flusher.is_none() {
            state.flusher = Some(self.open_flusher()?);
        }
        Ok(())
    }

    /// Waits until the frames up to `target` are durable, and flushes them if no other thread or
    /// process does.
    fn flush(&self, target: &Appended) -> WalResult<FlushOutcome> {
        let start = self.clock.elapsed();
        let is_over = || self.clock.elapsed().saturating_sub(start) >= self.options.lock_timeout;
        let mut pause = Duration::from_micros(30);
        let mut state = lock(&self.sync);
        loop {
            if state.generation == target.generation && state.synced >= target.end {
                return Ok(FlushOutcome::Synced);
            }
            if state.generation > target.generation {
                return Ok(FlushOutcome::Superseded);
            }
            let mut flusher = match state.flusher.take() {
                Some(flusher) => flusher,
                None if state.generation == 0 => self.open_flusher()?,
                // Another thread is flushing, possibly these frames too. It may have stopped, or
                // the disk may hang: the wait ends after the same time as one for a lock.
                None => {
                    let waited = self.flushed.wait_timeout(state, THREAD_WAIT);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    if is_over() {
                        let holder = "another thread of this process is flushing it";
                        return Err(self.not_flushed(holder));
                    }
                    continue;
                }
            };
            if state.generation == 0 {
                (state.generation, state.synced) = (target.generation, HEADER_LEN);
            }
            drop(state);
            let attempt = self.flush_once(&mut flusher, target);
            state = lock(&self.sync);
            state.flusher = Some(flusher);
            self.flushed.notify_all();
            match attempt? {
                FlushAttempt::Durable { generation, synced } => {
                    let known = (state.generation, state.synced).max((generation, synced));
                    (state.generation, state.synced) = known;
                    continue;
                }
                FlushAttempt::Failed => return Ok(FlushOutcome::Failed),
                FlushAttempt::Busy if is_over() => {
                    let flusher = state.flusher.as_ref();
                    let holder = flusher.map_or_else(String::new, |flusher| flusher.lock.holder());
                    return Err(self.not_flushed(&holder));
                }
                FlushAttempt::Busy => {}
            }
            drop(state);
            self.clock.sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
            state = lock(&self.sync);
        }
    }

    fn not_flushed(&self, holder: &str) -> WalError {
        let waited = self.options.lock_timeout.as_secs_f64();
        let why = format!("the journal was not flushed within {waited:.1}s; {holder}");
        WalError::Unconfirmed { why, ids: Vec::new() }
    }

    /// Flushes everything written so far, unless the note shows that `target` is durable.
    fn flush_once(&self, flusher: &mut Flusher, target: &Appended) -> WalResult<FlushAttempt> {
        let note = self.sync_note(&flusher.lock)?;
        if let Some(attempt) = note.as_ref().and_then(|note| durable(note, target)) {
            return Ok(attempt);
        }
        if !flusher.lock.try_lock(&*self.disk)? {
            return Ok(FlushAttempt::Busy);
        }
        let attempt = self.try_flush(flusher, target);
        flusher.lock.unlock()?;
        attempt
    }

    /// Returns the note in `sync.lock` if it is of this boot.
    fn sync_note(&self, lock: &LockFile) -> WalResult<Option<SyncNote>> {
        let note: Option<SyncNote> = note::read(lock.file())?;
        Ok(note.filter(|note| note.boot == self.disk.identity().boot_id))
    }

    /// Flushes everything written so far, and notes its end. Holds `sync.lock`.
    fn try_flush(&self, flusher: &Flusher, target: &Appended) -> WalResult<FlushAttempt> {
        let Some(mut note) = self.sync_note(&flusher.lock)? else {
            return Ok(FlushAttempt::Failed);
        };
        if let Some(attempt) = durable(&note, target) {
            return Ok(attempt);
        }
        if note.syncing.is_some() || note.generation != target.generation {
            return Ok(FlushAttempt::Failed);
        }
        let boot = &self.disk.identity().boot_id;
        let append: Option<AppendNote> = note::read(&*flusher.append)?;
        let end = append
            .filter(|append| append.boot == *boot && append.generation == target.generation)
            .map_or(target.end, |append| append.end.max(target.end));
        note.syncing = Some(end);
        note.pid = self.disk.identity().pid;
        note.command.clone_from(&self.options.command);
        note::write(flusher.lock.file(), &note)?;
        let file = match &target.file {
            Some(file) => file.clone(),
            None => {
                let path = self.layout.generation(target.generation);
                Arc::from(self.disk.open(&path, Access::Write)?)
            }
        };
        if file.sync_data().is_err() {
            // The note keeps `syncing`: another flush of these pages might report success without
            // having written them.
            return Ok(FlushAttempt::Failed);
        }
        tracing::debug!(generation = note.generation, end, "journal flushed");
        note.synced = end;
        note.syncing = None;
        note::write(flusher.lock.file(), &note)?;
        Ok(FlushAttempt::Durable { generation: note.generation, synced: end })
    }
}

/// Returns the success that a note proves, if it covers `target`.
fn durable(note: &SyncNote, target: &Appended) -> Option<FlushAttempt> {
    let (generation, synced) = (note.generation, note.synced);
    ((generation, synced) >= (target.generation, target.end))
        .then_some(FlushAttempt::Durable { generation, synced })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::disk::{Disk, Machine};
    use crate::operation::{BackendName, Fields, Logged, OperationType, Revision};
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
    fn a_lock_file_removed_before_the_first_write_is_recreated() {
        let (machine, layout) = (Machine::new(), Layout::new("/wal"));
        let clock = Arc::new(SystemClock::new());
        let wal = Wal::open(Arc::new(machine.process()), clock, layout.clone(), Options::default())
            .unwrap();
        machine.process().remove_file(&layout.lock(LockName::Append)).unwrap();
        wal.append_new(vec![one()]).unwrap();
    }

    #[test]
    fn the_wait_for_another_threads_flush_ends() {
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
        // A thread takes the flusher when it begins to flush.
        let flusher = wal.journal.sync.lock().unwrap().flusher.take();
        assert!(flusher.is_some());
        let start = clock.elapsed();
        let error = wal.append_new(vec![one()]).unwrap_err();
        let WalError::Unconfirmed { why, ids } = &error else { panic!("{error}") };
        assert!(why.contains("within 0.1s; another thread") && ids.len() == 1, "{error}");
        assert!(clock.elapsed() - start < Duration::from_secs(5));
        // Once it is returned, appends succeed again, and the unconfirmed operation is found.
        wal.journal.sync.lock().unwrap().flusher = flusher;
        wal.append_new(vec![one()]).unwrap();
        assert_eq!(wal.read(|view| Ok(view.last_revision())).unwrap(), Revision::new(3));
    }
}
