use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Fault, MemoryDisk, Shared, metadata_of};
use crate::disk::{DiskError, DiskFile, DiskResult, Metadata};

/// An open file of a simulated process.
#[derive(Debug)]
pub(super) struct MemoryFile {
    pub(super) disk: MemoryDisk,
    pub(super) inode: u64,
    pub(super) handle: u64,
    /// The failed syncs of this file that this handle has reported, or that preceded it.
    pub(super) failures: AtomicU64,
    pub(super) path: PathBuf,
}

impl MemoryFile {
    fn put(&self, shared: &mut Shared, data: &[u8], offset: u64) -> std::io::Result<()> {
        shared.mtime += 1;
        let mtime = shared.mtime;
        let inode = shared.inode_mut(self.inode)?;
        let start = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let end = start + data.len();
        if inode.live.len() < end {
            inode.live.resize(end, 0);
        }
        inode.live[start..end].copy_from_slice(data);
        inode.mend(start, end);
        inode.mtime = mtime;
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<usize> {
        self.disk.run("read", &self.path, false, |shared| {
            let inode = shared.inode(self.inode)?;
            let live = &inode.live;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
            let end = start.saturating_add(buffer.len()).min(live.len());
            // `pread` returns the bytes before an unreadable range, and the error on the next call:
            // readers call it until they have all bytes.
            if inode.bad.iter().any(|bad| bad.start < end && start < bad.end) {
                return Err(Fault::Medium.error());
            }
            buffer[..end - start].copy_from_slice(&live[start..end]);
            Ok(end - start)
        })
    }

    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        let fails_short = self.disk.fault() == Some(Fault::ShortWrite);
        let before = self.disk.failures();
        let written =
            self.disk.run("write", &self.path, true, |shared| self.put(shared, data, offset));
        if fails_short && self.disk.failures() > before {
            self.put(&mut self.disk.lock(), &data[..data.len() / 2], offset)
                .map_err(|error| DiskError::new("write", &self.path, error))?;
        }
        written
    }

    fn sync_data(&self) -> DiskResult<()> {
        let synced = self.disk.run("sync", &self.path, true, |shared| {
            let inode = shared.inode_mut(self.inode)?;
            inode.sync();
            // A failure that one handle has reported is reported by every other handle once.
            Ok(self.failures.swap(inode.failures, Ordering::SeqCst) == inode.failures)
        });
        if synced.is_err()
            && let Ok(inode) = self.disk.lock().inode_mut(self.inode)
        {
            inode.given_up = Some(inode.live.clone());
            inode.failures += 1;
            self.failures.store(inode.failures, Ordering::SeqCst);
        }
        match synced? {
            true => Ok(()),
            false => Err(DiskError::new("sync", &self.path, Fault::Flush.error())),
        }
    }

    fn sync_all(&self) -> DiskResult<()> {
        self.sync_data()
    }

    fn metadata(&self) -> DiskResult<Metadata> {
        self.disk.run("inspect", &self.path, false, |shared| {
            Ok(metadata_of(self.inode, shared.inode(self.inode)?))
        })
    }

    fn try_lock(&self) -> DiskResult<bool> {
        self.disk.run("lock", &self.path, false, |shared| {
            let inode = shared.inode_mut(self.inode)?;
            let free = inode.locked_by.is_none_or(|handle| handle == self.handle);
            if free {
                inode.locked_by = Some(self.handle);
            }
            Ok(free)
        })
    }

    fn unlock(&self) -> DiskResult<()> {
        self.disk.run("unlock", &self.path, false, |shared| {
            let inode = shared.inode_mut(self.inode)?;
            if inode.locked_by == Some(self.handle) {
                inode.locked_by = None;
            }
            Ok(())
        })
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut shared = self.disk.lock();
        if let Some(inode) = shared.inodes.get_mut(&self.inode)
            && inode.locked_by == Some(self.handle)
        {
            inode.locked_by = None;
        }
    }
}
