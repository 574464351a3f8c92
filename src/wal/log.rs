//! Writing to the journal: append, group commit, rotation, recovery.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::chain::{self, Position};
use super::error::{WalError, WalResult};
use super::journal::{self, FrameKind, HEADER_LEN, Header, PayloadBuilder};
use super::locks::LockFile;
use super::manifest::Manifest;
use super::note::{self, AppendNote, SyncNote};
use super::view::View;
use super::{Layout, LockName};
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskError, DiskFile};
use crate::operation::{
    BackendName, Event, IllegalTransition, Logged, Number, Operation, OperationId, OperationType, Revision, Status,
};

/// Zeros are laid ahead in pieces of this size: overwriting them costs less to flush than growing the file.
const AHEAD: u64 = 256 * 1024;

/// How a log is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// Operations of one partition.
    pub partition_size: usize,
    /// Whether completed operations move to archives.
    pub archive_completed: bool,
    /// How long to wait for a lock.
    pub lock_timeout: Duration,
    /// Size at which a generation is closed.
    pub generation_bytes: u64,
    /// Journal size at which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Age of the oldest transition at which a checkpoint is due, in milliseconds.
    pub checkpoint_age_ms: i64,
    /// Room that is kept for finishing what is logged: new operations are refused below it.
    pub min_free_bytes: u64,
    /// Whether to trust a network file system with the log.
    pub allow_network_fs: bool,
    /// What this process is doing, for notes and histories.
    pub command: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            partition_size: 1000,
            archive_completed: true,
            lock_timeout: Duration::from_secs(10),
            generation_bytes: 4 << 20,
            checkpoint_bytes: 8 << 20,
            checkpoint_age_ms: 60_000,
            min_free_bytes: 64 << 20,
            allow_network_fs: false,
            command: "library".into(),
        }
    }
}

/// An operation as the caller knows it: a change is refused if it has changed since.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// Its revision.
    pub revision: Revision,
    /// Its status.
    pub status: Status,
    /// Its type.
    pub operation_type: OperationType,
    /// Its backend.
    pub backend: BackendName,
}

impl From<&Operation> for Known {
    fn from(operation: &Operation) -> Known {
        Known {
            number: operation.number,
            id: operation.id,
            revision: operation.revision,
            status: operation.status(),
            operation_type: operation.operation_type.clone(),
            backend: operation.backend.clone(),
        }
    }
}

/// A change to be written.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new operation.
    New(Logged),
    /// The next event of an operation.
    Next(Known, Event),
}

/// A change that was written and is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The operation's number.
    pub number: Number,
    /// The operation's id.
    pub id: OperationId,
    /// The transition's revision.
    pub revision: Revision,
}

/// A log that can be written to. Threads may share it.
#[derive(Debug)]
pub struct Wal {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) layout: Layout,
    pub(super) options: Options,
    actor: String,
    inner: Mutex<Inner>,
    sync: Mutex<SyncState>,
    flushed: Condvar,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) view: View,
    pub(super) lock: LockFile,
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Journal {
    generation: u64,
    file: Arc<dyn DiskFile>,
    len: u64,
}

#[derive(Debug)]
struct SyncState {
    lock: Option<LockFile>,
    generation: u64,
    synced: u64,
}

/// Where an append ended, before it is durable.
#[derive(Debug, Clone, Copy)]
struct Appended {
    generation: u64,
    end: u64,
}

impl Wal {
    /// Opens a log for writing, making it if there is none.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, layout: Layout, options: Options) -> WalResult<Wal> {
        if !disk.exists(&layout.lock(LockName::Append))? {
            // Before anything is made: what stands there may be somebody else's.
            View::open(disk.clone(), layout.clone())?;
            disk.create_dir_all_synced(layout.base()).map_err(WalError::NotLogged)?;
        }
        if !options.allow_network_fs && disk.is_network(layout.base())? {
            return Err(WalError::NotOurs {
                path: layout.base().to_owned(),
                what: "it is on a network file system, where locks and flushes cannot be relied upon".into(),
            });
        }
        let lock = LockFile::open(&*disk, &layout, LockName::Append).map_err(nothing_logged)?;
        let view = View::open(disk.clone(), layout.clone())?;
        let identity = disk.identity();
        let actor = format!("{}@{} {}[{}]", identity.user, identity.host, options.command, identity.pid);
        Ok(Wal {
            disk,
            clock,
            layout,
            options,
            actor,
            inner: Mutex::new(Inner { view, lock, journal: None }),
            sync: Mutex::new(SyncState { lock: None, generation: 0, synced: 0 }),
            flushed: Condvar::new(),
        })
    }

    /// Who we are in histories: `user@host command[pid]`.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Where the log is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How it is written.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Looks at the log as it is now; starts over if files vanish meanwhile.
    pub fn read<T>(&self, mut look: impl FnMut(&mut View) -> WalResult<T>) -> WalResult<T> {
        let mut inner = self.lock_inner();
        inner.view.catch_up()?;
        let mut attempts = 0;
        loop {
            match look(&mut inner.view) {
                Err(error) if error.is_vanished() && attempts < 20 => {
                    attempts += 1;
                    inner.view.reload()?;
                }
                other => return other,
            }
        }
    }

    pub(super) fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs new operations, a frame for each thousand; durable when this returns.
    pub fn append_new(&self, operations: Vec<Logged>) -> WalResult<Vec<Written>> {
        let free = self.disk.free_bytes(self.layout.base())?;
        if free < self.options.min_free_bytes {
            let path = self.layout.base().to_owned();
            return Err(WalError::NoSpace { path, free, wanted: self.options.min_free_bytes });
        }
        self.transact(|_| Ok((operations.iter().cloned().map(Change::New).collect(), ()))).map(|(written, ())| written)
    }

    /// Looks at the log and writes what follows, with nobody writing in between; durable when this returns.
    ///
    /// `decide` may be called again if what it wrote did not reach the disk.
    pub fn transact<T>(
        &self,
        mut decide: impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        for _ in 0..3 {
            let (written, appended, result) = {
                let mut inner = self.lock_inner();
                inner.view.catch_up()?;
                let note = self.take_lock(&mut inner)?;
                let done = self.append_locked(&mut inner, note, &mut decide);
                let released = inner.lock.unlock();
                let done = done?;
                released?;
                done
            };
            let Some(appended) = appended else { return Ok((written, result)) };
            if self.wait_until_durable(appended, &written)? {
                return Ok((written, result));
            }
        }
        let why = "the journal was restarted three times while this was being written".into();
        Err(WalError::Unconfirmed { why, ids: Vec::new() })
    }

    /// Takes `lock`, and puts the journal in order if its last writer could not.
    pub(super) fn take_lock(&self, inner: &mut Inner) -> WalResult<AppendNote> {
        inner.lock.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let ready = self.make_ready(inner);
        if ready.is_err() {
            inner.lock.unlock()?;
        }
        ready
    }

    fn make_ready(&self, inner: &mut Inner) -> WalResult<AppendNote> {
        inner.view.catch_up()?;
        if let Some(damage) = inner.view.damage() {
            return Err(WalError::Damaged(damage.clone()));
        }
        let note: Option<AppendNote> = note::read(inner.lock.file())?;
        if let (Some(note), Some(position)) = (note, inner.view.position())
            && self.is_trusted(&note, &position)
            && self.flush_is_sound(note.generation)?
        {
            return Ok(note);
        }
        self.recover(inner)
    }

    fn is_trusted(&self, note: &AppendNote, position: &Position) -> bool {
        note.boot == self.disk.identity().boot_id
            && !note.at_work
            && (note.generation, note.end, note.checksum) == (position.generation, position.end, position.checksum)
            && (note.number, note.revision) == (position.number, position.revision)
    }

    /// Whether the last flush succeeded or is under way; false: it failed, or its process died in it.
    fn flush_is_sound(&self, generation: u64) -> WalResult<bool> {
        let mut lock = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
        let sound = |lock: &LockFile| -> WalResult<bool> {
            let note: Option<SyncNote> = note::read(lock.file())?;
            Ok(note.is_some_and(|note| {
                note.boot == self.disk.identity().boot_id && note.generation == generation && note.syncing.is_none()
            }))
        };
        if sound(&lock)? {
            return Ok(true);
        }
        if !lock.try_lock(&*self.disk)? {
            // Its holder is at work; if that fails, it says so in the note that it leaves.
            return Ok(true);
        }
        let result = sound(&lock);
        lock.unlock()?;
        result
    }

    /// Under `lock`: decides, writes, notes the new end.
    fn append_locked<T>(
        &self,
        inner: &mut Inner,
        mut note: AppendNote,
        decide: &mut impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, Option<Appended>, T)> {
        let (changes, result) = decide(&mut inner.view)?;
        if changes.is_empty() {
            return Ok((Vec::new(), None, result));
        }
        let now = self.clock.now();
        let mut written = Vec::with_capacity(changes.len());
        let mut number = note.number;
        let mut rest = changes.iter().enumerate().peekable();
        let mut payloads = Vec::new();
        let mut payload = PayloadBuilder::new(&self.actor);
        while let Some((nth, change)) = rest.peek() {
            let (named, from, operation_type, backend, event) = match change {
                Change::New(logged) => {
                    let random = u128::from(self.clock.random()) << 64 | u128::from(self.clock.random());
                    let id = OperationId::new(now, *nth, random);
                    let event = Event::Logged(Box::new(logged.clone()));
                    ((number, id, now), None, &logged.operation_type, &logged.backend, event)
                }
                Change::Next(known, event) => {
                    self.check_known(&inner.view, known, event)?;
                    let named = (known.number, known.id, now);
                    (named, Some(known.status), &known.operation_type, &known.backend, event.clone())
                }
            };
            if !payload.push(named, from, operation_type, backend, &event) {
                if payload.count() == 0 {
                    let bytes = serde_json::to_vec(&event).map_or(0, |bytes| bytes.len());
                    return Err(WalError::TooLarge { bytes, max: journal::FRAME_MAX });
                }
                let full = std::mem::replace(&mut payload, PayloadBuilder::new(&self.actor));
                payloads.push((full, number));
                continue;
            }
            let revision = note.revision + 1 + written.len() as u64;
            written.push(Written { number: named.0, id: named.1, revision });
            number += u64::from(from.is_none());
            rest.next();
        }
        payloads.push((payload, number));
        let mut appended = None;
        for (payload, next_number) in payloads {
            match self.append_payload(inner, &mut note, payload, next_number) {
                Ok(()) => appended = Some(Appended { generation: note.generation, end: note.end }),
                // The frames before this one stand; it would be untrue to say that nothing was logged.
                Err(error) if appended.is_some() => {
                    let ids = written.iter().map(|written| written.id).collect();
                    return Err(WalError::Unconfirmed { why: error.to_string(), ids });
                }
                Err(error) => return Err(error),
            }
        }
        Ok((written, appended, result))
    }

    fn append_payload(
        &self,
        inner: &mut Inner,
        note: &mut AppendNote,
        payload: PayloadBuilder,
        next_number: Number,
    ) -> WalResult<()> {
        let count = payload.count() as u64;
        let bytes = payload.finish();
        if note.end + journal::frame_len(bytes.len()) as u64 > self.options.generation_bytes && note.last != 0 {
            *note = self.rotate(inner, note.clone())?;
        }
        *note = self.write_frame(inner, note.clone(), &bytes, count, next_number)?;
        Ok(())
    }

    fn check_known(&self, view: &View, known: &Known, event: &Event) -> WalResult<()> {
        match view.standing(known.number, known.id)? {
            Some((revision, status)) if revision == known.revision && status == known.status => {}
            _ => return Err(WalError::Conflict { number: known.number }),
        }
        if !event.is_legal_from(Some(known.status)) {
            let illegal = IllegalTransition::Status { number: known.number, from: Some(known.status), to: event.to() };
            return Err(illegal.into());
        }
        Ok(())
    }

    fn journal<'a>(&self, inner: &'a mut Inner, generation: u64) -> WalResult<&'a mut Journal> {
        if inner.journal.as_ref().is_none_or(|journal| journal.generation != generation) {
            let file: Arc<dyn DiskFile> =
                Arc::from(self.disk.open(&self.layout.generation(generation), Access::Write)?);
            let len = file.metadata()?.len;
            inner.journal = Some(Journal { generation, file, len });
        }
        inner.journal.as_mut().ok_or_else(|| WalError::damaged(self.layout.journal(), None, "no generation is open"))
    }

    /// One frame, one write. The note says `at work` while the journal may be torn.
    fn write_frame(
        &self,
        inner: &mut Inner,
        mut note: AppendNote,
        payload: &[u8],
        count: u64,
        number: Number,
    ) -> WalResult<AppendNote> {
        let synced = self.synced_of(note.generation);
        let (bytes, checksum) =
            journal::encode_frame(note.generation, FrameKind::Transitions, synced, note.revision + 1, payload);
        let start = note.end;
        let end = start + bytes.len() as u64;
        note.at_work = true;
        note.pid = self.disk.identity().pid;
        note.command.clone_from(&self.options.command);
        note.since = self.clock.now();
        note::write(inner.lock.file(), &note).map_err(WalError::NotLogged)?;
        let journal = self.journal(inner, note.generation)?;
        if journal.len < end {
            let ahead = (end + AHEAD).min(self.options.generation_bytes.max(end));
            let zeros = vec![0; usize::try_from(ahead - journal.len).unwrap_or(0)];
            journal.file.write_at(&zeros, journal.len).map_err(WalError::NotLogged)?;
            journal.len = ahead;
        }
        if let Err(error) = journal.file.write_at(&bytes, start) {
            // A write that failed may still have arrived whole; then it counts, and the flush decides.
            let mut back = vec![0; bytes.len()];
            let read = journal.file.read_at(&mut back, start).unwrap_or(0);
            if back[..read] != bytes[..] {
                return Err(WalError::NotLogged(error));
            }
        }
        note.at_work = false;
        (note.last, note.end, note.checksum) = (start, end, checksum);
        note.revision += count;
        note.number = number;
        note::write(inner.lock.file(), &note).map_err(|error| unconfirmed(&error))?;
        Ok(note)
    }

    fn synced_of(&self, generation: u64) -> u64 {
        let state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation == generation { state.synced } else { HEADER_LEN }
    }

    /// Waits until what was appended is durable, flushing for everybody if nobody else does.
    ///
    /// False: it did not survive a restart of the journal and has to be appended anew.
    fn wait_until_durable(&self, appended: Appended, written: &[Written]) -> WalResult<bool> {
        let ids = || written.iter().map(|written| written.id).collect::<Vec<_>>();
        let outcome = self.flush(appended).map_err(|error| match error {
            WalError::Unconfirmed { why, .. } => WalError::Unconfirmed { why, ids: ids() },
            other => WalError::Unconfirmed { why: other.to_string(), ids: ids() },
        })?;
        if outcome == Flushed::Yes {
            return Ok(true);
        }
        // The generation was ended by a recovery, which flushed all that it kept.
        let mut inner = self.lock_inner();
        let stands = (|| {
            if outcome == Flushed::Failed {
                self.take_lock(&mut inner)?;
                inner.lock.unlock()?;
            }
            inner.view.catch_up()?;
            let folded = inner.view.manifest().map_or(0, |manifest| manifest.revision);
            WalResult::Ok(written.iter().all(|written| {
                let in_journal = inner.view.journal_transition(written.number, written.revision);
                in_journal == Some(written.id) || (in_journal.is_none() && written.revision <= folded)
            }))
        })();
        stands.map_err(|error| WalError::Unconfirmed { why: error.to_string(), ids: ids() })
    }

    /// Makes everything that readers can see by now durable: for whoever acts on what another wrote.
    pub fn confirm(&self) -> WalResult<()> {
        for _ in 0..3 {
            let position = self.read(|view| Ok(view.position()))?;
            let Some(position) = position else { return Ok(()) };
            let appended = Appended { generation: position.generation, end: position.end };
            match self.flush(appended)? {
                Flushed::Yes => return Ok(()),
                Flushed::Elsewhere => {}
                Flushed::Failed => {
                    let mut inner = self.lock_inner();
                    self.take_lock(&mut inner)?;
                    inner.lock.unlock()?;
                }
            }
        }
        Err(WalError::Unconfirmed { why: "the journal is being restarted again and again".into(), ids: Vec::new() })
    }

    fn flush(&self, target: Appended) -> WalResult<Flushed> {
        let start = self.clock.elapsed();
        let mut pause = Duration::from_micros(30);
        let mut state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.generation == target.generation && state.synced >= target.end {
                return Ok(Flushed::Yes);
            }
            if state.generation > target.generation {
                return Ok(Flushed::Elsewhere);
            }
            match state.lock.take() {
                // Another thread is flushing; what it flushes may be ours.
                None if state.generation != 0 => {
                    state = self.flushed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                None => state.lock = Some(LockFile::open(&*self.disk, &self.layout, LockName::Sync)?),
                Some(lock) => state.lock = Some(lock),
            }
            let Some(mut lock) = state.lock.take() else { continue };
            if state.generation == 0 {
                state.generation = target.generation;
                state.synced = HEADER_LEN;
            }
            drop(state);
            let led = self.try_flush(&mut lock, target);
            state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
            state.lock = Some(lock);
            self.flushed.notify_all();
            match led? {
                Led::Durable { generation, synced } => {
                    if generation > state.generation || (generation == state.generation && synced > state.synced) {
                        (state.generation, state.synced) = (generation, synced);
                    }
                    continue;
                }
                Led::Failed => return Ok(Flushed::Failed),
                Led::Busy => {}
            }
            if self.clock.elapsed().saturating_sub(start) >= self.options.lock_timeout {
                return Err(WalError::Unconfirmed {
                    why: format!(
                        "nobody could flush the journal within {:.1}s",
                        self.options.lock_timeout.as_secs_f64()
                    ),
                    ids: Vec::new(),
                });
            }
            drop(state);
            self.clock.sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
            state = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Looks whether it was flushed; if not, flushes all that has been written so far.
    fn try_flush(&self, lock: &mut LockFile, target: Appended) -> WalResult<Led> {
        let boot = &self.disk.identity().boot_id;
        let read = |lock: &LockFile| -> WalResult<Option<SyncNote>> {
            let note: Option<SyncNote> = note::read(lock.file())?;
            Ok(note.filter(|note| note.boot == *boot))
        };
        let done = |note: &SyncNote| {
            (note.generation > target.generation || note.generation == target.generation && note.synced >= target.end)
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
            let append: Option<AppendNote> =
                note::read(&*self.disk.open(&self.layout.lock(LockName::Append), Access::Read)?)?;
            let end = append
                .filter(|append| append.boot == *boot && append.generation == target.generation)
                .map_or(target.end, |append| append.end.max(target.end));
            note.syncing = Some(end);
            note.pid = self.disk.identity().pid;
            note::write(lock.file(), &note)?;
            let file = self.disk.open(&self.layout.generation(target.generation), Access::Write)?;
            if file.sync_data().is_err() {
                // The note keeps `syncing`: nobody may flush these pages again and believe the answer.
                return Ok(Led::Failed);
            }
            note.synced = end;
            note.syncing = None;
            note::write(lock.file(), &note)?;
            Ok(Led::Durable { generation: note.generation, synced: end })
        })();
        lock.unlock()?;
        result
    }

    /// Closes the generation and opens the next one. Holds `lock`; takes `sync.lock`.
    pub(super) fn rotate(&self, inner: &mut Inner, note: AppendNote) -> WalResult<AppendNote> {
        let mut sync = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
        sync.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let rotated = self.rotate_locked(inner, &sync, note);
        sync.unlock()?;
        rotated
    }

    fn rotate_locked(&self, inner: &mut Inner, sync: &LockFile, mut note: AppendNote) -> WalResult<AppendNote> {
        note.at_work = true;
        note::write(inner.lock.file(), &note)?;
        let old = note.generation;
        let file = self.journal(inner, old)?.file.clone();
        self.note_syncing(sync, old, note.end)?;
        file.sync_data().map_err(WalError::NotLogged)?;
        let header = Header {
            generation: self.unused_generation()?,
            previous: old,
            previous_end: note.end,
            revision: note.revision,
            number: note.number,
            checksum: note.checksum,
            created: self.clock.now(),
        };
        self.create_generation(&header, &[])?;
        self.disk.sync_dir(&self.layout.journal())?;
        let sealed = journal::sealed_payload(header.generation);
        let (bytes, _) = journal::encode_frame(old, FrameKind::Sealed, note.end, note.revision + 1, &sealed);
        file.write_at(&bytes, note.end)?;
        file.sync_data()?;
        self.begin(inner, sync, Position::start_of(&header))
    }

    fn note_syncing(&self, sync: &LockFile, generation: u64, target: u64) -> WalResult<()> {
        if let Some(mut note) = note::read::<SyncNote>(sync.file())?.filter(|note| note.generation == generation) {
            note.syncing = Some(target);
            note.pid = self.disk.identity().pid;
            note::write(sync.file(), &note)?;
        }
        Ok(())
    }

    fn unused_generation(&self) -> WalResult<u64> {
        Ok(chain::generations(&*self.disk, &self.layout)?.last().copied().unwrap_or(0) + 1)
    }

    /// A new generation with these frames, durable but for its name.
    ///
    /// The header comes last: a file whose header is whole holds all its frames.
    fn create_generation(&self, header: &Header, frames: &[u8]) -> WalResult<()> {
        let path = self.layout.generation(header.generation);
        let file = self.disk.open(&path, Access::CreateNew).map_err(WalError::NotLogged)?;
        if !frames.is_empty() {
            file.write_at(frames, HEADER_LEN).map_err(WalError::NotLogged)?;
            file.sync_all().map_err(WalError::NotLogged)?;
        }
        file.write_at(&header.encode(), 0).map_err(WalError::NotLogged)?;
        file.sync_all().map_err(WalError::NotLogged)
    }

    /// Both notes for a generation that is durable as far as `position`.
    fn begin(&self, inner: &mut Inner, sync: &LockFile, position: Position) -> WalResult<AppendNote> {
        let identity = self.disk.identity();
        let boot = identity.boot_id.clone();
        let synced = SyncNote {
            boot: boot.clone(),
            generation: position.generation,
            synced: position.end,
            syncing: None,
            pid: identity.pid,
        };
        note::write(sync.file(), &synced)?;
        let note = AppendNote {
            boot,
            at_work: false,
            generation: position.generation,
            end: position.end,
            last: position.last,
            checksum: position.checksum,
            number: position.number,
            revision: position.revision,
            pid: identity.pid,
            command: self.options.command.chars().take(100).collect(),
            since: self.clock.now(),
        };
        note::write(inner.lock.file(), &note)?;
        inner.journal = None;
        Ok(note)
    }

    /// Puts the journal in order. Holds `lock`; takes `sync.lock`.
    fn recover(&self, inner: &mut Inner) -> WalResult<AppendNote> {
        for directory in self.layout.directories() {
            self.disk.create_dir_all_synced(&directory).map_err(WalError::NotLogged)?;
        }
        let mut sync = LockFile::open(&*self.disk, &self.layout, LockName::Sync)?;
        sync.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let recovered = self.recover_locked(inner, &sync);
        sync.unlock()?;
        let note = recovered?;
        inner.view.catch_up()?;
        Ok(note)
    }

    fn recover_locked(&self, inner: &mut Inner, sync: &LockFile) -> WalResult<AppendNote> {
        let manifest = Manifest::load(&*self.disk, &self.layout)?;
        let Some(manifest) = manifest else { return self.create_log(inner, sync) };
        self.note_at_work(inner)?;
        let chain = chain::read_chain(&*self.disk, &self.layout, manifest.first_generation)?;
        if let Some(damage) = chain.damage {
            return Err(WalError::Damaged(damage));
        }
        let known = |at: usize, link: &chain::Link| -> WalResult<u64> {
            let last = at + 1 == chain.links.len();
            let noted =
                if last { chain::synced_by_note(&*self.disk, &self.layout, link.header.generation)? } else { 0 };
            Ok(link.synced.max(noted))
        };
        // The last generation of which anything beyond the header is known to be durable. The manifest's first
        // one was durable before the manifest named it.
        let mut base = chain.links.len() - 1;
        while base > 0 && known(base, &chain.links[base])? <= HEADER_LEN {
            base -= 1;
        }
        let link = &chain.links[base];
        let synced = known(base, link)?;
        let before = link
            .frames
            .iter()
            .map(|frame| frame.after)
            .take_while(|after| after.end <= synced)
            .last()
            .unwrap_or(Position::start_of(&link.header));
        let header = Header {
            generation: self.unused_generation()?,
            previous: link.header.generation,
            previous_end: before.end,
            revision: before.revision,
            number: before.number,
            checksum: before.checksum,
            created: self.clock.now(),
        };
        let mut position = Position::start_of(&header);
        let mut frames = Vec::new();
        let carried = chain.links[base..].iter().flat_map(|link| &link.frames);
        for frame in carried.filter(|frame| frame.payload.revision > before.revision) {
            let payload = &frame.payload;
            let (bytes, checksum) = journal::encode_frame(
                header.generation,
                FrameKind::Transitions,
                HEADER_LEN,
                payload.revision,
                payload.bytes(),
            );
            position.last = position.end;
            position.end += bytes.len() as u64;
            position.checksum = checksum;
            position.revision += payload.count() as u64;
            position.number = frame.after.number;
            frames.extend_from_slice(&bytes);
        }
        self.create_generation(&header, &frames)?;
        self.disk.sync_dir(&self.layout.journal())?;
        self.disk.sync_ancestors(self.layout.base())?;
        self.begin(inner, sync, position)
    }

    fn note_at_work(&self, inner: &Inner) -> WalResult<()> {
        if let Some(mut note) = note::read::<AppendNote>(inner.lock.file())? {
            note.at_work = true;
            note.pid = self.disk.identity().pid;
            note.command.clone_from(&self.options.command);
            note.since = self.clock.now();
            note::write(inner.lock.file(), &note)?;
        }
        Ok(())
    }

    /// A new log: generation, then manifest, and only then a frame.
    fn create_log(&self, inner: &mut Inner, sync: &LockFile) -> WalResult<AppendNote> {
        let header = Header {
            generation: self.unused_generation()?,
            previous: 0,
            previous_end: 0,
            revision: 0,
            number: 1,
            checksum: 0,
            created: self.clock.now(),
        };
        self.create_generation(&header, &[])?;
        self.disk.sync_dir(&self.layout.journal())?;
        self.disk.sync_ancestors(self.layout.base())?;
        Manifest::new(header.generation, self.clock.now()).commit(&*self.disk, &self.layout)?;
        self.begin(inner, sync, Position::start_of(&header))
    }
}

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

fn nothing_logged(error: WalError) -> WalError {
    match error {
        WalError::Disk(error) => WalError::NotLogged(error),
        other => other,
    }
}

fn unconfirmed(error: &DiskError) -> WalError {
    WalError::Unconfirmed { why: error.to_string(), ids: Vec::new() }
}
