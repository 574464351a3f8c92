//! `add`: logs files and directories.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Exit;
use super::args::{Add, Logging};
use super::context::Context;
use super::error::{CliError, bad_inputs};
use super::inputs;
use super::signals::Interrupts;
use super::wait;
use crate::client::{AddOptions, Batch, ClientError, Receipt, Receipts, Reference};
use crate::report::{Document, ErrorType, ReceiptsDoc, summary, visible};
use crate::wal::WalError;

/// Paths that are logged in a moment, not worth a thread that listens for signals.
const SHORT: usize = 1000;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Add) -> Result<Exit, CliError> {
    let mut options = options(&args.logging)?;
    if args.recursive {
        options.parameters.insert("recursive".into(), "true".into());
    }
    let is_short = args.from_file.is_none() && args.path.len() <= SHORT;
    let interrupts = if is_short { Interrupts::none() } else { Interrupts::listen()? };
    let mut batch = context.client.batch(&options, args.logging.keep_going)?;
    for path in &args.path {
        check(&interrupts)?;
        batch.add(path, None)?;
    }
    if let Some(file) = &args.from_file {
        inputs::for_each_line(file, args.null, &interrupts.stop, |line| {
            let added = match line.text {
                Ok(path) => batch.add(Path::new(OsStr::from_bytes(&path)), Some(line.number)),
                Err(bad) => batch.reject(bad),
            };
            Ok(added?)
        })?;
    }
    let receipts = commit(batch, &interrupts)?;
    if receipts.total == 0 {
        context.terminal.note("no paths were given: nothing was logged");
    }
    finish(context, &receipts, &args.logging, &interrupts)
}

/// Logs what was given, unless somebody wants it to end first. From then on nothing stops what is to be told.
pub fn commit(mut batch: Batch<'_>, interrupts: &Interrupts) -> Result<Receipts, CliError> {
    check(interrupts)?;
    batch.prepare()?;
    check(interrupts)?;
    Ok(batch.commit()?)
}

fn check(interrupts: &Interrupts) -> Result<(), CliError> {
    match interrupts.stop.is_requested() {
        true => Err(ClientError::Interrupted.into()),
        false => Ok(()),
    }
}

/// What was given that goes with any logged operation.
pub fn options(logging: &Logging) -> Result<AddOptions, CliError> {
    let after: Result<Vec<Reference>, ClientError> =
        logging.after.iter().map(|word| Reference::parse(word)).collect();
    Ok(AddOptions {
        backend: logging.backend.clone(),
        max_retries: logging.max_retries,
        priority: logging.priority,
        parameters: logging.parameters.iter().cloned().collect(),
        after: after?,
        delay: logging.delay,
        key: logging.key.clone(),
        spool: logging.spool.map(Into::into),
    })
}

/// Tells what was logged, and waits for it if that is asked for.
pub fn finish(
    context: &mut Context<'_>,
    receipts: &Receipts,
    logging: &Logging,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    for note in &receipts.notes {
        context.terminal.warn(note, None);
    }
    let left_out = (receipts.bad.count > 0).then(|| left_out(receipts));
    if logging.wait && receipts.count() > 0 {
        return wait::for_batch(context, receipts, left_out, logging.timeout, interrupts);
    }
    let exit = told(context, receipts, left_out.as_ref())?;
    // A checkpoint that is due can wait no longer than the next command; what was logged stands without it.
    match context.client.maintain() {
        Ok(_) | Err(ClientError::Wal(WalError::Busy { .. })) => {}
        Err(error) => {
            context.terminal.warn(&format!("the log could not be tidied up: {error}"), None)
        }
    }
    Ok(exit)
}

/// The error for inputs that were left out while the others were logged.
fn left_out(receipts: &Receipts) -> CliError {
    let (bad, total) = (receipts.bad.count, receipts.total);
    let message = match receipts.count() {
        0 => format!("nothing was logged: none of {total} inputs can be used"),
        others => format!("{bad} of {total} inputs cannot be used; the other {others} are logged"),
    };
    bad_inputs(
        CliError { exit: Exit::Failed, ..CliError::new(ErrorType::BadInputs, message) },
        &receipts.bad,
    )
    .hint("correct those, then log them alone")
}

/// Prints what was logged, and what was not. It is durable by now.
pub fn told(
    context: &mut Context<'_>,
    receipts: &Receipts,
    error: Option<&CliError>,
) -> Result<Exit, CliError> {
    let client = &context.client;
    let terminal = &mut *context.terminal;
    let exit = error.map_or(Exit::Done, |error| error.exit);
    if terminal.json {
        let error = error.map(|error| error.shown(terminal.program));
        terminal.stream(&Document::with_error(ReceiptsDoc::new(receipts)?, error))?;
        return Ok(exit);
    }
    let mut existing = Vec::new();
    receipts.each(|receipt| {
        let Receipt { number, id, .. } = receipt;
        match &receipt.path {
            Some(path) => writeln!(terminal.out, "{number}  {id}  {}", visible(path))?,
            None => {
                let logged = client.operation(&Reference::Number(number)).ok();
                let what = logged
                    .map_or_else(|| receipt.operation_type.to_string(), |logged| summary(&logged));
                writeln!(terminal.out, "{number}  {id}  {what}")?;
            }
        }
        if receipt.existing && existing.len() < NOTES_MAX {
            existing.push((number, receipt.status));
        }
        Ok::<(), CliError>(())
    })?;
    terminal.out.flush()?;
    for (number, status) in existing {
        terminal.note(&format!(
            "operation {number} had this key already, and is {status}: nothing new was logged"
        ));
    }
    if let Some(error) = error {
        terminal.complain(error);
    }
    Ok(exit)
}

/// Operations that had their keys already and are told of one by one.
const NOTES_MAX: usize = 100;
