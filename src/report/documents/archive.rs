//! What `archive push` and `archive list` print.

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Value, json};

use super::words::{AsDisplay, AsName, OpenCode};
use crate::client::{Archive, Push, PushReport};
use crate::operation::{BackendName, OperationId, Status, Time};

/// What a push logged, or would log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(transform = dry_runs_log_nothing)]
pub struct ArchivePush<'a> {
    /// Whether this only says what would be pushed.
    dry_run: bool,
    /// What this machine is called in the history.
    host: &'a str,
    /// Who carries it out.
    backend: &'a BackendName,
    /// How many operations were logged, or would be.
    logged: u64,
    /// Archives that are there already.
    pushed: u64,
    /// Archives of days that are not over.
    open: u64,
    /// Archives that are pushed now, and those whose push was logged before and is not completed.
    archives: Vec<PushedDoc<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PushedArchive")]
struct PushedDoc<'a> {
    /// Its path in the folder of the log.
    #[schemars(regex(pattern = r"^archives/archive_.+\.parquet$"))]
    name: &'a str,
    /// The UTC day on which its operations were completed.
    day: String,
    /// Operations in it.
    operations: u64,
    /// Its size.
    bytes: u64,
    /// Where it goes. In a dry run with a `/` at the end: it is written anew first, joined with others of its day perhaps.
    destination: &'a str,
    /// The operation that pushes it; in a dry run, only if it was logged before.
    operation: Option<PushDoc>,
    /// Whether it was logged before.
    existing: bool,
}

/// The operation that pushes an archive.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PushOperation")]
struct PushDoc {
    /// Its id.
    operation_id: AsDisplay<OperationId>,
    /// Its number in this log.
    #[schemars(range(min = 1))]
    number: u64,
    /// Where it stands.
    status: AsName<Status>,
}

impl<'a> ArchivePush<'a> {
    /// The document of a report.
    pub fn new(report: &'a PushReport, push: &'a Push, dry_run: bool) -> ArchivePush<'a> {
        let archives = report.archives.iter().map(|archive| PushedDoc {
            name: &archive.name,
            day: date(archive.day),
            operations: archive.rows,
            bytes: archive.bytes,
            destination: &archive.to,
            operation: archive.operation.map(|(number, id, status)| PushDoc {
                operation_id: AsDisplay(id),
                number: number.get(),
                status: AsName(status),
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
    /// In the order of the log.
    archives: Vec<ListedDoc<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListedArchive", transform = what_is_under_way_has_an_operation)]
struct ListedDoc<'a> {
    /// Its path in the folder of the log.
    #[schemars(regex(pattern = r"^archives/archive_.+\.parquet$"))]
    name: &'a str,
    /// The UTC day on which its operations were completed.
    day: String,
    /// Operations in it.
    operations: u64,
    /// Its size.
    bytes: u64,
    /// How far it has come: `open` (its day is not over), `closed` (it can be pushed), `pushing`, `failed`, `pushed`,
    /// or `bare` (it only says that others were pushed, and stays).
    #[schemars(extend("enum" = ["open", "closed", "pushing", "failed", "pushed", "bare"]))]
    state: OpenCode<'a>,
    /// Where it goes or went, once that is decided.
    destination: Option<&'a str>,
    /// The operation that pushes it, as long as that is not completed.
    operation: Option<PushDoc>,
}

impl<'a> ArchiveList<'a> {
    /// The document of these.
    pub fn new(archives: &'a [Archive]) -> ArchiveList<'a> {
        let archives = archives.iter().map(|archive| {
            let operation = archive.standing.operation().map(|operation| PushDoc {
                operation_id: AsDisplay(operation.id),
                number: operation.number.get(),
                status: AsName(operation.status()),
            });
            ListedDoc {
                name: &archive.file.name,
                day: date(archive.day),
                operations: archive.file.live(),
                bytes: archive.file.bytes,
                state: OpenCode(archive.standing.as_str()),
                destination: archive.to.as_deref(),
                operation,
            }
        });
        ArchiveList { archives: archives.collect() }
    }
}

/// Only what was logged has an operation.
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

fn what_is_under_way_has_an_operation(schema: &mut Schema) {
    schema.insert(
        "if".into(),
        json!({ "properties": { "state": { "enum": ["pushing", "failed"] } } }),
    );
    schema.insert("then".into(), json!({ "properties": { "operation": { "type": "object" } } }));
    schema.insert("else".into(), json!({ "properties": { "operation": { "type": "null" } } }));
}

/// The UTC date of an instant.
pub fn date(day: Time) -> String {
    let text = day.to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}
