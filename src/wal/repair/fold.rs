//! What the journal still tells, applied to the rows where it follows from them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::hold::rows_prove_nothing;
use super::journal::{Journal, Record};
use super::rows::Files;
use super::{Loss, MANIFEST, Plan, READS, Repair};
use crate::disk::{Access, DiskError};
use crate::operation::{self, Event, Number, Operation, OperationId, Revision};
use crate::wal::error::WalResult;
use crate::wal::journal::note::AppendNote;
use crate::wal::layout::Layout;
use crate::wal::manifest::{Manifest, NumberSet, sha256_hex};
use crate::wal::schema::Spooled;
use crate::wal::spool::hash_of;

impl Repair<'_> {
    /// All that is to be written.
    pub(super) fn plan(
        &mut self,
        manifest: Option<&Manifest>,
        journal: &mut Journal,
        noted: Option<&AppendNote>,
    ) -> WalResult<Plan> {
        let mut files = match manifest {
            Some(manifest) => self.named_files(manifest)?,
            None => self.found_files()?,
        };
        journal.end_too_early(files.highest, manifest);
        let journal = &*journal;
        self.report.losses.extend(journal.losses.iter().cloned());
        let mut deleted = BTreeSet::new();
        let touched: HashSet<Number> = journal.touched().into_iter().collect();
        self.load(&mut files, &touched)?;
        let mut orphans = self.apply(&journal.records, &mut files, &mut deleted);
        let prove_nothing = rows_prove_nothing(manifest, journal);
        if prove_nothing {
            let unproven = self.load_unproven(journal, &mut files)?;
            self.load(&mut files, &unproven)?;
        }
        self.content(&mut files)?;
        let Files { mut plan, live, lost, highest, .. } = files;
        let is_there =
            |number: &Number| live.contains_key(number) || plan.rows.contains_key(number);
        for (numbers, rows) in lost {
            let gone: Vec<Number> =
                numbers.iter().filter(|n| !is_there(n) && !deleted.contains(n)).collect();
            if gone.len() as u64 > rows {
                let what = format!(
                    "{rows} of {} operations from {} to {} of which nothing tells any more were in lost files; others of \
                     them may have been deleted before",
                    gone.len(),
                    gone.first().unwrap_or(&Number::ZERO),
                    gone.last().unwrap_or(&Number::ZERO)
                );
                self.lose(MANIFEST, None, &what);
            }
            orphans.extend(gone);
        }
        // Without a manifest nothing tells which numbers were deleted and which were in files that are gone.
        if !journal.losses.is_empty() || manifest.is_none() {
            // Nor whether a batch that reserved its numbers came to be part of the log.
            let was_reserved =
                |number: &Number| journal.reserved.iter().any(|(a, b)| a <= number && number <= b);
            let reserved = |number: &Number| manifest.is_some() && was_reserved(number);
            let noted = noted.map_or(Number::ZERO, |note| note.number);
            let end = journal.numbers.1.max(noted);
            let gone = manifest.map_or(Number::FIRST, |_| journal.numbers.0).until(end);
            orphans.extend(gone.filter(|n| !is_there(n) && !deleted.contains(n) && !reserved(n)));
        }
        orphans.retain(|number| !is_there(number));
        self.report.lost = orphans.into_iter().collect::<NumberSet>();
        // No number is given twice, whoever has seen it; nor is a revision.
        let (manifest_number, manifest_revision) =
            manifest.map_or((Number::FIRST, Revision::ZERO), |m| (m.next_number, m.revision));
        let (noted_number, noted_revision) =
            noted.map_or((Number::FIRST, Revision::ZERO), |note| (note.number, note.revision));
        plan.next_number = manifest_number
            .max(noted_number)
            .max(journal.numbers.1)
            .max(highest.0.next())
            .saturating_add(journal.slack);
        plan.revision = manifest_revision
            .max(noted_revision)
            .max(journal.revision)
            .max(highest.1)
            .saturating_add(journal.slack);
        self.hold(prove_nothing, journal, &mut plan)?;
        Ok(plan)
    }

    /// Applies transitions where they are legal; the numbers of operations that only transitions tell of.
    fn apply(
        &mut self,
        records: &[Record],
        files: &mut Files,
        deleted: &mut BTreeSet<Number>,
    ) -> BTreeSet<Number> {
        let mut by_number: BTreeMap<Number, Vec<&Record>> = BTreeMap::new();
        for record in records {
            by_number.entry(record.transition.number).or_default().push(record);
        }
        let mut orphans = BTreeSet::new();
        for (number, mut records) in by_number {
            // What a recovery wrote again has the revision that it had.
            records.sort_by_key(|record| record.transition.revision);
            records.dedup_by_key(|record| record.transition.revision);
            let mut operation = files.plan.rows.remove(&number);
            let has_row = operation.is_some();
            let folded = operation.as_ref().map_or(Revision::ZERO, |row| row.revision);
            for Record { path, offset, transition } in records {
                if has_row && transition.revision <= folded {
                    continue;
                }
                if operation.is_none() && transition.from.is_some() {
                    if matches!(transition.event, Event::Deleted { .. }) {
                        deleted.insert(number);
                        orphans.remove(&number);
                    } else if !deleted.contains(&number) {
                        orphans.insert(number);
                        let what = format!(
                            "what logged operation {number} is lost, and with it transition {} ({})",
                            transition.revision,
                            transition.event.past_participle()
                        );
                        self.report.losses.push(Loss {
                            path: path.clone(),
                            range: Some((*offset, *offset)),
                            what,
                        });
                    }
                    continue;
                }
                let before = operation.clone();
                operation = match operation::apply(operation, transition) {
                    Ok(None) => {
                        deleted.insert(number);
                        None
                    }
                    Ok(after) => after,
                    Err(error) => {
                        self.report.holed.insert(number);
                        let what = format!(
                            "transition {} does not follow from what is left: {error}",
                            transition.revision
                        );
                        self.report.losses.push(Loss {
                            path: path.clone(),
                            range: Some((*offset, *offset)),
                            what,
                        });
                        before
                    }
                };
            }
            files.plan.rows.extend(operation.map(|row| (number, row)));
        }
        orphans
    }

    /// Operations whose content in the spool is not what it was go on with the file that it was copied from.
    fn content(&mut self, files: &mut Files) -> WalResult<()> {
        let written = files.plan.rows.values().filter_map(Spooled::of);
        let live = &files.live;
        let stays =
            files.spooled.iter().filter(|content| live.contains_key(&content.number)).cloned();
        let needed: Vec<Spooled> = written.chain(stays).collect();
        let mut without = HashSet::new();
        for content in &needed {
            let own = self.layout.spooled_for(&content.name, content.id);
            let shared = self.layout.spooled(&content.name);
            if self.is_content(&own, content)? {
                continue;
            }
            let name = self.layout.relative(&own);
            if self.disk.exists(&own)? {
                files.plan.damaged.push(name.clone());
            } else if self.is_content(&shared, content)? {
                match self.disk.link(&shared, &own) {
                    Err(error) if !error.is_link_unsupported() => return Err(error.into()),
                    Err(_) => {}
                    Ok(()) => continue,
                }
            }
            if self.disk.exists(&shared)? && !self.is_content(&shared, content)? {
                files.plan.damaged.push(self.layout.relative(&shared));
            }
            let what = format!(
                "the copied content of operation {} is lost; it goes on with the file itself, if that is unchanged",
                content.number
            );
            self.lose(&name, None, &what);
            without.insert(content.number);
        }
        if self.disk.exists(&self.layout.spool())? {
            // Links of a repair that was killed as well.
            self.disk.sync_dir(&self.layout.spool())?;
            if !self.report.losses.is_empty() {
                let owners: HashSet<OperationId> =
                    needed.iter().map(|content| content.id).collect();
                for entry in self.disk.list(&self.layout.spool())? {
                    let name = entry.name.to_string_lossy();
                    if matches!(Layout::parse_spooled(&name), Some((_, Some(id))) if !owners.contains(&id))
                    {
                        files.plan.ownerless.push(format!("spool/{name}"));
                    }
                }
            }
        }
        files.plan.damaged.sort();
        files.plan.damaged.dedup();
        self.load(files, &without)?;
        for row in files.plan.rows.values_mut().filter(|row| without.contains(&row.number)) {
            forget_content(row);
        }
        Ok(())
    }

    fn is_content(&self, path: &std::path::Path, content: &Spooled) -> WalResult<bool> {
        let is_hash = content.name.len() == sha256_hex(b"").len();
        let look = || {
            let file = self.disk.open(path, Access::Read)?;
            Ok(file.metadata()?.len == content.size
                && (!is_hash || hash_of(&*file)? == content.name))
        };
        for _ in 0..READS {
            match look() {
                Ok(is_content) => return Ok(is_content),
                Err(error) if DiskError::is_medium_error(&error) => {}
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

fn forget_content(row: &mut Operation) {
    if let Some(source) = &mut row.source {
        source.spool = None;
    }
}
