//! What the arguments mean once settings and environment are known.

use std::path::{Path, PathBuf};

use super::args::Global;
use super::error::{CliError, suggested};
use super::terminal::Terminal;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::client::{Client, ClientError, Reference};
use crate::config::{self, Loaded, VARIABLE_PREFIX, Warning};
use crate::disk::OsDisk;
use crate::operation::{BackendName, Operation};
use crate::report::ErrorType;

/// A command's surroundings.
#[derive(Debug)]
pub struct Context<'t> {
    /// The streams.
    pub terminal: &'t mut Terminal,
    /// The log and its backends. Nothing has been opened yet.
    pub client: Client,
    /// The settings and where they come from.
    pub loaded: Loaded,
    /// Whether `--lock-timeout` was given.
    pub lock_timeout_given: bool,
    /// Where this run is to end, for tests.
    #[cfg(feature = "test-util")]
    pub points: Option<std::sync::Arc<crate::disk::Failpoints>>,
}

impl<'t> Context<'t> {
    /// Loads the settings; `command` is what histories and notes of locks call this run.
    pub fn load(
        terminal: &'t mut Terminal,
        global: &Global,
        command: &str,
    ) -> Result<Context<'t>, CliError> {
        trace(global)?;
        let flags = Flags::of(global)?;
        let loaded = config::load(
            &OsDisk::new(),
            std::env::vars_os(),
            global.config.as_deref(),
            &flags.pairs(),
        )?;
        warn(terminal, &loaded.warnings);
        let lock_timeout_given = global.lock_timeout.is_some();
        #[cfg(feature = "test-util")]
        if let Some((client, points)) = super::failpoints::client(&loaded.settings, command) {
            return Ok(Context {
                terminal,
                client,
                loaded,
                lock_timeout_given,
                points: Some(points),
            });
        }
        let client = Client::open(loaded.settings.clone(), command);
        Ok(Context {
            terminal,
            client,
            loaded,
            lock_timeout_given,
            #[cfg(feature = "test-util")]
            points: None,
        })
    }

    /// Refuses a backend of which neither the settings nor the log know anything.
    pub fn check_backend(&self, name: Option<&BackendName>) -> Result<(), CliError> {
        let Some(name) = name else { return Ok(()) };
        if self.client.backends().names().any(|(known, _)| known == name) {
            return Ok(());
        }
        let logged = self.client.stats()?.backends;
        if logged.contains_key(name) {
            return Ok(());
        }
        let suggestion = self
            .client
            .backends()
            .names()
            .map(|(known, _)| known)
            .chain(logged.keys())
            .map(|known| {
                (strsim::damerau_levenshtein(known.as_str(), name.as_str()), known.clone())
            })
            .filter(|(distance, known)| *distance <= 2 && *distance < known.as_str().len())
            .min()
            .map(|(_, known)| known);
        let error =
            CliError::new(ErrorType::UnknownBackend, format!("there is no backend `{name}`"));
        Err(suggested(error, suggestion.as_ref()))
    }

    /// The operations with these references. One that is missing from a damaged log may be in what cannot be read.
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

    /// What of the log cannot be read, as the error that a reading command ends with.
    pub fn damage(&self) -> Result<Option<CliError>, CliError> {
        let damage = self.client.damage()?;
        Ok(damage.map(|damage| crate::wal::WalError::Damaged(damage).into()))
    }
}

/// Global flags that are settings too.
#[derive(Debug)]
pub struct Flags {
    base_path: Option<String>,
    lock_timeout: Option<String>,
}

impl Flags {
    /// Those that were given.
    pub fn of(global: &Global) -> Result<Flags, CliError> {
        let base_path = global.base_path.as_deref().map(absolute).transpose()?;
        let lock_timeout = global.lock_timeout.map(|time| time.as_secs_f64().to_string());
        Ok(Flags { base_path, lock_timeout })
    }

    /// As keys of settings, with values.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let base_path = self.base_path.as_deref().map(|path| ("base_path", path));
        let lock_timeout = self.lock_timeout.as_deref().map(|time| ("lock_timeout", time));
        base_path.into_iter().chain(lock_timeout).collect()
    }
}

/// A path that stays the same wherever it is used; one that begins with `~` is left to the settings.
fn absolute(path: &Path) -> Result<String, CliError> {
    let refuse = |why: &str| CliError::usage(format!("`{}` {why}", path.display()));
    let absolute = if path.starts_with("~") {
        PathBuf::from(path)
    } else {
        std::path::absolute(path)
            .map_err(|error| refuse(&format!("cannot be made absolute: {error}")))?
    };
    absolute.into_os_string().into_string().map_err(|_| refuse("is not UTF-8, as settings are"))
}

/// Says which settings of the environment were passed over.
pub fn warn(terminal: &mut Terminal, warnings: &[Warning]) {
    for warning in warnings {
        terminal.warn(&warning.to_string(), warning.hint.as_deref());
    }
}

/// Starts tracing if it is asked for; it costs more than logging an operation.
fn trace(global: &Global) -> Result<(), CliError> {
    let variable = format!("{VARIABLE_PREFIX}LOG");
    let filters = std::env::var(&variable).ok().filter(|text| !text.is_empty());
    if !global.debug && filters.is_none() {
        return Ok(());
    }
    let filters = filters.unwrap_or_else(|| "wal_cli=debug".into());
    let filter = tracing_subscriber::EnvFilter::try_new(&filters).map_err(|error| {
        CliError::usage(format!("{variable} is `{filters}`: {error}")).hint("try `wal_cli=debug`")
    })?;
    // What other crates trace may hold keys and tokens, whatever was asked for.
    let ours = filter_fn(|event| event.target().starts_with("wal_cli"));
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter.and(ours));
    // Somebody else may have started it in this process; then that one stands.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}
