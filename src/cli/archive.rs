//! `archive`: pushes archives of past days, and lists them.

use super::Exit;
use super::args::{Archive, ArchivePush};
use super::context::Context;
use super::error::CliError;
use super::wait;
use crate::client::{PushOptions, PushReport, Reference};
use crate::operation::Status;
use crate::report::{self, Document, archive_table, pushed_table};

/// Runs the command.
pub fn run(context: &mut Context<'_>, command: &Archive) -> Result<Exit, CliError> {
    match command {
        Archive::Push(args) => push(context, args),
        Archive::List => list(context),
    }
}

fn push(context: &mut Context<'_>, args: &ArchivePush) -> Result<Exit, CliError> {
    let options = PushOptions {
        destination: args.destination.clone(),
        backend: args.backend.clone(),
        host: args.host.clone(),
    };
    let push = context.client.push_to(&options)?;
    let report = context.client.push_archives(&push, args.dry_run)?;
    if !context.client.settings().archive_completed {
        let hint = "`wal-cli config set archive_completed true`";
        context.terminal.warn(
            "`archive_completed` is off: nothing that is completed gets into archives",
            Some(hint),
        );
    }
    if args.wait && !report.archives.is_empty() {
        let numbers = report.archives.iter().filter_map(|archive| archive.operation);
        let references: Vec<Reference> =
            numbers.map(|(number, _, _)| Reference::Number(number)).collect();
        return wait::carrying_out(context, &references, args.timeout);
    }
    let terminal = &mut *context.terminal;
    if terminal.json {
        terminal.document(&Document::done(report::ArchivePush::new(
            &report,
            &push,
            args.dry_run,
        )))?;
        return Ok(Exit::Done);
    }
    if report.logged() == 0 {
        let open = if report.open > 0 {
            format!(", {} of days that are not over", report.open)
        } else {
            String::new()
        };
        terminal.text(&format!(
            "no archive of a past day is left to push ({} pushed{open})\n",
            report.pushed
        ))?;
    }
    terminal.text(&pushed_table(&report, &terminal.style))?;
    tell_of_earlier(context, &report);
    Ok(Exit::Done)
}

/// Says of pushes that were logged before what keeps them.
fn tell_of_earlier(context: &mut Context<'_>, report: &PushReport) {
    let earlier = report
        .archives
        .iter()
        .filter(|archive| archive.existing)
        .filter_map(|archive| archive.operation);
    for (number, _, status) in earlier {
        let then = match status {
            Status::Failed => {
                format!("`wal-cli retry {number}` tries again, `wal-cli why {number}` says more")
            }
            _ => "`wal-cli process` carries it out".to_owned(),
        };
        context.terminal.note(&format!("operation {number}, logged before, is {status}: {then}"));
    }
}

fn list(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let archives = context.client.archives()?;
    let terminal = &mut *context.terminal;
    if terminal.json {
        terminal.document(&Document::done(report::ArchiveList::new(&archives)))?;
        return Ok(Exit::Done);
    }
    match archives.is_empty() {
        true => {
            terminal.note("no archives: completed operations get there when the journal is folded")
        }
        false => terminal.text(&archive_table(&archives, &terminal.style))?,
    }
    Ok(Exit::Done)
}
