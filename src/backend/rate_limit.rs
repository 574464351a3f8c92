//! A limit on the bytes per second of all attempts at one backend together.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// The interval at which a wait checks for cancellation.
const POLL: Duration = Duration::from_millis(50);

/// Delays attempts so that together they move at most a number of bytes per second. Unused time is
/// not credited.
#[derive(Debug)]
pub struct RateLimiter {
    per_second: NonZeroU64,
    clock: Arc<dyn Clock>,
    /// The monotonic time at which all bytes moved so far are within the limit.
    free_at: Mutex<Duration>,
}

impl RateLimiter {
    /// Returns a limiter for all attempts that share it.
    pub(crate) fn new(per_second: NonZeroU64, clock: Arc<dyn Clock>) -> RateLimiter {
        RateLimiter { per_second, clock, free_at: Mutex::default() }
    }

    /// Blocks until `bytes` more are within the limit, or `is_cancelled` returns true.
    pub(super) fn wait(&self, bytes: u64, is_cancelled: impl Fn() -> bool) {
        let duration = Duration::from_secs_f64(bytes as f64 / self.per_second.get() as f64);
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            *free_at = self.clock.elapsed().max(*free_at).saturating_add(duration);
            *free_at
        };
        while !is_cancelled() {
            let left = until.saturating_sub(self.clock.elapsed());
            if left.is_zero() {
                break;
            }
            self.clock.sleep(left.min(POLL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Attempt;
    use crate::clock::ManualClock;
    use crate::operation::Time;

    #[test]
    fn attempts_share_one_limit_and_stop_waiting_when_cancelled() {
        let clock = Arc::new(ManualClock::new(Time::from_millis(0), 1));
        let limiter = Arc::new(RateLimiter::new(NonZeroU64::new(1000).unwrap(), clock.clone()));
        let attempts =
            [Attempt::rate_limited(Some(limiter.clone())), Attempt::rate_limited(Some(limiter))];
        for nth in 0..10 {
            attempts[nth % 2].add_bytes(500);
        }
        assert_eq!(clock.elapsed(), Duration::from_secs(5));
        assert_eq!(attempts[0].progress(), (2500, 0));
        clock.advance(Duration::from_secs(60));
        attempts[0].add_bytes(1000);
        assert_eq!(clock.elapsed(), Duration::from_secs(66), "idle time is not saved up");
        attempts[1].cancel();
        attempts[1].add_bytes(1_000_000);
        assert_eq!(clock.elapsed(), Duration::from_secs(66));
    }
}
