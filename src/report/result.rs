//! The result of an operation on one line.

use std::io::{self, Write};

use super::text::{shortened, visible, width};
use super::{Color, Style};
use crate::operation::{Failure, FailureClass, Fields, Operation, State, Status};

/// Returns the subject of an operation in one line: its path, CID or source, and destination.
pub fn summary(operation: &Operation) -> String {
    summary_of(&operation.parameters)
}

/// Returns the subject of an operation with these parameters, in one line.
pub fn summary_of(parameters: &Fields) -> String {
    let get = |name: &str| parameters.get(name).map(|text| visible(text));
    let what = get("path").or_else(|| get("cid")).or_else(|| get("source"));
    match (what, get("destination")) {
        (Some(what), Some(destination)) => format!("{what} → {destination}"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => {
            let all: Vec<_> =
                parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
            visible(&all.join(" "))
        }
    }
}

/// Returns the outcome in one word: a CID, an error type, the reason for waiting, or `-`.
pub fn outcome_word(operation: &Operation) -> String {
    match &operation.state {
        State::Completed { outcome, .. } => outcome.cid.clone(),
        State::Processing { cancel_requested: true, .. } => Some("stopping".into()),
        _ if operation.hold && !operation.status().is_terminal() => Some("held".into()),
        _ if operation.status().is_waiting() && !operation.depends_on.is_empty() => {
            Some("waits".into())
        }
        _ if operation.redirected_to.is_some() => Some("redirected".into()),
        _ => current_failure(operation).map(|failure| failure.error_type.clone()),
    }
    .unwrap_or_else(|| "-".into())
}

/// Returns the failure that explains the current status. For a running operation, or one that a
/// user returned to the queue, the last failure is history.
fn current_failure(operation: &Operation) -> Option<&Failure> {
    let failure = operation.state.failure()?;
    match operation.status() {
        Status::Failed | Status::Retrying => Some(failure),
        Status::Pending if failure.class == FailureClass::Outage => Some(failure),
        Status::Pending | Status::Processing | Status::Completed => None,
    }
}

/// Writes number, status, outcome and subject, or the failure's message, on one line.
pub fn write_result(out: &mut impl Write, operation: &Operation, style: &Style) -> io::Result<()> {
    let status = operation.status();
    let outcome_word = outcome_word(operation);
    // Padded before it is coloured: escape sequences take no columns.
    let word = Color::of(status).on(&format!("{:<10}", status.as_str()), style.color);
    write!(out, "{:>5}  {word}  {outcome_word}  ", operation.number)?;
    let summary = summary(operation);
    match current_failure(operation).filter(|failure| outcome_word == failure.error_type) {
        // The message usually names the subject.
        Some(failure) if names(&failure.message, operation) => {
            writeln!(out, "{}", visible(&failure.message))
        }
        Some(failure) => writeln!(out, "{summary}: {}", visible(&failure.message)),
        None => {
            let used = 5 + 2 + 10 + 2 + width(&outcome_word) + 2;
            let room = style
                .width
                .map_or(usize::MAX, |columns| columns.saturating_sub(used).max(MIN_WIDTH));
            writeln!(out, "{}", shortened(&summary, room))
        }
    }
}

/// Writes the listing of a completed `list` operation that has no destination, one line per entry.
pub fn write_listing(out: &mut impl Write, operation: &Operation) -> io::Result<()> {
    let State::Completed { outcome, .. } = &operation.state else { return Ok(()) };
    let lines = outcome.receipt.get("listing").map(|listing| listing.lines());
    lines.into_iter().flatten().try_for_each(|line| writeln!(out, "{}", visible(line)))
}

/// The smallest width to which a subject is shortened.
const MIN_WIDTH: usize = 12;

fn names(message: &str, operation: &Operation) -> bool {
    ["path", "source", "cid"]
        .iter()
        .filter_map(|name| operation.parameters.get(*name))
        .next()
        .is_some_and(|summary| message.contains(summary.as_str()))
}
