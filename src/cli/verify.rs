//! `verify`: checks every byte of the log, repairs it, checks the disk under it, or asks the backends.

use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Exit;
use super::args::Verify;
use super::context::Context;
use super::durability::Again;
use super::error::CliError;
use super::signals::Interrupts;
use super::terminal::Terminal;
use crate::client::Verified;
use crate::report::{
    DurabilityDoc, ErrorType, Offset, RepairedDoc, VerifiedDoc, write_durability, write_findings,
    write_repaired, write_verified,
};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Verify) -> Result<Exit, CliError> {
    match &args.durability {
        Some(directory) => durability(context, directory.as_deref(), args.rounds),
        None if args.remote => super::audit::run(context, args),
        None if args.repair => repair(context),
        None => check(context),
    }
}

fn repair(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let repaired = context.client.repair()?;
    let error = (!repaired.is_whole()).then(|| {
        let message = match repaired.lost.iter().count() {
            0 => "the log is repaired, but not everything in it could be saved".to_owned(),
            1 => "the log is repaired, but nothing is known any more of 1 operation".to_owned(),
            n => format!("the log is repaired, but nothing is known any more of {n} operations"),
        };
        let error =
            CliError::new(ErrorType::Lost, message).hint(match repaired.set_aside.is_empty() {
                true => "a backup may have more",
                false => "what could not be read is kept in `quarantine/`; a backup may have more",
            });
        if repaired.held.iter().next().is_none() {
            return error;
        }
        error.hint("`wal-cli list --held` shows what waits to be released or deleted")
    });
    context.terminal.outcome(RepairedDoc::new(&repaired), error.as_ref(), |terminal| {
        terminal.text(&write_repaired(&repaired, &terminal.style))
    })
}

fn durability(
    context: &mut Context<'_>,
    directory: Option<&Path>,
    rounds: u32,
) -> Result<Exit, CliError> {
    let again = Again { program: context.terminal.program };
    // Whoever interrupts it finds neither its folder nor its processes.
    let interrupts = Interrupts::listen()?;
    let tried = context.client.durability(directory, rounds, &again, &interrupts.stop)?;
    let first = tried.tried.iter().find(|tried| !tried.safe);
    let error = first.map(|tried| {
        CliError::new(
            ErrorType::UnsafeDisk,
            format!("the disk is not safe for a log: {}", tried.what),
        )
        .hint("keep the log on a local disk: name a folder there with `--base-path`")
    });
    context.terminal.outcome(DurabilityDoc::new(&tried), error.as_ref(), |terminal| {
        terminal.text(&write_durability(&tried, &terminal.style))
    })
}

fn check(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let bar = bar(context.terminal);
    let found = context.client.verify(&|done, total| draw(&bar, done, total));
    bar.finish_and_clear();
    let found = found?;
    let error = damaged(&found);
    context.terminal.outcome(VerifiedDoc::new(&found), error.as_ref(), |terminal| {
        let mut text = write_findings(found.findings.iter(), true, &terminal.style);
        text.push_str(&write_verified(&found, &terminal.style));
        let text = terminal.program.named(&text);
        terminal.text(&text)
    })
}

/// What is wrong, as the error that the command ends with.
fn damaged(found: &Verified) -> Option<CliError> {
    let first = found.damages().next()?;
    let error = CliError::new(
        ErrorType::Damaged,
        format!("the log is damaged: `{}`: {}", first.path, first.what),
    );
    Some(
        error
            .with(|facts| facts.path = Some(first.path.clone()))
            .with(|facts| facts.offset = Some(Offset(first.offset)))
            .hint("nothing was changed; keep a copy of the folder as it is")
            .hint("`wal-cli verify --repair` saves all that can be read; a backup may have more"),
    )
}

fn bar(terminal: &Terminal) -> ProgressBar {
    if terminal.quiet || terminal.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is sound; without one a bar looks plain, which does no harm.
    let style =
        ProgressStyle::with_template("checking [{bar:30}] {bytes:>10}/{total_bytes:<10} {eta:>3}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}

fn draw(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}
