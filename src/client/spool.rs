//! Copying content into the log before its operation is logged.

use std::path::Path;

use super::Client;
use super::error::ClientError;
use super::inputs::{BadInput, unreadable};
use crate::config::SpoolMode;
use crate::operation::Logged;
use crate::wal::{NotTaken, Stage, Staged, WalError};

/// The place from which the content of an operation is read.
pub(super) enum SpoolOutcome {
    /// Copied into the log.
    Copied(Staged),
    /// Read when it is sent; with a note for the caller if copying failed.
    Referred(Option<String>),
    /// The file cannot be used.
    Bad(BadInput),
}

/// Copies the file that an operation refers to into the log, if `mode` requires it.
pub(super) fn spool_content<'c>(
    client: &'c Client,
    stage: &mut Option<Stage<'c>>,
    logged: &mut Logged,
    mode: SpoolMode,
) -> Result<SpoolOutcome, ClientError> {
    // Directories have no source.
    let (Some(path), Some(_)) = (logged.parameters.get("path").cloned(), &logged.source) else {
        return Ok(SpoolOutcome::Referred(None));
    };
    let max = client.settings.spool_max_bytes;
    let copy_max = match mode {
        SpoolMode::Never => return Ok(SpoolOutcome::Referred(None)),
        SpoolMode::Auto => max,
        SpoolMode::Always => u64::MAX,
    };
    let stage = match stage {
        Some(stage) => stage,
        none => none.insert(client.wal()?.stage_content()?),
    };
    match stage.take(Path::new(&path), copy_max, max) {
        Ok((source, staged)) => {
            logged.source = Some(source);
            Ok(SpoolOutcome::Copied(staged))
        }
        Err(NotTaken::TooLarge) => Ok(SpoolOutcome::Referred(None)),
        Err(NotTaken::Log(WalError::NoRoom { .. })) if mode == SpoolMode::Auto => {
            let note = format!(
                "`{path}` was not copied: the disk of the log has too little room; it is read \
                     when it is sent, so keep it unchanged until then"
            );
            Ok(SpoolOutcome::Referred(Some(note)))
        }
        Err(NotTaken::Log(error)) => Err(error.into()),
        Err(NotTaken::Source(error)) => Ok(SpoolOutcome::Bad(unreadable(&path, error))),
        Err(NotTaken::Changed) => {
            let message = "being written to, so it could not be copied; add it again when it \
                               is complete";
            Ok(SpoolOutcome::Bad(BadInput::new(path, "source_changed", message)))
        }
    }
}
