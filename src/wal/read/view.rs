//! The log as a reader sees it: manifest, files and journal, without any lock.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::disk::{Access, Disk, DiskError, Metadata};
use crate::operation::{
    self, BackendName, Number, Operation, OperationId, OperationType, Revision, Status,
};
use crate::wal::change::Written;
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::journal::reader::{self, Content, Position, ReadFrame};
use crate::wal::journal::{self, FrameKind, Payload, Record};
use crate::wal::layout::Layout;
use crate::wal::manifest::{Counts, FileEntry, Manifest};
use crate::wal::original::{self, Rows};
use crate::wal::schema::Table;

/// How often a reader starts over when files vanish under it.
const ATTEMPTS: usize = 20;

/// Decoded row groups that are kept.
const CACHED_GROUPS: usize = 4;

/// The log at one moment; [`View::catch_up`] moves it on.
#[derive(Debug)]
pub struct View {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) layout: Layout,
    base: Option<Base>,
    pub(super) journal: Tail,
    cache: Mutex<Vec<CachedGroup>>,
    /// The operations of the original system, as long as its files are part of the log, and whether any of that is damaged.
    originals: Option<(Rows, Option<Damage>)>,
    /// Generations from this one on are left out.
    before: u64,
}

#[derive(Debug)]
struct Base {
    manifest: Arc<Manifest>,
    seen: Metadata,
}

#[derive(Debug)]
struct CachedGroup {
    file: String,
    group: usize,
    rows: Arc<Vec<Operation>>,
    /// Where the rows are that nothing superseded.
    live: HashMap<Number, usize>,
}

/// What the journal says.
#[derive(Debug, Default)]
pub(super) struct Tail {
    position: Option<Position>,
    /// Last revision of what was taken in; none: nothing was.
    revision: Option<Revision>,
    pub(super) payloads: Vec<Payload>,
    touched: BTreeMap<Number, Touched>,
    /// The numbers of the touched operations by id; made when first asked for.
    ids: OnceLock<HashMap<OperationId, Number>>,
    /// The numbers of the operations logged here with an idempotency key, as far as the payloads were looked through.
    pub(super) keys: Mutex<(usize, HashMap<String, Number>)>,
    kinds: Vec<Kind>,
    damage: Option<Damage>,
    bytes: u64,
    oldest: Option<crate::operation::Time>,
    /// What changed since somebody asked; not kept while everything is read.
    changed: Option<BTreeSet<Number>>,
}

/// Operations of one type and backend, counted.
#[derive(Debug)]
struct Kind {
    operation_type: OperationType,
    backend: BackendName,
    change: [i64; 5],
}

/// An operation with transitions in the journal.
#[derive(Debug)]
struct Touched {
    id: OperationId,
    kind: usize,
    /// None: it was deleted.
    status: Option<Status>,
    revision: Revision,
    logged: bool,
    first: RecordAt,
    more: Vec<RecordAt>,
}

impl Touched {
    fn records(&self) -> impl Iterator<Item = &RecordAt> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

#[derive(Debug, Clone, Copy)]
struct RecordAt {
    payload: u32,
    offset: u32,
    index: u32,
}

/// An operation as far as the journal's fixed part tells.
#[derive(Debug, Clone)]
pub struct Glimpse {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// Its status.
    pub status: Status,
    /// Revision of its last transition.
    pub revision: Revision,
    /// Its backend.
    pub backend: BackendName,
}

impl View {
    /// Reads the log; one that does not exist is an empty one.
    pub fn open(disk: Arc<dyn Disk>, layout: Layout) -> WalResult<View> {
        View::open_before(disk, layout, u64::MAX)
    }

    /// Reads the log as if the journal ended before this generation.
    pub(in crate::wal) fn open_before(
        disk: Arc<dyn Disk>,
        layout: Layout,
        generation: u64,
    ) -> WalResult<View> {
        let (journal, cache) = (Tail::default(), Mutex::default());
        let mut view =
            View { disk, layout, base: None, journal, cache, originals: None, before: generation };
        view.reload()?;
        Ok(view)
    }

    /// Reads everything again.
    pub fn reload(&mut self) -> WalResult<()> {
        for attempt in 1.. {
            match self.load_once() {
                Ok(()) if self.journal.damage.is_none() => return Ok(()),
                // What looks like damage may be a writer in the middle of its work: a second look tells.
                Ok(()) | Err(WalError::Damaged(_)) if attempt < 3 => {}
                Err(error) if error.is_vanished() && attempt < ATTEMPTS => {}
                other => return other,
            }
        }
        Ok(())
    }

    fn load_once(&mut self) -> WalResult<()> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.journal = Tail::default();
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
            self.take_originals(original::read_listed(
                &*self.disk,
                &self.layout,
                &originals.files,
            )?);
        }
        let chain = match reader::read_chain(&*self.disk, &self.layout, manifest.first_generation) {
            // Readers show what they can: here, the files.
            Err(WalError::Damaged(damage)) => {
                self.journal.damage = Some(damage);
                self.base = Some(Base { manifest: Arc::new(manifest), seen });
                return Ok(());
            }
            other => other?,
        };
        self.base = Some(Base { manifest: Arc::new(manifest), seen });
        self.journal.damage = chain.damage;
        self.journal.position = Some(chain.position);
        for link in chain.links.into_iter().filter(|link| link.header.generation < self.before) {
            self.journal.take(link.frames)?;
        }
        self.journal.changed = Some(BTreeSet::new());
        // The journal may have moved on with a manifest that came after the one we read: start over with that.
        match self.is_current()? {
            true => Ok(()),
            false => Err(WalError::Disk(crate::disk::DiskError::new(
                "read",
                &self.layout.manifest(),
                std::io::ErrorKind::NotFound.into(),
            ))),
        }
    }

    /// Whether the manifest still is the one that was read.
    pub(super) fn is_current(&self) -> WalResult<bool> {
        match self.disk.metadata(&self.layout.manifest()) {
            Ok(seen) => Ok(self.base.as_ref().is_some_and(|base| base.seen == seen)),
            Err(error) if error.is_not_found() => Ok(self.base.is_none()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_originals(&mut self, rows: Rows) {
        let damage = rows.unread.first().map(|unread| unread.at(&self.layout));
        self.originals = Some((rows, damage));
    }

    /// A log without a manifest: nothing there is fine, and so is what the original system wrote; frames or our
    /// Parquet files are not.
    fn check_absent(&mut self) -> WalResult<()> {
        let manifest = self.layout.manifest();
        for (generation, header) in reader::headers(&*self.disk, &self.layout, 0)? {
            let path = self.layout.generation(generation);
            let file = self.disk.open(&path, Access::Read)?;
            let stretch =
                reader::read_frames(&*file, &path, &mut Position::start_of(&header), None)?;
            if !stretch.frames.is_empty() || stretch.damage.is_some() {
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
            self.take_originals(found.rows());
        }
        Ok(())
    }

    /// A manifest may have been written since we looked: then we have to look again.
    fn check_still_absent(&self) -> WalResult<()> {
        let manifest = self.layout.manifest();
        match self.disk.exists(&manifest)? {
            true => {
                Err(DiskError::new("find", &manifest, std::io::ErrorKind::NotFound.into()).into())
            }
            false => Ok(()),
        }
    }

    /// Whether the log still is what we read, with its journal ending here.
    pub(in crate::wal) fn stands_at(
        &self,
        generation: u64,
        end: u64,
        checksum: u32,
    ) -> WalResult<bool> {
        let here = self.journal.position.is_some_and(|position| {
            (position.generation, position.end, position.checksum) == (generation, end, checksum)
        });
        Ok(here
            && self.journal.damage.is_none()
            && self.disk.metadata(&self.layout.manifest()).ok()
                == self.base.as_ref().map(|base| base.seen))
    }

    /// Takes in a frame that was just written where we stand; it need not be read back.
    pub(in crate::wal) fn advance(
        &mut self,
        kind: FrameKind,
        payload: &[u8],
        after: Position,
    ) -> WalResult<()> {
        let Some(position) = self.journal.position else { return Ok(()) };
        if position.generation == after.generation
            && position.end == after.last
            && let Some(content) = Content::new(kind, position.revision.next(), payload)
        {
            self.journal.take(vec![ReadFrame { content, synced: 0, after }])?;
            self.journal.position = Some(after);
        }
        Ok(())
    }

    /// Reads what came since; true if the files changed, so that everything was read again.
    ///
    /// [`View::take_changed`] then tells which operations changed, unless everything was read again.
    pub fn catch_up(&mut self) -> WalResult<bool> {
        let seen = match self.disk.metadata(&self.layout.manifest()) {
            Ok(seen) => Some(seen),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let same = seen == self.base.as_ref().map(|base| base.seen);
        if !same || self.journal.damage.is_some() {
            self.reload()?;
            return Ok(true);
        }
        if self.base.is_none() {
            // The original system may be at work, and it leaves no trace of what it changed.
            let before = self.originals.is_some();
            self.reload()?;
            return Ok(before || self.has_originals() || self.exists());
        }
        match self.read_on() {
            // A batch may have been committed, and changed since, while we read on.
            Ok(true) if self.is_current()? => return Ok(false),
            Ok(_) => {}
            Err(error) if error.is_vanished() || matches!(error, WalError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        self.reload()?;
        Ok(true)
    }

    /// Reads on from where we stand; false: the journal took another turn, start over.
    fn read_on(&mut self) -> WalResult<bool> {
        let Some(mut position) = self.journal.position else { return Ok(false) };
        let first = self.base.as_ref().map_or(0, |base| base.manifest.first_generation);
        loop {
            let path = self.layout.generation(position.generation);
            let file = self.disk.open(&path, Access::Read)?;
            let headers = reader::headers(&*self.disk, &self.layout, first)?;
            // A recovery may have passed over the generation that we stand in.
            let passed_over = headers.get(&position.generation).is_none_or(|header| {
                position.generation != first
                    && reader::successor(&headers, header.previous).map(|next| next.generation)
                        != Some(position.generation)
            });
            if passed_over {
                return Ok(false);
            }
            let next = reader::successor(&headers, position.generation);
            if next.is_some_and(|next| next.previous_end < position.end) {
                return Ok(false);
            }
            let stretch = reader::read_frames(
                &*file,
                &path,
                &mut position,
                next.map(|next| next.previous_end),
            )?;
            self.journal.take(stretch.frames)?;
            self.journal.position = Some(position);
            if stretch.damage.is_some() {
                return Ok(false);
            }
            match next {
                Some(next) if next.previous_end == position.end => {
                    if next.checksum != position.checksum || next.revision != position.revision {
                        return Ok(false);
                    }
                    position = Position { generation: next.generation, ..Position::start_of(next) };
                    self.journal.position = Some(position);
                }
                Some(_) => return Ok(false),
                None => return Ok(true),
            }
        }
    }

    /// The operations that changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<Number> {
        self.journal.changed.replace(BTreeSet::new()).unwrap_or_default()
    }

    /// Whether there is a log at all.
    pub fn exists(&self) -> bool {
        self.base.is_some() || self.originals.is_some()
    }

    /// Whether files of the original system stand there that are not adopted, or not yet set aside.
    pub fn has_originals(&self) -> bool {
        self.originals.is_some()
            || self.manifest().is_some_and(|manifest| manifest.originals.is_some())
    }

    /// The operations of the original system, as long as its files are part of the log.
    pub(in crate::wal) fn original_rows(&self) -> Option<&Rows> {
        self.originals.as_ref().map(|(rows, _)| rows)
    }

    /// The log's manifest, if there is a log.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.base.as_ref().map(|base| &base.manifest)
    }

    /// What of the journal, or of what the original system left there, cannot be read.
    pub fn damage(&self) -> Option<&Damage> {
        self.journal_damage().or(self.originals.as_ref().and_then(|(_, damage)| damage.as_ref()))
    }

    /// What of the journal cannot be read.
    pub(in crate::wal) fn journal_damage(&self) -> Option<&Damage> {
        self.journal.damage.as_ref()
    }

    /// Where the journal ends.
    pub fn position(&self) -> Option<Position> {
        self.journal.position
    }

    /// The last revision that was read, in files or journal.
    pub(in crate::wal) fn last_revision(&self) -> Revision {
        self.journal
            .revision
            .or(self.base.as_ref().map(|base| base.manifest.revision))
            .unwrap_or(Revision::ZERO)
    }

    /// Bytes of transitions in the journal, and when the oldest of them happened.
    pub fn journal_load(&self) -> (u64, Option<crate::operation::Time>) {
        (self.journal.bytes, self.journal.oldest)
    }

    pub(in crate::wal) fn files(&self) -> &[FileEntry] {
        self.base.as_ref().map_or(&[], |base| &base.manifest.files)
    }

    /// How many operations of each status, backend and type there are.
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

    /// How many of the completed operations are archived.
    pub fn archived(&self) -> u64 {
        let in_files: u64 =
            self.files().iter().filter(|file| file.is_archive()).map(FileEntry::live).sum();
        in_files + self.original_rows().map_or(0, Rows::archived)
    }

    /// How many partitions and archives there are, those of the original system included.
    pub fn file_counts(&self) -> (u64, u64) {
        let originals = self.original_rows().map_or(&[][..], Rows::names).iter();
        let originals = originals.map(|name| Layout::is_in_archives(name));
        let archives = self.files().iter().map(FileEntry::is_archive).chain(originals);
        archives.fold((0, 0), |(partitions, all), is_archive| {
            (partitions + u64::from(!is_archive), all + u64::from(is_archive))
        })
    }

    /// What the adoption of the original system's files did not understand, as long as those files are kept.
    pub fn unread(&self) -> WalResult<Vec<Damage>> {
        let mut unread = Vec::new();
        for place in self.manifest().into_iter().flat_map(|manifest| &manifest.unread) {
            if self.disk.exists(&self.layout.file(&place.name))? {
                unread.push(place.at(&self.layout));
            }
        }
        Ok(unread)
    }

    /// The operation with this number.
    pub fn operation(&self, number: Number) -> WalResult<Option<Operation>> {
        match self.journal.touched.get(&number) {
            Some(touched) if touched.status.is_none() => Ok(None),
            Some(touched) if touched.logged => self.fold(None, touched),
            Some(touched) => match self.row(number)? {
                Some(row) => self.fold(Some(row), touched),
                None => {
                    let what =
                        format!("the journal changes operation {number}, which no file holds");
                    Err(WalError::damaged(self.layout.manifest(), None, what))
                }
            },
            None => self.row(number),
        }
    }

    fn touched_by_id(&self) -> &HashMap<OperationId, Number> {
        let touched = &self.journal.touched;
        self.journal
            .ids
            .get_or_init(|| touched.iter().map(|(number, touched)| (touched.id, *number)).collect())
    }

    /// Whether anything is known of this id, be it that the operation was deleted, as long as the journal tells.
    pub(in crate::wal) fn knows(&self, id: OperationId) -> WalResult<bool> {
        Ok(self.touched_by_id().contains_key(&id) || self.row_by_id(id)?.is_some())
    }

    /// The operation with this id.
    pub fn operation_by_id(&self, id: OperationId) -> WalResult<Option<Operation>> {
        match self.touched_by_id().get(&id) {
            Some(number) => self.operation(*number),
            None => self.row_by_id(id),
        }
    }

    /// Revision of the last transition of an operation, if the journal has one.
    pub fn journal_revision(&self, number: Number) -> Option<Revision> {
        self.journal.touched.get(&number).map(|touched| touched.revision)
    }

    /// Revision and status of an operation, without decoding more than its row.
    pub fn standing(
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
        if let Some((rows, at)) = self.cached_row(number) {
            return Ok((rows[at].id == id).then(|| (rows[at].revision, rows[at].status())));
        }
        Ok(self.row(number)?.map(|row| (row.revision, row.status())))
    }

    /// Whether what this actor wrote stands, in the journal or in a file.
    pub(in crate::wal) fn has_transition(&self, written: &Written, actor: &str) -> WalResult<bool> {
        // Revisions are given anew after a recovery that dropped their transitions, so a revision alone proves nothing.
        let found = self.operation(written.number)?.filter(|operation| operation.id == written.id);
        Ok(match found {
            // Whoever deleted it, it is gone.
            None => written.deleted,
            Some(found) => found.history.iter().any(|entry| {
                entry.revision == written.revision && entry.actor == journal::actor_as_logged(actor)
            }),
        })
    }

    /// What the journal makes of an operation; none if it has no transition of it, or deleted it.
    pub(in crate::wal) fn fold_number(
        &self,
        base: Option<Operation>,
        number: Number,
    ) -> WalResult<Option<Operation>> {
        self.journal.touched.get(&number).map_or(Ok(None), |touched| self.fold(base, touched))
    }

    /// Whether the journal logged this operation, so that no file holds it.
    pub(in crate::wal) fn is_logged_here(&self, number: Number) -> bool {
        self.journal.touched.get(&number).is_some_and(|touched| touched.logged)
    }

    fn fold(&self, base: Option<Operation>, touched: &Touched) -> WalResult<Option<Operation>> {
        let mut operation = base;
        for at in touched.records() {
            let payload = &self.journal.payloads[at.payload as usize];
            let revision = payload.revision.saturating_add(u64::from(at.index));
            let transition = payload
                .record_at(at.offset as usize)
                .and_then(|(record, _)| record.decode(revision, payload.actor()))
                .ok_or_else(|| self.senseless(revision, "it cannot be decoded"))?;
            operation = operation::apply(operation, &transition)
                .map_err(|error| self.senseless(revision, &error.to_string()))?;
        }
        Ok(operation)
    }

    fn senseless(&self, revision: Revision, why: &str) -> WalError {
        WalError::damaged(
            self.layout.journal(),
            None,
            format!("transition {revision} makes no sense: {why}"),
        )
    }

    fn row(&self, number: Number) -> WalResult<Option<Operation>> {
        if let Some(row) = self.original_rows().and_then(|rows| rows.operation(number)) {
            return Ok(Some(row.clone()));
        }
        if let Some((rows, at)) = self.cached_row(number) {
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
                if let Some((rows, at)) = self.cached_row(number) {
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

    /// The live row of a number, if its group was decoded lately.
    fn cached_row(&self, number: Number) -> Option<(Arc<Vec<Operation>>, usize)> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.iter().find_map(|entry| Some((entry.rows.clone(), *entry.live.get(&number)?)))
    }

    pub(in crate::wal) fn group(
        &self,
        file: &FileEntry,
        table: &Table,
        group: usize,
    ) -> WalResult<Arc<Vec<Operation>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) =
            cache.iter().find(|entry| entry.group == group && entry.file == file.name)
        {
            return Ok(entry.rows.clone());
        }
        let rows = Arc::new(table.read([group])?);
        if cache.len() >= CACHED_GROUPS {
            cache.remove(0);
        }
        let live = rows.iter().enumerate().filter(|(_, row)| !file.superseded.contains(row.number));
        let live = live.map(|(at, row)| (row.number, at)).collect();
        cache.push(CachedGroup { file: file.name.clone(), group, rows: rows.clone(), live });
        Ok(rows)
    }

    /// The live rows of a file that the journal has not changed.
    pub fn untouched_rows(&self, file: &FileEntry) -> WalResult<Vec<Operation>> {
        let mut rows = self.table(file)?.read_all()?;
        rows.retain(|row| {
            !file.superseded.contains(row.number) && !self.journal.touched.contains_key(&row.number)
        });
        Ok(rows)
    }

    /// The operations that the journal changed, as far as its fixed parts tell.
    pub fn touched(&self) -> impl Iterator<Item = Glimpse> {
        self.journal
            .touched
            .iter()
            .filter_map(|(number, touched)| self.glimpse_of(*number, touched))
    }

    /// The numbers of all operations that the journal changed or deleted.
    pub(in crate::wal) fn touched_numbers(&self) -> impl Iterator<Item = Number> {
        self.journal.touched.keys().copied()
    }

    /// The numbers of all operations that the journal deleted.
    pub(in crate::wal) fn deleted_numbers(&self) -> Vec<Number> {
        let deleted = self.journal.touched.iter().filter(|(_, touched)| touched.status.is_none());
        deleted.map(|(number, _)| *number).collect()
    }

    /// Whether the journal changed this operation.
    pub(in crate::wal) fn is_touched(&self, number: Number) -> bool {
        self.journal.touched.contains_key(&number)
    }

    /// An operation as far as the journal's fixed part tells, if it has a transition there.
    pub fn glimpse(&self, number: Number) -> Option<Glimpse> {
        self.journal.touched.get(&number).and_then(|touched| self.glimpse_of(number, touched))
    }

    fn glimpse_of(&self, number: Number, touched: &Touched) -> Option<Glimpse> {
        let kind = &self.journal.kinds[touched.kind];
        let status = touched.status?;
        Some(Glimpse {
            number,
            id: touched.id,
            status,
            revision: touched.revision,
            backend: kind.backend.clone(),
        })
    }
}

impl Tail {
    fn take(&mut self, frames: Vec<ReadFrame>) -> WalResult<()> {
        for frame in frames {
            self.revision = Some(frame.after.revision);
            // What is reserved shows in the position, and nowhere else until its batch is committed.
            let Content::Transitions(payload) = frame.content else { continue };
            self.bytes += payload.bytes().len() as u64;
            let payload_index = self.payloads.len() as u32;
            for (index, (offset, record)) in payload.records().enumerate() {
                if self.oldest.is_none() {
                    self.oldest = Some(record.at);
                }
                let kind = kind_of(&mut self.kinds, &record)?;
                if let Some(from) = record.from {
                    self.kinds[kind].change[from as usize] -= 1;
                }
                if let Some(to) = record.to {
                    self.kinds[kind].change[to as usize] += 1;
                }
                let at =
                    RecordAt { payload: payload_index, offset: offset as u32, index: index as u32 };
                let revision = payload.revision.saturating_add(index as u64);
                match self.touched.entry(record.number) {
                    MapEntry::Vacant(vacant) => {
                        vacant.insert(Touched {
                            id: record.id,
                            kind,
                            status: record.to,
                            revision,
                            logged: record.from.is_none(),
                            first: at,
                            more: Vec::new(),
                        });
                    }
                    MapEntry::Occupied(mut occupied) => {
                        let touched = occupied.get_mut();
                        (touched.status, touched.revision) = (record.to, revision);
                        touched.more.push(at);
                    }
                }
                if let Some(changed) = &mut self.changed {
                    changed.insert(record.number);
                }
            }
            self.ids = OnceLock::new();
            self.payloads.push(payload);
        }
        Ok(())
    }
}

fn kind_of(kinds: &mut Vec<Kind>, record: &Record<'_>) -> WalResult<usize> {
    let known = kinds.iter().position(|kind| {
        kind.operation_type.as_str() == record.operation_type
            && kind.backend.as_str() == record.backend
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let bad = |error: crate::operation::InvalidName| {
        WalError::damaged("journal", None, error.to_string())
    };
    kinds.push(Kind {
        operation_type: OperationType::new(record.operation_type).map_err(bad)?,
        backend: BackendName::new(record.backend).map_err(bad)?,
        change: [0; 5],
    });
    Ok(kinds.len() - 1)
}
