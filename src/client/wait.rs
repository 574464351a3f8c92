use std::time::Duration;

use super::error::ClientError;
use super::{Client, Reference};
use crate::operation::Operation;
use crate::wal::WalError;
use crate::wal::manifest::NumberSet;
use crate::worker::{Observer, ProcessOptions, ProcessReport, Stop};

/// The longest pause between two looks at the log.
const PAUSE_MAX: Duration = Duration::from_millis(100);

impl Client {
    /// Waits until all these operations have ended, and what is told of them is durable.
    ///
    /// After `timeout` the error holds those that had not; none waits for ever.
    pub fn wait(
        &self,
        references: &[Reference],
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<Vec<Operation>, ClientError> {
        self.wait_or(references, timeout, stop, |_, _| Ok(()))
    }

    /// Carries these operations out if no drain loop runs, else waits until it has; takes over if it ends.
    pub fn wait_carrying_out(
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
            client.carry_out(only.into_iter().collect(), deadline, stop, observer)
        })
    }

    /// The same for more operations than memory should hold; what came of them is for the caller to read.
    ///
    /// The error of a timeout names none of those that had not ended.
    pub fn wait_for_all(
        &self,
        numbers: &NumberSet,
        timeout: Option<Duration>,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        let start = self.clock.elapsed();
        let mut left = numbers.iter().peekable();
        loop {
            // Those that have ended need not be looked at again.
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
            self.carry_out(only, deadline, stop, observer)?;
            self.clock.sleep(PAUSE_MAX.min(deadline.unwrap_or(PAUSE_MAX)));
        }
    }

    /// Runs a drain loop for some operations, unless somebody else carries them out.
    fn carry_out(
        &self,
        only: NumberSet,
        deadline: Option<Duration>,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        // Following until they have ended: what waits for its backend waits here, as it would in any loop.
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
                // Making it durable may have restarted the journal: what stands now is what counts.
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

    /// Makes what can be seen durable before somebody acts on it; on a disk that cannot be written it is already.
    fn confirm(&self) -> Result<(), ClientError> {
        // What the original system left there was not written by us; waiting for it must not adopt it.
        if self.look(|view| Ok(view.has_originals() && view.journal_load().0 == 0))? {
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
