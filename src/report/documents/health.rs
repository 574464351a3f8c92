//! Health of backends as JSON documents.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::words::{AsDisplay, AsName, OpenCode};
use crate::client::{BackendHealth, HealthStatus, StatusChange};
use crate::operation::Time;

/// The health of all backends.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Health<'a> {
    /// Health by backend name.
    pub backends: BTreeMap<&'a str, HealthDoc<'a>>,
}

/// The health of a backend.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BackendHealth")]
pub struct HealthDoc<'a> {
    /// Status derived from the last checks.
    status: AsName<HealthStatus>,
    /// Time of the last check; null if there was none.
    last_check: Option<AsDisplay<Time>>,
    /// Results of the last checks, oldest first. Ordinary operations count as checks.
    check_history: &'a [bool],
    /// The last status changes, oldest first.
    status_changes: Vec<StatusChangeDoc>,
    /// Message of the last check; null if it succeeded.
    error: Option<&'a str>,
    /// Stable code of that failure.
    error_type: Option<OpenCode<'a>>,
}

/// A status change of a backend.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StatusChange")]
struct StatusChangeDoc {
    /// Time of the change.
    at: AsDisplay<Time>,
    /// Status before the change.
    from: AsName<HealthStatus>,
    /// Status after the change.
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
    /// Returns the document of these backends.
    pub fn new(all: &'a [BackendHealth]) -> Health<'a> {
        Health { backends: by_name(all) }
    }
}

/// Returns the health documents by backend name.
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
