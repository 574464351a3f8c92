//! `cancel`: stops operations.

use clap::Args;

use crate::cli::action;
use crate::cli::args::IdArgs;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::Action;

const HELP: &str = "\
Pending and retrying operations fail at once. A running one is asked to stop;
whether it stops in time depends on its backend.

Examples:
  wal-cli cancel 17
  wal-cli list pending --backend ipfs -q --limit 0 | wal-cli cancel -";

/// Cancel operations: pending ones fail at once, running ones are asked to stop
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Cancel {
    #[command(flatten)]
    operations: IdArgs,
    /// Mark them as permanently failed, including operations that have failed already
    #[arg(long)]
    permanent: bool,
}

impl Command for Cancel {
    const NAME: &'static str = "cancel";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let action = Action::Cancel { permanent: self.permanent };
        action::run(context, &self.operations.id, &action)
    }
}
