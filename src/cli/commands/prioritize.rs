//! `prioritize`: changes the priority of operations.

use clap::Args;

use crate::cli::action;
use crate::cli::args::IdArgs;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::Action;

/// Change the priority of operations
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wal-cli prioritize 17 --priority 10")]
pub struct Prioritize {
    #[command(flatten)]
    operations: IdArgs,
    /// New priority: operations with a higher one run first; the default is 0
    #[arg(long, short, value_name = "N", allow_negative_numbers = true)]
    priority: i32,
}

impl Command for Prioritize {
    const NAME: &'static str = "prioritize";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        action::run(context, &self.operations.id, &Action::Prioritize(self.priority))
    }
}
