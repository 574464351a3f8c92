//! The audit of completed operations: objects by size and checksum, folders by their objects.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;

use super::location::Location;
use super::objects::size_of;
use super::operation::S3Operation;
use super::{S3Backend, S3Session};
use crate::backend::effect::{AuditResult, Effect, Reach};
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::backend::runtime::{Deadline, QUERY_TIMEOUT_MAX};
use crate::backend::{Attempt, AttemptError, Request};
use crate::operation::{FailureClass, Outcome};

/// The field of a receipt with the number of objects of a folder.
const OBJECTS: &str = "objects";

/// Returns the targets that a completed operation touches; `bucket` is the configured one.
pub(super) fn effects(bucket: Option<&str>, request: &Request, outcome: &Outcome) -> Vec<Effect> {
    let operation = S3Operation::read(request.operation_type.as_str(), &request.parameters);
    let Ok(operation) = operation else { return Vec::new() };
    let name = |location: &Location| {
        let bucket = location.bucket.as_deref().or(bucket).unwrap_or_default();
        format!("key/{bucket}/{}", location.key.trim_end_matches('/'))
    };
    let put =
        |location: &Location, reach| Effect::writes(name(&stored_at(location, outcome)), reach);
    // An object may have the name of a folder, so everything below it may remain.
    let removed = |location: &Location| Effect::removes(name(location), Reach::Prefix);
    let is_folder = outcome.receipt.contains_key(OBJECTS);
    let copied = if outcome.receipt.contains_key("etag") { Reach::Exact } else { Reach::Prefix };
    match operation {
        S3Operation::Put { destination, recursive, .. } => {
            let reach = if is_folder || recursive { Reach::Prefix } else { Reach::Exact };
            vec![put(&destination, reach)]
        }
        S3Operation::Copy { source, destination } => {
            vec![Effect::reads(name(&source), Reach::Tree), put(&destination, copied)]
        }
        S3Operation::Move { source, destination } => {
            vec![removed(&source), put(&destination, copied)]
        }
        S3Operation::MakeFolder { location } => vec![put(&location, Reach::Ensured)],
        S3Operation::Remove { location, .. } => vec![removed(&location)],
        S3Operation::Get { .. } | S3Operation::List { .. } => Vec::new(),
    }
}

/// Returns where the object was stored according to the outcome; the configured bucket may have
/// changed since.
fn stored_at(location: &Location, outcome: &Outcome) -> Location {
    let stored = outcome.destination.as_deref().filter(|stored| stored.starts_with("s3://"));
    stored.and_then(|stored| Location::parse(stored).ok()).unwrap_or_else(|| location.clone())
}

/// Compares the effect of a completed operation with what the service has now.
pub(super) fn audit(
    backend: &S3Backend,
    request: &Request,
    outcome: &Outcome,
    attempt: &Attempt,
) -> Result<AuditResult> {
    match audit_operation(backend, request, outcome, attempt) {
        // Only the bucket of this operation is missing; the configured one would be an outage.
        Err(AttemptError::Failed { failure, .. })
            if failure.class == FailureClass::Permanent
                && failure.error_type == "no_such_bucket" =>
        {
            let bucket = outcome.receipt.get("bucket");
            let bucket = bucket.map_or("the bucket".into(), |name| format!("the bucket `{name}`"));
            Ok(AuditResult::Missing(format!("{bucket} no longer exists")))
        }
        result => result,
    }
}

fn audit_operation(
    backend: &S3Backend,
    request: &Request,
    outcome: &Outcome,
    attempt: &Attempt,
) -> Result<AuditResult> {
    // A large folder takes many calls, so each of them is limited but not their total.
    let deadline = Deadline::new(backend.options.idle.min(QUERY_TIMEOUT_MAX), None);
    let session = S3Session { context: backend.context(attempt, deadline), request };
    let objects = outcome.receipt.get(OBJECTS).and_then(|objects| objects.parse().ok());
    // Operations adopted from the original's log may lack their parameters.
    let Ok(operation) = backend.operation_of(request) else {
        return Ok(AuditResult::NotApplicable);
    };
    match operation {
        S3Operation::Put { destination, .. } => {
            let location = stored_at(&destination, outcome);
            match objects {
                Some(objects) => audit_folder(&session, &location, objects, outcome),
                None => audit_object(&session, &location, outcome),
            }
        }
        S3Operation::Copy { destination, .. } | S3Operation::Move { destination, .. } => {
            let location = stored_at(&destination, outcome);
            match objects {
                Some(objects) => audit_copies(&session, &location, objects),
                None => audit_object(&session, &location, outcome),
            }
        }
        S3Operation::MakeFolder { location } => {
            let location = stored_at(&location, outcome);
            let marker = location.with_key(&location.prefix());
            Ok(match session.context.head(&marker)? {
                Some(_) => AuditResult::Intact,
                None => AuditResult::Missing(format!(
                    "the marker of the folder `{}` no longer exists",
                    url_of(&session, &location)?
                )),
            })
        }
        S3Operation::Get { .. } | S3Operation::Remove { .. } | S3Operation::List { .. } => {
            Ok(AuditResult::NotApplicable)
        }
    }
}

fn url_of(session: &S3Session<'_>, location: &Location) -> Result<String> {
    Ok(format!("s3://{}/{}", session.context.bucket(location)?, location.key))
}

fn audit_object(
    session: &S3Session<'_>,
    location: &Location,
    outcome: &Outcome,
) -> Result<AuditResult> {
    let url = url_of(session, location)?;
    Ok(match session.context.head(location)? {
        None => AuditResult::Missing(format!("`{url}` no longer exists")),
        Some(head) => compare(&url, &head, outcome),
    })
}

/// Audits a folder that was put: its objects carry the id of the operation.
fn audit_folder(
    session: &S3Session<'_>,
    location: &Location,
    objects: u64,
    outcome: &Outcome,
) -> Result<AuditResult> {
    let context = &session.context;
    let url = url_of(session, location)?;
    let (mut count, mut bytes) = (0, 0);
    let mut foreign = Vec::new();
    for object in context.objects_in(location)? {
        stop_if_asked(context.attempt)?;
        let Some(head) = context.head(&location.with_key(&object.key))? else { continue };
        if session.is_own(&head) {
            count += 1;
            bytes += size_of(&head).unwrap_or(0);
        } else {
            foreign.push(object.key);
        }
    }
    // The receipt has only the number of objects; other objects may have replaced some of them.
    let foreign = match foreign.as_slice() {
        [] => String::new(),
        [first] => format!("; `{first}` was not put by this operation"),
        [first, rest @ ..] => {
            format!("; `{first}` and {} more were not put by this operation", rest.len())
        }
    };
    Ok(match outcome.size {
        _ if count == 0 && objects > 0 => AuditResult::Missing(format!(
            "none of the {objects} objects put in `{url}` exists any longer"
        )),
        _ if count < objects => AuditResult::Altered(format!(
            "{count} of {objects} objects in `{url}` are unchanged{foreign}"
        )),
        Some(size) if size != bytes => AuditResult::Altered(format!(
            "the {objects} objects in `{url}` have {bytes} bytes, not {size}"
        )),
        _ => AuditResult::Intact,
    })
}

/// Audits copies, which carry no id of the operation: only their number can be compared.
fn audit_copies(session: &S3Session<'_>, location: &Location, objects: u64) -> Result<AuditResult> {
    let count = session.context.objects_in(location)?.len() as u64;
    let url = url_of(session, location)?;
    Ok(match count {
        0 if objects > 0 => AuditResult::Missing(format!("no object is left in `{url}`")),
        count if count < objects => {
            AuditResult::Altered(format!("{count} of {objects} objects in `{url}` still exist"))
        }
        _ => AuditResult::Intact,
    })
}

/// Compares an object with what was put: by its size, and by a checksum or, if there is none of the
/// same kind on both sides, by its etag.
fn compare(url: &str, head: &HeadObjectOutput, outcome: &Outcome) -> AuditResult {
    if let (Some(put), Some(now)) = (outcome.size, size_of(head))
        && put != now
    {
        return AuditResult::Altered(format!("`{url}` has {now} bytes, not {put}"));
    }
    let altered = |kind: &str, now: &str, put: &str| {
        AuditResult::Altered(format!("`{url}` is not what was put: its {kind} is {now}, not {put}"))
    };
    let checksums = [
        ("checksum_sha256", head.checksum_sha256()),
        ("checksum_crc64nvme", head.checksum_crc64_nvme()),
        ("checksum_crc32c", head.checksum_crc32_c()),
        ("checksum_crc32", head.checksum_crc32()),
        ("checksum_sha1", head.checksum_sha1()),
    ];
    for (kind, now) in checksums {
        let (Some(put), Some(now)) = (outcome.receipt.get(kind), now) else { continue };
        // A checksum of parts cannot be compared with one of the whole.
        if put.contains('-') == now.contains('-') {
            return if put == now { AuditResult::Intact } else { altered(kind, now, put) };
        }
    }
    match (outcome.receipt.get("etag"), head.e_tag()) {
        (Some(put), Some(now)) if put.trim_matches('"') != now.trim_matches('"') => {
            altered("etag", now, put)
        }
        _ => AuditResult::Intact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::effect::tests::{request, words};
    use crate::operation::Fields;

    #[test]
    fn effects_name_the_keys_that_operations_touch() {
        let at = |url: &str| Outcome { destination: Some(url.into()), ..Outcome::default() };
        let mut parts = Outcome::default();
        parts.receipt.insert("objects".into(), "3".into());
        let nothing = Outcome::default();
        for (operation_type, parameters, outcome, expected) in [
            ("upload", &[("path", "/x/f"), ("destination", "s3://b/k")][..], &nothing, "+key/b/k"),
            ("upload", &[("path", "/x/f"), ("destination", "/k/f")], &nothing, "+key/own/k/f"),
            // The bucket at the time counts, whatever the settings say now.
            ("upload", &[("path", "/x/f"), ("destination", "k")], &at("s3://old/k"), "+key/old/k"),
            ("add", &[("path", "/x/f")], &nothing, "+key/own/f"),
            ("add", &[("path", "/x"), ("destination", "d/")], &nothing, "+key/own/d/x"),
            (
                "upload",
                &[("path", "/x"), ("destination", "d/"), ("recursive", "true")],
                &parts,
                "+key/own/d?",
            ),
            ("mkdir", &[("path", "d/")], &nothing, "+key/own/d/"),
            ("rm", &[("path", "d"), ("recursive", "true")], &nothing, "-key/own/d?"),
            (
                "copy",
                &[("source", "a"), ("destination", "s3://b/c")],
                &nothing,
                "<key/own/a/? +key/b/c?",
            ),
            ("move", &[("source", "a"), ("destination", "c")], &nothing, "-key/own/a? +key/own/c?"),
            ("list", &[], &nothing, ""),
        ] {
            let found = effects(Some("own"), &request(operation_type, parameters), outcome);
            assert_eq!(words(&found), expected, "{operation_type} {parameters:?}");
        }
    }

    #[test]
    fn size_then_checksum_then_etag_decide() {
        let head = |size: i64, crc32: Option<&str>, etag: &str| {
            let head = HeadObjectOutput::builder().content_length(size).e_tag(etag);
            head.set_checksum_crc32(crc32.map(str::to_owned)).build()
        };
        let put = |crc32: Option<&str>| {
            let mut receipt = Fields::from([("etag".to_owned(), "\"a\"".to_owned())]);
            receipt.extend(crc32.map(|crc32| ("checksum_crc32".to_owned(), crc32.to_owned())));
            Outcome { size: Some(3), receipt, ..Outcome::default() }
        };
        let is_intact = |head: &HeadObjectOutput, outcome: &Outcome| {
            compare("x", head, outcome) == AuditResult::Intact
        };
        assert!(is_intact(&head(3, None, "a"), &put(None)), "quotes do not matter");
        assert!(!is_intact(&head(3, None, "b"), &put(None)));
        assert!(!is_intact(&head(4, Some("c"), "a"), &put(Some("c"))));
        // A copy, or an object encrypted with another key, has another etag.
        assert!(is_intact(&head(3, Some("c"), "b"), &put(Some("c"))));
        assert!(!is_intact(&head(3, Some("d"), "a"), &put(Some("c"))));
        // A checksum of parts cannot be compared with one of the whole.
        assert!(is_intact(&head(3, Some("d-2"), "a"), &put(Some("c"))));
        assert!(is_intact(&head(3, Some("d"), "a"), &put(None)));
        assert!(
            is_intact(&head(3, None, "b"), &Outcome { size: Some(3), ..Outcome::default() }),
            "only a size to compare"
        );
    }
}
