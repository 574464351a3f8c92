use std::path::Path;

use super::super::format::{encode_frame, sealed_payload};
use super::*;
use crate::disk::{Machine, MemoryDisk};
use crate::operation::Time;

const BASE: &str = "/wal";

fn header(generation: u64, previous: u64) -> Header {
    Header {
        generation,
        previous,
        previous_end: 0,
        revision: Revision::ZERO,
        number: Number::new(1),
        checksum: 0,
        created: Time::from_millis(0),
    }
}

/// A frame that reserves a number and a revision.
fn reserved(generation: u64, revision: u64, synced: u64) -> Vec<u8> {
    let payload = Reservation { numbers: 1, revisions: 1 }.encode();
    encode_frame(generation, FrameKind::Reserved, synced, Revision::new(revision), &payload).0
}

fn seal(generation: u64, revision: u64, payload: &[u8]) -> Vec<u8> {
    encode_frame(generation, FrameKind::Sealed, HEADER_LEN, Revision::new(revision), payload).0
}

fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    bytes
}

fn new_disk() -> (MemoryDisk, Layout) {
    let (disk, layout) = (Machine::new().process(), Layout::new(BASE));
    let shared: &dyn Disk = &disk;
    shared.create_dir_all_synced(&layout.journal()).unwrap();
    (disk, layout)
}

fn write(disk: &dyn Disk, layout: &Layout, generation: u64, parts: &[Vec<u8>]) {
    let file = disk.open(&layout.generation(generation), Access::CreateNew).unwrap();
    file.write_at(&parts.concat(), 0).unwrap();
}

fn note_synced(disk: &dyn Disk, layout: &Layout, generation: u64, synced: u64) {
    let file = disk.open(&layout.lock(LockName::Sync), Access::OpenOrCreate).unwrap();
    let note = SyncNote {
        boot: disk.identity().boot_id.clone(),
        generation,
        synced,
        syncing: None,
        pid: 1,
        command: String::new(),
    };
    note::write(&*file, &note).unwrap();
}

#[test]
fn frames_are_read_up_to_the_first_invalid_one() {
    let frame = |revision| reserved(1, revision, HEADER_LEN);
    let len = frame(1).len() as u64;
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 9);
        bytes
    };
    // Frames, limit; how many are read, the generation that a seal names, part of the damage.
    type Case<'a> = (&'a str, Vec<Vec<u8>>, Option<u64>, usize, Option<u64>, Option<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        ("nothing", vec![], None, 0, None, None),
        ("two frames", vec![frame(1), frame(2)], None, 2, None, None),
        ("zeros behind them", vec![frame(1), vec![0; 4096]], None, 1, None, None),
        ("a torn frame", vec![frame(1), cut(frame(2))], None, 1, None, None),
        ("a flipped bit", vec![frame(1), flipped(frame(2)), frame(3)], None, 1, None, None),
        ("a frame of another generation", vec![frame(1), reserved(2, 2, 0)], None, 1, None, None),
        ("a limit", vec![frame(1), frame(2)], Some(HEADER_LEN + len), 1, None, None),
        ("a seal", vec![frame(1), seal(1, 2, &sealed_payload(9))], None, 1, Some(9), None),
        ("a short seal", vec![seal(1, 1, b"9")], None, 0, None, Some("does not name the next")),
        (
            "a gap in the revisions",
            vec![frame(1), frame(3)],
            None,
            1,
            None,
            Some("follows revision 1"),
        ),
    ];
    for (name, frames, limit, count, sealed, damage) in cases {
        let (disk, layout) = new_disk();
        let first = header(1, 0);
        write(&disk, &layout, 1, &[vec![first.encode().to_vec()], frames].concat());
        let path = layout.generation(1);
        let file = disk.open(&path, Access::Read).unwrap();
        let mut position = Position::start_of(&first);
        let read = read_frames(&*file, &path, &mut position, limit).unwrap();
        assert_eq!((read.frames.len(), read.sealed), (count, sealed), "{name}");
        assert_eq!(position.end, HEADER_LEN + count as u64 * len, "{name}");
        match (damage, &read.damage) {
            (None, None) => {}
            (Some(part), Some(found)) => assert!(found.what.contains(part), "{name}: {found}"),
            (_, found) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn a_journal_ends_where_nothing_durable_follows() {
    let frame = |revision| reserved(1, revision, HEADER_LEN);
    let len = frame(1).len() as u64;
    let end = HEADER_LEN + len;
    // Generation 2 as it follows one frame of generation 1.
    let checksum = encode_frame(
        1,
        FrameKind::Reserved,
        HEADER_LEN,
        Revision::new(1),
        &Reservation { numbers: 1, revisions: 1 }.encode(),
    )
    .1;
    let second = Header {
        previous_end: end,
        revision: Revision::new(1),
        number: Number::new(2),
        checksum,
        ..header(2, 1)
    };
    let first = header(1, 0).encode().to_vec();
    let next = |header: Header| vec![header.encode().to_vec()];
    let sealed = seal(1, 2, &sealed_payload(2));
    // Generation 1, generation 2, note of `sync.lock`; generations that are read, part of the
    // damage.
    type Case<'a> =
        (&'a str, Vec<Vec<u8>>, Option<Vec<Vec<u8>>>, Option<(u64, u64)>, usize, Option<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        ("a header alone", vec![], None, None, 1, None),
        ("a torn tail", vec![frame(1), flipped(frame(2))], None, None, 1, None),
        ("a tail noted before", vec![frame(1), flipped(frame(2))], None, Some((1, end)), 1, None),
        (
            "a synced tail is lost",
            vec![frame(1), flipped(frame(2))],
            None,
            Some((1, end + len)),
            1,
            Some("were durable"),
        ),
        (
            "a later frame claims a lost one was synced",
            vec![flipped(frame(1)), reserved(1, 2, end)],
            None,
            None,
            1,
            Some("were durable"),
        ),
        ("a successor", vec![frame(1)], Some(next(second)), None, 2, None),
        (
            "a seal and a successor",
            vec![frame(1), sealed.clone()],
            Some(next(second)),
            None,
            2,
            None,
        ),
        (
            "a successor beyond what can be read",
            vec![flipped(frame(1))],
            Some(next(second)),
            None,
            1,
            Some("were durable"),
        ),
        (
            "a successor of other frames",
            vec![frame(1)],
            Some(next(Header { checksum: checksum ^ 1, ..second })),
            None,
            1,
            Some("does not follow"),
        ),
        ("a seal alone", vec![frame(1), sealed], None, None, 1, Some("as its successor")),
        ("a noted generation", vec![frame(1)], None, Some((2, HEADER_LEN)), 1, Some("names it")),
        (
            "a successor with a broken header",
            vec![frame(1)],
            Some(vec![flipped(second.encode().to_vec())]),
            None,
            1,
            Some("header can no longer be read"),
        ),
        ("a successor in the making", vec![frame(1)], Some(vec![vec![0; 64]]), None, 1, None),
    ];
    for (name, frames, successor, note, count, damage) in cases {
        let (disk, layout) = new_disk();
        write(&disk, &layout, 1, &[vec![first.clone()], frames].concat());
        if let Some(parts) = successor {
            write(&disk, &layout, 2, &parts);
        }
        if let Some((generation, synced)) = note {
            note_synced(&disk, &layout, generation, synced);
        }
        let journal = read_journal(&disk, &layout, 1).unwrap();
        assert_eq!(journal.generations.len(), count, "{name}: {:?}", journal.damage);
        match (damage, &journal.damage) {
            (None, None) => {}
            (Some(part), Some(found)) => assert!(found.what.contains(part), "{name}: {found}"),
            (_, found) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn a_journal_without_its_first_generation_is_damaged() {
    let (disk, layout) = new_disk();
    write(&disk, &layout, 2, &[header(2, 1).encode().to_vec()]);
    let error = read_journal(&disk, &layout, 1).unwrap_err();
    assert!(error.to_string().contains("first generation is missing"), "{error}");
}

#[test]
fn the_highest_successor_counts() {
    let headers: HashMap<u64, Header> = [(1, 0), (2, 1), (3, 1), (4, 2)]
        .into_iter()
        .map(|(generation, previous)| (generation, header(generation, previous)))
        .collect();
    assert_eq!(successor(&headers, 1).map(|next| next.generation), Some(3));
    assert_eq!(successor(&headers, 3), None);
}

#[test]
fn a_header_is_broken_only_if_it_was_valid_once() {
    let whole = header(7, 6).encode().to_vec();
    let mut short = whole.clone();
    short[HEADER_LEN as usize - 8..].fill(0);
    let zeros = vec![0; HEADER_LEN as usize];
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("nothing", vec![], false),
        ("zeros", zeros.clone(), false),
        ("a valid header", whole.clone(), false),
        ("a write that fell short", short, false),
        ("a flipped bit in the checksum", flipped(whole), true),
        ("the header of another generation", header(8, 6).encode().to_vec(), true),
        ("copied frames", [zeros.clone(), reserved(7, 1, HEADER_LEN)].concat(), false),
        ("frames that claim a sync", [zeros, reserved(7, 1, HEADER_LEN + 8)].concat(), true),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(header_is_broken(&bytes, 7), expected, "{name}");
    }
}

#[test]
fn bytes_are_missing_only_if_they_were_synced() {
    for (readable, synced, expected) in [(80, 0, None), (80, 80, None), (80, 81, Some(80))] {
        let damage = missing_synced_bytes(Path::new("/j"), readable, synced);
        assert_eq!(damage.and_then(|damage| damage.offset), expected, "{readable} {synced}");
    }
}
