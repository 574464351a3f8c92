use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::backend::RateLimiter;
use crate::health::Checked;
use crate::operation::{Failure, FailureClass, Number, Operation, Time};

/// Claims of one lane at a time, at most.
const BATCH_MAX: usize = 1000;

/// How long the loop waits for a probe at a time: most answer at once.
const PROBE_MOMENT: Duration = Duration::from_millis(20);

/// The longest that a lane stays closed, as a multiple of the shortest.
const CLOSED_MAX: u32 = 10;

/// How many outages of a lane came before: attempts that began before the last one say nothing of what is now.
pub type Epoch = u32;

/// How many operations of one backend are claimed ahead, and whether any are.
#[derive(Debug)]
pub struct Lane {
    jobs: usize,
    ahead: usize,
    /// Claimed in this epoch, and not yet settled.
    in_flight: usize,
    /// The same of epochs before.
    overdue: usize,
    epoch: Epoch,
    /// Closed until then, on the monotonic clock, because the backend was away.
    closed_until: Option<Duration>,
    /// After an outage: how many may run at once, until that reaches `jobs`.
    probation: Option<usize>,
    /// Whether a probe has found the backend since it was away.
    found: bool,
    /// Whether a probe has missed it since.
    missed: bool,
    /// Outages in a row that followed on a good probe.
    betrayals: u32,
    /// When an operation last succeeded.
    last_success: Option<Time>,
    /// A probe under way: what it says.
    probe: Option<Receiver<Checked>>,
    /// How fast bytes may move, if that is limited.
    pub pace: Option<Arc<RateLimiter>>,
}

impl Lane {
    /// A lane with this many jobs at once.
    pub fn new(jobs: usize) -> Lane {
        Lane {
            jobs: jobs.max(1),
            ahead: jobs.max(1),
            in_flight: 0,
            overdue: 0,
            epoch: 0,
            closed_until: None,
            probation: None,
            found: false,
            missed: false,
            betrayals: 0,
            last_success: None,
            probe: None,
            pace: None,
        }
    }

    /// How many may be claimed now.
    pub fn room(&self, now: Duration) -> usize {
        if self.is_closed(now) || self.is_lost() {
            return 0;
        }
        // What began before an outage, and hangs, takes its jobs, and is no reason to wait.
        let jobs = self.jobs.saturating_sub(self.overdue);
        let limit =
            self.probation.unwrap_or(self.ahead).min(self.ahead.saturating_sub(self.overdue));
        // Claims are written in batches: waiting for half of them to be done makes each flush serve many.
        if self.in_flight * 2 <= limit {
            return limit - self.in_flight;
        }
        // But no job stands idle for the sake of a batch.
        jobs.min(limit).saturating_sub(self.in_flight)
    }

    /// One more is claimed; what it has to be settled with.
    pub fn claimed(&mut self) -> Epoch {
        self.in_flight += 1;
        self.epoch
    }

    /// When an operation last succeeded.
    pub fn last_success(&self) -> Option<Time> {
        self.last_success
    }

    /// Whether its backend was away and has not been seen since.
    pub fn is_lost(&self) -> bool {
        self.probation.is_some() && !self.found
    }

    /// What a probe says, begun by `start` unless one is under way; none: nothing yet. A backend that hangs keeps
    /// nobody waiting but for a moment.
    pub fn is_back(
        &mut self,
        start: impl FnOnce() -> Option<Receiver<Checked>>,
    ) -> Option<Checked> {
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

    /// The backend was away when it was last seen, or even when it was last probed.
    pub fn suspect(&mut self, missed: bool) {
        self.probation = Some(1);
        self.missed = missed;
    }

    /// A probe, or an operation, found the backend again. True: a probe had missed it before.
    pub fn found(&mut self) -> bool {
        self.found = true;
        self.closed_until = None;
        std::mem::take(&mut self.missed)
    }

    /// A probe did not find the backend: nothing goes for that long.
    pub fn missed(&mut self, now: Duration, pause: Duration) {
        self.missed = true;
        self.betrayals = 0;
        self.closed_until = Some(now + pause);
    }

    /// Whether a probe is under way.
    pub fn is_being_probed(&self) -> bool {
        self.probe.is_some()
    }

    /// Whether the lane is closed because its backend was away.
    pub fn is_closed(&self, now: Duration) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }

    /// An attempt found the backend away: nothing goes for that long, or for longer if this goes on although probes
    /// find it, and then one at first. False: that is no news, since it began before the last outage.
    pub fn away(&mut self, epoch: Epoch, now: Duration, pause: Duration) -> bool {
        self.leave(epoch);
        if epoch < self.epoch {
            return false;
        }
        let pause =
            pause.saturating_mul(1 << self.betrayals.min(8)).min(pause.saturating_mul(CLOSED_MAX));
        self.betrayals += u32::from(self.found);
        self.lose(now + pause);
        true
    }

    /// A question found the backend away. False: that is no news.
    pub fn unasked(&mut self, now: Duration, pause: Duration) -> bool {
        let is_news = !self.is_lost();
        if is_news {
            self.lose(now + pause);
        }
        is_news
    }

    fn lose(&mut self, until: Duration) {
        self.epoch += 1;
        self.overdue += std::mem::take(&mut self.in_flight);
        self.closed_until = Some(until);
        self.probation = Some(1);
        self.found = false;
        self.missed = false;
        self.ahead = self.jobs;
    }

    fn leave(&mut self, epoch: Epoch) {
        let claims = if epoch == self.epoch { &mut self.in_flight } else { &mut self.overdue };
        *claims = claims.saturating_sub(1);
    }

    /// An attempt ended that did not find its backend away; with a success if that is when. True: a probe had missed the
    /// backend before.
    pub fn settled(&mut self, epoch: Epoch, success: Option<Time>, batch_took: Duration) -> bool {
        self.leave(epoch);
        let mut is_back = false;
        if success.is_some() {
            self.last_success = success;
            self.betrayals = 0;
            // It shows that the backend is back before a probe does; other ends may have been our own doing.
            is_back = self.found();
        }
        if !self.is_lost() && epoch == self.epoch {
            self.trust_more(batch_took);
        }
        is_back
    }

    fn trust_more(&mut self, batch_took: Duration) {
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
    Failure {
        class: FailureClass::Outage,
        error_type: "not_probed".into(),
        message: "it could not be probed".into(),
    }
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
            lane.settled(0, None, MS);
        }
        assert_eq!(lane.room(MS), BATCH_MAX);
        lane.in_flight = BATCH_MAX / 2 + 1;
        assert_eq!(lane.room(MS), 0, "until half of them are done");
        lane.in_flight = 0;
        for _ in 0..20 {
            lane.settled(0, None, MS * 1000);
        }
        assert_eq!(lane.room(MS), 4);
    }

    #[test]
    fn no_job_stands_idle_beside_long_ones() {
        let mut lane = Lane::new(4);
        for _ in 0..3 {
            lane.claimed();
        }
        assert_eq!(lane.room(MS), 1);
    }

    #[test]
    fn a_probe_that_hangs_is_left_alone_until_it_says_something() {
        let (sender, answer) = std::sync::mpsc::channel();
        let (mut lane, mut answer) = (Lane::new(4), Some(answer));
        lane.suspect(false);
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
        let epoch = lane.claimed();
        assert!(lane.away(epoch, Duration::ZERO, MS * 10));
        assert!(lane.is_closed(MS * 9));
        assert_eq!(lane.room(MS * 10), 0, "nobody has found it");
        lane.found();
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(lane.room(MS * 10));
            let epoch = lane.claimed();
            lane.settled(epoch, None, MS * 100);
        }
        assert_eq!(seen, [1, 2, 4, 8]);
    }

    #[test]
    fn what_hangs_since_before_an_outage_takes_its_jobs_and_keeps_nothing_else_waiting() {
        let mut lane = Lane::new(4);
        let old: Vec<Epoch> = (0..4).map(|_| lane.claimed()).collect();
        assert!(lane.away(old[0], MS, MS));
        lane.found();
        assert_eq!(lane.room(MS * 9), 1, "three hang, one job is free");
        let canary = lane.claimed();
        assert!(
            !lane.away(old[1], MS * 9, MS),
            "this one was sent before the outage, and tells nothing new"
        );
        assert!(!lane.is_lost());
        lane.settled(canary, None, MS * 100);
        assert_eq!(lane.room(MS * 9), 2, "and two hang");
        lane.settled(old[2], None, MS * 9000);
        assert!(!lane.away(old[3], MS * 9, MS));
        assert_eq!(lane.room(MS * 9), 2, "what is old tells nothing of how many may run");
    }

    #[test]
    fn a_backend_that_probes_find_and_operations_do_not_is_left_alone_for_longer_and_longer() {
        let mut lane = Lane::new(1);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let epoch = lane.claimed();
            lane.away(epoch, Duration::ZERO, MS);
            pauses.push((0..).find(|pause| !lane.is_closed(MS * *pause)).unwrap());
            lane.found();
        }
        assert_eq!(pauses, [1, 1, 2, 4, 8, 10, 10, 10]);
        let epoch = lane.claimed();
        lane.settled(epoch, Some(Time::from_millis(1)), MS);
        let epoch = lane.claimed();
        lane.away(epoch, Duration::ZERO, MS);
        assert!(!lane.is_closed(MS), "it had come back");
    }

    #[test]
    fn only_a_backend_that_a_probe_has_missed_comes_back() {
        let mut lane = Lane::new(1);
        let epoch = lane.claimed();
        lane.away(epoch, Duration::ZERO, MS);
        assert!(!lane.found(), "one connection that broke off is no outage");
        let epoch = lane.claimed();
        lane.away(epoch, Duration::ZERO, MS);
        lane.missed(MS, MS);
        assert!(lane.found());
        let mut of_an_earlier_run = Lane::new(1);
        of_an_earlier_run.suspect(true);
        assert!(of_an_earlier_run.found());
    }
}
