//! Inputs that cannot be used, and why.

use crate::disk::DiskError;

/// Rejected inputs that are kept for the report; of those beyond, only the number is.
const LISTED_MAX: usize = 10_000;

/// One input that was rejected, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadInput {
    /// Line of the input file, counted from 1; `None` if it did not come from a file.
    pub line: Option<u64>,
    /// The path or line as given, shortened.
    pub input: String,
    /// A stable word for programs: `not_found`, `permission_denied`, `unsupported_file`, …
    pub error_type: &'static str,
    /// What is wrong, for people.
    pub message: String,
}

impl BadInput {
    /// Returns a rejection without a line number.
    pub fn new(
        input: impl Into<String>,
        error_type: &'static str,
        message: impl Into<String>,
    ) -> BadInput {
        BadInput { line: None, input: input.into(), error_type, message: message.into() }
    }

    /// Sets the line of the input file, counted from 1.
    #[must_use]
    pub fn at_line(mut self, line: Option<u64>) -> BadInput {
        self.line = line;
        self
    }
}

/// The inputs of one call that were rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadInputs {
    /// The first 10,000 of them.
    pub listed: Vec<BadInput>,
    /// The number of all of them.
    pub count: u64,
}

impl BadInputs {
    pub(super) fn push(&mut self, bad: BadInput) {
        self.count += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(bad);
        }
    }
}

impl From<BadInput> for BadInputs {
    fn from(bad: BadInput) -> BadInputs {
        BadInputs { listed: vec![bad], count: 1 }
    }
}

/// Returns why a path cannot be read.
pub(super) fn unreadable(path: &str, error: DiskError) -> BadInput {
    let (error_type, message) = match error.kind() {
        std::io::ErrorKind::NotFound => ("not_found", "no such file or directory".to_owned()),
        std::io::ErrorKind::PermissionDenied => (
            "permission_denied",
            "permission denied; change its permissions, or run as its owner".to_owned(),
        ),
        _ => ("io", error.source.to_string()),
    };
    BadInput::new(path, error_type, message)
}
