use crate::config::UnixFsSettings;
use crate::operation::Fields;

/// Which form CIDs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CidVersion {
    /// `Qm…`: dag-pb and SHA-256, nothing else.
    V0,
    /// `bafy…`, `bafk…`.
    V1,
}

/// How the size of a directory is measured against the limit beyond which it is sharded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharding {
    /// Bytes of all names and CIDs: Kubo's default.
    ByLinks,
    /// Bytes of the encoded block: the profile `unixfs-v1-2025`.
    ByBlock,
}

/// Everything besides the content that decides a CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which form CIDs have.
    pub cid_version: CidVersion,
    /// Whether the chunks of a file are raw blocks rather than wrapped in dag-pb.
    pub raw_leaves: bool,
    /// Bytes in a chunk.
    pub chunk_size: usize,
    /// Links in one node of a file.
    pub max_links: usize,
    /// When a directory is sharded.
    pub sharding: Sharding,
}

/// Kubo refuses larger chunks: a block has to stay below 2 MiB.
const MAX_CHUNK_SIZE: usize = 2_096_896;

/// Nodes of a file with more links would come near the same limit.
const MAX_MAX_LINKS: usize = 16_384;

impl Default for Options {
    /// What `ipfs add` does unless told otherwise: the profile `unixfs-v0-2015`.
    fn default() -> Options {
        Options {
            cid_version: CidVersion::V0,
            raw_leaves: false,
            chunk_size: 256 << 10,
            max_links: 174,
            sharding: Sharding::ByLinks,
        }
    }
}

impl From<&UnixFsSettings> for Options {
    fn from(settings: &UnixFsSettings) -> Options {
        Options {
            cid_version: if settings.cid_version == 1 { CidVersion::V1 } else { CidVersion::V0 },
            raw_leaves: settings.raw_leaves.unwrap_or(settings.cid_version == 1),
            chunk_size: usize::try_from(settings.chunk_size).unwrap_or(usize::MAX),
            max_links: settings.max_links as usize,
            ..Options::default()
        }
    }
}

impl Options {
    /// The options a profile name stands for: `unixfs-v0-2015`, `unixfs-v1-2025`, or the short
    /// form `v1-raw-1m-1024` (version, leaves, chunk size, links).
    pub fn profile(name: &str) -> Option<Options> {
        let short = match name {
            "unixfs-v0-2015" | "legacy-cid-v0" => "v0-256k-174",
            "unixfs-v1-2025" => "v1-raw-1m-1024",
            other => other,
        };
        let (cid_version, raw_leaves, sizes) = if let Some(sizes) = short.strip_prefix("v0-raw-") {
            (CidVersion::V0, true, sizes)
        } else if let Some(sizes) = short.strip_prefix("v0-") {
            (CidVersion::V0, false, sizes)
        } else if let Some(sizes) = short.strip_prefix("v1-raw-") {
            (CidVersion::V1, true, sizes)
        } else {
            (CidVersion::V1, false, short.strip_prefix("v1-noraw-")?)
        };
        let (chunk_size, max_links) = match sizes {
            "256k-174" => (256 << 10, 174),
            "256k-1024" => (256 << 10, 1024),
            "1m-1024" => (1 << 20, 1024),
            "1m-174" => (1 << 20, 174),
            "1k-174" => (1 << 10, 174),
            _ => return None,
        };
        // Measuring by block belongs to the profile as a whole: Kubo has no such request parameter.
        let sharding =
            if short == "v1-raw-1m-1024" { Sharding::ByBlock } else { Sharding::ByLinks };
        Some(Options { cid_version, raw_leaves, chunk_size, max_links, sharding })
    }

    /// These options, overridden by the parameters `profile`, `cid_version`, `raw_leaves`,
    /// `chunk_size` (or `chunker`, as Kubo calls it) and `max_links` of an operation; the error
    /// says which one is wrong.
    pub fn overridden(mut self, parameters: &Fields) -> Result<Options, String> {
        if let Some(name) = parameters.get("profile") {
            self = Options::profile(name).ok_or_else(|| {
                format!(
                    "profile `{name}` is unknown; known are `unixfs-v0-2015` and `unixfs-v1-2025`"
                )
            })?;
        }
        if let Some(text) = parameters.get("cid_version") {
            let version = match text.as_str() {
                "0" => CidVersion::V0,
                "1" => CidVersion::V1,
                _ => return Err(format!("cid_version must be 0 or 1, not `{text}`")),
            };
            // As in Kubo, version 1 brings raw leaves with it unless they are spoken of.
            if version != self.cid_version {
                self.cid_version = version;
                self.raw_leaves = version == CidVersion::V1;
            }
        }
        if let Some(text) = parameters.get("raw_leaves") {
            self.raw_leaves = match text.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(format!("raw_leaves must be `true` or `false`, not `{text}`")),
            };
        }
        self.chunk_size =
            number(parameters, "chunk_size", 1, MAX_CHUNK_SIZE)?.unwrap_or(self.chunk_size);
        if let Some(text) = parameters.get("chunker") {
            let size = text.strip_prefix("size-").and_then(|size| size.parse().ok());
            self.chunk_size =
                size.filter(|size| (1..=MAX_CHUNK_SIZE).contains(size)).ok_or_else(|| {
                    format!(
                        "chunker must be `size-N` with N from 1 to {MAX_CHUNK_SIZE}, not `{text}`; \
                     others give no lasting CIDs"
                    )
                })?;
        }
        self.max_links =
            number(parameters, "max_links", 2, MAX_MAX_LINKS)?.unwrap_or(self.max_links);
        Ok(self)
    }
}

fn number(
    parameters: &Fields,
    name: &str,
    min: usize,
    max: usize,
) -> Result<Option<usize>, String> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    match text.parse::<usize>() {
        Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
        _ => Err(format!("{name} must be a number from {min} to {max}, not `{text}`")),
    }
}
