//! `process`: the drain loop.

use std::io::Write;

use super::args::Process;
use super::context::Context;
use super::error::CliError;
use super::progress::Progress;
use super::signals::Interrupts;
use super::{Exit, wait};
use crate::client::{ClientError, HolderNote, ProcessReport};
use crate::operation::Operation;
use crate::report::{Document, ErrorType, Line, Settled, Skipped, Summary, write_result};
use crate::wal::WalError;
use crate::worker::ProcessOptions;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Process) -> Result<Exit, CliError> {
    context.check_backend(args.backend.as_ref())?;
    let mut options = ProcessOptions {
        follow: args.follow,
        backend: args.backend.clone(),
        jobs: args.jobs.map(usize::from),
        limit: args.limit,
        max_time: args.max_time,
        grace: args.grace,
        ..ProcessOptions::default()
    };
    // A loop may run for ever, but `add --wait` and the like are soon done.
    let running = context.client.processing_active()?;
    let is_loop = |note: &HolderNote| note.command.starts_with("process");
    if context.lock_timeout_given || running.as_ref().is_some_and(|note| !is_loop(note)) {
        options.lock_timeout = context.client.settings().lock_timeout;
    }
    let interrupts = Interrupts::listen()?;
    let mut first_failed = None;
    let mut lost = None;
    let result = {
        let terminal = &mut *context.terminal;
        let mut progress = Progress::new(terminal.quiet || terminal.json, |operation| {
            if operation.status() == crate::operation::Status::Failed && first_failed.is_none() {
                first_failed = Some(operation.clone());
            }
            // The work goes on when nobody reads of it any more.
            if lost.is_none() {
                let out = &mut terminal.out;
                let written = if terminal.json {
                    writeln!(out, "{}", Settled::new(operation).line())
                } else {
                    write_result(out, operation, &terminal.style)
                };
                lost = written.and_then(|()| out.flush()).err();
            }
        });
        let result = context.client.process(&options, &interrupts.stop, &mut progress);
        progress.end();
        result
    };
    if let Some(error) = lost {
        let error = CliError::from(error);
        if !error.is_silent() {
            return Err(error);
        }
    }
    match result {
        Ok(report) => end(context, &report, first_failed.as_ref(), &interrupts),
        Err(ClientError::Wal(WalError::Busy { path, .. }))
            if args.skip_if_running && path.ends_with("process.lock") =>
        {
            skipped(context)
        }
        Err(error) => Err(error.into()),
    }
}

fn end(
    context: &mut Context<'_>,
    report: &ProcessReport,
    first_failed: Option<&Operation>,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    let ProcessReport { completed, failed, retrying, cancelled, postponed, handed_back, recovered, .. } = *report;
    let error = match first_failed {
        _ if interrupts.by_keyboard() => {
            Some(CliError::new(ErrorType::Interrupted, "interrupted; what had not been sent was handed back"))
        }
        Some(first) if failed > 0 => {
            let all = completed + failed + retrying;
            Some(wait::failure(
                first,
                usize::try_from(failed).unwrap_or(usize::MAX),
                usize::try_from(all).unwrap_or(usize::MAX),
            ))
        }
        _ => None,
    };
    let terminal = &mut *context.terminal;
    if terminal.json {
        let shown = error.as_ref().map(|error| error.shown(terminal.program));
        terminal.document(&Document::with_error(Summary::new(report), shown))?;
    } else {
        let parts = [
            (completed, "completed"),
            (failed, "failed"),
            (retrying, "to be tried again"),
            (cancelled, "cancelled"),
            (postponed, "postponed: their backend is away"),
            (handed_back, "handed back"),
            (recovered, "recovered from a drain loop that had died"),
        ];
        let told: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let told = if told.is_empty() { "nothing was due".to_owned() } else { told.join(", ") };
        terminal.note(&told);
        if let Some(error) = &error {
            terminal.complain(error);
        }
    }
    Ok(error.map_or(Exit::Done, |error| error.exit))
}

fn skipped(context: &mut Context<'_>) -> Result<Exit, CliError> {
    let running = context.client.processing_active()?;
    let terminal = &mut *context.terminal;
    if terminal.json {
        terminal.document(&Document::done(Skipped::new(running.as_ref())))?;
    } else {
        let who = running.map_or_else(String::new, |note| format!(": `{}`, pid {}", note.command, note.pid));
        terminal.note(&format!("skipped: another drain loop is at work{who}"));
    }
    Ok(Exit::Done)
}
