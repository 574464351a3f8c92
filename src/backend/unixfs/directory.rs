use super::child::{Child, DirectoryError};
use super::node::{self, Kind, Message, Node};
use super::{CidVersion, Options, Sharding, hamt};

/// Beyond this a directory is sharded; exactly this size it is not. Kubo's default.
const MAX_PLAIN_SIZE: usize = 256 << 10;

/// A directory's root, and which shape it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    /// The root.
    pub node: Node,
    /// Whether it is spread over several blocks.
    pub sharded: bool,
}

/// The root of a directory with these entries, sharded if it is large.
pub fn directory(children: &[Child], options: Options) -> Result<Directory, DirectoryError> {
    let size = match options.sharding {
        Sharding::ByLinks => {
            children.iter().map(|child| child.name.len() + child.node.cid.encoded_len()).sum()
        }
        Sharding::ByBlock => EMPTY_BLOCK + children.iter().map(link_size).sum::<usize>(),
    };
    directory_of_shape(children, options.cid_version, size > MAX_PLAIN_SIZE)
}

/// The root of a directory with these entries in a given shape.
pub fn directory_of_shape(
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

/// The block of a directory without entries: a two-byte message, its tag and its length.
const EMPTY_BLOCK: usize = 4;

/// Bytes that one link takes in a dag-pb block: hash, name and size, each with tag and length.
fn link_size(child: &Child) -> usize {
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
