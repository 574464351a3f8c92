//! The reserve: room that is set aside while there is some, so that what is logged can be finished on a full disk.
//!
//! A file of zeros, made with the log if the disk has room for it. What settles, cancels, folds or cleans up gives it
//! up rather than fail; what logs never does. An empty file in its place tells that it was given up: until it can be
//! made again, new operations leave that much of the disk free, so that nobody logs into the room meant for outcomes.

use crate::disk::{Access, DiskResult};
use crate::wal::change::{Change, Written};
use crate::wal::error::{WalError, WalResult};
use crate::wal::journal::writer::Wal;
use crate::wal::read::view::View;

/// Bytes of the reserve, unless options say otherwise.
pub(super) const RESERVE_BYTES: u64 = 4 << 20;

/// Free bytes that are enough for the outcomes of what a drain loop has claimed: a frame, and what it is noted with.
const OUTCOME_BYTES: u64 = 2 << 20;

impl Wal {
    /// Bytes of the reserve; none if there never was room for one.
    fn reserve_len(&self) -> DiskResult<Option<u64>> {
        match self.disk.metadata(&self.layout.reserve()) {
            Ok(meta) => Ok(Some(meta.len)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Free bytes that new operations must leave: what is configured, and the room of a reserve that was given up.
    pub(super) fn kept_free(&self) -> DiskResult<u64> {
        let given_up = self.reserve_len()?.is_some_and(|len| len < self.options.reserve_bytes);
        Ok(self.options.min_free_bytes.max(if given_up { self.options.reserve_bytes } else { 0 }))
    }

    /// Makes the reserve if there is none and the disk has room. Its absence is no error: the next checkpoint tries again.
    pub(super) fn keep_reserve(&self) {
        if let Err(error) = self.try_keep_reserve() {
            tracing::debug!(%error, "could not set a reserve aside");
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
            // Written, not merely sized: a file of holes would reserve nothing.
            file.write_at(&vec![0; usize::try_from(wanted).unwrap_or(0)], 0)?;
            file.sync_all()?;
            self.disk.sync_dir(self.layout.base())
        })();
        if made.is_err() {
            // A part of it is of no use.
            self.disk.remove_file(&self.layout.reserve())?;
            if len.is_some() {
                self.disk.open(&self.layout.reserve(), Access::CreateNew)?;
            }
        }
        made
    }

    /// Gives the reserve up; false: there is none.
    fn give_up_reserve(&self) -> WalResult<bool> {
        if self.reserve_len()?.is_none_or(|len| len == 0) {
            return Ok(false);
        }
        match self.disk.remove_file(&self.layout.reserve()) {
            // Somebody else has done so this very moment: there is room now.
            Err(error) if error.is_not_found() => return Ok(true),
            removed => removed?,
        }
        tracing::warn!("the disk is full: giving up the reserve to finish what is logged");
        match self.disk.open(&self.layout.reserve(), Access::CreateNew) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error.into());
            }
            _ => {}
        }
        self.disk.sync_dir(self.layout.base())?;
        Ok(true)
    }

    /// Does what finishes work that is logged; if the disk is full, once more in the room of the reserve.
    pub(super) fn finishing<T>(&self, mut run: impl FnMut() -> WalResult<T>) -> WalResult<T> {
        loop {
            match run() {
                Err(error) if error.is_full() && self.give_up_reserve()? => {}
                other => return other,
            }
        }
    }

    /// The same as [`Wal::transact`] for claims, outcomes and whatever else ends operations: if the disk is full, it
    /// takes the room of the reserve. Not for new operations.
    pub fn transact_finishing<T>(
        &self,
        mut decide: impl FnMut(&mut View) -> WalResult<(Vec<Change>, T)>,
    ) -> WalResult<(Vec<Written>, T)> {
        self.finishing(|| self.transact(&mut decide))
    }

    /// Free bytes, if the outcomes of what would be claimed now may find no room: neither there nor in the reserve.
    pub fn lacks_room_for_outcomes(&self) -> WalResult<Option<u64>> {
        let free = self.disk.free_bytes(self.layout.base())?;
        let there = free >= OUTCOME_BYTES
            || self.reserve_len()?.is_some_and(|len| len >= self.options.reserve_bytes);
        Ok((!there).then_some(free))
    }

    /// What to say of a disk with so few free bytes.
    pub fn no_room_for_outcomes(&self, free: u64) -> WalError {
        WalError::NoRoomForOutcomes {
            path: self.layout.base().to_owned(),
            free,
            wanted: OUTCOME_BYTES,
        }
    }
}
