use super::result::summary_of;
use super::{Cell, Color, Style, Table, visible, wrapped};
use crate::client::{AuditFinding, AuditReport, Followed};

/// Findings that are shown one by one; JSON has all.
const FINDINGS_MAX: usize = 1000;

/// What the backends said of completed operations: what is gone or altered, who could not be asked, and how many.
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
        for line in std::iter::once(finding.what.clone()).chain(what_follows(finding)) {
            let mut row = vec![Cell::plain(""); 4];
            row.push(Cell::elastic(line));
            table.row(row);
        }
    }
    let mut text = table.render();
    let found = report.gone.len() + report.altered.len();
    if found > FINDINGS_MAX {
        text.push_str(&format!("and {} more: `--json` tells of all\n", found - FINDINGS_MAX));
    }
    let room = style.width.unwrap_or(usize::MAX);
    for unasked in &report.unasked {
        let line = format!(
            "{} was not asked about {}: {}",
            unasked.backend,
            many(unasked.operations, "operation"),
            visible(&unasked.failure.message)
        );
        text.push_str(&format!("{}\n", wrapped(&line, room).join("\n  ")));
    }
    text.push_str(&format!("{}\n", wrapped(&summary(report, style), room).join("\n  ")));
    text
}

fn what_follows(finding: &AuditFinding) -> Option<String> {
    Some(match finding.followed.as_ref()? {
        Followed::Reopened { number, .. } => format!("logged once more, as operation {number}"),
        Followed::GoesOn { number, .. } => format!("goes on as operation {number}"),
        Followed::Refused(why) => format!("not logged once more: {why}"),
    })
}

/// One plain sentence on all of it.
fn summary(report: &AuditReport, style: &Style) -> String {
    let unasked: u64 = report.unasked.iter().map(|unasked| unasked.operations).sum();
    let counts = [
        (report.intact, "intact"),
        (report.gone.len() as u64, "gone"),
        (report.altered.len() as u64, "altered"),
        (unasked, "not asked about"),
        (report.superseded, "replaced or removed by later ones"),
        (report.nothing, "with nothing to look at"),
    ];
    let told: Vec<String> =
        counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let all = counts.iter().map(|(n, _)| n).sum();
    let head = match (report.stopped, report.is_clean()) {
        (true, _) => Color::Warn.on("Stopped before all was looked at", style.color),
        (false, true) => Color::Ok.on("All that was looked at is as it was", style.color),
        (false, false) => Color::Error.on("Not everything is as it was", style.color),
    };
    let reopened = match report.reopened {
        0 => String::new(),
        n => format!("; {n} logged once more"),
    };
    match all {
        0 => format!("{head}: there is no completed operation to look at."),
        all => format!(
            "{head}: of {}, {}{reopened}.",
            many(all, "completed operation"),
            told.join(", ")
        ),
    }
}

fn many(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}
