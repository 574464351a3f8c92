//! `verify --remote`: asks the backends whether completed operations still have their effect.

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::signals::Interrupts;
use crate::client::{AuditOptions, AuditReport, FollowUp};
use crate::report::{AuditDoc, ErrorType, write_audit};

/// Runs the audit, and prints its report.
pub fn run(context: &mut Context<'_>, options: &AuditOptions) -> Result<Exit, CliError> {
    let interrupts = Interrupts::install()?;
    let bar =
        context.output.progress_bar("asking [{bar:30}] {pos:>8} of {len} operations {eta:>3}");
    let report = context.client.audit(options, &interrupts.stop, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let mut report = report?;
    let error = match report.reopen_error.take() {
        Some(error) => {
            Some(CliError::from(error).hint("the operations reopened before that are listed"))
        }
        None if report.stopped => Some(
            CliError::new(ErrorType::Interrupted, "interrupted before the audit was complete")
                .hint("limit the audit with `--since` and `--backend`"),
        ),
        None => not_intact(&report, options.reopen),
    };
    context.output.outcome(
        || AuditDoc::new(&report),
        error.as_ref(),
        |output| {
            let text = write_audit(&report, &output.style);
            let text = output.invocation.pasteable(&text).into_owned();
            output.text(&text)
        },
    )
}

/// Returns the error for operations that failed verification.
fn not_intact(report: &AuditReport, reopen: bool) -> Option<CliError> {
    let unverified: u64 = report.unverified.iter().map(|unverified| unverified.operations).sum();
    let counts: Vec<String> = [
        (report.missing.len() as u64, "missing"),
        (report.altered.len() as u64, "altered"),
        (unverified, "unverified"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    if counts.is_empty() {
        return None;
    }
    let message = format!("completed operations failed verification: {}", counts.join(", "));
    let mut error = CliError::new(ErrorType::NotIntact, message);
    let mut open = report.findings().filter(|finding| finding.follow_up.is_none());
    let is_reopened = |follow_up: &FollowUp| !matches!(follow_up, FollowUp::Refused(_));
    let is_refused = |follow_up: &FollowUp| matches!(follow_up, FollowUp::Refused(_));
    if !reopen && open.next().is_some() {
        error = error.hint("run `wal-cli verify --remote --reopen` to log them again");
    }
    if report.findings().any(|finding| finding.follow_up.as_ref().is_some_and(is_reopened)) {
        error = error.hint("run `wal-cli process` to execute the reopened operations");
    }
    if report.findings().any(|finding| finding.follow_up.as_ref().is_some_and(is_refused)) {
        error = error.hint(
            "restore the source files, or run `wal-cli delete ID` for operations that need no \
             further verification (for a move or copy, the earlier ones too)",
        );
    }
    if let Some(unverified) = report.unverified.first() {
        error = error.hint(format!(
            "run `wal-cli health --backend {}` to see whether it is reachable",
            unverified.backend
        ));
    }
    Some(error)
}
