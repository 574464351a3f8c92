//! What the program tells of itself.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// `completions`
#[derive(Debug, Serialize, JsonSchema)]
pub struct Completions<'a> {
    /// The shell.
    pub shell: String,
    /// The script.
    pub script: &'a str,
}

/// `schema`
#[derive(Debug, Serialize, JsonSchema)]
pub struct Schemas {
    /// The commands that have a schema.
    pub commands: Vec<SchemaDoc>,
}

/// A command that has a schema.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SchemaOfCommand")]
pub struct SchemaDoc {
    /// The command, in its words.
    #[schemars(length(min = 1))]
    pub command: &'static str,
    /// What its document is.
    #[schemars(length(min = 1))]
    pub about: &'static str,
}

/// `schema COMMAND`
#[derive(Debug, Serialize, JsonSchema)]
pub struct OneSchema {
    /// The command, in its words.
    #[schemars(length(min = 1))]
    pub command: &'static str,
    /// The schema.
    #[schemars(with = "std::collections::BTreeMap<String, Value>")]
    pub schema: Value,
}
