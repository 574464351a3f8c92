//! The manifest: the file that names the Parquet files and the first generation of the log.

mod validate;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::disk::Disk;
use crate::operation::{
    BackendName, Number, NumberRange, Operation, OperationId, OperationType, Revision, Status, Time,
};
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::journal::FORMAT;
use crate::wal::layout::Layout;

/// The contents of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format version.
    pub format: u64,
    /// The counter in the newest name of a Parquet file. No counter is used twice.
    pub counter: u64,
    /// The first generation whose transitions the files do not hold.
    pub first_generation: u64,
    /// The last revision that the files hold.
    pub revision: Revision,
    /// The number of the first operation that is logged after `revision`.
    pub next_number: Number,
    /// The time at which it was written.
    pub written_at: Time,
    /// The time of the last cleanup.
    pub last_cleanup: Option<Time>,
    /// The Parquet files.
    pub files: Vec<FileEntry>,
    /// The files of the original system, from the creation of the log until they are set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originals: Option<Originals>,
    /// The places in those files that could not be read. The files set aside still contain them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
}

/// Files of the original system in the directory of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Originals {
    /// True once Parquet files hold their operations. Until then these files are part of the log.
    pub adopted: bool,
    /// The files.
    pub files: Vec<OriginalFile>,
}

/// A file of the original system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalFile {
    /// The path, relative to the log.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The SHA-256 of the content in hex.
    pub sha256: String,
}

/// A place in a file of the original system that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// The path of the file, relative to the log.
    pub name: String,
    /// The offset of its first byte, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The reason.
    pub what: String,
}

/// The number of operations of each status, backend and type.
pub type Counts = BTreeMap<(Status, BackendName, OperationType), u64>;

/// The description of one Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The path, relative to the log.
    pub name: String,
    /// The number of rows, superseded ones included.
    pub rows: u64,
    /// The size in bytes.
    pub bytes: u64,
    /// The SHA-256 of the content in hex.
    pub sha256: String,
    /// The lowest and the highest id.
    pub ids: (OperationId, OperationId),
    /// The lowest and the highest number.
    pub numbers: (Number, Number),
    /// The lowest and the highest revision.
    pub revisions: (Revision, Revision),
    /// The earliest and the latest time of logging.
    pub times: (Time, Time),
    /// For archives: any instant of the UTC day on which all its operations were completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<Time>,
    /// The number of rows of each status, backend and type. This and the fields up to `due` leave
    /// superseded rows out.
    #[serde(with = "counts")]
    pub counts: Counts,
    /// The number of rows with an idempotency key.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keys: u64,
    /// The number of waiting rows with dependencies.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dependents: u64,
    /// The highest priority among waiting rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The earliest time at which a waiting row is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Time>,
    /// The numbers of rows that were replaced by a higher revision in another file, or deleted.
    #[serde(default, skip_serializing_if = "NumberSet::is_empty")]
    pub superseded: NumberSet,
    /// For archives: the recorded destination. An archive that has one is not merged with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<Pushed>,
}

/// The destination of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The full destination.
    pub to: String,
    /// True once the archive is known to be there. Until then the file stays as it is.
    pub done: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl FileEntry {
    /// Returns the description of a file with these operations, encoded as `bytes`; none without an
    /// operation.
    pub fn describe(
        name: String,
        day: Option<Time>,
        operations: &[Operation],
        bytes: &[u8],
    ) -> Option<FileEntry> {
        fn range<T: Ord + Copy>(
            operations: &[Operation],
            of: impl Fn(&Operation) -> T,
        ) -> Option<(T, T)> {
            Some((operations.iter().map(&of).min()?, operations.iter().map(&of).max()?))
        }
        let mut entry = FileEntry {
            name,
            rows: operations.len() as u64,
            bytes: bytes.len() as u64,
            sha256: sha256_hex(bytes),
            ids: range(operations, |operation| operation.id)?,
            numbers: range(operations, |operation| operation.number)?,
            revisions: range(operations, |operation| operation.revision)?,
            times: range(operations, |operation| operation.logged_at)?,
            day,
            counts: Counts::new(),
            keys: 0,
            dependents: 0,
            priority: None,
            due: None,
            superseded: NumberSet::default(),
            pushed: None,
        };
        entry.count_rows(operations.iter());
        Some(entry)
    }

    /// Counts the rows that are not superseded. `operations` are all rows of the file.
    pub fn count_rows<'a>(&mut self, operations: impl Iterator<Item = &'a Operation>) {
        self.counts.clear();
        (self.keys, self.dependents, self.priority, self.due) = (0, 0, None, None);
        for operation in operations.filter(|operation| !self.superseded.contains(operation.number))
        {
            let key =
                (operation.status(), operation.backend.clone(), operation.operation_type.clone());
            *self.counts.entry(key).or_default() += 1;
            self.keys += u64::from(operation.idempotency_key.is_some());
            if operation.status().is_waiting() {
                self.dependents += u64::from(!operation.depends_on.is_empty());
                self.priority = self.priority.max(Some(operation.priority));
                if let Some(due) = operation.due_at() {
                    self.due = Some(self.due.map_or(due, |earliest| earliest.min(due)));
                }
            }
        }
    }

    /// Returns true if it is an archive.
    pub fn is_archive(&self) -> bool {
        self.day.is_some()
    }

    /// Returns true if it has a destination where it is not known to be yet.
    pub fn is_being_pushed(&self) -> bool {
        self.pushed.as_ref().is_some_and(|pushed| !pushed.done)
    }

    /// Returns the number of rows that are not superseded.
    pub fn live(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Returns true if it may hold the live row with this number.
    pub fn may_hold_number(&self, number: Number) -> bool {
        self.numbers.0 <= number && number <= self.numbers.1 && !self.superseded.contains(number)
    }

    /// Returns the number of live rows with this status.
    pub fn count_of(&self, status: Status) -> u64 {
        self.counts.iter().filter(|((is, _, _), _)| *is == status).map(|(_, n)| n).sum()
    }
}

/// A set of numbers, stored as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberSet {
    ranges: Vec<(Number, Number)>,
}

impl NumberSet {
    /// Returns true if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the number of elements.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last.since(*first) + 1).sum()
    }

    /// Returns true if the set contains this number.
    pub fn contains(&self, number: Number) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= number);
        after > 0 && self.ranges[after - 1].1 >= number
    }

    /// Returns true if the set contains a number from `first` to `last`, both included.
    pub fn intersects(&self, first: Number, last: Number) -> bool {
        let after = self.ranges.partition_point(|(_, end)| *end < first);
        self.ranges.get(after).is_some_and(|(begin, _)| *begin <= last)
    }

    /// Returns the ranges of consecutive numbers, in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = NumberRange> {
        self.ranges.iter().map(|(first, last)| NumberRange { first: *first, last: *last })
    }

    /// Returns the numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Number> {
        self.ranges.iter().flat_map(|(first, last)| first.through(*last))
    }

    /// Adds a number. Numbers in ascending order are added in constant time.
    pub fn insert(&mut self, number: Number) {
        match self.ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            Some((first, last)) if *first <= number && number <= *last => {}
            Some((_, last)) if number < *last => self.extend([number]),
            _ => self.ranges.push((number, number)),
        }
    }

    /// Adds numbers in any order.
    pub fn extend(&mut self, numbers: impl IntoIterator<Item = Number>) {
        self.ranges.extend(numbers.into_iter().map(|number| (number, number)));
        self.ranges.sort_unstable();
        let mut merged: Vec<(Number, Number)> = Vec::with_capacity(self.ranges.len());
        for (first, last) in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(open) if first <= open.1.saturating_add(1) => open.1 = open.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        self.ranges = merged;
    }
}

impl FromIterator<Number> for NumberSet {
    fn from_iter<I: IntoIterator<Item = Number>>(numbers: I) -> NumberSet {
        let mut set = NumberSet::default();
        set.extend(numbers);
        set
    }
}

impl Serialize for NumberSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        let mut text = String::new();
        for (first, last) in &self.ranges {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = if first == last {
                write!(text, "{comma}{first}")
            } else {
                write!(text, "{comma}{first}-{last}")
            };
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for NumberSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let mut ranges = Vec::new();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let parsed = first.parse().ok().zip(last.parse().ok()).filter(
                |(first, last): &(Number, Number)| {
                    first <= last
                        && ranges.last().is_none_or(|(_, before): &(Number, Number)| before < first)
                },
            );
            ranges.push(
                parsed.ok_or_else(|| serde::de::Error::custom("not a list of ascending ranges"))?,
            );
        }
        Ok(NumberSet { ranges })
    }
}

mod counts {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::operation::{BackendName, OperationType, Status};
    use crate::wal::manifest::Counts;

    pub fn serialize<S: Serializer>(counts: &Counts, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<(Status, &BackendName, &OperationType, u64)> = counts
            .iter()
            .map(|((status, backend, kind), n)| (*status, backend, kind, *n))
            .collect();
        rows.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Counts, D::Error> {
        let rows = Vec::<(Status, BackendName, OperationType, u64)>::deserialize(deserializer)?;
        Ok(rows
            .into_iter()
            .map(|(status, backend, kind, n)| ((status, backend, kind), n))
            .collect())
    }
}

/// Returns the SHA-256 of bytes in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns bytes in hex.
pub(in crate::wal) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The length of a SHA-256 in hex.
const HASH_LEN: usize = 64;

impl Manifest {
    /// Returns the manifest of a log without operations.
    pub fn new(first_generation: u64, now: Time) -> Manifest {
        Manifest {
            format: u64::from(FORMAT),
            counter: 0,
            first_generation,
            revision: Revision::ZERO,
            next_number: Number::FIRST,
            written_at: now,
            last_cleanup: None,
            files: Vec::new(),
            originals: None,
            unread: Vec::new(),
        }
    }

    /// Returns the encoded manifest. Its last member is the hash of all bytes before it.
    pub fn encode(&self) -> Vec<u8> {
        // A manifest is plain data with text keys, so it can always be written as JSON.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.pop();
        let hash = sha256_hex(&bytes);
        bytes.extend_from_slice(format!(",\"hash\":\"{hash}\"}}\n").as_bytes());
        bytes
    }

    /// Decodes and checks a manifest. `path` is for error messages.
    pub fn decode(path: &Path, bytes: &[u8]) -> WalResult<Manifest> {
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let damaged = |what: &str| WalError::damaged(path, None, what);
        let known = u64::from(FORMAT);
        // A newer version may have another structure, so its number is checked first.
        if let Ok(Version { format: found }) = serde_json::from_slice(bytes)
            && found > known
        {
            return Err(WalError::NewerFormat { path: path.to_owned(), found, known });
        }
        let tail = ",\"hash\":\"".len() + HASH_LEN + "\"}\n".len();
        let split =
            bytes.len().checked_sub(tail).ok_or_else(|| damaged("the manifest is cut short"))?;
        let (body, rest) = bytes.split_at(split);
        if rest != format!(",\"hash\":\"{}\"}}\n", sha256_hex(body)).as_bytes() {
            return Err(damaged("the manifest does not match its own hash"));
        }
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| damaged(&format!("the manifest cannot be read: {error}")))?;
        manifest
            .check()
            .map_err(|what| damaged(&format!("the manifest is inconsistent: {what}")))?;
        Ok(manifest)
    }

    /// Reads the manifest of a log; none if there is none.
    pub fn load(disk: &dyn Disk, layout: &Layout) -> WalResult<Option<Manifest>> {
        let path = layout.manifest();
        match disk.read(&path) {
            Ok(bytes) => Manifest::decode(&path, &bytes).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the manifest of the log. Durable on return.
    pub fn commit(&self, disk: &dyn Disk, layout: &Layout) -> WalResult<()> {
        let path = layout.manifest();
        let staged = layout.staged("MANIFEST.json");
        disk.remove_if_present(&staged)?;
        disk.write_new_synced(&staged, &self.encode())?;
        disk.publish(&staged, &path)?;
        Ok(())
    }

    /// Returns the counts of all files.
    pub fn counts(&self) -> Counts {
        let mut total = Counts::new();
        for (key, n) in self.files.iter().flat_map(|file| &file.counts) {
            *total.entry(key.clone()).or_default() += n;
        }
        total
    }
}

impl Unread {
    /// Returns the place as damage.
    pub fn at(&self, layout: &Layout) -> Damage {
        Damage { path: layout.file(&self.name), offset: self.offset, what: self.what.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_back_and_every_flipped_bit_is_found() {
        let mut manifest = Manifest::new(3, Time::from_millis(5));
        manifest.counter = 9;
        let bytes = manifest.encode();
        let path = Path::new("MANIFEST.json");
        assert_eq!(Manifest::decode(path, &bytes).unwrap(), manifest);
        for n in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[n] ^= 1;
            let found = Manifest::decode(path, &flipped);
            assert!(
                matches!(found, Err(WalError::Damaged(_) | WalError::NewerFormat { .. })),
                "byte {n}: {found:?}"
            );
            assert!(Manifest::decode(path, &bytes[..n]).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_distinguished_from_damage() {
        let bytes = br#"{"format":2,"what":"ever"}"#;
        assert!(matches!(
            Manifest::decode(Path::new("m"), bytes),
            Err(WalError::NewerFormat { found: 2, known: 1, .. })
        ));
    }

    #[test]
    fn number_sets_merge_neighbours() {
        let mut set = NumberSet::default();
        set.extend([4, 5, 9, 7, 6].map(Number::new));
        set.extend([12, 10].map(Number::new));
        assert_eq!(serde_json::to_string(&set).unwrap(), r#""4-7,9-10,12""#);
        let read: NumberSet = serde_json::from_str(r#""4-7,9-10,12""#).unwrap();
        assert_eq!(read, set);
        let inside: Vec<_> = (1..14).filter(|n| set.contains(Number::new(*n))).collect();
        assert_eq!(inside, [4, 5, 6, 7, 9, 10, 12]);
        let read_on: Vec<_> = set.iter().map(Number::get).collect();
        assert_eq!(read_on, inside);
        for (first, last, expected) in
            [(1, 3, false), (1, 4, true), (8, 8, false), (8, 9, true), (13, 20, false)]
        {
            let intersects = set.intersects(Number::new(first), Number::new(last));
            assert_eq!(intersects, expected, "{first} to {last}");
        }
        let mut one_by_one = NumberSet::default();
        for number in [4, 5, 12, 5, 7, 6, 9, 10, 12].map(Number::new) {
            one_by_one.insert(number);
        }
        assert_eq!(one_by_one, set);
        for bad in [r#""7-4""#, r#""5,4""#, r#""x""#] {
            assert!(serde_json::from_str::<NumberSet>(bad).is_err());
        }
    }
}
