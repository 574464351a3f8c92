//! Lock files: locking with a deadline, and describing the process that holds a lock.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::note::{self, AppendNote, DrainLoop, HolderNote, SyncNote};
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskFile};
use crate::operation::Time;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::{Layout, LockName};

/// The longest pause between two attempts to lock.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct HeldLock {
    lock: LockFile,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // The note must not name a holder once the lock is free. If erasing it fails, it names a
        // process that is about to end. Closing the file releases the lock in any case.
        let _ = self.lock.file.write_at(&[0; note::NOTE_LEN], 0);
        let _ = self.lock.unlock();
    }
}

/// An open lock file, locked or not.
#[derive(Debug)]
pub struct LockFile {
    name: LockName,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    was_replaced: bool,
}

impl LockFile {
    /// Opens a lock file, creating it if it does not exist.
    pub fn open(disk: &dyn Disk, layout: &Layout, name: LockName) -> WalResult<LockFile> {
        let path = layout.lock(name);
        let file = disk.open(&path, Access::OpenOrCreate)?;
        Ok(LockFile { name, path, file, was_replaced: false })
    }

    /// Returns the open file, for reading and writing its note.
    pub fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// Takes the lock. Returns false if another process holds it. Never blocks.
    pub fn try_lock(&mut self, disk: &dyn Disk) -> WalResult<bool> {
        while self.file.try_lock()? {
            // If a user removes the lock file, another process creates a new one: locking the old
            // one as well would let both proceed.
            match self.is_named(disk) {
                Ok(true) => return Ok(true),
                Ok(false) => {
                    self.file = disk.open(&self.path, Access::OpenOrCreate)?;
                    self.was_replaced = true;
                }
                Err(error) => {
                    self.file.unlock()?;
                    return Err(error);
                }
            }
        }
        Ok(false)
    }

    /// Returns true if the path still names the open file.
    fn is_named(&self, disk: &dyn Disk) -> WalResult<bool> {
        match disk.metadata(&self.path) {
            Ok(named) => Ok(named.inode == self.file.metadata()?.inode),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns true if the lock file was replaced by another one since the last call.
    pub fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.was_replaced)
    }

    /// Takes the lock. Fails with [`WalError::Busy`] if another process holds it for longer than
    /// `timeout`.
    pub fn lock(&mut self, disk: &dyn Disk, clock: &dyn Clock, timeout: Duration) -> WalResult<()> {
        let start = clock.elapsed();
        let mut pause = Duration::from_micros(20);
        loop {
            if self.try_lock(disk)? {
                return Ok(());
            }
            let waited = clock.elapsed().saturating_sub(start);
            if waited >= timeout {
                return Err(WalError::Busy {
                    path: self.path.clone(),
                    waited,
                    holder: self.holder(),
                });
            }
            clock.sleep(pause.min(timeout - waited));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Releases the lock.
    pub fn unlock(&self) -> WalResult<()> {
        Ok(self.file.unlock()?)
    }

    /// Writes a note about this process, and keeps the lock until the result is dropped.
    pub fn hold(
        self,
        disk: &dyn Disk,
        command: &str,
        work: Option<DrainLoop>,
        now: Time,
    ) -> WalResult<HeldLock> {
        let note = HolderNote::new(disk.identity(), command, work, now);
        note::write(&*self.file, &note)?;
        Ok(HeldLock { lock: self })
    }

    /// Returns a description of the process that holds the lock, from the note in the file.
    pub(in crate::wal) fn holder(&self) -> String {
        let description = match self.name {
            LockName::Append => self.note().map(|note: AppendNote| {
                let AppendNote { pid, command, since, .. } = note;
                format!("pid {pid} (`{command}`) was the last to hold it, at {since}")
            }),
            LockName::Sync => self.note().map(|note: SyncNote| {
                format!("pid {} (`{}`) is flushing the journal", note.pid, note.command)
            }),
            LockName::Process | LockName::Checkpoint => self.note().map(|note: HolderNote| {
                format!("pid {} (`{}`) has held it since {}", note.pid, note.command, note.since)
            }),
        };
        description.unwrap_or_else(|| "another process holds it".into())
    }

    fn note<N: DeserializeOwned>(&self) -> Option<N> {
        note::read(&*self.file).ok().flatten()
    }
}
