//! `add`: logs files and directories.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Exit;
use super::args::{Add, Logging};
use super::context::Context;
use super::error::CliError;
use super::wait::{self, Waited};
use crate::client::{AddOptions, ClientError, Receipt, Reference};
use crate::report::{Document, Receipts, subject, visible};
use crate::wal::WalError;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Add) -> Result<Exit, CliError> {
    let mut paths = args.path.clone();
    if let Some(file) = &args.from_file {
        paths.extend(read_paths(file, args.null)?);
    }
    if paths.is_empty() {
        context.terminal.note("no paths were given: nothing was logged");
        return told(context, &[]);
    }
    let options = options(&args.logging)?;
    let receipts = context.client.add_all(&paths, &options)?;
    finish(context, &receipts, &args.logging)
}

/// What was given that goes with any logged operation.
pub fn options(logging: &Logging) -> Result<AddOptions, CliError> {
    let after: Result<Vec<Reference>, ClientError> = logging.after.iter().map(|word| Reference::parse(word)).collect();
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
pub fn finish(context: &mut Context<'_>, receipts: &[Receipt], logging: &Logging) -> Result<Exit, CliError> {
    for note in receipts.iter().filter_map(|receipt| receipt.note.as_deref()) {
        context.terminal.warn(note, None);
    }
    if logging.wait {
        let references: Vec<Reference> = receipts.iter().map(|receipt| Reference::Number(receipt.number)).collect();
        let waited = Waited { references: &references, receipts, timeout: logging.timeout };
        return wait::carrying_out(context, &waited);
    }
    let exit = told(context, receipts)?;
    // A checkpoint that is due can wait no longer than the next command; what was logged stands without it.
    match context.client.maintain() {
        Ok(_) | Err(ClientError::Wal(WalError::Busy { .. })) => {}
        Err(error) => context.terminal.warn(&format!("the log could not be tidied up: {error}"), None),
    }
    Ok(exit)
}

/// Prints what was logged. It is durable by now.
fn told(context: &mut Context<'_>, receipts: &[Receipt]) -> Result<Exit, CliError> {
    let terminal = &mut *context.terminal;
    if terminal.json {
        terminal.document(&Document::done(Receipts::new(receipts)))?;
        return Ok(Exit::Done);
    }
    for receipt in receipts {
        match &receipt.path {
            Some(path) => writeln!(terminal.out, "{}  {}  {}", receipt.number, receipt.id, visible(path))?,
            None => {
                let logged = context.client.operation(&Reference::Number(receipt.number)).ok();
                let what = logged.map_or_else(|| receipt.operation_type.to_string(), |logged| subject(&logged));
                writeln!(terminal.out, "{}  {}  {what}", receipt.number, receipt.id)?;
            }
        }
    }
    terminal.out.flush()?;
    for receipt in receipts.iter().filter(|receipt| receipt.existing) {
        let Receipt { number, status, .. } = receipt;
        terminal.note(&format!("operation {number} had this key already, and is {status}: nothing new was logged"));
    }
    Ok(Exit::Done)
}

#[expect(clippy::disallowed_methods, reason = "it may be a pipe, which cannot be read at offsets")]
fn read_paths(file: &Path, null: bool) -> Result<Vec<PathBuf>, CliError> {
    let refuse = |error: std::io::Error| {
        let name = if file == Path::new("-") { "stdin".into() } else { format!("`{}`", file.display()) };
        CliError::usage(format!("nothing was logged: could not read paths from {name}: {error}"))
            .hint("--from-file takes a file with one path per line, or `-` for stdin")
    };
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(refuse)?)
    };
    split_paths(BufReader::new(input), null).map_err(refuse)
}

fn split_paths(input: impl BufRead, null: bool) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for part in input.split(if null { 0 } else { b'\n' }) {
        let mut part = part?;
        if !null && part.last() == Some(&b'\r') {
            part.pop();
        }
        if !part.is_empty() {
            paths.push(PathBuf::from(std::ffi::OsString::from_vec(part)));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_end_in_any_way() {
        let split = |text: &str, null| split_paths(text.as_bytes(), null).unwrap();
        let ab = ["a", "b c"].map(PathBuf::from);
        assert_eq!(split("a\nb c", false), ab);
        assert_eq!(split("a\r\n\r\nb c\r\n", false), ab);
        assert_eq!(split("a\0b c\0", true), ab);
        assert_eq!(split("a\nb\0", true), [PathBuf::from("a\nb")]);
        assert!(split("", false).is_empty());
    }
}
