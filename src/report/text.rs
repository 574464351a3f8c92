//! Texts in a readable form: names, sizes, durations, line breaks.

use bytesize::ByteSize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::operation::Time;

/// Returns the text on one line, with control characters escaped, which would act on the terminal.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional marks can disguise one name as another.
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Returns the number of terminal columns that the text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Returns the text shortened to `room` columns by omitting its middle: the beginning and the end
/// of a path are the most informative parts.
pub fn shortened(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let Some(room) = room.checked_sub(1) else { return String::new() };
    let take = |chars: &mut dyn Iterator<Item = char>, room: usize| {
        let mut used = 0;
        let mut taken = Vec::new();
        for c in chars {
            used += c.width().unwrap_or(0);
            if used > room {
                break;
            }
            taken.push(c);
        }
        taken
    };
    let tail_room = room - room / 3;
    let mut tail = take(&mut text.chars().rev(), tail_room);
    tail.reverse();
    let head = take(&mut text.chars(), room / 3);
    format!("{}…{}", String::from_iter(head), String::from_iter(tail))
}

/// Returns the text as lines of at most `room` columns. A longer word gets a line of its own.
pub fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || width(line) + 1 + width(word) <= room => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Returns a duration in its largest unit, such as `5min`.
pub fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}min", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Returns a time relative to `now`, such as `5min ago` or `in 5min`.
pub fn ago(now: Time, then: Time) -> String {
    let ms = now.millis_since(then);
    if ms < 0 { format!("in {}", span(-ms)) } else { format!("{} ago", span(ms)) }
}

/// Returns a number of bytes in a readable unit.
pub fn bytes(n: u64) -> String {
    ByteSize(n).to_string()
}

/// Returns a count with its noun, in the plural unless `n` is 1.
pub fn plural(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_act_on_the_terminal() {
        assert_eq!(visible("a\nb\x1b[31m\u{202e}c ä"), "a\\nb\\u{1b}[31m\\u{202e}c ä");
    }

    #[test]
    fn the_middle_is_omitted() {
        assert_eq!(shortened("/short", 10), "/short");
        let long = "/home/alexander/pictures/of/summer/beach.jpg";
        let short = shortened(long, 20);
        assert_eq!(width(&short), 20);
        assert!(short.starts_with("/home/") && short.ends_with("beach.jpg"), "{short}");
        for room in 0..50 {
            assert!(width(&shortened(long, room)) <= room);
            assert!(width(&shortened("漢字漢字漢字漢字漢字", room)) <= room);
        }
    }

    #[test]
    fn long_texts_break_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a-word-that-is-too-long b", 5), ["a-word-that-is-too-long", "b"]);
        assert_eq!(wrapped("short", 80), ["short"]);
    }

    #[test]
    fn durations_use_one_unit() {
        for (ms, expected) in
            [(-5, "0s"), (59_999, "59s"), (60_000, "1min"), (7_200_000, "2h"), (200_000_000, "2d")]
        {
            assert_eq!(span(ms), expected);
        }
    }
}
