//! Errors as JSON documents.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::words::{AsDisplay, AsName, OpenCode};
use crate::operation::{OperationId, Status};

/// Declares the error types with the code and the description of each.
macro_rules! error_types {
    ($($variant:ident $word:literal $about:literal)+) => {
        /// The type of an error. Codes are added, never changed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorType {
            $(#[doc = $about] $variant,)+
        }

        impl ErrorType {
            /// All error types.
            pub const ALL: &[ErrorType] = &[$(ErrorType::$variant),+];

            /// Returns the stable code.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorType::$variant => $word,)+ }
            }

            /// Returns the description.
            pub fn description(self) -> &'static str {
                match self { $(ErrorType::$variant => $about,)+ }
            }
        }
    };
}

error_types! {
    OperationFailed "operation_failed" "operations that were waited for or drained failed"
    Offline "offline" "a backend failed its health check"
    Usage "usage" "the command line is invalid"
    Config "config" "the configuration is invalid or unreadable"
    BadInputs "bad_inputs"
        "some inputs cannot be used; nothing was logged, or, with --keep-going, only the others"
    BadParameters "bad_parameters"
        "the operation type does not take these parameters; nothing was logged"
    BadReference "bad_reference" "not a valid operation reference"
    UnknownBackend "unknown_backend" "there is no such backend"
    BackendNotBuilt "backend_not_built" "the backend type is not built into this program"
    BackendUnconfigured "backend_unconfigured" "the backend lacks a required setting"
    Unsupported "unsupported" "the backend does not support operations of this type"
    BadKey "bad_key"
        "invalid idempotency key, or one key for several operations; nothing was logged"
    KeyConflict "key_conflict"
        "the idempotency key belongs to a different operation; nothing was logged"
    UnknownDependency "unknown_dependency"
        "an operation to wait for does not exist; nothing was logged"
    HasDependents "has_dependents" "other operations depend on this one; nothing was changed"
    Disabled "disabled" "logging is disabled; nothing was logged"
    UnsafeDisk "unsafe_disk" "the disk is not safe for a log (verify --durability)"
    Lost "lost" "part of a damaged log could not be recovered (verify --repair)"
    NotIntact "not_intact"
        "completed work is missing, altered, or could not be checked (verify --remote)"
    ConditionHolds "condition_holds" "a condition of --fail-if holds"
    NotApplicable "not_applicable"
        "the change does not apply to some of the operations; nothing was changed"
    IllegalChange "illegal_change" "the status of the operation does not allow the change"
    TooLarge "too_large" "the operation exceeds the maximum record size; nothing was logged"
    NoSuchOperation "no_such_operation" "there is no such operation"
    TimedOut "timed_out" "the timeout passed; unfinished operations stay logged"
    Busy "busy" "another process holds a lock"
    Conflict "conflict" "another process changed the operation at the same time"
    Damaged "damaged" "part of the log cannot be read"
    NewerFormat "newer_format" "the log was written by a newer version"
    NotOurs "not_ours" "the directory does not hold a log, or the log is unsuitable for use"
    NoLog "no_log" "there is no log in the directory, and `must_exist` is set"
    OriginalAtWork "original_at_work" "ipfs_kit_py changed its files in this directory a moment ago"
    NoSpace "no_space" "the disk has less room than `min_free_bytes`; nothing was logged"
    NotLogged "not_logged" "the write failed; nothing was logged"
    Unconfirmed "unconfirmed" "the operations may or may not be durable"
    Disk "disk" "a disk operation failed"
    Output "output" "writing to stdout failed"
    Signals "signals" "signal handlers could not be installed"
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
            "description": "Stable code of the error; later versions may add codes.",
            "oneOf": words,
        })
    }
}

/// An error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error", transform = fields_by_type)]
pub struct ErrorDoc<'a> {
    /// Stable code of the error.
    pub r#type: ErrorType,
    /// Message: what failed, on what, and why.
    #[schemars(length(min = 1))]
    pub message: Cow<'a, str>,
    /// The next step; null if there is none to suggest.
    pub hint: Option<String>,
    /// Underlying causes, outermost first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub causes: &'a [String],
    /// Fields that belong to certain error types.
    #[serde(flatten)]
    pub fields: &'a ErrorFields,
}

/// Fields that belong to certain error types.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct ErrorFields {
    /// The setting concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Origin of the setting's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The name that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The operation types that the backend supports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supported: Option<Vec<String>>,
    /// The inputs that cannot be used, at most 10,000 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub bad_inputs: Option<Vec<BadInputDoc>>,
    /// Number of inputs that cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bad_count: Option<u64>,
    /// Number of the operation that has the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub number: Option<u64>,
    /// The damaged file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Offset in that file; null if the whole file is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Free bytes on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Bytes that must stay free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free_bytes: Option<u64>,
    /// Ids of the operations that may or may not be durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<AsDisplay<OperationId>>>,
    /// Operations that had not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Vec<UnfinishedDoc>>,
    /// All operations that the change does not apply to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub skipped: Option<Vec<SkippedDoc>>,
    /// The conditions that hold, as given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub conditions: Option<Vec<String>>,
    /// Backends that are offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<Vec<String>>,
}

/// An offset in a file; null if the whole file is meant.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Offset(pub Option<u64>);

/// An input that cannot be used.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BadInput")]
pub struct BadInputDoc {
    /// Line number of the input in its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub line: Option<u64>,
    /// Stable code of the error.
    pub error_type: OpenCode<'static>,
    /// The path or line as given.
    pub input: String,
    /// Description of the problem, and the next step.
    pub message: String,
}

/// An operation that a change does not apply to.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Skipped")]
pub struct SkippedDoc {
    /// Number of the operation.
    #[schemars(range(min = 1))]
    pub number: u64,
    /// Id of the operation.
    pub operation_id: AsDisplay<OperationId>,
    /// Status of the operation.
    pub status: AsName<Status>,
    /// Reason, and what to do instead.
    pub reason: String,
}

/// An operation that had not ended.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Unfinished")]
pub struct UnfinishedDoc {
    /// Number of the operation.
    #[schemars(range(min = 1))]
    pub number: u64,
    /// Id of the operation.
    pub operation_id: AsDisplay<OperationId>,
    /// Last known status.
    pub status: AsName<Status>,
}

/// The fields that errors of a type always have.
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

/// Adds the rules that say which fields each error type has.
fn fields_by_type(schema: &mut Schema) {
    let rules: Vec<Value> = ALWAYS
        .iter()
        .map(|(kind, fields)| {
            let condition = json!({ "properties": { "type": { "const": kind.as_str() } } });
            json!({ "if": condition, "then": { "required": fields } })
        })
        .collect();
    schema.insert("allOf".into(), rules.into());
}
