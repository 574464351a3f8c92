//! How operations are named on the command line.

use std::io::Read;

use super::context::Context;
use super::error::CliError;
use crate::client::{Filter, Reference};
use crate::operation::Status;

/// Operations that a command is about.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Each once.
    pub references: Vec<Reference>,
    /// Whether each was named by hand: then what cannot be done to one of them is an error, else it is skipped.
    pub named: bool,
}

/// The operations that these words name, each once; `@failed` and `-` may stand for many.
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
                    CliError::usage(format!("could not read ids from stdin: {error}"))
                })?;
                // What `add`, `list` and `process` print begins with a number or id.
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

/// All operations that failed, oldest first.
fn failed(context: &Context<'_>) -> Result<Vec<Reference>, CliError> {
    let filter = Filter { status: Some(Status::Failed), ..Filter::default() };
    let page = context.client.list(&filter, 0)?;
    Ok(page.operations.iter().rev().map(|operation| Reference::Number(operation.number)).collect())
}
