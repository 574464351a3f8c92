//! The documents of `completions` and `schema`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// The document of `completions`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Completions<'a> {
    /// Name of the shell.
    pub shell: String,
    /// The completion script.
    pub script: &'a str,
}

/// The document of `schema`: the commands that have a schema.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Schemas {
    /// The commands that have a schema.
    pub commands: Vec<SchemaDoc>,
}

/// A command that has a schema.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SchemaOfCommand")]
pub struct SchemaDoc {
    /// The command, such as `config show`.
    #[schemars(length(min = 1))]
    pub command: &'static str,
    /// Description of the command's document.
    #[schemars(length(min = 1))]
    pub about: &'static str,
}

/// The document of `schema COMMAND`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OneSchema {
    /// The command, such as `config show`.
    #[schemars(length(min = 1))]
    pub command: &'static str,
    /// The JSON Schema.
    #[schemars(with = "std::collections::BTreeMap<String, Value>")]
    pub schema: Value,
}
