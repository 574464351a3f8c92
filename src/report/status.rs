//! The text of `status`.

use std::io::{self, Write};
use std::path::Path;

use super::health::{history_marks, paint_of};
use super::text::{ago, bytes, plural};
use super::{Cell, Color, Style, Table};
use crate::client::{FileCounts, LogStatus, OldestPending, StatusCounts};
use crate::operation::Status;

/// Writes the output of `status` for people.
pub fn write_status(
    out: &mut impl Write,
    stats: &LogStatus,
    base_path: &Path,
    style: &Style,
) -> io::Result<()> {
    let mut counts = Table::new(*style);
    let words = Status::ALL.map(|status| status.as_str().to_uppercase());
    let head = std::iter::once(String::new()).chain(words).chain(["TOTAL".to_owned()]);
    counts.row(head.map(|word| Cell::right(word).color(Color::Bold)).collect());
    for (name, of) in &stats.backends {
        counts.row(count_cells(name.as_str(), of));
    }
    if stats.backends.len() != 1 {
        counts.row(count_cells("all", &stats.counts));
    }
    out.write_all(counts.render().as_bytes())?;
    writeln!(out)?;

    let mut facts = Table::new(*style);
    let mut fact = |name: &str, text: String, paint| {
        facts.row(vec![Cell::painted(name, Color::Faint), Cell::painted(text, paint)]);
    };
    fact(
        "running",
        match &stats.processing {
            Some(note) => {
                format!(
                    "`{}`, pid {} on {}, since {}",
                    note.command,
                    note.pid,
                    note.host,
                    ago(style.now, note.since)
                )
            }
            None => "nothing".into(),
        },
        if stats.processing.is_some() { Color::Ok } else { Color::Plain },
    );
    if let Some(OldestPending { number, logged_at: at }) = stats.oldest_pending {
        fact("oldest pending", format!("{number}, logged {}", ago(style.now, at)), Color::Plain);
    }
    for health in &stats.health {
        let checked = health
            .last_check
            .map(|time| format!(", checked {}", ago(style.now, time)))
            .unwrap_or_default();
        let marks = history_marks(&health.check_history);
        let text = format!("{} {marks}{checked}", health.status.as_str());
        fact(&format!("{} is", health.backend), text, paint_of(health.status));
    }
    let FileCounts { partitions, archives } = stats.files;
    let mut log = format!(
        "{} in the journal, {}",
        bytes(stats.journal_bytes),
        plural(partitions, "partition")
    );
    if archives > 0 {
        log += &format!(", {} with {} completed", plural(archives, "archive"), stats.archived);
    }
    if stats.counts.total() == 0 && partitions + archives == 0 {
        log = "empty: no operation has been logged".into();
    }
    fact("log", log, Color::Plain);
    let free = stats.free_bytes.map_or_else(String::new, |free| format!(", {} free", bytes(free)));
    fact("directory", format!("{}{free}", base_path.display()), Color::Plain);
    if let Some(damage) = &stats.damage {
        fact("damage", damage.to_string(), Color::Error);
    }
    for unread in &stats.unread {
        fact("not adopted", unread.to_string(), Color::Error);
    }
    out.write_all(facts.render().as_bytes())
}

fn count_cells(name: &str, counts: &StatusCounts) -> Vec<Cell> {
    let of = |status| {
        let n = counts.of(status);
        let paint = if n == 0 { Color::Faint } else { Color::of(status) };
        Cell::right(n.to_string()).color(paint)
    };
    std::iter::once(Cell::plain(name))
        .chain(Status::ALL.map(of))
        .chain([Cell::right(counts.total().to_string())])
        .collect()
}
