//! Inputs from files and pipes: an unlimited number of lines, read one at a time.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::error::CliError;
use crate::client::{BadInput, ClientError};
use crate::worker::Stop;

/// The longest line, in bytes: a longer one does not fit into a frame of the journal.
const LINE_MAX: usize = 2 << 20;

/// Lines read ahead.
const LINES_AHEAD: usize = 64;

/// The interval at which a wait for more input checks for an interrupt.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A non-empty line without its terminator, or the reason why it is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Line number, counted from 1; empty lines count.
    pub number: u64,
    /// Text of the line.
    pub text: Result<Vec<u8>, BadInput>,
}

/// Calls `take` with each line of a file (`-`: stdin). Lines end with NUL if `null` is set.
pub fn for_each_line(
    file: &Path,
    null: bool,
    stop: &Stop,
    mut take: impl FnMut(Line) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let read_error = |error: io::Error| {
        let name =
            if file == Path::new("-") { "stdin".into() } else { format!("`{}`", file.display()) };
        CliError::usage(format!("nothing was logged: cannot read {name}: {error}"))
            .hint("pass `--from-file` a file with one input per line, or `-` for stdin")
    };
    let lines = read(file, null).map_err(read_error)?;
    loop {
        if stop.is_requested() {
            return Err(ClientError::Interrupted.into());
        }
        match lines.recv_timeout(POLL_INTERVAL) {
            Ok(line) => take(line.map_err(read_error)?)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Reads on a thread of its own, so that a wait for a silent pipe can be interrupted.
#[expect(clippy::disallowed_methods, reason = "it may be a pipe, which cannot be read at offsets")]
fn read(file: &Path, null: bool) -> io::Result<Receiver<io::Result<Line>>> {
    let input: Box<dyn Read + Send> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(std::fs::File::open(file)?)
    };
    let (sender, receiver) = sync_channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(64 * 1024, input);
        let mut number = 0;
        // The receiver is dropped when the command ends.
        while let Some(line) = next_line(&mut input, null, &mut number).transpose() {
            let failed = line.is_err();
            if sender.send(line).is_err() || failed {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Returns the next non-empty line.
fn next_line(input: &mut impl BufRead, null: bool, number: &mut u64) -> io::Result<Option<Line>> {
    let end = if null { 0 } else { b'\n' };
    loop {
        let mut text = Vec::new();
        let mut len = 0;
        let ended = loop {
            let buffer = match input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let found = buffer.iter().position(|byte| *byte == end);
            let part = &buffer[..found.unwrap_or(buffer.len())];
            len += part.len();
            if len <= LINE_MAX {
                text.extend_from_slice(part);
            }
            let used = part.len() + usize::from(found.is_some());
            input.consume(used);
            if found.is_some() || used == 0 {
                break found.is_some();
            }
        };
        if !ended && len == 0 {
            return Ok(None);
        }
        *number += 1;
        if !null && text.last() == Some(&b'\r') {
            text.pop();
        }
        if len > LINE_MAX {
            let input: String = String::from_utf8_lossy(&text).chars().take(80).collect();
            let message = format!("{len} bytes long; the limit is {LINE_MAX} bytes");
            let bad = BadInput::new(input, "too_long", message).at_line(Some(*number));
            return Ok(Some(Line { number: *number, text: Err(bad) }));
        }
        if !text.is_empty() {
            return Ok(Some(Line { number: *number, text: Ok(text) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut text: &[u8], null: bool) -> Vec<(u64, String)> {
        let mut number = 0;
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut text, null, &mut number).unwrap() {
            let text = line
                .text
                .map_or_else(|bad| bad.error_type.into(), |text| String::from_utf8(text).unwrap());
            lines.push((line.number, text));
        }
        lines
    }

    #[test]
    fn lines_may_end_in_any_way_and_are_counted() {
        let of = |pairs: &[(u64, &str)]| {
            pairs.iter().map(|(n, text)| (*n, (*text).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(lines(b"a\nb c", false), of(&[(1, "a"), (2, "b c")]));
        assert_eq!(lines(b"a\r\n\r\nb c\r\n", false), of(&[(1, "a"), (3, "b c")]));
        assert_eq!(lines(b"a\0b c\0", true), of(&[(1, "a"), (2, "b c")]));
        assert_eq!(lines(b"a\nb\0", true), of(&[(1, "a\nb")]));
        assert_eq!(lines(b"", false), []);
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_long_one() {
        let text = [&vec![b'x'; LINE_MAX + 1][..], b"\nb\n", &vec![b'y'; LINE_MAX]].concat();
        let lines = lines(&text, false);
        assert_eq!(
            (lines.len(), &lines[0], &lines[1]),
            (3, &(1, "too_long".into()), &(2, "b".into()))
        );
        assert_eq!(lines[2].1.len(), LINE_MAX);
    }
}
