//! UnixFS: how files, directories and links become blocks, and thereby which CID they have.
//!
//! Only CIDs are computed here, from content that streams by; no block is kept. What comes out is
//! what Kubo gives for the same options. Blocks of others are read here too, whatever options made
//! them.

mod child;
mod directory;
mod file;
mod hamt;
mod node;
mod options;
#[cfg(any(test, feature = "ipfs"))]
mod read;
#[cfg(test)]
mod tests;

pub use cid::{Cid, Version};

pub use child::Child;
pub use directory::{Directory, directory, directory_of_shape};
pub use file::FileHasher;
pub use node::{Node, symlink};
pub use options::{CidVersion, Options, Sharding};
#[cfg(any(test, feature = "ipfs"))]
pub use read::{Block, BlockError, decode, inline, verify};

/// The code of raw blocks in CIDs.
pub const RAW: u64 = 0x55;

/// The code of dag-pb blocks in CIDs.
pub const DAG_PB: u64 = 0x70;

/// The code of SHA-256 in CIDs.
pub const SHA2_256: u64 = 0x12;
