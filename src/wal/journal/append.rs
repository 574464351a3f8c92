//! Appending frames under `lock`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::format::{self, FrameKind};
use super::interfaces::JournalView;
use super::note::{self, AppendNote};
use super::payload::{NewRecord, PayloadBuilder};
use super::reader::Position;
use super::writer::{
    Appended, GroupedAppend, GroupedOutcome, JournalWriter, OpenGeneration, Writer, lock,
};
use crate::disk::{DiskError, DiskFile, DiskResult};
use crate::operation::{Event, IllegalTransition, Logged, Number};
use crate::wal::change::{Change, Known, Written};
use crate::wal::error::{WalError, WalResult};

/// The number of times that an append is attempted if recoveries of the journal drop it.
const ATTEMPTS_MAX: usize = 3;

/// A frame to be written.
#[derive(Debug)]
pub(in crate::wal) struct NewFrame<'a> {
    pub(in crate::wal) kind: FrameKind,
    pub(in crate::wal) payload: &'a [u8],
    /// The number of revisions that it uses.
    pub(in crate::wal) revisions: u64,
    /// The number of the next operation that is logged after it.
    pub(in crate::wal) next_number: Number,
}

impl<V: JournalView> JournalWriter<V> {
    /// Logs one operation. Durable on return.
    ///
    /// The first of several waiting threads to get the writer logs the operations of all of them in
    /// one frame.
    pub(in crate::wal) fn append_grouped(&self, operation: Logged) -> WalResult<Vec<Written>> {
        let append = Arc::new(GroupedAppend { operation, outcome: Mutex::new(None) });
        lock(&self.queued).push(append.clone());
        let mut writer = self.lock_writer();
        if lock(&append.outcome).is_none() {
            let appends = std::mem::take(&mut *lock(&self.queued));
            let changes: Vec<Change> =
                appends.iter().map(|append| Change::New(append.operation.clone())).collect();
            let result = self.write_once(&mut writer, &mut |_| Ok((changes.clone(), ())));
            let mut written = match &result {
                Ok(decided) => decided.written.clone().into_iter(),
                Err(_) => Vec::new().into_iter(),
            };
            for (nth, other) in appends.iter().enumerate() {
                *lock(&other.outcome) = Some(match (&result, written.next()) {
                    (Ok(Decided { appended: Some(appended), .. }), Some(written)) => {
                        GroupedOutcome::Written(written, appended.clone())
                    }
                    (Err(WalError::Unconfirmed { why, ids }), _) => GroupedOutcome::Unconfirmed(
                        why.clone(),
                        ids.get(nth).copied().into_iter().collect(),
                    ),
                    _ => GroupedOutcome::NotWritten,
                });
            }
            // The error of a frame with one operation belongs to that operation. If the frame had
            // several, one of them may be at fault, for example too large, so each thread tries
            // on its own.
            if appends.len() == 1 {
                result?;
            }
        }
        drop(writer);
        let outcome = lock(&append.outcome).take();
        match outcome {
            Some(GroupedOutcome::Written(written, appended)) => {
                let written = vec![written];
                if self.wait_until_durable(&appended, &written)? == 1 {
                    return Ok(written);
                }
            }
            Some(GroupedOutcome::Unconfirmed(why, ids)) => {
                return Err(WalError::Unconfirmed { why, ids });
            }
            Some(GroupedOutcome::NotWritten) | None => {}
        }
        let change = Change::New(append.operation.clone());
        self.transact(|_| Ok((vec![change.clone()], ()))).map(|(written, ())| written)
    }

    /// Decides on the current state of the log, and logs the changes, while no other process
    /// writes. Durable on return.
    ///
    /// `decide` is called again if a recovery of the journal dropped the changes before they were
    /// durable. Fails with [`WalError::Unconfirmed`] if it dropped only some of them.
    pub fn transact<T>(
        &self,
        mut decide: impl FnMut(&mut V) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        for _ in 0..ATTEMPTS_MAX {
            let Decided { result, written, appended } =
                self.write_once(&mut self.lock_writer(), &mut decide)?;
            let Some(appended) = appended else { return Ok((written, result)) };
            match self.wait_until_durable(&appended, &written)? {
                durable if durable == written.len() => return Ok((written, result)),
                0 => {}
                durable => {
                    let ids = written[durable..].iter().map(|written| written.id).collect();
                    return Err(WalError::Unconfirmed {
                        why: "a recovery of the journal dropped a part of it".into(),
                        ids,
                    });
                }
            }
        }
        Err(WalError::Unconfirmed {
            why: "the journal was recovered repeatedly while this was being written".into(),
            ids: Vec::new(),
        })
    }

    /// Takes `lock`, decides and appends. Not durable on return.
    fn write_once<T>(
        &self,
        writer: &mut Writer<V>,
        decide: &mut impl FnMut(&mut V) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<Decided<T>> {
        // The frames of other processes are read before the lock is taken, to hold it only briefly.
        if !self.matches_lock_note(writer)? {
            writer.view.catch_up()?;
        }
        let note = self.take_lock(writer)?;
        // Nothing is written if the files that a flush needs cannot be opened.
        let done = self.prepare_flush().and_then(|()| self.append_locked(writer, note, decide));
        let released = writer.lock.unlock();
        let decided = done?;
        match released {
            Err(error) => Err(unconfirmed(&error, decided.written.iter())),
            Ok(()) => Ok(decided),
        }
    }

    /// Decides, appends, and notes the new end. Holds `lock`. Not durable on return.
    fn append_locked<T>(
        &self,
        writer: &mut Writer<V>,
        mut note: AppendNote,
        decide: &mut impl FnMut(&mut V) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<Decided<T>> {
        let (changes, result) = decide(&mut writer.view)?;
        if changes.is_empty() {
            return Ok(Decided { result, written: Vec::new(), appended: None });
        }
        check_distinct(&changes)?;
        let Encoded { payloads, written } = self.encode(&writer.view, &note, &changes)?;
        let mut appended = None;
        for (payload, next_number) in payloads {
            let revisions = payload.count() as u64;
            let payload = &payload.finish()[..];
            let frame = NewFrame { kind: FrameKind::Transitions, payload, revisions, next_number };
            match self.append_frame(writer, &mut note, &frame) {
                Ok(()) => appended = Some(writer.appended(&note)),
                // Earlier frames are written, so something may have been logged.
                Err(error) if appended.is_some() => {
                    return Err(unconfirmed(&error, written.iter()));
                }
                Err(error @ WalError::Unconfirmed { .. }) => {
                    return Err(unconfirmed(&error, written.iter()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Decided { result, written, appended })
    }

    /// Checks changes, and encodes them as the payloads of as few frames as possible.
    fn encode(&self, view: &V, note: &AppendNote, changes: &[Change]) -> WalResult<Encoded> {
        let now = self.clock.now();
        let mut next_number = note.number;
        let mut written = Vec::with_capacity(changes.len());
        let mut payloads = Vec::new();
        let mut payload = PayloadBuilder::new(&self.actor);
        for (nth, change) in changes.iter().enumerate() {
            let event;
            let (number, id, from, operation_type, backend) = match change {
                Change::New(logged) | Change::NewAs(_, logged) => {
                    let id = match change {
                        Change::NewAs(id, _) => *id,
                        _ => self.new_id(now, nth),
                    };
                    self.files.check_content(id, logged)?;
                    event = Event::Logged(Box::new(logged.clone()));
                    (next_number, id, None, &logged.operation_type, &logged.backend)
                }
                Change::Next(known, next) => {
                    self.check_known(view, known, next)?;
                    event = next.clone();
                    let Known { operation_type, backend, .. } = known;
                    (known.number, known.id, Some(known.status), operation_type, backend)
                }
            };
            let record =
                NewRecord { number, id, at: now, from, operation_type, backend, event: &event };
            if !payload.push(&record) {
                let full = std::mem::replace(&mut payload, PayloadBuilder::new(&self.actor));
                let was_empty = full.count() == 0;
                payloads.push((full, next_number));
                if was_empty || !payload.push(&record) {
                    let bytes = serde_json::to_vec(&event).map_or(0, |bytes| bytes.len());
                    return Err(WalError::TooLarge { bytes, max: format::FRAME_MAX });
                }
            }
            let revision = note.revision.next().saturating_add(written.len() as u64);
            written.push(Written { number, id, revision, deleted: event.to(from).is_none() });
            if from.is_none() {
                next_number = next_number.next();
            }
        }
        payloads.push((payload, next_number));
        Ok(Encoded { payloads, written })
    }

    /// Appends a frame, in a new generation if it does not fit. Not durable on return.
    pub(in crate::wal) fn append_frame(
        &self,
        writer: &mut Writer<V>,
        note: &mut AppendNote,
        frame: &NewFrame<'_>,
    ) -> WalResult<()> {
        let revision = note.revision.saturating_add(frame.revisions);
        if revision.get().max(frame.next_number.get()) > format::COUNT_MAX {
            return Err(WalError::damaged(
                self.layout.journal(),
                None,
                "the highest possible number or revision is reached",
            ));
        }
        let len = format::frame_len(frame.payload.len()) as u64;
        if note.end + len > self.options.generation_bytes && note.last != 0 {
            *note = self.rotate(writer, note.clone())?;
        }
        *note = self.write_frame(writer, note.clone(), frame)?;
        let after = Position {
            generation: note.generation,
            end: note.end,
            last: note.last,
            checksum: note.checksum,
            revision: note.revision,
            number: note.number,
        };
        writer.view.advance(frame.kind, frame.payload, after)
    }

    /// Fails if the operation has changed since the change was decided on, or the change is
    /// illegal.
    fn check_known(&self, view: &V, known: &Known, event: &Event) -> WalResult<()> {
        match view.revision_and_status(known.number, known.id)? {
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

    /// Writes a frame with one system call. The note has `at_work` set while the journal may be
    /// torn.
    fn write_frame(
        &self,
        writer: &mut Writer<V>,
        mut note: AppendNote,
        frame: &NewFrame<'_>,
    ) -> WalResult<AppendNote> {
        let (generation, start) = (note.generation, note.end);
        let (peer_generation, peer_synced) = writer.peer_synced;
        let peer_synced = if peer_generation == generation { peer_synced } else { 0 };
        let (bytes, checksum) = format::encode_frame(
            generation,
            frame.kind,
            self.synced_of(generation).max(peer_synced),
            note.revision.next(),
            frame.payload,
        );
        let end = start + bytes.len() as u64;
        note.at_work = true;
        note.pid = self.disk.identity().pid;
        note.command.clone_from(&self.options.command);
        note.since = self.clock.now();
        note::write(writer.lock.file(), &note).map_err(WalError::NotLogged)?;
        let journal = self.open_generation(writer, generation)?;
        self.preallocate(journal, end)?;
        if let Err(error) = journal.file.write_at(&bytes, start) {
            match bytes_found(&*journal.file, &bytes, start).map_err(|_| not_known(&error))? {
                Found::Nothing => {
                    // The journal is as it was, so the next writer need not recover it.
                    note.at_work = false;
                    note::write(writer.lock.file(), &note).map_err(WalError::NotLogged)?;
                    return Err(WalError::NotLogged(error));
                }
                Found::Part => return Err(WalError::NotLogged(error)),
                // The frame counts. If it is not durable, the flush will fail.
                Found::All => {}
            }
        }
        let revisions = frame.revisions;
        tracing::debug!(generation, start, end, kind = ?frame.kind, revisions, "frame written");
        note.at_work = false;
        (note.last, note.end, note.checksum) = (start, end, checksum);
        note.revision = note.revision.saturating_add(revisions);
        note.number = frame.next_number;
        note::write(writer.lock.file(), &note).map_err(|error| not_known(&error))?;
        Ok(note)
    }

    /// Extends the file with zeros if it ends before `end`, where the next frame will end.
    fn preallocate(&self, journal: &mut OpenGeneration, end: u64) -> WalResult<()> {
        if journal.len < end {
            // Another process may have extended the file, and written frames over the zeros.
            journal.len = journal.file.metadata()?.len;
        }
        if journal.len < end {
            let closed_at = self.options.generation_bytes.max(end);
            let target = (end + self.options.preallocate_bytes).min(closed_at);
            let zeros = vec![0; usize::try_from(target - journal.len).unwrap_or(0)];
            // Zeros only make flushes cheaper. On a full disk, the frame alone may still fit.
            if journal.file.write_at(&zeros, journal.len).is_ok() {
                journal.len = target;
            }
        }
        Ok(())
    }
}

/// A decision whose changes are appended, but not durable.
struct Decided<T> {
    result: T,
    written: Vec<Written>,
    /// The end of the append; none without changes.
    appended: Option<Appended>,
}

/// The payloads of frames to be written, and the transitions in them.
struct Encoded {
    /// Each payload with the number of the next operation that is logged after it.
    payloads: Vec<(PayloadBuilder, Number)>,
    written: Vec<Written>,
}

/// Fails if two changes concern one operation: both would be decided on the same state, and the
/// second could not follow the first.
fn check_distinct(changes: &[Change]) -> WalResult<()> {
    let mut numbers = BTreeSet::new();
    for change in changes {
        if let Change::Next(operation, _) = change
            && !numbers.insert(operation.number)
        {
            return Err(WalError::Conflict { number: operation.number });
        }
    }
    Ok(())
}

/// The part of a frame that a failed write left in the file.
enum Found {
    Nothing,
    Part,
    All,
}

/// Returns the part of `bytes` that the file contains at offset `start`.
fn bytes_found(file: &dyn DiskFile, bytes: &[u8], start: u64) -> DiskResult<Found> {
    let mut found = vec![0; bytes.len()];
    let read = file.read_at(&mut found, start)?;
    Ok(if found[..read].iter().all(|byte| *byte == 0) {
        Found::Nothing
    } else if found[..read] == *bytes {
        Found::All
    } else {
        Found::Part
    })
}

/// Converts an error into one that says that nothing was logged, for steps whose writes do not
/// count before a later commit.
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

/// Returns the error for a write that may have succeeded. The caller adds the ids.
fn not_known(error: &DiskError) -> WalError {
    WalError::Unconfirmed { why: error.to_string(), ids: Vec::new() }
}

/// Returns the error for transitions that may have been written.
fn unconfirmed<'a>(error: &WalError, written: impl Iterator<Item = &'a Written>) -> WalError {
    let why = match error {
        WalError::Unconfirmed { why, .. } => why.clone(),
        other => other.to_string(),
    };
    WalError::Unconfirmed { why, ids: written.map(|written| written.id).collect() }
}
