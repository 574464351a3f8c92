//! `cleanup`: drops completed operations that are old enough.

use super::Exit;
use super::args::Cleanup;
use super::context::Context;
use super::error::CliError;
use crate::report::{self, Cell, Document, Table, bytes};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Cleanup) -> Result<Exit, CliError> {
    let plan = context.client.cleanup(args.age, args.dry_run)?;
    let days = args.age.unwrap_or_else(|| u64::from(context.client.settings().max_age_days));
    let terminal = &mut *context.terminal;
    let archived: u64 = plan.archives.iter().map(|(_, operations, _)| operations).sum();
    if terminal.json {
        terminal.document(&Document::done(report::Cleanup::new(&plan, args.dry_run, days)))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(terminal.style);
    for (name, operations, size) in &plan.archives {
        table.row(vec![Cell::plain(name), Cell::right(format!("{operations} operations")), Cell::right(bytes(*size))]);
    }
    if !table.is_empty() {
        terminal.text(&table.render())?;
    }
    let total = plan.operations + archived;
    let verb = if args.dry_run { "would go" } else { "dropped" };
    if total == 0 {
        terminal.text(&format!("no completed operation is {days} days old\n"))?;
    } else {
        terminal.text(&format!("{total} completed operations {verb}\n"))?;
    }
    Ok(Exit::Done)
}
