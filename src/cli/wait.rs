//! `wait`, and the waiting part of `add --wait`.

use std::time::Duration;

use super::Exit;
use super::add;
use super::args::Wait;
use super::context::Context;
use super::error::CliError;
use super::progress::Progress;
use super::references;
use super::signals::Interrupts;
use crate::client::{ClientError, Receipts, Reference};
use crate::operation::{Operation, State, Status};
use crate::report::{Document, Operations, OperationsDoc, span, write_listing, write_result};
use crate::wal::manifest::NumberSet;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Wait) -> Result<Exit, CliError> {
    let references = references::parse(context, &args.id)?.references;
    let mut waited = Waited {
        references: &references,
        receipts: None,
        left_out: None,
        timeout: Some(args.timeout),
    };
    if let Some(error) = context.damage()? {
        // Nothing more can happen to them, and what they have come to may be what cannot be read.
        let operations = context.operations(&references)?;
        print(context, &operations, Some(&error))?;
        return Ok(error.exit);
    }
    let interrupts = Interrupts::listen()?;
    let result = context.client.wait(&references, waited.timeout, &interrupts.stop);
    report(context, &mut waited, result)
}

/// What is waited for.
#[derive(Debug)]
pub struct Waited<'a> {
    /// The operations.
    pub references: &'a [Reference],
    /// Those that this run has logged: whatever happens, their ids are told.
    pub receipts: Option<&'a Receipts>,
    /// What of its inputs it could not log.
    pub left_out: Option<CliError>,
    /// For how long.
    pub timeout: Option<Duration>,
}

/// More operations than this are looked at one after the other.
const AT_ONCE: u64 = 1000;

/// Carries out what this run has logged, or waits until somebody else has.
pub fn for_batch(
    context: &mut Context<'_>,
    receipts: &Receipts,
    left_out: Option<CliError>,
    timeout: Option<Duration>,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    let interrupts = interrupts.or_listen()?;
    if receipts.count() > AT_ONCE {
        return for_many(context, receipts, left_out, timeout, &interrupts);
    }
    let mut references = Vec::new();
    receipts.each(|receipt| {
        references.push(Reference::Number(receipt.number));
        Ok::<(), CliError>(())
    })?;
    let mut waited =
        Waited { references: &references, receipts: Some(receipts), left_out, timeout };
    let mut progress = Progress::bars(context.terminal);
    let result =
        context.client.wait_carrying_out(&references, timeout, &interrupts.stop, &mut progress);
    progress.end();
    report(context, &mut waited, result)
}

/// Carries out what is logged, or waits until somebody else has.
pub fn carrying_out(
    context: &mut Context<'_>,
    references: &[Reference],
    timeout: Option<Duration>,
) -> Result<Exit, CliError> {
    let interrupts = Interrupts::listen()?;
    let mut progress = Progress::bars(context.terminal);
    let result =
        context.client.wait_carrying_out(references, timeout, &interrupts.stop, &mut progress);
    progress.end();
    report(context, &mut Waited { references, receipts: None, left_out: None, timeout }, result)
}

/// The same for more operations than memory should hold: what came of them is told as it is read.
fn for_many(
    context: &mut Context<'_>,
    receipts: &Receipts,
    left_out: Option<CliError>,
    timeout: Option<Duration>,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    let mut numbers = NumberSet::default();
    receipts.each(|receipt| {
        numbers.insert(receipt.number);
        Ok::<(), CliError>(())
    })?;
    let mut progress = Progress::bars(context.terminal);
    let result = context.client.wait_for_all(&numbers, timeout, &interrupts.stop, &mut progress);
    progress.end();
    let (mut failed, mut first, mut unfinished) = (0, None, 0u64);
    let mut look = |number| match context.client.operation(&Reference::Number(number)) {
        Ok(operation) => {
            failed += usize::from(operation.status() == Status::Failed);
            unfinished += u64::from(!operation.status().is_terminal());
            if operation.status() == Status::Failed && first.is_none() {
                first = Some(operation);
            }
            Ok(())
        }
        // Somebody has deleted it, or cleaned up.
        Err(ClientError::NoSuchOperation(_)) => Ok(()),
        Err(error) => Err(error),
    };
    let all = usize::try_from(receipts.count()).unwrap_or(usize::MAX);
    let looked = numbers.iter().try_for_each(&mut look);
    let error = match (result.and(looked), &first) {
        (Err(error @ (ClientError::TimedOut { .. } | ClientError::Interrupted)), _) => {
            let interrupted = matches!(error, ClientError::Interrupted);
            let mut error =
                CliError::from(error).hint("they stay logged: `wal-cli process` carries them out");
            let what = if interrupted { "interrupted" } else { "timed out" };
            error.message = format!("{what}: {unfinished} of {all} operations have not ended");
            Some(if failed > 0 && !interrupted {
                CliError { exit: error.exit.or(Exit::Failed), ..error }
            } else {
                error
            })
        }
        // What was logged is logged, whatever went wrong afterwards.
        (Err(error), _) => return add::told(context, receipts, Some(&error.into())),
        (Ok(()), Some(first)) => Some(failure(first, failed, all)),
        (Ok(()), None) => None,
    };
    let error = with_left_out(error, left_out);
    let Context { terminal, client, .. } = context;
    let operations =
        numbers.iter().filter_map(|number| client.operation(&Reference::Number(number)).ok());
    if terminal.json {
        let error = error.as_ref().map(|error| error.shown(terminal.program));
        terminal.stream(&Document::with_error(OperationsDoc::new(operations), error))?;
    } else {
        for operation in operations {
            write_result(&mut terminal.out, &operation, &terminal.style)?;
        }
        if let Some(error) = &error {
            terminal.complain(error);
        }
    }
    Ok(error.map_or(Exit::Done, |error| error.exit))
}

/// One error of two: what came of the operations, and what could not be logged.
fn with_left_out(error: Option<CliError>, left_out: Option<CliError>) -> Option<CliError> {
    match (error, left_out) {
        (Some(mut error), Some(left_out)) => {
            error.message = format!("{}; {}", error.message, left_out.message);
            error.more.details.extend(left_out.more.details);
            (error.more.facts.bad_inputs, error.more.facts.bad_count) =
                (left_out.more.facts.bad_inputs, left_out.more.facts.bad_count);
            if error.exit != Exit::Interrupted {
                error.exit = error.exit.or(left_out.exit);
            }
            Some(error)
        }
        (error, left_out) => error.or(left_out),
    }
}

fn report(
    context: &mut Context<'_>,
    waited: &mut Waited<'_>,
    result: Result<Vec<Operation>, ClientError>,
) -> Result<Exit, CliError> {
    let (operations, error) = match result {
        Ok(operations) => (operations, None),
        Err(error @ (ClientError::TimedOut { .. } | ClientError::Interrupted)) => {
            let operations = context.operations(waited.references)?;
            let error = stopped(context, &operations, error, waited.timeout);
            (operations, Some(error))
        }
        Err(error) => match waited.receipts {
            // What was logged is logged, whatever went wrong afterwards.
            Some(receipts) => return add::told(context, receipts, Some(&error.into())),
            None => return Err(error.into()),
        },
    };
    let failed: Vec<&Operation> =
        operations.iter().filter(|operation| operation.status() == Status::Failed).collect();
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
    let error = with_left_out(error, waited.left_out.take());
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
    let then = match first.is_in_doubt() {
        true if failed == 1 => format!("if it was not done, `wal-cli retry {which}` does it"),
        _ => format!("`wal-cli retry {which}` tries again once the cause is gone"),
    };
    CliError::operations_failed(message).hint(format!("`wal-cli show {which}` tells more; {then}"))
}

fn stopped(
    context: &Context<'_>,
    operations: &[Operation],
    error: ClientError,
    timeout: Option<Duration>,
) -> CliError {
    let after = timeout.map(|time| format!(" after {time:?}")).unwrap_or_default();
    let interrupted = matches!(error, ClientError::Interrupted);
    let mut error = CliError::from(error);
    let unfinished: Vec<&Operation> =
        operations.iter().filter(|one| !one.status().is_terminal()).collect();
    let waiting = match unfinished.as_slice() {
        [] => return error,
        [one] => {
            let next = match &one.state {
                State::Retrying { wait, .. } => {
                    let left = wait.until.millis_since(context.client.clock().now());
                    if left > 0 {
                        format!(", its next attempt is due in {}", span(left))
                    } else {
                        ", and due".into()
                    }
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
            format!(
                "{} of {} operations have not ended ({states})",
                several.len(),
                operations.len()
            )
        }
    };
    error.message = if interrupted {
        format!("interrupted: {waiting}")
    } else {
        format!("timed out{after}: {waiting}")
    };
    let number = unfinished[0].number;
    let stay = if unfinished.len() == 1 { "it stays" } else { "they stay" };
    // What keeps the first one tells what keeps most of them.
    error.hint(match context.client.why(&Reference::Number(number)) {
        Ok(why) if unfinished.len() == 1 => format!("{stay} logged: {}", why.sentence),
        Ok(why) => format!("{stay} logged; of operation {number}: {}", why.sentence),
        Err(_) => format!("{stay} logged; `wal-cli wait {number} --timeout 10min` waits longer"),
    })
}

/// Prints operations, a line for each or one document, and what went wrong with them.
pub fn print(
    context: &mut Context<'_>,
    operations: &[Operation],
    error: Option<&CliError>,
) -> Result<(), CliError> {
    let terminal = &mut *context.terminal;
    if terminal.json {
        let shown = error.map(|error| error.shown(terminal.program));
        return terminal.document(&Document::with_error(Operations::new(operations), shown));
    }
    for operation in operations {
        write_result(&mut terminal.out, operation, &terminal.style)?;
    }
    if let [only] = operations {
        write_listing(&mut terminal.out, only)?;
    }
    if let Some(error) = error {
        terminal.complain(error);
    }
    Ok(())
}
