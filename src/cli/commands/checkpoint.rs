//! `checkpoint`: folds the journal into Parquet files.

use clap::Args;

use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::CheckpointReport;
use crate::report;

/// Fold the journal into Parquet files now
#[derive(Debug, Args)]
pub struct Checkpoint {}

impl Command for Checkpoint {
    const NAME: &'static str = "checkpoint";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let report = context.client.checkpoint()?;
        context.output.outcome(
            || report::Checkpoint::new(&report),
            None,
            |output| {
                output.text(&text(&report))?;
                for path in &report.quarantined {
                    output.warn(
                        &format!("moved `{path}` to quarantine/: no manifest names it"),
                        None,
                    );
                }
                Ok(())
            },
        )
    }
}

fn text(report: &CheckpointReport) -> String {
    let CheckpointReport { operations, files_written, files_removed, generations_removed, .. } =
        report;
    if *operations == 0 && *files_written == 0 {
        return "nothing to fold\n".into();
    }
    format!(
        "operations folded    {operations}\nfiles written        {files_written}\n\
         files replaced       {files_removed}\njournals removed     {generations_removed}\n"
    )
}
