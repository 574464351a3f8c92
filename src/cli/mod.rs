//! The command line: the only module that knows clap, the terminal and exit codes.
//!
//! Each command is one file in `commands`, with its arguments, help and body. All output
//! goes through `output::Output`.

mod action;
mod args;
mod command;
mod commands;
mod condition;
mod context;
mod error;
mod exit;
#[cfg(feature = "test-util")]
mod failpoints;
mod inputs;
mod invocation;
mod logged;
mod output;
mod progress;
mod receipts;
mod references;
mod signals;
mod waiting;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, FromArgMatches};

use args::{Global, STYLES};
use command::Parsed;
use context::Session;
use invocation::{Invocation, Program};
use output::Output;

/// Runs the program with these arguments, the first of which is its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let program = Program::of(args.first());
    let (global, command) = match parse(program, &args) {
        Ok(parsed) => parsed,
        Err(error) => return output::print_usage_error(program, &args, &error).into(),
    };
    let output = Output::new(Invocation::new(program, &global), &global);
    let mut session = Session { output, global, definition };
    let result = command(&mut session);
    session.output.end(result).into()
}

/// Parses arguments, the first of which is the program's name. On failure returns the usage error
/// that the program would print.
#[cfg(feature = "test-util")]
pub fn understands(args: &[OsString]) -> Result<(), String> {
    match parse(Program::of(args.first()), args) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn parse(program: Program, args: &[OsString]) -> Result<(Global, Parsed), clap::Error> {
    let mut definition = definition(program).color(output::clap_color(args));
    let mut matches = definition.try_get_matches_from_mut(args)?;
    if program == Program::IpfsKit
        && let Some((_, inner)) = matches.remove_subcommand()
    {
        matches = inner;
    }
    let unknown = || clap::Error::new(clap::error::ErrorKind::InvalidSubcommand);
    let (name, arguments) = matches.subcommand().ok_or_else(unknown)?;
    let entry = commands::ALL.iter().find(|entry| entry.name == name).ok_or_else(unknown)?;
    let parsed = (entry.parse)(arguments).map_err(|error| error.format(&mut definition))?;
    Ok((Global::from_arg_matches(arguments)?, parsed))
}

/// Returns the command line that the program accepts under this name.
fn definition(program: Program) -> clap::Command {
    let root = |name| {
        clap::Command::new(name)
            .version(env!("CARGO_PKG_VERSION"))
            .styles(STYLES)
            .max_term_width(100)
            .subcommand_required(true)
            .arg_required_else_help(true)
            .disable_help_subcommand(true)
    };
    let wal = |name| {
        Global::augment_args(root(name))
            .about("A durable outbox: logs storage operations, and executes them when backends can")
            .after_help(exit::help_table())
            .subcommands(commands::ALL.iter().map(|entry| (entry.define)()))
    };
    match program {
        Program::WalCli => wal("wal-cli"),
        Program::IpfsKit => root("ipfs-kit")
            .about("Tools for IPFS; here: the durable outbox")
            .subcommand(renamed(wal("wal"))),
    }
}

/// Replaces the program's name in the examples of a command.
fn renamed(mut command: clap::Command) -> clap::Command {
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(text.replace("wal-cli", Program::IpfsKit.name()));
    }
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, renamed))
}

#[cfg(test)]
mod tests;
