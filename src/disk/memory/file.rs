use std::io::ErrorKind;
use std::path::PathBuf;

use super::{MemoryDisk, metadata_of};
use crate::disk::{DiskFile, DiskResult, Metadata};

/// A file of a simulated machine, open in one of its processes.
#[derive(Debug)]
pub(super) struct MemoryFile {
    pub(super) disk: MemoryDisk,
    pub(super) inode: u64,
    pub(super) handle: u64,
    pub(super) path: PathBuf,
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<usize> {
        self.disk.run("read", &self.path, false, |shared| {
            let live = &shared.inode(self.inode)?.live;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
            let end = start.saturating_add(buffer.len()).min(live.len());
            buffer[..end - start].copy_from_slice(&live[start..end]);
            Ok(end - start)
        })
    }

    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        self.disk.run("write", &self.path, true, |shared| {
            shared.mtime += 1;
            let mtime = shared.mtime;
            let inode = shared.inode_mut(self.inode)?;
            let start = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
            let end = start + data.len();
            if inode.live.len() < end {
                inode.live.resize(end, 0);
            }
            inode.live[start..end].copy_from_slice(data);
            inode.mtime = mtime;
            Ok(())
        })
    }

    fn sync_data(&self) -> DiskResult<()> {
        let synced = self.disk.run("sync", &self.path, true, |shared| {
            shared.inode_mut(self.inode)?.sync();
            Ok(())
        });
        if synced.is_err()
            && let Ok(inode) = self.disk.lock().inode_mut(self.inode)
        {
            inode.given_up = Some(inode.live.clone());
        }
        synced
    }

    fn sync_all(&self) -> DiskResult<()> {
        self.sync_data()
    }

    fn metadata(&self) -> DiskResult<Metadata> {
        self.disk.run("inspect", &self.path, false, |shared| Ok(metadata_of(self.inode, shared.inode(self.inode)?)))
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
