//! Looking again at what was put: an object by its size and checksum, a folder by the marks of its objects.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;

use super::objects::{OPERATION, size_of};
use super::place::Place;
use super::task::Task;
use super::{QUESTION_MAX, S3Backend, Session};
use crate::backend::effect::{AuditResult, Effect, Reach};
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::backend::runtime::Deadline;
use crate::backend::{Attempt, AttemptError, Request};
use crate::operation::{FailureClass, Outcome};

/// The name under which a receipt tells how many objects a folder came to.
const OBJECTS: &str = "objects";

/// Returns the targets that an operation touches; `bucket` is that of the settings.
pub(super) fn effects(bucket: Option<&str>, request: &Request, outcome: &Outcome) -> Vec<Effect> {
    let Ok(task) = Task::read(request.operation_type.as_str(), &request.parameters) else {
        return Vec::new();
    };
    let named = |place: &Place| {
        let bucket = place.bucket.as_deref().or(bucket).unwrap_or_default();
        format!("key/{bucket}/{}", place.key.trim_end_matches('/'))
    };
    let put = |place: &Place, reach| Effect::writes(named(&as_put(place, outcome)), reach);
    // An object may have the name of a folder: that all below goes with it is not certain.
    let taken = |place: &Place| Effect::removes(named(place), Reach::Prefix);
    let is_folder = outcome.receipt.contains_key(OBJECTS);
    let copied = if outcome.receipt.contains_key("etag") { Reach::Exact } else { Reach::Prefix };
    match task {
        Task::Put { destination, recursive, .. } => {
            let reach = if is_folder || recursive { Reach::Prefix } else { Reach::Exact };
            vec![put(&destination, reach)]
        }
        Task::Copy { source, destination } => {
            vec![Effect::reads(named(&source), Reach::Tree), put(&destination, copied)]
        }
        Task::Move { source, destination } => vec![taken(&source), put(&destination, copied)],
        Task::MakeFolder { place } => vec![put(&place, Reach::Ensured)],
        Task::Remove { place, .. } => vec![taken(&place)],
        Task::Get { .. } | Task::List { .. } => Vec::new(),
    }
}

/// Where it was put, which the settings may not say any more.
fn as_put(place: &Place, outcome: &Outcome) -> Place {
    let noted = outcome.destination.as_deref().filter(|noted| noted.starts_with("s3://"));
    noted.and_then(|noted| Place::parse(noted).ok()).unwrap_or_else(|| place.clone())
}

impl S3Backend {
    pub(super) fn look_again(
        &self,
        request: &Request,
        outcome: &Outcome,
        attempt: &Attempt,
    ) -> Result<AuditResult> {
        match self.look(request, outcome, attempt) {
            // The bucket of this operation alone: that of the settings would be an outage.
            Err(AttemptError::Failed { failure, .. })
                if failure.class == FailureClass::Permanent
                    && failure.error_type == "no_such_bucket" =>
            {
                let bucket = outcome.receipt.get("bucket").map_or("its bucket", |bucket| bucket);
                Ok(AuditResult::Missing(format!("the bucket `{bucket}` is not there any more")))
            }
            seen => seen,
        }
    }

    fn look(&self, request: &Request, outcome: &Outcome, attempt: &Attempt) -> Result<AuditResult> {
        // Of a large folder many objects are looked at: none may take long, and all together as long as they need.
        let session = self.session(
            request,
            attempt,
            Deadline::new(self.options.idle.min(QUESTION_MAX), None),
        );
        let objects = outcome.receipt.get(OBJECTS).and_then(|objects| objects.parse().ok());
        // A directory of the original may have been adopted without its operations' parameters.
        let Ok(task) = self.task_of(request) else { return Ok(AuditResult::NotApplicable) };
        match task {
            Task::Put { destination, .. } => {
                let place = as_put(&destination, outcome);
                match objects {
                    Some(objects) => session.audit_folder(&place, objects, outcome),
                    None => session.audit_object(&place, outcome),
                }
            }
            Task::Copy { destination, .. } | Task::Move { destination, .. } => {
                let place = as_put(&destination, outcome);
                match objects {
                    Some(objects) => session.audit_copies(&place, objects),
                    None => session.audit_object(&place, outcome),
                }
            }
            Task::MakeFolder { place } => {
                let place = as_put(&place, outcome);
                let mark = Place { key: place.prefix(), ..place.clone() };
                Ok(match session.head(&mark)? {
                    Some(_) => AuditResult::Intact,
                    None => AuditResult::Missing(format!(
                        "the mark of the folder `{}` is gone",
                        session.name_of(&place)?
                    )),
                })
            }
            Task::Get { .. } | Task::Remove { .. } | Task::List { .. } => {
                Ok(AuditResult::NotApplicable)
            }
        }
    }
}

impl Session<'_> {
    fn name_of(&self, place: &Place) -> Result<String> {
        Ok(format!("s3://{}/{}", self.bucket(place)?, place.key))
    }

    fn audit_object(&self, place: &Place, outcome: &Outcome) -> Result<AuditResult> {
        let name = self.name_of(place)?;
        Ok(match self.head(place)? {
            None => AuditResult::Missing(format!("`{name}` is not there any more")),
            Some(there) => compare(&name, &there, outcome),
        })
    }

    fn audit_folder(&self, place: &Place, objects: u64, outcome: &Outcome) -> Result<AuditResult> {
        let (id, name) = (self.request.id.to_string(), self.name_of(place)?);
        let (mut count, mut bytes) = (0, 0);
        let mut others = Vec::new();
        for object in self.objects_in(place)? {
            stop_if_asked(self.attempt)?;
            let place = Place { bucket: place.bucket.clone(), key: object.key };
            let Some(there) = self.head(&place)? else { continue };
            if there.metadata().and_then(|metadata| metadata.get(OPERATION)) == Some(&id) {
                count += 1;
                bytes += size_of(&there).unwrap_or(0);
            } else {
                others.push(place.key);
            }
        }
        // What was put is known by its count alone; what else is there may have taken the place of some of it.
        let others = match others.as_slice() {
            [] => String::new(),
            [first] => format!("; `{first}` is somebody else's"),
            [first, rest @ ..] => {
                format!("; `{first}` and {} more are somebody else's", rest.len())
            }
        };
        Ok(match outcome.size {
            _ if count == 0 && objects > 0 => AuditResult::Missing(format!(
                "none of the {objects} objects put in `{name}` is there any more"
            )),
            _ if count < objects => AuditResult::Altered(format!(
                "{count} of {objects} objects in `{name}` are as they were put{others}"
            )),
            Some(size) if size != bytes => AuditResult::Altered(format!(
                "the {objects} objects in `{name}` have {bytes} bytes, not {size}"
            )),
            _ => AuditResult::Intact,
        })
    }

    /// Of copies nothing tells who made them: there have to be as many.
    fn audit_copies(&self, place: &Place, objects: u64) -> Result<AuditResult> {
        let (count, name) = (self.objects_in(place)?.len() as u64, self.name_of(place)?);
        Ok(match count {
            0 if objects > 0 => AuditResult::Missing(format!("nothing is in `{name}` any more")),
            count if count < objects => AuditResult::Altered(format!(
                "{count} of {objects} objects in `{name}` are still there"
            )),
            _ => AuditResult::Intact,
        })
    }
}

/// Whether an object is what was put: of its size, and of its checksum or, where there is none on both sides, its etag.
fn compare(name: &str, there: &HeadObjectOutput, outcome: &Outcome) -> AuditResult {
    if let (Some(put), Some(now)) = (outcome.size, size_of(there))
        && put != now
    {
        return AuditResult::Altered(format!("`{name}` has {now} bytes, not {put}"));
    }
    let checksums = [
        ("checksum_sha256", there.checksum_sha256()),
        ("checksum_crc64nvme", there.checksum_crc64_nvme()),
        ("checksum_crc32c", there.checksum_crc32_c()),
        ("checksum_crc32", there.checksum_crc32()),
        ("checksum_sha1", there.checksum_sha1()),
    ];
    for (kind, now) in checksums {
        let (Some(put), Some(now)) = (outcome.receipt.get(kind), now) else { continue };
        // One of parts and one of the whole cannot be compared.
        if put.contains('-') == now.contains('-') {
            let what = format!(
                "the content of `{name}` is not what was put: its {kind} is {now}, not {put}"
            );
            return if put == now { AuditResult::Intact } else { AuditResult::Altered(what) };
        }
    }
    match (outcome.receipt.get("etag"), there.e_tag()) {
        (Some(put), Some(now)) if put.trim_matches('"') != now.trim_matches('"') => {
            AuditResult::Altered(format!(
                "`{name}` is not what was put: its etag is {now}, not {put}"
            ))
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
        let at = |place: &str| Outcome { destination: Some(place.into()), ..Outcome::default() };
        let mut parts = Outcome::default();
        parts.receipt.insert("objects".into(), "3".into());
        let nothing = Outcome::default();
        for (operation_type, parameters, outcome, expected) in [
            ("upload", &[("path", "/x/f"), ("destination", "s3://b/k")][..], &nothing, "+key/b/k"),
            ("upload", &[("path", "/x/f"), ("destination", "/k/f")], &nothing, "+key/own/k/f"),
            // What it was when it was put counts, whatever the settings say now.
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
        let is_intact = |there: &HeadObjectOutput, outcome: &Outcome| {
            compare("x", there, outcome) == AuditResult::Intact
        };
        assert!(is_intact(&head(3, None, "a"), &put(None)), "quotes mean nothing");
        assert!(!is_intact(&head(3, None, "b"), &put(None)));
        assert!(!is_intact(&head(4, Some("c"), "a"), &put(Some("c"))));
        // Copied to another key, or encrypted with another one, it has another etag.
        assert!(is_intact(&head(3, Some("c"), "b"), &put(Some("c"))));
        assert!(!is_intact(&head(3, Some("d"), "a"), &put(Some("c"))));
        // Checksums of parts say nothing of one of the whole.
        assert!(is_intact(&head(3, Some("d-2"), "a"), &put(Some("c"))));
        assert!(is_intact(&head(3, Some("d"), "a"), &put(None)));
        assert!(
            is_intact(&head(3, None, "b"), &Outcome { size: Some(3), ..Outcome::default() }),
            "nothing but a size"
        );
    }
}
