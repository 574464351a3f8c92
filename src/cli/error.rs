//! Errors at the edge: what happened, to what, and the way out.

use std::error::Error;
use std::io;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::{Exit, Program};
use crate::backend::Refusal;
use crate::client::ClientError;
use crate::config::ConfigError;
use crate::disk::DiskError;
use crate::operation::BackendName;
use crate::report::{Document, visible};
use crate::wal::WalError;

/// How many inputs are named for people; scripts get all of them.
const DETAILS_MAX: usize = 20;

/// What a command ends with if it does not succeed.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// A stable word for scripts.
    pub kind: &'static str,
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
    pub extra: Vec<(&'static str, Value)>,
}

impl CliError {
    /// An error of this kind.
    pub fn new(exit: Exit, kind: &'static str, message: impl Into<String>) -> CliError {
        CliError { exit, kind, message: message.into(), more: Box::default() }
    }

    /// Something was asked for in a wrong way.
    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Usage, "usage", message)
    }

    /// Operations that were waited for or drained failed.
    pub fn operations_failed(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Failed, "operation_failed", message)
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.more.hints.push(hint.into());
        self
    }

    /// The same with a further field.
    pub fn with(mut self, name: &'static str, value: Value) -> CliError {
        self.more.extra.push((name, value));
        self
    }

    /// Whether nobody is to hear of it: whoever read our output has read enough.
    pub fn is_silent(&self) -> bool {
        self.kind == CLOSED_PIPE
    }

    /// The error as a part of a document.
    pub fn shown(&self, program: Program) -> ErrorDoc<'_> {
        ErrorDoc { error: self, program }
    }

    /// The document of a command that brought nothing but this error.
    pub fn document(&self, program: Program) -> Document {
        Document::new(false).with("error", &self.shown(program))
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

/// An error as JSON.
#[derive(Debug)]
pub struct ErrorDoc<'a> {
    error: &'a CliError,
    program: Program,
}

impl Serialize for ErrorDoc<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let More { causes, hints, extra, .. } = &*self.error.more;
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("type", self.error.kind)?;
        fields.serialize_entry("message", &self.program.named(&self.error.message))?;
        fields.serialize_entry("hint", &(!hints.is_empty()).then(|| self.program.named(&hints.join("; "))))?;
        if !causes.is_empty() {
            fields.serialize_entry("causes", causes)?;
        }
        for (name, value) in extra {
            fields.serialize_entry(name, value)?;
        }
        fields.end()
    }
}

const CLOSED_PIPE: &str = "closed_pipe";

impl From<io::Error> for CliError {
    /// An error of stdout: nothing else is written to directly.
    fn from(error: io::Error) -> CliError {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return CliError::new(Exit::Done, CLOSED_PIPE, "the reader has gone");
        }
        CliError::new(Exit::Disk, "output", format!("could not write to stdout: {error}"))
            .hint("what the command did stands; `wal-cli list all` shows it")
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        let mut cli = CliError::new(Exit::Usage, "config", error.to_string()).caused_by(&error);
        cli.more.hints.extend(error.hint());
        if let Some(key) = error.key() {
            cli = cli.with("key", json!(key));
        }
        if let Some(origin) = error.origin() {
            cli = cli.with("origin", json!(origin.to_string()));
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
        let (exit, kind) = Exit::of(&error);
        let mut cli = CliError::new(exit, kind, error.to_string()).caused_by(&error);
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
                let line = |input: &crate::client::BadInput| format!("{}: {}", visible(&input.input), input.message);
                cli.more.details = bad.iter().take(DETAILS_MAX).map(line).collect();
                if bad.len() > DETAILS_MAX {
                    cli.more.details.push(format!("… and {} more (--json names all)", bad.len() - DETAILS_MAX));
                }
                let all: Vec<Value> = bad
                    .iter()
                    .map(|bad| json!({ "input": bad.input, "error_type": bad.error_type, "message": bad.message }))
                    .collect();
                cli.with("bad_inputs", Value::Array(all)).hint("correct or leave out those, then run it again")
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
                let all: Vec<Value> = skipped
                    .iter()
                    .map(|one| {
                        json!({ "operation_id": one.id.to_string(), "number": one.number,
                                "status": one.status.as_str(), "reason": one.why })
                    })
                    .collect();
                cli.with("skipped", Value::Array(all))
            }
            ClientError::TimedOut { unfinished } => {
                let all: Vec<Value> = unfinished
                    .iter()
                    .map(|operation| {
                        json!({ "operation_id": operation.id.to_string(), "number": operation.number,
                                "status": operation.status().as_str() })
                    })
                    .collect();
                cli.with("unfinished", Value::Array(all))
            }
            ClientError::OneKey { .. } => cli.hint("leave out `--key`, or log them one by one"),
            ClientError::Illegal(_) | ClientError::Interrupted | ClientError::BadKey { .. } => cli,
        }
    }
}

/// An error about a backend that is not there, with what was meant, perhaps.
pub fn suggested(error: CliError, suggestion: Option<&BackendName>) -> CliError {
    let error = match suggestion {
        Some(name) => error.hint(format!("did you mean `{name}`?")).with("suggestion", json!(name.as_str())),
        None => error,
    };
    error.hint("`wal-cli config show` lists the backends")
}

fn refused(cli: CliError, refusal: &Refusal) -> CliError {
    match refusal {
        Refusal::Unknown { suggestion, .. } => suggested(cli, suggestion.as_ref()),
        Refusal::NotBuilt { .. } => cli.hint("pass `--backend local`, or `wal-cli config set default_backend local`"),
        Refusal::Unsupported { supported, .. } => {
            let list = supported.join(", ");
            cli.hint(format!("it carries out {list}")).with("supported", json!(supported))
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
        WalError::Damaged(damage) => {
            cli = cli.with("path", json!(damage.path.display().to_string())).with("offset", json!(damage.offset));
            cli.hint("nothing was changed; `status`, `list` and `show` still show what can be read")
                .hint("restore that file from a backup; keep a copy of the folder as it is")
        }
        WalError::NewerFormat { .. } => cli.hint("use the version that wrote it; nothing was changed"),
        WalError::NotOurs { .. } => cli.hint("name another folder with `--base-path`; nothing was changed"),
        WalError::NotLogged(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                cli.hint("make room on that disk, then run it again")
            }
            io::ErrorKind::PermissionDenied => cli.hint("run it as the owner of the log, or pass `--base-path`"),
            _ => cli.hint("see what is wrong with that disk, then run it again"),
        },
        WalError::NoSpace { free, wanted, .. } => cli
            .with("free_bytes", json!(free))
            .with("min_free_bytes", json!(wanted))
            .hint("make room: `wal-cli cleanup` drops old completed operations")
            .hint("or lower it: `wal-cli config set min_free_bytes 1MiB`"),
        WalError::Unconfirmed { ids, .. } => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let hint = "look before logging it again: `wal-cli list all` shows whether it is there";
            cli.more.details = ids.iter().take(DETAILS_MAX).cloned().collect();
            cli.with("ids", json!(ids)).hint(hint)
        }
        WalError::KeyTaken { number, .. } => cli
            .with("number", json!(number))
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
        WalError::Disk(_) => cli,
    }
}
