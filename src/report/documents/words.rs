//! Words and texts with a meaning: how JSON shows them, and what a schema says of them.

use std::borrow::Cow;
use std::fmt::Display;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::bench::Method;
use crate::client::{Check, FindingKind, HealthStatus, Reason};
use crate::operation::{BackendName, FailureClass, OperationId, OperationType, Status, Time};

/// A value that JSON shows as people read it: times, ids, names.
#[derive(Debug, Clone, Copy)]
pub struct AsDisplay<T>(pub T);

impl<T: Display> Serialize for AsDisplay<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Says what a schema calls a text, and what it looks like.
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
    "UTC, with milliseconds.",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"
);
text!(
    AsDisplay<OperationId>,
    "OperationId",
    "The id of an operation; ids sort by the time of logging.",
    "format": "uuid",
    "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
);
text!(&OperationType, "OperationType", "What is to be done.", "pattern": "^[a-z][a-z0-9_]{0,63}$");
text!(&BackendName, "BackendName", "Who carries it out.", "pattern": "^[a-z][a-z0-9_-]{0,63}$");
text!(
    Cid<'_>,
    "Cid",
    "A content identifier in its text form, as the backend, or the original system, gave it.",
    "pattern": "^[0-9A-Za-z+/=_-]+$"
);
text!(Sha256<'_>, "Sha256", "A SHA-256 in hex.", "pattern": "^[0-9a-f]{64}$");
text!(
    OpenCode<'_>,
    "Word",
    "A stable word for scripts: compare it with those you know, and expect others.",
    "pattern": "^[A-Za-z0-9_.:-]+$"
);

/// A CID.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct Cid<'a>(pub &'a str);

/// A hash.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct Sha256<'a>(pub &'a str);

/// A word of a set that is open: types of errors that backends name.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct OpenCode<'a>(pub &'a str);

/// A word of a closed set.
#[derive(Debug, Clone, Copy)]
pub struct AsName<T>(pub T);

/// Says which words there are for an enum whose `as_str` names them.
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

words!(Status, "Status", "Where an operation stands: these five and no others.", Status::ALL);
words!(
    FailureClass,
    "FailureClass",
    "What a failure means for the next attempt.",
    FailureClass::ALL
);
words!(
    HealthStatus,
    "HealthStatus",
    "What the last probes of a backend amount to.",
    HealthStatus::ALL
);
words!(Reason, "Reason", "Why an operation stands where it does.", Reason::ALL);
words!(
    FindingKind,
    "FindingKind",
    "Whether something is wrong, or only worth knowing.",
    FindingKind::ALL
);
words!(Check, "Check", "What was tried.", Check::ALL);
words!(Method, "Method", "How records reach the disk.", Method::ALL);
