//! The idempotency keys that the journal holds.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use super::view::View;
use crate::operation::{Event, Number};

/// How the event of an operation with an idempotency key names it.
const KEY_FIELD: &str = "\"idempotency_key\":";

impl View {
    /// The operation that the journal logged with this idempotency key.
    pub(in crate::wal) fn logged_with_key(&self, key: &str) -> Option<Number> {
        self.keys_in_journal().1.get(key).copied()
    }

    /// All idempotency keys that the journal logged.
    pub(in crate::wal) fn logged_keys(&self) -> Vec<(String, Number)> {
        self.keys_in_journal().1.iter().map(|(key, number)| (key.clone(), *number)).collect()
    }

    fn keys_in_journal(&self) -> MutexGuard<'_, (usize, HashMap<String, Number>)> {
        let mut keys = self.journal.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, numbers) = &mut *keys;
        for payload in &self.journal.payloads[*seen..] {
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
        *seen = self.journal.payloads.len();
        keys
    }
}
