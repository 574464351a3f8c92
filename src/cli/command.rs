//! The parts of a command. Each command is a file in [`commands`](super::commands) with a type that
//! implements [`Command`], and a line in [`ALL`](super::commands::ALL).

use clap::ArgMatches;

use super::context::Session;
use super::error::CliError;
use super::exit::Exit;

/// A command: its arguments with their help, its name, and its body.
///
/// The doc comment of the type is the help of the command. A body that needs the settings calls
/// [`Session::open`]; any other also works while the settings are invalid.
pub trait Command: clap::Args {
    /// The word on the command line.
    const NAME: &'static str;

    /// Runs the command, and returns its exit code.
    fn run(self, session: &mut Session) -> Result<Exit, CliError>;
}

/// A command with its arguments parsed, ready to run.
pub type Parsed = Box<dyn FnOnce(&mut Session) -> Result<Exit, CliError>>;

/// A command as an entry of the command line.
#[derive(Debug)]
pub struct Entry {
    /// The word on the command line.
    pub name: &'static str,
    /// Returns the definition for clap.
    pub define: fn() -> clap::Command,
    /// Reads the arguments.
    pub parse: fn(&ArgMatches) -> Result<Parsed, clap::Error>,
}

impl Entry {
    /// Returns the entry of a command.
    pub const fn of<C: Command + 'static>() -> Entry {
        Entry {
            name: C::NAME,
            define: || C::augment_args(clap::Command::new(C::NAME)),
            parse: |matches| {
                let command = C::from_arg_matches(matches)?;
                Ok(Box::new(move |session| command.run(session)))
            },
        }
    }
}
