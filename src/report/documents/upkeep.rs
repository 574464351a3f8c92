//! The documents of `cleanup` and `checkpoint`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::client::{CheckpointReport, CleanupPlan, OrphanedUploads};

/// The result of a checkpoint.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checkpoint<'a> {
    /// Number of operations written to Parquet files.
    operations: u64,
    /// Number of Parquet files written.
    files_written: u64,
    /// Number of Parquet files superseded and removed.
    files_removed: u64,
    /// Number of journal generations folded and removed.
    generations_removed: u64,
    /// Files named by no manifest, which were moved to `quarantine/`.
    quarantined: &'a [String],
}

impl<'a> Checkpoint<'a> {
    /// Returns the document of a report.
    pub fn new(report: &'a CheckpointReport) -> Checkpoint<'a> {
        let CheckpointReport {
            operations,
            files_written,
            files_removed,
            generations_removed,
            quarantined,
        } = report;
        Checkpoint {
            operations: *operations,
            files_written: *files_written,
            files_removed: *files_removed,
            generations_removed: *generations_removed,
            quarantined,
        }
    }
}

/// The operations and archives that a cleanup removed, or would remove.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cleanup<'a> {
    /// True if nothing was removed: the fields say what a cleanup would do.
    dry_run: bool,
    /// Retention in days: only operations that ended earlier are removed.
    age_days: u64,
    /// Archives that are removed as a whole.
    archives: Vec<ArchiveDoc<'a>>,
    /// Number of operations removed.
    operations: u64,
    /// Number of removed operations that were in partitions.
    from_partitions: u64,
    /// Number of failed operations removed.
    failed: u64,
    /// Number of expired operations that stay because others depend on them, or on an operation
    /// in the same archive.
    kept: u64,
    /// Number of expired operations that stay because their archive has not been pushed yet.
    unpushed: u64,
    /// Number of small archives merged with others of their day.
    joined: u64,
    /// Ended or deleted operations whose unfinished uploads were aborted at their backends.
    uploads_aborted: Vec<u64>,
    /// Ended or deleted operations whose unfinished uploads remain, for example because the
    /// backend is unreachable.
    uploads_kept: Vec<u64>,
    /// Number of archives whose push was logged before anything was removed; 0 in a dry run.
    pushes: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Archive")]
struct ArchiveDoc<'a> {
    /// Size in bytes.
    bytes: u64,
    /// Path of the file, relative to the log.
    #[schemars(regex(pattern = r"^archives/archive_.+\.parquet$"))]
    name: &'a str,
    /// Number of operations in the archive.
    operations: u64,
}

impl<'a> Cleanup<'a> {
    /// Returns the document of a plan.
    pub fn new(
        plan: &'a CleanupPlan,
        leftovers: &'a OrphanedUploads,
        dry_run: bool,
        age_days: u64,
        pushes: u64,
    ) -> Cleanup<'a> {
        let archives = &plan.archives;
        Cleanup {
            dry_run,
            age_days,
            archives: archives
                .iter()
                .map(|archive| ArchiveDoc {
                    bytes: archive.bytes,
                    name: &archive.name,
                    operations: archive.operations,
                })
                .collect(),
            operations: plan.operations
                + archives.iter().map(|archive| archive.operations).sum::<u64>(),
            from_partitions: plan.operations,
            failed: plan.failed,
            kept: plan.kept,
            unpushed: plan.unpushed,
            joined: plan.joined,
            uploads_aborted: leftovers.removed.iter().map(|number| number.get()).collect(),
            uploads_kept: leftovers.kept.iter().map(|kept| kept.number.get()).collect(),
            pushes,
        }
    }
}
