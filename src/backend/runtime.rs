//! Network calls of backends, from threads that block.
//!
//! Backends are called by blocking threads, but the HTTP clients are asynchronous. Their calls run
//! on a small Tokio runtime, which starts with the first call. Every wait has a deadline, and ends
//! soon after its attempt is cancelled.

use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::time::Instant;

use super::{Attempt, AttemptError};
use crate::operation::Failure;

/// The interval at which a wait checks for cancellation and for its deadline.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A client and the runtime that carries its calls, both created on first use.
pub(super) struct LazyClient<C> {
    /// Set by the first start that succeeds. A failed start is not kept, because its cause, such as
    /// missing file descriptors, may have passed by the next call.
    started: OnceLock<(BlockingRuntime, C)>,
}

impl<C> LazyClient<C> {
    /// Returns a client that is not started yet.
    pub fn new() -> LazyClient<C> {
        LazyClient { started: OnceLock::new() }
    }

    /// Returns the runtime and the client, created by `start` if there are none yet.
    pub fn get_or_start<E>(
        &self,
        start: impl FnOnce() -> Result<(BlockingRuntime, C), E>,
    ) -> Result<(&BlockingRuntime, &C), E> {
        let (runtime, client) = match self.started.get() {
            Some(started) => started,
            None => {
                let started = start()?;
                // If another thread was faster, its client is used.
                self.started.get_or_init(|| started)
            }
        };
        Ok((runtime, client))
    }
}

/// A Tokio runtime whose futures are waited for by threads that block.
pub(super) struct BlockingRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Drop for BlockingRuntime {
    fn drop(&mut self) {
        // Nothing waits for the tasks that still run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl BlockingRuntime {
    /// Starts a runtime with `threads` worker threads; the error says why it failed, with a hint.
    pub fn start(name: &str, threads: usize) -> Result<BlockingRuntime, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(|error| {
                let hint =
                    "check the limits on open files and processes (`ulimit -n`, `ulimit -u`)";
                format!("cannot start network threads: {error}; {hint}")
            })?;
        Ok(BlockingRuntime { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Starts a task that is aborted when it is dropped.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> RunningTask<T> {
        RunningTask(self.handle.spawn(future))
    }

    /// Waits for a future that has limits of its own.
    #[cfg(feature = "s3")]
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    /// Waits for a future until the deadline passes or the attempt is cancelled.
    ///
    /// Bytes that the attempt reports count as progress. `progress_at` is the time of the last
    /// progress; without it the wait itself starts the idle time.
    pub fn wait<T>(
        &self,
        attempt: &Attempt,
        deadline: Deadline,
        progress_at: Option<Instant>,
        future: impl Future<Output = T>,
    ) -> Result<T, WaitError> {
        self.handle.block_on(async {
            let mut future = pin!(future);
            let mut now = Instant::now();
            let (mut idle_since, mut bytes) = (progress_at.unwrap_or(now), attempt.progress().0);
            // Checked before the future is polled: an endless stream may always be ready.
            loop {
                if attempt.is_cancelled() {
                    return Err(WaitError::Cancelled);
                }
                if deadline.until.is_some_and(|until| now >= until) {
                    return Err(WaitError::TimedOut("the total time limit was exceeded".into()));
                }
                let bytes_now = attempt.progress().0;
                if bytes_now != bytes {
                    (idle_since, bytes) = (now, bytes_now);
                }
                if now.duration_since(idle_since) >= deadline.idle {
                    return Err(WaitError::TimedOut(format!(
                        "no progress for {:?}",
                        deadline.idle
                    )));
                }
                tokio::select! {
                    biased;
                    output = &mut future => return Ok(output),
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                }
                now = Instant::now();
            }
        })
    }
}

/// A task on a runtime; dropping it aborts the task.
pub(super) struct RunningTask<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for RunningTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(feature = "s3")]
impl<T> RunningTask<T> {
    /// Returns the output; the error says why there is none.
    pub async fn output(&mut self) -> Result<T, String> {
        (&mut self.0).await.map_err(|error| error.to_string())
    }
}

/// The reason why a wait ended before its future did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WaitError {
    /// The attempt was cancelled.
    Cancelled,
    /// A limit was reached; the text says which one.
    TimedOut(String),
}

/// The possible effect of a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SideEffect {
    None,
    Possible,
}

impl SideEffect {
    /// Returns the error for a call that failed without a definite answer.
    pub fn error(self, failure: Failure) -> AttemptError {
        match self {
            SideEffect::None => AttemptError::from(failure),
            SideEffect::Possible => AttemptError::UnknownOutcome(failure),
        }
    }
}

/// The longest time for a query about an earlier attempt.
pub(super) const QUERY_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// The time limits of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// The longest time without progress.
    idle: Duration,
    /// The time by which the call must have ended.
    until: Option<Instant>,
}

impl Deadline {
    /// Returns a deadline that allows `idle` without progress and `total` from now on.
    pub fn new(idle: Duration, total: Option<Duration>) -> Deadline {
        Deadline { idle, until: total.map(|total| Instant::now() + total) }
    }

    /// Returns the deadline of a query about an earlier attempt: `idle` from now, and at most 10
    /// seconds.
    pub fn for_query(idle: Duration) -> Deadline {
        Deadline::after(idle.min(QUERY_TIMEOUT_MAX))
    }

    /// Returns a deadline `total` from now, whatever the progress.
    pub fn after(total: Duration) -> Deadline {
        Deadline::new(total, Some(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> BlockingRuntime {
        BlockingRuntime::start("test", 1).expect("runtime")
    }

    #[test]
    fn a_failed_start_is_not_kept() {
        let client: LazyClient<u8> = LazyClient::new();
        assert_eq!(client.get_or_start(|| Err("no descriptors")).err(), Some("no descriptors"));
        assert_eq!(
            client.get_or_start(|| Ok::<_, ()>((runtime(), 7))).ok().map(|pair| *pair.1),
            Some(7)
        );
        assert!(client.get_or_start::<()>(|| panic!("already started")).is_ok());
    }

    #[test]
    fn a_wait_ends_at_each_limit_and_on_cancellation() {
        let runtime = runtime();
        let (soon, never) = (Duration::from_millis(20), Duration::from_secs(3600));
        let waited = |attempt: &Attempt, deadline, progress_at| {
            runtime
                .wait(attempt, deadline, progress_at, std::future::pending::<()>())
                .expect_err("it never completes")
        };
        let attempt = Attempt::default();
        let idle = waited(&attempt, Deadline::new(soon, None), None);
        assert_eq!(idle, WaitError::TimedOut("no progress for 20ms".into()));
        let total = waited(&attempt, Deadline::new(never, Some(soon)), None);
        assert_eq!(total, WaitError::TimedOut("the total time limit was exceeded".into()));
        let stale = Instant::now().checked_sub(Duration::from_secs(2));
        assert!(
            stale.is_none() || {
                let idle = waited(&attempt, Deadline::new(Duration::from_secs(1), None), stale);
                idle == WaitError::TimedOut("no progress for 1s".into())
            }
        );
        attempt.cancel();
        assert_eq!(waited(&attempt, Deadline::new(never, None), None), WaitError::Cancelled);
        // Even a ready future is not polled then.
        let ready = runtime.wait(&attempt, Deadline::new(never, None), None, std::future::ready(1));
        assert_eq!(ready, Err(WaitError::Cancelled));
    }

    #[test]
    fn bytes_of_the_attempt_count_as_progress() {
        let (runtime, attempt) = (runtime(), Attempt::default());
        let slow = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                attempt.add_bytes(1);
            }
            "done"
        };
        // The limit is longer than each step, and half as long as all steps together.
        assert_eq!(
            runtime.wait(&attempt, Deadline::new(Duration::from_millis(500), None), None, slow),
            Ok("done")
        );
    }

    #[test]
    fn a_dropped_task_is_aborted() {
        struct Notify(std::sync::mpsc::Sender<()>);
        impl Drop for Notify {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let runtime = runtime();
        let (sender, dropped) = std::sync::mpsc::channel();
        let notify = Notify(sender);
        drop(runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop(notify);
        }));
        dropped.recv_timeout(Duration::from_secs(30)).expect("the task is dropped");
    }
}
