//! The configuration: the names of all settings, their values, and where each one was set.
//!
//! Each layer overrides the one before: defaults, configuration file, environment, flags. One table
//! (`keys`) lists every key, and is used to read, check, show and write values.
//!
//! No crate for layered configuration is used: the merge that it would provide is three lines, and
//! none has line numbers, suggestions for misspelled keys and editing of the file.

mod backends;
#[cfg(any(test, feature = "cli"))]
mod edit;
mod error;
mod field;
mod keys;
mod layers;
mod settings;
#[cfg(any(test, feature = "cli"))]
mod show;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, OsDisk};

pub use backends::{
    BackendKind, BackendSettings, BackendType, CustomSettings, IpfsSettings, LocalSettings,
    MockSettings, S3Settings, Secret, StorachaSettings, Timeouts, UnixFsSettings,
};
#[cfg(any(test, feature = "cli"))]
pub use edit::{is_path, set};
pub use error::{ConfigError, Warning};
#[cfg(any(test, feature = "test-util"))]
pub use field::parse_bytes;
pub use field::parse_seconds;
pub use keys::redact;
pub use layers::VARIABLE_PREFIX;
pub use settings::{Settings, SpoolMode};
#[cfg(any(test, feature = "cli"))]
pub use show::{Entry, entries, get};

/// The place where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Not set: the default.
    Default,
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, counted from 1.
        line: usize,
    },
    /// An environment variable of this name.
    Environment(String),
    /// A flag of this name, such as `--jobs`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(variable) => f.write_str(variable),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// The directories of a user, for `~` in paths and for the default configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserDirs {
    /// The home directory, for `~`.
    pub home: Option<PathBuf>,
    /// The directory for the configuration of all programs.
    pub config_dir: Option<PathBuf>,
}

impl UserDirs {
    /// Returns the directories of the user who runs this process.
    pub fn of_user() -> UserDirs {
        // `HOME` may be relative.
        let absolute = |path: &Path| std::path::absolute(path).ok();
        match directories::BaseDirs::new() {
            Some(dirs) => UserDirs {
                home: absolute(dirs.home_dir()),
                config_dir: absolute(dirs.config_dir()),
            },
            None => UserDirs::default(),
        }
    }

    /// Returns the path of the default configuration file.
    pub fn file(&self) -> Option<PathBuf> {
        self.config_dir.as_ref().map(|dir| dir.join("ipfs-kit").join("wal.toml"))
    }
}

/// The sources of a configuration.
#[derive(Debug)]
pub struct Sources<'a, E> {
    /// The disk that the file is read from.
    pub disk: &'a dyn Disk,
    /// The directories of the user.
    pub user_dirs: &'a UserDirs,
    /// The configuration file, if one was named. It must exist then.
    pub file: Option<&'a Path>,
    /// All environment variables; those of other programs are ignored.
    pub environment: E,
    /// Keys set by flags, with their values.
    pub flags: &'a [(&'a str, &'a str)],
}

/// Settings, with the origin of each value.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The origin of each key that is not at its default.
    pub origins: BTreeMap<String, Origin>,
    /// The variables that were ignored.
    pub warnings: Vec<Warning>,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

impl Loaded {
    /// Returns the place where a key was set.
    #[cfg(any(test, feature = "cli"))]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Loads the settings of the user who runs this process.
pub fn load(
    disk: &dyn Disk,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    file: Option<&Path>,
    flags: &[(&str, &str)],
) -> Result<Loaded, ConfigError> {
    load_from(Sources { disk, user_dirs: &UserDirs::of_user(), file, environment, flags })
}

/// Loads settings. Fails with the first error in them.
pub fn load_from(
    sources: Sources<'_, impl IntoIterator<Item = (OsString, OsString)>>,
) -> Result<Loaded, ConfigError> {
    let (loaded, errors) = layers::read(sources)?;
    errors.into_iter().next().map_or(Ok(loaded), Err)
}

/// Loads settings and returns all errors in them, for `config check`.
///
/// Keys with errors have their defaults in the result. Fails if the file cannot be read or parsed.
#[cfg(any(test, feature = "cli"))]
pub fn check(
    sources: Sources<'_, impl IntoIterator<Item = (OsString, OsString)>>,
) -> Result<(Loaded, Vec<ConfigError>), ConfigError> {
    layers::read(sources)
}

impl Settings {
    /// Loads the settings of the current user from the file and the environment variables that
    /// `wal-cli` reads.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed, or at the first value that is invalid.
    pub fn load() -> Result<Settings, ConfigError> {
        load(&OsDisk::new(), std::env::vars_os(), None, &[]).map(|loaded| loaded.settings)
    }
}

#[cfg(test)]
mod tests;
