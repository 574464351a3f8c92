//! `health`: probes the backends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use unicode_width::UnicodeWidthStr;

use crate::cli::args::{backend, duration};
use crate::cli::command::Command;
use crate::cli::context::{Context, Session};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::signals::Interrupts;
use crate::client::{BackendHealth, HealthStatus};
use crate::operation::BackendName;
use crate::report::{self, Document, ErrorType, health_line, write_health};

/// The interval at which a request to stop is checked between two probes.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The shortest time between two probes.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

const HELP: &str = "\
A backend is online if its last 3 checks succeeded, offline if all of them
failed, and degraded otherwise; with fewer checks, the last one decides.
Ordinary operations count as checks: each success or connection failure is
recorded.

The exit code is 1 if a probe fails: that of the named backend or, if none is
named, that of any backend in use (the default backend, those with settings of
their own, and those of operations in the log).

Examples:
  wal-cli health
  wal-cli health --backend s3 --watch --interval 5s";

/// Probe the backends now
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Health {
    /// Only this backend
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    backend: Option<BackendName>,
    /// Keep probing and report changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Time between 2 probes, such as 5s [default: setting health_check_interval]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "watch")]
    interval: Option<Duration>,
}

impl Command for Health {
    const NAME: &'static str = "health";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let backend = self.backend.as_ref();
        context.check_backend(backend)?;
        if self.watch {
            return watch(context, backend, self.interval);
        }
        let all = context.client.backend_health(backend)?;
        let error = offline(&all, &relevant(context, backend));
        let now = context.client.clock().now();
        context.output.outcome(
            || report::Health::new(&all),
            error.as_ref(),
            |output| {
                let style = report::Style { now, ..output.style };
                output.text(&write_health(&all, &style))
            },
        )
    }
}

/// Returns the backends whose failure is an error: the one that was named, or else those in use.
/// If the log is unreadable, all of them, since those in use are unknown.
fn relevant(context: &Context<'_>, backend: Option<&BackendName>) -> BTreeSet<BackendName> {
    let all = || context.client.backends().names().map(|(name, _)| name.clone()).collect();
    match backend {
        Some(name) => BTreeSet::from([name.clone()]),
        None => context.client.used_backends().unwrap_or_else(|_| all()),
    }
}

fn offline(all: &[BackendHealth], relevant: &BTreeSet<BackendName>) -> Option<CliError> {
    let offline: Vec<&str> = all
        .iter()
        .filter(|health| relevant.contains(&health.backend))
        .filter(|health| health.status != HealthStatus::NotConfigured)
        .filter(|health| health.status == HealthStatus::Offline || health.failure.is_some())
        .map(|health| health.backend.as_str())
        .collect();
    (!offline.is_empty()).then(|| {
        let (word, verb) = if offline.len() == 1 { ("backend", "is") } else { ("backends", "are") };
        let message = format!("{word} `{}` {verb} unreachable", offline.join("`, `"));
        CliError::new(ErrorType::Offline, message)
            .hint("operations wait in the log, and are sent once their backend is reachable")
            .with(|fields| fields.offline = Some(offline.iter().map(ToString::to_string).collect()))
    })
}

/// Probes until interrupted. A terminal shows one table that is kept up to date, a pipe receives a
/// line for each change, and JSON is one document per round.
fn watch(
    context: &mut Context<'_>,
    backend: Option<&BackendName>,
    interval: Option<Duration>,
) -> Result<Exit, CliError> {
    let interrupts = Interrupts::install()?;
    let clock = context.client.clock().clone();
    let interval =
        interval.unwrap_or(context.client.settings().health_check_interval).max(INTERVAL_MIN);
    let mut screen = Screen::default();
    while !interrupts.stop.is_requested() {
        let began = clock.elapsed();
        let all = context.client.backend_health(backend)?;
        let error = offline(&all, &relevant(context, backend));
        let output = &mut *context.output;
        output.style.now = clock.now();
        let error = error.as_ref().map(|error| error.document(&output.invocation));
        let document = Document::with_error(report::Health::new(&all), error);
        output.event(document, |output| screen.show(output, &all))?;
        if output.is_closed() {
            break;
        }
        while !interrupts.stop.is_requested() && clock.elapsed().saturating_sub(began) < interval {
            clock.sleep(POLL_INTERVAL.min(interval));
        }
    }
    Ok(if interrupts.by_keyboard() { Exit::Interrupted } else { Exit::Done })
}

/// The output that was shown last.
#[derive(Default)]
struct Screen {
    /// Terminal rows that it occupies.
    rows: usize,
    statuses: BTreeMap<BackendName, HealthStatus>,
}

impl Screen {
    fn show(&mut self, output: &mut Output, all: &[BackendHealth]) -> Result<(), CliError> {
        let style = output.style;
        match style.width {
            Some(columns) => {
                if self.rows > 0 {
                    output.text(&format!("\x1b[{}A\x1b[J", self.rows))?;
                }
                let plain = write_health(all, &report::Style { color: false, ..style });
                self.rows =
                    plain.lines().map(|line| line.width().div_ceil(columns.max(1)).max(1)).sum();
                output.text(&write_health(all, &style))?;
            }
            None => {
                for health in all {
                    let before = self.statuses.insert(health.backend.clone(), health.status);
                    if before != Some(health.status) {
                        output.text(&health_line(health, &style))?;
                    }
                }
            }
        }
        output.flush()
    }
}
