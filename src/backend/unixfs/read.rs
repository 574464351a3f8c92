//! Verifying and decoding blocks.

use ipld_dagpb::PbNode;
use sha2::{Digest, Sha256};

use super::node::Kind;
use super::{Cid, DAG_PB, RAW, SHA2_256};

/// The code of the identity hash, which is the content itself.
const IDENTITY: u64 = 0x00;

/// A decoded block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// A part of a file: the data in the block, followed by that of other blocks.
    File {
        /// Content in the block itself.
        data: Vec<u8>,
        /// The blocks of the rest, in order.
        parts: Vec<Cid>,
        /// Bytes of content in the block and its parts.
        size: u64,
    },
    /// A directory.
    Directory(Vec<(String, Cid)>),
    /// A part of a large directory: entries, and further parts.
    Shard {
        /// Names, and the CIDs of the entries.
        entries: Vec<(String, Cid)>,
        /// The blocks of further parts.
        parts: Vec<Cid>,
    },
    /// A symbolic link.
    Symlink(String),
}

/// The reason why a block cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes do not have the hash.
    #[error("the received bytes do not have its hash")]
    OtherContent,
    /// The hash function is not supported.
    #[error("its hash function {0:#x} is not supported")]
    UnknownHash(u64),
    /// The codec is not one of UnixFS.
    #[error("its codec {0:#x} is not one of files and directories")]
    UnknownCodec(u64),
    /// The block is neither a file nor a directory.
    #[error("it is neither a file nor a directory: {0}")]
    Malformed(&'static str),
}

/// Returns the content that the CID itself contains, if it has an identity hash.
pub fn inline(cid: &Cid) -> Option<&[u8]> {
    (cid.hash().code() == IDENTITY).then(|| cid.hash().digest())
}

/// Fails if the bytes are not the block of the CID.
pub fn verify(cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
    let digest = cid.hash().digest();
    let is_same = match cid.hash().code() {
        SHA2_256 => Sha256::digest(bytes)[..] == *digest,
        IDENTITY => bytes == digest,
        other => return Err(BlockError::UnknownHash(other)),
    };
    if is_same { Ok(()) } else { Err(BlockError::OtherContent) }
}

/// Decodes the block of a CID, which must have been verified.
pub fn decode(cid: &Cid, bytes: Vec<u8>) -> Result<Block, BlockError> {
    match cid.codec() {
        RAW => Ok(Block::File { size: bytes.len() as u64, data: bytes, parts: Vec::new() }),
        DAG_PB => {
            let node = PbNode::from_bytes(bytes.into())
                .map_err(|_| BlockError::Malformed("it is not valid dag-pb"))?;
            let message = node.data.ok_or(BlockError::Malformed("it has no UnixFS data"))?;
            let message = Fields::read(&message)
                .ok_or(BlockError::Malformed("its UnixFS data is truncated"))?;
            let links =
                node.links.into_iter().map(|link| (link.name.unwrap_or_default(), link.cid));
            message.block(links.collect())
        }
        other => Err(BlockError::UnknownCodec(other)),
    }
}

/// The fields of a node's UnixFS message.
#[derive(Debug, Default)]
struct Fields {
    kind: Option<u64>,
    data: Vec<u8>,
    size: Option<u64>,
    fanout: Option<u64>,
}

impl Fields {
    fn read(mut bytes: &[u8]) -> Option<Fields> {
        let mut fields = Fields::default();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let (field, wire_type) = (tag >> 3, tag & 7);
            match wire_type {
                0 => {
                    let value = varint(&mut bytes)?;
                    match field {
                        1 => fields.kind = Some(value),
                        3 => fields.size = Some(value),
                        6 => fields.fanout = Some(value),
                        _ => {}
                    }
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    let (value, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    if field == 2 {
                        fields.data = value.to_vec();
                    }
                }
                1 => bytes = bytes.get(8..)?,
                5 => bytes = bytes.get(4..)?,
                _ => return None,
            }
        }
        Some(fields)
    }

    fn block(self, links: Vec<(String, Cid)>) -> Result<Block, BlockError> {
        const RAW_KIND: u64 = 0;
        let kind = self.kind.ok_or(BlockError::Malformed("its kind is missing"))?;
        match kind {
            kind if kind == Kind::File as u64 || kind == RAW_KIND => {
                let size = self.size.unwrap_or(self.data.len() as u64);
                Ok(Block::File {
                    data: self.data,
                    parts: links.into_iter().map(|(_, cid)| cid).collect(),
                    size,
                })
            }
            kind if kind == Kind::Directory as u64 => Ok(Block::Directory(links)),
            kind if kind == Kind::Symlink as u64 => String::from_utf8(self.data)
                .map(Block::Symlink)
                .map_err(|_| BlockError::Malformed("the target of the link is not UTF-8")),
            kind if kind == Kind::Shard as u64 => {
                let fanout = self
                    .fanout
                    .filter(|fanout| *fanout > 1)
                    .ok_or(BlockError::Malformed("its fanout is missing or too small"))?;
                let width = format!("{:X}", fanout - 1).len();
                let (mut entries, mut parts) = (Vec::new(), Vec::new());
                for (name, cid) in links {
                    match name.split_at_checked(width) {
                        Some((_, "")) => parts.push(cid),
                        Some((_, name)) => entries.push((name.to_owned(), cid)),
                        None => return Err(BlockError::Malformed("a name in it is too short")),
                    }
                }
                Ok(Block::Shard { entries, parts })
            }
            _ => Err(BlockError::Malformed("its kind is unknown")),
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
