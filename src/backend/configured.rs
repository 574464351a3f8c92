//! What the constructors of the built-in types take and return.

use std::sync::Arc;

use super::Backend;
use crate::clock::Clock;
use crate::config::Settings;
use crate::disk::Disk;
use crate::operation::BackendName;

/// Everything that a constructor may need besides the settings of its own type.
pub(super) struct Context<'a> {
    pub(super) name: &'a BackendName,
    pub(super) settings: &'a Settings,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
}

/// A backend, as far as its settings describe one.
///
/// One that lacks a setting exists all the same: it carries nothing out, but sweeps what an earlier
/// configuration left, and knows what its operations touched.
pub(super) struct Configured {
    pub(super) backend: Arc<dyn Backend>,
    /// The setting without which it cannot work, if that is not set.
    pub(super) missing: Option<&'static str>,
}

impl Configured {
    pub(super) fn complete(backend: impl Backend + 'static) -> Configured {
        Configured { backend: Arc::new(backend), missing: None }
    }
}
