//! The text of `health`.

use super::text::{ago, visible, wrapped};
use super::{Cell, Color, Style, Table};
use crate::client::{BackendHealth, HealthStatus};

/// Returns the last ten checks as marks, oldest first.
pub fn history_marks(history: &[bool]) -> String {
    let last = &history[history.len().saturating_sub(10)..];
    last.iter().map(|succeeded| if *succeeded { '✓' } else { '✗' }).collect()
}

pub(super) fn paint_of(status: HealthStatus) -> Color {
    match status {
        HealthStatus::Online => Color::Ok,
        HealthStatus::Degraded => Color::Warn,
        HealthStatus::Offline => Color::Error,
        HealthStatus::Unknown | HealthStatus::NotConfigured => Color::Faint,
    }
}

/// Returns the health of all backends as a table, with the last failure of each.
pub fn write_health(all: &[BackendHealth], style: &Style) -> String {
    let mut table = Table::new(*style);
    table.row(
        ["BACKEND", "STATUS", "SINCE", "CHECKED", "HISTORY"]
            .map(|name| Cell::painted(name, Color::Bold))
            .into(),
    );
    for health in all {
        let checked = health.last_check.map_or_else(|| "-".into(), |time| ago(style.now, time));
        let since =
            health.changes.last().map_or_else(|| "-".into(), |change| ago(style.now, change.at));
        let history = history_marks(&health.check_history);
        table.row(vec![
            Cell::plain(health.backend.as_str()),
            Cell::painted(health.status.as_str(), paint_of(health.status)),
            Cell::plain(since),
            Cell::plain(checked),
            Cell::plain(if history.is_empty() { "-" } else { &history }),
        ]);
    }
    let mut text = table.render();
    for health in all {
        if let Some(failure) = &health.failure {
            let message = format!("{}: {}", health.backend, visible(&failure.message));
            for line in wrapped(&message, style.width.unwrap_or(usize::MAX)) {
                text += &line;
                text.push('\n');
            }
        }
    }
    text
}

/// Returns the health of one backend in one line.
pub fn health_line(health: &BackendHealth, style: &Style) -> String {
    let status = paint_of(health.status).on(health.status.as_str(), style.color);
    let why = health
        .failure
        .as_ref()
        .map(|failure| format!(": {}", visible(&failure.message)))
        .unwrap_or_default();
    format!("{}  {} is {status}{why}\n", style.now, health.backend)
}
