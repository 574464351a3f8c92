//! Applies one action to several operations, for `cancel`, `hold`, `release`, `delete`,
//! `prioritize` and `retry`.

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::references::{self, Selection};
use crate::client::{Action, Changed, OnInvalid};
use crate::operation::{Operation, Status};
use crate::report::{Change, plural, write_result};

/// Notes on unchanged and on skipped operations, at most; JSON has all of them.
const NOTES_MAX: usize = 20;

/// Applies an action to the operations that the words name.
pub fn run(context: &mut Context<'_>, ids: &[String], action: &Action) -> Result<Exit, CliError> {
    if let Some(error) = context.damage()? {
        return Err(error);
    }
    let selection = references::parse(context, ids)?;
    apply(context, &selection, action)
}

/// Applies an action to operations, and prints their new state.
pub fn apply(
    context: &mut Context<'_>,
    selection: &Selection,
    action: &Action,
) -> Result<Exit, CliError> {
    let changed = context.client.change(
        &selection.references,
        action,
        if selection.named { OnInvalid::Abort } else { OnInvalid::Skip },
    )?;
    context.output.outcome(
        || Change::new(&changed),
        None,
        |output| {
            print_operations(output, action, &changed)?;
            print_notes(output, action, &changed);
            Ok(())
        },
    )
}

fn print_operations(
    output: &mut Output,
    action: &Action,
    changed: &Changed,
) -> Result<(), CliError> {
    for operation in &changed.operations {
        if *action == Action::Delete {
            output.line(&format!("{:>5}  deleted", operation.number))?;
        } else {
            output.write(|out, style| write_result(out, operation, style))?;
        }
    }
    for operation in &changed.redirected_to {
        output.write(|out, style| write_result(out, operation, style))?;
    }
    Ok(())
}

fn print_notes(output: &mut Output, action: &Action, changed: &Changed) {
    let Changed { operations, unchanged, skipped, .. } = changed;
    if *action == Action::Delete {
        note_removals(output, operations);
    }
    if operations.is_empty() && unchanged.is_empty() && skipped.is_empty() {
        output.note(&format!("no operations to be {}", action.past_participle()));
    }
    for operation in unchanged.iter().take(NOTES_MAX) {
        let number = operation.number;
        output.note(&format!("operation {number} is unchanged: {}", reason(action, operation)));
    }
    for skipped in skipped.iter().take(NOTES_MAX) {
        output.note(&format!("operation {} was skipped: {}", skipped.number, skipped.why));
    }
    let more = [unchanged.len(), skipped.len()].map(|n| n.saturating_sub(NOTES_MAX));
    let more = more.iter().sum::<usize>() as u64;
    if more > 0 {
        output.note(&format!(
            "{} more unchanged or skipped (--json lists all)",
            plural(more, "operation")
        ));
    }
    if matches!(action, Action::Cancel { .. }) {
        let running = operations.iter().filter(|operation| operation.claim().is_some()).count();
        if running > 0 {
            output.note(&format!(
                "{} still running; asked to stop",
                plural(running as u64, "operation")
            ));
        }
    }
}

/// Notes deleted operations whose effect no record explains any longer.
fn note_removals(output: &mut Output, deleted: &[Operation]) {
    let mut removals = deleted.iter().filter(|operation| is_completed_removal(operation));
    let Some(first) = removals.next() else { return };
    let more = match removals.count() {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    output.note(&format!(
        "operation {}{more} removed something on purpose; `wal-cli verify --remote` now reports \
         that as missing unless the operation that created it is deleted as well",
        first.number
    ));
}

/// Returns whether the log is the only record that something was removed on purpose.
fn is_completed_removal(operation: &Operation) -> bool {
    let removes = ["rm", "unpin", "move"].contains(&operation.operation_type.as_str());
    removes && operation.status() == Status::Completed
}

/// Returns why an action left an operation as it was.
fn reason(action: &Action, operation: &Operation) -> String {
    match action {
        Action::Hold => "it is already held".into(),
        Action::Release => "it is not held".into(),
        Action::Cancel { permanent: true } => "it is already marked as permanently failed".into(),
        Action::Cancel { .. } => "it was already asked to stop".into(),
        Action::Prioritize(priority) => format!("its priority is already {priority}"),
        Action::Delete | Action::Retry { .. } | Action::AcceptSource | Action::Redirect(_) => {
            format!("it stays {}", operation.status())
        }
    }
}
