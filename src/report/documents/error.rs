//! What went wrong, as JSON.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::words::{AsDisplay, AsName, OpenCode};
use crate::operation::{OperationId, Status};

/// The types of errors, with the word and the meaning of each.
macro_rules! error_types {
    ($($variant:ident $word:literal $about:literal)+) => {
        /// A stable word for what went wrong. Words are added, never changed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorType {
            $(#[doc = $about] $variant,)+
        }

        impl ErrorType {
            /// All of them.
            pub const ALL: &[ErrorType] = &[$(ErrorType::$variant),+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorType::$variant => $word,)+ }
            }

            /// What it means.
            pub fn description(self) -> &'static str {
                match self { $(ErrorType::$variant => $about,)+ }
            }
        }
    };
}

error_types! {
    OperationFailed "operation_failed" "operations that were waited for or drained failed"
    Offline "offline" "backends did not pass their check"
    Usage "usage" "the command line makes no sense"
    Config "config" "the settings make no sense, or cannot be read"
    BadInputs "bad_inputs" "inputs cannot be used; nothing was logged, or, with --keep-going, all but those"
    BadParameters "bad_parameters" "the type does not take these parameters; nothing was logged"
    BadReference "bad_reference" "this is no way to name an operation"
    UnknownBackend "unknown_backend" "there is no such backend"
    BackendNotBuilt "backend_not_built" "the backend is known, but not built into this program"
    BackendUnconfigured "backend_unconfigured" "the backend lacks a setting without which it cannot work"
    Unsupported "unsupported" "the backend does not carry out operations of this type"
    BadKey "bad_key" "this is no idempotency key, or one key for several operations; nothing was logged"
    KeyConflict "key_conflict" "the idempotency key stands for other work; nothing was logged"
    UnknownDependency "unknown_dependency" "an operation that is to be waited for is not there; nothing was logged"
    HasDependents "has_dependents" "other operations wait for this one; nothing was changed"
    Disabled "disabled" "logging is switched off; nothing was logged"
    UnsafeDisk "unsafe_disk" "the disk does not keep what the log relies on (verify --durability)"
    Lost "lost" "not everything of a damaged log could be saved (verify --repair)"
    NotIntact "not_intact" "what was completed is gone or altered, or could not be looked at (verify --remote)"
    ConditionHolds "condition_holds" "a condition of --fail-if holds"
    NotApplicable "not_applicable" "it does not apply to some of the operations; nothing was changed"
    IllegalChange "illegal_change" "the status of the operation does not allow the change"
    TooLarge "too_large" "the operation is larger than a record may be; nothing was logged"
    NoSuchOperation "no_such_operation" "there is no such operation"
    TimedOut "timed_out" "time ran out; what is unfinished stays logged"
    Busy "busy" "another process holds a lock"
    Conflict "conflict" "somebody else changed the operation at the same moment"
    Damaged "damaged" "a part of the log cannot be read"
    NewerFormat "newer_format" "a newer program wrote the log"
    NotOurs "not_ours" "the folder holds something else than a log"
    OriginalAtWork "original_at_work" "the original system changed its files there a moment ago"
    NoSpace "no_space" "the disk has less room than `min_free_bytes`; nothing was logged"
    NotLogged "not_logged" "the disk refused; nothing was logged"
    Unconfirmed "unconfirmed" "nobody can say whether what was logged is durable"
    Disk "disk" "the disk refused"
    Output "output" "stdout could not be written"
    Signals "signals" "signals could not be listened for"
    Interrupted "interrupted" "a signal ended the command"
}

impl Serialize for ErrorType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for ErrorType {
    fn schema_name() -> Cow<'static, str> {
        "ErrorType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<Value> = ErrorType::ALL
            .iter()
            .map(|word| json!({ "const": word.as_str(), "description": word.description() }))
            .collect();
        json_schema!({
            "type": "string",
            "description": "A stable word for what went wrong; later versions may know more.",
            "oneOf": words,
        })
    }
}

/// What went wrong.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error", transform = facts_of_types)]
pub struct ErrorDoc<'a> {
    /// What kind of error it is.
    pub r#type: ErrorType,
    /// What happened, and to what.
    #[schemars(length(min = 1))]
    pub message: Cow<'a, str>,
    /// What to do.
    pub hint: Option<String>,
    /// Why, where the message does not say it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub causes: &'a [String],
    /// What else there is to say of errors of some types.
    #[serde(flatten)]
    pub facts: &'a ErrorFields,
}

/// Fields of errors of some types.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct ErrorFields {
    /// The setting that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where that was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// What was meant, perhaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The types that the backend carries out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supported: Option<Vec<String>>,
    /// The inputs that cannot be used; the first ten thousand, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub bad_inputs: Option<Vec<BadInputDoc>>,
    /// How many inputs cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bad_count: Option<u64>,
    /// The operation that has the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub number: Option<u64>,
    /// The file that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where in that file; null: it as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Bytes that may still be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Bytes that are to stay free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free_bytes: Option<u64>,
    /// The ids of what may or may not have been logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<AsDisplay<OperationId>>>,
    /// The operations that had not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Vec<UnfinishedDoc>>,
    /// The operations to which it does not apply, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub skipped: Option<Vec<SkippedDoc>>,
    /// The conditions that hold, as they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub conditions: Option<Vec<String>>,
    /// The backends that are offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<Vec<String>>,
}

/// A place in a file; null: the file as a whole.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Offset(pub Option<u64>);

/// An input that cannot be used.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BadInput")]
pub struct BadInputDoc {
    /// The line it stood on, if it came from a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub line: Option<u64>,
    /// A stable word.
    pub error_type: OpenCode<'static>,
    /// The path or line, as it was given.
    pub input: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

/// An operation to which something does not apply.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Skipped")]
pub struct SkippedDoc {
    /// Its number.
    #[schemars(range(min = 1))]
    pub number: u64,
    /// Its id.
    pub operation_id: AsDisplay<OperationId>,
    /// Where it stands.
    pub status: AsName<Status>,
    /// Why, and what to do instead.
    pub reason: String,
}

/// An operation that had not ended.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Unfinished")]
pub struct UnfinishedDoc {
    /// Its number.
    #[schemars(range(min = 1))]
    pub number: u64,
    /// Its id.
    pub operation_id: AsDisplay<OperationId>,
    /// Its status when it was last seen.
    pub status: AsName<Status>,
}

/// The facts that errors of a type always come with.
const ALWAYS: &[(ErrorType, &[&str])] = &[
    (ErrorType::BadInputs, &["bad_inputs", "bad_count"]),
    (ErrorType::Unsupported, &["supported"]),
    (ErrorType::Damaged, &["path", "offset"]),
    (ErrorType::NoSpace, &["free_bytes", "min_free_bytes"]),
    (ErrorType::Unconfirmed, &["ids"]),
    (ErrorType::TimedOut, &["unfinished"]),
    (ErrorType::Offline, &["offline"]),
    (ErrorType::NotApplicable, &["skipped"]),
    (ErrorType::ConditionHolds, &["conditions"]),
];

fn facts_of_types(schema: &mut Schema) {
    let rules: Vec<Value> = ALWAYS
        .iter()
        .map(|(kind, facts)| {
            json!({ "if": { "properties": { "type": { "const": kind.as_str() } } }, "then": { "required": facts } })
        })
        .collect();
    schema.insert("allOf".into(), rules.into());
}
