//! Waits for operations, and runs them meanwhile.

use std::io::ErrorKind;
use std::time::Duration;

use super::error::ClientError;
use super::{Client, Receipts, Reference};
use crate::operation::{Number, Operation};
use crate::wal::WalError;
use crate::worker::{Observer, ProcessOptions, ProcessReport, Stop};

/// The longest pause between two reads of the log.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The first pause between two reads of the log.
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// The time that running attempts get after the deadline of a wait.
const GRACE: Duration = Duration::from_secs(1);

impl Client {
    /// Waits until all these operations have ended and their outcomes are durable, and returns
    /// them.
    ///
    /// Runs nothing itself: a drain loop has to run in this or another process. Without a
    /// `timeout`, waits indefinitely.
    ///
    /// # Errors
    ///
    /// [`ClientError::TimedOut`] with the operations that had not ended,
    /// [`ClientError::Interrupted`] if `stop` was requested.
    pub fn wait(
        &self,
        references: &[Reference],
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<Vec<Operation>, ClientError> {
        wait_until_ended(self, references, &Timer::start(self, timeout), stop, |_, _| Ok(()))
    }

    /// Runs these operations and those that they depend on, and returns them once they have ended.
    ///
    /// While a drain loop of another process runs, waits for it instead, and takes over if it ends.
    ///
    /// # Errors
    ///
    /// The same as [`Client::wait`].
    pub fn run_and_wait(
        &self,
        references: &[Reference],
        timeout: Option<Duration>,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Operation>, ClientError> {
        let timer = Timer::start(self, timeout);
        wait_until_ended(self, references, &timer, stop, |unfinished, left| {
            let numbers = unfinished.iter().map(|operation| operation.number);
            drain_only(self, numbers, left, stop, observer)
        })
    }

    /// Does the same as [`Client::run_and_wait`] for a batch of any size, holding none of its
    /// operations in memory.
    ///
    /// The error of a timeout lists no operations.
    pub fn run_and_wait_for_batch(
        &self,
        receipts: &Receipts,
        timeout: Option<Duration>,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        let timer = Timer::start(self, timeout);
        let numbers = receipts.number_set()?;
        let mut remaining = numbers.iter().peekable();
        loop {
            // Operations that have ended are not read again.
            while let Some(number) = remaining.peek() {
                match self.operation(&Reference::Number(*number)) {
                    Ok(operation) if !operation.status().is_terminal() => break,
                    Ok(_) | Err(ClientError::NoSuchOperation(_)) => remaining.next(),
                    Err(error) => return Err(error),
                };
            }
            if remaining.peek().is_none() {
                return confirm(self);
            }
            if stop.is_requested() {
                return Err(ClientError::Interrupted);
            }
            let left = timer.left();
            if left == Some(Duration::ZERO) {
                return Err(ClientError::TimedOut { unfinished: Vec::new() });
            }
            drain_only(self, numbers.iter(), left, stop, observer)?;
            self.clock.sleep(PAUSE_MAX.min(left.unwrap_or(PAUSE_MAX)));
        }
    }
}

/// The time that a wait may take.
struct Timer<'c> {
    client: &'c Client,
    start: Duration,
    timeout: Option<Duration>,
}

impl Timer<'_> {
    fn start(client: &Client, timeout: Option<Duration>) -> Timer<'_> {
        Timer { client, start: client.clock.elapsed(), timeout }
    }

    /// Returns the time that is left; `None` if it is unlimited.
    fn left(&self) -> Option<Duration> {
        let waited = self.client.clock.elapsed().saturating_sub(self.start);
        self.timeout.map(|timeout| timeout.saturating_sub(waited))
    }
}

/// Calls `meanwhile` with the unfinished operations and the time left, until all have ended.
fn wait_until_ended(
    client: &Client,
    references: &[Reference],
    timer: &Timer<'_>,
    stop: &Stop,
    mut meanwhile: impl FnMut(&[Operation], Option<Duration>) -> Result<(), ClientError>,
) -> Result<Vec<Operation>, ClientError> {
    if references.is_empty() {
        return Ok(Vec::new());
    }
    // References such as `@last` keep their meaning of the start.
    let mut numbers = Vec::with_capacity(references.len());
    for reference in references {
        numbers.push(client.operation(reference)?.number);
    }
    let mut pause = PAUSE_MIN;
    let mut confirmed = false;
    loop {
        let mut operations = Vec::with_capacity(numbers.len());
        for number in &numbers {
            operations.push(client.operation(&Reference::Number(*number))?);
        }
        let unfinished: Vec<Operation> = operations
            .iter()
            .filter(|operation| !operation.status().is_terminal())
            .cloned()
            .collect();
        if unfinished.is_empty() {
            confirm(client)?;
            if confirmed {
                return Ok(operations);
            }
            // Making it durable may have restarted the journal: read the operations again.
            confirmed = true;
            continue;
        }
        confirmed = false;
        if stop.is_requested() {
            return Err(ClientError::Interrupted);
        }
        let left = timer.left();
        if left == Some(Duration::ZERO) {
            return Err(ClientError::TimedOut { unfinished });
        }
        meanwhile(&unfinished, left)?;
        client.clock.sleep(pause.min(left.unwrap_or(PAUSE_MAX)));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Runs a drain loop for these operations and those that they depend on, unless another loop runs.
fn drain_only(
    client: &Client,
    numbers: impl Iterator<Item = Number>,
    deadline: Option<Duration>,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<(), ClientError> {
    // An operation whose backend is unreachable waits for it, as in any loop that follows.
    let options = ProcessOptions::default()
        .with_only(client.with_dependencies(numbers)?)
        .with_follow(true)
        .with_deadline(deadline)
        .with_lock_timeout(Duration::ZERO)
        .with_grace(GRACE);
    match client.process(&options, stop, observer) {
        Err(ClientError::Wal(WalError::Busy { .. })) => Ok(()),
        Ok(ProcessReport { out_of_room: Some(free), .. }) => {
            Err(client.wal()?.no_room_for_outcomes(free).into())
        }
        other => other.map(drop),
    }
}

/// Makes the state that was read durable before the caller acts on it. On a read-only disk it
/// already is.
fn confirm(client: &Client) -> Result<(), ClientError> {
    // Waiting for operations of an `ipfs_kit_py` directory must not adopt it.
    if client.with_view(|view| Ok(view.has_originals() && view.journal_load().0 == 0))? {
        return Ok(());
    }
    match client.wal().and_then(|wal| Ok(wal.confirm()?)) {
        Err(ClientError::Wal(WalError::Disk(error) | WalError::NotLogged(error)))
            if matches!(
                error.kind(),
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
