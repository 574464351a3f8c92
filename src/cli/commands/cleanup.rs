//! `cleanup`: prunes operations that retention no longer keeps.

use clap::Args;

use crate::cli::command::Command;
use crate::cli::context::{Context, Session};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::{CleanupOptions, CleanupPlan, ClientError, KeptOrphan, OrphanedUploads};
use crate::operation::Time;
use crate::report::{self, Cell, Style, Table, bytes, plural};
use crate::wal::WalError;

const HELP: &str = "\
Ages are whole days in UTC: an operation that completed today stays, whatever
the age. Operations that others depend on, and archives that are still to be
pushed, stay as well.

Examples:
  wal-cli cleanup --dry-run
  wal-cli cleanup --age 7
  wal-cli cleanup --age 90 --failed";

/// Prune completed operations that retention no longer keeps
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Cleanup {
    /// Also prune failed operations of that age, which are kept otherwise
    #[arg(long)]
    failed: bool,
    /// Keep operations for this many whole days [default: setting max_age_days]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(0..=36_500))]
    age: Option<u64>,
    /// Only show what would be pruned
    #[arg(long)]
    dry_run: bool,
}

impl Command for Cleanup {
    const NAME: &'static str = "cleanup";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let pushes = if self.dry_run { 0 } else { push(context)? };
        let plan = context.client.cleanup(
            &CleanupOptions::default()
                .with_max_age_days(self.age)
                .with_failed(self.failed)
                .with_dry_run(self.dry_run),
        )?;
        let leftovers = match self.dry_run {
            true => context.client.orphaned_uploads()?,
            false => context.client.remove_orphaned_uploads()?,
        };
        let days = self.age.unwrap_or_else(|| u64::from(context.client.settings().max_age_days));
        for KeptOrphan { number, backend, reason: why, .. } in &leftovers.kept {
            context.output.warn(
                &format!("kept an unfinished upload of operation {number} at `{backend}`: {why}"),
                None,
            );
        }
        let result = Pruned { plan, leftovers, pushes, days, args: &self };
        context.output.outcome(
            || {
                let Pruned { plan, leftovers, .. } = &result;
                report::Cleanup::new(plan, leftovers, self.dry_run, days, pushes)
            },
            None,
            |output| output.text(&result.text(&output.style)),
        )
    }
}

/// Pushes archives first, if the settings name a destination. A failure must not prevent the
/// cleanup of a full disk: the archives stay, and everything else is pruned.
fn push(context: &mut Context<'_>) -> Result<u64, CliError> {
    match context.client.push_before_cleanup() {
        Ok(report) => Ok(report.map_or(0, |report| report.logged())),
        Err(
            error @ ClientError::Wal(
                WalError::Damaged(_) | WalError::NewerFormat { .. } | WalError::Busy { .. },
            ),
        ) => Err(error.into()),
        Err(error) => {
            context.output.warn(&format!("no archive was pushed: {error}"), None);
            Ok(0)
        }
    }
}

/// The result of a cleanup, or of its rehearsal.
struct Pruned<'a> {
    plan: CleanupPlan,
    leftovers: OrphanedUploads,
    pushes: u64,
    days: u64,
    args: &'a Cleanup,
}

impl Pruned<'_> {
    fn text(&self, style: &Style) -> String {
        let Pruned { plan, leftovers, pushes, .. } = self;
        let mut table = Table::new(*style);
        for archive in &plan.archives {
            table.row(vec![
                Cell::plain(&archive.name),
                Cell::right(plural(archive.operations, "operation")),
                Cell::right(bytes(archive.bytes)),
            ]);
        }
        let mut text = if table.is_empty() { String::new() } else { table.render() };
        let archived: u64 = plan.archives.iter().map(|archive| archive.operations).sum();
        let completed = plan.operations + archived;
        if completed + plan.failed + plan.kept + plan.unpushed == 0 {
            text.push_str(&self.nothing(style.now));
        }
        let is = if self.args.dry_run { "would be " } else { "" };
        let counts = [
            (completed, "completed operation", format!("{is}pruned")),
            (plan.failed, "failed operation", format!("{is}pruned")),
            (plan.kept, "operation", "of that age kept: others depend on them".into()),
            (plan.unpushed, "operation", "of that age kept until their archive is pushed".into()),
            (*pushes, "archive", "queued for upload".into()),
            (plan.joined, "small archive", format!("{is}merged with others of the same day")),
            (
                leftovers.removed.len() as u64,
                "unfinished upload",
                format!("of deleted operations {is}aborted"),
            ),
        ];
        for (n, what, then) in counts.into_iter().filter(|(n, ..)| *n > 0) {
            text.push_str(&format!("{} {then}\n", plural(n, what)));
        }
        text
    }

    fn nothing(&self, now: Time) -> String {
        let what = if self.args.failed { "completed or failed" } else { "completed" };
        let days = i64::try_from(self.days).unwrap_or(i64::MAX);
        let before = now.plus_millis(days.saturating_mul(-86_400_000)).to_string();
        let day = before.split('T').next().unwrap_or_default();
        format!("nothing to prune: no {what} operation ended before {day} (UTC)\n")
    }
}
