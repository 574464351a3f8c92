//! The table of all keys, and suggestions for misspelled ones.

use std::collections::BTreeMap;

use super::field::Field;
use super::{BackendSettings, BackendType, ConfigError, Origin, Settings};
use crate::operation::BackendName;
use crate::suggest;

/// One key: its names, its meaning, and the field behind it.
pub(super) struct Key<T: 'static> {
    /// The name in files and on the command line.
    pub name: &'static str,
    /// The end of the environment variable's name.
    pub variable: &'static str,
    /// The meaning, in one line.
    #[cfg_attr(
        not(any(test, feature = "cli")),
        expect(dead_code, reason = "`config show` prints it")
    )]
    pub about: &'static str,
    access: Access<T>,
}

/// The function that finds the field behind a key.
enum Access<T: 'static> {
    Always(fn(&mut T) -> Field<'_>),
    /// For keys that only some types of backends have.
    IfPresent(fn(&mut T) -> Option<Field<'_>>),
}

impl<T> Key<T> {
    /// Returns the field of `target`, if it has one.
    pub(super) fn field<'a>(&self, target: &'a mut T) -> Option<Field<'a>> {
        match self.access {
            Access::Always(field) => Some(field(target)),
            Access::IfPresent(field) => field(target),
        }
    }
}

impl Key<BackendSettings> {
    /// Returns whether backends of this type have the key.
    pub(super) fn applies_to(&self, backend_type: BackendType) -> bool {
        self.field(&mut BackendSettings::new(backend_type)).is_some()
    }
}

/// Ten years. A longer duration is a typing error; this one is far from overflowing a time.
const SECONDS_MAX: f64 = 315_360_000.0;
const BYTES_MAX: u64 = 1 << 50;

const fn key(
    name: &'static str,
    variable: &'static str,
    about: &'static str,
    field: fn(&mut Settings) -> Field<'_>,
) -> Key<Settings> {
    Key { name, variable, about, access: Access::Always(field) }
}

/// The keys of the log as a whole, in the order of the manual.
pub(super) static GLOBAL_KEYS: [Key<Settings>; 23] = [
    key("enabled", "ENABLED", "whether operations are accepted", |s| Field::Bool(&mut s.enabled)),
    key("base_path", "PATH", "directory of the log", |s| Field::Path(&mut s.base_path)),
    key("must_exist", "MUST_EXIST", "whether to fail if there is no log", |s| {
        Field::Bool(&mut s.must_exist)
    }),
    key("partition_size", "PARTITION_SIZE", "live operations per partition", |s| {
        Field::Integer(&mut s.partition_size, 1..=1_000_000)
    }),
    key("max_retries", "MAX_RETRIES", "retries after a first failure", |s| {
        Field::Integer(&mut s.max_retries, 0..=1_000)
    }),
    key("retry_delay", "RETRY_DELAY", "seconds to wait after the first failure", |s| {
        Field::Seconds(&mut s.retry_delay, 0.0..=SECONDS_MAX)
    }),
    key(
        "retry_after_max",
        "RETRY_AFTER_MAX",
        "longest wait in seconds that a backend may ask for",
        |s| Field::Seconds(&mut s.retry_after_max, 0.0..=SECONDS_MAX),
    ),
    key(
        "processing_interval",
        "PROCESS_INTERVAL",
        "longest pause in seconds of a drain loop with `--follow`",
        |s| Field::Seconds(&mut s.processing_interval, 0.05..=SECONDS_MAX),
    ),
    key(
        "archive_completed",
        "ARCHIVE_COMPLETED",
        "whether completed operations move to the archive",
        |s| Field::Bool(&mut s.archive_completed),
    ),
    key("cleanup_interval", "CLEANUP_INTERVAL", "seconds between cleanups by a drain loop", |s| {
        Field::Seconds(&mut s.cleanup_interval, 1.0..=SECONDS_MAX)
    }),
    key("max_age_days", "MAX_AGE_DAYS", "days for which completed operations are kept", |s| {
        Field::Integer(&mut s.max_age_days, 0..=36_500)
    }),
    key(
        "archive_push",
        "ARCHIVE_PUSH",
        "destination of archives, pushed before they are pruned, such as s3://BUCKET/PREFIX",
        |s| Field::Text(&mut s.archive_push),
    ),
    key(
        "archive_host",
        "ARCHIVE_HOST",
        "name of this machine in pushed archives; defaults to its host name",
        |s| Field::HostName(&mut s.archive_host),
    ),
    key(
        "archive_backend",
        "ARCHIVE_BACKEND",
        "backend that pushes archives; defaults to the one of type s3",
        |s| Field::MaybeBackend(&mut s.archive_backend),
    ),
    key(
        "health_check_interval",
        "HEALTH_CHECK_INTERVAL",
        "seconds until a backend is probed again",
        |s| Field::Seconds(&mut s.health_check_interval, 0.05..=SECONDS_MAX),
    ),
    key("health_check_timeout", "HEALTH_CHECK_TIMEOUT", "seconds to wait for a probe", |s| {
        Field::Seconds(&mut s.health_check_timeout, 0.05..=3_600.0)
    }),
    key("health_history_size", "HEALTH_HISTORY_SIZE", "probes remembered for each backend", |s| {
        Field::Integer(&mut s.health_history_size, 3..=10_000)
    }),
    key("default_backend", "DEFAULT_BACKEND", "backend of operations that name none", |s| {
        Field::Backend(&mut s.default_backend)
    }),
    key("jobs", "JOBS", "operations executed at once per backend", |s| {
        Field::Integer(&mut s.jobs, 1..=1_024)
    }),
    key("spool", "SPOOL", "whether content is copied when its operation is logged", |s| {
        Field::Spool(&mut s.spool)
    }),
    key(
        "spool_max_bytes",
        "SPOOL_MAX_BYTES",
        "largest content in bytes that spool = \"auto\" copies",
        |s| Field::Bytes(&mut s.spool_max_bytes, 0..=BYTES_MAX),
    ),
    key(
        "min_free_bytes",
        "MIN_FREE_BYTES",
        "free bytes below which new operations are refused",
        |s| Field::Bytes(&mut s.min_free_bytes, 0..=BYTES_MAX),
    ),
    key("lock_timeout", "LOCK_TIMEOUT", "seconds to wait for a lock of the log", |s| {
        Field::Seconds(&mut s.lock_timeout, 0.0..=86_400.0)
    }),
];

const fn of_backend(
    name: &'static str,
    variable: &'static str,
    about: &'static str,
    field: fn(&mut BackendSettings) -> Option<Field<'_>>,
) -> Key<BackendSettings> {
    Key { name, variable, about, access: Access::IfPresent(field) }
}

/// The keys of one backend, in the order of the manual.
pub(super) static BACKEND_KEYS: [Key<BackendSettings>; 29] = [
    of_backend("type", "TYPE", "type of the backend", |b| Some(Field::Type(b.backend_type()))),
    of_backend("endpoint", "ENDPOINT", "address of the service", |b| {
        Some(Field::Url(b.endpoint_mut()?))
    }),
    of_backend("region", "REGION", "region of the service", |b| {
        Some(Field::Text(&mut b.s3_mut()?.region))
    }),
    of_backend("bucket", "BUCKET", "bucket of operations that name none", |b| {
        Some(Field::Text(&mut b.s3_mut()?.bucket))
    }),
    of_backend(
        "access_key_id",
        "ACCESS_KEY_ID",
        "access key id; defaults to the standard AWS credential chain",
        |b| Some(Field::Secret(&mut b.s3_mut()?.access_key_id)),
    ),
    of_backend("secret_access_key", "SECRET_ACCESS_KEY", "secret of the access key", |b| {
        Some(Field::Secret(&mut b.s3_mut()?.secret_access_key))
    }),
    of_backend("session_token", "SESSION_TOKEN", "session token of temporary credentials", |b| {
        Some(Field::Secret(&mut b.s3_mut()?.session_token))
    }),
    of_backend(
        "path_style",
        "PATH_STYLE",
        "whether addresses name the bucket in their path; defaults to true with an endpoint",
        |b| Some(Field::MaybeBool(&mut b.s3_mut()?.path_style)),
    ),
    of_backend("checksums", "CHECKSUMS", "whether the service supports CRC checksums", |b| {
        Some(Field::Bool(&mut b.s3_mut()?.checksums))
    }),
    // The bounds of all services.
    of_backend("part_size", "PART_SIZE", "bytes of one part of a large file", |b| {
        Some(Field::Bytes(&mut b.s3_mut()?.part_size, 5 << 20..=5 << 30))
    }),
    of_backend("part_jobs", "PART_JOBS", "parts of one file that are sent at once", |b| {
        Some(Field::Integer(&mut b.s3_mut()?.part_jobs, 1..=64))
    }),
    of_backend("command", "COMMAND", "program and its arguments", |b| {
        Some(Field::Command(&mut b.custom_mut()?.command))
    }),
    of_backend("path", "PATH", "directory of the store", |b| {
        Some(Field::MaybePath(&mut b.local_mut()?.path))
    }),
    of_backend(
        "connection_timeout",
        "CONNECTION_TIMEOUT",
        "seconds to wait for a connection",
        |b| Some(Field::Seconds(&mut b.timeouts_mut()?.connection, 0.05..=3_600.0)),
    ),
    of_backend(
        "idle_timeout",
        "IDLE_TIMEOUT",
        "seconds without progress before an attempt is aborted",
        |b| Some(Field::Seconds(&mut b.timeouts_mut()?.idle, 0.05..=86_400.0)),
    ),
    of_backend(
        "total_timeout",
        "TOTAL_TIMEOUT",
        "seconds for one attempt in all; 0 means no limit",
        |b| Some(Field::Seconds(b.total_timeout_mut()?, 0.0..=SECONDS_MAX)),
    ),
    of_backend("token", "TOKEN", "bearer token, if the service requires one", |b| {
        Some(Field::Secret(&mut b.ipfs_mut()?.token))
    }),
    of_backend(
        "username",
        "USERNAME",
        "user name, if the service requires one and no token",
        |b| Some(Field::Text(&mut b.ipfs_mut()?.username)),
    ),
    of_backend("password", "PASSWORD", "password of that user", |b| {
        Some(Field::Secret(&mut b.ipfs_mut()?.password))
    }),
    of_backend("jobs", "JOBS", "operations executed at once; defaults to the global `jobs`", |b| {
        Some(Field::Integer(&mut b.jobs, 1..=1_024))
    }),
    of_backend(
        "max_bytes_per_second",
        "MAX_BYTES_PER_SECOND",
        "bytes moved per second by all operations of the backend; 0 means no limit",
        |b| Some(Field::Bytes(b.max_bytes_per_second_mut()?, 0..=BYTES_MAX)),
    ),
    of_backend("cid_version", "CID_VERSION", "version of new CIDs", |b| {
        Some(Field::Integer(&mut b.unixfs_mut()?.cid_version, 0..=1))
    }),
    of_backend(
        "raw_leaves",
        "RAW_LEAVES",
        "whether leaves are raw blocks; defaults to true with CIDs of version 1",
        |b| Some(Field::MaybeBool(&mut b.unixfs_mut()?.raw_leaves)),
    ),
    // Kubo accepts no larger chunk, and other nodes no larger block.
    of_backend("chunk_size", "CHUNK_SIZE", "bytes of content in one block", |b| {
        Some(Field::Bytes(&mut b.unixfs_mut()?.chunk_size, 1..=1 << 20))
    }),
    of_backend("max_links", "MAX_LINKS", "links in one node of a file's tree", |b| {
        Some(Field::Integer(&mut b.unixfs_mut()?.max_links, 2..=8_192))
    }),
    of_backend("failure_rate", "FAILURE_RATE", "share of attempts that fail", |b| {
        Some(Field::Ratio(&mut b.mock_mut()?.failure_rate))
    }),
    of_backend("latency_ms", "LATENCY_MS", "milliseconds that each attempt takes", |b| {
        Some(Field::Integer(&mut b.mock_mut()?.latency_ms, 0..=3_600_000))
    }),
    of_backend("seed", "SEED", "decides which attempts fail; 0 means at random", |b| {
        Some(Field::Integer(&mut b.mock_mut()?.seed, 0..=i64::MAX as u64))
    }),
    of_backend("offline", "OFFLINE", "whether the backend is unreachable", |b| {
        Some(Field::Bool(&mut b.mock_mut()?.offline))
    }),
];

/// Returns the key of this name.
pub(super) fn find<T>(table: &'static [Key<T>], name: &str) -> Option<&'static Key<T>> {
    table.iter().find(|key| key.name == name)
}

/// Returns the error for an unknown key, with a suggestion.
pub(super) fn unknown(
    backends: &BTreeMap<BackendName, BackendSettings>,
    key: &str,
    origin: Option<Origin>,
) -> ConfigError {
    let hint = if BACKEND_KEYS.iter().any(|known| known.name == key) {
        Some(format!("`{key}` is a key of a single backend: set `backends.NAME.{key}`"))
    } else if suggest::is_typo_of(key, "backends") {
        Some("did you mean `[backends.NAME]`?".to_owned())
    } else {
        let general = GLOBAL_KEYS.iter().map(|known| known.name.to_owned());
        let of_backends = backends.iter().flat_map(|(name, settings)| {
            let backend_type = settings.backend_type();
            let keys = BACKEND_KEYS.iter().filter(move |known| known.applies_to(backend_type));
            keys.map(move |known| format!("backends.{name}.{}", known.name))
        });
        did_you_mean(key, general.chain(of_backends))
    };
    ConfigError::UnknownKey { key: key.to_owned(), origin, hint }
}

/// Returns the hint that names the most similar of the `known` words.
pub(super) fn did_you_mean(wrong: &str, known: impl IntoIterator<Item = String>) -> Option<String> {
    suggest::closest(wrong, known).map(|word| format!("did you mean `{word}`?"))
}

/// Returns whether the value of a key must not be shown.
pub fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase();
    last.split(['_', '-']).any(|word| {
        matches!(
            word,
            "secret" | "token" | "password" | "passphrase" | "credential" | "credentials" | "key"
        )
    })
}

/// Returns a value as it may be shown: secrets, and the user part of an address, are replaced by
/// asterisks.
pub fn redact(key: &str, value: &str) -> String {
    const HIDDEN: &str = "********";
    if is_secret(key) {
        return HIDDEN.to_owned();
    }
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{HIDDEN}{}", &rest[user.len()..]),
        None => value.to_owned(),
    }
}
