//! The error of the library's calls.

use super::action::Skipped;
use super::inputs::{BadInput, BadInputs};
use crate::backend::Refusal;
use crate::disk::DiskError;
use crate::operation::{IllegalTransition, InvalidName, Operation};
use crate::wal::{BadPush, WalError};
use crate::worker::NoPush;

/// Errors of a [`Client`](super::Client).
///
/// An operation that fails at its backend is not an error: the failure is part of its state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Reading or writing the log failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// No operation has this number or id, or it was deleted or pruned.
    #[error("there is no operation `{0}`")]
    NoSuchOperation(String),
    /// The text is not a number, a full id, or one of the `@` names.
    #[error(
        "`{0}` is not a valid operation reference: \
         use a number, a full id, `@last` or `@failed`"
    )]
    BadReference(String),
    /// Some inputs were rejected, so none was logged.
    #[error("nothing was logged: {} of {total} inputs cannot be used", bad.count)]
    BadInputs {
        /// The rejected inputs.
        bad: BadInputs,
        /// The number of all inputs.
        total: u64,
    },
    /// The backend is unknown or not configured, or rejects the type or the parameters.
    #[error("nothing was logged: {0}")]
    Refused(#[from] Refusal),
    /// Archives cannot be pushed with these options.
    #[error("nothing was logged: {0}")]
    BadPush(#[from] BadPush),
    /// One idempotency key was given for several operations.
    #[error("nothing was logged: one idempotency key cannot identify {operations} operations")]
    OneKey {
        /// The number of operations.
        operations: u64,
    },
    /// The idempotency key is empty, too long, or has control characters.
    #[error(
        "nothing was logged: invalid idempotency key `{}`: expected 1 to 512 bytes without a \
         line break",
        key.escape_debug()
    )]
    BadKey {
        /// The key's first 80 characters.
        key: String,
    },
    /// Logging is switched off by the setting `enabled`.
    #[error("nothing was logged: the log is switched off (`enabled` is false)")]
    Disabled,
    /// The action does not apply to some of the operations, so none was changed.
    #[error("{}", not_applicable(action, skipped))]
    NotApplicable {
        /// The past participle of the action: `cancelled`.
        action: &'static str,
        /// The operations that it does not apply to, each with the reason.
        skipped: Vec<Skipped>,
    },
    /// The transition is not legal from the operation's status.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The timeout passed before these operations ended.
    #[error("{} of the operations had not ended in time", unfinished.len())]
    TimedOut {
        /// The operations as last read; empty if there are too many to hold in memory.
        unfinished: Vec<Operation>,
    },
    /// A stop was requested.
    #[error("interrupted")]
    Interrupted,
}

impl From<InvalidName> for ClientError {
    fn from(error: InvalidName) -> ClientError {
        Refusal::BadParameters(error.to_string()).into()
    }
}

impl From<BadInput> for ClientError {
    fn from(bad: BadInput) -> ClientError {
        ClientError::BadInputs { bad: bad.into(), total: 1 }
    }
}

fn not_applicable(action: &str, skipped: &[Skipped]) -> String {
    match skipped {
        [one] => format!("operation {} cannot be {action}: {}", one.number, one.why),
        several => format!("nothing was changed: {} operations cannot be {action}", several.len()),
    }
}

impl From<NoPush> for ClientError {
    fn from(error: NoPush) -> ClientError {
        match error {
            NoPush::Bad(bad) => bad.into(),
            NoPush::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<DiskError> for ClientError {
    fn from(error: DiskError) -> ClientError {
        ClientError::Wal(error.into())
    }
}
