use super::{Cell, Color, Style, Table, bytes, visible, wrapped};
use crate::client::{Durability, Finding, FindingKind, Repaired, Verified};
use crate::operation::Number;

/// Files set aside that are named one by one; JSON has all.
const SET_ASIDE_MAX: usize = 20;

/// A word for so many of a thing.
fn many(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// What was found, damage with what to do if that is wanted.
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

/// One plain sentence on the log as a whole.
pub fn write_verified(found: &Verified, style: &Style) -> String {
    if !found.exists {
        return "There is no log here yet.\n".into();
    }
    let content = format!(
        "{} in {} and {}",
        many(found.operations, "operation"),
        many(found.files, "file"),
        many(found.generations, "generation")
    );
    match found.damages().count() as u64 {
        0 => {
            format!(
                "{}: {content}, {} checked.\n",
                Color::Ok.on("The log is sound", style.color),
                bytes(found.bytes)
            )
        }
        n => {
            let head = Color::Error.on("The log is damaged", style.color);
            let places = if n == 1 { "in one place".to_owned() } else { format!("in {n} places") };
            let rest = match (found.files, found.generations) {
                (0, 0) => {
                    "what else there is was not checked, since nothing tells what belongs to it"
                        .to_owned()
                }
                _ => format!("{content} can be read"),
            };
            format!("{head} {places}: {rest}.\n")
        }
    }
}

/// Numbers for people: runs of them in one piece.
fn numbers(all: impl Iterator<Item = Number>) -> String {
    let mut runs: Vec<(Number, Number)> = Vec::new();
    for number in all {
        match runs.last_mut() {
            Some((_, last)) if last.next() == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let run = |(first, last): &(Number, Number)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

/// What a repair saved, and what is lost; one plain sentence at the end.
pub fn write_repaired(repaired: &Repaired, style: &Style) -> String {
    if !repaired.changed {
        return format!(
            "The log is sound: nothing was changed; it holds {}.\n",
            many(repaired.operations, "operation")
        );
    }
    let mut text = write_findings(repaired.damages.iter(), false, style);
    let room = style.width.map_or(usize::MAX, |width| width.saturating_sub(8).max(30));
    for loss in &repaired.losses {
        let place = match loss.range {
            Some((from, to)) if to > from => format!(", bytes {from} to {to}"),
            Some((from, _)) => format!(", byte {from}"),
            None => String::new(),
        };
        let line = format!("{}{place}: {}", visible(&loss.path), visible(&loss.what));
        text.push_str(&format!("lost    {}\n", wrapped(&line, room).join("\n        ")));
    }
    let groups = [
        ("operations of which nothing is known any more", numbers(repaired.lost.iter())),
        ("operations in whose history something is missing", numbers(repaired.holed.iter())),
        (
            "operations from files that are not as they were written, to be looked at",
            numbers(repaired.doubtful.iter()),
        ),
        (
            "operations that wait until they are released, since what is lost may have said more of them",
            numbers(repaired.held.iter()),
        ),
    ];
    let full = style.width.unwrap_or(usize::MAX);
    for (what, numbers) in groups.iter().filter(|(_, numbers)| !numbers.is_empty()) {
        text.push_str(&format!("{}\n", wrapped(&format!("{what}: {numbers}"), full).join("\n  ")));
    }
    for name in repaired.set_aside.iter().take(SET_ASIDE_MAX) {
        text.push_str(&format!("set aside as `{}`\n", visible(name)));
    }
    if repaired.set_aside.len() > SET_ASIDE_MAX {
        text.push_str(&format!(
            "and {} more in `quarantine/`\n",
            repaired.set_aside.len() - SET_ASIDE_MAX
        ));
    }
    let lost = repaired.lost.iter().count() as u64;
    let lost = match lost {
        0 => "no operation is lost".to_owned(),
        n => format!("nothing is known any more of {}", many(n, "operation")),
    };
    let head = Color::Ok.on("The log is repaired", style.color);
    let rest = format!("it holds {}; {lost}.", many(repaired.operations, "operation"));
    text.push_str(&format!(
        "{head}: {}\n",
        wrapped(&rest, full.saturating_sub(21).max(30)).join("\n  ")
    ));
    text
}

/// What a disk is like, check by check; one plain sentence at the end.
pub fn write_durability(tried: &Durability, style: &Style) -> String {
    let mut table = Table::new(*style);
    for check in &tried.tried {
        let (word, paint) = if check.safe { ("safe", Color::Ok) } else { ("UNSAFE", Color::Error) };
        table.row(vec![
            Cell::painted(word, paint),
            Cell::plain(check.check.as_str().replace('_', " ")),
            Cell::plain(visible(&check.what)),
        ]);
    }
    let mut text = table.render();
    let directory = visible(&tried.directory.display().to_string());
    text.push_str("A power cut cannot be tried out here: whether the disk keeps what it said it had flushed, only its maker knows.\n");
    text.push_str(&match tried.is_safe() {
        true => format!("As far as can be tried, a log is safe in `{directory}`.\n"),
        false => format!("A log is not safe in `{directory}`.\n"),
    });
    text
}
