//! Lock files: locked with a deadline, compared with the path, and described while another process
//! holds them.

use std::path::PathBuf;
use std::time::Duration;

use super::note::{self, AppendNote, DrainLoop, HolderNote, SyncNote};
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskFile};
use crate::operation::Time;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::{Layout, LockName};

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct HeldLock {
    lock: LockFile,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // The lock is released, so no note may name a holder. If this fails, the note names a
        // process that ends soon. Closing the file releases the lock in any case.
        let _ = self.lock.file.write_at(&[0; note::NOTE_LEN], 0);
        let _ = self.lock.unlock();
    }
}

/// A lock file, held or not.
#[derive(Debug)]
pub struct LockFile {
    name: LockName,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    reopened: bool,
}

impl LockFile {
    /// Opens the file of a lock, which need not exist.
    pub fn open(disk: &dyn Disk, layout: &Layout, name: LockName) -> WalResult<LockFile> {
        let path = layout.lock(name);
        let file = disk.open(&path, Access::OpenOrCreate)?;
        Ok(LockFile { name, path, file, reopened: false })
    }

    /// Returns the open file, for its note.
    pub fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// Takes the lock unless another process holds it. Returns true if it was taken.
    pub fn try_lock(&mut self, disk: &dyn Disk) -> WalResult<bool> {
        while self.file.try_lock()? {
            // A lock file that is removed by hand must not lead to two holders.
            match self.is_named(disk) {
                Ok(true) => return Ok(true),
                Ok(false) => {
                    self.file = disk.open(&self.path, Access::OpenOrCreate)?;
                    self.reopened = true;
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

    /// Returns true if the file had to be opened again since the last call, because the path names
    /// another one.
    pub fn take_reopened(&mut self) -> bool {
        std::mem::take(&mut self.reopened)
    }

    /// Takes the lock, waiting for at most `timeout`.
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

    /// Writes a note about the holder, and keeps the lock until the result is dropped.
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

    /// Returns a description of the process that holds the lock.
    pub(in crate::wal) fn holder(&self) -> String {
        let note = match self.name {
            LockName::Append => note::read(&*self.file).ok().flatten().map(|note: AppendNote| {
                format!("pid {} (`{}`) held it last, at {}", note.pid, note.command, note.since)
            }),
            LockName::Sync => note::read(&*self.file).ok().flatten().map(|note: SyncNote| {
                format!("pid {} (`{}`) is flushing the journal", note.pid, note.command)
            }),
            LockName::Process | LockName::Checkpoint => {
                note::read(&*self.file).ok().flatten().map(|note: HolderNote| {
                    format!(
                        "pid {} (`{}`) has held it since {}",
                        note.pid, note.command, note.since
                    )
                })
            }
        };
        note.unwrap_or_else(|| "another process holds it".into())
    }
}
