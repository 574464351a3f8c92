//! The files of a log as bytes, from which simulated machines are created.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wal_cli::client::{AddOptions, Client};
use wal_cli::clock::ManualClock;
use wal_cli::config::{Settings, SpoolMode};
use wal_cli::disk::{Disk, Machine, MemoryDisk};
use wal_cli::operation::{
    BackendName, Claim, Event, Failure, FailureClass, Fields, Logged, Number, Operation,
    OperationId, OperationType, Outcome, Time,
};
use wal_cli::wal::{Change, Known, Layout, Options, Order, View, Wal, WalError};

/// The directory of the log.
pub const BASE: &str = "/wal";

/// The current time, on a day on which no operation of the sample is old.
pub const NOW: i64 = 1_800_000_000_000;

/// Files by their paths relative to the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub files: BTreeMap<String, Vec<u8>>,
    /// The number of reboots of the machine before the image was taken.
    pub boots: usize,
}

/// A reader's view of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The operations that could be read.
    pub operations: BTreeMap<Number, Operation>,
    /// Counts that were obtained without reading rows.
    pub counted: u64,
    /// The reported damage, or the error of the reader.
    pub reported: Vec<String>,
}

pub fn layout() -> Layout {
    Layout::new(BASE)
}

pub fn options() -> Options {
    Options {
        partition_size: 4,
        generation_bytes: 2200,
        preallocate_bytes: 1024,
        reserve_bytes: 512,
        lock_timeout: Duration::from_millis(50),
        ..Options::default()
    }
}

pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Time::from_millis(NOW), 7))
}

pub fn open(disk: &MemoryDisk) -> Result<Wal, WalError> {
    Wal::open(Arc::new(disk.clone()), clock(), layout(), options())
}

pub fn logged(path: &str) -> Logged {
    let parameters = Fields::from([("path".to_owned(), path.to_owned())]);
    Logged::new(
        OperationType::new("pin").unwrap(),
        BackendName::new("local").unwrap(),
        parameters,
        5,
    )
}

impl Image {
    /// Returns all files of a log except the reserve, which is empty and as large as all others
    /// together.
    pub fn of(disk: &MemoryDisk) -> Image {
        let disk: &dyn Disk = disk;
        let mut image = Image::default();
        let mut folders = vec![Path::new(BASE).to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in disk.list(&folder).unwrap() {
                let path = folder.join(&entry.name);
                match disk.read(&path) {
                    Ok(bytes) => {
                        image.files.insert(layout().relative(&path), bytes);
                    }
                    Err(_) => folders.push(path),
                }
            }
        }
        image.files.remove("reserve");
        image
    }

    /// Returns a machine with these files, all durable, in the boot that created them or the next.
    pub fn machine(&self, another_boot: bool) -> Machine {
        let machine = Machine::new();
        let process = machine.process();
        let disk: &dyn Disk = &process;
        for directory in layout().directories() {
            disk.create_dir_all_synced(&directory).unwrap();
        }
        for (name, bytes) in &self.files {
            let path = layout().file(name);
            let folder = path.parent().unwrap();
            disk.create_dir_all_synced(folder).unwrap();
            disk.write_new_synced(&path, bytes).unwrap();
            disk.sync_dir(folder).unwrap();
        }
        (0..self.boots + usize::from(another_boot)).for_each(|_| machine.power_cut(|| true));
        machine
    }
}

impl Seen {
    /// Reads a whole log in every way that readers use.
    pub fn by(disk: &MemoryDisk) -> Seen {
        let mut seen = Seen::default();
        let mut view = match View::open(Arc::new(disk.clone()), layout()) {
            Ok(view) => view,
            Err(error) => {
                seen.reported.push(error.to_string());
                return seen;
            }
        };
        seen.reported.extend(view.damage().map(ToString::to_string));
        let mut operations = BTreeMap::new();
        let take = |operation: Operation| {
            let number = operation.number;
            assert!(
                operations.insert(number, operation).is_none(),
                "operation {number} is shown twice"
            );
            ControlFlow::Continue(())
        };
        let reported = view.visit(Order::NewestFirst, |_| true, |_| true, take);
        seen.reported.extend(reported.err().map(|error| error.to_string()));
        seen.operations = operations;
        // Operations read one by one must equal those in the list.
        for (number, operation) in seen.operations.iter().step_by(5) {
            match view.operation(*number) {
                Ok(found) => assert_eq!(found.as_ref(), Some(operation)),
                Err(error) => seen.reported.push(error.to_string()),
            }
        }
        seen.counted = view.counts().values().sum();
        let _ = (
            view.archived(),
            view.file_counts(),
            view.journal_load(),
            view.take_changed(),
            view.unread(),
        );
        let _ = view.dependencies();
        view.touched().for_each(drop);
        // Nothing is written meanwhile, so a second read returns the same.
        let _ = view.catch_up();
        seen
    }

    /// Returns the operation with this id, looked up by it.
    pub fn by_id(disk: &MemoryDisk, id: OperationId) -> Result<Option<Operation>, WalError> {
        View::open(Arc::new(disk.clone()), layout())?.operation_by_id(id)
    }
}

/// Returns a small log with partitions, an archive, a sealed generation, an open one whose later
/// frames record that earlier ones are synced, and a copy of a file in its spool.
pub fn sample() -> &'static Image {
    static SAMPLE: OnceLock<Image> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let machine = Machine::new();
        let disk = machine.process();
        (&disk as &dyn Disk).create_dir_all_synced(Path::new("/home")).unwrap();
        (&disk as &dyn Disk).write_new_synced(Path::new("/home/photo"), b"a picture").unwrap();
        let settings = Settings { min_free_bytes: 0, ..Settings::at(BASE.into()) };
        let client = Client::builder(settings)
            .environment(Arc::new(disk.clone()), clock())
            .program("add")
            .build();
        let spool = AddOptions::default()
            .with_backend(BackendName::new("local").unwrap())
            .with_spool(SpoolMode::Always);
        client.add(Path::new("/home/photo"), &spool).unwrap();
        drop(client);
        let wal = open(&disk).unwrap();
        let add = |count: usize, what: &str| {
            let new = (0..count).map(|n| {
                let mut new = logged(&format!("/{what}/{n}"));
                new.idempotency_key = (n == 1).then(|| format!("key of {what}"));
                Change::New(new)
            });
            let new: Vec<Change> = new.collect();
            wal.transact(|_| Ok((new.clone(), ()))).unwrap();
        };
        let next = |number: Number, event: Event| {
            wal.transact(|view| {
                let operation = view.operation(number)?.expect("the operation was logged");
                Ok((vec![Change::Next(Known::from(&operation), event.clone())], ()))
            })
            .unwrap();
        };
        let claim = Event::Claimed {
            claim: Claim { pid: 7, host: "here".into(), started: Time::from_millis(NOW) },
        };
        let done = Event::Completed {
            outcome: Outcome { cid: Some("Qm".into()), size: Some(9), ..Outcome::default() },
        };
        let failure = Failure {
            class: FailureClass::Transient,
            error_type: "test".into(),
            message: "it did not work".into(),
        };
        add(12, "first");
        for number in [2, 5] {
            next(Number::new(number), claim.clone());
            next(Number::new(number), done.clone());
        }
        wal.checkpoint().unwrap();
        let generation =
            || wal.read(|view| Ok(view.position().map(|position| position.generation))).unwrap();
        let first = generation();
        add(3, "second");
        next(Number::new(3), claim.clone());
        next(Number::new(4), claim.clone());
        next(Number::new(4), Event::Failed { failure: failure.clone() });
        next(Number::new(3), Event::Retrying { failure, until: Time::from_millis(NOW + 60_000) });
        next(Number::new(7), Event::Held { reason: "by hand".into() });
        next(Number::new(8), Event::Deleted { reason: "by hand".into() });
        add(2, "third");
        next(Number::new(9), claim);
        next(Number::new(9), done);
        let mut frames = 0;
        let mut last = first;
        while frames < 4 || last == first {
            add(1, &format!("last {frames}"));
            let now = generation();
            frames = if now == last { frames + 1 } else { 1 };
            last = now;
        }
        drop(wal);
        // The last generation comes from a recovery, so that no earlier one names it. Each of its
        // frames comes from a process of its own, as commands leave them.
        machine.power_cut(|| true);
        for n in 0..4 {
            let change = vec![Change::New(logged(&format!("/after/{n}")))];
            open(&machine.process()).unwrap().transact(|_| Ok((change.clone(), ()))).unwrap();
        }
        Image { boots: 1, ..Image::of(&machine.process()) }
    })
}
