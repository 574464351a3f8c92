use std::time::Duration;

use super::error::ClientError;
use super::{Client, Receipts, Reference};
use crate::operation::Operation;
use crate::wal::WalError;
use crate::wal::manifest::NumberSet;
use crate::worker::{Observer, ProcessOptions, ProcessReport, Stop};

/// The longest pause between two reads of the log.
const PAUSE_MAX: Duration = Duration::from_millis(100);

impl Client {
    /// Waits until all these operations have ended and their outcomes are durable, and returns them.
    ///
    /// Runs nothing itself: a drain loop has to run in this or another process. `timeout: None` waits indefinitely.
    ///
    /// # Errors
    ///
    /// [`ClientError::TimedOut`] with the operations that had not ended, [`ClientError::Interrupted`] if `stop` was
    /// requested.
    pub fn wait(
        &self,
        references: &[Reference],
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<Vec<Operation>, ClientError> {
        self.wait_or(references, timeout, stop, |_, _| Ok(()))
    }

    /// Runs these operations and those that they wait for, and returns them once they have ended.
    ///
    /// While a drain loop of another process runs, waits for it instead, and takes over if it ends.
    ///
    /// # Errors
    ///
    /// As [`Client::wait`].
    pub fn run_and_wait(
        &self,
        references: &[Reference],
        timeout: Option<Duration>,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Operation>, ClientError> {
        let start = self.clock.elapsed();
        self.wait_or(references, timeout, stop, |client, unfinished| {
            let only =
                client.with_dependencies(unfinished.iter().map(|operation| operation.number))?;
            let deadline = timeout.map(|timeout| {
                timeout.saturating_sub(client.clock.elapsed().saturating_sub(start))
            });
            client.drain_only(only.into_iter().collect(), deadline, stop, observer)
        })
    }

    /// Does what [`Client::run_and_wait`] does for a batch of any size, holding none of its operations in memory.
    ///
    /// The error of a timeout lists no operations.
    pub fn run_and_wait_for_batch(
        &self,
        receipts: &Receipts,
        timeout: Option<Duration>,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        let start = self.clock.elapsed();
        let mut numbers = NumberSet::default();
        receipts.each(|receipt| {
            numbers.insert(receipt.number);
            Ok::<(), ClientError>(())
        })?;
        let mut left = numbers.iter().peekable();
        loop {
            // Operations that have ended are not read again.
            while let Some(number) = left.peek() {
                match self.operation(&Reference::Number(*number)) {
                    Ok(operation) if !operation.status().is_terminal() => break,
                    Ok(_) | Err(ClientError::NoSuchOperation(_)) => left.next(),
                    Err(error) => return Err(error),
                };
            }
            if left.peek().is_none() {
                return self.confirm();
            }
            if stop.is_requested() {
                return Err(ClientError::Interrupted);
            }
            let waited = self.clock.elapsed().saturating_sub(start);
            if timeout.is_some_and(|timeout| waited >= timeout) {
                return Err(ClientError::TimedOut { unfinished: Vec::new() });
            }
            let deadline = timeout.map(|timeout| timeout.saturating_sub(waited));
            let only = self.with_dependencies(numbers.iter())?.into_iter().collect();
            self.drain_only(only, deadline, stop, observer)?;
            self.clock.sleep(PAUSE_MAX.min(deadline.unwrap_or(PAUSE_MAX)));
        }
    }

    /// Runs a drain loop for some operations, unless another one runs.
    fn drain_only(
        &self,
        only: NumberSet,
        deadline: Option<Duration>,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        // Following until they have ended: an operation whose backend is unreachable waits for it as in any loop.
        let options = ProcessOptions {
            only: Some(only),
            follow: true,
            deadline,
            lock_timeout: Duration::ZERO,
            grace: Duration::from_secs(1),
            ..Default::default()
        };
        match self.process(&options, stop, observer) {
            Err(ClientError::Wal(WalError::Busy { .. })) => Ok(()),
            Ok(ProcessReport { out_of_room: Some(free), .. }) => {
                Err(self.wal()?.no_room_for_outcomes(free).into())
            }
            other => other.map(drop),
        }
    }

    fn wait_or(
        &self,
        references: &[Reference],
        timeout: Option<Duration>,
        stop: &Stop,
        mut meanwhile: impl FnMut(&Client, &[Operation]) -> Result<(), ClientError>,
    ) -> Result<Vec<Operation>, ClientError> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        let start = self.clock.elapsed();
        let mut pause = Duration::from_millis(2);
        let mut confirmed = false;
        // References such as `@last` mean what they meant at the start.
        let mut numbers = Vec::with_capacity(references.len());
        for reference in references {
            numbers.push(self.operation(reference)?.number);
        }
        loop {
            let mut operations = Vec::with_capacity(numbers.len());
            for number in &numbers {
                operations.push(self.operation(&Reference::Number(*number))?);
            }
            let unfinished: Vec<Operation> = operations
                .iter()
                .filter(|operation| !operation.status().is_terminal())
                .cloned()
                .collect();
            if unfinished.is_empty() {
                self.confirm()?;
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
            let waited = self.clock.elapsed().saturating_sub(start);
            if timeout.is_some_and(|timeout| waited >= timeout) {
                return Err(ClientError::TimedOut { unfinished });
            }
            meanwhile(self, &unfinished)?;
            let left = timeout.map_or(PAUSE_MAX, |timeout| timeout.saturating_sub(waited));
            self.clock.sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Makes what was read durable before the caller acts on it. On a read-only disk it already is.
    fn confirm(&self) -> Result<(), ClientError> {
        // Waiting for operations of an `ipfs_kit_py` directory must not adopt it.
        if self.with_view(|view| Ok(view.has_originals() && view.journal_load().0 == 0))? {
            return Ok(());
        }
        match self.wal().and_then(|wal| Ok(wal.confirm()?)) {
            Err(ClientError::Wal(WalError::Disk(error) | WalError::NotLogged(error)))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}
