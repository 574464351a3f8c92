//! What the journal needs of the rest of the log. It knows neither a manifest nor a Parquet file.

use std::fmt::Debug;

use super::format::{FrameKind, Header};
use super::reader::Position;
use crate::operation::{Logged, Number, OperationId, Revision, Status};
use crate::wal::change::Written;
use crate::wal::error::{Damage, WalResult};

/// The log as a writer sees it: it decides on this, and keeps it in step with what it appends.
pub(in crate::wal) trait JournalView: Debug {
    /// Reads what was appended since the last call.
    fn catch_up(&mut self) -> WalResult<()>;

    /// Reads everything again.
    fn reload(&mut self) -> WalResult<()>;

    /// Returns true if the log still is what was read, with its journal ending here.
    fn is_at(&self, generation: u64, end: u64, checksum: u32) -> WalResult<bool>;

    /// Applies a frame that was just written at the end; it need not be read back.
    fn advance(&mut self, kind: FrameKind, payload: &[u8], after: Position) -> WalResult<()>;

    /// Returns the end of the journal, if there is one.
    fn position(&self) -> Option<Position>;

    /// Returns what of the journal cannot be read.
    fn journal_damage(&self) -> Option<&Damage>;

    /// Returns revision and status of an operation, if it exists.
    fn revision_and_status(
        &self,
        number: Number,
        id: OperationId,
    ) -> WalResult<Option<(Revision, Status)>>;

    /// Returns true if the log holds what this actor wrote.
    fn has_transition(&self, written: &Written, actor: &str) -> WalResult<bool>;
}

/// What a writer needs of the files beside the journal.
pub(in crate::wal) trait LogFiles: Debug + Send + Sync {
    /// Returns the generation that the journal begins with; none if there is no log yet.
    fn first_generation(&self) -> WalResult<Option<u64>>;

    /// Makes a new log.
    ///
    /// Calls `begin` with the number of operations that the log starts with; once that has made the
    /// first generation durable, commits the manifest that names it.
    fn create(&self, begin: &mut dyn FnMut(u64) -> WalResult<Header>) -> WalResult<()>;

    /// Fails unless the spooled content that the frame of an operation will name exists. Called
    /// under `lock`.
    fn check_content(&self, id: OperationId, logged: &Logged) -> WalResult<()>;
}
