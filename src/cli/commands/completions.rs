//! `completions`: prints a completion script for a shell.

use clap::Args;
use clap_complete::Shell;

use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::invocation::Program;
use crate::report;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  wal-cli completions fish > ~/.config/fish/completions/wal-cli.fish"
)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Command for Completions {
    const NAME: &'static str = "completions";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let program = session.output.invocation.program;
        let name = match program {
            Program::WalCli => "wal-cli",
            Program::IpfsKit => "ipfs-kit",
        };
        let mut script = Vec::new();
        let mut definition = (session.definition)(program);
        clap_complete::generate(self.shell, &mut definition, name, &mut script);
        let script = String::from_utf8_lossy(&script);
        session.output.outcome(
            || report::Completions { shell: self.shell.to_string(), script: &script },
            None,
            |output| output.text(&script),
        )
    }
}
