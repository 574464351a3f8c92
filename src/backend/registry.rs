//! Which backends there are, and what each can do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::custom::output;
#[cfg(feature = "s3")]
use super::s3::{COPY_MAX, task};
use super::unixfs::{CidVersion, Options as UnixFs};
#[cfg(feature = "s3")]
use super::{AccessKeys, S3Backend, S3Options, UploadNotes};
use super::{Backend, CustomBackend, LocalBackend, MockBackend, MockOptions, parameters};
#[cfg(feature = "ipfs")]
use super::{Credentials, IpfsBackend, IpfsOptions};
use crate::clock::Clock;
#[cfg(any(feature = "ipfs", feature = "s3"))]
use crate::config::Secret;
use crate::config::{BackendSettings, BackendType, Settings};
use crate::disk::Disk;
use crate::operation::{BackendName, Fields, OperationType};

/// Why an operation cannot be logged for a backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No backend has this name.
    #[error("there is no backend `{name}`")]
    Unknown {
        /// The name.
        name: BackendName,
        /// A name that looks like it.
        suggestion: Option<BackendName>,
    },
    /// The backend's type is not built into this program yet.
    #[error(
        "backend `{name}` is of type `{backend_type}`, which this version cannot carry out yet"
    )]
    NotBuilt {
        /// The name.
        name: BackendName,
        /// Its type.
        backend_type: &'static str,
    },
    /// The backend lacks a setting without which it cannot work.
    #[error("backend `{name}` has no `{key}`")]
    Unconfigured {
        /// The name.
        name: BackendName,
        /// The setting.
        key: &'static str,
    },
    /// The backend does not do this.
    #[error("backend `{name}` does not carry out `{operation_type}`")]
    Unsupported {
        /// The name.
        name: BackendName,
        /// The type of operation.
        operation_type: OperationType,
        /// What it does carry out.
        supported: Vec<String>,
    },
    /// The parameters are incomplete or wrong.
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
    Ready(Arc<dyn Backend>, Option<BackendType>),
    NotBuilt(BackendType),
    /// It lacks this setting.
    Unconfigured(&'static str),
    /// So does this one, which somebody means to use: other settings of it are there.
    Begun(&'static str),
}

impl Backends {
    /// The configured backends, those that are predeclared included.
    pub fn new(settings: &Settings, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Backends {
        let known = settings
            .backends
            .iter()
            .map(|(name, backend)| (name.clone(), make(name, backend, settings, disk, clock)));
        Backends { known: known.collect() }
    }

    /// Adds a backend of the caller's own, or replaces one; it takes operations of any type.
    pub fn register(&mut self, name: BackendName, backend: Arc<dyn Backend>) {
        self.known.insert(name, Known::Ready(backend, None));
    }

    /// Puts another one around each backend that can carry operations out; what it takes stays what it was.
    #[cfg(feature = "test-util")]
    pub fn wrap(&mut self, wrap: impl Fn(Arc<dyn Backend>) -> Arc<dyn Backend>) {
        for known in self.known.values_mut() {
            if let Known::Ready(backend, _) = known {
                *backend = wrap(backend.clone());
            }
        }
    }

    /// The backend of this name, if this program can carry its operations out.
    pub fn get(&self, name: &BackendName) -> Option<&Arc<dyn Backend>> {
        match self.known.get(name)? {
            Known::Ready(backend, _) => Some(backend),
            Known::NotBuilt(_) | Known::Unconfigured(_) | Known::Begun(_) => None,
        }
    }

    /// The setting that is missing of a backend that somebody began to configure.
    pub fn missing(&self, name: &BackendName) -> Option<&'static str> {
        match self.known.get(name)? {
            Known::Begun(key) => Some(key),
            Known::Ready(..) | Known::NotBuilt(_) | Known::Unconfigured(_) => None,
        }
    }

    /// All names, with whether this program can carry their operations out.
    pub fn names(&self) -> impl Iterator<Item = (&BackendName, bool)> {
        self.known.iter().map(|(name, known)| (name, matches!(known, Known::Ready(..))))
    }

    /// Whether an operation may be logged.
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
            Some(Known::Unconfigured(key) | Known::Begun(key)) => {
                Err(Refusal::Unconfigured { name: name.clone(), key })
            }
            Some(Known::Ready(_, None | Some(BackendType::Custom))) => Ok(()),
            #[cfg(feature = "s3")]
            Some(Known::Ready(_, Some(BackendType::S3))) => {
                if !task::TYPES.contains(&operation_type.as_str()) {
                    return Err(Refusal::Unsupported {
                        name: name.clone(),
                        operation_type: operation_type.clone(),
                        supported: task::TYPES.iter().map(|name| (*name).to_owned()).collect(),
                    });
                }
                task::check(operation_type.as_str(), parameters).map_err(Refusal::BadParameters)
            }
            // A rehearsal takes what the real backend would.
            Some(Known::Ready(_, Some(_))) => {
                if !parameters::supports(operation_type.as_str()) {
                    return Err(Refusal::Unsupported {
                        name: name.clone(),
                        operation_type: operation_type.clone(),
                        supported: parameters::TYPES
                            .iter()
                            .map(|name| (*name).to_owned())
                            .collect(),
                    });
                }
                parameters::check(operation_type.as_str(), parameters)
                    .map_err(Refusal::BadParameters)
            }
        }
    }

    /// What to say of a name that no backend has.
    pub fn unknown(&self, name: &BackendName) -> Refusal {
        Refusal::Unknown { name: name.clone(), suggestion: self.like(name) }
    }

    fn like(&self, name: &BackendName) -> Option<BackendName> {
        self.known
            .keys()
            .map(|known| (strsim::damerau_levenshtein(known.as_str(), name.as_str()), known))
            .filter(|(distance, known)| *distance <= 2 && *distance < known.as_str().len())
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, known)| known.clone())
    }
}

/// Which CIDs a backend gives to content.
fn unixfs_of(backend: &BackendSettings) -> UnixFs {
    UnixFs {
        cid_version: if backend.cid_version == 1 { CidVersion::V1 } else { CidVersion::V0 },
        raw_leaves: backend.raw_leaves.unwrap_or(backend.cid_version == 1),
        chunk_size: usize::try_from(backend.chunk_size).unwrap_or(usize::MAX),
        max_links: backend.max_links as usize,
        ..UnixFs::default()
    }
}

/// How long one attempt may take in all.
fn total_of(backend: &BackendSettings) -> Option<Duration> {
    Some(backend.total_timeout).filter(|total| !total.is_zero())
}

fn make(
    name: &BackendName,
    backend: &BackendSettings,
    settings: &Settings,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
) -> Known {
    let lacking =
        |key| if backend.is_untouched(name) { Known::Unconfigured(key) } else { Known::Begun(key) };
    match backend.backend_type {
        BackendType::Local => {
            let root = backend.path.clone().unwrap_or_else(|| settings.base_path.join("local"));
            let local = LocalBackend::new(disk.clone(), clock.clone(), root, unixfs_of(backend));
            Known::Ready(Arc::new(local), Some(BackendType::Local))
        }
        #[cfg(feature = "ipfs")]
        BackendType::Ipfs => {
            let text =
                |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
            let credentials = match (text(&backend.token), &backend.username) {
                (Some(token), _) => Credentials::Bearer(token),
                (None, Some(user)) => {
                    Credentials::Basic(user.clone(), text(&backend.password).unwrap_or_default())
                }
                (None, None) => Credentials::None,
            };
            let Some(endpoint) = backend.endpoint.clone() else { return lacking("endpoint") };
            let options = IpfsOptions {
                name: name.to_string(),
                endpoint,
                credentials,
                connect: backend.connection_timeout,
                idle: backend.idle_timeout,
                total: total_of(backend),
                probe: settings.health_check_timeout,
                unixfs: unixfs_of(backend),
            };
            Known::Ready(
                Arc::new(IpfsBackend::new(disk.clone(), clock.clone(), options)),
                Some(BackendType::Ipfs),
            )
        }
        BackendType::Mock => {
            let options = MockOptions {
                failure_rate: backend.mock.failure_rate,
                latency_ms: backend.mock.latency_ms,
                seed: (backend.mock.seed != 0).then_some(backend.mock.seed),
                offline: backend.mock.offline,
            };
            Known::Ready(
                Arc::new(MockBackend::new(clock.clone(), options)),
                Some(BackendType::Mock),
            )
        }
        BackendType::Custom if backend.command.is_empty() => lacking("command"),
        BackendType::Custom => {
            let (command, run) = (backend.command.clone(), output::folder_of(&settings.base_path));
            let custom =
                CustomBackend::new(disk.clone(), clock.clone(), command, run, total_of(backend));
            Known::Ready(Arc::new(custom), Some(BackendType::Custom))
        }
        #[cfg(feature = "s3")]
        // Without either nobody knows where AWS's keys are meant to be used.
        BackendType::S3 if backend.bucket.is_none() && backend.endpoint.is_none() => {
            lacking("bucket")
        }
        #[cfg(feature = "s3")]
        BackendType::S3 => {
            let text =
                |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
            let keys = match (text(&backend.access_key_id), text(&backend.secret_access_key)) {
                (Some(id), Some(secret)) => {
                    Some(AccessKeys { id, secret, token: text(&backend.session_token) })
                }
                (Some(_), None) => return lacking("secret_access_key"),
                (None, Some(_)) => return lacking("access_key_id"),
                (None, None) if backend.session_token.is_some() => return lacking("access_key_id"),
                (None, None) => None,
            };
            let options = S3Options {
                name: name.clone(),
                endpoint: backend.endpoint.clone(),
                region: backend.region.clone().unwrap_or_default(),
                bucket: backend.bucket.clone(),
                path_style: backend.path_style.unwrap_or(backend.endpoint.is_some()),
                keys,
                checksums: backend.checksums,
                part_size: backend.part_size,
                part_jobs: backend.part_jobs,
                copy_max: COPY_MAX,
                connect: backend.connection_timeout,
                idle: backend.idle_timeout,
                total: total_of(backend),
                probe: settings.health_check_timeout,
            };
            let notes = UploadNotes::of(&settings.base_path);
            let s3 = S3Backend::new(disk.clone(), clock.clone(), notes, options);
            Known::Ready(Arc::new(s3), Some(BackendType::S3))
        }
        // Storacha, and what this build was compiled without.
        other => Known::NotBuilt(other),
    }
}
