use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::backend::Pace;
use crate::health::Checked;
use crate::operation::{Failure, FailureClass, Number, Operation};

/// Claims of one lane at a time, at most.
const BATCH_MAX: usize = 1000;

/// How long the loop waits for a probe at a time: most answer at once.
const PROBE_MOMENT: Duration = Duration::from_millis(20);

/// How many operations of one backend are claimed ahead, and whether any are.
#[derive(Debug)]
pub struct Lane {
    jobs: usize,
    ahead: usize,
    /// Claimed and not yet settled.
    pub in_flight: usize,
    /// Closed until then, on the monotonic clock, because the backend was away.
    closed_until: Option<Duration>,
    /// After an outage: how many may run at once, until that reaches `jobs`.
    probation: Option<usize>,
    /// Whether a probe has found the backend since it was away.
    found: bool,
    /// A probe under way: what it says.
    probe: Option<Receiver<Checked>>,
    /// How fast bytes may move, if that is limited.
    pub pace: Option<Arc<Pace>>,
}

impl Lane {
    /// A lane with this many jobs at once.
    pub fn new(jobs: usize) -> Lane {
        Lane {
            jobs: jobs.max(1),
            ahead: jobs.max(1),
            in_flight: 0,
            closed_until: None,
            probation: None,
            found: false,
            probe: None,
            pace: None,
        }
    }

    /// How many may be claimed now.
    pub fn room(&self, now: Duration) -> usize {
        if self.closed_until.is_some_and(|until| now < until) {
            return 0;
        }
        let limit = self.probation.unwrap_or(self.ahead);
        // Claims are written in batches: waiting for half of them to be done makes each flush serve many.
        if self.in_flight * 2 <= limit {
            return limit - self.in_flight;
        }
        // But no job stands idle for the sake of a batch.
        self.jobs.min(limit).saturating_sub(self.in_flight)
    }

    /// Whether its backend was away and has not been seen since.
    pub fn is_lost(&self) -> bool {
        self.probation.is_some() && !self.found
    }

    /// What a probe says, begun by `start` unless one is under way; none: nothing yet. A backend that hangs keeps
    /// nobody waiting but for a moment.
    pub fn is_back(&mut self, start: impl FnOnce() -> Option<Receiver<Checked>>) -> Option<Checked> {
        if self.probe.is_none() {
            self.probe = start();
        }
        let Some(probe) = &self.probe else { return Some(Err(unprobed())) };
        let answer = match probe.recv_timeout(PROBE_MOMENT) {
            Ok(checked) => checked,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => Err(unprobed()),
        };
        self.probe = None;
        Some(answer)
    }

    /// The backend was away when it was last seen: it is probed, and then one goes at first.
    pub fn suspect(&mut self) {
        self.probation = Some(1);
    }

    /// A probe, or an operation, found the backend again.
    pub fn found(&mut self) {
        self.found = true;
        self.closed_until = None;
    }

    /// Whether a probe is under way.
    pub fn is_being_probed(&self) -> bool {
        self.probe.is_some()
    }

    /// Whether the lane is closed because its backend was away.
    pub fn is_closed(&self, now: Duration) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }

    /// The backend was away: nothing goes until then, and then one at first.
    pub fn close(&mut self, until: Duration) {
        self.closed_until = Some(until);
        self.probation = Some(1);
        self.found = false;
        self.ahead = self.jobs;
    }

    /// A settlement that was no outage.
    pub fn settled(&mut self, batch_took: Duration) {
        self.closed_until = None;
        match self.probation {
            Some(limit) if limit * 2 >= self.jobs => self.probation = None,
            Some(limit) => self.probation = Some(limit * 2),
            None => {}
        }
        // Claims ahead are work that a crash interrupts: only as many as are done in a moment.
        if batch_took < Duration::from_millis(50) {
            self.ahead = (self.ahead * 2).min(BATCH_MAX.max(self.jobs));
        } else if batch_took > Duration::from_millis(250) {
            self.ahead = (self.ahead / 2).max(self.jobs);
        }
    }
}

fn unprobed() -> Failure {
    Failure { class: FailureClass::Outage, error_type: "not_probed".into(), message: "it could not be probed".into() }
}

/// Operations to be claimed next, in the order in which they are to go.
#[derive(Debug, Default)]
pub struct Picked {
    /// In the order in which they are to go.
    pub order: Vec<Operation>,
    /// Their numbers.
    pub numbers: BTreeSet<Number>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn fast_lanes_claim_further_ahead() {
        let mut lane = Lane::new(4);
        assert_eq!(lane.room(MS), 4);
        for _ in 0..20 {
            lane.settled(MS);
        }
        assert_eq!(lane.room(MS), BATCH_MAX);
        lane.in_flight = BATCH_MAX / 2 + 1;
        assert_eq!(lane.room(MS), 0, "until half of them are done");
        lane.in_flight = 0;
        for _ in 0..20 {
            lane.settled(MS * 1000);
        }
        assert_eq!(lane.room(MS), 4);
    }

    #[test]
    fn no_job_stands_idle_beside_long_ones() {
        let mut lane = Lane::new(4);
        lane.in_flight = 3;
        assert_eq!(lane.room(MS), 1);
    }

    #[test]
    fn a_probe_that_hangs_is_left_alone_until_it_says_something() {
        let (sender, answer) = std::sync::mpsc::channel();
        let (mut lane, mut answer) = (Lane::new(4), Some(answer));
        lane.close(MS);
        for _ in 0..3 {
            assert_eq!(lane.is_back(|| Some(answer.take().expect("one probe at a time"))), None);
        }
        sender.send(Ok(())).unwrap();
        assert_eq!(lane.is_back(|| None), Some(Ok(())));
        assert_eq!(lane.is_back(|| None), Some(Err(unprobed())), "nobody is there to be asked");
    }

    #[test]
    fn after_an_outage_one_goes_first_then_two_then_four() {
        let mut lane = Lane::new(8);
        lane.close(MS * 10);
        assert_eq!(lane.room(MS * 9), 0);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(lane.room(MS * 10));
            lane.settled(MS * 100);
        }
        assert_eq!(seen, [1, 2, 4, 8]);
    }
}
