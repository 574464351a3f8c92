//! `schema`: what the JSON documents of a command look like.

use super::Exit;
use super::args::SchemaArgs;
use super::error::CliError;
use super::terminal::Terminal;
use crate::report::{
    COMMANDS, Cell, CommandSchema, Document, ErrorType, OneSchema, SchemaDoc, Schemas, Table,
};

/// Runs the command.
pub fn run(terminal: &mut Terminal, args: &SchemaArgs) -> Result<Exit, CliError> {
    if args.command.is_empty() {
        return all(terminal);
    }
    let name = args.command.join(" ").replace('-', " ");
    let found =
        COMMANDS.iter().find(|known| known.command == name).ok_or_else(|| unknown(&name))?;
    let schema = found.schema();
    if terminal.json {
        terminal.document(&Document::done(OneSchema { command: found.command, schema }))?;
    } else {
        terminal.text(&format!("{schema:#}\n"))?;
    }
    Ok(Exit::Done)
}

fn all(terminal: &mut Terminal) -> Result<Exit, CliError> {
    if terminal.json {
        let commands = COMMANDS
            .iter()
            .map(|known| SchemaDoc { command: known.command, about: known.about })
            .collect();
        terminal.document(&Document::done(Schemas { commands }))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(terminal.style);
    for known in COMMANDS {
        table.row(vec![Cell::plain(known.command), Cell::elastic(known.about)]);
    }
    terminal.text(&table.render())?;
    Ok(Exit::Done)
}

fn unknown(name: &str) -> CliError {
    let error = CliError::new(ErrorType::Usage, format!("no command `{name}` has a schema"));
    let distance = |known: &CommandSchema| {
        // `config` alone means one of its commands.
        if known.command.starts_with(name) {
            0
        } else {
            strsim::damerau_levenshtein(known.command, name)
        }
    };
    let error = match COMMANDS
        .iter()
        .min_by_key(|known| distance(known))
        .filter(|known| distance(known) <= 2)
    {
        Some(known) => error.hint(format!("did you mean `{}`?", known.command)),
        None => error,
    };
    error.hint("`wal-cli schema` lists the commands that have one")
}
