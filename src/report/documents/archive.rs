//! What `archive push` and `archive list` print.

use schemars::JsonSchema;
use serde::Serialize;

use super::words::{Named, Shown, Word};
use crate::client::{Archive, Push, PushReport};
use crate::operation::{BackendName, OperationId, Status, Time};

/// What a push logged, or would log.
#[derive(Debug, Serialize, JsonSchema)]
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
    /// Where it goes. In a dry run with a `/` at the end: it is joined with others of its day first.
    destination: &'a str,
    /// The operation that pushes it; none in a dry run.
    operation_id: Option<Shown<OperationId>>,
    /// Its number.
    number: Option<u64>,
    /// Where it stands.
    status: Option<Named<Status>>,
    /// Whether it was logged before.
    existing: bool,
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
            operation_id: archive.operation.map(|(_, id, _)| Shown(id)),
            number: archive.operation.map(|(number, _, _)| number),
            status: archive.operation.map(|(_, _, status)| Named(status)),
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
#[schemars(rename = "ListedArchive")]
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
    state: Word<'a>,
    /// Where it goes or went, once that is decided.
    destination: Option<&'a str>,
    /// The operation that pushes it, as long as that is not completed.
    operation_id: Option<Shown<OperationId>>,
    /// Its number.
    number: Option<u64>,
    /// Where it stands.
    status: Option<Named<Status>>,
}

impl<'a> ArchiveList<'a> {
    /// The document of these.
    pub fn new(archives: &'a [Archive]) -> ArchiveList<'a> {
        let archives = archives.iter().map(|archive| {
            let operation = archive.standing.operation();
            ListedDoc {
                name: &archive.file.name,
                day: date(archive.day),
                operations: archive.file.live(),
                bytes: archive.file.bytes,
                state: Word(archive.standing.as_str()),
                destination: archive.to.as_deref(),
                operation_id: operation.map(|operation| Shown(operation.id)),
                number: operation.map(|operation| operation.number),
                status: operation.map(|operation| Named(operation.status())),
            }
        });
        ArchiveList { archives: archives.collect() }
    }
}

/// The UTC date of an instant.
pub fn date(day: Time) -> String {
    let text = day.to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}
