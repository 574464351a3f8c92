//! Prints receipts: the operations that were logged, which are durable by then.

use std::io::Write;

use super::context::Context;
use super::error::{CliError, bad_inputs};
use super::exit::Exit;
use crate::client::{Receipt, Receipts, Reference};
use crate::report::{ErrorType, ReceiptsDoc, plural, summary, visible};

/// Notes on operations whose key was already in use, at most.
const EXISTING_SHOWN_MAX: usize = 100;

/// Prints the logged operations, and then the error, if any.
pub fn print_receipts(
    context: &mut Context<'_>,
    receipts: &Receipts,
    error: Option<&CliError>,
) -> Result<Exit, CliError> {
    let client = &context.client;
    let document = ReceiptsDoc::new(receipts)?;
    context.output.outcome(
        || document,
        error,
        |output| {
            let mut existing = Vec::new();
            receipts.each(|receipt| {
                let Receipt { number, id, .. } = receipt;
                let what = match &receipt.path {
                    Some(path) => visible(path),
                    None => match client.operation(&Reference::Number(number)) {
                        Ok(operation) => summary(&operation),
                        Err(_) => receipt.operation_type.to_string(),
                    },
                };
                writeln!(output.out, "{number}  {id}  {what}")?;
                if receipt.existing && existing.len() < EXISTING_SHOWN_MAX {
                    existing.push((number, receipt.status));
                }
                Ok::<(), CliError>(())
            })?;
            for (number, status) in existing {
                output.note(&format!(
                    "nothing new was logged: operation {number} has this key, and is {status}"
                ));
            }
            Ok(())
        },
    )
}

/// Returns the error for inputs that were rejected while the others were logged.
pub fn rejected_inputs_error(receipts: &Receipts) -> CliError {
    let (bad, total) = (receipts.bad.count, receipts.total);
    let message = match receipts.count() {
        0 => format!("nothing was logged: all of {} are invalid", plural(total, "input")),
        others => format!("{bad} of {total} inputs are invalid; the other {others} were logged"),
    };
    bad_inputs(
        CliError { exit: Exit::Failed, ..CliError::new(ErrorType::BadInputs, message) },
        &receipts.bad,
    )
    .hint("correct these inputs, then log them alone")
}
