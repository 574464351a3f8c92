//! The interfaces through which the journal uses the rest of the log.

use std::fmt::Debug;

use super::format::{FrameKind, Header};
use super::reader::Position;
use crate::operation::{Logged, Number, OperationId, Revision, Status};
use crate::wal::change::Written;
use crate::wal::error::{Damage, WalResult};

/// The state of the log as a writer sees it. The writer decides on this state, and updates it with
/// every frame that it appends.
pub(in crate::wal) trait JournalView: Debug {
    /// Reads the frames that were appended since the last call.
    fn catch_up(&mut self) -> WalResult<()>;

    /// Discards the state, and reads the whole log again.
    fn reload(&mut self) -> WalResult<()>;

    /// Returns true if the log has not changed since it was read, and its journal ends at this
    /// frame: with this checksum, at offset `end` of `generation`.
    fn is_at(&self, generation: u64, end: u64, checksum: u32) -> WalResult<bool>;

    /// Applies a frame that this process has just appended, without reading it back.
    fn advance(&mut self, kind: FrameKind, payload: &[u8], after: Position) -> WalResult<()>;

    /// Returns the end of the journal; none if there is no log yet.
    fn position(&self) -> Option<Position>;

    /// Returns the damage to the journal, if any was found.
    fn journal_damage(&self) -> Option<&Damage>;

    /// Returns the revision and the status of an operation; none if it does not exist.
    fn revision_and_status(
        &self,
        number: Number,
        id: OperationId,
    ) -> WalResult<Option<(Revision, Status)>>;

    /// Returns true if the log contains this transition by this actor.
    fn has_transition(&self, written: &Written, actor: &str) -> WalResult<bool>;
}

/// The files, other than those of the journal, that a writer needs.
pub(in crate::wal) trait LogFiles: Debug + Send + Sync {
    /// Returns the first generation of the journal; none if there is no log yet.
    fn first_generation(&self) -> WalResult<Option<u64>>;

    /// Creates a log.
    ///
    /// Calls `begin` with the number of operations that the log starts with. `begin` makes the
    /// first generation durable; then the manifest that names it is committed.
    fn create(&self, begin: &mut dyn FnMut(u64) -> WalResult<Header>) -> WalResult<()>;

    /// Fails if the operation refers to spooled content that does not exist. Called under `lock`,
    /// before the frame of the operation is written.
    fn check_content(&self, id: OperationId, logged: &Logged) -> WalResult<()>;
}
