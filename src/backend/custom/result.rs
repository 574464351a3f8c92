//! What a program's exit status, and what it printed, amount to.

use std::os::unix::process::ExitStatusExt;

use serde::Deserialize;
use serde_json::Value;

use super::process::{Ended, PRINTED_MAX, Stopped};
use crate::backend::AttemptError;
use crate::operation::{Failure, FailureClass, Fields, Outcome};

/// The exit status that asks for another attempt (`EX_TEMPFAIL` of sysexits.h).
const TRY_AGAIN: i32 = 75;
/// As much as is read as a result, in bytes.
pub(super) const RESULT_MAX: usize = 1 << 20;
/// As much as a receipt may take, in bytes.
const RECEIPT_MAX: usize = 64 << 10;
/// As much as a CID, or the place of a result, may take, in bytes.
const PLACE_MAX: usize = 16 << 10;
/// As much as a message may take, in bytes.
const MESSAGE_MAX: usize = 4 << 10;
/// As much as the word for a failure may take, in bytes.
const TYPE_MAX: usize = 128;

/// What a program may say of its result.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    cid: Option<String>,
    size: Option<u64>,
    destination: Option<String>,
    receipt: serde_json::Map<String, Value>,
    /// Seconds to wait before the next attempt.
    retry_after: Option<f64>,
    error_type: Option<String>,
    message: Option<String>,
}

/// What a program printed.
pub(super) struct Printed {
    text: String,
    /// Whether there is more of it.
    is_cut: bool,
}

impl Printed {
    pub(super) fn new((bytes, is_cut): (Vec<u8>, bool)) -> Printed {
        Printed { text: String::from_utf8_lossy(&bytes).into_owned(), is_cut }
    }

    fn said(&self) -> Option<Said> {
        let said: Said = serde_json::from_str(self.text.trim()).ok().filter(|_| !self.is_cut)?;
        let fits = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= PLACE_MAX);
        (fits(&said.cid) && fits(&said.destination)).then_some(said)
    }

    /// What is said by one that failed: what can be read of it.
    fn complaint(&self) -> Said {
        let Ok(Value::Object(said)) = serde_json::from_str(self.text.trim()) else {
            return Said::default();
        };
        let text = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
        Said {
            retry_after: said.get("retry_after").and_then(Value::as_f64),
            error_type: text("error_type"),
            message: text("message"),
            ..Said::default()
        }
    }

    /// What was done, by one that ended well: that it said too much, or nothing that can be read,
    /// undoes nothing.
    fn outcome(&self) -> Outcome {
        if let Some(said) = self.said() {
            let receipt = receipt_of(said.receipt);
            return Outcome {
                cid: said.cid,
                size: said.size,
                destination: said.destination,
                receipt,
            };
        }
        let output = self.text.trim_end();
        let mut receipt = Fields::new();
        if output.is_empty() {
            return Outcome::default();
        }
        if output.len() > RECEIPT_MAX || self.is_cut {
            let why = if self.is_cut { "; a result of more than 1 MiB is not read" } else { "" };
            receipt.insert(
                "cut".into(),
                format!("`output` is the first 64 KiB of the standard output{why}"),
            );
        }
        receipt.insert("output".into(), cut(output, RECEIPT_MAX).to_owned());
        Outcome { receipt, ..Outcome::default() }
    }
}

/// The fields of a receipt, the longest of them cut if all together take too much.
fn receipt_of(said: serde_json::Map<String, Value>) -> Fields {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut fields: Vec<(String, String)> =
        said.into_iter().map(|(name, value)| (name, text(value))).collect();
    fields.sort_by_key(|(name, value)| name.len() + value.len());
    let mut room = RECEIPT_MAX;
    let (mut receipt, mut shortened) = (Fields::new(), Vec::new());
    for (name, value) in fields {
        if name.len() + value.len() <= room {
            room -= name.len() + value.len();
            receipt.insert(name, value);
            continue;
        }
        shortened.push(format!("`{}`", cut(&name, TYPE_MAX)));
        if name.len() < room {
            let part = cut(&value, room - name.len()).to_owned();
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

/// The beginning of a text, of so many bytes at most.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// What it all amounts to; `errors` is the last line of its standard error.
pub(super) fn settle(
    ended: &Ended,
    printed: &Printed,
    errors: &str,
) -> Result<Outcome, AttemptError> {
    let late = "it exceeded `total_timeout`";
    let mib = PRINTED_MAX >> 20;
    let flooded = format!(
        "the program was stopped because it printed more than {mib} MiB; let it write everything \
         but its result to a file"
    );
    match (ended.status.code(), ended.stopped) {
        (Some(0), _) => Ok(printed.outcome()),
        (_, Some(Stopped::AtTerminal)) => {
            let said = if errors.is_empty() {
                String::new()
            } else {
                format!(" (stderr: {})", cut(errors, MESSAGE_MAX))
            };
            Err(AttemptError::permanent(
                "wants_terminal",
                format!(
                    "the program waited for input from a terminal{said} and was stopped; make it \
                     non-interactive, check what it has done, then retry the operation"
                ),
            ))
        }
        (Some(TRY_AGAIN), Some(Stopped::Asked)) => Err(AttemptError::Stopped),
        (Some(TRY_AGAIN), Some(Stopped::Late)) => {
            Err(AttemptError::transient("timed_out", format!("the program ended with 75: {late}")))
        }
        (Some(TRY_AGAIN), Some(Stopped::Flooded)) => {
            Err(AttemptError::transient("printed_too_much", flooded))
        }
        (_, Some(Stopped::Asked)) => Err(unanswered(
            "the program was asked to stop and did not end with 0 or 75, so its outcome is unknown",
        )),
        (_, Some(Stopped::Late)) => Err(unanswered(format!("the program was stopped: {late}"))),
        (_, Some(Stopped::Flooded)) => Err(unanswered(flooded)),
        (Some(code), None) => Err(failed(code, printed.complaint(), errors)),
        // In the middle of whatever it did.
        (None, None) => {
            let signal = ended.status.signal().unwrap_or(0);
            Err(unanswered(format!("the program was killed by signal {signal}")))
        }
    }
}

fn failed(code: i32, said: Said, errors: &str) -> AttemptError {
    let error_type = said.error_type.unwrap_or_else(|| format!("exit_{code}"));
    let message = match (said.message, errors) {
        (Some(message), _) => message,
        (None, "") => format!("the program ended with {code} without a message"),
        (None, errors) => format!("the program ended with {code}: {errors}"),
    };
    let (error_type, message) =
        (cut(&error_type, TYPE_MAX).to_owned(), cut(&message, MESSAGE_MAX).to_owned());
    let class = if code == TRY_AGAIN { FailureClass::Transient } else { FailureClass::Permanent };
    let retry_after_ms =
        said.retry_after.filter(|after| *after > 0.0).map(|after| (after * 1000.0) as u64);
    AttemptError::Failed { failure: Failure { class, error_type, message }, retry_after_ms }
}

/// Nobody knows what it has done.
pub(super) fn unanswered(message: impl Into<String>) -> AttemptError {
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
        Printed::new((text.as_bytes().to_vec(), is_cut)).outcome()
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
        assert_eq!(cut("äö", 3), "ä");
    }
}
