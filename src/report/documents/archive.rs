//! The documents of `archive push` and `archive list`.

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Value, json};

use super::words::{AsDisplay, AsName, OpenCode};
use crate::client::{Archive, Push, PushReport};
use crate::operation::{BackendName, OperationId, Status, Time};

/// The pushes that were logged, or would be.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(transform = dry_runs_log_nothing)]
pub struct ArchivePush<'a> {
    /// True if nothing was logged: the fields say what a push would do.
    dry_run: bool,
    /// Name of this host in the fleet history.
    host: &'a str,
    /// Backend that receives the archives.
    backend: &'a BackendName,
    /// Number of operations that were logged, or would be.
    logged: u64,
    /// Number of archives that have been pushed already.
    pushed: u64,
    /// Number of archives of days that have not ended.
    open: u64,
    /// Archives that are pushed now, and those with an earlier push that has not completed.
    archives: Vec<PushedDoc<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PushedArchive")]
struct PushedDoc<'a> {
    /// Path of the file, relative to the log.
    #[schemars(regex(pattern = r"^archives/archive_.+\.parquet$"))]
    name: &'a str,
    /// UTC day on which its operations completed.
    day: String,
    /// Number of operations in the archive.
    operations: u64,
    /// Size in bytes.
    bytes: u64,
    /// Destination of the archive. In a dry run it ends with `/`: the file name is decided when
    /// the archive is rewritten, perhaps merged with others of its day.
    destination: &'a str,
    /// The operation that pushes the archive; in a dry run, only if it was logged before.
    operation: Option<PushDoc>,
    /// True if the push was logged before.
    existing: bool,
}

/// The operation that pushes an archive.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PushOperation")]
struct PushDoc {
    /// Id of the operation.
    operation_id: AsDisplay<OperationId>,
    /// Number of the operation in this log.
    #[schemars(range(min = 1))]
    number: u64,
    /// Status of the operation.
    status: AsName<Status>,
}

impl<'a> ArchivePush<'a> {
    /// Returns the document of a report.
    pub fn new(report: &'a PushReport, push: &'a Push, dry_run: bool) -> ArchivePush<'a> {
        let archives = report.archives.iter().map(|archive| PushedDoc {
            name: &archive.name,
            day: date(archive.day),
            operations: archive.rows,
            bytes: archive.bytes,
            destination: &archive.to,
            operation: archive.operation.map(|push| PushDoc {
                operation_id: AsDisplay(push.id),
                number: push.number.get(),
                status: AsName(push.status),
            }),
            existing: archive.existing,
        });
        ArchivePush {
            dry_run,
            host: push.host(),
            backend: push.backend(),
            logged: report.logged(),
            pushed: report.pushed,
            open: report.open,
            archives: archives.collect(),
        }
    }
}

/// The archives of a log.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ArchiveList<'a> {
    /// The archives, oldest first.
    archives: Vec<ListedDoc<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListedArchive", transform = unfinished_pushes_have_an_operation)]
struct ListedDoc<'a> {
    /// Path of the file, relative to the log.
    #[schemars(regex(pattern = r"^archives/archive_.+\.parquet$"))]
    name: &'a str,
    /// UTC day on which its operations completed.
    day: String,
    /// Number of operations in the archive.
    operations: u64,
    /// Size in bytes.
    bytes: u64,
    /// State of the archive: `open` (its day has not ended), `closed` (ready to be pushed),
    /// `pushing`, `failed`, `pushed`, or `bare` (only records that others were pushed; it stays).
    #[schemars(extend("enum" = ["open", "closed", "pushing", "failed", "pushed", "bare"]))]
    state: OpenCode<'a>,
    /// Destination of the archive; null until it is decided.
    destination: Option<&'a str>,
    /// The operation that pushes the archive; null once it has completed.
    operation: Option<PushDoc>,
}

impl<'a> ArchiveList<'a> {
    /// Returns the document of these archives.
    pub fn new(archives: &'a [Archive]) -> ArchiveList<'a> {
        let archives = archives.iter().map(|archive| {
            let operation = archive.state.operation().map(|operation| PushDoc {
                operation_id: AsDisplay(operation.id),
                number: operation.number.get(),
                status: AsName(operation.status()),
            });
            ListedDoc {
                name: archive.name(),
                day: date(archive.day),
                operations: archive.operations(),
                bytes: archive.bytes(),
                state: OpenCode(archive.state.as_str()),
                destination: archive.to.as_deref(),
                operation,
            }
        });
        ArchiveList { archives: archives.collect() }
    }
}

/// Adds the rule that only a logged push has an operation.
fn dry_runs_log_nothing(schema: &mut Schema) {
    let each = |operation: Value| json!({ "properties": { "archives": { "items": operation } } });
    let logged = json!({ "properties": { "operation": { "type": "object" } } });
    let not_logged = json!({ "properties": { "operation": { "type": "null" } } });
    let logged_before = json!({ "properties": { "existing": { "const": true } } });
    schema.insert("if".into(), json!({ "properties": { "dry_run": { "const": true } } }));
    schema.insert(
        "then".into(),
        each(json!({ "if": logged_before, "then": &logged, "else": not_logged })),
    );
    schema.insert("else".into(), each(logged));
}

/// Adds the rule that an archive has an operation exactly while its push is unfinished.
fn unfinished_pushes_have_an_operation(schema: &mut Schema) {
    schema.insert(
        "if".into(),
        json!({ "properties": { "state": { "enum": ["pushing", "failed"] } } }),
    );
    schema.insert("then".into(), json!({ "properties": { "operation": { "type": "object" } } }));
    schema.insert("else".into(), json!({ "properties": { "operation": { "type": "null" } } }));
}

/// Returns the UTC date of a time, as `YYYY-MM-DD`.
pub fn date(day: Time) -> String {
    let text = day.to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}
