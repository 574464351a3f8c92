//! `checkpoint`: folds the journal into Parquet files.

use super::Exit;
use super::context::Context;
use super::error::CliError;
use crate::client::CheckpointReport;
use crate::report::{Checkpoint, Document};

/// Runs the command.
pub fn run(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let report = context.client.checkpoint()?;
    let CheckpointReport {
        operations,
        files_written,
        files_removed,
        generations_removed,
        quarantined,
    } = &report;
    let terminal = &mut *context.terminal;
    if terminal.json {
        terminal.document(&Document::done(Checkpoint::new(&report)))?;
        return Ok(Exit::Done);
    }
    if *operations == 0 && *files_written == 0 {
        terminal.text("nothing to fold\n")?;
    } else {
        terminal.text(&format!(
            "operations folded    {operations}\nfiles written        {files_written}\n\
             files replaced       {files_removed}\njournals removed     {generations_removed}\n"
        ))?;
    }
    for path in quarantined {
        terminal.warn(
            &format!("`{path}` is named by no manifest and was set aside in quarantine/"),
            None,
        );
    }
    Ok(Exit::Done)
}
