//! `failures`: groups failures by cause and backend.

use clap::Args;

use crate::cli::args::backend;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::{self, CauseGroup};
use crate::operation::BackendName;
use crate::report::{self, write_failures};
use crate::wal::WalError;

const EXAMPLES: &str = "\
Examples:
  wal-cli failures
  wal-cli list --cause 3f2a91c0            # the operations of one cause
  wal-cli retry --cause 3f2a91c0";

/// Show failures, grouped by cause and backend
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Failures {
    /// Only operations of this backend
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    backend: Option<BackendName>,
}

impl Command for Failures {
    const NAME: &'static str = "failures";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        context.check_backend(self.backend.as_ref())?;
        let client::Failures { groups, damage, .. } =
            context.client.failures(self.backend.as_ref())?;
        let error = damage.map(|damage| CliError::from(WalError::Damaged(damage)));
        context.output.outcome(
            || report::Failures::new(&groups),
            error.as_ref(),
            |output| {
                if groups.is_empty() && error.is_none() {
                    output.note("no operation has failed or is being retried");
                }
                let groups: Vec<CauseGroup> = groups
                    .iter()
                    .map(|group| CauseGroup {
                        message: output.invocation.pasteable(&group.message).into_owned(),
                        ..group.clone()
                    })
                    .collect();
                output.text(&write_failures(&groups, &output.style))?;
                if !groups.is_empty() && output.style.width.is_some() {
                    output.note("run `wal-cli retry --cause CAUSE` to retry those of one cause");
                }
                Ok(())
            },
        )
    }
}
