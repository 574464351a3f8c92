//! The texts of `verify`, `verify --repair` and `verify --durability`.

use super::{Cell, Color, Style, Table, bytes, plural, visible, wrapped};
use crate::client::{Durability, Finding, FindingKind, NumberSet, Repaired, Verified};
use crate::operation::NumberRange;

/// Quarantined files that are named, at most; JSON has all of them.
const SET_ASIDE_MAX: usize = 20;

/// Returns the findings; with `advice`, damage is followed by the next step.
pub fn write_findings<'a>(
    findings: impl Iterator<Item = &'a Finding>,
    advice: bool,
    style: &Style,
) -> String {
    let mut text = String::new();
    for finding in findings {
        let paint = match finding.kind {
            FindingKind::Damage => Color::Error,
            FindingKind::Note => Color::Faint,
        };
        let offset = finding.offset.map(|offset| format!(" at byte {offset}")).unwrap_or_default();
        let head = paint.on(&format!("{:<6}", finding.kind.as_str()), style.color);
        let line = format!("{}{offset}: {}", visible(&finding.path), visible(&finding.what));
        let room = style.width.map_or(usize::MAX, |width| width.saturating_sub(8).max(30));
        text.push_str(&format!("{head}  {}\n", wrapped(&line, room).join("\n        ")));
        if advice && finding.kind == FindingKind::Damage {
            text.push_str(&format!(
                "        {}\n",
                wrapped(&visible(&finding.advice), room).join("\n        ")
            ));
        }
    }
    text
}

/// Returns the state of the log in one sentence.
pub fn write_verified(found: &Verified, style: &Style) -> String {
    if !found.exists {
        return "There is no log in this directory.\n".into();
    }
    let content = format!(
        "{} in {} and {}",
        plural(found.operations, "operation"),
        plural(found.files, "file"),
        plural(found.generations, "generation")
    );
    match found.damages().count() as u64 {
        0 => {
            format!(
                "{}: {content}, {} checked.\n",
                Color::Ok.on("The log is valid", style.color),
                bytes(found.bytes)
            )
        }
        n => {
            let head = Color::Error.on("The log is damaged", style.color);
            let places = if n == 1 { "in 1 place".to_owned() } else { format!("in {n} places") };
            let rest = match (found.files, found.generations) {
                (0, 0) => {
                    "other files were not checked, because nothing says which of them belong to \
                     the log"
                        .to_owned()
                }
                _ => format!("{content} can be read"),
            };
            format!("{head} {places}: {rest}.\n")
        }
    }
}

/// Returns numbers as a list of ranges, such as `1-3, 7`.
fn numbers(all: &NumberSet) -> String {
    let text = |NumberRange { first, last }: NumberRange| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    all.ranges().map(text).collect::<Vec<_>>().join(", ")
}

/// Returns the result of a repair: damage, losses, affected operations, and a summary.
pub fn write_repaired(repaired: &Repaired, style: &Style) -> String {
    if !repaired.changed {
        return format!(
            "The log is valid: nothing was changed; it holds {}.\n",
            plural(repaired.operations, "operation")
        );
    }
    let mut text = write_findings(repaired.damages.iter(), false, style);
    let room = style.width.map_or(usize::MAX, |width| width.saturating_sub(8).max(30));
    for loss in &repaired.losses {
        let place = match loss.range {
            Some(range) if range.is_empty() => format!(", byte {}", range.start),
            Some(range) => format!(", bytes {} to {}", range.start, range.end),
            None => String::new(),
        };
        let line = format!("{}{place}: {}", visible(&loss.path), visible(&loss.what));
        text.push_str(&format!("lost    {}\n", wrapped(&line, room).join("\n        ")));
    }
    let groups = [
        ("operations that could not be recovered", numbers(&repaired.lost)),
        ("operations with gaps in their history", numbers(&repaired.holed)),
        ("operations recovered from altered files, to be reviewed", numbers(&repaired.doubtful)),
        (
            "operations held until released, because the lost part may have recorded their outcome",
            numbers(&repaired.held),
        ),
    ];
    let full = style.width.unwrap_or(usize::MAX);
    for (what, numbers) in groups.iter().filter(|(_, numbers)| !numbers.is_empty()) {
        text.push_str(&format!("{}\n", wrapped(&format!("{what}: {numbers}"), full).join("\n  ")));
    }
    for name in repaired.set_aside.iter().take(SET_ASIDE_MAX) {
        text.push_str(&format!("moved to `{}`\n", visible(name)));
    }
    if repaired.set_aside.len() > SET_ASIDE_MAX {
        text.push_str(&format!(
            "and {} more in `quarantine/`\n",
            repaired.set_aside.len() - SET_ASIDE_MAX
        ));
    }
    let lost = match repaired.lost.len() {
        0 => "no operation is lost".to_owned(),
        n => format!("{} could not be recovered", plural(n, "operation")),
    };
    let head = Color::Ok.on("The log is repaired", style.color);
    let rest = format!("it holds {}; {lost}.", plural(repaired.operations, "operation"));
    text.push_str(&format!(
        "{head}: {}\n",
        wrapped(&rest, full.saturating_sub(21).max(30)).join("\n  ")
    ));
    text
}

/// Returns the checks of a disk and a summary.
pub fn write_durability(tested: &Durability, style: &Style) -> String {
    let mut table = Table::new(*style);
    for result in &tested.checks {
        let (word, paint) = match result.safe {
            true => ("safe", Color::Ok),
            false => ("UNSAFE", Color::Error),
        };
        table.row(vec![
            Cell::painted(word, paint),
            Cell::plain(result.check.as_str().replace('_', " ")),
            Cell::plain(visible(&result.finding)),
        ]);
    }
    let mut text = table.render();
    let directory = visible(&tested.directory.display().to_string());
    text.push_str(
        "A power failure cannot be simulated, so these checks cannot prove that the disk honours \
         fsync.\n",
    );
    text.push_str(&match tested.is_safe() {
        true => format!("All checks passed: a log is safe in `{directory}`.\n"),
        false => format!("A log is not safe in `{directory}`.\n"),
    });
    text
}
