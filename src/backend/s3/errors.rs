//! What errors of S3 mean: whose fault they are, whether to try again, and what a person can do.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_types::error::display::DisplayErrorContext;

use crate::backend::runtime::WaitError;
use crate::operation::FailureClass;

use FailureClass::{Outage, Permanent, Transient};

/// Why a call brought no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The attempt was cancelled.
    Stopped,
    /// No connection came about, or it broke off; the text says which.
    NoAnswer(String),
    /// A limit was reached; the text says which.
    TimedOut(String),
    /// This machine can make no calls now, so nothing was sent; the text says why, and what to do.
    NoNetwork(String),
    /// The call cannot even be made: no credentials, for example.
    Unusable(String),
    /// The service said no.
    Refused(Refused),
}

/// What the service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The HTTP status.
    pub(super) status: u16,
    /// The word for it, such as `NoSuchKey`; empty where none came.
    pub(super) code: String,
    pub(super) message: String,
    /// The header `Retry-After`, in seconds.
    pub(super) retry_after: Option<u64>,
}

impl Trouble {
    /// Whether it says that there is no such bucket.
    pub(super) fn is_no_bucket(&self) -> bool {
        matches!(self, Trouble::Refused(refused) if refused.code == "NoSuchBucket")
    }
}

impl Refused {
    /// An answer that no service of this kind gives.
    pub(super) fn nonsense(message: &str) -> Refused {
        Refused {
            status: 200,
            code: "BadAnswer".into(),
            message: message.into(),
            retry_after: None,
        }
    }

    /// Whether it says what is wrong in a word of S3's own.
    pub(super) fn is_worded(&self) -> bool {
        !self.code.is_empty() && self.code != "NotFound"
    }

    /// Whether the service may not have understood what was asked.
    pub(super) fn is_misunderstood(&self) -> bool {
        match &self.code[..] {
            "NotImplemented" | "InvalidArgument" | "InvalidRequest" | "MethodNotAllowed" => true,
            "" => matches!(self.status, 400 | 405 | 501),
            _ => false,
        }
    }

    /// Whether something is there already, where nothing or something else was to be.
    pub(super) fn is_occupied(&self) -> bool {
        self.code == "PreconditionFailed" || self.status == 412
    }

    /// Whether an upload is not there any more, for whatever reason.
    pub(super) fn is_gone(&self) -> bool {
        self.code == "NoSuchUpload" || self.code == "NoSuchBucket"
    }

    /// Whether there is no such object.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == "NoSuchKey"
            || self.code == "NotFound"
            || (self.status == 404 && self.code.is_empty())
    }
}

impl From<WaitError> for Trouble {
    fn from(unfinished: WaitError) -> Trouble {
        match unfinished {
            WaitError::Cancelled => Trouble::Stopped,
            WaitError::TimedOut(what) => Trouble::TimedOut(what),
        }
    }
}

impl<E> From<SdkError<E>> for Trouble
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Trouble {
        match &error {
            SdkError::ServiceError(service) => {
                let meta = service.err().meta();
                let raw = service.raw();
                let retry_after =
                    raw.headers().get("retry-after").and_then(|text| text.trim().parse().ok());
                Trouble::Refused(Refused {
                    status: raw.status().as_u16(),
                    code: meta.code().unwrap_or_default().to_owned(),
                    message: meta.message().unwrap_or_default().to_owned(),
                    retry_after,
                })
            }
            // It broke off before all of it was there.
            SdkError::ResponseError(response) if response.raw().body().bytes().is_none() => {
                Trouble::NoAnswer(last_cause(&error))
            }
            SdkError::ResponseError(_) => Trouble::Refused(Refused::nonsense(&last_cause(&error))),
            SdkError::ConstructionFailure(_) => Trouble::Unusable(last_cause(&error)),
            SdkError::DispatchFailure(_) if has_cause::<CredentialsError>(&error) => {
                Trouble::Unusable(format!(
                    "no access keys were found ({})",
                    last_cause(&error).trim_end_matches('.')
                ))
            }
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                Trouble::Unusable(last_cause(&error))
            }
            _ => Trouble::NoAnswer(last_cause(&error)),
        }
    }
}

/// Whether one of the causes is of this kind.
pub(super) fn has_cause<C: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<C>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The innermost cause, which says most.
pub(super) fn last_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    if text.is_empty() { DisplayErrorContext(error).to_string() } else { text }
}

/// What a refusal means: class, type, and what to do.
pub(super) fn meaning(refused: &Refused) -> Meaning {
    // An error inside an answer of success is one of the service's own.
    let status = if refused.is_worded() && refused.status < 300 { 500 } else { refused.status };
    by_word(word_of(refused)).unwrap_or_else(|| by_status(status))
}

/// The word for a refusal. Garage calls denied what others call by the name of the reason.
fn word_of(refused: &Refused) -> &str {
    let is_about_keys =
        ["Invalid signature", "No such key"].iter().any(|text| refused.message.contains(text));
    if refused.code == "AccessDenied" && is_about_keys {
        "InvalidAccessKeyId"
    } else {
        &refused.code
    }
}

type Meaning = (FailureClass, &'static str, &'static str);

/// By the services' own words. Those of MinIO and Ceph stand among them.
fn by_word(code: &str) -> Option<Meaning> {
    Some(match code {
        // About who we are and where we look: no fault of any operation's, unless a probe says otherwise.
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSecurity"
        | "ExpiredToken"
        | "InvalidToken" => (
            Outage,
            "bad_credentials",
            "correct the access key, its secret or the session token of this backend",
        ),
        "RequestTimeTooSkewed" | "RequestExpired" => (
            Outage,
            "clock_skew",
            "set the clock of this machine, or of the service: they differ by more than 15 minutes",
        ),
        "NoSuchBucket" => {
            (Outage, "no_such_bucket", "make the bucket, or correct its name where it is given")
        }
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            (Outage, "wrong_region", "set `region` of this backend to the bucket's")
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => {
            (Permanent, "access_denied", "allow this key to do that, or use another one")
        }
        "NoSuchKey" => (Permanent, "not_found", "`list` shows what there is"),
        "PreconditionFailed" => (Permanent, "destination_exists", "choose another key"),
        "InvalidObjectState" => {
            (Permanent, "archived", "it is in cold storage: have it restored first")
        }
        "EntityTooLarge" | "EntityTooSmall" => {
            (Permanent, "bad_size", "see what sizes the service takes")
        }
        "NotImplemented" => (Permanent, "unsupported", "this service cannot do that"),
        "NoSuchUpload" => (Transient, "upload_lost", "it is begun anew"),
        "ConditionalRequestConflict" | "OperationAborted" => (
            Transient,
            "conflict",
            "somebody else changes the same object; it is tried again later",
        ),
        "QuotaExceeded"
        | "InsufficientStorage"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded" => (
            Transient,
            "storage_full",
            "make room there, or raise the quota; it is tried again later",
        ),
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch" => {
            (Transient, "damaged_content", "it was spoilt on the way, and is sent again")
        }
        "SlowDown" | "TooManyRequests" | "RequestLimitExceeded" => {
            (Transient, "rate_limited", "it is tried again later")
        }
        "RequestTimeout" => (Transient, "timed_out", "it is tried again later"),
        "BadAnswer" => {
            (Transient, "bad_answer", "see whether `endpoint` is the address of an S3 service")
        }
        _ => return None,
    })
}

/// Where there is no word that we know.
fn by_status(status: u16) -> Meaning {
    match status {
        200..=299 => {
            (Transient, "bad_answer", "see whether `endpoint` is the address of an S3 service")
        }
        300..=399 => {
            (Outage, "wrong_region", "set `region` and `endpoint` of this backend to the bucket's")
        }
        401 | 403 => (Permanent, "access_denied", "allow this key to do that, or use another one"),
        404 => (Permanent, "not_found", "`list` shows what there is"),
        408 => (Transient, "timed_out", "it is tried again later"),
        412 => (Permanent, "destination_exists", "choose another key"),
        429 => (Transient, "rate_limited", "it is tried again later"),
        501 => (Permanent, "unsupported", "this service cannot do that"),
        507 => (
            Transient,
            "storage_full",
            "make room there, or raise the quota; it is tried again later",
        ),
        400..=499 => (Permanent, "rejected", "correct the parameters"),
        _ => (Transient, "unavailable", "it is tried again later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_no_trouble_on_the_way() {
        let is_misunderstood = |status, code: &str| {
            Refused { status, code: code.into(), message: String::new(), retry_after: None }
                .is_misunderstood()
        };
        for (status, code) in
            [(501, ""), (501, "NotImplemented"), (400, ""), (400, "InvalidArgument"), (405, "")]
        {
            assert!(is_misunderstood(status, code), "{status} {code}");
        }
        for (status, code) in
            [(400, "RequestTimeout"), (400, "ExpiredToken"), (403, ""), (412, ""), (500, "")]
        {
            assert!(!is_misunderstood(status, code), "{status} {code}");
        }
    }

    #[test]
    fn the_word_counts_before_the_status() {
        for (status, code, class, error_type) in [
            (404, "NoSuchUpload", Transient, "upload_lost"),
            (404, "NoSuchKey", Permanent, "not_found"),
            (404, "NoSuchBucket", Outage, "no_such_bucket"),
            (404, "", Permanent, "not_found"),
            (403, "InvalidObjectState", Permanent, "archived"),
            (403, "QuotaExceeded", Transient, "storage_full"),
            (400, "XMinioAdminBucketQuotaExceeded", Transient, "storage_full"),
            (403, "AccessDenied", Permanent, "access_denied"),
            (403, "", Permanent, "access_denied"),
            (403, "SignatureDoesNotMatch", Outage, "bad_credentials"),
            (403, "RequestTimeTooSkewed", Outage, "clock_skew"),
            (400, "AuthorizationHeaderMalformed", Outage, "wrong_region"),
            (301, "", Outage, "wrong_region"),
            (400, "IncompleteBody", Transient, "damaged_content"),
            (400, "RequestTimeout", Transient, "timed_out"),
            (400, "SomethingNew", Permanent, "rejected"),
            (405, "", Permanent, "rejected"),
            (409, "OperationAborted", Transient, "conflict"),
            (412, "", Permanent, "destination_exists"),
            (429, "", Transient, "rate_limited"),
            (503, "SlowDown", Transient, "rate_limited"),
            (503, "", Transient, "unavailable"),
            (500, "InternalError", Transient, "unavailable"),
            (200, "InternalError", Transient, "unavailable"),
            (200, "", Transient, "bad_answer"),
            (501, "NotImplemented", Permanent, "unsupported"),
            (507, "", Transient, "storage_full"),
        ] {
            let refused =
                Refused { status, code: code.into(), message: String::new(), retry_after: None };
            let (found, name, _) = meaning(&refused);
            assert_eq!((found, name), (class, error_type), "{status} {code}");
        }
        for (message, error_type) in [
            ("Forbidden: Invalid signature", "bad_credentials"),
            ("Forbidden: No such key: GK00", "bad_credentials"),
            ("Forbidden: Operation is not allowed for this key.", "access_denied"),
        ] {
            let refused = Refused {
                status: 403,
                code: "AccessDenied".into(),
                message: message.into(),
                retry_after: None,
            };
            assert_eq!(meaning(&refused).1, error_type, "{message}");
        }
    }
}
