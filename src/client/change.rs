use std::collections::{BTreeMap, BTreeSet};

use super::{Client, ClientError, Reference};
use crate::operation::{
    BackendName, Event, Failure, FailureClass, Logged, Number, Operation, OperationId, State,
    Status, failure,
};
use crate::wal::{Change, Fate, Known, View, Wal, WalResult, journal};
use crate::worker;

/// Changes written at a time, so that the lock is held for a moment only.
const AT_ONCE: usize = 500;

/// Bytes of redirected operations written at a time: each is a pair that has to stand in one frame.
pub(super) const REDIRECTED_BYTES: usize = 512 << 10;

/// What somebody asks of operations that are there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Not to be carried out; one that runs is asked to stop. `permanent`: marked as one that never succeeds.
    Cancel {
        /// Also what has failed already.
        permanent: bool,
    },
    /// To be set aside.
    Hold,
    /// To be set aside no longer.
    Release,
    /// To be forgotten, with its history.
    Delete,
    /// To change its place in the order.
    Prioritize(i32),
    /// To be tried again; `now` keeps the counters of what waits for its next attempt.
    Retry {
        /// Only the wait ends.
        now: bool,
    },
    /// To be tried on another backend, as a new operation.
    Redirect(BackendName),
}

impl Action {
    /// What is done to an operation, for messages.
    pub fn past_participle(&self) -> &'static str {
        match self {
            Action::Cancel { .. } => "cancelled",
            Action::Hold => "held",
            Action::Release => "released",
            Action::Delete => "deleted",
            Action::Prioritize(_) => "moved in the order",
            Action::Retry { .. } => "retried",
            Action::Redirect(_) => "redirected",
        }
    }
}

/// An operation to which something does not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: OperationId,
    /// Its status.
    pub status: Status,
    /// Why, and what to do instead.
    pub why: String,
}

/// The outcome of an action.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// The operations as they are now; deleted ones as they were.
    pub operations: Vec<Operation>,
    /// Those that were like that already.
    pub unchanged: Vec<Operation>,
    /// Those to which it does not apply; only if they were selected rather than named.
    pub skipped: Vec<Skipped>,
    /// The new operations that redirected ones went on as, in the order of `operations`.
    pub redirected_to: Vec<Operation>,
}

/// What an action means for one operation.
enum Effect {
    Event(Event),
    Unchanged,
    Refused(String),
}

impl Client {
    /// Does something to operations; durable when this returns.
    ///
    /// With `strict`, nothing is changed if it does not apply to one of them; otherwise those are skipped.
    pub fn change(
        &self,
        references: &[Reference],
        action: &Action,
        strict: bool,
    ) -> Result<Changed, ClientError> {
        let mut operations: Vec<Operation> = Vec::with_capacity(references.len());
        let mut seen = BTreeSet::new();
        for reference in references {
            let operation = self.operation(reference)?;
            if seen.insert(operation.number) {
                operations.push(operation);
            }
        }
        let mut dependents = BTreeMap::new();
        if *action == Action::Delete {
            // Dependents have higher numbers: they go before what they wait for.
            operations.sort_by_key(|operation| std::cmp::Reverse(operation.number));
            // What stays keeps what it waits for.
            loop {
                dependents = self.look(|view| others_that_wait(view, &operations, &seen))?;
                let stays = |one: &&Operation| {
                    seen.contains(&one.number)
                        && !matches!(
                            self.effect(action, one, dependents.get(&one.id).copied()),
                            Effect::Event(_)
                        )
                };
                let stay: Vec<Number> =
                    operations.iter().filter(stays).map(|one| one.number).collect();
                if stay.is_empty() {
                    break;
                }
                stay.iter().for_each(|number| {
                    seen.remove(number);
                });
            }
        }
        let mut changed = Changed::default();
        let mut wanted = Vec::with_capacity(operations.len());
        let tries_again = matches!(action, Action::Retry { .. } | Action::Redirect(_));
        for operation in operations {
            if !strict && tries_again && operation.is_abandoned() {
                changed.skipped.push(skipped(
                    &operation,
                    "it was given up by hand; name it to bring it back".into(),
                ));
                continue;
            }
            if !strict && tries_again && operation.is_in_doubt() {
                let why = "it may have been done, and doing it again may do harm; look, then name it to bring it back";
                changed.skipped.push(skipped(&operation, why.into()));
                continue;
            }
            match self.effect(action, &operation, dependents.get(&operation.id).copied()) {
                Effect::Event(_) => wanted.push(operation),
                Effect::Unchanged => changed.unchanged.push(operation),
                Effect::Refused(why) => changed.skipped.push(skipped(&operation, why)),
            }
        }
        if strict && !changed.skipped.is_empty() {
            return Err(ClientError::NotApplicable {
                what: action.past_participle(),
                skipped: changed.skipped,
            });
        }
        let mut numbers: Vec<Number> = Vec::with_capacity(wanted.len());
        for batch in batches(action, &wanted) {
            let wal = self.wal()?;
            let decide = |view: &mut View| self.decide(wal, view, action, batch, &seen);
            let (_, (done, created, left)) = match action {
                Action::Cancel { .. } | Action::Delete => wal.transact_finishing(decide)?,
                _ => wal.transact(decide)?,
            };
            numbers.extend(done.iter().map(|operation| operation.number));
            if let Action::Delete | Action::Redirect(_) = action {
                // They are gone, or went on with links of their own to what is spooled.
                done.iter().for_each(|operation| wal.release_spool(operation));
            }
            if matches!(action, Action::Delete) {
                changed.operations.extend(done);
            }
            left.iter().for_each(|one| {
                seen.remove(&one.number);
            });
            changed.skipped.extend(left);
            for id in created {
                changed.redirected_to.push(self.operation(&Reference::Id(id))?);
            }
        }
        if let Action::Retry { .. } | Action::Redirect(_) = action {
            numbers.extend(self.bring_back_dependents(&numbers)?);
        }
        if !matches!(action, Action::Delete) {
            for number in numbers {
                changed.operations.push(self.operation(&Reference::Number(number))?);
            }
        }
        Ok(changed)
    }

    /// The changes of one batch, decided on what the log holds at this moment.
    #[expect(clippy::type_complexity, reason = "one caller; what was done, created and left")]
    fn decide(
        &self,
        wal: &Wal,
        view: &View,
        action: &Action,
        batch: &[Operation],
        all: &BTreeSet<Number>,
    ) -> WalResult<(Vec<Change>, (Vec<Operation>, Vec<OperationId>, Vec<Skipped>))> {
        let dependents = match action {
            Action::Delete => others_that_wait(view, batch, all)?,
            _ => BTreeMap::new(),
        };
        let mut changes = Vec::with_capacity(batch.len());
        let (mut done, mut created, mut left) =
            (Vec::with_capacity(batch.len()), Vec::new(), Vec::new());
        for (nth, asked) in batch.iter().enumerate() {
            let now = view.operation(asked.number)?.filter(|operation| operation.id == asked.id);
            let Some(operation) = now else {
                left.push(skipped(asked, "it is gone: somebody deleted it meanwhile".into()));
                continue;
            };
            match self.effect(action, &operation, dependents.get(&operation.id).copied()) {
                Effect::Event(Event::Redirected { failure, .. }) => {
                    let Action::Redirect(backend) = action else { continue };
                    let id = OperationId::new(self.clock.now(), nth, self.random());
                    let mut logged = again(&operation, backend.clone());
                    let gone = gone(view, &operation)?;
                    logged.depends_on.retain(|id| !gone.contains(id));
                    if let crate::wal::Admission::New(admitted) = view.admit(logged.clone())? {
                        logged = *admitted;
                    }
                    wal.share_spool(&operation, id)?;
                    changes.extend(goes_on_as(
                        &operation,
                        id,
                        logged,
                        Event::Redirected { to: id, failure },
                    ));
                    created.push(id);
                    done.push(operation);
                }
                Effect::Event(mut event) => {
                    if let Event::Retried { forget, .. } = &mut event {
                        *forget = gone(view, &operation)?;
                    }
                    changes.push(Change::Next(Known::from(&operation), event));
                    done.push(operation);
                }
                Effect::Unchanged => {}
                Effect::Refused(why) => left.push(skipped(&operation, why)),
            }
        }
        Ok((changes, (done, created, left)))
    }

    fn random(&self) -> u128 {
        u128::from(self.clock.random()) << 64 | u128::from(self.clock.random())
    }

    /// What an action means for an operation; `dependent` is the number of one that waits for it.
    fn effect(&self, action: &Action, operation: &Operation, dependent: Option<Number>) -> Effect {
        let status = operation.status();
        let by_hand = || "asked for by hand".to_owned();
        let refused = |why: &str| Effect::Refused(why.to_owned());
        match (action, status) {
            (Action::Cancel { permanent: true }, Status::Failed)
                if operation.redirected_to.is_none() =>
            {
                match operation.state.failure() {
                    Some(failure) if failure.error_type == failure::PERMANENT => Effect::Unchanged,
                    last => Effect::Event(Event::Abandoned { failure: given_up(last) }),
                }
            }
            (Action::Cancel { permanent: true }, Status::Pending | Status::Retrying) => {
                Effect::Event(Event::Abandoned { failure: given_up(operation.state.failure()) })
            }
            (Action::Cancel { .. }, Status::Pending | Status::Retrying) => {
                let last = operation.state.failure().map(|failure| failure.message.as_str());
                Effect::Event(Event::Failed { failure: worker::cancelled(last) })
            }
            (Action::Cancel { permanent: true }, Status::Processing) => refused(
                "it is being carried out; cancel it without --permanent, and mark it when it has ended",
            ),
            (Action::Cancel { .. }, Status::Processing) if worker::is_cancelled(operation) => {
                Effect::Unchanged
            }
            (Action::Cancel { .. }, Status::Processing) => {
                Effect::Event(Event::CancelRequested { reason: "cancelled by hand".into() })
            }
            (Action::Cancel { .. }, Status::Completed) => refused("it is completed already"),
            (Action::Cancel { .. }, Status::Failed) => refused(
                "it has failed already; `cancel --permanent` marks it as never to be tried again",
            ),
            (Action::Hold, Status::Completed | Status::Failed) => {
                refused("it has ended, so there is nothing to set aside")
            }
            (Action::Hold, _) if operation.hold => Effect::Unchanged,
            (Action::Hold, _) => Effect::Event(Event::Held { reason: by_hand() }),
            (Action::Release, _) if !operation.hold => Effect::Unchanged,
            (Action::Release, Status::Completed) => Effect::Unchanged,
            (Action::Release, _) => Effect::Event(Event::HoldReleased { reason: by_hand() }),
            (Action::Delete, Status::Processing) => {
                refused("it is being carried out; cancel it first")
            }
            (Action::Delete, _) => match dependent {
                Some(number) => Effect::Refused(format!(
                    "operation {number} waits for it; cancel or delete that first"
                )),
                None => Effect::Event(Event::Deleted { reason: by_hand() }),
            },
            (Action::Prioritize(_), Status::Completed | Status::Failed) => {
                refused("it has ended, so its place means nothing")
            }
            (Action::Prioritize(priority), _) if operation.priority == *priority => {
                Effect::Unchanged
            }
            (Action::Prioritize(priority), _) => {
                Effect::Event(Event::Prioritized { priority: *priority })
            }
            (Action::Retry { .. } | Action::Redirect(_), Status::Failed)
                if self.went_on(operation) =>
            {
                refused("it went on as another operation; retry that one")
            }
            (Action::Retry { now: true }, Status::Retrying) => {
                Effect::Event(Event::BackoffEnded { reason: "its wait was ended by hand".into() })
            }
            (Action::Retry { .. }, Status::Failed | Status::Retrying) => {
                Effect::Event(Event::Retried { reason: by_hand(), forget: Vec::new() })
            }
            (Action::Retry { .. }, status) => Effect::Refused(format!(
                "it is {status}; only failed and retrying operations can be"
            )),
            (Action::Redirect(_), Status::Processing) => {
                refused("it is being carried out; cancel it first")
            }
            (Action::Redirect(_), Status::Completed) => refused("it is completed already"),
            (Action::Redirect(backend), _) if operation.backend == *backend => Effect::Refused(
                format!("it is an operation of `{backend}` already; retry it without --backend"),
            ),
            (Action::Redirect(backend), _) => {
                match self.backends.check(backend, &operation.operation_type, &operation.parameters)
                {
                    _ if size_of(operation) > REDIRECTED_BYTES => {
                        refused("its parameters are too large for that")
                    }
                    Err(refusal) => Effect::Refused(refusal.to_string()),
                    Ok(()) => Effect::Event(Event::Redirected {
                        to: operation.id,
                        failure: went_on(backend),
                    }),
                }
            }
        }
    }

    /// Whether it goes on as another operation, which is still there.
    fn went_on(&self, operation: &Operation) -> bool {
        operation.redirected_to.is_some_and(|id| self.operation(&Reference::Id(id)).is_ok())
    }

    /// What failed only because one of these had failed is tried again with them.
    fn bring_back_dependents(&self, numbers: &[Number]) -> Result<Vec<Number>, ClientError> {
        let mut back: BTreeSet<OperationId> = BTreeSet::new();
        for number in numbers {
            back.insert(self.operation(&Reference::Number(*number))?.id);
        }
        let mut failed = self.look(|view| {
            let mut found = Vec::new();
            view.visit(
                crate::wal::Order::OldestFirst,
                |file| file.count_of(Status::Failed) > 0,
                |glimpse| glimpse.status == Status::Failed,
                |operation| {
                    let dependency = |failure: &Failure| failure.error_type == failure::DEPENDENCY;
                    if operation.status() == Status::Failed
                        && operation.state.failure().is_some_and(dependency)
                    {
                        found.push(operation);
                    }
                    std::ops::ControlFlow::Continue(())
                },
            )?;
            Ok(found)
        })?;
        let mut order = Vec::new();
        loop {
            let (free, rest): (Vec<Operation>, Vec<Operation>) = failed
                .into_iter()
                .partition(|operation| operation.depends_on.iter().any(|id| back.contains(id)));
            if free.is_empty() {
                break;
            }
            back.extend(free.iter().map(|operation| operation.id));
            order.extend(free);
            failed = rest;
        }
        let mut changed = Vec::with_capacity(order.len());
        for batch in order.chunks(AT_ONCE) {
            let (written, ()) = self.wal()?.transact(|view| {
                let mut changes = Vec::with_capacity(batch.len());
                for operation in batch {
                    let known = (operation.revision, operation.status());
                    if view.standing(operation.number, operation.id)? == Some(known) {
                        let reason = "what it waits for is tried again".to_owned();
                        let forget = gone(view, operation)?;
                        changes.push(Change::Next(
                            Known::from(operation),
                            Event::Retried { reason, forget },
                        ));
                    }
                }
                Ok((changes, ()))
            })?;
            changed.extend(written.iter().map(|written| written.number));
        }
        Ok(changed)
    }
}

/// Of these operations, those that others wait for which are not among `all`, each with the number of one such.
fn others_that_wait(
    view: &View,
    operations: &[Operation],
    all: &BTreeSet<Number>,
) -> WalResult<BTreeMap<OperationId, Number>> {
    // Who waits for what was redirected waits for what that went on as: several of these may be meant by one id.
    let mut meant: BTreeMap<OperationId, Vec<OperationId>> = BTreeMap::new();
    for operation in operations {
        meant.entry(operation.id).or_default().push(operation.id);
        let mut before = operation.redirected_from;
        while let Some(id) = before {
            let older = view.operation_by_id(id)?;
            // Of what was completed, nobody waits for what it went on as when that was not there any more.
            if older.as_ref().is_some_and(|older| older.status() == Status::Completed) {
                break;
            }
            meant.entry(id).or_default().push(operation.id);
            before = older.and_then(|operation| operation.redirected_from);
        }
    }
    let waiting = view.dependents_of(&meant.keys().copied().collect())?;
    let others = waiting.into_iter().filter(|(_, dependent)| !all.contains(dependent));
    Ok(others
        .flat_map(|(id, dependent)| meant[&id].iter().map(move |id| (*id, dependent)))
        .collect())
}

/// The operations in portions, each of which makes one frame.
fn batches<'a>(action: &Action, operations: &'a [Operation]) -> Vec<&'a [Operation]> {
    match action {
        Action::Redirect(_) => batches_of_pairs(operations),
        _ => operations.chunks(AT_ONCE).collect(),
    }
}

/// The same of operations each of which goes on as a new one: both have to stand in one frame.
pub(super) fn batches_of_pairs(operations: &[Operation]) -> Vec<&[Operation]> {
    let mut portions = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, operation) in operations.iter().enumerate() {
        let size = size_of(operation);
        if at > start && (bytes + size > REDIRECTED_BYTES || at - start == AT_ONCE / 2) {
            portions.push(&operations[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < operations.len() {
        portions.push(&operations[start..]);
    }
    portions
}

/// The new operation that an older one goes on as, and what is noted of the older one.
pub(super) fn goes_on_as(
    operation: &Operation,
    id: OperationId,
    logged: Logged,
    event: Event,
) -> [Change; 2] {
    [Change::NewAs(id, logged), Change::Next(Known::from(operation), event)]
}

/// Bytes that a redirect of it takes in the journal, at most: the new operation, and the note on the old one.
pub(super) fn size_of(operation: &Operation) -> usize {
    let logged = Event::Logged(Box::new(again(operation, operation.backend.clone())));
    2048 + journal::record_len(&operation.operation_type, &operation.backend, &logged)
}

/// What an operation waits for that is completed, or not there any more.
fn gone(view: &View, operation: &Operation) -> WalResult<Vec<OperationId>> {
    let mut gone = Vec::new();
    for id in &operation.depends_on {
        if let Fate::Unknown | Fate::Done = view.fate(*id)? {
            gone.push(*id);
        }
    }
    Ok(gone)
}

fn skipped(operation: &Operation, why: String) -> Skipped {
    Skipped { number: operation.number, id: operation.id, status: operation.status(), why }
}

fn given_up(last: Option<&Failure>) -> Failure {
    let last = last.and_then(|failure| match failure.error_type.as_str() {
        // What the backend said last stands behind those words.
        failure::CANCELLED => failure.message.split_once(worker::LAST_ERROR).map(|(_, last)| last),
        _ => Some(failure.message.as_str()),
    });
    let last = last.map_or_else(String::new, |last| format!("{}{last}", worker::LAST_ERROR));
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::PERMANENT.into(),
        message: format!("marked by hand as permanently failed{last}"),
    }
}

fn went_on(backend: &BackendName) -> Failure {
    Failure {
        class: FailureClass::Permanent,
        error_type: failure::REDIRECTED.into(),
        message: format!("redirected by hand: it goes on as an operation of `{backend}`"),
    }
}

/// The same work, to be done elsewhere, or once more.
pub(super) fn again(operation: &Operation, backend: BackendName) -> Logged {
    let kind = operation.operation_type.clone();
    let mut logged =
        Logged::new(kind, backend, operation.parameters.clone(), operation.max_retries);
    logged.priority = operation.priority;
    logged.depends_on.clone_from(&operation.depends_on);
    logged.source.clone_from(&operation.source);
    logged.redirected_from = Some(operation.id);
    logged.hold = operation.hold;
    if let State::Pending { .. } = operation.state {
        logged.not_before = operation.not_before;
    }
    logged
}
