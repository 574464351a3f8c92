use super::table::{Cell, Table};
use super::{Color, Style, bytes};
use crate::bench::{AppendRow, BatchRow, FloorRow, VerifyRow};

fn head(table: &mut Table, names: &[&str]) {
    table.row(names.iter().map(|name| Cell::right(name).paint(Color::Faint)).collect());
}

/// The disk's floor as a table.
pub fn write_floor(rows: &[FloorRow], style: &Style) -> String {
    let mut table = Table::new(*style);
    head(&mut table, &["records per flush", "median µs", "5 % to 95 %", "records/s", "method"]);
    for row in rows {
        table.row(vec![
            Cell::right(row.group.to_string()),
            Cell::right(format!("{:.0}", row.median_us)),
            Cell::right(format!("{:.0} to {:.0}", row.range_us.0, row.range_us.1)),
            Cell::right(format!("{:.0}", row.per_second)),
            Cell::plain(row.method.as_str()),
        ]);
    }
    table.render()
}

/// Appends beside the floor as a table.
pub fn write_append(rows: &[AppendRow], style: &Style) -> String {
    let mut table = Table::new(*style);
    head(
        &mut table,
        &["threads", "ours/s", "disk alone/s", "× alone", "disk grouped/s", "× grouped"],
    );
    for row in rows {
        let ratio = |(median, least, most): (f64, f64, f64)| {
            format!("{median:.2} ({least:.2} to {most:.2})")
        };
        table.row(vec![
            Cell::right(row.threads.to_string()),
            Cell::right(format!("{:.0}", row.ours_per_second)),
            Cell::right(format!("{:.0}", row.alone_per_second)),
            Cell::right(ratio(row.ratio_alone)),
            Cell::right(format!("{:.0}", row.grouped_per_second)),
            Cell::right(ratio(row.ratio_grouped)),
        ]);
    }
    let mut text = table.render();
    text.push_str("× is our time per operation as a multiple of the disk's, block by block: median (least to most)\n");
    text
}

/// Large batches beside the floor as a table.
pub fn write_batch(row: &BatchRow, style: &Style) -> String {
    let mut table = Table::new(*style);
    head(&mut table, &["operations", "files", "size", "ours/s", "disk alone/s", "× disk"]);
    let (median, least, most) = row.ratio;
    table.row(vec![
        Cell::right(row.operations.to_string()),
        Cell::right(row.files.0.to_string()),
        Cell::right(bytes(row.files.1)),
        Cell::right(format!("{:.0}", row.ours_per_second)),
        Cell::right(format!("{:.0}", row.floor_per_second)),
        Cell::right(format!("{median:.2} ({least:.2} to {most:.2})")),
    ]);
    let mut text = table.render();
    text.push_str("× is our time for a batch as a multiple of the disk's for the same bytes, block by block: median (least to most)\n");
    text
}

/// Checking a log beside a plain decode as a table.
pub fn write_bench_verify(row: &VerifyRow, style: &Style) -> String {
    let mut table = Table::new(*style);
    head(&mut table, &["operations", "files", "size", "checked/s", "decoded/s", "× decode"]);
    let (median, least, most) = row.ratio;
    table.row(vec![
        Cell::right(row.operations.to_string()),
        Cell::right(row.files.0.to_string()),
        Cell::right(bytes(row.files.1)),
        Cell::right(format!("{:.0}", row.ours_per_second)),
        Cell::right(format!("{:.0}", row.decoded_per_second)),
        Cell::right(format!("{median:.2} ({least:.2} to {most:.2})")),
    ]);
    let mut text = table.render();
    text.push_str("× is our time as a multiple of a plain decode of the same files on as many threads, block by block: median (least to most)\n");
    text
}
