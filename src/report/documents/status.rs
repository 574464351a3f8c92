//! What `status` prints.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::health::{HealthDoc, by_name};
use super::process::HolderDoc;
use super::words::AsDisplay;
use crate::client::{Damage, Stats, StatusCounts};
use crate::operation::{BackendName, OperationId, Time};

/// How the log is doing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatusDoc<'a> {
    /// How many operations there are.
    stats: AllCounts,
    /// The same by name of backend.
    backends: BTreeMap<&'a str, Counts>,
    /// The pending operation that was logged first.
    oldest_pending: Option<Oldest>,
    /// Whether a drain loop runs.
    processing_active: bool,
    /// Which; null: none.
    processing: Option<HolderDoc<'a>>,
    /// What earlier probes say of the backends, by name.
    health: BTreeMap<&'a str, HealthDoc<'a>>,
    /// Backends that somebody means to use: the default one, those with settings of their own, and those of operations in
    /// the log. Only these count as `offline`.
    backends_used: Vec<&'a str>,
    /// Bytes of changes that no Parquet file holds yet.
    journal_bytes: u64,
    /// How many partitions there are.
    partitions: u64,
    /// How many archives there are.
    archives: u64,
    /// Bytes that may still be written where the log is; null if that cannot be told.
    free_bytes: Option<u64>,
    /// The folder of the log.
    base_path: String,
    /// What of the log cannot be read.
    damage: Option<DamageDoc<'a>>,
    /// What the adoption of the original system's files did not understand; it stands in the files named.
    unread: Vec<DamageDoc<'a>>,
}

/// Operations by status.
#[derive(Debug, Serialize, JsonSchema)]
struct Counts {
    pending: u64,
    processing: u64,
    completed: u64,
    failed: u64,
    retrying: u64,
    /// All of them.
    total: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct AllCounts {
    #[serde(flatten)]
    counts: Counts,
    /// How many of the completed ones are in archives.
    archived: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OldestPending")]
struct Oldest {
    /// Its number.
    #[schemars(range(min = 1))]
    number: u64,
    /// Its id; null if it cannot be read.
    operation_id: Option<AsDisplay<OperationId>>,
    /// When it was logged.
    timestamp: AsDisplay<Time>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Damage")]
struct DamageDoc<'a> {
    /// The file.
    path: String,
    /// Where in it; null: it as a whole.
    offset: Option<u64>,
    /// What is wrong with it.
    what: &'a str,
}

impl Counts {
    fn new(counts: &StatusCounts) -> Counts {
        let StatusCounts { pending, processing, completed, failed, retrying } = *counts;
        Counts { pending, processing, completed, failed, retrying, total: counts.total() }
    }
}

impl<'a> StatusDoc<'a> {
    /// The document; `oldest` is the id of the oldest pending operation.
    pub fn new(stats: &'a Stats, oldest: Option<OperationId>, base_path: &Path) -> StatusDoc<'a> {
        StatusDoc {
            stats: AllCounts { counts: Counts::new(&stats.counts), archived: stats.archived },
            backends: stats
                .backends
                .iter()
                .map(|(name, counts)| (name.as_str(), Counts::new(counts)))
                .collect(),
            oldest_pending: stats.oldest_pending.map(|(number, at)| Oldest {
                number: number.get(),
                operation_id: oldest.map(AsDisplay),
                timestamp: AsDisplay(at),
            }),
            processing_active: stats.processing.is_some(),
            processing: stats.processing.as_ref().map(HolderDoc::new),
            health: by_name(&stats.health),
            backends_used: stats.used.iter().map(BackendName::as_str).collect(),
            journal_bytes: stats.journal_bytes,
            partitions: stats.files.0,
            archives: stats.files.1,
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
