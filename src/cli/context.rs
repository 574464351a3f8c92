//! The context of a command: the streams, the settings, and the log.

use std::path::{Path, PathBuf};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::Global;
use super::error::{CliError, suggested};
use super::invocation::Program;
use super::output::Output;
use crate::client::{Client, ClientError, Reference};
use crate::config::{self, Loaded, VARIABLE_PREFIX, Warning};
use crate::disk::OsDisk;
use crate::operation::{BackendName, Operation};
use crate::report::ErrorType;
use crate::suggest::closest;

/// One run of the program. Nothing has been read yet.
#[derive(Debug)]
pub struct Session {
    /// The streams.
    pub output: Output,
    /// The flags of every command.
    pub global: Global,
    /// Returns the command line that the program accepts under a name.
    pub definition: fn(Program) -> clap::Command,
}

impl Session {
    /// Loads the settings. `name` identifies this run in histories and lock notes.
    pub fn open(&mut self, name: &str) -> Result<Context<'_>, CliError> {
        let Session { output, global, .. } = self;
        trace(global)?;
        let flags = SettingFlags::of(global)?;
        let loaded = config::load(
            &OsDisk::new(),
            std::env::vars_os(),
            global.config.as_deref(),
            &flags.pairs(),
        )?;
        warn(output, &loaded.warnings);
        let lock_timeout_given = global.lock_timeout.is_some();
        #[cfg(feature = "test-util")]
        if let Some((client, points)) = super::failpoints::client(&loaded.settings, name) {
            let points = Some(points);
            return Ok(Context { output, client, loaded, lock_timeout_given, points });
        }
        let client = Client::builder(loaded.settings.clone()).program(name).build();
        Ok(Context {
            output,
            client,
            loaded,
            lock_timeout_given,
            #[cfg(feature = "test-util")]
            points: None,
        })
    }
}

/// The context of a command that works on the log or on backends.
#[derive(Debug)]
pub struct Context<'t> {
    /// The streams.
    pub output: &'t mut Output,
    /// The log and its backends. Nothing has been opened yet.
    pub client: Client,
    /// The settings and where they come from.
    pub loaded: Loaded,
    /// True if `--lock-timeout` was given.
    pub lock_timeout_given: bool,
    /// Points at which a test aborts this run.
    #[cfg(feature = "test-util")]
    pub points: Option<std::sync::Arc<crate::disk::Failpoints>>,
}

impl Drop for Context<'_> {
    /// Reports a new log, whatever the verbosity: the disk of an existing one may not be mounted.
    fn drop(&mut self) {
        if self.client.has_created_log() {
            let base_path = self.client.settings().base_path.display();
            self.output.announce(&format!("created a new log in `{base_path}`"));
        }
    }
}

impl Context<'_> {
    /// Fails if neither the settings nor the log know this backend.
    pub fn check_backend(&self, name: Option<&BackendName>) -> Result<(), CliError> {
        let Some(name) = name else { return Ok(()) };
        if self.client.backends().names().any(|(known, _)| known == name) {
            return Ok(());
        }
        let logged = self.client.status()?.backends;
        if logged.contains_key(name) {
            return Ok(());
        }
        let known = self.client.backends().names().map(|(known, _)| known).chain(logged.keys());
        let suggestion = closest(name.as_str(), known.map(BackendName::as_str))
            .and_then(|known| BackendName::new(known).ok());
        let error =
            CliError::new(ErrorType::UnknownBackend, format!("there is no backend `{name}`"));
        Err(suggested(error, suggestion.as_ref()))
    }

    /// Returns the operations with these references. If one is not found and the log is damaged,
    /// the damage is the error: the operation may be in the unreadable part.
    pub fn operations(&self, references: &[Reference]) -> Result<Vec<Operation>, CliError> {
        let found: Result<_, _> =
            references.iter().map(|reference| self.client.operation(reference)).collect();
        match found {
            Err(error @ ClientError::NoSuchOperation(_)) => {
                Err(self.damage()?.unwrap_or_else(|| error.into()))
            }
            other => Ok(other?),
        }
    }

    /// Returns the error with which a reading command ends if part of the log is unreadable.
    pub fn damage(&self) -> Result<Option<CliError>, CliError> {
        let damage = self.client.damage()?;
        Ok(damage.map(|damage| crate::wal::WalError::Damaged(damage).into()))
    }
}

/// Global flags that override settings.
#[derive(Debug)]
pub struct SettingFlags {
    base_path: Option<String>,
    lock_timeout: Option<String>,
}

impl SettingFlags {
    /// Returns the flags that were given.
    pub fn of(global: &Global) -> Result<SettingFlags, CliError> {
        let base_path = global.base_path.as_deref().map(absolute).transpose()?;
        let lock_timeout = global.lock_timeout.map(|time| time.as_secs_f64().to_string());
        Ok(SettingFlags { base_path, lock_timeout })
    }

    /// Returns the flags as pairs of a setting's key and its value.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let base_path = self.base_path.as_deref().map(|path| ("base_path", path));
        let lock_timeout = self.lock_timeout.as_deref().map(|time| ("lock_timeout", time));
        base_path.into_iter().chain(lock_timeout).collect()
    }
}

/// Returns an absolute path. One that begins with `~` is expanded by the settings.
fn absolute(path: &Path) -> Result<String, CliError> {
    let error = |why: &str| CliError::usage(format!("`{}` {why}", path.display()));
    let absolute = if path.starts_with("~") {
        PathBuf::from(path)
    } else {
        std::path::absolute(path)
            .map_err(|source| error(&format!("cannot be made absolute: {source}")))?
    };
    absolute
        .into_os_string()
        .into_string()
        .map_err(|_| error("is not valid UTF-8, which settings require"))
}

/// Prints the warnings about ignored settings of the environment.
pub fn warn(output: &mut Output, warnings: &[Warning]) {
    for warning in warnings {
        output.warn(&warning.to_string(), warning.hint.as_deref());
    }
}

/// Starts tracing if requested. It costs more than logging an operation, so it is off by default.
fn trace(global: &Global) -> Result<(), CliError> {
    let variable = format!("{VARIABLE_PREFIX}LOG");
    let filters = std::env::var(&variable).ok().filter(|text| !text.is_empty());
    if !global.debug && filters.is_none() {
        return Ok(());
    }
    let filters = filters.unwrap_or_else(|| "wal_cli=debug".into());
    let filter = tracing_subscriber::EnvFilter::try_new(&filters).map_err(|error| {
        CliError::usage(format!("invalid filter `{filters}` in {variable}: {error}"))
            .hint("try `wal_cli=debug`")
    })?;
    // Traces of other crates may contain keys and tokens, so no filter can enable them.
    let ours = filter_fn(|event| event.target().starts_with("wal_cli"));
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter.and(ours));
    // A subscriber that this process has already installed is kept.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}
