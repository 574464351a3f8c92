//! The JSON Schema of every command's documents. Nothing of this runs unless somebody asks for a schema.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::documents as doc;

/// The documents of one command.
#[derive(Debug)]
pub struct CommandSchema {
    /// The command, in its words.
    pub command: &'static str,
    /// What it prints.
    pub about: &'static str,
    shapes: &'static [Shape],
}

/// One shape that a document of a command may have. An error alone is always one of them.
#[derive(Debug)]
struct Shape {
    kind: ShapeKind,
    result: fn(&mut SchemaGenerator) -> Schema,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShapeKind {
    /// The result of a command that succeeded.
    Done,
    /// A result, and what went wrong.
    WithError,
    /// A line of a stream, before the last one.
    Line,
}

/// The command may print this result.
const fn done<R: JsonSchema>() -> Shape {
    Shape { kind: ShapeKind::Done, result: SchemaGenerator::subschema_for::<R> }
}

/// The command may print this result together with an error.
const fn with_error<R: JsonSchema>() -> Shape {
    Shape { kind: ShapeKind::WithError, result: SchemaGenerator::subschema_for::<R> }
}

/// The command may print this before its last line.
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
    about: &'static str,
    shapes: &'static [Shape],
) -> CommandSchema {
    CommandSchema { command, about, shapes }
}

/// Every command, and what it may print. A new document gets its row here.
pub const COMMANDS: &[CommandSchema] = &[
    command("add", "what was logged; with --wait, what came of it", LOGGED),
    command("submit", "what was logged; with --wait, what came of it", LOGGED),
    command(
        "status",
        "counts, what runs, health and room on the disk",
        &[done::<doc::StatusDoc<'_>>(), with_error::<doc::StatusDoc<'_>>()],
    ),
    command(
        "list",
        "operations, the newest first",
        &[done::<doc::List<'_>>(), with_error::<doc::List<'_>>()],
    ),
    command(
        "show",
        "everything about operations",
        &[
            done::<doc::ShownOne<'_>>(),
            with_error::<doc::ShownOne<'_>>(),
            done::<doc::ShownMany<'_>>(),
            with_error::<doc::ShownMany<'_>>(),
        ],
    ),
    command(
        "wait",
        "what the operations have come to",
        &[done::<doc::Operations<'_>>(), with_error::<doc::Operations<'_>>()],
    ),
    command(
        "why",
        "why operations stand where they do",
        &[done::<doc::Why<'_>>(), with_error::<doc::Why<'_>>()],
    ),
    command(
        "failures",
        "what went wrong, by cause and backend",
        &[done::<doc::Failures<'_>>(), with_error::<doc::Failures<'_>>()],
    ),
    command("retry", "the operations as they stand now", CHANGED),
    command("cancel", "the operations as they stand now", CHANGED),
    command("hold", "the operations as they stand now", CHANGED),
    command("release", "the operations as they stand now", CHANGED),
    command("delete", "the operations as they were", CHANGED),
    command("prioritize", "the operations as they stand now", CHANGED),
    command(
        "process",
        "a stream: a line for each attempt that ended, then a summary",
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
        "what was logged, or would be; with --wait, what came of it",
        &[
            done::<doc::ArchivePush<'_>>(),
            done::<doc::Operations<'_>>(),
            with_error::<doc::Operations<'_>>(),
        ],
    ),
    command(
        "archive list",
        "the archives, and whether they are pushed",
        &[done::<doc::ArchiveList<'_>>()],
    ),
    command("cleanup", "what was dropped, or would be", &[done::<doc::Cleanup<'_>>()]),
    command("checkpoint", "what was folded", &[done::<doc::Checkpoint<'_>>()]),
    command(
        "verify",
        "what a look at every byte found; what a repair saved and lost; what a disk is like; what backends still have",
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
        "what the probes of the backends said",
        &[done::<doc::Health<'_>>(), with_error::<doc::Health<'_>>()],
    ),
    command("bench floor", "what the disk can do", &[done::<doc::Floor>()]),
    command("bench append", "the log beside the disk", &[done::<doc::Append>()]),
    command("bench batch", "large batches beside the disk", &[done::<doc::BatchDoc>()]),
    command(
        "bench verify",
        "checking a log beside a plain decode of its files",
        &[done::<doc::BenchVerifyDoc>()],
    ),
    command("config show", "every setting, and where it was set", &[done::<doc::ConfigShow>()]),
    command("config get", "one setting", &[done::<doc::ConfigGet>()]),
    command("config set", "the setting that was changed", &[done::<doc::ConfigSet<'_>>()]),
    command("config path", "where the settings file is", &[done::<doc::ConfigPath>()]),
    command(
        "config check",
        "everything that is wrong with the settings",
        &[done::<doc::ConfigCheck<'_>>(), with_error::<doc::ConfigCheck<'_>>()],
    ),
    command("completions", "a script for a shell", &[done::<doc::Completions<'_>>()]),
    command(
        "schema",
        "the schema of a command, or which there are",
        &[done::<doc::Schemas>(), done::<doc::OneSchema>()],
    ),
    command("error", "no command: what any of them prints if there is nothing but an error", &[]),
];

impl CommandSchema {
    /// The schema of its documents; of a stream, of each line.
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
                    // What has such a field is no error alone: it has to be right as a whole.
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
            "description": self.about,
            "type": "object",
            "anyOf": shapes,
            "$defs": definitions,
        })
    }

    /// The name of the file that holds the schema.
    pub fn file_name(&self) -> String {
        format!("{}.json", self.command.replace(' ', "-"))
    }
}

/// A field that may be absent is not null instead: an `Option` in Rust says both.
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

/// The names of the fields of a result.
fn fields<'a>(
    definitions: &'a Map<String, Value>,
    result: &Value,
) -> impl Iterator<Item = &'a str> {
    let name = result["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let properties = definitions.get(name).and_then(|schema| schema["properties"].as_object());
    properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str))
}
