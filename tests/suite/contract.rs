//! The contract of `--json`: documents match their schemas, and schemas reject mutated documents.
#![expect(clippy::disallowed_methods, reason = "reads the pages and schemas of the repository")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use fastrand::Rng;
use jsonschema::Validator;
use serde_json::{Value, json};
use wal_cli::report::{COMMANDS, CommandSchema};

use super::binary::Place;
use super::mutations::{Mutation, mutations};
use super::outcomes;

/// The least number of mutated documents that each schema must reject.
const MUTATED: usize = 100;

/// The seed of random mutations.
const SEED: u64 = 20_260_731;

fn validators() -> &'static BTreeMap<&'static str, Validator> {
    static VALIDATORS: OnceLock<BTreeMap<&'static str, Validator>> = OnceLock::new();
    VALIDATORS.get_or_init(|| {
        let validator = |command: &CommandSchema| {
            let schema = command.schema();
            jsonschema::meta::validate(&schema)
                .unwrap_or_else(|error| panic!("`{}`: {error}", command.command));
            jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap()
        };
        COMMANDS.iter().map(|command| (command.command, validator(command))).collect()
    })
}

/// Returns the command in these arguments, as its schema is named; `error` without one.
fn command_of(arguments: &str) -> &'static str {
    let mut words = arguments.split_whitespace().filter(|word| !word.starts_with('-'));
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let both = format!("{first} {second}");
    let known =
        |name: &str| COMMANDS.iter().map(|known| known.command).find(|known| *known == name);
    known(&both).or_else(|| known(first)).unwrap_or("error")
}

/// Fails unless the document matches the schema of the command.
pub fn check(arguments: &str, document: &Value) {
    let command = command_of(arguments);
    let problems: Vec<String> = validators()[command]
        .iter_errors(document)
        .map(|error| format!("{} at {}: {error}", error.schema_path(), error.instance_path()))
        .collect();
    assert!(
        problems.is_empty(),
        "`{arguments}`: {document:#}\ndoes not match `wal-cli schema {command}`\n{problems:#?}"
    );
}

/// Returns the documents of all outcomes, by the name of their schema.
fn documents() -> BTreeMap<&'static str, Vec<&'static Value>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (command, documents) in outcomes::printed().iter().flatten() {
        all.entry(command_of(command)).or_default().extend(documents);
    }
    all
}

/// Returns the document with at most three elements of each list, since others would be mutated in
/// the same ways.
fn shortened(document: &Value) -> Value {
    match document {
        Value::Array(values) => values.iter().take(3).map(shortened).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), shortened(value))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn every_schema_rejects_mutated_documents() {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut accepted = Vec::new();
    let mut few = Vec::new();
    let documents = documents();
    for command in COMMANDS {
        let documents = documents.get(command.command).map(Vec::as_slice).unwrap_or_default();
        assert!(!documents.is_empty(), "no outcome of `{}` is tried", command.command);
        let validator = &validators()[command.command];
        let mut random = Rng::with_seed(SEED);
        let mut tried = BTreeSet::new();
        // Mutations are random, so small documents are mutated again until there are enough.
        for round in 0..100 {
            if round > 0 && tried.len() >= MUTATED {
                break;
            }
            for document in documents {
                for Mutation { kind, at, mutated } in mutations(&shortened(document), &mut random) {
                    if tried.insert(mutated.to_string()) {
                        *kinds.entry(kind).or_default() += 1;
                        if validator.is_valid(&mutated) {
                            accepted
                                .push(format!("`{}`: {kind} at {at}: {mutated}", command.command));
                        }
                    }
                }
            }
        }
        eprintln!(
            "{:13} {:6} mutated documents of {:3}",
            command.command,
            tried.len(),
            documents.len()
        );
        if tried.len() < MUTATED {
            few.push(command.command);
        }
    }
    eprintln!("{kinds:#?}");
    let first: Vec<_> = accepted.iter().take(20).collect();
    assert!(accepted.is_empty(), "{} of seed {SEED} were accepted: {first:#?}", accepted.len());
    assert!(few.is_empty(), "fewer than {MUTATED} documents: {few:?}");
}

#[test]
fn unknown_fields_are_tolerated() {
    // A later version may print more fields than an old schema has.
    for (command, documents) in documents() {
        for document in documents {
            let mut more = document.clone();
            more["a_later_field"] = json!({ "any": "thing" });
            assert!(validators()[command].is_valid(&more), "`{command}`: {more}");
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_schemas_in_docs_are_what_the_program_prints() {
    const RENEW: &str = "WAL_CLI_BLESS=1 cargo test --test all suite::contract::the_schemas";
    let place = Place::new();
    let folder = root().join("docs/schema");
    let bless = std::env::var_os("WAL_CLI_BLESS").is_some();
    if bless {
        std::fs::create_dir_all(&folder).unwrap();
    }
    let mut expected = BTreeSet::new();
    for command in COMMANDS {
        let name = command.file_name();
        let printed = place.run(&format!("schema {}", command.command));
        if bless {
            std::fs::write(folder.join(&name), &printed).unwrap();
        }
        let kept = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(
            kept == printed,
            "docs/schema/{name} differs from the output of the program; renew it: {RENEW}"
        );
        expected.insert(name);
    }
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(expected.contains(&name), "docs/schema/{name} belongs to no command");
    }
}

#[test]
fn every_command_has_a_schema() {
    let place = Place::new();
    let named: BTreeSet<String> = place
        .run("schema")
        .lines()
        .filter_map(|line| Some(line.split("  ").next()?.to_owned()))
        .collect();
    let mut missing = Vec::new();
    for command in commands_in(&place.run("--help")) {
        let inner = commands_in(&place.run(&format!("{command} --help")));
        let all = if inner.is_empty() {
            vec![command]
        } else {
            inner.iter().map(|inner| format!("{command} {inner}")).collect()
        };
        missing.extend(all.into_iter().filter(|command| !named.contains(command)));
    }
    assert_eq!(missing, Vec::<String>::new(), "give them a row in src/report/schema.rs");
}

/// Returns the commands that a help page lists.
fn commands_in(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Continuations of long lines are indented further.
        .filter(|line| line.starts_with("  ") && !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next())
        .map(ToOwned::to_owned)
        .collect()
}

/// Returns the examples of a page: command and document.
fn examples(page: &str) -> Vec<(String, Value)> {
    let mut examples = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find("```json") {
        let (head, after) = rest[at + 7..].split_once('\n').unwrap();
        let (text, after) = after.split_once("```").unwrap();
        let documents = serde_json::Deserializer::from_str(text).into_iter();
        examples.extend(documents.map(|document| (head.trim().to_owned(), document.unwrap())));
        rest = after;
    }
    examples
}

#[test]
fn the_page_names_every_schema_and_its_examples_are_valid() {
    let page = std::fs::read_to_string(root().join("docs/json.md")).unwrap();
    for command in COMMANDS {
        let row = format!(
            "| [`{}`](schema/{}) | {} |",
            command.command,
            command.file_name(),
            command.description
        );
        assert!(page.contains(&row), "docs/json.md lacks {row}");
    }
    let examples = examples(&page);
    assert!(examples.len() >= 6, "{} examples", examples.len());
    for (command, document) in examples {
        assert_ne!(
            command_of(&command),
            "error",
            "an example says which command printed it: ```json COMMAND"
        );
        check(&command, &document);
    }
}
