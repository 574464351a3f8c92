//! The files beside the journal, as their writers share them.

use std::sync::Arc;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::wal::layout::Layout;
use crate::wal::options::Options;
use crate::wal::read::SharedJournal;
use crate::wal::reserve::Reserve;
use crate::wal::spool::Spool;

/// The manifest and the files that it names. They are changed only while `checkpoint.lock` is held.
#[derive(Debug)]
pub(in crate::wal) struct FileStore {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) layout: Layout,
    pub(super) options: Arc<Options>,
    pub(super) journal: Arc<SharedJournal>,
    pub(super) reserve: Arc<Reserve>,
    pub(super) spool: Arc<Spool>,
}

impl FileStore {
    pub(in crate::wal) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        layout: Layout,
        options: Arc<Options>,
        journal: Arc<SharedJournal>,
        reserve: Arc<Reserve>,
        spool: Arc<Spool>,
    ) -> FileStore {
        FileStore { disk, clock, layout, options, journal, reserve, spool }
    }
}
