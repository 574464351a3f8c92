//! `release`: returns held operations to the queue.

use clap::Args;

use crate::cli::action;
use crate::cli::args::IdArgs;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::Action;

const EXAMPLES: &str = "\
Examples:
  wal-cli release 17
  wal-cli list --held -q --limit 0 | wal-cli release -";

/// Release held operations
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Release {
    #[command(flatten)]
    operations: IdArgs,
}

impl Command for Release {
    const NAME: &'static str = "release";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        action::run(context, &self.operations.id, &Action::Release)
    }
}
