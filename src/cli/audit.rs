//! `verify --remote`: asks the backends whether what was completed is still there.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Exit;
use super::args::Verify;
use super::context::Context;
use super::error::CliError;
use super::signals::Interrupts;
use super::terminal::Terminal;
use crate::client::{AuditOptions, AuditReport, Followed};
use crate::report::{AuditDoc, ErrorType, write_audit};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Verify) -> Result<Exit, CliError> {
    context.check_backend(args.backend.as_ref())?;
    let now = context.terminal.style.now;
    let options = AuditOptions {
        since: args.since.map(|since| since.before(now)),
        backend: args.backend.clone(),
        reopen: args.reopen,
    };
    let interrupts = Interrupts::listen()?;
    let bar = bar(context.terminal);
    let report = context.client.audit(&options, &interrupts.stop, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let mut report = report?;
    let error = match report.trouble.take() {
        Some(trouble) => {
            Some(CliError::from(trouble).hint("what was logged once more until then is told above"))
        }
        None if report.stopped => Some(
            CliError::new(ErrorType::Interrupted, "interrupted before everything was looked at")
                .hint("`--since` and `--backend` narrow down what is looked at"),
        ),
        None => wrong(&report, args.reopen),
    };
    context.terminal.outcome(AuditDoc::new(&report), error.as_ref(), |terminal| {
        let text = terminal.program.named(&write_audit(&report, &terminal.style));
        terminal.text(&text)
    })
}

/// What is not as it should be, as the error that the command ends with.
fn wrong(report: &AuditReport, reopen: bool) -> Option<CliError> {
    let unasked: u64 = report.unasked.iter().map(|unasked| unasked.operations).sum();
    let found: Vec<String> = [
        (report.gone.len() as u64, "gone"),
        (report.altered.len() as u64, "altered"),
        (unasked, "of which nothing could be found out"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    if found.is_empty() {
        return None;
    }
    let mut error =
        CliError::new(ErrorType::NotIntact, format!("of what was completed, {}", found.join(", ")));
    let mut open = report.findings().filter(|finding| finding.followed.is_none());
    let is_under_way = |followed: &Followed| !matches!(followed, Followed::Refused(_));
    if !reopen && open.next().is_some() {
        error =
            error.hint("`wal-cli verify --remote --reopen` logs once more what is gone or altered");
    }
    if report.findings().any(|finding| finding.followed.as_ref().is_some_and(is_under_way)) {
        error = error.hint("`wal-cli process` carries out what was logged once more");
    }
    if report.findings().any(|finding| matches!(finding.followed, Some(Followed::Refused(_)))) {
        let hint = "bring back what was sent, or `wal-cli delete` operations that nobody is to look at any more (of something \
                    moved or copied: also those before)";
        error = error.hint(hint);
    }
    if let Some(unasked) = report.unasked.first() {
        error = error.hint(format!(
            "`wal-cli health --backend {}` shows whether that is there",
            unasked.backend
        ));
    }
    Some(error)
}

fn bar(terminal: &Terminal) -> ProgressBar {
    if terminal.quiet || terminal.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is sound; without one a bar looks plain, which does no harm.
    let style =
        ProgressStyle::with_template("asking [{bar:30}] {pos:>8} of {len} operations {eta:>3}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}
