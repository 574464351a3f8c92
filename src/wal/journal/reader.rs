//! Reading the journal: the order of its generations, and their valid frames.
//!
//! The journal ends with the last valid frame of its last generation. Bytes after that frame are a
//! torn write, unless a frame, a header or a note shows that they were synced: then they are
//! damage.

use std::collections::HashMap;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::format::{
    self, BadHeader, COUNT_MAX, FRAME_HEADER_LEN, FRAME_MAX, Frame, FrameKind, HEADER_LEN, Header,
    decode_frame, synced_claim_beyond,
};
use super::note::{self, AppendNote, SyncNote};
use super::payload::{Payload, Reservation};
use crate::disk::{Access, Disk, DiskFile};
use crate::operation::{Number, Revision};
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::layout::{Layout, LockName};

/// The number of bytes of a generation that are read at a time.
const STEP: usize = 16 * 1024;

static ZEROS: [u8; STEP] = [0; STEP];

/// A position between two frames of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The generation that the next frame belongs to.
    pub generation: u64,
    /// The offset of the next frame.
    pub end: u64,
    /// The offset of the last frame of this generation; 0 if it has none.
    pub last: u64,
    /// The checksum of the last frame of the journal.
    pub checksum: u32,
    /// The revision of the last transition.
    pub revision: Revision,
    /// The number of the next operation that is logged.
    pub number: Number,
}

impl Position {
    /// Returns the position after the header of a generation.
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

/// Returns the valid headers in `journal/` by generation, from `first` on. Fails on a newer format.
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

/// Returns the generations of all files in `journal/` in ascending order, valid or not.
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

/// Returns the header of the generation that follows: the highest of those that name this one as
/// previous. Lower ones were left by interrupted recoveries.
pub fn successor(headers: &HashMap<u64, Header>, generation: u64) -> Option<&Header> {
    headers
        .values()
        .filter(|header| header.previous == generation)
        .max_by_key(|header| header.generation)
}

/// The result of reading frames of one generation.
#[derive(Debug, Default)]
pub struct ReadFrames {
    /// The frames of transitions and reservations, in order.
    pub frames: Vec<ReadFrame>,
    /// The generation that a `sealed` frame names.
    pub sealed: Option<u64>,
    /// The frame that ended the reading, if its checksum is right but its content is invalid.
    pub damage: Option<Damage>,
}

/// A frame that was read.
#[derive(Debug)]
pub struct ReadFrame {
    /// The decoded content.
    pub content: FrameContent,
    /// The offset up to which its writer knew the file to be synced.
    pub synced: u64,
    /// The position after it.
    pub after: Position,
}

/// The content of a frame other than a seal.
#[derive(Debug)]
pub enum FrameContent {
    /// Transitions.
    Transitions(Payload),
    /// Numbers and revisions reserved for a batch.
    Reserved(Reservation),
}

impl FrameContent {
    /// Decodes the content of a frame. Returns none for a seal, and if the content is invalid.
    pub fn new(kind: FrameKind, revision: Revision, payload: &[u8]) -> Option<FrameContent> {
        match kind {
            FrameKind::Transitions => {
                Payload::decode(revision, payload).map(FrameContent::Transitions)
            }
            FrameKind::Reserved => Reservation::decode(payload).map(FrameContent::Reserved),
            FrameKind::Sealed | FrameKind::Unknown(_) => None,
        }
    }

    /// Returns the number of revisions that it uses.
    pub fn revisions(&self) -> u64 {
        match self {
            FrameContent::Transitions(payload) => payload.count() as u64,
            FrameContent::Reserved(reservation) => reservation.revisions,
        }
    }

    /// Returns the number of the next operation after this frame, given the one before it. Returns
    /// none if the frame uses numbers out of order.
    fn next_number(&self, next: Number) -> Option<Number> {
        match self {
            FrameContent::Transitions(payload) => {
                // No number is used twice, and no operation changes before it is logged.
                payload.records().try_fold(next, |next, (_, record)| match record.from {
                    None if record.number >= next => record.number.checked_add(1),
                    Some(_) if record.number < next => Some(next),
                    _ => None,
                })
            }
            FrameContent::Reserved(reservation) => next.checked_add(reservation.numbers),
        }
    }
}

/// Reads frames from `position` on, and advances the position past them.
///
/// Reads up to offset `limit`, or to the first invalid frame, which is not an error.
pub fn read_frames(
    file: &dyn DiskFile,
    path: &Path,
    position: &mut Position,
    limit: Option<u64>,
) -> WalResult<ReadFrames> {
    let mut read = ReadFrames::default();
    if position.revision.get().max(position.number.get()) > COUNT_MAX {
        let what = format!(
            "no frame can follow revision {} and number {}",
            position.revision, position.number
        );
        read.damage = Some(Damage { path: path.to_owned(), offset: Some(0), what });
        return Ok(read);
    }
    let mut buffer = Vec::new();
    loop {
        let base = position.end;
        let wanted = limit.map_or(STEP as u64, |limit| limit.saturating_sub(base).min(STEP as u64));
        if wanted == 0 {
            return Ok(read);
        }
        read_whole_frames(file, &mut buffer, base, wanted as usize, position.generation)?;
        while limit.is_none_or(|limit| position.end < limit) {
            let Some(frame) = decode_frame(&buffer, base, position.end, position.generation) else {
                break;
            };
            if let FrameKind::Unknown(kind) = frame.kind {
                let path = path.to_owned();
                return Err(WalError::NewerFrame { path, offset: frame.start, kind });
            }
            if let Err(what) = read.add(&frame, position) {
                let offset = Some(frame.start);
                read.damage = Some(Damage { path: path.to_owned(), offset, what });
                return Ok(read);
            }
            if read.sealed.is_some() {
                return Ok(read);
            }
        }
        if position.end == base {
            return Ok(read);
        }
    }
}

impl ReadFrames {
    /// Adds a frame, and advances the position past it. Fails, with a description, if the frame
    /// cannot follow.
    fn add(&mut self, frame: &Frame<'_>, position: &mut Position) -> Result<(), String> {
        if frame.kind == FrameKind::Sealed {
            let next = frame.payload.try_into().map_err(|_| {
                "the frame that seals the generation does not name the next one".to_owned()
            })?;
            self.sealed = Some(u64::from_le_bytes(next));
            return Ok(());
        }
        let follows = Some(frame.revision) == position.revision.checked_add(1);
        let content = FrameContent::new(frame.kind, frame.revision, frame.payload);
        let moved = content.filter(|_| follows).and_then(|content| {
            let revision = position.revision.checked_add(content.revisions())?;
            let number = content.next_number(position.number)?;
            (revision.get().max(number.get()) <= COUNT_MAX).then_some((revision, number, content))
        });
        let Some((revision, number, content)) = moved else {
            return Err(format!(
                "a frame with revision {} follows revision {}, or its content is invalid",
                frame.revision, position.revision
            ));
        };
        *position = Position {
            generation: position.generation,
            end: frame.end,
            last: frame.start,
            checksum: frame.checksum,
            revision,
            number,
        };
        self.frames.push(ReadFrame { content, synced: frame.synced, after: *position });
        Ok(())
    }
}

/// Reads `wanted` bytes from offset `base` on; more if the frame there is longer.
fn read_whole_frames(
    file: &dyn DiskFile,
    buffer: &mut Vec<u8>,
    base: u64,
    wanted: usize,
    generation: u64,
) -> WalResult<()> {
    read_into(file, buffer, base, wanted)?;
    if buffer.len() > FRAME_HEADER_LEN && decode_frame(buffer, base, base, generation).is_none() {
        let len =
            buffer.get(4..8).and_then(|len| len.try_into().ok()).map_or(0, u32::from_le_bytes);
        let whole = format::frame_len(len as usize);
        if whole > buffer.len() && whole <= FRAME_MAX {
            read_into(file, buffer, base, whole)?;
        }
    }
    Ok(())
}

/// Returns true if only preallocated zeros follow an offset.
fn is_zero_from(file: &dyn DiskFile, mut at: u64) -> WalResult<bool> {
    let mut buffer = [0; STEP];
    loop {
        let read = file.read_at(&mut buffer, at)?;
        // Comparing whole buffers is some twenty times as fast as comparing bytes, and every `add`
        // does this.
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
pub struct ReadJournal {
    /// Its generations in order, with the frames of each.
    pub generations: Vec<ReadGeneration>,
    /// Its end.
    pub position: Position,
    /// The durable bytes that can no longer be read, if there are any.
    pub damage: Option<Damage>,
}

/// One generation of the journal.
#[derive(Debug)]
pub struct ReadGeneration {
    /// Its header.
    pub header: Header,
    /// Its frames.
    pub frames: Vec<ReadFrame>,
    /// The highest offset that a frame, or the next header, records as synced.
    pub synced: u64,
}

/// Reads the journal from generation `first` on.
///
/// Returns the longest valid prefix. Its `damage` is set if durable bytes lie beyond it.
pub fn read_journal(disk: &dyn Disk, layout: &Layout, first: u64) -> WalResult<ReadJournal> {
    let mut headers = self::headers(disk, layout, first)?;
    let Some(mut header) = headers.get(&first).copied() else {
        let what = "the journal's first generation is missing or has no header";
        return Err(WalError::damaged(layout.generation(first), None, what));
    };
    let mut position = Position::start_of(&header);
    let mut generations = Vec::new();
    loop {
        let mut scan = scan_generation(disk, layout, first, &mut headers, &mut position)?;
        let damage = match scan.read.damage.take() {
            Some(damage) => Some(damage),
            None => damage_at_end(disk, layout, first, &headers, &position, &scan)?,
        };
        let claims = scan.read.frames.iter().map(|frame| frame.synced);
        let synced =
            claims.chain(scan.next.map(|next| next.previous_end)).fold(HEADER_LEN, u64::max);
        generations.push(ReadGeneration { header, frames: scan.read.frames, synced });
        match scan.next {
            Some(next) if damage.is_none() => {
                header = next;
                position = Position {
                    last: 0,
                    end: HEADER_LEN,
                    generation: header.generation,
                    ..position
                };
            }
            _ => return Ok(ReadJournal { generations, position, damage }),
        }
    }
}

/// One generation, read to its last valid frame.
struct Scan {
    read: ReadFrames,
    /// The generation that follows.
    next: Option<Header>,
    /// The offset up to which the note in `sync.lock` says that the last generation was synced.
    noted: u64,
    /// The bytes after the last valid frame of the last generation; empty if they are all zeros.
    tail: Vec<u8>,
}

/// Reads the generation that `position` is in, and finds its successor.
///
/// Another process may append to the generation meanwhile, or seal it. In the latter case `headers`
/// is read again.
fn scan_generation(
    disk: &dyn Disk,
    layout: &Layout,
    first: u64,
    headers: &mut HashMap<u64, Header>,
    position: &mut Position,
) -> WalResult<Scan> {
    let generation = position.generation;
    let path = layout.generation(generation);
    let file = disk.open(&path, Access::Read)?;
    let mut next = successor(headers, generation).copied();
    // The note is read before the frames, so that every byte it calls synced is in the file.
    let noted = if next.is_none() { synced_by_note(disk, layout, generation)? } else { 0 };
    let mut read = read_frames(&*file, &path, position, next.map(|next| next.previous_end))?;
    let mut tail = Vec::new();
    // Frames that are appended meanwhile must not be taken for a torn tail, so reading goes on
    // until a pass finds nothing new.
    while next.is_none() && read.damage.is_none() {
        if read.sealed.is_some() {
            *headers = self::headers(disk, layout, first)?;
            next = successor(headers, generation).copied();
            break;
        }
        let more = read_frames(&*file, &path, position, None)?;
        let has_progressed = !more.frames.is_empty() || more.sealed.is_some();
        read.frames.extend(more.frames);
        (read.sealed, read.damage) = (more.sealed, more.damage);
        if has_progressed || read.damage.is_some() {
            continue;
        }
        if is_zero_from(&*file, position.end)? {
            break;
        }
        let rest = file.read_to_end_from(position.end)?;
        if decode_frame(&rest, position.end, position.end, generation).is_none() {
            tail = rest;
            break;
        }
    }
    Ok(Scan { read, next, noted, tail })
}

/// Returns the damage after the position at which reading a generation ended: durable bytes that
/// cannot be read, or a successor that does not follow or is missing.
fn damage_at_end(
    disk: &dyn Disk,
    layout: &Layout,
    first: u64,
    headers: &HashMap<u64, Header>,
    position: &Position,
    scan: &Scan,
) -> WalResult<Option<Damage>> {
    let (generation, end) = (position.generation, position.end);
    let path = layout.generation(generation);
    if let Some(next) = &scan.next {
        let follows = next.checksum == position.checksum && next.revision == position.revision;
        return Ok(missing_synced_bytes(&path, end, next.previous_end).or_else(|| {
            (!follows).then(|| Damage {
                path: layout.generation(next.generation),
                offset: Some(0),
                what: format!("its header does not follow the end of generation {generation}"),
            })
        }));
    }
    let claimed = match scan.tail.iter().any(|byte| *byte != 0) {
        true => synced_claim_beyond(&scan.tail, end, end, generation).unwrap_or(0),
        false => 0,
    };
    let missing = missing_synced_bytes(&path, end, claimed)
        .or_else(|| missing_synced_bytes(&path, end, scan.noted));
    if missing.is_some() {
        return Ok(missing);
    }
    let lost = match lost_generation_after(disk, layout, generation, headers)? {
        None => lost_predecessor(disk, layout, first, generation, headers)?,
        lost => lost,
    };
    Ok(lost.or_else(|| {
        scan.read.sealed.map(|named| Damage {
            path: layout.generation(named),
            offset: None,
            what: format!("generation {generation} names it as its successor, but it is missing"),
        })
    }))
}

/// Returns the generations that the notes in the lock files name, written during any boot.
pub fn noted_generations(disk: &dyn Disk, layout: &Layout) -> WalResult<Vec<u64>> {
    let appended = noted::<AppendNote>(disk, layout, LockName::Append)?.map(|note| note.generation);
    let synced = noted::<SyncNote>(disk, layout, LockName::Sync)?.map(|note| note.generation);
    Ok(appended.into_iter().chain(synced).collect())
}

/// Returns the note in a lock file, if there is a valid one.
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

/// Returns the damage if a generation above the last one was once complete, and is now missing or
/// has lost its header.
///
/// A generation is durable before any note names it, and the notes are read before the directory: a
/// generation that a note names must exist.
///
/// The header of a generation is written last. Until then it consists of zeros, and the frames
/// after it are copies that record nothing as synced. Otherwise the generation was once complete.
fn lost_generation_after(
    disk: &dyn Disk,
    layout: &Layout,
    last: u64,
    headers: &HashMap<u64, Header>,
) -> WalResult<Option<Damage>> {
    let noted = noted_generations(disk, layout)?;
    let existing = generations(disk, layout)?;
    // A generation that follows no other, and is not the manifest's first one, was left by an
    // interrupted repair.
    let follows =
        |generation: &u64| headers.get(generation).is_none_or(|header| header.previous > 0);
    let highest = existing.iter().copied().filter(follows).max().unwrap_or(0).max(last);
    if let Some(missing) = noted.iter().copied().find(|noted| *noted > highest) {
        let what = "a lock file names it, but it is missing".to_owned();
        return Ok(Some(Damage { path: layout.generation(missing), offset: None, what }));
    }
    for generation in existing.into_iter().filter(|generation| *generation > last) {
        let path = layout.generation(generation);
        // The file is read twice, since another process may be writing it.
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
            let what = "its header can no longer be read".to_owned();
            return Ok(Some(Damage { path, offset: Some(0), what }));
        }
    }
    Ok(None)
}

/// Returns the damage if a generation above the last one names a predecessor that has no valid
/// header: a generation between them is missing or unreadable, with its acknowledged frames.
///
/// A generation without a predecessor was left by an interrupted repair.
fn lost_predecessor(
    disk: &dyn Disk,
    layout: &Layout,
    first: u64,
    last: u64,
    headers: &HashMap<u64, Header>,
) -> WalResult<Option<Damage>> {
    let orphan = |headers: &HashMap<u64, Header>| {
        let is_orphan = |header: &&Header| {
            let Header { generation, previous, .. } = **header;
            generation > last && previous > 0 && !headers.contains_key(&previous)
        };
        headers.values().filter(is_orphan).min_by_key(|header| header.generation).copied()
    };
    if orphan(headers).is_none() {
        return Ok(None);
    }
    // A checkpoint may have removed folded generations meanwhile, the first one before the others.
    let headers = self::headers(disk, layout, first)?;
    let lost = orphan(&headers).filter(|_| headers.contains_key(&first));
    Ok(lost.map(|header| Damage {
        path: layout.generation(header.previous),
        offset: None,
        what: format!(
            "generation {} follows it, but it is missing or its header cannot be read",
            header.generation
        ),
    }))
}

/// Returns true if a generation once had a valid header, and has none now.
pub fn header_is_broken(bytes: &[u8], generation: u64) -> bool {
    let head = &bytes[..bytes.len().min(HEADER_LEN as usize)];
    let is_valid = Header::decode(head).is_ok_and(|header| header.generation == generation);
    // A header that was only partly written ends with zeros.
    let has_checksum =
        head.get(HEADER_LEN as usize - 4..).is_some_and(|end| end.iter().any(|byte| *byte != 0));
    let has_claim = || {
        synced_claim_beyond(bytes, 0, HEADER_LEN, generation)
            .is_some_and(|claim| claim > HEADER_LEN)
    };
    !is_valid && (has_checksum || has_claim())
}

/// Returns damage if fewer bytes can be read than were synced.
fn missing_synced_bytes(path: &Path, readable: u64, synced: u64) -> Option<Damage> {
    (synced > readable).then(|| Damage {
        path: path.to_owned(),
        offset: Some(readable),
        what: format!("bytes up to {synced} were durable and can no longer be read"),
    })
}

/// Returns the offset up to which a generation was synced according to a note of this boot; 0
/// without such a note.
pub fn synced_by_note(disk: &dyn Disk, layout: &Layout, generation: u64) -> WalResult<u64> {
    let note = noted::<SyncNote>(disk, layout, LockName::Sync)?;
    Ok(note
        .filter(|note| note.boot == disk.identity().boot_id)
        .map_or(0, |note| synced_of(&note, generation)))
}

/// Like [`synced_by_note`], but accepts a note of any boot. The generation may have held more than
/// an old note says.
pub fn synced_by_any_note(disk: &dyn Disk, layout: &Layout, generation: u64) -> WalResult<u64> {
    Ok(noted::<SyncNote>(disk, layout, LockName::Sync)?
        .map_or(0, |note| synced_of(&note, generation)))
}

fn synced_of(note: &SyncNote, generation: u64) -> u64 {
    if note.generation == generation { note.synced } else { 0 }
}

#[cfg(test)]
mod tests;
