use std::io::{self, Write};

use super::text::{ago, bytes, span, visible, wrapped};
use super::{Cell, Color, Style, Table};
use crate::client::Progress;
use crate::operation::{HistoryEntry, Operation, OperationId, State, Status, Time};

/// Everything about an operation, for people: only what is there. `known` tells of the operations that it names.
pub fn write_operation(
    out: &mut impl Write,
    operation: &Operation,
    progress: Option<Progress>,
    known: impl Fn(OperationId) -> Option<Operation>,
    history: bool,
    style: &Style,
) -> io::Result<()> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
    let when = |time: Time| {
        format!("{time}  {}", Color::Faint.on(&format!("({})", ago(style.now, time)), style.color))
    };
    let named = |id: OperationId| match known(id) {
        Some(other) => format!("{} ({}), {id}", other.number, other.status()),
        None => format!("{id}, which is gone"),
    };
    let status = operation.status();
    line("operation", Color::Bold.on(&operation.number.to_string(), style.color));
    line("id", operation.id.to_string());
    line("status", Color::of(status).on(status.as_str(), style.color));
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
                line("size", exactly(size));
            }
            for (name, value) in &outcome.receipt {
                let mut parts = value.split('\n').filter(|part| !part.is_empty());
                line(name, visible(parts.next().unwrap_or_default()));
                parts.for_each(|part| line("", visible(part)));
            }
        }
        State::Processing { claim, .. } => {
            line("claimed by", format!("pid {} on {}", claim.pid, claim.host));
            line("claimed", when(claim.started));
            if let Some(progress) = progress {
                line("moved", moved(progress));
            }
        }
        State::Retrying { wait, .. } => line("next attempt", when(wait.until)),
        State::Pending { .. } | State::Failed { .. } => {}
    }
    if let Some(failure) = operation.state.failure() {
        let name =
            if status.is_waiting() || !status.is_terminal() { "last error" } else { "error" };
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
        line("after", named(*id));
    }
    for (name, id) in
        [("made from", operation.redirected_from), ("went on as", operation.redirected_to)]
    {
        if let Some(id) = id {
            line(name, named(id));
        }
    }
    if let Some(source) = &operation.source {
        let copied = if source.spool.is_some() && status != Status::Completed {
            "; a copy is in the log"
        } else {
            ""
        };
        line("source size", format!("{} when it was logged{copied}", exactly(source.size)));
    }
    line("logged", when(operation.logged_at));
    let ended = match &operation.state {
        State::Completed { at, .. } | State::Failed { at, .. } => Some(*at),
        _ => None,
    };
    if let Some(at) = ended {
        line(status.as_str(), when(at));
    }
    if operation.updated_at != operation.logged_at && ended != Some(operation.updated_at) {
        line("updated", when(operation.updated_at));
    }
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in lines {
        write!(out, "{}", Color::Faint.on(&format!("{name:<width$}"), style.color))?;
        // Sentences only: a path is copied more easily when nothing breaks it.
        let is_text = name.ends_with("error");
        let room = style
            .width
            .filter(|_| is_text)
            .map_or(usize::MAX, |columns| columns.saturating_sub(width + 2));
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

fn moved(progress: Progress) -> String {
    let Progress { bytes_done, bytes_total, bytes_per_second } = progress;
    let mut text = bytes(bytes_done);
    if let Some(total) = bytes_total {
        text += &format!(
            " of {} ({}%)",
            bytes(total),
            bytes_done.saturating_mul(100).checked_div(total).unwrap_or(100)
        );
    }
    text += &format!(", {}/s", bytes(bytes_per_second));
    if let Some(left) = progress.seconds_left() {
        text += &format!(
            ", {} left",
            span(i64::try_from(left.saturating_mul(1000)).unwrap_or(i64::MAX))
        );
    }
    text
}

/// An amount for people and, where that is another figure, in bytes.
fn exactly(size: u64) -> String {
    if size < 1024 { bytes(size) } else { format!("{} ({size} bytes)", bytes(size)) }
}

fn history_table(history: &[HistoryEntry], style: &Style) -> String {
    let mut table = Table::new(*style);
    table.row(["AT", "STATUS", "BY", "WHY"].map(|name| Cell::painted(name, Color::Bold)).into());
    for entry in history {
        let why = match (&entry.reason, &entry.error) {
            (Some(reason), Some(error)) => format!("{reason}: {error}"),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => String::new(),
        };
        table.row(vec![
            Cell::plain(entry.at.to_string()),
            Cell::painted(entry.to.as_str(), Color::of(entry.to)),
            Cell::plain(&entry.actor),
            Cell::elastic(why),
        ]);
    }
    table.render()
}
