use std::fmt;
use std::path::PathBuf;

use super::Origin;
use crate::disk::DiskError;

/// An error in the configuration, with its key and origin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No key has this name.
    #[error("there is no key `{key}`{}", set_in(.origin.as_ref()))]
    UnknownKey {
        /// The name.
        key: String,
        /// The place where it was set; `None` if it was only read.
        origin: Option<Origin>,
        /// The next step.
        hint: Option<String>,
    },
    /// A key has an invalid value.
    #[error("invalid value `{value}` for `{key}`{}: expected {expected}", set_in(Some(.origin)))]
    Value {
        /// The key.
        key: String,
        /// The value, as written.
        value: Box<str>,
        /// The values that the key takes.
        expected: Box<str>,
        /// The place where it was set.
        origin: Origin,
        /// The next step.
        hint: Option<String>,
    },
    /// The key exists, but not for backends of this type.
    #[error("backends of type `{backend_type}` have no key `{key}`{}", set_in(Some(.origin)))]
    NotOfType {
        /// The key.
        key: String,
        /// The backend's type.
        backend_type: super::BackendType,
        /// The place where it was set.
        origin: Origin,
        /// The keys that this type has.
        hint: Option<String>,
    },
    /// A backend has settings, but no type.
    #[error("backend `{backend}` has no type{}", set_in(Some(.origin)))]
    NoType {
        /// The backend.
        backend: String,
        /// The place where one of its keys was set.
        origin: Origin,
        /// The next step.
        hint: Option<String>,
    },
    /// The file is not valid TOML.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// The problem.
        message: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The path of the configuration file is not a regular UTF-8 file.
    #[error("`{}` is not a configuration file: it is {kind}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// The kind of file that it is instead.
        kind: &'static str,
    },
    /// The directory of the log is not set, and there is no home directory.
    #[error("`base_path` is not set, and this user has no home directory to put the log in")]
    NoHome,
}

fn set_in(origin: Option<&Origin>) -> String {
    origin.map(|origin| format!(" ({origin})")).unwrap_or_default()
}

impl ConfigError {
    /// Returns the key that the error is about, if it is about one.
    pub fn key(&self) -> Option<&str> {
        match self {
            ConfigError::UnknownKey { key, .. }
            | ConfigError::Value { key, .. }
            | ConfigError::NotOfType { key, .. }
            | ConfigError::NoType { backend: key, .. } => Some(key),
            ConfigError::NoHome => Some("base_path"),
            ConfigError::Syntax { .. } | ConfigError::Disk(_) | ConfigError::NotAFile { .. } => {
                None
            }
        }
    }

    /// Returns the place where the invalid value was set.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            ConfigError::UnknownKey { origin, .. } => origin.as_ref(),
            ConfigError::Value { origin, .. }
            | ConfigError::NotOfType { origin, .. }
            | ConfigError::NoType { origin, .. } => Some(origin),
            _ => None,
        }
    }

    /// Returns the next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::UnknownKey { hint, .. }
            | ConfigError::Value { hint, .. }
            | ConfigError::NotOfType { hint, .. }
            | ConfigError::NoType { hint, .. } => hint.clone(),
            ConfigError::Disk(error) if error.is_not_found() => {
                let hint = "run `wal-cli config set KEY VALUE` to create it, or omit `--config` to \
                            read the default file";
                Some(hint.into())
            }
            ConfigError::Syntax { path, .. } => {
                Some(format!("correct `{}` in an editor", path.display()))
            }
            ConfigError::NotAFile { .. } => {
                Some("pass a regular file: a pipe cannot be read twice".into())
            }
            ConfigError::NoHome => Some("set `IPFS_KIT_WAL_PATH`, or pass `--base-path`".into()),
            ConfigError::Disk(_) => None,
        }
    }
}

/// An environment variable that was ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The name of the variable.
    pub variable: String,
    /// The reason why it has no effect.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no effect: {}", self.variable, self.message)
    }
}
