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
    let progress = operations
        .iter()
        .map(|operation| context.client.progress(operation))
        .collect::<Result<Vec<_>, _>>()?;
    let error = context.damage()?;
    let terminal = &mut *context.terminal;
    if terminal.json {
        let shown = error.as_ref().map(|error| error.shown(terminal.program));
        let one = args.id.len() == 1 && !["@failed", "-"].contains(&args.id[0].as_str());
        match operations.as_slice() {
            [only] if one => {
                let operation = OperationDoc::new(only).with_progress(progress[0]);
                terminal.document(&Document::with_error(ShownOne { operation }, shown))?;
            }
            all => {
                let all = all.iter().zip(progress);
                let operations = all
                    .map(|(operation, progress)| {
                        OperationDoc::new(operation).with_progress(progress)
                    })
                    .collect();
                terminal.document(&Document::with_error(ShownMany { operations }, shown))?;
            }
        }
    } else {
        for (at, (operation, progress)) in operations.iter().zip(progress).enumerate() {
            if at > 0 {
                terminal.text("\n")?;
            }
            let known = |id| context.client.operation(&Reference::Id(id)).ok();
            write_operation(
                &mut terminal.out,
                operation,
                progress,
                known,
                args.history,
                &terminal.style,
            )?;
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
