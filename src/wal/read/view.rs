//! The log as a reader sees it: manifest, files and journal, without any lock.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::index::{JournalIndex, OperationSummary};
use super::tables::{self, GroupCache};

use crate::disk::{Access, Disk, DiskError, Metadata};
use crate::operation::{Number, Operation, OperationId, Revision, Status};
use crate::wal::change::Written;
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::journal::interfaces::JournalView;
use crate::wal::journal::reader::{self, FrameContent, Position, ReadFrame};
use crate::wal::journal::{self, FrameKind};
use crate::wal::layout::Layout;
use crate::wal::manifest::{Counts, FileEntry, Manifest};
use crate::wal::original::{self, Rows};
use crate::wal::schema::Table;

/// The number of times that a reader starts over when other processes remove files.
const ATTEMPTS_MAX: usize = 20;

/// The state of the log at one moment. [`View::catch_up`] brings it up to date.
#[derive(Debug)]
pub struct View {
    disk: Arc<dyn Disk>,
    layout: Layout,
    base: Option<Base>,
    journal: JournalIndex,
    cache: GroupCache,
    /// The operations of the original system while its files are part of the log, and their damage.
    originals: Option<(Rows, Option<Damage>)>,
    /// The generation from which on the journal is ignored.
    before: u64,
}

/// The manifest that was read.
#[derive(Debug)]
struct Base {
    manifest: Arc<Manifest>,
    /// The metadata of its file, by which a newer manifest is recognized.
    seen: Metadata,
}

/// The way in which [`View::catch_up`] brought a view up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// New frames of the journal were applied, if there were any.
    Advanced,
    /// The files had changed, so the whole log was read again.
    Reloaded,
}

/// The result of reading new frames of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewFrames {
    /// All of them were applied.
    Applied,
    /// A recovery ended a generation before the position up to which it was read.
    Diverged,
}

impl View {
    /// Reads the log. A log that does not exist is read as an empty one.
    pub fn open(disk: Arc<dyn Disk>, layout: Layout) -> WalResult<View> {
        View::open_before(disk, layout, u64::MAX)
    }

    /// Reads the log as if the journal ended before this generation.
    pub(in crate::wal) fn open_before(
        disk: Arc<dyn Disk>,
        layout: Layout,
        generation: u64,
    ) -> WalResult<View> {
        let (journal, cache) = (JournalIndex::default(), GroupCache::default());
        let mut view =
            View { disk, layout, base: None, journal, cache, originals: None, before: generation };
        view.reload()?;
        Ok(view)
    }

    /// Discards the state, and reads the whole log again.
    pub fn reload(&mut self) -> WalResult<()> {
        for attempt in 1.. {
            match self.load_once() {
                Ok(()) if self.journal.damage.is_none() => return Ok(()),
                // A write in progress may look like damage, so the log is read again.
                Ok(()) | Err(WalError::Damaged(_)) if attempt < 3 => {}
                Err(error) if error.is_vanished() && attempt < ATTEMPTS_MAX => {}
                other => return other,
            }
        }
        Ok(())
    }

    fn load_once(&mut self) -> WalResult<()> {
        self.cache.clear();
        self.journal = JournalIndex::default();
        (self.base, self.originals) = (None, None);
        let path = self.layout.manifest();
        let file = match self.disk.open(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return self.check_absent(),
            Err(error) => return Err(error.into()),
        };
        let seen = file.metadata()?;
        let manifest = Manifest::decode(&path, &file.read_to_end_from(0)?)?;
        if let Some(originals) = manifest.originals.as_ref().filter(|originals| !originals.adopted)
        {
            self.set_originals(original::read_listed(&*self.disk, &self.layout, &originals.files)?);
        }
        let journal =
            match reader::read_journal(&*self.disk, &self.layout, manifest.first_generation) {
                // The files are still readable.
                Err(WalError::Damaged(damage)) => {
                    self.journal.damage = Some(damage);
                    self.base = Some(Base { manifest: Arc::new(manifest), seen });
                    return Ok(());
                }
                other => other?,
            };
        self.base = Some(Base { manifest: Arc::new(manifest), seen });
        self.journal.damage = journal.damage;
        self.journal.position = Some(journal.position);
        for generation in journal
            .generations
            .into_iter()
            .filter(|generation| generation.header.generation < self.before)
        {
            self.journal.apply_frames(generation.frames)?;
        }
        self.journal.changed = Some(BTreeSet::new());
        // If the manifest was replaced meanwhile, the journal may belong to the new one.
        match self.is_current()? {
            true => Ok(()),
            false => Err(WalError::Disk(crate::disk::DiskError::new(
                "read",
                &self.layout.manifest(),
                std::io::ErrorKind::NotFound.into(),
            ))),
        }
    }

    /// Returns true if the manifest has not been replaced since it was read.
    fn is_current(&self) -> WalResult<bool> {
        match self.disk.metadata(&self.layout.manifest()) {
            Ok(seen) => Ok(self.base.as_ref().is_some_and(|base| base.seen == seen)),
            Err(error) if error.is_not_found() => Ok(self.base.is_none()),
            Err(error) => Err(error.into()),
        }
    }

    fn set_originals(&mut self, rows: Rows) {
        let damage = rows.unread.first().map(|unread| unread.at(&self.layout));
        self.originals = Some((rows, damage));
    }

    /// Checks a directory without a manifest. Files of the original system are read; frames or
    /// Parquet files of this program are damage.
    fn check_absent(&mut self) -> WalResult<()> {
        let manifest = self.layout.manifest();
        for (generation, header) in reader::headers(&*self.disk, &self.layout, 0)? {
            let path = self.layout.generation(generation);
            let file = self.disk.open(&path, Access::Read)?;
            let read = reader::read_frames(&*file, &path, &mut Position::start_of(&header), None)?;
            if !read.frames.is_empty() || read.damage.is_some() {
                self.check_still_absent()?;
                let what = format!(
                    "the manifest is missing beside `{}`, which holds transitions",
                    path.display()
                );
                return Err(WalError::damaged(manifest, None, what));
            }
        }
        let found = original::survey(&*self.disk, &self.layout)?;
        if found.ours.is_some() || !found.files.is_empty() {
            self.check_still_absent()?;
        }
        if let Some(path) = found.ours {
            let what = format!("the manifest is missing beside `{}`", path.display());
            return Err(WalError::damaged(manifest, None, what));
        }
        if !found.files.is_empty() {
            self.set_originals(found.rows());
        }
        Ok(())
    }

    /// Fails, so that the log is read again, if a manifest has been written meanwhile.
    fn check_still_absent(&self) -> WalResult<()> {
        let manifest = self.layout.manifest();
        match self.disk.exists(&manifest)? {
            true => {
                Err(DiskError::new("find", &manifest, std::io::ErrorKind::NotFound.into()).into())
            }
            false => Ok(()),
        }
    }

    /// Brings the view up to date.
    ///
    /// After [`CatchUp::Advanced`], [`View::take_changed`] returns the operations that changed.
    pub fn catch_up(&mut self) -> WalResult<CatchUp> {
        let seen = match self.disk.metadata(&self.layout.manifest()) {
            Ok(seen) => Some(seen),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let same = seen == self.base.as_ref().map(|base| base.seen);
        if !same || self.journal.damage.is_some() {
            self.reload()?;
            return Ok(CatchUp::Reloaded);
        }
        if self.base.is_none() {
            // The original system may be running, and its changes cannot be recognized.
            let before = self.originals.is_some();
            self.reload()?;
            let is_empty = !before && !self.has_originals() && !self.exists();
            return Ok(if is_empty { CatchUp::Advanced } else { CatchUp::Reloaded });
        }
        match self.read_new_frames() {
            // Otherwise a batch may have been committed meanwhile, and its operations changed.
            Ok(NewFrames::Applied) if self.is_current()? => return Ok(CatchUp::Advanced),
            Ok(_) => {}
            Err(error) if error.is_vanished() || matches!(error, WalError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        self.reload()?;
        Ok(CatchUp::Reloaded)
    }

    /// Reads the frames that follow the last one.
    fn read_new_frames(&mut self) -> WalResult<NewFrames> {
        let Some(mut position) = self.journal.position else { return Ok(NewFrames::Diverged) };
        let first = self.base.as_ref().map_or(0, |base| base.manifest.first_generation);
        loop {
            let path = self.layout.generation(position.generation);
            let file = self.disk.open(&path, Access::Read)?;
            let headers = reader::headers(&*self.disk, &self.layout, first)?;
            // A recovery may have replaced the generation that was read last.
            let is_replaced = headers.get(&position.generation).is_none_or(|header| {
                position.generation != first
                    && reader::successor(&headers, header.previous).map(|next| next.generation)
                        != Some(position.generation)
            });
            if is_replaced {
                return Ok(NewFrames::Diverged);
            }
            let next = reader::successor(&headers, position.generation);
            if next.is_some_and(|next| next.previous_end < position.end) {
                return Ok(NewFrames::Diverged);
            }
            let read = reader::read_frames(
                &*file,
                &path,
                &mut position,
                next.map(|next| next.previous_end),
            )?;
            self.journal.apply_frames(read.frames)?;
            self.journal.position = Some(position);
            if read.damage.is_some() {
                return Ok(NewFrames::Diverged);
            }
            match next {
                Some(next) if next.previous_end == position.end => {
                    if next.checksum != position.checksum || next.revision != position.revision {
                        return Ok(NewFrames::Diverged);
                    }
                    position = Position { generation: next.generation, ..Position::start_of(next) };
                    self.journal.position = Some(position);
                }
                Some(_) => return Ok(NewFrames::Diverged),
                None => return Ok(NewFrames::Applied),
            }
        }
    }

    /// Returns the operations that changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Number> {
        self.journal.changed.replace(BTreeSet::new()).unwrap_or_default()
    }

    /// Returns true if there is a log, or files of the original system.
    pub fn exists(&self) -> bool {
        self.base.is_some() || self.originals.is_some()
    }

    /// Returns true if files of the original system are not adopted, or not yet set aside.
    pub fn has_originals(&self) -> bool {
        self.originals.is_some()
            || self.manifest().is_some_and(|manifest| manifest.originals.is_some())
    }

    /// Returns the operations of the original system while its files are part of the log.
    pub(in crate::wal) fn original_rows(&self) -> Option<&Rows> {
        self.originals.as_ref().map(|(rows, _)| rows)
    }

    /// Returns the manifest; none if there is no log.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.base.as_ref().map(|base| &base.manifest)
    }

    /// Returns the damage of the journal or of the files of the original system, if any was found.
    pub fn damage(&self) -> Option<&Damage> {
        self.journal_damage().or(self.originals.as_ref().and_then(|(_, damage)| damage.as_ref()))
    }

    /// Returns the damage to the journal, if any was found.
    pub(in crate::wal) fn journal_damage(&self) -> Option<&Damage> {
        self.journal.damage.as_ref()
    }

    /// Returns the end of the journal; none if there is no log.
    pub fn position(&self) -> Option<Position> {
        self.journal.position
    }

    /// Returns the last revision in the files or the journal.
    pub(in crate::wal) fn last_revision(&self) -> Revision {
        self.journal
            .revision
            .or(self.base.as_ref().map(|base| base.manifest.revision))
            .unwrap_or(Revision::ZERO)
    }

    /// Returns the number of bytes of transitions in the journal, and the time of the oldest one.
    pub fn journal_load(&self) -> (u64, Option<crate::operation::Time>) {
        (self.journal.bytes, self.journal.oldest)
    }

    /// Returns the entries of the files that the manifest names.
    pub(in crate::wal) fn files(&self) -> &[FileEntry] {
        self.base.as_ref().map_or(&[], |base| &base.manifest.files)
    }

    /// Returns the number of operations of each status, backend and type.
    pub fn counts(&self) -> Counts {
        let mut counts = self.manifest().map(|manifest| manifest.counts()).unwrap_or_default();
        for row in self.original_rows().into_iter().flat_map(Rows::operations) {
            *counts
                .entry((row.status(), row.backend.clone(), row.operation_type.clone()))
                .or_default() += 1;
        }
        for kind in &self.journal.kinds {
            for (status, change) in Status::ALL.into_iter().zip(kind.change) {
                let key = (status, kind.backend.clone(), kind.operation_type.clone());
                let count = counts.entry(key).or_default();
                *count = count.saturating_add_signed(change);
            }
        }
        counts.retain(|_, n| *n > 0);
        counts
    }

    /// Returns the number of archived operations.
    pub fn archived(&self) -> u64 {
        let in_files: u64 =
            self.files().iter().filter(|file| file.is_archive()).map(FileEntry::live).sum();
        in_files + self.original_rows().map_or(0, Rows::archived)
    }

    /// Returns the number of partitions and of archives, including those of the original system.
    pub fn file_counts(&self) -> (u64, u64) {
        let originals = self.original_rows().map_or(&[][..], Rows::names).iter();
        let originals = originals.map(|name| Layout::is_in_archives(name));
        let archives = self.files().iter().map(FileEntry::is_archive).chain(originals);
        archives.fold((0, 0), |(partitions, all), is_archive| {
            (partitions + u64::from(!is_archive), all + u64::from(is_archive))
        })
    }

    /// Returns the places in adopted files of the original system that could not be read, while
    /// those files are kept.
    pub fn unread(&self) -> WalResult<Vec<Damage>> {
        let mut unread = Vec::new();
        for place in self.manifest().into_iter().flat_map(|manifest| &manifest.unread) {
            if self.disk.exists(&self.layout.file(&place.name))? {
                unread.push(place.at(&self.layout));
            }
        }
        Ok(unread)
    }

    /// Returns the operation with this number; none if it does not exist or was deleted.
    pub fn operation(&self, number: Number) -> WalResult<Option<Operation>> {
        match self.journal.touched.get(&number) {
            Some(touched) if touched.status.is_none() => Ok(None),
            Some(touched) if touched.logged => self.journal.fold(&self.layout, None, touched),
            Some(touched) => match self.row(number)? {
                Some(row) => self.journal.fold(&self.layout, Some(row), touched),
                None => {
                    let what =
                        format!("the journal changes operation {number}, which no file holds");
                    Err(WalError::damaged(self.layout.manifest(), None, what))
                }
            },
            None => self.row(number),
        }
    }

    /// Returns true if there is an operation with this id, or its deletion is still in the journal.
    pub(in crate::wal) fn knows(&self, id: OperationId) -> WalResult<bool> {
        Ok(self.journal.ids().contains_key(&id) || self.row_by_id(id)?.is_some())
    }

    /// Returns the operation with this id; none if it does not exist or was deleted.
    pub fn operation_by_id(&self, id: OperationId) -> WalResult<Option<Operation>> {
        match self.journal.ids().get(&id) {
            Some(number) => self.operation(*number),
            None => self.row_by_id(id),
        }
    }

    /// Returns the revision and the status of an operation, decoding its row at most.
    pub fn revision_and_status(
        &self,
        number: Number,
        id: OperationId,
    ) -> WalResult<Option<(Revision, Status)>> {
        if let Some(touched) = self.journal.touched.get(&number) {
            return Ok(touched
                .status
                .filter(|_| touched.id == id)
                .map(|status| (touched.revision, status)));
        }
        if let Some((rows, at)) = self.cache.row(number) {
            return Ok((rows[at].id == id).then(|| (rows[at].revision, rows[at].status())));
        }
        Ok(self.row(number)?.map(|row| (row.revision, row.status())))
    }

    /// Applies the transitions of the journal to a row. Returns none if there are none, or the
    /// operation was deleted.
    pub(in crate::wal) fn fold_number(
        &self,
        base: Option<Operation>,
        number: Number,
    ) -> WalResult<Option<Operation>> {
        self.journal
            .touched
            .get(&number)
            .map_or(Ok(None), |touched| self.journal.fold(&self.layout, base, touched))
    }

    /// Returns true if the journal contains the first transition of an operation, so that no file
    /// holds it.
    pub(in crate::wal) fn is_logged_here(&self, number: Number) -> bool {
        self.journal.touched.get(&number).is_some_and(|touched| touched.logged)
    }

    fn row(&self, number: Number) -> WalResult<Option<Operation>> {
        if let Some(row) = self.original_rows().and_then(|rows| rows.operation(number)) {
            return Ok(Some(row.clone()));
        }
        if let Some((rows, at)) = self.cache.row(number) {
            return Ok(Some(rows[at].clone()));
        }
        for file in self.files().iter().rev().filter(|file| file.may_hold_number(number)) {
            let table = self.table(file)?;
            for group in table
                .groups()
                .iter()
                .filter(|group| group.numbers.0 <= number && number <= group.numbers.1)
            {
                self.group(file, &table, group.index)?;
                if let Some((rows, at)) = self.cache.row(number) {
                    return Ok(Some(rows[at].clone()));
                }
            }
        }
        Ok(None)
    }

    fn row_by_id(&self, id: OperationId) -> WalResult<Option<Operation>> {
        let mut found = self.original_rows().and_then(|rows| rows.operation_by_id(id)).cloned();
        for file in self.files().iter().filter(|file| file.ids.0 <= id && id <= file.ids.1) {
            let table = self.table(file)?;
            for group in table.groups().iter().filter(|group| table.may_hold(group, id)) {
                let rows = self.group(file, &table, group.index)?;
                if let Ok(at) = rows.binary_search_by_key(&id, |row| row.id)
                    && !file.superseded.contains(rows[at].number)
                    && found.as_ref().is_none_or(|found| found.revision < rows[at].revision)
                {
                    found = Some(rows[at].clone());
                }
            }
        }
        Ok(found)
    }

    /// Returns the live rows of a file that the journal has not changed.
    pub fn untouched_rows(&self, file: &FileEntry) -> WalResult<Vec<Operation>> {
        let mut rows = self.table(file)?.read_all()?;
        rows.retain(|row| {
            !file.superseded.contains(row.number) && !self.journal.touched.contains_key(&row.number)
        });
        Ok(rows)
    }

    /// Returns summaries of the operations that the journal changed.
    pub fn touched(&self) -> impl Iterator<Item = OperationSummary> {
        self.journal
            .touched
            .iter()
            .filter_map(|(number, touched)| self.journal.summary_of(*number, touched))
    }

    /// Returns the numbers of all operations with transitions in the journal.
    pub(in crate::wal) fn touched_numbers(&self) -> impl Iterator<Item = Number> {
        self.journal.touched.keys().copied()
    }

    /// Returns the numbers of all operations that the journal deleted.
    pub(in crate::wal) fn deleted_numbers(&self) -> Vec<Number> {
        let deleted = self.journal.touched.iter().filter(|(_, touched)| touched.status.is_none());
        deleted.map(|(number, _)| *number).collect()
    }

    /// Returns true if the journal has a transition of this operation.
    pub(in crate::wal) fn is_touched(&self, number: Number) -> bool {
        self.journal.touched.contains_key(&number)
    }

    /// Returns the summary of an operation, if the journal has a transition of it.
    pub fn summary(&self, number: Number) -> Option<OperationSummary> {
        self.journal
            .touched
            .get(&number)
            .and_then(|touched| self.journal.summary_of(number, touched))
    }

    /// Opens a file that the manifest names. Fails if its content differs from that in the
    /// manifest.
    pub(in crate::wal) fn table(&self, file: &FileEntry) -> WalResult<Table> {
        tables::open(&*self.disk, &self.layout, file, || self.is_current())
    }

    /// Returns the rows of one row group. Those of the last groups are cached.
    pub(in crate::wal) fn group(
        &self,
        file: &FileEntry,
        table: &Table,
        group: usize,
    ) -> WalResult<Arc<Vec<Operation>>> {
        self.cache.group(file, table, group)
    }

    /// Returns the operation that the journal logged with this idempotency key.
    pub(in crate::wal) fn logged_with_key(&self, key: &str) -> Option<Number> {
        self.journal.logged_with_key(key)
    }

    /// Returns all idempotency keys that the journal logged.
    pub(in crate::wal) fn logged_keys(&self) -> Vec<(String, Number)> {
        self.journal.logged_keys()
    }
}

impl JournalView for View {
    fn catch_up(&mut self) -> WalResult<()> {
        View::catch_up(self).map(drop)
    }

    fn reload(&mut self) -> WalResult<()> {
        View::reload(self)
    }

    fn is_at(&self, generation: u64, end: u64, checksum: u32) -> WalResult<bool> {
        let here = self.journal.position.is_some_and(|position| {
            (position.generation, position.end, position.checksum) == (generation, end, checksum)
        });
        Ok(here
            && self.journal.damage.is_none()
            && self.disk.metadata(&self.layout.manifest()).ok()
                == self.base.as_ref().map(|base| base.seen))
    }

    fn advance(&mut self, kind: FrameKind, payload: &[u8], after: Position) -> WalResult<()> {
        let Some(position) = self.journal.position else { return Ok(()) };
        if position.generation == after.generation
            && position.end == after.last
            && let Some(content) = FrameContent::new(kind, position.revision.next(), payload)
        {
            self.journal.apply_frames(vec![ReadFrame { content, synced: 0, after }])?;
            self.journal.position = Some(after);
        }
        Ok(())
    }

    fn position(&self) -> Option<Position> {
        View::position(self)
    }

    fn journal_damage(&self) -> Option<&Damage> {
        View::journal_damage(self)
    }

    fn revision_and_status(
        &self,
        number: Number,
        id: OperationId,
    ) -> WalResult<Option<(Revision, Status)>> {
        View::revision_and_status(self, number, id)
    }

    fn has_transition(&self, written: &Written, actor: &str) -> WalResult<bool> {
        // A recovery that drops transitions lets others use their revisions, so the revision alone
        // proves nothing.
        let found = self.operation(written.number)?.filter(|operation| operation.id == written.id);
        Ok(match found {
            // It was deleted: by this transition or, with the same effect, by another one.
            None => written.deleted,
            Some(found) => found.history.iter().any(|entry| {
                entry.revision == written.revision && entry.actor == journal::actor_as_logged(actor)
            }),
        })
    }
}
