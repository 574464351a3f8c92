//! `wait`, and the waiting part of `add --wait`.

use std::time::Duration;

use super::Exit;
use super::args::Wait;
use super::context::Context;
use super::error::CliError;
use super::progress::Progress;
use super::references;
use super::signals::Interrupts;
use crate::client::{ClientError, Receipt, Reference};
use crate::operation::{Operation, State, Status};
use crate::report::{Document, Operations, Receipts, span, write_result};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Wait) -> Result<Exit, CliError> {
    let references = references::parse(context, &args.id)?.references;
    let waited = Waited { references: &references, receipts: &[], timeout: Some(args.timeout) };
    if let Some(error) = context.damage()? {
        // Nothing more can happen to them, and what they have come to may be what cannot be read.
        let operations = context.operations(&references)?;
        print(context, &operations, Some(&error))?;
        return Ok(error.exit);
    }
    let interrupts = Interrupts::listen()?;
    let result = context.client.wait(&references, waited.timeout, &interrupts.stop);
    report(context, &waited, result)
}

/// What is waited for.
#[derive(Debug)]
pub struct Waited<'a> {
    /// The operations.
    pub references: &'a [Reference],
    /// Those that this run has logged: whatever happens, their ids are told.
    pub receipts: &'a [Receipt],
    /// For how long.
    pub timeout: Option<Duration>,
}

/// Carries operations out, or waits until somebody else has.
pub fn carrying_out(context: &mut Context<'_>, waited: &Waited<'_>) -> Result<Exit, CliError> {
    let interrupts = Interrupts::listen()?;
    let mut progress = Progress::bars(context.terminal);
    let result = context.client.wait_carrying_out(waited.references, waited.timeout, &interrupts.stop, &mut progress);
    progress.end();
    report(context, waited, result)
}

fn report(
    context: &mut Context<'_>,
    waited: &Waited<'_>,
    result: Result<Vec<Operation>, ClientError>,
) -> Result<Exit, CliError> {
    let (operations, error) = match result {
        Ok(operations) => (operations, None),
        Err(error @ (ClientError::TimedOut { .. } | ClientError::Interrupted)) => {
            let operations = context.operations(waited.references)?;
            let error = stopped(context, &operations, error, waited.timeout);
            (operations, Some(error))
        }
        Err(error) if waited.receipts.is_empty() => return Err(error.into()),
        // What was logged is logged, whatever went wrong afterwards.
        Err(error) => return told_anyway(context, waited.receipts, error.into()),
    };
    let failed: Vec<&Operation> = operations.iter().filter(|operation| operation.status() == Status::Failed).collect();
    let error = match (error, failed.first()) {
        (Some(error), Some(_)) if error.exit == Exit::Interrupted => Some(error),
        (Some(mut error), Some(_)) => {
            error.exit = error.exit.or(Exit::Failed);
            Some(error)
        }
        (Some(error), None) => Some(error),
        (None, Some(first)) => Some(failure(first, failed.len(), operations.len())),
        (None, None) => None,
    };
    print(context, &operations, error.as_ref())?;
    Ok(error.map_or(Exit::Done, |error| error.exit))
}

/// The error for operations that failed.
pub fn failure(first: &Operation, failed: usize, all: usize) -> CliError {
    let number = first.number;
    let message = match (failed, all) {
        (_, 1) => format!("operation {number} failed"),
        (1, all) => format!("operation {number}, one of {all}, failed"),
        (failed, all) => format!("{failed} of {all} operations failed"),
    };
    let which = if failed == 1 { number.to_string() } else { "@failed".into() };
    CliError::operations_failed(message)
        .hint(format!("`wal-cli show {which}` tells more; `wal-cli retry {which}` tries again once the cause is gone"))
}

fn stopped(context: &Context<'_>, operations: &[Operation], error: ClientError, timeout: Option<Duration>) -> CliError {
    let after = timeout.map(|time| format!(" after {time:?}")).unwrap_or_default();
    let interrupted = matches!(error, ClientError::Interrupted);
    let mut error = CliError::from(error);
    let unfinished: Vec<&Operation> = operations.iter().filter(|one| !one.status().is_terminal()).collect();
    let waiting = match unfinished.as_slice() {
        [] => return error,
        [one] => {
            let next = match &one.state {
                State::Retrying { wait, .. } => {
                    let left = wait.until.millis_since(context.client.clock().now());
                    if left > 0 { format!(", its next attempt is due in {}", span(left)) } else { ", and due".into() }
                }
                _ => String::new(),
            };
            format!("operation {} is still {}{next}", one.number, one.status())
        }
        several => {
            let states = Status::ALL.iter().filter_map(|status| {
                let n = several.iter().filter(|one| one.status() == *status).count();
                (n > 0).then(|| format!("{n} {status}"))
            });
            let states = states.collect::<Vec<_>>().join(", ");
            format!("{} of {} operations have not ended ({states})", several.len(), operations.len())
        }
    };
    error.message =
        if interrupted { format!("interrupted: {waiting}") } else { format!("timed out{after}: {waiting}") };
    let number = unfinished[0].number;
    let (stay, them) = if unfinished.len() == 1 { ("it stays", "it") } else { ("they stay", "them") };
    let running = context.client.processing_active().is_ok_and(|running| running.is_some());
    if running {
        error.hint(format!("{stay} logged; `wal-cli wait {number} --timeout 10min` waits longer"))
    } else {
        error.hint(format!("{stay} logged, but no drain loop is at work: `wal-cli process` carries {them} out"))
    }
}

fn told_anyway(context: &mut Context<'_>, receipts: &[Receipt], error: CliError) -> Result<Exit, CliError> {
    let terminal = &mut *context.terminal;
    if terminal.json {
        let value = error.shown(terminal.program);
        terminal.document(&Document::with_error(Receipts::new(receipts), Some(value)))?;
    } else {
        for receipt in receipts {
            terminal.line(&format!("{}  {}  logged", receipt.number, receipt.id))?;
        }
        terminal.complain(&error);
    }
    Ok(error.exit)
}

/// Prints operations, a line for each or one document, and what went wrong with them.
pub fn print(context: &mut Context<'_>, operations: &[Operation], error: Option<&CliError>) -> Result<(), CliError> {
    let terminal = &mut *context.terminal;
    if terminal.json {
        let shown = error.map(|error| error.shown(terminal.program));
        return terminal.document(&Document::with_error(Operations::new(operations), shown));
    }
    for operation in operations {
        write_result(&mut terminal.out, operation, &terminal.style)?;
    }
    if let Some(error) = error {
        terminal.complain(error);
    }
    Ok(())
}
