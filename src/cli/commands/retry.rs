//! `retry`: returns operations to pending, or redirects them to another backend.

use clap::Args;

use crate::cli::action;
use crate::cli::args::{ID_HELP, Since, backend, cause, since};
use crate::cli::command::Command;
use crate::cli::context::{Context, Session};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::references::{self, Selection};
use crate::client::{Action, Filter, Reference};
use crate::operation::{BackendName, Status};

const HELP: &str = "\
With operations named, --backend redirects them to that backend, as new
operations; without, it selects the operations of that backend. Operations that
were cancelled, abandoned or redirected, and those with an unknown outcome, are
retried only if they are named.

Examples:
  wal-cli retry 17
  wal-cli retry --failed
  wal-cli retry --cause 3f2a91c0           # as `failures` shows it
  wal-cli retry 17 --backend local         # run it on another backend
  wal-cli retry 17 --accept-source         # after `source_changed`
  wal-cli retry --backend ipfs --now       # end the waits, keep the counters
  wal-cli list failed --since 2h -q | wal-cli retry -";

/// Retry failed operations, or redirect them to another backend
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Retry {
    #[arg(
        value_name = "ID",
        required_unless_present_any = ["failed", "cause", "backend", "error_type", "since", "now"],
        help = ID_HELP
    )]
    id: Vec<String>,
    /// All failed operations, but not retrying ones
    #[arg(long, conflicts_with = "id")]
    failed: bool,
    /// Operations with this cause of failure, as `failures` shows it; a prefix is enough
    #[arg(long, value_name = "CAUSE", value_parser = cause, conflicts_with = "id")]
    cause: Option<String>,
    /// Operations of this backend; if operations are named, the backend to redirect them to
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    backend: Option<BackendName>,
    /// Operations with this type of error
    #[arg(long, value_name = "TYPE", conflicts_with = "id")]
    error_type: Option<String>,
    /// Operations logged since: 2h, 3d, 2026-01-31
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "id")]
    since: Option<Since>,
    /// Only end the wait of retrying operations; their counters stay
    #[arg(long, conflicts_with = "failed")]
    now: bool,
    /// Send the source file as it is now, although it changed since it was logged
    #[arg(long, conflicts_with_all = ["backend", "now"])]
    accept_source: bool,
}

impl Command for Retry {
    const NAME: &'static str = "retry";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        if let Some(error) = context.damage()? {
            return Err(error);
        }
        context.check_backend(self.backend.as_ref())?;
        let selection = match self.id.is_empty() {
            true => self.select(context)?,
            false => references::parse(context, &self.id)?,
        };
        let action = match self.backend {
            Some(backend) if !self.id.is_empty() => Action::Redirect(backend),
            _ if self.accept_source => Action::AcceptSource,
            _ => Action::Retry { now: self.now },
        };
        action::apply(context, &selection, &action)
    }
}

impl Retry {
    /// Returns the failed and retrying operations that the filters select, oldest first. Operations
    /// that were abandoned or have an unknown outcome have to be named.
    fn select(&self, context: &Context<'_>) -> Result<Selection, CliError> {
        let statuses: &[Status] = match (self.failed, self.now) {
            (true, _) => &[Status::Failed],
            (false, true) => &[Status::Retrying],
            (false, false) => &[Status::Failed, Status::Retrying],
        };
        let mut numbers = Vec::new();
        for status in statuses {
            let filter = Filter {
                status: Some(*status),
                backend: self.backend.clone(),
                error_type: self.error_type.clone(),
                cause: self.cause.clone(),
                since: self.since.map(|since| since.before(context.output.style.now)),
                ..Filter::default()
            };
            let page = context.client.list(&filter, None)?;
            let operations = page.operations.iter();
            numbers.extend(
                operations
                    .filter(|one| !one.is_abandoned() && !one.is_in_doubt())
                    .map(|one| one.number),
            );
        }
        numbers.sort_unstable();
        let references = numbers.into_iter().map(Reference::Number).collect();
        Ok(Selection { references, named: false })
    }
}
