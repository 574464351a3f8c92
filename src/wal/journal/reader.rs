//! Reading generations: which files follow each other, and which of their frames count.

use std::collections::HashMap;

use serde::de::DeserializeOwned;

use super::format::{
    self, BadHeader, COUNT_MAX, FRAME_HEADER_LEN, FRAME_MAX, FrameKind, HEADER_LEN, Header,
    Payload, Reservation, frame_at, synced_claim_beyond,
};
use super::note::{self, AppendNote, SyncNote};
use crate::disk::{Access, Disk, DiskFile};
use crate::operation::{Number, Revision};
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::layout::{Layout, LockName};

/// How much of a generation is read at a time.
const STEP: usize = 16 * 1024;

static ZEROS: [u8; STEP] = [0; STEP];

/// How far reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The generation.
    pub generation: u64,
    /// Where its next frame starts.
    pub end: u64,
    /// Where its last frame starts; 0 without a frame.
    pub last: u64,
    /// Checksum of the last frame of the log.
    pub checksum: u32,
    /// Last revision.
    pub revision: Revision,
    /// Number that the next logged operation gets.
    pub number: Number,
}

impl Position {
    /// The start of a generation.
    pub fn start_of(header: &Header) -> Position {
        Position {
            generation: header.generation,
            end: HEADER_LEN,
            last: 0,
            checksum: header.checksum,
            revision: header.revision,
            number: header.number,
        }
    }
}

/// The whole headers in `journal/`, from a generation on.
pub fn headers(disk: &dyn Disk, layout: &Layout, first: u64) -> WalResult<HashMap<u64, Header>> {
    let mut headers = HashMap::new();
    for generation in generations(disk, layout)? {
        if generation < first {
            continue;
        }
        let path = layout.generation(generation);
        let mut bytes = [0; HEADER_LEN as usize];
        let read = disk.open(&path, Access::Read)?.read_at(&mut bytes, 0)?;
        match Header::decode(&bytes[..read]) {
            Ok(header) if header.generation == generation => {
                headers.insert(generation, header);
            }
            Ok(_) | Err(BadHeader::Torn) => {}
            Err(BadHeader::Newer(found)) => {
                let (found, known) = (u64::from(found), u64::from(format::FORMAT));
                return Err(WalError::NewerFormat { path, found, known });
            }
        }
    }
    Ok(headers)
}

/// The generations of all files in `journal/`, whole or not; none if there is no such directory.
pub fn generations(disk: &dyn Disk, layout: &Layout) -> WalResult<Vec<u64>> {
    let entries = match disk.list(&layout.journal()) {
        Ok(entries) => entries,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found: Vec<u64> =
        entries.iter().filter_map(|entry| Layout::parse_generation(entry.name.to_str()?)).collect();
    found.sort_unstable();
    Ok(found)
}

/// The generation that follows: of all that name this one as previous, the highest.
pub fn successor(headers: &HashMap<u64, Header>, generation: u64) -> Option<&Header> {
    headers
        .values()
        .filter(|header| header.previous == generation)
        .max_by_key(|header| header.generation)
}

/// What reading a stretch of one generation found.
#[derive(Debug, Default)]
pub struct Stretch {
    /// The frames of transitions and reservations, in order.
    pub frames: Vec<ReadFrame>,
    /// The generation that a `sealed` frame names.
    pub sealed: Option<u64>,
    /// A frame behind them that is whole and makes no sense.
    pub damage: Option<Damage>,
}

/// A frame that was read.
#[derive(Debug)]
pub struct ReadFrame {
    /// What it holds.
    pub content: Content,
    /// Up to where its writer knew the file to be synced.
    pub synced: u64,
    /// Where reading stands behind it.
    pub after: Position,
}

/// What a frame that moves the log on holds.
#[derive(Debug)]
pub enum Content {
    /// Transitions.
    Transitions(Payload),
    /// Numbers and revisions for a batch.
    Reserved(Reservation),
}

impl Content {
    /// What a frame holds; none if it makes no sense.
    pub fn new(kind: FrameKind, revision: Revision, payload: &[u8]) -> Option<Content> {
        match kind {
            FrameKind::Transitions => Payload::new(revision, payload).map(Content::Transitions),
            FrameKind::Reserved => Reservation::decode(payload).map(Content::Reserved),
            FrameKind::Sealed => None,
        }
    }

    /// How many revisions it uses up.
    pub fn revisions(&self) -> u64 {
        match self {
            Content::Transitions(payload) => payload.count() as u64,
            Content::Reserved(reservation) => reservation.revisions,
        }
    }

    /// The number that the next logged operation gets, if it was `next` before.
    fn next_number(&self, next: Number) -> Option<Number> {
        match self {
            Content::Transitions(payload) => {
                // No number is given twice, and nothing changes before it is logged.
                payload.records().try_fold(next, |next, (_, record)| match record.from {
                    None if record.number >= next => record.number.checked_add(1),
                    Some(_) if record.number < next => Some(next),
                    _ => None,
                })
            }
            Content::Reserved(reservation) => next.checked_add(reservation.numbers),
        }
    }
}

/// Reads frames from `position` on, up to `limit` (none: as far as they are valid), and moves the position.
pub fn read_frames(
    file: &dyn DiskFile,
    path: &std::path::Path,
    position: &mut Position,
    limit: Option<u64>,
) -> WalResult<Stretch> {
    let mut stretch = Stretch::default();
    if position.revision.get().max(position.number.get()) > COUNT_MAX {
        let what = format!(
            "nothing can follow revision {} and number {}",
            position.revision, position.number
        );
        stretch.damage = Some(Damage { path: path.to_owned(), offset: Some(0), what });
        return Ok(stretch);
    }
    let mut buffer = Vec::new();
    loop {
        let base = position.end;
        let wanted = limit.map_or(STEP as u64, |limit| limit.saturating_sub(base).min(STEP as u64));
        if wanted == 0 {
            return Ok(stretch);
        }
        read_into(file, &mut buffer, base, wanted as usize)?;
        if frame_at(&buffer, base, base, position.generation).is_none()
            && buffer.len() > FRAME_HEADER_LEN
        {
            // It may only be longer than what was read.
            let len =
                buffer.get(4..8).and_then(|len| len.try_into().ok()).map_or(0, u32::from_le_bytes)
                    as usize;
            let whole = format::frame_len(len);
            if whole > buffer.len() && whole <= FRAME_MAX {
                read_into(file, &mut buffer, base, whole)?;
            }
        }
        let before = position.end;
        while limit.is_none_or(|limit| position.end < limit) {
            let Some(frame) = frame_at(&buffer, base, position.end, position.generation) else {
                break;
            };
            if frame.kind == FrameKind::Sealed {
                match frame.payload.try_into() {
                    Ok(next) => stretch.sealed = Some(u64::from_le_bytes(next)),
                    Err(_) => {
                        let (path, what) =
                            (path.to_owned(), "a seal names no generation".to_owned());
                        stretch.damage = Some(Damage { path, offset: Some(frame.start), what });
                    }
                }
                return Ok(stretch);
            }
            let content = Content::new(frame.kind, frame.revision, frame.payload)
                .filter(|_| Some(frame.revision) == position.revision.checked_add(1));
            let moved = content.and_then(|content| {
                let revision = position.revision.checked_add(content.revisions())?;
                let number = content.next_number(position.number)?;
                (revision.get().max(number.get()) <= COUNT_MAX)
                    .then_some((revision, number, content))
            });
            let Some((revision, number, content)) = moved else {
                let what = format!(
                    "a frame with revision {} follows revision {}, or what it holds makes no sense",
                    frame.revision, position.revision
                );
                stretch.damage =
                    Some(Damage { path: path.to_owned(), offset: Some(frame.start), what });
                return Ok(stretch);
            };
            (position.revision, position.number) = (revision, number);
            (position.last, position.end, position.checksum) =
                (frame.start, frame.end, frame.checksum);
            stretch.frames.push(ReadFrame { content, synced: frame.synced, after: *position });
        }
        if position.end == before {
            return Ok(stretch);
        }
    }
}

/// Whether nothing but zeros stands behind an offset: what is laid ahead, as a rule.
fn is_zero_from(file: &dyn DiskFile, mut at: u64) -> WalResult<bool> {
    let mut buffer = [0; STEP];
    loop {
        let read = file.read_at(&mut buffer, at)?;
        // Compared as a whole, which is some twenty times as fast as byte by byte: every `add` does this.
        if buffer[..read] != ZEROS[..read] {
            return Ok(false);
        }
        if read < buffer.len() {
            return Ok(true);
        }
        at += read as u64;
    }
}

fn read_into(file: &dyn DiskFile, buffer: &mut Vec<u8>, offset: u64, len: usize) -> WalResult<()> {
    buffer.resize(len, 0);
    let read = file.read_at(buffer, offset)?;
    buffer.truncate(read);
    Ok(())
}

/// The journal from one generation to its end.
#[derive(Debug)]
pub struct Chain {
    /// Its generations in order, with what each holds.
    pub links: Vec<Link>,
    /// Where it ends.
    pub position: Position,
    /// What can no longer be read.
    pub damage: Option<Damage>,
}

/// One generation of a chain.
#[derive(Debug)]
pub struct Link {
    /// Its header.
    pub header: Header,
    /// Its frames.
    pub frames: Vec<ReadFrame>,
    /// The highest offset that something in the journal itself says was synced.
    pub synced: u64,
}

/// Reads the journal from generation `first` on.
///
/// The chain is the longest valid prefix; `damage` is set where something durable lies beyond it.
pub fn read_chain(disk: &dyn Disk, layout: &Layout, first: u64) -> WalResult<Chain> {
    let mut headers = self::headers(disk, layout, first)?;
    let Some(mut header) = headers.get(&first).copied() else {
        let what = "the journal's first generation is missing or has no header";
        return Err(WalError::damaged(layout.generation(first), None, what));
    };
    let mut position = Position::start_of(&header);
    let mut links = Vec::new();
    let mut damage;
    let mut tail = Vec::new();
    loop {
        let path = layout.generation(header.generation);
        let file = disk.open(&path, Access::Read)?;
        let mut next = successor(&headers, header.generation).copied();
        // Read before the frames, so that what it says was synced is there to be read.
        let noted =
            if next.is_none() { synced_by_note(disk, layout, header.generation)? } else { 0 };
        let mut stretch =
            read_frames(&*file, &path, &mut position, next.map(|next| next.previous_end))?;
        damage = stretch.damage.take();
        // What others append while we read is progress, not damage: the last look finds nothing more.
        while next.is_none() && damage.is_none() {
            if stretch.sealed.is_some() {
                headers = self::headers(disk, layout, first)?;
                next = successor(&headers, header.generation).copied();
                break;
            }
            let more = read_frames(&*file, &path, &mut position, None)?;
            let progress = !more.frames.is_empty();
            stretch.frames.extend(more.frames);
            stretch.sealed = more.sealed;
            damage = more.damage;
            if damage.is_some() {
                break;
            }
            if !progress && stretch.sealed.is_none() {
                if is_zero_from(&*file, position.end)? {
                    break;
                }
                let rest = file.read_to_end_from(position.end)?;
                if frame_at(&rest, position.end, position.end, header.generation).is_none() {
                    tail = rest;
                    break;
                }
            }
        }
        let mut synced = stretch.frames.iter().map(|frame| frame.synced).fold(HEADER_LEN, u64::max);
        let at = position.end;
        match next {
            Some(next) => {
                synced = synced.max(next.previous_end);
                if damage.is_none() {
                    damage = gap(&path, at, next.previous_end).or_else(|| {
                        (next.checksum != position.checksum || next.revision != position.revision)
                            .then(|| Damage {
                                path: layout.generation(next.generation),
                                offset: Some(0),
                                what: format!(
                                    "it does not follow generation {}",
                                    header.generation
                                ),
                            })
                    });
                }
            }
            None if damage.is_none() => {
                if tail.iter().any(|byte| *byte != 0) {
                    let claim = synced_claim_beyond(&tail, at, at, header.generation).unwrap_or(0);
                    damage = gap(&path, at, claim);
                }
                if damage.is_none() {
                    damage = gap(&path, at, noted);
                }
                if damage.is_none() {
                    damage = broken_after(disk, layout, header.generation, &headers)?;
                }
                if let (None, Some(named)) = (&damage, stretch.sealed) {
                    damage = Some(Damage {
                        path: layout.generation(named),
                        offset: None,
                        what: format!(
                            "generation {} says that it follows, but it is missing",
                            header.generation
                        ),
                    });
                }
            }
            None => {}
        }
        links.push(Link { header, frames: stretch.frames, synced });
        match next {
            Some(next) if damage.is_none() => {
                header = next;
                position = Position {
                    last: 0,
                    end: HEADER_LEN,
                    generation: header.generation,
                    ..position
                };
            }
            _ => return Ok(Chain { links, position, damage }),
        }
    }
}

/// The generations that the notes in lock files, of whatever boot, speak of.
pub fn noted_generations(disk: &dyn Disk, layout: &Layout) -> WalResult<Vec<u64>> {
    let appended = noted::<AppendNote>(disk, layout, LockName::Append)?.map(|note| note.generation);
    let synced = noted::<SyncNote>(disk, layout, LockName::Sync)?.map(|note| note.generation);
    Ok(appended.into_iter().chain(synced).collect())
}

/// The note in a lock file; none without a file, or without a whole note in it.
fn noted<N: DeserializeOwned>(
    disk: &dyn Disk,
    layout: &Layout,
    name: LockName,
) -> WalResult<Option<N>> {
    match disk.open(&layout.lock(name), Access::Read) {
        Ok(file) => Ok(note::read_if_readable(&*file)?),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The damage of a generation above the last one of the chain that has lost its header, or is missing.
///
/// A generation is durable before any note speaks of it. The notes are read first: what comes after them is there.
///
/// A header is written last, its checksum at its end: before, that is nothing but zeros, and what stands behind it are copies
/// that say that nothing was synced. Either of them being otherwise proves that the header was whole once.
fn broken_after(
    disk: &dyn Disk,
    layout: &Layout,
    last: u64,
    headers: &HashMap<u64, Header>,
) -> WalResult<Option<Damage>> {
    let noted = noted_generations(disk, layout)?;
    let there = generations(disk, layout)?;
    // One that follows no other, and that the manifest does not begin with, is what a repair left that did not come to its end.
    let follows =
        |generation: &u64| headers.get(generation).is_none_or(|header| header.previous > 0);
    let highest = there.iter().copied().filter(follows).max().unwrap_or(0).max(last);
    if let Some(missing) = noted.iter().copied().find(|noted| *noted > highest) {
        let what = "a lock file says that it was begun, but it is missing".to_owned();
        return Ok(Some(Damage { path: layout.generation(missing), offset: None, what }));
    }
    for generation in there.into_iter().filter(|generation| *generation > last) {
        let path = layout.generation(generation);
        // Twice, since it may be the one that is being written.
        let mut is_broken = true;
        for _ in 0..2 {
            let bytes = match disk.read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.is_not_found() => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let has_header =
                bytes.get(..HEADER_LEN as usize).is_some_and(|head| Header::decode(head).is_ok());
            let is_lost = header_is_broken(&bytes, generation)
                || (noted.contains(&generation) && !has_header);
            is_broken = is_broken && is_lost;
        }
        if is_broken {
            let what = "its header cannot be read any more".to_owned();
            return Ok(Some(Damage { path, offset: Some(0), what }));
        }
    }
    Ok(None)
}

/// Whether a generation had a header once, and has none any more.
pub fn header_is_broken(bytes: &[u8], generation: u64) -> bool {
    let head = &bytes[..bytes.len().min(HEADER_LEN as usize)];
    let is_whole = Header::decode(head).is_ok_and(|header| header.generation == generation);
    // A write that fell short leaves zeros at the end.
    let has_checksum =
        head.get(HEADER_LEN as usize - 4..).is_some_and(|end| end.iter().any(|byte| *byte != 0));
    let claims = || {
        synced_claim_beyond(bytes, 0, HEADER_LEN, generation)
            .is_some_and(|claim| claim > HEADER_LEN)
    };
    !is_whole && (has_checksum || claims())
}

fn gap(path: &std::path::Path, readable: u64, synced: u64) -> Option<Damage> {
    (synced > readable).then(|| Damage {
        path: path.to_owned(),
        offset: Some(readable),
        what: format!("bytes up to {synced} were on the disk once and cannot be read any more"),
    })
}

/// Up to where the note of this boot says the generation was synced; 0 if it says nothing of it.
pub fn synced_by_note(disk: &dyn Disk, layout: &Layout, generation: u64) -> WalResult<u64> {
    let note = noted::<SyncNote>(disk, layout, LockName::Sync)?;
    Ok(note
        .filter(|note| note.boot == disk.identity().boot_id)
        .map_or(0, |note| synced_of(&note, generation)))
}

/// The same by the note of whatever boot: not to be relied upon to say that nothing more stood there.
pub fn synced_by_any_note(disk: &dyn Disk, layout: &Layout, generation: u64) -> WalResult<u64> {
    Ok(noted::<SyncNote>(disk, layout, LockName::Sync)?
        .map_or(0, |note| synced_of(&note, generation)))
}

fn synced_of(note: &SyncNote, generation: u64) -> u64 {
    if note.generation == generation { note.synced } else { 0 }
}
