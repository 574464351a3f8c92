use serde::Serialize;

use super::operation::Shown;
use super::{Document, OperationDoc};
use crate::client::{Changed, Skipped, Why};
use crate::operation::OperationId;

#[derive(Debug, Serialize)]
struct LeftDoc<'a> {
    operation_id: Shown<OperationId>,
    number: u64,
    status: &'static str,
    reason: &'a str,
}

impl<'a> LeftDoc<'a> {
    fn new(skipped: &'a Skipped) -> LeftDoc<'a> {
        let Skipped { number, id, status, why } = skipped;
        LeftDoc { operation_id: Shown(*id), number: *number, status: status.as_str(), reason: why }
    }
}

/// What a verb did.
#[derive(Debug)]
pub struct ChangeDoc;

impl ChangeDoc {
    /// The document.
    #[expect(clippy::new_ret_no_self, reason = "a document is what it makes")]
    pub fn new(changed: &Changed, _deleted: bool) -> Document {
        let docs: Vec<OperationDoc<'_>> = changed.operations.iter().map(OperationDoc::new).collect();
        let unchanged: Vec<OperationDoc<'_>> = changed.unchanged.iter().map(OperationDoc::new).collect();
        let to: Vec<OperationDoc<'_>> = changed.redirected_to.iter().map(OperationDoc::new).collect();
        let skipped: Vec<LeftDoc<'_>> = changed.skipped.iter().map(LeftDoc::new).collect();
        Document::new(true)
            .with("operations", &docs)
            .with("redirected_to", &to)
            .with("unchanged", &unchanged)
            .with("skipped", &skipped)
    }
}

/// Why operations aren't done.
#[derive(Debug)]
pub struct WhyDoc;

impl WhyDoc {
    /// The document.
    #[expect(clippy::new_ret_no_self, reason = "a document is what it makes")]
    pub fn new(all: &[Why], error: Option<impl Serialize>) -> Document {
        let document = Document::new(error.is_none());
        let docs: Vec<_> = all
            .iter()
            .map(|why| (why.operation.number, why.reason.as_str(), &why.sentence, why.next_attempt_at.map(Shown)))
            .collect();
        let document = document.with("operations", &docs);
        match error {
            Some(error) => document.with("error", &error),
            None => document,
        }
    }
}
