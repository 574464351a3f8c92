//! Exit codes, for scripts and cron: one enum, one source of all tables, one mapping from errors.

use std::process::ExitCode;

use crate::backend::Refusal;
use crate::client::ClientError;
use crate::report::ErrorType;
use crate::wal::WalError;

/// The exit code of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command succeeded.
    Done = 0,
    /// The command ran, and reports a failed operation or a problem that it found.
    Failed = 1,
    /// Wrong usage, an invalid configuration, or a change that is not allowed.
    Usage = 2,
    /// No such operation.
    NotFound = 3,
    /// A timeout expired.
    TimedOut = 4,
    /// A lock is held by another process.
    Busy = 5,
    /// The log is damaged or of a newer format.
    Damaged = 6,
    /// The disk failed or is full.
    Disk = 7,
    /// Interrupted by a signal.
    Interrupted = 130,
}

/// A meaning of an exit code, and the command or flag that it is limited to.
type Meaning = (&'static str, Option<&'static str>);

/// Returns the table of exit codes that ends `--help`.
pub fn help_table() -> String {
    let mut table = String::from("Exit codes:");
    for exit in Exit::ALL {
        for (at, (text, only)) in exit.meanings().iter().enumerate() {
            let code = if at == 0 { (exit as u8).to_string() } else { String::new() };
            let only = only.map_or_else(String::new, |only| format!(" ({only})"));
            table.push_str(&format!("\n  {code:<4} {text}{only}"));
        }
    }
    table
}

impl Exit {
    /// All exit codes, in ascending order.
    const ALL: [Exit; 9] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::TimedOut,
        Exit::Busy,
        Exit::Damaged,
        Exit::Disk,
        Exit::Interrupted,
    ];

    /// Returns the meanings of the code, the source of the tables in `--help`, README and
    /// docs/json.md.
    fn meanings(self) -> &'static [Meaning] {
        match self {
            Exit::Done => &[("success", None)],
            Exit::Failed => &[
                ("an operation failed that was waited for, or that `process` executed", None),
                ("some inputs are invalid and were not logged", Some("--keep-going")),
                ("a backend is offline", Some("health")),
                ("a condition holds", Some("status --fail-if")),
                ("the disk is not safe for a log", Some("verify --durability")),
                ("completed operations failed verification", Some("verify --remote")),
                ("some records could not be saved", Some("verify --repair")),
            ],
            Exit::Usage => &[
                ("wrong usage or an invalid configuration", None),
                ("a change that the state of the operation does not allow", None),
            ],
            Exit::NotFound => &[("no such operation", None)],
            Exit::TimedOut => &[("a timeout expired", None)],
            Exit::Busy => &[("another process holds a lock; the message names it", None)],
            Exit::Damaged => &[("the log is damaged, or a newer program wrote it", None)],
            Exit::Disk => &[("the disk failed or is full; nothing is confirmed as logged", None)],
            Exit::Interrupted => &[("interrupted by a signal", None)],
        }
    }

    /// Returns the graver of two codes: the first of 130, 6, 7, 5, 2, 3, 1, 4, 0.
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

/// Returns the type of an error, for scripts.
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
        WalError::NewerFormat { .. } | WalError::NewerFrame { .. } => ErrorType::NewerFormat,
        WalError::NotOurs { .. } => ErrorType::NotOurs,
        WalError::NoLog { .. } => ErrorType::NoLog,
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
            // After a conflict, the same command may soon succeed.
            ErrorType::Busy | ErrorType::Conflict | ErrorType::OriginalAtWork => Exit::Busy,
            ErrorType::Damaged | ErrorType::NewerFormat | ErrorType::NotOurs | ErrorType::NoLog => {
                Exit::Damaged
            }
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

    /// The command that renews the tables instead of comparing them.
    const RENEW: &str = "WAL_CLI_BLESS=1 cargo test --lib cli::exit";

    /// The markers around the table in a page.
    const MARKERS: (&str, &str) = ("<!-- exit codes -->\n", "<!-- end of exit codes -->");

    fn markdown_table() -> String {
        let mut table = String::from("| code | meaning |\n|---|---|\n");
        for exit in Exit::ALL {
            for (text, only) in exit.meanings() {
                let only = only.map_or_else(String::new, |only| format!(" (`{only}`)"));
                table.push_str(&format!("| {} | {text}{only} |\n", exit as u8));
            }
        }
        table
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it compares and renews pages of the repository")]
    fn the_tables_of_exit_codes_agree() {
        for page in ["README.md", "docs/json.md"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
            let text = std::fs::read_to_string(&path).unwrap();
            let marked = text.split_once(MARKERS.0).and_then(|(before, rest)| {
                let (table, after) = rest.split_once(MARKERS.1)?;
                Some((before, table, after))
            });
            let (before, table, after) =
                marked.unwrap_or_else(|| panic!("{page} lacks the markers {MARKERS:?}"));
            if std::env::var_os("WAL_CLI_BLESS").is_some() {
                let renewed =
                    format!("{before}{}{}{}{after}", MARKERS.0, markdown_table(), MARKERS.1);
                std::fs::write(&path, renewed).unwrap();
            } else {
                assert_eq!(table, markdown_table(), "{page} is out of date; run `{RENEW}`");
            }
        }
    }

    #[test]
    fn help_has_every_code_in_80_columns() {
        let table = help_table();
        for exit in Exit::ALL {
            assert!(table.contains(&format!("\n  {:<4} ", exit as u8)), "{table}");
        }
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
    }

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
    fn the_graver_code_wins() {
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
