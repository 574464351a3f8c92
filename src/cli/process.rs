//! `process`: the drain loop.

use std::collections::BTreeSet;
use std::io::Write;

use super::args::Process;
use super::context::Context;
use super::error::CliError;
use super::progress::Progress;
use super::signals::Interrupts;
use super::{Exit, references, wait};
use crate::client::{ClientError, HolderNote, ProcessReport, Reference};
use crate::operation::{Number, Operation, Status};
use crate::report::{
    Document, DryRun, ErrorType, Line, Settled, Skipped, Summary, operation_table, visible,
    write_plan, write_result,
};
use crate::wal::WalError;
use crate::worker::{Observer, ProcessOptions};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Process) -> Result<Exit, CliError> {
    context.check_backend(args.backend.as_ref())?;
    let only = named(context, &args.id)?;
    if args.dry_run {
        return dry_run(context, args, only.as_ref());
    }
    let mut options = ProcessOptions {
        follow: args.follow,
        backend: args.backend.clone(),
        jobs: args.jobs.map(usize::from),
        limit: args.limit,
        max_time: args.max_time,
        grace: args.grace,
        only: only.as_ref().map(|only| only.iter().copied().collect()),
        ..ProcessOptions::default()
    };
    // A loop may run for ever, but `add --wait` and the like are soon done.
    let running = context.client.processing_active()?;
    let is_loop = |note: &HolderNote| note.command.starts_with("process");
    if context.lock_timeout_given || running.as_ref().is_some_and(|note| !is_loop(note)) {
        options.lock_timeout = context.client.settings().lock_timeout;
    }
    let is_new = !context.client.exists()?;
    let interrupts = Interrupts::listen()?;
    let mut first_failed = None;
    let mut lost = None;
    let result = {
        let terminal = &mut *context.terminal;
        let mut progress = Progress::new(terminal.quiet || terminal.json, |operation| {
            let failed = operation.status() == Status::Failed && !operation.is_given_up();
            if failed && first_failed.is_none() {
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
        let result = {
            let observer: &mut dyn Observer = &mut progress;
            #[cfg(feature = "test-util")]
            let observer: &mut dyn Observer =
                &mut super::failpoints::Watched::new(observer, context.points.clone());
            context.client.process(&options, &interrupts.stop, observer)
        };
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
        Ok(report) => {
            let exit = end(context, &report, first_failed.as_ref(), &interrupts)?;
            if is_new && !context.client.exists()? {
                // Whoever has mistyped the folder would wait for ever.
                let base = context.client.settings().base_path.display().to_string();
                context.terminal.note(&format!("there is no log in `{base}` yet"));
            }
            tell_unfinished(context, only.as_ref())?;
            Ok(exit)
        }
        Err(ClientError::Wal(WalError::Busy { path, .. }))
            if args.skip_if_running && path.ends_with("process.lock") =>
        {
            skipped(context)
        }
        Err(error) => Err(error.into()),
    }
}

/// The operations named, with what they wait for; none if none was named.
fn named(context: &Context<'_>, ids: &[String]) -> Result<Option<BTreeSet<Number>>, CliError> {
    if ids.is_empty() {
        return Ok(None);
    }
    let selection = references::parse(context, ids)?;
    let operations = context.operations(&selection.references)?;
    Ok(Some(context.client.with_dependencies(operations.iter().map(|operation| operation.number))?))
}

/// Says of operations that were named why they are not done, for those that are not.
fn tell_unfinished(
    context: &mut Context<'_>,
    only: Option<&BTreeSet<Number>>,
) -> Result<(), CliError> {
    if context.terminal.json || context.terminal.quiet {
        return Ok(());
    }
    for number in only.into_iter().flatten() {
        let why = context.client.why(&Reference::Number(*number))?;
        let status = why.operation.status();
        if status != Status::Completed {
            let sentence = context.terminal.program.named(&why.sentence);
            let verb = if status == Status::Failed { "has" } else { "is" };
            context.terminal.note(&format!("operation {number} {verb} {status}: {sentence}"));
        }
    }
    Ok(())
}

/// How many operations `--dry-run` names unless `--limit` says otherwise.
const NAMED: usize = 20;

fn dry_run(
    context: &mut Context<'_>,
    args: &Process,
    only: Option<&BTreeSet<Number>>,
) -> Result<Exit, CliError> {
    let limit = args.limit.map_or(NAMED, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let plan = context.client.plan(args.backend.as_ref(), only, limit)?;
    let error = plan.damage.clone().map(|damage| CliError::from(WalError::Damaged(damage)));
    let terminal = &mut *context.terminal;
    if terminal.json {
        let shown = error.as_ref().map(|error| error.shown(terminal.program));
        terminal.document(&Document::with_error(DryRun::new(&plan), shown))?;
    } else {
        if !plan.operations.is_empty() {
            let table = operation_table(&plan.operations, &terminal.style, true);
            terminal.text(&table)?;
        }
        write_plan(&mut terminal.out, &plan)?;
        if let Some(error) = &error {
            terminal.complain(error);
        }
    }
    Ok(error.map_or(Exit::Done, |error| error.exit))
}

fn end(
    context: &mut Context<'_>,
    report: &ProcessReport,
    first_failed: Option<&Operation>,
    interrupts: &Interrupts,
) -> Result<Exit, CliError> {
    let ProcessReport {
        completed,
        failed,
        retrying,
        cancelled,
        postponed,
        handed_back,
        recovered,
        in_doubt,
        ref away,
        ..
    } = *report;
    let no_room = report
        .out_of_room
        .map(|free| context.client.wal().map(|wal| wal.no_room_for_outcomes(free)));
    let error = match first_failed {
        _ if interrupts.by_keyboard() => {
            let back = if handed_back > 0 { "; what was not done was handed back" } else { "" };
            Some(CliError::new(ErrorType::Interrupted, format!("interrupted{back}")))
        }
        _ if no_room.is_some() => no_room.transpose()?.map(CliError::from),
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
            (postponed, "postponed"),
            (handed_back, "handed back"),
            (recovered, "recovered from a drain loop that had died"),
            (in_doubt, "in doubt (`why` tells of each)"),
        ];
        let told: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let names: Vec<String> = away.iter().map(|backend| format!("`{backend}`")).collect();
        let verb = if names.len() == 1 { "is" } else { "are" };
        // Whoever was tried has said so above.
        let untried = told.is_empty();
        let told = match (told.is_empty(), names.is_empty()) {
            (true, true) => "nothing was due".to_owned(),
            (false, true) => told.join(", "),
            (true, false) => format!("nothing was sent: {} {verb} away", names.join(", ")),
            (false, false) => format!("{}; {} {verb} away", told.join(", "), names.join(", ")),
        };
        let late = if report.out_of_time { "; its time was up, and more is waiting" } else { "" };
        terminal.note(&format!("{told}{late}"));
        for health in context
            .client
            .known_health()
            .iter()
            .filter(|health| untried && away.contains(&health.backend))
        {
            if let Some(failure) = &health.failure {
                terminal.note(&format!("`{}`: {}", health.backend, visible(&failure.message)));
            }
        }
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
        let who = running
            .map_or_else(String::new, |note| format!(": `{}`, pid {}", note.command, note.pid));
        terminal.note(&format!("skipped: another drain loop is at work{who}"));
    }
    Ok(Exit::Done)
}
