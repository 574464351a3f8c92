use super::child::{Child, DirectoryError};
use super::node::{self, Kind, Message, Node};
use super::{CidVersion, Options, Sharding, hamt};

/// The largest directory in one block, in bytes. A larger one is sharded. Kubo's default.
const PLAIN_SIZE_MAX: usize = 256 << 10;

/// The root node of a directory, and its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    /// The root node.
    pub node: Node,
    /// True if the directory is spread over several blocks.
    pub sharded: bool,
}

/// Returns the directory with these entries, sharded if it is large.
pub fn directory(children: &[Child], options: Options) -> Result<Directory, DirectoryError> {
    let size = match options.sharding {
        Sharding::ByLinks => {
            children.iter().map(|child| child.name.len() + child.node.cid.encoded_len()).sum()
        }
        Sharding::ByBlock => EMPTY_BLOCK_LEN + children.iter().map(link_len).sum::<usize>(),
    };
    directory_in_form(children, options.cid_version, size > PLAIN_SIZE_MAX)
}

/// Returns the directory with these entries in the given form.
pub fn directory_in_form(
    children: &[Child],
    version: CidVersion,
    sharded: bool,
) -> Result<Directory, DirectoryError> {
    if sharded {
        return Ok(Directory { node: hamt::sharded(children, version)?, sharded });
    }
    let size = children.iter().map(|child| child.node.size).sum();
    let links = children.iter().map(|child| node::link(child.name.clone(), &child.node)).collect();
    let node = node::dag_pb(version, Message::new(Kind::Directory, 0), links, size);
    Ok(Directory { node, sharded })
}

/// The size of the block of an empty directory: a message of 2 bytes, its tag and its length.
const EMPTY_BLOCK_LEN: usize = 4;

/// Returns the size of a link in a dag-pb block: hash, name and size, each with tag and length.
fn link_len(child: &Child) -> usize {
    let (cid, name) = (child.node.cid.encoded_len(), child.name.len());
    let link = 1
        + varint_len(cid as u64)
        + cid
        + 1
        + varint_len(name as u64)
        + name
        + 1
        + varint_len(child.node.dag_size);
    1 + varint_len(link as u64) + link
}

fn varint_len(value: u64) -> usize {
    (64 - value.leading_zeros()).div_ceil(7).max(1) as usize
}
