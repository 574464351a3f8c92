//! Errors of commands: message, causes, and hints for the next step.

mod log;

use std::error::Error;
use std::io;

use super::exit::{Exit, error_type};
use super::invocation::Invocation;
use crate::backend::Refusal;
use crate::client::{BadInput, BadInputs, BadPush, ClientError, Skipped};
use crate::config::ConfigError;
use crate::disk::DiskError;
use crate::operation::{BackendName, Operation};
use crate::report::{
    AsDisplay, AsName, BadInputDoc, ErrorDoc, ErrorFields, ErrorType, OpenCode, SkippedDoc,
    UnfinishedDoc, visible,
};
use crate::wal::WalError;

/// Inputs or operations listed below a message; JSON has all.
const DETAILS_MAX: usize = 20;

/// The error that a command ends with.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// The type, for scripts.
    pub kind: ErrorType,
    /// The message: the failed action, its object and the cause. Commands in it are written
    /// `` `wal-cli …` ``, as in all texts of an error; [`Invocation::pasteable`] adapts them when
    /// they are printed.
    pub message: String,
    /// The rest of the error.
    pub details: Box<Details>,
}

/// The parts of an error besides its message.
#[derive(Debug, Default)]
pub struct Details {
    /// Lines below the message.
    pub lines: Vec<String>,
    /// Causes that the message does not contain.
    pub causes: Vec<String>,
    /// Next steps.
    pub hints: Vec<String>,
    /// Further fields for scripts.
    pub fields: ErrorFields,
    /// True if nothing is printed.
    pub silent: bool,
}

impl CliError {
    /// Returns an error of this type, with the type's exit code.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> CliError {
        CliError { exit: kind.into(), kind, message: message.into(), details: Box::default() }
    }

    /// Returns a usage error.
    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::new(ErrorType::Usage, message)
    }

    /// Returns the error for operations that were waited for or drained, and failed.
    pub fn operations_failed(message: impl Into<String>) -> CliError {
        CliError::new(ErrorType::OperationFailed, message)
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.details.hints.push(hint.into());
        self
    }

    /// Replaces all hints by this one.
    pub fn only_hint(mut self, hint: impl Into<String>) -> CliError {
        self.details.hints = vec![hint.into()];
        self
    }

    /// Sets further fields for scripts.
    pub fn with(mut self, set: impl FnOnce(&mut ErrorFields)) -> CliError {
        set(&mut self.details.fields);
        self
    }

    /// Returns whether nothing is printed, because the reader of stdout has closed it.
    pub fn is_silent(&self) -> bool {
        self.details.silent
    }

    /// Returns the error as a part of a JSON document.
    pub fn document(&self, invocation: &Invocation) -> ErrorDoc<'_> {
        let Details { causes, hints, fields, .. } = &*self.details;
        ErrorDoc {
            r#type: self.kind,
            message: invocation.pasteable(&self.message),
            hint: (!hints.is_empty()).then(|| invocation.pasteable(&hints.join("; ")).into_owned()),
            causes,
            fields,
        }
    }

    /// Adds the sources of an error that the message does not contain.
    fn caused_by(mut self, error: &dyn Error) -> CliError {
        let mut last = self.message.clone();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !last.contains(&text) {
                self.details.causes.push(text.clone());
                last = text;
            }
            next = cause.source();
        }
        self
    }
}

impl From<io::Error> for CliError {
    /// Converts an error of stdout, the only file that commands write to directly.
    fn from(error: io::Error) -> CliError {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // The reader needs no more of the output.
            let mut error = CliError::new(ErrorType::Output, "stdout was closed by its reader");
            error.exit = Exit::Done;
            error.details.silent = true;
            return error;
        }
        CliError::new(ErrorType::Output, format!("cannot write to stdout: {error}"))
            .hint("the command took effect; run `wal-cli list all` to see the result")
    }
}

impl CliError {
    /// Returns the error as `config check` lists it.
    pub fn of_config(error: &ConfigError) -> CliError {
        let mut cli = CliError::new(ErrorType::Config, error.to_string()).caused_by(error);
        cli.details.hints.extend(error.hint());
        cli.details.fields.key = error.key().map(Into::into);
        cli.details.fields.origin = error.origin().map(ToString::to_string);
        cli
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        let cli = CliError::of_config(&error);
        if cli.details.hints.is_empty() {
            return cli.hint("run `wal-cli config check` to see all errors");
        }
        cli
    }
}

impl From<DiskError> for CliError {
    fn from(error: DiskError) -> CliError {
        ClientError::from(error).into()
    }
}

impl From<WalError> for CliError {
    fn from(error: WalError) -> CliError {
        ClientError::from(error).into()
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        let cli = CliError::new(error_type(&error), error.to_string()).caused_by(&error);
        match &error {
            ClientError::Wal(error) => log::hinted(cli, error),
            ClientError::NoSuchOperation(name) => no_such_operation(cli, name),
            ClientError::BadReference(_) => {
                cli.hint("run `wal-cli list all` to see the numbers and ids of operations")
            }
            ClientError::BadInputs { bad, .. } => bad_inputs(cli, bad)
                .hint("correct these inputs or leave them out; `--keep-going` logs the others"),
            ClientError::Refused(refusal) => refused(cli, refusal),
            ClientError::Disabled => cli.hint(
                "run `wal-cli config get enabled --json` to see where that was set; reading and \
                 draining still work",
            ),
            ClientError::NotApplicable { skipped, .. } => not_applicable(cli, skipped),
            ClientError::TimedOut { unfinished } => timed_out(cli, unfinished),
            ClientError::BadPush(BadPush::NoDestination) => {
                cli.hint("run `wal-cli archive push s3://BUCKET/PREFIX` to push once").hint(
                    "run `wal-cli config set archive_push s3://BUCKET/PREFIX` to push at every \
                     cleanup",
                )
            }
            ClientError::BadPush(BadPush::Host { .. }) => {
                cli.hint("pass `--host NAME`, or run `wal-cli config set archive_host NAME`")
            }
            ClientError::BadPush(BadPush::Destination { .. }) => {
                cli.hint("run `wal-cli archive push --help` to see examples")
            }
            ClientError::OneKey { .. } => {
                cli.hint("omit `--key`, or log the inputs one at a time with a key each")
            }
            ClientError::BadKey { .. } => cli.hint(
                "pass a key of 1 to 512 bytes; run `wal-cli add --help` to see what a key does",
            ),
            ClientError::Illegal(_) => {
                cli.hint("run `wal-cli list all` to see the status of each operation")
            }
            ClientError::Interrupted => {
                cli.hint("run `wal-cli status` to see what is logged and what is still queued")
            }
        }
    }
}

fn no_such_operation(mut cli: CliError, name: &str) -> CliError {
    if name == "@last" {
        cli.message = "there is no `@last` operation: you have not logged any here".into();
    }
    cli.hint("run `wal-cli list all` to see all operations")
}

fn not_applicable(mut cli: CliError, skipped: &[Skipped]) -> CliError {
    if let [one] = skipped {
        cli = cli.hint(format!("run `wal-cli show {}` for details", one.number));
    } else {
        let line = |one: &Skipped| format!("operation {}: {}", one.number, one.why);
        cli.details.lines = skipped.iter().take(DETAILS_MAX).map(line).collect();
        cli = cli.hint("leave these out, or select operations by filters or `-`, which skip them");
    }
    let doc = |one: &Skipped| SkippedDoc {
        number: one.number.get(),
        operation_id: AsDisplay(one.id),
        status: AsName(one.status),
        reason: one.why.clone(),
    };
    cli.with(|fields| fields.skipped = Some(skipped.iter().map(doc).collect()))
}

fn timed_out(cli: CliError, unfinished: &[Operation]) -> CliError {
    let doc = |operation: &Operation| UnfinishedDoc {
        number: operation.number.get(),
        operation_id: AsDisplay(operation.id),
        status: AsName(operation.status()),
    };
    cli.with(|fields| fields.unfinished = Some(unfinished.iter().map(doc).collect()))
        .hint("they are still queued; run `wal-cli process` to execute them")
}

/// Adds the rejected inputs.
pub fn bad_inputs(mut cli: CliError, bad: &BadInputs) -> CliError {
    let line = |input: &BadInput| {
        let line = input.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{}: {}", visible(&input.input), input.message)
    };
    cli.details.lines = bad.listed.iter().take(DETAILS_MAX).map(line).collect();
    if bad.count > DETAILS_MAX as u64 {
        let more = bad.count - DETAILS_MAX as u64;
        cli.details.lines.push(format!("… and {more} more (--json lists them)"));
    }
    let doc = |bad: &BadInput| BadInputDoc {
        line: bad.line,
        error_type: OpenCode(bad.error_type),
        input: bad.input.clone(),
        message: bad.message.clone(),
    };
    cli.with(|fields| {
        fields.bad_inputs = Some(bad.listed.iter().map(doc).collect());
        fields.bad_count = Some(bad.count);
    })
}

/// Adds the backend that was probably meant by an unknown name.
pub fn suggested(error: CliError, suggestion: Option<&BackendName>) -> CliError {
    let error = match suggestion {
        Some(name) => error
            .hint(format!("did you mean `{name}`?"))
            .with(|fields| fields.suggestion = Some(name.to_string())),
        None => error,
    };
    error.hint("run `wal-cli config show` to see the configured backends")
}

fn refused(cli: CliError, refusal: &Refusal) -> CliError {
    match refusal {
        Refusal::Unknown { suggestion, .. } => suggested(cli, suggestion.as_ref()),
        Refusal::NotBuilt { .. } => {
            cli.hint("pass `--backend local`, or run `wal-cli config set default_backend local`")
        }
        Refusal::Unconfigured { name, key } => {
            cli.hint(format!("run `wal-cli config set backends.{name}.{key} VALUE`"))
        }
        Refusal::Unsupported { supported, .. } => {
            let list = supported.join(", ");
            cli.hint(format!("this backend supports {list}")).with(|fields| {
                fields.supported = Some(supported.iter().map(ToString::to_string).collect())
            })
        }
        Refusal::BadParameters(_) => {
            cli.hint("run `wal-cli submit --help` to see the arguments of each type")
        }
    }
}
