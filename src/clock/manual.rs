use std::sync::Mutex;
use std::time::Duration;

use super::Clock;
use crate::operation::Time;

/// A clock for tests: it moves only when advanced, set or slept on, and derives its random numbers
/// from a seed.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<ManualState>,
}

#[derive(Debug)]
struct ManualState {
    now: Time,
    elapsed: Duration,
    random: fastrand::Rng,
}

impl ManualClock {
    /// Returns a clock that shows `now`; `seed` determines all random numbers.
    pub fn new(now: Time, seed: u64) -> ManualClock {
        let random = fastrand::Rng::with_seed(seed);
        ManualClock { state: Mutex::new(ManualState { now, elapsed: Duration::ZERO, random }) }
    }

    /// Advances wall time and monotonic time.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.lock();
        let before = state.elapsed.as_millis();
        state.elapsed += duration;
        // Pauses of microseconds add up to milliseconds.
        let passed = state.elapsed.as_millis() - before;
        state.now = state.now.plus_millis(i64::try_from(passed).unwrap_or(i64::MAX));
    }

    /// Makes the wall time jump to `now`.
    pub fn set(&self, now: Time) {
        self.lock().now = now;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        self.lock().now
    }

    fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
        std::thread::yield_now();
    }

    fn random(&self) -> u64 {
        self.lock().random.u64(..)
    }
}
