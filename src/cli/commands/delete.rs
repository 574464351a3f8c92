//! `delete`: removes operations and their histories.

use clap::Args;

use crate::cli::action;
use crate::cli::args::IdArgs;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::Action;

/// Delete operations and their histories
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wal-cli delete 17\n  wal-cli delete @failed")]
pub struct Delete {
    #[command(flatten)]
    operations: IdArgs,
}

impl Command for Delete {
    const NAME: &'static str = "delete";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        action::run(context, &self.operations.id, &Action::Delete)
    }
}
