//! Errors as the user sees them: what failed, on what, why, and the next step.

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
    AsDisplay, AsName, BadInputDoc, ErrorDoc, ErrorFields, ErrorType, Offset, OpenCode, SkippedDoc,
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
    /// What failed, on what, and why. Commands in it are written `` `wal-cli …` ``, as in all texts
    /// of an error; [`Invocation::pasteable`] adapts them when they are printed.
    pub message: String,
    /// Everything else.
    pub more: Box<More>,
}

/// What an error says beside its message.
#[derive(Debug, Default)]
pub struct More {
    /// Lines below the message.
    pub details: Vec<String>,
    /// Causes that the message does not contain.
    pub causes: Vec<String>,
    /// Next steps.
    pub hints: Vec<String>,
    /// Further fields for scripts.
    pub fields: ErrorFields,
    /// Whether nothing is printed.
    pub silent: bool,
}

impl CliError {
    /// Returns an error of this type, with the type's exit code.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> CliError {
        CliError { exit: kind.into(), kind, message: message.into(), more: Box::default() }
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
        self.more.hints.push(hint.into());
        self
    }

    /// Replaces all hints by this one.
    pub fn only_hint(mut self, hint: impl Into<String>) -> CliError {
        self.more.hints = vec![hint.into()];
        self
    }

    /// Sets further fields for scripts.
    pub fn with(mut self, set: impl FnOnce(&mut ErrorFields)) -> CliError {
        set(&mut self.more.fields);
        self
    }

    /// Returns whether nothing is printed, because the reader of stdout has closed it.
    pub fn is_silent(&self) -> bool {
        self.more.silent
    }

    /// Returns the error as a part of a JSON document.
    pub fn document(&self, invocation: &Invocation) -> ErrorDoc<'_> {
        let More { causes, hints, fields, .. } = &*self.more;
        ErrorDoc {
            r#type: self.kind,
            message: invocation.pasteable(&self.message),
            hint: (!hints.is_empty()).then(|| invocation.pasteable(&hints.join("; ")).into_owned()),
            causes,
            facts: fields,
        }
    }

    /// Adds the sources of an error that the message does not contain.
    fn caused_by(mut self, error: &dyn Error) -> CliError {
        let mut last = self.message.clone();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !last.contains(&text) {
                self.more.causes.push(text.clone());
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
            // The reader has read what it wanted.
            let mut error = CliError::new(ErrorType::Output, "stdout was closed by its reader");
            error.exit = Exit::Done;
            error.more.silent = true;
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
        cli.more.hints.extend(error.hint());
        cli.more.fields.key = error.key().map(Into::into);
        cli.more.fields.origin = error.origin().map(ToString::to_string);
        cli
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        let cli = CliError::of_config(&error);
        if cli.more.hints.is_empty() {
            return cli.hint("run `wal-cli config check` to see everything that is wrong");
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
            ClientError::Wal(error) => log_error(cli, error),
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
            ClientError::BadKey { .. } => {
                cli.hint("shorten the key, or run `wal-cli add --help` to see what a key does")
            }
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
        cli.more.details = skipped.iter().take(DETAILS_MAX).map(line).collect();
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

/// Adds the inputs that the error is about.
pub fn bad_inputs(mut cli: CliError, bad: &BadInputs) -> CliError {
    let line = |input: &BadInput| {
        let line = input.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{}: {}", visible(&input.input), input.message)
    };
    cli.more.details = bad.listed.iter().take(DETAILS_MAX).map(line).collect();
    if bad.count > DETAILS_MAX as u64 {
        let more = bad.count - DETAILS_MAX as u64;
        cli.more.details.push(format!("… and {more} more (--json lists them)"));
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

/// Adds the backend that an unknown name was probably meant to be.
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

/// The hint for an exhausted limit of open files.
const RAISE_OPEN_FILES: &str = "raise the limit of open files, such as with `ulimit -n 1024`, then \
                                run the command again";

fn log_error(mut cli: CliError, error: &WalError) -> CliError {
    match error {
        WalError::Busy { path, .. } if path.ends_with("process.lock") => {
            cli.message = format!("another drain loop is running: {}", cli.message);
            cli.hint(
                "wait for it to end; `--skip-if-running` makes this a success, \
                 `--lock-timeout 60s` waits longer",
            )
        }
        WalError::Busy { .. } => {
            cli.hint("wait for that process to end, or pass `--lock-timeout 60s`")
        }
        WalError::Damaged(damage) => cli
            .with(|fields| fields.path = Some(damage.path.display().to_string()))
            .with(|fields| fields.offset = Some(Offset(damage.offset)))
            .hint(match damage.path.ends_with("MANIFEST.json") {
                true => "nothing was changed; a repair rebuilds the manifest from the other files",
                false => {
                    "nothing was changed; `wal-cli list all` shows the operations that are readable"
                }
            })
            .hint(
                "copy the directory, then run `wal-cli verify` to list all damage and \
                 `wal-cli verify --repair` to save what is readable; or restore the file from a \
                 backup",
            ),
        WalError::NewerFormat { .. } => {
            cli.hint("nothing was changed; use the version of the program that wrote it")
        }
        WalError::NotOurs { .. } => {
            cli.hint("nothing was changed; name another directory with `--base-path`")
        }
        WalError::OriginalAtWork { .. } => cli.hint(
            "nothing was changed; stop that program, wait a minute, and run the command again \
             (reading works meanwhile; see docs/adoption.md)",
        ),
        WalError::NotLogged(error) | WalError::Disk(error) if error.is_out_of_descriptors() => {
            cli.hint(RAISE_OPEN_FILES)
        }
        WalError::NotLogged(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                cli.hint("free space on that disk, then run the command again")
            }
            io::ErrorKind::PermissionDenied => {
                cli.hint("run the command as the owner of the log, or pass `--base-path`")
            }
            _ => cli.hint("check the disk, then run the command again"),
        },
        WalError::NoSpace { free, wanted, .. } => cli
            .with(|fields| fields.free_bytes = Some(*free))
            .with(|fields| fields.min_free_bytes = Some(*wanted))
            .hint("run `wal-cli cleanup` to prune old completed operations")
            .hint("or lower the limit: run `wal-cli config set min_free_bytes 1MiB`"),
        WalError::NoRoomForOutcomes { free, .. } => cli
            .with(|fields| fields.free_bytes = Some(*free))
            .hint("nothing is lost; free space on that disk, then run `wal-cli process` again"),
        WalError::NoRoom { free, kept, .. } => cli
            .with(|fields| fields.free_bytes = Some(*free))
            .with(|fields| fields.min_free_bytes = Some(*kept))
            .hint(
                "free space on that disk, or pass `--spool never` and keep the file until the \
                 operation has completed",
            ),
        WalError::Unconfirmed { ids, .. } => {
            cli.more.details = ids.iter().take(DETAILS_MAX).map(ToString::to_string).collect();
            cli.with(|fields| fields.ids = Some(ids.iter().copied().map(AsDisplay).collect()))
                .hint("run `wal-cli list all` to see whether it was logged before you log it again")
        }
        WalError::KeyTaken { number, .. } => {
            cli.with(|fields| fields.number = Some(number.get())).hint(format!(
                "run `wal-cli show {number}` to see that operation; other work needs another key"
            ))
        }
        WalError::KeyTwice { .. } => cli.hint("give each operation a key of its own"),
        WalError::UnknownDependency { .. } => {
            cli.hint("run `wal-cli list all` to see all operations")
        }
        WalError::HasDependents { dependent, .. } => cli.hint(format!(
            "nothing was changed; run `wal-cli cancel {dependent}` or \
             `wal-cli delete {dependent}` first"
        )),
        WalError::TooLarge { .. } => cli.hint("pass fewer or shorter parameters"),
        WalError::Conflict { number } => {
            cli.hint(format!("run `wal-cli show {number}` to see the change, then decide again"))
        }
        WalError::Illegal(_) => {
            cli.hint("run `wal-cli list all` to see the status of each operation")
        }
        WalError::Disk(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            cli.hint("run the command as the owner of the log, or pass `--base-path`")
        }
        WalError::Disk(error) if error.kind() == io::ErrorKind::NotADirectory => {
            cli.hint("name a directory with `--base-path`")
        }
        WalError::Disk(error) if error.is_not_found() => cli.hint("name a directory that exists"),
        WalError::Disk(_) => cli.hint("check the disk, then run the command again"),
    }
}
