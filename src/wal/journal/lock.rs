//! Locks: taken with a deadline, checked against the path, explained when they are held.

use std::path::PathBuf;
use std::time::Duration;

use super::note::{self, AppendNote, HolderNote, SyncNote};
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskFile};
use crate::operation::Time;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::{Layout, LockName};

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct HeldLock {
    lock: LockFile,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // Nobody holds it any more, so no note may say so. If this fails, the note is that of a process that
        // ends soon; closing the file gives the lock up in any case.
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
    /// Opens a lock's file, making it if need be.
    pub fn open(disk: &dyn Disk, layout: &Layout, name: LockName) -> WalResult<LockFile> {
        let path = layout.lock(name);
        let file = disk.open(&path, Access::OpenOrCreate)?;
        Ok(LockFile { name, path, file, reopened: false })
    }

    /// The open file, for its note.
    pub fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&mut self, disk: &dyn Disk) -> WalResult<bool> {
        while self.file.try_lock()? {
            // Whoever removes lock files by hand must not make two holders of us.
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

    /// Whether the path still names the file that we have open.
    fn is_named(&self, disk: &dyn Disk) -> WalResult<bool> {
        match disk.metadata(&self.path) {
            Ok(named) => Ok(named.inode == self.file.metadata()?.inode),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the file had to be opened again, because another one has taken its name, since this was last asked.
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

    /// Gives the lock up.
    pub fn unlock(&self) -> WalResult<()> {
        Ok(self.file.unlock()?)
    }

    /// Writes who holds the lock, and keeps it until the result is dropped.
    pub fn hold(self, disk: &dyn Disk, command: &str, now: Time) -> WalResult<HeldLock> {
        note::write(&*self.file, &HolderNote::new(disk.identity(), command, now))?;
        Ok(HeldLock { lock: self })
    }

    /// Who holds the lock, in words.
    pub(in crate::wal) fn holder(&self) -> String {
        let note = match self.name {
            LockName::Append => note::read(&*self.file).ok().flatten().map(|note: AppendNote| {
                format!(
                    "pid {} (`{}`) last worked with it, at {}",
                    note.pid, note.command, note.since
                )
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
