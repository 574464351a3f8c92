//! Progress of running attempts, on stderr, for people who watch.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::Terminal;
use crate::backend::Attempt;
use crate::operation::{BackendName, Number, Operation};
use crate::report::{shortened, summary};
use crate::worker::{Observer, ProcessReport};

/// Columns for what an operation is about.
const SUBJECT: usize = 28;

/// Bars at once: more would push everything else off the screen.
const BARS_MAX: usize = 8;

/// An observer that draws a bar for each attempt that takes a while, and hands on what ended.
pub struct Progress<'a> {
    bars: Option<Bars>,
    /// Without bars: the backends that were said to be away.
    away: Option<Vec<BackendName>>,
    settled: Box<dyn FnMut(&Operation) + 'a>,
}

impl<'a> Progress<'a> {
    /// Bars, if there is a terminal to draw them on.
    pub fn bars(terminal: &Terminal) -> Progress<'a> {
        Progress::new(terminal.quiet || terminal.json, |_| {})
    }

    /// The same with a function that is told of every attempt that ended.
    pub fn new(quiet: bool, settled: impl FnMut(&Operation) + 'a) -> Progress<'a> {
        let is_terminal = std::io::stderr().is_terminal();
        let bars = (!quiet && is_terminal).then(Bars::new);
        let away = (!quiet && !is_terminal).then(Vec::new);
        Progress { bars, away, settled: Box::new(settled) }
    }

    /// Takes the bars away.
    pub fn end(&mut self) {
        if let Some(bars) = self.bars.take() {
            // A terminal that is gone needs no clearing.
            bars.running
                .values()
                .filter_map(|running| running.bar.as_ref())
                .for_each(ProgressBar::finish_and_clear);
            let _ = bars.all.clear();
        }
    }
}

impl Observer for Progress<'_> {
    fn started(&mut self, operation: &Operation, attempt: &Arc<Attempt>) {
        if let Some(bars) = &mut self.bars {
            let label = format!(
                "{:>5}  {:<SUBJECT$}",
                operation.number,
                shortened(&summary(operation), SUBJECT)
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
        // Lines on the same terminal must not run into the bars.
        bars.all.suspend(|| (self.settled)(operation));
    }

    fn tick(&mut self, report: &ProcessReport, waiting: u64) {
        if let Some(bars) = &mut self.bars {
            bars.draw(report, waiting);
        }
        if let Some(told) = self.away.as_mut().filter(|told| **told != report.away) {
            for name in report.away.iter().filter(|name| !told.contains(name)) {
                // Whoever waits without a screen reads of it once; nobody may be there to read it.
                let _ = writeln!(
                    std::io::stderr(),
                    "note: `{name}` is away; what is to go there waits (`health` says why)"
                );
            }
            told.clone_from(&report.away);
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

    /// Called every now and then: what runs by then has run for a while, and is worth a bar.
    fn draw(&mut self, report: &ProcessReport, waiting: u64) {
        let mut shown = self.running.values().filter(|running| running.bar.is_some()).count();
        for running in self.running.values_mut() {
            let (done, total) = running.attempt.progress();
            if running.bar.is_none() && shown < BARS_MAX {
                let bar = self.all.insert(shown, ProgressBar::no_length());
                bar.set_style(style(SPINNER));
                bar.set_message(running.label.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                running.bar = Some(bar);
                shown += 1;
            }
            let Some(bar) = &running.bar else { continue };
            if done > 0 && total > 0 && bar.length() != Some(total) {
                bar.set_style(style(BAR));
                bar.set_length(total);
            } else if done > 0 && total == 0 && bar.position() == 0 {
                bar.set_style(style(COUNT));
            }
            bar.set_position(done);
        }
        if (!self.running.is_empty() || waiting > 0) && self.total.is_none() {
            let bar = self.all.add(ProgressBar::no_length());
            bar.set_style(style("{msg}"));
            self.total = Some(bar);
        }
        if let Some(bar) = &self.total {
            let mut words = vec![format!("{} completed", report.completed)];
            let more =
                [(report.failed, "failed"), (report.cancelled, "cancelled"), (waiting, "waiting")];
            words
                .extend(more.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")));
            words.extend(report.away.iter().map(|backend| format!("`{backend}` is away")));
            if report.stopped {
                words.push("stopping (once more: at once)".into());
            }
            bar.set_message(format!("{:>5}  {}", "", words.join(", ")));
        }
    }
}

const BAR: &str = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta:>3}";
const COUNT: &str = "{msg} {spinner} {bytes} {bytes_per_sec}";
const SPINNER: &str = "{msg} {spinner}";

fn style(template: &str) -> ProgressStyle {
    // The templates above are sound; without one a bar looks plain, which does no harm.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
