//! How far running attempts have come, for whoever asks from another process.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Running, Worker};
use crate::disk::{Disk, DiskResult, replace_unsynced};
use crate::operation::Number;
use crate::wal::Layout;

/// How often it is written down.
const INTERVAL: Duration = Duration::from_secs(1);

/// Over how many of those a rate is taken.
const SAMPLES: usize = 6;

/// How far one attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes moved.
    pub bytes_done: u64,
    /// Bytes to be moved, if that is known.
    pub bytes_total: Option<u64>,
    /// Bytes per second over the last seconds.
    pub bytes_per_second: u64,
}

impl Progress {
    /// Seconds until the rest is moved at this rate.
    pub fn seconds_left(&self) -> Option<u64> {
        let left = self.bytes_total?.checked_sub(self.bytes_done)?;
        left.checked_div(self.bytes_per_second)
    }
}

/// `progress.json`: a convenience, of which nothing is synced.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    /// The drain loop that wrote it.
    pid: u32,
    attempts: BTreeMap<Number, Progress>,
}

/// How far an attempt of the drain loop with this process id has come, if it moves bytes and has run for a while.
pub fn of(disk: &dyn Disk, layout: &Layout, pid: u32, number: Number) -> Option<Progress> {
    let bytes = disk.read(&layout.progress()).ok()?;
    let page: Page = serde_json::from_slice(&bytes).ok()?;
    page.attempts.get(&number).copied().filter(|_| page.pid == pid)
}

/// What was measured of running attempts.
#[derive(Debug)]
pub(super) struct Meter {
    told_at: Duration,
    /// Whether anything may be written down.
    is_told: bool,
    samples: BTreeMap<Number, VecDeque<(Duration, u64)>>,
}

impl Meter {
    /// A meter before its first measurement: a dead loop with the same process id may have left something.
    pub(super) fn new() -> Meter {
        Meter { told_at: Duration::ZERO, is_told: true, samples: BTreeMap::new() }
    }

    /// Looks at what runs; none: nothing has moved bytes for a while.
    fn measure(
        &mut self,
        now: Duration,
        running: &BTreeMap<Number, Running>,
    ) -> BTreeMap<Number, Progress> {
        self.samples.retain(|number, _| running.contains_key(number));
        let mut attempts = BTreeMap::new();
        for (number, running) in running {
            let (bytes_done, total) = running.attempt.progress();
            // Most are over before anybody could ask.
            if bytes_done == 0 || now.saturating_sub(running.claimed_at) < INTERVAL {
                continue;
            }
            let samples =
                self.samples.entry(*number).or_insert_with(|| [(running.claimed_at, 0)].into());
            samples.push_back((now, bytes_done));
            if samples.len() > SAMPLES {
                samples.pop_front();
            }
            let (since, before) = samples.front().copied().unwrap_or_default();
            let seconds = now.saturating_sub(since).as_secs_f64().max(0.001);
            let bytes_per_second = (bytes_done.saturating_sub(before) as f64 / seconds) as u64;
            let bytes_total = (total > 0).then_some(total.max(bytes_done));
            attempts.insert(*number, Progress { bytes_done, bytes_total, bytes_per_second });
        }
        attempts
    }
}

impl Worker<'_, '_, '_> {
    /// Writes down how far attempts have come, if any takes long.
    pub(super) fn tell_progress(&mut self, now: Duration) {
        if now.saturating_sub(self.meter.told_at) < INTERVAL {
            return;
        }
        self.meter.told_at = now;
        let attempts = self.meter.measure(now, &self.running);
        if attempts.is_empty() {
            return self.forget_progress();
        }
        let page = Page { pid: self.tools.disk.identity().pid, attempts };
        match self.publish(&page) {
            Ok(()) => self.meter.is_told = true,
            Err(error) => {
                tracing::debug!(%error, "could not write down how far attempts have come")
            }
        }
    }

    /// Takes back what was written down.
    pub(super) fn forget_progress(&mut self) {
        if std::mem::take(&mut self.meter.is_told) {
            // What is left over names this process, and nobody believes it once that is gone.
            let _ = self.tools.disk.remove_file(&self.tools.wal.layout().progress());
        }
    }

    fn publish(&self, page: &Page) -> DiskResult<()> {
        let (disk, layout) = (&**self.tools.disk, self.tools.wal.layout());
        let Ok(bytes) = serde_json::to_vec(page) else { return Ok(()) };
        let staged = layout.staged(&format!("progress.{}.json", page.pid));
        replace_unsynced(disk, &staged, &layout.progress(), &bytes)
    }
}
