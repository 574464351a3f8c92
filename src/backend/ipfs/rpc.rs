//! Kubo's RPC: how a command is sent, and when its response counts as a success.
//!
//! A response may report an error in its status, in a trailer and in a line of its stream, or it
//! may be cut off, which says nothing about what was done. It is a success only if none of these
//! occurs.

use serde_json::Value;

use super::http::{Call, CallError, HttpClient, ResponseHead};
use crate::backend::Attempt;
use crate::backend::runtime::Deadline;

/// The largest response that is kept in memory.
const RESPONSE_MAX: usize = 256 << 20;

/// The longest line of a response; a line describes one file or one pin.
const LINE_MAX: usize = 1 << 20;

/// The number of bytes that are read of an error's text.
const ERROR_MAX: usize = 64 << 10;

/// The trailer in which Kubo reports errors that occur after its headers were sent.
const STREAM_ERROR: &str = "x-stream-error";

/// The reason why a command did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RpcError {
    /// There was no complete response.
    Call(CallError),
    /// The node, or a proxy in front of it, refused the command.
    Rejected(RpcRejection),
    /// The response is not one that Kubo gives; the text says how it differs.
    Unexpected(String),
}

/// A refusal of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcRejection {
    /// The HTTP status; 200 if the error came after the headers.
    pub status: u16,
    /// The reason given.
    pub message: String,
    /// Kubo's error code, if the error is one of Kubo's.
    pub code: Option<i64>,
    /// The unparsed header `Retry-After`.
    pub retry_after: Option<String>,
}

impl From<CallError> for RpcError {
    fn from(error: CallError) -> RpcError {
        RpcError::Call(error)
    }
}

pub(super) type RpcResult<T> = Result<T, RpcError>;

/// The progress that a piece of a response shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Progress,
    /// The piece says nothing new: a node that waits indefinitely may keep sending such pieces.
    Idle,
}

/// A sender of commands for one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rpc<'a> {
    http: &'a HttpClient,
    attempt: &'a Attempt,
    deadline: Deadline,
}

impl<'a> Rpc<'a> {
    pub(super) fn new(http: &'a HttpClient, attempt: &'a Attempt, deadline: Deadline) -> Rpc<'a> {
        Rpc { http, attempt, deadline }
    }

    /// Starts a command; with a `body_type` its body is to follow.
    pub(super) fn start(
        &self,
        command: &str,
        options: &[(&str, &str)],
        body_type: Option<&str>,
    ) -> RpcResult<Call<'a>> {
        Ok(self.http.post(self.attempt, self.deadline, command, options, body_type)?)
    }

    /// Returns the response of a command that answers with one JSON value.
    pub(super) fn json(&self, command: &str, options: &[(&str, &str)]) -> RpcResult<Value> {
        let bytes = self.bytes(command, options, RESPONSE_MAX)?;
        parse_line(&bytes)
    }

    /// Sends a command that has an empty response.
    pub(super) fn execute(&self, command: &str, options: &[(&str, &str)]) -> RpcResult<()> {
        let bytes = self.bytes(command, options, ERROR_MAX)?;
        if bytes.trim_ascii().is_empty() {
            return Ok(());
        }
        parse_line(&bytes).and_then(|_| Err(unexpected_response(&bytes)))
    }

    /// Returns the bytes of a response; fails if there are more than `max`.
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
                true => Ok(Activity::Progress),
                false => {
                    let message = format!("the response is longer than {max} bytes");
                    Err(RpcError::Unexpected(message))
                }
            }
        })?;
        Ok(bytes)
    }

    /// Passes each line of a response to `sink`, parsed as JSON. Only lines that `sink` calls
    /// progress extend the idle timeout.
    pub(super) fn json_lines(
        &self,
        command: &str,
        options: &[(&str, &str)],
        sink: &mut dyn FnMut(Value) -> RpcResult<Activity>,
    ) -> RpcResult<()> {
        let mut call = self.start(command, options, None)?;
        call.record_progress();
        let mut lines = LineDecoder::default();
        self.receive(&mut call, &mut |data| {
            let mut activity = Ok(Activity::Idle);
            lines.push(data, &mut |line| {
                let Ok(before) = activity else { return };
                activity = line
                    .and_then(&mut *sink)
                    .map(|now| if now == Activity::Progress { now } else { before });
            });
            activity
        })?;
        lines.finish()
    }

    /// Reads a response to its end; fails if it reports an error anywhere.
    pub(super) fn receive(
        &self,
        call: &mut Call<'_>,
        sink: &mut dyn FnMut(&[u8]) -> RpcResult<Activity>,
    ) -> RpcResult<()> {
        let head = call.head()?;
        if head.status != 200 {
            return Err(read_rejection(call));
        }
        while let Some(data) = call.next_chunk()? {
            if sink(&data)? == Activity::Progress {
                call.record_progress();
            }
        }
        match call.trailer(STREAM_ERROR).filter(|text| !text.is_empty()) {
            None => Ok(()),
            Some(message) => Err(RpcError::Rejected(RpcRejection {
                status: 200,
                message,
                code: None,
                retry_after: None,
            })),
        }
    }
}

fn unexpected_response(bytes: &[u8]) -> RpcError {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    RpcError::Unexpected(match start.trim() {
        "" => "the response is empty".into(),
        start => format!("unexpected response `{start}`"),
    })
}

/// Reads the body of a refusal. If it is cut off, the part that arrived is used: the status alone
/// makes it a refusal.
fn read_rejection(call: &mut Call<'_>) -> RpcError {
    let Ok(ResponseHead { status, headers }) = call.head() else {
        return RpcError::Unexpected("the response is empty".into());
    };
    let status = *status;
    let retry_after =
        headers.get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut text = Vec::new();
    loop {
        match call.next_chunk() {
            Ok(Some(data)) if text.len() < ERROR_MAX => text.extend_from_slice(&data),
            Err(CallError::Cancelled) => return RpcError::Call(CallError::Cancelled),
            _ => break,
        }
    }
    let error: Option<Value> = serde_json::from_slice(&text).ok();
    let field = |name| error.as_ref().and_then(|error| error.get(name));
    let message = match field("Message").and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&text).trim().chars().take(300).collect(),
    };
    RpcError::Rejected(RpcRejection {
        status,
        message,
        code: field("Code").and_then(Value::as_i64),
        retry_after,
    })
}

/// A splitter of a stream into lines of JSON; it keeps at most one incomplete line.
#[derive(Debug, Default)]
pub(super) struct LineDecoder {
    rest: Vec<u8>,
}

impl LineDecoder {
    /// Passes each line that `data` completes to `sink`.
    pub(super) fn push(&mut self, data: &[u8], sink: &mut dyn FnMut(RpcResult<Value>)) {
        let mut pieces = data.split(|byte| *byte == b'\n');
        // The part after the last line end.
        let open = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.keep(piece, sink);
            let line = std::mem::take(&mut self.rest);
            if !line.trim_ascii().is_empty() {
                sink(parse_line(&line));
            }
        }
        self.keep(open, sink);
    }

    fn keep(&mut self, piece: &[u8], sink: &mut dyn FnMut(RpcResult<Value>)) {
        self.rest.extend_from_slice(piece);
        if self.rest.len() > LINE_MAX {
            self.rest = Vec::new();
            let message = format!("a line of the response is longer than {} MiB", LINE_MAX >> 20);
            sink(Err(RpcError::Unexpected(message)));
        }
    }

    /// Fails if the stream ended within a line.
    pub(super) fn finish(&self) -> RpcResult<()> {
        if self.rest.trim_ascii().is_empty() {
            Ok(())
        } else {
            Err(unexpected_response(&self.rest))
        }
    }
}

/// Parses a line of JSON; fails if it reports an error.
fn parse_line(line: &[u8]) -> RpcResult<Value> {
    let value: Value = serde_json::from_slice(line).map_err(|_| unexpected_response(line))?;
    if value.get("Type").and_then(Value::as_str) != Some("error") {
        return Ok(value);
    }
    let message =
        value.get("Message").and_then(Value::as_str).unwrap_or("an error without text").to_owned();
    let code = value.get("Code").and_then(Value::as_i64);
    Err(RpcError::Rejected(RpcRejection { status: 200, message, code, retry_after: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_across_pieces_and_limited_in_length() {
        let text = b"{\"a\":1}\n\n{\"b\":[2,3]}\r\n{\"c\":\"\xc3\xa4\"}\n";
        for size in 1..text.len() {
            let (mut lines, mut read) = (LineDecoder::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.push(piece, &mut |line| read.push(line.unwrap().to_string()));
            }
            assert_eq!(read, ["{\"a\":1}", "{\"b\":[2,3]}", "{\"c\":\"ä\"}"], "{size}");
            assert_eq!(lines.finish(), Ok(()));
        }

        let (mut lines, mut errors, mut most) = (LineDecoder::default(), Vec::new(), 0);
        for _ in 0..100 {
            lines.push(&[b'x'; 64 << 10], &mut |line| errors.push(line.unwrap_err()));
            most = most.max(lines.rest.capacity());
        }
        assert!(
            matches!(&errors[0], RpcError::Unexpected(what) if what.contains("longer than")),
            "{errors:?}"
        );
        assert!(most <= 4 * LINE_MAX, "{most}");
        // The same holds for a line that is complete.
        let (mut lines, mut errors) = (LineDecoder::default(), 0);
        let long = [vec![b'"'], vec![b'x'; LINE_MAX], b"\"\n".to_vec()].concat();
        lines.push(&long, &mut |line| errors += usize::from(line.is_err()));
        assert_eq!(errors, 1);
        assert!(lines.finish().is_ok());
    }
}
