//! `archive`: pushes the archives of past days, and lists archives.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::{backend, duration};
use crate::cli::command::Command;
use crate::cli::context::{Context, Session};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::waiting;
use crate::client::{PushOperation, PushOptions, PushReport, Reference};
use crate::operation::{BackendName, Status};
use crate::report::{self, archive_table, pushed_table};

/// Push the archives of past days, or list archives
#[derive(Debug, Args)]
pub struct Archive {
    #[command(subcommand)]
    command: ArchiveCommand,
}

#[derive(Debug, Subcommand)]
enum ArchiveCommand {
    Push(Push),
    /// List the archives, and where each was pushed
    List,
}

const PUSH_HELP: &str = "\
Each archive becomes an upload to DEST/host=HOST/date=YYYY-MM-DD/. The upload is
an operation like any other: `process` executes it, and `retry` repeats a failed
one. Archives that are pushed, or whose upload is logged, are skipped.
docs/fleet.md has queries over the result.

With the setting archive_push, `cleanup` and `process` push as well, and
archives are kept until they are pushed.

Examples:
  wal-cli archive push s3://history/wal --dry-run
  wal-cli archive push s3://history/wal --host web1 --wait
  wal-cli archive push /history --backend local
  wal-cli config set archive_push s3://history/wal";

/// Push archives of past days, so that the histories of many logs become one table
#[derive(Debug, Args)]
#[command(after_help = PUSH_HELP)]
struct Push {
    /// Destination, such as s3://BUCKET/PREFIX [default: setting archive_push]
    #[arg(value_name = "DEST")]
    destination: Option<String>,
    /// Backend that uploads [default: setting archive_backend, or the S3 backend]
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    backend: Option<BackendName>,
    /// Name of this machine in the history [default: setting archive_host, or its host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Upload now, or wait until a running `process` has
    #[arg(long, short, conflicts_with = "dry_run")]
    wait: bool,
    /// Stop waiting after this long; the uploads stay logged
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration)]
    timeout: Option<Duration>,
    /// Only show which archives would be pushed
    #[arg(long)]
    dry_run: bool,
}

impl Command for Archive {
    const NAME: &'static str = "archive";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        match self.command {
            ArchiveCommand::Push(args) => push(&mut session.open("archive push")?, &args),
            ArchiveCommand::List => list(&mut session.open("archive list")?),
        }
    }
}

fn push(context: &mut Context<'_>, args: &Push) -> Result<Exit, CliError> {
    let options = PushOptions::default()
        .with_destination(args.destination.clone())
        .with_backend(args.backend.clone())
        .with_host(args.host.clone());
    let push = context.client.push_to(&options)?;
    let report = match args.dry_run {
        true => context.client.plan_push(&push)?,
        false => context.client.push_archives(&push)?,
    };
    if !context.client.settings().archive_completed {
        context.output.warn(
            "`archive_completed` is off: completed operations are not archived",
            Some("run `wal-cli config set archive_completed true`"),
        );
    }
    if args.wait && !report.archives.is_empty() {
        let pushes = report.archives.iter().filter_map(|archive| archive.operation);
        let references: Vec<Reference> =
            pushes.map(|push| Reference::Number(push.number)).collect();
        return waiting::for_logged(context, &references, args.timeout);
    }
    context.output.outcome(
        || report::ArchivePush::new(&report, &push, args.dry_run),
        None,
        |output| {
            if report.logged() == 0 {
                output.text(&nothing_to_push(&report))?;
            }
            output.text(&pushed_table(&report, &output.style))?;
            note_earlier_pushes(output, &report);
            Ok(())
        },
    )
}

fn nothing_to_push(report: &PushReport) -> String {
    let open = match report.open {
        0 => String::new(),
        open => format!(", {open} of days that are not over"),
    };
    format!("no archive of a past day is left to push ({} pushed{open})\n", report.pushed)
}

/// Notes uploads that were logged earlier and have not completed.
fn note_earlier_pushes(output: &mut Output, report: &PushReport) {
    let earlier = report
        .archives
        .iter()
        .filter(|archive| archive.existing)
        .filter_map(|archive| archive.operation);
    for PushOperation { number, status, .. } in earlier {
        let next = match status {
            Status::Failed => format!(
                "run `wal-cli why {number}` for the cause, and `wal-cli retry {number}` to retry it"
            ),
            _ => "run `wal-cli process` to execute it".to_owned(),
        };
        output.note(&format!("operation {number}, logged earlier, is {status}; {next}"));
    }
}

fn list(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let archives = context.client.archives()?;
    context.output.outcome(
        || report::ArchiveList::new(&archives),
        None,
        |output| {
            if archives.is_empty() {
                output.note("no archives yet: a checkpoint writes completed operations to them");
                return Ok(());
            }
            output.text(&archive_table(&archives, &output.style))
        },
    )
}
