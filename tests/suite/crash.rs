//! The crash matrix: workloads on a simulated machine, interrupted at every disk operation.
//!
//! One process dies, or gets an error, at each of its disk operations in turn; a second one may
//! act, and be acknowledged, before power fails; the recovering process may die, too. Afterwards
//! the log is usable, and holds every acknowledged operation once and no partial record.
//!
//! `tests/long crash` tries all cases; other runs try a seeded sample. `WAL_CLI_SEED=WORKLOAD:…`
//! replays one case.

mod drain;
mod syncs;
mod watched;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use wal_cli::disk::{Disk, Fault, MemoryDisk};
use wal_cli::wal::{Options, Wal, WalError};

use world::{Deed, World, layout};

/// An upper bound on the disk operations of a workload.
const OPERATIONS_MAX: u64 = 5000;

/// Returns the options of a workload's log: small files, so that there are several of each kind.
fn small() -> Options {
    Options {
        partition_size: 4,
        generation_bytes: 1200,
        checkpoint_bytes: 900,
        preallocate_bytes: 512,
        frame_operations: 6,
        chunk_operations: 8,
        min_free_bytes: 1 << 20,
        // Small enough to be copied with the machine thousands of times.
        reserve_bytes: 4096,
        ..Options::default()
    }
}

/// The initial state, the actions of the process that dies, and those of a second one beside it.
struct Workload {
    name: &'static str,
    original: Option<&'static str>,
    before: &'static [Deed],
    /// True if power was cut before the actions: acknowledged operations exist, and no lock note is
    /// trusted.
    boots: bool,
    damage: Option<world::Damage>,
    deeds: &'static [Deed],
    beside: &'static [(usize, Deed)],
}

const PLAIN: Workload = Workload {
    name: "",
    original: None,
    before: &[],
    boots: false,
    damage: None,
    deeds: &[],
    beside: &[],
};

/// Before a log is damaged it has a partition, an archive, and a generation with frames.
const DAMAGED: &[Deed] = &[
    Deed::Add("a b c"),
    Deed::Claim("a b"),
    Deed::Complete("a"),
    Deed::Checkpoint,
    Deed::Complete("b"),
    Deed::Add("e"),
];
const PARTITION: &str = "partitions/wal_1800000000_000001.parquet";
const GENERATION: &str = "journal/journal_0000000002.log";

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "first-run",
        deeds: &[Deed::Open, Deed::Add("one"), Deed::Add("two")],
        ..PLAIN
    },
    Workload {
        name: "adds",
        before: &[Deed::Add("old")],
        deeds: &[Deed::Add("a b c"), Deed::Add("d"), Deed::Add("e f")],
        beside: &[(1, Deed::Add("x")), (2, Deed::Add("y z"))],
        ..PLAIN
    },
    Workload {
        name: "drain",
        before: &[Deed::Add("a b c d"), Deed::Checkpoint, Deed::Add("e")],
        deeds: &[
            Deed::Claim("a b e"),
            Deed::Complete("a"),
            Deed::Fail("b"),
            Deed::Delay("e"),
            Deed::Claim("e c"),
            Deed::Complete("c e"),
        ],
        beside: &[(1, Deed::Add("x")), (3, Deed::Hold("d"))],
        ..PLAIN
    },
    Workload {
        name: "retries",
        before: &[
            Deed::Add("a b c"),
            Deed::Claim("a b c"),
            Deed::Fail("a b"),
            Deed::Delay("c"),
            Deed::Checkpoint,
        ],
        deeds: &[
            Deed::Again("a"),
            Deed::Hold("c"),
            Deed::Delete("b"),
            Deed::Claim("a"),
            Deed::Complete("a"),
        ],
        beside: &[(2, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "reopen",
        before: &[Deed::Add("a b"), Deed::Claim("a b"), Deed::Complete("a b"), Deed::Checkpoint],
        deeds: &[
            Deed::Reopen("a"),
            Deed::Checkpoint,
            Deed::Reopen("b"),
            Deed::Claim("a+"),
            Deed::Complete("a+"),
            Deed::Checkpoint,
        ],
        beside: &[(1, Deed::Add("x")), (3, Deed::Checkpoint)],
        ..PLAIN
    },
    Workload {
        name: "keys",
        before: &[Deed::Keyed("theirs"), Deed::Checkpoint],
        deeds: &[Deed::Keyed("mine"), Deed::Keyed("theirs"), Deed::Keyed("mine")],
        beside: &[(1, Deed::Keyed("mine"))],
        ..PLAIN
    },
    Workload {
        name: "rotation",
        before: &[Deed::Add("old")],
        deeds: &[Deed::Add("a b c d e"), Deed::Add("f g h i j"), Deed::Add("k")],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "checkpoint",
        before: &[Deed::Add("a b c d e"), Deed::Claim("a b c"), Deed::Complete("a b")],
        deeds: &[Deed::Checkpoint, Deed::Complete("c"), Deed::Checkpoint],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "batch",
        before: &[Deed::Add("old"), Deed::Checkpoint],
        deeds: &[Deed::Add("b*20"), Deed::Claim("b3 b17"), Deed::Complete("b3")],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "compaction",
        before: &[
            Deed::Add("a b"),
            Deed::Claim("a"),
            Deed::Complete("a"),
            Deed::Checkpoint,
            Deed::Add("c"),
            Deed::Claim("b c"),
            Deed::Complete("b"),
            Deed::Checkpoint,
            Deed::Complete("c"),
            Deed::Checkpoint,
            Deed::Pass(30),
        ],
        deeds: &[Deed::Add("d"), Deed::Checkpoint, Deed::Cleanup(10)],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "cleanup",
        before: &[
            Deed::Add("a b c d e"),
            Deed::Claim("a b c"),
            Deed::Complete("a b"),
            Deed::Checkpoint,
            Deed::Pass(60),
            Deed::Complete("c"),
        ],
        deeds: &[Deed::Cleanup(1), Deed::Add("f")],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "upkeep",
        before: &[Deed::Add("a b c d e"), Deed::Add("f g h i j"), Deed::Add("k l m n o")],
        deeds: &[Deed::Maintain, Deed::Pass(1), Deed::Add("p"), Deed::Pass(1), Deed::Maintain],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "spool",
        before: &[Deed::Spool("photo")],
        deeds: &[
            Deed::Spool("film"),
            Deed::Claim("photo"),
            Deed::Complete("photo"),
            Deed::Checkpoint,
        ],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "next-boot",
        before: &[Deed::Add("a"), Deed::Add("b c e f g h")],
        boots: true,
        deeds: &[Deed::Add("d"), Deed::Claim("b"), Deed::Complete("b")],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "restored-checkpoint",
        before: &[Deed::Add("a b c"), Deed::Claim("a"), Deed::Complete("a"), Deed::Restore],
        deeds: &[Deed::Checkpoint, Deed::Add("d")],
        ..PLAIN
    },
    Workload {
        name: "restored-batch",
        before: &[Deed::Add("a b c"), Deed::Restore],
        deeds: &[Deed::Add("b*20"), Deed::Claim("b3"), Deed::Complete("b3")],
        ..PLAIN
    },
    Workload {
        name: "restored-spool",
        before: &[Deed::Add("a b c"), Deed::Restore],
        deeds: &[Deed::Spool("film"), Deed::Claim("film"), Deed::Complete("film")],
        ..PLAIN
    },
    Workload {
        name: "repair",
        before: DAMAGED,
        damage: Some(|machine| {
            // Changing the name of the program that wrote the file does not change its rows.
            machine.corrupt(&layout().file(PARTITION), |bytes| {
                let text = b"wal-cli ";
                let at = bytes.windows(text.len()).rposition(|window| window == text).unwrap();
                bytes[at] ^= 1;
            });
            machine.corrupt(&layout().file(GENERATION), |bytes| bytes[30] ^= 1);
            &[PARTITION, GENERATION]
        }),
        deeds: &[Deed::Open, Deed::Add("d"), Deed::Checkpoint],
        beside: &[(2, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "repair-manifest",
        before: DAMAGED,
        damage: Some(|machine| {
            machine.corrupt(&layout().manifest(), |bytes| bytes.fill(0));
            let disk = machine.process();
            disk.remove_dir(&layout().quarantine()).unwrap();
            disk.sync_dir(layout().base()).unwrap();
            &["MANIFEST.json"]
        }),
        deeds: &[Deed::Open, Deed::Add("d")],
        beside: &[(1, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "repair-spool",
        before: &[Deed::Spool("photo"), Deed::Checkpoint, Deed::Spool("film")],
        damage: Some(|machine| {
            world::remove_spool_links(machine);
            &[]
        }),
        deeds: &[Deed::Open, Deed::Claim("photo"), Deed::Complete("photo"), Deed::Add("d")],
        beside: &[(2, Deed::Add("x"))],
        ..PLAIN
    },
    Workload {
        name: "adoption",
        original: Some("mixed"),
        deeds: &[Deed::Open, Deed::Add("new")],
        ..PLAIN
    },
];

/// How the process that dies, or gets errors, ended.
struct Ran {
    /// The deed that failed, if one did.
    stopped: Option<usize>,
    error: Option<WalError>,
    disk: MemoryDisk,
    wal: Option<Wal>,
}

impl Workload {
    fn world(&self) -> World {
        let mut world = World::new(small(), self.original);
        if !self.before.is_empty() {
            world.does(self.before);
        }
        world.machine.kill_all();
        if self.boots {
            world.machine.power_cut(|| false);
        }
        if let Some(damage) = self.damage {
            world.damage(damage);
        }
        world
    }

    /// Runs the deeds up to the first that fails.
    fn run(&self, world: &mut World, prepare: impl FnOnce(&MemoryDisk)) -> Ran {
        let disk = world.machine.process();
        prepare(&disk);
        self.run_on(world, disk.clone(), disk)
    }

    fn run_on(
        &self,
        world: &mut World,
        disk: MemoryDisk,
        seen_as: impl wal_cli::disk::Disk + 'static,
    ) -> Ran {
        let mut other = None;
        let wal = match world.open(seen_as) {
            Ok(wal) => wal,
            Err(error) => return Ran { stopped: Some(0), error: Some(error), disk, wal: None },
        };
        for (nth, deed) in self.deeds.iter().enumerate() {
            if let Err(error) = world.does_with(&wal, *deed) {
                return Ran { stopped: Some(nth), error: Some(error), disk, wal: Some(wal) };
            }
            for (_, deed) in self.beside.iter().filter(|(after, _)| *after == nth + 1) {
                if other.is_none() {
                    other = Some(world.open(world.machine.process()).unwrap());
                }
                world
                    .does_with(other.as_ref().unwrap(), *deed)
                    .expect("the second process is not interrupted");
            }
        }
        Ran { stopped: None, error: None, disk, wal: Some(wal) }
    }

    /// Returns the number of disk operations of the process that dies.
    fn operations(&self) -> u64 {
        let mut world = self.world().fork(0);
        let ran = self.run(&mut world, |disk| disk.kill_after(OPERATIONS_MAX));
        assert!(ran.error.is_none(), "{}: {:?}", self.name, ran.error);
        world.check("without an interruption");
        OPERATIONS_MAX - ran.disk.operations_left().unwrap()
    }
}

/// One way in which a workload is interrupted.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// The disk operation at which the process dies.
    at: u64,
    /// The seed that decides whether a second process acts, which writes a power cut keeps, etc.
    seed: u64,
    /// The disk operation at which the recovering process dies.
    again: Option<u64>,
}

/// Tries one interruption. Returns true if the recovering process died as planned.
fn try_cut(workload: &Workload, world: &World, cut: Cut) -> bool {
    let mut world = world.fork(cut.at << 20 | cut.seed << 8 | cut.again.unwrap_or(0));
    workload.run(&mut world, |disk| disk.kill_after(cut.at));
    world.check("after the death");
    let mut died_again = false;
    if let Some(again) = cut.again {
        if cut.seed.is_multiple_of(2) {
            world.power_cut(cut.seed / 2 + 4);
        }
        let disk = world.machine.process();
        disk.kill_after(again);
        // It recovers the journal, and logs an operation.
        match world.open(disk.clone()) {
            Ok(wal) => died_again = world.does_with(&wal, Deed::Add("recoverer")).is_err(),
            Err(_) => died_again = true,
        }
        world.check("after the death of the recovering process");
    }
    // In two of three cases a process acts before the power cut; in one of seven there is no cut.
    if !cut.seed.is_multiple_of(3) {
        world.second_acts(cut.seed / 3 + cut.at);
    }
    if cut.seed % 7 != 6 {
        world.power_cut(cut.seed + cut.at);
    }
    world.check_usable();
    died_again
}

fn replaying() -> Option<Vec<String>> {
    let seed = std::env::var("WAL_CLI_SEED").ok()?;
    Some(seed.split(':').map(str::to_owned).collect())
}

fn is_long() -> bool {
    std::env::var_os("WAL_CLI_LONG").is_some()
}

/// Tries all cases on two threads; prints how to replay the first that fails.
fn try_all<T: Send + Sync>(
    what: &str,
    all: &[T],
    replay: impl Fn(&T) -> String + Sync,
    one: impl Fn(&T) + Sync,
) {
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while failed.load(Ordering::SeqCst) < 1 {
                    let Some(this) = all.get(next.fetch_add(1, Ordering::SeqCst)) else { return };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| one(this))) {
                        failed.fetch_add(1, Ordering::SeqCst);
                        eprintln!("failed: {what} {}", replay(this));
                        eprintln!(
                            "replay: WAL_CLI_SEED={what}:{} tests/run --test all -- suite::crash",
                            replay(this)
                        );
                        resume_unwind(panic);
                    }
                }
            });
        }
    });
}

#[test]
fn nothing_is_lost_wherever_a_workload_is_cut() {
    let tried = AtomicU64::new(0);
    for workload in WORKLOADS {
        let world = workload.world();
        let seeds = if is_long() { 42 } else { 3 };
        let operations = workload.operations();
        let mut cuts: Vec<Cut> = (0..=operations)
            .flat_map(|at| {
                (0..seeds).map(move |seed| Cut { at, seed: seed * 5 + at % 5, again: None })
            })
            .collect();
        if let Some(replay) = replaying() {
            let [kind, name, at, seed] = &replay[..] else { continue };
            if kind != "cut" || name != workload.name {
                continue;
            }
            cuts = vec![Cut { at: at.parse().unwrap(), seed: seed.parse().unwrap(), again: None }];
        }
        tried.fetch_add(cuts.len() as u64, Ordering::SeqCst);
        let replay = |cut: &Cut| format!("{}:{}:{}", workload.name, cut.at, cut.seed);
        try_all("cut", &cuts, replay, |cut| {
            try_cut(workload, &world, *cut);
        });
        println!("{}: {operations} disk operations, {} cuts", workload.name, cuts.len());
    }
    println!("{} crash points tried: 0 lost, 0 invented, 0 doubled", tried.into_inner());
}

#[test]
fn nothing_is_lost_if_the_recovering_process_dies_too() {
    let mut tried = 0;
    for workload in WORKLOADS {
        let world = workload.world();
        let operations = workload.operations();
        // All pairs of a short workload, or as many of a long one.
        let most = if is_long() { 2000 } else { 160 };
        let mut random = fastrand::Rng::with_seed(operations);
        let all: Vec<u64> = (0..=operations)
            .flat_map(|at| (0..RECOVERY).map(move |again| at << 32 | again))
            .collect();
        let pairs = if is_long() && operations <= 100 || all.len() <= most {
            all
        } else {
            random.choose_multiple(all, most)
        };
        let mut cuts: Vec<Cut> = pairs
            .into_iter()
            .map(|pair| Cut {
                at: pair >> 32,
                seed: random.u64(..64),
                again: Some(pair & 0xffff_ffff),
            })
            .collect();
        if let Some(replay) = replaying() {
            let [kind, name, at, seed, again] = &replay[..] else { continue };
            if kind != "again" || name != workload.name {
                continue;
            }
            let again = Some(again.parse().unwrap());
            cuts = vec![Cut { at: at.parse().unwrap(), seed: seed.parse().unwrap(), again }];
        }
        let died = AtomicU64::new(0);
        let replay =
            |cut: &Cut| format!("{}:{}:{}:{}", workload.name, cut.at, cut.seed, cut.again.unwrap());
        try_all("again", &cuts, replay, |cut| {
            died.fetch_add(u64::from(try_cut(workload, &world, *cut)), Ordering::SeqCst);
        });
        tried += cuts.len();
        println!(
            "{}: {} interrupted recoveries, {} of them died",
            workload.name,
            cuts.len(),
            died.into_inner()
        );
    }
    println!("{tried} interrupted recoveries tried: 0 lost, 0 invented, 0 doubled");
}

/// An upper bound on the disk operations of a recovery and an append.
const RECOVERY: u64 = 90;

#[test]
fn nothing_is_lost_whatever_fails() {
    let tried = AtomicU64::new(0);
    for workload in WORKLOADS {
        let world = workload.world();
        let operations = workload.operations();
        let stride = if is_long() { 1 } else { 6 };
        let mut errors: Vec<(u64, usize, bool)> = (0..=operations)
            .flat_map(|at| (0..Fault::ALL.len()).map(move |fault| (at, fault)))
            .filter(|(at, fault)| (at + *fault as u64).is_multiple_of(stride))
            .flat_map(|(at, fault)| [(at, fault, false), (at, fault, true)])
            .collect();
        if let Some(replay) = replaying() {
            let [kind, name, at, fault, good] = &replay[..] else { continue };
            if kind != "error" || name != workload.name {
                continue;
            }
            errors = vec![(at.parse().unwrap(), fault.parse().unwrap(), good == "true")];
        }
        let replay = |(at, fault, good): &(u64, usize, bool)| {
            format!("{}:{at}:{fault}:{good}", workload.name)
        };
        let hit = AtomicU64::new(0);
        try_all("error", &errors, replay, |(at, fault, for_good)| {
            hit.fetch_add(
                u64::from(try_error(workload, &world, *at, Fault::ALL[*fault], *for_good)),
                Ordering::SeqCst,
            );
        });
        tried.fetch_add(errors.len() as u64, Ordering::SeqCst);
        println!("{}: {} error points, {} hit", workload.name, errors.len(), hit.into_inner());
    }
    println!("{} error points tried: 0 lost, 0 invented, 0 doubled", tried.into_inner());
}

/// Fails one operation, or all from there on; then the same process continues, and power is cut.
fn try_error(workload: &Workload, world: &World, at: u64, fault: Fault, for_good: bool) -> bool {
    let mut world = world.fork(at << 8 | u64::from(for_good));
    let ran = workload.run(&mut world, |disk| disk.fail_after(at, fault, for_good));
    ran.disk.stop_failing();
    world.check("after the error");
    if at.is_multiple_of(2) {
        world.second_acts(at / 2);
    }
    // The process that got the error may continue.
    if let (Some(_), Some(wal)) = (ran.stopped, &ran.wal) {
        world
            .does_with(wal, Deed::Add("once-more"))
            .expect("the log accepts operations once the disk works again");
        let seen = world.check("after another operation");
        assert!(seen.contains_key("once-more"));
    }
    let hit = ran.disk.failures() > 0;
    drop(ran.wal);
    world.power_cut(at);
    world.check_usable();
    hit
}
