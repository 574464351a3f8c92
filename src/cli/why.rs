//! `why`: one sentence on why an operation isn't done.

use super::Exit;
use super::args;
use super::context::Context;
use super::error::CliError;
use super::references;
use crate::client::ClientError;
use crate::operation::Status;
use crate::report::{Why, wrapped};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &args::Why) -> Result<Exit, CliError> {
    let selection = references::parse(context, &args.id)?;
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
    context.terminal.outcome(Why::new(&all), error.as_ref(), |terminal| {
        for why in &all {
            let number = why.operation.number;
            let sentence = terminal.program.named(&why.sentence);
            let told = match why.operation.status() {
                Status::Completed if why.operation.redirected_to.is_none() => {
                    format!("operation {number} is completed")
                }
                Status::Failed => format!("operation {number} failed: {sentence}"),
                status => format!("operation {number} is {status}: {sentence}"),
            };
            let room = terminal.style.width.unwrap_or(usize::MAX);
            terminal.line(&wrapped(&told, room).join("\n"))?;
        }
        if all.is_empty() {
            terminal.note("no operations");
        }
        Ok(())
    })
}
