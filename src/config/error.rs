use std::fmt;
use std::path::PathBuf;

use super::Origin;
use crate::disk::DiskError;

/// What is wrong with the settings, with which key, and where that was set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No key has this name.
    #[error("there is no key `{key}`{}", set_in(.origin.as_ref()))]
    UnknownKey {
        /// The name.
        key: String,
        /// Where it was set; none if it was only asked for.
        origin: Option<Origin>,
        /// What was meant, perhaps.
        hint: Option<String>,
    },
    /// A key stands at something that it cannot be.
    #[error("`{key}` is {value}{}; it takes {expected}", set_in(Some(.origin)))]
    Value {
        /// The key.
        key: String,
        /// What it stands at, as written.
        value: Box<str>,
        /// What it may be.
        expected: Box<str>,
        /// Where it was set.
        origin: Origin,
        /// What was meant, perhaps.
        hint: Option<String>,
    },
    /// The key exists, but not for backends of this type.
    #[error("`{key}` is no key of a backend of type `{backend_type}`{}", set_in(Some(.origin)))]
    NotOfType {
        /// The key.
        key: String,
        /// The backend's type.
        backend_type: super::BackendType,
        /// Where it was set.
        origin: Origin,
        /// The keys that this type has.
        hint: Option<String>,
    },
    /// A backend was named that has no type.
    #[error("the backend `{backend}` has no type{}", set_in(Some(.origin)))]
    NoType {
        /// The backend.
        backend: String,
        /// Where one of its keys was set.
        origin: Origin,
        /// How to give it one.
        hint: Option<String>,
    },
    /// The file is no TOML.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was named as the settings file is none.
    #[error("`{}` is no settings file: it is {what}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Nobody knows where the log is.
    #[error("`base_path` is not set, and this user has no home directory to put the log in")]
    NoHome,
}

fn set_in(origin: Option<&Origin>) -> String {
    origin.map(|origin| format!(" ({origin})")).unwrap_or_default()
}

impl ConfigError {
    /// The key it is about, if it is about one.
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

    /// Where the wrong value was set, if one was.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            ConfigError::UnknownKey { origin, .. } => origin.as_ref(),
            ConfigError::Value { origin, .. }
            | ConfigError::NotOfType { origin, .. }
            | ConfigError::NoType { origin, .. } => Some(origin),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::UnknownKey { hint, .. }
            | ConfigError::Value { hint, .. }
            | ConfigError::NotOfType { hint, .. }
            | ConfigError::NoType { hint, .. } => hint.clone(),
            ConfigError::Disk(error) if error.is_not_found() => {
                Some("`wal-cli config set KEY VALUE` makes the file; without --config the usual one is read".into())
            }
            ConfigError::Syntax { path, .. } => Some(format!("correct `{}` in an editor", path.display())),
            ConfigError::NotAFile { .. } => Some("name a regular file; a pipe cannot be read twice".into()),
            ConfigError::NoHome => Some("set IPFS_KIT_WAL_PATH or pass --base-path".into()),
            ConfigError::Disk(_) => None,
        }
    }
}

/// Something that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The environment variable.
    pub variable: String,
    /// Why it has no effect.
    pub message: String,
    /// What was meant, perhaps.
    pub hint: Option<String>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no effect: {}", self.variable, self.message)
    }
}
