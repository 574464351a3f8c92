//! `health`: probes the backends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use super::Exit;
use super::args::Health;
use super::context::Context;
use super::error::CliError;
use super::signals::Interrupts;
use super::terminal::Terminal;
use crate::client::{BackendHealth, HealthStatus};
use crate::operation::BackendName;
use crate::report::{self, Document, ErrorType, health_line, write_health};

/// How soon a request to stop is seen between two probes.
const LOOK: Duration = Duration::from_millis(50);

/// Between two probes there is at least this.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Health) -> Result<Exit, CliError> {
    context.check_backend(args.backend.as_ref())?;
    if args.watch {
        return watch(context, args);
    }
    let all = context.client.backend_health(args.backend.as_ref())?;
    let error = offline(&all, &counted(context, args));
    let now = context.client.clock().now();
    context.terminal.outcome(report::Health::new(&all), error.as_ref(), |terminal| {
        let style = report::Style { now, ..terminal.style };
        terminal.text(&write_health(&all, &style))
    })
}

/// The backends whose being away is an error: the one that was named, else those that somebody means to use. Of a log that
/// cannot be read nobody knows which those are.
fn counted(context: &Context<'_>, args: &Health) -> BTreeSet<BackendName> {
    let all = || context.client.backends().names().map(|(name, _)| name.clone()).collect();
    match &args.backend {
        Some(name) => BTreeSet::from([name.clone()]),
        None => context.client.used_backends().unwrap_or_else(|_| all()),
    }
}

fn offline(all: &[BackendHealth], counted: &BTreeSet<BackendName>) -> Option<CliError> {
    let offline: Vec<&str> = all
        .iter()
        .filter(|health| counted.contains(&health.backend))
        .filter(|health| health.status != HealthStatus::NotConfigured)
        .filter(|health| health.status == HealthStatus::Offline || health.failure.is_some())
        .map(|health| health.backend.as_str())
        .collect();
    (!offline.is_empty()).then(|| {
        let (word, verb) = if offline.len() == 1 { ("backend", "is") } else { ("backends", "are") };
        let message = format!("{word} `{}` {verb} away", offline.join("`, `"));
        CliError::new(ErrorType::Offline, message)
            .hint("operations wait, and are sent once their backend is back")
            .with(|facts| facts.offline = Some(offline.iter().map(ToString::to_string).collect()))
    })
}

/// Probes until somebody wants it to end. On a terminal one table is kept up to date, elsewhere there is a line for each
/// change, and with `--json` a document for each round.
fn watch(context: &mut Context<'_>, args: &Health) -> Result<Exit, CliError> {
    let interrupts = Interrupts::listen()?;
    let clock = context.client.clock().clone();
    let interval =
        args.interval.unwrap_or(context.client.settings().health_check_interval).max(INTERVAL_MIN);
    let mut screen = Screen::default();
    while !interrupts.stop.is_requested() {
        let began = clock.elapsed();
        let all = context.client.backend_health(args.backend.as_ref())?;
        if context.terminal.json {
            let shown = offline(&all, &counted(context, args));
            let shown = shown.as_ref().map(|error| error.shown(context.terminal.program));
            context.terminal.document(&Document::with_error(report::Health::new(&all), shown))?;
        } else {
            context.terminal.style.now = clock.now();
            screen.show(context.terminal, &all)?;
        }
        if context.terminal.out.get_ref().is_gone() {
            break;
        }
        while !interrupts.stop.is_requested() && clock.elapsed().saturating_sub(began) < interval {
            clock.sleep(LOOK.min(interval));
        }
    }
    Ok(if interrupts.by_keyboard() { Exit::Interrupted } else { Exit::Done })
}

/// What was shown last.
#[derive(Default)]
struct Screen {
    /// Rows of a terminal that it takes.
    rows: usize,
    statuses: BTreeMap<BackendName, HealthStatus>,
}

impl Screen {
    fn show(&mut self, terminal: &mut Terminal, all: &[BackendHealth]) -> Result<(), CliError> {
        let style = terminal.style;
        match style.width {
            Some(columns) => {
                if self.rows > 0 {
                    terminal.text(&format!("\x1b[{}A\x1b[J", self.rows))?;
                }
                let plain = write_health(all, &report::Style { color: false, ..style });
                self.rows =
                    plain.lines().map(|line| line.width().div_ceil(columns.max(1)).max(1)).sum();
                terminal.text(&write_health(all, &style))?;
            }
            None => {
                for health in all {
                    let before = self.statuses.insert(health.backend.clone(), health.status);
                    if before != Some(health.status) {
                        terminal.text(&health_line(health, &style))?;
                    }
                }
            }
        }
        terminal.flush()
    }
}
