//! The table of all keys, and guesses at what a wrong one was meant to be.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::field::Field;
use super::{BackendSettings, BackendType, ConfigError, Entry, Loaded, Origin, Settings};
use crate::operation::BackendName;
use crate::suggest;

/// One key: its names, what it means, and the field behind it.
pub(super) struct Key<T: 'static> {
    /// Its name in files and on the command line.
    pub name: &'static str,
    /// The end of its environment variable's name.
    pub variable: &'static str,
    /// What it means, in one line.
    pub about: &'static str,
    /// The types of backend that have it; empty for keys of the log as a whole.
    pub types: &'static [BackendType],
    /// The field.
    pub field: fn(&mut T) -> Field<'_>,
}

/// Ten years: longer is a slip of the keyboard, and safely within what arithmetic on time can take.
const SECONDS_MAX: f64 = 315_360_000.0;
const BYTES_MAX: u64 = 1 << 50;

const fn key(
    name: &'static str,
    variable: &'static str,
    about: &'static str,
    field: fn(&mut Settings) -> Field<'_>,
) -> Key<Settings> {
    Key { name, variable, about, types: &[], field }
}

/// The keys of the log as a whole, in the order of the manual.
pub(super) static GLOBAL_KEYS: [Key<Settings>; 22] = [
    key("enabled", "ENABLED", "whether operations are accepted", |s| Field::Bool(&mut s.enabled)),
    key("base_path", "PATH", "folder of the log", |s| Field::Path(&mut s.base_path)),
    key("partition_size", "PARTITION_SIZE", "live operations in one partition", |s| {
        Field::Integer(&mut s.partition_size, 1..=1_000_000)
    }),
    key("max_retries", "MAX_RETRIES", "retries after a first failure", |s| {
        Field::Integer(&mut s.max_retries, 0..=1_000)
    }),
    key("retry_delay", "RETRY_DELAY", "seconds to wait after a first failure", |s| {
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
        "longest pause in seconds of a drain loop that follows",
        |s| Field::Seconds(&mut s.processing_interval, 0.05..=SECONDS_MAX),
    ),
    key(
        "archive_completed",
        "ARCHIVE_COMPLETED",
        "whether completed operations move to the archive",
        |s| Field::Bool(&mut s.archive_completed),
    ),
    key(
        "cleanup_interval",
        "CLEANUP_INTERVAL",
        "seconds between two cleanups by a drain loop",
        |s| Field::Seconds(&mut s.cleanup_interval, 1.0..=SECONDS_MAX),
    ),
    key("max_age_days", "MAX_AGE_DAYS", "days for which completed operations are kept", |s| {
        Field::Integer(&mut s.max_age_days, 0..=36_500)
    }),
    key(
        "archive_push",
        "ARCHIVE_PUSH",
        "where cleanups push archives before they may go, s3://BUCKET/PREFIX for example",
        |s| Field::Text(&mut s.archive_push),
    ),
    key(
        "archive_host",
        "ARCHIVE_HOST",
        "name of this machine in the history that is pushed, if not its own",
        |s| Field::HostName(&mut s.archive_host),
    ),
    key(
        "archive_backend",
        "ARCHIVE_BACKEND",
        "backend that pushes archives; if not set, the one for S3",
        |s| Field::MaybeBackend(&mut s.archive_backend),
    ),
    key(
        "health_check_interval",
        "HEALTH_CHECK_INTERVAL",
        "seconds until a backend is probed again",
        |s| Field::Seconds(&mut s.health_check_interval, 0.05..=SECONDS_MAX),
    ),
    key("health_check_timeout", "HEALTH_CHECK_TIMEOUT", "seconds that a probe may take", |s| {
        Field::Seconds(&mut s.health_check_timeout, 0.05..=3_600.0)
    }),
    key("health_history_size", "HEALTH_HISTORY_SIZE", "probes remembered for each backend", |s| {
        Field::Integer(&mut s.health_history_size, 3..=10_000)
    }),
    key("default_backend", "DEFAULT_BACKEND", "backend of operations that name none", |s| {
        Field::Backend(&mut s.default_backend)
    }),
    key("jobs", "JOBS", "operations carried out at once on one backend", |s| {
        Field::Integer(&mut s.jobs, 1..=1_024)
    }),
    key("spool", "SPOOL", "whether content is copied when it is logged", |s| {
        Field::Spool(&mut s.spool)
    }),
    key(
        "spool_max_bytes",
        "SPOOL_MAX_BYTES",
        "largest content that spool = \"auto\" copies",
        |s| Field::Bytes(&mut s.spool_max_bytes, 0..=BYTES_MAX),
    ),
    key(
        "min_free_bytes",
        "MIN_FREE_BYTES",
        "free space below which nothing new is accepted",
        |s| Field::Bytes(&mut s.min_free_bytes, 0..=BYTES_MAX),
    ),
    key("lock_timeout", "LOCK_TIMEOUT", "seconds to wait for a lock of the log", |s| {
        Field::Seconds(&mut s.lock_timeout, 0.0..=86_400.0)
    }),
];

use BackendType::{Custom, Ipfs, Local, Mock, S3, Storacha};

const NETWORK: &[BackendType] = &[Ipfs, S3, Storacha];
const CONTENT: &[BackendType] = &[Local, Ipfs];

/// Those through whose hands bytes go.
const MOVING: &[BackendType] = &[Local, Ipfs, S3, Storacha];

const fn of(
    types: &'static [BackendType],
    name: &'static str,
    variable: &'static str,
    about: &'static str,
    field: fn(&mut BackendSettings) -> Field<'_>,
) -> Key<BackendSettings> {
    Key { name, variable, about, types, field }
}

/// The keys of one backend, in the order of the manual.
pub(super) static BACKEND_KEYS: [Key<BackendSettings>; 29] = [
    of(&BackendType::ALL, "type", "TYPE", "what kind of place it is", |b| {
        Field::Type(&mut b.backend_type)
    }),
    of(NETWORK, "endpoint", "ENDPOINT", "address of the service", |b| Field::Url(&mut b.endpoint)),
    of(&[S3], "region", "REGION", "region of the service", |b| Field::Text(&mut b.region)),
    of(&[S3], "bucket", "BUCKET", "bucket of operations that name none", |b| {
        Field::Text(&mut b.bucket)
    }),
    of(
        &[S3],
        "access_key_id",
        "ACCESS_KEY_ID",
        "who we are; if not set, AWS's usual user_dirs tell",
        |b| Field::Secret(&mut b.access_key_id),
    ),
    of(&[S3], "secret_access_key", "SECRET_ACCESS_KEY", "the secret of that key", |b| {
        Field::Secret(&mut b.secret_access_key)
    }),
    of(&[S3], "session_token", "SESSION_TOKEN", "the token of a session, if it is one", |b| {
        Field::Secret(&mut b.session_token)
    }),
    of(
        &[S3],
        "path_style",
        "PATH_STYLE",
        "whether addresses name the bucket in their path; with an endpoint, yes",
        |b| Field::MaybeBool(&mut b.path_style),
    ),
    of(&[S3], "checksums", "CHECKSUMS", "whether the service takes and gives CRC-32", |b| {
        Field::Bool(&mut b.checksums)
    }),
    // No service takes smaller ones, or larger ones.
    of(&[S3], "part_size", "PART_SIZE", "bytes of a part of a large file", |b| {
        Field::Bytes(&mut b.part_size, 5 << 20..=5 << 30)
    }),
    of(&[S3], "part_jobs", "PART_JOBS", "parts of one file that are sent at once", |b| {
        Field::Integer(&mut b.part_jobs, 1..=64)
    }),
    of(&[Custom], "command", "COMMAND", "the program and its arguments", |b| {
        Field::Command(&mut b.command)
    }),
    of(&[Local], "path", "PATH", "the folder", |b| Field::MaybePath(&mut b.path)),
    of(
        NETWORK,
        "connection_timeout",
        "CONNECTION_TIMEOUT",
        "seconds that a connection may take to come about",
        |b| Field::Seconds(&mut b.connection_timeout, 0.05..=3_600.0),
    ),
    of(
        NETWORK,
        "idle_timeout",
        "IDLE_TIMEOUT",
        "seconds for which nothing may move before an attempt is given up",
        |b| Field::Seconds(&mut b.idle_timeout, 0.05..=86_400.0),
    ),
    of(
        &[Ipfs, S3, Storacha, Custom],
        "total_timeout",
        "TOTAL_TIMEOUT",
        "seconds that an attempt may take in all; 0: no limit",
        |b| Field::Seconds(&mut b.total_timeout, 0.0..=SECONDS_MAX),
    ),
    of(&[Ipfs], "token", "TOKEN", "bearer token, if the service wants one", |b| {
        Field::Secret(&mut b.token)
    }),
    of(&[Ipfs], "username", "USERNAME", "user, if the service wants one and no token", |b| {
        Field::Text(&mut b.username)
    }),
    of(&[Ipfs], "password", "PASSWORD", "that user's password", |b| Field::Secret(&mut b.password)),
    of(
        &BackendType::ALL,
        "jobs",
        "JOBS",
        "operations carried out at once, if not as `jobs` says",
        |b| Field::Integer(&mut b.jobs, 1..=1_024),
    ),
    of(
        MOVING,
        "max_bytes_per_second",
        "MAX_BYTES_PER_SECOND",
        "bytes moved per second, by all of its operations together; 0: no limit",
        |b| Field::Bytes(&mut b.max_bytes_per_second, 0..=BYTES_MAX),
    ),
    of(CONTENT, "cid_version", "CID_VERSION", "version of new CIDs", |b| {
        Field::Integer(&mut b.cid_version, 0..=1)
    }),
    of(CONTENT, "raw_leaves", "RAW_LEAVES", "whether leaves are raw blocks", |b| {
        Field::MaybeBool(&mut b.raw_leaves)
    }),
    // Kubo takes no larger chunk, and other nodes no larger block.
    of(CONTENT, "chunk_size", "CHUNK_SIZE", "bytes of content in one block", |b| {
        Field::Bytes(&mut b.chunk_size, 1..=1 << 20)
    }),
    of(CONTENT, "max_links", "MAX_LINKS", "links in one node of a file's tree", |b| {
        Field::Integer(&mut b.max_links, 2..=8_192)
    }),
    of(&[Mock], "failure_rate", "FAILURE_RATE", "share of attempts that fail", |b| {
        Field::Ratio(&mut b.mock.failure_rate)
    }),
    of(&[Mock], "latency_ms", "LATENCY_MS", "milliseconds that every attempt takes", |b| {
        Field::Integer(&mut b.mock.latency_ms, 0..=3_600_000)
    }),
    of(&[Mock], "seed", "SEED", "decides which attempts fail", |b| {
        Field::Integer(&mut b.mock.seed, 0..=i64::MAX as u64)
    }),
    of(&[Mock], "offline", "OFFLINE", "whether it is away altogether", |b| {
        Field::Bool(&mut b.mock.offline)
    }),
];

/// The key of this name in a table.
pub(super) fn find<T>(table: &'static [Key<T>], name: &str) -> Option<&'static Key<T>> {
    table.iter().find(|key| key.name == name)
}

/// Every key as it stands.
pub(super) fn all(loaded: &Loaded) -> Vec<Entry> {
    let mut settings = loaded.settings.clone();
    let mut entries = Vec::new();
    let mut push = |name: String, value: Json, about: &'static str| {
        let origin = loaded.origin(&name).clone();
        entries.push(Entry { value: redacted(&name, value), key: name, origin, about });
    };
    for key in &GLOBAL_KEYS {
        push(key.name.to_owned(), (key.field)(&mut settings).show(), key.about);
    }
    for (backend, settings) in &mut settings.backends {
        let kind = settings.backend_type;
        for key in BACKEND_KEYS.iter().filter(|key| key.types.contains(&kind)) {
            push(
                format!("backends.{backend}.{}", key.name),
                (key.field)(settings).show(),
                key.about,
            );
        }
    }
    entries
}

/// The error for a key that is not there, with a guess.
pub(super) fn unknown(
    backends: &BTreeMap<BackendName, BackendSettings>,
    key: &str,
    origin: Option<Origin>,
) -> ConfigError {
    let hint = if BACKEND_KEYS.iter().any(|known| known.name == key) {
        Some(format!("`{key}` is set for one backend: backends.NAME.{key}"))
    } else if suggest::is_typo_of(key, "backends") {
        Some("did you mean `[backends.NAME]`?".to_owned())
    } else {
        let general = GLOBAL_KEYS.iter().map(|known| known.name.to_owned());
        let of_backends = backends.iter().flat_map(|(name, settings)| {
            let keys =
                BACKEND_KEYS.iter().filter(|known| known.types.contains(&settings.backend_type));
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

/// Whether what a key holds must not be shown.
pub fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase();
    last.split(['_', '-']).any(|word| {
        matches!(
            word,
            "secret" | "token" | "password" | "passphrase" | "credential" | "credentials" | "key"
        )
    })
}

/// A value as it may be shown: secrets, and the user part of an address, replaced by asterisks.
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

fn redacted(key: &str, value: Json) -> Json {
    match value {
        Json::String(text) => Json::String(redact(key, &text)),
        Json::Array(items) if is_secret(key) => Json::String(redact(key, &format!("{items:?}"))),
        other => other,
    }
}
