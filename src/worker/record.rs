use std::collections::BTreeMap;

use super::Environment;
use super::dependencies::still_fails;
use super::settle::honour_cancel;
use crate::operation::{Event, Number, Operation, Status, Transition, apply, failure};
use crate::wal::{Change, Known, WalResult, Written};

/// Writes events with one flush. Returns those that were written, with the operations that result.
///
/// An event is skipped if another process has changed its operation since, unless the claim is
/// still that of this loop.
pub(super) fn record(
    env: Environment<'_>,
    events: Vec<(Operation, Event)>,
) -> WalResult<Vec<(Operation, Event)>> {
    let (written, mut newer) = env.wal.transact_finishing(|view| {
        let mut changes = Vec::with_capacity(events.len());
        let mut newer: BTreeMap<Number, Operation> = BTreeMap::new();
        for (operation, event) in &events {
            let current = view.revision_and_status(operation.number, operation.id)?;
            let is_current = current == Some((operation.revision, operation.status()));
            if is_current && !still_fails(view, operation, event)? {
                continue;
            }
            if is_current {
                changes.push(Change::Next(
                    Known::from(operation),
                    honour_cancel(operation, event.clone()),
                ));
                continue;
            }
            let Some(now) = view.operation(operation.number)? else { continue };
            if now.id == operation.id && now.claim().is_some() && now.claim() == operation.claim() {
                changes.push(Change::Next(Known::from(&now), honour_cancel(&now, event.clone())));
                newer.insert(now.number, now);
            }
        }
        Ok((changes, newer))
    })?;
    let written: BTreeMap<Number, Written> =
        written.into_iter().map(|written| (written.number, written)).collect();
    let at = env.clock.now();
    let mut recorded = Vec::with_capacity(events.len());
    for (operation, event) in events {
        let Some(written) = written.get(&operation.number) else {
            tracing::debug!(
                number = operation.number.get(),
                "changed by another process in the meantime; that change remains"
            );
            continue;
        };
        let operation = newer.remove(&operation.number).unwrap_or(operation);
        let event = honour_cancel(&operation, event);
        let transition = Transition {
            revision: written.revision,
            number: operation.number,
            id: operation.id,
            at,
            from: Some(operation.status()),
            operation_type: operation.operation_type.clone(),
            backend: operation.backend.clone(),
            actor: env.wal.actor().to_owned(),
            event,
        };
        let Some(operation) = apply(Some(operation), &transition)? else { continue };
        tracing::debug!(number = operation.number.get(), status = %operation.status(), "recorded");
        if operation.status() == Status::Completed {
            env.wal.release_spool(&operation);
        }
        let is_known =
            operation.state.failure().is_none_or(|failure| failure.error_type != failure::IN_DOUBT);
        if let Some(backend) = env
            .backends
            .get(&operation.backend)
            .filter(|_| operation.status() != Status::Processing && is_known)
        {
            backend.release_attempt(operation.number);
        }
        recorded.push((operation, transition.event));
    }
    Ok(recorded)
}
