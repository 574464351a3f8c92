//! Archives as tables.

use super::{Cell, Color, Style, Table, bytes, plural};
use crate::client::{Archive, PushReport, PushState};

/// Returns the pushes that were logged, or would be, as a table.
pub fn pushed_table(report: &PushReport, style: &Style) -> String {
    let mut table = Table::new(*style);
    for archive in report.archives.iter().filter(|archive| !archive.existing) {
        let mut cells = match archive.operation {
            Some(push) => {
                vec![Cell::right(push.number.to_string()), Cell::plain(push.id.to_string())]
            }
            None => vec![Cell::plain("would push"), Cell::plain(&archive.name)],
        };
        cells.extend([
            Cell::right(plural(archive.rows, "operation")),
            Cell::right(bytes(archive.bytes)),
            Cell::plain(&archive.to),
        ]);
        table.row(cells);
    }
    table.render()
}

/// Returns all archives and their push state as a table.
pub fn archive_table(archives: &[Archive], style: &Style) -> String {
    let mut table = Table::new(*style);
    let names = ["ARCHIVE", "OPERATIONS", "SIZE", "STATE", "DESTINATION"];
    table.row(names.map(|name| Cell::painted(name, Color::Bold)).into());
    for archive in archives {
        let paint = match archive.state {
            PushState::Failed(_) => Color::Error,
            PushState::Pushed => Color::Ok,
            _ => Color::Plain,
        };
        let destination = match archive.state.operation() {
            Some(operation) => format!("operation {}, {}", operation.number, operation.status()),
            // Below this directory, the path only repeats the day and the name.
            None => archive.to.as_deref().map(host_directory).unwrap_or_default().to_owned(),
        };
        table.row(vec![
            // The name includes the day, and all archives are in one directory.
            Cell::plain(archive.name().rsplit('/').next().unwrap_or_default()),
            Cell::right(archive.operations().to_string()),
            Cell::right(bytes(archive.bytes())),
            Cell::painted(archive.state.as_str(), paint),
            Cell::plain(destination),
        ]);
    }
    table.render()
}

/// Returns the common directory of a host's archives, given the destination of one.
fn host_directory(destination: &str) -> &str {
    destination.rfind("/date=").map_or(destination, |end| &destination[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_a_host_share_a_directory() {
        assert_eq!(
            host_directory("s3://b/date=x/logs/host=vm/date=2026-11-20/a.parquet"),
            "s3://b/date=x/logs/host=vm"
        );
        assert_eq!(host_directory("s3://b/elsewhere.parquet"), "s3://b/elsewhere.parquet");
    }
}
