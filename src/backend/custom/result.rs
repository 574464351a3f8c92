//! The result of an attempt, from a program's exit status and output.

use std::os::unix::process::ExitStatusExt;

use serde::Deserialize;
use serde_json::Value;

use super::process::{Ended, OUTPUT_MAX, StopReason};
use crate::backend::AttemptError;
use crate::operation::{Failure, FailureClass, Fields, Outcome};

/// The exit status that asks for another attempt, `EX_TEMPFAIL` in `sysexits.h`.
const TRY_AGAIN: i32 = 75;
/// The longest output that is parsed as a result, in bytes.
pub(super) const RESULT_MAX: usize = 1 << 20;
/// The largest receipt, in bytes.
const RECEIPT_MAX: usize = 64 << 10;
/// The longest CID or destination, in bytes.
const FIELD_MAX: usize = 16 << 10;
/// The longest message, in bytes.
const MESSAGE_MAX: usize = 4 << 10;
/// The longest error type, in bytes.
const TYPE_MAX: usize = 128;

/// The JSON object in which a program may describe its result.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResultObject {
    cid: Option<String>,
    size: Option<u64>,
    destination: Option<String>,
    receipt: serde_json::Map<String, Value>,
    /// Seconds to wait before the next attempt.
    retry_after: Option<f64>,
    error_type: Option<String>,
    message: Option<String>,
}

/// The beginning of a program's standard output.
pub(super) struct Output {
    text: String,
    /// True if the program wrote more than this.
    is_cut: bool,
}

impl Output {
    pub(super) fn new((bytes, is_cut): (Vec<u8>, bool)) -> Output {
        Output { text: String::from_utf8_lossy(&bytes).into_owned(), is_cut }
    }

    fn result(&self) -> Option<ResultObject> {
        let result = serde_json::from_str(self.text.trim()).ok();
        let result: ResultObject = result.filter(|_| !self.is_cut)?;
        let fits = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= FIELD_MAX);
        (fits(&result.cid) && fits(&result.destination)).then_some(result)
    }

    /// Returns the fields that describe a failure. Fields of other types are ignored.
    fn failure_result(&self) -> ResultObject {
        let Ok(Value::Object(fields)) = serde_json::from_str(self.text.trim()) else {
            return ResultObject::default();
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        ResultObject {
            retry_after: fields.get("retry_after").and_then(Value::as_f64),
            error_type: text("error_type"),
            message: text("message"),
            ..ResultObject::default()
        }
    }

    /// Returns the outcome of a program that succeeded. Output that is too long or not a result
    /// does not change that: its beginning becomes the receipt `output`.
    fn outcome(&self) -> Outcome {
        if let Some(result) = self.result() {
            let ResultObject { cid, size, destination, receipt, .. } = result;
            return Outcome { cid, size, destination, receipt: receipt_of(receipt) };
        }
        let output = self.text.trim_end();
        let mut receipt = Fields::new();
        if output.is_empty() {
            return Outcome::default();
        }
        if output.len() > RECEIPT_MAX || self.is_cut {
            let note = if self.is_cut { "; a result of more than 1 MiB is not read" } else { "" };
            receipt.insert(
                "cut".into(),
                format!("`output` is the first 64 KiB of the standard output{note}"),
            );
        }
        receipt.insert("output".into(), beginning_of(output, RECEIPT_MAX).to_owned());
        Outcome { receipt, ..Outcome::default() }
    }
}

/// Returns the fields of a receipt. If together they are too long, the longest ones are cut.
fn receipt_of(fields: serde_json::Map<String, Value>) -> Fields {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut fields: Vec<(String, String)> =
        fields.into_iter().map(|(name, value)| (name, text(value))).collect();
    fields.sort_by_key(|(name, value)| name.len() + value.len());
    let mut room = RECEIPT_MAX;
    let (mut receipt, mut shortened) = (Fields::new(), Vec::new());
    for (name, value) in fields {
        if name.len() + value.len() <= room {
            room -= name.len() + value.len();
            receipt.insert(name, value);
            continue;
        }
        shortened.push(format!("`{}`", beginning_of(&name, TYPE_MAX)));
        if name.len() < room {
            let part = beginning_of(&value, room - name.len()).to_owned();
            receipt.insert(name, part);
        }
        room = 0;
    }
    if let Some(first) = shortened.first() {
        let more = match shortened.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        receipt.insert(
            "cut".into(),
            format!("{first}{more}: cut, because a receipt holds at most 64 KiB"),
        );
    }
    receipt
}

/// Returns the beginning of a text, at most `max` bytes.
fn beginning_of(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// Returns the result of an attempt; `last_line` is the last line of the standard error.
pub(super) fn attempt_result(
    ended: &Ended,
    output: &Output,
    last_line: &str,
) -> Result<Outcome, AttemptError> {
    let too_late = "it exceeded `total_timeout`";
    let mib = OUTPUT_MAX >> 20;
    let too_much = format!(
        "the program was stopped because it printed more than {mib} MiB; let it write everything \
         but its result to a file"
    );
    match (ended.status.code(), ended.stopped) {
        (Some(0), _) => Ok(output.outcome()),
        (_, Some(StopReason::NeedsTerminal)) => {
            let stderr = match last_line {
                "" => String::new(),
                line => format!(" (stderr: {})", beginning_of(line, MESSAGE_MAX)),
            };
            Err(AttemptError::permanent(
                "wants_terminal",
                format!(
                    "the program waited for input from a terminal{stderr} and was stopped; make it \
                     non-interactive, check what it has done, then retry the operation"
                ),
            ))
        }
        (Some(TRY_AGAIN), Some(StopReason::Cancelled)) => Err(AttemptError::Stopped),
        (Some(TRY_AGAIN), Some(StopReason::TimedOut)) => {
            let message = format!("the program ended with 75: {too_late}");
            Err(AttemptError::transient("timed_out", message))
        }
        (Some(TRY_AGAIN), Some(StopReason::TooMuchOutput)) => {
            Err(AttemptError::transient("printed_too_much", too_much))
        }
        (_, Some(StopReason::Cancelled)) => Err(unknown_outcome(
            "the program was asked to stop and did not end with 0 or 75, so its outcome is unknown",
        )),
        (_, Some(StopReason::TimedOut)) => {
            Err(unknown_outcome(format!("the program was stopped: {too_late}")))
        }
        (_, Some(StopReason::TooMuchOutput)) => Err(unknown_outcome(too_much)),
        (Some(code), None) => Err(failure_of(code, output.failure_result(), last_line)),
        // A signal may have interrupted it between two steps.
        (None, None) => {
            let signal = ended.status.signal().unwrap_or(0);
            Err(unknown_outcome(format!("the program was killed by signal {signal}")))
        }
    }
}

fn failure_of(code: i32, result: ResultObject, last_line: &str) -> AttemptError {
    let error_type = result.error_type.unwrap_or_else(|| format!("exit_{code}"));
    let message = match (result.message, last_line) {
        (Some(message), _) => message,
        (None, "") => format!("the program ended with {code} without a message"),
        (None, line) => format!("the program ended with {code}: {line}"),
    };
    let (error_type, message) = (
        beginning_of(&error_type, TYPE_MAX).to_owned(),
        beginning_of(&message, MESSAGE_MAX).to_owned(),
    );
    let class = if code == TRY_AGAIN { FailureClass::Transient } else { FailureClass::Permanent };
    let retry_after_ms =
        result.retry_after.filter(|after| *after > 0.0).map(|after| (after * 1000.0) as u64);
    AttemptError::Failed { failure: Failure { class, error_type, message }, retry_after_ms }
}

/// Returns the error for a program that ended or was stopped at an unknown point.
pub(super) fn unknown_outcome(message: impl Into<String>) -> AttemptError {
    let message = message.into();
    AttemptError::UnknownOutcome(Failure {
        class: FailureClass::Transient,
        error_type: "program_ended".into(),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str, is_cut: bool) -> Outcome {
        Output::new((text.as_bytes().to_vec(), is_cut)).outcome()
    }

    #[test]
    fn an_outcome_always_fits_into_the_log() {
        let long = "ä\u{1}".repeat(400_000);
        let escaped = serde_json::to_string(&long[..300_000]).unwrap();
        let many: serde_json::Map<String, Value> =
            (0..50_000).map(|n| (n.to_string(), n.into())).collect();
        let many = serde_json::json!({ "receipt": many }).to_string();
        for (text, is_cut) in [
            (long.clone(), true),
            (format!("{{\"cid\": {escaped}}}"), false),
            (format!("{{\"receipt\": {{\"a\": {escaped}, \"b\": {escaped}}}}}"), false),
            (format!("{{\"receipt\": {{{escaped}: 1}}}}"), false),
            (many, false),
        ] {
            let outcome = outcome(&text, is_cut);
            let kept: usize =
                outcome.receipt.iter().map(|(name, value)| name.len() + value.len()).sum();
            assert!(kept <= RECEIPT_MAX + 300, "{kept}");
            assert!(outcome.receipt["cut"].contains("64 KiB"), "{}", outcome.receipt["cut"]);
            assert_eq!(outcome.cid, None);
        }
        assert_eq!(outcome(" \n", false), Outcome::default());
        assert_eq!(beginning_of("äö", 3), "ä");
    }
}
