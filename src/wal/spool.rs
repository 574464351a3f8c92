//! The spool: content copied into the log, so that its source may change or disappear afterwards.
//!
//! `spool/<name>` holds content once. Each operation that needs it has its own link,
//! `spool/<name>.<operation id>`, reads through it, and keeps it until the operation is completed,
//! deleted or not in the log. So no process has to know the other users of the content, and
//! `<name>` is removed when it is the last link. Without hard links, each operation has its own
//! copy.
//!
//! The order is: content is staged in `tmp/` and synced; it is linked into `spool/`, and the
//! directory is synced; then, under `lock`, the link is checked and the frame is written. A frame
//! that names content never exists without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskError, DiskFile, DiskResult, FileKind};
use crate::operation::{Logged, Operation, OperationId, Source, Status};
use crate::wal::append::append_admitted;
use crate::wal::change::{Admitted, Change, Written};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::hex;
use crate::wal::options::Options;
use crate::wal::read::SharedJournal;
use crate::wal::read::view::View;
use crate::wal::reserve::Reserve;

/// The number of bytes that are copied at a time.
const BUFFER: u64 = 256 << 10;

/// The number of attempts to copy a file that keeps changing.
const ATTEMPTS: usize = 4;

/// The largest number of links that one checkpoint checks. If there are more, each checkpoint
/// checks different ones.
const SWEPT_AT_ONCE: usize = 2000;

/// The number of links that are checked while `lock` is held.
const LOCKED_AT_ONCE: usize = 100;

/// The age in milliseconds below which the operation of a link may be about to be logged.
const YOUNG_MS: i64 = 60_000;

/// Staged content: durable except for its name.
#[derive(Debug, Clone)]
pub struct Staged {
    path: std::path::PathBuf,
    name: String,
    len: u64,
}

impl Staged {
    /// The name of the content in the spool.
    pub(super) fn into_name(self) -> String {
        self.name
    }
}

/// The reason why a file was not spooled.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotTaken {
    /// The file cannot be read.
    Source(DiskError),
    /// The file keeps changing.
    Changed,
    /// The file exceeds the limit for copies and cannot be cloned.
    TooLarge,
    /// The log failed; `NoRoom` if the copy would not fit.
    Log(WalError),
}

impl NotTaken {
    fn log(error: DiskError) -> NotTaken {
        NotTaken::Log(WalError::NotLogged(error))
    }
}

/// A stage for content, cleared when it is dropped, or by the next checkpoint if its process dies.
#[derive(Debug)]
pub struct Stage<'a> {
    spool: &'a Spool,
    token: String,
    /// Locked while its process lives.
    _lock: Box<dyn DiskFile>,
    names: Vec<String>,
    used: usize,
}

/// The spool of a log: content that operations need, copied into the log.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    layout: Layout,
    options: Arc<Options>,
    journal: Arc<SharedJournal>,
    reserve: Arc<Reserve>,
}

impl Spool {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        layout: Layout,
        options: Arc<Options>,
        journal: Arc<SharedJournal>,
        reserve: Arc<Reserve>,
    ) -> Spool {
        Spool { disk, clock, layout, options, journal, reserve }
    }

    /// Creates a stage for content.
    pub fn stage_content(&self) -> WalResult<Stage<'_>> {
        self.disk.create_dir_if_missing(&self.layout.tmp()).map_err(WalError::NotLogged)?;
        loop {
            let token = format!("{:016x}", self.clock.random());
            let path = self.layout.staged_content(&token, "lock");
            let lock = self.disk.open(&path, Access::CreateNew).map_err(WalError::NotLogged)?;
            // A checkpoint may have removed the file before it was locked.
            if lock.try_lock()? && self.disk.metadata(&path).ok() == Some(lock.metadata()?) {
                return Ok(Stage { spool: self, token, _lock: lock, names: Vec::new(), used: 0 });
            }
        }
    }

    /// Logs operations, some with staged content, which is durable before their frame is written.
    /// Everything is durable on return. If nothing was logged, the spool is unchanged.
    pub fn append_staged(
        &self,
        operations: Vec<(Logged, Option<Staged>)>,
    ) -> WalResult<Vec<Admitted>> {
        self.reserve.check_room(0)?;
        let now = self.clock.now();
        let mut content = Vec::new();
        let mut changes = Vec::with_capacity(operations.len());
        for (nth, (logged, staged)) in operations.into_iter().enumerate() {
            let id = self.journal.new_id(now, nth);
            content.extend(staged.map(|staged| (id, staged)));
            changes.push(Change::NewAs(id, logged));
        }
        self.with_staged(content, || {
            let admitted = append_admitted(&self.journal, changes.clone())?;
            let known = admitted.iter().map(Admitted::id).collect();
            Ok((known, admitted))
        })
    }

    /// As [`super::Wal::transact`], for changes that log operations with staged content. The
    /// content of operations that `decide` does not log is removed.
    pub fn transact_staged<T>(
        &self,
        content: Vec<(OperationId, Staged)>,
        mut decide: impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        self.reserve.check_room(0)?;
        self.with_staged(content, || {
            let done = self.journal.transact(&mut decide)?;
            Ok((done.0.iter().map(|written| written.id).collect(), done))
        })
    }

    /// Publishes staged content, then calls `write`, which writes the frame that names it and
    /// returns the operations that are in the log.
    fn with_staged<T>(
        &self,
        mut content: Vec<(OperationId, Staged)>,
        mut write: impl FnMut() -> WalResult<(BTreeSet<OperationId>, T)>,
    ) -> WalResult<T> {
        for attempt in 1.. {
            let published = self.publish_staged(&content).map_err(WalError::NotLogged);
            match published.and_then(|()| write()) {
                Ok((known, done)) => {
                    // Operations whose idempotency key existed, or that `write` did not log.
                    content.retain(|(id, _)| !known.contains(id));
                    self.take_back(&content);
                    return Ok(done);
                }
                // Each of the operations may be logged and need its content: a sweep decides.
                Err(error @ WalError::Unconfirmed { .. }) => return Err(error),
                // A sweep removed the link, since much time passed before the frame was written.
                Err(WalError::NotLogged(error)) if error.is_not_found() && attempt < ATTEMPTS => {}
                Err(error) => {
                    self.take_back(&content);
                    return Err(error);
                }
            }
        }
        Err(WalError::Unconfirmed { why: "too many attempts".into(), ids: Vec::new() })
    }

    /// Links staged content into the spool, each for its operation, and makes the links durable.
    pub(super) fn publish_staged(&self, content: &[(OperationId, Staged)]) -> DiskResult<()> {
        if content.is_empty() {
            return Ok(());
        }
        self.disk.create_dir_if_missing(&self.layout.spool())?;
        content.iter().try_for_each(|(id, staged)| self.link_staged(*id, staged))?;
        self.sync_spool()
    }

    /// Makes all links durable, including those of processes that were killed before their sync.
    fn sync_spool(&self) -> DiskResult<()> {
        self.disk.sync_dir(&self.layout.spool())?;
        self.disk.sync_dir(self.layout.base())
    }

    fn link_staged(&self, id: OperationId, staged: &Staged) -> DiskResult<()> {
        let (shared, own) =
            (self.layout.spooled(&staged.name), self.layout.spooled_for(&staged.name, id));
        let disk = &*self.disk;
        loop {
            let linked = match disk.metadata(&shared) {
                Ok(_) => match self.is_intact(&shared, staged) {
                    // The content exists already.
                    Ok(true) => disk.link(&shared, &own),
                    // It was damaged. The operations that have links to it keep them, and fail.
                    Ok(false) => {
                        tracing::warn!(path = %shared.display(), "replacing damaged content");
                        disk.remove_if_present(&shared)?;
                        continue;
                    }
                    Err(error) if error.is_not_found() => continue,
                    // It cannot be read: this operation gets a file of its own.
                    Err(error) => {
                        tracing::warn!(%error, "not sharing spooled content");
                        disk.link(&staged.path, &own)
                    }
                },
                Err(error) if error.is_not_found() => {
                    disk.link(&staged.path, &shared).and_then(|()| disk.link(&shared, &own))
                }
                Err(error) => return Err(error),
            };
            match linked {
                Ok(()) => return Ok(()),
                Err(error) if disk.exists(&own)? => {
                    tracing::debug!(%error, "spooled content was linked before");
                    return Ok(());
                }
                Err(error) if error.is_link_unsupported() => {
                    return disk.rename(&staged.path, &own);
                }
                // Another process has just created or removed the shared name.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) if error.is_not_found() && disk.exists(&staged.path)? => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns whether a file of the spool has the content that its name promises.
    fn is_intact(&self, shared: &std::path::Path, staged: &Staged) -> DiskResult<bool> {
        let file = self.disk.open(shared, Access::Read)?;
        Ok(file.metadata()?.len == staged.len
            && (!is_hash(&staged.name) || hash_of(&*file)? == staged.name))
    }

    /// Removes the links of operations that were not logged. A sweep removes what cannot be removed
    /// now.
    fn take_back(&self, content: &[(OperationId, Staged)]) {
        let links: Vec<_> = content.iter().map(|(id, staged)| (*id, staged.name.clone())).collect();
        if let Err(error) = self.remove_unknown(&links) {
            tracing::debug!(%error, "leaving spooled content to the next checkpoint");
        }
    }

    /// Removes the links whose operations are not in the log. `lock` is held meanwhile, so that
    /// none of them can be logged between the check and the removal.
    pub(super) fn remove_unknown(&self, links: &[(OperationId, String)]) -> WalResult<()> {
        for some in links.chunks(LOCKED_AT_ONCE) {
            let mut writer = self.journal.lock_writer();
            self.journal.take_lock(&mut writer)?;
            let removed: WalResult<()> = some.iter().try_for_each(|(id, name)| {
                // A deleted operation counts as known until its deletion is folded and durable.
                if !writer.view.knows(*id)? {
                    self.disk.remove_if_present(&self.layout.spooled_for(name, *id))?;
                }
                Ok(())
            });
            writer.lock.unlock()?;
            drop(writer);
            removed?;
            some.iter().for_each(|(_, name)| self.remove_unused(name));
        }
        Ok(())
    }

    /// Removes content without links of operations. A link that is created concurrently keeps its
    /// content; only the shared name is lost.
    fn remove_unused(&self, name: &str) {
        let shared = self.layout.spooled(name);
        if self.disk.links(&shared).ok() == Some(1) {
            // A sweep removes what cannot be removed now.
            let _ = self.disk.remove_file(&shared);
        }
    }

    /// Removes the content of an operation that is durably completed, redirected or deleted. Those
    /// states are final, so no lock is needed. A sweep removes what cannot be removed now.
    pub fn release_spool(&self, operation: &Operation) {
        if let Some(name) = operation.source.as_ref().and_then(|source| source.spool.as_deref()) {
            self.release_link(name, operation.id);
        }
    }

    fn release_link(&self, name: &str, id: OperationId) {
        match self.disk.remove_file(&self.layout.spooled_for(name, id)) {
            Err(error) if !error.is_not_found() => {
                tracing::debug!(%error, "leaving spooled content to a later checkpoint")
            }
            _ => self.remove_unused(name),
        }
    }

    /// Returns false if the copy of an operation differs from its noted hash, or cannot be read. A
    /// missing copy is not a damaged one: [`check_spooled`] reports it. `checked` holds the answers
    /// by inode, since operations share content.
    pub fn has_intact_copy(
        &self,
        operation: &Operation,
        checked: &mut BTreeMap<u64, bool>,
    ) -> WalResult<bool> {
        let source = operation.source.as_ref();
        let noted = source.and_then(|source| source.spool.as_deref().zip(source.sha256.as_deref()));
        let Some((name, sha256)) = noted else { return Ok(true) };
        let path = self.layout.spooled_for(name, operation.id);
        let mut check = || -> DiskResult<bool> {
            let file = self.disk.open(&path, Access::Read)?;
            let metadata = file.metadata()?;
            if let Some(is_intact) = checked.get(&metadata.inode) {
                return Ok(*is_intact);
            }
            let has_size = source.is_some_and(|source| source.size == metadata.len);
            let is_intact = has_size && hash_of(&*file)? == sha256;
            checked.insert(metadata.inode, is_intact);
            Ok(is_intact)
        };
        match check() {
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) if error.is_medium_error() => Ok(false),
            result => Ok(result?),
        }
    }

    /// Links the content of an existing operation for a new one; does nothing if there is none.
    ///
    /// For use in the function that [`super::Wal::transact`] calls: it ensures that the existing
    /// operation is unchanged, and returns the [`Change::NewAs`] with the same source. Under
    /// `lock`, no sweep runs between link and frame.
    pub fn share_spool(&self, from: &Operation, to: OperationId) -> WalResult<()> {
        let Some(name) = from.source.as_ref().and_then(|source| source.spool.as_deref()) else {
            return Ok(());
        };
        let (old, new) =
            (self.layout.spooled_for(name, from.id), self.layout.spooled_for(name, to));
        match self.disk.link(&old, &new) {
            Err(error) if error.is_link_unsupported() => {
                let mut stage = self.stage_content()?;
                let noted = from.source.as_ref().and_then(|source| source.sha256.as_deref());
                let hash_max = if noted.is_some() { u64::MAX } else { 0 };
                let (copied, staged) =
                    stage.take(&old, u64::MAX, hash_max).map_err(|not_taken| match not_taken {
                        NotTaken::Log(error) => error,
                        NotTaken::Source(error) => WalError::NotLogged(error),
                        NotTaken::Changed | NotTaken::TooLarge => WalError::damaged(
                            &old,
                            None,
                            "spooled content changed while it was copied",
                        ),
                    })?;
                // It may have been damaged since `has_intact_copy`.
                if noted.is_some() && noted != copied.sha256.as_deref() {
                    let why = "spooled content is not what was logged";
                    return Err(WalError::damaged(&old, None, why));
                }
                self.disk.rename(&staged.path, &new).map_err(WalError::NotLogged)?;
            }
            // It was linked already, before a recovery of the journal dropped the frame.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            linked => linked.map_err(WalError::NotLogged)?,
        }
        self.sync_spool().map_err(WalError::NotLogged)
    }

    /// Removes leftovers of dead processes: staged content, links whose operation is completed or
    /// was never logged, content without links. Everything before generation `before` is durable.
    pub(super) fn sweep_spool(&self, before: u64) -> WalResult<()> {
        self.sweep_stages()?;
        let entries = match self.disk.list(&self.layout.spool()) {
            Err(error) if error.is_not_found() => return Ok(()),
            entries => entries?,
        };
        let (mut links, mut shared) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry.name.to_str().and_then(Layout::parse_spooled) {
                Some((name, Some(id))) => links.push((id, name.to_owned())),
                Some((name, None)) => shared.push(name.to_owned()),
                // Not a file of this program.
                None => {}
            }
        }
        // Operations logged at the same time are neighbours in the files.
        links.sort_unstable();
        // Only a durable completion counts: after a power cut the content may be needed again.
        let durable = View::open_before(self.disk.clone(), self.layout.clone(), before)?;
        let now = self.clock.now();
        let mut unknown = Vec::new();
        for (id, name) in self.some_of(links) {
            match durable.operation_by_id(id)? {
                Some(operation) if is_over(&operation) => self.release_link(&name, id),
                Some(_) => {}
                None if now.millis_since(id.made_at()).abs() < YOUNG_MS => {}
                None => unknown.push((id, name)),
            }
        }
        self.remove_unknown(&unknown)?;
        self.some_of(shared).iter().for_each(|name| self.remove_unused(name));
        Ok(())
    }

    /// Sweeps after operations were pruned.
    pub(super) fn sweep_spool_again(&self) {
        let before =
            self.journal.read(|view| Ok(view.position().map_or(0, |position| position.generation)));
        if let Err(error) = before.and_then(|before| self.sweep_spool(before)) {
            tracing::warn!(%error, "could not sweep the spool; the next checkpoint tries again");
        }
    }

    /// Returns at most [`SWEPT_AT_ONCE`] neighbouring links, different ones each time.
    fn some_of<T>(&self, mut all: Vec<T>) -> Vec<T> {
        if all.len() > SWEPT_AT_ONCE {
            let start = self.clock.random() as usize % all.len();
            all.rotate_left(start);
            all.truncate(SWEPT_AT_ONCE);
        }
        all
    }

    fn sweep_stages(&self) -> WalResult<()> {
        let tmp = self.layout.tmp();
        let names: Vec<String> = self
            .disk
            .list(&tmp)?
            .into_iter()
            .filter_map(|entry| entry.name.into_string().ok())
            .collect();
        let mut tokens: Vec<&str> =
            names.iter().filter_map(|name| Layout::parse_staged_content(name)).collect();
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens {
            let path = self.layout.staged_content(token, "lock");
            let lock = match self.disk.open(&path, Access::Write) {
                Ok(lock) => Some(lock),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            };
            if let Some(lock) = &lock
                && !lock.try_lock()?
            {
                continue;
            }
            let of_token =
                names.iter().filter(|name| Layout::parse_staged_content(name) == Some(token));
            for name in of_token.filter(|name| !path.ends_with(name)) {
                self.disk.remove_if_present(&tmp.join(name))?;
            }
            self.disk.remove_if_present(&path)?;
        }
        Ok(())
    }
}

/// Fails if the operation refers to spooled content that does not exist. Called under `lock`.
pub(super) fn check_spooled(
    disk: &dyn Disk,
    layout: &Layout,
    id: OperationId,
    logged: &Logged,
) -> WalResult<()> {
    let Some(name) = logged.source.as_ref().and_then(|source| source.spool.as_deref()) else {
        return Ok(());
    };
    disk.metadata(&layout.spooled_for(name, id)).map_err(WalError::NotLogged)?;
    Ok(())
}

impl Stage<'_> {
    /// Copies or clones a file: a clone of any size, a copy of up to `copy_max` bytes. A file
    /// larger than `hash_max` is cloned without being read.
    pub fn take(
        &mut self,
        path: &std::path::Path,
        copy_max: u64,
        hash_max: u64,
    ) -> Result<(Source, Staged), NotTaken> {
        for _ in 0..ATTEMPTS {
            self.used += 1;
            let staged = self.spool.layout.staged_content(&self.token, &self.used.to_string());
            let taken = self.try_take(path, staged.clone(), copy_max, hash_max);
            if let Ok((_, staged)) = &taken {
                self.names.push(staged.name.clone());
                return taken;
            }
            // Frees the space at once. If it fails, the file is removed with the stage.
            let _ = self.spool.disk.remove_file(&staged);
            match taken {
                Err(NotTaken::Changed) => {}
                other => return other,
            }
        }
        Err(NotTaken::Changed)
    }

    fn try_take(
        &self,
        path: &std::path::Path,
        staged: std::path::PathBuf,
        copy_max: u64,
        hash_max: u64,
    ) -> Result<(Source, Staged), NotTaken> {
        let disk = &*self.spool.disk;
        let source = disk.open(path, Access::Read).map_err(NotTaken::Source)?;
        let before = source.metadata().map_err(NotTaken::Source)?;
        if before.kind != FileKind::File {
            return Err(NotTaken::Changed);
        }
        let full = |error: DiskError| match error.is_full() {
            true => NotTaken::Log(self.no_room(path, before.len)),
            false => NotTaken::log(error),
        };
        let copy = disk.open(&staged, Access::CreateNew).map_err(full)?;
        let sha256 = if before.len > 0 && disk.clone_file(path, &staged).map_err(full)? {
            match before.len <= hash_max {
                true => Some(hash_of(&*copy).map_err(NotTaken::log)?),
                false => None,
            }
        } else if before.len > copy_max {
            return Err(NotTaken::TooLarge);
        } else {
            self.check_room(path, before.len)?;
            Some(pump(&*source, &*copy, before.len, full)?)
        };
        copy.sync_all().map_err(full)?;
        let copied = copy.metadata().map_err(NotTaken::log)?;
        let after = source.metadata().map_err(NotTaken::Source)?;
        let named = disk.metadata(path).map_err(NotTaken::Source)?;
        if after != before || named != before || copied.len != before.len {
            return Err(NotTaken::Changed);
        }
        let clock = &self.spool.clock;
        let name = sha256
            .clone()
            .unwrap_or_else(|| format!("{:016x}{:016x}", clock.random(), clock.random()));
        let source = Source {
            size: before.len,
            mtime_ns: before.mtime_ns,
            inode: before.inode,
            ctime_ns: Some(before.ctime_ns),
            sha256,
            spool: Some(name.clone()),
        };
        Ok((source, Staged { path: staged, name, len: before.len }))
    }

    /// Fails if a copy of that many bytes would not leave the space kept for finishing logged
    /// operations.
    fn check_room(&self, path: &std::path::Path, bytes: u64) -> Result<(), NotTaken> {
        let free = self.spool.disk.free_bytes(self.spool.layout.base()).map_err(NotTaken::log)?;
        let kept = self.spool.reserve.kept_free().map_err(NotTaken::log)?;
        match free.saturating_sub(bytes) < kept || free < bytes {
            true => Err(NotTaken::Log(self.no_room(path, bytes))),
            false => Ok(()),
        }
    }

    fn no_room(&self, path: &std::path::Path, bytes: u64) -> WalError {
        let base = self.spool.layout.base();
        WalError::NoRoom {
            path: base.to_owned(),
            content: path.to_owned(),
            bytes,
            free: self.spool.disk.free_bytes(base).unwrap_or(0),
            kept: self.spool.reserve.kept_free().unwrap_or(self.spool.options.min_free_bytes),
        }
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let Spool { disk, layout, .. } = self.spool;
        // A checkpoint removes what cannot be removed now.
        for nth in 1..=self.used {
            let _ = disk.remove_file(&layout.staged_content(&self.token, &nth.to_string()));
        }
        self.names.iter().for_each(|name| self.spool.remove_unused(name));
        let _ = disk.remove_file(&layout.staged_content(&self.token, "lock"));
    }
}

/// Returns true if an operation will not read its content again. A failed one may be retried,
/// unless it was redirected.
fn is_over(operation: &Operation) -> bool {
    operation.status() == Status::Completed || operation.redirected_to.is_some()
}

/// Returns whether the name of content is the hash of the content, and not a random one.
fn is_hash(name: &str) -> bool {
    name.len() == 2 * <Sha256 as Digest>::output_size()
}

/// Copies a file of `len` bytes. Returns the hash of the copied content.
fn pump(
    source: &dyn DiskFile,
    copy: &dyn DiskFile,
    len: u64,
    full: impl Fn(DiskError) -> NotTaken,
) -> Result<String, NotTaken> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; len.clamp(1, BUFFER) as usize];
    let mut offset = 0;
    loop {
        let read = source.read_at(&mut buffer, offset).map_err(NotTaken::Source)?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        copy.write_at(&buffer[..read], offset).map_err(&full)?;
        hasher.update(&buffer[..read]);
        offset += read as u64;
        // Another process may append as fast as this one reads.
        if offset > len {
            return Err(NotTaken::Changed);
        }
    }
}

/// Returns the SHA-256 of a file's content.
pub fn hash_of(file: &dyn DiskFile) -> DiskResult<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER as usize];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
        offset += read as u64;
    }
}
