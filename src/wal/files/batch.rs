//! Batches: any number of new operations, logged all or none, in bounded memory.
//!
//! What fits one frame becomes one frame. More is written to partitions, a chunk at a time, with
//! numbers that a synced frame reserved for it; one manifest commits them all. Until then no reader
//! sees any of it. A batch that is dropped, or whose process dies, leaves nothing but numbers that
//! are never used.

use super::edit::{CheckpointReport, ManifestEdit};
use super::preconditions::{BatchPreconditions, Decision};
use super::receipts::{Receipt, Receipts};
use super::store::FileStore;
use crate::disk::DiskError;
use crate::operation::{
    self, Event, Logged, Number, NumberRange, Operation, OperationId, Revision, Time, Transition,
};
use crate::wal::append::append_one_frame;
use crate::wal::change::{Admitted, Written};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::append::{NewFrame, nothing_logged};
use crate::wal::journal::group_commit::Flush;
use crate::wal::journal::lock::HeldLock;
use crate::wal::journal::note;
use crate::wal::journal::{self, FRAME_MAX, FrameKind, Reservation, TRANSITIONS_MAX};
use crate::wal::layout::Layout;
use crate::wal::manifest::{FileEntry, Manifest};
use crate::wal::schema;
use crate::wal::spool::Staged;

/// Bytes of operations that are held before they go to partitions: what bounds the memory, whatever
/// they hold.
const CHUNK_BYTES: usize = 8 << 20;

/// How often reserving numbers is repeated because the journal was recovered meanwhile.
const RESTARTS: usize = 10;

/// New operations on their way into the log. Dropping it abandons them.
#[derive(Debug)]
pub struct Batch<'w> {
    store: &'w FileStore,
    /// Not in a partition yet, some with content for the spool.
    waiting: Vec<(Logged, Option<Staged>)>,
    /// Bytes of those as records of a frame.
    bytes: usize,
    count: u64,
    staging: Option<Staging<'w>>,
}

/// What a committed batch logged. It is durable.
#[derive(Debug)]
pub struct Committed {
    /// The ranges of numbers of the new operations, in order.
    pub numbers: Vec<NumberRange>,
    entries: Entries,
}

#[derive(Debug)]
enum Entries {
    Frame(Vec<Receipt>),
    Files(Receipts),
}

impl Committed {
    /// Returns the number of operations.
    #[cfg(any(test, feature = "test-util"))]
    pub fn count(&self) -> u64 {
        self.numbers.iter().map(NumberRange::count).sum()
    }

    /// Hands out what was logged, in the order in which it was pushed.
    pub fn each<E: From<WalError>>(
        &self,
        mut take: impl FnMut(Receipt) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.entries {
            Entries::Frame(entries) => entries.iter().cloned().try_for_each(take),
            Entries::Files(receipts) => receipts.each(&mut take),
        }
    }
}

impl FileStore {
    /// Begins a batch of new operations. Nothing is written, and no lock taken, before it outgrows
    /// a frame.
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, waiting: Vec::new(), bytes: 0, count: 0, staging: None }
    }

    /// Logs new operations, all or none; durable when this returns.
    ///
    /// An operation whose idempotency key is there already is not logged again: that one is
    /// returned.
    pub fn append_new(&self, operations: Vec<Logged>) -> WalResult<Vec<Admitted>> {
        let mut batch = self.batch();
        operations.into_iter().try_for_each(|operation| batch.push(operation))?;
        let mut admitted = Vec::new();
        batch.commit()?.each(|entry| {
            let number = entry.written.number;
            let existing = if entry.existing {
                self.journal.read(|view| view.operation(number))?
            } else {
                None
            };
            admitted.push(match existing {
                Some(operation) => Admitted::Existing(Box::new(operation)),
                None => Admitted::Logged(entry.written),
            });
            Ok::<(), WalError>(())
        })?;
        Ok(admitted)
    }

    /// Reserves this many numbers and revisions. They are never used otherwise. Durable on return.
    fn reserve_numbers(&self, count: u64) -> WalResult<(Number, Revision)> {
        let payload = Reservation { numbers: count, revisions: count }.encode();
        for _ in 0..RESTARTS {
            let (first, appended) = {
                let mut writer = self.journal.lock_writer();
                let mut note = self.journal.take_lock(&mut writer)?;
                let first = (note.number, note.revision.next());
                let frame = NewFrame {
                    kind: FrameKind::Reserved,
                    payload: &payload,
                    revisions: count,
                    next_number: note.number.saturating_add(count),
                };
                let written = self.journal.append_frame(&mut writer, &mut note, &frame);
                writer.lock.unlock()?;
                written?;
                (first, writer.appended(&note))
            };
            if self.journal.flush_or_recover(&appended)? == Flush::Synced {
                return Ok(first);
            }
            // Whether the frame survived the recovery does not matter: its numbers are unused and
            // stay so.
        }
        let moving =
            std::io::Error::other("the journal was recovered repeatedly meanwhile; try again");
        Err(WalError::NotLogged(DiskError::new(
            "reserve numbers in",
            &self.layout.journal(),
            moving,
        )))
    }
}

impl<'w> Batch<'w> {
    /// Returns the number of operations that were pushed.
    #[cfg(any(test, feature = "test-util"))]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds an operation. One that no frame could hold is refused, and the batch goes on without
    /// it; any other error ends it: nothing of it is logged.
    pub fn push(&mut self, operation: Logged) -> WalResult<()> {
        self.push_staged(operation, None)
    }

    /// The same with content that was staged; the stage has to outlive the batch.
    pub fn push_staged(&mut self, operation: Logged, staged: Option<Staged>) -> WalResult<()> {
        let (operation_type, backend) =
            (operation.operation_type.clone(), operation.backend.clone());
        let event = Event::Logged(Box::new(operation));
        let head = journal::payload_head_len(self.store.journal.actor());
        let bytes = journal::record_len(&operation_type, &backend, &event);
        if journal::frame_len(head + bytes) > FRAME_MAX {
            return Err(WalError::TooLarge { bytes, max: FRAME_MAX });
        }
        let full = self.waiting.len() == self.store.options.frame_operations.min(TRANSITIONS_MAX)
            || journal::frame_len(head + self.bytes + bytes) > FRAME_MAX;
        if self.staging.is_none() && full {
            self.staging = Some(Staging::begin(self.store)?);
        }
        if let Event::Logged(logged) = event {
            self.waiting.push((*logged, staged));
        }
        self.bytes += bytes;
        self.count += 1;
        match &mut self.staging {
            Some(staging)
                if self.waiting.len() >= self.store.options.chunk_operations
                    || self.bytes >= CHUNK_BYTES =>
            {
                self.bytes = 0;
                staging.stage(std::mem::take(&mut self.waiting)).map_err(nothing_logged)
            }
            _ => Ok(()),
        }
    }

    /// Writes all that [`Batch::commit`] has left to name; until then nothing is logged.
    pub fn prepare(&mut self) -> WalResult<()> {
        let Some(staging) = &mut self.staging else { return Ok(()) };
        if !self.waiting.is_empty() {
            staging.stage(std::mem::take(&mut self.waiting)).map_err(nothing_logged)?;
        }
        staging.publish().map_err(nothing_logged)
    }

    /// Logs all of them: durable when this returns. After an error nothing is logged, unless it is
    /// `Unconfirmed`.
    pub fn commit(mut self) -> WalResult<Committed> {
        self.prepare()?;
        if let Some(staging) = self.staging {
            return staging.commit();
        }
        self.store.reserve.check_room(0)?;
        let has_content = self.waiting.iter().any(|(_, staged)| staged.is_some());
        let operations: Vec<Logged> =
            self.waiting.iter().map(|(operation, _)| operation.clone()).collect();
        let mut numbers = Vec::new();
        let entry = |(admitted, operation): (Admitted, &Logged)| match admitted {
            Admitted::Logged(written) => {
                extend(&mut numbers, written.number);
                Receipt::new(written, operation)
            }
            Admitted::Existing(existing) => Receipt::existing(&existing),
        };
        let admitted = match has_content {
            true => self.store.spool.append_staged(self.waiting)?,
            false => append_one_frame(&self.store.journal, operations.clone())?,
        };
        let entries = admitted.into_iter().zip(&operations).map(entry).collect();
        Ok(Committed { numbers, entries: Entries::Frame(entries) })
    }
}

/// A batch too large for a frame: its partitions so far. Dropping it removes them.
#[derive(Debug)]
struct Staging<'w> {
    store: &'w FileStore,
    /// Names of all files, the one being written included.
    names: Vec<String>,
    edit: ManifestEdit,
    counter: u64,
    numbers: Vec<NumberRange>,
    receipts: Receipts,
    conditions: BatchPreconditions,
    /// True if its receipts name operations that other processes logged.
    relies_on_others: bool,
    /// Content of the partition being written.
    content: Vec<(OperationId, Staged)>,
    /// Links in the spool that the batch made.
    links: Vec<(OperationId, String)>,
    published: bool,
    /// From here on the files may be named by a manifest.
    committing: bool,
    /// Nobody else writes Parquet files, or sweeps `tmp/`, meanwhile.
    _held: HeldLock,
}

impl<'w> Staging<'w> {
    fn begin(store: &'w FileStore) -> WalResult<Staging<'w>> {
        store.reserve.check_room(0)?;
        let held = store.lock_checkpoint()?;
        for directory in store.layout.directories() {
            // Their names are made durable by `sweep`, before anything is published in them.
            store.disk.create_dir_if_missing(&directory).map_err(WalError::NotLogged)?;
        }
        {
            // Makes the log if there is none.
            let mut writer = store.journal.lock_writer();
            store.journal.take_lock(&mut writer)?;
            writer.lock.unlock()?;
        }
        let ready = || {
            store.sweep(&mut CheckpointReport::default())?;
            let counter = store.highest_counter(&store.manifest()?)?;
            Ok((counter, Receipts::create(&*store.disk, &store.layout, store.clock.random())?))
        };
        let (counter, receipts) = ready().map_err(nothing_logged)?;
        Ok(Staging {
            store,
            names: Vec::new(),
            edit: ManifestEdit::default(),
            counter,
            numbers: Vec::new(),
            receipts,
            conditions: BatchPreconditions::default(),
            relies_on_others: false,
            content: Vec::new(),
            links: Vec::new(),
            published: false,
            committing: false,
            _held: held,
        })
    }

    /// Numbers these operations and writes them to partitions in `tmp/`, each flushed before the
    /// next is made.
    fn stage(&mut self, operations: Vec<(Logged, Option<Staged>)>) -> WalResult<()> {
        let store = self.store;
        // Those that turn out to be there already do not use theirs.
        let mut free = store.reserve_numbers(operations.len() as u64)?;
        let mut operations = operations.into_iter();
        while operations.len() > 0 {
            let now = store.clock.now();
            let mut rows = self.rows(&mut operations, now, &mut free)?;
            if rows.is_empty() {
                continue;
            }
            self.counter += 1;
            let name = Layout::partition_name(now, self.counter);
            let bytes = schema::encode(&mut rows)?;
            store.reserve.check_room(bytes.len() as u64)?;
            let path = store.layout.staged(&name);
            self.names.push(name.clone());
            store.disk.write_new_synced(&path, &bytes)?;
            // Content is durable under its name long before a manifest names the operation.
            store.spool.publish_staged(&self.content)?;
            self.links.extend(self.content.drain(..).map(|(id, staged)| (id, staged.into_name())));
            self.edit.added.extend(FileEntry::describe(name, None, &rows, &bytes));
        }
        self.receipts.flush()
    }

    /// The rows of one partition. Every operation of the batch is decided on here.
    fn rows(
        &mut self,
        operations: &mut impl ExactSizeIterator<Item = (Logged, Option<Staged>)>,
        now: Time,
        (number, revision): &mut (Number, Revision),
    ) -> WalResult<Vec<Operation>> {
        let store = self.store;
        let limit = store.options.partition_size;
        let mut rows = Vec::with_capacity(limit.min(operations.len()));
        let mut writer = None;
        while rows.len() < limit
            && let Some((mut logged, staged)) = operations.next()
        {
            if logged.has_conditions() {
                // The decision may depend on what another process logged, which may not be durable
                // yet.
                self.relies_on_others = true;
                if writer.is_none() {
                    let writer = writer.insert(store.journal.lock_writer());
                    writer.view.catch_up()?;
                }
                let Some(writer) = &writer else { continue };
                logged = match self.conditions.decide(&writer.view, logged)? {
                    Decision::New(logged) => *logged,
                    Decision::Existing(operation) => {
                        self.receipts.push(&Receipt::existing(&operation));
                        self.relies_on_others = true;
                        continue;
                    }
                    Decision::Duplicate(written, logged) => {
                        self.receipts.push(&Receipt::new(written, &logged));
                        continue;
                    }
                };
            }
            let id = store.journal.new_id(now, rows.len());
            let written = Written { number: *number, id, revision: *revision, deleted: false };
            self.content.extend(staged.map(|staged| (id, staged)));
            self.conditions.logged(&logged, &written);
            self.receipts.push(&Receipt::new(written, &logged));
            extend(&mut self.numbers, *number);
            let transition = Transition {
                revision: *revision,
                number: *number,
                id,
                at: now,
                from: None,
                operation_type: logged.operation_type.clone(),
                backend: logged.backend.clone(),
                actor: journal::actor_as_logged(store.journal.actor()).to_owned(),
                event: Event::Logged(Box::new(logged)),
            };
            rows.extend(operation::apply(None, &transition)?);
            (*number, *revision) = (number.next(), revision.next());
        }
        Ok(rows)
    }

    /// Renames the partitions into place, their names durable. No manifest has them yet.
    fn publish(&mut self) -> WalResult<()> {
        if !self.published {
            if self.relies_on_others {
                // What another process logged is promised again by us, so it has to be durable.
                self.store.journal.confirm()?;
            }
            self.store.publish(&self.edit)?;
            self.published = true;
        }
        Ok(())
    }

    fn commit(mut self) -> WalResult<Committed> {
        if !self.names.is_empty() {
            self.commit_files()?;
        }
        let numbers = std::mem::take(&mut self.numbers);
        let receipts = std::mem::take(&mut self.receipts);
        Ok(Committed { numbers, entries: Entries::Files(receipts) })
    }

    fn commit_files(&mut self) -> WalResult<()> {
        let store = self.store;
        let mut writer = store.journal.lock_writer();
        let note = store.journal.take_lock(&mut writer).map_err(nothing_logged)?;
        let committed = (|| {
            self.conditions.still_hold(&writer.view)?;
            // Whoever sees the operations before the manifest's name is durable must not write
            // about them: a power cut would take them back. So if we die here, the next writer
            // makes everything durable first.
            store.journal.note_at_work(&writer)?;
            self.committing = true;
            store.replace_manifest(&writer.view, &mut self.edit, None)
        })();
        let result = match committed {
            Ok(()) => Ok(()),
            Err(error) if self.is_committed() => Err(self.unconfirmed(&error)),
            Err(error) => Err(nothing_logged(error)),
        };
        if !matches!(result, Err(WalError::Unconfirmed { .. })) {
            // Should this fail, the next writer looks after the journal once more, which does no
            // harm.
            let _ = note::write(writer.lock.file(), &note);
        }
        // What is committed is committed, whatever becomes of the lock; it ends with us at the
        // latest.
        let _ = writer.lock.unlock();
        drop(writer);
        tracing::debug!(files = self.names.len(), ok = result.is_ok(), "batch committed");
        result
    }

    /// Returns false if the current manifest certainly does not name the files of this batch.
    fn is_committed(&self) -> bool {
        if !self.committing {
            return false;
        }
        match Manifest::load(&*self.store.disk, &self.store.layout) {
            Ok(Some(manifest)) => self
                .names
                .last()
                .is_some_and(|name| manifest.files.iter().any(|file| file.name == *name)),
            _ => true,
        }
    }

    fn unconfirmed(&self, error: &WalError) -> WalError {
        let mut ids = Vec::new();
        // As many as can still be read. The message names the numbers in any case.
        let _ = self.receipts.each(|entry| {
            ids.push(entry.written.id);
            Ok::<(), WalError>(())
        });
        let numbers: Vec<String> =
            self.numbers.iter().map(|range| format!("{} to {}", range.first, range.last)).collect();
        WalError::Unconfirmed {
            why: format!("the batch with the numbers {}: {error}", numbers.join(", ")),
            ids,
        }
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Files that a manifest may name are left to the next sweep, which knows.
        if self.committing {
            return;
        }
        // What cannot be removed now, a sweep will.
        let content = self.content.drain(..).map(|(id, staged)| (id, staged.into_name()));
        self.links.extend(content);
        let _ = self.store.spool.remove_unknown(&self.links);
        for name in &self.names {
            let _ = self.store.disk.remove_file(&self.store.layout.staged(name));
            let _ = self.store.disk.remove_file(&self.store.layout.file(name));
        }
    }
}

/// Extends the last range by a number, or begins a new one.
fn extend(ranges: &mut Vec<NumberRange>, number: Number) {
    match ranges.last_mut() {
        Some(range) if range.last.next() == number => range.last = number,
        _ => ranges.push(NumberRange { first: number, last: number }),
    }
}

#[cfg(test)]
mod tests;
