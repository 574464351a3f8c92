use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use super::backends::{BackendSettings, BackendType};
use crate::operation::retry::RetryPolicy;
use crate::operation::{BackendName, defaults};

/// The configuration of a log and its backends.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// True if operations are accepted. Reading and draining work in any case.
    pub enabled: bool,
    /// The directory of the log.
    pub base_path: PathBuf,
    /// True if commands fail when there is no log, instead of creating one: its disk may not be
    /// mounted.
    pub must_exist: bool,
    /// The most live operations in one partition.
    pub partition_size: usize,
    /// Retries after a first failure, for operations that set no number of their own.
    pub max_retries: u32,
    /// The wait after the first failure.
    pub retry_delay: Duration,
    /// The longest wait a backend may ask for.
    pub retry_after_max: Duration,
    /// The longest pause of a drain loop that follows the log.
    pub processing_interval: Duration,
    /// True if completed operations move to the archive.
    pub archive_completed: bool,
    /// The interval between cleanups by a drain loop.
    pub cleanup_interval: Duration,
    /// The number of days for which completed operations are kept.
    pub max_age_days: u32,
    /// The destination to which archives are pushed before they are pruned. `None` means that they
    /// are pushed only by hand.
    pub archive_push: Option<String>,
    /// The name of this machine in pushed archives. `None` means its host name.
    pub archive_host: Option<String>,
    /// The backend that pushes archives. `None` means the one that [`Settings::archive_backend`]
    /// finds.
    pub archive_backend: Option<BackendName>,
    /// The time after which a backend is probed again.
    pub health_check_interval: Duration,
    /// The longest time for a probe.
    pub health_check_timeout: Duration,
    /// The number of probes remembered for each backend.
    pub health_history_size: usize,
    /// The backend of operations that name none.
    pub default_backend: BackendName,
    /// The most operations that run at the same time on one backend.
    pub jobs: usize,
    /// The choice of content that is copied when its operation is logged.
    pub spool: SpoolMode,
    /// The largest content in bytes that [`SpoolMode::Auto`] copies.
    pub spool_max_bytes: u64,
    /// The free space in bytes below which new operations are refused.
    pub min_free_bytes: u64,
    /// The longest wait for a lock of the log.
    pub lock_timeout: Duration,
    /// The backends, by name.
    pub backends: BTreeMap<BackendName, BackendSettings>,
}

impl Settings {
    /// Makes relative paths absolute, so that a change of the working directory does not change
    /// them, and their parent directories can be flushed.
    pub(crate) fn make_paths_absolute(&mut self) {
        let local = self.backends.values_mut().filter_map(BackendSettings::local_mut);
        let paths = local.filter_map(|local| local.path.as_mut()).chain([&mut self.base_path]);
        for path in paths {
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        }
    }

    /// Returns the defaults for a log in this directory.
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
            must_exist: false,
            partition_size: defaults::PARTITION_SIZE,
            max_retries: defaults::MAX_RETRIES,
            retry_delay: Duration::from_secs(60),
            retry_after_max: Duration::from_secs(3600),
            processing_interval: Duration::from_secs(10),
            archive_completed: defaults::ARCHIVE_COMPLETED,
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
            min_free_bytes: defaults::MIN_FREE_BYTES,
            lock_timeout: defaults::LOCK_TIMEOUT,
            backends,
        }
    }

    /// Returns the backend that pushes archives: the configured one, or else the only one of type
    /// `s3` whose settings were changed, or else `s3`.
    pub fn archive_backend(&self) -> BackendName {
        let unset = BackendSettings::new(BackendType::S3);
        let is_changed = |settings: &BackendSettings| {
            settings.backend_type() == BackendType::S3 && *settings != unset
        };
        let mut named =
            self.backends.iter().filter(|(_, settings)| is_changed(settings)).map(|(name, _)| name);
        let only = named.next().filter(|_| named.next().is_none());
        self.archive_backend.as_ref().or(only).cloned().unwrap_or_else(|| BackendType::S3.name())
    }

    /// Returns the policy by which failed attempts are retried.
    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::new(self.retry_delay, self.retry_after_max)
    }

    /// Returns the bytes that a backend may move per second, if they are limited.
    pub fn bytes_per_second_of(&self, backend: &BackendName) -> Option<NonZeroU64> {
        self.backends
            .get(backend)
            .and_then(|settings| NonZeroU64::new(settings.max_bytes_per_second()?))
    }

    /// Returns the most operations that run at the same time on this backend.
    pub fn jobs_of(&self, backend: &BackendName) -> usize {
        self.backends.get(backend).and_then(|settings| settings.jobs).unwrap_or(self.jobs)
    }
}

/// Defines an enum whose variants are words of the configuration.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// All variants, in the order in which they are listed.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// Returns the word in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// Returns the variant with this word, if there is one.
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
    /// The choice of content that is copied into the log when its operation is logged.
    SpoolMode {
        /// Content up to `spool_max_bytes`, and larger content where a copy costs nothing.
        Auto = "auto",
        /// All content.
        Always = "always",
        /// None: the source is read when the operation runs.
        Never = "never",
    }
);
