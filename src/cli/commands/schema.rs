//! `schema`: prints the JSON Schema of a command's documents.

use clap::Args;

use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::report::{COMMANDS, Cell, ErrorType, OneSchema, SchemaDoc, Schemas, Table};
use crate::suggest::closest;

/// Print the JSON Schema of a command's output with --json
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wal-cli schema status\n  wal-cli schema config show")]
pub struct Schema {
    /// The command; without one, the commands that have a schema are listed
    command: Vec<String>,
}

impl Command for Schema {
    const NAME: &'static str = "schema";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        if self.command.is_empty() {
            return all(&mut session.output);
        }
        let name = self.command.join(" ").replace('-', " ");
        let found =
            COMMANDS.iter().find(|known| known.command == name).ok_or_else(|| unknown(&name))?;
        let schema = found.schema();
        let text = format!("{schema:#}\n");
        session.output.outcome(
            || OneSchema { command: found.command, schema },
            None,
            |output| output.text(&text),
        )
    }
}

fn all(output: &mut Output) -> Result<Exit, CliError> {
    let commands =
        COMMANDS.iter().map(|known| SchemaDoc { command: known.command, about: known.description });
    output.outcome(
        || Schemas { commands: commands.collect() },
        None,
        |output| {
            let mut table = Table::new(output.style);
            for known in COMMANDS {
                table.row(vec![Cell::plain(known.command), Cell::elastic(known.description)]);
            }
            output.text(&table.render())
        },
    )
}

fn unknown(name: &str) -> CliError {
    let error = CliError::new(ErrorType::Usage, format!("no command `{name}` has a schema"));
    let commands = || COMMANDS.iter().map(|known| known.command);
    // `config` alone means one of its subcommands.
    let similar = commands().find(|known| known.starts_with(name));
    let error = match similar.or_else(|| closest(name, commands())) {
        Some(similar) => error.hint(format!("did you mean `{similar}`?")),
        None => error,
    };
    error.hint("run `wal-cli schema` to list the commands that have one")
}
