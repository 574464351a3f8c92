use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use super::backends::{BackendSettings, BackendType};
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
        if let Some(local) =
            backends.get_mut(&BackendType::Local.name()).and_then(BackendSettings::local_mut)
        {
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

    /// The backend that pushes archives: the one that is set, or the only one of type `s3` of which
    /// anything is set,
    /// or `s3`.
    pub fn archive_backend(&self) -> BackendName {
        let unset = BackendSettings::new(BackendType::S3);
        let is_set = |settings: &BackendSettings| {
            settings.backend_type() == BackendType::S3 && *settings != unset
        };
        let mut named =
            self.backends.iter().filter(|(_, settings)| is_set(settings)).map(|(name, _)| name);
        let only = named.next().filter(|_| named.next().is_none());
        self.archive_backend.as_ref().or(only).cloned().unwrap_or_else(|| BackendType::S3.name())
    }

    /// Returns how failed attempts are retried.
    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::new(self.retry_delay, self.retry_after_max)
    }

    /// Bytes that a backend may move per second; none: no limit.
    pub fn bytes_per_second_of(&self, backend: &BackendName) -> Option<NonZeroU64> {
        self.backends
            .get(backend)
            .and_then(|settings| NonZeroU64::new(settings.max_bytes_per_second()?))
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

pub(super) use words;

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
