//! Builds clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use super::Client;
use crate::backend::{Backend, Backends};
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::disk::{Disk, OsDisk};
use crate::operation::BackendName;
use crate::wal::Layout;

/// Builds a [`Client`].
#[derive(Debug)]
#[must_use = "call `build` to get a client"]
pub struct ClientBuilder {
    settings: Settings,
    program: String,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    backends: BTreeMap<BackendName, Arc<dyn Backend>>,
}

impl ClientBuilder {
    pub(super) fn new(settings: Settings) -> ClientBuilder {
        ClientBuilder {
            settings,
            program: env!("CARGO_PKG_NAME").to_owned(),
            disk: Arc::new(OsDisk::new()),
            clock: Arc::new(SystemClock::new()),
            backends: BTreeMap::new(),
        }
    }

    /// Sets the program's name in the histories of operations and in lock notes, where a waiting
    /// process reads who holds a lock. Defaults to `wal-cli`.
    pub fn program(mut self, name: impl Into<String>) -> ClientBuilder {
        self.program = name.into();
        self
    }

    /// Registers a backend of the caller's own; it replaces a configured backend of the same name.
    ///
    /// Other processes that drain the log do not have this backend, and leave its operations alone.
    pub fn backend(mut self, name: BackendName, backend: Arc<dyn Backend>) -> ClientBuilder {
        self.backends.insert(name, backend);
        self
    }

    /// Replaces the operating system's disk and clock, such as by a simulated machine.
    #[cfg(feature = "test-util")]
    pub fn environment(self, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> ClientBuilder {
        self.with_environment(disk, clock)
    }

    /// Replaces the operating system's disk and clock.
    #[cfg(any(feature = "cli", feature = "test-util"))]
    pub(crate) fn with_environment(
        mut self,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> ClientBuilder {
        (self.disk, self.clock) = (disk, clock);
        self
    }

    /// Returns the client. Touches no file. Relative paths in the settings start from the present
    /// working directory.
    pub fn build(mut self) -> Client {
        self.settings.make_paths_absolute();
        let mut backends = Backends::new(&self.settings, &self.disk, &self.clock);
        for (name, backend) in self.backends {
            backends.register(name, backend);
        }
        Client {
            layout: Layout::new(&self.settings.base_path),
            disk: self.disk,
            clock: self.clock,
            settings: self.settings,
            backends,
            program: self.program,
            wal: OnceLock::new(),
            opening: Mutex::new(()),
            view: Mutex::new(None),
        }
    }
}
