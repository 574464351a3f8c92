use bytesize::ByteSize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::operation::Time;

/// The text on one line: control characters, which would act on the terminal, are spelled out.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Marks that turn the direction of writing around can make one name look like another.
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

/// Columns that the text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text in at most `room` columns, its middle left out: beginning and end of a path say most.
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

/// The text with line breaks between words, so that it fits `room` columns where its words allow that.
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

/// A span of time in one or two letters more than its largest unit.
pub fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}min", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago something was, or in how long it will be.
pub fn ago(now: Time, then: Time) -> String {
    let ms = now.millis_since(then);
    if ms < 0 { format!("in {}", span(-ms)) } else { format!("{} ago", span(ms)) }
}

/// An amount of bytes for people.
pub fn bytes(n: u64) -> String {
    ByteSize(n).to_string()
}

/// A number of things.
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
    fn the_middle_goes_first() {
        assert_eq!(shortened("/short", 10), "/short");
        let long = "/home/somebody/pictures/of/summer/beach.jpg";
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
    fn times_are_told_in_one_unit() {
        for (ms, told) in
            [(-5, "0s"), (59_999, "59s"), (60_000, "1min"), (7_200_000, "2h"), (200_000_000, "2d")]
        {
            assert_eq!(span(ms), told);
        }
    }
}
