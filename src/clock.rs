//! Time and chance: the only callers of wall time, monotonic time, sleep and randomness.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam behind which time and chance live"
)]

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use crate::operation::Time;

/// Where time and chance come from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall time; it may jump.
    fn now(&self) -> Time;
    /// Time since some fixed instant of this process; it never goes back.
    fn elapsed(&self) -> Duration;
    /// Lets that much time pass.
    fn sleep(&self, duration: Duration);
    /// A random number.
    fn random(&self) -> u64;

    /// A random number between 0 and 1.
    fn chance(&self) -> f64 {
        (self.random() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    random: Mutex<fastrand::Rng>,
}

impl SystemClock {
    /// The machine's clock and randomness.
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now(), random: Mutex::new(fastrand::Rng::new()) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let ms = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Time::from_millis(ms)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn random(&self) -> u64 {
        self.random
            .lock()
            .map(|mut rng| rng.u64(..))
            .unwrap_or_else(|poisoned| poisoned.into_inner().u64(..))
    }
}

/// A clock for tests: it stands still until told otherwise, and its chance comes from a seed.
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
    /// A clock that shows `now`; `seed` decides all chance.
    pub fn new(now: Time, seed: u64) -> ManualClock {
        let random = fastrand::Rng::with_seed(seed);
        ManualClock { state: Mutex::new(ManualState { now, elapsed: Duration::ZERO, random }) }
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.lock();
        let before = state.elapsed.as_millis();
        state.elapsed += duration;
        // Many pauses of microseconds make a millisecond.
        let passed = state.elapsed.as_millis() - before;
        state.now = state.now.plus_millis(i64::try_from(passed).unwrap_or(i64::MAX));
    }

    /// Makes the wall clock jump.
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
