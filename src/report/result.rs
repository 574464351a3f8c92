use std::io::{self, Write};

use super::text::visible;
use super::{Paint, Style};
use crate::operation::{Operation, State, Status};

/// What an operation is about, in one line: its path, CID or source, and where that goes.
pub fn subject(operation: &Operation) -> String {
    let get = |name: &str| operation.parameters.get(name).map(|text| visible(text));
    let what = get("path").or_else(|| get("cid")).or_else(|| get("source"));
    match (what, get("destination")) {
        (Some(what), Some(destination)) => format!("{what} → {destination}"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => {
            let all: Vec<_> = operation.parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
            visible(&all.join(" "))
        }
    }
}

/// What came of it, in one word: a CID, a type of error, or `-`.
pub fn verdict(operation: &Operation) -> String {
    match &operation.state {
        State::Completed { outcome, .. } => outcome.cid.clone(),
        state => state.failure().map(|failure| failure.error_type.clone()),
    }
    .unwrap_or_else(|| "-".into())
}

/// One line: number, status, CID or type of error, and what it is about; with a failure, what was said.
pub fn write_result(out: &mut impl Write, operation: &Operation, style: &Style) -> io::Result<()> {
    let status = operation.status();
    // Padded before it is painted: colours take no columns.
    let word = Paint::of(status).on(&format!("{:<10}", status.as_str()), style.color);
    write!(out, "{:>5}  {word}  {}  {}", operation.number, verdict(operation), subject(operation))?;
    match operation.state.failure() {
        Some(failure) if status != Status::Processing => writeln!(out, ": {}", visible(&failure.message)),
        _ => writeln!(out),
    }
}
