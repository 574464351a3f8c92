//! Time and randomness: the only callers of wall time, monotonic time, sleep and random numbers.
#![expect(clippy::disallowed_methods, reason = "the only module that may call them")]

#[cfg(any(test, feature = "test-util"))]
mod manual;

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use crate::operation::Time;
#[cfg(any(test, feature = "test-util"))]
pub use manual::ManualClock;

/// A source of time and random numbers.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the wall time, which may jump forwards and backwards.
    fn now(&self) -> Time;
    /// Returns the time since a fixed instant of this process; it never decreases.
    fn elapsed(&self) -> Duration;
    /// Blocks for `duration`.
    fn sleep(&self, duration: Duration);
    /// Returns a random number.
    fn random(&self) -> u64;

    /// Returns a random number from 0 (included) to 1 (excluded).
    fn chance(&self) -> f64 {
        (self.random() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The clock and the random numbers of this machine.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    random: Mutex<fastrand::Rng>,
}

impl SystemClock {
    /// Returns a clock that counts from now.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_advanced_or_set() {
        let clock = ManualClock::new(Time::from_millis(100), 7);
        assert_eq!((clock.now(), clock.elapsed()), (Time::from_millis(100), Duration::ZERO));
        (0..4).for_each(|_| clock.advance(Duration::from_micros(250)));
        assert_eq!(clock.now(), Time::from_millis(101));
        clock.set(Time::from_millis(5));
        clock.sleep(Duration::from_millis(2));
        assert_eq!(
            (clock.now(), clock.elapsed()),
            (Time::from_millis(7), Duration::from_millis(3))
        );
    }

    #[test]
    fn a_seed_determines_all_random_numbers() {
        let clock = || ManualClock::new(Time::from_millis(0), 7);
        let (one, other) = (clock(), clock());
        for _ in 0..100 {
            let chance = one.chance();
            assert!((0.0..1.0).contains(&chance));
            assert_eq!(chance.to_bits(), other.chance().to_bits());
        }
    }
}
