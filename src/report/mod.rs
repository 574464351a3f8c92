//! Output: tables and panels for people, JSON documents for scripts.
//!
//! Pure: all inputs, including the current time, are arguments; output goes to an `impl Write`.

mod archive;
mod audit;
mod bench;
mod documents;
mod failures;
mod health;
mod operation;
mod plan;
mod process;
mod result;
mod schema;
mod status;
mod table;
mod text;
mod verify;

pub use archive::{archive_table, pushed_table};
pub use audit::write_audit;
pub use bench::{write_append, write_batch, write_bench_verify, write_floor};
pub use documents::*;
pub use failures::write_failures;
pub use health::{health_line, write_health};
pub use operation::write_operation;
pub use plan::write_plan;
pub use process::{process_counts, process_summary};
pub use result::{outcome_word, summary, write_listing, write_result};
pub use schema::COMMANDS;
#[cfg(feature = "test-util")]
pub use schema::CommandSchema;
pub use status::write_status;
pub use table::{Cell, Table};
#[cfg(feature = "test-util")]
pub use text::ago;
pub use text::{bytes, plural, shortened, span, visible, wrapped};
pub use verify::{write_durability, write_findings, write_repaired, write_verified};

use crate::operation::{Operation, Status, Time};

/// Options for text output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// True if colours may be used.
    pub color: bool,
    /// Width of the terminal in columns. `None` if the output is not a terminal: then nothing is
    /// shortened, and tables have fixed columns.
    pub width: Option<usize>,
    /// The current time.
    pub now: Time,
}

/// A colour with a meaning. Colour is never the only carrier of a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// No colour.
    Plain,
    /// A heading.
    Bold,
    /// Less important text.
    Faint,
    /// Success.
    Ok,
    /// Work in progress, or a warning.
    Warn,
    /// A failure.
    Error,
}

impl Color {
    /// Returns the colour of a status.
    pub fn of(status: Status) -> Color {
        match status {
            Status::Pending => Color::Plain,
            Status::Processing | Status::Retrying => Color::Warn,
            Status::Completed => Color::Ok,
            Status::Failed => Color::Error,
        }
    }

    /// Returns the text in this colour if `color` is true, else unchanged.
    pub fn on(self, text: &str, color: bool) -> String {
        let code = match self {
            Color::Plain => return text.to_owned(),
            Color::Bold => "1",
            Color::Faint => "2",
            Color::Ok => "32",
            Color::Warn => "33",
            Color::Error => "31",
        };
        if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Returns operations as a table, for `list`.
///
/// On a terminal, the table fits its width; without one, the columns are fixed.
pub fn operation_table(operations: &[Operation], style: &Style, header: bool) -> String {
    let wide = style.width.is_none_or(|width| width >= 130);
    let mut table = Table::new(*style);
    if header {
        let result = if wide { &["RESULT"][..] } else { &[] };
        let names = [
            "NUMBER",
            "STATUS",
            "TYPE",
            "BACKEND",
            if style.width.is_some() { "AGE" } else { "LOGGED" },
        ];
        table.row(
            names
                .iter()
                .chain(result)
                .chain(&["WHAT"])
                .map(|name| Cell::painted(*name, Color::Bold))
                .collect(),
        );
    }
    for operation in operations {
        let logged = match style.width {
            Some(_) => span(style.now.millis_since(operation.logged_at)),
            None => operation.logged_at.to_string(),
        };
        let mut cells = vec![
            Cell::right(operation.number.to_string()),
            Cell::painted(operation.status().as_str(), Color::of(operation.status())),
            Cell::plain(operation.operation_type.as_str()),
            Cell::plain(operation.backend.as_str()),
            if style.width.is_some() { Cell::right(logged) } else { Cell::plain(logged) },
        ];
        if wide {
            cells.push(Cell::plain(outcome_word(operation)));
        }
        cells.push(Cell::elastic(summary(operation)));
        table.row(cells);
    }
    table.render()
}
