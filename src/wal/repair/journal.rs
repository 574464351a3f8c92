//! What can still be read of a journal: the frames before and behind what cannot.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Loss;
use crate::disk::Disk;
use crate::operation::{Number, Revision, Status, Transition};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::note::AppendNote;
use crate::wal::journal::reader;
use crate::wal::journal::{
    self, BadHeader, FRAME_HEADER_LEN, FrameKind, HEADER_LEN, Header, Payload, Reservation,
    frame_at,
};
use crate::wal::layout::Layout;
use crate::wal::manifest::Manifest;

/// Bytes that a transition takes at least: what tells how many may have stood in a stretch.
const RECORD_MIN: u64 = 48;

/// As much as a generation of which nothing is left may have held, in bytes; a recovery's may be longer, as a rule it is not.
const GENERATION_MAX: u64 = 4 << 20;

/// A transition that was read, and where.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) path: String,
    pub(super) offset: u64,
    pub(super) transition: Transition,
}

/// Whether nothing was ever written behind a generation's header.
fn is_empty(read: &super::Read) -> bool {
    read.bad.is_empty() && read.bytes.iter().skip(HEADER_LEN as usize).all(|byte| *byte == 0)
}

/// All that a journal still tells.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) records: Vec<Record>,
    pub(super) losses: Vec<Loss>,
    /// Numbers that batches had taken.
    pub(super) reserved: Vec<(Number, Number)>,
    /// The lowest number that the journal may have given, and the one above the highest that it speaks of.
    pub(super) numbers: (Number, Number),
    /// The number that comes next where reading stands.
    next: Number,
    pub(super) revision: Revision,
    /// All generations there are.
    pub(super) generations: Vec<u64>,
    /// Room for numbers and revisions of which nothing tells any more.
    pub(super) slack: u64,
    /// Whether `next` is: it is not behind a gap.
    next_is_known: bool,
    /// Whether transitions may be missing.
    pub(super) has_gaps: bool,
    /// Operations of which it is known where they stand at the end of the journal.
    pub(super) proven: BTreeSet<Number>,
    /// The last revision where reading stands, if that is known.
    last: Option<Revision>,
    /// Frames that were read.
    frames: u64,
    /// The generation that a seal names as the next one.
    sealed: Option<u64>,
}

impl Journal {
    /// Reads the generations from `first` on; none: from the first one with a header.
    pub(super) fn read(
        disk: &dyn Disk,
        layout: &Layout,
        manifest: Option<&Manifest>,
    ) -> WalResult<Journal> {
        let first = manifest.map(|manifest| manifest.first_generation);
        let generations = reader::generations(disk, layout)?;
        let mut files = HashMap::new();
        let mut headers = HashMap::new();
        for generation in &generations {
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
            files.insert(*generation, read);
        }
        let mut journal = Journal { generations: generations.clone(), ..Journal::default() };
        for header in headers.values() {
            journal.numbers.1 = journal.numbers.1.max(header.number);
            journal.revision = journal.revision.max(header.revision);
        }
        // Without a manifest also one without a header: what it says twice counts once.
        let Some(mut generation) = first.or(generations.first().copied()) else {
            // Every log has one.
            journal.lose(
                "journal",
                0,
                0,
                "there is no generation; what stood in it, nobody knows",
                GENERATION_MAX,
            );
            return Ok(journal);
        };
        journal.last = manifest.map(|manifest| manifest.revision);
        let noted = reader::noted_generations(disk, layout)?;
        // Whoever began to make them had said nothing yet.
        let never_began: HashSet<u64> = files
            .iter()
            .filter(|(generation, read)| {
                let may_have = noted.contains(generation) || !read.bad.is_empty();
                !headers.contains_key(generation)
                    && !may_have
                    && !reader::header_is_broken(&read.bytes, **generation)
            })
            .map(|(generation, _)| *generation)
            .collect();
        // The manifest says where its first generation begins, whether that can still say so or not.
        journal.next = manifest.map_or(Number::FIRST, |manifest| manifest.next_number);
        journal.numbers.0 = headers.get(&generation).map_or(journal.next, |header| header.number);
        loop {
            let next = reader::successor(&headers, generation);
            let name = layout.relative(&layout.generation(generation));
            let header = headers.get(&generation);
            journal.next = header.map_or(journal.next, |header| header.number.max(journal.next));
            let next_is_known =
                header.is_some() || manifest.is_some_and(|m| m.first_generation == generation);
            if let Some(header) = header {
                if journal.last.is_some_and(|last| header.revision > last) {
                    let what = "transitions before it are missing";
                    journal.lose(&name, 0, 0, what, 0);
                }
                if header.previous == 0 {
                    // The first one, or what a repair or an adoption began with: what came between is no part of the journal.
                    journal.proven.clear();
                }
                journal.last = Some(header.revision);
                // A recovery wrote again what it kept of them; the others were never acknowledged.
                journal.records.retain(|record| record.transition.revision <= header.revision);
            }
            match files.get(&generation) {
                Some(read) => {
                    let synced = if next.is_none() {
                        reader::synced_by_any_note(disk, layout, generation)?
                    } else {
                        0
                    };
                    if !headers.contains_key(&generation) {
                        journal.lose_header(&name);
                    }
                    journal.next_is_known = next_is_known;
                    let before = journal.frames;
                    journal.scan(
                        &name,
                        generation,
                        read,
                        next.map(|next| next.previous_end),
                        synced,
                    );
                    if header.is_none() && journal.frames == before {
                        let what = "nothing of it can be read; what stood in it, nobody knows";
                        journal.lose(&name, HEADER_LEN, 0, what, GENERATION_MAX);
                    }
                }
                None => {
                    let bytes = if next.is_none() { GENERATION_MAX } else { 0 };
                    journal.lose(&name, 0, 0, "it is missing", bytes);
                }
            }
            let is_gone = |generation: &u64| {
                !files.contains_key(generation) || never_began.contains(generation)
            };
            if let (None, Some(named)) = (next, journal.sealed.take())
                && is_gone(&named)
            {
                let name = layout.relative(&layout.generation(named));
                let what = "the one before it says that it follows, but it is gone; what stood in it, nobody knows";
                journal.lose(&name, 0, 0, what, GENERATION_MAX);
            }
            // Where nothing follows by name, what comes next may have lost its header, or its predecessor.
            let lost_its_place = |candidate: &&u64| {
                **candidate > generation
                    && !never_began.contains(candidate)
                    && headers.get(candidate).is_none_or(|header| {
                        // Without a manifest nobody knows with which one the log began; an empty one says nothing.
                        let says_something =
                            || files.get(candidate).is_some_and(|read| !is_empty(read));
                        header.previous > generation
                            || (header.previous == 0 && manifest.is_none() && says_something())
                    })
            };
            match next
                .map(|next| next.generation)
                .or_else(|| generations.iter().find(lost_its_place).copied())
            {
                Some(next) => {
                    if let Some(header) =
                        headers.get(&next).filter(|header| header.previous > generation)
                    {
                        let missing = layout.relative(&layout.generation(header.previous));
                        if is_gone(&header.previous) {
                            journal.lose(
                                &missing,
                                0,
                                header.previous_end,
                                "it is missing",
                                header.previous_end,
                            );
                        }
                    }
                    generation = next;
                }
                None => return Ok(journal),
            }
        }
    }

    /// A generation that a note speaks of was durable with its name; if it is missing, what it held is lost.
    pub(super) fn miss_noted(
        &mut self,
        layout: &Layout,
        first: u64,
        noted: &[u64],
        note: Option<&AppendNote>,
    ) {
        let is_told = |noted: &u64| {
            let name = layout.relative(&layout.generation(*noted));
            self.losses.iter().any(|loss| loss.path == name)
        };
        let is_missing =
            |noted: &u64| *noted >= first && !self.generations.contains(noted) && !is_told(noted);
        for generation in noted.iter().copied().filter(is_missing).collect::<BTreeSet<u64>>() {
            let name = layout.relative(&layout.generation(generation));
            match note.filter(|note| note.generation == generation) {
                Some(note) => self.lose(&name, 0, note.end, "it is missing", note.end),
                None => self.lose(
                    &name,
                    0,
                    0,
                    "it is missing; how much stood in it, nobody knows",
                    GENERATION_MAX,
                ),
            }
        }
    }

    /// What a header says is said elsewhere, too: whether anything else is missing shows at the next frame.
    fn lose_header(&mut self, path: &str) {
        let what = "its header cannot be read".to_owned();
        self.losses.push(Loss { path: path.to_owned(), range: Some((0, HEADER_LEN)), what });
        self.slack += 1;
        self.next_is_known = false;
    }

    /// The files hold later operations, or later states of them, than the journal tells of: it went on once.
    pub(super) fn end_too_early(
        &mut self,
        highest: (Number, Revision),
        manifest: Option<&Manifest>,
    ) {
        let (number, revision) = manifest.map_or((Number::FIRST, Revision::ZERO), |manifest| {
            (manifest.next_number, manifest.revision)
        });
        if highest.0 >= self.numbers.1.max(number) || highest.1 > self.revision.max(revision) {
            let what = "it ends before what the files hold; what stood there, nobody knows";
            self.lose("journal", 0, 0, what, GENERATION_MAX);
        }
    }

    pub(super) fn lose(&mut self, path: &str, from: u64, to: u64, what: &str, bytes: u64) {
        self.losses.push(Loss {
            path: path.to_owned(),
            range: (to > from).then_some((from, to)),
            what: what.to_owned(),
        });
        self.slack += bytes / RECORD_MIN + 1;
        self.next_is_known = false;
        self.has_gaps = true;
        self.proven.clear();
        self.last = None;
    }

    fn scan(
        &mut self,
        name: &str,
        generation: u64,
        read: &super::Read,
        end: Option<u64>,
        synced: u64,
    ) {
        let super::Read { bytes, bad } = read;
        let limit = end.unwrap_or(bytes.len() as u64);
        let mut at = HEADER_LEN;
        let mut gap = None;
        let mut is_first = true;
        while at < limit {
            let Some(frame) = frame_at(bytes, 0, at, generation) else {
                gap = gap.or(Some(at));
                at += 8;
                continue;
            };
            if let Some(from) = gap.take() {
                self.lose(name, from, at, "it cannot be read; frames stand behind it", at - from);
            } else if frame.kind != FrameKind::Sealed
                && self.last.is_some_and(|last| frame.revision > last.next())
            {
                self.lose(name, at, at, "transitions before it are missing", 0);
            }
            at = frame.end;
            self.frames += 1;
            if std::mem::take(&mut is_first) {
                // The same, where the header is lost.
                self.records.retain(|record| record.transition.revision < frame.revision);
            }
            match frame.kind {
                FrameKind::Sealed => {
                    self.sealed = frame.payload.try_into().ok().map(u64::from_le_bytes);
                    break;
                }
                FrameKind::Reserved => {
                    if let Some(Reservation { numbers, revisions }) =
                        Reservation::decode(frame.payload)
                    {
                        let last = frame.revision.saturating_add(revisions).previous();
                        let first = self.next.max(Number::FIRST);
                        self.next = first.saturating_add(numbers);
                        // Behind a gap nobody knows which numbers those were.
                        if self.next_is_known {
                            self.reserved.push((first, self.next.previous()));
                        }
                        self.numbers.1 = self.numbers.1.max(self.next);
                        self.revision = self.revision.max(last);
                        self.last = Some(last);
                    }
                }
                FrameKind::Transitions => match Payload::new(frame.revision, frame.payload) {
                    Some(payload) => self.take(name, frame.start, &payload),
                    None => {
                        self.lose(
                            name,
                            frame.start,
                            frame.end,
                            "the frame makes no sense",
                            frame.end - frame.start,
                        );
                    }
                },
            }
        }
        // Zeros laid ahead, or acknowledged: of what the medium does not give, nobody can tell.
        // But where zeros can be read in place of the next frame, there is none, nor one behind it.
        let begins_at = gap.unwrap_or(at);
        let head = begins_at..begins_at + FRAME_HEADER_LEN as u64;
        let head_is_hidden = bad.iter().any(|(from, to)| *from < head.end && head.start < *to);
        let at_usize = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let has_begun =
            bytes[at_usize(head.start)..at_usize(head.end)].iter().any(|byte| *byte != 0);
        let hidden = bad
            .iter()
            .map(|(_, to)| *to)
            .filter(|to| end.is_none() && (head_is_hidden || has_begun) && *to > begins_at)
            .max();
        if let Some(from) = gap {
            let known = end.unwrap_or(synced).min(limit.max(synced));
            let rest = bytes.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
            if known > from {
                self.lose(
                    name,
                    from,
                    known,
                    "it was on the disk once and cannot be read any more",
                    known - from,
                );
            }
            if let Some(to) = hidden.filter(|to| *to > known) {
                let what =
                    "it cannot be read; whether anything that counts stood there, nobody can tell";
                self.lose(name, from.max(known), to, what, to - from.max(known));
            } else if known <= from && rest.iter().any(|byte| *byte != 0) {
                // Never acknowledged; but a number in it may have been seen.
                self.slack += rest.len() as u64 / RECORD_MIN + 1;
            }
        } else if synced > at {
            self.lose(name, at, synced, "it was on the disk once and is missing", synced - at);
        }
    }

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
                    // Behind a gap, what changes no status proves nothing of what the gap may have held. Whoever was claimed
                    // was not held.
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
                        range: Some((offset, offset)),
                        what,
                    });
                    self.has_gaps = true;
                }
            }
        }
    }

    /// The operations that transitions are about.
    pub(super) fn touched(&self) -> BTreeSet<Number> {
        self.records.iter().map(|record| record.transition.number).collect()
    }
}
