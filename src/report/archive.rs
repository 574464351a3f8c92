//! Archives as tables.

use super::documents::date;
use super::{Cell, Paint, Style, Table, bytes};
use crate::client::{Archive, PushReport, Standing};

/// What a push logged, or would log.
pub fn pushed_table(report: &PushReport, style: &Style) -> String {
    let mut table = Table::new(*style);
    for archive in report.archives.iter().filter(|archive| !archive.existing) {
        let mut cells = match archive.operation {
            Some((number, id, _)) => vec![Cell::right(number.to_string()), Cell::plain(id.to_string())],
            None => vec![Cell::plain("would push"), Cell::plain(&archive.name)],
        };
        cells.extend([
            Cell::right(format!("{} operations", archive.rows)),
            Cell::right(bytes(archive.bytes)),
            Cell::plain(&archive.to),
        ]);
        table.row(cells);
    }
    table.render()
}

/// All archives, and where they stand.
pub fn archive_table(archives: &[Archive], style: &Style) -> String {
    let mut table = Table::new(*style);
    let names = ["ARCHIVE", "DAY", "OPERATIONS", "SIZE", "STATE", "WHERE"];
    table.row(names.map(|name| Cell::painted(name, Paint::Bold)).into());
    for archive in archives {
        let paint = match archive.standing {
            Standing::Failed(_) => Paint::Bad,
            Standing::Pushed => Paint::Good,
            _ => Paint::Plain,
        };
        let place = match archive.standing.operation() {
            Some(operation) => format!("operation {}, {}", operation.number, operation.status()),
            None => archive.to.clone().unwrap_or_default(),
        };
        table.row(vec![
            Cell::plain(&archive.file.name),
            Cell::plain(date(archive.day)),
            Cell::right(archive.file.live().to_string()),
            Cell::right(bytes(archive.file.bytes)),
            Cell::painted(archive.standing.as_str(), paint),
            Cell::plain(place),
        ]);
    }
    table.render()
}
