//! Directories in the store, each a file with a line per entry; and the output of `list`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::entry::{Entry, EntryKind};
use super::errors::{damaged, no_content};
use super::store::{ContentStore, Found};
use super::{Attempt, AttemptError, LocalBackend, Outcome, Request};
use crate::backend::errors::{Result, ours};
use crate::backend::files::{entries_on_disk, link_target, parent_of};
use crate::backend::listed::{Emit, ListedLine, json_line, write_listing};
use crate::backend::parameters::{Listed, Name};
use crate::backend::unixfs::{self, Child, Cid, CidVersion, Node};
use crate::disk::FileKind;

/// The first line of a stored directory.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    sharded: bool,
}

/// A directory in the store.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) node: Node,
    pub(super) entries: Vec<Entry>,
}

/// Returns the content of a directory's file.
pub(super) fn encode(sharded: bool, entries: &[Entry]) -> Vec<u8> {
    let mut text = json_line(&Header { format: 1, sharded });
    for entry in entries {
        text.push_str(&json_line(entry));
    }
    text.into_bytes()
}

fn decode(data: &[u8]) -> Option<(Header, Vec<Entry>)> {
    let mut lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let header: Header = serde_json::from_slice(lines.next()?).ok()?;
    let entries = lines.map(|line| serde_json::from_slice(line).ok()).collect::<Option<_>>()?;
    Some((header, entries))
}

impl ContentStore {
    /// Reads a directory and verifies it against its CID.
    pub(super) fn read_listing(&self, cid: &Cid) -> Result<Listing> {
        match self.find(cid).map_err(ours)? {
            Some(Found::Directory { path, cid }) => self.read_listing_at(&path, &cid),
            _ => Err(no_content(cid)),
        }
    }

    fn read_listing_at(&self, path: &Path, cid: &Cid) -> Result<Listing> {
        let data = self.disk().read(path).map_err(ours)?;
        let (header, entries) = decode(&data).ok_or_else(|| damaged(path, cid))?;
        let children: Vec<Child> = entries
            .iter()
            .map(|entry| Child { name: entry.name.clone(), node: entry.node() })
            .collect();
        let version =
            if cid.version() == unixfs::Version::V0 { CidVersion::V0 } else { CidVersion::V1 };
        match unixfs::directory_in_form(&children, version, header.sharded) {
            Ok(directory) if directory.node.cid == *cid => {
                Ok(Listing { node: directory.node, entries })
            }
            _ => Err(damaged(path, cid)),
        }
    }

    /// Returns the entry at a path below a CID; the CID itself for an empty path.
    pub(super) fn entry_at(&self, cid: &Cid, path: &[String]) -> Result<Entry> {
        let mut entry = match self.find(cid).map_err(ours)?.ok_or_else(|| no_content(cid))? {
            Found::File { cid, size, .. } => Entry::unnamed(cid, EntryKind::File, size, 0),
            Found::Directory { path, cid } => {
                let node = self.read_listing_at(&path, &cid)?.node;
                Entry::unnamed(cid, EntryKind::Directory, node.size, node.dag_size)
            }
        };
        for name in path {
            let below = match entry.kind {
                EntryKind::Directory => self.read_listing(&entry.cid)?.entries.into_iter(),
                _ => Vec::new().into_iter(),
            };
            entry = below.into_iter().find(|entry| entry.name == *name).ok_or_else(|| {
                let message =
                    format!("{cid} has no entry `{name}`; `list` with `cid` shows its entries");
                AttemptError::permanent("not_found", message)
            })?;
        }
        Ok(entry)
    }
}

impl LocalBackend {
    pub(super) fn list(
        &self,
        request: &Request,
        attempt: &Attempt,
        what: &Listed,
        destination: Option<&Path>,
    ) -> Result<Outcome> {
        write_listing(self.disk(), request, attempt, destination, &mut |emit| {
            self.list_to(what, emit)
        })
    }

    fn list_to(&self, what: &Listed, emit: Emit<'_>) -> Result<()> {
        match what {
            Listed::Content => self.list_content(emit)?,
            Listed::Directory(cid) => {
                let entry = self.store.entry_at(cid, &[])?;
                let entries = match entry.kind {
                    EntryKind::Directory => self.store.read_listing(cid)?.entries,
                    _ => vec![entry],
                };
                for Entry { name, kind, cid, size, .. } in entries {
                    let target = if let EntryKind::Symlink { target } = &kind {
                        Some(target.clone())
                    } else {
                        None
                    };
                    let kind = match kind {
                        EntryKind::File => "file",
                        EntryKind::Directory => "directory",
                        EntryKind::Symlink { .. } => "symlink",
                    };
                    let name = Some(name).filter(|name| !name.is_empty());
                    emit(&ListedLine {
                        name,
                        kind,
                        cid: Some(cid.to_string()),
                        size: Some(size),
                        target,
                        pinned: None,
                    })?;
                }
            }
            Listed::Name(name) => self.list_name(name, emit)?,
        }
        Ok(())
    }

    fn list_name(&self, name: &Name, emit: Emit<'_>) -> Result<()> {
        let (path, kind) = self.names.find(name)?;
        let entries = match kind {
            FileKind::Directory => entries_on_disk(self.disk(), &path)?,
            _ => vec![(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), kind)],
        };
        let directory = if kind == FileKind::Directory { &path } else { parent_of(&path) };
        for (name, kind) in entries {
            let path = directory.join(&name);
            let size = match kind {
                FileKind::File => Some(self.disk().symlink_metadata(&path).map_err(ours)?.len),
                _ => None,
            };
            let target = if kind == FileKind::Symlink {
                Some(link_target(self.disk(), &path)?)
            } else {
                None
            };
            let kind = match kind {
                FileKind::File => "file",
                FileKind::Directory => "directory",
                FileKind::Symlink => "symlink",
                FileKind::Other => "other",
            };
            emit(&ListedLine { name: Some(name), kind, cid: None, size, target, pinned: None })?;
        }
        Ok(())
    }

    fn list_content(&self, emit: Emit<'_>) -> Result<()> {
        self.store.visit_all(&mut |cid, kind, path| {
            let size = match kind {
                FileKind::Directory => None,
                _ => Some(self.disk().metadata(path).map_err(ours)?.len),
            };
            let kind = if kind == FileKind::Directory { "directory" } else { "file" };
            let pinned = Some(self.store.has_pin(cid).map_err(ours)?);
            emit(&ListedLine {
                name: None,
                kind,
                cid: Some(cid.to_string()),
                size,
                target: None,
                pinned,
            })
        })
    }
}
