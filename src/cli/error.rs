//! Errors at the edge: what happened, to what, and the way out.

use std::error::Error;
use std::io;

use super::{Exit, Program};
use crate::backend::Refusal;
use crate::client::{BadInput, BadInputs, BadPush, ClientError};
use crate::config::ConfigError;
use crate::disk::DiskError;
use crate::operation::{BackendName, Operation};
use crate::report::{
    AsDisplay, AsName, BadInputDoc, ErrorDoc, ErrorFields, ErrorType, Offset, OpenCode, SkippedDoc,
    UnfinishedDoc, visible,
};
use crate::wal::WalError;

/// How many inputs are named for people; scripts get all of them.
const DETAILS_MAX: usize = 20;

/// What a command ends with if it does not succeed.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// What kind of error it is.
    pub kind: ErrorType,
    /// What happened, and to what.
    pub message: String,
    /// What else there is to say.
    pub more: Box<More>,
}

/// What else there is to say of an error.
#[derive(Debug, Default)]
pub struct More {
    /// Lines below the message.
    pub details: Vec<String>,
    /// Why, where the message does not say it.
    pub causes: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
    /// Further fields for scripts.
    pub facts: ErrorFields,
    /// Whether nobody is to hear of it.
    pub silent: bool,
}

impl CliError {
    /// An error of this kind.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> CliError {
        CliError { exit: kind.into(), kind, message: message.into(), more: Box::default() }
    }

    /// Something was asked for in a wrong way.
    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::new(ErrorType::Usage, message)
    }

    /// Operations that were waited for or drained failed.
    pub fn operations_failed(message: impl Into<String>) -> CliError {
        CliError::new(ErrorType::OperationFailed, message)
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.more.hints.push(hint.into());
        self
    }

    /// The same with further fields.
    pub fn with(mut self, set: impl FnOnce(&mut ErrorFields)) -> CliError {
        set(&mut self.more.facts);
        self
    }

    /// Whether nobody is to hear of it: whoever read our output has read enough.
    pub fn is_silent(&self) -> bool {
        self.more.silent
    }

    /// The error as a part of a document.
    pub fn shown(&self, program: Program) -> ErrorDoc<'_> {
        let More { causes, hints, facts, .. } = &*self.more;
        ErrorDoc {
            r#type: self.kind,
            message: program.named(&self.message).into(),
            hint: (!hints.is_empty()).then(|| program.named(&hints.join("; "))),
            causes,
            facts,
        }
    }

    /// The causes of an error that its own message does not already contain.
    fn caused_by(mut self, error: &dyn Error) -> CliError {
        let mut said = self.message.clone();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.contains(&text) {
                self.more.causes.push(text.clone());
                said = text;
            }
            next = cause.source();
        }
        self
    }
}

impl From<io::Error> for CliError {
    /// An error of stdout: nothing else is written to directly.
    fn from(error: io::Error) -> CliError {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever read our output has read enough: all is well.
            let mut error = CliError::new(ErrorType::Output, "the reader has gone");
            error.exit = Exit::Done;
            error.more.silent = true;
            return error;
        }
        CliError::new(ErrorType::Output, format!("could not write to stdout: {error}"))
            .hint("what the command did stands; `wal-cli list all` shows it")
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        let mut cli = CliError::new(ErrorType::Config, error.to_string()).caused_by(&error);
        cli.more.hints.extend(error.hint());
        cli.more.facts.key = error.key().map(Into::into);
        cli.more.facts.origin = error.origin().map(ToString::to_string);
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
        let mut cli =
            CliError::new(super::exit::error_type(&error), error.to_string()).caused_by(&error);
        match &error {
            ClientError::Wal(error) => about_the_log(cli, error),
            ClientError::NoSuchOperation(name) => {
                cli.message = if name == "@last" {
                    "you have not logged any operation here".into()
                } else {
                    format!("there is no operation `{name}`")
                };
                cli.hint("`wal-cli list all` shows what there is")
            }
            ClientError::BadReference(_) => cli.hint("`wal-cli list all` shows numbers"),
            ClientError::BadInputs { bad, .. } => {
                bad_inputs(cli, bad).hint("correct or leave out those, then run it again; --keep-going logs the others")
            }
            ClientError::Refused(refusal) => refused(cli, refusal),
            ClientError::Disabled => cli
                .hint("`wal-cli config get enabled --json` says where that was set")
                .hint("reading and draining go on"),
            ClientError::NotApplicable { skipped, .. } => {
                if let [one] = skipped.as_slice() {
                    cli = cli.hint(format!("`wal-cli show {}` tells more", one.number));
                } else {
                    let line = |one: &crate::client::Skipped| format!("operation {}: {}", one.number, one.why);
                    cli.more.details = skipped.iter().take(DETAILS_MAX).map(line).collect();
                    cli = cli.hint("leave those out, or select operations with filters or `-`, which skips them");
                }
                let doc = |one: &crate::client::Skipped| SkippedDoc {
                    number: one.number.get(),
                    operation_id: AsDisplay(one.id),
                    status: AsName(one.status),
                    reason: one.why.clone(),
                };
                cli.with(|facts| facts.skipped = Some(skipped.iter().map(doc).collect()))
            }
            ClientError::TimedOut { unfinished } => {
                let doc = |operation: &Operation| UnfinishedDoc {
                    number: operation.number.get(),
                    operation_id: AsDisplay(operation.id),
                    status: AsName(operation.status()),
                };
                cli.with(|facts| facts.unfinished = Some(unfinished.iter().map(doc).collect()))
            }
            ClientError::BadPush(BadPush::NoDestination) => cli
                .hint("`wal-cli archive push s3://BUCKET/PREFIX` pushes there once")
                .hint("`wal-cli config set archive_push s3://BUCKET/PREFIX` does so with every cleanup"),
            ClientError::BadPush(BadPush::Host { .. }) => {
                cli.hint("`--host NAME` or the setting archive_host name it otherwise")
            }
            ClientError::BadPush(BadPush::Destination { .. }) => cli.hint("`wal-cli archive push --help` has examples"),
            ClientError::OneKey { .. } => cli.hint("leave out `--key`, or log them one by one"),
            ClientError::Illegal(_) | ClientError::Interrupted | ClientError::BadKey { .. } => cli,
        }
    }
}

/// The same error with the inputs that it is about.
pub fn bad_inputs(mut cli: CliError, bad: &BadInputs) -> CliError {
    let line = |input: &BadInput| {
        let line = input.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{}: {}", visible(&input.input), input.message)
    };
    cli.more.details = bad.listed.iter().take(DETAILS_MAX).map(line).collect();
    if bad.count > DETAILS_MAX as u64 {
        cli.more.details.push(format!(
            "… and {} more (--json names more of them)",
            bad.count - DETAILS_MAX as u64
        ));
    }
    let doc = |bad: &BadInput| BadInputDoc {
        line: bad.line,
        error_type: OpenCode(bad.error_type),
        input: bad.input.clone(),
        message: bad.message.clone(),
    };
    cli.with(|facts| {
        facts.bad_inputs = Some(bad.listed.iter().map(doc).collect());
        facts.bad_count = Some(bad.count);
    })
}

/// An error about a backend that is not there, with what was meant, perhaps.
pub fn suggested(error: CliError, suggestion: Option<&BackendName>) -> CliError {
    let error = match suggestion {
        Some(name) => error
            .hint(format!("did you mean `{name}`?"))
            .with(|facts| facts.suggestion = Some(name.to_string())),
        None => error,
    };
    error.hint("`wal-cli config show` lists the backends")
}

fn refused(cli: CliError, refusal: &Refusal) -> CliError {
    match refusal {
        Refusal::Unknown { suggestion, .. } => suggested(cli, suggestion.as_ref()),
        Refusal::NotBuilt { .. } => {
            cli.hint("pass `--backend local`, or `wal-cli config set default_backend local`")
        }
        Refusal::Unconfigured { name, key } => {
            cli.hint(format!("set it in the configuration: `[backends.{name}]`, `{key} = …`"))
        }
        Refusal::Unsupported { supported, .. } => {
            let list = supported.join(", ");
            cli.hint(format!("it carries out {list}")).with(|facts| {
                facts.supported = Some(supported.iter().map(ToString::to_string).collect())
            })
        }
        Refusal::BadParameters(_) => cli.hint("`wal-cli submit --help` shows what each type takes"),
    }
}

fn about_the_log(mut cli: CliError, error: &WalError) -> CliError {
    match error {
        WalError::Busy { path, .. } if path.ends_with("process.lock") => {
            cli.message = format!("another drain loop is at work: {}", cli.message);
            cli.hint("wait for it to end; `--skip-if-running` takes that as done, `--lock-timeout 60s` waits longer")
        }
        WalError::Busy { .. } => cli.hint("wait for it to finish, or pass `--lock-timeout 60s`"),
        WalError::Damaged(damage) => cli
            .with(|facts| facts.path = Some(damage.path.display().to_string()))
            .with(|facts| facts.offset = Some(Offset(damage.offset)))
            .hint(match damage.path.ends_with("MANIFEST.json") {
                true => "nothing was changed; a repair makes a new manifest of what the other files say",
                false => "nothing was changed; `status`, `list` and `show` still show what can be read",
            })
            .hint("`wal-cli verify` says all that is wrong, `wal-cli verify --repair` saves what can be read")
            .hint("or restore that file from a backup; keep a copy of the folder as it is"),
        WalError::NewerFormat { .. } => cli.hint("use the version that wrote it; nothing was changed"),
        WalError::NotOurs { .. } => cli.hint("name another folder with `--base-path`; nothing was changed"),
        WalError::OriginalAtWork { .. } => cli
            .hint("stop it, then try again when nothing has changed there for a minute; reading works meanwhile")
            .hint("nothing was changed; see docs/adoption.md"),
        WalError::NotLogged(error) | WalError::Disk(error) if error.is_out_of_descriptors() => {
            cli.hint("allow more open files, such as with `ulimit -n 1024`, then run it again")
        }
        WalError::NotLogged(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                cli.hint("make room on that disk, then run it again")
            }
            io::ErrorKind::PermissionDenied => cli.hint("run it as the owner of the log, or pass `--base-path`"),
            _ => cli.hint("see what is wrong with that disk, then run it again"),
        },
        WalError::NoSpace { free, wanted, .. } => cli
            .with(|facts| facts.free_bytes = Some(*free))
            .with(|facts| facts.min_free_bytes = Some(*wanted))
            .hint("make room: `wal-cli cleanup` drops old completed operations")
            .hint("or lower it: `wal-cli config set min_free_bytes 1MiB`"),
        WalError::NoRoomForOutcomes { free, .. } => cli
            .with(|facts| facts.free_bytes = Some(*free))
            .hint("make room on that disk, then run `wal-cli process` again; nothing is lost"),
        WalError::NoRoom { free, kept, .. } => cli
            .with(|facts| facts.free_bytes = Some(*free))
            .with(|facts| facts.min_free_bytes = Some(*kept))
            .hint("make room, or pass `--spool never` and keep the file until the operation is completed"),
        WalError::Unconfirmed { ids, .. } => {
            let hint = "look before logging it again: `wal-cli list all` shows whether it is there";
            cli.more.details = ids.iter().take(DETAILS_MAX).map(ToString::to_string).collect();
            cli.with(|facts| facts.ids = Some(ids.iter().copied().map(AsDisplay).collect())).hint(hint)
        }
        WalError::KeyTaken { number, .. } => cli
            .with(|facts| facts.number = Some(number.get()))
            .hint(format!("`wal-cli show {number}` shows that one; use another key for other work")),
        WalError::KeyTwice { .. } => cli.hint("give each operation a key of its own"),
        WalError::UnknownDependency { .. } => cli.hint("`wal-cli list all` shows what there is"),
        WalError::HasDependents { dependent, .. } => {
            cli.hint(format!("cancel or delete operation {dependent} first; nothing was changed"))
        }
        WalError::TooLarge { .. } => cli.hint("pass less in its parameters"),
        WalError::Conflict { .. } => cli.hint("look at it again, then decide"),
        WalError::Illegal(_) => cli,
        WalError::Disk(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            cli.hint("run it as the owner of the log, or name another folder with `--base-path`")
        }
        WalError::Disk(error) if error.kind() == io::ErrorKind::NotADirectory => {
            cli.hint("name a folder with `--base-path`")
        }
        WalError::Disk(error) if error.is_not_found() => cli.hint("name a folder that is there"),
        WalError::Disk(_) => cli,
    }
}
