//! The text of `failures`.

use super::text::{ago, visible, wrapped};
use super::{Cell, Color, Style, Table};
use crate::client::CauseGroup;

/// Indentation of messages below their row, on narrow terminals.
const INDENT: usize = 10;

/// Returns the failures by cause as a table.
pub fn write_failures(groups: &[CauseGroup], style: &Style) -> String {
    if groups.is_empty() {
        return String::new();
    }
    // On a narrow terminal, messages go below their rows.
    let narrow = style.width.filter(|width| *width < 120);
    let mut table = Table::new(*style);
    let names = ["CAUSE", "FAILED", "RETRYING", "BACKEND", "FIRST", "LAST", "EXAMPLE", "ERROR"];
    let what = if narrow.is_none() { &["MESSAGE"][..] } else { &[] };
    table.row(names.iter().chain(what).map(|name| Cell::painted(*name, Color::Bold)).collect());
    for group in groups {
        let when = |time| match style.width {
            Some(_) => Cell::right(ago(style.now, time)),
            None => Cell::plain(time.to_string()),
        };
        let count = |n: u64, paint| {
            Cell::right(n.to_string()).color(if n == 0 { Color::Faint } else { paint })
        };
        let mut cells = vec![
            Cell::painted(&group.fingerprint, Color::Warn),
            count(group.failed, Color::Error),
            count(group.retrying, Color::Warn),
            Cell::plain(group.backend.as_str()),
            when(group.first),
            when(group.last),
            Cell::right(group.example.to_string()),
            Cell::plain(&group.error_type),
        ];
        if narrow.is_none() {
            cells.push(Cell::elastic(visible(&group.message)));
        }
        table.row(cells);
    }
    let rendered = table.render();
    let Some(columns) = narrow else { return rendered };
    let mut text = String::with_capacity(rendered.len() * 2);
    for (at, line) in rendered.lines().enumerate() {
        text.push_str(&format!("{line}\n"));
        let Some(group) = at.checked_sub(1).and_then(|at| groups.get(at)) else { continue };
        for part in wrapped(&visible(&group.message), columns.saturating_sub(INDENT)) {
            text.push_str(&format!("{:INDENT$}{part}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Number;
    use crate::operation::{BackendName, FailureClass, Time};

    #[test]
    fn on_80_columns_messages_go_below_their_rows() {
        let time = Time::from_millis(0);
        let group = CauseGroup {
            fingerprint: "09f76b4a".into(),
            cause: String::new(),
            error_type: "dependency_failed".into(),
            class: FailureClass::Permanent,
            backend: BackendName::new("local").unwrap(),
            failed: 12_345,
            retrying: 0,
            first: time,
            last: time,
            example: Number::new(99_999),
            message: "the connection to the backend was refused while the third part of a large \
                      file was sent"
                .into(),
        };
        let style = |width| Style { color: false, width, now: time };
        let narrow = write_failures(std::slice::from_ref(&group), &style(Some(80)));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(
            narrow.contains("\n          the connection to") && !narrow.contains("MESSAGE"),
            "{narrow}"
        );
        let wide = write_failures(&[group], &style(None));
        assert_eq!(wide.lines().count(), 2, "{wide}");
    }
}
