//! The operations that are due, per backend; without access to the log.
//!
//! Operations of the journal are inserted one by one. Parquet files are announced with their
//! figures of the manifest, and requested only when one of their rows may have to go next.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::operation::{BackendName, Number, Operation, Time, Wait, retry};

/// The part of an operation that the queue needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub number: Number,
    /// Its backend.
    pub backend: BackendName,
    /// Higher goes first.
    pub priority: i32,
    /// The periods that must be over before it is due.
    pub waits: Vec<Wait>,
    /// Its turn among the due operations of its backend.
    pub turn: Turn,
}

/// The turn of an operation among the due operations of its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// By priority, then by number.
    InOrder,
    /// After those: it has found its backend unreachable this many times in a row and may be the
    /// cause.
    AfterOthers(usize),
    /// After all others, with nothing else running: it has been interrupted repeatedly.
    AloneAndLast,
}

impl Turn {
    fn of(operation: &Operation) -> Turn {
        if operation.interruptions >= retry::ALONE_AFTER {
            Turn::AloneAndLast
        } else {
            retry::outage_rank(operation).map_or(Turn::InOrder, Turn::AfterOthers)
        }
    }
}

impl Entry {
    /// Returns the entry of an operation; `None` if time alone does not make it due.
    pub fn of(operation: &Operation) -> Option<Entry> {
        if operation.hold || !operation.depends_on.is_empty() || !operation.status().is_waiting() {
            return None;
        }
        let delay = operation.not_before.map(|until| Wait { since: operation.logged_at, until });
        let backoff = match &operation.state {
            crate::operation::State::Retrying { wait, .. } => Some(*wait),
            _ => None,
        };
        Some(Entry {
            number: operation.number,
            backend: operation.backend.clone(),
            priority: operation.priority,
            waits: delay.into_iter().chain(backoff).collect(),
            turn: Turn::of(operation),
        })
    }

    fn is_due(&self, now: Time) -> bool {
        self.waits.iter().all(|wait| wait.is_over(now))
    }

    fn rank(&self) -> Rank {
        (self.turn, std::cmp::Reverse(self.priority), self.number)
    }
}

/// The sort key of the due entries of one lane.
type Rank = (Turn, std::cmp::Reverse<i32>, Number);

/// A Parquet file with waiting operations of a lane that has not been loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unloaded {
    /// The caller's index of the file.
    pub file: usize,
    /// The lowest number in it.
    pub first: Number,
    /// The highest priority among its waiting rows.
    pub priority: i32,
    /// The number of its pending rows.
    pub pending: u64,
    /// The earliest time at which one of its waiting rows is due.
    pub due: Option<Time>,
}

#[derive(Debug, Default)]
struct Lane {
    ready: BTreeSet<Rank>,
    ranks: HashMap<Number, Rank>,
    waiting: BTreeMap<Number, Entry>,
    /// The time of the last search of `waiting`.
    promoted_at: Option<Time>,
    unloaded: Vec<Unloaded>,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty() && self.unloaded.is_empty()
    }

    fn make_ready(&mut self, entry: &Entry) {
        self.ranks.insert(entry.number, entry.rank());
        self.ready.insert(entry.rank());
    }

    fn promote(&mut self, now: Time) {
        if self.promoted_at == Some(now) {
            return;
        }
        self.promoted_at = Some(now);
        let due: Vec<Number> = self
            .waiting
            .values()
            .filter(|entry| entry.is_due(now))
            .map(|entry| entry.number)
            .collect();
        for number in due {
            if let Some(entry) = self.waiting.remove(&number) {
                self.make_ready(&entry);
            }
        }
    }
}

/// The next step for a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Execute this operation.
    Take(Number),
    /// Execute this operation with nothing else running.
    TakeAlone(Number),
    /// Load the rows of this file: one of them may have to go first.
    Load(usize),
    /// Nothing is due.
    Nothing,
}

/// The lanes of all backends.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: BTreeMap<BackendName, Lane>,
}

impl Queue {
    /// Returns an empty queue.
    pub fn new() -> Queue {
        Queue::default()
    }

    /// Returns the backends that may have waiting operations.
    pub fn backends(&self) -> Vec<BackendName> {
        self.lanes
            .iter()
            .filter(|(_, lane)| !lane.is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Announces a file with waiting operations of a backend.
    pub fn announce(&mut self, backend: &BackendName, file: Unloaded) {
        self.lanes.entry(backend.clone()).or_default().unloaded.push(file);
    }

    /// Marks a file as loaded, or as irrelevant: it is not requested again.
    pub fn mark_loaded(&mut self, file: usize) {
        for lane in self.lanes.values_mut() {
            lane.unloaded.retain(|unloaded| unloaded.file != file);
        }
    }

    /// Adds an operation, replacing an earlier entry of it.
    pub fn insert(&mut self, entry: Entry, now: Time) {
        self.remove(entry.number, &entry.backend);
        let lane = self.lanes.entry(entry.backend.clone()).or_default();
        if entry.is_due(now) {
            lane.make_ready(&entry);
        } else {
            lane.waiting.insert(entry.number, entry);
        }
    }

    /// Removes an operation.
    pub fn remove(&mut self, number: Number, backend: &BackendName) {
        if let Some(lane) = self.lanes.get_mut(backend) {
            lane.waiting.remove(&number);
            if let Some(rank) = lane.ranks.remove(&number) {
                lane.ready.remove(&rank);
            }
        }
    }

    /// Returns the next step for a lane. An operation that is returned is removed from the queue.
    pub fn next(&mut self, backend: &BackendName, now: Time) -> Next {
        let Some(lane) = self.lanes.get_mut(backend) else { return Next::Nothing };
        lane.promote(now);
        let first = lane.ready.first().copied();
        let best = lane
            .unloaded
            .iter()
            .filter(|file| file.pending > 0 || file.due.is_some_and(|due| due <= now))
            .min_by_key(|file| (std::cmp::Reverse(file.priority), file.first));
        if let Some(file) = best
            && first.is_none_or(|rank| {
                (Turn::InOrder, std::cmp::Reverse(file.priority), file.first) < rank
            })
        {
            return Next::Load(file.file);
        }
        let Some((turn, _, number)) = lane.ready.pop_first() else { return Next::Nothing };
        lane.ranks.remove(&number);
        if turn == Turn::AloneAndLast { Next::TakeAlone(number) } else { Next::Take(number) }
    }

    /// Returns the earliest future time at which a known operation becomes due.
    pub fn next_due(&self, now: Time) -> Option<Time> {
        let entries = self.lanes.values().flat_map(|lane| lane.waiting.values());
        let waits = entries.filter_map(|entry| entry.waits.iter().map(|wait| wait.until).max());
        let files = self.lanes.values().flat_map(|lane| &lane.unloaded).filter_map(|file| file.due);
        waits.chain(files).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str) -> BackendName {
        BackendName::new(name).unwrap()
    }

    fn entry(number: Number, priority: i32) -> Entry {
        Entry { number, backend: backend("a"), priority, waits: Vec::new(), turn: Turn::InOrder }
    }

    fn at(ms: i64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn priority_goes_before_number_and_lanes_do_not_meet() {
        let mut queue = Queue::new();
        for e in [
            entry(Number::new(1), 0),
            entry(Number::new(2), 5),
            entry(Number::new(3), 5),
            Entry { backend: backend("b"), ..entry(Number::new(4), 9) },
        ] {
            queue.insert(e, at(0));
        }
        let mut order = Vec::new();
        while let Next::Take(n) = queue.next(&backend("a"), at(0)) {
            order.push(n.get());
        }
        assert_eq!(order, [2, 3, 1]);
        assert_eq!(queue.next(&backend("b"), at(0)), Next::Take(Number::new(4)));
    }

    #[test]
    fn a_wait_ends_in_time_and_when_the_clock_jumps_back() {
        let wait = Wait { since: at(100), until: at(200) };
        let mut queue = Queue::new();
        queue.insert(Entry { waits: vec![wait], ..entry(Number::new(1), 0) }, at(150));
        assert_eq!(queue.next(&backend("a"), at(199)), Next::Nothing);
        assert_eq!(queue.next_due(at(199)), Some(at(200)));
        assert_eq!(queue.next(&backend("a"), at(200)), Next::Take(Number::new(1)));
        queue.insert(Entry { waits: vec![wait], ..entry(Number::new(1), 0) }, at(150));
        assert_eq!(queue.next(&backend("a"), at(50)), Next::Take(Number::new(1)));
    }

    #[test]
    fn an_operation_that_crashed_the_drain_runs_alone_and_last() {
        let mut queue = Queue::new();
        queue.insert(Entry { turn: Turn::AloneAndLast, ..entry(Number::new(1), 9) }, at(0));
        queue.insert(Entry { turn: Turn::AfterOthers(4), ..entry(Number::new(4), 9) }, at(0));
        queue.insert(Entry { turn: Turn::AfterOthers(3), ..entry(Number::new(2), 9) }, at(0));
        queue.insert(entry(Number::new(3), 0), at(0));
        assert_eq!(queue.next(&backend("a"), at(0)), Next::Take(Number::new(3)));
        assert_eq!(queue.next(&backend("a"), at(0)), Next::Take(Number::new(2)));
        assert_eq!(queue.next(&backend("a"), at(0)), Next::Take(Number::new(4)));
        assert_eq!(queue.next(&backend("a"), at(0)), Next::TakeAlone(Number::new(1)));
        assert_eq!(queue.backends(), []);
    }

    #[test]
    fn a_file_is_loaded_only_when_one_of_its_rows_may_go_first() {
        let mut queue = Queue::new();
        let file =
            |file, first, priority| Unloaded { file, first, priority, pending: 1, due: None };
        queue.announce(&backend("a"), file(0, Number::new(10), 0));
        queue.announce(&backend("a"), file(1, Number::new(20), 0));
        queue.announce(&backend("a"), file(2, Number::new(30), 7));
        queue.insert(entry(Number::new(5), 0), at(0));
        assert_eq!(queue.next(&backend("a"), at(0)), Next::Load(2), "for its priority");
        queue.mark_loaded(2);
        assert_eq!(
            queue.next(&backend("a"), at(0)),
            Next::Take(Number::new(5)),
            "numbers before 10 go first"
        );
        assert_eq!(queue.next(&backend("a"), at(0)), Next::Load(0));
        queue.mark_loaded(0);
        queue.insert(entry(Number::new(10), 0), at(0));
        assert_eq!(queue.next(&backend("a"), at(0)), Next::Take(Number::new(10)));
        assert_eq!(queue.next(&backend("a"), at(0)), Next::Load(1));
    }

    #[test]
    fn a_file_of_waits_is_left_alone_until_the_first_is_over() {
        let mut queue = Queue::new();
        queue.announce(
            &backend("a"),
            Unloaded {
                file: 0,
                first: Number::new(1),
                priority: 0,
                pending: 0,
                due: Some(at(500)),
            },
        );
        assert_eq!(queue.next(&backend("a"), at(499)), Next::Nothing);
        assert_eq!(queue.next_due(at(499)), Some(at(500)));
        assert_eq!(queue.next(&backend("a"), at(500)), Next::Load(0));
    }
}
