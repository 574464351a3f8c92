//! The text of `verify --remote`.

use super::result::summary_of;
use super::{Cell, Color, Style, Table, plural, visible, wrapped};
use crate::client::{AuditFinding, AuditReport, FollowUp};

/// Findings shown individually, at most; JSON has all of them.
const FINDINGS_MAX: usize = 1000;

/// Returns the findings, the failures of backends, and a summary.
pub fn write_audit(report: &AuditReport, style: &Style) -> String {
    let mut table = Table::new(*style);
    let missing = report.missing.iter().map(|finding| ("missing", finding));
    let findings = missing.chain(report.altered.iter().map(|finding| ("altered", finding)));
    for (word, finding) in findings.take(FINDINGS_MAX) {
        table.row(vec![
            Cell::painted(word, Color::Error),
            Cell::right(finding.number.to_string()),
            Cell::plain(finding.backend.as_str()),
            Cell::plain(finding.operation_type.as_str()),
            Cell::elastic(summary_of(&finding.parameters)),
        ]);
        for line in std::iter::once(finding.what.clone()).chain(follow_up(finding)) {
            let mut row = vec![Cell::plain(""); 4];
            row.push(Cell::elastic(line));
            table.row(row);
        }
    }
    let mut text = table.render();
    let found = report.missing.len() + report.altered.len();
    if found > FINDINGS_MAX {
        text.push_str(&format!("and {} more; `--json` lists all\n", found - FINDINGS_MAX));
    }
    let room = style.width.unwrap_or(usize::MAX);
    for unverified in &report.unverified {
        let line = format!(
            "backend `{}`: {} not checked: {}",
            unverified.backend,
            plural(unverified.operations, "operation"),
            visible(&unverified.failure.message)
        );
        text.push_str(&format!("{}\n", wrapped(&line, room).join("\n  ")));
    }
    text.push_str(&format!("{}\n", wrapped(&summary(report, style), room).join("\n  ")));
    text
}

fn follow_up(finding: &AuditFinding) -> Option<String> {
    Some(match finding.follow_up.as_ref()? {
        FollowUp::Reopened { number, .. } => format!("reopened as operation {number}"),
        FollowUp::AlreadyReopened { number, .. } => {
            format!("already replaced by operation {number}")
        }
        FollowUp::Refused(why) => format!("not reopened: {why}"),
    })
}

/// Returns the result in one sentence.
fn summary(report: &AuditReport, style: &Style) -> String {
    let unverified: u64 = report.unverified.iter().map(|unverified| unverified.operations).sum();
    let counts = [
        (report.intact, "intact"),
        (report.missing.len() as u64, "missing"),
        (report.altered.len() as u64, "altered"),
        (unverified, "not checked"),
        (report.superseded, "replaced or removed by later operations"),
        (report.without_effect, "with nothing to check"),
    ];
    let parts: Vec<String> =
        counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let all = counts.iter().map(|(n, _)| n).sum();
    let head = match (report.stopped, report.is_clean()) {
        (true, _) => Color::Warn.on("Stopped early", style.color),
        (false, true) => Color::Ok.on("Everything is intact", style.color),
        (false, false) => Color::Error.on("Verification failed", style.color),
    };
    let reopened = match report.reopened {
        0 => String::new(),
        n => format!("; {n} reopened"),
    };
    match all {
        0 => format!("{head}: there are no completed operations to check."),
        all => format!(
            "{head}: of {}, {}{reopened}.",
            plural(all, "completed operation"),
            parts.join(", ")
        ),
    }
}
