//! Failpoints of the program: decorators of its disk, its backends and its observer.

use std::sync::Arc;

use crate::backend::{Attempt, Backend, failpoint::FailpointBackend};
use crate::client::Client;
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::disk::{FailpointDisk, Failpoints, OsDisk};
use crate::operation::Operation;
use crate::wal::Layout;
use crate::worker::{Observer, ProcessReport};

/// Returns a client with failpoints if the environment requests some.
pub fn client(settings: &Settings, command: &str) -> Option<(Client, Arc<Failpoints>)> {
    let points = Arc::new(Failpoints::from_environment()?);
    let layout = Layout::new(&settings.base_path);
    let disk = FailpointDisk::new(Arc::new(OsDisk::new()), points.clone(), move |path| {
        layout.role_of(path)
    });
    let mut client = Client::builder(settings.clone())
        .with_environment(Arc::new(disk), Arc::new(SystemClock::new()))
        .program(command)
        .build();
    let wrap =
        |backend| -> Arc<dyn Backend> { Arc::new(FailpointBackend::new(backend, points.clone())) };
    client.backends.wrap(wrap);
    Some((client, points))
}

/// An observer with the points `after:claim` and `after:settle`: the record is durable, and has not
/// been reported.
pub struct FailpointObserver<'a> {
    observer: &'a mut dyn Observer,
    points: Option<Arc<Failpoints>>,
}

impl<'a> FailpointObserver<'a> {
    /// Wraps an observer.
    pub fn new(
        observer: &'a mut dyn Observer,
        points: Option<Arc<Failpoints>>,
    ) -> FailpointObserver<'a> {
        FailpointObserver { observer, points }
    }

    fn pass(&self, name: &str) {
        if let Some(points) = &self.points {
            points.pass(name);
        }
    }
}

impl Observer for FailpointObserver<'_> {
    fn started(&mut self, operation: &Operation, attempt: &Arc<Attempt>) {
        self.pass("after:claim");
        self.observer.started(operation, attempt);
    }

    fn settled(&mut self, operation: &Operation) {
        self.pass("after:settle");
        self.observer.settled(operation);
    }

    fn tick(&mut self, report: &ProcessReport, waiting: u64) {
        self.observer.tick(report, waiting);
    }
}
