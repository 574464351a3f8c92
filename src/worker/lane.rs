//! The lane of a backend: its claims, limited by its speed and its circuit breaker.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::breaker::{Breaker, Recovery};
use crate::backend::RateLimiter;
use crate::health::ProbeResult;
use crate::operation::{Failure, FailureClass, Time};

/// Claims of one lane at the same time, at most.
const CLAIMS_MAX: usize = 1000;

/// The time that the loop waits for a probe per turn: most answer at once.
const PROBE_PATIENCE: Duration = Duration::from_millis(20);

/// Counts the outages of a lane: an attempt that began before the last one says nothing about now.
pub type Epoch = u32;

/// The meaning of an attempt, or of a query, that could not reach its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Trip {
    /// The breaker tripped: an outage begins.
    Tripped,
    /// It belongs to an outage that is known already.
    Stale,
}

/// The operations of one backend that are claimed, and how many more may be.
#[derive(Debug)]
pub struct Lane {
    jobs: usize,
    /// The number of claims at the same time: as many as complete in a moment, and at least `jobs`.
    claims_max: usize,
    /// Claimed in this epoch, and not yet settled.
    in_flight: usize,
    /// Claimed in earlier epochs, and not yet settled.
    stale_in_flight: usize,
    epoch: Epoch,
    breaker: Breaker,
    /// When an operation last succeeded.
    last_success: Option<Time>,
    /// The result of the probe that is under way.
    probe: Option<Receiver<ProbeResult>>,
    /// Limits bytes per second, if the settings do.
    pub rate_limiter: Option<Arc<RateLimiter>>,
}

impl Lane {
    /// Returns a lane with this many jobs at the same time.
    pub fn new(jobs: usize) -> Lane {
        Lane {
            jobs: jobs.max(1),
            claims_max: jobs.max(1),
            in_flight: 0,
            stale_in_flight: 0,
            epoch: 0,
            breaker: Breaker::new(),
            last_success: None,
            probe: None,
            rate_limiter: None,
        }
    }

    /// Marks the backend as unreachable since an earlier run; `is_confirmed` if a probe found that.
    pub fn start_open(&mut self, is_confirmed: bool) {
        self.breaker = Breaker::open(is_confirmed);
    }

    /// Returns how many operations may be claimed now.
    pub fn capacity(&self) -> usize {
        // Attempts that have hung since before an outage occupy jobs, but hold back no claims
        // beyond.
        let jobs = self.jobs.saturating_sub(self.stale_in_flight);
        let claims_max = self.claims_max.saturating_sub(self.stale_in_flight);
        let limit = self.breaker.permits().unwrap_or(self.claims_max).min(claims_max);
        // Claims are written in batches: waiting until half have ended lets each flush serve many.
        if self.in_flight * 2 <= limit {
            return limit - self.in_flight;
        }
        // But no job idles for the sake of a batch.
        jobs.min(limit).saturating_sub(self.in_flight)
    }

    /// Counts one more claim. Returns the epoch that its end has to be reported with.
    pub fn claimed(&mut self) -> Epoch {
        self.in_flight += 1;
        self.epoch
    }

    /// Returns when an operation last succeeded.
    pub fn last_success(&self) -> Option<Time> {
        self.last_success
    }

    /// Returns whether the backend was unreachable, and has not answered since.
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Returns whether it is too early to probe the backend.
    pub fn is_pausing(&self, now: Duration) -> bool {
        self.breaker.is_pausing(now)
    }

    /// Returns whether a probe is under way.
    pub fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// Returns the result of the probe under way, which `start` begins if there is none; `None` if
    /// it has not answered yet. A backend that hangs delays the loop by a moment only.
    pub fn poll_probe(
        &mut self,
        start: impl FnOnce() -> Option<Receiver<ProbeResult>>,
    ) -> Option<ProbeResult> {
        if self.probe.is_none() {
            self.probe = start();
        }
        let Some(probe) = &self.probe else { return Some(Err(not_probed())) };
        let result = match probe.recv_timeout(PROBE_PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => Err(not_probed()),
        };
        self.probe = None;
        Some(result)
    }

    /// Records that a probe reached the backend.
    pub fn probe_succeeded(&mut self) -> Recovery {
        self.breaker.probe_succeeded()
    }

    /// Records that a probe did not reach the backend.
    pub fn probe_failed(&mut self, now: Duration, pause: Duration) {
        self.breaker.probe_failed(now, pause);
    }

    /// Records that an attempt of this epoch could not reach the backend.
    pub fn attempt_failed_to_connect(
        &mut self,
        epoch: Epoch,
        now: Duration,
        pause: Duration,
    ) -> Trip {
        self.release(epoch);
        if epoch < self.epoch {
            return Trip::Stale;
        }
        self.breaker.trip(now, pause);
        self.begin_epoch();
        Trip::Tripped
    }

    /// Records that a query about an earlier attempt could not reach the backend.
    pub fn query_failed(&mut self, now: Duration, pause: Duration) -> Trip {
        if self.is_open() {
            return Trip::Stale;
        }
        self.breaker.query_failed(now, pause);
        self.begin_epoch();
        Trip::Tripped
    }

    /// Records any other end of an attempt of this epoch. `success` is the time at which it
    /// succeeded, and `batch_took` the time from its claim to its end.
    pub fn attempt_ended(
        &mut self,
        epoch: Epoch,
        success: Option<Time>,
        batch_took: Duration,
    ) -> Recovery {
        self.release(epoch);
        let mut recovery = Recovery::NoChange;
        // Only success proves that the backend is reachable. Other ends may have local causes.
        if success.is_some() {
            self.last_success = success;
            recovery = self.breaker.attempt_succeeded();
        }
        if !self.is_open() && epoch == self.epoch {
            self.breaker.trial_ended(self.jobs);
            self.adjust_claims_max(batch_took);
        }
        recovery
    }

    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.stale_in_flight += std::mem::take(&mut self.in_flight);
        self.claims_max = self.jobs;
    }

    fn release(&mut self, epoch: Epoch) {
        let claims =
            if epoch == self.epoch { &mut self.in_flight } else { &mut self.stale_in_flight };
        *claims = claims.saturating_sub(1);
    }

    /// Adjusts the number of claims to what ends within a moment, because a crash interrupts all of
    /// them.
    fn adjust_claims_max(&mut self, batch_took: Duration) {
        if batch_took < Duration::from_millis(50) {
            self.claims_max = (self.claims_max * 2).min(CLAIMS_MAX.max(self.jobs));
        } else if batch_took > Duration::from_millis(250) {
            self.claims_max = (self.claims_max / 2).max(self.jobs);
        }
    }
}

fn not_probed() -> Failure {
    Failure {
        class: FailureClass::Outage,
        error_type: "not_probed".into(),
        message: "the backend could not be probed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn fast_lanes_claim_further_ahead() {
        let mut lane = Lane::new(4);
        assert_eq!(lane.capacity(), 4);
        for _ in 0..20 {
            let _ = lane.attempt_ended(0, None, MS);
        }
        assert_eq!(lane.capacity(), CLAIMS_MAX);
        lane.in_flight = CLAIMS_MAX / 2 + 1;
        assert_eq!(lane.capacity(), 0, "until half of them have ended");
        lane.in_flight = 0;
        for _ in 0..20 {
            let _ = lane.attempt_ended(0, None, MS * 1000);
        }
        assert_eq!(lane.capacity(), 4);
    }

    #[test]
    fn no_job_idles_beside_long_attempts() {
        let mut lane = Lane::new(4);
        for _ in 0..3 {
            lane.claimed();
        }
        assert_eq!(lane.capacity(), 1);
    }

    #[test]
    fn a_hanging_probe_is_not_repeated_until_it_answers() {
        let (sender, answer) = std::sync::mpsc::channel();
        let (mut lane, mut answer) = (Lane::new(4), Some(answer));
        lane.start_open(false);
        for _ in 0..3 {
            assert_eq!(lane.poll_probe(|| Some(answer.take().expect("a second probe"))), None);
        }
        sender.send(Ok(())).unwrap();
        assert_eq!(lane.poll_probe(|| None), Some(Ok(())));
        assert_eq!(lane.poll_probe(|| None), Some(Err(not_probed())), "there is nothing to probe");
    }

    #[test]
    fn after_an_outage_permits_double_from_one() {
        let mut lane = Lane::new(8);
        let epoch = lane.claimed();
        assert_eq!(Trip::Tripped, lane.attempt_failed_to_connect(epoch, Duration::ZERO, MS * 10));
        assert!(lane.is_pausing(MS * 9));
        assert_eq!(lane.capacity(), 0, "no probe has succeeded yet");
        let _ = lane.probe_succeeded();
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(lane.capacity());
            let epoch = lane.claimed();
            let _ = lane.attempt_ended(epoch, None, MS * 100);
        }
        assert_eq!(seen, [1, 2, 4, 8]);
    }

    #[test]
    fn attempts_that_hang_since_an_outage_occupy_only_their_jobs() {
        let mut lane = Lane::new(4);
        let old: Vec<Epoch> = (0..4).map(|_| lane.claimed()).collect();
        assert_eq!(Trip::Tripped, lane.attempt_failed_to_connect(old[0], MS, MS));
        let _ = lane.probe_succeeded();
        assert_eq!(lane.capacity(), 1, "three hang, one job is free");
        let canary = lane.claimed();
        assert_eq!(
            lane.attempt_failed_to_connect(old[1], MS * 9, MS),
            Trip::Stale,
            "it was sent before the outage"
        );
        assert!(!lane.is_open());
        let _ = lane.attempt_ended(canary, None, MS * 100);
        assert_eq!(lane.capacity(), 2, "two still hang");
        let _ = lane.attempt_ended(old[2], None, MS * 9000);
        assert_eq!(Trip::Stale, lane.attempt_failed_to_connect(old[3], MS * 9, MS));
        assert_eq!(lane.capacity(), 2, "ends of stale attempts grant no permits");
    }

    #[test]
    fn pauses_grow_while_probes_succeed_and_operations_do_not() {
        let mut lane = Lane::new(1);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let epoch = lane.claimed();
            let _ = lane.attempt_failed_to_connect(epoch, Duration::ZERO, MS);
            pauses.push((0..).find(|pause| !lane.is_pausing(MS * *pause)).unwrap());
            let _ = lane.probe_succeeded();
        }
        assert_eq!(pauses, [1, 1, 2, 4, 8, 10, 10, 10]);
        let epoch = lane.claimed();
        let _ = lane.attempt_ended(epoch, Some(Time::from_millis(1)), MS);
        let epoch = lane.claimed();
        let _ = lane.attempt_failed_to_connect(epoch, Duration::ZERO, MS);
        assert!(!lane.is_pausing(MS), "an operation had succeeded");
    }

    #[test]
    fn only_a_confirmed_outage_ends() {
        let mut lane = Lane::new(1);
        let epoch = lane.claimed();
        let _ = lane.attempt_failed_to_connect(epoch, Duration::ZERO, MS);
        assert_eq!(
            lane.probe_succeeded(),
            Recovery::NoChange,
            "a single broken connection is not an outage"
        );
        let epoch = lane.claimed();
        let _ = lane.attempt_failed_to_connect(epoch, Duration::ZERO, MS);
        lane.probe_failed(MS, MS);
        assert_eq!(lane.probe_succeeded(), Recovery::OutageEnded);
        let mut restarted = Lane::new(1);
        restarted.start_open(true);
        assert_eq!(restarted.probe_succeeded(), Recovery::OutageEnded);
    }
}
