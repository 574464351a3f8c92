//! Progress of running attempts, for other processes to read.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Environment, Running};
use crate::disk::{Disk, DiskResult, replace_unsynced};
use crate::operation::Number;
use crate::wal::Layout;

/// The interval at which progress is published.
const INTERVAL: Duration = Duration::from_secs(1);

/// The number of intervals over which a rate is measured.
const SAMPLES: usize = 6;

/// Progress of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes transferred so far.
    pub bytes_done: u64,
    /// Bytes to be transferred in total, if that is known.
    pub bytes_total: Option<u64>,
    /// Bytes per second over the last seconds.
    pub bytes_per_second: u64,
}

impl Progress {
    /// Returns how many seconds the rest takes at this rate, if the total is known.
    pub fn seconds_left(&self) -> Option<u64> {
        let left = self.bytes_total?.checked_sub(self.bytes_done)?;
        left.checked_div(self.bytes_per_second)
    }
}

/// The content of `progress.json`, which is never synced: losing it costs nothing.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ProgressFile {
    /// The process of the drain loop that wrote it.
    pid: u32,
    attempts: BTreeMap<Number, Progress>,
}

/// Returns the progress of an attempt of the drain loop with this process id, if the attempt
/// transfers bytes and has run for at least a second.
pub fn of(disk: &dyn Disk, layout: &Layout, pid: u32, number: Number) -> Option<Progress> {
    let bytes = disk.read(&layout.progress()).ok()?;
    let file: ProgressFile = serde_json::from_slice(&bytes).ok()?;
    file.attempts.get(&number).copied().filter(|_| file.pid == pid)
}

/// Measures running attempts, and publishes their progress.
pub(super) struct ProgressMeter<'a> {
    env: Environment<'a>,
    published_at: Duration,
    /// True if `progress.json` may exist.
    is_published: bool,
    samples: BTreeMap<Number, VecDeque<(Duration, u64)>>,
}

impl<'a> ProgressMeter<'a> {
    /// Returns a meter without measurements. A dead loop with the same process id may have left a
    /// file.
    pub(super) fn new(env: Environment<'a>) -> ProgressMeter<'a> {
        ProgressMeter {
            env,
            published_at: Duration::ZERO,
            is_published: true,
            samples: BTreeMap::new(),
        }
    }

    /// Returns the progress of attempts that have run for at least a second and transferred bytes.
    fn measure(
        &mut self,
        now: Duration,
        running: &BTreeMap<Number, Running>,
    ) -> BTreeMap<Number, Progress> {
        self.samples.retain(|number, _| running.contains_key(number));
        let mut attempts = BTreeMap::new();
        for (number, running) in running {
            let (bytes_done, total) = running.attempt.progress();
            // Most attempts end before their progress could be read.
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

    /// Publishes the progress of attempts that take long, once a second.
    pub(super) fn publish(&mut self, now: Duration, running: &BTreeMap<Number, Running>) {
        if now.saturating_sub(self.published_at) < INTERVAL {
            return;
        }
        self.published_at = now;
        let attempts = self.measure(now, running);
        if attempts.is_empty() {
            return self.withdraw();
        }
        let file = ProgressFile { pid: self.env.disk.identity().pid, attempts };
        match self.write(&file) {
            Ok(()) => self.is_published = true,
            Err(error) => {
                tracing::debug!(%error, "could not publish progress")
            }
        }
    }

    /// Removes what was published.
    pub(super) fn withdraw(&mut self) {
        if std::mem::take(&mut self.is_published) {
            // A file that remains names this process, and is ignored once the process has ended.
            let _ = self.env.disk.remove_file(&self.env.wal.layout().progress());
        }
    }

    fn write(&self, file: &ProgressFile) -> DiskResult<()> {
        let (disk, layout) = (&**self.env.disk, self.env.wal.layout());
        let Ok(bytes) = serde_json::to_vec(file) else { return Ok(()) };
        let staged = layout.staged(&format!("progress.{}.json", file.pid));
        replace_unsynced(disk, &staged, &layout.progress(), &bytes)
    }
}
