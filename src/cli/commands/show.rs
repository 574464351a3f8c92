//! `show`: shows all details of operations.

use clap::Args;

use crate::cli::args::IdArgs;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::references;
use crate::client::Reference;
use crate::report::{OperationDoc, ShownMany, ShownOne, write_operation};

/// Show everything about operations
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wal-cli show 17 --history\n  wal-cli show @last")]
pub struct Show {
    #[command(flatten)]
    operations: IdArgs,
    /// Show every transition (JSON always has them)
    #[arg(long)]
    history: bool,
}

impl Command for Show {
    const NAME: &'static str = "show";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let words = &self.operations.id;
        let references = references::parse(context, words)?.references;
        let operations = context.operations(&references)?;
        let progress = operations
            .iter()
            .map(|operation| context.client.progress(operation))
            .collect::<Result<Vec<_>, _>>()?;
        let error = context.damage()?;
        let client = &context.client;
        let all = || operations.iter().zip(&progress);
        let text = |output: &mut Output| {
            for (at, (operation, progress)) in all().enumerate() {
                if at > 0 {
                    output.text("\n")?;
                }
                let known = |id| client.operation(&Reference::Id(id)).ok();
                output.write(|out, style| {
                    write_operation(out, operation, *progress, known, self.history, style)
                })?;
            }
            if operations.is_empty() {
                output.note("no operations");
            }
            Ok(())
        };
        let doc = |(operation, progress): (_, &Option<_>)| {
            OperationDoc::new(operation).with_progress(*progress)
        };
        let is_one = words.len() == 1 && !["@failed", "-"].contains(&words[0].as_str());
        match all().next() {
            Some(only) if is_one => {
                context.output.outcome(|| ShownOne { operation: doc(only) }, error.as_ref(), text)
            }
            _ => context.output.outcome(
                || ShownMany { operations: all().map(doc).collect() },
                error.as_ref(),
                text,
            ),
        }
    }
}
