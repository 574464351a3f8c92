//! The documents of `verify`.

use schemars::JsonSchema;
use serde::Serialize;

use super::words::AsName;
use crate::client::{Check, Durability, Finding, FindingKind, Loss, Repaired, Verified};
use crate::operation::Number;

/// The result of checking every byte of the log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Verify")]
pub struct VerifiedDoc<'a> {
    /// True if nothing is damaged.
    sound: bool,
    /// True if a log exists.
    exists: bool,
    /// Number of operations that could be read.
    operations: u64,
    /// Number of Parquet files.
    files: u64,
    /// Number of journal generations.
    generations: u64,
    /// Bytes checked in both.
    bytes: u64,
    /// The findings, damage first.
    findings: Vec<FindingDoc<'a>>,
}

/// A finding.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Finding")]
pub struct FindingDoc<'a> {
    /// Damage, or a note that needs no action.
    kind: AsName<FindingKind>,
    /// Path of the file, relative to the log.
    #[schemars(length(min = 1))]
    path: &'a str,
    /// Offset of the first byte concerned; null if unknown, or if it is the whole file.
    offset: Option<u64>,
    /// Description of the finding.
    #[schemars(length(min = 1))]
    what: &'a str,
    /// The next step.
    #[schemars(length(min = 1))]
    advice: &'a str,
}

impl<'a> FindingDoc<'a> {
    /// Returns the document of a finding.
    pub fn new(finding: &'a Finding) -> FindingDoc<'a> {
        let Finding { kind, path, offset, what, advice } = finding;
        FindingDoc { kind: AsName(*kind), path, offset: *offset, what, advice }
    }
}

impl<'a> VerifiedDoc<'a> {
    /// Returns the document of a verification.
    pub fn new(found: &'a Verified) -> VerifiedDoc<'a> {
        VerifiedDoc {
            sound: found.is_valid(),
            exists: found.exists,
            operations: found.operations,
            files: found.files,
            generations: found.generations,
            bytes: found.bytes,
            findings: found.findings.iter().map(FindingDoc::new).collect(),
        }
    }
}

/// The result of a repair: what was saved and what is lost.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Repair")]
pub struct RepairedDoc<'a> {
    /// True if anything was changed; a valid log is left as it is.
    repaired: bool,
    /// Number of operations in the repaired log.
    operations: u64,
    /// Number of operations that were rewritten.
    rewritten: u64,
    /// The damage that was found.
    damages: Vec<FindingDoc<'a>>,
    /// The parts of the log that could not be recovered.
    losses: Vec<LossDoc<'a>>,
    /// Numbers of operations of which nothing could be recovered.
    lost: Vec<u64>,
    /// Numbers of operations with gaps in their history.
    holed: Vec<u64>,
    /// Numbers of operations recovered from altered files; any of their fields may be wrong.
    doubtful: Vec<u64>,
    /// Numbers of operations that are held until released: the lost part of the log may have
    /// recorded their completion or deletion.
    held: Vec<u64>,
    /// Files that were moved to quarantine, relative to the log.
    set_aside: &'a [String],
}

/// A part of the log that could not be recovered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Loss")]
struct LossDoc<'a> {
    /// Path of the file before the repair, relative to the log.
    #[schemars(length(min = 1))]
    path: &'a str,
    /// Offset of the first lost byte; null if the whole file is lost.
    offset: Option<u64>,
    /// Number of lost bytes; 0 if unknown, or if the whole file is lost.
    length: u64,
    /// Description of the loss and its reason.
    #[schemars(length(min = 1))]
    what: &'a str,
}

impl<'a> RepairedDoc<'a> {
    /// Returns the document of a repair.
    pub fn new(repaired: &'a Repaired) -> RepairedDoc<'a> {
        let loss = |Loss { path, range, what }: &'a Loss| LossDoc {
            path,
            offset: range.map(|range| range.start),
            length: range.map_or(0, |range| range.len()),
            what,
        };
        RepairedDoc {
            repaired: repaired.changed,
            operations: repaired.operations,
            rewritten: repaired.rewritten,
            damages: repaired.damages.iter().map(FindingDoc::new).collect(),
            losses: repaired.losses.iter().map(loss).collect(),
            lost: plain(repaired.lost.iter()),
            holed: plain(repaired.holed.iter()),
            doubtful: plain(repaired.doubtful.iter()),
            held: plain(repaired.held.iter()),
            set_aside: &repaired.set_aside,
        }
    }
}

fn plain(numbers: impl Iterator<Item = Number>) -> Vec<u64> {
    numbers.map(Number::get).collect()
}

/// The result of testing whether a disk is safe for a log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Durability")]
pub struct DurabilityDoc<'a> {
    /// True if every check passed. A power failure cannot be simulated.
    safe: bool,
    /// Directory in which the checks ran.
    #[schemars(length(min = 1))]
    directory: String,
    /// The checks.
    #[schemars(length(min = 7, max = 7))]
    checks: Vec<CheckDoc<'a>>,
    /// Time to flush a small append, in microseconds: median and 95th percentile.
    flush_us: (f64, f64),
    /// Number of times a writing process was killed.
    kills: u32,
    /// Number of operations that the killed processes had acknowledged.
    acknowledged: u64,
}

/// A check of the disk.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TriedCheck")]
struct CheckDoc<'a> {
    /// Name of the check.
    check: AsName<Check>,
    /// True if the check passed.
    safe: bool,
    /// Observation of the check.
    #[schemars(length(min = 1))]
    what: &'a str,
}

impl<'a> DurabilityDoc<'a> {
    /// Returns the document of a test.
    pub fn new(tested: &'a Durability) -> DurabilityDoc<'a> {
        DurabilityDoc {
            safe: tested.is_safe(),
            directory: tested.directory.display().to_string(),
            checks: tested
                .checks
                .iter()
                .map(|result| CheckDoc {
                    check: AsName(result.check),
                    safe: result.safe,
                    what: &result.finding,
                })
                .collect(),
            flush_us: (tested.flush.median_us, tested.flush.p95_us),
            kills: tested.kills.kills,
            acknowledged: tested.kills.acknowledged,
        }
    }
}
