//! The parameters and results of the constructors of built-in backends.

use std::sync::Arc;

use super::Backend;
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::Disk;
use crate::operation::BackendName;

/// The parameters of a constructor, apart from the settings of its own type.
pub(super) struct Context<'a> {
    pub(super) name: &'a BackendName,
    pub(super) settings: &'a Settings,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
}

/// A backend made from settings, which may be incomplete.
///
/// A backend that lacks a setting executes nothing, but it still sweeps what an earlier
/// configuration left, and knows the targets of its operations.
pub(super) struct Configured {
    pub(super) backend: Arc<dyn Backend>,
    /// The required setting that is not set.
    pub(super) missing: Option<&'static str>,
}

impl Configured {
    pub(super) fn complete(backend: impl Backend + 'static) -> Configured {
        Configured { backend: Arc::new(backend), missing: None }
    }
}
