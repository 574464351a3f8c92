//! Waiting for operations: `wait`, and `--wait` of the commands that log operations.

use std::time::Duration;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::Progress;
use super::receipts::print_receipts;
use super::signals::Interrupts;
use crate::client::{ClientError, NumberSet, Receipts, Reference};
use crate::operation::{Operation, State, Status, Time};
use crate::report::{Operations, OperationsDoc, span, write_listing, write_result};

/// Operations that a wait holds in memory; of more, it only holds the numbers.
const IN_MEMORY_MAX: u64 = 1000;

/// A wait, with the data for its report.
#[derive(Debug)]
pub struct Wait<'a> {
    /// The operations.
    pub references: &'a [Reference],
    /// Receipts of the operations that this run has logged, which are printed in any case.
    pub receipts: Option<&'a Receipts>,
    /// The error for rejected inputs.
    pub rejected: Option<CliError>,
    /// The longest wait.
    pub timeout: Option<Duration>,
}

/// Executes the operations that this run has logged, or waits until a running drain loop has.
pub fn for_batch(
    context: &mut Context<'_>,
    receipts: &Receipts,
    rejected: Option<CliError>,
    timeout: Option<Duration>,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    let interrupts = interrupts.or_install()?;
    if receipts.count() > IN_MEMORY_MAX {
        return for_many(context, receipts, rejected, timeout, &interrupts);
    }
    let mut references = Vec::new();
    receipts.each(|receipt| {
        references.push(Reference::Number(receipt.number));
        Ok::<(), CliError>(())
    })?;
    let wait = Wait { references: &references, receipts: Some(receipts), rejected, timeout };
    run(context, wait, &interrupts)
}

/// Executes operations that were logged before, or waits until a running drain loop has.
pub fn for_logged(
    context: &mut Context<'_>,
    references: &[Reference],
    timeout: Option<Duration>,
) -> Result<Exit, CliError> {
    let interrupts = Interrupts::install()?;
    run(context, Wait { references, receipts: None, rejected: None, timeout }, &interrupts)
}

fn run(
    context: &mut Context<'_>,
    wait: Wait<'_>,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    let mut progress = Progress::new(context.output);
    let result =
        context.client.run_and_wait(wait.references, wait.timeout, &interrupts.stop, &mut progress);
    progress.end();
    report(context, wait, result)
}

/// Waits for more operations than are held in memory. Outcomes are printed while they are read.
fn for_many(
    context: &mut Context<'_>,
    receipts: &Receipts,
    rejected: Option<CliError>,
    timeout: Option<Duration>,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    let numbers = receipts.number_set()?;
    let mut progress = Progress::new(context.output);
    let result =
        context.client.run_and_wait_for_batch(receipts, timeout, &interrupts.stop, &mut progress);
    progress.end();
    let error = match result.map(|()| None).or_else(stopped_early) {
        Ok(early) => tally(context, &numbers)
            .map(|tally| tally.error(early, receipts.count()))
            .map_err(CliError::from),
        Err(error) => Err(error.into()),
    };
    let error = match error {
        Ok(error) => with_rejected(error, rejected),
        // The logged operations are durable, whatever failed afterwards.
        Err(error) => return print_receipts(context, receipts, Some(&error)),
    };
    let Context { output, client, .. } = context;
    let operations =
        || numbers.iter().filter_map(|number| client.operation(&Reference::Number(number)).ok());
    output.outcome(
        || OperationsDoc::new(operations()),
        error.as_ref(),
        |output| {
            for operation in operations() {
                output.write(|out, style| write_result(out, &operation, style))?;
            }
            Ok(())
        },
    )
}

/// Returns the error as a value if it only ended the wait early.
fn stopped_early(error: ClientError) -> Result<Option<ClientError>, ClientError> {
    match error {
        ClientError::TimedOut { .. } | ClientError::Interrupted => Ok(Some(error)),
        error => Err(error),
    }
}

/// The outcomes of many operations.
#[derive(Debug, Default)]
struct Tally {
    failed: usize,
    first_failed: Option<Operation>,
    unfinished: u64,
}

fn tally(context: &Context<'_>, numbers: &NumberSet) -> Result<Tally, ClientError> {
    let mut tally = Tally::default();
    for number in numbers.iter() {
        let operation = match context.client.operation(&Reference::Number(number)) {
            Ok(operation) => operation,
            // It was deleted or pruned meanwhile.
            Err(ClientError::NoSuchOperation(_)) => continue,
            Err(error) => return Err(error),
        };
        tally.unfinished += u64::from(!operation.status().is_terminal());
        if operation.status() == Status::Failed {
            tally.failed += 1;
            tally.first_failed.get_or_insert(operation);
        }
    }
    Ok(tally)
}

impl Tally {
    /// Returns the error of a wait for `all` operations, which `early` may have ended.
    fn error(&self, early: Option<ClientError>, all: u64) -> Option<CliError> {
        let Tally { failed, first_failed, unfinished } = self;
        let Some(early) = early else {
            let all = usize::try_from(all).unwrap_or(usize::MAX);
            return first_failed.as_ref().map(|first| failure(first, *failed, all));
        };
        let interrupted = matches!(early, ClientError::Interrupted);
        let mut error = CliError::from(early)
            .only_hint("they are still queued; run `wal-cli process` to execute them");
        let what = if interrupted { "interrupted" } else { "timed out" };
        error.message = format!("{what}: {unfinished} of {all} operations have not ended");
        if *failed > 0 && !interrupted {
            error.exit = error.exit.or(Exit::Failed);
        }
        Some(error)
    }
}

/// Merges the error about outcomes with the one about rejected inputs.
fn with_rejected(error: Option<CliError>, rejected: Option<CliError>) -> Option<CliError> {
    match (error, rejected) {
        (Some(mut error), Some(rejected)) => {
            error.message = format!("{}; {}", error.message, rejected.message);
            error.details.lines.extend(rejected.details.lines);
            (error.details.fields.bad_inputs, error.details.fields.bad_count) =
                (rejected.details.fields.bad_inputs, rejected.details.fields.bad_count);
            if error.exit != Exit::Interrupted {
                error.exit = error.exit.or(rejected.exit);
            }
            Some(error)
        }
        (error, rejected) => error.or(rejected),
    }
}

/// Prints the outcomes of the operations.
pub fn report(
    context: &mut Context<'_>,
    wait: Wait<'_>,
    result: Result<Vec<Operation>, ClientError>,
) -> Result<Exit, CliError> {
    let (operations, error) = match result {
        Ok(operations) => (operations, None),
        Err(error @ (ClientError::TimedOut { .. } | ClientError::Interrupted)) => {
            let operations = context.operations(wait.references)?;
            let error = stopped(context, &operations, error, wait.timeout);
            (operations, Some(error))
        }
        Err(error) => match wait.receipts {
            // The logged operations are durable, whatever failed afterwards.
            Some(receipts) => return print_receipts(context, receipts, Some(&error.into())),
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
    let error = with_rejected(error, wait.rejected);
    print(context, &operations, error.as_ref())
}

/// Returns the error for operations that failed.
pub fn failure(first: &Operation, failed: usize, all: usize) -> CliError {
    let number = first.number;
    let message = match (failed, all) {
        (_, 1) => format!("operation {number} failed"),
        (1, all) => format!("1 of {all} operations failed: operation {number}"),
        (failed, all) => format!("{failed} of {all} operations failed"),
    };
    let which = if failed == 1 { number.to_string() } else { "@failed".into() };
    let when = match first.is_in_doubt() && failed == 1 {
        true => "only if it did not take effect",
        false => "once the cause is fixed",
    };
    CliError::operations_failed(message)
        .hint(format!("run `wal-cli show {which}` for details, and `wal-cli retry {which}` {when}"))
}

/// Returns the error of a wait that ended early: the operations that have not ended, with the
/// reason for the first one.
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
    let what = match unfinished.as_slice() {
        [] => return error,
        [one] => {
            let next = next_attempt(one, context.client.clock().now());
            format!("operation {} is still {}{next}", one.number, one.status())
        }
        several => {
            let states = Status::ALL.iter().filter_map(|status| {
                let n = several.iter().filter(|one| one.status() == *status).count();
                (n > 0).then(|| format!("{n} {status}"))
            });
            let states = states.collect::<Vec<_>>().join(", ");
            format!("{} of {} operations have not ended: {states}", several.len(), operations.len())
        }
    };
    error.message = match interrupted {
        true => format!("interrupted: {what}"),
        false => format!("timed out{after}: {what}"),
    };
    let number = unfinished[0].number;
    // Most operations usually wait for the same reason as the first one.
    error.only_hint(match context.client.why(&Reference::Number(number)) {
        Ok(why) => why.sentence,
        Err(_) => format!("run `wal-cli wait {number} --timeout 10min` to wait longer"),
    })
}

/// Returns when the next attempt of a retrying operation is due, for a message.
fn next_attempt(operation: &Operation, now: Time) -> String {
    let State::Retrying { wait, .. } = &operation.state else { return String::new() };
    match wait.until.millis_since(now) {
        left if left > 0 => format!(", its next attempt is due in {}", span(left)),
        _ => ", its next attempt is due".into(),
    }
}

/// Prints operations, and then the error, if any.
pub fn print(
    context: &mut Context<'_>,
    operations: &[Operation],
    error: Option<&CliError>,
) -> Result<Exit, CliError> {
    context.output.outcome(
        || Operations::new(operations),
        error,
        |output| {
            for operation in operations {
                output.write(|out, style| write_result(out, operation, style))?;
            }
            if let [only] = operations {
                write_listing(&mut output.out, only)?;
            }
            Ok(())
        },
    )
}
