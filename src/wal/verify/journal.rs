//! Checks the journal: headers, the order of generations, every frame and event, and whether each
//! transition can be applied to the state before it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{FOREIGN, Finding, NEXT_CHECKPOINT, NOTHING, Verified, Verifier, into_finding};
use crate::operation::{self, Number, Operation, Revision, Transition};
use crate::wal::error::WalResult;
use crate::wal::journal::reader::{self, FrameContent, Position, ReadGeneration, ReadJournal};
use crate::wal::journal::{self, HEADER_LEN, Header};
use crate::wal::layout::Layout;
use crate::wal::manifest::Manifest;
use crate::wal::schema::Spooled;

/// The contents of the journal, to be compared with the files.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Its end, if all of it could be read.
    pub(super) position: Option<Position>,
    /// Transitions by operation, each with the file and the offset of its frame.
    records: BTreeMap<Number, Vec<(String, u64, Transition)>>,
    /// The rows in files of operations that it changes.
    pub(super) bases: HashMap<Number, Operation>,
    /// True if every file could be read.
    pub(super) has_all_bases: bool,
    /// Spooled content that rows of files refer to.
    pub(super) spooled: Vec<Spooled>,
    /// Spooled content that operations refer to after their transitions were applied.
    folded: Vec<Spooled>,
}

impl Journal {
    /// Returns the operations that it changes.
    pub(super) fn numbers(&self) -> HashSet<Number> {
        self.records.keys().copied().collect()
    }

    /// Applies all transitions, and reports those that cannot be applied.
    pub(super) fn apply(&mut self, found: &mut Verified) {
        for (number, records) in &self.records {
            let logged_here =
                records.first().is_some_and(|(.., transition)| transition.from.is_none());
            let mut operation = self.bases.remove(number);
            let had_row = operation.is_some();
            if !logged_here && !had_row {
                if self.has_all_bases
                    && let Some((path, offset, _)) = records.first()
                {
                    let what =
                        format!("a transition changes operation {number}, which no file contains");
                    found.findings.push(Finding::damage(path, Some(*offset), what));
                }
                continue;
            }
            for (path, offset, transition) in records {
                let kind = operation
                    .as_ref()
                    .map(|operation| (&operation.operation_type, &operation.backend));
                let same = kind
                    .is_none_or(|kind| kind == (&transition.operation_type, &transition.backend));
                let before = operation.clone();
                operation = match operation::apply(operation, transition) {
                    Ok(after) if same => after,
                    Ok(_) => {
                        let what = format!(
                            "transition {} has another type or backend than its operation",
                            transition.revision
                        );
                        found.findings.push(Finding::damage(path, Some(*offset), what));
                        before
                    }
                    Err(error) => {
                        let what =
                            format!("transition {} is invalid: {error}", transition.revision);
                        found.findings.push(Finding::damage(path, Some(*offset), what));
                        before
                    }
                };
            }
            match (had_row, operation.is_some()) {
                (true, false) => found.operations = found.operations.saturating_sub(1),
                (false, true) => found.operations += 1,
                _ => {}
            }
            self.folded.extend(operation.as_ref().and_then(Spooled::of));
        }
    }

    /// Returns the spooled content that operations in their current state will still read.
    pub(super) fn needed_content(&self) -> Vec<Spooled> {
        let untouched =
            self.spooled.iter().filter(|content| !self.records.contains_key(&content.number));
        untouched.chain(&self.folded).cloned().collect()
    }
}

/// Returns an offset as an index, at most the number of bytes.
fn index(bytes: &[u8], offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len())
}

impl Verifier<'_> {
    pub(super) fn journal(&self, manifest: &Manifest, found: &mut Verified) -> WalResult<Journal> {
        let mut journal = Journal { has_all_bases: true, ..Journal::default() };
        let read = match reader::read_journal(&**self.disk, self.layout, manifest.first_generation)
        {
            Ok(read) => read,
            Err(error) => {
                found.findings.push(into_finding(self.layout, error)?);
                return Ok(journal);
            }
        };
        found.generations = read.generations.len() as u64;
        if let Some(damage) = &read.damage {
            found.findings.push(Finding::of(self.layout, damage));
        } else {
            journal.position = Some(read.position);
        }
        if let Some(first) = read.generations.first()
            && (first.header.revision, first.header.number)
                != (manifest.revision, manifest.next_number)
        {
            let what = format!(
                "begins after revision {} with number {}, but the manifest has {} and {}",
                first.header.revision, first.header.number, manifest.revision, manifest.next_number
            );
            found.findings.push(Finding::damage(
                self.generation_name(first.header.generation),
                Some(0),
                what,
            ));
        }
        for (nth, current) in read.generations.iter().enumerate() {
            let end = read.generations.get(nth + 1).map(|next| next.header.previous_end);
            self.generation(current, end, read.damage.is_some(), &mut journal, found)?;
        }
        self.outside_the_journal(manifest, &read, found)?;
        Ok(journal)
    }

    fn generation_name(&self, generation: u64) -> String {
        self.layout.relative(&self.layout.generation(generation))
    }

    /// Checks every event of a generation, its padding, and the bytes after its end.
    fn generation(
        &self,
        read: &ReadGeneration,
        end: Option<u64>,
        is_damaged: bool,
        journal: &mut Journal,
        found: &mut Verified,
    ) -> WalResult<()> {
        let generation = read.header.generation;
        let bytes = match self.disk.read(&self.layout.generation(generation)) {
            Ok(bytes) => bytes,
            Err(error) => {
                found.findings.push(into_finding(self.layout, error.into())?);
                return Ok(());
            }
        };
        let read_to = self.frames(read, &bytes, journal, found);
        found.bytes += read_to;
        if is_damaged {
            return Ok(());
        }
        self.remains(generation, &bytes, end, read_to, found)
    }

    /// Checks the frames of a generation. Returns the end of the last one.
    fn frames(
        &self,
        read: &ReadGeneration,
        bytes: &[u8],
        journal: &mut Journal,
        found: &mut Verified,
    ) -> u64 {
        let name = self.generation_name(read.header.generation);
        let mut read_to = HEADER_LEN;
        for frame in &read.frames {
            let start = frame.after.last;
            read_to = frame.after.end;
            let payload = match &frame.content {
                FrameContent::Transitions(payload) => payload.bytes().len(),
                FrameContent::Reserved(_) => {
                    journal::Reservation { numbers: 0, revisions: 0 }.encode().len()
                }
            };
            let padding = index(bytes, start) + journal::FRAME_HEADER_LEN + payload;
            if bytes
                .get(padding..index(bytes, frame.after.end))
                .is_some_and(|padding| padding.iter().any(|byte| *byte != 0))
            {
                let what = "the padding of a frame is not zero: a bit has flipped";
                found.findings.push(Finding::damage(&name, Some(padding as u64), what));
            }
            let FrameContent::Transitions(payload) = &frame.content else { continue };
            for ((_, record), revision) in
                payload.records().zip(payload.revision.through(Revision::MAX))
            {
                let transition =
                    record.decode(revision, payload.actor()).filter(|read| read.to() == record.to);
                match transition {
                    Some(transition) => {
                        let records = journal.records.entry(record.number).or_default();
                        records.push((name.clone(), start, transition));
                    }
                    None => {
                        let what = format!("transition {revision} cannot be decoded");
                        found.findings.push(Finding::damage(&name, Some(start), what));
                    }
                }
            }
        }
        read_to
    }

    /// Reports bytes that follow the end of a generation.
    fn remains(
        &self,
        generation: u64,
        bytes: &[u8],
        end: Option<u64>,
        read_to: u64,
        found: &mut Verified,
    ) -> WalResult<()> {
        let mut rest = end.unwrap_or(read_to);
        if let Some(frame) = journal::decode_frame(bytes, 0, rest, generation)
            && frame.kind == journal::FrameKind::Sealed
        {
            let padding = index(bytes, rest) + journal::FRAME_HEADER_LEN + frame.payload.len();
            let padding = padding.min(bytes.len());
            if bytes[padding..index(bytes, frame.end)].iter().all(|byte| *byte == 0) {
                rest = frame.end;
            }
        }
        let rest_at = index(bytes, rest);
        let Some(remains) = bytes[rest_at..].iter().position(|byte| *byte != 0) else {
            return Ok(());
        };
        // A writer may have been writing a frame.
        let now = self.disk.read(&self.layout.generation(generation))?;
        if end.is_none() && journal::decode_frame(&now, 0, rest, generation).is_some() {
            return Ok(());
        }
        let what = match end {
            Some(_) => "bytes after the end of a closed generation; valid ones are in the next one",
            None => "remains of appends that were never acknowledged",
        };
        let name = self.generation_name(generation);
        let offset = (rest_at + remains) as u64;
        found.findings.push(Finding::note(&name, Some(offset), what, NOTHING));
        Ok(())
    }

    /// Checks the files in `journal/` that are not part of the journal.
    fn outside_the_journal(
        &self,
        manifest: &Manifest,
        read: &ReadJournal,
        found: &mut Verified,
    ) -> WalResult<()> {
        let in_journal: HashSet<u64> =
            read.generations.iter().map(|one| one.header.generation).collect();
        // The notes are read first: a generation is durable before a note names it.
        let noted = reader::noted_generations(&**self.disk, self.layout)?;
        let headers = reader::headers(&**self.disk, self.layout, manifest.first_generation)?;
        let generations = reader::generations(&**self.disk, self.layout)?;
        let last = read.generations.last().map_or(0, |one| one.header.generation);
        for generation in generations.iter().copied().filter(|one| !in_journal.contains(one)) {
            let name = self.generation_name(generation);
            let removed_later =
                |what: &str| Finding::note(name.clone(), None, what, NEXT_CHECKPOINT);
            if generation < manifest.first_generation {
                let what =
                    "already folded into files; the process that did so died before removing it";
                found.findings.push(removed_later(what));
                continue;
            }
            match headers.get(&generation) {
                Some(header)
                    if generation > last
                        && header.previous > 0
                        && !headers.contains_key(&header.previous) =>
                {
                    let what = format!(
                        "the generation before it ({}) is missing or has no valid header",
                        header.previous
                    );
                    found.findings.push(Finding::damage(name, Some(24), what));
                }
                // Created since the journal was read, or skipped by a recovery.
                Some(header) if generation > last && header.previous == last => {}
                Some(_) => {
                    let what = "skipped by a recovery; its valid frames are in a later generation";
                    found.findings.push(removed_later(what));
                }
                None => self.without_header(generation, name, &noted, found)?,
            }
        }
        let first = manifest.first_generation.max(last.saturating_add(1));
        for noted in noted.into_iter().filter(|noted| *noted >= first) {
            if generations.binary_search(&noted).is_err() {
                let what = "a lock file names it as begun, but it is missing";
                found.findings.push(Finding::damage(self.generation_name(noted), None, what));
            }
        }
        self.foreign_journal_files(found)
    }

    /// Reports files in `journal/` that are not generations.
    fn foreign_journal_files(&self, found: &mut Verified) -> WalResult<()> {
        let entries = match self.disk.list(&self.layout.journal()) {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let name = entry.name.to_string_lossy();
            if Layout::parse_generation(&name).is_none() {
                let name = format!("journal/{name}");
                found.findings.push(Finding::note(name, None, FOREIGN, NOTHING));
            }
        }
        Ok(())
    }

    /// Judges a generation without a valid header: its creator died, or the header was valid once.
    fn without_header(
        &self,
        generation: u64,
        name: String,
        noted: &[u64],
        found: &mut Verified,
    ) -> WalResult<()> {
        let path = self.layout.generation(generation);
        let bytes = match self.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                found.findings.push(into_finding(self.layout, error.into())?);
                return Ok(());
            }
        };
        if Header::decode(&bytes[..bytes.len().min(HEADER_LEN as usize)])
            .is_ok_and(|h| h.generation == generation)
        {
            // Its creation was completed since it was read.
            return Ok(());
        }
        // The header of a generation is durable before a note names it.
        if reader::header_is_broken(&bytes, generation) || noted.contains(&generation) {
            let what = "its header is damaged";
            found.findings.push(Finding::damage(name, Some(0), what));
        } else {
            let what = "remains of a generation whose creation was not completed";
            found.findings.push(Finding::note(name, Some(0), what, NEXT_CHECKPOINT));
        }
        Ok(())
    }
}
