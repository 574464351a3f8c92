//! Archives as tables.

use super::{Cell, Color, Style, Table, bytes, plural};
use crate::client::{Archive, PushReport, Standing};

/// What a push logged, or would log.
pub fn pushed_table(report: &PushReport, style: &Style) -> String {
    let mut table = Table::new(*style);
    for archive in report.archives.iter().filter(|archive| !archive.existing) {
        let mut cells = match archive.operation {
            Some((number, id, _)) => {
                vec![Cell::right(number.to_string()), Cell::plain(id.to_string())]
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

/// All archives, and where they stand.
pub fn archive_table(archives: &[Archive], style: &Style) -> String {
    let mut table = Table::new(*style);
    let names = ["ARCHIVE", "OPERATIONS", "SIZE", "STATE", "WHERE"];
    table.row(names.map(|name| Cell::painted(name, Color::Bold)).into());
    for archive in archives {
        let paint = match archive.standing {
            Standing::Failed(_) => Color::Error,
            Standing::Pushed => Color::Ok,
            _ => Color::Plain,
        };
        let place = match archive.standing.operation() {
            Some(operation) => format!("operation {}, {}", operation.number, operation.status()),
            // The rest is its day and its name again.
            None => archive.to.as_deref().map(root).unwrap_or_default().to_owned(),
        };
        table.row(vec![
            // Its name tells its day, and all of them are in one folder.
            Cell::plain(archive.file.name.rsplit('/').next().unwrap_or_default()),
            Cell::right(archive.file.live().to_string()),
            Cell::right(bytes(archive.file.bytes)),
            Cell::painted(archive.standing.as_str(), paint),
            Cell::plain(place),
        ]);
    }
    table.render()
}

/// Where pushed archives of a host go, of the place of one.
fn root(place: &str) -> &str {
    place.rfind("/date=").map_or(place, |end| &place[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_a_host_lie_below_one_place() {
        assert_eq!(
            root("s3://b/date=x/logs/host=vm/date=2026-11-20/a.parquet"),
            "s3://b/date=x/logs/host=vm"
        );
        assert_eq!(root("s3://b/elsewhere.parquet"), "s3://b/elsewhere.parquet");
    }
}
