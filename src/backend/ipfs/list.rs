//! Listings: a directory by its CID, a directory of MFS, or the pins of the node.

use std::path::Path;

use serde_json::Value;

use super::KuboSession;
use super::dag::{Dag, not_found};
use super::mfs::Mfs;
use super::rpc::{Activity, RpcError};
use crate::backend::errors::Result;
use crate::backend::listed::{Emit, ListedLine, write_listing};
use crate::backend::parameters::Listed;
use crate::backend::unixfs::{Block, Cid};
use crate::operation::Outcome;

/// Writes a listing to `destination` or, without one, into the receipt.
pub(super) fn list(
    session: KuboSession<'_>,
    what: &Listed,
    destination: Option<&Path>,
) -> Result<Outcome> {
    let disk = &*session.backend.disk;
    write_listing(disk, session.request, session.attempt, destination, &mut |emit| match what {
        Listed::Content => list_pins(session, emit),
        Listed::Directory(cid) => list_directory(session, cid, emit),
        Listed::Name(name) => list_name(session, &name.display(), emit),
    })
}

fn list_directory(session: KuboSession<'_>, cid: &Cid, emit: Emit<'_>) -> Result<()> {
    let dag = Dag(session);
    let entries = match dag.block(cid)? {
        block @ (Block::Directory(_) | Block::Shard { .. }) => dag.entries(cid, block)?,
        _ => vec![(String::new(), *cid)],
    };
    for (name, cid) in entries {
        let (kind, size, target) = match dag.block(&cid)? {
            Block::File { size, .. } => ("file", Some(size), None),
            Block::Directory(_) | Block::Shard { .. } => ("directory", None, None),
            Block::Symlink(target) => ("symlink", None, Some(target)),
        };
        emit(&ListedLine {
            name: Some(name).filter(|name| !name.is_empty()),
            kind,
            cid: Some(cid.to_string()),
            size,
            target,
            pinned: None,
        })?;
    }
    Ok(())
}

fn list_name(session: KuboSession<'_>, name: &str, emit: Emit<'_>) -> Result<()> {
    if Mfs(session).stat(name)?.is_none() {
        let message =
            format!("`{name}` does not exist on the node; `list` shows the existing names");
        return Err(not_found(message));
    }
    let listed = session.rpc.json("files/ls", &[("arg", name), ("long", "true")]);
    let listed = session.after_read("files/ls", listed)?;
    let no_entries = Vec::new();
    let entries = listed.get("Entries").and_then(Value::as_array).unwrap_or(&no_entries);
    for entry in entries {
        let text = |name| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        let is_directory = entry.get("Type").and_then(Value::as_u64) == Some(1);
        let size = entry.get("Size").and_then(Value::as_u64).filter(|_| !is_directory);
        emit(&ListedLine {
            name: text("Name"),
            kind: if is_directory { "directory" } else { "file" },
            cid: text("Hash"),
            size,
            target: None,
            pinned: None,
        })?;
    }
    Ok(())
}

fn list_pins(session: KuboSession<'_>, emit: Emit<'_>) -> Result<()> {
    let mut failed = None;
    let options = [("type", "recursive"), ("stream", "true"), ("names", "true")];
    let result = session.rpc.json_lines("pin/ls", &options, &mut |line| {
        let text = |name| {
            line.get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let Some(cid) = text("Cid") else { return Ok(Activity::Idle) };
        let line = ListedLine {
            name: text("Name"),
            kind: "pin",
            cid: Some(cid),
            size: None,
            target: None,
            pinned: Some(true),
        };
        emit(&line).map(|()| Activity::Progress).map_err(|error| {
            failed = Some(error);
            RpcError::Unexpected("the listing was aborted".into())
        })
    });
    match failed {
        Some(error) => Err(error),
        None => session.after_read("pin/ls", result),
    }
}
