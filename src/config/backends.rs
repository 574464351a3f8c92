//! The settings of one backend: those of all types, and a struct for each type.

use std::path::PathBuf;
use std::time::Duration;

use super::settings::words;
use crate::operation::BackendName;

/// Declares the types of backends, each with its settings.
macro_rules! backend_types {
    ($($(#[$doc:meta])* $variant:ident($settings:ident) = $word:literal),+ $(,)?) => {
        words!(
            /// The type of a backend. Each word is also the name of a predeclared backend of that
            /// type.
            BackendType { $($(#[$doc])* $variant = $word),+ }
        );

        /// The settings that only backends of one type have.
        #[derive(Debug, Clone, PartialEq)]
        pub enum BackendKind { $($(#[$doc])* $variant($settings)),+ }

        impl BackendKind {
            /// Returns the defaults of a type.
            pub fn new(backend_type: BackendType) -> BackendKind {
                match backend_type {
                    $(BackendType::$variant => BackendKind::$variant($settings::default())),+
                }
            }

            /// Returns the type that the settings belong to.
            pub fn backend_type(&self) -> BackendType {
                match self { $(BackendKind::$variant(_) => BackendType::$variant),+ }
            }
        }
    };
}

backend_types! {
    /// A directory of this machine.
    Local(LocalSettings) = "local",
    /// A Kubo node.
    Ipfs(IpfsSettings) = "ipfs",
    /// A service that speaks S3.
    S3(S3Settings) = "s3",
    /// A Storacha service.
    Storacha(StorachaSettings) = "storacha",
    /// A program of the user.
    Custom(CustomSettings) = "custom",
    /// A simulation, for rehearsals and tests.
    Mock(MockSettings) = "mock",
}

impl BackendType {
    /// Returns the name of the predeclared backend of this type.
    pub fn name(self) -> BackendName {
        let Ok(name) = BackendName::new(self.as_str()) else {
            unreachable!("each word above is a name")
        };
        name
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text so that it is never shown.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// Returns the text, for the service that it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("********")
    }
}

/// The settings of one backend.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendSettings {
    /// The most operations that run at the same time. If not set, the global `jobs`.
    pub jobs: Option<usize>,
    /// The settings of its type.
    pub kind: BackendKind,
}

impl BackendSettings {
    /// Returns the defaults of a type.
    pub fn new(backend_type: BackendType) -> BackendSettings {
        BackendSettings { jobs: None, kind: BackendKind::new(backend_type) }
    }

    /// Returns the type of the backend.
    pub fn backend_type(&self) -> BackendType {
        self.kind.backend_type()
    }

    /// Returns whether `name` is the predeclared backend of this type, with default settings. Never
    /// true of `local`, whose path depends on the log.
    pub fn is_untouched(&self, name: &BackendName) -> bool {
        *name == self.backend_type().name() && *self == BackendSettings::new(self.backend_type())
    }

    /// Returns the settings of type `local`, if it is of that type.
    pub fn local_mut(&mut self) -> Option<&mut LocalSettings> {
        if let BackendKind::Local(local) = &mut self.kind { Some(local) } else { None }
    }

    /// Returns the settings of type `ipfs`, if it is of that type.
    pub fn ipfs_mut(&mut self) -> Option<&mut IpfsSettings> {
        if let BackendKind::Ipfs(ipfs) = &mut self.kind { Some(ipfs) } else { None }
    }

    /// Returns the settings of type `s3`, if it is of that type.
    pub fn s3_mut(&mut self) -> Option<&mut S3Settings> {
        if let BackendKind::S3(s3) = &mut self.kind { Some(s3) } else { None }
    }

    /// Returns the settings of type `custom`, if it is of that type.
    pub fn custom_mut(&mut self) -> Option<&mut CustomSettings> {
        if let BackendKind::Custom(custom) = &mut self.kind { Some(custom) } else { None }
    }

    /// Returns the settings of type `mock`, if it is of that type.
    pub fn mock_mut(&mut self) -> Option<&mut MockSettings> {
        if let BackendKind::Mock(mock) = &mut self.kind { Some(mock) } else { None }
    }

    /// Returns the address of the service, for types that have one.
    pub fn endpoint_mut(&mut self) -> Option<&mut Option<String>> {
        match &mut self.kind {
            BackendKind::Ipfs(ipfs) => Some(&mut ipfs.endpoint),
            BackendKind::S3(s3) => Some(&mut s3.endpoint),
            BackendKind::Storacha(storacha) => Some(&mut storacha.endpoint),
            _ => None,
        }
    }

    /// Returns the timeouts, for types that use a network.
    pub fn timeouts_mut(&mut self) -> Option<&mut Timeouts> {
        match &mut self.kind {
            BackendKind::Ipfs(ipfs) => Some(&mut ipfs.timeouts),
            BackendKind::S3(s3) => Some(&mut s3.timeouts),
            BackendKind::Storacha(storacha) => Some(&mut storacha.timeouts),
            _ => None,
        }
    }

    /// Returns the limit on the time of one attempt, for types that have one.
    pub fn total_timeout_mut(&mut self) -> Option<&mut Duration> {
        match &mut self.kind {
            BackendKind::Custom(custom) => Some(&mut custom.total_timeout),
            BackendKind::Ipfs(ipfs) => Some(&mut ipfs.timeouts.total),
            BackendKind::S3(s3) => Some(&mut s3.timeouts.total),
            BackendKind::Storacha(storacha) => Some(&mut storacha.timeouts.total),
            _ => None,
        }
    }

    /// Returns the options of UnixFS, for types that compute CIDs.
    pub fn unixfs_mut(&mut self) -> Option<&mut UnixFsSettings> {
        match &mut self.kind {
            BackendKind::Local(local) => Some(&mut local.unixfs),
            BackendKind::Ipfs(ipfs) => Some(&mut ipfs.unixfs),
            _ => None,
        }
    }

    /// Returns the limit on bytes moved per second, by all operations of the backend together; 0
    /// means no limit. `None` for types that do not move content themselves.
    pub fn max_bytes_per_second(&self) -> Option<u64> {
        match &self.kind {
            BackendKind::Local(local) => Some(local.max_bytes_per_second),
            BackendKind::Ipfs(ipfs) => Some(ipfs.max_bytes_per_second),
            BackendKind::S3(s3) => Some(s3.max_bytes_per_second),
            BackendKind::Storacha(storacha) => Some(storacha.max_bytes_per_second),
            _ => None,
        }
    }

    /// Returns the limit of [`max_bytes_per_second`](Self::max_bytes_per_second) for changes.
    pub fn max_bytes_per_second_mut(&mut self) -> Option<&mut u64> {
        match &mut self.kind {
            BackendKind::Local(local) => Some(&mut local.max_bytes_per_second),
            BackendKind::Ipfs(ipfs) => Some(&mut ipfs.max_bytes_per_second),
            BackendKind::S3(s3) => Some(&mut s3.max_bytes_per_second),
            BackendKind::Storacha(storacha) => Some(&mut storacha.max_bytes_per_second),
            _ => None,
        }
    }
}

/// The time limits of calls to a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// The longest time to establish a connection.
    pub connection: Duration,
    /// The longest time without progress.
    pub idle: Duration,
    /// The longest time of one attempt. Zero means no limit while there is progress.
    pub total: Duration,
}

impl Timeouts {
    /// Returns the defaults, with this time in seconds to establish a connection.
    fn with_connection(seconds: u64) -> Timeouts {
        Timeouts {
            connection: Duration::from_secs(seconds),
            idle: Duration::from_secs(300),
            total: Duration::ZERO,
        }
    }
}

/// The options of UnixFS, which decide the CIDs of new content.
#[derive(Debug, Clone, PartialEq)]
pub struct UnixFsSettings {
    /// The version of new CIDs, 0 or 1.
    pub cid_version: u32,
    /// True if leaves are raw blocks. If not set, only with CIDs of version 1.
    pub raw_leaves: Option<bool>,
    /// Bytes of content in one block.
    pub chunk_size: u64,
    /// The most links in one node of a file's tree.
    pub max_links: u32,
}

impl Default for UnixFsSettings {
    fn default() -> UnixFsSettings {
        UnixFsSettings { cid_version: 0, raw_leaves: None, chunk_size: 262_144, max_links: 174 }
    }
}

/// The settings of a backend of type `local`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalSettings {
    /// The directory. If not set, `local` in the directory of the log.
    pub path: Option<PathBuf>,
    /// The options of UnixFS.
    pub unixfs: UnixFsSettings,
    /// Bytes moved per second. 0 means no limit.
    pub max_bytes_per_second: u64,
}

/// The settings of a backend of type `ipfs`.
#[derive(Debug, Clone, PartialEq)]
pub struct IpfsSettings {
    /// The address of the RPC API.
    pub endpoint: Option<String>,
    /// The time limits of calls.
    pub timeouts: Timeouts,
    /// The bearer token, if the node requires one.
    pub token: Option<Secret>,
    /// The user name, if the node requires one and no token.
    pub username: Option<String>,
    /// The password of that user.
    pub password: Option<Secret>,
    /// The options of UnixFS.
    pub unixfs: UnixFsSettings,
    /// Bytes moved per second. 0 means no limit.
    pub max_bytes_per_second: u64,
}

impl Default for IpfsSettings {
    fn default() -> IpfsSettings {
        IpfsSettings {
            endpoint: Some("http://localhost:5001/api/v0".to_owned()),
            timeouts: Timeouts::with_connection(5),
            token: None,
            username: None,
            password: None,
            unixfs: UnixFsSettings::default(),
            max_bytes_per_second: 0,
        }
    }
}

/// The settings of a backend of type `s3`.
#[derive(Debug, Clone, PartialEq)]
pub struct S3Settings {
    /// The address of the service. If not set, that of AWS in the region.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The bucket of operations that name none.
    pub bucket: Option<String>,
    /// The access key id. If not set, the standard AWS credential chain is used.
    pub access_key_id: Option<Secret>,
    /// The secret of the access key.
    pub secret_access_key: Option<Secret>,
    /// The session token of temporary credentials.
    pub session_token: Option<Secret>,
    /// True if addresses name the bucket in their path. If not set, only with an endpoint.
    pub path_style: Option<bool>,
    /// True if the service supports CRC checksums.
    pub checksums: bool,
    /// Bytes of one part of a large file.
    pub part_size: u64,
    /// The most parts of one file that are sent at the same time.
    pub part_jobs: usize,
    /// The time limits of calls.
    pub timeouts: Timeouts,
    /// Bytes moved per second. 0 means no limit.
    pub max_bytes_per_second: u64,
}

impl Default for S3Settings {
    fn default() -> S3Settings {
        S3Settings {
            endpoint: None,
            region: Some("us-west-2".to_owned()),
            bucket: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            path_style: None,
            checksums: true,
            part_size: 16 << 20,
            part_jobs: 4,
            timeouts: Timeouts::with_connection(10),
            max_bytes_per_second: 0,
        }
    }
}

/// The settings of a backend of type `storacha`, which this version cannot use yet.
#[derive(Debug, Clone, PartialEq)]
pub struct StorachaSettings {
    /// The address of the service.
    pub endpoint: Option<String>,
    /// The time limits of calls.
    pub timeouts: Timeouts,
    /// Bytes moved per second. 0 means no limit.
    pub max_bytes_per_second: u64,
}

impl Default for StorachaSettings {
    fn default() -> StorachaSettings {
        StorachaSettings {
            endpoint: None,
            timeouts: Timeouts::with_connection(15),
            max_bytes_per_second: 0,
        }
    }
}

/// The settings of a backend of type `custom`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CustomSettings {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The longest time of one attempt. Zero means no limit.
    pub total_timeout: Duration,
}

/// The settings of a backend of type `mock`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MockSettings {
    /// The share of attempts that fail, 0 to 1.
    pub failure_rate: f64,
    /// The duration of every attempt, in milliseconds.
    pub latency_ms: u64,
    /// The seed that decides which attempts fail. 0 means a different one in each process.
    pub seed: u64,
    /// True if the backend is unreachable.
    pub offline: bool,
}
