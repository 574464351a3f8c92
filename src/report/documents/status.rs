//! The document of `status`.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::health::{HealthDoc, by_name};
use super::process::HolderDoc;
use super::words::AsDisplay;
use crate::client::{Damage, LogStatus, OldestPending, StatusCounts};
use crate::operation::{BackendName, OperationId, Time};

/// The state of the log, its drain loop and its backends.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatusDoc<'a> {
    /// Number of operations, by status.
    stats: AllCounts,
    /// The same, by backend name.
    backends: BTreeMap<&'a str, Counts>,
    /// The oldest pending operation; null if none is pending.
    oldest_pending: Option<Oldest>,
    /// True while a drain loop is running.
    processing_active: bool,
    /// The running drain loop; null if there is none.
    processing: Option<HolderDoc<'a>>,
    /// Health of the backends by name, from earlier checks.
    health: BTreeMap<&'a str, HealthDoc<'a>>,
    /// Backends in use: the default one, those with settings of their own, and those of
    /// operations in the log. Only these count as `offline`.
    backends_used: Vec<&'a str>,
    /// Bytes in the journal that are not in a Parquet file yet.
    journal_bytes: u64,
    /// Number of partitions.
    partitions: u64,
    /// Number of archives.
    archives: u64,
    /// Free bytes on the log's file system; null if unknown.
    free_bytes: Option<u64>,
    /// The directory of the log.
    base_path: String,
    /// Damage that makes part of the log unreadable; null if there is none.
    damage: Option<DamageDoc<'a>>,
    /// Entries of adopted `ipfs_kit_py` files that could not be read; they remain in those files.
    unread: Vec<DamageDoc<'a>>,
}

/// Number of operations in each status.
#[derive(Debug, Serialize, JsonSchema)]
struct Counts {
    pending: u64,
    processing: u64,
    completed: u64,
    failed: u64,
    retrying: u64,
    /// Sum over all statuses.
    total: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct AllCounts {
    #[serde(flatten)]
    counts: Counts,
    /// Number of completed operations that are in archives.
    archived: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OldestPending")]
struct Oldest {
    /// Number of the operation.
    #[schemars(range(min = 1))]
    number: u64,
    /// Id of the operation; null if it cannot be read.
    operation_id: Option<AsDisplay<OperationId>>,
    /// Time of logging.
    timestamp: AsDisplay<Time>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Damage")]
struct DamageDoc<'a> {
    /// The damaged file.
    path: String,
    /// Byte offset of the damage; null if it concerns the whole file.
    offset: Option<u64>,
    /// Description of the damage.
    what: &'a str,
}

impl Counts {
    fn new(counts: &StatusCounts) -> Counts {
        let StatusCounts { pending, processing, completed, failed, retrying } = *counts;
        Counts { pending, processing, completed, failed, retrying, total: counts.total() }
    }
}

impl<'a> StatusDoc<'a> {
    /// Returns the document; `oldest` is the id of the oldest pending operation.
    pub fn new(
        stats: &'a LogStatus,
        oldest: Option<OperationId>,
        base_path: &Path,
    ) -> StatusDoc<'a> {
        StatusDoc {
            stats: AllCounts { counts: Counts::new(&stats.counts), archived: stats.archived },
            backends: stats
                .backends
                .iter()
                .map(|(name, counts)| (name.as_str(), Counts::new(counts)))
                .collect(),
            oldest_pending: stats.oldest_pending.map(|OldestPending { number, logged_at: at }| {
                Oldest {
                    number: number.get(),
                    operation_id: oldest.map(AsDisplay),
                    timestamp: AsDisplay(at),
                }
            }),
            processing_active: stats.processing.is_some(),
            processing: stats.processing.as_ref().map(HolderDoc::new),
            health: by_name(&stats.health),
            backends_used: stats.used.iter().map(BackendName::as_str).collect(),
            journal_bytes: stats.journal_bytes,
            partitions: stats.files.partitions,
            archives: stats.files.archives,
            free_bytes: stats.free_bytes,
            base_path: base_path.display().to_string(),
            damage: stats.damage.as_ref().map(DamageDoc::new),
            unread: stats.unread.iter().map(DamageDoc::new).collect(),
        }
    }
}

impl<'a> DamageDoc<'a> {
    fn new(damage: &'a Damage) -> DamageDoc<'a> {
        DamageDoc {
            path: damage.path.display().to_string(),
            offset: damage.offset,
            what: &damage.what,
        }
    }
}
