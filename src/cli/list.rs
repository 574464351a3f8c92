//! `list`: operations, the newest first.

use std::io::Write;

use super::Exit;
use super::args::List;
use super::context::Context;
use super::error::CliError;
use crate::client::{Filter, Page, Reference};
use crate::operation::Number;
use crate::report::{ListText, OperationDoc, operation_table};

/// Operations that are held in memory at once.
const PAGE: usize = 2000;

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &List) -> Result<Exit, CliError> {
    context.check_backend(args.backend.as_ref())?;
    let now = context.terminal.style.now;
    let after = match &args.after {
        Some(word) => Some(context.client.operation(&Reference::parse(word)?)?.id),
        None => None,
    };
    let mut filter = Filter {
        status: args.status(),
        backend: args.backend.clone(),
        operation_type: args.operation_type.clone(),
        since: args.since.map(|since| since.before(now)),
        until: args.until.map(|until| until.before(now)),
        error_type: args.error_type.clone(),
        cause: args.cause.clone(),
        held: args.held,
        key: args.key.clone(),
        after,
        before: args.cursor.map(Number::new),
    };
    let mut printer = Printer {
        ids: args.ids,
        json: context.terminal.json,
        printed: 0,
        text: ListText::default(),
    };
    printer.begin(context)?;
    let mut left = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut next = None;
    let result = loop {
        let page = match context.client.list(&filter, left.min(PAGE)) {
            Ok(page) => page,
            Err(error) => break Err(CliError::from(error)),
        };
        left -= page.operations.len();
        printer.page(context, &page)?;
        next = page.next;
        filter.before = page.next;
        if next.is_none() || left == 0 || context.terminal.out.get_ref().is_gone() {
            break Ok(page.damage.map(|damage| crate::wal::WalError::Damaged(damage).into()));
        }
    };
    // What could be read has been shown; damage is told after it.
    let error = result.unwrap_or_else(Some);
    printer.end(context, next, error.as_ref())?;
    Ok(error.map_or(Exit::Done, |error| error.exit))
}

struct Printer {
    ids: bool,
    json: bool,
    printed: usize,
    text: ListText,
}

impl Printer {
    fn begin(&self, context: &mut Context<'_>) -> Result<(), CliError> {
        if self.json { context.terminal.text(self.text.begin()) } else { Ok(()) }
    }

    fn page(&mut self, context: &mut Context<'_>, page: &Page) -> Result<(), CliError> {
        let terminal = &mut *context.terminal;
        if !self.json && !self.ids {
            if !page.operations.is_empty() {
                let table = operation_table(&page.operations, &terminal.style, self.printed == 0);
                terminal.text(&table)?;
            }
            self.printed += page.operations.len();
            return Ok(());
        }
        for operation in &page.operations {
            if self.json {
                terminal.text(&self.text.operation(OperationDoc::new(operation)))?;
            } else {
                writeln!(terminal.out, "{}", operation.id)?;
            }
            self.printed += 1;
        }
        Ok(())
    }

    fn end(
        &self,
        context: &mut Context<'_>,
        next: Option<Number>,
        error: Option<&CliError>,
    ) -> Result<(), CliError> {
        let terminal = &mut *context.terminal;
        if self.json {
            let error = error.map(|error| error.shown(terminal.program));
            return terminal.line(&self.text.end(next.map(|next| next.to_string()), error));
        }
        if let Some(next) = next.filter(|_| terminal.style.width.is_some()) {
            let hint = format!("there are more: `--cursor {next}` goes on, `--limit 0` shows all");
            terminal.note(&hint);
        } else if self.printed == 0 && error.is_none() {
            terminal.note("no operations");
        }
        if let Some(error) = error {
            terminal.complain(error);
        }
        Ok(())
    }
}
