//! UnixFS: the blocks of files, directories and links, and thereby their CIDs.
//!
//! CIDs are computed from streamed content, and equal those of Kubo with the same options; blocks
//! are not kept. Blocks of any options can be decoded.

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
pub use directory::{Directory, directory, directory_in_form};
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
