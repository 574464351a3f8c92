//! `process`: the drain loop.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use crate::cli::args::{backend, duration};
use crate::cli::command::Command;
use crate::cli::context::{Context, Session};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::signals::Interrupts;
use crate::cli::{references, waiting};
use crate::client::{ClientError, ProcessReport, Reference};
use crate::operation::{BackendName, Number, Operation, Status};
use crate::report::{
    DryRun, ErrorType, Settled, Skipped, Summary, operation_table, process_counts, process_summary,
    visible, write_plan, write_result,
};
use crate::wal::WalError;
use crate::worker::{Observer, ProcessOptions};

/// Operations that `--dry-run` lists without `--limit`.
const DRY_RUN_SHOWN: usize = 20;

const HELP: &str = "\
With --json, stdout is a stream with one document per line:
{\"event\":\"settled\",…} for each attempt that ended, and
{\"event\":\"summary\",…} at the end.

On SIGTERM or SIGINT no new operation starts. Running ones get --grace to
finish, and are returned to the queue if they do not. A second signal returns
them at once.

Examples:
  wal-cli process
  wal-cli process --follow --jobs 8
  * * * * * wal-cli process --skip-if-running --max-time 50s     # cron";

/// Execute due operations
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Process {
    /// Only these operations, and those they depend on
    #[arg(value_name = "ID")]
    id: Vec<String>,
    /// Only show which operations would run, and which would not
    #[arg(long, conflicts_with_all = ["follow", "max_time", "skip_if_running"])]
    dry_run: bool,
    /// Keep running: execute new operations as they are logged
    #[arg(long, short)]
    follow: bool,
    /// Only operations of this backend
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    backend: Option<BackendName>,
    /// Most operations that run at the same time on each backend [default: setting jobs]
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Stop after this many operations
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Start no operation after this long; running ones finish
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_time: Option<Duration>,
    /// Succeed without doing anything if another drain loop is running
    #[arg(long)]
    skip_if_running: bool,
    /// Time that running operations get to finish after SIGTERM or SIGINT
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = duration)]
    grace: Duration,
}

impl Command for Process {
    const NAME: &'static str = "process";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(&self.label())?;
        context.check_backend(self.backend.as_ref())?;
        let only = named(context, &self.id)?;
        if self.dry_run {
            return dry_run(context, &self, only.as_ref());
        }
        let options = self.options(context, only.as_ref())?;
        let is_new = !context.client.exists()?;
        let interrupts = Interrupts::install()?;
        let Drained { result, first_failed } = drain(context, &options, &interrupts)?;
        match result {
            Ok(report) => {
                let exit = finish(context, &report, first_failed.as_ref(), &interrupts)?;
                if is_new && !context.client.exists()? {
                    // A mistyped directory would otherwise look like an empty log.
                    let base = context.client.settings().base_path.display().to_string();
                    context.output.note(&format!("there is no log in `{base}` yet"));
                }
                note_unfinished(context, only.as_ref())?;
                Ok(exit)
            }
            Err(ClientError::Wal(WalError::Busy { path, .. }))
                if self.skip_if_running && path.ends_with("process.lock") =>
            {
                skipped(context)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Process {
    /// Returns the name of this run in histories and lock notes.
    fn label(&self) -> String {
        let follow = if self.follow { " --follow" } else { "" };
        let backend =
            self.backend.as_ref().map_or_else(String::new, |name| format!(" --backend {name}"));
        format!("{}{follow}{backend}", Self::NAME)
    }

    fn options(
        &self,
        context: &Context<'_>,
        only: Option<&BTreeSet<Number>>,
    ) -> Result<ProcessOptions, CliError> {
        let mut options = ProcessOptions::default()
            .with_follow(self.follow)
            .with_backend(self.backend.clone())
            .with_jobs(self.jobs.map(usize::from))
            .with_limit(self.limit)
            .with_max_time(self.max_time)
            .with_grace(self.grace);
        if let Some(only) = only {
            options = options.with_only(only.iter().copied());
        }
        // A drain loop may run indefinitely, but `add --wait` and the like end soon.
        let running = context.client.running_loop()?;
        if context.lock_timeout_given || running.is_some_and(|holder| holder.work.is_none()) {
            options = options.with_lock_timeout(context.client.settings().lock_timeout);
        }
        Ok(options)
    }
}

/// The end of a drain.
struct Drained {
    result: Result<ProcessReport, ClientError>,
    first_failed: Option<Operation>,
}

/// Runs the loop, and prints each attempt that ends.
fn drain(
    context: &mut Context<'_>,
    options: &ProcessOptions,
    interrupts: &Interrupts,
) -> Result<Drained, CliError> {
    let mut first_failed = None;
    let mut printed = Ok(());
    let output = &mut *context.output;
    let mut progress = Progress::new(output).on_settled(|operation| {
        let failed = operation.status() == Status::Failed && !operation.is_abandoned();
        if failed && first_failed.is_none() {
            first_failed = Some(operation.clone());
        }
        // The loop continues even if stdout cannot be written.
        if printed.is_ok() {
            printed = output.event(Settled::new(operation), |output| {
                output.write(|out, style| write_result(out, operation, style))
            });
        }
    });
    let result = {
        let observer: &mut dyn Observer = &mut progress;
        #[cfg(feature = "test-util")]
        let observer: &mut dyn Observer =
            &mut crate::cli::failpoints::FailpointObserver::new(observer, context.points.clone());
        context.client.process(options, &interrupts.stop, observer)
    };
    progress.end();
    drop(progress);
    match printed {
        Err(error) if !error.is_silent() => Err(error),
        _ => Ok(Drained { result, first_failed }),
    }
}

/// Returns the operations named and those they depend on, or `None` if none was named.
fn named(context: &Context<'_>, ids: &[String]) -> Result<Option<BTreeSet<Number>>, CliError> {
    if ids.is_empty() {
        return Ok(None);
    }
    let selection = references::parse(context, ids)?;
    let operations = context.operations(&selection.references)?;
    Ok(Some(context.client.with_dependencies(operations.iter().map(|operation| operation.number))?))
}

/// Notes why operations that were named have not completed.
fn note_unfinished(
    context: &mut Context<'_>,
    only: Option<&BTreeSet<Number>>,
) -> Result<(), CliError> {
    if !context.output.shows_notes() {
        return Ok(());
    }
    for number in only.into_iter().flatten() {
        let why = context.client.why(&Reference::Number(*number))?;
        let status = why.operation.status();
        if status != Status::Completed {
            let verb = if status == Status::Failed { "has" } else { "is" };
            context.output.note(&format!("operation {number} {verb} {status}: {}", why.sentence));
        }
    }
    Ok(())
}

fn dry_run(
    context: &mut Context<'_>,
    args: &Process,
    only: Option<&BTreeSet<Number>>,
) -> Result<Exit, CliError> {
    let limit =
        args.limit.map_or(DRY_RUN_SHOWN, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let plan = context.client.plan(args.backend.as_ref(), only, limit)?;
    let error = plan.damage.clone().map(|damage| CliError::from(WalError::Damaged(damage)));
    context.output.outcome(
        || DryRun::new(&plan),
        error.as_ref(),
        |output| {
            if !plan.operations.is_empty() {
                output.text(&operation_table(&plan.operations, &output.style, true))?;
            }
            output.write(|out, _| write_plan(out, &plan))
        },
    )
}

/// Prints the summary of a run, and returns its exit code.
fn finish(
    context: &mut Context<'_>,
    report: &ProcessReport,
    first_failed: Option<&Operation>,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    let error = error_of(context, report, first_failed, interrupts)?;
    let Context { output, client, .. } = context;
    output.outcome(
        || Summary::new(report),
        error.as_ref(),
        |output| {
            output.note(&process_summary(report));
            // An attempt has already printed its failure.
            if process_counts(report).is_empty() {
                let known = client.known_health();
                let unreachable =
                    known.iter().filter(|health| report.unreachable.contains(&health.backend));
                for health in unreachable {
                    if let Some(failure) = &health.failure {
                        let message = visible(&failure.message);
                        output.note(&format!("backend `{}`: {message}", health.backend));
                    }
                }
            }
            Ok(())
        },
    )
}

fn error_of(
    context: &Context<'_>,
    report: &ProcessReport,
    first_failed: Option<&Operation>,
    interrupts: &Interrupts,
) -> Result<Option<CliError>, CliError> {
    let ProcessReport { completed, failed, retrying, handed_back, .. } = *report;
    if interrupts.by_keyboard() {
        let rest = match handed_back {
            0 => "",
            _ => "; unfinished operations were returned to the queue",
        };
        return Ok(Some(
            CliError::new(ErrorType::Interrupted, format!("interrupted{rest}"))
                .hint("run `wal-cli process` to continue"),
        ));
    }
    if let Some(free) = report.out_of_room {
        return Ok(Some(context.client.wal()?.no_room_for_outcomes(free).into()));
    }
    let Some(first) = first_failed.filter(|_| failed > 0) else { return Ok(None) };
    let count = |n| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(Some(waiting::failure(first, count(failed), count(completed + failed + retrying))))
}

/// Reports that another drain loop is running.
fn skipped(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let running = context.client.running_loop()?;
    let document = Skipped::new(running.as_ref());
    let text = |output: &mut Output| {
        let holder = running
            .as_ref()
            .map_or_else(String::new, |note| format!(": `{}`, pid {}", note.command, note.pid));
        output.note(&format!("skipped: another drain loop is running{holder}"));
        Ok(())
    };
    context.output.outcome(|| document, None, text)
}
