use super::{
    BackendName, Event, HistoryEntry, Number, Operation, OperationId, OperationType, Outcome,
    Revision, Source, State, Status, Time, Wait,
};

/// The largest values that the columns of Parquet files hold. Larger ones would differ between an
/// operation folded from the journal and the same operation read from a file.
const SIZE_KEPT: u64 = i64::MAX as u64;
const MAX_RETRIES_KEPT: u32 = i32::MAX as u32;

/// One recorded change of an operation, as the journal contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Its position among all transitions of the log.
    pub revision: Revision,
    /// The operation's number.
    pub number: Number,
    /// The operation's id.
    pub id: OperationId,
    /// The time of the change.
    pub at: Time,
    /// The status before; `None` when the operation is logged.
    pub from: Option<Status>,
    /// The operation's type. Together with `backend`, `from` and `to` it suffices for counting.
    pub operation_type: OperationType,
    /// The operation's backend.
    pub backend: BackendName,
    /// The process that wrote it, as `user@host command[pid]`.
    pub actor: String,
    /// The change itself.
    pub event: Event,
}

impl Transition {
    /// Returns the status after; `None` if the operation is deleted.
    pub fn to(&self) -> Option<Status> {
        self.event.to(self.from)
    }
}

/// A transition that cannot follow from the current state of its operation.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// The status does not allow the event.
    #[error(
        "operation {number} is {}; it cannot be {past_participle}",
        from.map_or("not logged", Status::as_str)
    )]
    Status {
        /// The operation.
        number: Number,
        /// Its status.
        from: Option<Status>,
        /// The refused event, as a past participle.
        past_participle: &'static str,
    },
    /// The transition was recorded for another status, operation or an older revision.
    #[error("transition {revision} cannot be applied to operation {number}: {why}")]
    OutOfOrder {
        /// The transition.
        revision: Revision,
        /// The operation.
        number: Number,
        /// The mismatch.
        why: &'static str,
    },
}

/// Returns the operation after `transition`, or `None` if it is deleted.
///
/// `before` is `None` only for the transition that logs the operation. The result depends on the
/// arguments alone, so that every process that folds the same records gets the same state. Fails if
/// the transition cannot follow from `before`.
pub fn apply(
    before: Option<Operation>,
    transition: &Transition,
) -> Result<Option<Operation>, IllegalTransition> {
    let status = before.as_ref().map(Operation::status);
    let illegal = || IllegalTransition::Status {
        number: transition.number,
        from: status,
        past_participle: transition.event.past_participle(),
    };
    if !transition.event.is_legal_from(status) {
        return Err(illegal());
    }
    let out_of_order = |why| IllegalTransition::OutOfOrder {
        revision: transition.revision,
        number: transition.number,
        why,
    };
    if transition.from != status {
        return Err(out_of_order("it was recorded for another status"));
    }
    if let Some(before) = &before {
        if before.id != transition.id || before.number != transition.number {
            return Err(out_of_order("it belongs to another operation"));
        }
        if before.revision >= transition.revision {
            return Err(out_of_order("a later one has been applied"));
        }
    }
    let at = transition.at;
    let mut operation = match (before, &transition.event) {
        (Some(before), _) => before,
        (None, Event::Logged(logged)) => Operation {
            id: transition.id,
            number: transition.number,
            revision: transition.revision,
            operation_type: transition.operation_type.clone(),
            backend: transition.backend.clone(),
            parameters: logged.parameters.clone(),
            logged_at: at,
            updated_at: at,
            retry_count: 0,
            max_retries: logged.max_retries.min(MAX_RETRIES_KEPT),
            priority: logged.priority,
            depends_on: logged.depends_on.clone(),
            idempotency_key: logged.idempotency_key.clone(),
            hold: logged.hold,
            not_before: logged.not_before,
            interruptions: 0,
            source: logged
                .source
                .clone()
                .map(|source| Source { size: source.size.min(SIZE_KEPT), ..source }),
            redirected_from: logged.redirected_from,
            redirected_to: None,
            state: State::Pending { last_failure: None },
            history: Vec::with_capacity(3),
        },
        (None, _) => return Err(illegal()),
    };
    let Some(to) = transition.to() else { return Ok(None) };
    operation.state = next_state(&mut operation, transition);
    operation.revision = transition.revision;
    operation.updated_at = at;
    operation.history.push(HistoryEntry {
        revision: transition.revision,
        at,
        from: transition.from,
        to,
        actor: transition.actor.clone(),
        reason: transition.event.reason(),
        error: transition.event.failure().map(|failure| failure.message.clone()),
    });
    Ok(Some(operation))
}

fn next_state(operation: &mut Operation, transition: &Transition) -> State {
    let at = transition.at;
    match &transition.event {
        Event::Logged(_) => State::Pending { last_failure: None },
        Event::Claimed { claim } => {
            let last_failure = operation.state.failure().cloned();
            State::Processing { claim: claim.clone(), last_failure, cancel_requested: false }
        }
        Event::Completed { outcome } => {
            let size = outcome.size.map(|size| size.min(SIZE_KEPT));
            State::Completed { at, outcome: Outcome { size, ..outcome.clone() } }
        }
        Event::Failed { failure } => State::Failed { at, failure: failure.clone() },
        Event::Retrying { failure, until } => {
            operation.retry_count = operation.retry_count.saturating_add(1);
            State::Retrying { failure: failure.clone(), wait: Wait { since: at, until: *until } }
        }
        Event::Requeued { interrupted, failure, .. } => {
            operation.interruptions =
                operation.interruptions.saturating_add(u32::from(*interrupted));
            let last_failure = failure.clone().or_else(|| operation.state.failure().cloned());
            State::Pending { last_failure }
        }
        Event::BackoffEnded { .. } => {
            State::Pending { last_failure: operation.state.failure().cloned() }
        }
        Event::Retried { forget, source, .. } => {
            if let Some(source) = source {
                operation.source = Some((**source).clone());
            }
            operation.depends_on.retain(|id| !forget.contains(id));
            // An operation that was redirected is retried only after its replacement was deleted.
            operation.redirected_to = None;
            operation.retry_count = 0;
            operation.interruptions = 0;
            State::Pending { last_failure: operation.state.failure().cloned() }
        }
        Event::Held { .. } | Event::HoldReleased { .. } => {
            operation.hold = matches!(transition.event, Event::Held { .. });
            operation.state.clone()
        }
        Event::Prioritized { priority } => {
            operation.priority = *priority;
            operation.state.clone()
        }
        Event::CancelRequested { .. } => match operation.state.clone() {
            State::Processing { claim, last_failure, .. } => {
                State::Processing { claim, last_failure, cancel_requested: true }
            }
            other => other,
        },
        Event::DependenciesDone { ids } => {
            operation.depends_on.retain(|id| !ids.contains(id));
            operation.state.clone()
        }
        Event::Redirected { to, failure } => {
            operation.redirected_to = Some(*to);
            match operation.state.clone() {
                failed @ State::Failed { .. } => failed,
                _ => State::Failed { at, failure: failure.clone() },
            }
        }
        Event::Reopened { to } => {
            operation.redirected_to = Some(*to);
            operation.state.clone()
        }
        Event::Abandoned { failure } => {
            let at = match &operation.state {
                State::Failed { at, .. } => *at,
                _ => at,
            };
            State::Failed { at, failure: failure.clone() }
        }
        // `apply` returns before this is used.
        Event::Deleted { .. } => operation.state.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn transition(revision: Revision, from: Option<Status>, event: Event) -> Transition {
        Transition {
            revision,
            number: Number::FIRST,
            id: OperationId::from_bytes([7; 16]),
            at: Time::from_millis(revision.get() as i64),
            from,
            operation_type: OperationType::new("add").unwrap(),
            backend: BackendName::new("local").unwrap(),
            actor: "test".into(),
            event,
        }
    }

    fn fold(before: Option<Operation>, transition: Transition) -> Operation {
        apply(before, &transition).unwrap().unwrap()
    }

    fn failure() -> Failure {
        Failure { class: FailureClass::Transient, error_type: "x".into(), message: "y".into() }
    }

    fn events() -> Vec<Event> {
        let claim = Claim { pid: 1, host: "h".into(), started: Time::from_millis(0) };
        vec![
            Event::Logged(Box::new(Logged::new(
                OperationType::new("add").unwrap(),
                BackendName::new("local").unwrap(),
                Fields::new(),
                5,
            ))),
            Event::Claimed { claim },
            Event::Completed { outcome: Outcome::default() },
            Event::Failed { failure: failure() },
            Event::Retrying { failure: failure(), until: Time::from_millis(99) },
            Event::Requeued { reason: "outage".into(), interrupted: true, failure: None },
            Event::BackoffEnded { reason: "now".into() },
            Event::Retried { reason: "by hand".into(), forget: Vec::new(), source: None },
            Event::Held { reason: "by hand".into() },
            Event::HoldReleased { reason: "by hand".into() },
            Event::Prioritized { priority: 3 },
            Event::CancelRequested { reason: "by hand".into() },
            Event::DependenciesDone { ids: vec![OperationId::from_bytes([9; 16])] },
            Event::Redirected { to: OperationId::from_bytes([8; 16]), failure: failure() },
            Event::Abandoned { failure: failure() },
            Event::Reopened { to: OperationId::from_bytes([8; 16]) },
            Event::Deleted { reason: "by hand".into() },
        ]
    }

    /// Tries every event from every status.
    #[test]
    fn only_legal_changes_of_status_are_possible() {
        use Status::*;
        let legal = [
            (None, Some(Pending)),
            (Some(Pending), Some(Processing)),
            (Some(Retrying), Some(Processing)),
            (Some(Processing), Some(Completed)),
            (Some(Processing), Some(Failed)),
            (Some(Processing), Some(Retrying)),
            (Some(Processing), Some(Pending)),
            (Some(Retrying), Some(Pending)),
            (Some(Failed), Some(Pending)),
            (Some(Pending), Some(Failed)),
            (Some(Retrying), Some(Failed)),
            // Events that keep the status, and deletions.
            (Some(Pending), Some(Pending)),
            (Some(Processing), Some(Processing)),
            (Some(Retrying), Some(Retrying)),
            (Some(Failed), Some(Failed)),
            (Some(Completed), Some(Completed)),
            (Some(Pending), None),
            (Some(Retrying), None),
            (Some(Completed), None),
            (Some(Failed), None),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for from in std::iter::once(None).chain(Status::ALL.map(Some)) {
            for event in events() {
                if event.is_legal_from(from) {
                    assert!(legal.contains(&(from, event.to(from))), "{from:?} {event:?}");
                    seen.insert((from, event.to(from)));
                }
            }
        }
        assert_eq!(seen.len(), legal.len());
        for (from, to) in Status::ALL.into_iter().flat_map(|from| Status::ALL.map(|to| (from, to)))
        {
            assert_eq!(
                from.may_become(to),
                legal.contains(&(Some(from), Some(to))),
                "{from} to {to}"
            );
        }
    }

    #[test]
    fn transitions_are_folded_into_state_counters_and_history() {
        let mut events = events().into_iter();
        let mut next = || events.next().unwrap();
        let logged = next();
        let claimed = next();
        let op = fold(None, transition(Revision::new(1), None, logged));
        let op =
            fold(Some(op), transition(Revision::new(2), Some(Status::Pending), claimed.clone()));
        let retrying = Event::Retrying { failure: failure(), until: Time::from_millis(99) };
        let op = fold(Some(op), transition(Revision::new(3), Some(Status::Processing), retrying));
        assert_eq!(op.retry_count, 1);
        assert!(!op.is_due(Time::from_millis(50)));
        assert!(op.is_due(Time::from_millis(99)));
        assert!(
            op.is_due(Time::from_millis(2)),
            "a clock that jumped before the start ends the wait"
        );
        let op = fold(Some(op), transition(Revision::new(4), Some(Status::Retrying), claimed));
        let op = fold(
            Some(op),
            transition(
                Revision::new(5),
                Some(Status::Processing),
                Event::Completed { outcome: Outcome::default() },
            ),
        );
        assert_eq!(op.history.len(), 5);
        assert_eq!(op.status(), Status::Completed);
        let again = transition(
            Revision::new(6),
            Some(Status::Completed),
            Event::Retried { reason: "no".into(), forget: Vec::new(), source: None },
        );
        assert!(matches!(apply(Some(op), &again), Err(IllegalTransition::Status { .. })));
    }

    #[test]
    fn values_are_capped_at_the_range_of_their_columns() {
        let Event::Logged(mut logged) = events().remove(0) else { unreachable!() };
        logged.max_retries = u32::MAX;
        logged.source = Some(Source {
            size: u64::MAX,
            mtime_ns: -1,
            inode: u64::MAX,
            ctime_ns: None,
            sha256: None,
            spool: None,
        });
        let op = fold(None, transition(Revision::new(1), None, Event::Logged(logged)));
        assert_eq!(
            (op.max_retries, op.source.as_ref().unwrap().size),
            (i32::MAX as u32, i64::MAX as u64)
        );
        let op =
            fold(Some(op), transition(Revision::new(2), Some(Status::Pending), events().remove(1)));
        let outcome = Outcome { size: Some(u64::MAX), ..Outcome::default() };
        let op = fold(
            Some(op),
            transition(Revision::new(3), Some(Status::Processing), Event::Completed { outcome }),
        );
        assert!(matches!(
            op.state,
            State::Completed { outcome: Outcome { size: Some(SIZE_KEPT), .. }, .. }
        ));
    }

    #[test]
    fn an_old_or_foreign_transition_is_refused() {
        let logged = events().remove(0);
        let op = fold(None, transition(Revision::new(5), None, logged));
        let claim = events().remove(1);
        let old = transition(Revision::new(5), Some(Status::Pending), claim.clone());
        assert!(matches!(apply(Some(op.clone()), &old), Err(IllegalTransition::OutOfOrder { .. })));
        let mut foreign = transition(Revision::new(6), Some(Status::Pending), claim);
        foreign.number = Number::new(2);
        assert!(matches!(apply(Some(op), &foreign), Err(IllegalTransition::OutOfOrder { .. })));
    }

    #[test]
    fn events_that_keep_the_status_change_one_field_only() {
        let op = fold(None, transition(Revision::new(1), None, events().remove(0)));
        let op = fold(
            Some(op),
            transition(Revision::new(2), Some(Status::Pending), Event::Held { reason: "x".into() }),
        );
        assert!(op.hold && !op.is_due(Time::from_millis(9)) && op.status() == Status::Pending);
        let op = fold(
            Some(op),
            transition(
                Revision::new(3),
                Some(Status::Pending),
                Event::HoldReleased { reason: "x".into() },
            ),
        );
        let op = fold(
            Some(op),
            transition(Revision::new(4), Some(Status::Pending), Event::Prioritized { priority: 7 }),
        );
        assert!(op.is_due(Time::from_millis(9)));
        assert_eq!((op.priority, op.history.len(), op.retry_count), (7, 4, 0));
        let op =
            fold(Some(op), transition(Revision::new(5), Some(Status::Pending), events().remove(1)));
        let cancel = Event::CancelRequested { reason: "x".into() };
        let op = fold(Some(op), transition(Revision::new(6), Some(Status::Processing), cancel));
        assert!(matches!(
            &op.state,
            State::Processing { cancel_requested: true, claim, .. } if claim.pid == 1
        ));
        assert!(matches!(
            apply(
                Some(op),
                &transition(
                    Revision::new(7),
                    Some(Status::Processing),
                    Event::Deleted { reason: "x".into() }
                )
            ),
            Err(IllegalTransition::Status { .. })
        ));
    }

    #[test]
    fn a_redirect_fails_waiting_operations_and_keeps_old_failures() {
        let to = OperationId::from_bytes([8; 16]);
        let redirected = Failure { error_type: "redirected".into(), ..failure() };
        let event = Event::Redirected { to, failure: redirected.clone() };
        let op = fold(None, transition(Revision::new(1), None, events().remove(0)));
        let waiting = fold(
            Some(op.clone()),
            transition(Revision::new(2), Some(Status::Pending), event.clone()),
        );
        assert_eq!(waiting.state, State::Failed { at: Time::from_millis(2), failure: redirected });
        let failed = fold(
            Some(op),
            transition(
                Revision::new(2),
                Some(Status::Pending),
                Event::Failed { failure: failure() },
            ),
        );
        let redirected =
            fold(Some(failed.clone()), transition(Revision::new(3), Some(Status::Failed), event));
        assert_eq!((redirected.state, redirected.redirected_to), (failed.state, Some(to)));
    }

    #[test]
    fn a_reopened_operation_stays_completed_and_names_its_successor() {
        let to = OperationId::from_bytes([8; 16]);
        let op = fold(None, transition(Revision::new(1), None, events().remove(0)));
        let early = apply(
            Some(op.clone()),
            &transition(Revision::new(2), Some(Status::Pending), Event::Reopened { to }),
        );
        assert!(matches!(early, Err(IllegalTransition::Status { .. })));
        let op =
            fold(Some(op), transition(Revision::new(2), Some(Status::Pending), events().remove(1)));
        let done =
            Event::Completed { outcome: Outcome { cid: Some("x".into()), ..Outcome::default() } };
        let op = fold(Some(op), transition(Revision::new(3), Some(Status::Processing), done));
        let reopened = fold(
            Some(op.clone()),
            transition(Revision::new(4), Some(Status::Completed), Event::Reopened { to }),
        );
        assert_eq!(
            (&reopened.state, reopened.redirected_to),
            (&op.state, Some(to)),
            "its result and its day are kept"
        );
        assert_eq!((reopened.revision, reopened.history.len()), (Revision::new(4), 4));
        assert!(!reopened.is_abandoned());
        // If its successor has failed, it may be reopened again.
        let third = OperationId::from_bytes([9; 16]);
        let again = Event::Reopened { to: third };
        let again =
            fold(Some(reopened), transition(Revision::new(5), Some(Status::Completed), again));
        assert_eq!(again.redirected_to, Some(third));
    }

    #[test]
    fn nothing_is_left_of_a_deleted_operation() {
        let op = fold(None, transition(Revision::new(1), None, events().remove(0)));
        let gone = apply(
            Some(op),
            &transition(
                Revision::new(2),
                Some(Status::Pending),
                Event::Deleted { reason: "x".into() },
            ),
        );
        assert_eq!(gone, Ok(None));
    }
}
