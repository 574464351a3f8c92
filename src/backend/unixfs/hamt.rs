//! Large directories: a tree of blocks in which the hash of its name says where an entry is.

use super::CidVersion;
use super::child::{Child, DirectoryError};
use super::node::{self, Kind, Message, Node};

/// Places in one block; each takes one byte of the hash.
const FANOUT: u64 = 256;

/// The code of murmur3-x64-64, the hash of names.
const MURMUR3_X64_64: u64 = 0x22;

/// The root of the sharded directory with these entries.
pub(super) fn sharded(children: &[Child], version: CidVersion) -> Result<Node, DirectoryError> {
    let mut places: Vec<_> = children.iter().map(|child| (hash(&child.name), child)).collect();
    places.sort_unstable_by_key(|(hash, _)| *hash);
    shard(&places, 0, version)
}

/// The shard at this depth for entries whose hashes agree in all bytes before it, sorted.
fn shard(
    places: &[([u8; 8], &Child)],
    depth: usize,
    version: CidVersion,
) -> Result<Node, DirectoryError> {
    let mut links = Vec::new();
    let mut taken = [0u8; FANOUT as usize / 8];
    let mut size = 0;
    for group in places.chunk_by(|(a, _), (b, _)| a[depth] == b[depth]) {
        let [(hash, child), others @ ..] = group else { continue };
        let index = hash[depth];
        // The lowest place is the last bit of the field.
        taken[taken.len() - 1 - usize::from(index / 8)] |= 1 << (index % 8);
        let (name, node) = match others {
            [] => (format!("{index:02X}{}", child.name), child.node),
            [(_, other), ..] if depth + 1 == hash.len() => {
                return Err(DirectoryError::SameHash(child.name.clone(), other.name.clone()));
            }
            _ => (format!("{index:02X}"), shard(group, depth + 1, version)?),
        };
        size += node.size;
        links.push(node::link(name, &node));
    }
    let leading = taken.iter().take_while(|byte| **byte == 0).count();
    let mut message = Message::new(Kind::Shard, taken.len());
    message.data(&taken[leading..]);
    message.hash_type(MURMUR3_X64_64);
    message.fanout(FANOUT);
    Ok(node::dag_pb(version, message, links, size))
}

fn hash(name: &str) -> [u8; 8] {
    // Reading from memory cannot fail. The 64-bit hash is the first half of the 128-bit one.
    let both = murmur3::murmur3_x64_128(&mut name.as_bytes(), 0).unwrap_or_default();
    (both as u64).to_be_bytes()
}
