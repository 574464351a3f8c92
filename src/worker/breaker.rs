//! The circuit breaker of one backend: a state machine without clock, threads or log.
//!
//! Closed, it lets everything through. An attempt that cannot reach the backend trips it: open, it
//! lets nothing through, and once its pause is over the backend is probed. The first answer makes
//! it half-open: one attempt at a time, then two, then four, until the lane runs at full width
//! again.

use std::time::Duration;

/// The longest pause of an open breaker, as a multiple of the shortest.
const PAUSE_FACTOR_MAX: u32 = 10;

/// The state of a breaker, named by what it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything.
    Closed {
        /// True if the backend has answered in this run. Only the loss of a backend that had
        /// answered lengthens the next pause.
        has_answered: bool,
    },
    /// Nothing.
    Open {
        /// When the backend may be probed, on the monotonic clock.
        until: Duration,
        /// True if a probe has failed since the breaker tripped, which confirms the outage.
        is_confirmed: bool,
    },
    /// A few trial attempts.
    HalfOpen {
        /// The number of attempts that may run at the same time.
        permits: usize,
    },
}

/// The meaning of a backend's answer for the operations that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Recovery {
    /// An outage that a probe had confirmed is over.
    OutageEnded,
    /// The backend was reachable before, or a single connection had failed.
    NoChange,
}

/// The state of a breaker, and how often it has tripped lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// Trips in a row that followed an answer of the backend; each doubles the next pause.
    consecutive_trips: u32,
}

impl Breaker {
    /// Returns a closed breaker.
    pub fn new() -> Breaker {
        Breaker { state: State::Closed { has_answered: false }, consecutive_trips: 0 }
    }

    /// Returns the breaker of a backend that was unreachable in an earlier run: open, and due to be
    /// probed.
    pub fn open(is_confirmed: bool) -> Breaker {
        let state = State::Open { until: Duration::ZERO, is_confirmed };
        Breaker { state, consecutive_trips: 0 }
    }

    /// Returns whether nothing may be sent before the backend has answered a probe.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Returns whether it is too early even for a probe.
    pub fn is_pausing(&self, now: Duration) -> bool {
        matches!(self.state, State::Open { until, .. } if now < until)
    }

    /// Returns how many attempts may run at the same time, if it limits them.
    pub fn permits(&self) -> Option<usize> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { .. } => Some(0),
            State::HalfOpen { permits } => Some(permits),
        }
    }

    /// Records that an attempt could not reach the backend. The pause doubles with every trip in a
    /// row, up to ten times its length: probes may succeed although operations do not.
    pub fn trip(&mut self, now: Duration, pause: Duration) {
        let factor = (1 << self.consecutive_trips.min(8)).min(PAUSE_FACTOR_MAX);
        let had_answered =
            matches!(self.state, State::Closed { has_answered: true } | State::HalfOpen { .. });
        self.consecutive_trips += u32::from(had_answered);
        self.state = open_until(now + pause.saturating_mul(factor));
    }

    /// Records that a query about an earlier attempt could not reach the backend. Opens for
    /// `pause`, however often the breaker has tripped.
    pub fn query_failed(&mut self, now: Duration, pause: Duration) {
        self.state = open_until(now + pause);
    }

    /// Records that a probe could not reach the backend, and pauses again. The count of trips
    /// starts over, because probes and operations agree.
    pub fn probe_failed(&mut self, now: Duration, pause: Duration) {
        // Ignores the late result of a probe if an operation has succeeded since.
        if self.is_open() {
            self.state = State::Open { until: now + pause, is_confirmed: true };
            self.consecutive_trips = 0;
        }
    }

    /// Records that a probe reached the backend.
    pub fn probe_succeeded(&mut self) -> Recovery {
        let (state, recovery) = match self.state {
            State::Closed { .. } => (State::Closed { has_answered: true }, Recovery::NoChange),
            State::Open { is_confirmed: true, .. } => {
                (State::HalfOpen { permits: 1 }, Recovery::OutageEnded)
            }
            State::Open { is_confirmed: false, .. } => {
                (State::HalfOpen { permits: 1 }, Recovery::NoChange)
            }
            half_open @ State::HalfOpen { .. } => (half_open, Recovery::NoChange),
        };
        self.state = state;
        recovery
    }

    /// Records that an operation succeeded, which proves that the backend is reachable.
    pub fn attempt_succeeded(&mut self) -> Recovery {
        self.consecutive_trips = 0;
        self.probe_succeeded()
    }

    /// Records that a trial attempt reached the backend. Doubles the permits, and closes the
    /// breaker once they would reach `jobs`.
    pub fn trial_ended(&mut self, jobs: usize) {
        if let State::HalfOpen { permits } = self.state {
            self.state = match permits * 2 >= jobs {
                true => State::Closed { has_answered: true },
                false => State::HalfOpen { permits: permits * 2 },
            };
        }
    }
}

fn open_until(until: Duration) -> State {
    State::Open { until, is_confirmed: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const JOBS: usize = 8;

    fn closed(has_answered: bool) -> State {
        State::Closed { has_answered }
    }

    fn open(until: u32, is_confirmed: bool) -> State {
        State::Open { until: MS * until, is_confirmed }
    }

    fn half_open(permits: usize) -> State {
        State::HalfOpen { permits }
    }

    /// One row per state, one column per event; every event happens at 10 ms, and pauses last 5 ms.
    /// All breakers have tripped twice in a row, so that a trip pauses for 20 ms.
    #[test]
    fn every_event_in_every_state() {
        type Event = (&'static str, fn(&mut Breaker));
        let events: [Event; 6] = [
            ("trip", |b| b.trip(MS * 10, MS * 5)),
            ("query_failed", |b| b.query_failed(MS * 10, MS * 5)),
            ("probe_failed", |b| b.probe_failed(MS * 10, MS * 5)),
            ("probe_succeeded", |b| _ = b.probe_succeeded()),
            ("attempt_succeeded", |b| _ = b.attempt_succeeded()),
            ("trial_ended", |b| b.trial_ended(JOBS)),
        ];
        let (tripped, queried) = (open(30, false), open(15, false));
        let confirmed = open(15, true);
        #[rustfmt::skip]
        let rows: [(State, [(State, u32); 6]); 6] = [
            (closed(false), [(tripped, 2), (queried, 2), (closed(false), 2),
                (closed(true), 2), (closed(true), 0), (closed(false), 2)]),
            (closed(true), [(tripped, 3), (queried, 2), (closed(true), 2),
                (closed(true), 2), (closed(true), 0), (closed(true), 2)]),
            (open(12, false), [(tripped, 2), (queried, 2), (confirmed, 0),
                (half_open(1), 2), (half_open(1), 0), (open(12, false), 2)]),
            (open(12, true), [(tripped, 2), (queried, 2), (confirmed, 0),
                (half_open(1), 2), (half_open(1), 0), (open(12, true), 2)]),
            (half_open(2), [(tripped, 3), (queried, 2), (half_open(2), 2),
                (half_open(2), 2), (half_open(2), 0), (half_open(4), 2)]),
            (half_open(4), [(tripped, 3), (queried, 2), (half_open(4), 2),
                (half_open(4), 2), (half_open(4), 0), (closed(true), 2)]),
        ];
        for (state, expected) in rows {
            for ((event, happen), (after, trips)) in events.iter().zip(expected) {
                let mut breaker = Breaker { state, consecutive_trips: 2 };
                happen(&mut breaker);
                let expected = Breaker { state: after, consecutive_trips: trips };
                assert_eq!(breaker, expected, "{event} in {state:?}");
            }
        }
    }

    #[test]
    fn only_an_outage_that_a_probe_confirmed_ends() {
        for (state, recovery) in [
            (closed(true), Recovery::NoChange),
            (open(1, false), Recovery::NoChange),
            (open(1, true), Recovery::OutageEnded),
            (half_open(1), Recovery::NoChange),
        ] {
            let breaker = Breaker { state, consecutive_trips: 0 };
            assert_eq!(breaker.clone().probe_succeeded(), recovery, "{state:?}");
            assert_eq!(breaker.clone().attempt_succeeded(), recovery, "{state:?}");
        }
    }

    #[test]
    fn states_limit_attempts_and_probes() {
        for (state, permits, is_open, is_pausing) in [
            (closed(false), None, false, false),
            (open(5, false), Some(0), true, false),
            (open(6, true), Some(0), true, true),
            (half_open(3), Some(3), false, false),
        ] {
            let breaker = Breaker { state, consecutive_trips: 0 };
            let found = (breaker.permits(), breaker.is_open(), breaker.is_pausing(MS * 5));
            assert_eq!(found, (permits, is_open, is_pausing), "{state:?}");
        }
    }
}
