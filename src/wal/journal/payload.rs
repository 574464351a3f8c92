//! Payloads of frames: transitions, seals and reservations. Nothing here opens a file.

use std::sync::Arc;

use super::format::{Bytes, FRAME_MAX, TRANSITIONS_MAX, frame_len};
use crate::operation::{
    BackendName, Event, Number, OperationId, OperationType, Revision, Status, Time, Transition,
};

/// The code of a missing status: before an operation is logged, and after it is deleted.
const NO_STATUS: u8 = 255;

/// Returns an actor as payloads contain it: cut to 255 bytes.
pub fn actor_as_logged(actor: &str) -> &str {
    let mut cut = actor.len().min(255);
    while !actor.is_char_boundary(cut) {
        cut -= 1;
    }
    &actor[..cut]
}

/// Returns the number of bytes of a payload before its first record.
pub fn payload_head_len(actor: &str) -> usize {
    4 + actor_as_logged(actor).len()
}

/// Returns the number of bytes that a transition takes in a payload.
pub fn record_len(operation_type: &OperationType, backend: &BackendName, event: &Event) -> usize {
    const FIXED: usize = 8 + 16 + 8 + 4 + 4;
    // An event is plain data with text keys, so it can always be written as JSON.
    let event = serde_json::to_vec(event).map_or(FRAME_MAX, |bytes| bytes.len());
    FIXED + operation_type.as_str().len() + backend.as_str().len() + event
}

/// A transition to be encoded. The frame that contains it determines its revision and actor.
#[derive(Debug)]
pub struct NewRecord<'a> {
    /// The operation's number.
    pub number: Number,
    /// The operation's id.
    pub id: OperationId,
    /// The time of the transition.
    pub at: Time,
    /// The status before; none if this transition logs the operation.
    pub from: Option<Status>,
    /// The operation's type.
    pub operation_type: &'a OperationType,
    /// The operation's backend.
    pub backend: &'a BackendName,
    /// The change.
    pub event: &'a Event,
}

/// A builder of the payload of one frame of transitions.
#[derive(Debug)]
pub struct PayloadBuilder {
    bytes: Vec<u8>,
    count: usize,
}

impl PayloadBuilder {
    /// Returns an empty payload of this actor.
    pub fn new(actor: &str) -> PayloadBuilder {
        let actor = actor_as_logged(actor);
        let mut bytes = vec![0, 0];
        bytes.extend_from_slice(&(actor.len() as u16).to_le_bytes());
        bytes.extend_from_slice(actor.as_bytes());
        PayloadBuilder { bytes, count: 0 }
    }

    /// Adds a transition. Returns false, and adds nothing, if it does not fit into the frame.
    pub fn push(&mut self, record: &NewRecord<'_>) -> bool {
        let NewRecord { number, id, at, from, operation_type, backend, event } = *record;
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

    /// Returns the number of transitions added.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the bytes of the payload.
    pub fn finish(mut self) -> Vec<u8> {
        let count = (self.count as u16).to_le_bytes();
        self.bytes[..2].copy_from_slice(&count);
        self.bytes
    }
}

/// Returns the code of a status in a record.
fn status_code(status: Status) -> u8 {
    match status {
        Status::Pending => 0,
        Status::Processing => 1,
        Status::Completed => 2,
        Status::Failed => 3,
        Status::Retrying => 4,
    }
}

/// Returns the status with this code: the inner option is none for [`NO_STATUS`], the outer one for
/// an invalid code.
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

/// A transition whose event is not decoded. Counting and finding operations need no more.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The operation's number.
    pub number: Number,
    /// The operation's id.
    pub id: OperationId,
    /// The time of the transition.
    pub at: Time,
    /// The status before; none if the operation was logged.
    pub from: Option<Status>,
    /// The status after; none if the operation was deleted.
    pub to: Option<Status>,
    /// The operation's type.
    pub operation_type: &'a str,
    /// The operation's backend.
    pub backend: &'a str,
    event: &'a [u8],
}

impl Record<'_> {
    /// Returns true if the bytes of the event contain `text`: a cheap test before decoding.
    pub fn mentions(&self, text: &str) -> bool {
        self.event.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Decodes the whole transition. Returns none if its event is invalid.
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

/// The payload of a frame of transitions.
#[derive(Debug, Clone)]
pub struct Payload {
    bytes: Arc<[u8]>,
    /// The revision of the first record.
    pub revision: Revision,
    actor: std::ops::Range<usize>,
    count: usize,
}

impl Payload {
    /// Decodes the head, and checks that all records can be delimited. Returns none otherwise.
    pub fn decode(revision: Revision, bytes: &[u8]) -> Option<Payload> {
        let mut reader = Bytes(bytes);
        let count = reader.u16()? as usize;
        let actor_len = reader.u16()? as usize;
        std::str::from_utf8(reader.take(actor_len)?).ok()?;
        if count == 0 || count > TRANSITIONS_MAX {
            return None;
        }
        let payload = Payload { bytes: Arc::from(bytes), revision, actor: 4..4 + actor_len, count };
        // The checksum proves that the payload is as it was written, but not that it was written
        // correctly.
        let named = |(_, record): &(usize, Record<'_>)| {
            OperationType::is_valid(record.operation_type) && BackendName::is_valid(record.backend)
        };
        (payload.records().take_while(named).count() == count).then_some(payload)
    }

    /// Returns the process that wrote it.
    pub fn actor(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.actor.clone()]).unwrap_or("")
    }

    /// Returns the number of records.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the encoded payload.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the records, each with its offset in the payload.
    pub fn records(&self) -> impl Iterator<Item = (usize, Record<'_>)> {
        let mut at = self.actor.end;
        (0..self.count).map_while(move |_| {
            let (record, end) = self.record_at(at)?;
            let start = std::mem::replace(&mut at, end);
            Some((start, record))
        })
    }

    /// Returns the record at an offset, and the offset of the next one.
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

/// Returns the payload of a `sealed` frame that names the generation `next`.
pub fn sealed_payload(next: u64) -> [u8; 8] {
    next.to_le_bytes()
}

/// The numbers and revisions that a `reserved` frame assigns to one batch.
///
/// The numbers begin with the next free one, the revisions with that of the frame. Both stay
/// assigned even if the batch is never committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// The count of operation numbers.
    pub numbers: u64,
    /// The number of revisions.
    pub revisions: u64,
}

impl Reservation {
    /// Returns the payload of the frame.
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.numbers.to_le_bytes());
        bytes[8..].copy_from_slice(&self.revisions.to_le_bytes());
        bytes
    }

    /// Decodes a payload. Returns none if it is invalid, or reserves nothing.
    pub fn decode(payload: &[u8]) -> Option<Reservation> {
        let mut reader = Bytes(payload);
        let reservation = Reservation { numbers: reader.u64()?, revisions: reader.u64()? };
        (reader.0.is_empty() && reservation.numbers > 0 && reservation.revisions > 0)
            .then_some(reservation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{FrameKind, decode_frame, encode_frame};
    use super::*;

    fn operation_type() -> OperationType {
        OperationType::new("pin").unwrap()
    }

    fn backend() -> BackendName {
        BackendName::new("local").unwrap()
    }

    fn push_retry(builder: &mut PayloadBuilder, number: u64, at: Time, reason: &str) -> bool {
        builder.push(&NewRecord {
            number: Number::new(number),
            id: OperationId::new(at, number as usize, 9),
            at,
            from: Some(Status::Failed),
            operation_type: &operation_type(),
            backend: &backend(),
            event: &Event::Retried { reason: reason.into(), forget: Vec::new(), source: None },
        })
    }

    #[test]
    fn records_are_read_back() {
        let mut builder = PayloadBuilder::new("me@here add[1]");
        for n in 0..3 {
            let at = Time::from_millis(n as i64 - 1);
            assert!(push_retry(&mut builder, n, at, &format!("reason {n}")));
        }
        let payload = Payload::decode(Revision::new(5), &builder.finish()).unwrap();
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
            Event::Retried { reason: "reason 2".into(), forget: Vec::new(), source: None }
        );
        assert_eq!(transitions[0].at, Time::from_millis(-1));
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
    fn a_payload_holds_a_thousand_transitions_at_most() {
        let mut builder = PayloadBuilder::new("");
        let at = Time::default();
        assert!(!push_retry(&mut builder, 1, at, &"x".repeat(FRAME_MAX)));
        for _ in 0..TRANSITIONS_MAX {
            assert!(push_retry(&mut builder, 1, at, "y"));
        }
        assert!(!push_retry(&mut builder, 1, at, "y"));
        assert_eq!(
            Payload::decode(Revision::new(1), &builder.finish()).unwrap().count(),
            TRANSITIONS_MAX
        );
    }

    #[test]
    fn the_length_of_a_payload_is_known_beforehand() {
        let actor = "ä".repeat(200);
        let mut builder = PayloadBuilder::new(&actor);
        let mut len = payload_head_len(&actor);
        for reason in ["", "because", "\u{1}\"ö"] {
            let event = Event::Retried { reason: reason.into(), forget: Vec::new(), source: None };
            len += record_len(&operation_type(), &backend(), &event);
            assert!(push_retry(&mut builder, 1, Time::default(), reason));
        }
        assert_eq!(builder.finish().len(), len);
    }
}
