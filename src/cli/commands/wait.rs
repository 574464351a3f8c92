//! `wait`: waits until operations have ended.

use std::time::Duration;

use clap::Args;

use crate::cli::args::{IdArgs, duration};
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::signals::Interrupts;
use crate::cli::{references, waiting};

const EXAMPLES: &str = "\
Examples:
  wal-cli wait @last
  wal-cli wait 17 18 --timeout 10min
  wal-cli list pending -q | wal-cli wait -";

/// Wait until operations have ended
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Wait {
    #[command(flatten)]
    operations: IdArgs,
    /// Stop waiting after this long: seconds, or 250ms, 10s, 2min
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = duration)]
    timeout: Duration,
}

impl Command for Wait {
    const NAME: &'static str = "wait";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let references = references::parse(context, &self.operations.id)?.references;
        if let Some(error) = context.damage()? {
            // A damaged log does not change, and the outcome may be in the part that is unreadable.
            let operations = context.operations(&references)?;
            return waiting::print(context, &operations, Some(&error));
        }
        let interrupts = Interrupts::install()?;
        let timeout = Some(self.timeout);
        let result = context.client.wait(&references, timeout, &interrupts.stop);
        let wait =
            waiting::Wait { references: &references, receipts: None, rejected: None, timeout };
        waiting::report(context, wait, result)
    }
}
