//! What the drain loop tells, a document per line, and what is told of it.

use schemars::JsonSchema;
use serde::Serialize;

use super::OperationDoc;
use super::words::AsDisplay;
use crate::client::{HolderNote, ProcessReport};
use crate::operation::{BackendName, Operation, Time};

/// A line of `process`: an attempt ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Settled<'a> {
    #[schemars(extend("const" = "settled"))]
    event: &'static str,
    #[serde(flatten)]
    operation: OperationDoc<'a>,
}

impl<'a> Settled<'a> {
    /// An attempt of this operation.
    pub fn new(operation: &'a Operation) -> Settled<'a> {
        Settled { event: "settled", operation: OperationDoc::new(operation) }
    }
}

/// The last line of `process`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Summary<'a> {
    #[schemars(extend("const" = "summary"))]
    event: &'static str,
    /// Operations that were completed.
    completed: u64,
    /// Operations that failed for good.
    failed: u64,
    /// Operations that are to be tried again.
    retrying: u64,
    /// Operations that were given up because somebody asked for it.
    cancelled: u64,
    /// Operations whose backend was away.
    postponed: u64,
    /// Operations that were handed back unfinished.
    handed_back: u64,
    /// Operations that were taken over from a drain loop that had died.
    recovered: u64,
    /// Operations of which nobody knows yet what became of them: their backend is asked again by the next run.
    in_doubt: u64,
    /// Whether it ended because it was asked to.
    stopped: bool,
    /// Whether work is left that was not begun, since the disk has no room for its outcome.
    out_of_room: bool,
    /// Whether work is left that was not begun, since the time of `--max-time` was up.
    out_of_time: bool,
    /// Backends that were away when it ended, and that something waits for.
    away: Vec<&'a BackendName>,
}

impl<'a> Summary<'a> {
    /// The summary of a run.
    pub fn new(report: &'a ProcessReport) -> Summary<'a> {
        let ProcessReport {
            completed,
            failed,
            retrying,
            cancelled,
            postponed,
            handed_back,
            recovered,
            in_doubt,
            ..
        } = *report;
        Summary {
            event: "summary",
            completed,
            failed,
            retrying,
            cancelled,
            postponed,
            handed_back,
            recovered,
            in_doubt,
            stopped: report.stopped,
            out_of_room: report.out_of_room.is_some(),
            out_of_time: report.out_of_time,
            away: report.away.iter().collect(),
        }
    }
}

/// The only line of `process --skip-if-running` while another loop runs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Skipped<'a> {
    #[schemars(extend("const" = "summary"))]
    event: &'static str,
    #[schemars(extend("const" = true))]
    skipped: bool,
    /// The other loop; null if it has just ended.
    processing: Option<HolderDoc<'a>>,
}

impl<'a> Skipped<'a> {
    /// Because of this loop.
    pub fn new(running: Option<&'a HolderNote>) -> Skipped<'a> {
        Skipped { event: "summary", skipped: true, processing: running.map(HolderDoc::new) }
    }
}

/// A running drain loop.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DrainLoop")]
pub struct HolderDoc<'a> {
    /// Its process.
    pid: u32,
    /// Its command.
    command: &'a str,
    /// When it began.
    since: AsDisplay<Time>,
    /// Its machine.
    host: &'a str,
}

impl<'a> HolderDoc<'a> {
    /// The document of a note.
    pub fn new(note: &'a HolderNote) -> HolderDoc<'a> {
        HolderDoc {
            pid: note.pid,
            command: &note.command,
            since: AsDisplay(note.since),
            host: &note.host,
        }
    }
}
