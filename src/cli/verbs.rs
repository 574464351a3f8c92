//! `cancel`, `hold`, `release`, `delete`, `prioritize`: one change, asked for several operations.

use super::Exit;
use super::context::Context;
use super::error::CliError;
use super::references::{self, Selection};
use crate::client::{Changed, Verb};
use crate::operation::{Operation, Status};
use crate::report::{Change, Document, write_result};

/// Runs one of them.
pub fn run(context: &mut Context<'_>, ids: &[String], verb: &Verb) -> Result<Exit, CliError> {
    if let Some(error) = context.damage()? {
        return Err(error);
    }
    let selection = references::parse(context, ids)?;
    apply(context, &selection, verb)
}

/// Does it, and tells what came of it.
pub fn apply(
    context: &mut Context<'_>,
    selection: &Selection,
    verb: &Verb,
) -> Result<Exit, CliError> {
    let changed = context.client.change(&selection.references, verb, selection.named)?;
    tell(context, verb, &changed)?;
    Ok(Exit::Done)
}

fn tell(context: &mut Context<'_>, verb: &Verb, changed: &Changed) -> Result<(), CliError> {
    let terminal = &mut *context.terminal;
    if terminal.json {
        return terminal.document(&Document::done(Change::new(changed)));
    }
    for operation in &changed.operations {
        if *verb == Verb::Delete {
            terminal.line(&format!("{:>5}  deleted", operation.number))?;
        } else {
            write_result(&mut terminal.out, operation, &terminal.style)?;
        }
    }
    let took =
        changed.operations.iter().filter(|operation| *verb == Verb::Delete && took_away(operation));
    let took: Vec<String> = took.map(|operation| operation.number.to_string()).collect();
    if let [first, rest @ ..] = took.as_slice() {
        let more =
            if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
        terminal.note(&format!(
            "operation {first}{more} had taken something away on purpose: `wal-cli verify --remote` finds that gone from now on, \
             unless what had put it there is deleted, too"
        ));
    }
    for operation in &changed.redirected_to {
        write_result(&mut terminal.out, operation, &terminal.style)?;
    }
    let done = changed.operations.len();
    if done == 0 && changed.unchanged.is_empty() && changed.skipped.is_empty() {
        terminal.note(&format!("no operation to be {}", verb.participle()));
    }
    for operation in changed.unchanged.iter().take(SHOWN) {
        terminal.note(&format!("operation {}: {}", operation.number, unchanged(verb, operation)));
    }
    for skipped in changed.skipped.iter().take(SHOWN) {
        terminal.note(&format!("operation {} was skipped: {}", skipped.number, skipped.why));
    }
    let more =
        changed.unchanged.len().saturating_sub(SHOWN) + changed.skipped.len().saturating_sub(SHOWN);
    if more > 0 {
        terminal.note(&format!("and {more} more that were left as they are (--json names all)"));
    }
    if matches!(verb, Verb::Cancel { .. }) {
        let running =
            changed.operations.iter().filter(|operation| operation.claim().is_some()).count();
        if running > 0 {
            let (it, stops) = if running == 1 { ("it", "stops") } else { ("they", "stop") };
            terminal.note(&format!(
                "{running} being carried out: {it} {stops} as soon as the backend lets go"
            ));
        }
    }
    Ok(())
}

/// Whether nobody but the log knows that something is gone on purpose.
fn took_away(operation: &Operation) -> bool {
    let takes = ["rm", "unpin", "move"].contains(&operation.operation_type.as_str());
    takes && operation.status() == Status::Completed
}

/// How many operations left as they are get a line of their own.
const SHOWN: usize = 20;

fn unchanged(verb: &Verb, operation: &Operation) -> String {
    match verb {
        Verb::Hold => "it is held already".into(),
        Verb::Release => "it is not held".into(),
        Verb::Cancel { permanent: true } => "it is marked as permanently failed already".into(),
        Verb::Cancel { .. } => "it was asked to stop already".into(),
        Verb::Prioritize(priority) => format!("its priority is {priority} already"),
        Verb::Delete | Verb::Retry { .. } | Verb::Redirect(_) => {
            format!("it stays {}", operation.status())
        }
    }
}
