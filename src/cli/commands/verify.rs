//! `verify`: checks the log, repairs it, tests the disk under it, or audits the backends.

mod remote;

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::durability_helper::Reexec;
use crate::cli::args::{Since, backend, since};
use crate::cli::command::Command;
use crate::cli::context::{Context, Session};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::signals::Interrupts;
use crate::client::{AuditOptions, Repaired, Verified};
use crate::operation::BackendName;
use crate::report::{
    DurabilityDoc, ErrorType, Offset, RepairedDoc, VerifiedDoc, write_durability, write_findings,
    write_repaired, write_verified,
};

const HELP: &str = "\
Without flags it checks every byte of the log, changes nothing and blocks no
writer. It works on a read-only file system, too.

--repair      saves every readable record. It locks the log for a moment, and
              moves damaged files to quarantine/.
--durability  tests the guarantees of the disk that the log relies on: locks,
              renames, flushes. It kills test processes. It cannot simulate a
              power failure, so it cannot prove that the disk honours fsync.
--remote      asks each backend whether completed operations still have their
              effect: intact, missing or altered. Effects that later operations
              replaced or removed are skipped.
--reopen      logs new operations for missing and altered effects; `process`
              executes them, and overwrites altered effects.

Examples:
  wal-cli verify
  wal-cli verify --json | jq '.findings[] | select(.kind == \"damage\")'
  wal-cli verify --repair
  wal-cli verify --durability /mnt/data     # is this disk safe for a log?
  wal-cli verify --remote --since 7d --backend s3 --reopen";

/// Check the log, repair it, test its disk, or audit its backends
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Verify {
    /// Save every readable record, and report what is lost
    #[arg(long)]
    repair: bool,
    /// Ask the backends whether completed operations still have their effect
    #[arg(long, conflicts_with_all = ["repair", "durability"])]
    remote: bool,
    /// With --remote: only operations completed since: 2h, 3d, 2026-01-31
    #[arg(long, value_name = "TIME", requires = "remote", value_parser = since)]
    since: Option<Since>,
    /// With --remote: only operations of this backend
    #[arg(long, short, value_name = "NAME", requires = "remote", value_parser = backend)]
    backend: Option<BackendName>,
    /// With --remote: log new operations for missing and altered effects
    #[arg(long, requires = "remote")]
    reopen: bool,
    /// Test the disk of this directory [default: the directory of the log]
    #[arg(
        long,
        value_name = "DIR",
        num_args = 0..=1,
        conflicts_with = "repair",
        value_hint = ValueHint::DirPath
    )]
    durability: Option<Option<PathBuf>>,
    /// With --durability: number of processes to kill while they write
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        requires = "durability",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    rounds: u32,
}

impl Command for Verify {
    const NAME: &'static str = "verify";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        match &self.durability {
            Some(directory) => durability(context, directory.as_deref(), self.rounds),
            None if self.remote => {
                context.check_backend(self.backend.as_ref())?;
                let now = context.output.style.now;
                let options = AuditOptions::default()
                    .with_since(self.since.map(|since| since.before(now)))
                    .with_backend(self.backend)
                    .with_reopen(self.reopen);
                remote::run(context, &options)
            }
            None if self.repair => repair(context),
            None => check(context),
        }
    }
}

fn repair(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let repaired = context.client.repair()?;
    let error = (!repaired.is_whole()).then(|| lost(&repaired));
    context.output.outcome(
        || RepairedDoc::new(&repaired),
        error.as_ref(),
        |output| output.text(&write_repaired(&repaired, &output.style)),
    )
}

/// Returns the error for a repair that could not save everything.
fn lost(repaired: &Repaired) -> CliError {
    let message = match repaired.lost.iter().count() {
        0 => "the log is repaired, but some records could not be saved".to_owned(),
        1 => "the log is repaired, but 1 operation is lost".to_owned(),
        n => format!("the log is repaired, but {n} operations are lost"),
    };
    let error = CliError::new(ErrorType::Lost, message).hint(match repaired.set_aside.is_empty() {
        true => "look for these operations in a backup",
        false => "look for these operations in a backup; damaged files are kept in `quarantine/`",
    });
    if repaired.held.iter().next().is_none() {
        return error;
    }
    error.hint("run `wal-cli list --held` to see the operations to release or delete")
}

fn durability(
    context: &mut Context<'_>,
    directory: Option<&Path>,
    rounds: u32,
) -> Result<Exit, CliError> {
    let reexec = Reexec { program: context.output.invocation.program };
    // An interrupt must not leave the test directory or its processes behind.
    let interrupts = Interrupts::install()?;
    let tested = context.client.durability(directory, rounds, &reexec, &interrupts.stop)?;
    let error = tested.checks.iter().find(|check| !check.safe).map(|check| {
        CliError::new(
            ErrorType::UnsafeDisk,
            format!("the disk is not safe for a log: {}", check.finding),
        )
        .hint("keep the log on a local disk: name a directory there with `--base-path`")
    });
    context.output.outcome(
        || DurabilityDoc::new(&tested),
        error.as_ref(),
        |output| output.text(&write_durability(&tested, &output.style)),
    )
}

fn check(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let bar =
        context.output.progress_bar("checking [{bar:30}] {bytes:>10}/{total_bytes:<10} {eta:>3}");
    let found = context.client.verify(&|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let found = found?;
    let error = damaged(&found);
    context.output.outcome(
        || VerifiedDoc::new(&found),
        error.as_ref(),
        |output| {
            let mut text = write_findings(found.findings.iter(), true, &output.style);
            text.push_str(&write_verified(&found, &output.style));
            let text = output.invocation.pasteable(&text).into_owned();
            output.text(&text)
        },
    )
}

/// Returns the error for a damaged log.
fn damaged(found: &Verified) -> Option<CliError> {
    let first = found.damages().next()?;
    let error = CliError::new(
        ErrorType::Damaged,
        format!("the log is damaged: `{}`: {}", first.path, first.what),
    );
    Some(
        error
            .with(|fields| fields.path = Some(first.path.clone()))
            .with(|fields| fields.offset = Some(Offset(first.offset)))
            .hint(
                "nothing was changed; copy the directory, then run `wal-cli verify --repair` to \
                 save all readable records, or restore the file from a backup",
            ),
    )
}
