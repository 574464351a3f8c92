//! `config`: shows, changes and checks the settings.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Exit;
use super::args::Global;
use super::context::{Context, Flags, warn};
use super::error::CliError;
use super::terminal::Terminal;
use crate::config::{self, ConfigError, Entry, Places, Sources, Warning};
use crate::disk::{Disk, OsDisk};
use crate::report::{
    Cell, Color, ConfigCheck, ConfigGet, ConfigPath, ConfigSet, ConfigShow, Document, ErrorType,
    SettingDoc, Table, WarningDoc,
};

/// Where the settings file is, or would be.
fn file_of(global: &Global) -> Result<PathBuf, CliError> {
    match &global.config {
        Some(path) => Ok(path.clone()),
        None => Places::of_user().file().ok_or_else(|| {
            CliError::new(ErrorType::Config, "this user has no home directory to keep settings in")
                .hint("name a file with `--config`")
        }),
    }
}

/// `config path`
pub fn path(terminal: &mut Terminal, global: &Global) -> Result<Exit, CliError> {
    let path = file_of(global)?;
    if terminal.json {
        let exists = (&OsDisk::new() as &dyn Disk).exists(&path).unwrap_or(false);
        terminal
            .document(&Document::done(ConfigPath { path: path.display().to_string(), exists }))?;
    } else {
        terminal.text(&format!("{}\n", path.display()))?;
    }
    Ok(Exit::Done)
}

/// `config show`
pub fn show(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let entries = config::entries(&context.loaded);
    let terminal = &mut *context.terminal;
    if terminal.json {
        let file = context.loaded.file.as_ref().map(|path| path.display().to_string());
        let settings = entries.into_iter().map(|Entry { key, value, origin, about }| {
            (key, SettingDoc { about, origin: origin.to_string(), value })
        });
        terminal.document(&Document::done(ConfigShow { settings: settings.collect(), file }))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(terminal.style);
    table.row(["SETTING", "VALUE", "SET IN"].map(|name| Cell::painted(name, Color::Bold)).into());
    for entry in &entries {
        let set = entry.origin != config::Origin::Default;
        let paint = if set { Color::Plain } else { Color::Faint };
        table.row(vec![
            Cell::plain(&entry.key),
            Cell::plain(shown(entry)),
            Cell::elastic(entry.origin.to_string()).paint(paint),
        ]);
    }
    terminal.text(&table.render())?;
    Ok(Exit::Done)
}

fn shown(entry: &Entry) -> String {
    match &entry.value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

/// `config get`
pub fn get(context: &mut Context<'_>, key: &str) -> Result<Exit, CliError> {
    let entry = config::get(&context.loaded, key)?;
    let terminal = &mut *context.terminal;
    if terminal.json {
        let Entry { key, value, origin, .. } = entry;
        terminal.document(&Document::done(ConfigGet { key, value, origin: origin.to_string() }))?;
    } else if entry.value.is_null() {
        terminal.note(&format!("`{key}` is not set"));
    } else {
        terminal.text(&format!("{}\n", shown(&entry)))?;
    }
    Ok(Exit::Done)
}

/// `config set`
pub fn set(
    terminal: &mut Terminal,
    global: &Global,
    key: &str,
    value: &str,
) -> Result<Exit, CliError> {
    let named = file_of(global)?;
    // A settings file that is a link is changed where it lies.
    let path = std::fs::canonicalize(&named).unwrap_or(named);
    let disk = OsDisk::new();
    let disk: &dyn Disk = &disk;
    let text = match disk.read(&path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map_err(|_| ConfigError::NotAFile { path: path.clone(), what: "not UTF-8" })?,
        Err(error) if error.is_not_found() => String::new(),
        Err(error) => return Err(ConfigError::from(error).into()),
    };
    // Who types a path means it from where they stand; in the file it would start from the file's folder.
    let absolute =
        std::path::absolute(value).ok().and_then(|path| path.into_os_string().into_string().ok());
    let is_relative = config::is_path(key) && !value.starts_with(['/', '~']);
    let value = absolute.as_deref().filter(|_| is_relative).unwrap_or(value);
    let changed = config::set(&text, &path, key, value)?;
    write(disk, &path, &changed).map_err(ConfigError::from)?;
    let shown = config::mask(key, value);
    let value = shown.as_str();
    if terminal.json {
        terminal.document(&Document::done(ConfigSet {
            key,
            value,
            path: path.display().to_string(),
        }))?;
    } else {
        terminal.note(&format!("`{key}` is now {value} in `{}`", path.display()));
    }
    Ok(Exit::Done)
}

/// Replaces the file as a whole, so that no reader sees half of it.
fn write(disk: &dyn Disk, path: &Path, text: &str) -> Result<(), crate::disk::DiskError> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.create_dir_all_synced(folder)?;
    let staged = folder.join(format!(".wal.toml.{}", disk.identity().pid));
    match disk.remove_file(&staged) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    disk.write_new_synced(&staged, text.as_bytes())?;
    disk.rename(&staged, path)?;
    disk.sync_dir(folder)
}

/// `config check`
pub fn check(terminal: &mut Terminal, global: &Global) -> Result<Exit, CliError> {
    let flags = Flags::of(global)?;
    let disk = OsDisk::new();
    let sources = Sources {
        disk: &disk,
        places: &Places::of_user(),
        file: global.config.as_deref(),
        environment: std::env::vars_os(),
        flags: &flags.pairs(),
    };
    let (file, warnings, errors) = match config::check(sources) {
        Ok((loaded, errors)) => (loaded.file, loaded.warnings, errors),
        Err(error) => (None, Vec::new(), vec![error]),
    };
    let errors: Vec<CliError> = errors.into_iter().map(CliError::from).collect();
    if terminal.json {
        let warning = |warning: &'_ Warning| WarningDoc {
            hint: warning.hint.clone(),
            message: warning.to_string(),
            variable: warning.variable.clone(),
        };
        let result = ConfigCheck {
            file: file.map(|path| path.display().to_string()),
            errors: errors.iter().map(|error| error.shown(terminal.program)).collect(),
            warnings: warnings.iter().map(warning).collect(),
        };
        let first = errors.first().map(|error| error.shown(terminal.program));
        terminal.document(&Document::with_error(result, first))?;
    } else {
        warn(terminal, &warnings);
        for error in &errors {
            terminal.complain(error);
        }
        if errors.is_empty() {
            let read = file
                .map_or_else(|| "no settings file".into(), |path| format!("`{}`", path.display()));
            terminal.text(&format!("the settings are sound ({read})\n"))?;
        }
    }
    Ok(if errors.is_empty() { Exit::Done } else { Exit::Usage })
}
