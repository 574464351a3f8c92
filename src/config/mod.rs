//! Settings: what they are called, what they may be, and where each one was set. Acts on none of them.
//!
//! Defaults lie at the bottom, then the settings file, then the environment, then flags. One table
//! (`keys`) names every key; reading, checking, showing and writing all go through it.
//!
//! The layers are merged here: what crates for layered configuration offer is the merge, which is
//! three lines, but none of them says *which* variable or line a value came from.

mod backends;
mod edit;
mod error;
mod field;
mod keys;
mod layers;
mod settings;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::disk::Disk;

pub use backends::{
    BackendKind, BackendSettings, BackendType, CustomSettings, IpfsSettings, LocalSettings,
    MockSettings, S3Settings, Secret, StorachaSettings, Timeouts, UnixFsSettings,
};
pub use edit::{is_path, set};
pub use error::{ConfigError, Warning};
pub use field::{parse_bytes, parse_seconds};
pub use keys::{is_secret, redact};
pub use layers::VARIABLE_PREFIX;
pub use settings::{Settings, SpoolMode};

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, counted from 1.
        line: usize,
    },
    /// By an environment variable of this name.
    Environment(String),
    /// By a flag of this name, `--jobs` for example.
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

/// The folders of the user that settings start from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserDirs {
    /// The home directory: what `~` stands for.
    pub home: Option<PathBuf>,
    /// The folder that holds the settings of all programs.
    pub config_dir: Option<PathBuf>,
}

impl UserDirs {
    /// The folders of the user who runs this process.
    pub fn of_user() -> UserDirs {
        match directories::BaseDirs::new() {
            Some(dirs) => UserDirs {
                home: Some(dirs.home_dir().into()),
                config_dir: Some(dirs.config_dir().into()),
            },
            None => UserDirs::default(),
        }
    }

    /// The settings file that is read unless another one is named.
    pub fn file(&self) -> Option<PathBuf> {
        self.config_dir.as_ref().map(|dir| dir.join("ipfs-kit").join("wal.toml"))
    }
}

/// What settings are made from.
#[derive(Debug)]
pub struct Sources<'a, E> {
    /// Where the file is read from.
    pub disk: &'a dyn Disk,
    /// The user's folders.
    pub user_dirs: &'a UserDirs,
    /// The settings file, if one was named; it must be there then.
    pub file: Option<&'a Path>,
    /// All environment variables; those of other programs are passed over.
    pub environment: E,
    /// Keys set by flags, with their values.
    pub flags: &'a [(&'a str, &'a str)],
}

/// Settings, and what is known of how they came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Where each key that is not at its default was set.
    pub origins: BTreeMap<String, Origin>,
    /// What was passed over, and why.
    pub warnings: Vec<Warning>,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

impl Loaded {
    /// Where a key was set.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// One key as `config show` prints it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its full name, `backends.ipfs.endpoint` for example.
    pub key: String,
    /// What it stands at, secrets masked; null where nothing is set.
    pub value: serde_json::Value,
    /// Where that was set.
    pub origin: Origin,
    /// What it means, in one line.
    pub about: &'static str,
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

/// Loads settings; the first thing that is wrong with them ends it.
pub fn load_from(
    sources: Sources<'_, impl IntoIterator<Item = (OsString, OsString)>>,
) -> Result<Loaded, ConfigError> {
    let (loaded, errors) = layers::read(sources)?;
    errors.into_iter().next().map_or(Ok(loaded), Err)
}

/// Loads settings and says everything that is wrong with them, for `config check`.
///
/// Keys that are wrong stand at their defaults in the result. A file that cannot be read or parsed
/// at all ends it.
pub fn check(
    sources: Sources<'_, impl IntoIterator<Item = (OsString, OsString)>>,
) -> Result<(Loaded, Vec<ConfigError>), ConfigError> {
    layers::read(sources)
}

/// Every key with its value and origin, in the order of the manual.
pub fn entries(loaded: &Loaded) -> Vec<Entry> {
    keys::all(loaded)
}

/// One key with its value and origin.
pub fn get(loaded: &Loaded, key: &str) -> Result<Entry, ConfigError> {
    match keys::all(loaded).into_iter().find(|entry| entry.key == key) {
        Some(entry) => Ok(entry),
        None => Err(keys::unknown(&loaded.settings.backends, key, None)),
    }
}

#[cfg(test)]
mod tests;
