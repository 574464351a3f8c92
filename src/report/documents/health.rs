//! Health of backends as JSON.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::words::{AsDisplay, AsName, OpenCode};
use crate::client::{BackendHealth, HealthStatus, StatusChange};
use crate::operation::Time;

/// What `health` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Health<'a> {
    /// By name of backend.
    pub backends: BTreeMap<&'a str, HealthDoc<'a>>,
}

/// A backend's health.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BackendHealth")]
pub struct HealthDoc<'a> {
    /// What the last probes amount to.
    status: AsName<HealthStatus>,
    /// When the last probe was; null: never.
    last_check: Option<AsDisplay<Time>>,
    /// Whether the last checks succeeded, oldest first: probes, and operations that reached it or did not.
    check_history: &'a [bool],
    /// The last changes of its status, oldest first.
    status_changes: Vec<StatusChangeDoc>,
    /// What the last probe said, if it failed.
    error: Option<&'a str>,
    /// A stable word for it.
    error_type: Option<OpenCode<'a>>,
}

/// A change of a backend's status.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StatusChange")]
struct StatusChangeDoc {
    /// When.
    at: AsDisplay<Time>,
    /// What it was.
    from: AsName<HealthStatus>,
    /// What it became.
    to: AsName<HealthStatus>,
}

impl StatusChangeDoc {
    fn new(change: &StatusChange) -> StatusChangeDoc {
        StatusChangeDoc {
            at: AsDisplay(change.at),
            from: AsName(change.from),
            to: AsName(change.to),
        }
    }
}

impl<'a> Health<'a> {
    /// The health of these backends.
    pub fn new(all: &'a [BackendHealth]) -> Health<'a> {
        Health { backends: by_name(all) }
    }
}

/// Health by name of backend.
pub(super) fn by_name(all: &[BackendHealth]) -> BTreeMap<&str, HealthDoc<'_>> {
    all.iter()
        .map(|health| {
            let failure = health.failure.as_ref();
            let doc = HealthDoc {
                status: AsName(health.status),
                last_check: health.last_check.map(AsDisplay),
                check_history: &health.check_history,
                status_changes: health.changes.iter().map(StatusChangeDoc::new).collect(),
                error: failure.map(|failure| failure.message.as_str()),
                error_type: failure.map(|failure| OpenCode(&failure.error_type)),
            };
            (health.backend.as_str(), doc)
        })
        .collect()
}
