//! The document of `list`, written while the log is read.

use schemars::JsonSchema;
use serde::Serialize;

use super::{ErrorDoc, Line, OperationDoc};

/// Operations, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct List<'a> {
    /// The operations.
    operations: Vec<OperationDoc<'a>>,
    /// Value for `--cursor` that continues the listing; null at its end.
    #[schemars(regex(pattern = "^[0-9]+$"))]
    next_cursor: Option<String>,
}

/// Writes the document that [`List`] describes one operation at a time, in bounded memory.
///
/// `success` follows the operations, because it is known only at the end.
#[derive(Debug, Default)]
pub struct ListText {
    begun: bool,
}

impl ListText {
    /// Returns the text before the first operation.
    pub fn begin(&self) -> &'static str {
        r#"{"operations":["#
    }

    /// Returns the text of the next operation.
    pub fn operation(&mut self, operation: OperationDoc<'_>) -> String {
        let comma = if std::mem::replace(&mut self.begun, true) { "," } else { "" };
        format!("{comma}{}", operation.line())
    }

    /// Returns the text after the last operation.
    pub fn end(&self, next_cursor: Option<String>, error: Option<ErrorDoc<'_>>) -> String {
        let end = End { next_cursor, success: error.is_none(), error }.line();
        format!("],{}", end.trim_start_matches('{'))
    }
}

#[derive(Serialize)]
struct End<'a> {
    next_cursor: Option<String>,
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDoc<'a>>,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{Document, ErrorFields, ErrorType};
    use super::*;

    fn error(fields: &ErrorFields) -> ErrorDoc<'_> {
        let (r#type, message) = (ErrorType::Damaged, "m".into());
        ErrorDoc { r#type, message, hint: None, causes: &[], fields }
    }

    #[test]
    fn the_text_is_the_document() {
        let fields = ErrorFields::default();
        for (next_cursor, failed) in [(None, false), (Some("7".to_owned()), true)] {
            let text = ListText::default();
            let streamed = format!(
                "{}{}",
                text.begin(),
                text.end(next_cursor.clone(), failed.then(|| error(&fields)))
            );
            let list = List { operations: Vec::new(), next_cursor };
            let document = Document::with_error(list, failed.then(|| error(&fields))).line();
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(value(&streamed), value(&document), "{streamed}");
        }
    }
}
