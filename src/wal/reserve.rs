//! The reserve: disk space kept for finishing logged operations when the disk is full.
//!
//! It is a file of zeros, created with the log if the disk has room for it. Settling, cancelling,
//! folding and cleaning up release it rather than fail; logging never does. An empty file in its
//! place means that it was released: until it can be created again, new operations must leave as
//! many bytes free, so that they do not use the space meant for outcomes.

use std::sync::Arc;

use crate::disk::{Access, Disk, DiskResult};
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::options::Options;

/// The number of free bytes that suffice for the outcomes of all claims of a drain loop: a frame
/// and its notes.
const OUTCOME_BYTES: u64 = 2 << 20;

/// The reserve of a log, and the room that is kept free beside it.
#[derive(Debug)]
pub(super) struct Reserve {
    disk: Arc<dyn Disk>,
    layout: Layout,
    options: Arc<Options>,
}

impl Reserve {
    pub(super) fn new(disk: Arc<dyn Disk>, layout: Layout, options: Arc<Options>) -> Reserve {
        Reserve { disk, layout, options }
    }

    /// Returns the size of the reserve in bytes; `None` if there never was room for one.
    fn reserve_len(&self) -> DiskResult<Option<u64>> {
        match self.disk.metadata(&self.layout.reserve()) {
            Ok(meta) => Ok(Some(meta.len)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the bytes that new operations must leave free: the setting, or the size of a
    /// released reserve.
    pub(super) fn kept_free(&self) -> DiskResult<u64> {
        let is_released = self.reserve_len()?.is_some_and(|len| len < self.options.reserve_bytes);
        Ok(self.options.min_free_bytes.max(if is_released {
            self.options.reserve_bytes
        } else {
            0
        }))
    }

    /// Creates the reserve if there is none and the disk has room. Failures are only logged: the
    /// next checkpoint tries again.
    pub(super) fn keep(&self) {
        if let Err(error) = self.try_keep() {
            tracing::debug!(%error, "could not set a reserve aside");
        }
    }

    fn try_keep(&self) -> DiskResult<()> {
        let len = self.reserve_len()?;
        let wanted = self.options.reserve_bytes;
        let needed = self.options.min_free_bytes.saturating_add(wanted);
        if wanted == 0
            || len.is_some_and(|len| len >= wanted)
            || self.disk.free_bytes(self.layout.base())? <= needed
        {
            return Ok(());
        }
        let made = (|| {
            let file = self.disk.open(&self.layout.reserve(), Access::OpenOrCreate)?;
            // Written, not only sized: a sparse file reserves nothing.
            file.write_at(&vec![0; usize::try_from(wanted).unwrap_or(0)], 0)?;
            file.sync_all()?;
            self.disk.sync_dir(self.layout.base())
        })();
        if made.is_err() {
            // A partial reserve is useless.
            self.disk.remove_file(&self.layout.reserve())?;
            if len.is_some() {
                self.disk.open(&self.layout.reserve(), Access::CreateNew)?;
            }
        }
        made
    }

    /// Releases the reserve. Returns false if there is none.
    fn release_reserve(&self) -> WalResult<bool> {
        if self.reserve_len()?.is_none_or(|len| len == 0) {
            return Ok(false);
        }
        match self.disk.remove_file(&self.layout.reserve()) {
            // Another process has just released it.
            Err(error) if error.is_not_found() => return Ok(true),
            removed => removed?,
        }
        tracing::warn!("the disk is full: releasing the reserve to finish logged operations");
        match self.disk.open(&self.layout.reserve(), Access::CreateNew) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error.into());
            }
            _ => {}
        }
        self.disk.sync_dir(self.layout.base())?;
        Ok(true)
    }

    /// Runs a step that finishes logged work; if the disk is full, releases the reserve and runs it
    /// again.
    pub(super) fn finishing<T>(&self, mut run: impl FnMut() -> WalResult<T>) -> WalResult<T> {
        loop {
            match run() {
                Err(error) if error.is_full() && self.release_reserve()? => {}
                other => return other,
            }
        }
    }

    /// Returns the free bytes if neither they nor the reserve suffice for the outcomes of new
    /// claims.
    pub(super) fn lacks_room_for_outcomes(&self) -> WalResult<Option<u64>> {
        let free = self.disk.free_bytes(self.layout.base())?;
        let suffices = free >= OUTCOME_BYTES
            || self.reserve_len()?.is_some_and(|len| len >= self.options.reserve_bytes);
        Ok((!suffices).then_some(free))
    }

    /// Returns the error for a disk with too few free bytes.
    pub(super) fn no_room_for_outcomes(&self, free: u64) -> WalError {
        WalError::NoRoomForOutcomes {
            path: self.layout.base().to_owned(),
            free,
            wanted: OUTCOME_BYTES,
        }
    }

    /// Fails if writing `bytes` more would leave less space free than must be kept.
    pub(super) fn check_room(&self, bytes: u64) -> WalResult<()> {
        let free = self.disk.free_bytes(self.layout.base())?;
        let wanted = self.kept_free()?;
        if free.saturating_sub(bytes) < wanted {
            let path = self.layout.base().to_owned();
            return Err(WalError::NoSpace { path, free, wanted });
        }
        Ok(())
    }
}
