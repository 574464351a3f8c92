//! `retry`: back to pending.

use super::Exit;
use super::args::Retry;
use super::context::Context;
use super::error::CliError;
use super::{references, wait};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Retry) -> Result<Exit, CliError> {
    if let Some(error) = context.damage()? {
        return Err(error);
    }
    let mut words = args.id.clone();
    if args.failed {
        words.push("@failed".into());
    }
    let references = references::parse(context, &words)?;
    let operations = if references.is_empty() {
        context.terminal.note("no operation has failed: nothing to retry");
        Vec::new()
    } else {
        context.client.retry(&references, "asked for by hand")?
    };
    wait::print(context, &operations, None)?;
    Ok(Exit::Done)
}
