//! `failures`: what went wrong, by cause.

use super::Exit;
use super::args;
use super::context::Context;
use super::error::CliError;
use crate::report::{Document, Failures, write_failures};
use crate::wal::WalError;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &args::Failures) -> Result<Exit, CliError> {
    context.check_backend(args.backend.as_ref())?;
    let (groups, damage) = context.client.failures(args.backend.as_ref())?;
    let error = damage.map(|damage| CliError::from(WalError::Damaged(damage)));
    let terminal = &mut *context.terminal;
    if terminal.json {
        let shown = error.as_ref().map(|error| error.shown(terminal.program));
        terminal.document(&Document::with_error(Failures::new(&groups), shown))?;
    } else {
        if groups.is_empty() && error.is_none() {
            terminal.note("nothing has failed, and nothing is being retried");
        }
        terminal.text(&write_failures(&groups, &terminal.style))?;
        if !groups.is_empty() && terminal.style.width.is_some() {
            terminal.note("`wal-cli retry --cause CAUSE` tries those of one cause again");
        }
        if let Some(error) = &error {
            terminal.complain(error);
        }
    }
    Ok(error.map_or(Exit::Done, |error| error.exit))
}
