//! Checks that a disk keeps the guarantees that the log relies on.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Client;
use super::error::ClientError;
use crate::clock::Clock;
use crate::disk::{Access, Disk, DiskError, DiskResult, FileKind};
use crate::worker::Stop;

/// The number of flushes that are timed.
const FLUSHES: usize = 100;

/// Bytes of each timed write: about the size of the record of an `add`.
const RECORD: usize = 300;

/// The number of renames that a concurrent reader watches.
const RENAMES: usize = 200;

/// One check of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// The file system is local and persistent.
    FileSystem,
    /// A lock keeps a second process out.
    Lock,
    /// A rename is atomic for readers.
    Rename,
    /// Flushes take a plausible time.
    Flush,
    /// There is enough free space.
    Space,
    /// Files can share content.
    Sharing,
    /// Operations that a process acknowledged survive `kill -9` of that process.
    Kills,
}

impl Check {
    /// All checks, in the order in which they run.
    pub const ALL: [Check; 7] = [
        Check::FileSystem,
        Check::Lock,
        Check::Rename,
        Check::Flush,
        Check::Space,
        Check::Sharing,
        Check::Kills,
    ];

    /// Returns the check's name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Check::FileSystem => "file_system",
            Check::Lock => "lock",
            Check::Rename => "rename",
            Check::Flush => "flush",
            Check::Space => "space",
            Check::Sharing => "sharing",
            Check::Kills => "kills",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckResult {
    /// The check.
    pub check: Check,
    /// True if the log is safe on this disk, as far as this check can determine.
    pub safe: bool,
    /// The finding, in one clause.
    pub finding: String,
}

/// Times of one flush of a small append, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct FlushTimes {
    /// The median.
    pub median_us: f64,
    /// The time that 95 % of the flushes do not exceed.
    pub p95_us: f64,
}

/// The extent of the kill check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KillCounts {
    /// The number of processes that were killed.
    pub kills: u32,
    /// The number of operations that they had acknowledged.
    pub acknowledged: u64,
}

/// The results of all checks.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Durability {
    /// The directory that was checked.
    pub directory: PathBuf,
    /// The result of each check.
    pub checks: Vec<CheckResult>,
    /// Times of a flush.
    pub flush: FlushTimes,
    /// The extent of the kill check.
    pub kills: KillCounts,
}

impl Durability {
    /// Returns `true` if every check passed.
    pub fn is_safe(&self) -> bool {
        self.checks.iter().all(|result| result.safe)
    }
}

/// Starts helper processes, which only the executable can do.
pub trait Processes {
    /// Returns `true` if another process can take the lock of this file.
    fn try_lock(&self, path: &Path) -> io::Result<bool>;
    /// Starts a process that appends to a log, kills it a time `after` its first acknowledgement,
    /// and returns the ids that it acknowledged.
    fn append_and_kill(&self, log: &Path, after: Duration) -> io::Result<Vec<String>>;
    /// Returns the ids of all operations in a log, read by a new process.
    fn list(&self, log: &Path) -> io::Result<Vec<String>>;
}

impl Client {
    /// Checks the disk of a directory, in a subdirectory that is removed afterwards.
    ///
    /// Without a `directory`, checks that of the log, or its closest existing ancestor. A power
    /// failure cannot be simulated.
    pub(crate) fn durability(
        &self,
        directory: Option<&Path>,
        rounds: u32,
        processes: &dyn Processes,
        stop: &Stop,
    ) -> Result<Durability, ClientError> {
        let disk = &*self.disk;
        let directory = directory.unwrap_or_else(|| existing_ancestor(disk, self.layout.base()));
        let scratch = directory.join(format!("durability-{:016x}.tmp", self.clock.random()));
        disk.create_dir(&scratch)?;
        let checks = DiskChecks {
            disk,
            clock: &*self.clock,
            min_free_bytes: self.settings.min_free_bytes,
            scratch: &scratch,
            processes,
        };
        let result = checks.run(directory, rounds, stop);
        let removed = disk.remove_tree(&scratch);
        let result = result?;
        if stop.is_requested() {
            return Err(ClientError::Interrupted);
        }
        removed?;
        Ok(result)
    }
}

/// Returns the closest directory above a path that exists, or the path itself if it does.
fn existing_ancestor<'p>(disk: &dyn Disk, path: &'p Path) -> &'p Path {
    let exists =
        |path: &&Path| disk.metadata(path).is_ok_and(|meta| meta.kind == FileKind::Directory);
    path.ancestors().find(exists).unwrap_or(path)
}

/// The checks of one disk.
struct DiskChecks<'a> {
    disk: &'a dyn Disk,
    clock: &'a dyn Clock,
    min_free_bytes: u64,
    /// The directory for files of the checks.
    scratch: &'a Path,
    processes: &'a dyn Processes,
}

impl DiskChecks<'_> {
    fn run(&self, directory: &Path, rounds: u32, stop: &Stop) -> DiskResult<Durability> {
        let (flush, flush_times) = self.flush()?;
        let (kills, kill_counts) = self.kills(rounds, stop);
        let checks = vec![
            self.file_system()?,
            self.lock()?,
            self.rename()?,
            flush,
            self.space()?,
            self.sharing()?,
            kills,
        ];
        Ok(Durability {
            directory: directory.to_owned(),
            checks,
            flush: flush_times,
            kills: kill_counts,
        })
    }

    fn file_system(&self) -> DiskResult<CheckResult> {
        let kind = self.kind_of_file_system().unwrap_or_else(|| "unknown".into());
        let volatile = matches!(kind.as_str(), "tmpfs" | "ramfs");
        let (safe, finding) = match (self.disk.is_network(self.scratch)?, volatile) {
            (true, _) => {
                (false, format!("{kind}, over a network: locks and flushes cannot be relied on"))
            }
            (false, true) => {
                (false, format!("{kind}, in memory: a power failure erases everything"))
            }
            (false, false) => (true, format!("{kind}, local")),
        };
        Ok(CheckResult { check: Check::FileSystem, safe, finding })
    }

    /// Returns the kernel's name for the file system: that of the mount point with the longest
    /// matching prefix.
    fn kind_of_file_system(&self) -> Option<String> {
        let file = self.disk.open(Path::new("/proc/self/mountinfo"), Access::Read).ok()?;
        // Files in /proc report no size: one read into a large buffer has to suffice.
        let mut text = vec![0; 1 << 20];
        let read = file.read_at(&mut text, 0).ok()?;
        let text = String::from_utf8_lossy(&text[..read]).into_owned();
        let scratch = std::fs::canonicalize(self.scratch)
            .or_else(|_| std::path::absolute(self.scratch))
            .ok()?;
        let mounts = text.lines().filter_map(|line| {
            let point = ["\\040", "\\011", "\\012", "\\134"]
                .iter()
                .zip([" ", "\t", "\n", "\\"])
                .fold(line.split(' ').nth(4)?.to_owned(), |point, (escape, plain)| {
                    point.replace(escape, plain)
                });
            let kind = line.split_once(" - ")?.1.split(' ').next()?;
            scratch.starts_with(&point).then(|| (point.len(), kind.to_owned()))
        });
        // The later of two mounts at one point hides the earlier one.
        mounts.max_by_key(|(len, _)| *len).map(|(_, kind)| kind)
    }

    fn lock(&self) -> DiskResult<CheckResult> {
        let path = self.scratch.join("lock");
        let file = self.disk.open(&path, Access::OpenOrCreate)?;
        let locked = file.try_lock()?;
        let second_process = (|| {
            let while_held = self.processes.try_lock(&path)?;
            file.unlock().map_err(|error| error.source)?;
            io::Result::Ok((while_held, self.processes.try_lock(&path)?))
        })();
        let (safe, finding) = match (locked, second_process) {
            (true, Ok((false, true))) => {
                (true, "a second process is kept out, and let in afterwards".to_owned())
            }
            (true, Ok((true, _))) => {
                (false, "a second process got a lock that was held".to_owned())
            }
            (true, Ok((false, false))) => {
                (false, "no process gets a lock that was released".to_owned())
            }
            (false, _) => (false, "a new file cannot be locked".to_owned()),
            (_, Err(error)) => (false, format!("a second process could not be started: {error}")),
        };
        Ok(CheckResult { check: Check::Lock, safe, finding })
    }

    /// Checks that a reader of a replaced file sees either the whole old or the whole new content.
    fn rename(&self) -> DiskResult<CheckResult> {
        let (path, staged) = (self.scratch.join("renamed"), self.scratch.join("staged"));
        let content = |nth: usize| vec![nth as u8; 4096 + nth];
        self.disk.write_new_synced(&path, &content(0))?;
        let done = std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::SeqCst;
        let torn = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut torn = None;
                while !done.load(order) {
                    match self.disk.read(&path) {
                        Ok(read) if read.len() >= 4096 && read == content(read.len() - 4096) => {}
                        Ok(read) => {
                            torn = Some(format!(
                                "a reader saw {} bytes of neither content",
                                read.len()
                            ))
                        }
                        Err(error) => torn = Some(error.to_string()),
                    }
                }
                torn
            });
            let renamed = (1..=RENAMES).try_for_each(|nth| {
                self.disk.write_new_synced(&staged, &content(nth))?;
                self.disk.publish(&staged, &path)?;
                match self.disk.read(&path)? == content(nth) {
                    true => Ok(()),
                    false => Err(DiskError::new(
                        "rename",
                        &path,
                        io::Error::other("the old content is still visible"),
                    )),
                }
            });
            done.store(true, order);
            let torn = watch.join().unwrap_or_else(|_| Some("the reader failed".into()));
            renamed.err().map(|error| error.to_string()).or(torn)
        });
        Ok(match torn {
            None => CheckResult {
                check: Check::Rename,
                safe: true,
                finding: format!(
                    "readers saw {RENAMES} replaced files whole, and the new content at once"
                ),
            },
            Some(finding) => CheckResult { check: Check::Rename, safe: false, finding },
        })
    }

    fn flush(&self) -> DiskResult<(CheckResult, FlushTimes)> {
        let file = self.disk.open(&self.scratch.join("flushed"), Access::CreateNew)?;
        let mut times = Vec::with_capacity(FLUSHES);
        for nth in 0..FLUSHES {
            let start = self.clock.elapsed();
            file.write_at(&[b'x'; RECORD], (nth * RECORD) as u64)?;
            file.sync_data()?;
            times.push(self.clock.elapsed().saturating_sub(start).as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let (median_us, p95_us) = (times[FLUSHES / 2], times[FLUSHES * 95 / 100]);
        // No medium is that fast, but a cache with a battery may be intended.
        let hint =
            if median_us < 20.0 { "; at that speed, it may not reach the medium" } else { "" };
        let finding = format!(
            "fdatasync of {RECORD} bytes: median {median_us:.0} µs, \
             95 % within {p95_us:.0} µs{hint}"
        );
        let times = FlushTimes { median_us, p95_us };
        Ok((CheckResult { check: Check::Flush, safe: true, finding }, times))
    }

    fn space(&self) -> DiskResult<CheckResult> {
        let (free, wanted) = (self.disk.free_bytes(self.scratch)?, self.min_free_bytes);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let finding = format!(
            "{:.1} MiB free; {:.1} MiB are reserved for outcomes of logged operations",
            mib(free),
            mib(wanted)
        );
        Ok(CheckResult { check: Check::Space, safe: free >= wanted, finding })
    }

    fn sharing(&self) -> DiskResult<CheckResult> {
        let [from, link, clone] =
            ["content", "linked", "cloned"].map(|name| self.scratch.join(name));
        self.disk.write_new_synced(&from, b"content")?;
        let links = self.disk.link(&from, &link).is_ok();
        self.disk.write_new_synced(&clone, b"")?;
        let clones = self.disk.clone_file(&from, &clone).unwrap_or(false);
        let word = |is: bool| if is { "available" } else { "not available" };
        let finding =
            format!("hard links: {}; clones: {} (neither is needed)", word(links), word(clones));
        Ok(CheckResult { check: Check::Sharing, safe: true, finding })
    }

    fn kills(&self, rounds: u32, stop: &Stop) -> (CheckResult, KillCounts) {
        let log = self.scratch.join("wal");
        let mut acknowledged: BTreeSet<String> = BTreeSet::new();
        let mut result = Ok(0);
        for _ in 0..rounds {
            if stop.is_requested() {
                break;
            }
            let after = Duration::from_micros(20_000 + self.clock.random() % 180_000);
            let round = self.processes.append_and_kill(&log, after).and_then(|ids| {
                acknowledged.extend(ids);
                let listed: BTreeSet<String> = self.processes.list(&log)?.into_iter().collect();
                Ok(acknowledged.difference(&listed).count())
            });
            if !matches!(round, Ok(0)) {
                result = round;
                break;
            }
        }
        let count = acknowledged.len() as u64;
        let (safe, finding) = match result {
            Ok(0) => (
                true,
                format!(
                    "{rounds} processes killed while appending; \
                     all {count} acknowledged operations are in the log"
                ),
            ),
            Ok(missing) => (
                false,
                format!("of {count} acknowledged operations, {missing} are missing after a kill"),
            ),
            Err(error) => (false, format!("could not be checked: {error}")),
        };
        let counts = KillCounts { kills: rounds, acknowledged: count };
        (CheckResult { check: Check::Kills, safe, finding }, counts)
    }
}
