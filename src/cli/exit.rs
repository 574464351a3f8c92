//! Exit codes: what scripts and cron see. One enum, one table, one mapping from errors.

use std::process::ExitCode;

use crate::backend::Refusal;
use crate::client::ClientError;
use crate::wal::WalError;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// An operation waited for or drained failed, or a backend is offline.
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
  1    an operation waited for or drained failed; a backend is offline (health)
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

    /// The exit code of an error, and its stable word in JSON.
    pub fn of(error: &ClientError) -> (Exit, &'static str) {
        match error {
            ClientError::Wal(error) => Exit::of_wal(error),
            ClientError::NoSuchOperation(_) => (Exit::NotFound, "no_such_operation"),
            ClientError::BadReference(_) => (Exit::Usage, "bad_reference"),
            ClientError::BadInputs { .. } => (Exit::Usage, "bad_inputs"),
            ClientError::Refused(refusal) => Exit::of_refusal(refusal),
            ClientError::OneKey { .. } | ClientError::BadKey { .. } => (Exit::Usage, "bad_key"),
            ClientError::Disabled => (Exit::Usage, "disabled"),
            ClientError::NotApplicable { .. } => (Exit::Usage, "not_applicable"),
            ClientError::Illegal(_) => (Exit::Usage, "illegal_change"),
            ClientError::TimedOut { .. } => (Exit::TimedOut, "timed_out"),
            ClientError::Interrupted => (Exit::Interrupted, "interrupted"),
        }
    }

    fn of_refusal(refusal: &Refusal) -> (Exit, &'static str) {
        match refusal {
            Refusal::Unknown { .. } => (Exit::Usage, "unknown_backend"),
            Refusal::NotBuilt { .. } => (Exit::Usage, "backend_not_built"),
            Refusal::Unsupported { .. } => (Exit::Usage, "unsupported"),
            Refusal::BadParameters(_) => (Exit::Usage, "bad_parameters"),
        }
    }

    fn of_wal(error: &WalError) -> (Exit, &'static str) {
        match error {
            WalError::Busy { .. } => (Exit::Busy, "busy"),
            WalError::Damaged(_) => (Exit::Damaged, "damaged"),
            WalError::NewerFormat { .. } => (Exit::Damaged, "newer_format"),
            WalError::NotOurs { .. } => (Exit::Damaged, "not_ours"),
            WalError::NotLogged(_) => (Exit::Disk, "not_logged"),
            WalError::NoSpace { .. } => (Exit::Disk, "no_space"),
            WalError::Unconfirmed { .. } => (Exit::Disk, "unconfirmed"),
            WalError::KeyTaken { .. } | WalError::KeyTwice { .. } => (Exit::Usage, "key_conflict"),
            WalError::UnknownDependency { .. } => (Exit::NotFound, "unknown_dependency"),
            WalError::HasDependents { .. } => (Exit::Usage, "has_dependents"),
            WalError::TooLarge { .. } => (Exit::Usage, "too_large"),
            // Somebody else was faster: the same command may succeed in a moment.
            WalError::Conflict { .. } => (Exit::Busy, "conflict"),
            WalError::Illegal(_) => (Exit::Usage, "illegal_change"),
            WalError::Disk(_) => (Exit::Disk, "disk"),
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
    fn the_graver_cause_decides() {
        let order = [Exit::Damaged, Exit::Disk, Exit::Busy, Exit::Usage, Exit::NotFound, Exit::Failed, Exit::TimedOut];
        for pair in order.windows(2) {
            assert_eq!(pair[0].or(pair[1]), pair[0]);
            assert_eq!(pair[1].or(pair[0]), pair[0]);
        }
        assert_eq!(Exit::Done.or(Exit::TimedOut), Exit::TimedOut);
    }
}
