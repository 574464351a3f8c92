//! Batches: any number of new operations, logged all or none, in bounded memory.
//!
//! A small batch is one frame. A larger one is written to partitions, a chunk at a time, with
//! numbers that a synced frame has reserved; one manifest then commits all of them. Before that, no
//! reader sees any of its operations. A batch that is dropped, or whose process dies, leaves
//! nothing but unused numbers.

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

/// The number of bytes of operations in memory beyond which they are written to partitions. It
/// bounds the memory of a batch of large operations.
const CHUNK_BYTES: usize = 8 << 20;

/// The number of times that reserving numbers is attempted if the journal is recovered meanwhile.
const RESERVATION_ATTEMPTS_MAX: usize = 10;

/// New operations that are not logged yet. Dropping the batch discards them.
#[derive(Debug)]
pub struct Batch<'w> {
    store: &'w FileStore,
    /// The operations that are not in a partition yet, some with content for the spool.
    waiting: Vec<(Logged, Option<Staged>)>,
    /// Their size in bytes as records of a frame.
    bytes: usize,
    /// The number of all operations.
    count: u64,
    /// The partitions of a batch that has outgrown a frame.
    staging: Option<Staging<'w>>,
}

/// A committed batch. It is durable.
#[derive(Debug)]
pub struct Committed {
    /// The ranges of numbers of the new operations, in order.
    pub numbers: Vec<NumberRange>,
    entries: Entries,
}

/// The receipts of the operations, in memory or in a file.
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

    /// Calls `take` with the receipt of each operation, in the order in which they were pushed.
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
    /// Begins a batch of new operations. Writes nothing and takes no lock unless the batch outgrows
    /// a frame.
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, waiting: Vec::new(), bytes: 0, count: 0, staging: None }
    }

    /// Logs new operations, all or none. Durable on return.
    ///
    /// An operation whose idempotency key is already logged is not logged again: the existing one
    /// is returned.
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

    /// Reserves `count` numbers and revisions, and returns the first ones. Durable on return.
    fn reserve_numbers(&self, count: u64) -> WalResult<(Number, Revision)> {
        let payload = Reservation { numbers: count, revisions: count }.encode();
        for _ in 0..RESERVATION_ATTEMPTS_MAX {
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
            // If the frame survived the recovery, its numbers stay unused. Reserving others is
            // safe.
        }
        let recovered =
            std::io::Error::other("the journal was recovered repeatedly meanwhile; try again");
        Err(WalError::NotLogged(DiskError::new(
            "reserve numbers in",
            &self.layout.journal(),
            recovered,
        )))
    }
}

impl<'w> Batch<'w> {
    /// Returns the number of operations that were pushed.
    #[cfg(any(test, feature = "test-util"))]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds an operation.
    ///
    /// Fails with [`WalError::TooLarge`] if the operation does not fit into a frame; the batch can
    /// be continued without it. After any other error the batch must be dropped.
    pub fn push(&mut self, operation: Logged) -> WalResult<()> {
        self.push_staged(operation, None)
    }

    /// Like [`Batch::push`], for an operation with staged content. The stage must outlive the
    /// batch.
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

    /// Writes everything but the manifest, so that [`Batch::commit`] takes little time. Nothing is
    /// logged before the commit.
    pub fn prepare(&mut self) -> WalResult<()> {
        let Some(staging) = &mut self.staging else { return Ok(()) };
        if !self.waiting.is_empty() {
            staging.stage(std::mem::take(&mut self.waiting)).map_err(nothing_logged)?;
        }
        staging.publish().map_err(nothing_logged)
    }

    /// Logs all operations. Durable on return. After an error nothing is logged, unless the error
    /// is [`WalError::Unconfirmed`].
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

/// The partitions of a batch that has outgrown a frame. Dropping it removes them, unless it was
/// committed.
#[derive(Debug)]
struct Staging<'w> {
    store: &'w FileStore,
    /// The names of all files, including the one that is being written.
    names: Vec<String>,
    edit: ManifestEdit,
    counter: u64,
    /// The ranges of the numbers in use.
    numbers: Vec<NumberRange>,
    receipts: Receipts,
    conditions: BatchPreconditions,
    /// True if a decision relied on transitions of other processes, which may not be durable.
    relies_on_others: bool,
    /// The content of operations in the partition that is being written.
    content: Vec<(OperationId, Staged)>,
    /// The links that the batch created in the spool.
    links: Vec<(OperationId, String)>,
    /// True once the partitions are renamed into place.
    published: bool,
    /// True once a manifest may name the files.
    committing: bool,
    /// Keeps other processes from writing Parquet files and sweeping `tmp/`.
    _held: HeldLock,
}

impl<'w> Staging<'w> {
    fn begin(store: &'w FileStore) -> WalResult<Staging<'w>> {
        store.reserve.check_room(0)?;
        let held = store.lock_checkpoint()?;
        for directory in store.layout.directories() {
            // `sweep` makes the names of the directories durable before files are published in
            // them.
            store.disk.create_dir_if_missing(&directory).map_err(WalError::NotLogged)?;
        }
        {
            // Creates the log if there is none.
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

    /// Numbers operations and writes them to partitions in `tmp/`, flushing each one.
    fn stage(&mut self, operations: Vec<(Logged, Option<Staged>)>) -> WalResult<()> {
        let store = self.store;
        // Operations that turn out to be logged already do not use their numbers.
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
            // Content is durable before a manifest names the operation.
            store.spool.publish_staged(&self.content)?;
            self.links.extend(self.content.drain(..).map(|(id, staged)| (id, staged.into_name())));
            self.edit.added.extend(FileEntry::describe(name, None, &rows, &bytes));
        }
        self.receipts.flush()
    }

    /// Returns the rows of one partition. Decides on each operation whether it is logged.
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
                // The decision may rely on a transition of another process that is not durable yet.
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
            self.conditions.record(&logged, &written);
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

    /// Renames the partitions into place, and makes their names durable. No manifest names them
    /// yet.
    fn publish(&mut self) -> WalResult<()> {
        if !self.published {
            if self.relies_on_others {
                // This process acknowledges operations of other processes, so these must be
                // durable.
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

    /// Commits the partitions with one manifest.
    fn commit_files(&mut self) -> WalResult<()> {
        let store = self.store;
        let mut writer = store.journal.lock_writer();
        let note = store.journal.take_lock(&mut writer).map_err(nothing_logged)?;
        let committed = (|| {
            self.conditions.recheck(&writer.view)?;
            // Other processes may see the operations before the manifest is durable, and must not
            // log transitions of them until then: a power cut would undo the batch. If this process
            // dies here, the mark makes the next writer recover the journal, which makes the
            // manifest durable.
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
            // If this fails, the next writer recovers the journal, which does no harm.
            let _ = note::write(writer.lock.file(), &note);
        }
        // The batch is committed even if this fails. The lock is released when the process ends.
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
        // If the receipts cannot be read, the message still names the numbers.
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
        // If a manifest may name the files, the next sweep decides.
        if self.committing {
            return;
        }
        // A sweep removes what cannot be removed now.
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
