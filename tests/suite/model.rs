//! Random histories of a log, compared with a simple model that shares no code with it.
//!
//! Two processes of a simulated machine take turns; either may be killed at any disk operation, and
//! power may be cut. Acknowledged operations must exist; the effect of an interrupted call exists
//! completely or not at all.
//!
//! `WAL_CLI_LONG` sets the number of histories, `WAL_CLI_SEED` runs a single one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wal_cli::clock::{Clock, ManualClock};
use wal_cli::disk::{Disk, Machine, MemoryDisk};
use wal_cli::operation::{
    BackendName, Claim, Event, Failure, FailureClass, Fields, Logged, Number, Operation,
    OperationType, Outcome, Time,
};
use wal_cli::wal::manifest::sha256_hex;
use wal_cli::wal::schema::Table;
use wal_cli::wal::{
    Change, Known, Layout, Options, Order, Retention, View, Wal, WalError, Written,
};

const START: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;
/// The number of steps of one history.
const STEPS: usize = 30;

/// An operation in the model; statuses are plain words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    status: &'static str,
    text: String,
    retries: u32,
    interruptions: u32,
    history: Vec<(&'static str, &'static str)>,
    done_at: i64,
}

type Model = BTreeMap<u64, Row>;

#[derive(Debug, Clone, Copy)]
enum Step {
    Claim,
    Complete,
    Fail,
    Retry,
    Return,
    Release,
    Again,
    Hold,
    Stop,
    GiveUp,
    Delete,
}

impl Step {
    const ALL: [Step; 12] = [
        Step::Claim,
        Step::Complete,
        Step::Complete,
        Step::Fail,
        Step::Retry,
        Step::Return,
        Step::Release,
        Step::Again,
        Step::Hold,
        Step::Stop,
        Step::GiveUp,
        Step::Delete,
    ];

    fn from(self) -> &'static [&'static str] {
        match self {
            Step::Claim => &["pending", "retrying"],
            Step::Complete | Step::Fail | Step::Retry | Step::Return | Step::Stop => {
                &["processing"]
            }
            Step::Hold => &["pending", "retrying", "processing"],
            Step::GiveUp => &["pending", "retrying", "failed"],
            Step::Delete => &["pending", "retrying", "failed", "completed"],
            Step::Release => &["retrying"],
            Step::Again => &["failed"],
        }
    }

    fn to(self, from: &'static str) -> &'static str {
        match self {
            Step::Claim => "processing",
            Step::Complete => "completed",
            Step::Fail | Step::GiveUp => "failed",
            Step::Hold | Step::Stop | Step::Delete => from,
            Step::Retry => "retrying",
            Step::Return | Step::Release | Step::Again => "pending",
        }
    }

    fn event(self, now: Time) -> Event {
        let failure = Failure {
            class: FailureClass::Transient,
            error_type: "test".into(),
            message: "the attempt failed".into(),
        };
        match self {
            Step::Claim => {
                Event::Claimed { claim: Claim { pid: 7, host: "here".into(), started: now } }
            }
            Step::Complete => Event::Completed {
                outcome: Outcome { cid: Some("cid".into()), size: Some(3), ..Outcome::default() },
            },
            Step::Fail => Event::Failed { failure },
            Step::Retry => Event::Retrying { failure, until: now.plus_millis(60_000) },
            Step::Return => {
                Event::Requeued { reason: "crash".into(), interrupted: true, failure: None }
            }
            Step::Release => Event::BackoffEnded { reason: "now".into() },
            Step::Again => {
                Event::Retried { reason: "by hand".into(), forget: Vec::new(), source: None }
            }
            Step::Hold => Event::Held { reason: "by hand".into() },
            Step::Stop => Event::CancelRequested { reason: "by hand".into() },
            Step::GiveUp => Event::Abandoned { failure },
            Step::Delete => Event::Deleted { reason: "by hand".into() },
        }
    }

    fn apply(self, row: &mut Row, now: i64) {
        let to = self.to(row.status);
        row.history.push((row.status, to));
        row.status = to;
        match self {
            Step::Retry => row.retries += 1,
            Step::Return => row.interruptions += 1,
            Step::Again => (row.retries, row.interruptions) = (0, 0),
            Step::Complete => row.done_at = now,
            _ => {}
        }
    }
}

struct Life {
    machine: Machine,
    clock: Arc<ManualClock>,
    random: fastrand::Rng,
    model: Model,
    /// The highest number of an operation that was ever durable.
    highest: u64,
    /// The texts of the operations that the current step logs.
    under_way: Vec<String>,
    steps: u64,
    writers: [Option<(MemoryDisk, Wal)>; 2],
    options: Options,
    trace: Vec<String>,
}

fn layout() -> Layout {
    Layout::new(PathBuf::from("/home/wal"))
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = fastrand::Rng::with_seed(seed);
        let options = Options {
            partition_size: random.usize(2..40),
            archive_completed: random.u8(..4) != 0,
            generation_bytes: random.u64(600..4000),
            checkpoint_bytes: random.u64(500..8000),
            preallocate_bytes: random.u64(..1500),
            frame_operations: random.usize(1..8),
            chunk_operations: random.usize(1..12),
            reserve_bytes: 4096,
            ..Options::default()
        };
        Life {
            machine: Machine::new(),
            clock: Arc::new(ManualClock::new(Time::from_millis(START), seed)),
            random,
            model: Model::new(),
            highest: 0,
            under_way: Vec::new(),
            steps: 0,
            writers: [None, None],
            options,
            trace: Vec::new(),
        }
    }

    fn writer(&mut self, which: usize) -> Result<(), WalError> {
        if self.writers[which].is_none() {
            let disk = self.machine.process();
            let wal = Wal::open(
                Arc::new(disk.clone()),
                self.clock.clone(),
                layout(),
                self.options.clone(),
            )?;
            self.writers[which] = Some((disk, wal));
        }
        Ok(())
    }

    fn pick(&mut self, statuses: &[&str], most: usize) -> Vec<u64> {
        let mut numbers: Vec<u64> = self
            .model
            .iter()
            .filter(|(_, row)| statuses.contains(&row.status))
            .map(|(n, _)| *n)
            .collect();
        self.random.shuffle(&mut numbers);
        numbers.truncate(most);
        numbers
    }

    /// Runs one random step; afterwards the log equals the model.
    fn step(&mut self) {
        let which = self.random.usize(..2);
        self.writer(which).expect("a valid log opens");
        let dies = self.random.u8(..5) == 0;
        if dies {
            let at = self.random.u64(..90);
            self.trace.push(format!("writer {which} dies at disk operation {at}"));
            self.writers[which].as_ref().unwrap().0.kill_after(at);
        }
        let fails = !dies && self.random.u8(..6) == 0;
        if fails {
            let kind = [ErrorKind::StorageFull, ErrorKind::Other][self.random.usize(..2)];
            let (at, for_good) = (self.random.u64(..60), self.random.bool());
            self.trace.push(format!(
                "writer {which} gets {kind:?} at disk operation {at}, permanently: {for_good}"
            ));
            self.writers[which].as_ref().unwrap().0.fail_after(at, kind, for_good);
        }
        let now = self.clock.now().as_millis();
        let before = self.model.clone();
        self.steps += 1;
        self.under_way.clear();
        let action = self.random.u8(..12);
        let is_cleanup = action == 8;
        let result = match action {
            0..=2 => {
                let count = self.random.usize(1..8);
                self.trace.push(format!("writer {which} adds {count}"));
                let new: Vec<Change> = self.some_new(count).into_iter().map(Change::New).collect();
                self.wal(which)
                    .transact(|_| Ok((new.clone(), ())))
                    .map(|(written, ())| self.logged(&written))
            }
            10..=11 => {
                // Small batches become a frame, larger ones partitions and a manifest.
                let count = self.random.usize(1..25);
                self.trace.push(format!("writer {which} adds a batch of {count}"));
                let new = self.some_new(count);
                self.wal(which).append_new(new).map(|admitted| {
                    self.insert(&admitted.iter().map(|one| one.number().get()).collect::<Vec<_>>())
                })
            }
            3..=6 => {
                let step = Step::ALL[self.random.usize(..Step::ALL.len())];
                let most = self.random.usize(1..6);
                let numbers = self.pick(step.from(), most);
                self.trace.push(format!("writer {which}: {step:?} {numbers:?}"));
                for number in &numbers {
                    step.apply(self.model.get_mut(number).unwrap(), now);
                }
                if let Step::Delete = step {
                    self.model.retain(|number, _| !numbers.contains(number));
                }
                let time = Time::from_millis(now);
                self.wal(which)
                    .transact(|view| {
                        let mut changes = Vec::new();
                        for number in &numbers {
                            let operation = view
                                .operation(Number::new(*number))?
                                .expect("a known operation exists");
                            changes.push(Change::Next(Known::from(&operation), step.event(time)));
                        }
                        Ok((changes, ()))
                    })
                    .map(|_| ())
            }
            7 => {
                self.trace.push(format!("writer {which}: checkpoint"));
                self.wal(which).checkpoint().map(|_| ())
            }
            8 => {
                let days = self.random.u64(..3);
                self.trace.push(format!("writer {which}: cleanup of {days} days"));
                let result = self
                    .wal(which)
                    .cleanup(
                        Retention { max_age_days: days, failed: false, keep_unpushed: false },
                        false,
                    )
                    .map(|_| ());
                let oldest = now.div_euclid(DAY_MS) - days as i64;
                self.model.retain(|_, row| {
                    row.status != "completed" || row.done_at.div_euclid(DAY_MS) >= oldest
                });
                result
            }
            _ => {
                let hours = self.random.u64(..30);
                self.trace.push(format!("{hours} hours pass; writer {which} maintains"));
                self.clock.advance(Duration::from_secs(hours * 3600));
                self.wal(which).maintain().map(|_| ())
            }
        };
        let disk = &self.writers[which].as_ref().unwrap().0;
        let died = !disk.is_alive(disk.identity().pid, disk.identity().started);
        if !died {
            // A planned kill or error that the step did not reach must not happen later.
            disk.kill_after(u64::MAX);
            disk.stop_failing();
            match result {
                Ok(()) => {}
                Err(_) if !fails => result.expect("a valid log accepts the step"),
                Err(WalError::NotLogged(_)) => {
                    let seen = self.observe();
                    if is_cleanup {
                        // A cleanup makes several commits; if the last one fails, the others may
                        // have succeeded.
                        self.settle(&before, false);
                    } else {
                        same(
                            &seen,
                            &before,
                            "a reader after an error which reports that nothing was logged",
                        );
                        self.model = before;
                    }
                }
                Err(error) => {
                    self.trace.push(format!("error: {error}"));
                    self.settle(&before, false);
                }
            }
            if self.random.u8(..12) == 0 {
                self.trace.push("power cut".into());
                self.power_cut();
            }
        } else {
            self.writers[which] = None;
            // Another process may act, and be acknowledged, between the death and a power cut.
            let acted = self.random.bool();
            if acted {
                self.trace.push("the other writer acts after the death".into());
                self.settle(&before, result.is_ok());
            }
            if self.random.bool() {
                self.trace.push("power cut".into());
                self.power_cut();
            }
            if !acted {
                self.settle(&before, result.is_ok());
            }
        }
        self.compare();
    }

    /// Writes after a death, which makes the log durable, and decides which of two models holds.
    fn settle(&mut self, before: &Model, acknowledged: bool) {
        let other = self.random.usize(..2);
        self.writer(other).expect("a log opens after a death");
        let done = self.wal(other).checkpoint();
        done.expect("a log works after a death");
        let seen = self.observe();
        if acknowledged {
            return;
        }
        if !self.under_way.is_empty() {
            // Their numbers were not reported.
            let new: Vec<u64> =
                seen.keys().filter(|number| !before.contains_key(number)).copied().collect();
            if new.len() == self.under_way.len() {
                self.insert(&new);
            }
        }
        assert!(
            seen == self.model || seen == *before || is_partial_cleanup(&seen, before, &self.model),
            "the log is in neither state:\nseen   {seen:?}\nbefore {before:?}\nafter  {:?}",
            self.model
        );
        self.model = seen;
    }

    /// Returns new operations for the current step, each with a unique text.
    fn some_new(&mut self, count: usize) -> Vec<Logged> {
        self.under_way = (0..count).map(|nth| format!("{}.{nth}", self.steps)).collect();
        let new = self.under_way.iter().map(|text| {
            let parameters = Fields::from([("path".to_owned(), text.clone())]);
            Logged::new(
                OperationType::new("add").unwrap(),
                BackendName::new("local").unwrap(),
                parameters,
                5,
            )
        });
        new.collect()
    }

    /// Adds the operations of the step to the model, under these numbers.
    fn logged(&mut self, written: &[Written]) {
        let numbers: Vec<u64> = written.iter().map(|written| written.number.get()).collect();
        self.insert(&numbers);
    }

    fn insert(&mut self, numbers: &[u64]) {
        assert_eq!(numbers.len(), self.under_way.len());
        for (number, text) in numbers.iter().zip(&self.under_way) {
            assert!(*number > self.highest, "number {number} is reused");
            self.highest = *number;
            let row = Row {
                status: "pending",
                text: text.clone(),
                retries: 0,
                interruptions: 0,
                history: vec![("", "pending")],
                done_at: 0,
            };
            self.model.insert(*number, row);
        }
    }

    /// Asserts that no Parquet file, named or left over, gives one number to two operations.
    fn check_numbers(&self) {
        let disk = self.machine.process();
        let disk: &dyn Disk = &disk;
        let mut ids = BTreeMap::new();
        for directory in
            [layout().partitions(), layout().archives(), layout().quarantine(), layout().tmp()]
        {
            for entry in disk.list(&directory).unwrap_or_default() {
                let path = directory.join(entry.name);
                let bytes = disk.read(&path).unwrap();
                // A file torn by a power cut is ignored.
                let Ok(table) = Table::open(disk, &path, &sha256_hex(&bytes)) else { continue };
                for row in table.read_all().unwrap_or_default() {
                    let first = ids.entry(row.number).or_insert(row.id);
                    assert_eq!(*first, row.id, "number {} belongs to two operations", row.number);
                }
            }
        }
    }

    fn power_cut(&mut self) {
        let random = &mut self.random;
        let bias = random.u8(..4);
        self.machine.power_cut(|| match bias {
            0 => false,
            1 => true,
            _ => random.bool(),
        });
        self.writers = [None, None];
    }

    fn wal(&self, which: usize) -> &Wal {
        &self.writers[which].as_ref().unwrap().1
    }

    /// Returns the log as a new reader sees it.
    fn observe(&self) -> Model {
        let disk = self.machine.process();
        let view = View::open(Arc::new(disk), layout()).expect("a reader can read");
        assert_eq!(view.damage(), None);
        let mut model = Model::new();
        let mut ids = Vec::new();
        view.visit(
            Order::OldestFirst,
            |_| true,
            |_| true,
            |operation| {
                ids.push((operation.number, operation.id));
                assert!(
                    model.insert(operation.number.get(), row_of(&operation)).is_none(),
                    "seen twice"
                );
                ControlFlow::Continue(())
            },
        )
        .expect("a reader can read all");
        assert!(ids.is_sorted(), "operations are sorted by age");
        let total: u64 = view.counts().values().sum();
        assert_eq!(total, model.len() as u64, "counts match the operations");
        for ((status, _, _), count) in view.counts() {
            let rows = model.values().filter(|row| row.status == status.as_str()).count();
            assert_eq!(count, rows as u64, "{status}");
        }
        // Each lookup opens files: a few per step are enough over thousands of histories.
        for (number, id) in ids.into_iter().rev().step_by(7).take(3) {
            assert_eq!(view.operation_by_id(id).unwrap().unwrap().number, number);
            assert_eq!(view.operation(number).unwrap().unwrap().id, id);
        }
        model
    }

    fn compare(&mut self) {
        let seen = self.observe();
        same(&seen, &self.model, "a new reader");
        if self.random.u8(..6) == 0 {
            self.check_numbers();
        }
        if self.random.u8(..4) != 0 {
            return;
        }
        for (_, wal) in self.writers.iter().flatten() {
            let mut rows = Model::new();
            wal.read(|view| {
                rows.clear();
                view.visit(
                    Order::NewestFirst,
                    |_| true,
                    |_| true,
                    |operation| {
                        rows.insert(operation.number.get(), row_of(&operation));
                        ControlFlow::Continue(())
                    },
                )
            })
            .expect("a writer can read");
            same(&rows, &self.model, "a writer");
        }
    }
}

fn same(seen: &Model, expected: &Model, who: &str) {
    let numbers: std::collections::BTreeSet<_> = seen.keys().chain(expected.keys()).collect();
    for number in numbers {
        assert_eq!(
            seen.get(number),
            expected.get(number),
            "operation {number} as {who} sees it (left), and in the model"
        );
    }
}

/// A cleanup prunes files one commit at a time, after a checkpoint: some may be pruned already.
fn is_partial_cleanup(seen: &Model, before: &Model, after: &Model) -> bool {
    seen.iter().all(|(number, row)| before.get(number) == Some(row))
        && after.keys().all(|n| seen.contains_key(n))
}

fn row_of(operation: &Operation) -> Row {
    let word = |status: wal_cli::operation::Status| status.as_str();
    Row {
        status: word(operation.status()),
        text: operation.parameters.get("path").cloned().unwrap_or_default(),
        retries: operation.retry_count,
        interruptions: operation.interruptions,
        history: operation
            .history
            .iter()
            .map(|entry| (entry.from.map_or("", word), word(entry.to)))
            .collect(),
        done_at: match operation.state {
            wal_cli::operation::State::Completed { at, .. } => at.as_millis(),
            _ => 0,
        },
    }
}

fn live(seed: u64) {
    let mut life = Life::new(seed);
    for _ in 0..STEPS {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.step()));
        if let Err(panic) = outcome {
            let last = life.trace.len().saturating_sub(12);
            eprintln!("seed {seed} failed; its last steps:\n  {}", life.trace[last..].join("\n  "));
            eprintln!("replay: WAL_CLI_SEED={seed} tests/long model 1");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn random_lives_agree_with_the_model() {
    if let Ok(seed) = std::env::var("WAL_CLI_SEED") {
        return live(seed.parse().expect("a seed is a number"));
    }
    let lives: u64 = std::env::var("WAL_CLI_LONG").map_or(150, |n| n.parse().expect("a number"));
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || (0..lives).filter(|seed| seed % 2 == half).for_each(live));
        }
    });
    println!("{lives} histories of {STEPS} steps each agree with the model");
}
