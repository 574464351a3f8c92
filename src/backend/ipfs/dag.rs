//! Fetching content block by block. Each block is checked against its hash, so nothing that the
//! node says has to be trusted, however a file was cut.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::path::Path;

use super::KuboSession;
use super::mfs::Mfs;
use super::walk::BlockWalker;
use crate::backend::AttemptError;
use crate::backend::atomic::{AtomicWriter, Shape, Tree};
use crate::backend::errors::Result;
use crate::backend::files::stop_if_asked;
use crate::backend::parameters::Source;
use crate::backend::unixfs::{self, Block, BlockError, Child, Cid, Node};
use crate::operation::Outcome;

/// The largest block; no node stores larger ones.
const BLOCK_MAX: usize = 4 << 20;

/// The blocks that the node of a session has or can fetch.
#[derive(Clone, Copy)]
pub(super) struct Dag<'a>(pub(super) KuboSession<'a>);

impl<'a> Dag<'a> {
    /// Returns a block, from the node or, through it, from its peers.
    pub(super) fn block(&self, cid: &Cid) -> Result<Block> {
        let session = &self.0;
        let bytes = match unixfs::inline(cid) {
            Some(bytes) => bytes.to_vec(),
            None => {
                // The node stops searching when this attempt would time out.
                let timeout = format!("{}ms", session.backend.http.timeouts().idle.as_millis());
                let options = [("arg", &cid.to_string()[..]), ("timeout", &timeout)];
                let bytes = session.rpc.bytes("block/get", &options, BLOCK_MAX);
                session.after_read("block/get", bytes)?
            }
        };
        unixfs::verify(cid, &bytes)
            .and_then(|()| unixfs::decode(cid, bytes))
            .map_err(|error| self.bad_block(cid, &error))
    }

    /// Returns one of many blocks; fails if the attempt was cancelled.
    fn part(&self, cid: &Cid) -> Result<Block> {
        stop_if_asked(self.0.attempt)?;
        self.block(cid)
    }

    fn bad_block(&self, cid: &Cid, error: &BlockError) -> AttemptError {
        let node = &self.0.backend.node;
        match error {
            // It may have been damaged in transit.
            BlockError::OtherContent => {
                let message =
                    format!("{node} sent a damaged block {cid}: {error}; it will be fetched again");
                AttemptError::transient("damaged_content", message)
            }
            _ => {
                let message = format!(
                    "cannot fetch {cid} from {node}: {error}; the block matches its hash, so no \
                     other node has a valid one: check the program that created it"
                );
                AttemptError::permanent("unsupported_content", message)
            }
        }
    }

    fn content(&self, cid: Cid) -> Content<'a> {
        Content { dag: *self, cid, block: OnceCell::new() }
    }

    /// Returns the entries of a directory, in the order of its blocks.
    pub(super) fn entries(&self, cid: &Cid, block: Block) -> Result<Vec<(String, Cid)>> {
        let entries = match block {
            Block::Directory(entries) => entries,
            Block::Shard { entries, parts } => {
                let malformed = |what| self.bad_block(cid, &BlockError::Malformed(what));
                BlockWalker { fetch: &|part| self.part(part), malformed: &malformed }
                    .shard_entries(entries, parts)?
            }
            Block::File { .. } | Block::Symlink(_) => {
                return Err(not_found(format!("{cid} is not a directory")));
            }
        };
        let mut names = HashSet::new();
        for (name, _) in &entries {
            // A malicious directory could otherwise write outside the destination.
            let is_plain = !matches!(&name[..], "" | "." | "..") && !name.contains(['/', '\0']);
            if !is_plain || !names.insert(name) {
                let message =
                    format!("the directory {cid} has an entry `{name}`, which is not a valid name");
                return Err(AttemptError::permanent("unsupported_name", message));
            }
        }
        drop(names);
        Ok(entries)
    }

    fn resolve(&self, source: &Source) -> Result<Cid> {
        let (mut cid, path) = match source {
            Source::Name(name) => return Ok(Mfs(self.0).existing(name)?.cid),
            Source::Content(cid, path) => (*cid, path),
        };
        for name in path {
            let entries = self.entries(&cid, self.block(&cid)?)?;
            let found = entries.into_iter().find(|(entry, _)| entry == name);
            (_, cid) = found.ok_or_else(|| {
                not_found(format!(
                    "{cid} has no entry `{name}`; `list` with `cid` shows the existing entries"
                ))
            })?;
        }
        Ok(cid)
    }

    /// Writes a file, a symbolic link or a directory to `destination`.
    pub(super) fn get(&self, source: &Source, destination: &Path) -> Result<Outcome> {
        let content = self.content(self.resolve(source)?);
        self.write(&content, destination)
    }

    /// Writes a file to `destination`; fails for anything else.
    pub(super) fn cat(&self, source: &Source, destination: &Path) -> Result<Outcome> {
        let content = self.content(self.resolve(source)?);
        if !matches!(content.block()?, Block::File { .. }) {
            let message = "`cat` fetches only files; use `get` for directories and links";
            return Err(AttemptError::permanent("is_directory", message));
        }
        self.write(&content, destination)
    }

    fn write(&self, content: &Content<'_>, destination: &Path) -> Result<Outcome> {
        let session = &self.0;
        if let Block::File { size, .. } = content.block()? {
            session.attempt.expect_bytes(*size);
        }
        let node = AtomicWriter::beside(&*session.backend.disk, session.request, destination)?
            .put(content, destination)?;
        Ok(Outcome {
            cid: Some(node.cid.to_string()),
            size: Some(node.size),
            destination: Some(destination.display().to_string()),
            ..Outcome::default()
        })
    }
}

pub(super) fn not_found(message: String) -> AttemptError {
    AttemptError::permanent("not_found", message)
}

/// A file, a directory or a symbolic link, identified by its CID.
struct Content<'a> {
    dag: Dag<'a>,
    cid: Cid,
    /// The first block, once it was fetched.
    block: OnceCell<Block>,
}

impl Content<'_> {
    fn block(&self) -> Result<&Block> {
        if self.block.get().is_none() {
            let block = self.dag.block(&self.cid)?;
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
                let entries = self.dag.entries(&self.cid, block.clone())?.into_iter();
                Shape::Directory(entries.map(|(name, cid)| (name, self.dag.content(cid))).collect())
            }
        })
    }

    fn read(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Node> {
        let first = self.block()?.clone();
        if !matches!(first, Block::File { .. }) {
            return Err(not_found(format!("{} is not a file", self.cid)));
        }
        let dag = self.dag;
        let malformed = |what| dag.bad_block(&self.cid, &BlockError::Malformed(what));
        let walker = BlockWalker { fetch: &|part| dag.part(part), malformed: &malformed };
        let size = walker.file_content(first, &mut |data| {
            sink(data)?;
            dag.0.attempt.add_bytes(data.len() as u64);
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
