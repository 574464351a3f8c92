//! The errors of S3: the class of each failure, its cause, and the next step for a user.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_types::error::display::DisplayErrorContext;

use crate::backend::runtime::WaitError;
use crate::operation::FailureClass;

use FailureClass::{Outage, Permanent, Transient};

/// The reason why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum S3Error {
    /// The attempt was cancelled.
    Cancelled,
    /// No connection was established, or it was lost; the text says which.
    ConnectionLost(String),
    /// A limit was reached; the text says which one.
    TimedOut(String),
    /// This machine cannot make calls now, so nothing was sent; the text says why, with a hint.
    NoNetwork(String),
    /// The request cannot be built, for example without credentials.
    InvalidRequest(String),
    /// The service refused the request.
    Rejected(S3Rejection),
}

/// A refusal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct S3Rejection {
    /// The HTTP status.
    pub(super) status: u16,
    /// The error code, such as `NoSuchKey`; empty if there is none.
    pub(super) code: String,
    pub(super) message: String,
    /// The header `Retry-After` in seconds.
    pub(super) retry_after: Option<u64>,
}

impl S3Error {
    /// Returns the error for a response without the etag that every S3 service returns.
    pub(super) fn no_etag() -> S3Error {
        S3Error::unexpected("the response has no etag")
    }

    /// Returns the error for a response that no S3 service gives.
    pub(super) fn unexpected(message: &str) -> S3Error {
        S3Error::Rejected(S3Rejection {
            status: 200,
            code: "BadAnswer".into(),
            message: message.into(),
            retry_after: None,
        })
    }

    pub(super) fn is_no_such_bucket(&self) -> bool {
        matches!(self, S3Error::Rejected(rejection) if rejection.code == "NoSuchBucket")
    }
}

impl S3Rejection {
    /// Returns whether the rejection has one of S3's own error codes.
    pub(super) fn has_error_code(&self) -> bool {
        !self.code.is_empty() && self.code != "NotFound"
    }

    /// Returns whether the service may not support the request.
    pub(super) fn may_be_unsupported(&self) -> bool {
        match &self.code[..] {
            "NotImplemented" | "InvalidArgument" | "InvalidRequest" | "MethodNotAllowed" => true,
            "" => matches!(self.status, 400 | 405 | 501),
            _ => false,
        }
    }

    /// Returns whether the condition of a conditional request was not met.
    pub(super) fn is_precondition_failed(&self) -> bool {
        self.code == "PreconditionFailed" || self.status == 412
    }

    /// Returns whether an upload no longer exists, alone or with its bucket.
    pub(super) fn is_upload_missing(&self) -> bool {
        self.code == "NoSuchUpload" || self.code == "NoSuchBucket"
    }

    /// Returns whether the object does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == "NoSuchKey"
            || self.code == "NotFound"
            || (self.status == 404 && self.code.is_empty())
    }

    /// Returns the same rejection as a conflict with another change to the object.
    pub(super) fn into_conflict(self) -> S3Error {
        S3Error::Rejected(S3Rejection { code: "OperationAborted".into(), ..self })
    }
}

impl From<WaitError> for S3Error {
    fn from(error: WaitError) -> S3Error {
        match error {
            WaitError::Cancelled => S3Error::Cancelled,
            WaitError::TimedOut(reason) => S3Error::TimedOut(reason),
        }
    }
}

impl<E> From<SdkError<E>> for S3Error
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> S3Error {
        match &error {
            SdkError::ServiceError(service) => {
                let meta = service.err().meta();
                let raw = service.raw();
                let retry_after =
                    raw.headers().get("retry-after").and_then(|text| text.trim().parse().ok());
                S3Error::Rejected(S3Rejection {
                    status: raw.status().as_u16(),
                    code: meta.code().unwrap_or_default().to_owned(),
                    message: meta.message().unwrap_or_default().to_owned(),
                    retry_after,
                })
            }
            // The connection was lost before the response was complete.
            SdkError::ResponseError(response) if response.raw().body().bytes().is_none() => {
                S3Error::ConnectionLost(innermost_cause(&error))
            }
            SdkError::ResponseError(_) => S3Error::unexpected(&innermost_cause(&error)),
            SdkError::ConstructionFailure(_) => S3Error::InvalidRequest(innermost_cause(&error)),
            SdkError::DispatchFailure(_) if has_cause::<CredentialsError>(&error) => {
                S3Error::InvalidRequest(format!(
                    "no access key was found ({})",
                    innermost_cause(&error).trim_end_matches('.')
                ))
            }
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                S3Error::InvalidRequest(innermost_cause(&error))
            }
            _ => S3Error::ConnectionLost(innermost_cause(&error)),
        }
    }
}

/// Returns whether an error or one of its causes has this type.
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

/// Returns the text of the innermost cause, which is the most specific one.
pub(super) fn innermost_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    if text.is_empty() { DisplayErrorContext(error).to_string() } else { text }
}

/// The class and type of an error, with a hint for the user.
#[derive(Debug, Clone, Copy)]
pub(super) struct S3ErrorClass {
    pub(super) class: FailureClass,
    pub(super) error_type: &'static str,
    pub(super) hint: &'static str,
}

fn transient(error_type: &'static str, hint: &'static str) -> S3ErrorClass {
    S3ErrorClass { class: Transient, error_type, hint }
}

fn permanent(error_type: &'static str, hint: &'static str) -> S3ErrorClass {
    S3ErrorClass { class: Permanent, error_type, hint }
}

fn outage(error_type: &'static str, hint: &'static str) -> S3ErrorClass {
    S3ErrorClass { class: Outage, error_type, hint }
}

const RETRIED: &str = "it will be retried";
const NOT_S3: &str = "check that `endpoint` is the address of an S3 service";
const GRANT: &str = "grant this key the permission, or use another key";
const FULL: &str = "free space there, or raise the quota; it will be retried";

/// Returns what a rejection means.
pub(super) fn classify(rejection: &S3Rejection) -> S3ErrorClass {
    // An error inside a successful response is an internal error of the service.
    let is_success = rejection.has_error_code() && rejection.status < 300;
    let status = if is_success { 500 } else { rejection.status };
    by_code(error_code(rejection)).unwrap_or_else(|| by_status(status))
}

/// Returns the error code. Garage reports `AccessDenied` for reasons that have their own codes
/// elsewhere.
fn error_code(rejection: &S3Rejection) -> &str {
    let is_about_keys =
        ["Invalid signature", "No such key"].iter().any(|text| rejection.message.contains(text));
    if rejection.code == "AccessDenied" && is_about_keys {
        "InvalidAccessKeyId"
    } else {
        &rejection.code
    }
}

/// Classifies an error code, including codes that only MinIO or Ceph use.
fn by_code(code: &str) -> Option<S3ErrorClass> {
    Some(match code {
        // Credentials, clock, bucket and region: not an operation's fault, unless a probe succeeds.
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSecurity"
        | "ExpiredToken"
        | "InvalidToken" => outage(
            "bad_credentials",
            "correct the access key, its secret or the session token of this backend",
        ),
        "RequestTimeTooSkewed" | "RequestExpired" => outage(
            "clock_skew",
            "correct the clock of this machine or of the service: they differ by more than 15 \
             minutes",
        ),
        "NoSuchBucket" => outage("no_such_bucket", "create the bucket, or correct its name"),
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            outage("wrong_region", "set `region` of this backend to the region of the bucket")
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => {
            permanent("access_denied", GRANT)
        }
        "NoSuchKey" => permanent("not_found", "`list` shows the existing keys"),
        "PreconditionFailed" => permanent("destination_exists", "choose another key"),
        "InvalidObjectState" => {
            permanent("archived", "the object is in cold storage; have it restored first")
        }
        "EntityTooLarge" | "EntityTooSmall" => {
            permanent("bad_size", "check which sizes the service accepts")
        }
        "NotImplemented" => permanent("unsupported", "this service does not support the request"),
        "NoSuchUpload" => transient("upload_lost", "the upload will be started again"),
        "ConditionalRequestConflict" | "OperationAborted" => {
            transient("conflict", "another program is changing the same object; it will be retried")
        }
        "QuotaExceeded"
        | "InsufficientStorage"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded" => transient("storage_full", FULL),
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch" => {
            transient("damaged_content", "it was damaged in transit, and will be sent again")
        }
        "SlowDown" | "TooManyRequests" | "RequestLimitExceeded" => {
            transient("rate_limited", RETRIED)
        }
        "RequestTimeout" => transient("timed_out", RETRIED),
        "BadAnswer" => transient("bad_answer", NOT_S3),
        _ => return None,
    })
}

/// Classifies the HTTP status of a rejection without a known error code.
fn by_status(status: u16) -> S3ErrorClass {
    match status {
        200..=299 => transient("bad_answer", NOT_S3),
        300..=399 => outage(
            "wrong_region",
            "set `region` and `endpoint` of this backend to those of the bucket",
        ),
        401 | 403 => permanent("access_denied", GRANT),
        404 => permanent("not_found", "`list` shows the existing keys"),
        408 => transient("timed_out", RETRIED),
        412 => permanent("destination_exists", "choose another key"),
        429 => transient("rate_limited", RETRIED),
        501 => permanent("unsupported", "this service does not support the request"),
        507 => transient("storage_full", FULL),
        400..=499 => permanent("rejected", "correct the parameters"),
        _ => transient("unavailable", RETRIED),
    }
}

/// Returns the class of a rejection whose class depends on a probe, for the case that the probe
/// succeeds; `None` if the class does not depend on one.
pub(super) fn class_if_reachable(error_type: &str, has_error_code: bool) -> Option<FailureClass> {
    match error_type {
        // Without an error code the response may come from a server that is not an S3 service.
        "not_found" if !has_error_code => Some(Permanent),
        "rejected" | "bad_credentials" | "no_such_bucket" | "wrong_region" | "access_denied" => {
            Some(Permanent)
        }
        "unavailable" => Some(Transient),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_errors_mean_an_unsupported_request() {
        let may_be_unsupported = |status, code: &str| {
            S3Rejection { status, code: code.into(), message: String::new(), retry_after: None }
                .may_be_unsupported()
        };
        for (status, code) in
            [(501, ""), (501, "NotImplemented"), (400, ""), (400, "InvalidArgument"), (405, "")]
        {
            assert!(may_be_unsupported(status, code), "{status} {code}");
        }
        for (status, code) in
            [(400, "RequestTimeout"), (400, "ExpiredToken"), (403, ""), (412, ""), (500, "")]
        {
            assert!(!may_be_unsupported(status, code), "{status} {code}");
        }
    }

    #[test]
    fn the_error_code_decides_before_the_status() {
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
            let rejection = S3Rejection {
                status,
                code: code.into(),
                message: String::new(),
                retry_after: None,
            };
            let found = classify(&rejection);
            assert_eq!((found.class, found.error_type), (class, error_type), "{status} {code}");
        }
        for (message, error_type) in [
            ("Forbidden: Invalid signature", "bad_credentials"),
            ("Forbidden: No such key: GK00", "bad_credentials"),
            ("Forbidden: Operation is not allowed for this key.", "access_denied"),
        ] {
            let rejection = S3Rejection {
                status: 403,
                code: "AccessDenied".into(),
                message: message.into(),
                retry_after: None,
            };
            assert_eq!(classify(&rejection).error_type, error_type, "{message}");
        }
    }

    #[test]
    fn rejections_of_settings_depend_on_a_probe() {
        for (error_type, has_code, expected) in [
            ("not_found", false, Some(Permanent)),
            ("not_found", true, None),
            ("rejected", true, Some(Permanent)),
            ("bad_credentials", true, Some(Permanent)),
            ("no_such_bucket", true, Some(Permanent)),
            ("wrong_region", false, Some(Permanent)),
            ("access_denied", false, Some(Permanent)),
            ("unavailable", false, Some(Transient)),
            ("rate_limited", true, None),
            ("clock_skew", true, None),
            ("storage_full", true, None),
            ("bad_answer", true, None),
        ] {
            let found = class_if_reachable(error_type, has_code);
            assert_eq!(found, expected, "{error_type} {has_code}");
        }
    }
}
