//! The journal's bytes: headers of generations, frames, transitions. Nothing here opens a file.

use std::sync::Arc;

use crate::operation::{
    BackendName, Event, Number, OperationId, OperationType, Revision, Status, Time, Transition,
};

/// The format version that this program writes.
pub const FORMAT: u32 = 1;
/// Bytes of a generation's header.
pub const HEADER_LEN: u64 = 80;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_LEN: usize = 32;
/// A frame, its header included, is at most this large.
pub const FRAME_MAX: usize = 1 << 20;
/// A frame holds at most this many transitions.
pub const TRANSITIONS_MAX: usize = 1000;
/// Numbers, revisions and generations end here: far beyond all that is ever given, and no sum of
/// two goes wrong.
pub const COUNT_MAX: u64 = 1 << 62;

const MAGIC: &[u8; 8] = b"WALCLIJ\n";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"WFRM");
const KIND_TRANSITIONS: u8 = 1;
const KIND_SEALED: u8 = 2;
const NO_STATUS: u8 = 255;
const KIND_RESERVED: u8 = 3;

/// The header of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// This file.
    pub generation: u64,
    /// The generation before it; 0: none.
    pub previous: u64,
    /// Where that one ends.
    pub previous_end: u64,
    /// Last revision before this file.
    pub revision: Revision,
    /// Number that the next logged operation gets.
    pub number: Number,
    /// Checksum of the last frame before this file.
    pub checksum: u32,
    /// When the file was made.
    pub created: Time,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    /// Not whole: its writer died, or it is something else.
    Torn,
    /// Written by a newer program.
    Newer(u32),
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.previous.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.revision.get().to_le_bytes());
        bytes[48..56].copy_from_slice(&self.number.get().to_le_bytes());
        bytes[56..60].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.created.as_millis().to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..76]);
        bytes[76..80].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8]) -> Result<Header, BadHeader> {
        let mut reader = Bytes(bytes);
        let header = (|| {
            let magic = reader.take(8)?;
            let format = reader.u32()?;
            let _zero = reader.u32()?;
            let header = Header {
                generation: reader.u64()?,
                previous: reader.u64()?,
                previous_end: reader.u64()?,
                revision: Revision::new(reader.u64()?),
                number: Number::new(reader.u64()?),
                checksum: reader.u32()?,
                created: {
                    reader.u32()?;
                    Time::from_millis(reader.u64()? as i64)
                },
            };
            let _zero = reader.u32()?;
            Some((magic, format, header, reader.u32()?))
        })();
        let Some((magic, format, header, checksum)) = header else { return Err(BadHeader::Torn) };
        if magic != MAGIC || crc32c::crc32c(bytes.get(..76).unwrap_or_default()) != checksum {
            return Err(BadHeader::Torn);
        }
        if format > FORMAT {
            return Err(BadHeader::Newer(format));
        }
        // A chain leads upwards; one that did not would never end.
        if header.previous >= header.generation {
            return Err(BadHeader::Torn);
        }
        Ok(header)
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Transitions.
    Transitions,
    /// The end of the generation; the payload names the next one.
    Sealed,
    /// Numbers and revisions reserved for one batch: see [`Reservation`].
    Reserved,
}

/// A frame of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it starts.
    pub start: u64,
    /// Where the next one starts.
    pub end: u64,
    /// What it holds.
    pub kind: FrameKind,
    /// Its checksum.
    pub checksum: u32,
    /// Up to where its writer knew the file to be synced.
    pub synced: u64,
    /// Revision of its first transition.
    pub revision: Revision,
    /// What it holds.
    pub payload: &'a [u8],
}

fn frame_checksum(generation: u64, checked: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&generation.to_le_bytes()), checked)
}

/// Bytes that a payload takes as a frame.
pub fn frame_len(payload: usize) -> usize {
    (FRAME_HEADER_LEN + payload).next_multiple_of(8)
}

/// The bytes of a frame, and its checksum.
pub fn encode_frame(
    generation: u64,
    kind: FrameKind,
    synced: u64,
    revision: Revision,
    payload: &[u8],
) -> (Vec<u8>, u32) {
    let mut bytes = vec![0; FRAME_HEADER_LEN];
    bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[12] = match kind {
        FrameKind::Transitions => KIND_TRANSITIONS,
        FrameKind::Sealed => KIND_SEALED,
        FrameKind::Reserved => KIND_RESERVED,
    };
    bytes[16..24].copy_from_slice(&synced.to_le_bytes());
    bytes[24..32].copy_from_slice(&revision.get().to_le_bytes());
    bytes.extend_from_slice(payload);
    let checksum = frame_checksum(generation, &bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes.resize(frame_len(payload.len()), 0);
    (bytes, checksum)
}

/// The frame at `start` of a generation's `bytes` (which begin at byte `base` of the file), if a
/// valid one is there.
pub fn decode_frame(bytes: &[u8], base: u64, start: u64, generation: u64) -> Option<Frame<'_>> {
    let rest = bytes.get(usize::try_from(start.checked_sub(base)?).ok()?..)?;
    let mut reader = Bytes(rest);
    if reader.u32()? != FRAME_MAGIC {
        return None;
    }
    let len = reader.u32()? as usize;
    let checksum = reader.u32()?;
    if frame_len(len) > FRAME_MAX {
        return None;
    }
    let checked = rest.get(12..FRAME_HEADER_LEN + len)?;
    if frame_checksum(generation, checked) != checksum {
        return None;
    }
    let kind = match reader.u32()?.to_le_bytes()[0] {
        KIND_TRANSITIONS => FrameKind::Transitions,
        KIND_SEALED => FrameKind::Sealed,
        KIND_RESERVED => FrameKind::Reserved,
        _ => return None,
    };
    Some(Frame {
        start,
        end: start + frame_len(len) as u64,
        kind,
        checksum,
        synced: reader.u64()?,
        revision: Revision::new(reader.u64()?),
        payload: reader.take(len)?,
    })
}

/// The highest offset that a valid frame beyond `from` says was synced; frames start at multiples
/// of 8.
pub fn synced_claim_beyond(bytes: &[u8], base: u64, from: u64, generation: u64) -> Option<u64> {
    let mut highest = None;
    let mut at = from.next_multiple_of(8);
    while at < base + bytes.len() as u64 {
        match decode_frame(bytes, base, at, generation) {
            Some(frame) => {
                highest = highest.max(Some(frame.synced));
                at = frame.end;
            }
            None => at += 8,
        }
    }
    highest
}

/// An actor as frames hold it: at most 255 bytes.
pub fn actor_as_logged(actor: &str) -> &str {
    let mut cut = actor.len().min(255);
    while !actor.is_char_boundary(cut) {
        cut -= 1;
    }
    &actor[..cut]
}

/// Bytes of a payload before its first transition.
pub fn payload_head_len(actor: &str) -> usize {
    4 + actor_as_logged(actor).len()
}

/// Bytes that a transition takes in a payload.
pub fn record_len(operation_type: &OperationType, backend: &BackendName, event: &Event) -> usize {
    const FIXED: usize = 8 + 16 + 8 + 4 + 4;
    // An event is plain data with text keys: it can always be written as JSON.
    let event = serde_json::to_vec(event).map_or(FRAME_MAX, |bytes| bytes.len());
    FIXED + operation_type.as_str().len() + backend.as_str().len() + event
}

/// Collects transitions into the payload of one frame.
#[derive(Debug)]
pub struct PayloadBuilder {
    bytes: Vec<u8>,
    count: usize,
}

impl PayloadBuilder {
    /// An empty payload by this actor.
    pub fn new(actor: &str) -> PayloadBuilder {
        let actor = actor_as_logged(actor);
        let mut bytes = vec![0, 0];
        bytes.extend_from_slice(&(actor.len() as u16).to_le_bytes());
        bytes.extend_from_slice(actor.as_bytes());
        PayloadBuilder { bytes, count: 0 }
    }

    /// Adds a transition if it fits; false: it does not.
    pub fn push(
        &mut self,
        (number, id, at): (Number, OperationId, Time),
        from: Option<Status>,
        operation_type: &OperationType,
        backend: &BackendName,
        event: &Event,
    ) -> bool {
        let before = self.bytes.len();
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(&number.get().to_le_bytes());
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&at.as_millis().to_le_bytes());
        bytes.push(from.map_or(NO_STATUS, status_code));
        bytes.push(event.to(from).map_or(NO_STATUS, status_code));
        bytes.push(operation_type.as_str().len() as u8);
        bytes.push(backend.as_str().len() as u8);
        let len_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(operation_type.as_str().as_bytes());
        bytes.extend_from_slice(backend.as_str().as_bytes());
        let event_at = bytes.len();
        let written = serde_json::to_writer(&mut *bytes, event).is_ok();
        let event_len = (bytes.len() - event_at) as u32;
        bytes[len_at..len_at + 4].copy_from_slice(&event_len.to_le_bytes());
        if !written || self.count == TRANSITIONS_MAX || frame_len(bytes.len()) > FRAME_MAX {
            bytes.truncate(before);
            return false;
        }
        self.count += 1;
        true
    }

    /// How many transitions there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The payload.
    pub fn finish(mut self) -> Vec<u8> {
        let count = (self.count as u16).to_le_bytes();
        self.bytes[..2].copy_from_slice(&count);
        self.bytes
    }
}

fn status_code(status: Status) -> u8 {
    match status {
        Status::Pending => 0,
        Status::Processing => 1,
        Status::Completed => 2,
        Status::Failed => 3,
        Status::Retrying => 4,
    }
}

fn status_of(code: u8) -> Option<Option<Status>> {
    Some(Some(match code {
        0 => Status::Pending,
        1 => Status::Processing,
        2 => Status::Completed,
        3 => Status::Failed,
        4 => Status::Retrying,
        NO_STATUS => return Some(None),
        _ => return None,
    }))
}

/// A transition whose event has not been decoded: all that counting and finding need.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The operation's number.
    pub number: Number,
    /// The operation's id.
    pub id: OperationId,
    /// When it happened.
    pub at: Time,
    /// Status before.
    pub from: Option<Status>,
    /// Status after; none: the operation is gone.
    pub to: Option<Status>,
    /// The operation's type.
    pub operation_type: &'a str,
    /// The operation's backend.
    pub backend: &'a str,
    event: &'a [u8],
}

impl Record<'_> {
    /// Whether its event mentions this text anywhere: a cheap question before it is decoded.
    pub fn mentions(&self, text: &str) -> bool {
        self.event.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// The whole transition; none if the event cannot be read.
    pub fn decode(&self, revision: Revision, actor: &str) -> Option<Transition> {
        let operation_type = OperationType::new(self.operation_type).ok()?;
        let backend = BackendName::new(self.backend).ok()?;
        let mut event: Event = serde_json::from_slice(self.event).ok()?;
        if let Event::Logged(logged) = &mut event {
            logged.operation_type = operation_type.clone();
            logged.backend = backend.clone();
        }
        Some(Transition {
            revision,
            number: self.number,
            id: self.id,
            at: self.at,
            from: self.from,
            operation_type,
            backend,
            actor: actor.to_owned(),
            event,
        })
    }
}

/// The payload of a frame of transitions, read record by record.
#[derive(Debug, Clone)]
pub struct Payload {
    bytes: Arc<[u8]>,
    /// Revision of the first record.
    pub revision: Revision,
    actor: std::ops::Range<usize>,
    count: usize,
}

impl Payload {
    /// Reads the payload's head; none if it is not well formed.
    pub fn decode(revision: Revision, bytes: &[u8]) -> Option<Payload> {
        let mut reader = Bytes(bytes);
        let count = reader.u16()? as usize;
        let actor_len = reader.u16()? as usize;
        std::str::from_utf8(reader.take(actor_len)?).ok()?;
        if count == 0 || count > TRANSITIONS_MAX {
            return None;
        }
        let payload = Payload { bytes: Arc::from(bytes), revision, actor: 4..4 + actor_len, count };
        // A payload whose checksum holds was written by us; still, nothing is believed that was not
        // checked.
        let named = |(_, record): &(usize, Record<'_>)| {
            OperationType::is_valid(record.operation_type) && BackendName::is_valid(record.backend)
        };
        (payload.records().take_while(named).count() == count).then_some(payload)
    }

    /// Who wrote it.
    pub fn actor(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.actor.clone()]).unwrap_or("")
    }

    /// How many records it holds.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its records with the offset of each.
    pub fn records(&self) -> impl Iterator<Item = (usize, Record<'_>)> {
        let mut at = self.actor.end;
        (0..self.count).map_while(move |_| {
            let (record, end) = self.record_at(at)?;
            let start = std::mem::replace(&mut at, end);
            Some((start, record))
        })
    }

    /// The record at an offset, and where the next one starts.
    pub fn record_at(&self, at: usize) -> Option<(Record<'_>, usize)> {
        let mut reader = Bytes(self.bytes.get(at..)?);
        let number = Number::new(reader.u64()?);
        let id = OperationId::from_bytes(reader.take(16)?.try_into().ok()?);
        let at_time = Time::from_millis(reader.u64()? as i64);
        let from = status_of(reader.u8()?)?;
        let to = status_of(reader.u8()?)?;
        let type_len = reader.u8()? as usize;
        let backend_len = reader.u8()? as usize;
        let event_len = reader.u32()? as usize;
        let operation_type = std::str::from_utf8(reader.take(type_len)?).ok()?;
        let backend = std::str::from_utf8(reader.take(backend_len)?).ok()?;
        let event = reader.take(event_len)?;
        let end = self.bytes.len() - reader.0.len();
        Some((Record { number, id, at: at_time, from, to, operation_type, backend, event }, end))
    }
}

/// The payload of a `sealed` frame.
pub fn sealed_payload(next: u64) -> [u8; 8] {
    next.to_le_bytes()
}

/// What a `reserved` frame takes out of circulation: the next numbers, and as many revisions from
/// the frame's on.
///
/// They belong to the batch that wrote it, whether that is ever committed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// How many numbers.
    pub numbers: u64,
    /// How many revisions.
    pub revisions: u64,
}

impl Reservation {
    /// Its payload.
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.numbers.to_le_bytes());
        bytes[8..].copy_from_slice(&self.revisions.to_le_bytes());
        bytes
    }

    /// Reads a payload; none if it is not one, or reserves nothing.
    pub fn decode(payload: &[u8]) -> Option<Reservation> {
        let mut reader = Bytes(payload);
        let reservation = Reservation { numbers: reader.u64()?, revisions: reader.u64()? };
        (reader.0.is_empty() && reservation.numbers > 0 && reservation.revisions > 0)
            .then_some(reservation)
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(count: usize) -> Payload {
        let mut builder = PayloadBuilder::new("me@here add[1]");
        for n in 0..count as u64 {
            let at = Time::from_millis(n as i64 - 1);
            let event = Event::Retried { reason: format!("reason {n}"), forget: Vec::new() };
            let (kind, backend) =
                (OperationType::new("pin").unwrap(), BackendName::new("local").unwrap());
            assert!(builder.push(
                (Number::new(n), OperationId::new(at, n as usize, 9), at),
                Some(Status::Failed),
                &kind,
                &backend,
                &event
            ));
        }
        Payload::decode(Revision::new(5), &builder.finish()).unwrap()
    }

    #[test]
    fn headers_are_read_back_and_torn_ones_refused() {
        let header = Header {
            generation: 3,
            previous: 2,
            previous_end: 999,
            revision: Revision::new(8),
            number: Number::new(4),
            checksum: 0xdead_beef,
            created: Time::from_millis(-5),
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for n in 0..bytes.len() {
            assert_eq!(Header::decode(&bytes[..n]), Err(BadHeader::Torn));
            let mut flipped = bytes;
            flipped[n] ^= 0x10;
            assert_eq!(Header::decode(&flipped), Err(BadHeader::Torn));
        }
    }

    #[test]
    fn records_are_read_back() {
        let payload = sample(3);
        assert_eq!(payload.actor(), "me@here add[1]");
        let transitions: Vec<_> = payload
            .records()
            .zip(5..)
            .map(|((_, r), rev)| r.decode(Revision::new(rev), payload.actor()).unwrap())
            .collect();
        assert_eq!(transitions.len(), 3);
        assert_eq!(transitions[2].revision, Revision::new(7));
        assert_eq!(
            transitions[2].event,
            Event::Retried { reason: "reason 2".into(), forget: Vec::new() }
        );
        assert_eq!(transitions[0].at, Time::from_millis(-1));
    }

    #[test]
    fn a_frame_is_all_there_or_not_there() {
        let payload = sample(2);
        let (bytes, checksum) =
            encode_frame(7, FrameKind::Transitions, 80, Revision::new(5), payload.bytes());
        let frame = decode_frame(&bytes, 80, 80, 7).unwrap();
        assert_eq!(
            (frame.checksum, frame.synced, frame.revision),
            (checksum, 80, Revision::new(5))
        );
        assert_eq!(frame.end, 80 + bytes.len() as u64);
        assert_eq!(frame.payload, payload.bytes());
        assert_eq!(decode_frame(&bytes, 80, 80, 8), None, "of another generation");
        let meaningful = FRAME_HEADER_LEN + payload.bytes().len();
        for n in 0..meaningful {
            assert_eq!(decode_frame(&bytes[..n], 80, 80, 7), None);
            let mut flipped = bytes.clone();
            flipped[n] ^= 1;
            assert_eq!(decode_frame(&flipped, 80, 80, 7), None, "byte {n}");
        }
    }

    #[test]
    fn reservations_are_read_back_and_empty_ones_refused() {
        let reservation = Reservation { numbers: 7, revisions: 9 };
        let (bytes, _) =
            encode_frame(2, FrameKind::Reserved, 80, Revision::new(5), &reservation.encode());
        let frame = decode_frame(&bytes, 80, 80, 2).unwrap();
        assert_eq!((frame.kind, frame.revision), (FrameKind::Reserved, Revision::new(5)));
        assert_eq!(Reservation::decode(frame.payload), Some(reservation));
        for bad in [
            &[0; 16][..],
            &[1; 15],
            &[1; 17],
            &[],
            &Reservation { numbers: 0, revisions: 1 }.encode(),
        ] {
            assert_eq!(Reservation::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_later_frame_tells_what_was_synced() {
        let payload = sample(1);
        let (first, _) =
            encode_frame(1, FrameKind::Transitions, 80, Revision::new(1), payload.bytes());
        let (second, _) = encode_frame(
            1,
            FrameKind::Transitions,
            80 + first.len() as u64,
            Revision::new(2),
            payload.bytes(),
        );
        let mut bytes = first.clone();
        bytes.extend_from_slice(&second);
        bytes[40] ^= 1;
        assert_eq!(synced_claim_beyond(&bytes, 80, 80, 1), Some(80 + first.len() as u64));
        assert_eq!(synced_claim_beyond(&first, 80, 80 + 8, 1), None);
    }

    #[test]
    fn a_frame_holds_a_thousand_transitions_and_no_more() {
        let mut builder = PayloadBuilder::new("");
        let (kind, backend) =
            (OperationType::new("pin").unwrap(), BackendName::new("local").unwrap());
        let at = Time::default();
        let push = |builder: &mut PayloadBuilder, text: &str| {
            let event = Event::Retried { reason: text.into(), forget: Vec::new() };
            builder.push(
                (Number::new(1), OperationId::new(at, 0, 0), at),
                None,
                &kind,
                &backend,
                &event,
            )
        };
        assert!(!push(&mut builder, &"x".repeat(FRAME_MAX)));
        for _ in 0..TRANSITIONS_MAX {
            assert!(push(&mut builder, "y"));
        }
        assert!(!push(&mut builder, "y"));
        assert_eq!(
            Payload::decode(Revision::new(1), &builder.finish()).unwrap().count(),
            TRANSITIONS_MAX
        );
    }

    #[test]
    fn the_length_of_a_payload_is_known_beforehand() {
        let (kind, backend) =
            (OperationType::new("pin").unwrap(), BackendName::new("local").unwrap());
        let actor = "ä".repeat(200);
        let mut builder = PayloadBuilder::new(&actor);
        let mut len = payload_head_len(&actor);
        for reason in ["", "because", "\u{1}\"ö"] {
            let event = Event::Retried { reason: reason.into(), forget: Vec::new() };
            len += record_len(&kind, &backend, &event);
            assert!(builder.push(
                (Number::new(1), OperationId::new(Time::default(), 0, 0), Time::default()),
                None,
                &kind,
                &backend,
                &event
            ));
        }
        assert_eq!(builder.finish().len(), len);
    }
}
