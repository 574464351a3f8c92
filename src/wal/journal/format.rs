//! Headers of generations, and frames. Nothing here opens a file.

use crate::operation::{Number, Revision, Time};

/// The format version that this program writes.
pub const FORMAT: u32 = 1;
/// The length of a generation's header in bytes.
pub const HEADER_LEN: u64 = 80;
/// The length in bytes of a frame before its payload.
pub const FRAME_HEADER_LEN: usize = 32;
/// The largest size of a frame in bytes, its header included.
pub const FRAME_MAX: usize = 1 << 20;
/// The largest number of transitions in a frame.
pub const TRANSITIONS_MAX: usize = 1000;
/// The highest valid number, revision and generation: far above any that a log can reach, and low
/// enough that the sum of two does not overflow.
pub const COUNT_MAX: u64 = 1 << 62;

const MAGIC: &[u8; 8] = b"WALCLIJ\n";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"WFRM");
const KIND_TRANSITIONS: u8 = 1;
const KIND_SEALED: u8 = 2;
const KIND_RESERVED: u8 = 3;

/// The header of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The generation that the file contains.
    pub generation: u64,
    /// The generation before it; 0 if it is the first one.
    pub previous: u64,
    /// The offset at which the generation before it ends.
    pub previous_end: u64,
    /// The last revision before this generation.
    pub revision: Revision,
    /// The number of the next operation that is logged.
    pub number: Number,
    /// The checksum of the last frame before this generation.
    pub checksum: u32,
    /// The time at which the generation was created.
    pub created: Time,
}

/// The reason why a header cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    /// It is incomplete, because its writer died, or the bytes are not a header.
    Torn,
    /// A newer program wrote it, in this format version.
    Newer(u32),
}

impl Header {
    /// Returns the encoded header.
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

    /// Decodes a header, and checks its checksum and format version.
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
        // Generations ascend; a cycle would keep a reader in an endless loop.
        if header.previous >= header.generation {
            return Err(BadHeader::Torn);
        }
        Ok(header)
    }
}

/// The kind of a frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Transitions.
    Transitions,
    /// The end of the generation; the payload names the next one.
    Sealed,
    /// Numbers and revisions reserved for one batch: see [`Reservation`](super::Reservation).
    Reserved,
    /// A kind that this program does not know. It must not write after such a frame.
    Unknown(u8),
}

/// A decoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The offset at which it starts.
    pub start: u64,
    /// The offset at which the next one starts.
    pub end: u64,
    /// The kind of its payload.
    pub kind: FrameKind,
    /// The checksum over the number of the generation and all bytes that follow the checksum.
    pub checksum: u32,
    /// The offset up to which its writer knew the file to be synced.
    pub synced: u64,
    /// The revision of its first transition.
    pub revision: Revision,
    /// The payload.
    pub payload: &'a [u8],
}

fn frame_checksum(generation: u64, checked: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&generation.to_le_bytes()), checked)
}

/// Returns the size in bytes of a frame with a payload of this length: a multiple of 8.
pub fn frame_len(payload: usize) -> usize {
    (FRAME_HEADER_LEN + payload).next_multiple_of(8)
}

/// Returns the bytes of a frame, and its checksum.
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
        FrameKind::Unknown(kind) => kind,
    };
    bytes[16..24].copy_from_slice(&synced.to_le_bytes());
    bytes[24..32].copy_from_slice(&revision.get().to_le_bytes());
    bytes.extend_from_slice(payload);
    let checksum = frame_checksum(generation, &bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes.resize(frame_len(payload.len()), 0);
    (bytes, checksum)
}

/// Returns the frame at offset `start` of a generation; none if no valid frame starts there.
///
/// `bytes` are those of the file from offset `base` on.
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
        // Its checksum holds, so a newer program has written and acknowledged it.
        kind => FrameKind::Unknown(kind),
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

/// Returns the highest synced offset that any valid frame from offset `from` on records.
///
/// Tries every multiple of 8 at which no known frame lies, since that is where frames start.
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

/// A cursor over encoded little-endian values.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// Returns the next `n` bytes; none if fewer are left.
    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &[u8] = b"some bytes";

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
    fn a_frame_is_whole_or_invalid() {
        let (bytes, checksum) =
            encode_frame(7, FrameKind::Transitions, 80, Revision::new(5), PAYLOAD);
        let frame = decode_frame(&bytes, 80, 80, 7).unwrap();
        assert_eq!(
            (frame.checksum, frame.synced, frame.revision),
            (checksum, 80, Revision::new(5))
        );
        assert_eq!(frame.end, 80 + bytes.len() as u64);
        assert_eq!(frame.payload, PAYLOAD);
        assert_eq!(decode_frame(&bytes, 80, 80, 8), None, "of another generation");
        let meaningful = FRAME_HEADER_LEN + PAYLOAD.len();
        for n in 0..meaningful {
            assert_eq!(decode_frame(&bytes[..n], 80, 80, 7), None);
            let mut flipped = bytes.clone();
            flipped[n] ^= 1;
            assert_eq!(decode_frame(&flipped, 80, 80, 7), None, "byte {n}");
        }
    }

    #[test]
    fn a_later_frame_shows_the_synced_offset() {
        let (first, _) = encode_frame(1, FrameKind::Transitions, 80, Revision::new(1), PAYLOAD);
        let (second, _) = encode_frame(
            1,
            FrameKind::Transitions,
            80 + first.len() as u64,
            Revision::new(2),
            PAYLOAD,
        );
        let mut bytes = first.clone();
        bytes.extend_from_slice(&second);
        bytes[40] ^= 1;
        assert_eq!(synced_claim_beyond(&bytes, 80, 80, 1), Some(80 + first.len() as u64));
        assert_eq!(synced_claim_beyond(&first, 80, 80 + 8, 1), None);
    }
}
