//! What `cleanup` and `checkpoint` print.

use schemars::JsonSchema;
use serde::Serialize;

use crate::client::{CheckpointReport, CleanupPlan, Leftovers};

/// What a checkpoint did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checkpoint<'a> {
    /// Operations whose rows were written.
    operations: u64,
    /// Parquet files that were written.
    files_written: u64,
    /// Parquet files that were replaced and removed.
    files_removed: u64,
    /// Files of the journal that were folded and removed.
    generations_removed: u64,
    /// Files that no manifest names, now in `quarantine/`.
    quarantined: &'a [String],
}

impl<'a> Checkpoint<'a> {
    /// The document of a report.
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

/// What a cleanup dropped, or would drop.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cleanup<'a> {
    /// Whether this only says what would go.
    dry_run: bool,
    /// Completed at least this many days ago.
    age_days: u64,
    /// Archives that go as a whole.
    archives: Vec<ArchiveDoc<'a>>,
    /// Operations that go.
    operations: u64,
    /// How many of them are in partitions.
    from_partitions: u64,
    /// Failed operations that go.
    failed: u64,
    /// Operations old enough that stay because others wait for them, with what shares their archive.
    kept: u64,
    /// Operations old enough that stay because their archive is not pushed yet.
    unpushed: u64,
    /// Small archives that are joined with others of their day.
    joined: u64,
    /// Numbers of operations that are over, and whose unfinished uploads were aborted at their backends.
    uploads_aborted: Vec<u64>,
    /// Numbers of those whose unfinished uploads stay for now: their backends cannot be reached, for example.
    uploads_kept: Vec<u64>,
    /// Archives whose push was logged before anything went; 0 in a dry run.
    pushes: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Archive")]
struct ArchiveDoc<'a> {
    /// Its size.
    bytes: u64,
    /// The path of its file in the folder of the log.
    #[schemars(regex(pattern = r"^archives/archive_.+\.parquet$"))]
    name: &'a str,
    /// Operations in it.
    operations: u64,
}

impl<'a> Cleanup<'a> {
    /// The document of a plan.
    pub fn new(
        plan: &'a CleanupPlan,
        leftovers: &'a Leftovers,
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
                .map(|(name, operations, bytes)| ArchiveDoc {
                    bytes: *bytes,
                    name,
                    operations: *operations,
                })
                .collect(),
            operations: plan.operations
                + archives.iter().map(|(_, operations, _)| operations).sum::<u64>(),
            from_partitions: plan.operations,
            failed: plan.failed,
            kept: plan.kept,
            unpushed: plan.unpushed,
            joined: plan.joined,
            uploads_aborted: leftovers.removed.iter().map(|number| number.get()).collect(),
            uploads_kept: leftovers.kept.iter().map(|(number, _, _)| number.get()).collect(),
            pushes,
        }
    }
}
