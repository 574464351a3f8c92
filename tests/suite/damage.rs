//! Damages a small log in one place at a time, down to single bits. No reader may report content
//! that was not written, nothing may be missing silently, and nothing may panic.
//!
//! Every case ends in one of four ways:
//! - *harmless*: a reader sees the same as before, and a writer continues;
//! - *reported*: a reader reports the damage and shows everything else; a writer refuses, or
//!   reports it;
//! - *named*: the journal ends earlier, at bytes that nothing proves to have been on disk, and
//!   `verify` names the bytes after its end;
//! - *tail*: the journal ends earlier, and no bytes follow its end.
//!
//! `WAL_CLI_LONG=N` tries one in N of all flips and truncations (1: all), `WAL_CLI_DAMAGE` a single
//! case by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use wal_cli::operation::{Number, Operation};
use wal_cli::wal::journal::{HEADER_LEN, decode_frame};
use wal_cli::wal::manifest::{Manifest, sha256_hex};
use wal_cli::wal::{Change, WalError};

use super::fuzzing::image::{self, Image, Seen, layout};

const SECTOR: usize = 512;
const MANIFEST: &str = "MANIFEST.json";
/// Without `WAL_CLI_LONG`, one case in this many is tried.
const STRIDE: usize = 151;
/// All code opens Parquet files through one function, which compares their hash. Of the files that
/// it refuses, one in this many is also given to a reader and a writer of the whole log.
const REFUSED_STRIDE: usize = 64;
/// The number of flips in the preallocated zeros of a journal.
const FLIPS_AHEAD: usize = 1000;

/// One kind of damage to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Harm {
    Flip { byte: usize, bit: u8 },
    Cut { len: usize },
    Zeroed { from: usize, to: usize },
    Garbage { at: usize, seed: u64 },
    Missing,
    Copied { to: String },
    Swapped { with: String },
    Foreign,
    Newer,
}

/// A case: one damage to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    file: String,
    harm: Harm,
    /// True if the machine was rebooted, so that lock notes are not trusted.
    another_boot: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let boot = if self.another_boot { "another boot" } else { "same boot" };
        let file = &self.file;
        match &self.harm {
            Harm::Flip { byte, bit } => write!(f, "{file}: byte {byte} bit {bit} flipped, {boot}"),
            Harm::Cut { len } => write!(f, "{file}: cut to {len} bytes, {boot}"),
            Harm::Zeroed { from, to } => write!(f, "{file}: zeros from {from} to {to}, {boot}"),
            Harm::Garbage { at, seed } => write!(f, "{file}: garbage {seed} at {at}, {boot}"),
            Harm::Missing => write!(f, "{file}: missing, {boot}"),
            Harm::Copied { to } => write!(f, "{file}: copied to {to}, {boot}"),
            Harm::Swapped { with } => write!(f, "{file}: with the bytes of {with}, {boot}"),
            Harm::Foreign => write!(f, "{file}: a file of another program, {boot}"),
            Harm::Newer => write!(f, "{file}: written by a newer program, {boot}"),
        }
    }
}

/// The outcome of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Harmless,
    Reported,
    Named,
    Tail,
}

/// Numbers of outcomes, by file and kind.
type Endings = BTreeMap<(String, &'static str, Ending), Vec<usize>>;

/// The undamaged log, and the positions of its parts.
struct Whole {
    image: &'static Image,
    seen: Seen,
    /// The states of the log at the ends of the frames of its last generation, by those ends.
    ends: BTreeMap<usize, Seen>,
    /// The operations in Parquet files, and their files.
    rows: BTreeMap<Number, (String, Operation)>,
    generations: Vec<String>,
    manifest: Manifest,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let image = image::sample();
        let seen = Seen::by(&image.machine(false).process());
        assert!(seen.reported.is_empty(), "{:?}", seen.reported);
        let generations: Vec<String> =
            image.files.keys().filter(|name| name.starts_with("journal/")).cloned().collect();
        let last = generations.last().unwrap();
        let mut ends = BTreeMap::new();
        for end in frame_ends(&image.files[last], generation_of(last))
            .into_iter()
            .chain([HEADER_LEN as usize])
        {
            let mut shorter = image.files[last].clone();
            shorter.truncate(end);
            ends.insert(end, Seen::by(&put(image, last, Some(shorter)).machine(true).process()));
        }
        let manifest = manifest_of(image);
        let mut rows = BTreeMap::new();
        for file in &manifest.files {
            let disk = image.machine(false).process();
            let table =
                wal_cli::wal::schema::Table::open(&disk, &layout().file(&file.name), &file.sha256)
                    .unwrap();
            for row in table.read_all().unwrap() {
                if !file.superseded.contains(row.number) {
                    rows.insert(row.number, (file.name.clone(), row));
                }
            }
        }
        let count =
            |folder: &str| image.files.keys().filter(|name| name.starts_with(folder)).count();
        assert!(
            count("partitions/") >= 3 && count("archives/") >= 1 && count("spool/") >= 1,
            "{:?}",
            image.files.keys()
        );
        assert!(generations.len() >= 2, "a sealed generation and an open one");
        assert!(
            ends.len() >= 4
                && known_synced(&image.files[last], generation_of(last)) > HEADER_LEN as usize
        );
        Whole { image, seen, ends, rows, generations, manifest }
    })
}

fn manifest_of(image: &Image) -> Manifest {
    Manifest::decode(Path::new(MANIFEST), &image.files[MANIFEST]).unwrap()
}

fn put(image: &Image, name: &str, bytes: Option<Vec<u8>>) -> Image {
    let mut image = image.clone();
    match bytes {
        Some(bytes) => image.files.insert(name.to_owned(), bytes),
        None => image.files.remove(name),
    };
    image
}

fn generation_of(name: &str) -> u64 {
    name.trim_start_matches("journal/journal_").trim_end_matches(".log").parse().unwrap()
}

/// Returns the ends of the frames of a generation, up to the first gap.
fn frame_ends(bytes: &[u8], generation: u64) -> Vec<usize> {
    let mut at = HEADER_LEN;
    let next = || {
        let frame = decode_frame(bytes, 0, at, generation)?;
        at = frame.end;
        Some(frame.end as usize)
    };
    std::iter::from_fn(next).collect()
}

/// Returns the offset up to which an intact frame proves that the file was on disk.
fn known_synced(bytes: &[u8], generation: u64) -> usize {
    let frames = (HEADER_LEN as usize..bytes.len())
        .step_by(8)
        .filter_map(|at| decode_frame(bytes, 0, at as u64, generation));
    frames.map(|frame| frame.synced as usize).max().unwrap_or(0)
}

impl Case {
    fn image(&self, whole: &Whole) -> Image {
        let bytes = whole.image.files.get(&self.file).cloned().unwrap_or_default();
        let changed = match &self.harm {
            Harm::Flip { byte, bit } => {
                let mut bytes = bytes;
                bytes[*byte] ^= 1 << bit;
                bytes
            }
            Harm::Cut { len } => bytes[..*len].to_vec(),
            Harm::Zeroed { from, to } => {
                let mut bytes = bytes;
                bytes[*from..*to].fill(0);
                bytes
            }
            Harm::Garbage { at, seed } => {
                let mut bytes = bytes;
                let mut random = fastrand::Rng::with_seed(*seed);
                let end = (*at + random.usize(1..100)).min(bytes.len());
                bytes[*at..end].fill_with(|| random.u8(..));
                bytes
            }
            Harm::Missing => return put(whole.image, &self.file, None),
            Harm::Copied { to } => return put(whole.image, to, Some(bytes)),
            Harm::Swapped { with } => whole.image.files[with].clone(),
            Harm::Foreign => {
                include_bytes!("../data/original/mixed/partitions/wal_1735680000_0.parquet")
                    .to_vec()
            }
            Harm::Newer => return self.newer(whole, bytes),
        };
        put(whole.image, &self.file, Some(changed))
    }

    /// Returns the image with the file as a program of the next format version would write it.
    fn newer(&self, whole: &Whole, mut bytes: Vec<u8>) -> Image {
        if self.file == MANIFEST {
            let text =
                String::from_utf8(bytes).unwrap().replacen("\"format\":1", "\"format\":2", 1);
            return put(whole.image, MANIFEST, Some(text.into_bytes()));
        }
        if self.file.starts_with("journal/") {
            bytes[8] = 2;
            let checksum = crc32c::crc32c(&bytes[..76]).to_le_bytes();
            bytes[76..80].copy_from_slice(&checksum);
            return put(whole.image, &self.file, Some(bytes));
        }
        // Key and value of the footer in the compact encoding of Thrift.
        let key = [wal_cli::wal::schema::FORMAT_KEY.as_bytes(), b"\x18\x011"].concat();
        let at = bytes
            .windows(key.len())
            .rposition(|window| window == key)
            .expect("the footer contains the key");
        bytes[at + key.len() - 1] = b'2';
        let mut manifest = manifest_of(whole.image);
        let entry = manifest.files.iter_mut().find(|file| file.name == self.file).unwrap();
        entry.sha256 = sha256_hex(&bytes);
        put(&put(whole.image, &self.file, Some(bytes)), MANIFEST, Some(manifest.encode()))
    }

    /// Returns the result of the case; an error describes a violation.
    fn judge(&self, nth: usize) -> Result<Ending, String> {
        let whole = whole();
        let image = self.image(whole);
        if self.is_parquet()
            && !nth.is_multiple_of(REFUSED_STRIDE)
            && self.is_refused(whole, &image)
        {
            return Ok(Ending::Reported);
        }
        let machine = image.machine(self.another_boot);
        let seen = caught("a reader", || Seen::by(&machine.process()))?;
        let ending = self.judge_reader(whole, &image, &seen)?;
        // A reader changes nothing, so the same machine can be used again.
        self.judge_writer(whole, ending, &seen, &image)?;
        Ok(ending)
    }

    /// Returns whether a Parquet file is refused because of its hash. Only flips and truncations
    /// are examined.
    fn is_refused(&self, whole: &Whole, image: &Image) -> bool {
        let entry = whole.manifest.files.iter().find(|file| file.name == self.file);
        let (Some(entry), Harm::Flip { .. } | Harm::Cut { .. }) = (entry, &self.harm) else {
            return false;
        };
        let process = wal_cli::disk::Machine::new().process();
        let disk: &dyn wal_cli::disk::Disk = &process;
        let path = Path::new("/x.parquet");
        disk.write_new_synced(path, &image.files[&self.file]).unwrap();
        matches!(
            wal_cli::wal::schema::Table::open(disk, path, &entry.sha256),
            Err(WalError::Damaged(_))
        )
    }

    fn judge_reader(&self, whole: &Whole, image: &Image, seen: &Seen) -> Result<Ending, String> {
        if seen.reported.is_empty() {
            if seen.operations == whole.seen.operations {
                return Ok(Ending::Harmless);
            }
            return match self.tail(whole, image, seen) {
                Some(tail) if tail.iter().all(|byte| *byte == 0) => Ok(Ending::Tail),
                Some(_) if self.is_named_by_verify(image)? => Ok(Ending::Named),
                Some(_) => {
                    Err("the journal ends earlier, and `verify` does not name the bytes behind it"
                        .into())
                }
                None => Err(format!(
                    "no damage is reported, but {}",
                    difference(&whole.seen.operations, &seen.operations)
                )),
            };
        }
        if !seen.reported.iter().any(|reported| names(reported, &self.file)) {
            return Err(format!("the file is not named: {:?}", seen.reported));
        }
        for (number, operation) in &seen.operations {
            let known =
                whole.seen.operations.get(number).or(whole.rows.get(number).map(|(_, row)| row));
            let Some(known) = known else {
                return Err(format!("operation {number} never existed"));
            };
            if !known.history.starts_with(&operation.history) {
                return Err(format!("operation {number} is shown with another history"));
            }
        }
        // Without the manifest, or in an unknown format, nothing is readable.
        let all_is_lost = self.file == MANIFEST || self.harm == Harm::Newer;
        let in_journal = self.file.starts_with("journal/");
        for (number, operation) in whole.seen.operations.iter().filter(|_| !all_is_lost) {
            let row = whole.rows.get(number);
            let stands_elsewhere = if in_journal {
                row.is_some()
            } else {
                row.is_none_or(|(file, _)| *file != self.file)
            };
            match seen.operations.get(number) {
                None if stands_elsewhere => {
                    return Err(format!(
                        "operation {number}, which is in another file, is missing"
                    ));
                }
                Some(found) if !in_journal && found != operation => {
                    return Err(format!("operation {number} has changed"));
                }
                _ => {}
            }
        }
        Ok(Ending::Reported)
    }

    /// Returns the outcome if the journal ends earlier, at a frame, and nothing that is left proves
    /// that it was longer.
    fn tail<'i>(&self, whole: &Whole, image: &'i Image, seen: &Seen) -> Option<&'i [u8]> {
        let last = whole.generations.last().unwrap();
        let bytes = image.files.get(last).filter(|_| self.file == *last && self.another_boot)?;
        let generation = generation_of(last);
        let end = frame_ends(bytes, generation).last().copied().unwrap_or(HEADER_LEN as usize);
        let is_tail = end >= known_synced(bytes, generation)
            && whole.ends.get(&end).is_some_and(|state| state == seen);
        is_tail.then(|| bytes.get(end..).unwrap_or_default())
    }

    fn is_named_by_verify(&self, image: &Image) -> Result<bool, String> {
        let disk: Arc<dyn wal_cli::disk::Disk> =
            Arc::new(image.machine(self.another_boot).process());
        let found = caught("verify", || wal_cli::wal::verify(&disk, &layout(), &|_, _| {}))?;
        let found = found.map_err(|error| format!("verify fails: {error}"))?;
        Ok(found.findings.iter().any(|finding| finding.path == self.file))
    }

    fn judge_writer(
        &self,
        whole: &Whole,
        ending: Ending,
        seen: &Seen,
        image: &Image,
    ) -> Result<(), String> {
        let machine = image.machine(self.another_boot);
        let disk = machine.process();
        let went_on = caught("a writer", || -> Result<Number, WalError> {
            let wal = image::open(&disk)?;
            let (written, ()) =
                wal.transact(|_| Ok((vec![Change::New(image::logged("/new"))], ())))?;
            let folded = wal.checkpoint();
            match folded {
                // Work that needs the damaged file stops, and the rest continues.
                Err(_) if ending == Ending::Reported => {}
                other => drop(other?),
            }
            Ok(written[0].number)
        })?;
        let after = caught("a reader after the writer", || Seen::by(&machine.process()))?;
        let number = match (went_on, ending) {
            (Ok(number), _) => number,
            (Err(WalError::Damaged(_) | WalError::NewerFormat { .. }), Ending::Reported) => {
                return if after.operations == seen.operations {
                    Ok(())
                } else {
                    Err("a refused writer changed something".into())
                };
            }
            (Err(error), _) => return Err(format!("a writer cannot continue: {error}")),
        };
        if ending == Ending::Reported && !self.is_parquet() {
            return Err("a writer continues although manifest or journal are damaged".into());
        }
        let mut expected = seen.operations.clone();
        match after
            .operations
            .get(&number)
            .filter(|new| new.parameters.get("path").is_some_and(|path| path == "/new"))
        {
            Some(new) if !expected.contains_key(&number) => expected.insert(number, new.clone()),
            _ => return Err(format!("operation {number}, which was logged then, is missing")),
        };
        if expected != after.operations {
            return Err(format!(
                "after a writer continued, {}",
                difference(&expected, &after.operations)
            ));
        }
        let complete =
            whole.seen.operations.keys().all(|number| after.operations.contains_key(number));
        match ending {
            Ending::Reported if after.reported.is_empty() && !complete => {
                Err("the damage is no longer reported after a writer continued".into())
            }
            Ending::Harmless | Ending::Named | Ending::Tail if !after.reported.is_empty() => {
                Err(format!("a writer caused damage: {:?}", after.reported))
            }
            _ => Ok(()),
        }
    }

    fn is_parquet(&self) -> bool {
        self.file.ends_with(".parquet")
    }
}

/// Returns whether a report names a file, or the file that it replaces.
fn names(reported: &str, file: &str) -> bool {
    let journal = file.starts_with("journal/");
    reported.contains(file) || (journal && reported.contains("/wal/journal"))
}

fn caught<T>(who: &str, act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or(panic.downcast_ref::<&str>().map(ToString::to_string));
        format!("{who} panics: {}", text.unwrap_or_default())
    })
}

fn difference(
    expected: &BTreeMap<Number, Operation>,
    found: &BTreeMap<Number, Operation>,
) -> String {
    let keys =
        |of: &BTreeMap<Number, Operation>, other: &BTreeMap<Number, Operation>| -> Vec<Number> {
            of.keys().filter(|number| !other.contains_key(number)).copied().collect()
        };
    let changed: Vec<Number> = expected
        .iter()
        .filter(|(number, is)| found.get(number).is_some_and(|now| now != *is))
        .map(|(n, _)| *n)
        .collect();
    format!(
        "{:?} are missing, {:?} are new, {changed:?} have changed",
        keys(expected, found),
        keys(found, expected)
    )
}

/// All cases, in the order in which they are tried.
fn cases() -> Vec<Case> {
    let whole = whole();
    let mut cases = Vec::new();
    let mut random = fastrand::Rng::with_seed(5);
    for (file, bytes) in &whole.image.files {
        if file.starts_with("spool/") {
            continue;
        }
        let journal = file.starts_with("journal/");
        // Preallocated zeros are sampled.
        let dense = if journal {
            bytes.iter().rposition(|byte| *byte != 0).unwrap() + 9
        } else {
            bytes.len()
        };
        let boots = if journal || file.ends_with("lock") { &[false, true][..] } else { &[true] };
        for another_boot in boots.iter().copied() {
            let mut add = |harm: Harm| cases.push(Case { file: file.clone(), harm, another_boot });
            for byte in 0..dense.min(bytes.len()) {
                (0..8).for_each(|bit| add(Harm::Flip { byte, bit }));
            }
            if dense < bytes.len() {
                (0..FLIPS_AHEAD).for_each(|_| {
                    add(Harm::Flip { byte: random.usize(dense..bytes.len()), bit: random.u8(..8) })
                });
            }
            (0..bytes.len()).for_each(|len| add(Harm::Cut { len }));
            for from in (0..bytes.len()).step_by(SECTOR) {
                add(Harm::Zeroed { from, to: (from + SECTOR).min(bytes.len()) });
            }
            for _ in 0..100 {
                add(Harm::Garbage { at: random.usize(..bytes.len()), seed: random.u64(..) });
            }
            add(Harm::Missing);
            let like = |other: &&String| {
                **other != *file && other.split('/').next() == file.split('/').next()
            };
            if let Some(with) = whole.image.files.keys().find(like).filter(|_| file.contains('/')) {
                add(Harm::Swapped { with: with.clone() });
            }
            if file.ends_with(".parquet") {
                add(Harm::Foreign);
                add(Harm::Copied { to: file.replace(".parquet", "7.parquet") });
            }
            if journal {
                add(Harm::Copied { to: file.replace(".log", "7.log") });
                add(Harm::Copied { to: file.replace("_00", "_77") });
            }
            if !file.ends_with("lock") {
                add(Harm::Newer);
            }
        }
    }
    let beside = "partitions/wal_1735680000_000777.parquet".to_owned();
    cases.push(Case { file: beside, harm: Harm::Foreign, another_boot: true });
    cases
}

#[test]
fn no_flipped_bit_loses_or_invents_data_silently() {
    let stride = std::env::var("WAL_CLI_LONG").map_or(STRIDE, |n| n.parse().expect("a number"));
    let only = std::env::var("WAL_CLI_DAMAGE").ok();
    let mut cases = cases();
    match &only {
        Some(only) => cases.retain(|case| case.to_string() == *only),
        None => {
            // There are few such cases, so all of them are tried.
            let mut nth = 0;
            cases.retain(|case| {
                let many = matches!(
                    case.harm,
                    Harm::Flip { .. } | Harm::Cut { .. } | Harm::Garbage { .. }
                );
                nth += usize::from(many);
                !many || nth.is_multiple_of(stride)
            });
        }
    }
    assert!(!cases.is_empty(), "there is no such case");
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let endings: Mutex<Endings> = Mutex::default();
    let wrong: Mutex<BTreeSet<(usize, String)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((nth, case)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|nth| Some((nth, cases.get(nth)?)))
                {
                    match case.judge(nth) {
                        Ok(ending) => {
                            let of = match case.harm {
                                Harm::Flip { .. } => "flips",
                                Harm::Cut { .. } => "truncations",
                                _ => "others",
                            };
                            endings
                                .lock()
                                .unwrap()
                                .entry((case.file.clone(), of, ending))
                                .or_default()
                                .push(nth);
                        }
                        Err(what) => drop(wrong.lock().unwrap().insert((nth, what))),
                    }
                }
            });
        }
    });
    std::panic::set_hook(hook);
    let (endings, wrong) = (endings.into_inner().unwrap(), wrong.into_inner().unwrap());
    for ((file, of, ending), which) in &endings {
        println!("{file}: {of}, {ending:?}: {}", which.len());
    }
    let mut sums: BTreeMap<(&str, Ending), usize> = BTreeMap::new();
    endings.iter().for_each(|((_, of, ending), which)| {
        *sums.entry((of, *ending)).or_default() += which.len()
    });
    println!("{} cases: {sums:?}, {} wrong", cases.len(), wrong.len());
    for (_, which) in endings.iter().filter(|((.., ending), _)| *ending == Ending::Tail) {
        println!(
            "the journal ends earlier, from `{}` to `{}`",
            cases[which[0]],
            cases[which[which.len() - 1]]
        );
    }
    for (nth, what) in wrong.iter().take(40) {
        println!(
            "{what}\n    WAL_CLI_DAMAGE='{}' cargo test --test all suite::damage::",
            cases[*nth]
        );
    }
    assert!(wrong.is_empty(), "{} of {} cases", wrong.len(), cases.len());
}

/// Frames with valid checksums and invalid contents, as a defective program would write them.
#[test]
fn an_invalid_frame_is_reported_and_hides_nothing_before() {
    use wal_cli::operation::{Event, OperationId, Status, Time};
    use wal_cli::wal::journal::{FrameKind, NewRecord, PayloadBuilder, Reservation, encode_frame};
    let whole = whole();
    let last = whole.generations.last().unwrap();
    let bytes = &whole.image.files[last];
    let generation = generation_of(last);
    let end = *frame_ends(bytes, generation).last().unwrap();
    let frame = decode_frame(bytes, 0, *whole.ends.keys().rev().nth(1).unwrap() as u64, generation)
        .unwrap();
    let next = frame.revision.next();
    let record = |number: Number, from: Option<Status>, event: &Event| {
        let new = image::logged("/x");
        let mut payload = PayloadBuilder::new("me@here add[1]");
        let at = Time::from_millis(image::NOW);
        assert!(payload.push(&NewRecord {
            number,
            id: OperationId::new(at, 0, 5),
            at,
            from,
            operation_type: &new.operation_type,
            backend: &new.backend,
            event,
        }));
        payload.finish()
    };
    let new = Event::Logged(Box::new(image::logged("/x")));
    let held = Event::Held { reason: "x".into() };
    for (what, kind, revision, payload) in [
        ("a number used twice", FrameKind::Transitions, next, record(Number::new(1), None, &new)),
        (
            "a change before it is logged",
            FrameKind::Transitions,
            next,
            record(Number::new(1 << 40), Some(Status::Pending), &held),
        ),
        (
            "a number beyond the reserved ones",
            FrameKind::Transitions,
            next,
            record(Number::new(1 << 62), None, &new),
        ),
        (
            "another revision",
            FrameKind::Transitions,
            next.next(),
            record(Number::new(1 << 40), None, &new),
        ),
        (
            "too many revisions",
            FrameKind::Reserved,
            next,
            Reservation { numbers: 1, revisions: 1 << 62 }.encode().to_vec(),
        ),
        (
            "too many numbers",
            FrameKind::Reserved,
            next,
            Reservation { numbers: u64::MAX, revisions: 1 }.encode().to_vec(),
        ),
        ("a seal that names nothing", FrameKind::Sealed, next, vec![1]),
        ("no transitions", FrameKind::Transitions, next, Vec::new()),
    ] {
        let (frame, _) = encode_frame(generation, kind, 80, revision, &payload);
        let mut changed = bytes.clone();
        changed.resize(changed.len().max(end + frame.len()), 0);
        changed[end..end + frame.len()].copy_from_slice(&frame);
        let machine = put(whole.image, last, Some(changed)).machine(true);
        let seen = Seen::by(&machine.process());
        assert_eq!(seen.operations, whole.seen.operations, "{what}");
        assert!(
            seen.reported.iter().any(
                |reported| reported.contains(last) && reported.contains(&format!("byte {end}"))
            ),
            "{what}: {:?}",
            seen.reported
        );
        let refused = image::open(&machine.process())
            .and_then(|wal| wal.append_new(vec![image::logged("/new")]));
        assert!(matches!(refused, Err(WalError::Damaged(_))), "{what}: {refused:?}");
    }
}
