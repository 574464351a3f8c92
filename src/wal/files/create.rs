//! Creating a log: its first manifest, which lists the files of the original system.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::operation::{Logged, OperationId};
use crate::wal::error::WalResult;
use crate::wal::journal::Header;
use crate::wal::journal::interfaces::LogFiles;
use crate::wal::layout::Layout;
use crate::wal::manifest::{Manifest, Originals};
use crate::wal::original;
use crate::wal::reserve::Reserve;
use crate::wal::spool::check_spooled;

/// The implementation of [`LogFiles`]: the files beside the journal, as its writer needs them.
#[derive(Debug)]
pub(in crate::wal) struct Foundation {
    pub(in crate::wal) disk: Arc<dyn Disk>,
    pub(in crate::wal) clock: Arc<dyn Clock>,
    pub(in crate::wal) layout: Layout,
    pub(in crate::wal) reserve: Arc<Reserve>,
    /// Set when this process has created the log, and not from files of the original system.
    pub(in crate::wal) has_created: Arc<AtomicBool>,
}

impl Foundation {
    /// Returns the files of the original system in this directory, for the manifest of a new log,
    /// and the number of operations in them.
    fn find_originals(&self) -> WalResult<(Option<Originals>, u64)> {
        let found = original::survey(&*self.disk, &self.layout)?;
        if found.files.is_empty() {
            return Ok((None, 0));
        }
        original::check_quiet(&found, &self.layout, self.clock.now())?;
        Ok((Some(Originals { adopted: false, files: found.listing() }), found.rows().count()))
    }
}

impl LogFiles for Foundation {
    fn first_generation(&self) -> WalResult<Option<u64>> {
        let manifest = Manifest::load(&*self.disk, &self.layout)?;
        Ok(manifest.map(|manifest| manifest.first_generation))
    }

    fn create(&self, begin: &mut dyn FnMut(u64) -> WalResult<Header>) -> WalResult<()> {
        let (originals, operations) = self.find_originals()?;
        let header = begin(operations)?;
        let mut manifest = Manifest::new(header.generation, self.clock.now());
        (manifest.revision, manifest.next_number) = (header.revision, header.number);
        // Automatic cleanups must not prune adopted operations before their owner has seen them.
        manifest.last_cleanup = originals.as_ref().map(|_| self.clock.now());
        manifest.originals = originals;
        manifest.commit(&*self.disk, &self.layout)?;
        self.has_created.store(manifest.originals.is_none(), Ordering::Relaxed);
        self.reserve.keep();
        Ok(())
    }

    fn check_content(&self, id: OperationId, logged: &Logged) -> WalResult<()> {
        check_spooled(&*self.disk, &self.layout, id, logged)
    }
}
