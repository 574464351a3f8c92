//! Kubo's RPC: how a command is sent, and when its answer counts.
//!
//! An answer may fail in three places: in its status, in its trailer, and in a line of what it streams; or it is cut
//! off, which says nothing of what was done. Only one that passes all of them is success.

use serde_json::Value;

use crate::backend::Attempt;
use crate::backend::http::{Call, Head, Http, Trouble};
use crate::backend::network::Spell;

/// Answers that are kept in memory are not longer than this.
const ANSWER_MAX: usize = 256 << 20;

/// A line of an answer is not longer than this; a line tells of one file, or one pin.
const LINE_MAX: usize = 1 << 20;

/// An error's text is not read further than this.
const ERROR_MAX: usize = 64 << 10;

/// The trailer that tells of errors after the answer began.
const STREAM_ERROR: &str = "x-stream-error";

/// Why a command did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RpcError {
    /// It brought no answer.
    Trouble(Trouble),
    /// It was refused, with what came as a reason.
    Refused(Refused),
    /// What came is no answer of Kubo's.
    Odd(String),
}

/// What was said on refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The status; 200 if it had begun well.
    pub status: u16,
    /// The reason.
    pub message: String,
    /// Kubo's code of an error, if it was Kubo that spoke.
    pub code: Option<i64>,
    /// The header `Retry-After` as it came.
    pub retry_after: Option<String>,
}

impl From<Trouble> for RpcError {
    fn from(trouble: Trouble) -> RpcError {
        RpcError::Trouble(trouble)
    }
}

pub(super) type RpcResult<T> = Result<T, RpcError>;

/// Whether what came shows that something is moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Movement {
    /// It does.
    Some,
    /// It tells nothing new: a node that waits without an end may go on saying so.
    None,
}

/// Sends commands for one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rpc<'a> {
    http: &'a Http,
    attempt: &'a Attempt,
    limits: Spell,
}

impl<'a> Rpc<'a> {
    pub(super) fn new(http: &'a Http, attempt: &'a Attempt, limits: Spell) -> Rpc<'a> {
        Rpc { http, attempt, limits }
    }

    /// Begins a command whose body follows, or has none.
    pub(super) fn start(
        &self,
        command: &str,
        options: &[(&str, &str)],
        body: Option<&str>,
    ) -> RpcResult<Call<'a>> {
        Ok(self.http.post(self.attempt, self.limits, command, options, body)?)
    }

    /// The whole answer of a command, which is one JSON value, or nothing at all if it may be `empty`.
    pub(super) fn object(&self, command: &str, options: &[(&str, &str)]) -> RpcResult<Value> {
        let bytes = self.bytes(command, options, ANSWER_MAX)?;
        read_line(command, &bytes)
    }

    /// A command that answers with nothing.
    pub(super) fn order(&self, command: &str, options: &[(&str, &str)]) -> RpcResult<()> {
        let bytes = self.bytes(command, options, ERROR_MAX)?;
        if bytes.trim_ascii().is_empty() {
            return Ok(());
        }
        read_line(command, &bytes).and_then(|_| Err(odd(command, &bytes)))
    }

    /// The bytes of an answer, of at most this many.
    pub(super) fn bytes(
        &self,
        command: &str,
        options: &[(&str, &str)],
        max: usize,
    ) -> RpcResult<Vec<u8>> {
        let mut call = self.start(command, options, None)?;
        let mut bytes = Vec::new();
        self.receive(&mut call, &mut |data| {
            bytes.extend_from_slice(data);
            match bytes.len() <= max {
                true => Ok(Movement::Some),
                false => Err(RpcError::Odd(format!("`{command}` answers without an end"))),
            }
        })?;
        Ok(bytes)
    }

    /// Hands each line of an answer on, read as JSON. The limit of time ends what the lines show no movement of.
    pub(super) fn lines(
        &self,
        command: &str,
        options: &[(&str, &str)],
        sink: &mut dyn FnMut(Value) -> RpcResult<Movement>,
    ) -> RpcResult<()> {
        let mut call = self.start(command, options, None)?;
        call.moved();
        let mut lines = Lines::default();
        self.receive(&mut call, &mut |data| {
            let mut movement = Ok(Movement::None);
            lines.push(data, &mut |line| {
                let Ok(before) = movement else { return };
                movement = line
                    .and_then(&mut *sink)
                    .map(|now| if now == Movement::Some { now } else { before });
            });
            movement
        })?;
        lines.finish()
    }

    /// Reads an answer to its clean end.
    pub(super) fn receive(
        &self,
        call: &mut Call<'_>,
        sink: &mut dyn FnMut(&[u8]) -> RpcResult<Movement>,
    ) -> RpcResult<()> {
        let head = call.head()?;
        if head.status != 200 {
            return Err(refusal(call));
        }
        while let Some(data) = call.next()? {
            if sink(&data)? == Movement::Some {
                call.moved();
            }
        }
        match call.trailer(STREAM_ERROR).filter(|text| !text.is_empty()) {
            None => Ok(()),
            Some(message) => Err(RpcError::Refused(Refused {
                status: 200,
                message,
                code: None,
                retry_after: None,
            })),
        }
    }
}

fn odd(command: &str, bytes: &[u8]) -> RpcError {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    RpcError::Odd(match start.trim() {
        "" => format!("`{command}` was answered with nothing"),
        start => format!("`{command}` was answered with `{start}`"),
    })
}

/// What was said on refusal. If that is cut off, what came of it has to do: the status stands.
fn refusal(call: &mut Call<'_>) -> RpcError {
    let Ok(Head { status, headers }) = call.head() else {
        return RpcError::Odd("it was answered with nothing".into());
    };
    let status = *status;
    let retry_after =
        headers.get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut text = Vec::new();
    loop {
        match call.next() {
            Ok(Some(data)) if text.len() < ERROR_MAX => text.extend_from_slice(&data),
            Err(Trouble::Stopped) => return RpcError::Trouble(Trouble::Stopped),
            _ => break,
        }
    }
    let said: Option<Value> = serde_json::from_slice(&text).ok();
    let word = |name| said.as_ref().and_then(|said| said.get(name));
    let message = match word("Message").and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&text).trim().chars().take(300).collect(),
    };
    RpcError::Refused(Refused {
        status,
        message,
        code: word("Code").and_then(Value::as_i64),
        retry_after,
    })
}

/// Cuts what streams in into lines of JSON, and keeps no more than one that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn push(&mut self, data: &[u8], sink: &mut dyn FnMut(RpcResult<Value>)) {
        let mut pieces = data.split(|byte| *byte == b'\n');
        // Behind the last end of a line.
        let open = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.keep(piece, sink);
            let line = std::mem::take(&mut self.rest);
            if !line.trim_ascii().is_empty() {
                sink(read_line("it", &line));
            }
        }
        self.keep(open, sink);
    }

    fn keep(&mut self, piece: &[u8], sink: &mut dyn FnMut(RpcResult<Value>)) {
        self.rest.extend_from_slice(piece);
        if self.rest.len() > LINE_MAX {
            self.rest = Vec::new();
            sink(Err(RpcError::Odd(format!("a line of it is longer than {} MiB", LINE_MAX >> 20))));
        }
    }

    /// Whether it ended with a whole line.
    pub(super) fn finish(&self) -> RpcResult<()> {
        if self.rest.trim_ascii().is_empty() { Ok(()) } else { Err(odd("it", &self.rest)) }
    }
}

/// A value, unless it tells of an error.
fn read_line(command: &str, line: &[u8]) -> RpcResult<Value> {
    let value: Value = serde_json::from_slice(line).map_err(|_| odd(command, line))?;
    if value.get("Type").and_then(Value::as_str) != Some("error") {
        return Ok(value);
    }
    let message =
        value.get("Message").and_then(Value::as_str).unwrap_or("an error without words").to_owned();
    let code = value.get("Code").and_then(Value::as_i64);
    Err(RpcError::Refused(Refused { status: 200, message, code, retry_after: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut_and_none_grows_without_an_end() {
        let text = b"{\"a\":1}\n\n{\"b\":[2,3]}\r\n{\"c\":\"\xc3\xa4\"}\n";
        for size in 1..text.len() {
            let (mut lines, mut read) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.push(piece, &mut |line| read.push(line.unwrap().to_string()));
            }
            assert_eq!(read, ["{\"a\":1}", "{\"b\":[2,3]}", "{\"c\":\"ä\"}"], "{size}");
            assert_eq!(lines.finish(), Ok(()));
        }

        let (mut lines, mut errors, mut most) = (Lines::default(), Vec::new(), 0);
        for _ in 0..100 {
            lines.push(&[b'x'; 64 << 10], &mut |line| errors.push(line.unwrap_err()));
            most = most.max(lines.rest.capacity());
        }
        assert!(
            matches!(&errors[0], RpcError::Odd(what) if what.contains("longer than")),
            "{errors:?}"
        );
        assert!(most <= 4 * LINE_MAX, "{most}");
        // Neither does one that ends at last.
        let (mut lines, mut errors) = (Lines::default(), 0);
        let long = [vec![b'"'], vec![b'x'; LINE_MAX], b"\"\n".to_vec()].concat();
        lines.push(&long, &mut |line| errors += usize::from(line.is_err()));
        assert_eq!(errors, 1);
        assert!(lines.finish().is_ok());
    }
}
