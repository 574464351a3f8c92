//! The errors of Kubo: the class of each failure, and the next step for a user.
//!
//! Status and code of an error say little, because nearly everything is a 500 with code 0. Its text
//! decides, by fragments: wordings carry prefixes and change between releases.

use chrono::DateTime;

use super::rpc::RpcRejection;
use crate::backend::AttemptError;
use crate::operation::{Failure, FailureClass, Time};

use FailureClass::{Outage, Permanent, Transient};

/// The error type of texts that match no rule.
pub(super) const UNKNOWN: &str = "backend_error";

/// Error types that may apply to every operation with this backend's settings.
pub(super) const CONFIGURATION_ERRORS: [&str; 3] = ["access_denied", "not_kubo", "redirected"];

/// The error type of a proxy without a node behind it, and of an overloaded node.
pub(super) const UNAVAILABLE: &str = "unavailable";

/// The error type of a node that is shutting down.
pub(super) const SHUTTING_DOWN: &str = "interrupted";

/// The error type of rate limits, of the node or of a proxy in front of it.
pub(super) const RATE_LIMITED: &str = "rate_limited";

/// The class and type of an error, with a hint for the user.
#[derive(Debug, Clone, Copy)]
struct RpcErrorClass {
    class: FailureClass,
    error_type: &'static str,
    hint: &'static str,
}

const fn transient(error_type: &'static str, hint: &'static str) -> RpcErrorClass {
    RpcErrorClass { class: Transient, error_type, hint }
}

const fn permanent(error_type: &'static str, hint: &'static str) -> RpcErrorClass {
    RpcErrorClass { class: Permanent, error_type, hint }
}

const fn outage(error_type: &'static str, hint: &'static str) -> RpcErrorClass {
    RpcErrorClass { class: Outage, error_type, hint }
}

const RETRIED: &str = "it will be retried";
const NODE_SHUTTING_DOWN: &str = "the node is shutting down";

/// Fragments of Kubo's error texts in lower case. The first match decides.
const RULES: &[(&str, RpcErrorClass)] = &[
    ("no space left on device", transient("disk_full", "free space on the node's disk")),
    (
        "storagemax",
        transient(
            "disk_full",
            "raise `Datastore.StorageMax` of the node, or run its garbage collection",
        ),
    ),
    (
        "permission denied",
        permanent("permission_denied", "make the repository writable for the node's user"),
    ),
    (
        "context deadline exceeded",
        transient("timed_out", "the node found no provider of the content in time"),
    ),
    ("context canceled", transient(SHUTTING_DOWN, "the node cancelled the command")),
    ("file does not exist", permanent("not_found", "`list` shows the existing names")),
    ("no link named", permanent("not_found", "`list` with `cid` shows the existing entries")),
    ("could not find", transient("not_found", NOT_ON_NODE)),
    ("not found locally", transient("not_found", NOT_ON_NODE)),
    ("failed to find any peer", transient("not_found", NO_PROVIDER)),
    ("no providers", transient("not_found", NO_PROVIDER)),
    ("routing", transient("not_found", "the node could not look up providers of the content")),
    ("already has entry", permanent("destination_exists", "choose another name")),
    ("already exists", permanent("destination_exists", "choose another name")),
    ("is a directory", permanent("is_directory", "use `get`, or `recursive=true`")),
    ("not a directory", permanent("bad_path", "a component of the path is a file")),
    ("pinned recursively", permanent("pinned", "`unpin` it first")),
    (
        "pinned indirectly",
        permanent("pinned", "it is part of pinned content; `unpin` that content first"),
    ),
    ("invalid path", permanent("bad_parameters", "correct the parameters")),
    ("invalid cid", permanent("bad_parameters", "correct the CID")),
    ("unrecognized", permanent("bad_parameters", "correct the parameters")),
    ("chunker", permanent("bad_parameters", "use `size-N`")),
    ("over 2mib", permanent("bad_parameters", "use smaller chunks")),
    ("pin name", permanent("bad_parameters", "use a shorter name")),
    ("unflushed mfs operations", transient("busy", "run `ipfs files flush` on the node")),
    // Such a node completes no command, though it still responds for a moment.
    ("pinner closed", outage(SHUTTING_DOWN, NODE_SHUTTING_DOWN)),
    ("repo not open", outage(SHUTTING_DOWN, NODE_SHUTTING_DOWN)),
    ("datastore closed", outage(SHUTTING_DOWN, NODE_SHUTTING_DOWN)),
    ("database is closed", outage(SHUTTING_DOWN, NODE_SHUTTING_DOWN)),
    ("leveldb: closed", outage(SHUTTING_DOWN, NODE_SHUTTING_DOWN)),
    ("pebble: closed", outage(SHUTTING_DOWN, NODE_SHUTTING_DOWN)),
    ("shutting down", transient(SHUTTING_DOWN, NODE_SHUTTING_DOWN)),
    ("shutdown", transient(SHUTTING_DOWN, NODE_SHUTTING_DOWN)),
    ("else has the lock", transient("busy", "another program is using the node's repository")),
];

const NOT_ON_NODE: &str = "the node does not have the content, or is offline";
const NO_PROVIDER: &str = "the node knows no provider of the content";

/// Returns the failure that a rejection amounts to, with the wait it asks for.
pub(super) fn classify(
    rejection: &RpcRejection,
    command: &str,
    node: &str,
    now: Time,
) -> AttemptError {
    let RpcRejection { status, message, code, retry_after } = rejection;
    let RpcErrorClass { class, error_type, hint } =
        by_status(*status, *code).unwrap_or_else(|| by_text(message));
    let status = if *status == 200 { String::new() } else { format!(" (status {status})") };
    let reason = if message.is_empty() { "no reason given" } else { message };
    let failure = Failure {
        class,
        error_type: error_type.to_owned(),
        message: format!("{node} refused `{command}`{status}: {reason}; {hint}"),
    };
    let retry_after_ms = retry_after.as_deref().and_then(|text| retry_after_ms(text, now));
    AttemptError::Failed { failure, retry_after_ms }
}

fn by_status(status: u16, code: Option<i64>) -> Option<RpcErrorClass> {
    Some(match (status, code) {
        (_, Some(3)) | (429, _) => transient(RATE_LIMITED, RETRIED),
        (_, Some(4)) | (401 | 403, _) => permanent(
            "access_denied",
            "check `token`, or `username` and `password`, of this backend",
        ),
        // An error of the command itself, not of the HTTP layer.
        (200 | 400 | 500, Some(_)) | (200 | 500, None) => return None,
        (408, _) => transient("timed_out", RETRIED),
        (300..=399, _) => permanent(
            "redirected",
            "set `endpoint` to the redirect's target, if you trust that server",
        ),
        (404 | 405, _) => permanent(
            "not_kubo",
            "check that `endpoint` is the address of Kubo's RPC, such as \
             http://localhost:5001/api/v0",
        ),
        (400..=499, _) => permanent("rejected", "correct the parameters"),
        _ => transient(UNAVAILABLE, RETRIED),
    })
}

fn by_text(message: &str) -> RpcErrorClass {
    let message = message.to_ascii_lowercase();
    let rule = RULES.iter().find(|(fragment, _)| message.contains(fragment));
    rule.map_or(transient(UNKNOWN, "see the log of the node"), |(_, class)| *class)
}

/// Returns the milliseconds that a `Retry-After` header asks for, in seconds or as a date.
fn retry_after_ms(text: &str, now: Time) -> Option<u64> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let until = DateTime::parse_from_rfc2822(text.trim()).ok()?.timestamp_millis();
    u64::try_from(until.saturating_sub(now.as_millis())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, code: Option<i64>, message: &str) -> (FailureClass, String) {
        let rejection = RpcRejection { status, message: message.into(), code, retry_after: None };
        match classify(&rejection, "add", "Kubo", Time::from_millis(0)) {
            AttemptError::Failed { failure, .. } => (failure.class, failure.error_type),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_of_kubo_are_classified_by_text_and_of_proxies_by_status() {
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
            (500, Some(0), "an unknown text", Transient, "backend_error"),
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
                classified(status, code, message),
                (class, error_type.to_owned()),
                "{status} {message}"
            );
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_as_a_date() {
        let now = Time::from_millis(1_445_412_420_000);
        assert_eq!(retry_after_ms("120", now), Some(120_000));
        assert_eq!(retry_after_ms("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(60_000));
        assert_eq!(retry_after_ms("Wed, 21 Oct 2015 07:26:00 GMT", now), None);
        assert_eq!(retry_after_ms("soon", now), None);
    }
}
