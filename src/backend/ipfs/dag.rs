//! Fetching: block by block, each checked against its hash, so that nothing has to be believed, however a file was cut.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::Session;
use super::rpc::{Movement, RpcError};
use super::walk::Blocks;
use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::backend::listed::{Emit, ListedLine, write_listing};
use crate::backend::parameters::{Listed, Source};
use crate::backend::place::{Place, Shape, Tree};
use crate::backend::unixfs::{self, Block, BlockError, Child, Cid, Node};
use crate::operation::Outcome;

/// No node keeps larger blocks.
const BLOCK_MAX: usize = 4 << 20;

impl Session<'_> {
    /// A block, from the node or, through it, from others.
    fn block(&self, cid: &Cid) -> Result<Block> {
        let bytes = match unixfs::inline(cid) {
            Some(bytes) => bytes.to_vec(),
            None => {
                // The node gives up when we would.
                let patience = format!("{}ms", self.backend.http.limits().idle.as_millis());
                let options = [("arg", &cid.to_string()[..]), ("timeout", &patience)];
                self.read("block/get", self.rpc.bytes("block/get", &options, BLOCK_MAX))?
            }
        };
        unixfs::verify(cid, &bytes)
            .and_then(|()| unixfs::decode(cid, bytes))
            .map_err(|error| self.bad_block(cid, &error))
    }

    /// A block of something that may have many.
    fn part(&self, cid: &Cid) -> Result<Block> {
        stop_if_asked(self.attempt)?;
        self.block(cid)
    }

    fn bad_block(&self, cid: &Cid, error: &BlockError) -> AttemptError {
        let node = &self.backend.node;
        match error {
            // It may have been spoilt on the way.
            BlockError::OtherContent => {
                let message = format!(
                    "{node} gave something else for the block {cid}: {error}; it is tried again"
                );
                AttemptError::transient("damaged_content", message)
            }
            _ => {
                let advice =
                    "it is what was asked for, and no other node has it otherwise: see who made it";
                let message = format!("{cid}, from {node}, cannot be fetched: {error}; {advice}");
                AttemptError::permanent("unsupported_content", message)
            }
        }
    }

    fn content(&self, cid: Cid) -> Content<'_> {
        Content { session: self, cid, block: OnceCell::new() }
    }

    /// What is in a directory, in the order of its blocks.
    fn entries(&self, cid: &Cid, block: Block) -> Result<Vec<(String, Cid)>> {
        let entries = match block {
            Block::Directory(entries) => entries,
            Block::Shard { entries, parts } => {
                let malformed = |what| self.bad_block(cid, &BlockError::Malformed(what));
                Blocks { fetch: &|part| self.part(part), malformed: &malformed }
                    .shards(entries, parts)?
            }
            Block::File { .. } | Block::Symlink(_) => {
                return Err(not_found(&format!("{cid} is no directory")));
            }
        };
        let mut names = HashSet::new();
        for (name, _) in &entries {
            // Whoever made it may have meant harm: these would lead somewhere else on our disk.
            let is_plain = !matches!(&name[..], "" | "." | "..") && !name.contains(['/', '\0']);
            if !is_plain || !names.insert(name) {
                let message = format!(
                    "the directory {cid} has an entry `{name}` that cannot be a file's name here"
                );
                return Err(AttemptError::permanent("unsupported_name", message));
            }
        }
        drop(names);
        Ok(entries)
    }

    fn resolve(&self, source: &Source) -> Result<Cid> {
        let (mut cid, path) = match source {
            Source::Name(name) => return Ok(self.named(name)?.cid),
            Source::Content(cid, path) => (*cid, path),
        };
        for name in path {
            let entries = self.entries(&cid, self.block(&cid)?)?;
            let found = entries.into_iter().find(|(entry, _)| entry == name);
            (_, cid) = found.ok_or_else(|| {
                not_found(&format!(
                    "there is no `{name}` in {cid}; `list` with `cid` shows what there is"
                ))
            })?;
        }
        Ok(cid)
    }

    pub(super) fn get(&self, source: &Source, destination: &Path, trees: bool) -> Result<Outcome> {
        let content = self.content(self.resolve(source)?);
        match content.block()? {
            Block::File { size, .. } => self.attempt.expect_bytes(*size),
            _ if trees => {}
            _ => {
                let message = "`cat` is for files; use `get` for directories and links";
                return Err(AttemptError::permanent("is_directory", message));
            }
        }
        let node = Place::beside(&*self.backend.disk, self.request, destination)?
            .put(&content, destination)?;
        Ok(Outcome {
            cid: Some(node.cid.to_string()),
            size: Some(node.size),
            destination: Some(destination.display().to_string()),
            ..Outcome::default()
        })
    }

    pub(super) fn list(&self, what: &Listed, destination: Option<&Path>) -> Result<Outcome> {
        let disk = &*self.backend.disk;
        write_listing(disk, self.request, self.attempt, destination, &mut |emit| match what {
            Listed::Content => self.list_pins(emit),
            Listed::Directory(cid) => self.list_directory(cid, emit),
            Listed::Name(name) => self.list_name(&name.display(), emit),
        })
    }

    fn list_directory(&self, cid: &Cid, emit: Emit<'_>) -> Result<()> {
        let entries = match self.block(cid)? {
            block @ (Block::Directory(_) | Block::Shard { .. }) => self.entries(cid, block)?,
            _ => vec![(String::new(), *cid)],
        };
        for (name, cid) in entries {
            let (kind, size, target) = match self.block(&cid)? {
                Block::File { size, .. } => ("file", Some(size), None),
                Block::Directory(_) | Block::Shard { .. } => ("directory", None, None),
                Block::Symlink(target) => ("symlink", None, Some(target)),
            };
            let name = Some(name).filter(|name| !name.is_empty());
            emit(&ListedLine {
                name,
                kind,
                cid: Some(cid.to_string()),
                size,
                target,
                pinned: None,
            })?;
        }
        Ok(())
    }

    fn list_name(&self, name: &str, emit: Emit<'_>) -> Result<()> {
        if self.stat(name)?.is_none() {
            return Err(not_found(&format!(
                "there is no `{name}` on the node; `list` shows what there is"
            )));
        }
        let listed = self.rpc.object("files/ls", &[("arg", name), ("long", "true")]);
        let listed = self.read("files/ls", listed)?;
        let no_entries = Vec::new();
        let entries = listed.get("Entries").and_then(Value::as_array).unwrap_or(&no_entries);
        for entry in entries {
            let text = |name| entry.get(name).and_then(Value::as_str).map(str::to_owned);
            let is_directory = entry.get("Type").and_then(Value::as_u64) == Some(1);
            let size = entry.get("Size").and_then(Value::as_u64).filter(|_| !is_directory);
            let kind = if is_directory { "directory" } else { "file" };
            emit(&ListedLine {
                name: text("Name"),
                kind,
                cid: text("Hash"),
                size,
                target: None,
                pinned: None,
            })?;
        }
        Ok(())
    }

    fn list_pins(&self, emit: Emit<'_>) -> Result<()> {
        let mut failed = None;
        let options = [("type", "recursive"), ("stream", "true"), ("names", "true")];
        let result = self.rpc.lines("pin/ls", &options, &mut |line| {
            let text = |name| {
                line.get(name)
                    .and_then(Value::as_str)
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
            };
            let Some(cid) = text("Cid") else { return Ok(Movement::None) };
            let line = ListedLine {
                name: text("Name"),
                kind: "pin",
                cid: Some(cid),
                size: None,
                target: None,
                pinned: Some(true),
            };
            emit(&line).map(|()| Movement::Some).map_err(|error| {
                failed = Some(error);
                RpcError::Odd("given up".into())
            })
        });
        match failed {
            Some(error) => Err(error),
            None => self.read("pin/ls", result),
        }
    }
}

fn not_found(message: &str) -> AttemptError {
    AttemptError::permanent("not_found", message)
}

/// A file, a directory or a link, by its CID.
struct Content<'a> {
    session: &'a Session<'a>,
    cid: Cid,
    /// Its first block, once it was fetched.
    block: OnceCell<Block>,
}

impl Content<'_> {
    fn block(&self) -> Result<&Block> {
        if self.block.get().is_none() {
            let block = self.session.block(&self.cid)?;
            return Ok(self.block.get_or_init(|| block));
        }
        self.block.get().ok_or(AttemptError::Stopped)
    }
}

impl Tree for Content<'_> {
    fn shape(&self) -> Result<Shape<Self>> {
        Ok(match self.block()? {
            Block::File { .. } => Shape::File,
            Block::Symlink(target) => Shape::Link(target.clone()),
            block => {
                let entries = self.session.entries(&self.cid, block.clone())?.into_iter();
                Shape::Directory(
                    entries.map(|(name, cid)| (name, self.session.content(cid))).collect(),
                )
            }
        })
    }

    fn read(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Node> {
        let first = self.block()?.clone();
        if !matches!(first, Block::File { .. }) {
            return Err(not_found(&format!("{} is no file", self.cid)));
        }
        let session = self.session;
        let malformed = |what| session.bad_block(&self.cid, &BlockError::Malformed(what));
        let blocks = Blocks { fetch: &|part| session.part(part), malformed: &malformed };
        let size = blocks.file(first, &mut |data| {
            sink(data)?;
            session.attempt.add_bytes(data.len() as u64);
            Ok(())
        })?;
        Ok(Node { cid: self.cid, size, dag_size: 0 })
    }

    fn node_of(&self, children: &[Child]) -> Result<Node> {
        Ok(Node {
            cid: self.cid,
            size: children.iter().map(|child| child.node.size).sum(),
            dag_size: 0,
        })
    }

    fn link_node(&self, _target: &str) -> Node {
        Node { cid: self.cid, size: 0, dag_size: 0 }
    }
}
