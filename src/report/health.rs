use std::collections::BTreeMap;

use serde::Serialize;

use super::operation::Shown;
use super::text::{ago, visible};
use super::{Cell, Paint, Style, Table};
use crate::client::{BackendHealth, HealthStatus};
use crate::operation::Time;

/// A backend's health as JSON.
#[derive(Debug, Serialize)]
pub struct HealthDoc<'a> {
    status: &'a str,
    last_check: Option<Shown<Time>>,
    check_history: &'a [bool],
    error: Option<&'a str>,
    error_type: Option<&'a str>,
}

/// Health by name of backend.
pub fn health_docs(all: &[BackendHealth]) -> BTreeMap<&str, HealthDoc<'_>> {
    all.iter()
        .map(|health| {
            let failure = health.failure.as_ref();
            let doc = HealthDoc {
                status: health.status.as_str(),
                last_check: health.last_check.map(Shown),
                check_history: &health.check_history,
                error: failure.map(|failure| failure.message.as_str()),
                error_type: failure.map(|failure| failure.error_type.as_str()),
            };
            (health.backend.as_str(), doc)
        })
        .collect()
}

/// The last probes as marks, oldest first.
pub fn history_marks(history: &[bool]) -> String {
    let last = &history[history.len().saturating_sub(10)..];
    last.iter().map(|good| if *good { '✓' } else { '✗' }).collect()
}

pub(super) fn paint_of(status: HealthStatus) -> Paint {
    match status {
        HealthStatus::Online => Paint::Good,
        HealthStatus::Degraded => Paint::Notice,
        HealthStatus::Offline => Paint::Bad,
        HealthStatus::Unknown | HealthStatus::NotConfigured => Paint::Faint,
    }
}

/// Health as a table.
pub fn write_health(all: &[BackendHealth], style: &Style) -> String {
    let mut table = Table::new(*style);
    table.row(["BACKEND", "STATUS", "CHECKED", "HISTORY"].map(|name| Cell::painted(name, Paint::Bold)).into());
    for health in all {
        let checked = health.last_check.map_or_else(|| "-".into(), |time| ago(style.now, time));
        let history = history_marks(&health.check_history);
        table.row(vec![
            Cell::plain(health.backend.as_str()),
            Cell::painted(health.status.as_str(), paint_of(health.status)),
            Cell::plain(checked),
            Cell::plain(if history.is_empty() { "-" } else { &history }),
        ]);
    }
    let mut text = table.render();
    for health in all {
        if let Some(failure) = &health.failure {
            text += &format!("{}: {}\n", health.backend, visible(&failure.message));
        }
    }
    text
}
