//! Exit codes: what scripts and cron see. One enum, one table, one mapping from errors.

use std::process::ExitCode;

use crate::backend::Refusal;
use crate::client::ClientError;
use crate::report::ErrorType;
use crate::wal::WalError;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// An operation waited for or drained failed, a backend is offline, or inputs were left out.
    Failed = 1,
    /// Wrong usage, configuration, or a change that is not allowed.
    Usage = 2,
    /// No such operation.
    NotFound = 3,
    /// Time ran out.
    TimedOut = 4,
    /// A lock was not obtained.
    Busy = 5,
    /// The log is damaged or of a newer format.
    Damaged = 6,
    /// The disk: nothing was logged, or nobody can say that it is durable.
    Disk = 7,
    /// Interrupted.
    Interrupted = 130,
}

/// The table for `--help`.
pub const TABLE: &str = "\
Exit codes:
  0    done
  1    an operation waited for or drained failed; a backend is offline (health);
       inputs were left out (--keep-going); a disk is not safe (verify --durability);
       a repair could not save everything (verify --repair);
       something completed is gone, altered or out of reach (verify --remote)
  2    wrong usage or settings, or a change that is not allowed
  3    no such operation
  4    timed out
  5    busy: a lock was not obtained
  6    the log is damaged or of a newer format
  7    disk: nothing was logged, or it is unconfirmed
  130  interrupted";

impl Exit {
    /// Of several causes, the one that decides: the first of 6, 7, 5, 2, 3, 1, 4.
    pub fn or(self, other: Exit) -> Exit {
        if self.rank() <= other.rank() { self } else { other }
    }

    fn rank(self) -> u8 {
        match self {
            Exit::Interrupted => 0,
            Exit::Damaged => 1,
            Exit::Disk => 2,
            Exit::Busy => 3,
            Exit::Usage => 4,
            Exit::NotFound => 5,
            Exit::Failed => 6,
            Exit::TimedOut => 7,
            Exit::Done => 8,
        }
    }
}

/// What kind of error it is, for scripts.
pub fn error_type(error: &ClientError) -> ErrorType {
    match error {
        ClientError::Wal(error) => of_wal(error),
        ClientError::NoSuchOperation(_) => ErrorType::NoSuchOperation,
        ClientError::BadReference(_) => ErrorType::BadReference,
        ClientError::BadInputs { .. } => ErrorType::BadInputs,
        ClientError::Refused(refusal) => of_refusal(refusal),
        ClientError::BadPush(_) => ErrorType::BadParameters,
        ClientError::OneKey { .. } | ClientError::BadKey { .. } => ErrorType::BadKey,
        ClientError::Disabled => ErrorType::Disabled,
        ClientError::NotApplicable { .. } => ErrorType::NotApplicable,
        ClientError::Illegal(_) => ErrorType::IllegalChange,
        ClientError::TimedOut { .. } => ErrorType::TimedOut,
        ClientError::Interrupted => ErrorType::Interrupted,
    }
}

fn of_refusal(refusal: &Refusal) -> ErrorType {
    match refusal {
        Refusal::Unknown { .. } => ErrorType::UnknownBackend,
        Refusal::NotBuilt { .. } => ErrorType::BackendNotBuilt,
        Refusal::Unconfigured { .. } => ErrorType::BackendUnconfigured,
        Refusal::Unsupported { .. } => ErrorType::Unsupported,
        Refusal::BadParameters(_) => ErrorType::BadParameters,
    }
}

fn of_wal(error: &WalError) -> ErrorType {
    match error {
        WalError::Busy { .. } => ErrorType::Busy,
        WalError::Damaged(_) => ErrorType::Damaged,
        WalError::NewerFormat { .. } => ErrorType::NewerFormat,
        WalError::NotOurs { .. } => ErrorType::NotOurs,
        WalError::OriginalAtWork { .. } => ErrorType::OriginalAtWork,
        WalError::NotLogged(_) => ErrorType::NotLogged,
        WalError::NoSpace { .. } | WalError::NoRoom { .. } | WalError::NoRoomForOutcomes { .. } => {
            ErrorType::NoSpace
        }
        WalError::Unconfirmed { .. } => ErrorType::Unconfirmed,
        WalError::KeyTaken { .. } | WalError::KeyTwice { .. } => ErrorType::KeyConflict,
        WalError::UnknownDependency { .. } => ErrorType::UnknownDependency,
        WalError::HasDependents { .. } => ErrorType::HasDependents,
        WalError::TooLarge { .. } => ErrorType::TooLarge,
        WalError::Conflict { .. } => ErrorType::Conflict,
        WalError::Illegal(_) => ErrorType::IllegalChange,
        WalError::Disk(_) => ErrorType::Disk,
    }
}

impl From<ErrorType> for Exit {
    fn from(kind: ErrorType) -> Exit {
        match kind {
            ErrorType::OperationFailed
            | ErrorType::Offline
            | ErrorType::UnsafeDisk
            | ErrorType::Lost
            | ErrorType::NotIntact
            | ErrorType::ConditionHolds => Exit::Failed,
            ErrorType::Usage
            | ErrorType::Config
            | ErrorType::BadInputs
            | ErrorType::BadParameters
            | ErrorType::BadReference
            | ErrorType::UnknownBackend
            | ErrorType::BackendNotBuilt
            | ErrorType::BackendUnconfigured
            | ErrorType::Unsupported
            | ErrorType::Disabled
            | ErrorType::NotApplicable
            | ErrorType::IllegalChange
            | ErrorType::BadKey
            | ErrorType::KeyConflict
            | ErrorType::HasDependents
            | ErrorType::TooLarge => Exit::Usage,
            ErrorType::NoSuchOperation | ErrorType::UnknownDependency => Exit::NotFound,
            ErrorType::TimedOut => Exit::TimedOut,
            // After a conflict the same command may succeed in a moment.
            ErrorType::Busy | ErrorType::Conflict | ErrorType::OriginalAtWork => Exit::Busy,
            ErrorType::Damaged | ErrorType::NewerFormat | ErrorType::NotOurs => Exit::Damaged,
            ErrorType::NoSpace
            | ErrorType::NotLogged
            | ErrorType::Unconfirmed
            | ErrorType::Disk
            | ErrorType::Output
            | ErrorType::Signals => Exit::Disk,
            ErrorType::Interrupted => Exit::Interrupted,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_json_has_every_type_of_error() {
        let page = include_str!("../../docs/json.md");
        let row = |kind: &ErrorType| {
            format!(
                "| `{}` | {} | {} |",
                kind.as_str(),
                Exit::from(*kind) as u8,
                kind.description()
            )
        };
        let missing: Vec<_> =
            ErrorType::ALL.iter().map(row).filter(|row| !page.contains(row)).collect();
        assert_eq!(missing, Vec::<String>::new(), "add these rows to docs/json.md");
    }

    #[test]
    fn the_graver_cause_decides() {
        let order = [
            Exit::Damaged,
            Exit::Disk,
            Exit::Busy,
            Exit::Usage,
            Exit::NotFound,
            Exit::Failed,
            Exit::TimedOut,
        ];
        for pair in order.windows(2) {
            assert_eq!(pair[0].or(pair[1]), pair[0]);
            assert_eq!(pair[1].or(pair[0]), pair[0]);
        }
        assert_eq!(Exit::Done.or(Exit::TimedOut), Exit::TimedOut);
    }
}
