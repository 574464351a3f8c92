use super::Skipped;
use super::batch::BadInputs;
use crate::backend::Refusal;
use crate::disk::DiskError;
use crate::operation::{IllegalTransition, Operation};
use crate::wal::{BadPush, WalError};
use crate::worker::NoPush;

/// One input that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadInput {
    /// The line it stood on, if it came from a file.
    pub line: Option<u64>,
    /// The path or line, as it was given.
    pub input: String,
    /// A stable word: `not_found`, `permission_denied`, `unsupported_file`, …
    pub error_type: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl From<BadInput> for ClientError {
    fn from(bad: BadInput) -> ClientError {
        ClientError::BadInputs { bad: BadInputs { listed: vec![bad], count: 1 }, total: 1 }
    }
}

/// What can go wrong for a caller. Each kind says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The log: see [`WalError`].
    #[error(transparent)]
    Wal(#[from] WalError),
    /// No such operation: look at the list.
    #[error("there is no operation `{0}`")]
    NoSuchOperation(String),
    /// It is no way to name an operation.
    #[error("`{0}` names no operation: use a number, a full id, `@last` or `@failed`")]
    BadReference(String),
    /// Some inputs were refused, so nothing was logged.
    #[error("nothing was logged: {} of {total} inputs cannot be used", bad.count)]
    BadInputs {
        /// Which, and why.
        bad: BadInputs,
        /// How many inputs there were.
        total: u64,
    },
    /// The backend or the parameters were refused.
    #[error("nothing was logged: {0}")]
    Refused(#[from] Refusal),
    /// Archives cannot be pushed like that.
    #[error("nothing was logged: {0}")]
    BadPush(#[from] BadPush),
    /// One key for several operations.
    #[error("nothing was logged: a key stands for one operation, and these are {operations}")]
    OneKey {
        /// How many.
        operations: u64,
    },
    /// It cannot serve as a key.
    #[error("nothing was logged: `{}` cannot be a key: it takes 1 to 512 bytes of text on one line", key.escape_debug())]
    BadKey {
        /// Its beginning.
        key: String,
    },
    /// Logging is switched off.
    #[error("nothing was logged: the log is switched off (`enabled` is false)")]
    Disabled,
    /// It does not apply to some of the operations, so nothing was changed.
    #[error("{}", not_applicable(what, skipped))]
    NotApplicable {
        /// What was to be done to them.
        what: &'static str,
        /// Which, and why not.
        skipped: Vec<Skipped>,
    },
    /// The change is not allowed.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// Time ran out; these had not ended.
    #[error("{} of the operations had not ended in time", unfinished.len())]
    TimedOut {
        /// As they were last seen.
        unfinished: Vec<Operation>,
    },
    /// The wait was interrupted.
    #[error("interrupted")]
    Interrupted,
}

fn not_applicable(what: &str, skipped: &[Skipped]) -> String {
    match skipped {
        [one] => format!("operation {} cannot be {what}: {}", one.number, one.why),
        several => format!("nothing was changed: {} operations cannot be {what}", several.len()),
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
