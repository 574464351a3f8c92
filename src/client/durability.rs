//! Whether a disk keeps what the log relies on, tried out in a directory that is removed afterwards.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Client;
use super::error::ClientError;
use crate::disk::{Access, DiskError, DiskResult, FileKind};
use crate::worker::Stop;

/// Flushes that are timed.
const FLUSHES: usize = 100;

/// Bytes of each: about what logging the addition of a file takes.
const RECORD: usize = 300;

/// Renames that somebody watches.
const RENAMES: usize = 200;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Which file system it is, and whether that is across a network, or in memory.
    FileSystem,
    /// Whether a lock keeps a second process out.
    Lock,
    /// Whether a rename is seen as a whole.
    Rename,
    /// How long a flush takes.
    Flush,
    /// Whether there is room.
    Space,
    /// Whether content can be shared.
    Sharing,
    /// Whether what a process acknowledged is there after it was killed.
    Kills,
}

impl Check {
    /// All of them, in the order in which they are made.
    pub const ALL: [Check; 7] = [
        Check::FileSystem,
        Check::Lock,
        Check::Rename,
        Check::Flush,
        Check::Space,
        Check::Sharing,
        Check::Kills,
    ];

    /// The word for it.
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

/// What came of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// What was tried.
    pub check: Check,
    /// Whether the log is safe, as far as this goes.
    pub safe: bool,
    /// What was seen.
    pub what: String,
}

/// What came of all.
#[derive(Debug, Clone, PartialEq)]
pub struct Durability {
    /// Where.
    pub directory: PathBuf,
    /// Each check.
    pub tried: Vec<Tried>,
    /// Microseconds that a flush of a small append takes: median, and 95 % are not slower than.
    pub flush_us: (f64, f64),
    /// How often a process was killed, and how many operations it had acknowledged by then.
    pub kills: (u32, u64),
}

impl Durability {
    /// Whether nothing speaks against keeping a log there.
    pub fn is_safe(&self) -> bool {
        self.tried.iter().all(|tried| tried.safe)
    }
}

/// Other processes, which only the program can start.
pub trait Processes {
    /// Whether another process gets the lock of this file.
    fn try_lock(&self, path: &Path) -> io::Result<bool>;
    /// Lets another process append to a log, kills it so long after it first acknowledged something, and gives the ids of
    /// all that it acknowledged.
    fn append_and_kill(&self, log: &Path, after: Duration) -> io::Result<Vec<String>>;
    /// The ids of all operations in a log, as a fresh process reads them.
    fn list(&self, log: &Path) -> io::Result<Vec<String>>;
}

impl Client {
    /// Tries out a directory (none: that of the log, or the one above it that is there), in one below it that is removed
    /// afterwards. A power cut cannot be tried.
    pub fn durability(
        &self,
        directory: Option<&Path>,
        rounds: u32,
        processes: &dyn Processes,
        stop: &Stop,
    ) -> Result<Durability, ClientError> {
        let disk = &*self.disk;
        let start = directory.unwrap_or(self.layout.base());
        let is_there =
            |path: &&Path| disk.metadata(path).is_ok_and(|meta| meta.kind == FileKind::Directory);
        let found = match directory {
            Some(directory) => directory,
            None => start.ancestors().find(is_there).unwrap_or(start),
        };
        let place = found.join(format!("durability-{:016x}.tmp", self.clock.random()));
        disk.create_dir(&place)?;
        let tried = self.try_out(found, &place, rounds, processes, stop);
        let removed = disk.remove_tree(&place);
        let tried = tried?;
        if stop.is_requested() {
            return Err(ClientError::Interrupted);
        }
        removed?;
        Ok(tried)
    }

    fn try_out(
        &self,
        directory: &Path,
        place: &Path,
        rounds: u32,
        processes: &dyn Processes,
        stop: &Stop,
    ) -> DiskResult<Durability> {
        let (flush, flush_us) = self.flushes(place)?;
        let (kills, counted) = self.kills(place, rounds, processes, stop);
        let tried = vec![
            self.file_system(place)?,
            self.lock(place, processes)?,
            self.renames(place)?,
            flush,
            self.space(place)?,
            self.sharing(place)?,
            kills,
        ];
        Ok(Durability { directory: directory.to_owned(), tried, flush_us, kills: counted })
    }

    fn file_system(&self, place: &Path) -> DiskResult<Tried> {
        let kind = self.kind_of_file_system(place).unwrap_or_else(|| "unknown".into());
        let volatile = matches!(kind.as_str(), "tmpfs" | "ramfs");
        let (safe, what) = match (self.disk.is_network(place)?, volatile) {
            (true, _) => (
                false,
                format!("{kind}, across a network: locks and flushes cannot be relied upon"),
            ),
            (false, true) => (false, format!("{kind}, in memory: a power cut takes everything")),
            (false, false) => (true, format!("{kind}, local")),
        };
        Ok(Tried { check: Check::FileSystem, safe, what })
    }

    /// As the kernel calls it: the one whose mount point is the longest beginning of the path.
    fn kind_of_file_system(&self, place: &Path) -> Option<String> {
        let file = self.disk.open(Path::new("/proc/self/mountinfo"), Access::Read).ok()?;
        // Files in /proc have no size; they are read until nothing comes.
        let mut text = vec![0; 1 << 20];
        let read = file.read_at(&mut text, 0).ok()?;
        let text = String::from_utf8_lossy(&text[..read]).into_owned();
        // Where links lead is what counts.
        let place = std::fs::canonicalize(place).or_else(|_| std::path::absolute(place)).ok()?;
        let mounts = text.lines().filter_map(|line| {
            let point = ["\\040", "\\011", "\\012", "\\134"]
                .iter()
                .zip([" ", "\t", "\n", "\\"])
                .fold(line.split(' ').nth(4)?.to_owned(), |point, (escape, plain)| {
                    point.replace(escape, plain)
                });
            let kind = line.split_once(" - ")?.1.split(' ').next()?;
            place.starts_with(&point).then(|| (point.len(), kind.to_owned()))
        });
        // Of two at the same place the later one lies on top.
        mounts.max_by_key(|(len, _)| *len).map(|(_, kind)| kind)
    }

    fn lock(&self, place: &Path, processes: &dyn Processes) -> DiskResult<Tried> {
        let path = place.join("lock");
        let file = self.disk.open(&path, Access::OpenOrCreate)?;
        let mine = file.try_lock()?;
        let tried = (|| {
            let theirs = processes.try_lock(&path)?;
            file.unlock().map_err(|error| error.source)?;
            io::Result::Ok((theirs, processes.try_lock(&path)?))
        })();
        let (safe, what) = match (mine, tried) {
            (true, Ok((false, true))) => {
                (true, "a second process is kept out, and let in afterwards".to_owned())
            }
            (true, Ok((true, _))) => {
                (false, "a second process got a lock that was held".to_owned())
            }
            (true, Ok((false, false))) => {
                (false, "nobody gets a lock that was given up".to_owned())
            }
            (false, _) => (false, "a new file cannot be locked".to_owned()),
            (_, Err(error)) => (false, format!("a second process could not be asked: {error}")),
        };
        Ok(Tried { check: Check::Lock, safe, what })
    }

    /// Whoever reads a file that is replaced sees the old or the new content, whole.
    fn renames(&self, place: &Path) -> DiskResult<Tried> {
        let (path, staged) = (place.join("renamed"), place.join("staged"));
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
                            torn =
                                Some(format!("a reader saw {} bytes of neither file", read.len()))
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
                        io::Error::other("the old content is still there"),
                    )),
                }
            });
            done.store(true, order);
            let torn = watch.join().unwrap_or_else(|_| Some("the reader failed".into()));
            renamed.err().map(|error| error.to_string()).or(torn)
        });
        Ok(match torn {
            None => Tried {
                check: Check::Rename,
                safe: true,
                what: format!("{RENAMES} replaced files were seen whole, old or new, and at once"),
            },
            Some(what) => Tried { check: Check::Rename, safe: false, what },
        })
    }

    fn flushes(&self, place: &Path) -> DiskResult<(Tried, (f64, f64))> {
        let file = self.disk.open(&place.join("flushed"), Access::CreateNew)?;
        let mut times = Vec::with_capacity(FLUSHES);
        for nth in 0..FLUSHES {
            let start = self.clock.elapsed();
            file.write_at(&[b'x'; RECORD], (nth * RECORD) as u64)?;
            file.sync_data()?;
            times.push(self.clock.elapsed().saturating_sub(start).as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let (median, most) = (times[FLUSHES / 2], times[FLUSHES * 95 / 100]);
        // No medium is that fast; but a machine without power supply problems may want it so.
        let hint = if median < 20.0 { "; that fast, it may not reach the medium" } else { "" };
        let what = format!(
            "fdatasync of {RECORD} bytes: median {median:.0} µs, 95 % within {most:.0} µs{hint}"
        );
        Ok((Tried { check: Check::Flush, safe: true, what }, (median, most)))
    }

    fn space(&self, place: &Path) -> DiskResult<Tried> {
        let (free, wanted) = (self.disk.free_bytes(place)?, self.settings.min_free_bytes);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let what = format!(
            "{:.1} MiB free; {:.1} MiB are kept for finishing what is logged",
            mib(free),
            mib(wanted)
        );
        Ok(Tried { check: Check::Space, safe: free >= wanted, what })
    }

    fn sharing(&self, place: &Path) -> DiskResult<Tried> {
        let (from, link, clone) =
            (place.join("content"), place.join("linked"), place.join("cloned"));
        self.disk.write_new_synced(&from, b"content")?;
        let links = self.disk.link(&from, &link).is_ok();
        self.disk.write_new_synced(&clone, b"")?;
        let clones = self.disk.clone_file(&from, &clone).unwrap_or(false);
        let word = |is: bool| if is { "available" } else { "not available" };
        let what =
            format!("hard links: {}; clones: {} (neither is needed)", word(links), word(clones));
        Ok(Tried { check: Check::Sharing, safe: true, what })
    }

    fn kills(
        &self,
        place: &Path,
        rounds: u32,
        processes: &dyn Processes,
        stop: &Stop,
    ) -> (Tried, (u32, u64)) {
        let log = place.join("wal");
        let mut acknowledged: BTreeSet<String> = BTreeSet::new();
        let mut result = Ok(0);
        for _ in 0..rounds {
            if stop.is_requested() {
                break;
            }
            let after = Duration::from_micros(20_000 + self.clock.random() % 180_000);
            let round = processes.append_and_kill(&log, after).and_then(|ids| {
                acknowledged.extend(ids);
                let there: BTreeSet<String> = processes.list(&log)?.into_iter().collect();
                Ok(acknowledged.difference(&there).count())
            });
            if !matches!(round, Ok(0)) {
                result = round;
                break;
            }
        }
        let count = acknowledged.len() as u64;
        let (safe, what) = match result {
            Ok(0) => (
                true,
                format!(
                    "{rounds} times killed at work; all {count} acknowledged operations are there"
                ),
            ),
            Ok(missing) => (
                false,
                format!("of {count} acknowledged operations, {missing} are missing after a kill"),
            ),
            Err(error) => (false, format!("it could not be tried: {error}")),
        };
        (Tried { check: Check::Kills, safe, what }, (rounds, count))
    }
}
