//! Listings of folders.

use std::path::Path;

use super::S3Session;
use super::location::Location;
use super::objects::not_found;
use crate::backend::errors::Result;
use crate::backend::listed::{Emit, ListedLine, write_listing};
use crate::operation::Outcome;

/// Writes a listing to `destination` or, without one, into the receipt.
pub(super) fn list(
    session: &S3Session<'_>,
    location: &Location,
    destination: Option<&Path>,
) -> Result<Outcome> {
    let context = &session.context;
    let disk = &*context.backend.disk;
    write_listing(disk, session.request, context.attempt, destination, &mut |emit: Emit<'_>| {
        let prefix = location.prefix();
        let mut exists = prefix.is_empty();
        let name_of =
            |key: &str| key.strip_prefix(&prefix).map(|name| name.trim_end_matches('/').to_owned());
        let line = |name, kind, size| ListedLine {
            name,
            kind,
            cid: None,
            size,
            target: None,
            pinned: None,
        };
        context.each_page(location, Some("/"), &mut |page| {
            exists |= !page.contents().is_empty() || !page.common_prefixes().is_empty();
            for folder in page.common_prefixes() {
                emit(&line(folder.prefix().and_then(name_of), "directory", None))?;
            }
            for object in page.contents() {
                // The folder's own marker has an empty name.
                let name = object.key().and_then(name_of).filter(|name| !name.is_empty());
                let Some(name) = name else { continue };
                let size = object.size().and_then(|size| u64::try_from(size).ok());
                emit(&line(Some(name), "file", size))?;
            }
            Ok(())
        })?;
        if exists { Ok(()) } else { Err(not_found(location)) }
    })
}
