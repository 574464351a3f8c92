use std::time::Duration;

use super::error::ClientError;
use super::{Client, Reference};
use crate::operation::Operation;
use crate::wal::WalError;
use crate::worker::{Observer, ProcessOptions, Stop};

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
            let only = client.with_dependencies(unfinished.iter().map(|operation| operation.number))?;
            let max_time = timeout.map(|timeout| timeout.saturating_sub(client.clock.elapsed().saturating_sub(start)));
            // Following until they have ended: what waits for its backend waits here, as it would in any loop.
            let options = ProcessOptions {
                only: Some(only),
                follow: true,
                max_time,
                lock_timeout: Duration::ZERO,
                grace: Duration::from_secs(1),
                ..Default::default()
            };
            match client.process(&options, stop, observer) {
                // Somebody else carries them out.
                Err(ClientError::Wal(WalError::Busy { .. })) => Ok(()),
                other => other.map(drop),
            }
        })
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
            let unfinished: Vec<Operation> =
                operations.iter().filter(|operation| !operation.status().is_terminal()).cloned().collect();
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
