//! Appending frames under `lock`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::format::{self, FrameKind, PayloadBuilder};
use super::interfaces::JournalView;
use super::note::{self, AppendNote};
use super::reader::Position;
use super::writer::{Appended, GroupedAppend, JournalWriter, Outcome, Writer, lock};
use crate::disk::DiskError;
use crate::operation::{Event, IllegalTransition, Logged, Number};
use crate::wal::change::{Change, Known, Written};
use crate::wal::error::{WalError, WalResult};

/// How often an append is repeated because the journal was recovered before it was durable.
const RESTARTS: usize = 3;

const RESTARTED: &str = "the journal was recovered repeatedly while this was being written";

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

impl<V: JournalView> JournalWriter<V> {
    /// Logs one operation, in one frame with those that other threads log at the same moment: the
    /// thread that gets the lock writes for all that wait for it.
    pub(in crate::wal) fn append_together(&self, operation: Logged) -> WalResult<Vec<Written>> {
        let append = Arc::new(GroupedAppend { operation, outcome: Mutex::new(None) });
        lock(&self.queued).push(append.clone());
        let mut writer = self.lock_writer();
        if lock(&append.outcome).is_none() {
            let appends = std::mem::take(&mut *lock(&self.queued));
            let changes: Vec<Change> =
                appends.iter().map(|append| Change::New(append.operation.clone())).collect();
            let result = self.write_once(&mut writer, &mut |_| Ok((changes.clone(), ())));
            let mut written = match &result {
                Ok((written, _, ())) => written.clone().into_iter(),
                Err(_) => Vec::new().into_iter(),
            };
            for (nth, other) in appends.iter().enumerate() {
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
            // Alone, the error is its own. Of several, each tries for itself: one may be at fault,
            // such as by its size.
            if appends.len() == 1 {
                result?;
            }
        }
        drop(writer);
        let outcome = lock(&append.outcome).take();
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
        let change = Change::New(append.operation.clone());
        self.transact(|_| Ok((vec![change.clone()], ()))).map(|(written, ())| written)
    }

    /// Decides on the log as it is and logs the changes, while no other process writes. Durable on
    /// return.
    ///
    /// `decide` may be called again if what it wrote did not reach the disk.
    pub fn transact<T>(
        &self,
        mut decide: impl FnMut(&mut V) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        for _ in 0..RESTARTS {
            let (written, appended, result) =
                self.write_once(&mut self.lock_writer(), &mut decide)?;
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

    /// Decides and appends under `lock`. Not durable yet.
    fn write_once<T>(
        &self,
        writer: &mut Writer<V>,
        decide: &mut impl FnMut(&mut V) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, Option<Appended>, T)> {
        // What others wrote is read before the lock is taken, so that it is held for a moment only.
        if !self.matches_lock_note(writer)? {
            writer.view.catch_up()?;
        }
        let note = self.take_lock(writer)?;
        // What cannot be flushed is not written.
        let done = self.prepare_flush().and_then(|()| self.append_locked(writer, note, decide));
        let released = writer.lock.unlock();
        let (written, appended, result) = done?;
        match released {
            Err(error) => Err(unconfirmed(&error, written.iter())),
            Ok(()) => Ok((written, appended, result)),
        }
    }

    /// Decides, appends and notes the new end. Holds `lock`.
    fn append_locked<T>(
        &self,
        writer: &mut Writer<V>,
        mut note: AppendNote,
        decide: &mut impl FnMut(&mut V) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, Option<Appended>, T)> {
        let (changes, result) = decide(&mut writer.view)?;
        if changes.is_empty() {
            return Ok((Vec::new(), None, result));
        }
        // Two events of one operation would both be decided on the same state, and the second would
        // not follow.
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
                    self.files.check_content(id, logged)?;
                    let event = Event::Logged(Box::new(logged.clone()));
                    ((number, id, now), None, &logged.operation_type, &logged.backend, event)
                }
                Change::Next(known, event) => {
                    self.check_known(&writer.view, known, event)?;
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
            match self.append_frame(writer, &mut note, &frame) {
                Ok(()) => appended = Some(writer.appended(&note)),
                // The frames before this one are written, so something may have been logged.
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

    /// Appends a frame, in a new generation if it does not fit. Not durable yet.
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
                "there are no more numbers to give",
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

    /// Writes a frame with one system call. The note says `at_work` while the journal may be torn.
    fn write_frame(
        &self,
        writer: &mut Writer<V>,
        mut note: AppendNote,
        frame: &NewFrame<'_>,
    ) -> WalResult<AppendNote> {
        let peer_synced =
            if writer.peer_synced.0 == note.generation { writer.peer_synced.1 } else { 0 };
        let synced = self.synced_of(note.generation).max(peer_synced);
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
        note::write(writer.lock.file(), &note).map_err(WalError::NotLogged)?;
        let ahead_max = self.options.preallocate_bytes;
        let closed_at = self.options.generation_bytes.max(end);
        let journal = self.open_generation(writer, note.generation)?;
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
                note::write(writer.lock.file(), &note).map_err(WalError::NotLogged)?;
                return Err(WalError::NotLogged(error));
            }
            // A write that failed may still have arrived whole; then it counts, and the flush
            // decides.
            if back[..read] != bytes[..] {
                return Err(WalError::NotLogged(error));
            }
        }
        tracing::debug!(generation = note.generation, start, end, kind = ?frame.kind, revisions = frame.revisions, "frame written");
        note.at_work = false;
        (note.last, note.end, note.checksum) = (start, end, checksum);
        note.revision = note.revision.saturating_add(frame.revisions);
        note.number = frame.next_number;
        note::write(writer.lock.file(), &note).map_err(|error| not_known(&error))?;
        Ok(note)
    }
}

/// Turns an error into one that says that nothing was logged.
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

/// Returns the error for a write that may have arrived. The caller adds the ids.
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
