//! Codes and texts with a meaning: their JSON form and their schema.

use std::borrow::Cow;
use std::fmt::Display;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::bench::Method;
use crate::client::{Check, FindingKind, HealthStatus, Reason};
use crate::operation::{BackendName, FailureClass, OperationId, OperationType, Status, Time};

/// A value that is serialized in its display form: times, ids, names.
#[derive(Debug, Clone, Copy)]
pub struct AsDisplay<T>(pub T);

impl<T: Display> Serialize for AsDisplay<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Implements the schema of a text type: its name, description and pattern.
macro_rules! text {
    ($type:ty, $name:literal, $about:literal, $($key:tt : $value:tt),+) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $about, $($key: $value),+ })
            }
        }
    };
}

text!(
    AsDisplay<Time>,
    "Time",
    "UTC time with milliseconds.",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"
);
text!(
    AsDisplay<OperationId>,
    "OperationId",
    "Id of an operation; ids sort by time of logging.",
    "format": "uuid",
    "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
);
text!(
    &OperationType,
    "OperationType",
    "Type of an operation.",
    "pattern": "^[a-z][a-z0-9_]{0,63}$"
);
text!(&BackendName, "BackendName", "Name of a backend.", "pattern": "^[a-z][a-z0-9_-]{0,63}$");
text!(
    Cid<'_>,
    "Cid",
    "Content identifier in text form, as reported by the backend or by ipfs_kit_py.",
    "pattern": "^[0-9A-Za-z+/=_-]+$"
);
text!(Sha256<'_>, "Sha256", "SHA-256 in hexadecimal.", "pattern": "^[0-9a-f]{64}$");
text!(
    OpenCode<'_>,
    "Word",
    "Stable code for scripts; expect codes that are not documented here.",
    "pattern": "^[A-Za-z0-9_.:-]+$"
);

/// A content identifier.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct Cid<'a>(pub &'a str);

/// A SHA-256 in hexadecimal.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct Sha256<'a>(pub &'a str);

/// A code of an open set, such as the error types of backends.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct OpenCode<'a>(pub &'a str);

/// A code of a closed set.
#[derive(Debug, Clone, Copy)]
pub struct AsName<T>(pub T);

/// Implements JSON and schema for an enum whose `as_str` returns the codes.
macro_rules! words {
    ($type:ty, $name:literal, $about:literal, $all:expr) => {
        impl Serialize for AsName<$type> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.as_str())
            }
        }

        impl JsonSchema for AsName<$type> {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let words = $all.map(<$type>::as_str);
                json_schema!({ "type": "string", "description": $about, "enum": words })
            }
        }
    };
}

words!(Status, "Status", "Status of an operation; the set is closed.", Status::ALL);
words!(
    FailureClass,
    "FailureClass",
    "Class of a failure, which decides whether it is retried.",
    FailureClass::ALL
);
words!(
    HealthStatus,
    "HealthStatus",
    "Health of a backend, derived from its last checks.",
    HealthStatus::ALL
);
words!(Reason, "Reason", "Reason for the status of an operation.", Reason::ALL);
words!(FindingKind, "FindingKind", "Damage, or a note that needs no action.", FindingKind::ALL);
words!(Check, "Check", "A check of the disk.", Check::ALL);
words!(Method, "Method", "Method by which records reach the disk.", Method::ALL);
