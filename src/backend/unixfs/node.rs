use cid::Cid;
use cid::multihash::Multihash;
use ipld_dagpb::{PbLink, PbNode};
use sha2::{Digest, Sha256};

use super::{CidVersion, DAG_PB, RAW, SHA2_256};

/// The root of a file, directory or link, as far as a link to it needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The CID of the root block.
    pub cid: Cid,
    /// Bytes of content in and below it.
    pub size: u64,
    /// Bytes of all its blocks, as links to it record them.
    pub dag_size: u64,
}

/// The kind of a node, numbered as in the UnixFS format.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Directory = 1,
    File = 2,
    Symlink = 4,
    Shard = 5,
}

/// The UnixFS message in a dag-pb node. With six fields and two wire types, it is too small for a
/// code generator.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(kind: Kind, capacity: usize) -> Message {
        let mut message = Message(Vec::with_capacity(capacity + 32));
        message.number(1, kind as u64);
        message
    }

    pub(super) fn data(&mut self, data: &[u8]) {
        self.varint(2 << 3 | 2);
        self.varint(data.len() as u64);
        self.0.extend_from_slice(data);
    }

    pub(super) fn file_size(&mut self, size: u64) {
        self.number(3, size);
    }

    pub(super) fn block_size(&mut self, size: u64) {
        self.number(4, size);
    }

    pub(super) fn hash_type(&mut self, hash: u64) {
        self.number(5, hash);
    }

    pub(super) fn fanout(&mut self, fanout: u64) {
        self.number(6, fanout);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// Returns the dag-pb node with this message and these links.
pub(super) fn dag_pb(version: CidVersion, message: Message, links: Vec<PbLink>, size: u64) -> Node {
    let below: u64 = links.iter().filter_map(|link| link.size).sum();
    let block = PbNode { links, data: Some(message.0.into()) }.into_bytes();
    Node { cid: cid_of(version, &block), size, dag_size: below + block.len() as u64 }
}

/// Returns the node of a raw block, whose CID always has version 1.
pub(super) fn raw(data: &[u8]) -> Node {
    let size = data.len() as u64;
    Node { cid: Cid::new_v1(RAW, sha256(data)), size, dag_size: size }
}

/// Returns the node of a symbolic link.
pub fn symlink(target: &[u8], version: CidVersion) -> Node {
    let mut message = Message::new(Kind::Symlink, target.len());
    message.data(target);
    dag_pb(version, message, Vec::new(), 0)
}

pub(super) fn link(name: String, node: &Node) -> PbLink {
    PbLink { cid: node.cid, name: Some(name), size: Some(node.dag_size) }
}

fn cid_of(version: CidVersion, block: &[u8]) -> Cid {
    let hash = sha256(block);
    match version {
        // Fails only for hashes other than SHA-256.
        CidVersion::V0 => Cid::new_v0(hash).unwrap_or_else(|_| Cid::new_v1(DAG_PB, hash)),
        CidVersion::V1 => Cid::new_v1(DAG_PB, hash),
    }
}

fn sha256(data: &[u8]) -> Multihash<64> {
    let digest: [u8; 32] = Sha256::digest(data).into();
    // Fails only for digests of more than 64 bytes.
    Multihash::wrap(SHA2_256, &digest).unwrap_or_default()
}
