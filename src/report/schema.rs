//! The JSON Schemas of all commands, generated when `schema` asks for them.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::documents as doc;

/// The documents of one command.
#[derive(Debug)]
pub struct CommandSchema {
    /// The command, such as `config show`.
    pub command: &'static str,
    /// Description of the command's output.
    pub description: &'static str,
    shapes: &'static [Shape],
}

/// A shape that a command's document may have. An error alone is always possible, too.
#[derive(Debug)]
struct Shape {
    kind: ShapeKind,
    result: fn(&mut SchemaGenerator) -> Schema,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShapeKind {
    /// The result of a successful command.
    Done,
    /// A result together with an error.
    WithError,
    /// A line of a stream, before its last line.
    Line,
}

/// Declares a result that the command prints on success.
const fn done<R: JsonSchema>() -> Shape {
    Shape { kind: ShapeKind::Done, result: SchemaGenerator::subschema_for::<R> }
}

/// Declares a result that the command prints together with an error.
const fn with_error<R: JsonSchema>() -> Shape {
    Shape { kind: ShapeKind::WithError, result: SchemaGenerator::subschema_for::<R> }
}

/// Declares a document that a stream contains before its last line.
const fn line<R: JsonSchema>() -> Shape {
    Shape { kind: ShapeKind::Line, result: SchemaGenerator::subschema_for::<R> }
}

const LOGGED: &[Shape] = &[
    done::<doc::ReceiptsDoc<'_>>(),
    with_error::<doc::ReceiptsDoc<'_>>(),
    done::<doc::Operations<'_>>(),
    with_error::<doc::Operations<'_>>(),
];

const CHANGED: &[Shape] = &[done::<doc::Change<'_>>()];

const fn command(
    command: &'static str,
    description: &'static str,
    shapes: &'static [Shape],
) -> CommandSchema {
    CommandSchema { command, description, shapes }
}

/// Every command and its documents. A new document gets its row here.
pub const COMMANDS: &[CommandSchema] = &[
    command("add", "the logged operations; with --wait, their outcomes", LOGGED),
    command("submit", "the logged operations; with --wait, their outcomes", LOGGED),
    command(
        "status",
        "counts, the running drain loop, backend health and free space",
        &[done::<doc::StatusDoc<'_>>(), with_error::<doc::StatusDoc<'_>>()],
    ),
    command(
        "list",
        "operations, newest first",
        &[done::<doc::List<'_>>(), with_error::<doc::List<'_>>()],
    ),
    command(
        "show",
        "all details of operations",
        &[
            done::<doc::ShownOne<'_>>(),
            with_error::<doc::ShownOne<'_>>(),
            done::<doc::ShownMany<'_>>(),
            with_error::<doc::ShownMany<'_>>(),
        ],
    ),
    command(
        "wait",
        "the operations after waiting",
        &[done::<doc::Operations<'_>>(), with_error::<doc::Operations<'_>>()],
    ),
    command(
        "why",
        "why operations have not completed",
        &[done::<doc::Why<'_>>(), with_error::<doc::Why<'_>>()],
    ),
    command(
        "failures",
        "failures, grouped by cause and backend",
        &[done::<doc::Failures<'_>>(), with_error::<doc::Failures<'_>>()],
    ),
    command("retry", "the operations after the change", CHANGED),
    command("cancel", "the operations after the change", CHANGED),
    command("hold", "the operations after the change", CHANGED),
    command("release", "the operations after the change", CHANGED),
    command("delete", "the deleted operations", CHANGED),
    command("prioritize", "the operations after the change", CHANGED),
    command(
        "process",
        "a stream: one line per finished attempt, then a summary",
        &[
            line::<doc::Settled<'_>>(),
            done::<doc::Summary>(),
            with_error::<doc::Summary>(),
            done::<doc::Skipped<'_>>(),
            done::<doc::DryRun<'_>>(),
            with_error::<doc::DryRun<'_>>(),
        ],
    ),
    command(
        "archive push",
        "the logged pushes, or those that would be; with --wait, their outcomes",
        &[
            done::<doc::ArchivePush<'_>>(),
            done::<doc::Operations<'_>>(),
            with_error::<doc::Operations<'_>>(),
        ],
    ),
    command("archive list", "the archives and their push state", &[done::<doc::ArchiveList<'_>>()]),
    command("cleanup", "what was pruned, or would be", &[done::<doc::Cleanup<'_>>()]),
    command("checkpoint", "the result of the checkpoint", &[done::<doc::Checkpoint<'_>>()]),
    command(
        "verify",
        "the findings; with --repair, what was saved and lost; with --durability, the checks of \
         the disk; with --remote, the answers of the backends",
        &[
            done::<doc::VerifiedDoc<'_>>(),
            with_error::<doc::VerifiedDoc<'_>>(),
            done::<doc::RepairedDoc<'_>>(),
            with_error::<doc::RepairedDoc<'_>>(),
            done::<doc::DurabilityDoc<'_>>(),
            with_error::<doc::DurabilityDoc<'_>>(),
            done::<doc::AuditDoc<'_>>(),
            with_error::<doc::AuditDoc<'_>>(),
        ],
    ),
    command(
        "health",
        "the results of probing the backends",
        &[done::<doc::Health<'_>>(), with_error::<doc::Health<'_>>()],
    ),
    command("bench floor", "throughput of the disk alone", &[done::<doc::Floor>()]),
    command("bench append", "appends beside the disk", &[done::<doc::Append>()]),
    command("bench batch", "large batches beside the disk", &[done::<doc::BatchDoc>()]),
    command(
        "bench verify",
        "verification beside a plain decode of the same files",
        &[done::<doc::BenchVerifyDoc>()],
    ),
    command("config show", "all settings and their origins", &[done::<doc::ConfigShow>()]),
    command("config get", "one setting", &[done::<doc::ConfigGet>()]),
    command("config set", "the setting that was changed", &[done::<doc::ConfigSet<'_>>()]),
    command("config path", "the path of the settings file", &[done::<doc::ConfigPath>()]),
    command(
        "config check",
        "all errors in the configuration",
        &[done::<doc::ConfigCheck<'_>>(), with_error::<doc::ConfigCheck<'_>>()],
    ),
    command("completions", "a completion script", &[done::<doc::Completions<'_>>()]),
    command(
        "schema",
        "the schema of a command, or the list of schemas",
        &[done::<doc::Schemas>(), done::<doc::OneSchema>()],
    ),
    command(
        "error",
        "not a command: the document of any command that has only an error to report",
        &[],
    ),
];

impl CommandSchema {
    /// Returns the schema of the command's document; for a stream, of each line.
    pub fn schema(&self) -> Value {
        let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
        let error = generator.subschema_for::<doc::ErrorDoc<'_>>().to_value();
        let results: Vec<(ShapeKind, Value)> = self
            .shapes
            .iter()
            .map(|shape| (shape.kind, (shape.result)(&mut generator).to_value()))
            .collect();
        let mut definitions = generator.take_definitions(true);
        definitions.values_mut().for_each(absent_is_not_null);

        let mut shapes = Vec::new();
        let mut alone = json!({ "success": { "const": false }, "error": error });
        for (kind, result) in results {
            let (more, required) = match kind {
                ShapeKind::Line => {
                    shapes.push(result);
                    continue;
                }
                ShapeKind::Done => {
                    (json!({ "success": { "const": true }, "error": false }), json!(["success"]))
                }
                ShapeKind::WithError => {
                    // A document with one of these fields is not an error alone: its result must be
                    // valid.
                    for name in fields(&definitions, &result) {
                        alone[name] = json!(false);
                    }
                    (
                        json!({ "success": { "const": false }, "error": error }),
                        json!(["success", "error"]),
                    )
                }
            };
            let mut shape = result;
            shape["properties"] = more;
            shape["required"] = required;
            shapes.push(shape);
        }
        shapes.push(json!({ "properties": alone, "required": ["success", "error"] }));
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": format!("wal-cli {} --json", self.command),
            "description": self.description,
            "type": "object",
            "anyOf": shapes,
            "$defs": definitions,
        })
    }

    /// Returns the name of the schema's file in `docs/schema`.
    #[cfg(any(test, feature = "test-util"))]
    pub fn file_name(&self) -> String {
        format!("{}.json", self.command.replace(' ', "-"))
    }
}

/// Removes null from the types of optional fields: they are absent instead of null.
fn absent_is_not_null(definition: &mut Value) {
    let required: Vec<Value> = definition["required"].as_array().cloned().unwrap_or_default();
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (_, property) in properties.iter_mut().filter(|(name, _)| !required.contains(&json!(name)))
    {
        if let Some([kind, null]) = property["type"].as_array().map(Vec::as_slice)
            && null == "null"
        {
            property["type"] = kind.clone();
        }
        if let Some([kind, _]) = property["anyOf"].as_array().map(Vec::as_slice) {
            let reference = kind["$ref"].clone();
            property["$ref"] = reference;
            property.as_object_mut().map(|property| property.remove("anyOf"));
        }
    }
}

/// Returns the names of a result's fields.
fn fields<'a>(
    definitions: &'a Map<String, Value>,
    result: &Value,
) -> impl Iterator<Item = &'a str> {
    let name = result["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let properties = definitions.get(name).and_then(|schema| schema["properties"].as_object());
    properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str))
}
