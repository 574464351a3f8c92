//! `show`: everything about operations.

use super::Exit;
use super::args::Show;
use super::context::Context;
use super::error::CliError;
use super::references;
use crate::report::{Document, OperationDoc, write_operation};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Show) -> Result<Exit, CliError> {
    let references = references::parse(context, &args.id)?.references;
    let operations = context.operations(&references)?;
    let error = context.damage()?;
    let terminal = &mut *context.terminal;
    if terminal.json {
        let document = Document::new(error.is_none());
        let one = args.id.len() == 1 && !["@failed", "-"].contains(&args.id[0].as_str());
        let mut document = match operations.as_slice() {
            [only] if one => document.with("operation", &OperationDoc::new(only)),
            all => document.with("operations", &all.iter().map(OperationDoc::new).collect::<Vec<_>>()),
        };
        if let Some(error) = &error {
            document = document.with("error", &error.shown(terminal.program));
        }
        terminal.document(document)?;
    } else {
        for (at, operation) in operations.iter().enumerate() {
            if at > 0 {
                terminal.text("\n")?;
            }
            write_operation(&mut terminal.out, operation, args.history, &terminal.style)?;
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
