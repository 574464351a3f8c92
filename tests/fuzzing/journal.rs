//! Bytes as the generations of a journal. Checksums are corrected, so that the code behind them is
//! reached.

use std::collections::BTreeMap;

use wal_cli::operation::{Event, Number, Operation, Revision, Time};
use wal_cli::wal::Change;
use wal_cli::wal::journal::{
    FRAME_HEADER_LEN, FRAME_MAX, FrameKind, HEADER_LEN, Header, encode_frame, frame_len,
};
use wal_cli::wal::manifest::Manifest;

use super::image::{self, Image, NOW, Seen, layout};
use super::odd;

/// Bits of the first byte of an input that select what is corrected.
const HEADERS: u8 = 1;
const LINKS: u8 = 2;
const FRAMES: u8 = 4;
/// The input is a list of transitions, one per line, instead of bytes.
const LINES: u8 = 8;
/// The machine has the lock files of the sample.
const NOTES: u8 = 16;

const GENERATIONS_MAX: usize = 3;
const HEADER: usize = HEADER_LEN as usize;

/// Returns the header of a generation that follows its predecessor.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    end: u64,
    revision: u64,
    number: Number,
    checksum: u32,
}

pub fn run(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let generations = if flags & LINES != 0 { from_lines(rest) } else { from_bytes(*flags, rest) };
    let mut image = Image::default();
    for (nth, bytes) in generations.iter().enumerate() {
        image.files.insert(layout().relative(&layout().generation(nth as u64 + 1)), bytes.clone());
    }
    let mut manifest = Manifest::new(1, Time::from_millis(NOW));
    if let Some(Ok(header)) = generations.first().map(|bytes| Header::decode(bytes)) {
        (manifest.revision, manifest.next_number) = (header.revision, header.number);
    }
    image.files.insert("MANIFEST.json".into(), manifest.encode());
    if flags & NOTES != 0 {
        for name in ["lock", "sync.lock"] {
            image.files.insert(name.into(), image::sample().files[name].clone());
        }
    }
    check(&image);
}

/// Reads, writes, folds and reads again: all records that were readable must be unchanged.
pub fn check(image: &Image) {
    let disk = image.machine(false).process();
    let before = Seen::by(&disk);
    for operation in before.operations.values().take(8) {
        let _ = Seen::by_id(&disk, operation.id);
    }
    let Ok(wal) = image::open(&disk) else {
        same(&before.operations, &Seen::by(&disk).operations);
        return;
    };
    let written = wal.transact(|_| Ok((vec![Change::New(image::logged("/new"))], ())));
    let mut expected = before.operations.clone();
    if let Ok((written, ())) = &written {
        let after = Seen::by(&disk);
        let number = written[0].number;
        let new = after
            .operations
            .get(&number)
            .unwrap_or_else(|| panic!("{number} is not there: {after:?}"));
        assert_eq!(new.parameters["path"], "/new");
        assert!(expected.insert(number, new.clone()).is_none(), "number {number} was given twice");
        same(&expected, &after.operations);
    }
    let first = before.operations.values().find(|operation| operation.status().is_waiting());
    if let Some(operation) = first.filter(|_| written.is_ok()) {
        let held = Event::Held { reason: "why not".into() };
        if wal.transact(|_| Ok((vec![Change::Next(operation.into(), held.clone())], ()))).is_ok() {
            let after = Seen::by(&disk);
            assert!(after.operations[&operation.number].hold);
            expected.insert(operation.number, after.operations[&operation.number].clone());
            same(&expected, &after.operations);
        }
    }
    let _ = wal.checkpoint();
    same(&expected, &Seen::by(&disk).operations);
    let _ = wal.checkpoint();
    drop(wal);
    same(&expected, &Seen::by(&disk).operations);
}

fn same(expected: &BTreeMap<Number, Operation>, found: &BTreeMap<Number, Operation>) {
    for (number, operation) in expected {
        assert_eq!(found.get(number), Some(operation), "operation {number}");
    }
}

/// Splits an input into generations, each after a length of two bytes; the rest is the last one.
fn from_bytes(flags: u8, mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut generations = Vec::new();
    while generations.len() + 1 < GENERATIONS_MAX && rest.len() > 2 {
        let (len, behind) = rest.split_at(2);
        let len = usize::from(u16::from_le_bytes([len[0], len[1]])).min(behind.len());
        let (bytes, behind) = behind.split_at(len);
        generations.push(bytes.to_vec());
        rest = behind;
    }
    generations.push(rest.to_vec());
    let mut place = Place::default();
    for (nth, bytes) in generations.iter_mut().enumerate() {
        place = put_right(flags, nth as u64 + 1, bytes, place);
    }
    generations
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |eight| u64::from_le_bytes(eight.try_into().unwrap()))
}

fn put_right(flags: u8, generation: u64, bytes: &mut Vec<u8>, before: Place) -> Place {
    if flags & HEADERS != 0 {
        bytes.resize(bytes.len().max(HEADER), 0);
        put(bytes, 0, b"WALCLIJ\n\x01\0\0\0");
        put(bytes, 16, &generation.to_le_bytes());
        put(bytes, 24, &(generation - 1).to_le_bytes());
        if flags & LINKS != 0 && generation > 1 {
            put(bytes, 32, &before.end.to_le_bytes());
            put(bytes, 40, &before.revision.to_le_bytes());
            put(bytes, 48, &before.number.get().to_le_bytes());
            put(bytes, 56, &before.checksum.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&bytes[..HEADER - 4]);
        put(bytes, HEADER - 4, &checksum.to_le_bytes());
    }
    let mut place = Place {
        end: HEADER_LEN,
        revision: u64_at(bytes, 40),
        number: Number::new(u64_at(bytes, 48)),
        checksum: before.checksum,
    };
    let mut at = HEADER;
    // Zeros are preallocated space.
    while flags & FRAMES != 0
        && at + FRAME_HEADER_LEN <= bytes.len()
        && bytes[at..].iter().any(|byte| *byte != 0)
    {
        let room = bytes.len() - at - FRAME_HEADER_LEN;
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let len = if len > room || frame_len(len) > FRAME_MAX { room } else { len };
        put(bytes, at, b"WFRM");
        put(bytes, at + 4, &(len as u32).to_le_bytes());
        bytes[at + 12] = 1 + bytes[at + 12].wrapping_sub(1) % 3;
        if flags & LINKS != 0 {
            put(bytes, at + 24, &place.revision.wrapping_add(1).to_le_bytes());
        }
        let payload = at + FRAME_HEADER_LEN;
        let checked = &bytes[at + 12..payload + len];
        place.checksum = crc32c::crc32c_append(crc32c::crc32c(&generation.to_le_bytes()), checked);
        let checksum = place.checksum.to_le_bytes();
        put(bytes, at + 8, &checksum);
        let sealed = bytes[at + 12] == 2;
        let revisions = match bytes[at + 12] {
            1 if len >= 2 => u64::from(u16::from_le_bytes([bytes[payload], bytes[payload + 1]])),
            3 if len >= 16 => u64_at(bytes, payload + 8),
            _ => 0,
        };
        if bytes[at + 12] == 3 {
            place.number = wrapping(place.number, u64_at(bytes, payload));
        }
        if !sealed {
            place.revision = place.revision.wrapping_add(revisions);
            place.end = (at + frame_len(len)) as u64;
        }
        at = (at + frame_len(len)).min(bytes.len());
    }
    place
}

/// Parses lines of five bytes (number, id, statuses, type and backend, predecessor) and an event.
///
/// The first line has the revision and the number of the first header.
fn from_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let of = |line: &[u8], at: usize| line.get(at).copied().unwrap_or(0);
    let mut place = Place {
        end: 0,
        revision: odd(of(first, 0)),
        number: Number::new(odd(of(first, 1))),
        checksum: 0,
    };
    let mut journal =
        Builder { generations: Vec::new(), records: Vec::new(), count: 0, place, synced: 0 };
    journal.begin();
    for line in lines {
        place = journal.place;
        match of(line, 4) % 8 {
            1 => journal.frame(),
            2 => {
                journal.seal(place);
                journal.begin();
            }
            3 => {
                journal.frame();
                journal.add(
                    FrameKind::Reserved,
                    &[odd(of(line, 0)), odd(of(line, 1))].map(u64::to_le_bytes).concat(),
                );
            }
            4 => journal.synced = odd(of(line, 1)),
            _ => {}
        }
        if line.len() > 5 {
            journal.record(&line[..5], &line[5..]);
        }
    }
    journal.frame();
    journal.generations
}

struct Builder {
    generations: Vec<Vec<u8>>,
    records: Vec<u8>,
    count: u16,
    place: Place,
    synced: u64,
}

impl Builder {
    fn begin(&mut self) {
        let generation = self.generations.len() as u64 + 1;
        let header = Header {
            generation,
            previous: generation - 1,
            previous_end: self.place.end,
            revision: Revision::new(self.place.revision),
            number: self.place.number,
            checksum: self.place.checksum,
            created: Time::from_millis(NOW),
        };
        self.generations.push(header.encode().to_vec());
        self.place.end = HEADER_LEN;
    }

    fn seal(&mut self, _before: Place) {
        self.frame();
        let next = (self.generations.len() as u64 + 1).to_le_bytes();
        let end = self.place;
        self.add(FrameKind::Sealed, &next);
        self.place = end;
    }

    fn add(&mut self, kind: FrameKind, payload: &[u8]) {
        let generation = self.generations.len() as u64;
        let (bytes, checksum) = encode_frame(
            generation,
            kind,
            self.synced,
            Revision::new(self.place.revision.wrapping_add(1)),
            payload,
        );
        if let Some(file) = self.generations.last_mut() {
            file.extend_from_slice(&bytes);
            self.place.end = file.len() as u64;
        }
        self.place.checksum = checksum;
        if kind == FrameKind::Reserved {
            self.place.number = wrapping(self.place.number, u64_at(payload, 0));
            self.place.revision = self.place.revision.wrapping_add(u64_at(payload, 8));
        }
    }

    /// Returns the frame of the collected records.
    fn frame(&mut self) {
        if self.count == 0 {
            return;
        }
        let actor = b"me@here add[1]";
        let mut payload = self.count.to_le_bytes().to_vec();
        payload.extend_from_slice(&(actor.len() as u16).to_le_bytes());
        payload.extend_from_slice(actor);
        payload.append(&mut self.records);
        self.add(FrameKind::Transitions, &payload);
        self.place.revision =
            self.place.revision.wrapping_add(u64::from(std::mem::take(&mut self.count)));
    }

    fn record(&mut self, head: &[u8], event: &[u8]) {
        const TYPES: [&str; 8] = ["add", "pin", "rm", "", "Add", "get", "a_b", "x"];
        const BACKENDS: [&str; 8] = ["local", "ipfs", "my-s3", "", "ä", "s3", "mock", "b"];
        let status = |code: u8| if code % 7 < 6 { code % 7 } else { 255 };
        let (operation_type, backend) =
            (TYPES[usize::from(head[3] % 8)], BACKENDS[usize::from(head[3] / 8 % 8)]);
        let number = if head[0] < 128 { u64::from(head[0]) } else { odd(head[0]) };
        self.records.extend_from_slice(&number.to_le_bytes());
        self.records.extend_from_slice(&[head[1]; 16]);
        self.records.extend_from_slice(&(odd(head[4] / 8) as i64).to_le_bytes());
        self.records.extend_from_slice(&[status(head[2] % 16), status(head[2] / 16)]);
        self.records.extend_from_slice(&[operation_type.len() as u8, backend.len() as u8]);
        self.records.extend_from_slice(&(event.len() as u32).to_le_bytes());
        self.records.extend_from_slice(operation_type.as_bytes());
        self.records.extend_from_slice(backend.as_bytes());
        self.records.extend_from_slice(event);
        self.count += 1;
        self.place.number = self.place.number.max(Number::new(number.wrapping_add(1)));
    }
}

/// Returns a line for a transition: number, id, statuses, names, control and event.
type Line<'a> = (u8, u8, u8, u8, u8, &'a str);

/// Returns the journal of the sample, unchanged and with all corrections, and lists of transitions.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let sample = image::sample();
    let journals = sample.files.iter().filter(|(name, _)| name.starts_with("journal/"));
    let journals: Vec<&[u8]> = journals.map(|(_, bytes)| trimmed(bytes)).collect();
    let with = |flags: u8, files: &[&[u8]]| {
        let mut seed = vec![flags];
        for (nth, file) in files.iter().enumerate() {
            if nth + 1 < GENERATIONS_MAX {
                seed.extend_from_slice(&(file.len() as u16).to_le_bytes());
            }
            seed.extend_from_slice(file);
        }
        seed
    };
    for flags in [0, HEADERS, HEADERS | FRAMES, HEADERS | LINKS | FRAMES, NOTES] {
        seeds.push(with(flags, &journals));
        seeds.extend(journals.iter().map(|file| with(flags, &[file])));
    }
    let logged = r#"{"event":"logged","parameters":{"path":"/x"},"max_retries":5}"#;
    let failure = r#""failure":{"class":"transient","error_type":"t","message":"m"}"#;
    let lives: [&[Line]; 5] = [
        &[
            (1, 1, 6, 0, 0, logged),
            (1, 1, 16, 0, 1, r#"{"event":"claimed","claim":{"pid":1,"host":"h","started":5}}"#),
        ],
        &[
            (1, 1, 6, 0, 0, logged),
            (
                2,
                2,
                6,
                9,
                2,
                r#"{"event":"logged","parameters":{},"max_retries":4294967295,"priority":-2147483648,"depends_on":["01010101-0101-0101-0101-010101010101"],"idempotency_key":"k","not_before":-9223372036854775808,"source":{"size":18446744073709551615,"mtime_ns":-1,"inode":18446744073709551615,"spool":"x"},"redirected_from":"01010101-0101-0101-0101-010101010101","hold":true}"#,
            ),
            (1, 1, 0, 0, 1, r#"{"event":"prioritized","priority":2147483647}"#),
            (
                2,
                2,
                0,
                9,
                1,
                r#"{"event":"dependencies_done","ids":["01010101-0101-0101-0101-010101010101"]}"#,
            ),
            (2, 2, 96, 9, 1, r#"{"event":"deleted","reason":"r"}"#),
        ],
        &[
            (1, 1, 6, 0, 0, logged),
            (
                1,
                1,
                16,
                0,
                1,
                r#"{"event":"claimed","claim":{"pid":4294967295,"host":"h","started":-1}}"#,
            ),
            (
                1,
                1,
                65,
                0,
                0,
                &format!(r#"{{"event":"retrying",{failure},"until":9223372036854775807}}"#),
            ),
            (1, 1, 20, 0, 2, r#"{"event":"claimed","claim":{"pid":1,"host":"h","started":5}}"#),
            (
                1,
                1,
                33,
                0,
                0,
                r#"{"event":"completed","outcome":{"cid":"Qm","size":18446744073709551615,"destination":"/d","receipt":{"a":"b"}}}"#,
            ),
        ],
        &[
            (1, 1, 6, 0, 3, logged),
            (1, 1, 48, 0, 0, &format!(r#"{{"event":"given_up",{failure}}}"#)),
            (
                1,
                1,
                51,
                0,
                0,
                &format!(
                    r#"{{"event":"redirected","to":"02020202-0202-0202-0202-020202020202",{failure}}}"#
                ),
            ),
            (1, 1, 3, 0, 0, r#"{"event":"retried","reason":"r","forget":[]}"#),
            (1, 1, 0, 0, 0, r#"{"event":"held","reason":"r"}"#),
            (1, 1, 0, 0, 0, r#"{"event":"unheld","reason":"r"}"#),
        ],
        &[
            (200, 1, 6, 0, 0, logged),
            (200, 1, 16, 0, 0, r#"{"event":"claimed","claim":{"pid":1,"host":"h","started":5}}"#),
            (200, 1, 17, 0, 4, r#"{"event":"cancel_requested","reason":"r"}"#),
            (
                200,
                1,
                1,
                0,
                0,
                &format!(r#"{{"event":"returned","reason":"r","interrupted":true,{failure}}}"#),
            ),
            (200, 1, 0, 0, 0, r#"{"event":"released","reason":"r"}"#),
        ],
    ];
    for life in lives {
        for head in [[0, 1], [11, 11], [15, 15]] {
            let mut seed = vec![LINES, head[0], head[1]];
            for (number, id, statuses, names, control, event) in life {
                seed.extend_from_slice(&[b'\n', *number, *id, *statuses, *names, *control]);
                seed.extend_from_slice(event.as_bytes());
            }
            seeds.push(seed);
        }
    }
    seeds
}

/// Returns bytes without most of the preallocated zeros.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..(end + 24).min(bytes.len())]
}

fn wrapping(number: Number, count: u64) -> Number {
    Number::new(number.get().wrapping_add(count))
}
