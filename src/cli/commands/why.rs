//! `why`: explains in one sentence why an operation has not completed.

use clap::Args;

use crate::cli::args::IdArgs;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::references;
use crate::client::ClientError;
use crate::operation::Status;
use crate::report::{self, wrapped};

/// Explain why an operation has not completed, and what would change that
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wal-cli why 17\n  wal-cli why @failed")]
pub struct Why {
    #[command(flatten)]
    operations: IdArgs,
}

impl Command for Why {
    const NAME: &'static str = "why";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let selection = references::parse(context, &self.operations.id)?;
        let mut all = Vec::with_capacity(selection.references.len());
        for reference in &selection.references {
            match context.client.why(reference) {
                Err(error @ ClientError::NoSuchOperation(_)) => {
                    return Err(context.damage()?.unwrap_or_else(|| error.into()));
                }
                other => all.push(other?),
            }
        }
        let error = context.damage()?;
        context.output.outcome(
            || report::Why::new(&all),
            error.as_ref(),
            |output| {
                for why in &all {
                    let number = why.operation.number;
                    let sentence = output.invocation.pasteable(&why.sentence);
                    let line = match why.operation.status() {
                        Status::Completed if why.operation.redirected_to.is_none() => {
                            format!("operation {number} is completed")
                        }
                        Status::Failed => format!("operation {number} failed: {sentence}"),
                        status => format!("operation {number} is {status}: {sentence}"),
                    };
                    let room = output.style.width.unwrap_or(usize::MAX);
                    output.line(&wrapped(&line, room).join("\n"))?;
                }
                if all.is_empty() {
                    output.note("no operations");
                }
                Ok(())
            },
        )
    }
}
