//! `hold`: sets operations aside.

use clap::Args;

use crate::cli::action;
use crate::cli::args::IdArgs;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::Action;

/// Hold operations: they do not run until they are released
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wal-cli hold 17\n  wal-cli list pending -q | wal-cli hold -")]
pub struct Hold {
    #[command(flatten)]
    operations: IdArgs,
}

impl Command for Hold {
    const NAME: &'static str = "hold";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        action::run(context, &self.operations.id, &Action::Hold)
    }
}
