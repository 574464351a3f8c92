//! Large directories: a tree of blocks (HAMT) in which the hash of its name locates an entry.

use super::CidVersion;
use super::child::{Child, DirectoryError};
use super::node::{self, Kind, Message, Node};

/// The number of slots in one block; one byte of the hash selects the slot.
const FANOUT: u64 = 256;

/// The code of murmur3-x64-64, the hash of names.
const MURMUR3_X64_64: u64 = 0x22;

/// Returns the root node of the sharded directory with these entries.
pub(super) fn sharded(children: &[Child], version: CidVersion) -> Result<Node, DirectoryError> {
    let mut entries: Vec<_> = children.iter().map(|child| (hash(&child.name), child)).collect();
    entries.sort_unstable_by_key(|(hash, _)| *hash);
    shard(&entries, 0, version)
}

/// Returns the shard at this depth. The entries are sorted, and their hashes agree in all bytes
/// before it.
fn shard(
    entries: &[([u8; 8], &Child)],
    depth: usize,
    version: CidVersion,
) -> Result<Node, DirectoryError> {
    let mut links = Vec::new();
    let mut used = [0u8; FANOUT as usize / 8];
    let mut size = 0;
    for group in entries.chunk_by(|(a, _), (b, _)| a[depth] == b[depth]) {
        let [(hash, child), others @ ..] = group else { continue };
        let index = hash[depth];
        // The lowest slot is the last bit of the field.
        used[used.len() - 1 - usize::from(index / 8)] |= 1 << (index % 8);
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
    let leading = used.iter().take_while(|byte| **byte == 0).count();
    let mut message = Message::new(Kind::Shard, used.len());
    message.data(&used[leading..]);
    message.hash_type(MURMUR3_X64_64);
    message.fanout(FANOUT);
    Ok(node::dag_pb(version, message, links, size))
}

fn hash(name: &str) -> [u8; 8] {
    // Reading from memory cannot fail. The 64-bit hash is the first half of the 128-bit one.
    let both = murmur3::murmur3_x64_128(&mut name.as_bytes(), 0).unwrap_or_default();
    (both as u64).to_be_bytes()
}
