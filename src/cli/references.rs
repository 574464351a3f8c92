//! References to operations on the command line: numbers, ids, `@last`, `@failed` and `-`.

use std::io::Read;

use super::context::Context;
use super::error::CliError;
use crate::client::{Filter, Reference};
use crate::operation::Status;

/// The operations that a command works on.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The references, without duplicates.
    pub references: Vec<Reference>,
    /// True if each was named explicitly: then an action that does not apply to one of them is an
    /// error. Otherwise that one is skipped.
    pub named: bool,
}

/// Returns the operations that these words name, without duplicates. `@failed` and `-` name any
/// number of them.
pub fn parse(context: &Context<'_>, words: &[String]) -> Result<Selection, CliError> {
    let mut all = Vec::with_capacity(words.len());
    let mut named = true;
    for word in words {
        match word.as_str() {
            "@failed" => {
                named = false;
                all.extend(failed(context)?);
            }
            "-" => {
                named = false;
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(|error| {
                    CliError::usage(format!("cannot read ids from stdin: {error}"))
                })?;
                // The output of `add`, `list` and `process` begins with a number or an id.
                let words = text.lines().filter_map(|line| line.split_whitespace().next());
                for word in words.filter(|word| *word != "NUMBER") {
                    all.push(Reference::parse(word)?);
                }
            }
            word => all.push(Reference::parse(word)?),
        }
    }
    let mut once: Vec<Reference> = Vec::with_capacity(all.len());
    let mut seen = std::collections::HashSet::new();
    once.extend(all.into_iter().filter(|reference| seen.insert(reference.to_string())));
    Ok(Selection { references: once, named })
}

/// Returns all failed operations, oldest first.
fn failed(context: &Context<'_>) -> Result<Vec<Reference>, CliError> {
    let filter = Filter::default().with_status(Status::Failed);
    let page = context.client.list(&filter, None)?;
    Ok(page.operations.iter().rev().map(|operation| Reference::Number(operation.number)).collect())
}
