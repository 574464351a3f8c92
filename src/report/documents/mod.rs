//! The documents that `--json` prints, as types from which both their JSON and their schemas are
//! generated.
//!
//! A result is a struct with the fields of one command's document except `success` and `error`,
//! which [`Document`] adds. [`COMMANDS`](super::COMMANDS) lists the results of each command.

mod archive;
mod audit;
mod bench;
mod change;
mod error;
mod health;
mod list;
mod operation;
mod process;
mod program;
mod reasons;
mod receipts;
mod settings;
mod status;
mod upkeep;
mod verify;
mod words;

use schemars::JsonSchema;
use serde::Serialize;

pub use archive::{ArchiveList, ArchivePush};
pub use audit::AuditDoc;
pub use bench::{Append, BatchDoc, BenchVerifyDoc, Floor};
pub use change::Change;
pub use error::{BadInputDoc, ErrorDoc, ErrorFields, ErrorType, Offset, SkippedDoc, UnfinishedDoc};
pub use health::Health;
pub use list::{List, ListText};
pub use operation::{OperationDoc, Operations, OperationsDoc, ShownMany, ShownOne};
pub use process::{Settled, Skipped, Summary};
pub use program::{Completions, OneSchema, SchemaDoc, Schemas};
pub use reasons::{DryRun, Failures, Why};
pub use receipts::ReceiptsDoc;
pub use settings::{
    ConfigCheck, ConfigGet, ConfigPath, ConfigSet, ConfigShow, SettingDoc, WarningDoc,
};
pub use status::StatusDoc;
pub use upkeep::{Checkpoint, Cleanup};
pub use verify::{DurabilityDoc, RepairedDoc, VerifiedDoc};
pub use words::{AsDisplay, AsName, OpenCode};

/// A value that can be printed as one line of JSON.
pub trait Line {
    /// Returns the JSON text without a newline.
    fn line(&self) -> String;
}

impl<T: Serialize> Line for T {
    fn line(&self) -> String {
        // Documents consist of structs, texts and numbers, for which this cannot fail.
        serde_json::to_string(self).unwrap_or_else(|_| "null".into())
    }
}

/// The final document of a command: success, its result, and its error.
#[derive(Debug, Serialize)]
pub struct Document<'a, R> {
    success: bool,
    #[serde(flatten)]
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDoc<'a>>,
}

/// A result that can be serialized and has a schema.
pub trait Documented: Serialize + JsonSchema {}

impl<R: Serialize + JsonSchema> Documented for R {}

impl<'a, R: Documented> Document<'a, R> {
    /// Returns the document of a success.
    #[cfg(any(test, feature = "test-util"))]
    pub fn done(result: R) -> Document<'a, R> {
        Document { success: true, result: Some(result), error: None }
    }

    /// Returns the document of a result that may come with an error.
    pub fn with_error(result: R, error: Option<ErrorDoc<'a>>) -> Document<'a, R> {
        Document { success: error.is_none(), result: Some(result), error }
    }
}

impl<'a> Document<'a, ()> {
    /// Returns the document of an error without a result.
    pub fn failed(error: ErrorDoc<'a>) -> Document<'a, ()> {
        Document { success: false, result: None, error: Some(error) }
    }
}
