//! The documents of the `config` commands.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::ErrorDoc;

/// The document of `config show`: every setting and its origin.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigShow {
    /// Settings by name.
    pub settings: BTreeMap<String, SettingDoc>,
    /// The settings file that was read; null if there is none.
    pub file: Option<String>,
}

/// A setting.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Setting")]
pub struct SettingDoc {
    /// Meaning of the setting.
    pub about: &'static str,
    /// Origin of the value: `default`, `FILE:LINE`, an environment variable or a flag.
    pub origin: String,
    /// Value, with secrets redacted; null if unset.
    pub value: Value,
}

/// The document of `config get`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigGet {
    /// Name of the setting.
    pub key: String,
    /// Value; null if unset.
    pub value: Value,
    /// Origin of the value.
    pub origin: String,
}

/// The document of `config set`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigSet<'a> {
    /// Name of the setting.
    pub key: &'a str,
    /// The new value as it was given.
    pub value: &'a str,
    /// The settings file that was changed.
    pub path: String,
}

/// The document of `config path`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigPath {
    /// Path of the settings file, which may not exist.
    pub path: String,
    /// True if the file exists.
    pub exists: bool,
}

/// The document of `config check`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigCheck<'a> {
    /// The settings file that was read; null if there is none.
    pub file: Option<String>,
    /// All errors; the first one is also under `error`.
    pub errors: Vec<ErrorDoc<'a>>,
    /// Settings without effect.
    pub warnings: Vec<WarningDoc>,
}

/// A setting without effect.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Warning")]
pub struct WarningDoc {
    /// The next step.
    pub hint: Option<String>,
    /// Description of the setting that has no effect.
    pub message: String,
    /// Name of the environment variable.
    pub variable: String,
}
