//! The part of logging operations that `add` and `submit` share.

use super::args::LoggingArgs;
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::receipts::{print_receipts, rejected_inputs_error};
use super::signals::Interrupts;
use super::waiting;
use crate::client::{AddOptions, Batch, ClientError, Receipts, Reference};
use crate::wal::WalError;

/// Returns the options that the arguments specify.
pub fn options(args: &LoggingArgs) -> Result<AddOptions, CliError> {
    let after: Result<Vec<Reference>, ClientError> =
        args.after.iter().map(|word| Reference::parse(word)).collect();
    Ok(AddOptions {
        backend: args.backend.clone(),
        max_retries: args.max_retries,
        priority: args.priority,
        parameters: args.parameters.iter().cloned().collect(),
        after: after?,
        delay: args.delay,
        key: args.key.clone(),
        spool: args.spool.map(Into::into),
    })
}

/// Commits the batch, unless it is interrupted before. After the commit, receipts are always
/// printed.
pub fn commit(mut batch: Batch<'_>, interrupts: &Interrupts) -> Result<Receipts, CliError> {
    fail_if_interrupted(interrupts)?;
    batch.prepare()?;
    fail_if_interrupted(interrupts)?;
    Ok(batch.commit()?)
}

/// Fails if the command was interrupted.
pub fn fail_if_interrupted(interrupts: &Interrupts) -> Result<(), CliError> {
    match interrupts.stop.is_requested() {
        true => Err(ClientError::Interrupted.into()),
        false => Ok(()),
    }
}

/// Prints the logged operations; with `--wait`, after they have ended.
pub fn finish(
    context: &mut Context<'_>,
    receipts: &Receipts,
    args: &LoggingArgs,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    for note in &receipts.notes {
        context.output.warn(note, None);
    }
    let rejected = (receipts.bad.count > 0).then(|| rejected_inputs_error(receipts));
    if args.wait && receipts.count() > 0 {
        return waiting::for_batch(context, receipts, rejected, args.timeout, interrupts);
    }
    let exit = print_receipts(context, receipts, rejected.as_ref())?;
    // The operations are durable without maintenance, which the next command can catch up on.
    match context.client.maintain() {
        Ok(_) | Err(ClientError::Wal(WalError::Busy { .. })) => {}
        Err(error) => context.output.warn(&format!("log maintenance failed: {error}"), None),
    }
    Ok(exit)
}
