//! `submit`: logs an operation of any type.

use std::ffi::OsString;
use std::path::Path;

use super::Exit;
use super::add;
use super::args::Submit;
use super::context::Context;
use super::error::CliError;
use super::inputs;
use super::signals::Interrupts;
use crate::backend::TYPES;
use crate::client::Batch;
use crate::config::BackendType;
use crate::operation::{Fields, OperationType};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Submit) -> Result<Exit, CliError> {
    let mut options = add::options(&args.logging)?;
    if args.recursive {
        options.parameters.insert("recursive".into(), "true".into());
    }
    let interrupts =
        if args.from_file.is_some() { Interrupts::listen()? } else { Interrupts::none() };
    let settings = context.client.settings();
    let backend = options.backend.as_ref().unwrap_or(&settings.default_backend);
    // What it stores has keys, and no CIDs.
    let by_key = settings
        .backends
        .get(backend)
        .is_some_and(|backend| backend.backend_type == BackendType::S3);
    let mut batch = context.client.batch(&options, args.logging.keep_going)?;
    match (&args.operation_type, &args.from_file) {
        (Some(operation_type), _) => {
            if args.logging.spool.is_some() && !matches!(operation_type.as_str(), "add" | "upload")
            {
                let what = format!(
                    "nothing was logged: `{operation_type}` has no file that could be copied"
                );
                return Err(CliError::usage(what).hint("`--spool` goes with `add` and `upload`"));
            }
            one(&mut batch, operation_type, &args.arg, options.parameters, by_key)?
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
    let receipts = add::commit(batch, &interrupts)?;
    if receipts.total == 0 {
        context.terminal.note("no operations were given: nothing was logged");
    }
    add::finish(context, &receipts, &args.logging, &interrupts)
}

/// The one operation that was given as arguments.
fn one(
    batch: &mut Batch<'_>,
    operation_type: &OperationType,
    words: &[OsString],
    mut parameters: Fields,
    by_key: bool,
) -> Result<(), CliError> {
    place(operation_type.as_str(), words, by_key, &mut parameters)?;
    if let ("add", [path]) = (operation_type.as_str(), words) {
        return Ok(batch.add(Path::new(path), None)?);
    }
    Ok(batch.operation(operation_type, parameters)?)
}

/// What the arguments of each type are.
fn place(
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
        let like = |known: &&&str| strsim::damerau_levenshtein(known, operation_type) <= 2;
        if let Some(meant) = TYPES.iter().filter(|_| names.is_empty()).find(like) {
            let what = format!(
                "nothing was logged: there is no operation type `{operation_type}` with arguments"
            );
            return Err(CliError::usage(what).hint(format!("did you mean `{meant}`?")));
        }
        let takes = match names {
            [] => "no arguments, only `--param KEY=VALUE`".to_owned(),
            [one] => format!("one argument, {one}"),
            several => format!("at most {} arguments, {}", several.len(), several.join(" and ")),
        };
        return Err(CliError::usage(format!(
            "nothing was logged: `{operation_type}` takes {takes}"
        ))
        .hint("`wal-cli submit --help` shows what each type takes"));
    }
    for (word, name) in words.iter().zip(names) {
        let text = word.to_str().ok_or_else(|| {
            CliError::usage(format!(
                "nothing was logged: `{}` is not UTF-8, as parameters are",
                word.display()
            ))
            .hint("rename it first")
        })?;
        if let Some((given, value)) = text.split_once('=')
            && names.iter().any(|name| name.split(" or ").any(|name| name == given))
        {
            return Err(CliError::usage(format!(
                "nothing was logged: the argument `{text}` looks like a parameter"
            ))
            .hint(format!(
                "write `{value}` alone; what is really called so goes as `--param NAME={text}`"
            )));
        }
        let (name, value) = match (operation_type, *name) {
            // A file of this machine; the drain loop may run elsewhere in its tree.
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
                .hint("leave out the argument or the `--param`"));
        }
    }
    Ok(())
}

fn absolute(text: &str) -> Result<String, CliError> {
    let absolute = std::path::absolute(Path::new(text)).ok();
    absolute.and_then(|path| path.into_os_string().into_string().ok()).ok_or_else(|| {
        CliError::usage(format!(
            "nothing was logged: `{text}` cannot be made an absolute path in UTF-8"
        ))
    })
}
