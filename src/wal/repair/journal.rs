//! The readable part of a damaged journal: the frames before and after the unreadable places.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::{ByteRange, Loss};
use crate::disk::Disk;
use crate::operation::{Number, Revision, Status, Transition};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::note::AppendNote;
use crate::wal::journal::reader;
use crate::wal::journal::{
    self, BadHeader, FRAME_HEADER_LEN, FrameKind, HEADER_LEN, Header, Payload, Reservation,
    decode_frame,
};
use crate::wal::layout::Layout;
use crate::wal::manifest::Manifest;
use crate::wal::options::GENERATION_BYTES;

/// The size in bytes of the smallest transition. It bounds the number of transitions in an
/// unreadable place.
const RECORD_MIN: u64 = 48;

/// The number of bytes that a lost generation is assumed to have held. One that a recovery wrote
/// may be longer, but rarely is.
const GENERATION_MAX: u64 = GENERATION_BYTES;

/// A transition and its place.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) path: String,
    pub(super) offset: u64,
    pub(super) transition: Transition,
}

/// Returns true if nothing was ever written after the header of a generation.
fn is_empty(read: &super::Read) -> bool {
    read.bad.is_empty() && read.bytes.iter().skip(HEADER_LEN as usize).all(|byte| *byte == 0)
}

/// The contents of a journal that can still be read.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) records: Vec<Record>,
    pub(super) losses: Vec<Loss>,
    /// Numbers that batches had reserved.
    pub(super) reserved: Vec<(Number, Number)>,
    /// The lowest number that the journal may have assigned, and the one above the highest it
    /// mentions.
    pub(super) numbers: (Number, Number),
    /// The next number at the current position.
    next: Number,
    pub(super) revision: Revision,
    /// All generations that exist.
    pub(super) generations: Vec<u64>,
    /// An upper bound of the numbers and revisions that are lost.
    pub(super) slack: u64,
    /// True if `next` is exact, because no gap precedes it.
    next_is_known: bool,
    /// True if transitions may be missing.
    pub(super) has_gaps: bool,
    /// Operations whose state at the end of the journal is certain.
    pub(super) proven: BTreeSet<Number>,
    /// The last revision at the current position, if it is known.
    last: Option<Revision>,
    /// The number of frames read.
    frames: u64,
    /// The generation that a seal names as the next one.
    sealed: Option<u64>,
}

/// Fails if a newer program wrote a frame: a repair would remove what it does not know.
fn refuse_newer(path: &Path, generation: u64, bytes: &[u8]) -> WalResult<()> {
    let mut at = HEADER_LEN;
    while at < bytes.len() as u64 {
        let Some(frame) = decode_frame(bytes, 0, at, generation) else {
            at += 8;
            continue;
        };
        if let FrameKind::Unknown(kind) = frame.kind {
            return Err(WalError::NewerFrame { path: path.to_owned(), offset: at, kind });
        }
        at = frame.end;
    }
    Ok(())
}

/// The generations that exist, as far as they can be read.
struct Generations {
    numbers: Vec<u64>,
    files: HashMap<u64, super::Read>,
    /// The valid headers.
    headers: HashMap<u64, Header>,
    /// The generations whose creation was never completed: they never held an acknowledged frame.
    unfinished: HashSet<u64>,
}

impl Generations {
    fn load(disk: &dyn Disk, layout: &Layout) -> WalResult<Generations> {
        let numbers = reader::generations(disk, layout)?;
        let mut files = HashMap::new();
        let mut headers = HashMap::new();
        for generation in &numbers {
            let path = layout.generation(*generation);
            let read = match super::read(disk, &path)? {
                Ok(read) => read,
                Err(_) => {
                    let len = disk.metadata(&path)?.len;
                    super::Read {
                        bytes: vec![0; usize::try_from(len).unwrap_or(0)],
                        bad: vec![(0, len)],
                    }
                }
            };
            match Header::decode(&read.bytes[..read.bytes.len().min(HEADER_LEN as usize)]) {
                Ok(header) if header.generation == *generation => {
                    headers.insert(*generation, header);
                }
                Ok(_) | Err(BadHeader::Torn) => {}
                Err(BadHeader::Newer(found)) => {
                    let (found, known) = (u64::from(found), u64::from(journal::FORMAT));
                    return Err(WalError::NewerFormat { path, found, known });
                }
            }
            refuse_newer(&path, *generation, &read.bytes)?;
            files.insert(*generation, read);
        }
        let noted = reader::noted_generations(disk, layout)?;
        let unfinished = files
            .iter()
            .filter(|(generation, read)| {
                let may_have_begun = noted.contains(generation) || !read.bad.is_empty();
                !headers.contains_key(generation)
                    && !may_have_begun
                    && !reader::header_is_broken(&read.bytes, **generation)
            })
            .map(|(generation, _)| *generation)
            .collect();
        Ok(Generations { numbers, files, headers, unfinished })
    }

    /// Returns true if nothing is left of a generation that once existed.
    fn is_gone(&self, generation: u64) -> bool {
        !self.files.contains_key(&generation) || self.unfinished.contains(&generation)
    }

    /// Returns the generation to continue with where no header names `generation` as the one
    /// before: one that has lost its header, or its predecessor.
    fn after_broken_link(&self, generation: u64, has_manifest: bool) -> Option<u64> {
        let has_lost_its_link = |candidate: &u64| {
            self.headers.get(candidate).is_none_or(|header| {
                // Without a manifest the first generation of the log is not known. An empty one has
                // nothing to continue with.
                let has_content = || self.files.get(candidate).is_some_and(|read| !is_empty(read));
                header.previous > generation
                    || (header.previous == 0 && !has_manifest && has_content())
            })
        };
        self.numbers
            .iter()
            .copied()
            .filter(|candidate| *candidate > generation && !self.unfinished.contains(candidate))
            .find(has_lost_its_link)
    }
}

impl Journal {
    /// Reads the generations from the first one that the manifest names; without a manifest, all of
    /// them.
    pub(super) fn read(
        disk: &dyn Disk,
        layout: &Layout,
        manifest: Option<&Manifest>,
    ) -> WalResult<Journal> {
        let source = Generations::load(disk, layout)?;
        let mut journal = Journal { generations: source.numbers.clone(), ..Journal::default() };
        for header in source.headers.values() {
            journal.numbers.1 = journal.numbers.1.max(header.number);
            journal.revision = journal.revision.max(header.revision);
        }
        // Without a manifest, a generation without a header counts as well: records that two
        // generations hold are taken once.
        let first = manifest.map(|manifest| manifest.first_generation);
        let Some(mut generation) = first.or(source.numbers.first().copied()) else {
            // Every log has at least one generation.
            let what = "no journal generation exists; the contents of the journal are unknown";
            journal.lose("journal", 0, 0, what, GENERATION_MAX);
            return Ok(journal);
        };
        journal.last = manifest.map(|manifest| manifest.revision);
        // The manifest names the first number of its first generation, which may have lost its
        // header.
        journal.next = manifest.map_or(Number::FIRST, |manifest| manifest.next_number);
        journal.numbers.0 =
            source.headers.get(&generation).map_or(journal.next, |header| header.number);
        loop {
            let next = reader::successor(&source.headers, generation);
            let synced = match next {
                Some(_) => 0,
                None => reader::synced_by_any_note(disk, layout, generation)?,
            };
            let is_first = first == Some(generation);
            journal.read_generation(layout, &source, generation, is_first, next, synced);
            if let (None, Some(named)) = (next, journal.sealed.take())
                && source.is_gone(named)
            {
                let name = layout.relative(&layout.generation(named));
                let what = "named by the seal of the generation before it, but missing; its \
                            contents are unknown";
                journal.lose(&name, 0, 0, what, GENERATION_MAX);
            }
            let next = next.map(|next| next.generation);
            match next.or_else(|| source.after_broken_link(generation, manifest.is_some())) {
                Some(next) => {
                    journal.miss_predecessor(layout, &source, next, generation);
                    generation = next;
                }
                None => return Ok(journal),
            }
        }
    }

    /// Reads one generation. `is_first`: the manifest names it as its first one. `next` is the
    /// header of the generation that follows; without one, `synced` is the offset up to which notes
    /// call it durable.
    fn read_generation(
        &mut self,
        layout: &Layout,
        source: &Generations,
        generation: u64,
        is_first: bool,
        next: Option<&Header>,
        synced: u64,
    ) {
        let name = layout.relative(&layout.generation(generation));
        let header = source.headers.get(&generation);
        if let Some(header) = header {
            self.begin(&name, header);
        }
        let Some(read) = source.files.get(&generation) else {
            let bytes = if next.is_none() { GENERATION_MAX } else { 0 };
            self.lose(&name, 0, 0, "the file is missing", bytes);
            return;
        };
        if header.is_none() {
            self.lose_header(&name);
        }
        self.next_is_known = header.is_some() || is_first;
        let before = self.frames;
        self.scan(&name, generation, read, next.map(|next| next.previous_end), synced);
        if header.is_none() && self.frames == before {
            let what = "no frame can be read; its contents are unknown";
            self.lose(&name, HEADER_LEN, 0, what, GENERATION_MAX);
        }
    }

    /// Continues with a generation that begins with `header`.
    fn begin(&mut self, name: &str, header: &Header) {
        self.next = header.number.max(self.next);
        if self.last.is_some_and(|last| header.revision > last) {
            self.lose(name, 0, 0, "transitions before it are missing", 0);
        }
        if header.previous == 0 {
            // The journal begins with this generation: it is the first one of a log, or the first
            // one after a repair or an adoption.
            self.proven.clear();
        }
        self.last = Some(header.revision);
        // A recovery has repeated the records that it kept. The others were never acknowledged.
        self.records.retain(|record| record.transition.revision <= header.revision);
    }

    /// Reports a missing generation between `before` and the one that follows it.
    fn miss_predecessor(
        &mut self,
        layout: &Layout,
        source: &Generations,
        generation: u64,
        before: u64,
    ) {
        let Some(header) = source.headers.get(&generation).filter(|next| next.previous > before)
        else {
            return;
        };
        if source.is_gone(header.previous) {
            let missing = layout.relative(&layout.generation(header.previous));
            let end = header.previous_end;
            self.lose(&missing, 0, end, "the file is missing", end);
        }
    }

    /// Reports missing generations that a note names: those were durable, so their contents are
    /// lost.
    pub(super) fn miss_noted(
        &mut self,
        layout: &Layout,
        first: u64,
        noted: &[u64],
        note: Option<&AppendNote>,
    ) {
        let is_reported = |noted: &u64| {
            let name = layout.relative(&layout.generation(*noted));
            self.losses.iter().any(|loss| loss.path == name)
        };
        let is_missing = |noted: &u64| {
            *noted >= first && !self.generations.contains(noted) && !is_reported(noted)
        };
        for generation in noted.iter().copied().filter(is_missing).collect::<BTreeSet<u64>>() {
            let name = layout.relative(&layout.generation(generation));
            match note.filter(|note| note.generation == generation) {
                Some(note) => self.lose(&name, 0, note.end, "the file is missing", note.end),
                None => self.lose(
                    &name,
                    0,
                    0,
                    "the file is missing; its contents are unknown",
                    GENERATION_MAX,
                ),
            }
        }
    }

    /// Reports a lost header. Its contents are redundant: the next frame shows whether more is
    /// missing.
    fn lose_header(&mut self, path: &str) {
        let what = "the header cannot be read".to_owned();
        self.losses.push(Loss {
            path: path.to_owned(),
            range: Some(ByteRange { start: 0, end: HEADER_LEN }),
            what,
        });
        self.slack += 1;
        self.next_is_known = false;
    }

    /// Reports a lost end of the journal if files hold later operations, or later states, than it
    /// does.
    pub(super) fn end_too_early(
        &mut self,
        highest: (Number, Revision),
        manifest: Option<&Manifest>,
    ) {
        let (number, revision) = manifest.map_or((Number::FIRST, Revision::ZERO), |manifest| {
            (manifest.next_number, manifest.revision)
        });
        if highest.0 >= self.numbers.1.max(number) || highest.1 > self.revision.max(revision) {
            let what =
                "it ends before the latest state in the files; the rest of its contents is unknown";
            self.lose("journal", 0, 0, what, GENERATION_MAX);
        }
    }

    /// Reports a loss of at most `bytes` bytes of transitions; `to` of 0 means the whole file.
    pub(super) fn lose(&mut self, path: &str, from: u64, to: u64, what: &str, bytes: u64) {
        self.losses.push(Loss {
            path: path.to_owned(),
            range: (to > from).then_some(ByteRange { start: from, end: to }),
            what: what.to_owned(),
        });
        self.slack += bytes / RECORD_MIN + 1;
        self.next_is_known = false;
        self.has_gaps = true;
        self.proven.clear();
        self.last = None;
    }

    /// Reads the frames of a generation that ends at `end`, if that is known.
    fn scan(
        &mut self,
        name: &str,
        generation: u64,
        read: &super::Read,
        end: Option<u64>,
        synced: u64,
    ) {
        let bytes = &read.bytes;
        let limit = end.unwrap_or(bytes.len() as u64);
        let mut at = HEADER_LEN;
        let mut gap = None;
        let mut is_first = true;
        while at < limit {
            let Some(frame) = decode_frame(bytes, 0, at, generation) else {
                gap = gap.or(Some(at));
                at += 8;
                continue;
            };
            if let Some(from) = gap.take() {
                self.lose(name, from, at, "unreadable; valid frames follow", at - from);
            } else if frame.kind != FrameKind::Sealed
                && self.last.is_some_and(|last| frame.revision > last.next())
            {
                self.lose(name, at, at, "transitions before it are missing", 0);
            }
            at = frame.end;
            self.frames += 1;
            if std::mem::take(&mut is_first) {
                // As in `begin`, in case the header is lost.
                self.records.retain(|record| record.transition.revision < frame.revision);
            }
            match frame.kind {
                FrameKind::Sealed => {
                    self.sealed = frame.payload.try_into().ok().map(u64::from_le_bytes);
                    break;
                }
                // `refuse_newer` has seen none.
                FrameKind::Unknown(_) => {}
                FrameKind::Reserved => {
                    if let Some(reservation) = Reservation::decode(frame.payload) {
                        self.reserve(frame.revision, reservation);
                    }
                }
                FrameKind::Transitions => match Payload::decode(frame.revision, frame.payload) {
                    Some(payload) => self.take(name, frame.start, &payload),
                    None => {
                        let len = frame.end - frame.start;
                        self.lose(name, frame.start, frame.end, "the frame is invalid", len);
                    }
                },
            }
        }
        match gap {
            Some(from) => self.lose_tail(name, read, end, synced, from),
            None if synced > at => {
                self.lose(name, at, synced, "durable bytes are missing", synced - at);
            }
            None => {}
        }
    }

    /// Takes the numbers and revisions of a batch out of circulation.
    fn reserve(&mut self, first_revision: Revision, reservation: Reservation) {
        let last = first_revision.saturating_add(reservation.revisions).previous();
        let first = self.next.max(Number::FIRST);
        self.next = first.saturating_add(reservation.numbers);
        // After a gap, its numbers are not known.
        if self.next_is_known {
            self.reserved.push((first, self.next.previous()));
        }
        self.numbers.1 = self.numbers.1.max(self.next);
        self.revision = self.revision.max(last);
        self.last = Some(last);
    }

    /// Judges the bytes from `from` on, where no valid frame follows: they were preallocated, never
    /// acknowledged, or are lost.
    fn lose_tail(
        &mut self,
        name: &str,
        read: &super::Read,
        end: Option<u64>,
        synced: u64,
        from: u64,
    ) {
        let super::Read { bytes, bad } = read;
        let limit = end.unwrap_or(bytes.len() as u64);
        let known = end.unwrap_or(synced).min(limit.max(synced));
        if known > from {
            self.lose(name, from, known, "durable bytes cannot be read", known - from);
        }
        // An unreadable place may hide frames, unless zeros can be read in place of the next frame:
        // then no frame follows.
        let head = from..from + FRAME_HEADER_LEN as u64;
        let head_is_hidden = bad.iter().any(|(from, to)| *from < head.end && head.start < *to);
        let index = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let has_begun = bytes[index(head.start)..index(head.end)].iter().any(|byte| *byte != 0);
        let hidden = bad
            .iter()
            .map(|(_, to)| *to)
            .filter(|to| end.is_none() && (head_is_hidden || has_begun) && *to > from)
            .max();
        let rest = &bytes[index(from)..];
        if let Some(to) = hidden.filter(|to| *to > known) {
            let what = "unreadable; whether it held acknowledged transitions is unknown";
            self.lose(name, from.max(known), to, what, to - from.max(known));
        } else if known <= from && rest.iter().any(|byte| *byte != 0) {
            // The bytes were never acknowledged, but a reader may have seen their numbers.
            self.slack += rest.len() as u64 / RECORD_MIN + 1;
        }
    }

    /// Adds the transitions of a frame.
    fn take(&mut self, name: &str, offset: u64, payload: &Payload) {
        for ((_, record), revision) in
            payload.records().zip(payload.revision.through(Revision::MAX))
        {
            self.revision = self.revision.max(revision);
            self.last = Some(revision);
            if record.from.is_none() {
                self.next = self.next.max(record.number.next());
                self.next_is_known = true;
            }
            self.numbers.1 = self.numbers.1.max(record.number.next());
            match record.decode(revision, payload.actor()).filter(|read| read.to() == record.to) {
                Some(transition) => {
                    // After a gap, a transition that keeps the status proves nothing about the
                    // transitions in the gap. A claim does, since a held operation is not claimed.
                    let is_claim = record.to == Some(Status::Processing)
                        && record.from != Some(Status::Processing);
                    if !self.has_gaps || record.from.is_none() || is_claim {
                        self.proven.insert(record.number);
                    }
                    self.records.push(Record { path: name.to_owned(), offset, transition });
                }
                None => {
                    self.proven.remove(&record.number);
                    let what = format!(
                        "transition {revision} of operation {} cannot be decoded",
                        record.number
                    );
                    self.losses.push(Loss {
                        path: name.to_owned(),
                        range: Some(ByteRange { start: offset, end: offset }),
                        what,
                    });
                    self.has_gaps = true;
                }
            }
        }
    }

    /// Returns the operations that have transitions.
    pub(super) fn touched(&self) -> BTreeSet<Number> {
        self.records.iter().map(|record| record.transition.number).collect()
    }
}
