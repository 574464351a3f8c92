//! `submit`: logs an operation of any type.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use crate::backend::{Addressing, TYPES};
use crate::cli::args::{LoggingArgs, operation_type};
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::signals::Interrupts;
use crate::cli::{inputs, logged};
use crate::client::Batch;
use crate::operation::{Fields, OperationType};
use crate::suggest::closest;

const HELP: &str = r#"Types and their arguments:
  add PATH                      upload FILE NAME
  get | cat | download SRC DEST (SRC: a CID, CID/PATH, or a name)
  pin CID                       unpin CID
  rm CID|NAME [--recursive]     list [CID|NAME] [DEST]
  mkdir NAME                    copy | move NAME NAME

A name is a path in the backend's tree of files and starts with `/`. On s3 it is
a key of the configured bucket, or s3://BUCKET/KEY; a key that ends with `/` is
a folder.

Parameters, as --param KEY=VALUE or in `parameters` of a line:
  add, upload (local, ipfs)  cid_version, raw_leaves, chunk_size, max_links,
                             profile
  add (ipfs)                 pin=false, pin_name, to_files=NAME
  pin (ipfs)                 pin_name
  add, upload (s3)           content_type, storage_class, metadata.NAME,
                             if_none_match=*

With --from-file, each line is a JSON object with operation_type and, optionally,
backend, parameters (strings), priority, max_retries, after (a list), delay and
idempotency_key. Flags are the defaults for what a line omits.

Examples:
  wal-cli submit pin CID --backend local
  wal-cli submit upload photo.jpg /pictures/photo.jpg --backend local --wait
  wal-cli submit upload a.jpg s3://BUCKET/2026/ -b s3 --param content_type=image/jpeg
  wal-cli submit get CID out.jpg
  wal-cli submit --from-file lines.json   # {"operation_type":"pin","parameters":…}"#;

/// Log an operation of any type: pin, get, upload, rm, …
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Submit {
    /// Operation type
    #[arg(
        value_name = "TYPE",
        value_parser = operation_type,
        required_unless_present = "from_file"
    )]
    operation_type: Option<OperationType>,
    /// Arguments of the type; see below
    #[arg(value_hint = ValueHint::AnyPath)]
    arg: Vec<OsString>,
    /// Read operations from a file (`-`: stdin), a JSON object per line
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["operation_type", "recursive"]
    )]
    from_file: Option<PathBuf>,
    /// Include directories with everything in them
    #[arg(long, short)]
    recursive: bool,
    #[command(flatten)]
    logging: LoggingArgs,
}

impl Command for Submit {
    const NAME: &'static str = "submit";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let mut options = logged::options(&self.logging)?;
        if self.recursive {
            options.parameters.insert("recursive".into(), "true".into());
        }
        let interrupts = match self.from_file {
            Some(_) => Interrupts::install()?,
            None => Interrupts::disabled(),
        };
        let settings = context.client.settings();
        let backend = options.backend.as_ref().unwrap_or(&settings.default_backend);
        // An object store has keys and no CIDs.
        let addressing = context.client.backends.get(backend).map(|backend| backend.addressing());
        let by_key = addressing == Some(Addressing::Keys);
        let mut batch = context.client.batch(&options, self.logging.on_invalid())?;
        match (&self.operation_type, &self.from_file) {
            (Some(operation_type), _) => {
                self.check_spool(operation_type)?;
                add_one(&mut batch, operation_type, &self.arg, options.parameters, by_key)?
            }
            (None, Some(file)) => inputs::for_each_line(file, false, &interrupts.stop, |line| {
                let submitted = match line.text {
                    Ok(text) => batch.submit(&text, Some(line.number)),
                    Err(bad) => batch.reject(bad),
                };
                Ok(submitted?)
            })?,
            // One of them is required.
            (None, None) => {}
        }
        let receipts = logged::commit(batch, &interrupts)?;
        if receipts.total == 0 {
            context.output.note("nothing was logged: no operations were given");
        }
        logged::finish(context, &receipts, &self.logging, &interrupts)
    }
}

impl Submit {
    /// Fails for `--spool` with a type that sends no file.
    fn check_spool(&self, operation_type: &OperationType) -> Result<(), CliError> {
        if self.logging.spool.is_none() || matches!(operation_type.as_str(), "add" | "upload") {
            return Ok(());
        }
        Err(CliError::usage(format!(
            "nothing was logged: `{operation_type}` has no file to copy into the log"
        ))
        .hint("omit `--spool`: it applies to `add` and `upload`"))
    }
}

/// Adds the operation given as arguments.
fn add_one(
    batch: &mut Batch<'_>,
    operation_type: &OperationType,
    words: &[OsString],
    mut parameters: Fields,
    by_key: bool,
) -> Result<(), CliError> {
    add_arguments(operation_type.as_str(), words, by_key, &mut parameters)?;
    if let ("add", [path]) = (operation_type.as_str(), words) {
        return Ok(batch.add(Path::new(path), None)?);
    }
    Ok(batch.operation(operation_type, parameters)?)
}

/// Adds the arguments to the parameters, by the names that they have for the operation type.
fn add_arguments(
    operation_type: &str,
    words: &[OsString],
    by_key: bool,
    parameters: &mut Fields,
) -> Result<(), CliError> {
    let names: &[&str] = match operation_type {
        "add" => &["path"],
        "upload" => &["path", "destination"],
        "get" | "cat" | "download" => &["source", "destination"],
        "pin" | "unpin" => &["cid"],
        "rm" => &["cid or path"],
        "list" => &["cid or path", "destination"],
        "mkdir" => &["path"],
        "copy" | "move" => &["source", "destination"],
        _ => &[],
    };
    if words.len() > names.len() {
        return Err(too_many_arguments(operation_type, names));
    }
    for (word, name) in words.iter().zip(names) {
        let text = word.to_str().ok_or_else(|| {
            CliError::usage(format!(
                "nothing was logged: `{}` is not valid UTF-8, which parameters require",
                word.display()
            ))
            .hint("rename the file")
        })?;
        if let Some((given, value)) = text.split_once('=')
            && names.iter().any(|name| name.split(" or ").any(|name| name == given))
        {
            return Err(CliError::usage(format!(
                "nothing was logged: the argument `{text}` looks like a parameter"
            ))
            .hint(format!(
                "write `{value}` alone, or pass a name that contains `=` as `--param NAME={text}`"
            )));
        }
        let (name, value) = match (operation_type, *name) {
            // A path on this machine: the drain loop may run in another directory.
            ("add" | "upload", "path") | ("get" | "cat" | "download" | "list", "destination") => {
                (*name, absolute(text)?)
            }
            (_, "cid or path")
                if by_key || (text.starts_with('/') && !text.starts_with("/ipfs/")) =>
            {
                ("path", text.to_owned())
            }
            (_, "cid or path") => ("cid", text.to_owned()),
            _ => (*name, text.to_owned()),
        };
        if parameters.insert(name.to_owned(), value).is_some() {
            return Err(CliError::usage(format!("nothing was logged: `{name}` is given twice"))
                .hint("omit the argument or the `--param`"));
        }
    }
    Ok(())
}

fn too_many_arguments(operation_type: &str, names: &[&str]) -> CliError {
    let types = TYPES.iter().filter(|_| names.is_empty());
    if let Some(similar) = closest(operation_type, types) {
        let message =
            format!("nothing was logged: `{operation_type}` is not a type with arguments");
        return CliError::usage(message).hint(format!("did you mean `{similar}`?"));
    }
    let takes = match names {
        [] => "no arguments, only `--param KEY=VALUE`".to_owned(),
        [one] => format!("1 argument: {one}"),
        several => format!("at most {} arguments: {}", several.len(), several.join(" and ")),
    };
    CliError::usage(format!("nothing was logged: `{operation_type}` takes {takes}"))
        .hint("run `wal-cli submit --help` to see the arguments of each type")
}

fn absolute(text: &str) -> Result<String, CliError> {
    let absolute = std::path::absolute(Path::new(text)).ok();
    absolute.and_then(|path| path.into_os_string().into_string().ok()).ok_or_else(|| {
        CliError::usage(format!("nothing was logged: `{text}` cannot be made an absolute path"))
    })
}
