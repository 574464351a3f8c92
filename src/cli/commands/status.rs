//! `status`: shows the state of the log as a whole.

use clap::Args;

use crate::cli::command::Command;
use crate::cli::condition::Condition;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::{OldestPending, Reference};
use crate::report::{ErrorType, StatusDoc, write_status};
use crate::wal::WalError;

const HELP: &str = "\
A condition compares a figure with a value, by > >= < <= = or !=. The figures:
  pending, processing, completed, failed, retrying, total, archived
  oldest_pending             its age, such as 90s or 1h30m
  free_bytes, journal_bytes  such as 64MiB
  offline                    backends in use that failed their last check

Examples:
  wal-cli status
  wal-cli status --quiet --fail-if 'failed>0,oldest_pending>1h' || alert";

/// Show counts, running operations, backends and free disk space
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Status {
    /// Exit with 1 if one of these conditions holds, such as `failed>0,pending>1000`
    #[arg(long, value_name = "CONDITION", value_parser = Condition::parse_all)]
    fail_if: Option<std::vec::Vec<Condition>>,
}

impl Command for Status {
    const NAME: &'static str = "status";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let client = &context.client;
        if self.fail_if.is_some() {
            client.check_exists()?;
        }
        let stats = client.status()?;
        let now = context.output.style.now;
        let conditions = self.fail_if.iter().flatten();
        let held: Vec<String> =
            conditions.filter_map(|condition| condition.holds(&stats, now)).collect();
        let damage = stats.damage.clone().map(|damage| WalError::Damaged(damage).into());
        let error = damage.or_else(|| (!held.is_empty()).then(|| condition_holds(held)));
        let base_path = &client.settings().base_path;
        context.output.outcome(
            || {
                // `None` if the file with the operation is unreadable.
                let oldest = stats.oldest_pending.and_then(|OldestPending { number, .. }| {
                    client.operation(&Reference::Number(number)).ok().map(|operation| operation.id)
                });
                StatusDoc::new(&stats, oldest, base_path)
            },
            error.as_ref(),
            |output| output.write(|out, style| write_status(out, &stats, base_path, style)),
        )
    }
}

fn condition_holds(held: Vec<String>) -> CliError {
    CliError::new(ErrorType::ConditionHolds, held.join("; "))
        .hint("run `wal-cli failures` or `wal-cli list all` for details")
        .with(|fields| fields.conditions = Some(held))
}
