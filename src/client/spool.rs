//! Copying content into the log before its operation is logged.

use std::path::Path;

use super::Client;
use super::error::{BadInput, ClientError};
use super::submit::unreadable;
use crate::config::SpoolMode;
use crate::operation::Logged;
use crate::wal::{Admitted, NotTaken, Stage, Staged, Wal, WalError};

/// An operation as it was logged, and what whoever logged it should know.
type LoggedOne = (Logged, Admitted, Option<String>);

impl Client {
    /// Copies what is to be copied, and logs the operations: all, or none.
    pub(super) fn log_spooled(
        &self,
        wal: &Wal,
        batch: &[Logged],
        mode: SpoolMode,
    ) -> Result<Vec<LoggedOne>, ClientError> {
        // It must outlive the logging: what is staged goes with it.
        let mut stage = None;
        let mut bad = Vec::new();
        let mut notes = Vec::with_capacity(batch.len());
        let mut operations = Vec::with_capacity(batch.len());
        for logged in batch {
            let mut logged = logged.clone();
            let (staged, note) = match self.take_content(wal, &mut stage, &mut logged, mode)? {
                Taken::Copied(staged) => (Some(staged), None),
                Taken::Referred(note) => (None, note),
                Taken::Bad(input) => {
                    bad.push(input);
                    continue;
                }
            };
            notes.push(note);
            operations.push((logged, staged));
        }
        if !bad.is_empty() {
            return Err(ClientError::BadInputs { bad, total: batch.len() });
        }
        let logged: Vec<Logged> = operations.iter().map(|(logged, _)| logged.clone()).collect();
        let admitted = match operations.iter().any(|(_, staged)| staged.is_some()) {
            true => wal.append_staged(operations)?,
            false => wal.append_new(logged.clone())?,
        };
        Ok(logged
            .into_iter()
            .zip(admitted)
            .zip(notes)
            .map(|((logged, admitted), note)| (logged, admitted, note))
            .collect())
    }

    fn take_content<'a>(
        &self,
        wal: &'a Wal,
        stage: &mut Option<Stage<'a>>,
        logged: &mut Logged,
        mode: SpoolMode,
    ) -> Result<Taken, ClientError> {
        // Directories have no source.
        let (Some(path), Some(_)) = (logged.parameters.get("path").cloned(), &logged.source) else {
            return Ok(Taken::Referred(None));
        };
        let max = self.settings.spool_max_bytes;
        let copy_max = match mode {
            SpoolMode::Never => return Ok(Taken::Referred(None)),
            SpoolMode::Auto => max,
            SpoolMode::Always => u64::MAX,
        };
        let stage = match stage {
            Some(stage) => stage,
            none => none.insert(wal.stage_content()?),
        };
        match stage.take(Path::new(&path), copy_max, max) {
            Ok((source, staged)) => {
                logged.source = Some(source);
                Ok(Taken::Copied(staged))
            }
            Err(NotTaken::TooLarge) => Ok(Taken::Referred(None)),
            Err(NotTaken::Log(WalError::NoRoom { .. })) if mode == SpoolMode::Auto => {
                let note = format!(
                    "`{path}` was not copied, since the disk of the log has too little room: it will be read when it \
                     is sent, so keep it as it is until then"
                );
                Ok(Taken::Referred(Some(note)))
            }
            Err(NotTaken::Log(error)) => Err(error.into()),
            Err(NotTaken::Source(error)) => Ok(Taken::Bad(unreadable(&path, error))),
            Err(NotTaken::Changed) => {
                let message = "it is being written to, so it could not be copied; add it again when it is complete";
                Ok(Taken::Bad(BadInput { input: path, error_type: "source_changed", message: message.into() }))
            }
        }
    }
}

enum Taken {
    Copied(Staged),
    Referred(Option<String>),
    Bad(BadInput),
}
