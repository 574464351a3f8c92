//! Copying content into the log before its operation is logged.

use std::path::Path;

use super::Client;
use super::error::{BadInput, ClientError};
use super::submit::unreadable;
use crate::config::SpoolMode;
use crate::operation::Logged;
use crate::wal::{NotTaken, Stage, Staged, WalError};

impl Client {
    /// Copies the file that an operation refers to, as `mode` says.
    pub(super) fn take_content<'a>(
        &'a self,
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
            none => none.insert(self.wal()?.stage_content()?),
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
                Ok(Taken::Bad(BadInput {
                    line: None,
                    input: path,
                    error_type: "source_changed",
                    message: message.into(),
                }))
            }
        }
    }
}

/// What became of an operation's file.
pub(super) enum Taken {
    /// It was copied.
    Copied(Staged),
    /// It is read when it is sent; perhaps the caller should know why.
    Referred(Option<String>),
    /// It cannot be used.
    Bad(BadInput),
}
