//! The proof that the proof bites: each flush of the log is left out, one at a time, and the crash matrix must notice.
//!
//! A flush is known by the line of the source that asks for it. The table that this makes is in docs/hazards.md.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, Once};

use wal_cli::disk::MemoryDisk;

use super::watched::{Call, Verdict, Watch, Watched};
use super::world::{Deed, World};
use super::{OPERATIONS_MAX, PLAIN, WORKLOADS, Workload, is_long};

thread_local! {
    /// Panics of this thread are expected, and not worth a word.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether it panics, which is what is hoped for.
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

/// A flush that a process asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    /// File below `src/`, and line, of the code of the log that asks for it.
    file: String,
    line: u32,
    /// What is flushed.
    what: String,
}

/// Where in the matrix a flush is asked for.
#[derive(Debug, Clone, Copy)]
struct Occurrence {
    workload: usize,
    /// Where the process before died; none: it is the workload's own process.
    recovers: Option<u64>,
    /// The how manieth flush of its process it is.
    nth: u64,
}

/// What whoever recovers does.
const RECOVERER: Workload =
    Workload { deeds: &[Deed::Open, Deed::Add("recoverer"), Deed::Checkpoint, Deed::Add("more")], ..PLAIN };

/// What a path is in a log.
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

/// The line of the log that asks for what is happening.
fn site_of(path: &Path) -> Site {
    let trace = Backtrace::force_capture().to_string();
    let mut symbol = "";
    for line in trace.lines() {
        let line = line.trim();
        match line.strip_prefix("at ") {
            None => symbol = line,
            Some(place) => {
                let place = place.trim_start_matches("./");
                if place.starts_with("src/wal/") && symbol.contains("wal_cli::wal") {
                    let mut parts = place["src/".len()..].split(':');
                    let file = parts.next().unwrap().to_owned();
                    return Site { file, line: parts.next().unwrap().parse().unwrap(), what: role(path) };
                }
            }
        }
    }
    panic!("nobody of the log asks for it:\n{trace}");
}

fn is_flush(call: &Call<'_>) -> bool {
    matches!(call.action, "sync" | "sync directory")
}

/// Runs a workload's process on a disk that counts its flushes; `each` decides on them.
fn run_watched(
    workload: &Workload,
    world: &mut World,
    kill_after: u64,
    each: impl Fn(u64, &Path) -> Verdict + Send + Sync + 'static,
) -> MemoryDisk {
    let disk = world.machine.process();
    disk.kill_after(kill_after);
    let count = Mutex::new(0);
    let watch: Watch = Arc::new(move |_, call| {
        if !is_flush(&call) {
            return Verdict::Go;
        }
        let nth = {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count - 1
        };
        each(nth, call.path)
    });
    workload.run_on(world, disk.clone(), Watched { disk, watch }).disk
}

impl Occurrence {
    fn workload(&self) -> &'static Workload {
        if self.recovers.is_some() { &RECOVERER } else { &WORKLOADS[self.workload] }
    }

    /// The world in which the process with this flush begins.
    fn world(&self, worlds: &[World], seed: u64) -> World {
        let mut world = worlds[self.workload].fork(seed);
        if let Some(at) = self.recovers {
            WORKLOADS[self.workload].run(&mut world, |disk| disk.kill_after(at));
        }
        world
    }

    /// Where and how the matrix notices that it is left out; none: it does not.
    fn noticed(&self, worlds: &[World], seeds: u64) -> Option<(u64, u64)> {
        let nth = self.nth;
        let leave_out = move |asked: u64, _: &Path| if asked == nth { Verdict::LeaveOut } else { Verdict::Go };
        // Operations before it, and all.
        let before = Arc::new(Mutex::new(0));
        let mut all = 0;
        {
            let mut world = self.world(worlds, 0);
            let counted = before.clone();
            let start = world.machine.operations();
            let machine = world.machine.clone();
            let disk = run_watched(self.workload(), &mut world, OPERATIONS_MAX, move |asked, path| {
                if asked == nth {
                    *counted.lock().unwrap() = machine.operations() - start;
                }
                leave_out(asked, path)
            });
            all = all.max(OPERATIONS_MAX - disk.operations_left().unwrap());
        }
        let first = (*before.lock().unwrap()).min(all);
        // Soon afterwards is the likeliest moment, then the end.
        let mut moments: Vec<u64> = (first..=all).collect();
        moments.sort_by_key(|at| (*at - first).min(all - *at));
        for at in moments {
            for seed in 0..seeds {
                let noticed = is_noticed(|| {
                    let mut world = self.world(worlds, at << 8 | seed);
                    run_watched(self.workload(), &mut world, at, leave_out);
                    if seed % 2 == 1 {
                        world.second_acts(seed / 2);
                    }
                    world.power_cut(seed / 2);
                    world.check_goes_on();
                });
                if noticed {
                    return Some((at, seed));
                }
            }
        }
        None
    }
}

/// All flushes that workloads, and those who recover from their deaths, ask for.
fn occurrences(worlds: &[World]) -> BTreeMap<Site, Vec<Occurrence>> {
    let mut found: BTreeMap<Site, Vec<Occurrence>> = BTreeMap::new();
    let mut record = |occurrence: Occurrence, most: usize| {
        let sites = Arc::new(Mutex::new(Vec::new()));
        let seen = sites.clone();
        let mut world = occurrence.world(worlds, 1);
        run_watched(occurrence.workload(), &mut world, OPERATIONS_MAX, move |nth, path| {
            seen.lock().unwrap().push((nth, site_of(path)));
            Verdict::Go
        });
        for (nth, site) in sites.lock().unwrap().drain(..) {
            let known = found.entry(site).or_default();
            if known.len() < most {
                known.push(Occurrence { nth, ..occurrence });
            }
        }
    };
    for (workload, _) in WORKLOADS.iter().enumerate() {
        record(Occurrence { workload, recovers: None, nth: 0 }, 40);
    }
    for (workload, this) in WORKLOADS.iter().enumerate() {
        for at in (0..this.operations()).step_by(if is_long() { 3 } else { 17 }) {
            record(Occurrence { workload, recovers: Some(at), nth: 0 }, 60);
        }
    }
    found
}

#[test]
fn each_flush_is_needed() {
    let worlds: Vec<World> = WORKLOADS.iter().map(Workload::world).collect();
    let found = occurrences(&worlds);
    let sites: BTreeSet<(&str, u32)> = found.keys().map(|site| (site.file.as_str(), site.line)).collect();
    println!("{} flushes at {} lines", found.len(), sites.len());
    let mut missed = Vec::new();
    for (site, occurrences) in &found {
        let caught = occurrences.iter().find_map(|occurrence| {
            let (at, seed) = occurrence.noticed(&worlds, 12)?;
            let by = if occurrence.recovers.is_some() { ", recovery" } else { "" };
            Some(format!("{}{by}, cut at {at} ({seed})", WORKLOADS[occurrence.workload].name))
        });
        println!("{}:{} {}: {}", site.file, site.line, site.what, caught.as_deref().unwrap_or("MISSED"));
        if caught.is_none() {
            missed.push(site.clone());
        }
    }
    assert_eq!(missed, []);
}
