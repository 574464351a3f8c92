//! `completions`: a script for a shell.

use super::args::{Completions, command};
use super::error::CliError;
use super::terminal::Terminal;
use super::{Exit, Program};
use crate::report::Document;

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
        let document = Document::new(true).with("shell", &args.shell.to_string()).with("script", &script);
        terminal.document(document)?;
    } else {
        terminal.text(&script)?;
    }
    Ok(Exit::Done)
}
