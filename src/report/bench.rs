//! The texts of `bench`.

use super::table::{Cell, Table};
use super::{Color, Style, bytes};
use crate::bench::{AppendRow, BatchRow, FloorRow, VerifyRow};

fn head(table: &mut Table, names: &[&str]) {
    table.row(names.iter().map(|name| Cell::right(name).color(Color::Faint)).collect());
}

/// Returns the throughput of the disk as a table.
pub fn write_floor(rows: &[FloorRow], style: &Style) -> String {
    let mut table = Table::new(*style);
    head(&mut table, &["records per flush", "median µs", "5 % to 95 %", "records/s", "method"]);
    for row in rows {
        table.row(vec![
            Cell::right(row.group.to_string()),
            Cell::right(format!("{:.0}", row.median_us)),
            Cell::right(format!("{:.0} to {:.0}", row.p5_us, row.p95_us)),
            Cell::right(format!("{:.0}", row.per_second)),
            Cell::plain(row.method.as_str()),
        ]);
    }
    table.render()
}

/// Returns appends beside the disk as a table.
pub fn write_append(rows: &[AppendRow], style: &Style) -> String {
    let mut table = Table::new(*style);
    head(
        &mut table,
        &["threads", "ours/s", "disk alone/s", "× alone", "disk grouped/s", "× grouped"],
    );
    for row in rows {
        let ratio =
            |(median, min, max): (f64, f64, f64)| format!("{median:.2} ({min:.2} to {max:.2})");
        table.row(vec![
            Cell::right(row.threads.to_string()),
            Cell::right(format!("{:.0}", row.ours_per_second)),
            Cell::right(format!("{:.0}", row.alone_per_second)),
            Cell::right(ratio(row.ratio_alone.into())),
            Cell::right(format!("{:.0}", row.grouped_per_second)),
            Cell::right(ratio(row.ratio_grouped.into())),
        ]);
    }
    let mut text = table.render();
    text.push_str(
        "×: our time per operation divided by the disk's, per block: median (min to max)\n",
    );
    text
}

/// Returns large batches beside the disk as a table.
pub fn write_batch(row: &BatchRow, style: &Style) -> String {
    let rates = [("ours/s", row.ours_per_second), ("disk alone/s", row.floor_per_second)];
    comparison(
        (row.operations as u64, row.files.count, row.files.bytes),
        rates,
        ("× disk", row.ratio.into()),
        "×: our time per batch divided by the disk's for the same bytes",
        style,
    )
}

/// Returns verification beside a plain decode as a table.
pub fn write_bench_verify(row: &VerifyRow, style: &Style) -> String {
    let rates = [("verified/s", row.ours_per_second), ("decoded/s", row.decoded_per_second)];
    comparison(
        (row.operations as u64, row.files.count, row.files.bytes),
        rates,
        ("× decode", row.ratio.into()),
        "×: our time divided by that of a plain decode on as many threads",
        style,
    )
}

/// Returns one row that compares two rates over the same files, with a legend.
///
/// `amounts` are operations, files and bytes; `ratio` is median, minimum and maximum.
fn comparison(
    (operations, files, size): (u64, u64, u64),
    rates: [(&str, f64); 2],
    (ratio_name, (median, min, max)): (&str, (f64, f64, f64)),
    legend: &str,
    style: &Style,
) -> String {
    let [(ours, ours_per_second), (theirs, theirs_per_second)] = rates;
    let mut table = Table::new(*style);
    head(&mut table, &["operations", "files", "size", ours, theirs, ratio_name]);
    table.row(vec![
        Cell::right(operations.to_string()),
        Cell::right(files.to_string()),
        Cell::right(bytes(size)),
        Cell::right(format!("{ours_per_second:.0}")),
        Cell::right(format!("{theirs_per_second:.0}")),
        Cell::right(format!("{median:.2} ({min:.2} to {max:.2})")),
    ]);
    format!("{}{legend}, per block: median (min to max)\n", table.render())
}
