//! The backends of one log by name, and the constructors of the built-in types.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::configured::{Configured, Context};
#[cfg(feature = "ipfs")]
use super::ipfs;
#[cfg(feature = "s3")]
use super::s3;
use super::{Backend, Effect, Request, custom, local, mock, standard};
use crate::clock::Clock;
use crate::config::{BackendKind, BackendSettings, BackendType, Settings};
use crate::disk::Disk;
use crate::operation::{BackendName, Fields, OperationType, Outcome};
use crate::suggest;

/// The reason why a backend does not accept an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No backend has this name.
    #[error("there is no backend `{name}`")]
    Unknown {
        /// The name.
        name: BackendName,
        /// The most similar name of a backend.
        suggestion: Option<BackendName>,
    },
    /// The type of the backend is not part of this build.
    #[error("backend `{name}` has type `{backend_type}`, which this build does not support")]
    NotBuilt {
        /// The name.
        name: BackendName,
        /// Its type.
        backend_type: &'static str,
    },
    /// The backend lacks a required setting.
    #[error("backend `{name}` has no `{key}`")]
    Unconfigured {
        /// The name.
        name: BackendName,
        /// The setting.
        key: &'static str,
    },
    /// The backend does not carry out operations of this type.
    #[error("backend `{name}` does not support operations of type `{operation_type}`")]
    Unsupported {
        /// The name.
        name: BackendName,
        /// The operation type.
        operation_type: OperationType,
        /// The operation types that it carries out.
        supported: Vec<String>,
    },
    /// A parameter is missing or invalid.
    #[error("{0}")]
    BadParameters(String),
}

/// The backends of one log, by name.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    known: BTreeMap<BackendName, Known>,
}

#[derive(Debug, Clone)]
enum Known {
    Ready(Arc<dyn Backend>),
    /// It lacks the setting `key`; `is_begun` if others of its settings are set.
    Incomplete {
        backend: Arc<dyn Backend>,
        key: &'static str,
        is_begun: bool,
    },
    NotBuilt(BackendType),
}

impl Backends {
    /// Returns the configured backends, including the predeclared ones.
    pub fn new(settings: &Settings, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Backends {
        let known = settings.backends.iter().map(|(name, backend)| {
            let (disk, clock) = (disk.clone(), clock.clone());
            (name.clone(), configure(backend, &Context { name, settings, disk, clock }))
        });
        Backends { known: known.collect() }
    }

    /// Adds a backend, or replaces the one of this name.
    pub fn register(&mut self, name: BackendName, backend: Arc<dyn Backend>) {
        self.known.insert(name, Known::Ready(backend));
    }

    /// Replaces each backend that can carry operations out by a decorator of it.
    #[cfg(feature = "test-util")]
    pub fn wrap(&mut self, wrap: impl Fn(Arc<dyn Backend>) -> Arc<dyn Backend>) {
        for known in self.known.values_mut() {
            if let Known::Ready(backend) = known {
                *backend = wrap(backend.clone());
            }
        }
    }

    /// Returns the backend of this name, if it can carry operations out.
    pub fn get(&self, name: &BackendName) -> Option<&Arc<dyn Backend>> {
        match self.known.get(name)? {
            Known::Ready(backend) => Some(backend),
            Known::Incomplete { .. } | Known::NotBuilt(_) => None,
        }
    }

    /// Returns the backend of this name, even if it lacks a setting: it knows the targets of its
    /// operations, and the files that it left on this machine.
    fn instance(&self, name: &BackendName) -> Option<&Arc<dyn Backend>> {
        match self.known.get(name)? {
            Known::Ready(backend) | Known::Incomplete { backend, .. } => Some(backend),
            Known::NotBuilt(_) => None,
        }
    }

    /// Returns all backends with their names, including those that lack a setting.
    pub fn instances(&self) -> impl Iterator<Item = (&BackendName, &Arc<dyn Backend>)> {
        self.known.keys().filter_map(|name| Some((name, self.instance(name)?)))
    }

    /// Returns the setting that a backend lacks, if others of its settings are set.
    pub fn missing_key(&self, name: &BackendName) -> Option<&'static str> {
        match self.known.get(name)? {
            Known::Incomplete { key, is_begun: true, .. } => Some(key),
            Known::Ready(_) | Known::Incomplete { .. } | Known::NotBuilt(_) => None,
        }
    }

    /// Returns all names; the flag is true if the backend can carry operations out.
    pub fn names(&self) -> impl Iterator<Item = (&BackendName, bool)> {
        self.known.iter().map(|(name, known)| (name, matches!(known, Known::Ready(_))))
    }

    /// Fails if the backend does not accept an operation with these parameters.
    pub fn check(
        &self,
        name: &BackendName,
        operation_type: &OperationType,
        parameters: &Fields,
    ) -> Result<(), Refusal> {
        match self.known.get(name) {
            None => Err(self.unknown(name)),
            Some(Known::NotBuilt(backend_type)) => {
                Err(Refusal::NotBuilt { name: name.clone(), backend_type: backend_type.as_str() })
            }
            Some(Known::Incomplete { key, .. }) => {
                Err(Refusal::Unconfigured { name: name.clone(), key })
            }
            Some(Known::Ready(backend)) => {
                let types = backend.operation_types();
                if let Some(supported) = types.listed()
                    && !types.contains(operation_type)
                {
                    return Err(Refusal::Unsupported {
                        name: name.clone(),
                        operation_type: operation_type.clone(),
                        supported: supported.iter().map(|name| (*name).to_owned()).collect(),
                    });
                }
                let checked = backend.check(operation_type, parameters);
                checked.map_err(|error| Refusal::BadParameters(error.message))
            }
        }
    }

    /// Returns the targets that an operation touches. If its backend is not configured, the
    /// standard parameters are read as the default of [`Backend::effects`] reads them.
    pub fn effects(&self, request: &Request, outcome: &Outcome) -> Vec<Effect> {
        match self.instance(&request.backend) {
            Some(backend) => backend.effects(request, outcome),
            None => standard::effects(standard::Retention::UntilRemoved, request, outcome),
        }
    }

    /// Returns whether operations of this type may leave something to audit.
    pub fn is_auditable(&self, name: &BackendName, operation_type: &OperationType) -> bool {
        match self.instance(name) {
            Some(backend) => backend.is_auditable(operation_type),
            None => standard::is_auditable(operation_type),
        }
    }

    /// Returns the refusal for a name that no backend has.
    pub fn unknown(&self, name: &BackendName) -> Refusal {
        let known = self.known.keys().map(BackendName::as_str);
        let suggestion = suggest::closest(name.as_str(), known);
        let suggestion = suggestion.and_then(|known| BackendName::new(known).ok());
        Refusal::Unknown { name: name.clone(), suggestion }
    }
}

/// Builds a backend from its settings. This is the only place that lists the built-in types.
fn configure(settings: &BackendSettings, context: &Context<'_>) -> Known {
    let Configured { backend, missing } = match &settings.kind {
        BackendKind::Local(local) => local::configure(local, context),
        #[cfg(feature = "ipfs")]
        BackendKind::Ipfs(ipfs) => ipfs::configure(ipfs, context),
        #[cfg(feature = "s3")]
        BackendKind::S3(s3) => s3::configure(s3, context),
        BackendKind::Custom(custom) => custom::configure(custom, context),
        BackendKind::Mock(mock) => mock::configure(mock, context),
        other => return Known::NotBuilt(other.backend_type()),
    };
    match missing {
        None => Known::Ready(backend),
        Some(key) => {
            let is_begun = !settings.is_untouched(context.name);
            Known::Incomplete { backend, key, is_begun }
        }
    }
}
