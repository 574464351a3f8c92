use std::path::Path;

use super::super::format::encode_frame;
use super::super::payload::sealed_payload;
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

/// Fails unless the damage contains this text; with none, unless there is no damage.
fn assert_damage(name: &str, expected: Option<&str>, found: &Option<Damage>) {
    match (expected, found) {
        (None, None) => {}
        (Some(part), Some(found)) => assert!(found.what.contains(part), "{name}: {found}"),
        (_, found) => panic!("{name}: {found:?}"),
    }
}

#[test]
fn frames_are_read_up_to_the_first_invalid_one() {
    struct Case<'a> {
        name: &'a str,
        frames: Vec<Vec<u8>>,
        limit: Option<u64>,
        /// The number of frames read.
        count: usize,
        sealed: Option<u64>,
        damage: Option<&'a str>,
    }
    let frame = |revision| reserved(1, revision, HEADER_LEN);
    let len = frame(1).len() as u64;
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 9);
        bytes
    };
    let case =
        |name, frames, count| Case { name, frames, limit: None, count, sealed: None, damage: None };
    let cases = vec![
        case("nothing", vec![], 0),
        case("two frames", vec![frame(1), frame(2)], 2),
        case("zeros behind them", vec![frame(1), vec![0; 4096]], 1),
        case("a torn frame", vec![frame(1), cut(frame(2))], 1),
        case("a flipped bit", vec![frame(1), flipped(frame(2)), frame(3)], 1),
        case("a frame of another generation", vec![frame(1), reserved(2, 2, 0)], 1),
        Case { limit: Some(HEADER_LEN + len), ..case("a limit", vec![frame(1), frame(2)], 1) },
        Case {
            sealed: Some(9),
            ..case("a seal", vec![frame(1), seal(1, 2, &sealed_payload(9))], 1)
        },
        Case {
            damage: Some("does not name the next"),
            ..case("a short seal", vec![seal(1, 1, b"9")], 0)
        },
        Case {
            damage: Some("follows revision 1"),
            ..case("a gap in the revisions", vec![frame(1), frame(3)], 1)
        },
    ];
    for Case { name, frames, limit, count, sealed, damage } in cases {
        let (disk, layout) = new_disk();
        let first = header(1, 0);
        write(&disk, &layout, 1, &[vec![first.encode().to_vec()], frames].concat());
        let path = layout.generation(1);
        let file = disk.open(&path, Access::Read).unwrap();
        let mut position = Position::start_of(&first);
        let read = read_frames(&*file, &path, &mut position, limit).unwrap();
        assert_eq!((read.frames.len(), read.sealed), (count, sealed), "{name}");
        assert_eq!(position.end, HEADER_LEN + count as u64 * len, "{name}");
        assert_damage(name, damage, &read.damage);
    }
}

/// A journal of one or two generations, and the expected result of reading it.
struct JournalCase<'a> {
    name: &'a str,
    /// The frames of generation 1.
    frames: Vec<Vec<u8>>,
    /// The bytes of generation 2.
    successor: Option<Vec<u8>>,
    /// Generation and offset in the note of `sync.lock`.
    note: Option<(u64, u64)>,
    /// The number of generations read.
    count: usize,
    damage: Option<&'a str>,
}

impl<'a> JournalCase<'a> {
    fn new(name: &'a str, frames: Vec<Vec<u8>>) -> JournalCase<'a> {
        JournalCase { name, frames, successor: None, note: None, count: 1, damage: None }
    }

    fn damaged(self, damage: &'a str) -> JournalCase<'a> {
        JournalCase { damage: Some(damage), ..self }
    }

    fn noted(self, generation: u64, synced: u64) -> JournalCase<'a> {
        JournalCase { note: Some((generation, synced)), ..self }
    }

    fn followed_by(self, successor: impl Into<Vec<u8>>, count: usize) -> JournalCase<'a> {
        JournalCase { successor: Some(successor.into()), count, ..self }
    }

    fn check(self) {
        let name = self.name;
        let (disk, layout) = new_disk();
        let first = header(1, 0).encode().to_vec();
        write(&disk, &layout, 1, &[vec![first], self.frames].concat());
        if let Some(successor) = self.successor {
            write(&disk, &layout, 2, &[successor]);
        }
        if let Some((generation, synced)) = self.note {
            note_synced(&disk, &layout, generation, synced);
        }
        let journal = read_journal(&disk, &layout, 1).unwrap();
        assert_eq!(journal.generations.len(), self.count, "{name}: {:?}", journal.damage);
        assert_damage(name, self.damage, &journal.damage);
    }
}

#[test]
fn a_journal_ends_where_nothing_durable_follows() {
    let case = JournalCase::new;
    let frame = |revision| reserved(1, revision, HEADER_LEN);
    let end = HEADER_LEN + frame(1).len() as u64;
    let torn = || vec![frame(1), flipped(frame(2))];
    for case in [
        case("a header alone", vec![]),
        case("a torn tail", torn()),
        case("a tail noted before", torn()).noted(1, end),
        case("a synced tail is lost", torn())
            .noted(1, end + frame(2).len() as u64)
            .damaged("were durable"),
        case(
            "a later frame claims a lost one was synced",
            vec![flipped(frame(1)), reserved(1, 2, end)],
        )
        .damaged("were durable"),
        case("a noted generation", vec![frame(1)]).noted(2, HEADER_LEN).damaged("names it"),
    ] {
        case.check();
    }
}

#[test]
fn a_journal_continues_in_a_successor_that_follows_its_end() {
    let case = JournalCase::new;
    let frame = || reserved(1, 1, HEADER_LEN);
    let payload = Reservation { numbers: 1, revisions: 1 }.encode();
    let (_, checksum) =
        encode_frame(1, FrameKind::Reserved, HEADER_LEN, Revision::new(1), &payload);
    // Generation 2 as it follows one frame of generation 1.
    let second = Header {
        previous_end: HEADER_LEN + frame().len() as u64,
        revision: Revision::new(1),
        number: Number::new(2),
        checksum,
        ..header(2, 1)
    };
    let sealed = || vec![frame(), seal(1, 2, &sealed_payload(2))];
    let foreign = Header { checksum: checksum ^ 1, ..second };
    for case in [
        case("a successor", vec![frame()]).followed_by(second.encode(), 2),
        case("a seal and a successor", sealed()).followed_by(second.encode(), 2),
        case("a successor beyond the readable frames", vec![flipped(frame())])
            .followed_by(second.encode(), 1)
            .damaged("were durable"),
        case("a successor of other frames", vec![frame()])
            .followed_by(foreign.encode(), 1)
            .damaged("does not follow"),
        case("a seal alone", sealed()).damaged("as its successor"),
        case("a successor with a broken header", vec![frame()])
            .followed_by(flipped(second.encode().to_vec()), 1)
            .damaged("header can no longer be read"),
        case("an unfinished successor", vec![frame()]).followed_by([0; 64], 1),
    ] {
        case.check();
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
fn a_generation_with_successors_is_not_skipped() {
    let chain = |numbers: &[u64]| {
        let (disk, layout) = new_disk();
        for number in numbers {
            let header = Header { previous_end: HEADER_LEN, ..header(*number, number - 1) };
            write(&disk, &layout, *number, &[header.encode().to_vec()]);
        }
        read_journal(&disk, &layout, 1).unwrap().damage
    };
    for (numbers, expected) in [
        (&[1][..], None),
        (&[1, 3], Some("generation 3 follows it")),
        (&[1, 3, 4, 5], Some("generation 3 follows it")),
        (&[1, 4, 5], Some("generation 4 follows it")),
    ] {
        assert_damage(&format!("{numbers:?}"), expected, &chain(numbers));
    }
    // Left by an interrupted repair.
    let (disk, layout) = new_disk();
    write(&disk, &layout, 1, &[header(1, 0).encode().to_vec()]);
    write(&disk, &layout, 5, &[header(5, 0).encode().to_vec()]);
    assert_damage("a repair", None, &read_journal(&disk, &layout, 1).unwrap().damage);
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
        ("a partly written header", short, false),
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
