//! Invalid inputs, and the reasons why they are rejected.

use crate::disk::DiskError;

/// Rejected inputs that are kept for the report; further ones are only counted.
const LISTED_MAX: usize = 10_000;

/// A rejected input, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadInput {
    /// Line of the input file, counted from 1; `None` if it did not come from a file.
    pub line: Option<u64>,
    /// The path or line as given, shortened.
    pub input: String,
    /// A stable code: `not_found`, `permission_denied`, `unsupported_file`, …
    pub error_type: &'static str,
    /// The reason, for people.
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

/// The rejected inputs of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadInputs {
    /// The first 10,000 rejected inputs.
    pub listed: Vec<BadInput>,
    /// The number of all rejected inputs.
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

/// Returns the rejection of a path that cannot be read.
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
