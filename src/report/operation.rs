use std::fmt::Display;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::document::json;
use super::text::{ago, bytes, visible, wrapped};
use super::{Cell, Paint, Style, Table};
use crate::operation::{Claim, Fields, HistoryEntry, Operation, OperationId, Outcome, Source, State, Time};

/// A value that JSON shows as people read it: times, ids, names.
#[derive(Debug)]
pub(super) struct Shown<T>(pub T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An operation as JSON. Names are a contract: fields are added, never renamed; what is absent is null.
#[derive(Debug, Serialize)]
pub struct OperationDoc<'a> {
    operation_id: Shown<OperationId>,
    number: u64,
    operation_type: &'a str,
    backend: &'a str,
    status: &'a str,
    parameters: &'a Fields,
    timestamp: Shown<Time>,
    updated_at: Shown<Time>,
    completed_at: Option<Shown<Time>>,
    result: Option<ResultDoc<'a>>,
    receipt: Option<&'a Fields>,
    error: Option<&'a str>,
    error_type: Option<&'a str>,
    failure_class: Option<&'a str>,
    retry_count: u32,
    max_retries: u32,
    next_retry_at: Option<Shown<Time>>,
    interruptions: u32,
    priority: i32,
    depends_on: Vec<Shown<OperationId>>,
    idempotency_key: Option<&'a str>,
    hold: bool,
    not_before: Option<Shown<Time>>,
    source: Option<SourceDoc<'a>>,
    claim: Option<ClaimDoc<'a>>,
    redirected_from: Option<Shown<OperationId>>,
    redirected_to: Option<Shown<OperationId>>,
    revision: u64,
    history: Vec<HistoryDoc<'a>>,
}

impl Display for OperationDoc<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&json(self))
    }
}

/// An operation in a stream of documents, with what happened to it.
#[derive(Debug, Serialize)]
pub struct OperationEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    operation: OperationDoc<'a>,
}

impl<'a> OperationEvent<'a> {
    /// An attempt of it ended.
    pub fn settled(operation: &'a Operation) -> OperationEvent<'a> {
        OperationEvent { event: "settled", operation: OperationDoc::new(operation) }
    }
}

impl Display for OperationEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&json(self))
    }
}

#[derive(Debug, Serialize)]
struct ResultDoc<'a> {
    cid: Option<&'a str>,
    size: Option<u64>,
    destination: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct SourceDoc<'a> {
    size: u64,
    mtime_ns: i64,
    inode: u64,
    sha256: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ClaimDoc<'a> {
    pid: u32,
    host: &'a str,
    started: Shown<Time>,
}

#[derive(Debug, Serialize)]
struct HistoryDoc<'a> {
    revision: u64,
    at: Shown<Time>,
    from: Option<&'a str>,
    to: &'a str,
    actor: &'a str,
    reason: Option<&'a str>,
    error: Option<&'a str>,
}

impl<'a> OperationDoc<'a> {
    /// The document of an operation.
    pub fn new(operation: &'a Operation) -> OperationDoc<'a> {
        let failure = operation.state.failure();
        let (outcome, completed_at, next_retry_at, claim) = match &operation.state {
            State::Completed { at, outcome } => (Some(outcome), Some(*at), None, None),
            State::Failed { at, .. } => (None, Some(*at), None, None),
            State::Retrying { wait, .. } => (None, None, Some(wait.until), None),
            State::Processing { claim, .. } => (None, None, None, Some(claim)),
            State::Pending { .. } => (None, None, None, None),
        };
        OperationDoc {
            operation_id: Shown(operation.id),
            number: operation.number,
            operation_type: operation.operation_type.as_str(),
            backend: operation.backend.as_str(),
            status: operation.status().as_str(),
            parameters: &operation.parameters,
            timestamp: Shown(operation.logged_at),
            updated_at: Shown(operation.updated_at),
            completed_at: completed_at.map(Shown),
            result: outcome.map(ResultDoc::new),
            receipt: outcome.map(|outcome| &outcome.receipt).filter(|receipt| !receipt.is_empty()),
            error: failure.map(|failure| failure.message.as_str()),
            error_type: failure.map(|failure| failure.error_type.as_str()),
            failure_class: failure.map(|failure| failure.class.as_str()),
            retry_count: operation.retry_count,
            max_retries: operation.max_retries,
            next_retry_at: next_retry_at.map(Shown),
            interruptions: operation.interruptions,
            priority: operation.priority,
            depends_on: operation.depends_on.iter().copied().map(Shown).collect(),
            idempotency_key: operation.idempotency_key.as_deref(),
            hold: operation.hold,
            not_before: operation.not_before.map(Shown),
            source: operation.source.as_ref().map(SourceDoc::new),
            claim: claim.map(ClaimDoc::new),
            redirected_from: operation.redirected_from.map(Shown),
            redirected_to: operation.redirected_to.map(Shown),
            revision: operation.revision,
            history: operation.history.iter().map(HistoryDoc::new).collect(),
        }
    }
}

impl<'a> ResultDoc<'a> {
    fn new(outcome: &'a Outcome) -> ResultDoc<'a> {
        ResultDoc { cid: outcome.cid.as_deref(), size: outcome.size, destination: outcome.destination.as_deref() }
    }
}

impl<'a> SourceDoc<'a> {
    fn new(source: &'a Source) -> SourceDoc<'a> {
        let Source { size, mtime_ns, inode, sha256 } = source;
        SourceDoc { size: *size, mtime_ns: *mtime_ns, inode: *inode, sha256: sha256.as_deref() }
    }
}

impl<'a> ClaimDoc<'a> {
    fn new(claim: &'a Claim) -> ClaimDoc<'a> {
        ClaimDoc { pid: claim.pid, host: &claim.host, started: Shown(claim.started) }
    }
}

impl<'a> HistoryDoc<'a> {
    fn new(entry: &'a HistoryEntry) -> HistoryDoc<'a> {
        HistoryDoc {
            revision: entry.revision,
            at: Shown(entry.at),
            from: entry.from.map(|status| status.as_str()),
            to: entry.to.as_str(),
            actor: &entry.actor,
            reason: entry.reason.as_deref(),
            error: entry.error.as_deref(),
        }
    }
}

/// Everything about an operation, for people: only what is there.
pub fn write_operation(out: &mut impl Write, operation: &Operation, history: bool, style: &Style) -> io::Result<()> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
    let when = |time: Time| format!("{time}  {}", Paint::Faint.on(&format!("({})", ago(style.now, time)), style.color));
    let status = operation.status();
    line("operation", Paint::Bold.on(&operation.number.to_string(), style.color));
    line("id", operation.id.to_string());
    line("status", Paint::of(status).on(status.as_str(), style.color));
    line("type", operation.operation_type.to_string());
    line("backend", operation.backend.to_string());
    for (name, value) in &operation.parameters {
        line(name, visible(value));
    }
    match &operation.state {
        State::Completed { outcome, .. } => {
            for (name, value) in [("cid", &outcome.cid), ("written to", &outcome.destination)] {
                if let Some(value) = value {
                    line(name, visible(value));
                }
            }
            if let Some(size) = outcome.size {
                line("size", format!("{} ({size} bytes)", bytes(size)));
            }
            for (name, value) in &outcome.receipt {
                line(name, visible(value));
            }
        }
        State::Processing { claim, .. } => {
            line("claimed by", format!("pid {} on {}", claim.pid, claim.host));
            line("claimed", when(claim.started));
        }
        State::Retrying { wait, .. } => line("next attempt", when(wait.until)),
        State::Pending { .. } | State::Failed { .. } => {}
    }
    if let Some(failure) = operation.state.failure() {
        let name = if status.is_waiting() || !status.is_terminal() { "last error" } else { "error" };
        line(name, visible(&failure.message));
        line("error type", format!("{} ({})", failure.error_type, failure.class.as_str()));
    }
    if operation.retry_count > 0 || operation.state.failure().is_some() {
        line("retries", format!("{} of {}", operation.retry_count, operation.max_retries));
    }
    if operation.interruptions > 0 {
        line("interruptions", operation.interruptions.to_string());
    }
    if operation.priority != 0 {
        line("priority", operation.priority.to_string());
    }
    if operation.hold {
        line("held", "yes".into());
    }
    if let Some(key) = &operation.idempotency_key {
        line("key", visible(key));
    }
    if let Some(time) = operation.not_before {
        line("not before", when(time));
    }
    for id in &operation.depends_on {
        line("after", id.to_string());
    }
    for (name, id) in [("made from", operation.redirected_from), ("went on as", operation.redirected_to)] {
        if let Some(id) = id {
            line(name, id.to_string());
        }
    }
    if let Some(source) = &operation.source {
        line("source size", format!("{} ({} bytes) when it was logged", bytes(source.size), source.size));
    }
    line("logged", when(operation.logged_at));
    if operation.updated_at != operation.logged_at {
        line(if status.is_terminal() { status.as_str() } else { "updated" }, when(operation.updated_at));
    }
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in lines {
        write!(out, "{}", Paint::Faint.on(&format!("{name:<width$}"), style.color))?;
        // Sentences only: a path is copied more easily when nothing breaks it.
        let is_text = name.ends_with("error");
        let room = style.width.filter(|_| is_text).map_or(usize::MAX, |columns| columns.saturating_sub(width + 2));
        for (at, part) in wrapped(&value, room).into_iter().enumerate() {
            let indent = if at == 0 { 2 } else { width + 2 };
            writeln!(out, "{:indent$}{part}", "")?;
        }
    }
    if history {
        writeln!(out)?;
        out.write_all(history_table(&operation.history, style).as_bytes())?;
    }
    Ok(())
}

fn history_table(history: &[HistoryEntry], style: &Style) -> String {
    let mut table = Table::new(*style);
    table.row(["AT", "STATUS", "BY", "WHY"].map(|name| Cell::painted(name, Paint::Bold)).into());
    for entry in history {
        let why = match (&entry.reason, &entry.error) {
            (Some(reason), Some(error)) => format!("{reason}: {error}"),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => String::new(),
        };
        table.row(vec![
            Cell::plain(entry.at.to_string()),
            Cell::painted(entry.to.as_str(), Paint::of(entry.to)),
            Cell::plain(&entry.actor),
            Cell::shrinking(why),
        ]);
    }
    table.render()
}
