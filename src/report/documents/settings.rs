//! What the commands of `config` print.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::ErrorDoc;

/// `config show`
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigShow {
    /// By name.
    pub settings: BTreeMap<String, SettingDoc>,
    /// The settings file that was read; null: there is none.
    pub file: Option<String>,
}

/// A setting.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Setting")]
pub struct SettingDoc {
    /// What it means.
    pub about: &'static str,
    /// Where it was set: `default`, `FILE:LINE`, a variable or a flag.
    pub origin: String,
    /// What it stands at, secrets masked; null where nothing is set.
    pub value: Value,
}

/// `config get`
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigGet {
    /// Its name.
    pub key: String,
    /// What it stands at; null where nothing is set.
    pub value: Value,
    /// Where it was set.
    pub origin: String,
}

/// `config set`
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigSet<'a> {
    /// The name of the setting.
    pub key: &'a str,
    /// What was given.
    pub value: &'a str,
    /// The settings file that was changed.
    pub path: String,
}

/// `config path`
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigPath {
    /// Where the settings file is, or would be.
    pub path: String,
    /// Whether it is there.
    pub exists: bool,
}

/// `config check`
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfigCheck<'a> {
    /// The settings file that was read; null: none.
    pub file: Option<String>,
    /// Everything that is wrong; the first of it stands under `error` too.
    pub errors: Vec<ErrorDoc<'a>>,
    /// What has no effect.
    pub warnings: Vec<WarningDoc>,
}

/// Something that has no effect.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Warning")]
pub struct WarningDoc {
    /// What to do.
    pub hint: Option<String>,
    /// What has no effect.
    pub message: String,
    /// The variable of the environment.
    pub variable: String,
}
