//! What `verify` prints.

use schemars::JsonSchema;
use serde::Serialize;

use super::words::AsName;
use crate::client::{Check, Durability, Finding, FindingKind, Loss, Repaired, Verified};
use crate::wal::manifest::NumberSet;

/// What a look at every byte found.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Verify")]
pub struct VerifiedDoc<'a> {
    /// Whether nothing is wrong.
    sound: bool,
    /// Whether there is a log.
    exists: bool,
    /// Operations in what could be read.
    operations: u64,
    /// Parquet files.
    files: u64,
    /// Files of the journal.
    generations: u64,
    /// Bytes that were checked of both.
    bytes: u64,
    /// What was found, damage first.
    findings: Vec<FindingDoc<'a>>,
}

/// Something that was found.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Finding")]
pub struct FindingDoc<'a> {
    /// Whether something is wrong.
    kind: AsName<FindingKind>,
    /// The file, relative to the log.
    #[schemars(length(min = 1))]
    path: &'a str,
    /// The first byte concerned; null: unknown, or the file as a whole.
    offset: Option<u64>,
    /// What it is.
    #[schemars(length(min = 1))]
    what: &'a str,
    /// What to do.
    #[schemars(length(min = 1))]
    advice: &'a str,
}

impl<'a> FindingDoc<'a> {
    /// The document of a finding.
    pub fn new(finding: &'a Finding) -> FindingDoc<'a> {
        let Finding { kind, path, offset, what, advice } = finding;
        FindingDoc { kind: AsName(*kind), path, offset: *offset, what, advice }
    }
}

impl<'a> VerifiedDoc<'a> {
    /// The document of a look.
    pub fn new(found: &'a Verified) -> VerifiedDoc<'a> {
        VerifiedDoc {
            sound: found.is_sound(),
            exists: found.exists,
            operations: found.operations,
            files: found.files,
            generations: found.generations,
            bytes: found.bytes,
            findings: found.findings.iter().map(FindingDoc::new).collect(),
        }
    }
}

/// What a repair saved, and what is lost.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Repair")]
pub struct RepairedDoc<'a> {
    /// Whether anything was changed: a sound log is left alone.
    repaired: bool,
    /// Operations in the log now.
    operations: u64,
    /// How many of them were written anew.
    rewritten: u64,
    /// What was wrong.
    damages: Vec<FindingDoc<'a>>,
    /// What cannot be read any more.
    losses: Vec<LossDoc<'a>>,
    /// Numbers of operations of which nothing is known any more.
    lost: Vec<u64>,
    /// Numbers of operations in whose history something is missing.
    holed: Vec<u64>,
    /// Numbers of operations from files that are not as they were written: any field of them may have changed.
    doubtful: Vec<u64>,
    /// Operations that wait until they are released: they may have been done or deleted in what is lost.
    held: Vec<u64>,
    /// Files that were set aside, relative to the log.
    set_aside: &'a [String],
}

/// Something that cannot be read any more.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Loss")]
struct LossDoc<'a> {
    /// The file, relative to the log, as it was called before.
    #[schemars(length(min = 1))]
    path: &'a str,
    /// The first byte; null: the file as a whole.
    offset: Option<u64>,
    /// How many bytes from there; 0 where that is not known, or the file as a whole is meant.
    length: u64,
    /// What is lost, and why.
    #[schemars(length(min = 1))]
    what: &'a str,
}

impl<'a> RepairedDoc<'a> {
    /// The document of a repair.
    pub fn new(repaired: &'a Repaired) -> RepairedDoc<'a> {
        let loss = |Loss { path, range, what }: &'a Loss| LossDoc {
            path,
            offset: range.map(|(from, _)| from),
            length: range.map_or(0, |(from, to)| to.saturating_sub(from)),
            what,
        };
        let bare = |numbers: &NumberSet| numbers.iter().map(|number| number.get()).collect();
        RepairedDoc {
            repaired: repaired.changed,
            operations: repaired.operations,
            rewritten: repaired.rewritten,
            damages: repaired.damages.iter().map(FindingDoc::new).collect(),
            losses: repaired.losses.iter().map(loss).collect(),
            lost: bare(&repaired.lost),
            holed: bare(&repaired.holed),
            doubtful: bare(&repaired.doubtful),
            held: bare(&repaired.held),
            set_aside: &repaired.set_aside,
        }
    }
}

/// What a disk is like, for a log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Durability")]
pub struct DurabilityDoc<'a> {
    /// Whether nothing speaks against keeping a log there. What a power cut does cannot be tried.
    safe: bool,
    /// The directory below which it was tried.
    #[schemars(length(min = 1))]
    directory: String,
    /// What was tried.
    #[schemars(length(min = 7, max = 7))]
    checks: Vec<CheckDoc<'a>>,
    /// Microseconds that a flush of a small append takes: median, and what 95 % do not exceed.
    flush_us: (f64, f64),
    /// How often a process was killed at its work.
    kills: u32,
    /// Operations that those processes had acknowledged.
    acknowledged: u64,
}

/// One thing that was tried.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TriedCheck")]
struct CheckDoc<'a> {
    /// What was tried.
    check: AsName<Check>,
    /// Whether the log is safe, as far as this goes.
    safe: bool,
    /// What was seen.
    #[schemars(length(min = 1))]
    what: &'a str,
}

impl<'a> DurabilityDoc<'a> {
    /// The document of a trial.
    pub fn new(tried: &'a Durability) -> DurabilityDoc<'a> {
        DurabilityDoc {
            safe: tried.is_safe(),
            directory: tried.directory.display().to_string(),
            checks: tried
                .tried
                .iter()
                .map(|tried| CheckDoc {
                    check: AsName(tried.check),
                    safe: tried.safe,
                    what: &tried.what,
                })
                .collect(),
            flush_us: tried.flush_us,
            kills: tried.kills.0,
            acknowledged: tried.kills.1,
        }
    }
}
