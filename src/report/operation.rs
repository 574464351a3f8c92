//! The panel of `show`: everything about one operation.

use std::io::{self, Write};

use super::text::{ago, bytes, span, visible, wrapped};
use super::{Cell, Color, Style, Table};
use crate::client::Progress;
use crate::operation::{HistoryEntry, Operation, OperationId, State, Status, Time};

/// Writes everything that is known about an operation; fields without a value are left out.
///
/// `lookup` finds the operations that it refers to.
pub fn write_operation(
    out: &mut impl Write,
    operation: &Operation,
    progress: Option<Progress>,
    lookup: impl Fn(OperationId) -> Option<Operation>,
    history: bool,
    style: &Style,
) -> io::Result<()> {
    let mut panel = Panel { style, lines: Vec::new() };
    panel.identity(operation);
    panel.state(operation, progress);
    panel.failure(operation);
    panel.conditions(operation);
    panel.relations(operation, &lookup);
    panel.times(operation);
    panel.write(out)?;
    if history {
        writeln!(out)?;
        out.write_all(history_table(&operation.history, style).as_bytes())?;
    }
    Ok(())
}

/// Names and values, one pair per line.
struct Panel<'a> {
    style: &'a Style,
    lines: Vec<(String, String)>,
}

impl Panel<'_> {
    fn line(&mut self, name: &str, value: impl Into<String>) {
        self.lines.push((name.to_owned(), value.into()));
    }

    fn time(&mut self, name: &str, time: Time) {
        let relative = format!("({})", ago(self.style.now, time));
        let value = format!("{time}  {}", Color::Faint.on(&relative, self.style.color));
        self.line(name, value);
    }

    fn identity(&mut self, operation: &Operation) {
        let status = operation.status();
        let number = Color::Bold.on(&operation.number.to_string(), self.style.color);
        self.line("operation", number);
        self.line("id", operation.id.to_string());
        self.line("status", Color::of(status).on(status.as_str(), self.style.color));
        self.line("type", operation.operation_type.to_string());
        self.line("backend", operation.backend.to_string());
        for (name, value) in &operation.parameters {
            self.line(name, visible(value));
        }
    }

    fn state(&mut self, operation: &Operation, progress: Option<Progress>) {
        match &operation.state {
            State::Completed { outcome, .. } => {
                for (name, value) in [("cid", &outcome.cid), ("written to", &outcome.destination)] {
                    if let Some(value) = value {
                        self.line(name, visible(value));
                    }
                }
                if let Some(size) = outcome.size {
                    self.line("size", exact_size(size));
                }
                for (name, value) in &outcome.receipt {
                    let mut parts = value.split('\n').filter(|part| !part.is_empty());
                    self.line(name, visible(parts.next().unwrap_or_default()));
                    parts.for_each(|part| self.line("", visible(part)));
                }
            }
            State::Processing { claim, .. } => {
                self.line("claimed by", format!("pid {} on {}", claim.pid, claim.host));
                self.time("claimed", claim.started);
                if let Some(progress) = progress {
                    self.line("transferred", transferred(progress));
                }
            }
            State::Retrying { wait, .. } => self.time("next attempt", wait.until),
            State::Pending { .. } | State::Failed { .. } => {}
        }
    }

    fn failure(&mut self, operation: &Operation) {
        let status = operation.status();
        if let Some(failure) = operation.state.failure() {
            let is_past = status.is_waiting() || !status.is_terminal();
            self.line(if is_past { "last error" } else { "error" }, visible(&failure.message));
            let class = failure.class.as_str();
            self.line("error type", format!("{} ({class})", failure.error_type));
        }
        if operation.retry_count > 0 || operation.state.failure().is_some() {
            let retries = format!("{} of {}", operation.retry_count, operation.max_retries);
            self.line("retries", retries);
        }
        if operation.interruptions > 0 {
            self.line("interruptions", operation.interruptions.to_string());
        }
    }

    fn conditions(&mut self, operation: &Operation) {
        if operation.priority != 0 {
            self.line("priority", operation.priority.to_string());
        }
        if operation.hold {
            self.line("held", "yes");
        }
        if let Some(key) = &operation.idempotency_key {
            self.line("key", visible(key));
        }
        if let Some(time) = operation.not_before {
            self.time("not before", time);
        }
    }

    fn relations(
        &mut self,
        operation: &Operation,
        lookup: &impl Fn(OperationId) -> Option<Operation>,
    ) {
        let describe = |id: OperationId| match lookup(id) {
            Some(other) => format!("{} ({}), {id}", other.number, other.status()),
            None => format!("{id}, which has been deleted"),
        };
        for id in &operation.depends_on {
            self.line("after", describe(*id));
        }
        if let Some(id) = operation.redirected_from {
            self.line("replaces", describe(id));
        }
        if let Some(id) = operation.redirected_to {
            self.line("replaced by", describe(id));
        }
        if let Some(source) = &operation.source {
            let is_spooled = source.spool.is_some() && operation.status() != Status::Completed;
            let copy = if is_spooled { "; a copy is in the log" } else { "" };
            let size = exact_size(source.size);
            self.line("source size", format!("{size} when it was logged{copy}"));
        }
    }

    fn times(&mut self, operation: &Operation) {
        self.time("logged", operation.logged_at);
        let ended = match &operation.state {
            State::Completed { at, .. } | State::Failed { at, .. } => Some(*at),
            State::Pending { .. } | State::Processing { .. } | State::Retrying { .. } => None,
        };
        if let Some(at) = ended {
            self.time(operation.status().as_str(), at);
        }
        if operation.updated_at != operation.logged_at && ended != Some(operation.updated_at) {
            self.time("updated", operation.updated_at);
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = self.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in &self.lines {
            let padded = format!("{name:<width$}");
            write!(out, "{}", Color::Faint.on(&padded, self.style.color))?;
            // Only sentences are wrapped: a path can be copied more easily when it is not broken.
            let columns = self.style.width.filter(|_| name.ends_with("error"));
            let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(width + 2));
            for (at, part) in wrapped(value, room).into_iter().enumerate() {
                let indent = if at == 0 { 2 } else { width + 2 };
                writeln!(out, "{:indent$}{part}", "")?;
            }
        }
        Ok(())
    }
}

fn transferred(progress: Progress) -> String {
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

/// Returns a size in a readable unit and, where that is rounded, in bytes.
fn exact_size(size: u64) -> String {
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
