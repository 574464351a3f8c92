//! The text of `verify --remote`.

use super::result::summary_of;
use super::{Cell, Color, Style, Table, plural, visible, wrapped};
use crate::client::{AuditFinding, AuditReport, Followed};

/// Findings shown one by one; JSON has all of them.
const FINDINGS_MAX: usize = 1000;

/// Returns the findings, the backends that could not be asked, and a summary.
pub fn write_audit(report: &AuditReport, style: &Style) -> String {
    let mut table = Table::new(*style);
    let gone = report.gone.iter().map(|finding| ("gone", finding));
    let findings = gone.chain(report.altered.iter().map(|finding| ("altered", finding)));
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
    let found = report.gone.len() + report.altered.len();
    if found > FINDINGS_MAX {
        text.push_str(&format!("and {} more; `--json` lists all\n", found - FINDINGS_MAX));
    }
    let room = style.width.unwrap_or(usize::MAX);
    for unasked in &report.unasked {
        let line = format!(
            "backend `{}`: {} not checked: {}",
            unasked.backend,
            plural(unasked.operations, "operation"),
            visible(&unasked.failure.message)
        );
        text.push_str(&format!("{}\n", wrapped(&line, room).join("\n  ")));
    }
    text.push_str(&format!("{}\n", wrapped(&summary(report, style), room).join("\n  ")));
    text
}

fn follow_up(finding: &AuditFinding) -> Option<String> {
    Some(match finding.followed.as_ref()? {
        Followed::Reopened { number, .. } => format!("reopened as operation {number}"),
        Followed::GoesOn { number, .. } => format!("already replaced by operation {number}"),
        Followed::Refused(why) => format!("not reopened: {why}"),
    })
}

/// Returns the result in one sentence.
fn summary(report: &AuditReport, style: &Style) -> String {
    let unasked: u64 = report.unasked.iter().map(|unasked| unasked.operations).sum();
    let counts = [
        (report.intact, "intact"),
        (report.gone.len() as u64, "gone"),
        (report.altered.len() as u64, "altered"),
        (unasked, "not checked"),
        (report.superseded, "replaced or removed by later operations"),
        (report.nothing, "with nothing to check"),
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
