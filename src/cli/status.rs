//! `status`: how the log is doing.

use super::Exit;
use super::args::StatusArgs;
use super::context::Context;
use super::error::CliError;
use crate::client::Reference;
use crate::report::{Document, ErrorType, StatusDoc, write_status};
use crate::wal::WalError;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &StatusArgs) -> Result<Exit, CliError> {
    let stats = context.client.stats()?;
    let error = stats.damage.clone().map(|damage| CliError::from(WalError::Damaged(damage)));
    let now = context.terminal.style.now;
    let held: Vec<String> = args
        .fail_if
        .iter()
        .flatten()
        .filter_map(|condition| condition.holds(&stats, now))
        .collect();
    let error = error.or_else(|| {
        (!held.is_empty()).then(|| {
            CliError::new(ErrorType::ConditionHolds, held.join("; "))
                .hint("`wal-cli failures` and `wal-cli list` tell more")
                .with(|facts| facts.conditions = Some(held.clone()))
        })
    });
    let base_path = context.client.settings().base_path.clone();
    if context.terminal.json {
        // A detail: if the file that holds it cannot be read, the rest is still worth telling.
        let oldest = stats.oldest_pending.and_then(|(number, _)| {
            context.client.operation(&Reference::Number(number)).ok().map(|operation| operation.id)
        });
        let shown = error.as_ref().map(|error| error.shown(context.terminal.program));
        let result = StatusDoc::new(&stats, oldest, &base_path);
        context.terminal.document(&Document::with_error(result, shown))?;
    } else {
        let terminal = &mut *context.terminal;
        write_status(&mut terminal.out, &stats, &base_path, &terminal.style)?;
        if let Some(error) = &error {
            terminal.complain(error);
        }
    }
    Ok(error.map_or(Exit::Done, |error| error.exit))
}
