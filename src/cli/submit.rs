//! `submit`: logs an operation of any type.

use std::ffi::OsString;
use std::path::Path;

use super::Exit;
use super::add;
use super::args::Submit;
use super::context::Context;
use super::error::CliError;
use crate::client::{AddOptions, ClientError};
use crate::config::SpoolMode;
use crate::operation::{Fields, Logged};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Submit) -> Result<Exit, CliError> {
    let settings = context.client.settings();
    let backend = args.logging.backend.clone().unwrap_or_else(|| settings.default_backend.clone());
    let options = add::options(&args.logging)?;
    let mut parameters = options.parameters.clone();
    if args.recursive {
        parameters.insert("recursive".into(), "true".into());
    }
    let name = args.operation_type.as_str();
    let receipts = match (name, args.arg.as_slice()) {
        ("add", [path]) => {
            let options = AddOptions { backend: Some(backend), parameters, ..options };
            context.client.add_all(&[path.into()], &options)?
        }
        (_, words) => {
            place(name, words, &mut parameters)?;
            let retries = args.logging.max_retries.unwrap_or(settings.max_retries);
            let mut logged = Logged::new(args.operation_type.clone(), backend, parameters, retries);
            let mode = args.logging.spool.map_or(settings.spool, Into::into);
            if name == "upload" {
                describe(context, &mut logged, mode)?;
            } else if args.logging.spool.is_some() {
                return Err(CliError::usage(format!("nothing was logged: `{name}` has no file that could be copied"))
                    .hint("`--spool` goes with `add` and `upload`"));
            }
            context.client.dress(std::slice::from_mut(&mut logged), &options)?;
            vec![context.client.submit_spooled(logged, mode)?]
        }
    };
    add::finish(context, &receipts, &args.logging)
}

/// Notes what the file is now, so that a change before it is sent does not go unnoticed.
fn describe(context: &Context<'_>, logged: &mut Logged, spool: SpoolMode) -> Result<(), CliError> {
    let Some(path) = logged.parameters.get("path") else { return Ok(()) };
    let (path, source, is_directory) = context
        .client
        .describe(Path::new(path), spool)
        .map_err(|bad| ClientError::BadInputs { bad: vec![bad], total: 1 })?;
    logged.parameters.insert("path".into(), path);
    logged.source = source;
    if is_directory {
        logged.parameters.entry("recursive".into()).or_insert_with(|| "true".into());
    }
    Ok(())
}

/// What the arguments of each type are.
fn place(operation_type: &str, words: &[OsString], parameters: &mut Fields) -> Result<(), CliError> {
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
        let takes = match names {
            [] => "no arguments, only `--param KEY=VALUE`".to_owned(),
            [one] => format!("one argument, {one}"),
            several => format!("at most {} arguments, {}", several.len(), several.join(" and ")),
        };
        return Err(CliError::usage(format!("nothing was logged: `{operation_type}` takes {takes}"))
            .hint("`wal-cli submit --help` shows what each type takes"));
    }
    for (word, name) in words.iter().zip(names) {
        let text = word.to_str().ok_or_else(|| {
            CliError::usage(format!("nothing was logged: `{}` is not UTF-8, as parameters are", word.display()))
                .hint("rename it first")
        })?;
        let (name, value) = match (operation_type, *name) {
            // A file of this machine; the drain loop may run elsewhere in its tree.
            ("add" | "upload", "path") | ("get" | "cat" | "download" | "list", "destination") => {
                (*name, absolute(text)?)
            }
            (_, "cid or path") if text.starts_with('/') && !text.starts_with("/ipfs/") => ("path", text.to_owned()),
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
        CliError::usage(format!("nothing was logged: `{text}` cannot be made an absolute path in UTF-8"))
    })
}
