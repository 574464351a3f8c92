//! The output of `list`: one line of JSON per entry.

use std::path::Path;

use serde::Serialize;

use super::atomic::{AtomicWriter, Staged};
use super::errors::{Result, writing};
use super::{Attempt, AttemptError, Request};
use crate::backend::files::stop_if_asked;
use crate::disk::{Disk, FileKind};
use crate::operation::Outcome;

/// The longest listing that fits in a receipt, in bytes; also the size of a write to a file.
const LISTING_MAX: usize = 64 << 10;

/// One line of the output.
#[derive(Debug, Serialize)]
pub(super) struct ListedLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pinned: Option<bool>,
}

/// A function that receives each entry.
pub(super) type Emit<'a> = &'a mut dyn FnMut(&ListedLine) -> Result<()>;

/// Writes the entries that `list_to` finds to a file or, without a destination, into the receipt.
pub(super) fn write_listing(
    disk: &dyn Disk,
    request: &Request,
    attempt: &Attempt,
    destination: Option<&Path>,
    list_to: &mut dyn FnMut(Emit<'_>) -> Result<()>,
) -> Result<Outcome> {
    let mut count = 0;
    let mut each = |sink: &mut dyn FnMut(String) -> Result<()>| {
        list_to(&mut |line| {
            stop_if_asked(attempt)?;
            count += 1;
            sink(json_line(line))
        })
    };
    let Some(destination) = destination else {
        let mut listing = String::new();
        each(&mut |line| {
            listing.push_str(&line);
            if listing.len() <= LISTING_MAX {
                return Ok(());
            }
            let message =
                "the listing is larger than 64 KiB; pass a `destination` to write it to a file";
            Err(AttemptError::permanent("listing_too_large", message))
        })?;
        let receipt =
            [("entries".to_owned(), count.to_string()), ("listing".to_owned(), listing)].into();
        return Ok(Outcome { receipt, ..Outcome::default() });
    };
    if disk.metadata(destination).is_ok_and(|metadata| metadata.kind == FileKind::Directory) {
        let message = format!(
            "`{}` is a directory; name a file to write the listing to",
            destination.display()
        );
        return Err(AttemptError::permanent("destination_exists", message));
    }
    let writer = AtomicWriter::beside(disk, request, destination)?;
    let mut file = Staged::create(disk, writer.staging.clone()).map_err(writing)?;
    let mut buffer = String::new();
    each(&mut |line| {
        buffer.push_str(&line);
        if buffer.len() < LISTING_MAX {
            return Ok(());
        }
        file.write(std::mem::take(&mut buffer).as_bytes()).map_err(writing)
    })?;
    file.write(buffer.as_bytes()).map_err(writing)?;
    let size = file.len();
    file.publish(destination).map_err(writing)?;
    Ok(Outcome {
        size: Some(size),
        destination: Some(destination.display().to_string()),
        receipt: [("entries".to_owned(), count.to_string())].into(),
        ..Outcome::default()
    })
}

/// Returns a value as a line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> String {
    // Cannot fail: all keys of maps are strings.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}
