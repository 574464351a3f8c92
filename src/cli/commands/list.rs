//! `list`: lists operations, newest first.

use std::io::Write;

use clap::Args;

use crate::cli::args::{Since, backend, cause, operation_type, since};
use crate::cli::command::Command;
use crate::cli::context::{Context, Session};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::client::{Filter, Page, Reference};
use crate::operation::{BackendName, Number, OperationType, Status};
use crate::report::{ListText, OperationDoc, operation_table};
use crate::wal::WalError;

/// Operations held in memory at once.
const PAGE: usize = 2000;

const EXAMPLES: &str = "\
Examples:
  wal-cli list failed
  wal-cli list all --since 2h --limit 0
  wal-cli list pending -q | wal-cli wait -";

/// List operations, newest first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct List {
    /// Only operations with this status [default: all]
    #[arg(value_name = "STATUS", value_parser = status_words(), conflicts_with = "status_flag")]
    status: Option<String>,
    /// The same as a flag
    #[arg(long = "status", value_name = "STATUS", value_parser = status_words())]
    status_flag: Option<String>,
    /// Only operations of this backend
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    backend: Option<BackendName>,
    /// Only operations of this type
    #[arg(long = "type", short = 't', value_name = "TYPE", value_parser = operation_type)]
    operation_type: Option<OperationType>,
    /// Only operations logged since a time: 2h, 3d, 2026-01-31, or RFC 3339 (UTC without a zone)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Only operations logged before a time
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<Since>,
    /// Only operations with this type of error
    #[arg(long, value_name = "TYPE")]
    error_type: Option<String>,
    /// Only operations with this cause of failure, as `failures` shows it; a prefix is enough
    #[arg(long, value_name = "CAUSE", value_parser = cause)]
    cause: Option<String>,
    /// Only held operations
    #[arg(long)]
    held: bool,
    /// Only the operation with this idempotency key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only operations that depend on this one
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Maximum number of operations to list; 0 lists all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Continue an earlier list from this value of its `next_cursor`
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<u64>,
    /// Only ids, one per line
    #[arg(short = 'q', long = "ids")]
    ids: bool,
}

fn status_words() -> clap::builder::PossibleValuesParser {
    Status::ALL.map(Status::as_str).into_iter().chain(["all"]).collect::<Vec<_>>().into()
}

impl Command for List {
    const NAME: &'static str = "list";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        context.check_backend(self.backend.as_ref())?;
        let (limit, ids) = (self.limit, self.ids);
        let mut filter = self.filter(context)?;
        let mut printer = context.output.choose(
            |_| Printer::Json(ListText::default()),
            |_| if ids { Printer::Ids } else { Printer::Table },
        );
        printer.begin(context.output)?;
        let mut printed = 0;
        let mut left = if limit == 0 { usize::MAX } else { limit };
        let mut next = None;
        let result = loop {
            let page = match context.client.list(&filter, Some(left.min(PAGE))) {
                Ok(page) => page,
                Err(error) => break Err(CliError::from(error)),
            };
            printer.page(context.output, &page, printed == 0)?;
            printed += page.operations.len();
            left -= page.operations.len();
            next = page.next;
            filter.before = page.next;
            if next.is_none() || left == 0 || context.output.is_closed() {
                break Ok(page.damage.map(|damage| WalError::Damaged(damage).into()));
            }
        };
        // The readable operations have been printed; the damage follows.
        let error = result.unwrap_or_else(Some);
        printer.end(context.output, next, printed == 0, error.as_ref())?;
        Ok(error.map_or(Exit::Done, |error| error.exit))
    }
}

impl List {
    fn filter(self, context: &Context<'_>) -> Result<Filter, CliError> {
        let now = context.output.style.now;
        let status = self.status.or(self.status_flag);
        let after = match &self.after {
            Some(word) => Some(context.client.operation(&Reference::parse(word)?)?.id),
            None => None,
        };
        Ok(Filter {
            status: status.as_deref().and_then(Status::parse),
            backend: self.backend,
            operation_type: self.operation_type,
            since: self.since.map(|since| since.before(now)),
            until: self.until.map(|until| until.before(now)),
            error_type: self.error_type,
            cause: self.cause,
            held: self.held,
            key: self.key,
            after,
            before: self.cursor.map(Number::new),
        })
    }
}

/// Prints pages while they are read, since all operations may not fit into memory.
enum Printer {
    Json(ListText),
    Ids,
    Table,
}

impl Printer {
    fn begin(&self, output: &mut Output) -> Result<(), CliError> {
        match self {
            Printer::Json(text) => output.text(text.begin()),
            Printer::Ids | Printer::Table => Ok(()),
        }
    }

    fn page(&mut self, output: &mut Output, page: &Page, is_first: bool) -> Result<(), CliError> {
        match self {
            Printer::Json(text) => {
                for operation in &page.operations {
                    output.text(&text.operation(OperationDoc::new(operation)))?;
                }
            }
            Printer::Ids => {
                for operation in &page.operations {
                    writeln!(output.out, "{}", operation.id)?;
                }
            }
            Printer::Table if page.operations.is_empty() => {}
            Printer::Table => {
                output.text(&operation_table(&page.operations, &output.style, is_first))?;
            }
        }
        Ok(())
    }

    fn end(
        &self,
        output: &mut Output,
        next: Option<Number>,
        is_empty: bool,
        error: Option<&CliError>,
    ) -> Result<(), CliError> {
        if let Printer::Json(text) = self {
            let error = error.map(|error| error.document(&output.invocation));
            return output.line(&text.end(next.map(|next| next.to_string()), error));
        }
        if let Some(next) = next.filter(|_| output.style.width.is_some()) {
            output.note(&format!(
                "more operations follow: `--cursor {next}` continues, `--limit 0` lists all"
            ));
        } else if is_empty && error.is_none() {
            output.note("no operations");
        }
        if let Some(error) = error {
            output.print_error(error);
        }
        Ok(())
    }
}
