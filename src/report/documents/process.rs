//! The documents of `process`, one per line, and the drain loop as other commands show it.

use schemars::JsonSchema;
use serde::Serialize;

use super::OperationDoc;
use super::words::AsDisplay;
use crate::client::{HolderNote, ProcessReport};
use crate::operation::{BackendName, Operation, Time};

/// A line of `process`: an attempt has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Settled<'a> {
    #[schemars(extend("const" = "settled"))]
    event: &'static str,
    #[serde(flatten)]
    operation: OperationDoc<'a>,
}

impl<'a> Settled<'a> {
    /// Returns the line for an attempt of this operation.
    pub fn new(operation: &'a Operation) -> Settled<'a> {
        Settled { event: "settled", operation: OperationDoc::new(operation) }
    }
}

/// The last line of `process`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Summary<'a> {
    #[schemars(extend("const" = "summary"))]
    event: &'static str,
    /// Number of operations completed.
    completed: u64,
    /// Number of operations that failed and will not be retried.
    failed: u64,
    /// Number of operations that will be retried.
    retrying: u64,
    /// Number of operations cancelled on request.
    cancelled: u64,
    /// Number of operations postponed because their backend was unreachable.
    postponed: u64,
    /// Number of claimed operations returned to the queue unfinished.
    handed_back: u64,
    /// Number of operations recovered from a drain loop that had died.
    recovered: u64,
    /// Number of operations with an unknown outcome; the next run asks their backend again.
    in_doubt: u64,
    /// True if the run ended because a signal asked it to.
    stopped: bool,
    /// True if due operations were not started because the disk has no room for their outcome.
    out_of_room: bool,
    /// True if due operations were not started because `--max-time` had passed.
    out_of_time: bool,
    /// Backends that were unreachable at the end of the run and have operations waiting.
    away: Vec<&'a BackendName>,
}

impl<'a> Summary<'a> {
    /// Returns the summary of a run.
    pub fn new(report: &'a ProcessReport) -> Summary<'a> {
        Summary {
            event: "summary",
            completed: report.completed,
            failed: report.failed,
            retrying: report.retrying,
            cancelled: report.cancelled,
            postponed: report.postponed,
            handed_back: report.handed_back,
            recovered: report.recovered,
            in_doubt: report.in_doubt,
            stopped: report.stopped,
            out_of_room: report.out_of_room.is_some(),
            out_of_time: report.out_of_time,
            away: report.unreachable.iter().collect(),
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
    /// The running drain loop; null if it has just ended.
    processing: Option<HolderDoc<'a>>,
}

impl<'a> Skipped<'a> {
    /// Returns the line for a run that was skipped because of `running`.
    pub fn new(running: Option<&'a HolderNote>) -> Skipped<'a> {
        Skipped { event: "summary", skipped: true, processing: running.map(HolderDoc::new) }
    }
}

/// A running drain loop.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DrainLoop")]
pub struct HolderDoc<'a> {
    /// Process id.
    pid: u32,
    /// Command of the process.
    command: &'a str,
    /// Start time of the drain loop.
    since: AsDisplay<Time>,
    /// Host name.
    host: &'a str,
}

impl<'a> HolderDoc<'a> {
    /// Returns the document of a lock note.
    pub fn new(note: &'a HolderNote) -> HolderDoc<'a> {
        HolderDoc {
            pid: note.pid,
            command: &note.command,
            since: AsDisplay(note.since),
            host: &note.host,
        }
    }
}
