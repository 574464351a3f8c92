//! `retry`: back to pending, or on to another backend.

use super::Exit;
use super::args::Retry;
use super::context::Context;
use super::error::CliError;
use super::references::{self, Selection};
use super::verbs;
use crate::client::{Filter, Reference, Verb};
use crate::operation::Status;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Retry) -> Result<Exit, CliError> {
    if let Some(error) = context.damage()? {
        return Err(error);
    }
    context.check_backend(args.backend.as_ref())?;
    let mut selection = references::parse(context, &args.id)?;
    let by_filter = args.id.is_empty();
    let verb = match &args.backend {
        // With operations named, the backend is where they are to go; without, it is where they are.
        Some(backend) if !by_filter => Verb::Redirect(backend.clone()),
        _ => Verb::Retry { now: args.now },
    };
    if by_filter {
        selection = select(context, args)?;
    }
    verbs::apply(context, &selection, &verb)
}

/// The failed and retrying operations that the filters leave, oldest first. What was cancelled, given up or
/// redirected by hand, or is in doubt, comes back only when it is named.
fn select(context: &Context<'_>, args: &Retry) -> Result<Selection, CliError> {
    let statuses: &[Status] = match (args.failed, args.now) {
        (true, _) => &[Status::Failed],
        (false, true) => &[Status::Retrying],
        (false, false) => &[Status::Failed, Status::Retrying],
    };
    let mut numbers = Vec::new();
    for status in statuses {
        let filter = Filter {
            status: Some(*status),
            backend: args.backend.clone(),
            error_type: args.error_type.clone(),
            cause: args.cause.clone(),
            since: args.since.map(|since| since.before(context.terminal.style.now)),
            ..Filter::default()
        };
        let page = context.client.list(&filter, 0)?;
        numbers.extend(
            page.operations
                .iter()
                .filter(|one| !one.is_given_up() && !one.is_in_doubt())
                .map(|one| one.number),
        );
    }
    numbers.sort_unstable();
    Ok(Selection { references: numbers.into_iter().map(Reference::Number).collect(), named: false })
}
