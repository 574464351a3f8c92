use super::text::ago;
use super::{Cell, Paint, Style, Table};
use crate::client::CauseGroup;

/// Failures by cause, for people.
pub fn write_failures(groups: &[CauseGroup], style: &Style) -> String {
    if groups.is_empty() {
        return String::new();
    }
    let mut table = Table::new(*style);
    let names = ["CAUSE", "FAILED", "RETRYING", "BACKEND", "FIRST", "LAST", "EXAMPLE", "ERROR", "WHAT"];
    table.row(names.iter().map(|name| Cell::painted(*name, Paint::Bold)).collect());
    for group in groups {
        let when = |time| match style.width {
            Some(_) => Cell::right(ago(style.now, time)),
            None => Cell::plain(time.to_string()),
        };
        let count = |n: u64, paint| Cell::right(n.to_string()).paint(if n == 0 { Paint::Faint } else { paint });
        table.row(vec![
            Cell::painted(&group.fingerprint, Paint::Notice),
            count(group.failed, Paint::Bad),
            count(group.retrying, Paint::Notice),
            Cell::plain(group.backend.as_str()),
            when(group.first),
            when(group.last),
            Cell::right(group.example.to_string()),
            Cell::plain(&group.error_type),
            Cell::shrinking(&group.cause),
        ]);
    }
    table.render()
}
