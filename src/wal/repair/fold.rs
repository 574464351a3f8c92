//! Applies the readable transitions of the journal to the readable rows of the files.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::hold::rows_prove_nothing;
use super::journal::{Journal, Record};
use super::rows::Files;
use super::{ByteRange, Loss, MANIFEST, Plan, READS, Repair};
use crate::disk::{Access, DiskError};
use crate::operation::{self, Event, Number, Operation, OperationId, Revision};
use crate::wal::error::WalResult;
use crate::wal::journal::note::AppendNote;
use crate::wal::layout::Layout;
use crate::wal::manifest::{Manifest, NumberSet, sha256_hex};
use crate::wal::schema::Spooled;
use crate::wal::spool::hash_of;

impl Repair<'_> {
    /// Returns the contents of the repaired log.
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
        let is_present =
            |number: &Number| live.contains_key(number) || plan.rows.contains_key(number);
        for (numbers, rows) in lost {
            let gone: Vec<Number> =
                numbers.iter().filter(|n| !is_present(n) && !deleted.contains(n)).collect();
            if gone.len() as u64 > rows {
                let what = format!(
                    "lost files held {rows} of the {} unaccounted operations from {} to {}; \
                     the others may have been deleted earlier",
                    gone.len(),
                    gone.first().unwrap_or(&Number::ZERO),
                    gone.last().unwrap_or(&Number::ZERO)
                );
                self.lose(MANIFEST, None, &what);
            }
            orphans.extend(gone);
        }
        // Without a manifest, deleted operations cannot be distinguished from those in lost files.
        if !journal.losses.is_empty() || manifest.is_none() {
            // The same holds for a batch that reserved numbers and may not have been committed.
            let was_reserved =
                |number: &Number| journal.reserved.iter().any(|(a, b)| a <= number && number <= b);
            let reserved = |number: &Number| manifest.is_some() && was_reserved(number);
            let noted = noted.map_or(Number::ZERO, |note| note.number);
            let end = journal.numbers.1.max(noted);
            let gone = manifest.map_or(Number::FIRST, |_| journal.numbers.0).until(end);
            orphans.extend(gone.filter(|n| !is_present(n) && !deleted.contains(n) && !reserved(n)));
        }
        orphans.retain(|number| !is_present(number));
        self.report.lost = orphans.into_iter().collect::<NumberSet>();
        // Numbers and revisions are never assigned twice, since a caller may have seen them.
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

    /// Applies the transitions that are legal. Returns the operations without the record that
    /// logged them.
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
            // A recovery repeats records under their old revisions.
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
                            "the record that logged operation {number} is lost, so its transition \
                             {} ({}) cannot be applied",
                            transition.revision,
                            transition.event.past_participle()
                        );
                        self.report.losses.push(Loss {
                            path: path.clone(),
                            range: Some(ByteRange { start: *offset, end: *offset }),
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
                            "transition {} cannot be applied to the remaining records: {error}",
                            transition.revision
                        );
                        self.report.losses.push(Loss {
                            path: path.clone(),
                            range: Some(ByteRange { start: *offset, end: *offset }),
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

    /// Makes operations whose spooled content is damaged or missing read their source file instead.
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
                "the spooled content of operation {} is lost; it will read its source file, \
                 if that is unchanged",
                content.number
            );
            self.lose(&name, None, &what);
            without.insert(content.number);
        }
        if self.disk.exists(&self.layout.spool())? {
            // This includes links of an earlier repair that was killed.
            self.disk.sync_dir(&self.layout.spool())?;
            if !self.report.losses.is_empty() {
                let owners: HashSet<OperationId> =
                    needed.iter().map(|content| content.id).collect();
                for entry in self.disk.list(&self.layout.spool())? {
                    let name = entry.name.to_string_lossy();
                    if let Some((_, Some(id))) = Layout::parse_spooled(&name)
                        && !owners.contains(&id)
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
        let check = || {
            let file = self.disk.open(path, Access::Read)?;
            Ok(file.metadata()?.len == content.size
                && (!is_hash || hash_of(&*file)? == content.name))
        };
        for _ in 0..READS {
            match check() {
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
