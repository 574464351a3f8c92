//! The threads that calls over the network run on, and how a call is waited for.
//!
//! Backends are called by threads that may block, the network is asynchronous: a small runtime carries the exchanges,
//! started when the first one is made. Every wait has a limit, and ends soon when the attempt is cancelled.

use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::time::Instant;

use super::Attempt;

/// How soon a wait notices that the attempt was cancelled.
const PATIENCE: Duration = Duration::from_millis(50);

/// A client and the threads that its calls run on, started when they are first needed.
pub(super) struct Engine<C> {
    /// Once it could be started: what stood in its way before may be gone the next time.
    started: OnceLock<(Threads, C)>,
}

impl<C> Engine<C> {
    /// Nothing is started yet.
    pub fn new() -> Engine<C> {
        Engine { started: OnceLock::new() }
    }

    /// What was started, or is now by `start`.
    pub fn started<E>(
        &self,
        start: impl FnOnce() -> Result<(Threads, C), E>,
    ) -> Result<(&Threads, &C), E> {
        let (threads, client) = match self.started.get() {
            Some(started) => started,
            None => {
                let started = start()?;
                // If another thread was faster, its engine stays.
                self.started.get_or_init(|| started)
            }
        };
        Ok((threads, client))
    }
}

/// Threads that carry exchanges, until they are dropped.
pub(super) struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        // What still runs there was given up; nobody waits for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Threads {
    /// Starts this many; the error says why there are none, and what to do.
    pub fn start(name: &str, count: usize) -> Result<Threads, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(count)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(|error| {
                let advice =
                    "see how many files and processes it may have (`ulimit -n`, `ulimit -u`)";
                format!("there are no means for the network: {error}; {advice}")
            })?;
        Ok(Threads { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Begins something, which ends when it is dropped.
    pub fn spawn<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        Task(self.handle.spawn(what))
    }

    /// Waits for a future that has limits of its own.
    #[cfg(feature = "s3")]
    pub fn finish<T>(&self, what: impl Future<Output = T>) -> T {
        self.handle.block_on(what)
    }

    /// Waits for something, no longer than the attempt and its limits allow. What the attempt has moved counts as
    /// movement; `moved_at` is when something last did, where that is not now.
    pub fn wait<T>(
        &self,
        attempt: &Attempt,
        spell: Spell,
        moved_at: Option<Instant>,
        what: impl Future<Output = T>,
    ) -> Result<T, Unfinished> {
        self.handle.block_on(async {
            let mut what = pin!(what);
            let mut now = Instant::now();
            let (mut since, mut moved) = (moved_at.unwrap_or(now), attempt.progress().0);
            // Also before what does not let us wait: something may come without an end.
            loop {
                if attempt.is_cancelled() {
                    return Err(Unfinished::Stopped);
                }
                if spell.until.is_some_and(|until| now >= until) {
                    return Err(Unfinished::TimedOut("it took longer in all than it may".into()));
                }
                let done = attempt.progress().0;
                if done != moved {
                    (since, moved) = (now, done);
                }
                if now.duration_since(since) >= spell.idle {
                    return Err(Unfinished::TimedOut(format!(
                        "nothing moved for {:?}",
                        spell.idle
                    )));
                }
                tokio::select! {
                    biased;
                    out = &mut what => return Ok(out),
                    () = tokio::time::sleep(PATIENCE) => {}
                }
                now = Instant::now();
            }
        })
    }
}

/// Something under way; dropping it breaks it off.
pub(super) struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(feature = "s3")]
impl<T> Task<T> {
    /// What came of it; the error says that nothing did.
    pub async fn result(&mut self) -> Result<T, String> {
        (&mut self.0).await.map_err(|error| error.to_string())
    }
}

/// Why something was not waited for any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// The attempt was cancelled.
    Stopped,
    /// A limit was reached; the text says which.
    TimedOut(String),
}

/// How long one call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spell {
    /// With nothing moving.
    idle: Duration,
    /// Until when it must be over.
    until: Option<Instant>,
}

impl Spell {
    /// No longer than `idle` with nothing moving, and no longer than `total` in all, from now on.
    pub fn begin(idle: Duration, total: Option<Duration>) -> Spell {
        Spell { idle, until: total.map(|total| Instant::now() + total) }
    }

    /// No longer than this, from now on.
    pub fn of(total: Duration) -> Spell {
        Spell::begin(total, Some(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Threads {
        Threads::start("test", 1).expect("threads")
    }

    #[test]
    fn what_stood_in_the_way_of_a_start_is_not_kept() {
        let engine: Engine<u8> = Engine::new();
        assert_eq!(engine.started(|| Err("no descriptors")).err(), Some("no descriptors"));
        assert_eq!(
            engine.started(|| Ok::<_, ()>((threads(), 7))).ok().map(|started| *started.1),
            Some(7)
        );
        assert!(engine.started::<()>(|| panic!("it has started already")).is_ok());
    }

    #[test]
    fn a_wait_ends_at_each_of_its_limits_and_when_it_is_cancelled() {
        let threads = threads();
        let (soon, never) = (Duration::from_millis(20), Duration::from_secs(3600));
        let waited = |attempt: &Attempt, spell, moved_at| {
            threads
                .wait(attempt, spell, moved_at, std::future::pending::<()>())
                .expect_err("it never comes")
        };
        let attempt = Attempt::default();
        let idle = waited(&attempt, Spell::begin(soon, None), None);
        assert_eq!(idle, Unfinished::TimedOut("nothing moved for 20ms".into()));
        let total = waited(&attempt, Spell::begin(never, Some(soon)), None);
        assert_eq!(total, Unfinished::TimedOut("it took longer in all than it may".into()));
        let stale = Instant::now().checked_sub(Duration::from_secs(2));
        assert!(
            stale.is_none() || {
                let idle = waited(&attempt, Spell::begin(Duration::from_secs(1), None), stale);
                idle == Unfinished::TimedOut("nothing moved for 1s".into())
            }
        );
        attempt.cancel();
        assert_eq!(waited(&attempt, Spell::begin(never, None), None), Unfinished::Stopped);
        // Not even what is ready is taken then.
        let ready = threads.wait(&attempt, Spell::begin(never, None), None, std::future::ready(1));
        assert_eq!(ready, Err(Unfinished::Stopped));
    }

    #[test]
    fn what_an_attempt_moves_counts_as_movement() {
        let (threads, attempt) = (threads(), Attempt::default());
        let slow = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                attempt.add_bytes(1);
            }
            "done"
        };
        // Longer than each step, and half as long as all of them.
        assert_eq!(
            threads.wait(&attempt, Spell::begin(Duration::from_millis(500), None), None, slow),
            Ok("done")
        );
    }

    #[test]
    fn what_is_dropped_is_broken_off() {
        struct Tell(std::sync::mpsc::Sender<()>);
        impl Drop for Tell {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let threads = threads();
        let (sender, dropped) = std::sync::mpsc::channel();
        let tell = Tell(sender);
        drop(threads.spawn(async move {
            std::future::pending::<()>().await;
            drop(tell);
        }));
        dropped.recv_timeout(Duration::from_secs(30)).expect("it goes away");
    }
}
