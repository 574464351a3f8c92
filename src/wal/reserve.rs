//! The reserve: disk space kept for finishing logged operations when the disk is full.
//!
//! It is a file of zeros, created with the log if the disk has room for it. Settling, cancelling,
//! folding and cleaning up release it rather than fail; logging never does. An empty file in its
//! place means that it was released: until it can be created again, new operations must leave as
//! many bytes free, so that they do not use the space meant for outcomes.

use crate::disk::{Access, DiskResult};
use crate::wal::change::{Change, Written};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::writer::Wal;
use crate::wal::read::view::View;

/// The default size of the reserve in bytes.
pub(super) const RESERVE_BYTES: u64 = 4 << 20;

/// Free bytes that suffice for the outcomes of all claims of a drain loop: a frame and its notes.
const OUTCOME_BYTES: u64 = 2 << 20;

impl Wal {
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
    pub(super) fn keep_reserve(&self) {
        if let Err(error) = self.try_keep_reserve() {
            tracing::debug!(%error, "could not create the reserve");
        }
    }

    fn try_keep_reserve(&self) -> DiskResult<()> {
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

    /// As [`Wal::transact`], for claims, outcomes and other changes that finish operations: on a
    /// full disk it releases the reserve. Not for new operations.
    pub fn transact_finishing<T>(
        &self,
        mut decide: impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        self.finishing(|| self.transact(&mut decide))
    }

    /// Returns the free bytes if neither they nor the reserve suffice for the outcomes of new
    /// claims.
    pub fn lacks_room_for_outcomes(&self) -> WalResult<Option<u64>> {
        let free = self.disk.free_bytes(self.layout.base())?;
        let suffices = free >= OUTCOME_BYTES
            || self.reserve_len()?.is_some_and(|len| len >= self.options.reserve_bytes);
        Ok((!suffices).then_some(free))
    }

    /// Returns the error for a disk with too few free bytes.
    pub fn no_room_for_outcomes(&self, free: u64) -> WalError {
        WalError::NoRoomForOutcomes {
            path: self.layout.base().to_owned(),
            free,
            wanted: OUTCOME_BYTES,
        }
    }
}
