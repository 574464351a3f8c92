//! An index of the journal's transitions by operation. Only their fixed parts are decoded.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::operation::{
    self, BackendName, Event, Number, Operation, OperationId, OperationType, Revision, Status, Time,
};
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::journal::reader::{FrameContent, Position, ReadFrame};
use crate::wal::journal::{Payload, Record};
use crate::wal::layout::Layout;

/// The text that the encoded event of an operation with an idempotency key contains.
const KEY_FIELD: &str = "\"idempotency_key\":";

/// The transitions of the journal that were read, by operation.
#[derive(Debug, Default)]
pub(super) struct JournalIndex {
    pub(super) position: Option<Position>,
    /// The revision of the last frame that was applied.
    pub(super) revision: Option<Revision>,
    payloads: Vec<Payload>,
    /// The operations with transitions in the journal.
    pub(super) touched: BTreeMap<Number, JournalEntry>,
    /// The numbers of the operations in `touched` by id, computed on first use.
    ids: OnceLock<HashMap<OperationId, Number>>,
    /// The number of payloads that were searched for idempotency keys, and the operations found.
    keys: Mutex<(usize, HashMap<String, Number>)>,
    pub(super) kinds: Vec<Kind>,
    pub(super) damage: Option<Damage>,
    /// The number of bytes of all payloads.
    pub(super) bytes: u64,
    /// The time of the first transition.
    pub(super) oldest: Option<Time>,
    /// The operations that changed since the last [`super::view::View::take_changed`]; none while
    /// the whole journal is read.
    pub(super) changed: Option<BTreeSet<Number>>,
}

/// The changes to the counts of one type and backend that the journal causes, by status.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) operation_type: OperationType,
    pub(super) backend: BackendName,
    pub(super) change: [i64; 5],
}

/// An operation with transitions in the journal.
#[derive(Debug)]
pub(super) struct JournalEntry {
    pub(super) id: OperationId,
    pub(super) kind: usize,
    /// Its status after the last transition; none if it was deleted.
    pub(super) status: Option<Status>,
    pub(super) revision: Revision,
    /// True if the journal contains its first transition, so that no file holds it.
    pub(super) logged: bool,
    first: RecordPosition,
    more: Vec<RecordPosition>,
}

impl JournalEntry {
    fn records(&self) -> impl Iterator<Item = &RecordPosition> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

/// The position of a record in the payloads.
#[derive(Debug, Clone, Copy)]
struct RecordPosition {
    payload: u32,
    offset: u32,
    /// Its index in the payload, which determines its revision.
    index: u32,
}

/// The fields of an operation that are known without decoding an event.
#[derive(Debug, Clone)]
pub struct OperationSummary {
    /// The number.
    pub number: Number,
    /// The id.
    pub id: OperationId,
    /// The status.
    pub status: Status,
    /// The revision of its last transition.
    pub revision: Revision,
    /// The backend.
    pub backend: BackendName,
}

impl JournalIndex {
    /// Applies frames that follow those applied before.
    pub(super) fn apply_frames(&mut self, frames: Vec<ReadFrame>) -> WalResult<()> {
        for frame in frames {
            self.revision = Some(frame.after.revision);
            // A reservation changes no operation. Those of its batch are in files once it is
            // committed.
            let FrameContent::Transitions(payload) = frame.content else { continue };
            self.bytes += payload.bytes().len() as u64;
            let payload_index = self.payloads.len() as u32;
            for (index, (offset, record)) in payload.records().enumerate() {
                if self.oldest.is_none() {
                    self.oldest = Some(record.at);
                }
                let kind = kind_of(&mut self.kinds, &record)?;
                if let Some(from) = record.from {
                    self.kinds[kind].change[from as usize] -= 1;
                }
                if let Some(to) = record.to {
                    self.kinds[kind].change[to as usize] += 1;
                }
                let at = RecordPosition {
                    payload: payload_index,
                    offset: offset as u32,
                    index: index as u32,
                };
                let revision = payload.revision.saturating_add(index as u64);
                match self.touched.entry(record.number) {
                    MapEntry::Vacant(vacant) => {
                        vacant.insert(JournalEntry {
                            id: record.id,
                            kind,
                            status: record.to,
                            revision,
                            logged: record.from.is_none(),
                            first: at,
                            more: Vec::new(),
                        });
                    }
                    MapEntry::Occupied(mut occupied) => {
                        let touched = occupied.get_mut();
                        (touched.status, touched.revision) = (record.to, revision);
                        touched.more.push(at);
                    }
                }
                if let Some(changed) = &mut self.changed {
                    changed.insert(record.number);
                }
            }
            self.ids = OnceLock::new();
            self.payloads.push(payload);
        }
        Ok(())
    }

    /// Applies the transitions of an operation to its row; `base` is none if the journal logged it.
    pub(super) fn fold(
        &self,
        layout: &Layout,
        base: Option<Operation>,
        entry: &JournalEntry,
    ) -> WalResult<Option<Operation>> {
        let mut operation = base;
        for at in entry.records() {
            let payload = &self.payloads[at.payload as usize];
            let revision = payload.revision.saturating_add(u64::from(at.index));
            let transition = payload
                .record_at(at.offset as usize)
                .and_then(|(record, _)| record.decode(revision, payload.actor()))
                .ok_or_else(|| invalid_transition(layout, revision, "it cannot be decoded"))?;
            operation = operation::apply(operation, &transition)
                .map_err(|error| invalid_transition(layout, revision, &error.to_string()))?;
        }
        Ok(operation)
    }

    /// Returns the numbers of the operations in the journal by id.
    pub(super) fn ids(&self) -> &HashMap<OperationId, Number> {
        let touched = &self.touched;
        self.ids
            .get_or_init(|| touched.iter().map(|(number, touched)| (touched.id, *number)).collect())
    }

    pub(super) fn summary_of(
        &self,
        number: Number,
        touched: &JournalEntry,
    ) -> Option<OperationSummary> {
        let kind = &self.kinds[touched.kind];
        let status = touched.status?;
        Some(OperationSummary {
            number,
            id: touched.id,
            status,
            revision: touched.revision,
            backend: kind.backend.clone(),
        })
    }

    /// Returns the operation that the journal logged with this idempotency key.
    pub(super) fn logged_with_key(&self, key: &str) -> Option<Number> {
        self.keys_in_journal().1.get(key).copied()
    }

    /// Returns all idempotency keys that the journal logged.
    pub(super) fn logged_keys(&self) -> Vec<(String, Number)> {
        self.keys_in_journal().1.iter().map(|(key, number)| (key.clone(), *number)).collect()
    }

    fn keys_in_journal(&self) -> MutexGuard<'_, (usize, HashMap<String, Number>)> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, numbers) = &mut *keys;
        for payload in &self.payloads[*seen..] {
            let logged = payload
                .records()
                .filter(|(_, record)| record.from.is_none() && record.mentions(KEY_FIELD));
            for (_, record) in logged {
                let Some(transition) = record.decode(payload.revision, payload.actor()) else {
                    continue;
                };
                if let Event::Logged(logged) = transition.event
                    && let Some(key) = logged.idempotency_key
                {
                    numbers.insert(key, record.number);
                }
            }
        }
        *seen = self.payloads.len();
        keys
    }
}

fn invalid_transition(layout: &Layout, revision: Revision, why: &str) -> WalError {
    WalError::damaged(layout.journal(), None, format!("transition {revision} is invalid: {why}"))
}

fn kind_of(kinds: &mut Vec<Kind>, record: &Record<'_>) -> WalResult<usize> {
    let known = kinds.iter().position(|kind| {
        kind.operation_type.as_str() == record.operation_type
            && kind.backend.as_str() == record.backend
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let bad = |error: crate::operation::InvalidName| {
        WalError::damaged("journal", None, error.to_string())
    };
    kinds.push(Kind {
        operation_type: OperationType::new(record.operation_type).map_err(bad)?,
        backend: BackendName::new(record.backend).map_err(bad)?,
        change: [0; 5],
    });
    Ok(kinds.len() - 1)
}
