//! The command line: the only part that knows clap, the terminal and exit codes. A file per command.

mod add;
mod archive;
mod args;
mod audit;
mod bench;
mod checkpoint;
mod cleanup;
mod completions;
mod condition;
mod config;
mod context;
mod durability;
mod error;
mod exit;
#[cfg(feature = "test-util")]
mod failpoints;
mod failures;
mod health;
mod inputs;
mod list;
mod process;
mod progress;
mod references;
mod retry;
mod schema;
mod show;
mod signals;
mod status;
mod submit;
mod terminal;
mod verbs;
mod verify;
mod wait;
mod why;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::FromArgMatches;

use args::{Archive, Cli, Command, Config};
use context::Context;
use error::CliError;
pub use exit::Exit;
use terminal::Terminal;

use crate::client::Verb;

pub use args::command;

/// The name under which the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `wal-cli …`
    WalCli,
    /// `ipfs-kit wal …`
    IpfsKit,
}

impl Program {
    fn of(name: Option<&OsString>) -> Program {
        match name.and_then(|name| Path::new(name).file_name()) {
            Some(name) if name == OsStr::new("ipfs-kit") => Program::IpfsKit,
            _ => Program::WalCli,
        }
    }

    /// A text that names the program `wal-cli`, with the name under which it was called.
    fn named(self, text: &str) -> String {
        match self {
            Program::WalCli => text.to_owned(),
            Program::IpfsKit => text.replace("wal-cli", "ipfs-kit wal"),
        }
    }
}

/// Runs the program with these arguments, the first being its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let program = Program::of(args.first());
    let cli = match parse(program, &args) {
        Ok(cli) => cli,
        Err(error) => return terminal::refuse(program, &args, &error).into(),
    };
    let mut terminal = Terminal::new(program, &cli.global);
    let result = dispatch(&mut terminal, &cli);
    terminal.end(result).into()
}

fn parse(program: Program, args: &[OsString]) -> Result<Cli, clap::Error> {
    let color = terminal::clap_color(args);
    let mut matches = command(program).color(color).try_get_matches_from(args)?;
    if program == Program::IpfsKit
        && let Some((_, inner)) = matches.remove_subcommand()
    {
        matches = inner;
    }
    Cli::from_arg_matches(&matches)
}

/// Whether the program understands these arguments, the first being its name; if not, what it says.
pub fn understands(args: &[OsString]) -> Result<(), String> {
    parse(Program::of(args.first()), args).map(drop).map_err(|error| error.to_string())
}

fn dispatch(terminal: &mut Terminal, cli: &Cli) -> Result<Exit, CliError> {
    let global = &cli.global;
    // These must work when the settings are broken.
    match &cli.command {
        Command::Completions(args) => return completions::run(terminal, args),
        Command::Schema(args) => return schema::run(terminal, args),
        Command::Config(Config::Path) => return config::path(terminal, global),
        Command::Config(Config::Check) => return config::check(terminal, global),
        Command::Config(Config::Set { key, value }) => {
            return config::set(terminal, global, key, value);
        }
        _ => {}
    }
    let context = &mut Context::load(terminal, global, &name_of(&cli.command))?;
    match &cli.command {
        Command::Add(args) => add::run(context, args),
        Command::Submit(args) => submit::run(context, args),
        Command::Status(args) => status::run(context, args),
        Command::List(args) => list::run(context, args),
        Command::Show(args) => show::run(context, args),
        Command::Wait(args) => wait::run(context, args),
        Command::Why(args) => why::run(context, args),
        Command::Failures(args) => failures::run(context, args),
        Command::Retry(args) => retry::run(context, args),
        Command::Cancel(args) => {
            verbs::run(context, &args.id, &Verb::Cancel { permanent: args.permanent })
        }
        Command::Hold(args) => verbs::run(context, &args.id, &Verb::Hold),
        Command::Release(args) => verbs::run(context, &args.id, &Verb::Release),
        Command::Delete(args) => verbs::run(context, &args.id, &Verb::Delete),
        Command::Prioritize(args) => {
            verbs::run(context, &args.id, &Verb::Prioritize(args.priority))
        }
        Command::Process(args) => process::run(context, args),
        Command::Archive(command) => archive::run(context, command),
        Command::Cleanup(args) => cleanup::run(context, args),
        Command::Checkpoint => checkpoint::run(context),
        Command::Verify(args) => verify::run(context, args),
        Command::SecondProcess(args) => durability::run(context, args),
        Command::Health(args) => health::run(context, args),
        Command::Bench(command) => bench::run(context, command),
        Command::Config(Config::Show) => config::show(context),
        Command::Config(Config::Get { key }) => config::get(context, key),
        Command::Config(Config::Path | Config::Check | Config::Set { .. })
        | Command::Completions(_)
        | Command::Schema(_) => Ok(Exit::Done),
    }
}

/// The command as it stands in histories and in notes of locks.
fn name_of(command: &Command) -> Cow<'static, str> {
    Cow::Borrowed(match command {
        Command::Add(_) => "add",
        Command::Submit(_) => "submit",
        Command::Status(_) => "status",
        Command::List(_) => "list",
        Command::Show(_) => "show",
        Command::Wait(_) => "wait",
        Command::Why(_) => "why",
        Command::Failures(_) => "failures",
        Command::Retry(_) => "retry",
        Command::Cancel(_) => "cancel",
        Command::Hold(_) => "hold",
        Command::Release(_) => "release",
        Command::Delete(_) => "delete",
        Command::Prioritize(_) => "prioritize",
        Command::Process(args) => {
            let follow = if args.follow { " --follow" } else { "" };
            let backend =
                args.backend.as_ref().map_or_else(String::new, |name| format!(" --backend {name}"));
            return format!("process{follow}{backend}").into();
        }
        Command::Archive(Archive::Push(_)) => "archive push",
        Command::Archive(Archive::List) => "archive list",
        Command::Cleanup(_) => "cleanup",
        Command::Checkpoint => "checkpoint",
        Command::Verify(_) | Command::SecondProcess(_) => "verify",
        Command::Health(_) => "health",
        Command::Bench(_) => "bench",
        Command::Config(_) => "config",
        Command::Completions(_) => "completions",
        Command::Schema(_) => "schema",
    })
}
