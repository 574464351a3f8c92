//! What `--json` prints: a type for every document, from which both its text and its schema come.
//!
//! A result is a struct with the fields of one command's document, but for `success` and `error`, which
//! [`Document`] puts around it. Which command prints which is said in [`COMMANDS`](super::COMMANDS).

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

pub use archive::{ArchiveList, ArchivePush, date};
pub use audit::AuditDoc;
pub use bench::{Append, BatchDoc, BenchVerifyDoc, Floor};
pub use change::{Change, LeftOut};
pub use error::{BadInputDoc, ErrorDoc, ErrorFields, ErrorType, Offset, SkippedDoc, UnfinishedDoc};
pub use health::Health;
pub use list::{List, ListText};
pub use operation::{OperationDoc, Operations, OperationsDoc, ShownMany, ShownOne};
pub use process::{HolderDoc, Settled, Skipped, Summary};
pub use program::{Completions, OneSchema, SchemaDoc, Schemas};
pub use reasons::{DryRun, Failures, Why};
pub use receipts::ReceiptsDoc;
pub use settings::{
    ConfigCheck, ConfigGet, ConfigPath, ConfigSet, ConfigShow, SettingDoc, WarningDoc,
};
pub use status::StatusDoc;
pub use upkeep::{Checkpoint, Cleanup};
pub use verify::{DurabilityDoc, RepairedDoc, VerifiedDoc};
pub use words::{AsDisplay, AsName, Cid, OpenCode, Sha256};

/// One line of JSON.
pub trait Line {
    /// The text, without the end of the line.
    fn line(&self) -> String;
}

impl<T: Serialize> Line for T {
    fn line(&self) -> String {
        // Ours are structs, texts and numbers, for which this cannot fail.
        serde_json::to_string(self).unwrap_or_else(|_| "null".into())
    }
}

/// The document that a command ends with: whether all went well, its result, and what went wrong.
#[derive(Debug, Serialize)]
pub struct Document<'a, R> {
    success: bool,
    #[serde(flatten)]
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDoc<'a>>,
}

/// What a document can hold: it can be written, and has a schema.
pub trait Documented: Serialize + JsonSchema {}

impl<R: Serialize + JsonSchema> Documented for R {}

impl<'a, R: Documented> Document<'a, R> {
    /// All went well.
    pub fn done(result: R) -> Document<'a, R> {
        Document { success: true, result: Some(result), error: None }
    }

    /// There is a result, and perhaps something went wrong as well.
    pub fn with_error(result: R, error: Option<ErrorDoc<'a>>) -> Document<'a, R> {
        Document { success: error.is_none(), result: Some(result), error }
    }
}

impl<'a> Document<'a, ()> {
    /// There is nothing but an error.
    pub fn failed(error: ErrorDoc<'a>) -> Document<'a, ()> {
        Document { success: false, result: None, error: Some(error) }
    }
}
