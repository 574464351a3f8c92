//! `failures`: what went wrong, by cause.

use super::Exit;
use super::args;
use super::context::Context;
use super::error::CliError;
use crate::report::{Failures, write_failures};
use crate::wal::WalError;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &args::Failures) -> Result<Exit, CliError> {
    context.check_backend(args.backend.as_ref())?;
    let (groups, damage) = context.client.failures(args.backend.as_ref())?;
    let error = damage.map(|damage| CliError::from(WalError::Damaged(damage)));
    context.terminal.outcome(Failures::new(&groups), error.as_ref(), |terminal| {
        if groups.is_empty() && error.is_none() {
            terminal.note("nothing has failed, and nothing is being retried");
        }
        terminal.text(&write_failures(&groups, &terminal.style))?;
        if !groups.is_empty() && terminal.style.width.is_some() {
            terminal.note("`wal-cli retry --cause CAUSE` tries those of one cause again");
        }
        Ok(())
    })
}
