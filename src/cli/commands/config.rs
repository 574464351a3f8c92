//! `config`: shows, changes and checks the settings.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::args::Global;
use crate::cli::command::Command;
use crate::cli::context::{Context, Session, SettingFlags, warn};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::config::{self, ConfigError, Entry, Sources, UserDirs, Warning};
use crate::disk::{Disk, OsDisk};
use crate::report::{
    Cell, Color, ConfigCheck, ConfigGet, ConfigPath, ConfigSet, ConfigShow, ErrorType, SettingDoc,
    Table, WarningDoc,
};

const EXAMPLES: &str = "\
Examples:
  wal-cli config show
  wal-cli config set default_backend s3
  wal-cli config set backends.s3.bucket my-bucket
  wal-cli config check";

/// Show, change and check the settings
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting, and where it was set
    Show,
    /// Print one setting
    Get {
        /// Name of the setting, such as `jobs` or `backends.ipfs.endpoint`
        key: String,
    },
    /// Change one setting in the configuration file
    Set {
        /// Name of the setting, such as `jobs` or `backends.ipfs.endpoint`
        key: String,
        /// New value
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Print the path of the configuration file
    Path,
    /// Report everything that is wrong with the settings
    Check,
}

impl Command for Config {
    const NAME: &'static str = "config";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        match self.command {
            ConfigCommand::Show => show(&mut session.open(Self::NAME)?),
            ConfigCommand::Get { key } => get(&mut session.open(Self::NAME)?, &key),
            // These work while the settings are invalid.
            ConfigCommand::Set { key, value } => {
                set(&mut session.output, &session.global, &key, &value)
            }
            ConfigCommand::Path => path(&mut session.output, &session.global),
            ConfigCommand::Check => check(&mut session.output, &session.global),
        }
    }
}

/// Returns the path of the configuration file, whether it exists or not.
fn file_of(global: &Global) -> Result<PathBuf, CliError> {
    match &global.config {
        Some(path) => Ok(path.clone()),
        None => UserDirs::of_user().file().ok_or_else(|| {
            CliError::new(
                ErrorType::Config,
                "cannot find the configuration file: this user has no home directory",
            )
            .hint("name a file with `--config`")
        }),
    }
}

fn path(output: &mut Output, global: &Global) -> Result<Exit, CliError> {
    let path = file_of(global)?;
    output.outcome(
        || ConfigPath {
            path: path.display().to_string(),
            exists: (&OsDisk::new() as &dyn Disk).exists(&path).unwrap_or(false),
        },
        None,
        |output| output.text(&format!("{}\n", path.display())),
    )
}

fn show(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let entries = config::entries(&context.loaded);
    let file = context.loaded.file.as_ref().map(|path| path.display().to_string());
    let mut table = Table::new(context.output.style);
    table.row(["SETTING", "VALUE", "SET IN"].map(|name| Cell::painted(name, Color::Bold)).into());
    for entry in &entries {
        let set = entry.origin != config::Origin::Default;
        let paint = if set { Color::Plain } else { Color::Faint };
        table.row(vec![
            Cell::plain(&entry.key),
            Cell::plain(shown(entry)),
            Cell::elastic(entry.origin.to_string()).color(paint),
        ]);
    }
    let settings = entries.into_iter().map(|Entry { key, value, origin, about }| {
        (key, SettingDoc { about, origin: origin.to_string(), value })
    });
    context.output.outcome(
        || ConfigShow { settings: settings.collect(), file },
        None,
        |output| output.text(&table.render()),
    )
}

fn shown(entry: &Entry) -> String {
    match &entry.value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn get(context: &mut Context<'_>, key: &str) -> Result<Exit, CliError> {
    let entry = config::get(&context.loaded, key)?;
    let text = (!entry.value.is_null()).then(|| shown(&entry));
    let Entry { key: name, value, origin, .. } = entry;
    context.output.outcome(
        || ConfigGet { key: name, value, origin: origin.to_string() },
        None,
        |output| match text {
            Some(text) => output.text(&format!("{text}\n")),
            None => {
                output.note(&format!("`{key}` is not set"));
                Ok(())
            }
        },
    )
}

fn set(output: &mut Output, global: &Global, key: &str, value: &str) -> Result<Exit, CliError> {
    let named = file_of(global)?;
    // A file that is a symbolic link is replaced where it is, and the link stays.
    let path = std::fs::canonicalize(&named).unwrap_or(named);
    let disk = OsDisk::new();
    let disk: &dyn Disk = &disk;
    let text = match disk.read(&path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map_err(|_| ConfigError::NotAFile { path: path.clone(), kind: "not UTF-8" })?,
        Err(error) if error.is_not_found() => String::new(),
        Err(error) => return Err(ConfigError::from(error).into()),
    };
    // On the command line a path is relative to the current directory, in the file to the file's.
    let absolute =
        std::path::absolute(value).ok().and_then(|path| path.into_os_string().into_string().ok());
    let is_relative = config::is_path(key) && !value.starts_with(['/', '~']);
    let value = absolute.as_deref().filter(|_| is_relative).unwrap_or(value);
    let changed = config::set(&text, &path, key, value)?;
    write(disk, &path, &changed).map_err(ConfigError::from)?;
    let shown = config::redact(key, value);
    output.outcome(
        || ConfigSet { key, value: &shown, path: path.display().to_string() },
        None,
        |output| {
            output.note(&format!("`{key}` is now {shown} in `{}`", path.display()));
            Ok(())
        },
    )
}

/// Replaces the file as a whole, so that readers see either all of the old text or all of the new.
fn write(disk: &dyn Disk, path: &Path, text: &str) -> Result<(), crate::disk::DiskError> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.create_dir_all_synced(folder)?;
    let staged = folder.join(format!(".wal.toml.{}", disk.identity().pid));
    disk.remove_if_present(&staged)?;
    disk.write_new_synced(&staged, text.as_bytes())?;
    disk.rename(&staged, path)?;
    disk.sync_dir(folder)
}

fn check(output: &mut Output, global: &Global) -> Result<Exit, CliError> {
    let flags = SettingFlags::of(global)?;
    let disk = OsDisk::new();
    let sources = Sources {
        disk: &disk,
        user_dirs: &UserDirs::of_user(),
        file: global.config.as_deref(),
        environment: std::env::vars_os(),
        flags: &flags.pairs(),
    };
    let (file, warnings, errors) = match config::check(sources) {
        Ok((loaded, errors)) => (loaded.file, loaded.warnings, errors),
        Err(error) => (None, Vec::new(), vec![error]),
    };
    let errors: Vec<CliError> = errors.iter().map(CliError::of_config).collect();
    let invocation = output.invocation.clone();
    let warning = |warning: &Warning| WarningDoc {
        hint: warning.hint.as_deref().map(|hint| invocation.pasteable(hint).into_owned()),
        message: warning.to_string(),
        variable: warning.variable.clone(),
    };
    output.outcome(
        || ConfigCheck {
            file: file.as_ref().map(|path| path.display().to_string()),
            errors: errors.iter().map(|error| error.document(&invocation)).collect(),
            warnings: warnings.iter().map(warning).collect(),
        },
        &errors,
        |output| {
            warn(output, &warnings);
            if !errors.is_empty() {
                return Ok(());
            }
            let file = file
                .as_ref()
                .map_or_else(|| "no file".into(), |path| format!("`{}`", path.display()));
            output.text(&format!("the configuration is valid ({file})\n"))
        },
    )
}
