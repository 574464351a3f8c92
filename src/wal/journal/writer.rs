//! Writing to the journal: append, group commit, rotation, recovery.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::format::{self, FrameKind, PayloadBuilder, TRANSITIONS_MAX};
use super::group_commit::Flusher;
use super::lock::{HeldLock, LockFile};
use super::note::{self, AppendNote, SyncNote};
use super::reader::Position;
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskError, DiskFile};
use crate::operation::{Event, IllegalTransition, Logged, Number, OperationId, Time};
use crate::wal::adopt;
use crate::wal::change::{Admitted, Change, Known, Written};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::{Layout, LockName};
use crate::wal::original;
use crate::wal::read::view::View;
use crate::wal::reserve::RESERVE_BYTES;

/// Zeros are laid ahead in pieces of this size: overwriting them costs less to flush than growing the file.
const AHEAD: u64 = 256 * 1024;

/// How often something is appended anew because the journal was restarted under it.
const RESTARTS: usize = 3;

const RESTARTED: &str = "the journal was restarted again and again while this was being written";

/// How a log is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// Operations of one partition.
    pub partition_size: usize,
    /// Whether completed operations move to archives.
    pub archive_completed: bool,
    /// How long to wait for a lock.
    pub lock_timeout: Duration,
    /// Operations that one frame may log; a batch of more goes to partitions.
    pub frame_operations: usize,
    /// Operations of such a batch that get their numbers together: they are held in memory.
    pub chunk_operations: usize,
    /// Size at which a generation is closed.
    pub generation_bytes: u64,
    /// Zeros laid ahead of the frames of a generation.
    pub ahead_bytes: u64,
    /// Journal size at which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Age of the oldest transition at which a checkpoint is due, in milliseconds.
    pub checkpoint_age_ms: i64,
    /// Room that is kept for finishing what is logged: new operations are refused below it.
    pub min_free_bytes: u64,
    /// Room set aside to finish what is logged on a full disk; 0: none.
    pub reserve_bytes: u64,
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
            frame_operations: TRANSITIONS_MAX,
            chunk_operations: 8192,
            generation_bytes: 4 << 20,
            ahead_bytes: AHEAD,
            checkpoint_bytes: 8 << 20,
            checkpoint_age_ms: 60_000,
            min_free_bytes: 64 << 20,
            reserve_bytes: RESERVE_BYTES,
            allow_network_fs: false,
            command: "library".into(),
        }
    }
}
/// A log that can be written to. Threads may share it.
#[derive(Debug)]
pub struct Wal {
    pub(in crate::wal) disk: Arc<dyn Disk>,
    pub(in crate::wal) clock: Arc<dyn Clock>,
    pub(in crate::wal) layout: Layout,
    pub(in crate::wal) options: Options,
    actor: String,
    inner: Mutex<Inner>,
    /// Single operations whose threads wait for `inner`.
    queued: Mutex<Vec<Arc<Ticket>>>,
    pub(in crate::wal) sync: Mutex<SyncState>,
    pub(in crate::wal) flushed: Condvar,
}

#[derive(Debug)]
pub(in crate::wal) struct Inner {
    pub(in crate::wal) view: View,
    pub(in crate::wal) lock: LockFile,
    /// For looking at its note.
    sync: Option<LockFile>,
    /// A generation, and how far its note said that it is synced.
    noted: (u64, u64),
    pub(in crate::wal) journal: Option<Journal>,
}

#[derive(Debug)]
pub(in crate::wal) struct Journal {
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) file: Arc<dyn DiskFile>,
    pub(in crate::wal) len: u64,
}

#[derive(Debug)]
pub(in crate::wal) struct SyncState {
    /// None while a thread of this process flushes, and before the first flush.
    pub(in crate::wal) flusher: Option<Flusher>,
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) synced: u64,
}

/// One operation that a thread wants logged.
#[derive(Debug)]
struct Ticket {
    operation: Logged,
    /// What came of it, once another thread has written it.
    outcome: Mutex<Option<Outcome>>,
}

#[derive(Debug)]
enum Outcome {
    Written(Written, Appended),
    NotWritten,
    Unconfirmed(String, Vec<OperationId>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where an append ended, before it is durable.
#[derive(Debug, Clone)]
pub(in crate::wal) struct Appended {
    pub(in crate::wal) generation: u64,
    pub(in crate::wal) end: u64,
    /// The generation's file, if it is open: one that was open while it was written to reports every failure.
    pub(in crate::wal) file: Option<Arc<dyn DiskFile>>,
}

/// A frame to be written.
#[derive(Debug)]
pub(in crate::wal) struct NewFrame<'a> {
    pub(in crate::wal) kind: FrameKind,
    pub(in crate::wal) payload: &'a [u8],
    /// How many revisions it uses up.
    pub(in crate::wal) revisions: u64,
    /// The number that the next logged operation gets after it.
    pub(in crate::wal) next_number: Number,
}

impl Inner {
    /// The end of what was written last, for waiting until it is durable.
    pub(in crate::wal) fn appended(&self, note: &AppendNote) -> Appended {
        let file = self.journal.as_ref().map(|journal| journal.file.clone());
        Appended { generation: note.generation, end: note.end, file }
    }
}

impl Wal {
    /// Opens a log for writing, making it if there is none.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        layout: Layout,
        mut options: Options,
    ) -> WalResult<Wal> {
        // It has to fit into the notes, whatever JSON makes of it.
        options.command.retain(|c| !c.is_control() && c != '"' && c != '\\');
        options.command = options.command.chars().take(60).collect();
        if !disk.exists(&layout.lock(LockName::Append))? {
            // Before anything is made: what stands there may be somebody else's.
            let view = View::open(disk.clone(), layout.clone())?;
            refuse_foreign(&*disk, &layout)?;
            if view.has_originals() {
                adopt::check_quiet(&original::survey(&*disk, &layout)?, &layout, clock.now())?;
            }
            disk.create_dir_all_synced(layout.base()).map_err(WalError::NotLogged)?;
        }
        if !options.allow_network_fs && disk.is_network(layout.base())? {
            return Err(WalError::NotOurs {
                path: layout.base().to_owned(),
                what:
                    "it is on a network file system, where locks and flushes cannot be relied upon"
                        .into(),
            });
        }
        let lock = LockFile::open(&*disk, &layout, LockName::Append).map_err(nothing_logged)?;
        let view = View::open(disk.clone(), layout.clone())?;
        let identity = disk.identity();
        let actor =
            format!("{}@{} {}[{}]", identity.user, identity.host, options.command, identity.pid);
        let wal = Wal {
            disk,
            clock,
            layout,
            options,
            actor,
            queued: Mutex::default(),
            inner: Mutex::new(Inner { view, lock, sync: None, noted: (0, 0), journal: None }),
            sync: Mutex::new(SyncState { flusher: None, generation: 0, synced: 0 }),
            flushed: Condvar::new(),
        };
        wal.adopt()?;
        Ok(wal)
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

    /// Takes the lock that makes this process the log's only drain loop.
    pub fn lock_process(&self, timeout: Duration) -> WalResult<HeldLock> {
        self.finishing(|| {
            let mut lock = LockFile::open(&*self.disk, &self.layout, LockName::Process)?;
            lock.lock(&*self.disk, &*self.clock, timeout)?;
            lock.hold(&*self.disk, &self.options.command, self.clock.now())
        })
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

    pub(in crate::wal) fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Logs new operations that fit one frame; durable when this returns.
    ///
    /// An operation whose idempotency key is there already is not logged again: that one is returned.
    pub(in crate::wal) fn append_one_frame(
        &self,
        operations: Vec<Logged>,
    ) -> WalResult<Vec<Admitted>> {
        if operations.iter().any(Logged::has_conditions) {
            return self.append_admitted(operations.into_iter().map(Change::New).collect());
        }
        let written = match <[Logged; 1]>::try_from(operations) {
            Ok([operation]) => self.append_together(operation),
            Err(operations) => {
                let changes = || operations.iter().cloned().map(Change::New).collect();
                self.transact(|_| Ok((changes(), ()))).map(|(written, ())| written)
            }
        };
        Ok(written?.into_iter().map(Admitted::Logged).collect())
    }

    /// Logs one operation in one frame with those of other threads that come at the same moment: whoever gets
    /// the lock writes for all who wait for it.
    fn append_together(&self, operation: Logged) -> WalResult<Vec<Written>> {
        let ticket = Arc::new(Ticket { operation, outcome: Mutex::new(None) });
        lock(&self.queued).push(ticket.clone());
        let mut inner = self.lock_inner();
        if lock(&ticket.outcome).is_none() {
            let tickets = std::mem::take(&mut *lock(&self.queued));
            let changes: Vec<Change> =
                tickets.iter().map(|ticket| Change::New(ticket.operation.clone())).collect();
            let result = self.write_once(&mut inner, &mut |_| Ok((changes.clone(), ())));
            let mut written = match &result {
                Ok((written, _, ())) => written.clone().into_iter(),
                Err(_) => Vec::new().into_iter(),
            };
            for (nth, other) in tickets.iter().enumerate() {
                *lock(&other.outcome) = Some(match (&result, written.next()) {
                    (Ok((_, Some(appended), ())), Some(written)) => {
                        Outcome::Written(written, appended.clone())
                    }
                    (Err(WalError::Unconfirmed { why, ids }), _) => Outcome::Unconfirmed(
                        why.clone(),
                        ids.get(nth).copied().into_iter().collect(),
                    ),
                    _ => Outcome::NotWritten,
                });
            }
            // Alone, the error is its own. Of several, each tries for itself: one may be at fault, such as by its size.
            if tickets.len() == 1 {
                result?;
            }
        }
        drop(inner);
        let outcome = lock(&ticket.outcome).take();
        match outcome {
            Some(Outcome::Written(written, appended)) => {
                let written = vec![written];
                if self.wait_until_durable(&appended, &written)? == 1 {
                    return Ok(written);
                }
            }
            Some(Outcome::Unconfirmed(why, ids)) => return Err(WalError::Unconfirmed { why, ids }),
            Some(Outcome::NotWritten) | None => {}
        }
        let change = Change::New(ticket.operation.clone());
        self.transact(|_| Ok((vec![change.clone()], ()))).map(|(written, ())| written)
    }

    /// Looks at the log and writes what follows, with nobody writing in between; durable when this returns.
    ///
    /// `decide` may be called again if what it wrote did not reach the disk.
    pub fn transact<T>(
        &self,
        mut decide: impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        for _ in 0..RESTARTS {
            let (written, appended, result) =
                self.write_once(&mut self.lock_inner(), &mut decide)?;
            let Some(appended) = appended else { return Ok((written, result)) };
            match self.wait_until_durable(&appended, &written)? {
                standing if standing == written.len() => return Ok((written, result)),
                0 => {}
                standing => {
                    let ids = written[standing..].iter().map(|written| written.id).collect();
                    return Err(WalError::Unconfirmed {
                        why: "a restart of the journal dropped a part of it".into(),
                        ids,
                    });
                }
            }
        }
        Err(WalError::Unconfirmed { why: RESTARTED.into(), ids: Vec::new() })
    }

    /// Decides and writes under `lock`; what was written is not durable yet.
    fn write_once<T>(
        &self,
        inner: &mut Inner,
        decide: &mut impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, Option<Appended>, T)> {
        // What others wrote is read before the lock is taken, so that it is held for a moment only.
        if !self.stands_at_note(inner)? {
            inner.view.catch_up()?;
        }
        let note = self.take_lock(inner)?;
        // What cannot be flushed is not written.
        let done = self.prepare_flush().and_then(|()| self.append_locked(inner, note, decide));
        let released = inner.lock.unlock();
        let (written, appended, result) = done?;
        match released {
            Err(error) => Err(unconfirmed(&error, written.iter())),
            Ok(()) => Ok((written, appended, result)),
        }
    }

    /// Takes `lock`, and puts the journal in order if its last writer could not.
    pub(in crate::wal) fn take_lock(&self, inner: &mut Inner) -> WalResult<AppendNote> {
        inner.lock.lock(&*self.disk, &*self.clock, self.options.lock_timeout)?;
        let ready = self.after_reopening(inner).and_then(|()| self.make_ready(inner));
        if ready.is_err() {
            inner.lock.unlock()?;
        }
        ready
    }

    /// Forgets all that was known of a log whose directory was removed and made again under us.
    fn after_reopening(&self, inner: &mut Inner) -> WalResult<()> {
        if inner.lock.take_reopened() {
            (inner.journal, inner.sync) = (None, None);
            *lock(&self.sync) = SyncState { flusher: None, generation: 0, synced: 0 };
            inner.view.reload()?;
        }
        Ok(())
    }

    /// Whether the view is where the note in `lock` says that the journal ends.
    fn stands_at_note(&self, inner: &Inner) -> WalResult<bool> {
        match note::read::<AppendNote>(inner.lock.file())? {
            Some(note) => inner.view.stands_at(note.generation, note.end, note.checksum),
            None => Ok(false),
        }
    }

    fn make_ready(&self, inner: &mut Inner) -> WalResult<AppendNote> {
        if !self.stands_at_note(inner)? {
            inner.view.catch_up()?;
        }
        if let Some(damage) = inner.view.journal_damage() {
            return Err(WalError::Damaged(damage.clone()));
        }
        let note: Option<AppendNote> = note::read(inner.lock.file())?;
        if let (Some(note), Some(position)) = (note, inner.view.position())
            && self.is_trusted(&note, &position)
            && self.flush_is_sound(inner, note.generation)?
        {
            return Ok(note);
        }
        self.recover(inner)
    }

    fn is_trusted(&self, note: &AppendNote, position: &Position) -> bool {
        // Without a boot id nothing tells a note of before a power cut.
        note.boot == self.disk.identity().boot_id
            && !note.boot.is_empty()
            && !note.at_work
            && (note.generation, note.end, note.checksum)
                == (position.generation, position.end, position.checksum)
            && (note.number, note.revision) == (position.number, position.revision)
    }

    /// Whether the last flush succeeded or is under way; false: it failed, or its process died in it.
    fn flush_is_sound(&self, inner: &mut Inner, generation: u64) -> WalResult<bool> {
        let boot = &self.disk.identity().boot_id;
        let noted = &mut inner.noted;
        let mut sound = |lock: &LockFile| -> WalResult<bool> {
            let note: Option<SyncNote> = note::read(lock.file())?;
            let note = note.filter(|note| note.boot == *boot && note.generation == generation);
            // Others have flushed it so far: the next frame says so, for those who may not believe notes any more.
            *noted = note.as_ref().map_or(*noted, |note| (note.generation, note.synced));
            Ok(note.is_some_and(|note| note.syncing.is_none()))
        };
        let lock = match &mut inner.sync {
            Some(lock) => lock,
            empty => empty.insert(LockFile::open(&*self.disk, &self.layout, LockName::Sync)?),
        };
        if sound(lock)? {
            return Ok(true);
        }
        if !lock.try_lock(&*self.disk)? {
            // Its holder is at work; if that fails, it says so in the note that it leaves.
            return Ok(true);
        }
        let result = sound(lock);
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
        // Two events of one operation would both be decided on the same state, and the second would not follow.
        let mut known = BTreeSet::new();
        for change in &changes {
            if let Change::Next(operation, _) = change
                && !known.insert(operation.number)
            {
                return Err(WalError::Conflict { number: operation.number });
            }
        }
        let now = self.clock.now();
        let mut written = Vec::with_capacity(changes.len());
        let mut number = note.number;
        let mut rest = changes.iter().enumerate().peekable();
        let mut payloads = Vec::new();
        let mut payload = PayloadBuilder::new(&self.actor);
        while let Some((nth, change)) = rest.peek() {
            let (named, from, operation_type, backend, event) = match change {
                Change::New(logged) | Change::NewAs(_, logged) => {
                    let id = match change {
                        Change::NewAs(id, _) => *id,
                        _ => self.new_id(now, *nth),
                    };
                    self.check_spooled(id, logged)?;
                    let event = Event::Logged(Box::new(logged.clone()));
                    ((number, id, now), None, &logged.operation_type, &logged.backend, event)
                }
                Change::Next(known, event) => {
                    self.check_known(&inner.view, known, event)?;
                    let named = (known.number, known.id, now);
                    (
                        named,
                        Some(known.status),
                        &known.operation_type,
                        &known.backend,
                        event.clone(),
                    )
                }
            };
            if !payload.push(named, from, operation_type, backend, &event) {
                if payload.count() == 0 {
                    let bytes = serde_json::to_vec(&event).map_or(0, |bytes| bytes.len());
                    return Err(WalError::TooLarge { bytes, max: format::FRAME_MAX });
                }
                let full = std::mem::replace(&mut payload, PayloadBuilder::new(&self.actor));
                payloads.push((full, number));
                continue;
            }
            let revision = note.revision.next().saturating_add(written.len() as u64);
            let deleted = event.to(from).is_none();
            written.push(Written { number: named.0, id: named.1, revision, deleted });
            number = number.saturating_add(u64::from(from.is_none()));
            rest.next();
        }
        payloads.push((payload, number));
        let mut appended = None;
        for (payload, next_number) in payloads {
            let revisions = payload.count() as u64;
            let payload = &payload.finish()[..];
            let frame = NewFrame { kind: FrameKind::Transitions, payload, revisions, next_number };
            match self.append_frame(inner, &mut note, &frame) {
                Ok(()) => appended = Some(inner.appended(&note)),
                // The frames before this one stand; it would be untrue to say that nothing was logged.
                Err(error) if appended.is_some() => {
                    return Err(unconfirmed(&error, written.iter()));
                }
                Err(error @ WalError::Unconfirmed { .. }) => {
                    return Err(unconfirmed(&error, written.iter()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((written, appended, result))
    }

    /// An id for the `nth` operation of those logged at `now`.
    pub fn new_id(&self, now: Time, nth: usize) -> OperationId {
        let random = u128::from(self.clock.random()) << 64 | u128::from(self.clock.random());
        OperationId::new(now, nth, random)
    }

    /// One frame at the end of the journal, in a new generation if it does not fit. Not durable yet.
    pub(in crate::wal) fn append_frame(
        &self,
        inner: &mut Inner,
        note: &mut AppendNote,
        frame: &NewFrame<'_>,
    ) -> WalResult<()> {
        let revision = note.revision.saturating_add(frame.revisions);
        if revision.get().max(frame.next_number.get()) > format::COUNT_MAX {
            return Err(WalError::damaged(
                self.layout.journal(),
                None,
                "there are no more numbers to give",
            ));
        }
        let len = format::frame_len(frame.payload.len()) as u64;
        if note.end + len > self.options.generation_bytes && note.last != 0 {
            *note = self.rotate(inner, note.clone())?;
        }
        *note = self.write_frame(inner, note.clone(), frame)?;
        let after = Position {
            generation: note.generation,
            end: note.end,
            last: note.last,
            checksum: note.checksum,
            revision: note.revision,
            number: note.number,
        };
        inner.view.advance(frame.kind, frame.payload, after)
    }

    fn check_known(&self, view: &View, known: &Known, event: &Event) -> WalResult<()> {
        match view.standing(known.number, known.id)? {
            Some((revision, status)) if revision == known.revision && status == known.status => {}
            _ => return Err(WalError::Conflict { number: known.number }),
        }
        if !event.is_legal_from(Some(known.status)) {
            let illegal = IllegalTransition::Status {
                number: known.number,
                from: Some(known.status),
                past_participle: event.past_participle(),
            };
            return Err(illegal.into());
        }
        Ok(())
    }

    pub(in crate::wal) fn journal<'a>(
        &self,
        inner: &'a mut Inner,
        generation: u64,
    ) -> WalResult<&'a mut Journal> {
        if inner.journal.as_ref().is_none_or(|journal| journal.generation != generation) {
            let file: Arc<dyn DiskFile> =
                Arc::from(self.disk.open(&self.layout.generation(generation), Access::Write)?);
            let len = file.metadata()?.len;
            inner.journal = Some(Journal { generation, file, len });
        }
        inner
            .journal
            .as_mut()
            .ok_or_else(|| WalError::damaged(self.layout.journal(), None, "no generation is open"))
    }

    /// One frame, one write. The note says `at work` while the journal may be torn.
    fn write_frame(
        &self,
        inner: &mut Inner,
        mut note: AppendNote,
        frame: &NewFrame<'_>,
    ) -> WalResult<AppendNote> {
        let noted = if inner.noted.0 == note.generation { inner.noted.1 } else { 0 };
        let synced = self.synced_of(note.generation).max(noted);
        let (bytes, checksum) = format::encode_frame(
            note.generation,
            frame.kind,
            synced,
            note.revision.next(),
            frame.payload,
        );
        let start = note.end;
        let end = start + bytes.len() as u64;
        note.at_work = true;
        note.pid = self.disk.identity().pid;
        note.command.clone_from(&self.options.command);
        note.since = self.clock.now();
        note::write(inner.lock.file(), &note).map_err(WalError::NotLogged)?;
        let ahead_max = self.options.ahead_bytes;
        let closed_at = self.options.generation_bytes.max(end);
        let journal = self.journal(inner, note.generation)?;
        if journal.len < end {
            // Another process may have laid zeros ahead, and written frames over them.
            journal.len = journal.file.metadata()?.len;
        }
        if journal.len < end {
            let ahead = (end + ahead_max).min(closed_at);
            let zeros = vec![0; usize::try_from(ahead - journal.len).unwrap_or(0)];
            // They make flushes cheaper, no more: on a full disk the frame alone may still fit.
            if journal.file.write_at(&zeros, journal.len).is_ok() {
                journal.len = ahead;
            }
        }
        if let Err(error) = journal.file.write_at(&bytes, start) {
            let mut back = vec![0; bytes.len()];
            let read = journal.file.read_at(&mut back, start).map_err(|_| not_known(&error))?;
            if back[..read].iter().all(|byte| *byte == 0) {
                // Nothing has arrived, so the next writer has nothing to put in order.
                note.at_work = false;
                note::write(inner.lock.file(), &note).map_err(WalError::NotLogged)?;
                return Err(WalError::NotLogged(error));
            }
            // A write that failed may still have arrived whole; then it counts, and the flush decides.
            if back[..read] != bytes[..] {
                return Err(WalError::NotLogged(error));
            }
        }
        tracing::debug!(generation = note.generation, start, end, kind = ?frame.kind, revisions = frame.revisions, "frame written");
        note.at_work = false;
        (note.last, note.end, note.checksum) = (start, end, checksum);
        note.revision = note.revision.saturating_add(frame.revisions);
        note.number = frame.next_number;
        note::write(inner.lock.file(), &note).map_err(|error| not_known(&error))?;
        Ok(note)
    }
}

/// An error after which it is certain that nothing was logged.
/// A folder with things of somebody else in it, and none of a log, is not made one.
fn refuse_foreign(disk: &dyn Disk, layout: &Layout) -> WalResult<()> {
    let entries = match disk.list(layout.base()) {
        Ok(entries) => entries,
        // There is no such folder, or it cannot be looked into: what follows tells.
        Err(_) => return Ok(()),
    };
    let names: Vec<String> =
        entries.iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    match names.first() {
        Some(first) if !names.iter().any(|name| Layout::is_part(name)) => Err(WalError::NotOurs {
            path: layout.base().to_owned(),
            what: format!("it holds `{first}`, and nothing that belongs to a log"),
        }),
        _ => Ok(()),
    }
}

pub(in crate::wal) fn nothing_logged(error: WalError) -> WalError {
    match error {
        WalError::Disk(error) => WalError::NotLogged(error),
        WalError::Unconfirmed { why, .. } => WalError::NotLogged(DiskError::new(
            "write",
            std::path::Path::new("journal"),
            std::io::Error::other(why),
        )),
        other => other,
    }
}

/// Written, as far as anybody knows; the caller fills in the ids.
fn not_known(error: &DiskError) -> WalError {
    WalError::Unconfirmed { why: error.to_string(), ids: Vec::new() }
}

fn unconfirmed<'a>(error: &WalError, written: impl Iterator<Item = &'a Written>) -> WalError {
    let why = match error {
        WalError::Unconfirmed { why, .. } => why.clone(),
        other => other.to_string(),
    };
    WalError::Unconfirmed { why, ids: written.map(|written| written.id).collect() }
}
