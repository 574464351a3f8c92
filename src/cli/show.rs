//! `show`: everything about operations.

use super::Exit;
use super::args::Show;
use super::context::Context;
use super::error::CliError;
use super::references;
use crate::client::Reference;
use crate::report::{Document, OperationDoc, ShownMany, ShownOne, write_operation};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Show) -> Result<Exit, CliError> {
    let references = references::parse(context, &args.id)?.references;
    let operations = context.operations(&references)?;
    let error = context.damage()?;
    let terminal = &mut *context.terminal;
    if terminal.json {
        let shown = error.as_ref().map(|error| error.shown(terminal.program));
        let one = args.id.len() == 1 && !["@failed", "-"].contains(&args.id[0].as_str());
        match operations.as_slice() {
            [only] if one => {
                let operation = OperationDoc::new(only);
                terminal.document(&Document::with_error(ShownOne { operation }, shown))?;
            }
            all => {
                let operations = all.iter().map(OperationDoc::new).collect();
                terminal.document(&Document::with_error(ShownMany { operations }, shown))?;
            }
        }
    } else {
        for (at, operation) in operations.iter().enumerate() {
            if at > 0 {
                terminal.text("\n")?;
            }
            let known = |id| context.client.operation(&Reference::Id(id)).ok();
            write_operation(&mut terminal.out, operation, known, args.history, &terminal.style)?;
        }
        if operations.is_empty() {
            terminal.note("no operations");
        }
        if let Some(error) = &error {
            terminal.complain(error);
        }
    }
    Ok(error.map_or(Exit::Done, |error| error.exit))
}
