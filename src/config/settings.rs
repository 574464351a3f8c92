use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use crate::operation::BackendName;
use crate::operation::retry::RetryPolicy;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Whether operations are accepted; reading and draining go on without.
    pub enabled: bool,
    /// The folder of the log.
    pub base_path: PathBuf,
    /// Live operations in one partition, at most.
    pub partition_size: usize,
    /// Retries of an operation that does not bring its own number.
    pub max_retries: u32,
    /// The wait after a first failure.
    pub retry_delay: Duration,
    /// The longest wait a backend may ask for.
    pub retry_after_max: Duration,
    /// The longest pause of a drain loop that follows.
    pub processing_interval: Duration,
    /// Whether completed operations move to the archive.
    pub archive_completed: bool,
    /// How often a drain loop cleans up.
    pub cleanup_interval: Duration,
    /// Days for which completed operations are kept.
    pub max_age_days: u32,
    /// Where archives are pushed before they may go; none: nowhere by itself.
    pub archive_push: Option<String>,
    /// The name of this machine in the history that is pushed; none: its host name.
    pub archive_host: Option<String>,
    /// The backend that pushes archives; none: see [`Settings::archive_backend`].
    pub archive_backend: Option<BackendName>,
    /// How long a backend's health holds before it is probed again.
    pub health_check_interval: Duration,
    /// How long a probe may take.
    pub health_check_timeout: Duration,
    /// Probes remembered for each backend.
    pub health_history_size: usize,
    /// The backend of operations that name none.
    pub default_backend: BackendName,
    /// Operations carried out at once on one backend.
    pub jobs: usize,
    /// Whether content is copied when its operation is logged.
    pub spool: SpoolMode,
    /// The largest content that `auto` copies.
    pub spool_max_bytes: u64,
    /// Free bytes below which nothing new is accepted.
    pub min_free_bytes: u64,
    /// How long a lock of the log is waited for.
    pub lock_timeout: Duration,
    /// The backends by name.
    pub backends: BTreeMap<BackendName, BackendSettings>,
}

impl Settings {
    /// The defaults for a log in this folder.
    pub fn at(base_path: PathBuf) -> Settings {
        let mut backends: BTreeMap<_, _> = BackendType::ALL
            .into_iter()
            .map(|kind| (kind.name(), BackendSettings::new(kind)))
            .collect();
        if let Some(local) = backends.get_mut(&BackendType::Local.name()) {
            local.path = Some(base_path.join("local"));
        }
        Settings {
            enabled: true,
            base_path,
            partition_size: 1000,
            max_retries: 5,
            retry_delay: Duration::from_secs(60),
            retry_after_max: Duration::from_secs(3600),
            processing_interval: Duration::from_secs(10),
            archive_completed: true,
            cleanup_interval: Duration::from_secs(86_400),
            max_age_days: 30,
            archive_push: None,
            archive_host: None,
            archive_backend: None,
            health_check_interval: Duration::from_secs(60),
            health_check_timeout: Duration::from_secs(10),
            health_history_size: 25,
            default_backend: BackendType::Ipfs.name(),
            jobs: 4,
            spool: SpoolMode::Auto,
            spool_max_bytes: 64 << 20,
            min_free_bytes: 64 << 20,
            lock_timeout: Duration::from_secs(10),
            backends,
        }
    }

    /// The backend that pushes archives: the one that is set, or the only one of type `s3` of which anything is set,
    /// or `s3`.
    pub fn archive_backend(&self) -> BackendName {
        let unset = BackendSettings::new(BackendType::S3);
        let is_set = |settings: &BackendSettings| {
            settings.backend_type == BackendType::S3 && *settings != unset
        };
        let mut named =
            self.backends.iter().filter(|(_, settings)| is_set(settings)).map(|(name, _)| name);
        let only = named.next().filter(|_| named.next().is_none());
        self.archive_backend.as_ref().or(only).cloned().unwrap_or_else(|| BackendType::S3.name())
    }

    /// Returns how failed attempts are retried.
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::new(self.retry_delay, self.retry_after_max)
    }

    /// Bytes that a backend may move per second; none: no limit.
    pub fn bytes_per_second_of(&self, backend: &BackendName) -> Option<NonZeroU64> {
        self.backends
            .get(backend)
            .and_then(|settings| NonZeroU64::new(settings.max_bytes_per_second))
    }

    /// Operations that a backend carries out at once.
    pub fn jobs_of(&self, backend: &BackendName) -> usize {
        self.backends.get(backend).and_then(|settings| settings.jobs).unwrap_or(self.jobs)
    }
}

/// Defines an enum whose variants are words of the configuration.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// All of them, in the order they are shown.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// What a word stands for, if anything.
            pub fn parse(word: &str) -> Option<$name> {
                $name::ALL.into_iter().find(|one| one.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words!(
    /// Whether content is copied into the log when its operation is logged.
    SpoolMode {
        /// Where it costs nothing, or up to `spool_max_bytes`.
        Auto = "auto",
        /// Whatever its size.
        Always = "always",
        /// Never: the source is read when the operation is carried out.
        Never = "never",
    }
);

words!(
    /// What kind of place a backend is. Each word is also the name of a backend of that type.
    BackendType {
        /// A folder of this machine.
        Local = "local",
        /// A Kubo node.
        Ipfs = "ipfs",
        /// An S3 service.
        S3 = "s3",
        /// A Storacha service.
        Storacha = "storacha",
        /// A program of the user's.
        Custom = "custom",
        /// Nothing real: for rehearsals and tests.
        Mock = "mock",
    }
);

impl BackendType {
    /// The predeclared backend of this type.
    pub fn name(self) -> BackendName {
        let Ok(name) = BackendName::new(self.as_str()) else {
            unreachable!("each word above is a name")
        };
        name
    }
}

/// Text that is not to be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Text that is not to be seen.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("********")
    }
}

/// The settings of one backend. Those that its type has no use for stay at their defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendSettings {
    /// What kind of place it is.
    pub backend_type: BackendType,
    /// Address of the service (ipfs, s3, storacha).
    pub endpoint: Option<String>,
    /// Region of the service (s3).
    pub region: Option<String>,
    /// Bucket of operations that name none (s3).
    pub bucket: Option<String>,
    /// The id of an access key (s3); not set: AWS's usual user_dirs tell.
    pub access_key_id: Option<Secret>,
    /// The secret of that key (s3).
    pub secret_access_key: Option<Secret>,
    /// The token of a session (s3).
    pub session_token: Option<Secret>,
    /// Whether addresses name the bucket in their path (s3); not set: if there is an endpoint.
    pub path_style: Option<bool>,
    /// Whether the service takes and gives CRC-32 (s3).
    pub checksums: bool,
    /// Bytes of a part of a large file (s3).
    pub part_size: u64,
    /// Parts of one file that are sent at once (s3).
    pub part_jobs: usize,
    /// The program and its arguments (custom).
    pub command: Vec<String>,
    /// The folder (local).
    pub path: Option<PathBuf>,
    /// How long a connection may take to come about (ipfs, s3, storacha).
    pub connection_timeout: Duration,
    /// How long nothing may move (ipfs, s3, storacha).
    pub idle_timeout: Duration,
    /// How long one attempt may take (ipfs, s3, storacha, custom); zero: as long as it needs, if something moves.
    pub total_timeout: Duration,
    /// A bearer token (ipfs).
    pub token: Option<Secret>,
    /// A user (ipfs).
    pub username: Option<String>,
    /// The user's password (ipfs).
    pub password: Option<Secret>,
    /// Operations carried out at once; as many as `jobs` says if not set.
    pub jobs: Option<usize>,
    /// Bytes moved per second, by all of its operations together (local, ipfs, s3, storacha); zero: no limit.
    pub max_bytes_per_second: u64,
    /// Version of new CIDs (local, ipfs).
    pub cid_version: u32,
    /// Whether leaves are raw blocks (local, ipfs); with CIDs of version 1 only, if not set.
    pub raw_leaves: Option<bool>,
    /// Bytes of content in one block (local, ipfs).
    pub chunk_size: u64,
    /// Links in one node of a file's tree (local, ipfs).
    pub max_links: u32,
    /// How a rehearsal goes (mock).
    pub mock: MockSettings,
}

impl BackendSettings {
    /// Whether it has the name and the settings that it has by itself. `local` is where the log is: it has its own.
    pub fn is_untouched(&self, name: &BackendName) -> bool {
        *name == self.backend_type.name() && *self == BackendSettings::new(self.backend_type)
    }

    /// The defaults of a type.
    pub fn new(backend_type: BackendType) -> BackendSettings {
        let endpoint =
            (backend_type == BackendType::Ipfs).then(|| "http://localhost:5001/api/v0".to_owned());
        let region = (backend_type == BackendType::S3).then(|| "us-west-2".to_owned());
        let connection_timeout = Duration::from_secs(match backend_type {
            BackendType::S3 => 10,
            BackendType::Storacha => 15,
            _ => 5,
        });
        BackendSettings {
            backend_type,
            endpoint,
            region,
            bucket: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            path_style: None,
            checksums: true,
            part_size: 16 << 20,
            part_jobs: 4,
            command: Vec::new(),
            path: None,
            connection_timeout,
            idle_timeout: Duration::from_secs(300),
            total_timeout: Duration::ZERO,
            token: None,
            username: None,
            password: None,
            jobs: None,
            max_bytes_per_second: 0,
            cid_version: 0,
            raw_leaves: None,
            chunk_size: 262_144,
            max_links: 174,
            mock: MockSettings::default(),
        }
    }
}

/// How a rehearsal goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MockSettings {
    /// The share of attempts that fail, 0 to 1.
    pub failure_rate: f64,
    /// What every attempt takes, in milliseconds.
    pub latency_ms: u64,
    /// Decides which attempts fail.
    pub seed: u64,
    /// Whether it is away altogether.
    pub offline: bool,
}
