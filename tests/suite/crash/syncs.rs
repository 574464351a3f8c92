//! Checks that the crash matrix finds defects: one at a time, each flush of the log is left out,
//! and each pair of publication and removal is swapped. Some case of the crash matrix must fail.
//!
//! `flushes.txt` names such a case for each flush. A change of the log may invalidate it: then the
//! test searches for another, and `WAL_CLI_BLESS=1` writes it to the file. For entries with a `?`,
//! no case is known.
#![expect(clippy::disallowed_methods, reason = "reads the sources, and keeps a table")]

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};

use wal_cli::disk::{Access, Disk, MemoryDisk};

use super::watched::{Call, Verdict, Watch, Watched};
use super::world::{Deed, World};
use super::{OPERATIONS_MAX, PLAIN, WORKLOADS, Workload, replaying, try_all};

/// The number of moments of the power cut that are tried for each flush.
const MOMENTS: usize = 24;

/// The number of variants: the writes that are kept, and whether a second process acts before.
const SEEDS: u64 = 32;

/// The number of places in the matrix that are tried for each flush.
const OCCURRENCES: usize = 10;

/// Flushes that are not tried, by the beginning of their names, with the reason.
const JUSTIFIED: &[(&str, &str)] = &[
    ("wal/reserve.rs ", "the next checkpoint recreates the reserve after a power cut"),
    (
        "wal/open.rs open: above the log",
        "the process that creates the log flushes them again, as for all new directories",
    ),
    (
        "wal/journal/recover.rs recover_locked: above the log",
        "the process that creates a log flushes them; this is for a log that was moved",
    ),
    ("wal/repair/mod.rs start_generation: above the log", "as for `recover_locked`"),
];

fn is_justified(name: &str) -> bool {
    JUSTIFIED.iter().any(|(justified, _)| name.starts_with(justified))
}

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/crash/flushes.txt");

thread_local! {
    /// True while panics of this thread are expected, and not printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the call panics, without printing the panic.
fn is_noticed(check: impl FnOnce()) -> bool {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.with(Cell::get) {
                usual(panic);
            }
        }));
    });
    QUIET.with(|quiet| quiet.set(true));
    let noticed = catch_unwind(AssertUnwindSafe(check)).is_err();
    QUIET.with(|quiet| quiet.set(false));
    noticed
}

/// A flush in the code of the log: its source line, and the role of the flushed path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    /// Below `src/`.
    file: String,
    line: u32,
    what: String,
}

impl Site {
    /// The function, which identifies the flush when lines move.
    fn function(&self, sources: &BTreeMap<String, String>) -> String {
        let lines: Vec<&str> = sources[&self.file].lines().take(self.line as usize).collect();
        let name = lines.iter().rev().find_map(|line| {
            let (before, after) = line.split_once("fn ")?;
            let is_item = before.trim().is_empty() || before.trim_start().starts_with("pub");
            is_item.then(|| after.split(['(', '<']).next().unwrap())
        });
        name.unwrap().to_owned()
    }
}

/// A flush in a run of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Occurrence {
    workload: usize,
    /// The disk operation at which the previous process died; `None` for the workload's own.
    recovers: Option<u64>,
    /// The ordinals of the first and the last flush of its series in its process.
    nth: (u64, u64),
}

impl Occurrence {
    fn is(&self, asked: u64) -> bool {
        (self.nth.0..=self.nth.1).contains(&asked)
    }
}

/// A case that fails if a flush is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Notice {
    occurrence: Occurrence,
    /// The operation at which the power is cut.
    at: u64,
    seed: u64,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Occurrence { workload, recovers, nth } = self.occurrence;
        let recovers = recovers.map_or("-".to_owned(), |at| at.to_string());
        let nth = if nth.0 == nth.1 { nth.0.to_string() } else { format!("{}-{}", nth.0, nth.1) };
        write!(f, "{}:{recovers}:{nth}:{}:{}", WORKLOADS[workload].name, self.at, self.seed)
    }
}

impl Notice {
    fn parse(text: &str) -> Option<Notice> {
        let [name, recovers, nth, at, seed] = text.split(':').collect::<Vec<_>>()[..] else {
            return None;
        };
        let workload = WORKLOADS.iter().position(|workload| workload.name == name)?;
        let (first, last) = nth.split_once('-').unwrap_or((nth, nth));
        let nth = (first.parse().ok()?, last.parse().ok()?);
        let occurrence = Occurrence { workload, recovers: recovers.parse().ok(), nth };
        Some(Notice { occurrence, at: at.parse().ok()?, seed: seed.parse().ok()? })
    }
}

/// The actions of the recovering process.
const RECOVERER: Workload = Workload {
    deeds: &[
        Deed::Open,
        Deed::Checkpoint,
        Deed::Add("recoverer"),
        Deed::Checkpoint,
        Deed::Add("more"),
    ],
    ..PLAIN
};

/// Returns the role of a path in a log.
fn role(path: &Path) -> String {
    let Ok(below) = path.strip_prefix("/home/wal") else { return "above the log".into() };
    let name = below.to_str().unwrap();
    let in_tmp = name.strip_prefix("tmp/").filter(|name| !name.is_empty());
    match (in_tmp, name) {
        (Some(staged), _) if staged.starts_with("spool-") => "staged content".into(),
        (Some("MANIFEST.json"), _) => "staged manifest".into(),
        (Some(_), _) => "staged Parquet file".into(),
        (None, "") => "the log's directory".into(),
        (None, name) if name.starts_with("journal/") => "generation".into(),
        (None, name) => format!("{name}/"),
    }
}

/// Returns the line of the log that called the current disk operation.
fn site_of(path: &Path) -> Site {
    let trace = Backtrace::force_capture().to_string();
    let places = trace.lines().filter_map(|line| line.trim().strip_prefix("at "));
    let mut ours = places.filter_map(|place| place.trim_start_matches("./").strip_prefix("src/"));
    let place = ours.find(|place| place.starts_with("wal/"));
    let mut parts =
        place.unwrap_or_else(|| panic!("no function of the log calls it:\n{trace}")).split(':');
    let file = parts.next().unwrap().to_owned();
    Site { file, line: parts.next().unwrap().parse().unwrap(), what: role(path) }
}

/// Runs a workload on a disk that counts flushes; `each` gets the number of operations before one,
/// and decides whether it happens.
fn run_watched(
    workload: &Workload,
    world: &mut World,
    kill_after: u64,
    each: impl Fn(u64, u64, &Path) -> Verdict + Send + Sync + 'static,
) -> u64 {
    let disk = world.machine.process();
    disk.kill_after(kill_after);
    let count = Mutex::new(0);
    let watch: Watch = Arc::new(move |disk, call| {
        if !matches!(call.action, "sync" | "sync directory") {
            return Verdict::Go;
        }
        let nth = {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count - 1
        };
        each(nth, kill_after - disk.operations_left().unwrap(), call.path)
    });
    let ran = workload.run_on(world, disk.clone(), Watched { disk, watch });
    kill_after - ran.disk.operations_left().unwrap()
}

impl Occurrence {
    fn process(&self) -> &'static Workload {
        if self.recovers.is_some() { &RECOVERER } else { &WORKLOADS[self.workload] }
    }

    /// Returns the world in which the process with this flush begins.
    fn world(&self, worlds: &[World], seed: u64) -> World {
        let mut world = worlds[self.workload].fork(seed);
        if let Some(at) = self.recovers {
            WORKLOADS[self.workload].run(&mut world, |disk| disk.kill_after(at));
        }
        world
    }

    /// Returns a case that fails if this flush is left out.
    fn noticed(&self, worlds: &[World]) -> Option<Notice> {
        let (this, later) = (*self, Arc::new(Mutex::new(Vec::new())));
        let noted = later.clone();
        let all = run_watched(
            self.process(),
            &mut self.world(worlds, 0),
            OPERATIONS_MAX,
            move |asked, before, _| {
                if asked > this.nth.1 {
                    noted.lock().unwrap().extend([before, before + 1]);
                }
                if this.is(asked) { Verdict::LeaveOut } else { Verdict::Go }
            },
        );
        // Just before the next flush, just after it, and at the end.
        let mut moments = std::mem::take(&mut *later.lock().unwrap());
        moments.truncate(MOMENTS);
        moments.push(all);
        let tries = moments.into_iter().flat_map(|at| (0..SEEDS).map(move |seed| (at, seed)));
        tries
            .map(|(at, seed)| Notice { occurrence: *self, at, seed })
            .find(|notice| notice.holds(worlds))
    }
}

impl Notice {
    /// Returns whether the case fails without the flush, and passes with it.
    fn holds(&self, worlds: &[World]) -> bool {
        self.fails(worlds, true) && !self.fails(worlds, false)
    }

    fn fails(&self, worlds: &[World], leaves_out: bool) -> bool {
        let Notice { occurrence, at, seed } = *self;
        is_noticed(|| {
            let mut world = occurrence.world(worlds, at << 8 | seed);
            run_watched(occurrence.process(), &mut world, at, move |asked, _, _| {
                if leaves_out && occurrence.is(asked) { Verdict::LeaveOut } else { Verdict::Go }
            });
            if seed % 2 == 1 {
                world.second_acts(seed / 2);
            }
            // First all, nothing, names alone, content alone; then random writes.
            world.power_cut(if seed < 8 { seed / 2 } else { 4 + 6 * (at << 8 | seed) });
            world.check_usable();
        })
    }
}

/// Returns all flushes of the workloads, and of the processes that recover after their deaths.
fn occurrences(worlds: &[World]) -> BTreeMap<Site, Vec<Occurrence>> {
    let mut found: BTreeMap<Site, Vec<Occurrence>> = BTreeMap::new();
    let mut record = |occurrence: Occurrence| {
        let sites = Arc::new(Mutex::new(Vec::new()));
        let seen = sites.clone();
        let mut world = occurrence.world(worlds, 1);
        run_watched(occurrence.process(), &mut world, OPERATIONS_MAX, move |nth, before, path| {
            seen.lock().unwrap().push((nth, before, site_of(path)));
            Verdict::Go
        });
        let sites = std::mem::take(&mut *sites.lock().unwrap());
        for (nth, _, site) in &sites {
            let known = found.entry(site.clone()).or_default();
            match known.last_mut() {
                // A series, such as one for each new directory, is left out as a whole.
                Some(before)
                    if (before.workload, before.recovers)
                        == (occurrence.workload, occurrence.recovers)
                        && before.nth.1 + 1 == *nth =>
                {
                    before.nth.1 = *nth;
                }
                _ => known.push(Occurrence { nth: (*nth, *nth), ..occurrence }),
            }
        }
        // The first two of each flush.
        let mut seen: BTreeMap<&Site, usize> = BTreeMap::new();
        let mut deaths = Vec::new();
        for (_, before, site) in &sites {
            *seen.entry(site).or_default() += 1;
            if seen[site] <= 2 {
                deaths.push(*before);
                // Before its note announces the flush: another process flushes when rotating, or
                // before.
                if site.file == "wal/journal/group_commit.rs" {
                    deaths.push(*before - 1);
                }
            }
        }
        deaths
    };
    for workload in 0..WORKLOADS.len() {
        let own = record(Occurrence { workload, recovers: None, nth: (0, 0) });
        // A process that dies just before a flush leaves the most unsynced writes.
        for at in own {
            record(Occurrence { workload, recovers: Some(at), nth: (0, 0) });
        }
    }
    found
}

/// Returns some of the occurrences of a flush, as different as possible.
fn some_of(occurrences: &[Occurrence]) -> Vec<Occurrence> {
    let mut workloads = BTreeSet::new();
    let own =
        occurrences.iter().filter(|one| one.recovers.is_none() && workloads.insert(one.workload));
    let recovering: Vec<&Occurrence> =
        occurrences.iter().filter(|one| one.recovers.is_some()).collect();
    let stride = recovering.len().div_ceil(OCCURRENCES).max(1);
    own.chain(recovering.into_iter().step_by(stride)).copied().collect()
}

/// Returns the sources of the log, by path below `src/`.
fn sources() -> BTreeMap<String, String> {
    let above = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut sources = BTreeMap::new();
    let mut folders = vec![above.join("wal")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&above).unwrap().to_str().unwrap().to_owned();
            if !name.ends_with("tests.rs") {
                sources.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    sources
}

/// Returns the file and function of every line of the log that flushes.
fn lines_that_flush(sources: &BTreeMap<String, String>) -> BTreeSet<(String, String)> {
    let calls = [
        "sync_data()",
        "sync_all()",
        "sync_dir(",
        "sync_ancestors(",
        "create_dir_all_synced(",
        "write_new_synced(",
    ];
    let mut found = BTreeSet::new();
    for (file, source) in sources {
        let source = source.split("#[cfg(test)]").next().unwrap();
        for (nth, line) in source.lines().enumerate() {
            let asks = calls.iter().any(|call| line.contains(&format!(".{call}")))
                || line.contains("disk.publish(");
            if asks && !line.trim_start().starts_with("//") {
                let site = Site { file: file.clone(), line: nth as u32 + 1, what: String::new() };
                found.insert((file.clone(), site.function(sources)));
            }
        }
    }
    found
}

#[test]
fn each_flush_is_needed() {
    let sources = sources();
    let worlds: Vec<World> = WORKLOADS.iter().map(Workload::world).collect();
    let mut named: BTreeMap<String, Vec<Occurrence>> = BTreeMap::new();
    let mut functions = BTreeSet::new();
    for (site, occurrences) in occurrences(&worlds) {
        let function = site.function(&sources);
        functions.insert((site.file.clone(), function.clone()));
        // A second flush of the same role in the same function has a name of its own.
        let mut name = format!("{} {function}: {}", site.file, site.what);
        while named.contains_key(&name) {
            name.push('\'');
        }
        named.insert(name, occurrences);
    }
    let asking = lines_that_flush(&sources);
    let is_open =
        |(file, function): &&(String, String)| !is_justified(&format!("{file} {function}"));
    let untried: Vec<_> = asking.difference(&functions).filter(is_open).collect();
    assert!(untried.is_empty(), "no workload reaches these flushes: {untried:?}");
    let table = std::fs::read_to_string(TABLE).unwrap_or_default();
    let known: BTreeMap<&str, Notice> = table
        .lines()
        .filter_map(|line| line.rsplit_once(" = "))
        .filter_map(|(name, notice)| Some((name, Notice::parse(notice)?)))
        .collect();
    let open: BTreeSet<&str> = table.lines().filter_map(|line| line.strip_suffix(" = ?")).collect();
    let blesses = std::env::var_os("WAL_CLI_BLESS").is_some();
    let (missed, renewed) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    let only = match replaying().as_deref() {
        Some([kind, name @ ..]) if kind == "flush" => name.join(":"),
        Some(_) => return,
        None => String::new(),
    };
    let all: Vec<(&String, &Vec<Occurrence>)> =
        named.iter().filter(|(name, _)| only.split('|').any(|only| name.contains(only))).collect();
    try_all(
        "flush",
        &all,
        |(name, _)| (*name).clone(),
        |(name, occurrences)| {
            let is_justified = is_justified(name);
            let pinned = known.get(name.as_str()).filter(|notice| notice.holds(&worlds)).copied();
            let noticed =
                || some_of(occurrences).iter().find_map(|occurrence| occurrence.noticed(&worlds));
            let is_open = open.contains(name.as_str()) && !blesses;
            match pinned.or_else(|| if is_justified || is_open { None } else { noticed() }) {
                Some(notice) => drop(renewed.lock().unwrap().insert((*name).clone(), notice)),
                None if is_justified || is_open => {}
                None => missed.lock().unwrap().push((*name).clone()),
            }
            if pinned.is_none() && !is_justified && !is_open {
                let notice = renewed.lock().unwrap().get(*name).map(Notice::to_string);
                println!("{name}: {}", notice.as_deref().unwrap_or("not noticed"));
            }
        },
    );
    let renewed = renewed.into_inner().unwrap();
    let missed = missed.into_inner().unwrap();
    if blesses {
        let mut lines: BTreeMap<String, String> = table
            .lines()
            .filter_map(|line| line.rsplit_once(" = "))
            .filter(|(name, _)| named.contains_key(*name))
            .map(|(name, notice)| (name.to_owned(), notice.to_owned()))
            .collect();
        lines.extend(renewed.iter().map(|(name, notice)| (name.clone(), notice.to_string())));
        lines.extend(missed.iter().map(|name| (name.clone(), "?".to_owned())));
        let text: String =
            lines.iter().map(|(name, notice)| format!("{name} = {notice}\n")).collect();
        std::fs::write(TABLE, text).unwrap();
    }
    assert_eq!(missed, [] as [String; 0], "no case fails when these flushes are left out");
    println!(
        "{} flushes whose absence is noticed; {} open; {} groups are not tried",
        renewed.len(),
        open.len(),
        JUSTIFIED.len()
    );
}

/// A publication, and a removal that may only follow it.
struct Pair {
    name: &'static str,
    publishes: fn(&Call<'_>) -> bool,
    removes: fn(&Call<'_>) -> bool,
    /// True if several steps publish the same, so that all of them are delayed until the removal.
    is_repeated: bool,
    /// The unsynced writes that survive a cut; see `World::power_cut`.
    seeds: &'static [u64],
}

fn is_at(path: Option<&Path>, start: &str) -> bool {
    path.is_some_and(|path| path.to_str().unwrap().starts_with(start))
}

const PAIRS: &[Pair] = &[
    Pair {
        name: "manifest, then the generations it no longer needs",
        publishes: |call| is_at(call.to, "/home/wal/MANIFEST"),
        removes: |call| call.action == "remove" && is_at(Some(call.path), "/home/wal/journal/"),
        is_repeated: false,
        seeds: &[0, 1],
    },
    Pair {
        name: "manifest, then the partitions it no longer names",
        publishes: |call| is_at(call.to, "/home/wal/MANIFEST"),
        removes: |call| call.action == "remove" && is_at(Some(call.path), "/home/wal/partitions/"),
        is_repeated: false,
        seeds: &[0, 1],
    },
    Pair {
        name: "manifest, then the archives it no longer names",
        publishes: |call| is_at(call.to, "/home/wal/MANIFEST"),
        removes: |call| call.action == "remove" && is_at(Some(call.path), "/home/wal/archives/"),
        is_repeated: false,
        seeds: &[0, 1],
    },
    Pair {
        name: "manifest with the adopted operations, then the originals",
        // A process that removes files has seen the manifest: only its durability can be late.
        publishes: |call| call.action == "sync directory" && call.path == Path::new("/home/wal"),
        removes: |call| call.action == "rename" && is_at(call.to, "/home/wal/quarantine/original/"),
        is_repeated: true,
        seeds: &[4, 5, 10, 11],
    },
    Pair {
        name: "completion in the journal, then the content in the spool",
        publishes: |call| call.action == "sync" && is_at(Some(call.path), "/home/wal/journal/"),
        removes: |call| call.action == "remove" && is_at(Some(call.path), "/home/wal/spool/"),
        is_repeated: false,
        seeds: &[0, 1],
    },
];

/// Publications that are held back.
#[derive(Default)]
struct Held {
    renames: Vec<(PathBuf, PathBuf)>,
    flushes: Vec<PathBuf>,
    /// True if the removal has happened, so that the delayed publications come next.
    removing: bool,
    /// The number of late publications.
    swapped: u64,
}

/// Returns a disk on which the nth removal happens before its publication.
fn swapped(pair: &'static Pair, nth: u64) -> (Watch, Arc<Mutex<Held>>) {
    let held = Arc::new(Mutex::new(Held::default()));
    let ours = held.clone();
    let count = Mutex::new(0);
    let watch: Watch = Arc::new(move |disk: &MemoryDisk, call: Call<'_>| {
        let mut held = ours.lock().unwrap();
        if std::mem::take(&mut held.removing) {
            for (from, to) in std::mem::take(&mut held.renames) {
                let _ = disk.rename(&from, &to);
            }
            for flushed in std::mem::take(&mut held.flushes) {
                let _ = match disk.open(&flushed, Access::Write) {
                    Ok(file) => file.sync_data(),
                    Err(_) => disk.sync_dir(&flushed),
                };
            }
        }
        if (pair.removes)(&call) {
            held.removing = !held.renames.is_empty() || !held.flushes.is_empty();
            held.swapped += u64::from(held.removing);
            return Verdict::Go;
        }
        let mut count = count.lock().unwrap();
        if (pair.publishes)(&call) {
            *count += 1;
            if *count - 1 == nth || (pair.is_repeated && *count > nth && held.swapped == 0) {
                match call.to {
                    Some(to) => held.renames.push((call.path.to_owned(), to.to_owned())),
                    None => held.flushes.push(call.path.to_owned()),
                }
                return Verdict::LeaveOut;
            }
        }
        let is_its_directory = |(_, to): &(PathBuf, PathBuf)| {
            call.action == "sync directory" && to.parent() == Some(call.path)
        };
        if held.renames.iter().any(is_its_directory) {
            held.flushes.push(call.path.to_owned());
            return Verdict::LeaveOut;
        }
        Verdict::Go
    });
    (watch, held)
}

#[test]
fn nothing_is_removed_before_its_replacement_is_published() {
    for pair in PAIRS {
        let noticed = WORKLOADS
            .iter()
            .find_map(|workload| Some((workload.name, noticed_swap(pair, workload)?)));
        println!("{}: noticed in {noticed:?}", pair.name);
        assert!(noticed.is_some(), "no case fails when this order is reversed: {}", pair.name);
    }
}

/// Returns a delayed publication of a workload, and a cut at which a case fails because of it.
fn noticed_swap(pair: &'static Pair, workload: &Workload) -> Option<(u64, u64, u64)> {
    let world = workload.world();
    for nth in 0..12 {
        let (watch, held) = swapped(pair, nth);
        let operations = {
            let mut world = world.fork(0);
            let disk = world.machine.process();
            disk.kill_after(OPERATIONS_MAX);
            let watched = Watched { disk: disk.clone(), watch };
            is_noticed(|| drop(workload.run_on(&mut world, disk.clone(), watched)));
            OPERATIONS_MAX - disk.operations_left().unwrap()
        };
        // Skips publications before which nothing was removed.
        if held.lock().unwrap().swapped == 0 {
            continue;
        }
        for (at, seed) in
            (0..=operations).flat_map(|at| pair.seeds.iter().map(move |seed| (at, *seed)))
        {
            let fails = |watch: Watch| {
                is_noticed(|| {
                    let mut world = world.fork(at);
                    let disk = world.machine.process();
                    disk.kill_after(at);
                    workload.run_on(&mut world, disk.clone(), Watched { disk, watch });
                    world.power_cut(seed);
                    world.check_usable();
                })
            };
            // The case must pass without the swap.
            if fails(swapped(pair, nth).0) && !fails(Arc::new(|_, _| Verdict::Go)) {
                return Some((nth, at, seed));
            }
        }
    }
    None
}
