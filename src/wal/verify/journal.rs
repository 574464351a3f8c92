//! The journal: headers, the chain, every frame, every event, and whether each transition follows from what was before.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Finding, Look, NOTHING, Verified, into_finding};
use crate::operation::{self, Number, Operation, Revision, Transition};
use crate::wal::error::WalResult;
use crate::wal::journal::reader::{self, Chain, Content, Link, Position};
use crate::wal::journal::{self, HEADER_LEN, Header};
use crate::wal::manifest::Manifest;
use crate::wal::schema::Spooled;

/// What the journal says, to be held against the files.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Where it ends, if all of it could be read.
    pub(super) position: Option<Position>,
    /// Transitions by operation, each with the file and the offset of its frame.
    records: BTreeMap<Number, Vec<(String, u64, Transition)>>,
    /// Rows of operations that it changes.
    pub(super) bases: HashMap<Number, Operation>,
    /// Whether every file could be read.
    pub(super) has_all_bases: bool,
    /// What rows of files still need, and, once transitions are applied, what operations do.
    pub(super) spooled: Vec<Spooled>,
    folded: Vec<Spooled>,
}

impl Journal {
    /// The operations that it changes.
    pub(super) fn numbers(&self) -> HashSet<Number> {
        self.records.keys().copied().collect()
    }

    /// Applies everything, and tells what does not follow.
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
                    let what = format!("it changes operation {number}, which no file holds");
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
                            "transition {} names another type or backend",
                            transition.revision
                        );
                        found.findings.push(Finding::damage(path, Some(*offset), what));
                        before
                    }
                    Err(error) => {
                        let what =
                            format!("transition {} makes no sense: {error}", transition.revision);
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

    /// Content that operations, as they stand, will still read.
    pub(super) fn needed_content(&self) -> Vec<Spooled> {
        let untouched =
            self.spooled.iter().filter(|content| !self.records.contains_key(&content.number));
        untouched.chain(&self.folded).cloned().collect()
    }
}

impl Look<'_> {
    pub(super) fn journal(&self, manifest: &Manifest, found: &mut Verified) -> WalResult<Journal> {
        let mut journal = Journal { has_all_bases: true, ..Journal::default() };
        let chain = match reader::read_chain(&**self.disk, self.layout, manifest.first_generation) {
            Ok(chain) => chain,
            Err(error) => {
                found.findings.push(into_finding(self.layout, error)?);
                return Ok(journal);
            }
        };
        found.generations = chain.links.len() as u64;
        if let Some(damage) = &chain.damage {
            found.findings.push(Finding::of(self.layout, damage));
        } else {
            journal.position = Some(chain.position);
        }
        if let Some(first) = chain.links.first()
            && (first.header.revision, first.header.number)
                != (manifest.revision, manifest.next_number)
        {
            let what = format!(
                "it begins after revision {} with number {}; the manifest says {} and {}",
                first.header.revision, first.header.number, manifest.revision, manifest.next_number
            );
            found.findings.push(Finding::damage(
                self.generation_name(first.header.generation),
                Some(0),
                what,
            ));
        }
        for (nth, link) in chain.links.iter().enumerate() {
            let end = chain.links.get(nth + 1).map(|next| next.header.previous_end);
            self.generation(link, end, chain.damage.is_some(), &mut journal, found)?;
        }
        self.outside_the_chain(manifest, &chain, found)?;
        Ok(journal)
    }

    fn generation_name(&self, generation: u64) -> String {
        self.layout.relative(&self.layout.generation(generation))
    }

    /// Every event of a generation, its padding, and what stands behind its end.
    fn generation(
        &self,
        link: &Link,
        end: Option<u64>,
        is_damaged: bool,
        journal: &mut Journal,
        found: &mut Verified,
    ) -> WalResult<()> {
        let generation = link.header.generation;
        let name = self.generation_name(generation);
        let bytes = match self.disk.read(&self.layout.generation(generation)) {
            Ok(bytes) => bytes,
            Err(error) => {
                found.findings.push(into_finding(self.layout, error.into())?);
                return Ok(());
            }
        };
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let mut read_to = HEADER_LEN;
        for frame in &link.frames {
            let start = frame.after.last;
            read_to = frame.after.end;
            let payload = match &frame.content {
                Content::Transitions(payload) => payload.bytes().len(),
                Content::Reserved(_) => {
                    journal::Reservation { numbers: 0, revisions: 0 }.encode().len()
                }
            };
            let padding = at(start) + journal::FRAME_HEADER_LEN + payload;
            if bytes
                .get(padding..at(frame.after.end))
                .is_some_and(|padding| padding.iter().any(|byte| *byte != 0))
            {
                let what = "what fills up a frame is not zeros: a bit has flipped";
                found.findings.push(Finding::damage(&name, Some(padding as u64), what));
            }
            let Content::Transitions(payload) = &frame.content else { continue };
            for ((_, record), revision) in
                payload.records().zip(payload.revision.through(Revision::MAX))
            {
                let transition =
                    record.decode(revision, payload.actor()).filter(|read| read.to() == record.to);
                match transition {
                    Some(transition) => {
                        journal.records.entry(record.number).or_default().push((
                            name.clone(),
                            start,
                            transition,
                        ));
                    }
                    None => {
                        let what = format!("transition {revision} cannot be decoded");
                        found.findings.push(Finding::damage(&name, Some(start), what));
                    }
                }
            }
        }
        found.bytes += read_to;
        let mut rest = end.unwrap_or(read_to);
        if let Some(frame) = journal::frame_at(&bytes, 0, rest, generation)
            && frame.kind == journal::FrameKind::Sealed
        {
            let padding = at(rest) + journal::FRAME_HEADER_LEN + frame.payload.len();
            if bytes[padding.min(bytes.len())..at(frame.end)].iter().all(|byte| *byte == 0) {
                rest = frame.end;
            }
        }
        if let Some(remains) =
            bytes[at(rest)..].iter().position(|byte| *byte != 0).filter(|_| !is_damaged)
        {
            // It may have been a writer in the middle of a frame.
            let now = self.disk.read(&self.layout.generation(generation))?;
            if end.is_none() && journal::frame_at(&now, 0, rest, generation).is_some() {
                return Ok(());
            }
            let what = match end {
                Some(_) => {
                    "remains behind the end of a closed generation: what counted of them stands in the next one"
                }
                None => "remains of appends that were never acknowledged",
            };
            found.findings.push(Finding::note(
                &name,
                Some(at(rest) as u64 + remains as u64),
                what,
                NOTHING,
            ));
        }
        Ok(())
    }

    /// Files in `journal/` that the chain does not lead to.
    fn outside_the_chain(
        &self,
        manifest: &Manifest,
        chain: &Chain,
        found: &mut Verified,
    ) -> WalResult<()> {
        let in_chain: HashSet<u64> =
            chain.links.iter().map(|link| link.header.generation).collect();
        // The notes first: a generation and its name are durable before any note speaks of it.
        let noted = reader::noted_generations(&**self.disk, self.layout)?;
        let headers = reader::headers(&**self.disk, self.layout, manifest.first_generation)?;
        let generations = reader::generations(&**self.disk, self.layout)?;
        let last = chain.links.last().map_or(0, |link| link.header.generation);
        for generation in generations.iter().copied() {
            let name = self.generation_name(generation);
            if generation < manifest.first_generation {
                let what = "it was folded into files; whoever did so died before it was removed";
                found.findings.push(Finding::note(
                    name,
                    None,
                    what,
                    "the next checkpoint removes it",
                ));
                continue;
            }
            if in_chain.contains(&generation) {
                continue;
            }
            match headers.get(&generation) {
                Some(header)
                    if generation > last
                        && header.previous > 0
                        && !headers.contains_key(&header.previous) =>
                {
                    let what = format!(
                        "it follows generation {}, which is missing or has no header",
                        header.previous
                    );
                    found.findings.push(Finding::damage(name, Some(24), what));
                }
                // Made since the chain was read, or passed over by a recovery.
                Some(header) if generation > last && header.previous == last => {}
                Some(_) => {
                    let what =
                        "a recovery has passed over it; what counted of it stands in a later one";
                    found.findings.push(Finding::note(
                        name,
                        None,
                        what,
                        "the next checkpoint removes it",
                    ));
                }
                None => self.without_header(generation, name, &noted, found)?,
            }
        }
        for noted in noted {
            if noted > last
                && noted >= manifest.first_generation
                && generations.binary_search(&noted).is_err()
            {
                let what = "a lock file says that it was begun, but it is missing";
                found.findings.push(Finding::damage(self.generation_name(noted), None, what));
            }
        }
        let entries = match self.disk.list(&self.layout.journal()) {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let name = entry.name.to_string_lossy();
            if crate::wal::layout::Layout::parse_generation(&name).is_none() {
                found.findings.push(Finding::note(
                    format!("journal/{name}"),
                    None,
                    "nothing of ours",
                    NOTHING,
                ));
            }
        }
        Ok(())
    }

    /// A header that is not whole: its writer died before it had said anything, or it was whole once.
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
            // Made whole since it was looked at.
            return Ok(());
        }
        // No note speaks of a generation before its header is durable.
        if reader::header_is_broken(&bytes, generation) || noted.contains(&generation) {
            let what = "its header cannot be read any more";
            found.findings.push(Finding::damage(name, Some(0), what));
        } else {
            let what = "remains of a generation that never began: its header is not whole";
            found.findings.push(Finding::note(
                name,
                Some(0),
                what,
                "the next checkpoint removes it",
            ));
        }
        Ok(())
    }
}
