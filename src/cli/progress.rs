//! Progress of running attempts, on stderr.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

use super::invocation::Invocation;
use super::output::{Output, bar_style};
use crate::backend::Attempt;
use crate::operation::{BackendName, Number, Operation};
use crate::report::{shortened, summary};
use crate::worker::{Observer, ProcessReport};

/// Columns for the summary of an operation.
const SUMMARY_WIDTH: usize = 28;

/// Bars shown at the same time. Further ones would push other output off the screen.
const BARS_MAX: usize = 8;

/// An observer that draws a bar for each long attempt, and passes on settled operations.
pub struct Progress<'a> {
    bars: Option<Bars>,
    /// The backends reported as unreachable; `None` with bars, which show them.
    reported: Option<Vec<BackendName>>,
    invocation: Invocation,
    settled: Box<dyn FnMut(&Operation) + 'a>,
}

impl<'a> Progress<'a> {
    /// Returns an observer that only draws.
    pub fn new(output: &Output) -> Progress<'a> {
        let bars = output.shows_bars().then(Bars::new);
        let reported = (output.shows_notes() && bars.is_none()).then(Vec::new);
        let invocation = output.invocation.clone();
        Progress { bars, reported, invocation, settled: Box::new(|_| {}) }
    }

    /// Returns an observer that also calls `settled` after each attempt.
    pub fn on_settled(self, settled: impl FnMut(&Operation) + 'a) -> Progress<'a> {
        Progress { settled: Box::new(settled), ..self }
    }

    /// Removes the bars.
    pub fn end(&mut self) {
        if let Some(bars) = self.bars.take() {
            // Fails only if the terminal was closed, which needs no clearing.
            bars.running
                .values()
                .filter_map(|running| running.bar.as_ref())
                .for_each(ProgressBar::finish_and_clear);
            let _ = bars.all.clear();
        }
    }
}

/// Returns the note about a backend that has become unreachable.
fn unreachable_note(name: &BackendName) -> String {
    format!(
        "note: backend `{name}` is unreachable; its operations wait \
         (`wal-cli health --backend {name}` shows why)"
    )
}

impl Observer for Progress<'_> {
    fn started(&mut self, operation: &Operation, attempt: &Arc<Attempt>) {
        if let Some(bars) = &mut self.bars {
            let label = format!(
                "{:>5}  {:<SUMMARY_WIDTH$}",
                operation.number,
                shortened(&summary(operation), SUMMARY_WIDTH)
            );
            bars.running
                .insert(operation.number, Running { attempt: attempt.clone(), label, bar: None });
        }
    }

    fn settled(&mut self, operation: &Operation) {
        let Some(bars) = &mut self.bars else { return (self.settled)(operation) };
        if let Some(bar) = bars.running.remove(&operation.number).and_then(|running| running.bar) {
            bar.finish_and_clear();
            bars.all.remove(&bar);
        }
        // Lines of the same terminal must not be mixed with the bars.
        bars.all.suspend(|| (self.settled)(operation));
    }

    fn tick(&mut self, report: &ProcessReport, waiting: u64) {
        if let Some(bars) = &mut self.bars {
            bars.draw(report, waiting);
        }
        if let Some(reported) = self.reported.as_mut().filter(|known| **known != report.unreachable)
        {
            for name in report.unreachable.iter().filter(|name| !reported.contains(name)) {
                // One note per outage. A failure to write to stderr must not end the loop.
                let _ = writeln!(
                    std::io::stderr(),
                    "{}",
                    self.invocation.pasteable(&unreachable_note(name))
                );
            }
            reported.clone_from(&report.unreachable);
        }
    }
}

struct Running {
    attempt: Arc<Attempt>,
    label: String,
    bar: Option<ProgressBar>,
}

struct Bars {
    all: MultiProgress,
    total: Option<ProgressBar>,
    running: BTreeMap<Number, Running>,
}

impl Bars {
    fn new() -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Bars { all, total: None, running: BTreeMap::new() }
    }

    /// Draws a bar for each attempt that has been running since the last tick.
    fn draw(&mut self, report: &ProcessReport, waiting: u64) {
        let mut shown = self.running.values().filter(|running| running.bar.is_some()).count();
        for running in self.running.values_mut() {
            let (done, total) = running.attempt.progress();
            if running.bar.is_none() && shown < BARS_MAX {
                let bar = self.all.insert(shown, ProgressBar::no_length());
                bar.set_style(bar_style(SPINNER));
                bar.set_message(running.label.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                running.bar = Some(bar);
                shown += 1;
            }
            let Some(bar) = &running.bar else { continue };
            if done > 0 && total > 0 && bar.length() != Some(total) {
                bar.set_style(bar_style(BAR));
                bar.set_length(total);
            } else if done > 0 && total == 0 && bar.position() == 0 {
                bar.set_style(bar_style(COUNT));
            }
            bar.set_position(done);
        }
        if (!self.running.is_empty() || waiting > 0) && self.total.is_none() {
            let bar = self.all.add(ProgressBar::no_length());
            bar.set_style(bar_style("{msg}"));
            self.total = Some(bar);
        }
        if let Some(bar) = &self.total {
            let mut words = vec![format!("{} completed", report.completed)];
            let more =
                [(report.failed, "failed"), (report.cancelled, "cancelled"), (waiting, "waiting")];
            words
                .extend(more.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")));
            words.extend(
                report.unreachable.iter().map(|backend| format!("`{backend}` is unreachable")),
            );
            if report.stopped {
                words.push("stopping (Ctrl-C again stops at once)".into());
            }
            bar.set_message(format!("{:>5}  {}", "", words.join(", ")));
        }
    }
}

const BAR: &str = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta:>3}";
const COUNT: &str = "{msg} {spinner} {bytes} {bytes_per_sec}";
const SPINNER: &str = "{msg} {spinner}";
