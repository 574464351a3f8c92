//! What Kubo's errors mean: whether to try again, and what a person can do.
//!
//! Status and code of an error tell little: nearly everything is a 500 of code 0. So its text decides, by fragments:
//! wordings carry prefixes and change between releases.

use chrono::DateTime;

use super::rpc::Refused;
use crate::backend::AttemptError;
use crate::operation::{Failure, FailureClass, Time};

use FailureClass::{Outage, Permanent, Transient};

/// The type of what is not in the list.
pub(super) const UNKNOWN: &str = "backend_error";

/// Types of what may be refused to everybody who is configured as we are.
pub(super) const OF_SETTINGS: [&str; 3] = ["access_denied", "not_kubo", "redirected"];

/// The type of what is said in place of a node, or by one that has too much to do.
pub(super) const UNAVAILABLE: &str = "unavailable";

/// The type of what a node says that is about to be away.
pub(super) const GOING_DOWN: &str = "interrupted";

/// The type of what a node says, or a proxy before it, that has too much to do.
pub(super) const RATE_LIMITED: &str = "rate_limited";

/// Fragments of what Kubo says, in small letters, with what each means and what to do; the first one that fits decides.
const MEANINGS: &[(&str, FailureClass, &str, &str)] = &[
    ("no space left on device", Transient, "disk_full", "free some space on the disk of the node"),
    (
        "storagemax",
        Transient,
        "disk_full",
        "raise `Datastore.StorageMax` of the node, or collect its garbage",
    ),
    (
        "permission denied",
        Permanent,
        "permission_denied",
        "let the node's user write its repository",
    ),
    (
        "context deadline exceeded",
        Transient,
        "timed_out",
        "the node found nobody who has it in time",
    ),
    ("context canceled", Transient, GOING_DOWN, "the node gave up"),
    ("file does not exist", Permanent, "not_found", "`list` shows what there is"),
    ("no link named", Permanent, "not_found", "`list` with `cid` shows what there is"),
    ("could not find", Transient, "not_found", "the node has not got it, or is offline"),
    ("not found locally", Transient, "not_found", "the node has not got it, or is offline"),
    ("failed to find any peer", Transient, "not_found", "nobody is known to have it"),
    ("no providers", Transient, "not_found", "nobody is known to have it"),
    ("routing", Transient, "not_found", "the node could not find out who has it"),
    ("already has entry", Permanent, "destination_exists", "choose another name"),
    ("already exists", Permanent, "destination_exists", "choose another name"),
    ("is a directory", Permanent, "is_directory", "use `get`, or `recursive=true`"),
    ("not a directory", Permanent, "bad_path", "a part of the name is a file"),
    ("pinned recursively", Permanent, "pinned", "`unpin` it first"),
    (
        "pinned indirectly",
        Permanent,
        "pinned",
        "it is part of something that is pinned: `unpin` that",
    ),
    ("invalid path", Permanent, "bad_parameters", "correct the parameters"),
    ("invalid cid", Permanent, "bad_parameters", "correct the CID"),
    ("unrecognized", Permanent, "bad_parameters", "correct the parameters"),
    ("chunker", Permanent, "bad_parameters", "use `size-N`"),
    ("over 2mib", Permanent, "bad_parameters", "use smaller chunks"),
    ("pin name", Permanent, "bad_parameters", "use a shorter name"),
    ("unflushed mfs operations", Transient, "busy", "`ipfs files flush` on the node"),
    // It can do nothing any more, though it still answers for a moment.
    ("pinner closed", Outage, GOING_DOWN, "the node is going down"),
    ("repo not open", Outage, GOING_DOWN, "the node is going down"),
    ("datastore closed", Outage, GOING_DOWN, "the node is going down"),
    ("database is closed", Outage, GOING_DOWN, "the node is going down"),
    ("leveldb: closed", Outage, GOING_DOWN, "the node is going down"),
    ("pebble: closed", Outage, GOING_DOWN, "the node is going down"),
    ("shutting down", Transient, GOING_DOWN, "the node is going down"),
    ("shutdown", Transient, GOING_DOWN, "the node is going down"),
    ("someone else has the lock", Transient, "busy", "another program uses the node's repository"),
];

/// What a refusal amounts to, and how long to wait if it says so.
pub(super) fn meaning(refused: &Refused, command: &str, node: &str, now: Time) -> AttemptError {
    let Refused { status, message, code, retry_after } = refused;
    let (class, error_type, advice) = of_status(*status, *code).unwrap_or_else(|| of_text(message));
    let status = if *status == 200 { String::new() } else { format!(" (status {status})") };
    let said = if message.is_empty() { "no reason given" } else { message };
    let failure = Failure {
        class,
        error_type: error_type.to_owned(),
        message: format!("{node} refused `{command}`{status}: {said}; {advice}"),
    };
    let retry_after_ms = retry_after.as_deref().and_then(|text| wait_of(text, now));
    AttemptError::Failed { failure, retry_after_ms }
}

type Meaning = (FailureClass, &'static str, &'static str);

fn of_status(status: u16, code: Option<i64>) -> Option<Meaning> {
    Some(match (status, code) {
        (_, Some(3)) | (429, _) => (Transient, RATE_LIMITED, "it is tried again later"),
        (_, Some(4)) | (401 | 403, _) => (
            Permanent,
            "access_denied",
            "check `token`, or `username` and `password`, of this backend",
        ),
        // From the command itself, not from the layer before it.
        (200 | 400 | 500, Some(_)) | (200 | 500, None) => return None,
        (408, _) => (Transient, "timed_out", "it is tried again later"),
        (300..=399, _) => {
            (Permanent, "redirected", "set `endpoint` to where it leads, if that is to be trusted")
        }
        (404 | 405, _) => (
            Permanent,
            "not_kubo",
            "check that `endpoint` is the address of Kubo's RPC, such as http://localhost:5001/api/v0",
        ),
        (400..=499, _) => (Permanent, "rejected", "correct the parameters"),
        _ => (Transient, UNAVAILABLE, "it is tried again later"),
    })
}

fn of_text(message: &str) -> Meaning {
    let message = message.to_ascii_lowercase();
    let known = MEANINGS.iter().find(|(fragment, ..)| message.contains(fragment));
    known.map_or(
        (Transient, UNKNOWN, "see the node's own messages"),
        |(_, class, error_type, advice)| (*class, error_type, advice),
    )
}

/// Milliseconds that a header `Retry-After` asks for: seconds, or a date.
fn wait_of(text: &str, now: Time) -> Option<u64> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let until = DateTime::parse_from_rfc2822(text.trim()).ok()?.timestamp_millis();
    u64::try_from(until.saturating_sub(now.as_millis())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: Option<i64>, message: &str) -> (FailureClass, String) {
        let refused = Refused { status, message: message.into(), code, retry_after: None };
        match meaning(&refused, "add", "Kubo", Time::from_millis(0)) {
            AttemptError::Failed { failure, .. } => (failure.class, failure.error_type),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_kubo_says_decides_and_what_proxies_say_is_known_by_its_status() {
        for (status, code, message, class, error_type) in [
            (
                500,
                Some(0),
                "pin: block was not found locally (offline): ipld: could not find Qm",
                Transient,
                "not_found",
            ),
            (500, Some(0), "file does not exist", Permanent, "not_found"),
            (500, Some(0), "cannot access a/b/c: Not a directory", Permanent, "bad_path"),
            (
                500,
                Some(0),
                "cp: cannot put node in path /a: directory already has entry by that name",
                Permanent,
                "destination_exists",
            ),
            (500, Some(0), "cannot access config, repo not open", Outage, "interrupted"),
            (500, Some(0), "context canceled", Transient, "interrupted"),
            (500, Some(0), "pinner closed", Outage, "interrupted"),
            (200, None, "write blocks/X.data: no space left on device", Transient, "disk_full"),
            (500, Some(0), "words that no release had before", Transient, "backend_error"),
            (500, Some(3), "slow down", Transient, "rate_limited"),
            (400, Some(1), "invalid path \"x\": no", Permanent, "bad_parameters"),
            (400, None, "strconv.ParseInt", Permanent, "rejected"),
            (403, None, "Kubo RPC Access Denied", Permanent, "access_denied"),
            (404, None, "404 page not found", Permanent, "not_kubo"),
            (301, None, "", Permanent, "redirected"),
            (413, None, "too large", Permanent, "rejected"),
            (500, None, "<html>", Transient, "backend_error"),
            (502, None, "", Transient, "unavailable"),
        ] {
            assert_eq!(
                refused(status, code, message),
                (class, error_type.to_owned()),
                "{status} {message}"
            );
        }
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_as_a_date() {
        let now = Time::from_millis(1_445_412_420_000);
        assert_eq!(wait_of("120", now), Some(120_000));
        assert_eq!(wait_of("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(60_000));
        assert_eq!(wait_of("Wed, 21 Oct 2015 07:26:00 GMT", now), None);
        assert_eq!(wait_of("soon", now), None);
    }
}
