//! `completions`: a script for a shell.

use super::args::{Completions, command};
use super::error::CliError;
use super::terminal::Terminal;
use super::{Exit, Program};
use crate::report::{self, Document};

/// Runs the command.
pub fn run(terminal: &mut Terminal, args: &Completions) -> Result<Exit, CliError> {
    let name = match terminal.program {
        Program::WalCli => "wal-cli",
        Program::IpfsKit => "ipfs-kit",
    };
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(terminal.program), name, &mut script);
    let script = String::from_utf8_lossy(&script);
    if terminal.json {
        let result = report::Completions { shell: args.shell.to_string(), script: &script };
        terminal.document(&Document::done(result))?;
    } else {
        terminal.text(&script)?;
    }
    Ok(Exit::Done)
}
