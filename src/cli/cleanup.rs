//! `cleanup`: drops completed operations that are old enough.

use super::Exit;
use super::args::Cleanup;
use super::context::Context;
use super::error::CliError;
use crate::client::ClientError;
use crate::report::{self, Cell, Document, Table, bytes, plural};
use crate::wal::WalError;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Cleanup) -> Result<Exit, CliError> {
    let pushes = if args.dry_run { 0 } else { push(context)? };
    let plan = context.client.cleanup(args.age, args.failed, args.dry_run)?;
    let leftovers = context.client.remove_leftovers(args.dry_run)?;
    let days = args.age.unwrap_or_else(|| u64::from(context.client.settings().max_age_days));
    let terminal = &mut *context.terminal;
    for (number, backend, why) in &leftovers.kept {
        terminal.warn(
            &format!(
                "an unfinished upload of operation {number} stays at `{backend}` for now: {why}"
            ),
            None,
        );
    }
    let archived: u64 = plan.archives.iter().map(|(_, operations, _)| operations).sum();
    if terminal.json {
        terminal.document(&Document::done(report::Cleanup::new(
            &plan,
            &leftovers,
            args.dry_run,
            days,
            pushes,
        )))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(terminal.style);
    for (name, operations, size) in &plan.archives {
        table.row(vec![
            Cell::plain(name),
            Cell::right(plural(*operations, "operation")),
            Cell::right(bytes(*size)),
        ]);
    }
    if !table.is_empty() {
        terminal.text(&table.render())?;
    }
    let total = plan.operations + archived;
    let verb = if args.dry_run { "would go" } else { "dropped" };
    if total + plan.failed + plan.kept + plan.unpushed == 0 {
        let what = if args.failed { "completed or failed" } else { "completed" };
        // Days count whole, in UTC: what ended today stays whatever the age.
        let days = i64::try_from(days).unwrap_or(i64::MAX);
        let day = terminal.style.now.plus_millis(days.saturating_mul(-86_400_000)).to_string();
        let day = day.split('T').next().unwrap_or_default();
        terminal.text(&format!("no {what} operation ended before {day} (UTC)\n"))?;
    }
    let joined = if args.dry_run { "would be joined" } else { "joined" };
    let aborted = if args.dry_run { "would be aborted" } else { "aborted" };
    let (stay, wait) = if plan.kept == 1 { ("stays", "it") } else { ("stay", "them") };
    let pushed = if plan.unpushed == 1 { "stays until its" } else { "stay until their" };
    let are = if pushes == 1 { "is" } else { "are" };
    let parts = [
        (total, "completed operation", verb.to_owned()),
        (plan.failed, "failed operation", verb.to_owned()),
        (
            plan.kept,
            "operation",
            format!("of that age {stay}: others wait for {wait}, or for what shares the archive"),
        ),
        (plan.unpushed, "operation", format!("of that age {pushed} archive is pushed")),
        (pushes, "archive", format!("{are} to be pushed; `wal-cli process` carries that out")),
        (plan.joined, "small archive", format!("{joined} with others of the same day")),
        (
            leftovers.removed.len() as u64,
            "operation",
            format!("had left unfinished uploads behind: {aborted}"),
        ),
    ];
    for (n, what, then) in parts.into_iter().filter(|(n, ..)| *n > 0) {
        terminal.text(&format!("{} {then}\n", plural(n, what)))?;
    }
    Ok(Exit::Done)
}

/// Pushes archives first, if the settings say where to. What stands in its way must not keep a full disk from being
/// cleaned: the archives stay, and all else goes.
fn push(context: &mut Context<'_>) -> Result<u64, CliError> {
    match context.client.push_before_cleanup() {
        Ok(report) => Ok(report.map_or(0, |report| report.logged())),
        Err(
            error @ ClientError::Wal(
                WalError::Damaged(_) | WalError::NewerFormat { .. } | WalError::Busy { .. },
            ),
        ) => Err(error.into()),
        Err(error) => {
            context.terminal.warn(&format!("no archive was pushed: {error}"), None);
            Ok(0)
        }
    }
}
