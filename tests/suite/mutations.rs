//! Mutated documents: each is a valid one with an error in one place.
//!
//! Members that may be missing or null are listed here, not read from a schema, since the schemas
//! are under test.

use fastrand::Rng;
use serde_json::{Value, json};

/// A document with one error.
pub struct Mutation {
    /// The kind of error.
    pub kind: &'static str,
    /// The JSON pointer to its place.
    pub at: String,
    /// The document.
    pub mutated: Value,
}

/// Objects with arbitrary field names, all of which are optional.
const FREE: &[&str] =
    &["parameters", "receipt", "backends", "health", "settings", "due", "no_backend"];

/// Fields that only some errors have.
const OF_SOME_ERRORS: &[&str] = &["causes", "key", "origin", "suggestion", "number", "line"];

/// Fields that may be null, depending on others.
const NULLABLE: &[&str] = &[
    "completed_at",
    "result",
    "receipt",
    "error",
    "error_type",
    "failure_class",
    "next_retry_at",
    "idempotency_key",
    "not_before",
    "next_attempt_at",
    "source",
    "claim",
    "redirected_from",
    "redirected_to",
    "went_on_as",
    "refused",
    "cid",
    "size",
    "destination",
    "ctime_ns",
    "sha256",
    "spool",
    "from",
    "reason",
    "hint",
    "oldest_pending",
    "processing",
    "free_bytes",
    "damage",
    "offset",
    "last_check",
    "file",
    "path",
    "next_cursor",
];

/// Fields that may have any value.
const ANY: &[&str] = &["value", "schema"];

/// Fields with words of a closed set.
const WORDS: &[&str] = &["status", "failure_class", "from", "to", "event", "method", "type"];

/// Fields with texts of a fixed form.
const FORMS: &[&str] = &[
    "operation_id",
    "timestamp",
    "updated_at",
    "completed_at",
    "next_retry_at",
    "not_before",
    "next_attempt_at",
    "first",
    "last",
    "cause",
    "at",
    "started",
    "since",
    "last_check",
    "cid",
    "sha256",
    "backend",
    "operation_type",
    "error_type",
    "next_cursor",
];

/// Numbers that count from 1.
const FROM_ONE: &[&str] = &["number", "revision", "group", "threads", "example"];

/// Numbers that may be negative.
const SIGNED: &[&str] = &["priority", "mtime_ns", "ctime_ns"];

/// Returns documents that differ from this one in one place, and are invalid.
pub fn mutations(document: &Value, random: &mut Rng) -> Vec<Mutation> {
    let mut maker = Maker { document, random, made: Vec::new() };
    if let Some(success) = document["success"].as_bool() {
        maker.put("success flipped", "/success", json!(!success));
    }
    maker.inside("", "", document, false);
    maker.made
}

struct Maker<'a> {
    document: &'a Value,
    random: &'a mut Rng,
    made: Vec<Mutation>,
}

impl Maker<'_> {
    /// Adds the document with another value at a place.
    fn put(&mut self, kind: &'static str, at: &str, value: Value) {
        let mut mutated = self.document.clone();
        *mutated.pointer_mut(at).unwrap() = value;
        self.made.push(Mutation { kind, at: at.to_owned(), mutated });
    }

    /// Adds all mutations within a value; `name` is that of the nearest field.
    fn inside(&mut self, at: &str, name: &str, value: &Value, free: bool) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    if !free && self.is_required(name, key) {
                        self.remove(&at);
                    }
                    // Fields of an open object have arbitrary names without a meaning.
                    let key = if free { "" } else { key };
                    if !ANY.contains(&key) {
                        self.wrong(&at, key, name, value);
                        self.inside(&at, key, value, FREE.contains(&key) && value.is_object());
                    } else if key == "schema" {
                        self.put("wrong type", &at, json!([]));
                    }
                }
            }
            Value::Array(items) => {
                for (place, value) in items.iter().enumerate() {
                    let at = format!("{at}/{place}");
                    self.wrong(&at, "", "", value);
                    self.inside(&at, name, value, false);
                }
            }
            _ => {}
        }
    }

    fn is_required(&self, parent: &str, key: &str) -> bool {
        match parent {
            // What is left is a valid document: an error without a result.
            "" => {
                self.document["error"].is_null() || self.document["event"] == "settled" || {
                    let fields = self.document.as_object().unwrap();
                    fields.len() > 3 || ["success", "error"].contains(&key)
                }
            }
            "error" | "errors" | "bad_inputs" => !OF_SOME_ERRORS.contains(&key),
            _ => true,
        }
    }

    fn remove(&mut self, at: &str) {
        let (parent, key) = at.rsplit_once('/').unwrap();
        let mut mutated = self.document.clone();
        let fields = mutated.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        fields.remove(&key.replace("~1", "/").replace("~0", "~")).unwrap();
        self.made.push(Mutation { kind: "field removed", at: at.to_owned(), mutated });
    }

    /// Adds all mutations of a value as a whole.
    fn wrong(&mut self, at: &str, key: &str, parent: &str, value: &Value) {
        for other in self.other_types(value) {
            self.put("wrong type", at, other);
        }
        let is_of_the_command = at == "/error" && self.document["success"].is_boolean();
        let is_an_errors = ["error", "errors"].contains(&parent) && key == "path";
        let may_be_null =
            NULLABLE.contains(&key) || (parent == "oldest_pending" && key == "operation_id");
        if !value.is_null() && (!may_be_null || is_of_the_command || is_an_errors) {
            self.put("null", at, Value::Null);
        }
        match value {
            Value::String(word) if WORDS.contains(&key) => {
                for _ in 0..3 {
                    let wrong = self.misspelt(word);
                    self.put("word misspelt", at, wrong.into());
                }
                let other =
                    ["completed", "failed", "pending"].iter().find(|other| *other != word).unwrap();
                // Only in whole operations do other fields depend on the status.
                let of_an_operation =
                    self.document.pointer(&at.replace("/status", "/history")).is_some();
                // An operation that existed before may have any status.
                let known = self.document.pointer(&at.replace("/status", "/existing"))
                    == Some(&json!(true));
                if key == "status" && of_an_operation && !known {
                    self.put("another status", at, json!(other));
                }
            }
            Value::String(text) if FORMS.contains(&key) => {
                let mut chars: Vec<char> = text.chars().collect();
                let place = self.random.usize(..=chars.len());
                chars.insert(place, *self.random.choice(&[' ', '!', 'ä', '\n', '§']).unwrap());
                self.put("form broken", at, String::from_iter(chars).into());
            }
            Value::Number(number) if number.is_u64() || number.is_i64() => {
                // The fraction of a large number would be lost when it is read.
                let fraction = number.as_f64().unwrap() + 0.5;
                if fraction.fract() != 0.0 {
                    self.put("fraction", at, json!(fraction));
                }
                if !SIGNED.contains(&key) {
                    let below = -1 - i64::from(self.random.u16(..));
                    self.put("negative", at, json!(below));
                }
                if FROM_ONE.contains(&key) {
                    self.put("zero", at, json!(0));
                }
            }
            _ => {}
        }
    }

    /// Returns values of types that the field may not have.
    fn other_types(&mut self, value: &Value) -> Vec<Value> {
        let random = &mut *self.random;
        let text: String = std::iter::repeat_with(|| random.alphanumeric()).take(6).collect();
        let all = [
            json!(random.bool()),
            json!(random.i32(..)),
            json!(text),
            json!([text]),
            json!({ text: random.u8(..) }),
        ];
        let differs = |other: &Value| match value {
            Value::Null => other.is_boolean() || other.is_array(),
            _ => std::mem::discriminant(other) != std::mem::discriminant(value),
        };
        all.into_iter().filter(differs).collect()
    }

    /// Returns a word with one wrong letter, in capitals, or longer.
    fn misspelt(&mut self, word: &str) -> String {
        let mut letters: Vec<char> = word.chars().collect();
        let place = self.random.usize(..letters.len());
        match self.random.u8(..4) {
            0 => drop(letters.remove(place)),
            1 => letters.insert(place, letters[place]),
            2 => letters[place] = letters[place].to_ascii_uppercase(),
            _ => letters.push(self.random.lowercase()),
        }
        let wrong = String::from_iter(letters);
        // Some characters have no capitals.
        if wrong == word { format!("{word}s") } else { wrong }
    }
}
