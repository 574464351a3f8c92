//! References to operations, as users write them.

use super::error::ClientError;
use crate::operation::{Number, OperationId};
use crate::wal::original;

/// A reference to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// The operation's number in this log.
    Number(Number),
    /// The operation's id.
    Id(OperationId),
    /// The operation that the current user of the machine logged last.
    Last,
}

impl Reference {
    /// Parses a number, a full id, `@last`, or `original:` followed by an id of `ipfs_kit_py` that
    /// is not a UUID.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadReference`] for any other text.
    pub fn parse(text: &str) -> Result<Reference, ClientError> {
        if text == "@last" {
            return Ok(Reference::Last);
        }
        if let Ok(number) = text.parse() {
            return Ok(Reference::Number(number));
        }
        if text.starts_with(original::KEY_PREFIX) {
            return Ok(Reference::Id(original::id_of_key(text)));
        }
        OperationId::parse(text)
            .map(Reference::Id)
            .ok_or_else(|| ClientError::BadReference(text.to_owned()))
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reference::Number(number) => number.fmt(f),
            Reference::Id(id) => id.fmt(f),
            Reference::Last => f.write_str("@last"),
        }
    }
}
